"""The conditions of sensors, and checking them: without Airflow, against the local workspace."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from injected_clock import Clock

from airflow_dbjobs.client import JobsClient
from airflow_dbjobs.client.retry import Patience
from airflow_dbjobs.client.wait import wait_for_run
from airflow_dbjobs.errors import ApiError, ConfigurationError, JobsError, NotFound, RunLost, ServerError
from airflow_dbjobs.local_workspace import Fault
from airflow_dbjobs.runs.conditions import (
    CheckResult,
    IdleCondition,
    RunCondition,
    check_in_worker,
    condition_from_dict,
    epoch_seconds,
    parse_states,
)

if TYPE_CHECKING:
    from airflow_dbjobs.client.models import Run
    from airflow_dbjobs.local_workspace import LocalWorkspace

TASK = {"task_key": "load", "condition_task": {"op": "EQUAL_TO", "left": "1", "right": "1"}}


@pytest.fixture(params=["2.0", "2.1", "2.2"])
def any_version(request: pytest.FixtureRequest, workspace: LocalWorkspace) -> JobsClient:
    return JobsClient(workspace.base_url, token=workspace.token, api_version=request.param)


@pytest.fixture
def job_id(client: JobsClient) -> int:
    return client.create_job({"name": "nightly", "tasks": [TASK], "max_concurrent_runs": 5})


def ended(client: JobsClient, job_id: int) -> Run:
    return wait_for_run(client, client.run_now({"job_id": job_id}), period=0.01)


def later(workspace: LocalWorkspace, seconds: float) -> None:
    """Advance the clock of the workspace by that many seconds."""
    workspace._clock = lambda: time.time() + seconds


def queued(client: JobsClient) -> tuple[int, int]:
    """Return a job and its run, which stays QUEUED until it is cancelled."""
    job_id = client.create_job({"name": "full", "tasks": [TASK], "max_concurrent_runs": 0, "queue": {"enabled": True}})
    return job_id, client.run_now({"job_id": job_id})


def check_reply(workspace: LocalWorkspace, client: JobsClient, reply: dict[str, Any], **condition: Any) -> CheckResult:
    workspace.faults.append(Fault("runs/get", status=200, body={"run_id": 7, "run_page_url": "http://run", **reply}))
    return RunCondition(chosen=7, **condition).check(client)


def state(life: str, result: str | None = None) -> dict[str, Any]:
    return {"state": {"life_cycle_state": life, **({"result_state": result} if result else {})}}


def task(reply: dict[str, Any], attempt: int = 0, run_id: int = 8, **fields: Any) -> dict[str, Any]:
    return {
        "task_key": "load",
        "run_id": run_id,
        "attempt_number": attempt,
        "run_page_url": "http://t",
        **reply,
        **fields,
    }


NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture
def timed(client: JobsClient) -> Clock:
    clock = Clock()
    clock.rule(client)
    return clock


class TestChoosingRun:
    def test_latest_run_of_a_job_is_chosen_and_kept(self, client, any_version, job_id):
        ended(client, job_id)
        latest = ended(client, job_id)
        result = RunCondition(job_id=job_id).check(any_version)
        assert (result.verdict, result.condition.run_id) == (True, latest.run_id)
        ended(client, job_id)
        assert result.condition.check(any_version).run.run_id == latest.run_id

    def test_job_name_is_looked_up_once(self, client, workspace, job_id):
        result = RunCondition(job_name="nightly").check(client)
        assert result.message == f"Job 'nightly' ({job_id}) has no run yet"
        run = ended(client, job_id)
        assert result.condition.check(client).condition.run_id == run.run_id
        assert workspace.requests["list"] == 1

    @pytest.mark.parametrize("kind", [RunCondition, IdleCondition])
    def test_unknown_job_name_is_an_error(self, client, kind):
        with pytest.raises(ConfigurationError, match="no job of this name"):
            kind(job_name="nightly").check(client)

    @pytest.mark.parametrize("kind", [RunCondition, IdleCondition])
    def test_missing_job_is_an_error_and_read_once(self, client, workspace, job_id, kind):
        with pytest.raises(NotFound, match="Job 7 does not exist"):
            kind(job_id=7).check(client)
        condition = kind(job_id=job_id)
        for _ in range(3):
            condition = condition.check(client).condition
        assert workspace.requests["get"] == 2

    def test_first_run_since_a_time_is_chosen(self, client, any_version, workspace, job_id):
        since = time.time() + 100
        ended(client, job_id)
        condition = RunCondition(job_id=job_id, since=since).check(any_version).condition
        assert condition.run_id is None
        later(workspace, 200)
        first = ended(client, job_id)
        later(workspace, 300)
        ended(client, job_id)
        assert condition.check(any_version).condition.run_id == first.run_id

    @pytest.mark.parametrize(("milliseconds", "chosen"), [(0, True), (1, False)])
    def test_run_started_exactly_at_since_is_chosen(self, client, any_version, job_id, milliseconds, chosen):
        run = ended(client, job_id)
        since = run.raw["start_time"] / 1000 + milliseconds / 1000
        condition = RunCondition(job_id=job_id, since=since).check(any_version).condition
        assert condition.run_id == (run.run_id if chosen else None)

    def test_first_run_since_is_found_behind_many(self, client, any_version, job_id):
        runs = [client.run_now({"job_id": job_id}) for _ in range(60)]
        for run_id in runs:
            wait_for_run(client, run_id, period=0.01)
        since = client.get_run(runs[0]).start_time
        assert RunCondition(job_id=job_id, since=since).check(any_version).condition.run_id == runs[0]

    def test_history_is_read_back_to_since_only(self, any_version, workspace):
        rows = [{"run_id": run_id, "start_time": run_id * 1000, "state": {}} for run_id in (5, 4, 3, 2)]
        page = {"runs": rows, "has_more": True, "next_page_token": "more"}
        over = {"run_id": 4, "state": {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"}}
        workspace.faults += [Fault("runs/list", status=200, body=page), Fault("runs/get", status=200, body=over)]
        assert RunCondition(job_id=1, since=4).check(any_version).condition.run_id == 4
        assert workspace.requests["runs/list"] == 1

    def test_choice_is_kept_if_reading_the_run_fails(self, client, workspace, job_id):
        first = client.run_now({"job_id": job_id})
        workspace.faults.append(Fault("runs/get", status=400, body={"error_code": "X", "message": "not now"}))
        result = RunCondition(job_id=job_id).check(client)
        assert (result.verdict, result.run.run_id) == (None, first)
        assert f"Chose run {first} of job {job_id}, but cannot read it; will retry: " in result.message
        later = client.run_now({"job_id": job_id})
        wait_for_run(client, later, period=0.01)
        assert result.condition.check(client).run.run_id == first


class TestRunVerdict:
    @pytest.mark.parametrize(
        ("reply", "states", "verdict"),
        [
            (state("RUNNING"), None, None),
            (state("TERMINATING", "SUCCESS"), None, None),
            (state("A_NEW_STATE"), None, None),
            (state("TERMINATED", "SUCCESS"), None, True),
            (state("TERMINATED", "SUCCESS_WITH_FAILURES"), None, True),
            (state("TERMINATED", "SUCCESS_WITH_FAILURES"), ("SUCCESS",), False),
            (state("TERMINATED", "FAILED"), None, False),
            (state("INTERNAL_ERROR", "SUCCESS"), None, False),
            (state("INTERNAL_ERROR", "SUCCESS"), ("FAILED",), True),
            (state("SKIPPED"), None, False),
            (state("SKIPPED"), ("SKIPPED",), True),
            (state("INTERNAL_ERROR", "FAILED"), ("FAILED",), True),
            (state("TERMINATED", "TIMED_OUT"), ("TIMEDOUT",), True),
            (state("TERMINATED"), None, False),
            (state("PENDING"), ("RUNNING",), None),
            (state("RUNNING"), ("RUNNING",), True),
            (state("TERMINATED", "SUCCESS"), ("RUNNING",), False),
            (state("TERMINATED", "CANCELED"), ("TERMINATED",), True),
        ],
    )
    def test_is_met_failed_or_undecided(self, client, workspace, reply, states, verdict):
        given = {} if states is None else {"states": states}
        assert check_reply(workspace, client, reply, **given).verdict is verdict


class TestTaskVerdict:
    @pytest.mark.parametrize(
        ("tasks", "verdict"),
        [
            ([task(state("BLOCKED"))], None),
            ([task(state("TERMINATED", "SUCCESS"))], True),
            ([task(state("TERMINATED", "FAILED"), max_retries=0)], False),
            ([task(state("TERMINATED", "FAILED"), job_cluster_key="small")], False),
            ([task(state("TERMINATED", "FAILED"), new_cluster={"num_workers": 1})], False),
            ([task(state("TERMINATED", "FAILED"), disable_auto_optimization=True)], False),
            ([task(state("TERMINATED", "FAILED"), job_cluster_key="small", max_retries=1)], None),
            ([task(state("TERMINATED", "FAILED"), max_retries=1)], None),
            ([task(state("TERMINATED", "FAILED"), attempt=1, max_retries=1)], False),
            ([task(state("TERMINATED", "FAILED"), attempt=9, max_retries=-1)], None),
            # Serverless compute may retry it.
            ([task(state("TERMINATED", "FAILED"))], None),
            ([task(state("INTERNAL_ERROR"), max_retries=1)], None),
            ([task(state("TERMINATED", "TIMEDOUT"), max_retries=1)], False),
            ([task(state("TERMINATED", "TIMEDOUT"), max_retries=1, retry_on_timeout=True)], None),
            ([task(state("TERMINATED", "CANCELED"), max_retries=1)], False),
            ([task(state("TERMINATED", "UPSTREAM_FAILED"), max_retries=1)], False),
            ([task(state("TERMINATED", "EXCLUDED"))], False),
            (
                [task(state("RUNNING"), attempt=1, max_retries=1), task(state("TERMINATED", "FAILED"), max_retries=1)],
                None,
            ),
            (
                [task(state("TERMINATED", "FAILED"), max_retries=1), task(state("TERMINATED", "SUCCESS"), attempt=1)],
                True,
            ),
        ],
    )
    def test_task_is_over_when_no_attempt_can_follow(self, client, workspace, tasks, verdict):
        assert check_reply(workspace, client, {**state("RUNNING"), "tasks": tasks}, task_key="load").verdict is verdict

    def test_failed_attempt_does_not_meet_failed_yet(self, client, workspace):
        failing = {**state("RUNNING"), "tasks": [task(state("TERMINATED", "FAILED"), max_retries=1)]}
        result = check_reply(workspace, client, failing, task_key="load", states=("FAILED",))
        assert result.verdict is None
        assert result.message == "Task load of run 7 is TERMINATED/FAILED and may be retried"

    def test_end_of_the_run_ends_the_task(self, client, workspace):
        over = {**state("INTERNAL_ERROR", "FAILED"), "tasks": [task(state("TERMINATED", "FAILED"), max_retries=3)]}
        result = check_reply(workspace, client, over, task_key="load")
        assert result.verdict is False
        assert (result.run.run_id, result.run.page_url) == (8, "http://t"), "the task's, not the run's"

    def test_unknown_task_key_is_an_error_once_tasks_are_shown(self, client, workspace):
        assert check_reply(workspace, client, state("PENDING"), task_key="other").verdict is None
        with pytest.raises(
            ConfigurationError, match=r"task_key is 'other', but run 7 has no such task .* Use one of its tasks: load\."
        ):
            check_reply(workspace, client, {**state("RUNNING"), "tasks": [task(state("BLOCKED"))]}, task_key="other")
        with pytest.raises(ConfigurationError, match="Use one of its tasks: none"):
            check_reply(workspace, client, state("TERMINATED", "SUCCESS"), task_key="other")

    def test_task_on_a_later_page_is_found(self, client, workspace):
        page = {"tasks": [{"task_key": "first", **state("RUNNING")}], "next_page_token": "more"}
        last = {"run_id": 7, **state("RUNNING"), "tasks": [task(state("TERMINATED", "SUCCESS"))]}
        workspace.faults += [
            Fault("runs/get", status=200, body={"run_id": 7, **state("RUNNING"), **page}),
            Fault("runs/get", status=200, body=last),
        ]
        assert RunCondition(chosen=7, task_key="load").check(client).verdict is True


class TestIdleJob:
    def test_idle_when_no_run_is_active(self, client, any_version, job_id):
        busy, run_id = queued(client)
        assert IdleCondition(job_id=job_id).check(any_version).verdict is True
        result = IdleCondition(job_name="full").check(any_version)
        assert (result.verdict, result.run.run_id) == (None, run_id)
        assert result.message == f"Job 'full' ({busy}): run {run_id} is QUEUED"
        client.cancel_run(run_id)
        wait_for_run(client, run_id, period=0.01)
        assert result.condition.check(any_version).verdict is True

    def test_active_run_missing_from_the_list_is_found(self, client, any_version, workspace):
        busy, run_id = queued(client)
        workspace.faults.append(Fault("runs/list", status=200, body={}))
        assert IdleCondition(job_id=busy).check(any_version).run.run_id == run_id

    def test_finished_run_in_the_active_list_is_ignored(self, client, workspace, job_id):
        over = {"runs": [{"run_id": 7, **state("TERMINATED", "SUCCESS")}]}
        workspace.faults.append(Fault("runs/list", status=200, body=over))
        assert IdleCondition(job_id=job_id).check(client).verdict is True


class TestSerialization:
    @pytest.mark.parametrize(
        "condition",
        [
            RunCondition(job_name="x", since=1.5, task_key="a", states=("RUNNING",)),
            RunCondition(chosen=7, job_id=5, job_exists=True),
            IdleCondition(job_id=5),
        ],
    )
    def test_survives_json_and_unknown_fields(self, condition):
        plain = json.loads(json.dumps(condition.to_dict()))
        assert condition_from_dict({**plain, "field_of_tomorrow": 1}) == condition
        assert hash(condition_from_dict(plain)) == hash(condition)

    def test_unknown_kind_is_an_error(self):
        with pytest.raises(JobsError, match="condition of kind 'tomorrow'"):
            condition_from_dict({"kind": "tomorrow"})


class TestMessages:
    @pytest.mark.parametrize(
        ("condition", "what", "goal"),
        [
            (RunCondition(chosen=7), "Run 7", "the end of run 7"),
            (RunCondition(chosen=7, task_key="a"), "Run 7", "the end of task a of run 7"),
            (RunCondition(chosen=7, states=("RUNNING", "SUCCESS")), "Run 7", "run 7 to be RUNNING or SUCCESS"),
            (RunCondition(job_id=5), "Job 5", "a run of job 5"),
            (
                RunCondition(job_name="x", since=0),
                "Job 'x'",
                "a run of job 'x' that started at 1970-01-01T00:00:00+00:00 or later",
            ),
            (IdleCondition(job_id=5, job_name="x"), "Job 'x' (5)", "job 'x' (5) to have no active run"),
        ],
    )
    def test_subject_and_goal_name_run_or_job(self, condition, what, goal):
        assert (condition.subject, condition.goal) == (what, goal)


class TestParameters:
    @pytest.mark.parametrize(
        ("given", "read"),
        [
            ("success", ("SUCCESS",)),
            ("RUNNING, SUCCESS", ("RUNNING", "SUCCESS")),
            (["TIMED_OUT", "TIMEDOUT"], ("TIMEDOUT",)),
            (("UPSTREAM_FAILED",), ("UPSTREAM_FAILED",)),
        ],
    )
    def test_states_are_a_list_or_separated_by_commas(self, given, read):
        assert parse_states(given) == read

    @pytest.mark.parametrize("given", ["", [], ["SUCCES"], "None", [None]])
    def test_unknown_states_are_an_error_with_the_known_ones(self, given):
        with pytest.raises(
            ConfigurationError, match=r"states is .*one or more of BLOCKED, CANCELED, .*WAITING_FOR_RETRY"
        ):
            parse_states(given)

    @pytest.mark.parametrize(
        "given",
        [
            NOON,
            NOON.replace(tzinfo=None),
            NOON.astimezone(timezone(timedelta(hours=2))),
            "2026-11-22T12:00:00+00:00",
            "2026-11-22 12:00:00Z",
            "2026-11-22T12:00",
            int(NOON.timestamp()),
            f" {NOON.timestamp()} ",
        ],
    )
    def test_time_formats(self, given):
        assert epoch_seconds(given) == NOON.timestamp()

    def test_eight_digits_are_a_date(self):
        assert epoch_seconds("20261122") == datetime(2026, 11, 22, tzinfo=UTC).timestamp()

    @pytest.mark.parametrize("given", ["", "None", "noon", NOON.timestamp() * 1000, -1, "nan", "inf", True, "99999999"])
    def test_invalid_time_is_an_error(self, given):
        with pytest.raises(ConfigurationError, match=r"since is .*it must be a datetime"):
            epoch_seconds(given)


class TestCheckInWorker:
    def test_rejected_credentials_are_read_again_and_retried(self, client, workspace, job_id, timed):
        renewed = []
        client._reread = lambda: renewed.append(1) or client.transport
        workspace.faults.append(Fault("runs/list", status=403, times=5))
        result = check_in_worker(client, RunCondition(job_id=job_id), Patience(), is_first=lambda: False)
        assert result.verdict is None
        assert len(renewed) == 5
        assert 0 < timed.now < 600

    @pytest.mark.parametrize("tolerance", [0, 100])
    def test_lasting_rejection_is_raised(self, client, workspace, job_id, timed, tolerance):
        workspace.faults.append(Fault("runs/list", status=401, times=None))
        lasted = "and is not retried" if tolerance == 0 else r"for \d+ (s|min), longer than denied_tolerance allows"
        words = rf"Polling job {job_id} failed {lasted}\..* answered 401.*Check the connection"
        with pytest.raises(RunLost, match=words):
            check_in_worker(
                client,
                RunCondition(job_id=job_id),
                Patience(denied_tolerance=tolerance),
                is_first=lambda: False,
            )
        assert tolerance <= timed.now < tolerance + 70

    def test_outage_is_not_waited_out(self, client, workspace, job_id, timed):
        outage = Fault("runs/list", status=503, times=40)
        workspace.faults.append(outage)
        with pytest.raises(ServerError):
            check_in_worker(client, RunCondition(job_id=job_id), Patience(), is_first=lambda: False)
        assert outage.times

    @pytest.mark.parametrize(
        ("condition", "is_first", "error"),
        [
            (RunCondition(chosen=7), True, NotFound),
            (RunCondition(chosen=7), False, RunLost),
            (RunCondition(job_id=7), True, NotFound),
            (RunCondition(job_id=7), False, NotFound),
        ],
        ids=["a run", "a run that was seen", "a job", "a job that was seen"],
    )
    def test_missing_run_or_job_fails_at_once(self, client, timed, condition, is_first, error):
        with pytest.raises(error, match=f"{condition.subject} does not exist"):
            check_in_worker(client, condition, Patience(), is_first=lambda: is_first)
        assert timed.now == 0

    @pytest.mark.parametrize("status", [401, 403])
    def test_rejection_at_the_first_check_fails_at_once(self, client, workspace, job_id, timed, status):
        workspace.faults.append(Fault("runs/list", status=status, times=None))
        with pytest.raises(ApiError, match=f"answered {status}"):
            check_in_worker(client, RunCondition(job_id=job_id), Patience(), is_first=lambda: True)
        assert timed.now == 0
