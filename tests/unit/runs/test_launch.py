"""launch: which run a try waits for, against a workspace in this process whose time passes only in waits."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import injected_clock
import pytest
from in_process import connect_clients

from airflow_dbjobs.client import JobsClient
from airflow_dbjobs.client.auth import BearerAuth
from airflow_dbjobs.client.models import Outcome, Run
from airflow_dbjobs.client.retry import RetryPolicy
from airflow_dbjobs.client.transport import Transport
from airflow_dbjobs.errors import (
    BadRequest,
    ConfigurationError,
    JobsError,
    NotFound,
    PermissionDenied,
    RunLost,
    Unauthenticated,
    Unreachable,
    UnreadableReply,
)
from airflow_dbjobs.local_workspace import Fault, LocalWorkspace
from airflow_dbjobs.runs.launch import TASK_SUCCEEDED, Launched, Launcher, LaunchIdentity, LaunchTokens, Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from airflow_dbjobs.local_workspace.messages import Reply, Request


class Killed(BaseException):
    """What ends a launch after a kill."""


URL = "http://127.0.0.1:8765"
EPOCH = 1_800_000_000.0
SUCCEEDING = {"op": "EQUAL_TO", "left": "1", "right": "1"}
FAILING = {"op": "LESS_THAN", "left": "one", "right": "2"}
SUCCESSES = frozenset({Outcome.SUCCESS, Outcome.PARTIAL_SUCCESS})
SIXTEENTH = 1 / 16


class Clock(injected_clock.Clock):
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
    connect_clients(monkeypatch, stepped.adapter)
    yield stepped
    stepped.close()


@pytest.fixture
def client(workspace: LocalWorkspace, clock: Clock) -> JobsClient:
    return new_client(clock)


def new_client(clock: Clock) -> JobsClient:
    """Return a client as a new process makes it: it has seen no reply yet."""
    return JobsClient(transport=Transport(URL, BearerAuth("a-token"), clock=clock))


def nth(try_number: int, **others: Any) -> LaunchIdentity:
    """Return a try of a task that was never cleared, unless `others` say otherwise."""
    return LaunchIdentity("nightly", "manual__1", "load", **{"try_number": try_number, "max_tries": 3, **others})


# What a clear changes, of a task with three retries that has had one try, or five.
CLEARED = {"max_tries": 4}
CLEARED_LATER = {"max_tries": 8}


def payload(condition: dict[str, str] = SUCCEEDING, **fields: Any) -> dict[str, Any]:
    return {"run_name": "load", "tasks": [{"task_key": "main", "condition_task": condition}], **fields}


def launcher(
    client: JobsClient, identity: LaunchIdentity, condition: dict[str, str] = SUCCEEDING, **kwargs: Any
) -> Launcher:
    return Launcher(client, "runs/submit", payload(condition), identity, **kwargs)


def launch(
    client: JobsClient, identity: LaunchIdentity, condition: dict[str, str] = SUCCEEDING, **kwargs: Any
) -> Launched:
    return launcher(client, identity, condition, **kwargs).launch()


FIRST = nth(1)


class Past:
    """The runs of earlier tries, each launched a minute after the one before."""

    def __init__(self, client: JobsClient, workspace: LocalWorkspace, clock: Clock) -> None:
        self.client = client
        self.workspace = workspace
        self.clock = clock
        #: Of the last try.
        self.reports: list[str] = []

    def run(self, ended: str = "", identity: LaunchIdentity = FIRST) -> int:
        """Launch a run; `ended` is success, failure, cancel, deletion, or stopping, or "" if it stays active."""
        launch_of_it = launch(self.client, identity, FAILING if ended == "failure" else SUCCEEDING)
        self.reports = [launch_of_it.report]
        launched = launch_of_it.run.run_id
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


def tokens(
    identity: LaunchIdentity, host: str = URL, endpoint: Any = "runs/submit", job_id: object = None
) -> LaunchTokens:
    return LaunchTokens.of(identity, host, endpoint, job_id)


class TestTokens:
    def test_stay_the_same_when_the_task_is_retried(self) -> None:
        assert tokens(nth(1)) == tokens(nth(2)) == tokens(nth(7))

    @pytest.mark.parametrize(
        "other",
        [
            {"dag_id": "weekly"},
            {"run_id": "manual__2"},
            {"task_id": "store"},
            {"map_index": 0},
            {"map_index": 1},
            # The same letters, cut elsewhere.
            {"dag_id": "nightl", "run_id": "ymanual__1"},
            {"deployment": "staging"},
            {"dag_run_start": "1800000000.000001"},
            {"operator": "clean_up"},
            {"launch_number": 2},
            {"durable": False},
            CLEARED,
        ],
        ids=str,
    )
    def test_differ_between_launches(self, other: dict[str, Any]) -> None:
        assert tokens(replace(nth(1), **other)).token(1) != tokens(nth(1)).token(1)

    def test_differ_between_workspaces_endpoints_and_jobs(self) -> None:
        several = [
            tokens(nth(1)),
            tokens(nth(1), "https://elsewhere.example"),
            tokens(nth(1), endpoint="run-now", job_id=1),
            tokens(nth(1), endpoint="run-now", job_id=2),
            LaunchTokens.of(nth(1), URL, "runs/submit", workspace_id="605"),
        ]
        assert len({token.launch for token in several}) == len(several)

    def test_do_not_depend_on_the_type_of_the_job_id(self) -> None:
        assert tokens(nth(1), endpoint="run-now", job_id=7) == tokens(nth(1), endpoint="run-now", job_id="7")

    @pytest.mark.parametrize(
        "host", ["https://ADB-1.Azure.example", "http://adb-1.azure.example", "HTTPS://adb-1.azure.example/"]
    )
    def test_do_not_depend_on_the_spelling_of_the_workspace_url(self, host: str) -> None:
        assert tokens(nth(1), host) == tokens(nth(1), "https://adb-1.azure.example")

    def test_have_at_most_64_characters(self) -> None:
        long = LaunchIdentity("ä" * 250, "r" * 250, "t" * 250, launch_number=10**9)
        assert len(tokens(long).token(99_999)) <= 64

    def test_differ_between_tries_if_not_durable(self) -> None:
        assert len({tokens(nth(number, durable=False)).launch for number in (1, 2, 3)}) == 3

    def test_ignore_reports_of_other_launches(self) -> None:
        mine, other = tokens(nth(1)), tokens(nth(1, launch_number=2))
        assert mine.read(f"{mine.token(3)}.17") == (mine.epoch, 3, 17)
        assert mine.read(f"{other.token(3)}.17") is None
        assert mine.read("return_value") is None


SINCE = EPOCH + 1000
OLD = SINCE - 300


def state(life: str, result: str | None = None, *, stopped: bool = False) -> dict[str, Any]:
    return {"life_cycle_state": life, "result_state": result, "user_cancelled_or_timedout": stopped}


DONE = state("TERMINATED", "SUCCESS")
FAILED = state("TERMINATED", "FAILED")
STOPPED = state("TERMINATING", stopped=True)
NEW, UNKNOWN, KNOWN = False, None, True
JUST_BEFORE = SINCE - 30
CASES = {
    # Sent by nobody before: the run is the try's own, in whatever state it is by now, whatever the clocks say.
    "own": (NEW, SINCE + 1, state("PENDING"), Verdict.LAUNCHED),
    "own, by a clock that is behind": (NEW, OLD, state("RUNNING"), Verdict.LAUNCHED),
    "own, done": (NEW, OLD, DONE, Verdict.LAUNCHED),
    "own, failed": (NEW, OLD, FAILED, Verdict.LAUNCHED),
    "own, skipped": (NEW, SINCE, state("SKIPPED"), Verdict.LAUNCHED),
    "own, cancelled": (NEW, SINCE + 1, STOPPED, Verdict.LAUNCHED),
    "own, no start yet": (NEW, None, state("QUEUED"), Verdict.LAUNCHED),
    # An earlier try may have sent it: active runs.
    "looks new": (UNKNOWN, SINCE, state("PENDING"), Verdict.LAUNCHED),
    "queued": (UNKNOWN, OLD, state("QUEUED"), Verdict.JOIN),
    "pending": (UNKNOWN, OLD, state("PENDING"), Verdict.JOIN),
    "running": (UNKNOWN, OLD, state("RUNNING"), Verdict.JOIN),
    "in a state nobody knows": (UNKNOWN, OLD, state("DREAMING"), Verdict.JOIN),
    "known, by a clock that is ahead": (KNOWN, SINCE + 30, state("RUNNING"), Verdict.JOIN),
    # About to end.
    "being cancelled": (UNKNOWN, OLD, STOPPED, Verdict.WAIT_FOR_END),
    "being cancelled, by a clock that is ahead": (UNKNOWN, SINCE + 30, STOPPED, Verdict.WAIT_FOR_END),
    "cancelled, still running": (KNOWN, OLD, state("RUNNING", stopped=True), Verdict.WAIT_FOR_END),
    "being cancelled, by its result": (UNKNOWN, OLD, state("TERMINATING", "CANCELED"), Verdict.WAIT_FOR_END),
    "ending": (UNKNOWN, OLD, state("TERMINATING"), Verdict.WAIT_FOR_END),
    "ending, result known": (KNOWN, OLD, state("TERMINATING", "SUCCESS"), Verdict.WAIT_FOR_END),
    # Succeeded.
    "succeeded": (UNKNOWN, OLD, DONE, Verdict.TAKE_RESULT),
    "succeeded just before": (UNKNOWN, JUST_BEFORE, DONE, Verdict.TAKE_RESULT),
    "known to have succeeded": (KNOWN, SINCE + 30, DONE, Verdict.TAKE_RESULT),
    "partially succeeded": (UNKNOWN, OLD, state("TERMINATED", "SUCCESS_WITH_FAILURES"), Verdict.TAKE_RESULT),
    "looks new, and has succeeded": (UNKNOWN, SINCE, DONE, Verdict.LAUNCHED),
    # Of no use.
    "failed": (UNKNOWN, OLD, FAILED, Verdict.IGNORE),
    "failed with many tasks": (UNKNOWN, OLD, state("INTERNAL_ERROR", "FAILED"), Verdict.IGNORE),
    "known to have failed just now": (KNOWN, SINCE + 30, FAILED, Verdict.IGNORE),
    "cancelled": (UNKNOWN, SINCE - 1, state("TERMINATED", "CANCELED"), Verdict.IGNORE),
    "looks new, and was cancelled": (UNKNOWN, SINCE, state("TERMINATED", "CANCELED"), Verdict.LAUNCHED),
    "timed out": (UNKNOWN, OLD, state("TERMINATED", "TIMEDOUT"), Verdict.IGNORE),
    "skipped": (UNKNOWN, OLD, state("SKIPPED"), Verdict.IGNORE),
    "ended as nobody knows": (UNKNOWN, OLD, state("TERMINATED", "DREAMT"), Verdict.IGNORE),
    # They cannot be distinguished from a run of this try, which must launch at most one.
    "failed at once, just before": (UNKNOWN, JUST_BEFORE, FAILED, Verdict.LAUNCHED),
    "skipped just before": (UNKNOWN, JUST_BEFORE, state("SKIPPED"), Verdict.LAUNCHED),
}


class TestJudge:
    @pytest.mark.parametrize(("is_old", "start", "said", "verdict"), CASES.values(), ids=CASES.keys())
    def test_verdicts(self, is_old: bool | None, start: float | None, said: dict[str, Any], verdict: Verdict) -> None:
        run = Run.from_json({"run_id": 7, "start_time": start and start * 1000, "state": said})
        decision = judge(run, is_old=is_old, server_time=SINCE, seconds_ago=0.1, successes=SUCCESSES)
        assert decision is verdict

    @pytest.mark.parametrize(("took", "verdict"), [(5, Verdict.LAUNCHED), (9, Verdict.IGNORE)])
    def test_run_longer_than_the_request_is_older(self, took: float, verdict: Verdict) -> None:
        """Start and end come from one clock, and the time since the request from another, so skew does not matter."""
        times = {"start_time": JUST_BEFORE * 1000, "end_time": (JUST_BEFORE + took) * 1000}
        run = Run.from_json({"run_id": 7, **times, "state": FAILED})
        assert judge(run, is_old=None, server_time=SINCE, seconds_ago=6, successes=SUCCESSES) is verdict

    def test_partial_success_counts_only_if_the_task_accepts_it(self) -> None:
        said = state("TERMINATED", "SUCCESS_WITH_FAILURES")
        run = Run.from_json({"run_id": 7, "start_time": OLD * 1000, "state": said})
        verdict = judge(run, is_old=None, server_time=SINCE, seconds_ago=1, successes=frozenset({Outcome.SUCCESS}))
        assert verdict is Verdict.IGNORE


class TestReports:
    """What Airflow knows of earlier tries."""

    def test_consist_of_token_and_run_id(self, client: JobsClient) -> None:
        launched = launch(client, nth(1))
        assert launched.report == f"{tokens(nth(1)).token(1)}.{launched.run.run_id}"

    def test_save_the_requests_for_earlier_runs(
        self, past: Past, client: JobsClient, workspace: LocalWorkspace
    ) -> None:
        for number in range(1, 7):
            last = past.run("" if number == 6 else "failure", nth(number))
        assert launch(client, nth(7), reports=past.reports).run.run_id == last
        assert workspace.requests["runs/submit"] == 1

    def test_assign_a_recent_failure_to_an_earlier_try(self, past: Past, client: JobsClient, clock: Clock) -> None:
        first = past.run("failure")
        clock.now -= 59
        assert launch(new_client(clock), nth(2), reports=past.reports).run.run_id > first

    @pytest.mark.parametrize("ahead", [-60, -3, 0, 3, 60])
    @pytest.mark.parametrize("latency", [0, 6, 10])
    def test_that_are_empty_assign_instant_failures_to_this_try(
        self, ahead: float, latency: float, skewed: Callable[[float, float], JobsClient]
    ) -> None:
        """The earlier try died before it launched. This one launches one run, whatever the clocks say."""
        client = skewed(ahead, latency)
        launched = launch(client, nth(2), FAILING, reports=[])
        assert run_ids(client) == [launched.run.run_id]

    def test_of_other_launches_are_ignored(self, past: Past, client: JobsClient) -> None:
        other = launch(client, nth(1, launch_number=2))
        past.pass_time()
        launched = launch(client, nth(2), reports=[other.report, "return_value"])
        assert launched.run.run_id > other.run.run_id
        assert not client.get_run(other.run.run_id).is_terminal

    def test_of_success_mean_that_the_task_was_cleared(self, past: Past, client: JobsClient) -> None:
        """`retries` was lowered before, by as many as there were tries, so that max_tries is what it was."""
        first = past.run("success")
        launched = launch(client, nth(2), reports=[*past.reports, TASK_SUCCEEDED])
        assert launched.run.run_id > first


@pytest.fixture
def skewed(
    workspace: LocalWorkspace, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> Callable[[float, float], JobsClient]:
    """Return what makes a client whose gateway's clock is ahead by so many seconds, and each of its requests slow."""
    handle = workspace.handle

    def make(ahead: float, latency: float) -> JobsClient:
        def slow(request: Request) -> Reply:
            clock.now += latency / 2
            reply = handle(request)
            workspace.tick()
            clock.now += latency / 2
            return replace(reply, headers={**reply.headers, "Date": formatdate(clock.now + ahead, usegmt=True)})

        monkeypatch.setattr(workspace, "handle", slow)
        return new_client(clock)

    return make


class TestFirstTry:
    @pytest.mark.parametrize("endpoint", ["runs/submit", "run-now"])
    def test_costs_one_post_and_one_get(self, client: JobsClient, workspace: LocalWorkspace, endpoint: Any) -> None:
        body = {"job_id": client.create_job({"name": "load", **payload()})} if endpoint == "run-now" else payload()
        workspace.requests.clear()
        launched = Launcher(client, endpoint, body, nth(1)).launch()
        assert workspace.requests == {endpoint: 1, "runs/get": 1}
        assert not launched.joined
        assert "idempotency_token" not in body, "the caller's payload stays as it is"
        run = launched.run
        assert launched.message == f"Launched run {run.run_id} of job {run.job_id}: {run.page_url}"

    def test_of_a_job_is_not_a_run_of_another_job(self, client: JobsClient, workspace: LocalWorkspace) -> None:
        jobs = [client.create_job({"name": name, **payload()}) for name in ("load", "clean_up")]
        other = client.run_now({"job_id": jobs[0]})
        workspace.faults.append(Fault("run-now", status=200, body={"run_id": other}))
        with pytest.raises(
            UnreadableReply, match=f"launch of job {jobs[1]} returned run {other} of job {jobs[0]}"
        ) as error:
            Launcher(client, "run-now", {"job_id": jobs[1]}, nth(1)).launch()
        assert error.value.unclear

    def test_owns_a_run_that_is_already_over(self, client: JobsClient, workspace: LocalWorkspace) -> None:
        settings = {"name": "load", "max_concurrent_runs": 1, **payload()}
        job_id = client.create_job(settings)
        client.run_now({"job_id": job_id})
        launched = Launcher(client, "run-now", {"job_id": job_id}, nth(1)).launch()
        assert launched.run.outcome is Outcome.SKIPPED
        assert len(run_ids(client)) == 2

    @pytest.mark.parametrize("ahead", [-3600, -60, 3, 60, 3600])
    @pytest.mark.parametrize("latency", [0.1, 10])
    def test_launches_one_run_whatever_the_clocks_say(
        self, skewed: Callable[[float, float], JobsClient], ahead: float, latency: float
    ) -> None:
        client = skewed(ahead, latency)
        launched = launch(client, nth(1), FAILING)
        assert run_ids(client) == [launched.run.run_id]
        assert not launched.joined


@pytest.fixture
def without_date(workspace: LocalWorkspace, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    handle = workspace.handle

    def dateless(request: Request) -> Reply:
        reply = handle(request)
        return replace(reply, headers={name: value for name, value in reply.headers.items() if name != "Date"})

    monkeypatch.setattr(workspace, "handle", dateless)
    monkeypatch.setattr(clock, "time", clock)


class TestClocks:
    def test_run_of_the_same_second_belongs_to_this_try(self, past: Past, clock: Clock) -> None:
        """The server tells its time in whole seconds."""
        first = past.run("failure")
        clock.now = EPOCH + 0.25 + SIXTEENTH
        assert launch(new_client(clock), nth(2)).run.run_id == first
        clock.now = EPOCH + 1
        assert launch(new_client(clock), nth(2)).run.run_id > first

    def test_run_of_a_launch_repeated_for_minutes_belongs_to_it(
        self, client: JobsClient, workspace: LocalWorkspace
    ) -> None:
        """The run was launched by the first of them, long before the reply whose Date tells the time."""
        workspace.faults += [
            Fault("runs/submit", status=503, handled=True),
            *(Fault("runs/submit", status=500) for _ in range(6)),
        ]
        launched = launch(client, nth(1))
        assert not launched.joined
        assert launched.message.startswith("Launched")

    @pytest.mark.usefixtures("without_date")
    def test_server_without_date_is_assumed_to_have_our_time(
        self, past: Past, client: JobsClient, clock: Clock
    ) -> None:
        assert launch(client, nth(1)).message.startswith("Launched")
        past.pass_time()
        assert launch(new_client(clock), nth(2)).message.startswith("Joined")
        assert len(run_ids(client)) == 1

    def test_wrong_local_clock_does_no_harm(
        self, past: Past, client: JobsClient, monkeypatch: Any, clock: Clock
    ) -> None:
        monkeypatch.setattr(clock, "time", lambda: clock.now + 86400)
        assert launch(client, nth(1)).message.startswith("Launched")
        past.pass_time()
        monkeypatch.setattr(clock, "time", lambda: clock.now - 86400)
        assert launch(new_client(clock), nth(2)).message.startswith("Joined")


class TestClear:
    def test_is_followed_by_a_new_run_after_any_success(self, past: Past, client: JobsClient) -> None:
        runs = [past.run("success"), past.run("success", nth(2, **CLEARED))]
        runs.append(past.run("success", nth(6, **CLEARED_LATER)))
        assert run_ids(client) == runs
        assert len(set(runs)) == 3

    @pytest.mark.parametrize("clears", [1, 30])
    def test_costs_one_post_and_one_get_however_many_tries(
        self, past: Past, client: JobsClient, workspace: LocalWorkspace, clears: int
    ) -> None:
        for number in range(1, clears + 1):
            past.run("success", nth(number, max_tries=number + 2))
        launch(client, nth(clears + 1, max_tries=clears + 3))
        assert workspace.requests == {"runs/submit": 1, "runs/get": 1}

    def test_lets_a_retry_take_a_later_lost_success(self, past: Past, client: JobsClient) -> None:
        past.run("success")
        second = past.run("success", nth(2, **CLEARED))
        assert launch(client, nth(3, **CLEARED)).run.run_id == second

    def test_lets_a_retry_take_the_first_run_of_all(self, past: Past, client: JobsClient) -> None:
        first = past.run("success", nth(2, **CLEARED))
        assert launch(client, nth(3, **CLEARED)).run.run_id == first

    def test_lets_a_retry_join_a_later_run_at_once(self, past: Past, client: JobsClient, clock: Clock) -> None:
        past.run("failure")
        second = past.run("", nth(2, **CLEARED))
        assert launch(client, nth(3, **CLEARED)).run.run_id == second
        assert clock.waits == []

    def test_cancels_an_earlier_active_run(
        self, past: Past, client: JobsClient, clock: Clock, workspace: LocalWorkspace
    ) -> None:
        """Whoever cleared the task would have it cancelled; where nobody could, or has not yet, this try does."""
        run_id = past.run()
        clock.meanwhile = workspace.tick
        launched = launch(client, nth(2, **CLEARED), reports=past.reports)
        assert launched.run.run_id > run_id
        assert client.get_run(run_id).outcome is Outcome.CANCELED
        assert workspace.requests["runs/cancel"] == 1

    def test_cancels_nothing_if_the_task_does_not_wait(
        self, past: Past, client: JobsClient, workspace: LocalWorkspace
    ) -> None:
        run_id = past.run()
        launched = launch(client, nth(2, **CLEARED), reports=past.reports, cancel_cleared=False)
        assert launched.run.run_id > run_id
        assert workspace.requests["runs/cancel"] == 0

    @pytest.mark.parametrize("cancels", [True, False])
    def test_waits_for_a_run_that_is_being_cancelled(
        self, past: Past, client: JobsClient, clock: Clock, workspace: LocalWorkspace, *, cancels: bool
    ) -> None:
        """Until then it counts for the job's max_concurrent_runs."""
        run_id = past.run()
        start = client.get_run(run_id).raw["start_time"]
        reply = {"run_id": run_id, "start_time": start, "state": STOPPED}
        workspace.faults.append(Fault("runs/get", status=200, body=reply, times=3))
        clock.meanwhile = workspace.tick
        launched = launch(client, nth(2, **CLEARED), reports=past.reports, cancel_cleared=cancels)
        assert launched.run.run_id > run_id
        assert len(clock.waits) == 2
        assert workspace.requests["runs/cancel"] == 0

    def test_does_not_wait_for_a_deleted_run(
        self, past: Past, client: JobsClient, clock: Clock, workspace: LocalWorkspace
    ) -> None:
        first = past.run()

        def end() -> None:
            clock.meanwhile = lambda: None
            workspace.tick()
            client.delete_run(first)

        clock.meanwhile = end
        assert launch(client, nth(2, **CLEARED), reports=past.reports).run.run_id > first


REFUSALS = {
    "INVALID_PARAMETER_VALUE": 400,
    "RESOURCE_DOES_NOT_EXIST": 404,
    "RESOURCE_ALREADY_EXISTS": 409,
    "": 400,
}


def run_page(client: JobsClient) -> str:
    (run,) = client.list_runs()
    return run.page_url.partition("/jobs/")[2]


class TestRefusedLaunch:
    @pytest.mark.parametrize("endpoint", ["runs/submit", "run-now"])
    def test_costs_one_post(self, client: JobsClient, workspace: LocalWorkspace, endpoint: Any) -> None:
        body = {"job_id": 404} if endpoint == "run-now" else {"tasks": []}
        with pytest.raises(NotFound if endpoint == "run-now" else BadRequest):
            Launcher(client, endpoint, body, nth(1)).launch()
        assert workspace.requests == {endpoint: 1}

    @pytest.mark.parametrize(("code", "status"), REFUSALS.items())
    def test_without_a_reason_may_mean_a_deleted_run(
        self, client: JobsClient, workspace: LocalWorkspace, code: str, status: int
    ) -> None:
        workspace.faults.append(Fault("runs/submit", status=status, body={"error_code": code, "message": "No."}))
        assert launch(client, nth(2)).message.endswith(
            f", because the run of an earlier try was deleted: {URL}/jobs/{run_page(client)}"
        )

    @pytest.mark.parametrize(
        ("code", "status"), [("MALFORMED_REQUEST", 400), ("PERMISSION_DENIED", 403), ("FEATURE_DISABLED", 404)]
    )
    def test_with_another_reason_is_raised_at_once(
        self, client: JobsClient, workspace: LocalWorkspace, code: str, status: int
    ) -> None:
        workspace.faults.append(Fault("runs/submit", status=status, body={"error_code": code, "message": "No."}))
        with pytest.raises(JobsError, match="No"):
            launch(client, nth(1))
        assert workspace.requests == {"runs/submit": 1}

    def test_sends_no_more_tokens_than_there_were_tries(self, client: JobsClient, workspace: LocalWorkspace) -> None:
        said = {"error_code": "INVALID_PARAMETER_VALUE", "message": "The run of this idempotency token is gone."}
        workspace.faults.append(Fault("runs/submit", status=400, body=said, times=None))
        with pytest.raises(BadRequest, match="idempotency"):
            launch(client, nth(4))
        assert workspace.requests == {"runs/submit": 4}


class TestCredentials:
    """A launch that is refused for its credentials has launched nothing."""

    @pytest.fixture
    def rotated(self, workspace: LocalWorkspace, clock: Clock) -> JobsClient:
        """Return a client whose token was revoked after it was read."""
        workspace.token = "a-new-token"

        def reread() -> Transport:
            return Transport(URL, BearerAuth("a-new-token"), clock=clock)

        old = Transport(URL, BearerAuth("a-token"), clock=clock)
        return JobsClient(transport=old, reread=reread)

    def test_are_read_again_once(self, rotated: JobsClient, workspace: LocalWorkspace) -> None:
        launched = launch(rotated, nth(1))
        assert run_ids(rotated) == [launched.run.run_id]
        assert workspace.requests["runs/submit"] == 2

    def test_are_not_used_if_the_task_was_killed_meanwhile(
        self, rotated: JobsClient, workspace: LocalWorkspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ours, renew = launcher(rotated, nth(1)), rotated.renew_credentials

        def killed() -> bool:
            ours.stop()
            return renew()

        monkeypatch.setattr(rotated, "renew_credentials", killed)
        with pytest.raises(JobsError, match="killed before it launched"):
            ours.launch()
        assert workspace.requests["runs/submit"] == 1

    def test_that_are_still_refused_fail_the_launch(self, rotated: JobsClient, workspace: LocalWorkspace) -> None:
        workspace.token = "one more"
        with pytest.raises((Unauthenticated, PermissionDenied)):
            launch(rotated, nth(1))
        assert workspace.requests["runs/submit"] == 2

    def test_that_are_rejected_do_not_mean_a_deleted_run(self, client: JobsClient, workspace: LocalWorkspace) -> None:
        workspace.token = "another"
        with pytest.raises(PermissionDenied):
            launch(client, nth(1))
        assert workspace.requests == {"runs/submit": 1}


def not_found(**kwargs: Any) -> Fault:
    body = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "The run does not exist."}
    return Fault("runs/get", status=400, body=body, **kwargs)


class TestInvisibleRun:
    def test_is_waited_for(self, client: JobsClient, workspace: LocalWorkspace, clock: Clock) -> None:
        workspace.faults.append(not_found(times=5))
        launched = launch(client, nth(1))
        assert run_ids(client) == [launched.run.run_id]
        assert sum(clock.waits) == 30
        assert launched.message.startswith("Launched")

    def test_of_an_earlier_try_counts_as_deleted(
        self, past: Past, client: JobsClient, workspace: LocalWorkspace
    ) -> None:
        gone = past.run()
        workspace.faults.append(not_found(times=6))
        launched = launch(client, nth(2))
        assert launched.run.run_id > gone
        assert f", because run {gone} of an earlier try was deleted" in launched.message

    def test_of_this_try_is_cancelled_and_not_replaced(self, client: JobsClient, workspace: LocalWorkspace) -> None:
        workspace.faults.append(not_found(times=6))
        with pytest.raises(RunLost, match=r"the API cannot find it\. It was cancelled"):
            launch(client, nth(1))
        assert workspace.requests["runs/submit"] == workspace.requests["runs/cancel"] == 1

    def test_that_may_not_be_read_is_not_replaced(self, client: JobsClient, workspace: LocalWorkspace) -> None:
        workspace.faults.append(Fault("runs/get", status=403, body={"error_code": "PERMISSION_DENIED"}, times=None))
        with pytest.raises(RunLost, match="was not cancelled"):
            launch(client, nth(1))
        assert workspace.requests["runs/submit"] == 1


class TestLostReply:
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
    def test_launches_nothing_twice(
        self, client: JobsClient, workspace: LocalWorkspace, fault: Fault, times: int
    ) -> None:
        workspace.faults.append(replace(fault, times=times))
        launched = launch(client, nth(1))
        assert not launched.joined
        assert run_ids(client) == [launched.run.run_id]

    @pytest.mark.parametrize("handled", [True, False])
    def test_lets_the_next_try_find_the_run(
        self, past: Past, client: JobsClient, workspace: LocalWorkspace, clock: Clock, *, handled: bool
    ) -> None:
        workspace.faults.append(Fault("runs/submit", cut="after" if handled else "before", times=None))
        with pytest.raises(Unreachable):
            launch(client, nth(1))
        workspace.faults.clear()
        past.pass_time()
        launched = launch(new_client(clock), nth(2))
        assert launched.joined is handled
        assert run_ids(client) == [launched.run.run_id]


def mine(client: JobsClient, number: int = 1) -> Launched:
    return Launcher(client, "runs/submit", payload(idempotency_token="mine"), nth(number)).launch()


class TestUsersToken:
    def test_is_sent_unchanged_and_decides_alone(
        self, past: Past, client: JobsClient, workspace: LocalWorkspace, clock: Clock
    ) -> None:
        launched = mine(client)
        assert client.submit_run(payload(idempotency_token="mine")) == launched.run.run_id
        assert launched.message.startswith(f"Launched run {launched.run.run_id} of job")
        assert (launched.joined, launched.token_already_used) == (False, False)

        past.pass_time()
        active = mine(new_client(clock), 2)
        assert active.run.run_id == launched.run.run_id
        assert (active.joined, active.token_already_used) == (False, False)

        workspace.tick()
        over = mine(new_client(clock), 3)
        assert over.run.run_id == launched.run.run_id
        assert over.token_already_used
        assert over.message == (
            f"Found run {over.run.run_id}, launched at 2027-01-15T08:00:00Z with the same idempotency_token:"
            f" {over.run.page_url}"
        )
        assert workspace.requests == {"runs/submit": 2, "runs/get": 2}

    def test_of_a_deleted_run_is_an_error(self, client: JobsClient, workspace: LocalWorkspace) -> None:
        run_id = mine(client).run.run_id
        workspace.tick()
        client.delete_run(run_id)
        with pytest.raises(BadRequest, match="deleted"):
            mine(client, 2)

    def test_of_an_invisible_run_is_an_error(self, client: JobsClient, workspace: LocalWorkspace) -> None:
        workspace.faults.append(not_found(times=None))
        with pytest.raises(RunLost, match="no longer exists"):
            mine(client)
        assert workspace.requests["runs/submit"] == 1

    def test_of_another_jobs_run_is_an_error(self, client: JobsClient) -> None:
        jobs = [client.create_job({"name": name, **payload()}) for name in ("load", "clean_up")]
        first = client.run_now({"job_id": jobs[0], "idempotency_token": "mine"})
        body = {"job_id": jobs[1], "idempotency_token": "mine"}
        with pytest.raises(ConfigurationError, match=f"belongs to run {first} of job {jobs[0]}, not of job {jobs[1]}"):
            Launcher(client, "run-now", body, nth(1)).launch()

    def test_of_a_run_without_job_id_is_accepted(self, client: JobsClient, workspace: LocalWorkspace) -> None:
        job = client.create_job({"name": "load", **payload()})
        workspace.faults.append(
            Fault("runs/get", status=200, body={"run_id": 0, "state": {"life_cycle_state": "PENDING"}})
        )
        launched = Launcher(client, "run-now", {"job_id": job, "idempotency_token": "mine"}, nth(1)).launch()
        assert launched.run.job_id is None

    def test_that_is_empty_is_none(self, client: JobsClient) -> None:
        runs = [
            Launcher(client, "runs/submit", payload(idempotency_token=""), nth(1)).launch().run.run_id for _ in "ab"
        ]
        assert runs == run_ids(client) * 2


class TestLaterTry:
    def test_joins_an_active_run(self, past: Past, client: JobsClient, clock: Clock, workspace: LocalWorkspace) -> None:
        run_id = past.run()
        launched = launch(new_client(clock), nth(2))
        assert launched.joined
        assert launched.run.run_id == run_id
        assert run_ids(client) == [run_id]
        assert workspace.requests["runs/get"] == 1
        assert clock.waits == []
        assert launched.message == (
            f"Joined run {run_id} of job {launched.run.job_id}, which an earlier try launched at 2027-01-15T08:00:00Z"
            f" (launch 1 of this task): {launched.run.page_url}"
        )

    def test_takes_a_lost_success(self, past: Past, client: JobsClient) -> None:
        run_id = past.run("success")
        launched = launch(client, nth(2))
        assert launched.run.outcome is Outcome.SUCCESS
        assert run_ids(client) == [run_id]
        assert launched.message == (
            f"Took the result of run {run_id} of job {launched.run.job_id}, which an earlier try launched at"
            f" 2027-01-15T08:00:00Z (launch 1 of this task) and which succeeded: {launched.run.page_url}"
        )

    @pytest.mark.parametrize(
        ("ended", "why"),
        [
            ("failure", "run {} of an earlier try ended as TERMINATED/FAILED"),
            ("cancel", "run {} of an earlier try ended as TERMINATED/CANCELED"),
            # Its end is waited for: until then its job may be full.
            ("stopping", "run {} of an earlier try ended as TERMINATED/CANCELED"),
            ("deletion", "the run of an earlier try was deleted"),
        ],
    )
    def test_launches_again_after_an_unsuccessful_run(
        self, past: Past, client: JobsClient, clock: Clock, ended: str, why: str
    ) -> None:
        first = past.run(ended)
        clock.meanwhile = past.workspace.tick
        launched = launch(client, nth(2))
        assert not launched.joined
        assert launched.run.run_id > first
        why = re.escape(why.format(first).replace("TERMINATED/FAILED", "STATE")).replace("STATE", r"\w+/FAILED")
        assert re.fullmatch(rf"Launched run {launched.run.run_id} of job \d+, because {why}: http\S+", launched.message)

    def test_finds_the_last_run_of_many_tries(self, past: Past, client: JobsClient, workspace: LocalWorkspace) -> None:
        for number, ended in enumerate(["failure", "cancel", "deletion", "deletion", "failure", ""], start=1):
            last = past.run(ended, nth(number))
        # Try 7 joins, and so uses no token of its own: try 8 must find the same.
        for number in (7, 8):
            assert launch(client, nth(number)).run.run_id == last
        assert workspace.requests["runs/submit"] == 12

    def test_waits_for_a_run_that_is_ending(
        self, past: Past, client: JobsClient, workspace: LocalWorkspace, clock: Clock
    ) -> None:
        """Nobody can tell yet whether it succeeds; TERMINATING alone does not mean cancelled."""
        run_id = past.run()
        start = client.get_run(run_id).raw["start_time"]

        def said(life: str, result: str | None = None) -> Fault:
            body = {"run_id": run_id, "start_time": start, "state": state(life, result)}
            return Fault("runs/get", status=200, body=body)

        workspace.faults += [
            *(said("TERMINATING") for _ in range(3)),
            *(said("TERMINATED", "SUCCESS") for _ in range(2)),
        ]
        launched = launch(client, nth(2))
        assert launched.run.run_id == run_id
        assert launched.message.startswith("Took")
        assert len(clock.waits) == 2

        past.pass_time()
        workspace.faults += [said("TERMINATING"), *(said("TERMINATED", "FAILED") for _ in range(2))]
        assert launch(client, nth(3)).run.run_id > run_id

    @pytest.mark.parametrize("ended", ["", "success", "failure", "deletion"])
    def test_of_a_recreated_dag_run_launches_its_own_run(
        self, past: Past, client: JobsClient, workspace: LocalWorkspace, ended: str
    ) -> None:
        before = past.run(ended, nth(1, dag_run_start="1800000000.0"))
        launched = launch(client, nth(1, dag_run_start="1800000060.0"))
        assert launched.run.run_id > before
        assert workspace.requests == {"runs/submit": 1, "runs/get": 1}

    def test_that_is_not_durable_neither_joins_nor_takes(
        self, past: Past, client: JobsClient, workspace: LocalWorkspace
    ) -> None:
        runs = [launch(client, nth(number, durable=False)).run.run_id for number in (1, 2)]
        workspace.tick()
        past.pass_time()
        runs.append(launch(client, nth(3, durable=False)).run.run_id)
        assert run_ids(client) == runs


REFUSED = Fault("runs/submit", status=429, times=2)
UNCLEAR = Fault("runs/submit", status=503)
DENIED = Fault("runs/submit", status=401)


class TestFindInFlight:
    @pytest.mark.parametrize("handled", [True, False], ids=["reply on its way", "request on its way"])
    @pytest.mark.parametrize("ordinal", [1, 2])
    def test_returns_the_run_being_launched(
        self,
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

    def test_finds_nothing_if_nothing_was_sent(self, client: JobsClient, workspace: LocalWorkspace) -> None:
        assert launcher(client, nth(1)).find_in_flight(client) is None
        assert not workspace.requests

    @pytest.mark.parametrize(
        ("faults", "finds"),
        [
            ([REFUSED], False),
            ([UNCLEAR], True),
            ([UNCLEAR, REFUSED], True),
            ([UNCLEAR, DENIED, REFUSED], True),
            ([DENIED, UNCLEAR, REFUSED], True),
        ],
        ids=lambda value: ", ".join(str(fault.status) for fault in value) if isinstance(value, list) else "",
    )
    def test_sends_the_token_only_if_it_may_have_launched(
        self, client: JobsClient, workspace: LocalWorkspace, clock: Clock, *, faults: list[Fault], finds: bool
    ) -> None:
        workspace.faults += [replace(fault) for fault in faults]
        renewing = JobsClient(
            transport=client.transport,
            reread=lambda: Transport(URL, BearerAuth("another"), clock=clock),
        )
        ours = launcher(renewing, nth(1))
        waits = sum(fault.times or 0 for fault in faults if fault is not DENIED)

        def kill() -> None:
            if len(clock.waits) < waits:
                return
            clock.meanwhile = lambda: None
            # From now on it would be launched.
            workspace.faults.clear()
            found.append(ours.find_in_flight(new_client(clock)))
            ours.stop()
            raise Killed

        found: list[int | None] = []
        clock.meanwhile = kill
        with pytest.raises(Killed):
            ours.launch()
        assert found == (run_ids(client) if finds else [None])
        assert len(run_ids(client)) == finds

    def test_finds_the_run_of_an_earlier_try_without_an_attempt(
        self, past: Past, client: JobsClient, workspace: LocalWorkspace, clock: Clock
    ) -> None:
        active = past.run()
        ours = launcher(client, nth(2))
        workspace.faults.append(Fault("runs/submit", status=429))
        found: list[int | None] = []

        def kill() -> None:
            clock.meanwhile = lambda: None
            found.append(ours.find_in_flight(new_client(clock)))

        clock.meanwhile = kill
        ours.launch()
        assert found == [active]

    def test_finds_the_run_of_the_users_token(self, client: JobsClient) -> None:
        ours = Launcher(client, "runs/submit", payload(idempotency_token="mine"), nth(1))
        assert ours.launch().run.run_id == ours.find_in_flight(client)

    def test_launches_nothing_after_a_refusal(self, client: JobsClient, workspace: LocalWorkspace) -> None:
        ours = launcher(client, nth(1))
        ours.stop()
        with pytest.raises(JobsError, match="killed before it launched"):
            ours.launch()
        assert ours.find_in_flight(client) is None
        assert not workspace.requests


class TestStop:
    def test_while_an_earlier_run_is_read_launches_nothing(
        self, past: Past, client: JobsClient, workspace: LocalWorkspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        over = past.run("failure")
        ours, handle = launcher(client, nth(2)), workspace.handle
        found: list[int | None] = []

        def interrupted(request: Request) -> Reply:
            if request.method == "GET" and not found:
                found.append(ours.find_in_flight(new_client(past.clock)))
            return handle(request)

        monkeypatch.setattr(workspace, "handle", interrupted)
        launched = ours.launch()
        assert found == [over]
        assert run_ids(client) == [over, launched.run.run_id]

    def test_right_before_the_request_launches_nothing(self, client: JobsClient, workspace: LocalWorkspace) -> None:
        class Interrupted(Launcher):
            def __setattr__(self, name: str, value: object) -> None:
                super().__setattr__(name, value)
                if name == "_in_flight" and value:
                    self.stop()

        with pytest.raises(JobsError, match="killed before it launched"):
            Interrupted(client, "runs/submit", payload(), nth(1)).launch()
        assert not workspace.requests

    def test_prevents_the_launch(self, client: JobsClient, workspace: LocalWorkspace) -> None:
        ours = launcher(client, nth(1))
        ours.stop()
        with pytest.raises(JobsError, match="killed before it launched"):
            ours.launch()
        assert not workspace.requests

    def test_sends_no_further_token(
        self, past: Past, client: JobsClient, workspace: LocalWorkspace, monkeypatch: pytest.MonkeyPatch
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
