"""failures: why a run failed, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from described_runs import described, failed_task, state, status
from injected_clock import Clock

from airflow_dbjobs.client import JobsClient
from airflow_dbjobs.client.retry import RetryPolicy
from airflow_dbjobs.client.wait import wait_for_run
from airflow_dbjobs.errors import PlatformFailed, RunCanceled, RunFailed, RunSkipped, RunTimedOut, UserCodeFailed
from airflow_dbjobs.local_workspace import Fault
from airflow_dbjobs.runs import failure
from airflow_dbjobs.runs.failure import LOG_TAIL_LINES, MAX_EXPLAINED_TASKS, TRACE_TAIL_LINES, explain_failure

if TYPE_CHECKING:
    from described_runs import Write

    from airflow_dbjobs.client.models import Run
    from airflow_dbjobs.local_workspace import LocalWorkspace

    Log = pytest.LogCaptureFixture
    Patch = pytest.MonkeyPatch

CONDITION = {"condition_task": {"op": "EQUAL_TO", "left": "1", "right": "1"}}
FAILED_RUN = described("INTERNAL_ERROR", "FAILED", tasks=[failed_task("a", 8), failed_task("b", 9)])


class TestUnreadableExplanation:
    @pytest.mark.parametrize(
        ("fault", "words"),
        [
            (
                {"status": 403, "body": {"message": "not yours"}},
                "(its output could not be read: GET jobs/runs/get-output answered 403",
            ),
            ({"status": 500}, "(its output could not be read: GET jobs/runs/get-output answered 500"),
            ({"cut": "before"}, "(its output could not be read: GET jobs/runs/get-output: cannot reach"),
            (
                {"status": 200, "body": "<html>"},
                "(its output could not be read: GET jobs/runs/get-output answered 200 without a JSON object",
            ),
            ({"status": 200, "body": {}}, "    its state"),
        ],
        ids=str,
    )
    def test_keeps_the_runs_own_failure(
        self, client: JobsClient, workspace: LocalWorkspace, monkeypatch: Patch, fault: dict[str, Any], words: str
    ) -> None:
        monkeypatch.setattr(failure, "EXPLANATION_POLICY", RetryPolicy(retry_budget=0))
        workspace.faults.append(Fault("runs/get-output", times=None, **fault))
        error = explain_failure(client, FAILED_RUN)
        assert type(error) is UserCodeFailed
        assert str(error).count(words) == 2
        assert "    its state\n" in str(error)
        assert "Task b (TERMINATED/FAILED, run 9): https://x/9\n" in str(error)

    def test_delays_the_failure_by_seconds_only(self, client: JobsClient, workspace: LocalWorkspace) -> None:
        clock = Clock()
        clock.rule(client)
        workspace.faults.append(Fault("runs/get-output", status=503, times=None))
        explain_failure(client, FAILED_RUN)
        assert 0 < clock.now <= 30

    def test_closes_its_own_client_but_not_the_callers(self, client: JobsClient) -> None:
        with mock.patch.object(JobsClient, "close", autospec=True) as close:
            explain_failure(client, FAILED_RUN)
        ((quick,),) = (call.args for call in close.call_args_list)
        assert quick is not client


class TestFailedTasks:
    def test_are_those_that_failed_by_themselves(self) -> None:
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
        assert [task.task_key for task in run.failed_tasks] == ["failed", "lost"]


class TestMessage:
    def test_has_state_tasks_traces_and_pages(
        self, client: JobsClient, workspace: LocalWorkspace, notebook: Write
    ) -> None:
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
        error = explain_failure(client, run)
        lines = str(error).splitlines()
        (load,) = [task for task in run.tasks if task.task_key == "load"]
        assert lines[0].startswith(
            f"Run {run.run_id} of job {job_id} failed (INTERNAL_ERROR/FAILED): Failed: task load."
        )
        assert lines[1] == f"Task load (TERMINATED/FAILED, run {load.run_id}): {load.page_url}"
        assert lines[2] == "    ValueError: no such table"
        assert "    Traceback (most recent call last):" in lines
        assert any("in load" in line for line in lines)
        assert lines[-1] == f"See {run.page_url}"
        assert "report" not in str(error), "what did not run because of it explains nothing"
        assert workspace.requests["runs/get-output"] == 1
        assert type(error) is UserCodeFailed
        assert (error.run_id, error.page_url, error.result_state) == (run.run_id, run.page_url, "FAILED")
        assert error.failed_tasks == ("load",)

    def test_explains_a_run_without_a_list_of_tasks(self, workspace: LocalWorkspace, notebook: Write) -> None:
        client = JobsClient(workspace.base_url, token=workspace.token, api_version="2.0")
        task = notebook("nb", "raise ValueError('no such table')")["notebook_task"]
        run = wait_for_run(client, client.submit_run({"notebook_task": task}), period=0.01)
        text = str(explain_failure(client, run))
        assert f"Run {run.run_id} of job {run.job_id} failed (TERMINATED/FAILED)" in text
        assert "\n    ValueError: no such table\n" in text

    def test_has_the_end_of_a_trace_without_colours_or_links(
        self, client: JobsClient, workspace: LocalWorkspace
    ) -> None:
        link = "\x1b]8;;https://x/nb\x1b\\frame\x1b]8;;\x07"
        trace = "\n".join(f"\x1b[?25l\x1b[0;31m{link} {number}\x1b[0m" for number in range(100))
        output = {"error": "\x1b[1mValueError\x1b[22m: x", "error_trace": trace}
        workspace.faults.append(Fault("runs/get-output", status=200, body=output))
        text = str(explain_failure(client, described("INTERNAL_ERROR", "FAILED", tasks=[failed_task("a", 8)])))
        shown = [f"    frame {number}" for number in range(100 - TRACE_TAIL_LINES, 100)]
        assert "\n".join(["    ValueError: x", "    …", *shown, "See "]) in text
        assert "\x1b" not in text

    def test_uses_the_state_of_a_task_that_has_no_run(self, client: JobsClient, workspace: LocalWorkspace) -> None:
        task = {"task_key": "a", **state("TERMINATED", "FAILED", "its state")}
        assert "\n    its state\n" in str(explain_failure(client, described("INTERNAL_ERROR", "FAILED", tasks=[task])))
        assert workspace.requests["runs/get-output"] == 0

    def test_explains_only_the_first_of_many_failed_tasks(self, client: JobsClient, workspace: LocalWorkspace) -> None:
        workspace.faults.append(Fault("runs/get-output", status=200, body={"error": "boom"}, times=None))
        tasks = [failed_task(f"t{number}", 100 + number) for number in range(MAX_EXPLAINED_TASKS + 3)]
        text = str(explain_failure(client, described("INTERNAL_ERROR", "FAILED", tasks=tasks)))
        assert text.count("    boom") == workspace.requests["runs/get-output"] == MAX_EXPLAINED_TASKS
        assert "… and 3 more failed tasks." in text

    @pytest.mark.parametrize(
        ("run", "kind", "words"),
        [
            (
                described("SKIPPED", None, "at its limit"),
                RunSkipped,
                (
                    "Run 7 of job 3 was skipped (SKIPPED): at its limit\n"
                    "It never started: its job was at max_concurrent_runs."
                ),
            ),
            (
                described("TERMINATED", "TIMEDOUT", "slow"),
                RunTimedOut,
                "reached its timeout (TERMINATED/TIMEDOUT): slow",
            ),
            (described("TERMINATED", "CANCELED"), RunCanceled, "was cancelled (TERMINATED/CANCELED): no message"),
            (described("INTERNAL_ERROR", None, "no cluster"), PlatformFailed, "failed (INTERNAL_ERROR): no cluster"),
            (described("TERMINATED", "EVICTED"), RunFailed, "failed (TERMINATED/EVICTED)"),
            (described("TERMINATED", "SUCCESS_WITH_FAILURES"), RunFailed, "partially succeeded"),
        ],
    )
    def test_has_error_class_and_words_of_the_outcome(
        self, client: JobsClient, workspace: LocalWorkspace, run: Run, kind: type, words: str
    ) -> None:
        error = explain_failure(client, run)
        assert type(error) is kind
        assert words in str(error)
        assert str(error).endswith("See https://x/7")
        if kind is RunSkipped:
            assert workspace.requests["runs/get-output"] == 0
            assert "on_skipped='skip'" in str(error)


class TestPrintedOutput:
    def test_has_its_end_logged_but_not_in_the_error(
        self, client: JobsClient, workspace: LocalWorkspace, caplog: Log
    ) -> None:
        caplog.set_level("INFO")
        printed = "".join(f"\x1b[32mline {number}\x1b[0m\r\n" for number in range(100))
        workspace.faults.append(Fault("runs/get-output", status=200, body={"error": "boom", "logs": printed}))
        text = str(explain_failure(client, described("INTERNAL_ERROR", "FAILED", tasks=[failed_task("a", 8)])))
        (record,) = [record for record in caplog.records if record.name == failure.__name__]
        shown = [f"    line {number}" for number in range(100 - LOG_TAIL_LINES, 100)]
        assert record.getMessage() == "\n".join(["The last lines of the output of task a:", "    …", *shown])
        assert "line 99" not in text

    @pytest.mark.parametrize("logs", [None, "", "\n\n"])
    def test_that_is_empty_is_not_logged(
        self, client: JobsClient, workspace: LocalWorkspace, caplog: Log, logs: str | None
    ) -> None:
        caplog.set_level("INFO")
        workspace.faults.append(Fault("runs/get-output", status=200, body={"error": "boom", "logs": logs}))
        explain_failure(client, described("INTERNAL_ERROR", "FAILED", tasks=[failed_task("a", 8)]))
        assert [record for record in caplog.records if record.name == failure.__name__] == []


class TestSecrets:
    def test_are_masked_in_error_and_log(self, client: JobsClient, workspace: LocalWorkspace, caplog: Log) -> None:
        caplog.set_level("INFO")
        secret = "dapi" + "0123456789abcdef" * 2
        output = {"error": f"no access with {secret}", "error_trace": f"token {secret}", "logs": f"using {secret}\n"}
        workspace.faults.append(Fault("runs/get-output", status=200, body=output))
        text = str(explain_failure(client, described("INTERNAL_ERROR", "FAILED", tasks=[failed_task("a", 8)])))
        assert "no access with ***" in text
        assert "using ***" in caplog.text
        assert secret not in text + caplog.text
