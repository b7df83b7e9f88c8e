"""The shared poller: sharing, threads, cancellation and rejected credentials, against the local workspace."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import socket
import subprocess
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from injected_clock import CallingClock, Clock
from requests.auth import AuthBase, HTTPBasicAuth

from airflow_dbjobs.client import JobsClient, transport, wait
from airflow_dbjobs.client.auth import BearerAuth
from airflow_dbjobs.client.models import Outcome
from airflow_dbjobs.client.retry import Patience, RetryPolicy
from airflow_dbjobs.client.session import Network
from airflow_dbjobs.client.transport import Transport
from airflow_dbjobs.client.wait import Watch, wait_for_run
from airflow_dbjobs.local_workspace import Fault
from airflow_dbjobs.runs.conditions import RunCondition
from airflow_dbjobs.runs.polling import rate_limit
from airflow_dbjobs.runs.polling import requests as poll_requests
from airflow_dbjobs.runs.polling.polled import RunEnd
from airflow_dbjobs.runs.polling.poller import RunPoller

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from requests import PreparedRequest

    from airflow_dbjobs.client.models import RunState
    from airflow_dbjobs.local_workspace import LocalWorkspace

TASK = {"condition_task": {"op": "EQUAL_TO", "left": "1", "right": "1"}}
# A run of this job stays active until it is cancelled.
STUCK = {"max_concurrent_runs": 0, "queue": {"enabled": True}, **TASK}


@pytest.fixture
def stuck(client: JobsClient) -> int:
    """Return the id of a run that stays active until it is cancelled."""
    return client.run_now({"job_id": client.create_job(STUCK)})


def over(workspace: LocalWorkspace, times: int = 1) -> None:
    """Make the next answers report that run 7 has succeeded."""
    state = {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"}
    workspace.faults.append(Fault("runs/get", status=200, body={"run_id": 7, "state": state}, times=times))


def watch(run_id: int, on_change: Callable[[RunState], None] = lambda _: None) -> Watch:
    return Watch(run_id, 0.01, Patience(), time.monotonic, on_change=on_change)


def client_of(
    workspace: LocalWorkspace, auth: AuthBase | None = None, *, verify: bool = True, **options: Any
) -> JobsClient:
    auth = auth or BearerAuth(workspace.token)
    return JobsClient(transport=Transport(workspace.base_url, auth, network=Network(verify=verify)), **options)


def poller_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("airflow_dbjobs-")]


@pytest.fixture(autouse=True)
def no_thread_outlives_its_poller() -> Iterator[None]:
    yield
    for thread in poller_threads():
        thread.join(5)
        assert not thread.is_alive()


async def until(happened: Callable[[], bool]) -> None:
    """Run the event loop until a condition, set by another thread, is true."""
    async with asyncio.timeout(10):
        while not happened():  # noqa: ASYNC110 (other threads set no asyncio.Event)
            await asyncio.sleep(0.001)


class Gate(AuthBase):
    """Signs requests, and blocks those to one endpoint until it is opened, as a slow API does."""

    def __init__(self, workspace: LocalWorkspace, endpoint: str = "/runs/get?") -> None:
        self.sign = BearerAuth(workspace.token)
        self.endpoint = endpoint
        self.opened = threading.Event()
        self.waiting = threading.Semaphore(0)

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        if self.endpoint in str(request.url):
            self.waiting.release()
            assert self.opened.wait(10), "nobody opened the gate"
        return self.sign(request)


HANGING = """
import asyncio, signal, sys
from airflow_dbjobs.client import JobsClient
from airflow_dbjobs.client.session import Network
from airflow_dbjobs.runs.polling.poller import RunPoller
from airflow_dbjobs.client.retry import Patience, RetryPolicy
from airflow_dbjobs.client.wait import Watch


async def main():
    client = JobsClient(sys.argv[1], token="a-token")
    watching = [RunPoller.shared(client).wait(Watch(run, 10, Patience(), client.clock)) for run in range(3)]
    all_of_them = asyncio.ensure_future(asyncio.gather(*watching))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, all_of_them.cancel)
    try:
        await all_of_them
    except asyncio.CancelledError:
        print("stopped", flush=True)


asyncio.run(main())
"""


class TestSharing:
    def test_one_per_loop_workspace_and_credentials(self, workspace: LocalWorkspace) -> None:
        async def pollers() -> list[RunPoller]:
            same = [RunPoller.shared(client_of(workspace)) for _ in range(2)]
            others = [
                RunPoller.shared(client_of(workspace, BearerAuth("another"))),
                RunPoller.shared(client_of(workspace, api_version="2.1")),
                RunPoller.shared(client_of(workspace, verify=False)),
                RunPoller.shared(JobsClient("https://elsewhere.example", token=workspace.token)),
            ]
            return [*same, *others]

        one, again, *others = asyncio.run(pollers())
        elsewhere = asyncio.run(pollers())
        assert one is again
        assert len({id(poller) for poller in (one, *others, *elsewhere)}) == 10

    def test_unhashable_credentials_share_by_identity(self, workspace: LocalWorkspace) -> None:
        async def scene() -> None:
            first, second = (HTTPBasicAuth("token", workspace.token) for _ in range(2))
            pollers = [RunPoller.shared(JobsClient(workspace.base_url, auth=auth)) for auth in (first, second, first)]
            assert pollers[0] is pollers[2]
            assert pollers[0] is not pollers[1]

        asyncio.run(scene())

    def test_rotated_password_gets_a_new_poller(self, workspace: LocalWorkspace) -> None:
        workspace.faults.append(Fault("runs/get", status=403))
        over(workspace)
        clock = Clock()
        watched = Watch(7, 10, Patience(), clock)

        async def scene() -> None:
            client = client_of(workspace, BearerAuth("of-yesterday"))
            clock.rule(client)
            old = RunPoller.shared(client)
            old._sleep = clock.sleep_async
            assert await old.wait(watched) is None
            assert RunPoller._shared[asyncio.get_running_loop()] == {}
            new = RunPoller.shared(client_of(workspace))
            assert new is not old
            assert await new.wait(watched)

        asyncio.run(scene())

    def test_lowest_rate_of_all_connections_applies(self, workspace: LocalWorkspace) -> None:
        async def scene() -> None:
            poller = RunPoller.shared(client_of(workspace))
            assert poller is RunPoller.shared(client_of(workspace, max_requests_per_second=5, connection="slow"))
            assert poller is RunPoller.shared(client_of(workspace, max_requests_per_second=50, connection="fast"))
            assert poller._gate.seconds_per_request == pytest.approx(1 / 5)
            # The latest rate of each connection applies.
            assert poller is RunPoller.shared(client_of(workspace, max_requests_per_second=20, connection="slow"))
            assert poller._gate.seconds_per_request == pytest.approx(1 / 20)

        asyncio.run(scene())


class TestIdlePoller:
    def test_is_freed_with_its_event_loop(self, workspace: LocalWorkspace) -> None:
        async def share() -> weakref.ref[RunPoller]:
            return weakref.ref(RunPoller.shared(client_of(workspace)))

        poller = asyncio.run(share())
        gc.collect()
        assert poller() is None

    def test_is_not_shared_any_more(self, client: JobsClient) -> None:
        run_id = client.submit_run({"tasks": [{"task_key": "a", **TASK}]})

        async def scene() -> None:
            poller = RunPoller.shared(client)
            await poller.wait(watch(run_id))
            assert RunPoller.shared(client) is not poller

        asyncio.run(scene())

    def test_closes_its_connections(self, client: JobsClient) -> None:
        run_id = client.submit_run({"tasks": [{"task_key": "a", **TASK}]})

        async def scene() -> None:
            poller = RunPoller.shared(client)
            with mock.patch.object(JobsClient, "close", autospec=True) as close:
                await poller.wait(watch(run_id))
            requests = poller._requests
            closed = {id(call.args[0]) for call in close.call_args_list}
            assert closed == {id(client), id(requests._cancel_client), id(requests._call_client)}

        asyncio.run(scene())


class TestThreads:
    def test_slow_call_does_not_block_the_loop(self, workspace: LocalWorkspace) -> None:
        gate = Gate(workspace)
        reported_in: list[threading.Thread] = []

        async def scene() -> RunEnd:
            over(workspace)
            poller = RunPoller(client_of(workspace, gate))
            watching = asyncio.create_task(
                poller.wait(watch(7, lambda _: reported_in.append(threading.current_thread())))
            )
            await until(lambda: gate.waiting.acquire(blocking=False))
            assert not watching.done()
            gate.opened.set()
            return await watching

        assert asyncio.run(scene()).state.outcome is Outcome.SUCCESS
        assert reported_in == [threading.current_thread()]

    def test_many_callers_share_few_threads(self, workspace: LocalWorkspace) -> None:
        gate = Gate(workspace)
        seen: list[threading.Thread] = []
        over(workspace, times=40)

        async def scene() -> None:
            poller = RunPoller(client_of(workspace, gate))
            for _ in range(2):  # the second time after it was idle
                watching = [asyncio.create_task(poller.wait(watch(run_id))) for run_id in range(20)]
                for _ in range(5):
                    await until(lambda: gate.waiting.acquire(blocking=False))
                seen[:] = poller_threads()
                assert len(seen) == 6, "one of them requests the list"
                assert all(thread.daemon for thread in seen)
                gate.opened.set()
                await asyncio.gather(*watching)
                await until(lambda: not poller_threads())
                gate.opened.clear()
                while gate.waiting.acquire(blocking=False):
                    pass

        asyncio.run(scene())
        assert workspace.requests["runs/get"] == 40

    def test_thread_limit_is_a_temporary_outage(self, workspace: LocalWorkspace) -> None:
        warnings: list[str] = []

        def none_left(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        async def scene() -> RunEnd | None:
            watched = Watch(7, 0.01, Patience(), time.monotonic, warn=warnings.append)
            with mock.patch.object(threading.Thread, "start", none_left):
                watching = asyncio.create_task(RunPoller(client_of(workspace)).wait(watched))
                await until(lambda: bool(warnings))
            return await watching

        over(workspace)
        quick = {"return_value": 0.01}
        with mock.patch.object(rate_limit, "backoff", **quick), mock.patch.object(wait, "backoff", **quick):
            assert asyncio.run(scene())
        assert "Cannot start another thread" in warnings[0]

    def test_trickling_reply_is_an_outage(self, workspace: LocalWorkspace) -> None:
        # The timeout of `requests` applies to each read, so it would wait forever.
        gate = Gate(workspace)
        warnings: list[str] = []
        policy = RetryPolicy(connect_timeout=0.01, read_timeout=0.01)

        async def scene() -> RunEnd | None:
            client = client_of(workspace, gate).with_policy(policy)
            watched = Watch(7, 0.01, Patience(), client.clock, warn=warnings.append)
            watching = asyncio.create_task(RunPoller(client).wait(watched))
            await until(lambda: bool(warnings))
            gate.opened.set()
            return await watching

        over(workspace, times=2)
        with mock.patch.object(poll_requests, "_TIMEOUT_MARGIN_SECONDS", 0.05):
            run = asyncio.run(scene())
        assert run is not None
        assert run.state.outcome is Outcome.SUCCESS
        assert "did not answer in full" in warnings[0]

    def test_process_exits_while_requests_hang(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            silent.settimeout(60)
            url = f"http://127.0.0.1:{silent.getsockname()[1]}"
            command = [sys.executable, "-c", HANGING, url]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                try:
                    connection, _ = silent.accept()
                    with connection:
                        assert connection.recv(4), "the request is sent and not answered"
                        process.terminate()
                        # Airflow's limit for stopping a triggerer.
                        assert process.communicate(timeout=5) == ("stopped\n", None)
                    assert process.returncode == 0
                finally:
                    process.kill()


class TestCall:
    def test_has_the_timeouts_of_the_connection_and_one_attempt(self, client: JobsClient) -> None:
        impatient = client.with_policy(RetryPolicy(connect_timeout=3.0, read_timeout=7.0))
        policy = asyncio.run(RunPoller(impatient).call(lambda calling: calling.transport.policy))
        assert policy == RetryPolicy(retry_budget=0.0, connect_timeout=3.0, read_timeout=7.0)


class TestTasksOfRun:
    def test_caller_gets_no_answer_to_an_earlier_request(self, workspace: LocalWorkspace) -> None:
        # A poll for the run's state reads the first page of its tasks only.
        gate = Gate(workspace)
        state = {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"}
        for life, keys in (("RUNNING", "b"), ("TERMINATED", "ab")):
            tasks = [{"run_id": 8, "task_key": key, "state": state} for key in keys]
            body = {"run_id": 7, "state": {**state, "life_cycle_state": life}, "tasks": tasks}
            workspace.faults.append(Fault("runs/get", status=200, body=body))

        async def scene() -> None:
            poller = RunPoller(client_of(workspace, gate))
            waiting = asyncio.create_task(poller.wait(Watch(7, 60.0, Patience(), time.monotonic)))
            await until(lambda: gate.waiting.acquire(blocking=False))
            condition = RunCondition(chosen=7, task_key="a")
            watched = Watch(7, 60.0, Patience(), time.monotonic)
            checking = asyncio.create_task(poller.check(condition, watched, lambda result: result))
            await until(lambda: len(poller._polled[7].waiters) > 1)
            gate.opened.set()
            async with asyncio.timeout(10):
                result, _ = await asyncio.gather(checking, waiting)
            assert result is not None
            assert result.verdict

        asyncio.run(scene())
        assert workspace.requests["runs/get"] == 2


class TestBrokenPoll:
    def test_ends_its_round(self, client: JobsClient, monkeypatch: pytest.MonkeyPatch) -> None:
        measured: list[str] = []

        def broken(*_: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(JobsClient, "poll_run", broken)

        async def scene() -> None:
            with pytest.raises(ZeroDivisionError):
                await RunPoller(client, metrics=lambda _, name, *__: measured.append(name)).wait(watch(7))

        asyncio.run(scene())
        assert "tick_duration" in measured


class TestLeavingCallers:
    def test_cancelled_caller_affects_no_other_and_no_run(
        self, client: JobsClient, workspace: LocalWorkspace, stuck: int
    ) -> None:
        async def scene() -> RunEnd:
            poller = RunPoller(client)
            leaving, staying = (asyncio.create_task(poller.wait(watch(stuck))) for _ in range(2))
            await until(lambda: workspace.requests["runs/get"] >= 4)
            leaving.cancel()
            await asyncio.wait([leaving])
            assert leaving.cancelled()
            assert workspace.requests["runs/cancel"] == 0
            before = workspace.requests["runs/get"]
            await until(lambda: workspace.requests["runs/get"] >= before + 3)
            await poller.cancel(stuck)
            return await staying

        assert asyncio.run(scene()).state.outcome is Outcome.CANCELED

    def test_cancellation_does_not_wait_for_the_request(self, workspace: LocalWorkspace) -> None:
        gate = Gate(workspace)

        async def scene(*, answered: bool) -> None:
            wrong: list[object] = []
            asyncio.get_running_loop().set_exception_handler(lambda _, context: wrong.append(context))
            watching = asyncio.create_task(RunPoller(client_of(workspace, gate)).wait(watch(7)))
            await until(lambda: gate.waiting.acquire(blocking=False))
            watching.cancel()
            await asyncio.wait([watching], timeout=5)
            assert watching.cancelled()
            if answered:
                gate.opened.set()
                await until(lambda: not poller_threads())
                await asyncio.sleep(0)
            assert wrong == []

        asyncio.run(scene(answered=False))
        gate.opened.set()  # the answer arrives after the loop has closed
        asyncio.run(until(lambda: not poller_threads()))
        gate.opened.clear()
        asyncio.run(scene(answered=True))


class TestRefusedCredentials:
    @pytest.mark.parametrize("status", [401, 403])
    def test_caller_returns_after_the_required_wait(
        self, client: JobsClient, workspace: LocalWorkspace, status: int
    ) -> None:
        clock = Clock()
        clock.rule(client)
        workspace.faults += [Fault("runs/get", status=503), Fault("runs/get", status=status)]
        over(workspace)
        watched = Watch(7, 10, Patience(), clock)

        async def scene() -> None:
            poller = RunPoller.shared(client)
            refused = await RunPoller(client, sleep=clock.sleep_async).wait(watched)
            assert refused is None
            assert workspace.requests["runs/get"] == 2
            assert len(clock.waits) == 2
            # The next poll succeeds and resets the rejection.
            run = await poller.wait(watched)
            assert run is not None
            assert run.state.outcome is Outcome.SUCCESS
            assert not watched.credentials_rejected

        asyncio.run(scene())


class TestCancelRun:
    def test_does_not_wait_behind_hanging_polls(self, workspace: LocalWorkspace, stuck: int) -> None:
        gate = Gate(workspace)

        async def scene() -> RunEnd:
            poller = RunPoller(client_of(workspace, gate))
            watching = [asyncio.create_task(poller.wait(watch(run_id))) for run_id in (stuck, *range(8))]
            for _ in range(5):
                await until(lambda: gate.waiting.acquire(blocking=False))
            async with asyncio.timeout(5):
                await poller.cancel(stuck)
            gate.opened.set()
            run, *_ = await asyncio.gather(*watching, return_exceptions=True)
            assert isinstance(run, RunEnd)
            return run

        assert asyncio.run(scene()).state.outcome is Outcome.CANCELED

    def test_retries_a_lost_request(
        self, client: JobsClient, workspace: LocalWorkspace, stuck: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waits: list[float] = []
        monkeypatch.setattr(client.transport, "clock", CallingClock(time.monotonic, waits.append))
        workspace.faults += [Fault("runs/cancel", cut="before", times=2), Fault("runs/cancel", status=503)]
        asyncio.run(RunPoller(client).cancel(stuck))
        assert workspace.requests["runs/cancel"] == 4
        # Airflow allows 30 s in all.
        for slept, least in zip(waits, [0.5, 1, 0.5], strict=True):
            assert least <= slept <= least * 1.25
        assert wait_for_run(client, stuck, period=0.01).outcome is Outcome.CANCELED

    def test_logs_in_the_context_of_its_trigger(
        self, client: JobsClient, workspace: LocalWorkspace, stuck: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whose = contextvars.ContextVar("whose", default="of no trigger")
        logged: list[str] = []
        monkeypatch.setattr(client.transport, "clock", CallingClock(time.monotonic, lambda _: None))
        monkeypatch.setattr(transport.log, "warning", lambda *_: logged.append(whose.get()))
        workspace.faults.append(Fault("runs/cancel", status=503))

        async def scene() -> None:
            whose.set("of the trigger")
            await RunPoller(client).cancel(stuck)

        asyncio.run(scene())
        assert logged == ["of the trigger"]

    def test_is_not_sent_after_its_caller_is_cancelled(self, workspace: LocalWorkspace) -> None:
        # The next try of the task may have joined the run by then.
        gate = Gate(workspace, "/runs/cancel")

        async def scene() -> None:
            poller = RunPoller(client_of(workspace, gate))
            cancelling = [asyncio.create_task(poller.cancel(run_id)) for run_id in range(30)]
            for _ in range(10):
                await until(lambda: gate.waiting.acquire(blocking=False))
            for task in cancelling:
                task.cancel()
            await asyncio.wait(cancelling)
            gate.opened.set()
            await until(lambda: not poller_threads())

        asyncio.run(scene())
        assert workspace.requests["runs/cancel"] == 10
