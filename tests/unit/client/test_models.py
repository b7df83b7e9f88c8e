"""runs: what is finished, what succeeded, and which attempt of a task counts."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_dbjobs.client.models import Outcome, Run, RunState
from airflow_dbjobs.errors import RunCanceled, RunFailed, RunSkipped, RunTimedOut
from airflow_dbjobs.runs.failure_cause import run_failed_error


def state(life: str, result: str | None = None) -> dict[str, Any]:
    return {"state": {"life_cycle_state": life, **({"result_state": result} if result else {})}}


def status(life: str, code: str | None = None) -> dict[str, Any]:
    return {"status": {"state": life, **({"termination_details": {"code": code}} if code else {})}}


def run(run_id: int = 7, **fields: Any) -> Run:
    return Run.from_json({"run_id": run_id, **fields})


class TestState:
    @pytest.mark.parametrize("shape", [state, status])
    @pytest.mark.parametrize("life", ["QUEUED", "PENDING", "RUNNING", "TERMINATING", "BLOCKED", "WAITING"])
    def test_of_an_active_run_is_not_final(self, shape: Any, life: str) -> None:
        active = run(**shape(life))
        assert (active.is_terminal, active.state.is_known, str(active.state)) == (False, True, life)

    @pytest.mark.parametrize(
        ("stopping", "is_being_stopped"),
        [
            (RunState("RUNNING"), False),
            (RunState("TERMINATING", "SUCCESS"), False),
            (RunState("TERMINATING", "CANCELED"), True),
            (RunState("RUNNING", user_cancelled_or_timedout=True), True),
            (RunState("TERMINATED", "CANCELED", user_cancelled_or_timedout=True), False),
        ],
        ids=str,
    )
    def test_is_being_stopped_from_the_cancellation_to_the_end(
        self, stopping: RunState, is_being_stopped: bool
    ) -> None:
        assert stopping.is_being_stopped is is_being_stopped

    @pytest.mark.parametrize("reply", [state("HIBERNATING"), status("HIBERNATING"), state("HIBERNATING", "FAILED")])
    def test_that_is_unknown_counts_as_running(self, reply: dict[str, Any]) -> None:
        odd = run(**reply)
        assert not odd.is_terminal
        assert not odd.state.is_known
        assert odd.state.life_cycle_state == "HIBERNATING"

    def test_that_is_missing_is_not_final(self) -> None:
        for nothing in (run(), run(state=None, status=None)):
            assert (nothing.is_terminal, nothing.state.is_known, str(nothing.state)) == (False, False, "no state")

    def test_has_message_and_code_of_either_description(self) -> None:
        old = run(state={"life_cycle_state": "TERMINATED", "result_state": "FAILED", "state_message": "boom"}).state
        details = {"code": "DRIVER_ERROR", "message": "lost"}
        new = run(status={"state": "TERMINATED", "termination_details": details}).state
        assert (old.message, old.termination_code, str(old)) == ("boom", "", "TERMINATED/FAILED")
        assert (new.message, new.termination_code, str(new)) == ("lost", "DRIVER_ERROR", "INTERNAL_ERROR")

    @pytest.mark.parametrize(
        ("code", "by_platform"), [("", False), ("USER_CANCELED", False), ("CANCELED", True), ("DRIVER_ERROR", True)]
    )
    def test_tells_a_platform_cancellation_from_a_users(self, code: str, by_platform: bool) -> None:
        assert RunState("TERMINATED", "CANCELED", termination_code=code).canceled_by_platform is by_platform
        assert not RunState("TERMINATED", "FAILED", termination_code=code).canceled_by_platform


class TestOutcome:
    @pytest.mark.parametrize(
        ("reply", "outcome", "error"),
        [
            # 2.0: `state` only
            (state("TERMINATED", "SUCCESS"), Outcome.SUCCESS, None),
            (state("TERMINATED", "SUCCESS_WITH_FAILURES"), Outcome.PARTIAL_SUCCESS, None),
            (state("TERMINATED", "FAILED"), Outcome.FAILED, RunFailed),
            (state("INTERNAL_ERROR", "FAILED"), Outcome.FAILED, RunFailed),
            (state("TERMINATED", "TIMEDOUT"), Outcome.TIMED_OUT, RunTimedOut),
            (state("TERMINATED", "TIMED_OUT"), Outcome.TIMED_OUT, RunTimedOut),
            (state("TERMINATED", "CANCELED"), Outcome.CANCELED, RunCanceled),
            (state("SKIPPED"), Outcome.SKIPPED, RunSkipped),
            (state("SKIPPED", "MAXIMUM_CONCURRENT_RUNS_REACHED"), Outcome.SKIPPED, RunSkipped),
            (state("INTERNAL_ERROR"), Outcome.FAILED, RunFailed),
            (state("INTERNAL_ERROR", "SUCCESS"), Outcome.FAILED, RunFailed),
            (state("TERMINATED", "EVICTED"), Outcome.FAILED, RunFailed),
            (state("TERMINATED"), Outcome.FAILED, RunFailed),
            # `status` only, should `state` ever go
            (status("TERMINATED", "SUCCESS"), Outcome.SUCCESS, None),
            (status("TERMINATED", "SUCCESS_WITH_FAILURES"), Outcome.PARTIAL_SUCCESS, None),
            (status("TERMINATED", "RUN_EXECUTION_ERROR"), Outcome.FAILED, RunFailed),
            (status("TERMINATED", "USER_CANCELED"), Outcome.CANCELED, RunCanceled),
            (status("TERMINATED", "CANCELED"), Outcome.CANCELED, RunCanceled),
            (status("TERMINATED", "MAX_CONCURRENT_RUNS_EXCEEDED"), Outcome.SKIPPED, RunSkipped),
            (status("TERMINATED", "SKIPPED"), Outcome.SKIPPED, RunSkipped),
            (status("TERMINATED", "DISABLED"), Outcome.SKIPPED, RunSkipped),
            (status("TERMINATED", "A_CODE_OF_2031"), Outcome.FAILED, RunFailed),
            (status("TERMINATED"), Outcome.FAILED, RunFailed),
            # both: `state` says it more exactly, unless nobody has heard of what it says
            (state("TERMINATED", "SUCCESS") | status("TERMINATED", "SUCCESS"), Outcome.SUCCESS, None),
            (state("TERMINATED", "TIMEDOUT") | status("TERMINATED", "CANCELED"), Outcome.TIMED_OUT, RunTimedOut),
            (
                state("INTERNAL_ERROR", "FAILED") | status("TERMINATED", "RUN_EXECUTION_ERROR"),
                Outcome.FAILED,
                RunFailed,
            ),
            (state("TERMINATED") | status("TERMINATED", "USER_CANCELED"), Outcome.CANCELED, RunCanceled),
            (state("EVICTED") | status("TERMINATED", "CLOUD_FAILURE"), Outcome.FAILED, RunFailed),
        ],
        ids=str,
    )
    def test_of_a_finished_run_follows_its_states(
        self, reply: dict[str, Any], outcome: Outcome, error: type | None
    ) -> None:
        finished = run(**reply)
        assert finished.is_terminal
        assert finished.state.is_known
        assert finished.outcome is outcome
        if error:
            assert isinstance(run_failed_error(finished, "why"), error)

    def test_is_a_failure_with_the_run_and_its_states(self) -> None:
        failure = run_failed_error(run(3, run_page_url="https://x/3", **state("TERMINATED", "TIMEDOUT")), "too slow")
        assert str(failure) == "too slow"
        assert (failure.run_id, failure.page_url) == (3, "https://x/3")
        assert (failure.life_cycle_state, failure.result_state) == ("TERMINATED", "TIMEDOUT")


class TestTasks:
    def test_count_with_their_latest_attempt_in_place(self) -> None:
        attempts = [("a", 0, 11, "FAILED"), ("b", 0, 12, "SUCCESS"), ("a", 2, 14, "SUCCESS"), ("a", 1, 13, "FAILED")]
        tasks = [
            {"task_key": key, "attempt_number": number, "run_id": task_run_id, **state("TERMINATED", result)}
            for key, number, task_run_id, result in attempts
        ]
        latest = run(tasks=tasks).tasks
        assert [(task.task_key, task.run_id, task.state.outcome) for task in latest] == [
            ("a", 14, Outcome.SUCCESS),
            ("b", 12, Outcome.SUCCESS),
        ]

    def test_without_attempt_numbers_count_with_the_last(self) -> None:
        ends = enumerate(("FAILED", "SUCCESS"), start=1)
        tasks = [{"task_key": "a", "run_id": number, **state("TERMINATED", result)} for number, result in ends]
        assert [task.run_id for task in run(tasks=tasks).tasks] == [2]


class TestRun:
    def test_has_numeric_ids_and_keeps_the_reply(self) -> None:
        reply = {"run_id": "9007199254740993", "job_id": "5", "a_field_of_2031": 1}
        read = Run.from_json(reply)
        assert (read.run_id, read.job_id, read.raw) == (9007199254740993, 5, reply)
        assert run().job_id is None
        with pytest.raises(KeyError):
            Run.from_json({"state": {}})

    @pytest.mark.parametrize(
        ("told", "page"),
        [
            ("https://adb-1.net/?o=12#job/3/run/7", "https://adb-1.net/jobs/3/runs/7?o=12"),
            ("https://adb-1.net?o=12#job/3/run/7/", "https://adb-1.net/jobs/3/runs/7?o=12"),
            ("https://adb-1.net/#job/3/run/7", "https://adb-1.net/jobs/3/runs/7"),
            ("https://adb-1.net:8443/#job/3/run/7", "https://adb-1.net:8443/jobs/3/runs/7"),
            # What is not known to lead to this run stays.
            ("https://adb-1.net/?o=12#job/3/run/1", "https://adb-1.net/?o=12#job/3/run/1"),
            ("https://adb-1.net/?o=12#job/run/7", "https://adb-1.net/?o=12#job/run/7"),
            ("https://adb-1.net/jobs/3/runs/7?o=12", "https://adb-1.net/jobs/3/runs/7?o=12"),
            ("https://adb-1.net/somewhere?o=12#job/3/run/7", "https://adb-1.net/somewhere?o=12#job/3/run/7"),
            (None, ""),
        ],
    )
    @pytest.mark.parametrize("run_id", [7, "7"])
    def test_page_is_one_that_all_with_access_can_open(self, told: str | None, page: str, run_id: Any) -> None:
        item = {"run_id": run_id, "run_page_url": told}
        assert run(**item).page_url == page
        (task,) = run(8, tasks=[{"task_key": "load", **item}]).tasks
        assert task.page_url == page
