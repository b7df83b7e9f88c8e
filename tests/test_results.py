"""results: what a run returned, and why it failed, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from injected_clock import Clock

from airflow_dbjobs import results
from airflow_dbjobs.client import JobsClient
from airflow_dbjobs.errors import RunCanceled, RunFailed, RunSkipped, RunTimedOut
from airflow_dbjobs.local_workspace import Fault
from airflow_dbjobs.results import MOST_TASKS_EXPLAINED, TRACE_TAIL_LINES, failed_tasks, failure_of, result_of
from airflow_dbjobs.retries import RetryPolicy
from airflow_dbjobs.runs import Outcome, Run
from airflow_dbjobs.waiting import wait_for_run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow_dbjobs.local_workspace import LocalWorkspace

    Write = Callable[..., dict[str, Any]]
    Log = pytest.LogCaptureFixture
    Patch = pytest.MonkeyPatch

CONDITION = {"condition_task": {"op": "EQUAL_TO", "left": "1", "right": "1"}}


@pytest.fixture
def notebook(tmp_path: Path) -> Write:
    """Return what writes a notebook and returns its task."""

    def write(key: str, code: str, **fields: Any) -> dict[str, Any]:
        (tmp_path / "workspace" / f"{key}.py").write_text(f"# Databricks notebook source\n{code}\n")
        return {"task_key": key, "notebook_task": {"notebook_path": f"/{key}"}, **fields}

    return write


def finished(client: JobsClient, *tasks: dict[str, Any]) -> Run:
    return wait_for_run(client, client.submit_run({"tasks": list(tasks)}), period=0.01)


def described(life: str, result: str | None = None, message: str = "", **fields: Any) -> Run:
    """Return run 7 of job 3 in a state that takes too long, or cannot, be brought about here."""
    run = {"run_id": 7, "job_id": 3, "run_page_url": "https://x/7", **state(life, result, message), **fields}
    return Run.from_json(run)


def state(life: str, result: str | None = None, message: str = "") -> dict[str, Any]:
    return {"state": {"life_cycle_state": life, "result_state": result, "state_message": message}}


def status(code: str) -> dict[str, Any]:
    return {"status": {"state": "TERMINATED", "termination_details": {"code": code}}}


def failed_task(key: str, run_id: int) -> dict[str, Any]:
    url = f"https://x/{run_id}"
    return {"task_key": key, "run_id": run_id, "run_page_url": url, **state("TERMINATED", "FAILED", "its state")}


NOTEBOOK_RUN = described("TERMINATED", "SUCCESS", task={"notebook_task": {}})
FAILED_RUN = described("INTERNAL_ERROR", "FAILED", tasks=[failed_task("a", 8), failed_task("b", 9)])


@pytest.mark.parametrize("flat", [False, True], ids=["tasks", "flat 2.0"])
def test_a_run_of_one_notebook_returns_its_exit_value(workspace: LocalWorkspace, notebook: Write, flat: bool) -> None:
    client = JobsClient(workspace.base_url, token=workspace.token, api_version="2.0" if flat else "2.2")
    task = notebook("nb", "dbutils.notebook.exit('{\"rows\": [1, 2.5, null]}')")
    payload = {"notebook_task": task["notebook_task"]} if flat else {"tasks": [task]}
    run = wait_for_run(client, client.submit_run(payload), period=0.01)
    assert result_of(client, run) == {"rows": [1, 2.5, None]}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain words", "plain words"),
        ("12", 12),
        ('"quoted"', "quoted"),
        ("", ""),
        ("null", None),
        ("{'not': 'json'}", "{'not': 'json'}"),
        (None, None),
        # Python reads more than JSON, and thus XCom, can hold.
        *[(text, text) for text in ("NaN", "[-Infinity, 1]", '{"a": NaN}', "1e999", "[" * 100_000)],
    ],
    ids=lambda text: repr(text)[:30],
)
def test_an_exit_value_is_parsed_only_if_it_is_json(
    client: JobsClient, workspace: LocalWorkspace, text: str | None, value: object
) -> None:
    workspace.faults.append(Fault("runs/get-output", status=200, body={"notebook_output": {"result": text}}))
    assert result_of(client, NOTEBOOK_RUN) == value


def test_a_run_of_several_tasks_returns_a_dict(client: JobsClient, notebook: Write) -> None:
    run = finished(
        client,
        notebook("b", "dbutils.notebook.exit('2')"),
        notebook("a", "dbutils.notebook.exit('x')"),
        notebook("silent", "pass"),
        {"task_key": "c", **CONDITION},
    )
    assert result_of(client, run) == {"b": 2, "a": "x"}


def test_only_notebooks_that_succeeded_are_asked(
    client: JobsClient, workspace: LocalWorkspace, notebook: Write
) -> None:
    assert result_of(client, finished(client, {"task_key": "c", **CONDITION})) is None
    assert result_of(client, finished(client, {"task_key": "c", **CONDITION}, {"task_key": "d", **CONDITION})) is None
    assert result_of(client, described("TERMINATED", "SUCCESS")) is None
    assert workspace.requests["runs/get-output"] == 0
    late = {"depends_on": [{"task_key": "bad"}], "run_if": "ALL_DONE"}
    run = finished(client, notebook("bad", "1 / 0"), notebook("good", "dbutils.notebook.exit('1')", **late))
    assert run.outcome is Outcome.PARTIAL_SUCCESS
    assert result_of(client, run) == {"good": 1}
    assert workspace.requests["runs/get-output"] == 1


def test_a_result_that_is_forbidden_or_cut_comes_with_a_warning(
    client: JobsClient, workspace: LocalWorkspace, caplog: Log
) -> None:
    cut = {"notebook_output": {"result": "[1, 2", "truncated": True}}
    workspace.faults += [
        Fault("runs/get-output", status=403, body={"message": "not yours"}),
        Fault("runs/get-output", status=200, body=cut),
    ]
    assert [result_of(client, NOTEBOOK_RUN) for _ in range(2)] == [None, "[1, 2"]
    forbidden, shortened = (record.getMessage() for record in caplog.records)
    assert "output of run 7 cannot be read" in forbidden
    assert "not yours" in forbidden
    assert "5 MB" in shortened


@pytest.mark.parametrize("outage", [{"cut": "before"}, {"status": 503}, {"status": 429}, {"status": 200}], ids=str)
def test_a_result_is_waited_for_through_an_outage(
    client: JobsClient, workspace: LocalWorkspace, outage: dict[str, Any]
) -> None:
    clock = Clock()
    clock.rule(client)
    answer = Fault("runs/get-output", status=200, body={"notebook_output": {"result": "x"}})
    workspace.faults += [Fault("runs/get-output", times=2, **outage), answer]
    assert result_of(client.with_policy(RetryPolicy(retry_budget=0)), NOTEBOOK_RUN) == "x"
    assert len(clock.waits) == 2


def test_a_failure_names_all_there_is_to_know(client: JobsClient, workspace: LocalWorkspace, notebook: Write) -> None:
    job_id = client.create_job(
        {
            "tasks": [
                notebook("load", "def load():\n    raise ValueError('no such table')\nload()"),
                notebook("report", "pass", depends_on=[{"task_key": "load"}]),
                {"task_key": "fine", **CONDITION},
            ]
        }
    )
    run = wait_for_run(client, client.run_now({"job_id": job_id}), period=0.01)
    error = failure_of(client, run)
    lines = str(error).splitlines()
    (load,) = [task for task in run.tasks if task.task_key == "load"]
    assert lines[0].startswith(f"Run {run.run_id} of job {job_id} failed (INTERNAL_ERROR/FAILED): Failed: task load.")
    assert lines[1] == f"Task load (TERMINATED/FAILED, run {load.run_id}): {load.page_url}"
    assert lines[2] == "    ValueError: no such table"
    assert "    Traceback (most recent call last):" in lines
    assert any("in load" in line for line in lines)
    assert lines[-1] == f"See {run.page_url}"
    assert "report" not in str(error), "what did not run because of it explains nothing"
    assert workspace.requests["runs/get-output"] == 1
    assert type(error) is RunFailed
    assert (error.run_id, error.page_url, error.result_state) == (run.run_id, run.page_url, "FAILED")


def test_a_flat_run_explains_itself(workspace: LocalWorkspace, notebook: Write) -> None:
    client = JobsClient(workspace.base_url, token=workspace.token, api_version="2.0")
    task = notebook("nb", "raise ValueError('no such table')")["notebook_task"]
    run = wait_for_run(client, client.submit_run({"notebook_task": task}), period=0.01)
    text = str(failure_of(client, run))
    assert f"Run {run.run_id} of job {run.job_id} failed (TERMINATED/FAILED)" in text
    assert "\n    ValueError: no such table\n" in text


def test_of_a_trace_the_end_is_shown_and_no_colours_or_links(client: JobsClient, workspace: LocalWorkspace) -> None:
    link = "\x1b]8;;https://x/nb\x1b\\frame\x1b]8;;\x07"
    trace = "\n".join(f"\x1b[?25l\x1b[0;31m{link} {number}\x1b[0m" for number in range(100))
    output = {"error": "\x1b[1mValueError\x1b[22m: x", "error_trace": trace}
    workspace.faults.append(Fault("runs/get-output", status=200, body=output))
    text = str(failure_of(client, described("INTERNAL_ERROR", "FAILED", tasks=[failed_task("a", 8)])))
    shown = [f"    frame {number}" for number in range(100 - TRACE_TAIL_LINES, 100)]
    assert "\n".join(["    ValueError: x", "    …", *shown, "See "]) in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"status": 403, "body": {"message": "not yours"}}, "(no output: GET jobs/runs/get-output answered 403"),
        ({"status": 500}, "(no output: GET jobs/runs/get-output answered 500"),
        ({"cut": "before"}, "(no output: GET jobs/runs/get-output: cannot reach"),
        ({"status": 200, "body": "<html>"}, "(no output: GET jobs/runs/get-output answered 200 without a JSON object"),
        ({"status": 200, "body": {}}, "    its state"),
    ],
    ids=str,
)
def test_a_failure_stays_the_runs_own_where_its_explanation_cannot_be_read(
    client: JobsClient, workspace: LocalWorkspace, monkeypatch: Patch, fault: dict[str, Any], words: str
) -> None:
    monkeypatch.setattr(results, "EXPLANATION_POLICY", RetryPolicy(retry_budget=0))
    workspace.faults.append(Fault("runs/get-output", times=None, **fault))
    error = failure_of(client, FAILED_RUN)
    assert type(error) is RunFailed
    assert str(error).count(words) == 2
    assert "    its state\n" in str(error)
    assert "Task b (TERMINATED/FAILED, run 9): https://x/9\n" in str(error)


def test_an_outage_delays_an_explanation_by_seconds(
    client: JobsClient, workspace: LocalWorkspace, monkeypatch: Patch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(client.transport, "clock", lambda: sum(waits))
    monkeypatch.setattr(client.transport, "sleep", waits.append)
    workspace.faults.append(Fault("runs/get-output", status=503, times=None))
    failure_of(client, FAILED_RUN)
    assert 0 < sum(waits) <= 30


def test_only_tasks_that_failed_by_themselves_are_failed_tasks() -> None:
    ends = {
        "failed": state("TERMINATED", "FAILED"),
        "fine": state("TERMINATED", "SUCCESS"),
        "partly": state("TERMINATED", "SUCCESS_WITH_FAILURES"),
        "running": state("RUNNING"),
        **{result: state("TERMINATED", result) for result in ("UPSTREAM_FAILED", "UPSTREAM_CANCELED", "EXCLUDED")},
        "switched off": state("TERMINATED", "DISABLED"),
        # As a reply tells it that has only a `status`.
        "lost": status("CLOUD_FAILURE"),
        **{code: status(code) for code in ("SUCCESS", "SKIPPED", "DISABLED")},
    }
    tasks = [{"task_key": key, "run_id": 1, **end} for key, end in ends.items()]
    run = described("INTERNAL_ERROR", "FAILED", tasks=tasks)
    assert [task.task_key for task in failed_tasks(run)] == ["failed", "lost"]


def test_of_very_many_failed_tasks_the_first_are_explained(client: JobsClient, workspace: LocalWorkspace) -> None:
    workspace.faults.append(Fault("runs/get-output", status=200, body={"error": "boom"}, times=None))
    tasks = [failed_task(f"t{number}", 100 + number) for number in range(MOST_TASKS_EXPLAINED + 3)]
    text = str(failure_of(client, described("INTERNAL_ERROR", "FAILED", tasks=tasks)))
    assert text.count("    boom") == workspace.requests["runs/get-output"] == MOST_TASKS_EXPLAINED
    assert "… and 3 more failed tasks." in text


@pytest.mark.parametrize(
    ("run", "kind", "words"),
    [
        (
            described("SKIPPED", None, "at its limit"),
            RunSkipped,
            "Run 7 of job 3 was skipped (SKIPPED): at its limit\nIt never started: its job was at max_concurrent_runs.",
        ),
        (described("TERMINATED", "TIMEDOUT", "slow"), RunTimedOut, "reached its timeout (TERMINATED/TIMEDOUT): slow"),
        (described("TERMINATED", "CANCELED"), RunCanceled, "was cancelled (TERMINATED/CANCELED): no message"),
        (described("INTERNAL_ERROR", None, "no cluster"), RunFailed, "failed (INTERNAL_ERROR): no cluster"),
        (described("TERMINATED", "EVICTED"), RunFailed, "failed (TERMINATED/EVICTED)"),
        (described("TERMINATED", "SUCCESS_WITH_FAILURES"), RunFailed, "succeeded in part"),
    ],
)
def test_each_outcome_has_its_error_and_its_words(
    client: JobsClient, workspace: LocalWorkspace, run: Run, kind: type, words: str
) -> None:
    error = failure_of(client, run)
    assert type(error) is kind
    assert words in str(error)
    assert str(error).endswith("See https://x/7")
    if kind is RunSkipped:
        assert workspace.requests["runs/get-output"] == 0
        assert "on_skipped='skip'" in str(error)
