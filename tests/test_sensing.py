"""What a sensor looks for, and what one look tells of it: without Airflow, against the local workspace."""

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
    IdleCondition,
    Look,
    RunCondition,
    epoch_seconds,
    from_plain,
    look_patiently,
    wanted_states,
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
    """Let so many seconds pass for the workspace, from now on."""
    workspace._clock = lambda: time.time() + seconds


def queued(client: JobsClient) -> tuple[int, int]:
    """Return a job and its run, which is QUEUED until somebody cancels it."""
    job_id = client.create_job({"name": "full", "tasks": [TASK], "max_concurrent_runs": 0, "queue": {"enabled": True}})
    return job_id, client.run_now({"job_id": job_id})


# --- which run it is ---


def test_the_latest_run_of_a_job_is_chosen_and_kept(client, any_version, job_id):
    ended(client, job_id)
    latest = ended(client, job_id)
    look = RunCondition(job_id=job_id).look(any_version)
    assert (look.verdict, look.condition.run_id) == (True, latest.run_id)
    ended(client, job_id)
    assert look.condition.look(any_version).run.run_id == latest.run_id


def test_the_job_may_be_named_and_is_looked_up_once(client, workspace, job_id):
    look = RunCondition(job_name="nightly").look(client)
    assert look.says == f"Job 'nightly' ({job_id}) has no run yet"
    run = ended(client, job_id)
    assert look.condition.look(client).condition.run_id == run.run_id
    assert workspace.requests["list"] == 1


@pytest.mark.parametrize("kind", [RunCondition, IdleCondition])
def test_a_name_that_no_job_has_is_an_error(client, kind):
    with pytest.raises(ConfigurationError, match="no job of this name"):
        kind(job_name="nightly").look(client)


@pytest.mark.parametrize("kind", [RunCondition, IdleCondition])
def test_a_job_that_does_not_exist_is_an_error_and_asked_for_once(client, workspace, job_id, kind):
    with pytest.raises(NotFound, match="Job 7 does not exist"):
        kind(job_id=7).look(client)
    condition = kind(job_id=job_id)
    for _ in range(3):
        condition = condition.look(client).condition
    assert workspace.requests["get"] == 2


def test_the_first_run_since_a_time_is_chosen(client, any_version, workspace, job_id):
    since = time.time() + 100
    ended(client, job_id)
    condition = RunCondition(job_id=job_id, since=since).look(any_version).condition
    assert condition.run_id is None
    later(workspace, 200)
    first = ended(client, job_id)
    later(workspace, 300)
    ended(client, job_id)
    assert condition.look(any_version).condition.run_id == first.run_id


@pytest.mark.parametrize(("milliseconds", "chosen"), [(0, True), (1, False)])
def test_a_run_that_started_just_then_is_chosen(client, any_version, job_id, milliseconds, chosen):
    run = ended(client, job_id)
    since = run.raw["start_time"] / 1000 + milliseconds / 1000
    condition = RunCondition(job_id=job_id, since=since).look(any_version).condition
    assert condition.run_id == (run.run_id if chosen else None)


def test_the_first_run_since_a_time_is_found_behind_many(client, any_version, job_id):
    runs = [client.run_now({"job_id": job_id}) for _ in range(60)]
    for run_id in runs:
        wait_for_run(client, run_id, period=0.01)
    since = client.get_run(runs[0]).start_time
    assert RunCondition(job_id=job_id, since=since).look(any_version).condition.run_id == runs[0]


def test_only_the_newest_part_of_the_history_is_read(any_version, workspace):
    rows = [{"run_id": run_id, "start_time": run_id * 1000, "state": {}} for run_id in (5, 4, 3, 2)]
    page = {"runs": rows, "has_more": True, "next_page_token": "more"}
    over = {"run_id": 4, "state": {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"}}
    workspace.faults += [Fault("runs/list", status=200, body=page), Fault("runs/get", status=200, body=over)]
    assert RunCondition(job_id=1, since=4).look(any_version).condition.run_id == 4
    assert workspace.requests["runs/list"] == 1


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
def test_what_is_waited_for_is_told_in_words(condition, what, goal):
    assert (condition.what, condition.goal) == (what, goal)


# --- the state of a run ---


def look_at(workspace: LocalWorkspace, client: JobsClient, reply: dict[str, Any], **condition: Any) -> Look:
    workspace.faults.append(Fault("runs/get", status=200, body={"run_id": 7, "run_page_url": "http://run", **reply}))
    return RunCondition(chosen=7, **condition).look(client)


def state(life: str, result: str | None = None) -> dict[str, Any]:
    return {"state": {"life_cycle_state": life, **({"result_state": result} if result else {})}}


@pytest.mark.parametrize(
    ("told", "states", "verdict"),
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
def test_a_run_is_as_it_should_be_or_never_will_be_or_that_is_open(client, workspace, told, states, verdict):
    given = {} if states is None else {"states": states}
    assert look_at(workspace, client, told, **given).verdict is verdict


# --- one task ---


def task(told: dict[str, Any], attempt: int = 0, run_id: int = 8, **fields: Any) -> dict[str, Any]:
    return {
        "task_key": "load",
        "run_id": run_id,
        "attempt_number": attempt,
        "run_page_url": "http://t",
        **told,
        **fields,
    }


@pytest.mark.parametrize(
    ("tasks", "verdict"),
    [
        ([task(state("BLOCKED"))], None),
        ([task(state("TERMINATED", "SUCCESS"))], True),
        ([task(state("TERMINATED", "FAILED"), max_retries=0)], False),
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
        ([task(state("RUNNING"), attempt=1, max_retries=1), task(state("TERMINATED", "FAILED"), max_retries=1)], None),
        ([task(state("TERMINATED", "FAILED"), max_retries=1), task(state("TERMINATED", "SUCCESS"), attempt=1)], True),
    ],
)
def test_a_task_is_over_when_no_attempt_can_follow(client, workspace, tasks, verdict):
    assert look_at(workspace, client, {**state("RUNNING"), "tasks": tasks}, task_key="load").verdict is verdict


def test_a_failed_attempt_is_not_yet_the_failure_that_was_wanted(client, workspace):
    failing = {**state("RUNNING"), "tasks": [task(state("TERMINATED", "FAILED"), max_retries=1)]}
    look = look_at(workspace, client, failing, task_key="load", states=("FAILED",))
    assert look.verdict is None
    assert look.says == "Task load of run 7 is TERMINATED/FAILED, and may be retried"


def test_the_end_of_the_run_ends_the_task_too(client, workspace):
    over = {**state("INTERNAL_ERROR", "FAILED"), "tasks": [task(state("TERMINATED", "FAILED"), max_retries=3)]}
    look = look_at(workspace, client, over, task_key="load")
    assert look.verdict is False
    assert (look.run.run_id, look.run.page_url) == (8, "http://t"), "the task's, not the run's"


def test_a_key_that_the_run_does_not_have_is_an_error_once_it_shows_its_tasks(client, workspace):
    assert look_at(workspace, client, state("PENDING"), task_key="other").verdict is None
    with pytest.raises(ConfigurationError, match=r"task_key='other': run 7 has no such task .* Its tasks: load\."):
        look_at(workspace, client, {**state("RUNNING"), "tasks": [task(state("BLOCKED"))]}, task_key="other")
    with pytest.raises(ConfigurationError, match="it shows none"):
        look_at(workspace, client, state("TERMINATED", "SUCCESS"), task_key="other")


def test_a_task_on_a_later_page_is_found(client, workspace):
    page = {"tasks": [{"task_key": "first", **state("RUNNING")}], "next_page_token": "more"}
    last = {"run_id": 7, **state("RUNNING"), "tasks": [task(state("TERMINATED", "SUCCESS"))]}
    workspace.faults += [
        Fault("runs/get", status=200, body={"run_id": 7, **state("RUNNING"), **page}),
        Fault("runs/get", status=200, body=last),
    ]
    assert RunCondition(chosen=7, task_key="load").look(client).verdict is True


# --- a job that is idle ---


def test_a_job_is_idle_when_none_of_its_runs_is_active(client, any_version, job_id):
    busy, run_id = queued(client)
    assert IdleCondition(job_id=job_id).look(any_version).verdict is True
    look = IdleCondition(job_name="full").look(any_version)
    assert (look.verdict, look.run.run_id) == (None, run_id)
    assert look.says == f"Job 'full' ({busy}): run {run_id} is QUEUED"
    client.cancel_run(run_id)
    wait_for_run(client, run_id, period=0.01)
    assert look.condition.look(any_version).verdict is True


def test_a_run_that_the_list_of_active_runs_leaves_out_is_active(client, any_version, workspace):
    busy, run_id = queued(client)
    workspace.faults.append(Fault("runs/list", status=200, body={}))
    assert IdleCondition(job_id=busy).look(any_version).run.run_id == run_id


def test_a_list_that_still_shows_runs_that_are_over_keeps_no_job_busy(client, workspace, job_id):
    over = {"runs": [{"run_id": 7, **state("TERMINATED", "SUCCESS")}]}
    workspace.faults.append(Fault("runs/list", status=200, body=over))
    assert IdleCondition(job_id=job_id).look(client).verdict is True


# --- plain values ---


@pytest.mark.parametrize(
    "condition",
    [
        RunCondition(job_name="x", since=1.5, task_key="a", states=("RUNNING",)),
        RunCondition(chosen=7, job_id=5, job_exists=True),
        IdleCondition(job_id=5),
    ],
)
def test_a_condition_survives_a_stay_in_a_database(condition):
    plain = json.loads(json.dumps(condition.to_plain()))
    assert from_plain({**plain, "field_of_tomorrow": 1}) == condition
    assert hash(from_plain(plain)) == hash(condition)


def test_a_condition_of_a_kind_that_is_not_known_is_an_error():
    with pytest.raises(JobsError, match="no condition 'tomorrow'"):
        from_plain({"kind": "tomorrow"})


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("success", ("SUCCESS",)),
        ("RUNNING, SUCCESS", ("RUNNING", "SUCCESS")),
        (["TIMED_OUT", "TIMEDOUT"], ("TIMEDOUT",)),
        (("UPSTREAM_FAILED",), ("UPSTREAM_FAILED",)),
    ],
)
def test_states_are_names_or_a_text_of_names(given, read):
    assert wanted_states(given) == read


@pytest.mark.parametrize("given", ["", [], ["SUCCES"], "None", [None]])
def test_states_that_the_api_does_not_have_are_an_error_that_lists_them(given):
    with pytest.raises(ConfigurationError, match=r"states is .*one or more of BLOCKED, CANCELED, .*WAITING_FOR_RETRY"):
        wanted_states(given)


NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


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
def test_a_time_may_be_given_in_many_ways(given):
    assert epoch_seconds(given) == NOON.timestamp()


def test_eight_digits_are_a_date():
    assert epoch_seconds("20261122") == datetime(2026, 11, 22, tzinfo=UTC).timestamp()


@pytest.mark.parametrize("given", ["", "None", "noon", NOON.timestamp() * 1000, -1, "nan", "inf", True, "99999999"])
def test_what_is_no_time_is_an_error(given):
    with pytest.raises(ConfigurationError, match=r"since is .*it must be a datetime"):
        epoch_seconds(given)


# --- patience in a worker ---


@pytest.fixture
def timed(client: JobsClient) -> Clock:
    clock = Clock()
    clock.rule(client)
    return clock


def test_refused_credentials_are_waited_out_and_read_anew(client, workspace, job_id, timed):
    renewed = []
    client._reread = lambda: renewed.append(1) or client.transport
    workspace.faults.append(Fault("runs/list", status=403, times=5))
    look = look_patiently(client, RunCondition(job_id=job_id), Patience(), is_first=lambda: False)
    assert look.verdict is None
    assert len(renewed) == 5
    assert 0 < timed.now < 600


@pytest.mark.parametrize("tolerance", [0, 100])
def test_a_refusal_that_lasts_is_told(client, workspace, job_id, timed, tolerance):
    workspace.faults.append(Fault("runs/list", status=401, times=None))
    with pytest.raises(RunLost, match=r"Job \d+ could not be asked for during .* answered 401.*Check the connection"):
        look_patiently(
            client,
            RunCondition(job_id=job_id),
            Patience(denied_tolerance=tolerance),
            is_first=lambda: False,
        )
    assert tolerance <= timed.now < tolerance + 70


def test_an_outage_is_not_waited_out_in_a_worker(client, workspace, job_id, timed):
    outage = Fault("runs/list", status=503, times=40)
    workspace.faults.append(outage)
    with pytest.raises(ServerError):
        look_patiently(client, RunCondition(job_id=job_id), Patience(), is_first=lambda: False)
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
def test_what_does_not_exist_is_not_waited_for(client, timed, condition, is_first, error):
    with pytest.raises(error, match=f"{condition.what} does not exist"):
        look_patiently(client, condition, Patience(), is_first=lambda: is_first)
    assert timed.now == 0


@pytest.mark.parametrize("status", [401, 403])
def test_what_is_refused_at_the_first_look_is_refused_at_once(client, workspace, job_id, timed, status):
    workspace.faults.append(Fault("runs/list", status=status, times=None))
    with pytest.raises(ApiError, match=f"answered {status}"):
        look_patiently(client, RunCondition(job_id=job_id), Patience(), is_first=lambda: True)
    assert timed.now == 0


def test_a_run_that_is_chosen_is_kept_where_it_cannot_be_asked_for(client, workspace, job_id):
    first = client.run_now({"job_id": job_id})
    workspace.faults.append(Fault("runs/get", status=400, body={"error_code": "X", "message": "not now"}))
    look = RunCondition(job_id=job_id).look(client)
    assert (look.verdict, look.run.run_id) == (None, first)
    assert f"Run {first} is the one of job {job_id}, and cannot be asked for" in look.says
    later = client.run_now({"job_id": job_id})
    wait_for_run(client, later, period=0.01)
    assert look.condition.look(client).run.run_id == first
