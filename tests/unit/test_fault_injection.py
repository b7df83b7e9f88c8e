"""Faults crossed with calls, tasks and kills: what must hold, in injected time, on a workspace in this process.

The failures are the data of ``fault_cases``. Nothing in the workspace moves by itself here: a run goes on when the test
says so, and time passes only in waits and in requests that hang.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from functools import partialmethod
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import requests
from airflow_context import Scene, connect, fire, rebuilt
from fault_cases import (
    EPOCH,
    FAILURES,
    KINDS,
    REFUSALS,
    Failure,
    Outage,
    Refusal,
    named,
    no_server,
    unresolved,
)
from in_process import connect_clients
from injected_clock import Clock, rule_all

from airflow_dbjobs import airflow_compat
from airflow_dbjobs.airflow_compat import AirflowFailException, AirflowTaskTimeout
from airflow_dbjobs.client import JobsClient, retry, transport
from airflow_dbjobs.client.auth import BearerAuth
from airflow_dbjobs.client.retry import Patience, RetryPolicy
from airflow_dbjobs.errors import CallError, RunCanceled, RunFailed, RunLost
from airflow_dbjobs.local_workspace import Fault, LocalWorkspace
from airflow_dbjobs.local_workspace import workspace as local_workspace
from airflow_dbjobs.local_workspace.http.adapter import WorkspaceAdapter
from airflow_dbjobs.local_workspace.state.store import Store
from airflow_dbjobs.operators import DatabricksRunNowOperator, DatabricksSubmitRunOperator
from airflow_dbjobs.operators import launch as launch_operator
from airflow_dbjobs.runs import cancel_on_kill
from airflow_dbjobs.runs.polling.poller import RunPoller
from airflow_dbjobs.triggers import DatabricksRunTrigger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_mock import MockerFixture

    from airflow_dbjobs.airflow_compat import BaseOperator

    Log = pytest.LogCaptureFixture

TOKEN = "token-of-the-fault-tests"
URL = "http://127.0.0.1:8765"
TRUE = {"op": "EQUAL_TO", "left": "1", "right": "1"}
FAILING = {"op": "LESS_THAN", "left": "one", "right": "2"}
TASKS = [{"task_key": "a", "condition_task": TRUE}]
BUDGET = RetryPolicy().retry_budget
MINUTE = 60.0
OUTAGE = 20 * MINUTE


class Time(Clock):
    """The injected clock, which requests that hang move on as well; no test waits for ever."""

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        assert self.now < 24 * 3600, "whatever is waited for does not happen"

    def pass_by(self, seconds: float) -> None:
        self.sleep(seconds)
        self.waits.pop()

    def wall(self) -> float:
        return EPOCH + self.now


class Adapter(WorkspaceAdapter):
    """Reaches the workspace; a request that is given up has taken its time."""

    def __init__(self, workspace: LocalWorkspace, clock: Time) -> None:
        super().__init__(workspace)
        self._clock = clock

    def send(self, request: Any, stream: bool = False, timeout: Any = None, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().send(request, stream, timeout, *args, **kwargs)
        except requests.ConnectTimeout:
            self._clock.pass_by(timeout[0])
            raise
        except requests.ReadTimeout:
            self._clock.pass_by(timeout[1])
            raise


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    """Return the only clock there is, in operators, triggers, clients and the workspace."""
    clock = Time()
    rule_all(monkeypatch, monotonic=clock, time=clock.wall, sleep=clock.sleep)
    monkeypatch.setattr(RunPoller, "__init__", partialmethod(RunPoller.__init__, sleep=clock.sleep_async))
    monkeypatch.setattr(retry, "time", SimpleNamespace(time=clock.wall))
    for module in (launch_operator, cancel_on_kill):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=clock))
    monkeypatch.setattr(airflow_compat, "time", SimpleNamespace(time=clock.wall))
    return clock


@pytest.fixture
def workspace(tmp_path: Path, clock: Time, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalWorkspace]:
    root = tmp_path / "workspace"
    root.mkdir()
    # Nothing here has to survive the process.
    monkeypatch.setattr(local_workspace, "Store", lambda _: Store(":memory:"))
    opened = LocalWorkspace(root, token=TOKEN, base_url=URL, clock=clock.wall)
    connect_clients(monkeypatch, lambda: Adapter(opened, clock))
    yield opened
    opened.close()


class Desk:
    """A client of the workspace, with a job, and a run of it that is active."""

    def __init__(self, workspace: LocalWorkspace, clock: Time) -> None:
        self.workspace = workspace
        self.clock = clock
        self.client = JobsClient(URL, token=TOKEN)
        self.name = "nightly"
        self.job_id = self.client.create_job({"name": self.name, "tasks": TASKS, "max_concurrent_runs": 9})
        self.run_id = self.client.run_now({"job_id": self.job_id})
        self.task_run_id = self.client.get_run(self.run_id).tasks[0].run_id
        workspace.requests.clear()

    def fail(self, failure: Failure, operation: str, *, lasts: float = float("inf"), **fields: Any) -> Outage:
        return suffer(self.workspace, self.clock, failure, operation, lasts=lasts, **fields)


def suffer(
    workspace: LocalWorkspace,
    clock: Time,
    failure: Failure,
    operation: str,
    *,
    lasts: float = float("inf"),
    **fields: Any,
) -> Outage:
    """Let calls fail from now on; `fields` are those of a Fault."""
    outage = Outage(operation, lasts=lasts, clock=clock, exception=failure.exception, **{**failure.fault, **fields})
    workspace.faults.append(outage)
    return outage


def runs_of(workspace: LocalWorkspace) -> list[Any]:
    """Return all runs that there are, looking behind the API: it may be out."""
    return list(workspace._store.runs.values())


def was_stopped(workspace: LocalWorkspace) -> bool:
    return any(run.stop for run in runs_of(workspace))


@pytest.fixture
def desk(workspace: LocalWorkspace, clock: Time) -> Desk:
    return Desk(workspace, clock)


def one_run(**more: Any) -> dict[str, Any]:
    return {"tasks": TASKS, **more}


# What is called, by the operation that the workspace counts.
OPERATIONS: dict[str, Callable[[Desk], Any]] = {
    "run-now": lambda desk: desk.client.run_now({"job_id": desk.job_id, "idempotency_token": desk.name}),
    "runs/submit": lambda desk: desk.client.submit_run(one_run(idempotency_token=desk.name)),
    "runs/get": lambda desk: desk.client.get_run(desk.run_id),
    "runs/list": lambda desk: list(desk.client.list_runs(job_id=desk.job_id)),
    "runs/get-output": lambda desk: desk.client.get_run_output(desk.task_run_id),
    "runs/cancel": lambda desk: desk.client.cancel_run(desk.run_id),
    "list": lambda desk: desk.client.find_job_id(desk.name),
}
LAUNCHES = ("run-now", "runs/submit")


def waits_of(failure: Failure, operation: str) -> tuple[float, ...]:
    reads = operation not in {*LAUNCHES, "runs/cancel"}
    return failure.read_waits if reads and failure.read_waits else failure.waits


def is_failure_of(failure: Failure, operation: str) -> bool:
    """Tell whether `operation` fails by it: a cancellation has nothing to return."""
    return not (operation == "runs/cancel" and failure.name == "200 empty")


CALLS = [
    pytest.param(operation, failure, id=f"{operation}, {failure}")
    for operation in OPERATIONS
    for failure in FAILURES
    if is_failure_of(failure, operation)
]


def in_band(slept: list[float], waits: tuple[float, ...]) -> bool:
    """Tell whether each wait was its least, or up to a quarter more (and a second: HTTP dates are in whole ones)."""
    return len(slept) == len(waits) and all(
        least <= wait <= 1.25 * (least + 0.001) for wait, least in zip(slept, waits, strict=True)
    )


ENDLESS = [
    case for case in CALLS if case.values[1] in KINDS or (case.values[0] in LAUNCHES and case.values[1].attempts)
]


def launch_without_a_token(desk: Desk, operation: str) -> int:
    call = {"run-now": desk.client.run_now, "runs/submit": desk.client.submit_run}[operation]
    return call({"job_id": desk.job_id} if operation == "run-now" else one_run())


class TestCall:
    @pytest.mark.parametrize(("operation", "failure"), CALLS)
    def test_succeeds_once_after_the_documented_waits(
        self, desk: Desk, clock: Time, caplog: Log, operation: str, failure: Failure
    ) -> None:
        waits = waits_of(failure, operation)
        desk.fail(failure, operation, times=len(waits))
        answer = OPERATIONS[operation](desk)
        assert desk.workspace.requests == {operation: len(waits) + 1}
        assert in_band(clock.waits, waits), clock.waits
        assert len(runs_of(desk.workspace)) == 1 + (operation in LAUNCHES)
        assert was_stopped(desk.workspace) is (operation == "runs/cancel")
        assert OPERATIONS[operation](desk) == answer, "undisturbed"
        lines = [record.getMessage() for record in caplog.records if record.name == "airflow_dbjobs.client.transport"]
        left = BUDGET
        for number, (line, wait) in enumerate(zip(lines, clock.waits, strict=True), 2):
            left -= failure.takes
            reason = failure.reason if failure.asks is None else f"Retry-After {waits[number - 2]:.0f} s"
            assert reason in line
            assert line.endswith(f". Attempt {number} in {wait:.0f} s, giving up in {left:.0f} s."), line
            left -= wait
        assert failure.reason in lines[0]

    @pytest.mark.parametrize(("operation", "failure"), ENDLESS)
    def test_without_any_answer_ends_with_its_budget(
        self, desk: Desk, clock: Time, operation: str, failure: Failure
    ) -> None:
        desk.fail(failure, operation)
        with pytest.raises(failure.error) as caught:
            OPERATIONS[operation](desk)
        attempts = desk.workspace.requests[operation]
        assert attempts in failure.attempts
        # The last attempt begins within it, and has its whole time.
        assert BUDGET - failure.takes - 1.25 * (failure.asks or 60.0) <= clock.now <= BUDGET + failure.takes
        assert str(caught.value).endswith(f"(attempt {attempts}, after {clock.now:.0f} s)")
        assert caught.value.sent is failure.sent
        launched = operation in LAUNCHES and failure.arrives
        assert len(runs_of(desk.workspace)) == 1 + launched, "however often it was sent"

    @pytest.mark.parametrize("refusal", REFUSALS, ids=str)
    @pytest.mark.parametrize("operation", OPERATIONS)
    def test_that_is_refused_fails_with_the_apis_message(
        self, desk: Desk, clock: Time, caplog: Log, operation: str, refusal: Refusal
    ) -> None:
        desk.workspace.faults.append(Fault(operation, times=None, **refusal.fault))
        with pytest.raises(refusal.error) as caught:
            OPERATIONS[operation](desk)
        error = caught.value
        said = (error.status, error.error_code, error.message, error.request_id)
        assert said == (refusal.status, refusal.error_code, "no such luck", "id-of-the-request")
        for word in (f"jobs/{operation} answered {refusal}", "no such luck", "request id id-of-the-request"):
            assert word in str(error)
        assert (desk.workspace.requests, clock.waits, caplog.records) == ({operation: 1}, [], [])

    @pytest.mark.parametrize("failure", FAILURES, ids=str)
    @pytest.mark.parametrize("operation", LAUNCHES)
    def test_without_a_token_is_repeated_if_nothing_launched(
        self, desk: Desk, operation: str, failure: Failure
    ) -> None:
        desk.fail(failure, operation, times=1)
        repeated = failure.fault.get("status") == 429 or not failure.sent
        if repeated:
            launch_without_a_token(desk, operation)
        else:
            with pytest.raises(failure.error):
                launch_without_a_token(desk, operation)
        assert desk.workspace.requests[operation] == 1 + repeated
        assert len(runs_of(desk.workspace)) == 1 + (repeated or failure.arrives)

    @pytest.mark.parametrize("failure", KINDS, ids=str)
    def test_for_a_page_that_fails_loses_and_doubles_nothing(self, desk: Desk, failure: Failure) -> None:
        expected = [desk.run_id, *(desk.client.run_now({"job_id": desk.job_id}) for _ in range(60))]
        desk.workspace.requests.clear()
        desk.fail(failure, "runs/list", times=1, skip=1)
        assert sorted(run.run_id for run in desk.client.list_runs()) == sorted(expected)
        assert desk.workspace.requests == {"runs/list": 4}


class Play(Scene):
    """A scene in injected time, with a job; a run of `kind` ends at `clock.at` of the test's choice."""

    def __init__(
        self,
        workspace: LocalWorkspace,
        clock: Time,
        root: Path,
        monkeypatch: pytest.MonkeyPatch,
        mocker: MockerFixture,
    ) -> None:
        super().__init__(workspace, root, monkeypatch, mocker)
        self.clock = clock
        self.monkeypatch = monkeypatch
        self.deferrable = False

    def reconnect(self, password: str = TOKEN, **extra: Any) -> None:
        connect(self.monkeypatch, URL, password, **({"extra": extra} if extra else {}))

    def fail(self, failure: Failure, operation: str, **fields: Any) -> Outage:
        return suffer(self.workspace, self.clock, failure, operation, **fields)

    def maker(self, kind: type[BaseOperator], tasks: list[Any] = TASKS, **options: Any) -> Callable[[], Any]:
        """Return what makes the operator of one try; its runs launch `tasks`."""
        payload: dict[str, Any] = {"tasks": tasks}
        if kind is DatabricksRunNowOperator:
            settings = {"name": "nightly", "tasks": tasks, "max_concurrent_runs": 9}
            payload = {"job_id": JobsClient(URL, token=TOKEN).create_job(settings)}
            self.workspace.requests.clear()
        fixed = {"task_id": "load", "polling_period_seconds": 60.0, "deferrable": self.deferrable, **payload}
        return lambda: kind(**{**fixed, "retries": self.ti.max_tries, **options})

    def let_runs_end_at(self, moment: float) -> None:
        self.clock.at[moment] = self.let_runs_end

    def let_runs_end(self) -> None:
        """Do what the workspace does by itself elsewhere, until no run is active."""
        deadline = time.monotonic() + 20
        while self.workspace._store.active_runs:
            self.workspace.tick()
            assert time.monotonic() < deadline, "a program does not end"
            time.sleep(0.001)

    def posts(self, kind: type[BaseOperator]) -> int:
        return self.workspace.requests[kind.endpoint]

    def one_run(self) -> Any:
        """Return the only run that was launched."""
        (run,) = runs_of(self.workspace)
        return run

    def nothing_was_cancelled(self) -> bool:
        return not self.workspace.requests["runs/cancel"] and not was_stopped(self.workspace)


BOTH = (DatabricksSubmitRunOperator, DatabricksRunNowOperator)


@pytest.fixture
def play(
    workspace: LocalWorkspace, clock: Time, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mocker: MockerFixture
) -> Play:
    return Play(workspace, clock, tmp_path / "workspace", monkeypatch, mocker)


@pytest.fixture(params=[False, True], ids=["sync", "deferrable"])
def mode(request: pytest.FixtureRequest, play: Play) -> bool:
    play.deferrable = request.param
    return play.deferrable


both = pytest.mark.parametrize("kind", BOTH, ids=lambda kind: kind.endpoint)


def attempts_within_20_s(failure: Failure) -> int:
    """Return how often a launch is sent in 20 s, whatever the jitter."""
    if failure.takes >= 20:
        return 1
    return {30.0: 1, 7.0: 3}.get(failure.waits[0], 5)


# None of these has a try left that could find a run.
LAST_TRIES = {
    "no retries": ((1, 0), {}),
    "the last try": ((2, 1), {}),
    "not durable": ((1, 1), {"durable": False}),
}


# When an outage of the whole API begins, and by which calls: (at the "start", or at the "end" of the run, the
# operation, how many of its requests pass first).
PHASES = {
    "right after the launch": ("start", "*", 1),
    "while waiting": ("start", "*", 4),
    "at the end": ("end", "*", 1),
    "at the output": ("end", "runs/get-output", 0),
}


def begin(play: Play, phase: str, failure: Failure, *, lasts: float, ends: float, **fields: Any) -> list[Outage]:
    """Let an outage begin in its phase, and the run end; return what counts what it hit."""
    moment, operation, skip = PHASES[phase]
    outages = []

    def break_down() -> None:
        outages.append(play.fail(failure, operation, lasts=lasts, skip=skip, **fields))

    def end() -> None:
        play.let_runs_end()
        break_down()

    if moment == "start":
        break_down()
        play.let_runs_end_at(ends)
    else:
        play.clock.at[300] = end
    return outages


NOT_AN_EMPTY_OBJECT = Failure("200 {}", {"status": 200, "body": {}})
POLL_FAILURES = (*KINDS, NOT_AN_EMPTY_OBJECT)


def waits_asked(failure: Failure, number: int) -> float:
    """Return the least wait that the answer to the poll of this number asks for; an HTTP date is soon over."""
    return (failure.asks or 0.0) if failure.fault["headers"]["Retry-After"].isdigit() else 1.0


LATER_PHASES = ["right after the launch", "at the end", "at the output"]


def lost(play: Play, phase: str) -> tuple[RunLost, float]:
    """Let the API be out for ever, and return what the task fails of, and how long it was out."""
    (failure,) = named("503")
    tasks = TASKS
    if phase == "at the output":
        tasks = [{"task_key": "a", "notebook_task": play.notebook("dbutils.notebook.exit('x')", gated=False)}]
    make = play.maker(DatabricksSubmitRunOperator, tasks)
    play.reconnect(outage_tolerance=15 * MINUTE)
    outages = begin(play, phase, failure, lasts=float("inf"), ends=9e9)
    with pytest.raises(RunLost, match="was not cancelled") as caught:
        play.run_task(make)
    (outage,) = outages
    assert outage.began is not None
    assert play.nothing_was_cancelled()
    return caught.value, play.clock.now - outage.began


REFUSED = {
    "401": {"status": 401, "body": {"error_code": "UNAUTHENTICATED"}},
    "403": {"status": 403, "body": {"error_code": "PERMISSION_DENIED"}},
    "403 of a gateway": {"status": 403, "body": "<html>Forbidden</html>"},
}
refused = pytest.mark.parametrize("refused", [Failure(name, fault) for name, fault in REFUSED.items()], ids=str)


class TestRejectedCredentials:
    @refused
    @pytest.mark.parametrize("phase", ["right after the launch", "while waiting", "at the end"])
    def test_for_9_minutes_are_tolerated(self, play: Play, mode: bool, phase: str, refused: Failure) -> None:
        make = play.maker(DatabricksRunNowOperator)
        outages = begin(play, phase, refused, lasts=9 * MINUTE, ends=900)
        assert play.run_task(make) == "true"
        assert play.one_run().state.result == "SUCCESS"
        assert (play.launches(), play.nothing_was_cancelled()) == (1, True)
        (outage,) = outages
        assert 10 <= outage.hits <= 20

    @refused
    @pytest.mark.parametrize(("extra", "minutes"), [({}, 10), ({"denied_tolerance": 180}, 3)], ids=["default", "set"])
    @pytest.mark.parametrize("phase", ["right after the launch", "while waiting", "at the end"])
    def test_for_longer_lose_the_run_without_cancelling_it(
        self,
        play: Play,
        clock: Time,
        mode: bool,
        phase: str,
        refused: Failure,
        *,
        extra: dict[str, float],
        minutes: int,
    ) -> None:
        make = play.maker(DatabricksRunNowOperator)
        play.reconnect(**extra)
        outages = begin(play, phase, refused, lasts=float("inf"), ends=9e9)
        words = rf"for ({minutes}|{minutes + 1}) min, .* was not cancelled.* answered {refused.fault['status']}"
        with pytest.raises(RunLost, match=words):
            play.run_task(make)
        assert outages[0].began is not None
        assert minutes * MINUTE <= clock.now - outages[0].began <= minutes * MINUTE + 66
        assert play.nothing_was_cancelled()

    @both
    @pytest.mark.parametrize("moment", ["right after the launch", "while waiting", "before it resumes"])
    def test_are_replaced_by_a_rotated_token(
        self, play: Play, clock: Time, mode: bool, moment: str, kind: type[BaseOperator]
    ) -> None:
        make = play.maker(kind)
        fresh = "token-of-tomorrow"

        def rotate() -> None:
            play.at_launch = lambda: None
            play.workspace.token = fresh
            # Whoever rotates it takes some minutes to tell Airflow.
            clock.at[clock.now + 300] = lambda: play.reconnect(fresh)

        def make_after_rotation() -> Any:
            if moment == "before it resumes" and play.ti.deferred:
                rotate()
            return make()

        if moment == "right after the launch":
            play.at_launch = rotate
        elif moment == "while waiting":
            clock.at[130.0] = rotate
        play.let_runs_end_at(900)
        assert play.run_task(make_after_rotation) == "true"
        assert play.one_run().state.result == "SUCCESS"
        assert (play.launches(), play.nothing_was_cancelled()) == (1, True)
        assert clock.now <= 900 + 2 * 66 + 300 + 66


class Killed(BaseException):
    """What ends a task after its signal handler has called on_kill."""


KILL_SECONDS, TRIGGER_SECONDS = 4.0, 25.0
# A cancellation has nothing to return.
CANCEL_FAILURES = [failure for failure in FAILURES if is_failure_of(failure, "runs/cancel")]
ACCEPTED, GIVEN_UP = "The API accepted the cancellation of run", "could not be cancelled and may still be running"
cancel_failures = pytest.mark.parametrize("failure", CANCEL_FAILURES, ids=str)


def launched(play: Play, kind: type[BaseOperator] = DatabricksSubmitRunOperator) -> BaseOperator:
    """Return an operator that has launched its run and is to be killed."""
    operator = play.maker(kind, wait_for_termination=False)()
    operator.execute(play.context)
    return operator


class TestKill:
    @cancel_failures
    def test_cancels_in_time_although_the_first_call_fails(
        self, play: Play, clock: Time, capfd: Any, failure: Failure
    ) -> None:
        operator = launched(play)
        play.fail(failure, "runs/cancel", times=1)
        operator.on_kill()
        said = capfd.readouterr().out
        assert clock.now <= KILL_SECONDS
        if failure.asks is None:
            assert in_band(clock.waits, (0.5,))
            assert play.workspace.requests["runs/cancel"] == 2
            assert play.one_run().stop == "CANCELED"
            assert f"{ACCEPTED} {play.one_run().run_id}." in said
            assert GIVEN_UP not in said
        else:
            # More than there is time for.
            assert (play.workspace.requests["runs/cancel"], clock.waits) == (1, [])
            assert GIVEN_UP in said
            assert ACCEPTED not in said

    @cancel_failures
    def test_that_cannot_cancel_ends_in_time_with_a_warning(
        self, play: Play, clock: Time, capfd: Any, failure: Failure
    ) -> None:
        operator = launched(play)
        play.fail(failure, "runs/cancel")
        operator.on_kill()
        said = capfd.readouterr().out
        assert clock.now <= KILL_SECONDS
        assert play.workspace.requests["runs/cancel"] in (range(2, 10) if failure.asks is None else [1])
        assert f"Run {play.one_run().run_id} {GIVEN_UP}: POST jobs/runs/cancel" in said
        assert ACCEPTED not in said

    @pytest.mark.parametrize("asked", ["0", "1", "3"])
    def test_respects_retry_after_if_there_is_time(self, play: Play, clock: Time, capfd: Any, asked: str) -> None:
        operator = launched(play)
        play.workspace.faults.append(Fault("runs/cancel", status=429, headers={"Retry-After": asked}))
        operator.on_kill()
        assert in_band(clock.waits, (max(float(asked), 1.0),))
        assert ACCEPTED in capfd.readouterr().out

    @both
    @pytest.mark.parametrize("failure", named("503", "429", "cut before", "cut after", "hang", "200 page"), ids=str)
    def test_while_waiting_ends_with_the_run(
        self, play: Play, clock: Time, kind: type[BaseOperator], failure: Failure
    ) -> None:
        operator = play.maker(kind)()
        play.fail(failure, "runs/cancel", times=1)
        clock.at[100.0] = operator.on_kill
        play.let_runs_end_at(200)
        with pytest.raises(RunCanceled):
            operator.execute(play.context)
        assert play.one_run().state.result == "CANCELED"
        assert play.workspace.requests["runs/cancel"] == 2

    @both
    @pytest.mark.parametrize("failure", CANCEL_FAILURES, ids=str)
    def test_during_a_launch_cancels_the_run_within_4_s(
        self, play: Play, clock: Time, capfd: Any, kind: type[BaseOperator], failure: Failure
    ) -> None:
        operator = play.maker(kind)()
        # The reply to the first launch is on its way; the same token is sent again, and fails.
        play.fail(failure, kind.endpoint, times=1, skip=1)

        def kill() -> None:
            play.at_launch = lambda: None
            operator.on_kill()
            raise Killed

        play.at_launch = kill
        with pytest.raises(Killed):
            operator.execute(play.context)
        said = capfd.readouterr().out
        assert clock.now <= KILL_SECONDS
        # Half the time is for the launch; one attempt that hangs takes it all.
        found = failure.asks is None and not failure.takes
        assert play.posts(kind) == 2 + found
        assert play.one_run().stop == ("CANCELED" if found else None)
        assert (ACCEPTED in said, GIVEN_UP in said) == (found, not found)


# How a trigger comes to cancel its run.
trigger_failures = pytest.mark.parametrize(
    ("ending", "failure"),
    [
        *(("deadline", failure) for failure in CANCEL_FAILURES),
        *(("kill", failure) for failure in named("503", "cut after", "hang")),
    ],
    ids=str,
)


def end_trigger(play: Play, ending: str) -> tuple[Any, str]:
    """Let a trigger cancel its run; return its event (None where it was killed) and what it told."""
    trigger = rebuilt(
        DatabricksRunTrigger(
            play.one_run().run_id, "databricks_default", deadline=0.0 if ending == "deadline" else None
        )
    )
    if ending == "deadline":
        return fire(trigger), "the API accepted the run's cancellation"

    async def failed() -> str:
        return "failed"

    play.monkeypatch.setattr(trigger, "_task_state", failed)
    asyncio.run(trigger.on_kill())
    return None, "its task is failed now, and the API accepted the run's cancellation"


class TestCancellationByTrigger:
    @trigger_failures
    def test_succeeds_in_time_although_two_calls_fail(
        self, play: Play, clock: Time, capfd: Any, failure: Failure, ending: str
    ) -> None:
        launched(play)
        play.fail(failure, "runs/cancel", times=2)
        event, accepted = end_trigger(play, ending)
        said = capfd.readouterr().out
        assert clock.now <= TRIGGER_SECONDS
        if failure.asks in {None, 7.0}:
            apart = {7.0: (7.0, 7.0), 30.0: (0.5, 0.5)}.get(failure.waits[0], (0.5, 1.0))
            assert in_band(clock.waits, apart)
            assert play.workspace.requests["runs/cancel"] == 3
            assert play.one_run().stop == "CANCELED"
            assert accepted in (said if event is None else event["timed_out"])
            assert GIVEN_UP not in said
        else:
            assert (play.workspace.requests["runs/cancel"], clock.waits) == (1, [])
            assert GIVEN_UP in said

    @trigger_failures
    def test_that_fails_ends_in_time_with_a_warning(
        self, play: Play, clock: Time, capfd: Any, failure: Failure, ending: str
    ) -> None:
        launched(play)
        play.fail(failure, "runs/cancel")
        event, _ = end_trigger(play, ending)
        said = capfd.readouterr().out
        assert clock.now <= TRIGGER_SECONDS
        # The last attempt gets what is left of the time.
        assert failure.asks or clock.now > TRIGGER_SECONDS / 3
        assert f"Run {play.one_run().run_id} {GIVEN_UP}: POST jobs/runs/cancel" in said
        assert event is None or f"it {GIVEN_UP}: POST" in event["timed_out"]

    @pytest.mark.parametrize("failure", named("503", "429", "cut before", "hang"), ids=str)
    @pytest.mark.parametrize("times", [1, None], ids=["once", "for ever"])
    def test_at_the_deadline_is_part_of_the_error(self, play: Play, failure: Failure, times: int | None) -> None:
        play.deferrable = True
        play.ti.start_date = datetime(2026, 1, 1, tzinfo=UTC)
        make = play.maker(DatabricksRunNowOperator, execution_timeout=timedelta(hours=1))
        play.fail(failure, "runs/cancel", times=times)
        with pytest.raises(AirflowTaskTimeout, match="the API accepted the run's cancellation" if times else GIVEN_UP):
            play.run_task(make)
        assert (play.one_run().stop == "CANCELED") is bool(times or failure.arrives)


LAST_WORDS = {
    "no name": {"exception": unresolved, "cut": "before"},
    "no server": {"exception": no_server, "cut": "before"},
    "403": REFUSED["403"],
    "400": {"status": 400, "body": {"error_code": "MALFORMED_REQUEST"}},
}


class TestLaunch:
    @both
    @pytest.mark.parametrize("failure", FAILURES, ids=str)
    def test_that_fails_for_a_while_launches_one_run(
        self, play: Play, clock: Time, mode: bool, kind: type[BaseOperator], failure: Failure
    ) -> None:
        make = play.maker(kind)
        play.fail(failure, kind.endpoint, times=len(failure.waits))
        play.let_runs_end_at(900)
        assert play.run_task(make) == "true"
        assert play.one_run().state.result == "SUCCESS"
        assert play.nothing_was_cancelled()
        assert play.posts(kind) == len(failure.waits) + 1
        assert in_band(clock.waits[: len(failure.waits)], failure.waits)
        assert play.ti.deferred is mode

    @both
    @pytest.mark.parametrize("refusal", REFUSALS, ids=str)
    def test_that_is_refused_fails_at_once(
        self, play: Play, clock: Time, kind: type[BaseOperator], refusal: Refusal
    ) -> None:
        make = play.maker(kind)
        play.workspace.faults.append(Fault(kind.endpoint, times=None, **refusal.fault))
        with pytest.raises(refusal.error, match=f"answered {refusal}: no such luck"):
            play.run_task(make)
        assert (runs_of(play.workspace), clock.waits, dict(play.workspace.requests)) == (
            [],
            [],
            {kind.endpoint: 1},
        )

    @both
    @pytest.mark.parametrize("failure", KINDS, ids=str)
    def test_that_was_never_answered_is_found_by_the_next_try(
        self, play: Play, clock: Time, capfd: Any, mode: bool, *, kind: type[BaseOperator], failure: Failure
    ) -> None:
        play.ti.max_tries = 1
        make = play.maker(kind)
        outage = play.fail(failure, "*", lasts=OUTAGE)
        with pytest.raises(failure.error):
            play.run_task(make)
        assert outage.hits in failure.attempts
        assert clock.now <= BUDGET + failure.takes
        assert len(runs_of(play.workspace)) == failure.arrives
        assert play.nothing_was_cancelled()
        said = capfd.readouterr().out
        assert ("the next try of this task will find it" in said) is failure.unclear
        # The next try comes when the outage is over.
        clock.now, play.ti.try_number = OUTAGE + 1, 2
        play.let_runs_end_at(OUTAGE + 100)
        assert play.run_task(make) == "true"
        assert play.one_run().state.result == "SUCCESS"
        assert play.nothing_was_cancelled()
        assert ("Joined run" in capfd.readouterr().out) is failure.arrives
        assert play.posts(kind) == outage.hits + 1

    @pytest.mark.parametrize(
        ("kind", "last", "failure"),
        [
            *((kind, "no retries", failure) for kind in BOTH for failure in KINDS),
            *(
                (DatabricksRunNowOperator, last, failure)
                for last in LAST_TRIES
                for failure in named("429", "cut after")
            ),
        ],
        ids=lambda value: getattr(value, "endpoint", None) or str(value),
    )
    def test_that_was_unanswered_is_cancelled_in_the_last_try(
        self, play: Play, capfd: Any, kind: type[BaseOperator], last: str, failure: Failure
    ) -> None:
        (play.ti.try_number, play.ti.max_tries), options = LAST_TRIES[last]
        make = play.maker(kind, **options)
        play.reconnect(retry_budget=20)
        attempts = attempts_within_20_s(failure)
        play.fail(failure, kind.endpoint, times=attempts)
        with pytest.raises(failure.error):
            play.run_task(make)
        said = capfd.readouterr().out
        play.let_runs_end()
        assert {run.stop for run in runs_of(play.workspace)} <= {"CANCELED"}
        assert len(runs_of(play.workspace)) == failure.unclear
        if failure.unclear:
            assert play.posts(kind) == attempts + 1
            assert f"The API accepted the cancellation of run {play.one_run().run_id}." in said
        else:
            assert play.workspace.requests == {kind.endpoint: attempts}

    @pytest.mark.parametrize("tries", [0, 1], ids=["no try left", "a try left"])
    @pytest.mark.parametrize("words", LAST_WORDS)
    def test_remembers_a_lost_reply_over_later_failures(
        self, play: Play, clock: Time, capfd: Any, words: str, tries: int
    ) -> None:
        play.ti.max_tries = tries
        make = play.maker(DatabricksRunNowOperator)
        play.fail(*named("cut after"), "run-now", times=1)
        play.workspace.faults.append(Outage("run-now", clock=clock, **LAST_WORDS[words]))
        with pytest.raises(CallError):
            play.run_task(make)
        assert play.one_run().active
        assert "may have launched a run" in capfd.readouterr().out


class Served:
    """A workspace in a process of its own."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._process: subprocess.Popen[str] | None = None
        self.port = 0
        self.start()

    def start(self) -> None:
        """Start it, at the same address as before."""
        options = ["--root", str(self._root), "--port", str(self.port), "--token", TOKEN]
        command = [sys.executable, "-m", "airflow_dbjobs.local_workspace", *options]
        # What it complains of (a reply that a fault has made too short) is of no interest.
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._process.stdout is not None
        lines = iter(self._process.stdout.readline, "")
        self.port = next(int(found[1]) for line in lines if (found := re.search(r"http://127\.0\.0\.1:(\d+)", line)))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def local(self, method: str, what: str, **fields: Any) -> Any:
        with requests.Session() as session:
            headers = {"Authorization": f"Bearer {TOKEN}"}
            reply = session.request(method, f"{self.url}/api/local/{what}", json=fields or None, headers=headers)
            reply.raise_for_status()
            return reply.json()

    def requests(self) -> dict[str, int]:
        counts: dict[str, int] = self.local("GET", "requests")["requests"]
        return counts


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    running = Served(tmp_path_factory.mktemp("served"))
    yield running
    running.kill()


class SocketDesk:
    """What OPERATIONS need, over a socket: a job nobody else has, and a run of it that is active."""

    def __init__(self, served: Served) -> None:
        self.client = JobsClient(transport=transport.Transport(served.url, BearerAuth(TOKEN)))
        self.name = f"job {time.monotonic_ns()}"
        settings = {"name": self.name, "tasks": TASKS, "max_concurrent_runs": 0, "queue": {"enabled": True}}
        self.job_id = self.client.create_job(settings)
        self.run_id = self.client.run_now({"job_id": self.job_id})
        self.task_run_id = self.client.get_run(self.run_id).tasks[0].run_id


ON_THE_WIRE = {
    "reset before": {"cut": "before"},
    "reset after": {"cut": "after"},
    "late": {"hang": 60.0},
    "short": {"status": 200, "body": '{"run_id": 1', "headers": {"Content-Length": "500"}, "handled": True},
    "late in a second": {"status": 503, "headers": {"Retry-After": "1"}},
}


class TestOutage:
    @pytest.mark.parametrize(
        ("phase", "failure"),
        [
            pytest.param(phase, failure, id=f"{phase}, {failure}")
            for phase in PHASES
            for failure in POLL_FAILURES
            # An output without a field is an output.
            if (phase, failure) != ("at the output", NOT_AN_EMPTY_OBJECT)
        ],
    )
    def test_of_20_minutes_is_survived(self, play: Play, clock: Time, mode: bool, phase: str, failure: Failure) -> None:
        tasks = TASKS
        if phase == "at the output":
            notebook = play.notebook("dbutils.notebook.exit('x')", gated=False)
            tasks = [{"task_key": "a", "notebook_task": notebook}]
        make = play.maker(DatabricksSubmitRunOperator, tasks)
        outages = begin(play, phase, failure, lasts=OUTAGE, ends=OUTAGE + 400)
        assert play.run_task(make) == ("x" if tasks is not TASKS else "true")
        (outage,) = outages
        assert play.one_run().state.result == "SUCCESS"
        assert (play.launches(), play.nothing_was_cancelled()) == (1, True)
        assert outage.began is not None
        assert clock.now >= outage.began + OUTAGE
        # A poll backs off to a minute; a call is repeated as the table says.
        assert outage.hits <= max(41, 2 * failure.attempts.stop)
        assert play.ti.deferred is mode

    @pytest.mark.parametrize("kind", [DatabricksRunNowOperator], ids=["run-now"])
    @pytest.mark.parametrize("failure", FAILURES, ids=str)
    def test_costs_few_requests(
        self, play: Play, clock: Time, mode: bool, kind: type[BaseOperator], failure: Failure
    ) -> None:
        make = play.maker(kind)
        outage = play.fail(failure, "runs/get", lasts=OUTAGE, skip=3)
        play.let_runs_end_at(1600)
        assert play.run_task(make) == "true"
        assert (play.launches(), play.nothing_was_cancelled()) == (1, True)
        waits = clock.waits[2 : 2 + outage.hits]
        for number, wait in enumerate(waits):
            least = max(min(2.0**number, 60.0), 0.0 if failure.asks is None else waits_asked(failure, number))
            assert 0.9 * least <= wait <= max(66.0, 1.1 * (failure.asks or 0.0))
        assert outage.hits <= 30
        assert clock.now <= 1600 + 2 * 66

    @both
    @pytest.mark.parametrize("failure", POLL_FAILURES, ids=str)
    def test_that_is_too_long_leaves_the_run_to_the_next_try(
        self, play: Play, clock: Time, mode: bool, kind: type[BaseOperator], failure: Failure
    ) -> None:
        play.ti.max_tries = 1
        make = play.maker(kind)
        play.reconnect(outage_tolerance=15 * MINUTE)
        outage = play.fail(failure, "*", skip=4)
        with pytest.raises(RunLost) as caught:
            play.run_task(make)
        assert outage.began is not None
        lasted = clock.now - outage.began
        assert 15 * MINUTE <= lasted <= 15 * MINUTE + 66 + 2 * failure.takes
        text = str(caught.value)
        run = play.one_run()
        assert re.search(rf"^Polling run {run.run_id} failed for 1[567] min, .* The run was not cancelled", text)
        assert "Last error: GET jobs/runs" in text
        assert failure.reason.replace(f"Retry-After {failure.asks or 0:.0f} s", "").rstrip(", ") in text
        assert (run.active, play.nothing_was_cancelled()) == (True, True)
        # The next try finds it.
        play.workspace.faults.clear()
        play.ti.try_number = 2
        play.let_runs_end_at(clock.now + 100)
        assert play.run_task(make) == "true"
        assert play.one_run().state.result == "SUCCESS"

    def test_is_tolerated_for_an_hour_by_default(self, play: Play, clock: Time, mode: bool) -> None:
        (failure,) = named("503")
        outage = play.fail(failure, "*", skip=4)
        with pytest.raises(RunLost, match=r"for 6[01] min"):
            play.run_task(play.maker(DatabricksSubmitRunOperator))
        assert outage.began is not None
        assert Patience().outage_tolerance <= clock.now - outage.began <= Patience().outage_tolerance + 66
        assert outage.hits <= 75

    @pytest.mark.parametrize("phase", LATER_PHASES)
    def test_without_end_fails_the_task_wherever_it_begins(self, play: Play, mode: bool, phase: str) -> None:
        _, lasted = lost(play, phase)
        # What is called here repeats for itself, for ten minutes.
        assert 15 * MINUTE <= lasted <= 15 * MINUTE + 2 * BUDGET

    @pytest.mark.parametrize("phase", LATER_PHASES)
    def test_is_measured_from_its_first_failure(self, play: Play, mode: bool, phase: str) -> None:
        error, lasted = lost(play, phase)
        assert lasted <= 15 * MINUTE + BUDGET
        assert f"failed for {lasted / 60:.0f} min, longer than outage_tolerance allows" in str(error)

    @pytest.mark.parametrize("failure", KINDS, ids=str)
    def test_delays_an_explanation_but_hides_no_failure(
        self, play: Play, clock: Time, mode: bool, failure: Failure
    ) -> None:
        make = play.maker(DatabricksSubmitRunOperator, [{"task_key": "ingest", "condition_task": FAILING}])
        play.fail(failure, "runs/get-output")
        ended = []
        play.clock.at[300] = lambda: (play.let_runs_end(), ended.append(clock.now))
        with pytest.raises(
            RunFailed, match=r"Task ingest(.|\n)*its output could not be read: GET jobs/runs/get-output"
        ) as caught:
            play.run_task(make)
        assert caught.value.run_id == play.one_run().run_id
        assert clock.now <= ended[0] + 66 + 15

    @pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferrable"])
    def test_by_a_restart_of_the_workspace_is_survived(
        self,
        served: Served,
        clock: Time,
        monkeypatch: pytest.MonkeyPatch,
        mocker: MockerFixture,
        *,
        deferrable: bool,
    ) -> None:
        desk = SocketDesk(served)
        stand_in = SimpleNamespace(base_url=served.url, token=TOKEN, handle=None, requests={})
        scene = Scene(stand_in, Path(), monkeypatch, mocker)
        # A run of the same task instance that began in this second would be taken for this one.
        scene.ti.run_id = desk.name

        def cancel() -> None:
            run_id = scene.ti.xcom["run_id"]
            desk.client.cancel_run(run_id)
            # The server moves runs on in real time.
            while not desk.client.get_run(run_id).is_terminal:
                time.sleep(0.01)

        clock.at[130.0] = served.kill
        clock.at[1000.0] = served.start
        clock.at[1100.0] = cancel
        options = {"job_id": desk.job_id, "polling_period_seconds": 60.0, "deferrable": deferrable}
        with pytest.raises(AirflowFailException, match="was cancelled"):
            scene.run_task(lambda: DatabricksRunNowOperator(task_id="load", **options))
        assert 1100 <= clock.now <= 1300
        assert len(list(desk.client.list_runs(job_id=desk.job_id))) == 2
        desk.client.close()

    @pytest.mark.parametrize(
        ("operation", "fault"),
        [
            pytest.param(operation, fault, id=f"{operation}, {fault}")
            for operation in OPERATIONS
            for fault in ON_THE_WIRE
            if operation != "runs/submit" and (fault != "late" or operation in {"run-now", "runs/cancel"})
        ],
    )
    def test_by_a_broken_connection_loses_and_doubles_nothing(
        self, served: Served, clock: Time, operation: str, fault: str
    ) -> None:
        desk = SocketDesk(served)
        before = served.requests().get(operation, 0)
        served.local("POST", "faults", operation=operation, **ON_THE_WIRE[fault])
        patient = desk.client
        if fault == "late":
            desk.client = patient.with_policy(RetryPolicy(read_timeout=1.0))
        answer = OPERATIONS[operation](desk)
        if fault == "late":
            # This second is a real one: a busy machine may need another.
            desk.client.close()
            desk.client = patient
            assert served.requests()[operation] >= before + 2
        else:
            assert served.requests()[operation] == before + 2
            assert in_band(clock.waits, (1.0,))
        assert OPERATIONS[operation](desk) == answer, "undisturbed"
        runs = list(desk.client.list_runs(job_id=desk.job_id))
        assert len(runs) == 1 + (operation == "run-now")
        assert any(run.is_terminal or run.state.is_being_stopped for run in runs) is (operation == "runs/cancel")
        desk.client.close()
