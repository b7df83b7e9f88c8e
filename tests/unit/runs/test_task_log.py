"""story: what a task's log tells of a run's tasks and of its end."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from described_runs import described, state

from airflow_dbjobs.client.models import Run
from airflow_dbjobs.runs.task_log import MAX_LOGGED_TASKS, TaskStateLogger, format_duration, run_summary

Log = pytest.LogCaptureFixture


@pytest.fixture
def logger(caplog: Log) -> TaskStateLogger:
    caplog.set_level(logging.INFO)
    return TaskStateLogger(logging.getLogger("task"))


def running(*tasks: dict[str, Any], **run: Any) -> Run:
    return Run.from_json({"run_id": 7, **state("RUNNING"), "tasks": list(tasks), **run})


def task(key: str, life: str, result: str | None = None, attempt: int = 0, **fields: Any) -> dict[str, Any]:
    run_id = hash((key, attempt)) % 1000 + 1
    return {"task_key": key, "run_id": run_id, "attempt_number": attempt, **state(life, result), **fields}


class TestTaskStateLogger:
    def test_logs_begin_and_end_of_each_task(self, logger: TaskStateLogger, caplog: Log) -> None:
        times = {"start_time": 1_000, "end_time": 126_000, "setup_duration": 60_000, "execution_duration": 65_000}
        for a, b in (
            (task("a", "PENDING"), task("b", "BLOCKED")),
            (task("a", "RUNNING"), task("b", "BLOCKED")),
            (task("a", "RUNNING"), task("b", "BLOCKED")),
            (task("a", "TERMINATED", "SUCCESS", **times), task("b", "PENDING")),
            (task("a", "TERMINATED", "SUCCESS", **times), task("b", "TERMINATED", "FAILED")),
        ):
            logger(running(a, b))
        assert caplog.messages == [
            "Task a is RUNNING",
            "Task a is TERMINATED/SUCCESS after 2 min 5 s (setup 1 min 0 s, execution 1 min 5 s)",
            "Task b is TERMINATED/FAILED",
        ]

    def test_logs_each_attempt(self, logger: TaskStateLogger, caplog: Log) -> None:
        failed = task("a", "TERMINATED", "FAILED")
        logger(running(failed, task("b", "BLOCKED")))
        logger(running(failed, task("a", "RUNNING", attempt=1), task("b", "BLOCKED")))
        logger(running(failed, task("a", "TERMINATED", "FAILED", attempt=1), task("b", "BLOCKED")))
        assert caplog.messages == [
            "Task a is TERMINATED/FAILED",
            "Task a is RUNNING, attempt 2",
            "Task a is TERMINATED/FAILED, attempt 2",
        ]

    def test_does_not_log_a_single_task(self, logger: TaskStateLogger, caplog: Log) -> None:
        logger(running(task("a", "RUNNING")))
        logger(running())
        assert caplog.messages == []

    def test_logs_only_failures_of_very_many_tasks(self, logger: TaskStateLogger, caplog: Log) -> None:
        many = [task(f"t{number}", "TERMINATED", "SUCCESS") for number in range(MAX_LOGGED_TASKS)]
        logger(running(*many, task("bad", "TERMINATED", "FAILED")))
        # The first page of a run of more than a hundred.
        logger(running(task("a", "RUNNING"), task("b", "RUNNING"), next_page_token="x"))
        assert caplog.messages == ["Task bad is TERMINATED/FAILED"]


class TestRunSummary:
    @pytest.mark.parametrize(
        ("run", "line"),
        [
            (
                described(
                    "TERMINATED",
                    "SUCCESS",
                    start_time=1_000,
                    end_time=797_000,
                    setup_duration=192_000,
                    execution_duration=600_000,
                    cleanup_duration=4_000,
                ),
                "TERMINATED/SUCCESS after 13 min 16 s (setup 3 min 12 s, execution 10 min 0 s, cleanup 4.0 s)",
            ),
            (
                described("TERMINATED", "SUCCESS", start_time=1_000, end_time=3_500, execution_duration=2_500),
                "TERMINATED/SUCCESS after 2.5 s",
            ),
            (
                described("INTERNAL_ERROR", None, setup_duration=60_000),
                "INTERNAL_ERROR (setup 1 min 0 s)",
            ),
            (
                described(
                    "INTERNAL_ERROR",
                    "FAILED",
                    start_time=1_000,
                    end_time=2_000,
                    run_duration=7_500_000,
                    queue_duration=30_000,
                    tasks=[
                        task("a", "TERMINATED", "FAILED"),
                        task("b", "TERMINATED", "UPSTREAM_FAILED"),
                        task("c", "TERMINATED", "SUCCESS"),
                    ],
                ),
                (
                    "INTERNAL_ERROR/FAILED after 2 h 5 min (in the queue 30 s);"
                    " 3 tasks: 1 succeeded, 1 failed, 1 did not run"
                ),
            ),
            (
                described(
                    "TERMINATED",
                    "CANCELED",
                    tasks=[
                        task("a", "TERMINATED", "CANCELED"),
                        task("b", "TERMINATED", "CANCELED"),
                        task("c", "TERMINATED", "UPSTREAM_CANCELED"),
                        task("d", "TERMINATED", "FAILED"),
                    ],
                ),
                "TERMINATED/CANCELED; 4 tasks: 1 failed, 2 cancelled, 1 did not run",
            ),
            (described("SKIPPED"), "SKIPPED"),
        ],
    )
    def test_is_one_line_with_durations(self, run: Run, line: str) -> None:
        assert run_summary(run) == f"Run 7 of job 3 ended as {line}. https://x/7"

    def test_omits_unknown_job_and_page(self) -> None:
        assert run_summary(Run.from_json({"run_id": 7, **state("SKIPPED")})) == "Run 7 ended as SKIPPED."


class TestFormatDuration:
    @pytest.mark.parametrize(
        ("seconds", "text"),
        [
            (0.04, "0.0 s"),
            (9.94, "9.9 s"),
            (10, "10 s"),
            (59.6, "1 min 0 s"),
            (3599, "59 min 59 s"),
            (3660, "1 h 1 min"),
        ],
    )
    def test_is_for_people(self, seconds: float, text: str) -> None:
        assert format_duration(seconds) == text
