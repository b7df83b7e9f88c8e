"""launch: which run a try waits for, against a workspace in this process whose time passes only in waits."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import pytest

from airflow_dbjobs import transport
from airflow_dbjobs.auth import BearerAuth
from airflow_dbjobs.client import JobsClient
from airflow_dbjobs.errors import BadRequest, JobsError, NotFound, PermissionDenied, RunLost, Unreachable
from airflow_dbjobs.launch import Launched, Launcher, TaskTry, Verdict, judge, token_of
from airflow_dbjobs.local_workspace import Fault, LocalWorkspace
from airflow_dbjobs.retries import RetryPolicy
from airflow_dbjobs.runs import Outcome, Run
from airflow_dbjobs.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from airflow_dbjobs.local_workspace.wire import Reply, Request

URL = "http://127.0.0.1:8765"
EPOCH = 1_800_000_000.0
DAG_RUN_START = EPOCH - 60
SUCCEEDING = {"op": "EQUAL_TO", "left": "1", "right": "1"}
FAILING = {"op": "LESS_THAN", "left": "one", "right": "2"}
SUCCESSES = frozenset({Outcome.SUCCESS, Outcome.PARTIAL_SUCCESS})
SIXTEENTH = 1 / 16


class Clock:
    """Time that passes only in `sleep`, where `meanwhile` is called; `monotonic` does not tell the date."""

    def __init__(self) -> None:
        self.now = EPOCH + 0.25
        self.waits: list[float] = []
        self.meanwhile: Callable[[], object] = lambda: None

    def __call__(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now - EPOCH + 1000

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds
        self.meanwhile()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def workspace(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalWorkspace]:
    """Return a workspace in which runs stay PENDING until a test calls `tick`."""
    (tmp_path / "workspace").mkdir()
    stepped = LocalWorkspace(tmp_path / "workspace", token="a-token", base_url=URL, clock=clock)
    monkeypatch.setattr(transport, "new_adapter", stepped.adapter)
    yield stepped
    stepped.close()


@pytest.fixture
def client(workspace: LocalWorkspace, clock: Clock) -> JobsClient:
    return new_client(clock)


def new_client(clock: Clock) -> JobsClient:
    """Return a client as a new process makes it: it has seen no reply yet."""
    return JobsClient(transport=Transport(URL, BearerAuth("a-token"), clock=clock.monotonic, sleep=clock.sleep))


def nth(try_number: int, *, before_clear: int = 0, dag_run_start: float | None = DAG_RUN_START) -> TaskTry:
    return TaskTry(
        "nightly",
        "manual__1",
        "load",
        try_number=try_number,
        tries_before_clear=before_clear,
        dag_run_start=dag_run_start,
    )


def payload(condition: dict[str, str] = SUCCEEDING, **fields: Any) -> dict[str, Any]:
    return {"run_name": "load", "tasks": [{"task_key": "main", "condition_task": condition}], **fields}


def launcher(client: JobsClient, task_try: TaskTry, condition: dict[str, str] = SUCCEEDING, **kwargs: Any) -> Launcher:
    return Launcher(client, "runs/submit", payload(condition), task_try, **kwargs)


def launch(client: JobsClient, task_try: TaskTry, condition: dict[str, str] = SUCCEEDING, **kwargs: Any) -> Launched:
    return launcher(client, task_try, condition, **kwargs).launch()


FIRST = nth(1)


class Past:
    """What tries before left behind: runs, each launched a minute after the one before, that ended as told."""

    def __init__(self, client: JobsClient, workspace: LocalWorkspace, clock: Clock) -> None:
        self.client = client
        self.workspace = workspace
        self.clock = clock

    def run(self, ended: str = "", task_try: TaskTry = FIRST) -> int:
        """Launch a run; `ended` is success, failure, cancel, deletion, or stopping, or "" for a run that goes on."""
        launched = launch(self.client, task_try, FAILING if ended == "failure" else SUCCEEDING).run.run_id
        if ended in {"cancel", "stopping"}:
            self.client.cancel_run(launched)
        if ended in {"success", "failure", "cancel", "deletion"}:
            self.workspace.tick()
        if ended == "deletion":
            self.client.delete_run(launched)
        self.pass_time()
        return launched

    def pass_time(self) -> None:
        self.clock.now += 60
        self.workspace.requests.clear()
        self.clock.waits.clear()


@pytest.fixture
def past(client: JobsClient, workspace: LocalWorkspace, clock: Clock) -> Past:
    return Past(client, workspace, clock)


def run_ids(client: JobsClient) -> list[int]:
    return sorted(run.run_id for run in client.list_runs())


# --- tokens ---


def test_a_task_instance_keeps_its_tokens_when_it_is_retried_or_cleared() -> None:
    tries = [nth(1), nth(2), nth(7, before_clear=6), nth(1, dag_run_start=None), nth(1, dag_run_start=EPOCH)]
    assert len({token_of(task_try.identity(URL), 1) for task_try in tries}) == 1


def test_no_other_task_instance_has_its_tokens() -> None:
    this = nth(1)
    others = [
        replace(this, dag_id="weekly"),
        replace(this, run_id="manual__2"),
        replace(this, task_id="store"),
        replace(this, map_index=0),
        replace(this, map_index=1),
        # The same letters, cut elsewhere.
        replace(this, dag_id="nightl", run_id="ymanual__1"),
    ]
    tokens = [token_of(task_try.identity(URL), 1) for task_try in (this, *others)]
    tokens += [token_of(this.identity("https://elsewhere.example"), 1), token_of(this.identity(URL), 2)]
    assert len(set(tokens)) == len(tokens)


def test_a_token_is_one_the_api_takes_however_long_the_names_are() -> None:
    task_try = TaskTry("ä" * 250, "r" * 250, "t" * 250)
    token = token_of(task_try.identity(URL, of_this_try_alone=True), 12345)
    assert re.fullmatch(r"airflow-[0-9a-f]{48}", token)
    assert len(token) <= 64


@pytest.mark.parametrize(
    "host", ["https://ADB-1.Azure.example", "http://adb-1.azure.example", "HTTPS://adb-1.azure.example/"]
)
def test_the_same_workspace_written_otherwise_is_the_same(host: str) -> None:
    assert nth(1).identity(host) == nth(1).identity("https://adb-1.azure.example")


def test_where_each_try_is_alone_each_has_tokens_of_its_own() -> None:
    alone = [nth(number).identity(URL, of_this_try_alone=True) for number in (1, 2, 3)]
    assert len({token_of(identity, 1) for identity in [*alone, nth(1).identity(URL)]}) == 4


# --- what a run is to a try ---

SINCE = EPOCH + 1000
OLD = SINCE - 300


def state(life: str, result: str | None = None, *, stopped: bool = False) -> dict[str, Any]:
    return {"life_cycle_state": life, "result_state": result, "user_cancelled_or_timedout": stopped}


DONE = state("TERMINATED", "SUCCESS")
SECOND = nth(2)
CASES = {
    # Launched by this walk, in whatever state it is by now.
    "just launched": (SINCE + 1, state("PENDING"), 1, nth(1), Verdict.LAUNCHED),
    "launched in the same instant": (SINCE, state("PENDING"), 1, nth(1), Verdict.LAUNCHED),
    "launched and done": (SINCE + 1, DONE, 1, nth(1), Verdict.LAUNCHED),
    "launched and failed": (SINCE + 1, state("TERMINATED", "FAILED"), 3, nth(3), Verdict.LAUNCHED),
    "launched and skipped": (SINCE, state("SKIPPED"), 1, nth(1), Verdict.LAUNCHED),
    "launched and cancelled": (SINCE + 1, state("TERMINATING", stopped=True), 1, nth(1), Verdict.LAUNCHED),
    "launched, no start yet": (None, state("QUEUED"), 1, nth(1), Verdict.LAUNCHED),
    "launched just before": (SINCE - 0.001, DONE, 1, nth(1), Verdict.PASS),
    # Active.
    "queued": (OLD, state("QUEUED"), 1, SECOND, Verdict.JOIN),
    "pending": (OLD, state("PENDING"), 1, SECOND, Verdict.JOIN),
    "running": (OLD, state("RUNNING"), 1, SECOND, Verdict.JOIN),
    "in a state nobody knows": (OLD, state("DREAMING"), 1, SECOND, Verdict.JOIN),
    "running, first try": (OLD, state("RUNNING"), 1, nth(1), Verdict.JOIN),
    "running since before the clear": (OLD, state("RUNNING"), 1, nth(2, before_clear=1), Verdict.CLEARED),
    "running since after the clear": (OLD, state("RUNNING"), 2, nth(3, before_clear=1), Verdict.JOIN),
    "running since nobody knows when": (OLD, state("RUNNING"), 1, nth(3, before_clear=1), Verdict.CLEARED),
    "running since before the DAG run": (OLD, state("RUNNING"), 1, nth(2, dag_run_start=SINCE), Verdict.JOIN),
    # About to end.
    "being cancelled": (OLD, state("TERMINATING", stopped=True), 1, SECOND, Verdict.ENDING),
    "cancelled, still running": (OLD, state("RUNNING", stopped=True), 1, SECOND, Verdict.ENDING),
    "being cancelled, by its result": (OLD, state("TERMINATING", "CANCELED"), 1, SECOND, Verdict.ENDING),
    "ending": (OLD, state("TERMINATING"), 1, SECOND, Verdict.ENDING),
    "ending, result known": (OLD, state("TERMINATING", "SUCCESS"), 1, SECOND, Verdict.ENDING),
    # Over.
    "succeeded": (OLD, DONE, 1, SECOND, Verdict.TAKE),
    "succeeded in part": (OLD, state("TERMINATED", "SUCCESS_WITH_FAILURES"), 1, SECOND, Verdict.TAKE),
    "failed": (OLD, state("TERMINATED", "FAILED"), 1, SECOND, Verdict.PASS),
    "failed with many tasks": (OLD, state("INTERNAL_ERROR", "FAILED"), 1, SECOND, Verdict.PASS),
    "cancelled": (OLD, state("TERMINATED", "CANCELED"), 1, SECOND, Verdict.PASS),
    "timed out": (OLD, state("TERMINATED", "TIMEDOUT"), 1, SECOND, Verdict.PASS),
    "skipped": (OLD, state("SKIPPED"), 1, SECOND, Verdict.PASS),
    "ended as nobody knows": (OLD, state("TERMINATED", "DREAMT"), 1, SECOND, Verdict.PASS),
    # Succeeded, but not for this try.
    "succeeded, first try": (OLD, DONE, 1, nth(1), Verdict.PASS),
    "succeeded, first try after a clear": (OLD, DONE, 1, nth(2, before_clear=1), Verdict.PASS),
    "succeeded after the clear, first try after it": (OLD, DONE, 2, nth(2, before_clear=1), Verdict.PASS),
    "succeeded before the clear, second try after it": (OLD, DONE, 1, nth(3, before_clear=1), Verdict.PASS),
    "succeeded after the clear, second try after it": (OLD, DONE, 2, nth(3, before_clear=1), Verdict.TAKE),
    "succeeded before the DAG run began": (OLD, DONE, 1, nth(2, dag_run_start=OLD + 1), Verdict.PASS),
    "succeeded as the DAG run began": (OLD, DONE, 1, nth(2, dag_run_start=OLD), Verdict.PASS),
    "succeeded in a DAG run without a start": (OLD, DONE, 1, nth(2, dag_run_start=None), Verdict.PASS),
}


@pytest.mark.parametrize(("start", "said", "ordinal", "task_try", "verdict"), CASES.values(), ids=CASES.keys())
def test_a_run_is_judged(
    start: float | None, said: dict[str, Any], ordinal: int, task_try: TaskTry, verdict: Verdict
) -> None:
    run = Run.from_json({"run_id": 7, "start_time": start and start * 1000, "state": said})
    assert judge(run, ordinal, task_try, since=SINCE, successes=SUCCESSES) is verdict


def test_a_partial_success_is_taken_only_where_it_lets_the_task_succeed() -> None:
    run = Run.from_json({"run_id": 7, "start_time": OLD * 1000, "state": state("TERMINATED", "SUCCESS_WITH_FAILURES")})
    verdict = judge(run, 1, SECOND, since=SINCE, successes=frozenset({Outcome.SUCCESS}))
    assert verdict is Verdict.PASS


# --- a first try ---


@pytest.mark.parametrize("endpoint", ["runs/submit", "run-now"])
def test_a_first_try_costs_one_post_and_one_get(client: JobsClient, workspace: LocalWorkspace, endpoint: Any) -> None:
    body = {"job_id": client.create_job({"name": "load", **payload()})} if endpoint == "run-now" else payload()
    workspace.requests.clear()
    launched = Launcher(client, endpoint, body, nth(1)).launch()
    assert workspace.requests == {endpoint: 1, "runs/get": 1}
    assert not launched.joined
    assert "idempotency_token" not in body, "the caller's payload stays as it is"
    run = launched.run
    assert launched.story == f"Launched run {run.run_id} of job {run.job_id}: {run.page_url}"


def test_a_run_that_is_over_when_it_is_first_seen_is_this_trys_own(
    client: JobsClient, workspace: LocalWorkspace
) -> None:
    settings = {"name": "load", "max_concurrent_runs": 1, **payload()}
    job_id = client.create_job(settings)
    client.run_now({"job_id": job_id})
    launched = Launcher(client, "run-now", {"job_id": job_id}, nth(1)).launch()
    assert launched.run.outcome is Outcome.SKIPPED
    assert len(run_ids(client)) == 2


# --- a later try ---


def test_a_run_that_goes_on_is_joined(past: Past, client: JobsClient, clock: Clock, workspace: LocalWorkspace) -> None:
    run_id = past.run()
    launched = launch(new_client(clock), nth(2))
    assert launched.joined
    assert launched.run.run_id == run_id
    assert run_ids(client) == [run_id]
    assert workspace.requests["runs/get"] == 1
    assert clock.waits == []
    assert launched.story == (
        f"Joined run {run_id} of job {launched.run.job_id}, which an earlier try launched at 2027-01-15T08:00:00Z"
        f" (launch 1 of this task): {launched.run.page_url}"
    )


def test_a_success_that_was_lost_with_its_worker_is_taken(past: Past, client: JobsClient) -> None:
    run_id = past.run("success")
    launched = launch(client, nth(2))
    assert launched.run.outcome is Outcome.SUCCESS
    assert run_ids(client) == [run_id]
    assert launched.story == (
        f"Took the result of run {run_id} of job {launched.run.job_id}, which an earlier try launched at"
        f" 2027-01-15T08:00:00Z (launch 1 of this task) and which succeeded: {launched.run.page_url}"
    )


@pytest.mark.parametrize(
    ("ended", "why"),
    [
        ("failure", "run {} of an earlier try has ended TERMINATED/FAILED"),
        ("cancel", "run {} of an earlier try has ended TERMINATED/CANCELED"),
        # Its end is waited for: until then its job may be full.
        ("stopping", "run {} of an earlier try has ended TERMINATED/CANCELED"),
        ("deletion", "the run of an earlier try was deleted"),
    ],
)
def test_a_run_that_is_no_use_any_more_is_followed_by_another(
    past: Past, client: JobsClient, clock: Clock, ended: str, why: str
) -> None:
    first = past.run(ended)
    clock.meanwhile = past.workspace.tick
    launched = launch(client, nth(2))
    assert not launched.joined
    assert launched.run.run_id > first
    why = re.escape(why.format(first).replace("TERMINATED/FAILED", "STATE")).replace("STATE", r"\w+/FAILED")
    assert re.fullmatch(rf"Launched run {launched.run.run_id} of job \d+ anew, as {why}: http\S+", launched.story)


def test_a_try_after_many_finds_the_last_run(past: Past, client: JobsClient, workspace: LocalWorkspace) -> None:
    for number, ended in enumerate(["failure", "cancel", "deletion", "deletion", "failure", ""], start=1):
        last = past.run(ended, nth(number))
    # Try 7 joins, and so uses no token of its own: try 8 must find the same.
    for number in (7, 8):
        assert launch(client, nth(number)).run.run_id == last
    assert workspace.requests["runs/submit"] == 12


def test_a_run_that_is_ending_is_waited_for(
    past: Past, client: JobsClient, workspace: LocalWorkspace, clock: Clock
) -> None:
    """Nobody can tell yet whether it succeeds; TERMINATING alone does not mean cancelled."""
    run_id = past.run()
    start = client.get_run(run_id).raw["start_time"]

    def said(life: str, result: str | None = None) -> Fault:
        body = {"run_id": run_id, "start_time": start, "state": state(life, result)}
        return Fault("runs/get", status=200, body=body)

    workspace.faults += [*(said("TERMINATING") for _ in range(3)), *(said("TERMINATED", "SUCCESS") for _ in range(2))]
    launched = launch(client, nth(2))
    assert launched.run.run_id == run_id
    assert launched.story.startswith("Took")
    assert len(clock.waits) == 2

    past.pass_time()
    workspace.faults += [said("TERMINATING"), *(said("TERMINATED", "FAILED") for _ in range(2))]
    assert launch(client, nth(3)).run.run_id > run_id


def test_the_same_second_counts_as_this_walk_and_the_second_before_does_not(past: Past, clock: Clock) -> None:
    """The server tells its time in whole seconds."""
    first = past.run("failure")
    clock.now = EPOCH + 0.25 + SIXTEENTH
    assert launch(new_client(clock), nth(2)).run.run_id == first
    clock.now = EPOCH + 1
    assert launch(new_client(clock), nth(2)).run.run_id > first


def test_a_post_that_was_repeated_for_minutes_still_knows_its_run(
    client: JobsClient, workspace: LocalWorkspace
) -> None:
    """The run was launched by the first of them, long before the reply whose Date tells the time."""
    workspace.faults += [
        Fault("runs/submit", status=503, handled=True),
        *(Fault("runs/submit", status=500) for _ in range(6)),
    ]
    launched = launch(client, nth(1))
    assert not launched.joined
    assert launched.story.startswith("Launched")


@pytest.mark.parametrize("ahead", [2, 3600])
def test_a_gateway_whose_clock_is_ahead_does_not_make_a_walk_launch_without_end(
    client: JobsClient, workspace: LocalWorkspace, clock: Clock, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    """By its Date each run that is over at once began before it was launched."""
    handle = workspace.handle

    def of_tomorrow(request: Request) -> Reply:
        clock.now += SIXTEENTH
        reply = handle(request)
        workspace.tick()
        return replace(reply, headers={**reply.headers, "Date": formatdate(clock.now + ahead, usegmt=True)})

    monkeypatch.setattr(workspace, "handle", of_tomorrow)
    launched = launch(client, nth(1))
    assert launched.run.run_id == run_ids(client)[1]
    assert len(run_ids(client)) == 2


# --- without a Date ---


@pytest.fixture
def without_date(workspace: LocalWorkspace, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    handle = workspace.handle

    def dateless(request: Request) -> Reply:
        reply = handle(request)
        return replace(reply, headers={name: value for name, value in reply.headers.items() if name != "Date"})

    monkeypatch.setattr(workspace, "handle", dateless)
    monkeypatch.setattr(transport.time, "time", clock)


@pytest.mark.usefixtures("without_date")
def test_a_server_that_tells_no_time_is_taken_to_have_ours(past: Past, client: JobsClient, clock: Clock) -> None:
    assert launch(client, nth(1)).story.startswith("Launched")
    past.pass_time()
    assert launch(new_client(clock), nth(2)).story.startswith("Joined")
    assert len(run_ids(client)) == 1


def test_a_machine_whose_clock_is_wrong_is_not_misled(
    past: Past, client: JobsClient, monkeypatch: Any, clock: Clock
) -> None:
    monkeypatch.setattr(transport.time, "time", lambda: clock.now + 86400)
    assert launch(client, nth(1)).story.startswith("Launched")
    past.pass_time()
    monkeypatch.setattr(transport.time, "time", lambda: clock.now - 86400)
    assert launch(new_client(clock), nth(2)).story.startswith("Joined")


# --- clears ---


def test_a_cleared_task_runs_anew_whatever_has_succeeded_before(past: Past, client: JobsClient) -> None:
    first = past.run("success")
    second = past.run("success", nth(2, before_clear=1))
    third = past.run("success", nth(3, before_clear=2))
    assert run_ids(client) == [first, second, third]
    assert len({first, second, third}) == 3


def test_after_a_clear_a_lost_success_from_after_it_is_taken_and_none_from_before(
    past: Past, client: JobsClient
) -> None:
    past.run("success")
    second = past.run("success", nth(2, before_clear=1))
    assert launch(client, nth(3, before_clear=1)).run.run_id == second


def test_a_success_that_may_be_from_before_the_clear_is_not_taken(past: Past, client: JobsClient) -> None:
    """Try 1 died before its POST, so the first token was used after the clear: that cannot be told."""
    first = past.run("success", nth(2, before_clear=1))
    assert launch(client, nth(3, before_clear=1)).run.run_id > first


def test_a_run_from_before_the_clear_that_goes_on_is_cancelled_and_followed_by_another(
    past: Past, client: JobsClient, clock: Clock, workspace: LocalWorkspace
) -> None:
    """Whoever cleared the task would have it cancelled; where nobody could, or has not yet, this try does."""
    run_id = past.run()
    clock.meanwhile = workspace.tick
    launched = launch(client, nth(2, before_clear=1))
    assert launched.run.run_id > run_id
    assert f"anew, as run {run_id} of an earlier try has ended TERMINATED/CANCELED" in launched.story
    assert workspace.requests["runs/cancel"] == 1


def test_a_task_that_does_not_wait_leaves_the_run_from_before_the_clear_alone(
    past: Past, client: JobsClient, workspace: LocalWorkspace
) -> None:
    run_id = past.run()
    launched = launch(client, nth(2, before_clear=1), cancels=False)
    assert launched.run.run_id > run_id
    assert f"anew, as run {run_id} of an earlier try is from before the clear" in launched.story
    assert workspace.requests["runs/cancel"] == 0


def test_a_run_from_after_the_clear_is_joined_at_once(past: Past, client: JobsClient, clock: Clock) -> None:
    past.run("failure")
    second = past.run("", nth(2, before_clear=1))
    assert launch(client, nth(3, before_clear=1)).run.run_id == second
    assert clock.waits == []


# --- run again and again ---


@pytest.mark.parametrize(
    "again",
    [
        pytest.param(nth(1, dag_run_start=None), id="airflow tasks test"),
        pytest.param(nth(1, dag_run_start=EPOCH + 30), id="DAG run deleted and created again"),
        pytest.param(nth(2, dag_run_start=EPOCH + 1000), id="its second try"),
    ],
)
@pytest.mark.parametrize("ended", ["success", "failure", "deletion"])
def test_a_task_that_is_run_again_walks_past_finished_runs(
    past: Past, client: JobsClient, workspace: LocalWorkspace, again: TaskTry, ended: str
) -> None:
    runs = [past.run(ended), past.run(ended, nth(1, dag_run_start=None))]
    launched = launch(client, again)
    assert launched.run.run_id > max(runs)
    assert workspace.requests["runs/submit"] == 3


def test_a_dag_run_that_was_created_again_takes_its_own_lost_success(
    past: Past, client: JobsClient, clock: Clock
) -> None:
    past.run("success")
    started = clock.now - 1
    second = past.run("success", nth(1, dag_run_start=started))
    assert launch(client, nth(2, dag_run_start=started)).run.run_id == second


# --- refusals ---


@pytest.mark.parametrize("endpoint", ["runs/submit", "run-now"])
def test_a_payload_that_the_api_refuses_costs_two_posts(
    client: JobsClient, workspace: LocalWorkspace, endpoint: Any
) -> None:
    """The first refusal might have meant a deleted run; the second token has none."""
    body = {"job_id": 404} if endpoint == "run-now" else {"tasks": []}
    with pytest.raises(NotFound if endpoint == "run-now" else BadRequest):
        Launcher(client, endpoint, body, nth(1)).launch()
    assert workspace.requests == {endpoint: 2}


REFUSALS = {
    "INVALID_PARAMETER_VALUE": 400,
    "RESOURCE_DOES_NOT_EXIST": 404,
    "RESOURCE_ALREADY_EXISTS": 409,
    "": 400,
}


@pytest.mark.parametrize(("code", "status"), REFUSALS.items())
def test_one_refusal_that_does_not_say_why_may_mean_a_deleted_run(
    client: JobsClient, workspace: LocalWorkspace, code: str, status: int
) -> None:
    workspace.faults.append(Fault("runs/submit", status=status, body={"error_code": code, "message": "No."}))
    assert launch(client, nth(1)).story.endswith(
        f"anew, as the run of an earlier try was deleted: {URL}/jobs/{run_page(client)}"
    )


def run_page(client: JobsClient) -> str:
    (run,) = client.list_runs()
    return run.page_url.partition("/jobs/")[2]


@pytest.mark.parametrize(
    ("code", "status"), [("MALFORMED_REQUEST", 400), ("PERMISSION_DENIED", 403), ("FEATURE_DISABLED", 404)]
)
def test_a_refusal_of_something_else_is_raised_at_once(
    client: JobsClient, workspace: LocalWorkspace, code: str, status: int
) -> None:
    workspace.faults.append(Fault("runs/submit", status=status, body={"error_code": code, "message": "No."}))
    with pytest.raises(JobsError, match="No"):
        launch(client, nth(1))
    assert workspace.requests == {"runs/submit": 1}


def test_refusals_that_tell_of_deletion_are_walked_past_but_not_for_ever(
    client: JobsClient, workspace: LocalWorkspace
) -> None:
    said = {"error_code": "INVALID_PARAMETER_VALUE", "message": "The run of this idempotency token is gone."}
    workspace.faults.append(Fault("runs/submit", status=400, body=said, times=20))
    assert launch(client, nth(1)).run
    workspace.requests.clear()
    workspace.faults.append(Fault("runs/submit", status=400, body=said, times=None))
    with pytest.raises(BadRequest, match="idempotency"):
        launch(client, nth(1))
    assert workspace.requests == {"runs/submit": 21}


def test_a_deleted_run_between_others_does_not_make_the_next_deletion_an_error(
    past: Past, client: JobsClient, workspace: LocalWorkspace
) -> None:
    """Refusals count only in a row: where the API does not say why, a run between two of them starts the count anew."""
    silent = {"error_code": "INVALID_PARAMETER_VALUE", "message": "No."}
    first = past.run("failure")
    workspace.faults += [
        Fault("runs/submit", status=400, body=silent),
        Fault("runs/submit", status=400, body=silent, skip=1),
    ]
    # Token 1 is refused, token 2 launches: shown as old, so that the walk goes on to token 3, which is refused too.
    old = {"run_id": 5, "start_time": OLD, "state": state("TERMINATED", "FAILED")}
    workspace.faults.append(Fault("runs/get", status=200, body=old))
    assert launch(client, nth(3)).run.run_id > first
    assert workspace.requests["runs/submit"] == 4


def test_no_credentials_are_no_deleted_run(client: JobsClient, workspace: LocalWorkspace) -> None:
    workspace.token = "another"
    with pytest.raises(PermissionDenied):
        launch(client, nth(1))
    assert workspace.requests == {"runs/submit": 1}


# --- runs that cannot be seen ---


def not_found(**kwargs: Any) -> Fault:
    body = {"error_code": "INVALID_PARAMETER_VALUE", "message": "Run 5 does not exist."}
    return Fault("runs/get", status=400, body=body, **kwargs)


def test_a_run_that_is_not_visible_yet_is_waited_for(
    client: JobsClient, workspace: LocalWorkspace, clock: Clock
) -> None:
    workspace.faults.append(not_found(times=5))
    launched = launch(client, nth(1))
    assert run_ids(client) == [launched.run.run_id]
    assert sum(clock.waits) == 30
    assert launched.story.startswith("Launched")


def test_a_run_that_stays_invisible_counts_as_deleted(client: JobsClient, workspace: LocalWorkspace) -> None:
    workspace.faults.append(not_found(times=6))
    launched = launch(client, nth(1))
    gone, here = run_ids(client)
    assert launched.run.run_id == here
    assert f"anew, as run {gone} of an earlier try was deleted" in launched.story


def test_a_run_that_is_deleted_while_it_is_watched_counts_as_deleted(
    past: Past, client: JobsClient, workspace: LocalWorkspace, clock: Clock
) -> None:
    first = past.run()

    def end() -> None:
        clock.meanwhile = lambda: None
        workspace.tick()
        client.delete_run(first)

    clock.meanwhile = end
    assert launch(client, nth(2, before_clear=1)).run.run_id > first


def test_a_run_that_cannot_be_asked_for_is_not_launched_again(client: JobsClient, workspace: LocalWorkspace) -> None:
    workspace.faults.append(Fault("runs/get", status=403, body={"error_code": "PERMISSION_DENIED"}, times=None))
    with pytest.raises(RunLost, match="left alone"):
        launch(client, nth(1))
    assert workspace.requests["runs/submit"] == 1


# --- replies that are lost ---


@pytest.mark.parametrize(
    "fault",
    [
        Fault("runs/submit", cut="before"),
        Fault("runs/submit", cut="after"),
        Fault("runs/submit", status=503, handled=True),
        Fault("runs/submit", status=503),
        Fault("runs/submit", status=429),
        Fault("runs/submit", hang=600),
        Fault("runs/submit", status=200, handled=True, body="<html>"),
        Fault("runs/get", cut="after"),
        Fault("runs/get", status=500),
        Fault("runs/get", hang=600),
    ],
    ids=lambda fault: f"{fault.operation} {fault.cut or fault.status or 'hang'} {'handled' * fault.handled}",
)
@pytest.mark.parametrize("times", [1, 3])
def test_a_lost_reply_launches_nothing_twice(
    client: JobsClient, workspace: LocalWorkspace, fault: Fault, times: int
) -> None:
    workspace.faults.append(replace(fault, times=times))
    launched = launch(client, nth(1))
    assert not launched.joined
    assert run_ids(client) == [launched.run.run_id]


@pytest.mark.parametrize("handled", [True, False])
def test_a_launch_that_was_never_answered_is_found_by_the_next_try(
    past: Past, client: JobsClient, workspace: LocalWorkspace, clock: Clock, *, handled: bool
) -> None:
    workspace.faults.append(Fault("runs/submit", cut="after" if handled else "before", times=None))
    with pytest.raises(Unreachable):
        launch(client, nth(1))
    workspace.faults.clear()
    past.pass_time()
    launched = launch(new_client(clock), nth(2))
    assert launched.joined is handled
    assert run_ids(client) == [launched.run.run_id]


# --- a token of the user's ---


def mine(client: JobsClient, number: int = 1) -> Launched:
    return Launcher(client, "runs/submit", payload(idempotency_token="mine"), nth(number)).launch()


def test_the_users_token_is_sent_as_it_is_and_nothing_is_walked(
    past: Past, client: JobsClient, workspace: LocalWorkspace, clock: Clock
) -> None:
    launched = mine(client)
    assert client.submit_run(payload(idempotency_token="mine")) == launched.run.run_id
    assert launched.story.startswith(f"Launched run {launched.run.run_id} of job")
    assert (launched.joined, launched.token_is_used_up) == (False, False)

    past.pass_time()
    active = mine(new_client(clock), 2)
    assert active.run.run_id == launched.run.run_id
    assert (active.joined, active.token_is_used_up) == (False, False)

    workspace.tick()
    over = mine(new_client(clock), 3)
    assert over.run.run_id == launched.run.run_id
    assert over.token_is_used_up
    assert over.story == (
        f"Found run {over.run.run_id}, launched at 2027-01-15T08:00:00Z with the same idempotency_token:"
        f" {over.run.page_url}"
    )
    assert workspace.requests == {"runs/submit": 2, "runs/get": 2}


def test_a_run_of_the_users_token_that_was_deleted_is_an_error_that_says_so(
    client: JobsClient, workspace: LocalWorkspace
) -> None:
    run_id = mine(client).run.run_id
    workspace.tick()
    client.delete_run(run_id)
    with pytest.raises(BadRequest, match="deleted"):
        mine(client, 2)


def test_a_run_of_the_users_token_that_stays_invisible_is_an_error(
    client: JobsClient, workspace: LocalWorkspace
) -> None:
    workspace.faults.append(not_found(times=None))
    with pytest.raises(RunLost, match="does not exist any more"):
        mine(client)
    assert workspace.requests["runs/submit"] == 1


def test_an_empty_token_is_none(client: JobsClient) -> None:
    runs = [Launcher(client, "runs/submit", payload(idempotency_token=""), nth(1)).launch().run.run_id for _ in "ab"]
    assert runs == run_ids(client) * 2


# --- each try for itself ---


def test_where_each_try_is_alone_none_joins_or_takes(past: Past, client: JobsClient, workspace: LocalWorkspace) -> None:
    runs = [launch(client, nth(number), durable=False).run.run_id for number in (1, 2)]
    workspace.tick()
    past.pass_time()
    runs.append(launch(client, nth(3), durable=False).run.run_id)
    assert run_ids(client) == runs


def test_a_try_that_is_alone_still_launches_once_for_each_time_it_is_made(
    past: Past, client: JobsClient, workspace: LocalWorkspace
) -> None:
    """Its DAG run was deleted and created again: the same try of the same names, and its success is not this one's."""
    workspace.faults.append(Fault("runs/submit", cut="after"))
    first = launch(client, nth(2), durable=False).run.run_id
    workspace.tick()
    past.pass_time()
    second = launch(client, nth(2), durable=False).run.run_id
    assert run_ids(client) == [first, second]


# --- kills ---


@pytest.mark.parametrize("handled", [True, False], ids=["reply on its way", "request on its way"])
@pytest.mark.parametrize("ordinal", [1, 2])
def test_a_kill_learns_which_run_is_being_launched(
    past: Past,
    client: JobsClient,
    workspace: LocalWorkspace,
    monkeypatch: pytest.MonkeyPatch,
    *,
    handled: bool,
    ordinal: int,
) -> None:
    if ordinal == 2:
        past.run("failure")
    found: list[int | None] = []
    handle, posts = workspace.handle, itertools.count(1)
    ours = launcher(client, nth(ordinal))

    def interrupted(request: Request) -> Reply:
        hit = request.method == "POST" and next(posts) == ordinal
        if not hit:
            return handle(request)
        reply = handle(request) if handled else None
        found.append(ours.find_in_flight(client.with_policy(RetryPolicy(retry_budget=2))))
        return reply or handle(request)

    monkeypatch.setattr(workspace, "handle", interrupted)
    launched = ours.launch()
    assert found == [launched.run.run_id]
    assert len(run_ids(client)) == ordinal


def test_where_nothing_was_sent_a_kill_finds_nothing(client: JobsClient, workspace: LocalWorkspace) -> None:
    assert launcher(client, nth(1)).find_in_flight(client) is None
    assert not workspace.requests


def test_a_kill_finds_the_run_of_the_users_token(client: JobsClient) -> None:
    ours = Launcher(client, "runs/submit", payload(idempotency_token="mine"), nth(1))
    assert ours.launch().run.run_id == ours.find_in_flight(client)


def test_a_launcher_that_was_stopped_launches_nothing(client: JobsClient, workspace: LocalWorkspace) -> None:
    ours = launcher(client, nth(1))
    ours.stop()
    with pytest.raises(JobsError, match="killed before it launched"):
        ours.launch()
    assert not workspace.requests


def test_a_kill_after_the_launch_was_refused_launches_nothing(client: JobsClient, workspace: LocalWorkspace) -> None:
    ours = launcher(client, nth(1))
    ours.stop()
    with pytest.raises(JobsError, match="killed before it launched"):
        ours.launch()
    assert ours.find_in_flight(client) is None
    assert not workspace.requests


@pytest.mark.parametrize("own_token", [False, True])
def test_a_kill_that_meets_a_run_which_is_over_finds_the_one_that_an_earlier_try_left(
    past: Past, client: JobsClient, workspace: LocalWorkspace, monkeypatch: pytest.MonkeyPatch, *, own_token: bool
) -> None:
    over, active = past.run("failure"), past.run(task_try=nth(2))
    given = {"idempotency_token": token_of(nth(1).identity(URL), 1)} if own_token else {}
    ours, handle = Launcher(client, "runs/submit", payload(**given), nth(3)), workspace.handle
    found: list[int | None] = []

    def interrupted(request: Request) -> Reply:
        if request.method == "GET" and not found:
            found.append(None)
            found[0] = ours.find_in_flight(new_client(past.clock))
        return handle(request)

    monkeypatch.setattr(workspace, "handle", interrupted)
    ours.launch()
    assert found == [over if own_token else active]
    assert run_ids(client) == [over, active]


def test_a_walk_that_is_stopped_sends_no_further_token(
    past: Past, client: JobsClient, workspace: LocalWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = past.run("failure")
    ours, handle = launcher(client, nth(2)), workspace.handle

    def interrupted(request: Request) -> Reply:
        if request.method == "GET":
            ours.stop()
        return handle(request)

    monkeypatch.setattr(workspace, "handle", interrupted)
    with pytest.raises(JobsError, match="killed"):
        ours.launch()
    monkeypatch.undo()
    assert workspace.requests["runs/submit"] == 1
    assert first
