"""Why a task failed that ran others, a job or iterations: the cause is the inner one, and so are its words."""

from __future__ import annotations

import re
from contextlib import closing
from typing import Any

import pytest
from rude_server import reply, serving

from airflow_dbjobs.client import JobsClient
from airflow_dbjobs.client.models import Outcome, Run, RunState
from airflow_dbjobs.client.retry import RetryPolicy
from airflow_dbjobs.errors import ClusterFailed, LimitReached, RunFailed, RunSkipped, RunTimedOut, UserCodeFailed
from airflow_dbjobs.runs.failure import MAX_EXPLAINED_TASKS, explain_failure

FAILED = {
    "life_cycle_state": "TERMINATED",
    "result_state": "FAILED",
    "state_message": "Workload failed, see run output",
}
SUCCEEDED = {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"}
CLUSTER_LOST = {
    "life_cycle_state": "INTERNAL_ERROR",
    "result_state": "FAILED",
    "state_message": "Cluster 1 was terminated",
}


def of_one_task(run_id: int, task_run_id: int, kind: str, state: Any = FAILED, **fields: Any) -> dict[str, Any]:
    task = {"task_key": f"t{run_id}", "run_id": task_run_id, "state": state, kind: fields}
    page = f"https://x.example/runs/{run_id}"
    return {"run_id": run_id, "job_id": run_id * 10, "state": FAILED, "run_page_url": page, "tasks": [task]}


def explained(run: dict[str, Any], answers: dict[str, Any]) -> RunFailed:
    """Return the error for a run; `answers` are those of other calls, by endpoint and run."""

    def answer(request: str) -> list[bytes]:
        endpoint, run_id = re.search(r"jobs/runs/([\w-]+)\?run_id=(\d+)", request).groups()
        found = answers.get(f"{endpoint} {run_id}")
        return [reply({"message": "none"}, status="404 No") if found is None else reply(found)]

    with serving(answer) as server, closing(JobsClient(server.url, token="t", retry=RetryPolicy())) as client:
        return explain_failure(client, Run.from_json(run))


class TestChildRun:
    def test_is_explained(self) -> None:
        error = explained(
            of_one_task(1, 11, "run_job_task"),
            {
                "get-output 11": {"run_job_output": {"run_id": 2}},
                "get 2": of_one_task(2, 22, "notebook_task"),
                "get-output 22": {"error": "NameError: x", "error_trace": "line 1\nline 2"},
            },
        )
        assert type(error) is UserCodeFailed
        for words in ("Task t2", "NameError: x", "line 2", "https://x.example/runs/2", "Run 2 of job 20 failed"):
            assert words in str(error)
        assert str(error).endswith("See https://x.example/runs/1")

    def test_decides_the_error_class_at_any_depth(self) -> None:
        answers = {
            "get-output 11": {"run_job_output": {"run_id": 2}},
            "get 2": of_one_task(2, 22, "run_job_task"),
            "get-output 22": {"run_job_output": {"run_id": 3}},
            "get 3": of_one_task(3, 33, "notebook_task", CLUSTER_LOST),
        }
        assert type(explained(of_one_task(1, 11, "run_job_task"), answers)) is ClusterFailed

    @pytest.mark.parametrize(
        ("state", "kind"),
        [
            ({"life_cycle_state": "TERMINATED", "result_state": "TIMEDOUT"}, RunTimedOut),
            ({"life_cycle_state": "TERMINATED", "result_state": "CANCELED"}, RunFailed),
            ({"life_cycle_state": "SKIPPED"}, LimitReached),
            ({"life_cycle_state": "TERMINATED", "result_state": "MAXIMUM_CONCURRENT_RUNS_REACHED"}, LimitReached),
            # It was repaired since.
            ({"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"}, UserCodeFailed),
            ({"life_cycle_state": "RUNNING"}, UserCodeFailed),
        ],
        ids=str,
    )
    def test_decides_by_how_it_ended(self, state: dict[str, str], kind: type[RunFailed]) -> None:
        answers = {"get-output 11": {"run_job_output": {"run_id": 2}}, "get 2": {"run_id": 2, "state": state}}
        assert type(explained(of_one_task(1, 11, "run_job_task"), answers)) is kind

    @pytest.mark.parametrize(
        "answers",
        [
            {},
            {"get-output 11": {}},
            {"get-output 11": {"run_job_output": 5}},
            {"get-output 11": {"run_job_output": {"run_id": [1]}}},
            {"get-output 11": {"run_job_output": {"run_id": 2}}},
            # No run is its own child.
            {"get-output 11": {"run_job_output": {"run_id": 1}}, "get 1": of_one_task(1, 11, "run_job_task")},
        ],
        ids=str,
    )
    def test_that_is_unreadable_leaves_the_tasks_own_message(self, answers: dict[str, Any]) -> None:
        error = explained(of_one_task(1, 11, "run_job_task"), answers)
        assert type(error) is UserCodeFailed
        assert "Workload failed, see run output" in str(error)
        assert str(error).count("Task t1 ") == 1

    def test_shares_the_limit_of_explained_tasks(self) -> None:
        run = of_one_task(1, 11, "run_job_task")
        run["tasks"] = [{**run["tasks"][0], "task_key": f"outer{child}", "run_id": 10 + child} for child in (2, 3)]
        answers = {}
        for child in (2, 3):
            inner = of_one_task(child, 0, "notebook_task")
            inner["tasks"] = [{**inner["tasks"][0], "task_key": f"t{n}", "run_id": child * 100 + n} for n in range(12)]
            answers |= {f"get-output {10 + child}": {"run_job_output": {"run_id": child}}, f"get {child}": inner}
        message = str(explained(run, answers))
        assert message.count("(its output could not be read: ") == MAX_EXPLAINED_TASKS - 1
        assert "… and 12 more failed tasks." in message


LOST = "Cluster 0101-1 was terminated during the run"


def stats(*error_stats: tuple[int, str, str], failed: int = 2, total: int = 3) -> dict[str, Any]:
    messages = [
        {"count": times, "termination_category": code, "error_message": text} for times, code, text in error_stats
    ]
    return {"error_message_stats": messages, "task_run_stats": {"failed_iterations": failed, "total_iterations": total}}


class TestIterations:
    @pytest.mark.parametrize(
        ("error_stats", "kind"),
        [
            (stats((2, "CLUSTER_ERROR", "gone")), ClusterFailed),
            (stats((2, "", LOST)), ClusterFailed),
            (stats((2, "NEW_CATEGORY", LOST)), ClusterFailed),
            (stats((1, "", LOST), (1, "CLUSTER_ERROR", "gone")), ClusterFailed),
            (stats((1, "", LOST), (1, "RUN_EXECUTION_ERROR", "NameError")), RunFailed),
            (stats((2, "", "no cause that is known")), UserCodeFailed),
            ({}, UserCodeFailed),
            ({"error_message_stats": 5}, UserCodeFailed),
            ({"error_message_stats": [], "task_run_stats": [1]}, UserCodeFailed),
        ],
        ids=str,
    )
    def test_decide_the_error_class(self, error_stats: dict[str, Any], kind: type[RunFailed]) -> None:
        assert type(explained(of_one_task(1, 11, "for_each_task", stats=error_stats), {})) is kind

    def test_are_counted_and_their_messages_shown(self) -> None:
        said = str(explained(of_one_task(1, 11, "for_each_task", stats=stats((2, "", LOST))), {}))
        assert "2 of 3 iterations failed." in said
        assert f"2 times: {LOST}" in said

    def test_the_first_that_failed_in_the_end_is_explained(self) -> None:
        run = of_one_task(1, 11, "for_each_task", stats=stats((2, "", LOST)))
        # The first was retried, and succeeded.
        ends = [(21, 0, FAILED), (22, 0, FAILED), (21, 1, SUCCEEDED), (22, 1, FAILED), (23, 1, FAILED)]
        iterations = [
            {"task_key": "one", "run_id": 100 * attempt + run_id, "attempt_number": attempt, "state": state}
            for run_id, attempt, state in ends
        ]
        iterations[3]["run_page_url"] = "https://x.example/runs/122"
        answers = {
            "get 11": {"run_id": 11, "state": FAILED, "iterations": iterations},
            "get-output 122": {"error": "NameError: x", "error_trace": "line 1\nline 2"},
        }
        said = str(explained(run, answers))
        assert (
            "    Iteration one (TERMINATED/FAILED, run 122): https://x.example/runs/122\n        NameError: x\n" in said
        )
        assert said.count("Iteration") == 1

    @pytest.mark.parametrize(
        "answer", [None, {"run_id": 11, "iterations": 5}, {"run_id": 11, "iterations": [{"run_id": "x"}]}]
    )
    def test_that_are_unreadable_leave_the_counts(self, answer: dict[str, Any] | None) -> None:
        run = of_one_task(1, 11, "for_each_task", stats=stats((2, "", LOST)))
        said = str(explained(run, {"get 11": {"state": FAILED, **answer}} if answer else {}))
        assert "2 of 3 iterations failed." in said
        assert "(its iterations could not be read: " in said


class TestSkippedLaunch:
    def test_is_a_skipped_run(self) -> None:
        state = {"life_cycle_state": "TERMINATED", "result_state": "MAXIMUM_CONCURRENT_RUNS_REACHED"}
        assert RunState.from_json({"state": state}).outcome is Outcome.SKIPPED
        assert RunState.from_json({"state": state}).is_any_of({"SKIPPED"})
        assert RunState.from_json({"state": state}).is_any_of({"MAXIMUM_CONCURRENT_RUNS_REACHED"})
        assert type(explained({"run_id": 1, "state": state}, {})) is RunSkipped
