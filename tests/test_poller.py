"""poller: shared by all triggers of an event loop, in a few threads of its own."""

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
from airflow_dbjobs.client.models import Outcome, Run
from airflow_dbjobs.client.retry import Patience, RetryPolicy
from airflow_dbjobs.client.session import Network
from airflow_dbjobs.client.transport import Transport
from airflow_dbjobs.client.wait import Watch, wait_for_run
from airflow_dbjobs.local_workspace import Fault
from airflow_dbjobs.runs.polling import rate_limit
from airflow_dbjobs.runs.polling import requests as asking
from airflow_dbjobs.runs.polling.poller import RunPoller

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from requests import PreparedRequest

    from airflow_dbjobs.client.models import RunState
    from airflow_dbjobs.local_workspace import LocalWorkspace

TASK = {"condition_task": {"op": "EQUAL_TO", "left": "1", "right": "1"}}
# A run of such a job is active until somebody cancels it.
STUCK = {"max_concurrent_runs": 0, "queue": {"enabled": True}, **TASK}


@pytest.fixture
def stuck(client: JobsClient) -> int:
    """Return the id of a run that is active until somebody cancels it."""
    return client.run_now({"job_id": client.create_job(STUCK)})


def over(workspace: LocalWorkspace, times: int = 1) -> None:
    """Let the next answers say that run 7 has succeeded."""
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
    """Let the loop go on until something has happened in another thread."""
    async with asyncio.timeout(10):
        while not happened():  # noqa: ASYNC110 (other threads set no asyncio.Event)
            await asyncio.sleep(0.001)


class Gate(AuthBase):
    """Signs requests, and holds those to an endpoint up until it is opened: an API that takes its time."""

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


def test_a_poller_is_shared_by_all_with_the_same_loop_workspace_and_credentials(workspace: LocalWorkspace) -> None:
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


def test_the_pollers_of_a_loop_go_with_it(workspace: LocalWorkspace) -> None:
    async def share() -> weakref.ref[RunPoller]:
        return weakref.ref(RunPoller.shared(client_of(workspace)))

    poller = asyncio.run(share())
    gc.collect()
    assert poller() is None


def test_a_slow_call_does_not_block_the_loop_in_which_changes_are_told(workspace: LocalWorkspace) -> None:
    gate = Gate(workspace)
    told: list[threading.Thread] = []

    async def scene() -> Run:
        over(workspace)
        poller = RunPoller(client_of(workspace, gate))
        watching = asyncio.create_task(poller.wait(watch(7, lambda _: told.append(threading.current_thread()))))
        await until(lambda: gate.waiting.acquire(blocking=False))
        assert not watching.done()
        gate.opened.set()
        return await watching

    assert asyncio.run(scene()).outcome is Outcome.SUCCESS
    assert told == [threading.current_thread()]


def test_many_watchers_need_few_threads_and_these_end_with_them(workspace: LocalWorkspace) -> None:
    gate = Gate(workspace)
    seen: list[threading.Thread] = []
    over(workspace, times=40)

    async def scene() -> None:
        poller = RunPoller(client_of(workspace, gate))
        for _ in range(2):  # once more after it was idle
            watching = [asyncio.create_task(poller.wait(watch(run_id))) for run_id in range(20)]
            for _ in range(5):
                await until(lambda: gate.waiting.acquire(blocking=False))
            seen[:] = poller_threads()
            assert len(seen) == 6, "one has asked for the list"
            assert all(thread.daemon for thread in seen)
            gate.opened.set()
            await asyncio.gather(*watching)
            await until(lambda: not poller_threads())
            gate.opened.clear()
            while gate.waiting.acquire(blocking=False):
                pass

    asyncio.run(scene())
    assert workspace.requests["runs/get"] == 40


def test_a_cancelled_watcher_leaves_others_and_run_alone(
    client: JobsClient, workspace: LocalWorkspace, stuck: int
) -> None:
    async def scene() -> Run:
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

    assert asyncio.run(scene()).outcome is Outcome.CANCELED


def test_a_watcher_that_is_cancelled_during_its_call_is_not_waited_for(workspace: LocalWorkspace) -> None:
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
    gate.opened.set()  # the answer comes when the loop is closed, and is nobody's
    asyncio.run(until(lambda: not poller_threads()))
    gate.opened.clear()
    asyncio.run(scene(answered=True))


def test_a_cancellation_does_not_wait_behind_polls_that_hang(workspace: LocalWorkspace, stuck: int) -> None:
    gate = Gate(workspace)

    async def scene() -> Run:
        poller = RunPoller(client_of(workspace, gate))
        watching = [asyncio.create_task(poller.wait(watch(run_id))) for run_id in (stuck, *range(8))]
        for _ in range(5):
            await until(lambda: gate.waiting.acquire(blocking=False))
        async with asyncio.timeout(5):
            await poller.cancel(stuck)
        gate.opened.set()
        run, *_ = await asyncio.gather(*watching, return_exceptions=True)
        assert isinstance(run, Run)
        return run

    assert asyncio.run(scene()).outcome is Outcome.CANCELED


def test_a_cancellation_gets_through_a_lost_request(
    client: JobsClient, workspace: LocalWorkspace, stuck: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(client.transport, "clock", CallingClock(time.monotonic, waits.append))
    workspace.faults += [Fault("runs/cancel", cut="before", times=2), Fault("runs/cancel", status=503)]
    asyncio.run(RunPoller(client).cancel(stuck))
    assert workspace.requests["runs/cancel"] == 4
    # There are 30 s for it.
    for slept, least in zip(waits, [0.5, 1, 0.5], strict=True):
        assert least <= slept <= least * 1.25
    assert wait_for_run(client, stuck, period=0.01).outcome is Outcome.CANCELED


def test_what_a_cancellation_logs_goes_where_the_log_of_its_trigger_goes(
    client: JobsClient, workspace: LocalWorkspace, stuck: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whose = contextvars.ContextVar("whose", default="nobody's")
    logged: list[str] = []
    monkeypatch.setattr(client.transport, "clock", CallingClock(time.monotonic, lambda _: None))
    monkeypatch.setattr(transport.log, "warning", lambda *_: logged.append(whose.get()))
    workspace.faults.append(Fault("runs/cancel", status=503))

    async def scene() -> None:
        whose.set("the trigger's")
        await RunPoller(client).cancel(stuck)

    asyncio.run(scene())
    assert logged == ["the trigger's"]


def test_credentials_without_a_hash_are_shared_only_as_one_object(workspace: LocalWorkspace) -> None:
    async def scene() -> None:
        first, second = (HTTPBasicAuth("token", workspace.token) for _ in range(2))
        pollers = [RunPoller.shared(JobsClient(workspace.base_url, auth=auth)) for auth in (first, second, first)]
        assert pollers[0] is pollers[2]
        assert pollers[0] is not pollers[1]

    asyncio.run(scene())


def test_a_poller_that_nobody_uses_is_forgotten_with_its_credentials(client: JobsClient) -> None:
    run_id = client.submit_run({"tasks": [{"task_key": "a", **TASK}]})

    async def scene() -> None:
        poller = RunPoller.shared(client)
        await poller.wait(watch(run_id))
        assert RunPoller.shared(client) is not poller

    asyncio.run(scene())


def test_a_poller_that_nobody_uses_closes_its_connections(client: JobsClient) -> None:
    run_id = client.submit_run({"tasks": [{"task_key": "a", **TASK}]})

    async def scene() -> None:
        poller = RunPoller.shared(client)
        with mock.patch.object(JobsClient, "close", autospec=True) as close:
            await poller.wait(watch(run_id))
        # Those of the polls and those of the cancellations.
        assert {id(call.args[0]) for call in close.call_args_list} == {id(client), id(poller._asker._canceller)}

    asyncio.run(scene())


@pytest.mark.parametrize("status", [401, 403])
def test_a_watcher_whose_credentials_are_refused_is_told_after_the_wait_that_is_due(
    client: JobsClient, workspace: LocalWorkspace, status: int
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
        # The answer is the run's, and the refusal is forgotten.
        run = await poller.wait(watched)
        assert run is not None
        assert run.outcome is Outcome.SUCCESS
        assert not watched.refused

    asyncio.run(scene())


def test_an_old_and_a_new_password_have_pollers_of_their_own_and_the_old_one_goes(workspace: LocalWorkspace) -> None:
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


def test_a_cancellation_that_was_given_up_is_not_sent_later(workspace: LocalWorkspace) -> None:
    # A next try of the task may have joined the run by then.
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


def test_a_second_connection_may_lower_the_rate_of_the_workspace(workspace: LocalWorkspace) -> None:
    async def scene() -> None:
        poller = RunPoller.shared(client_of(workspace))
        assert poller is RunPoller.shared(client_of(workspace, max_requests_per_second=5, connection="slow"))
        assert poller is RunPoller.shared(client_of(workspace, max_requests_per_second=50, connection="fast"))
        assert poller._gate.seconds_per_request == pytest.approx(1 / 5)
        # What the connection says now counts.
        assert poller is RunPoller.shared(client_of(workspace, max_requests_per_second=20, connection="slow"))
        assert poller._gate.seconds_per_request == pytest.approx(1 / 20)

    asyncio.run(scene())


def test_a_reply_that_trickles_is_an_outage_and_holds_nobody_up(workspace: LocalWorkspace) -> None:
    # requests' own timeout is for each read: it would wait for ever.
    gate = Gate(workspace)
    warnings: list[str] = []
    policy = RetryPolicy(connect_timeout=0.01, read_timeout=0.01)

    async def scene() -> Run | None:
        client = client_of(workspace, gate).with_policy(policy)
        watched = Watch(7, 0.01, Patience(), client.clock, warn=warnings.append)
        watching = asyncio.create_task(RunPoller(client).wait(watched))
        await until(lambda: bool(warnings))
        gate.opened.set()
        return await watching

    over(workspace, times=2)
    with mock.patch.object(asking, "_TRICKLE_SECONDS", 0.05):
        run = asyncio.run(scene())
    assert run is not None
    assert run.outcome is Outcome.SUCCESS
    assert "did not answer in full" in warnings[0]


def test_threads_that_cannot_be_started_are_an_outage_that_ends(workspace: LocalWorkspace) -> None:
    warnings: list[str] = []

    def none_left(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def scene() -> Run | None:
        watched = Watch(7, 0.01, Patience(), time.monotonic, warn=warnings.append)
        with mock.patch.object(threading.Thread, "start", none_left):
            watching = asyncio.create_task(RunPoller(client_of(workspace)).wait(watched))
            await until(lambda: bool(warnings))
        return await watching

    over(workspace)
    quick = {"return_value": 0.01}
    with mock.patch.object(rate_limit, "backoff", **quick), mock.patch.object(wait, "backoff", **quick):
        assert asyncio.run(scene())
    assert "no thread left" in warnings[0]


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
        print("told to stop", flush=True)


asyncio.run(main())
"""


def test_a_process_ends_at_once_while_requests_hang() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        command = [sys.executable, "-c", HANGING, url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                asked, _ = silent.accept()
                with asked:
                    assert asked.recv(4), "the request is sent, and nobody answers"
                    process.terminate()
                    # Airflow gives its triggerer no longer.
                    assert process.communicate(timeout=5) == ("told to stop\n", None)
                assert process.returncode == 0
            finally:
                process.kill()
