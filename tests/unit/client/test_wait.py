"""waiting: in a worker and in a triggerer, by the same rules and in injected time."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from injected_clock import Clock

from airflow_dbjobs.client.auth import BearerAuth
from airflow_dbjobs.client.models import Outcome, Run, RunState
from airflow_dbjobs.client.retry import Patience
from airflow_dbjobs.client.transport import Transport
from airflow_dbjobs.client.wait import RunStateLogger, Watch, wait_for_run
from airflow_dbjobs.errors import Conflict, NotFound, RunLost, UnreadableReply
from airflow_dbjobs.local_workspace import Fault
from airflow_dbjobs.runs.polling.poller import RunPoller

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_dbjobs.client import JobsClient
    from airflow_dbjobs.local_workspace import LocalWorkspace

    Wait = Callable[..., Run]
    Log = pytest.LogCaptureFixture

TASK = {"condition_task": {"op": "EQUAL_TO", "left": "1", "right": "1"}}
# A run of such a job is active until somebody cancels it.
STUCK = {"max_concurrent_runs": 0, "queue": {"enabled": True}, **TASK}


@pytest.fixture
def clock(client: JobsClient) -> Clock:
    """Return the clock by which the client waits."""
    clock = Clock()
    clock.rule(client)
    return clock


@pytest.fixture(params=["worker", "triggerer"])
def wait(request: pytest.FixtureRequest, client: JobsClient, clock: Clock) -> Wait:
    """Return what waits for a run in injected time, in both places where this is done."""

    def in_worker(run_id: int, **options: Any) -> RunState:
        return wait_for_run(client, run_id, **options).state

    def in_triggerer(
        run_id: int, *, period: float = 10, on_change: Callable[[RunState], None] = lambda _: None
    ) -> RunState:
        poller = RunPoller(client, sleep=clock.sleep_async)
        watch = Watch(run_id, period, client.patience, clock, on_change=on_change)

        async def wait_for_end() -> RunState:
            while (end := await poller.wait(watch)) is None:
                pass
            return end.state

        return asyncio.run(wait_for_end())

    return in_worker if request.param == "worker" else in_triggerer


@pytest.fixture
def stuck(client: JobsClient) -> int:
    """Return the id of a run that is active until somebody cancels it."""
    return client.run_now({"job_id": client.create_job(STUCK)})


def reply(life: str, result: str | None = None, message: str = "", times: int = 1) -> Fault:
    """Return the fault by which `runs/get` tells of run 7 in a state of our choice."""
    state = {"life_cycle_state": life, "result_state": result, "state_message": message}
    return Fault("runs/get", status=200, body={"run_id": 7, "state": state}, times=times)


def end(workspace: LocalWorkspace) -> None:
    """Let run 7 be over."""
    workspace.faults[:] = [reply("TERMINATED", "SUCCESS", times=2)]


OUTAGE, REFUSAL = 3000, 500


class TestTolerance:
    @pytest.mark.parametrize(
        ("failure", "seconds"),
        [
            ({"status": 503}, OUTAGE),
            ({"status": 429}, OUTAGE),
            ({"status": 200, "body": "<html>"}, OUTAGE),
            ({"status": 200, "body": {}}, OUTAGE),
            ({"cut": "before"}, OUTAGE),
            ({"hang": 3600}, OUTAGE),
            ({"status": 400, "body": {"error_code": "COULD_NOT_ACQUIRE_LOCK"}}, OUTAGE),
            ({"status": 401}, REFUSAL),
            ({"status": 403, "body": {"error_code": "PERMISSION_DENIED"}}, REFUSAL),
            # A gateway before the API: what it says is nothing about the run.
            ({"status": 404, "body": "<html>"}, REFUSAL),
            ({"status": 302, "headers": {"Location": "/login"}}, REFUSAL),
        ],
        ids=str,
    )
    def test_outages_and_rejections_are_tolerated(
        self, wait: Wait, workspace: LocalWorkspace, clock: Clock, failure: dict[str, Any], seconds: float
    ) -> None:
        workspace.faults += [reply("RUNNING"), Fault("runs/get", times=None, **failure)]
        clock.at[seconds] = lambda: end(workspace)
        assert wait(7).outcome is Outcome.SUCCESS
        assert seconds <= clock.now <= seconds + 100
        assert workspace.requests["runs/get"] < 70, "an API that is down is not hammered"

    @pytest.mark.parametrize("status", [503, 403])
    def test_each_outage_is_measured_separately(
        self, wait: Wait, workspace: LocalWorkspace, client: JobsClient, status: int
    ) -> None:
        client.patience = Patience(outage_tolerance=150, denied_tolerance=150)
        for _ in range(3):
            workspace.faults += [Fault("runs/get", status=status, times=7), reply("RUNNING")]
        workspace.faults.append(reply("TERMINATED", "SUCCESS", times=2))
        assert wait(7).outcome is Outcome.SUCCESS

    def test_rejection_after_an_outage_has_its_own_tolerance(
        self, wait: Wait, workspace: LocalWorkspace, clock: Clock
    ) -> None:
        down, refused = Fault("runs/get", status=503, times=None), Fault("runs/get", status=403, times=None)
        workspace.faults.append(down)
        for moment, fault in ((1000, refused), (1500, down), (2000, refused)):
            clock.at[moment] = partial(workspace.faults.__setitem__, 0, fault)
        with pytest.raises(RunLost, match=r"for 1[01] min.* 403"):
            wait(7)
        assert 2600 <= clock.now <= 2750

    @pytest.mark.parametrize(
        "case",
        [
            ({"status": 503}, Patience(), 60),
            ({"status": 403}, Patience(), 10),
            ({"status": 401}, Patience(denied_tolerance=300), 5),
            # Longer than any float could double its waits.
            ({"status": 503}, Patience(outage_tolerance=86400), 1440),
        ],
        ids=str,
    )
    def test_exceeded_tolerance_loses_the_run_without_cancelling_it(
        self, wait: Wait, workspace: LocalWorkspace, client: JobsClient, clock: Clock, stuck: int, *, case: Any
    ) -> None:
        failure, client.patience, minutes = case
        workspace.faults.append(Fault("runs/get", times=None, **failure))
        with pytest.raises(RunLost) as caught:
            wait(stuck)
        lasted = round(clock.now / 60)
        setting = "outage_tolerance" if failure["status"] == 503 else "denied_tolerance"
        assert f"failed for {lasted} min, longer than {setting} allows. The run was not cancelled and may" in str(
            caught.value
        )
        assert caught.value.run_id == stuck
        assert minutes * 60 <= clock.now <= minutes * 60 + 66
        assert not [operation for operation in workspace.requests if "cancel" in operation]

    def test_deleted_run_is_lost_at_once(self, wait: Wait, workspace: LocalWorkspace) -> None:
        with pytest.raises(RunLost, match="Run 7 no longer exists") as caught:
            wait(7)
        assert isinstance(caught.value.__cause__, NotFound)
        assert workspace.requests["runs/get"] == 1

    def test_permanent_error_is_not_retried(self, wait: Wait, workspace: LocalWorkspace) -> None:
        workspace.faults.append(Fault("runs/get", status=409, body={"error_code": "A_CODE_OF_2031"}, times=None))
        with pytest.raises(RunLost, match="Polling run 7 failed and is not retried") as caught:
            wait(7)
        assert isinstance(caught.value.__cause__, Conflict)
        assert workspace.requests["runs/get"] == 1


class TestRunStateLogger:
    def test_logs_each_state_once(self, wait: Wait, workspace: LocalWorkspace, caplog: Log) -> None:
        caplog.set_level(logging.INFO)
        workspace.faults += [
            reply("PENDING", message="Waiting for a cluster", times=3),
            Fault("runs/get", status=503, times=2),
            reply("PENDING", message="Waiting for a cluster"),
            reply("RUNNING", times=3),
            reply("TERMINATED", "FAILED", "boom", times=2),
        ]
        wait(7, on_change=RunStateLogger(logging.getLogger("task"), 7))
        lines = [record.getMessage() for record in caplog.records if record.name == "task"]
        assert lines == [
            "Run 7 is PENDING: Waiting for a cluster",
            "Run 7 is RUNNING",
            "Run 7 is TERMINATED/FAILED: boom",
        ]

    def test_warns_once_of_an_unknown_state(self, wait: Wait, workspace: LocalWorkspace, caplog: Log) -> None:
        workspace.faults += [reply("HIBERNATING", message=text, times=2) for text in ("", "falling asleep", "asleep")]
        workspace.faults.append(reply("TERMINATED", "SUCCESS", times=2))
        assert wait(7, on_change=RunStateLogger(logging.getLogger("task"), 7)).outcome is Outcome.SUCCESS
        (warning,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert "This release does not know the state 'HIBERNATING'; the run counts as active" in warning.getMessage()


class TestEndInWorker:
    def test_returns_all_tasks_of_a_large_run(self, client: JobsClient) -> None:
        tasks = [{"task_key": f"t{number}", **TASK} for number in range(120)]
        run = wait_for_run(client, client.submit_run({"tasks": tasks}), period=0.05)
        assert len(run.tasks) == 120

    def test_is_read_again_after_a_rejection(self, client: JobsClient, workspace: LocalWorkspace, clock: Clock) -> None:
        end, end_once_more = reply("TERMINATED", "FAILED"), reply("TERMINATED", "FAILED", times=2)
        workspace.faults += [end, Fault("runs/get", status=403), end_once_more]
        assert wait_for_run(client, 7).outcome is Outcome.FAILED
        assert len(clock.waits) == 1

    def test_is_lost_if_later_pages_stay_unreadable(
        self, client: JobsClient, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def later_page(_: int) -> Run:
            raise UnreadableReply("page 2 is a proxy's")

        over = {"run_id": 7, "state": {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"}}
        monkeypatch.setattr(client, "poll_run", lambda _: Run.from_json(over))
        monkeypatch.setattr(client, "get_run", later_page)
        with pytest.raises(RunLost, match="page 2 is a proxy's"):
            wait_for_run(client, 7)
        assert clock.now >= Patience().outage_tolerance

    def test_of_a_run_that_was_repaired_is_waited_for_again(
        self, client: JobsClient, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def run(life_cycle_state: str) -> Run:
            return Run.from_json(
                {"run_id": 7, "state": {"life_cycle_state": life_cycle_state, "result_state": "FAILED"}}
            )

        polled, read = iter([run("TERMINATED")] * 2), iter([run("RUNNING"), run("TERMINATED")])
        monkeypatch.setattr(client, "poll_run", lambda _: next(polled))
        monkeypatch.setattr(client, "get_run", lambda _: next(read))
        seen: list[str] = []
        assert wait_for_run(client, 7, on_change=lambda state: seen.append(state.life_cycle_state)).is_terminal
        assert len(clock.waits) == 1
        assert seen == ["TERMINATED", "RUNNING", "TERMINATED"]


class TestShortRuns:
    """Only a worker polls sooner at first: a triggerer has one period for thousands of runs."""

    def polls(self, client: JobsClient, workspace: LocalWorkspace, clock: Clock, ends: float, period: float) -> int:
        workspace.faults.append(reply("RUNNING", times=None))
        clock.at[ends] = lambda: end(workspace)
        assert wait_for_run(client, 7, period=period).outcome is Outcome.SUCCESS
        return len(clock.waits)

    def test_of_two_seconds_ends_its_task_within_four(
        self, client: JobsClient, workspace: LocalWorkspace, clock: Clock
    ) -> None:
        self.polls(client, workspace, clock, ends=2, period=10)
        assert clock.now < 4
        assert all(abs(wait / plain - 1) < 0.11 for wait, plain in zip(clock.waits, (1, 2), strict=True))

    @pytest.mark.parametrize("period", [0.5, 10, 60, 3600])
    def test_cost_at_most_five_requests_more(
        self, client: JobsClient, workspace: LocalWorkspace, clock: Clock, period: float
    ) -> None:
        waits = self.polls(client, workspace, clock, ends=8 * period, period=period)
        assert waits <= 8 / 0.9 + 1 + 5
        assert max(clock.waits) <= 1.1 * period

    def test_do_not_change_a_period_that_is_shorter(
        self, client: JobsClient, workspace: LocalWorkspace, clock: Clock
    ) -> None:
        self.polls(client, workspace, clock, ends=10, period=0.5)
        assert all(0.45 <= wait <= 0.55 for wait in clock.waits)


class TestPolling:
    def test_polls_every_period_until_the_end(self, wait: Wait, workspace: LocalWorkspace, clock: Clock) -> None:
        workspace.faults += [reply("PENDING"), reply("RUNNING", times=3), reply("TERMINATED", "FAILED", times=2)]
        assert wait(7, period=1.0).outcome is Outcome.FAILED
        assert len(clock.waits) == 4
        assert all(0.9 <= seconds <= 1.1 for seconds in clock.waits)
        assert len(set(clock.waits)) > 1, "tasks that start together do not stay together"

    def test_period_of_zero_is_no_busy_loop(self, wait: Wait, workspace: LocalWorkspace, clock: Clock) -> None:
        workspace.faults += [reply("RUNNING", times=3), reply("TERMINATED", "SUCCESS", times=2)]
        assert wait(7, period=0).outcome is Outcome.SUCCESS
        assert len(clock.waits) == 3
        assert all(seconds >= 0.009 for seconds in clock.waits)

    def test_failed_polls_are_retried_with_backoff(self, wait: Wait, workspace: LocalWorkspace, clock: Clock) -> None:
        workspace.faults += [Fault("runs/get", status=503, times=8), reply("TERMINATED", "SUCCESS", times=2)]
        wait(7)
        for slept, least in zip(clock.waits, [1, 2, 4, 8, 16, 32, 60, 60], strict=True):
            assert 0.9 * least <= slept <= 1.1 * least
        assert clock.waits[-1] != clock.waits[-2], "tasks that fail together do not come back together"

    @pytest.mark.parametrize(
        ("status", "headers", "failures", "least"),
        [
            (429, {"Retry-After": "120"}, 1, 120),
            (503, {"Retry-After": "120"}, 1, 120),
            (503, {"Retry-After": "5"}, 1, 5),
            # Neither at once, nor hours later.
            (429, {"Retry-After": "0"}, 1, 1),
            (429, {"Retry-After": "86400"}, 1, 300),
            # The longer of what is asked for and the backoff.
            (429, {"Retry-After": "5"}, 5, 16),
            # Only where it counts.
            (500, {"Retry-After": "120"}, 1, 1),
            (429, {"Retry-After": "soon"}, 1, 1),
            (429, {}, 1, 1),
        ],
        ids=str,
    )
    def test_retry_after_is_respected(
        self,
        wait: Wait,
        workspace: LocalWorkspace,
        clock: Clock,
        *,
        status: int,
        headers: Any,
        failures: int,
        least: float,
    ) -> None:
        workspace.faults += [
            Fault("runs/get", status=status, headers=headers, times=failures),
            reply("TERMINATED", "SUCCESS", times=2),
        ]
        wait(7)
        assert len(clock.waits) == failures
        assert 0.9 * least <= clock.waits[-1] <= 1.1 * least


@pytest.fixture
def rereadings(client: JobsClient, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> list[Transport]:
    """Return what the client has read its credentials anew as; they are those of the workspace by then."""
    read: list[Transport] = []

    def reread() -> Transport:
        read.append(Transport(client.host, BearerAuth("local-token-of-tomorrow"), clock=clock))
        return read[-1]

    monkeypatch.setattr(client, "_reread", reread)
    return read


class TestCredentialsInWorker:
    def test_are_replaced_by_the_rotated_ones(
        self, client: JobsClient, workspace: LocalWorkspace, clock: Clock, stuck: int, rereadings: list[Transport]
    ) -> None:
        def rotate() -> None:
            workspace.token = "local-token-of-tomorrow"

        clock.at[100] = rotate
        clock.at[200] = lambda: client.cancel_run(stuck)
        before = client.transport
        interrupt = before.interrupt = lambda: None
        assert wait_for_run(client, stuck).outcome is Outcome.CANCELED
        assert client.transport is rereadings[0]
        assert client.transport.interrupt is interrupt
        assert not before._sessions, "they are closed"
        assert len(rereadings) == 1, "they were accepted, so nobody read on"

    @pytest.mark.parametrize(
        ("failure", "read"),
        [
            ({"status": 401}, 3),
            ({"status": 403, "body": {"error_code": "PERMISSION_DENIED"}}, 3),
            ({"status": 503}, 0),
            ({"status": 429}, 0),
            ({"cut": "before"}, 0),
            ({"status": 404, "body": "<html>"}, 0),
        ],
        ids=str,
    )
    def test_are_read_again_only_after_a_rejection(
        self,
        client: JobsClient,
        workspace: LocalWorkspace,
        rereadings: list[Transport],
        failure: dict[str, Any],
        read: int,
    ) -> None:
        # What is read is no better.
        workspace.faults += [Fault("runs/get", times=3, **failure), reply("TERMINATED", "SUCCESS", times=2)]
        workspace.token = "local-token-of-tomorrow" if read else workspace.token
        assert wait_for_run(client, 7).outcome is Outcome.SUCCESS
        assert len(rereadings) == read
