"""poller: waiting for runs, in a worker and in a triggerer, by the same rules and in injected time."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from requests.auth import AuthBase, HTTPBasicAuth

from airflow_dbjobs.auth import BearerAuth
from airflow_dbjobs.client import JobsClient
from airflow_dbjobs.errors import Conflict, NotFound, RunLost, UnreadableReply
from airflow_dbjobs.local_workspace import Fault
from airflow_dbjobs.poller import Patience, RunPoller, StateLog, wait_for_run
from airflow_dbjobs.runs import Outcome, Run
from airflow_dbjobs.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from requests import PreparedRequest

    from airflow_dbjobs.local_workspace import LocalWorkspace

    Wait = Callable[..., Run]
    Log = pytest.LogCaptureFixture

TASK = {"condition_task": {"op": "EQUAL_TO", "left": "1", "right": "1"}}
# A run of such a job is active until somebody cancels it.
STUCK = {"max_concurrent_runs": 0, "queue": {"enabled": True}, **TASK}


class Clock:
    """Time that passes only while somebody sleeps; `at` says what happens when."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []
        self.at: dict[float, Callable[[], object]] = {}

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds
        for due in sorted(moment for moment in self.at if moment <= self.now):
            self.at.pop(due)()

    async def sleep_async(self, seconds: float) -> None:
        self.sleep(seconds)
        await asyncio.sleep(0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["worker", "triggerer"])
def wait(request: pytest.FixtureRequest, client: JobsClient, clock: Clock) -> Wait:
    """Return what waits for a run in injected time, in both places where this is done."""

    def in_worker(run_id: int, *, patience: Patience | None = None, **options: Any) -> Run:
        return wait_for_run(client, run_id, patience=patience, clock=clock, sleep=clock.sleep, **options)

    def in_triggerer(run_id: int, *, patience: Patience | None = None, **options: Any) -> Run:
        poller = RunPoller(client, patience=patience, clock=clock, sleep=clock.sleep_async)
        return asyncio.run(poller.wait(run_id, **options))

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


def test_a_run_is_asked_for_every_period_until_it_is_over(wait: Wait, workspace: LocalWorkspace, clock: Clock) -> None:
    workspace.faults += [reply("PENDING"), reply("RUNNING", times=3), reply("TERMINATED", "FAILED", times=2)]
    assert wait(7, period=100.0).outcome is Outcome.FAILED
    assert len(clock.waits) == 4
    assert all(90 <= seconds <= 110 for seconds in clock.waits)
    assert len(set(clock.waits)) > 1, "tasks that start together do not stay together"


OUTAGE, REFUSAL = 3000, 500


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
def test_outages_and_refusals_are_waited_out(
    wait: Wait, workspace: LocalWorkspace, clock: Clock, failure: dict[str, Any], seconds: float
) -> None:
    workspace.faults += [reply("RUNNING"), Fault("runs/get", times=None, **failure)]
    clock.at[seconds] = lambda: end(workspace)
    assert wait(7).outcome is Outcome.SUCCESS
    assert seconds <= clock.now <= seconds + 100
    assert workspace.requests["runs/get"] < 70, "an API that is down is not hammered"


def test_polls_that_fail_are_repeated_with_backoff(wait: Wait, workspace: LocalWorkspace, clock: Clock) -> None:
    workspace.faults += [Fault("runs/get", status=503, times=8), reply("TERMINATED", "SUCCESS", times=2)]
    wait(7)
    for slept, least in zip(clock.waits, [1, 2, 4, 8, 16, 32, 60, 60], strict=True):
        assert 0.9 * least <= slept <= 1.1 * least
    assert clock.waits[-1] != clock.waits[-2], "tasks that fail together do not come back together"


@pytest.mark.parametrize("status", [503, 403])
def test_each_outage_is_measured_by_itself(wait: Wait, workspace: LocalWorkspace, status: int) -> None:
    for _ in range(3):
        workspace.faults += [Fault("runs/get", status=status, times=7), reply("RUNNING")]
    workspace.faults.append(reply("TERMINATED", "SUCCESS", times=2))
    assert wait(7, patience=Patience(outage_tolerance=150, denied_tolerance=150)).outcome is Outcome.SUCCESS


def test_a_refusal_after_an_outage_has_its_own_patience(wait: Wait, workspace: LocalWorkspace, clock: Clock) -> None:
    down, refused = Fault("runs/get", status=503, times=None), Fault("runs/get", status=403, times=None)
    workspace.faults.append(down)
    for moment, fault in ((1000, refused), (1500, down), (2000, refused)):
        clock.at[moment] = partial(workspace.faults.__setitem__, 0, fault)
    with pytest.raises(RunLost, match=r"during 1[01] min.* 403"):
        wait(7)
    assert 2600 <= clock.now <= 2750


@pytest.mark.parametrize(
    ("failure", "patience", "minutes"),
    [
        ({"status": 503}, Patience(), 60),
        ({"status": 403}, Patience(), 10),
        ({"status": 401}, Patience(denied_tolerance=300), 5),
        # Longer than any float could double its waits.
        ({"status": 503}, Patience(outage_tolerance=86400), 1440),
    ],
    ids=str,
)
def test_past_the_tolerance_the_run_is_lost_and_left_alone(
    wait: Wait, workspace: LocalWorkspace, clock: Clock, stuck: int, *, failure: Any, patience: Patience, minutes: int
) -> None:
    workspace.faults.append(Fault("runs/get", times=None, **failure))
    with pytest.raises(RunLost) as caught:
        wait(stuck, patience=patience)
    lasted = round(clock.now / 60)
    assert f"asked for during {lasted} min; it is left alone and may still be running" in str(caught.value)
    assert caught.value.run_id == stuck
    assert minutes * 60 <= clock.now <= minutes * 60 + 66
    assert not [operation for operation in workspace.requests if "cancel" in operation]


def test_a_run_that_was_deleted_is_lost_at_once(wait: Wait, workspace: LocalWorkspace) -> None:
    with pytest.raises(RunLost, match="Run 7 does not exist any more") as caught:
        wait(7)
    assert isinstance(caught.value.__cause__, NotFound)
    assert workspace.requests["runs/get"] == 1


def test_a_refusal_that_no_time_can_heal_is_not_waited_out(wait: Wait, workspace: LocalWorkspace) -> None:
    workspace.faults.append(Fault("runs/get", status=409, body={"error_code": "A_CODE_OF_2031"}, times=None))
    with pytest.raises(RunLost) as caught:
        wait(7)
    assert isinstance(caught.value.__cause__, Conflict)
    assert workspace.requests["runs/get"] == 1


def test_a_state_is_logged_once(wait: Wait, workspace: LocalWorkspace, caplog: Log) -> None:
    caplog.set_level(logging.INFO)
    workspace.faults += [
        reply("PENDING", message="Waiting for a cluster", times=3),
        Fault("runs/get", status=503, times=2),
        reply("PENDING", message="Waiting for a cluster"),
        reply("RUNNING", times=3),
        reply("TERMINATED", "FAILED", "boom", times=2),
    ]
    wait(7, on_change=StateLog(logging.getLogger("task")))
    lines = [record.getMessage() for record in caplog.records if record.name == "task"]
    assert lines == ["Run 7 is PENDING: Waiting for a cluster", "Run 7 is RUNNING", "Run 7 is TERMINATED/FAILED: boom"]


def test_an_unknown_state_is_waited_out_and_named_once(wait: Wait, workspace: LocalWorkspace, caplog: Log) -> None:
    workspace.faults += [reply("HIBERNATING", message=text, times=2) for text in ("", "falling asleep", "asleep")]
    workspace.faults.append(reply("TERMINATED", "SUCCESS", times=2))
    assert wait(7, on_change=StateLog(logging.getLogger("task"))).outcome is Outcome.SUCCESS
    (warning,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "'HIBERNATING' is not a state this release knows; it counts as running" in warning.getMessage()


def test_a_worker_gets_all_tasks_of_a_large_run(client: JobsClient) -> None:
    tasks = [{"task_key": f"t{number}", **TASK} for number in range(120)]
    run = wait_for_run(client, client.submit_run({"tasks": tasks}), period=0.05)
    assert len(run.tasks) == 120


def test_a_worker_asks_again_where_the_end_cannot_be_read_whole(
    client: JobsClient, workspace: LocalWorkspace, clock: Clock
) -> None:
    end, end_once_more = reply("TERMINATED", "FAILED"), reply("TERMINATED", "FAILED", times=2)
    workspace.faults += [end, Fault("runs/get", status=403), end_once_more]
    assert wait_for_run(client, 7, clock=clock, sleep=clock.sleep).outcome is Outcome.FAILED
    assert len(clock.waits) == 1


# --- the triggerer's poller ---


def client_of(
    workspace: LocalWorkspace, auth: AuthBase | None = None, *, verify: bool = True, **options: Any
) -> JobsClient:
    auth = auth or BearerAuth(workspace.token)
    return JobsClient(transport=Transport(workspace.base_url, auth, verify=verify), **options)


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
    """Signs requests, and holds each that reads up until it is opened: an API that takes its time."""

    def __init__(self, workspace: LocalWorkspace) -> None:
        self.sign = BearerAuth(workspace.token)
        self.opened = threading.Event()
        self.waiting = threading.Semaphore(0)

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        if request.method == "GET":
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
        workspace.faults.append(reply("TERMINATED", "SUCCESS"))
        poller = RunPoller(client_of(workspace, gate))
        watching = asyncio.create_task(poller.wait(7, on_change=lambda _: told.append(threading.current_thread())))
        await until(lambda: gate.waiting.acquire(blocking=False))
        assert not watching.done()
        gate.opened.set()
        return await watching

    assert asyncio.run(scene()).outcome is Outcome.SUCCESS
    assert told == [threading.current_thread()]


def test_many_watchers_need_few_threads_and_these_end_with_them(workspace: LocalWorkspace) -> None:
    gate = Gate(workspace)
    seen: list[threading.Thread] = []
    workspace.faults.append(reply("TERMINATED", "SUCCESS", times=40))

    async def scene() -> None:
        poller = RunPoller(client_of(workspace, gate))
        for _ in range(2):  # once more after it was idle
            watching = [asyncio.create_task(poller.wait(7)) for _ in range(20)]
            for _ in range(4):
                await until(lambda: gate.waiting.acquire(blocking=False))
            seen[:] = poller_threads()
            assert len(seen) == 4
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
        leaving, staying = (asyncio.create_task(poller.wait(stuck, period=0.01)) for _ in range(2))
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
        watching = asyncio.create_task(RunPoller(client_of(workspace, gate)).wait(7))
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

    async def scene() -> list[Run]:
        poller = RunPoller(client_of(workspace, gate))
        watching = [asyncio.create_task(poller.wait(stuck, period=0.01)) for _ in range(8)]
        for _ in range(4):
            await until(lambda: gate.waiting.acquire(blocking=False))
        async with asyncio.timeout(5):
            await poller.cancel(stuck)
        gate.opened.set()
        return await asyncio.gather(*watching)

    assert {run.outcome for run in asyncio.run(scene())} == {Outcome.CANCELED}


def test_a_cancellation_gets_through_a_lost_request(
    client: JobsClient, workspace: LocalWorkspace, stuck: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client.transport, "sleep", lambda _: None)
    workspace.faults.append(Fault("runs/cancel", cut="before", times=2))
    asyncio.run(RunPoller(client).cancel(stuck))
    assert workspace.requests["runs/cancel"] == 3
    assert wait_for_run(client, stuck, period=0.01).outcome is Outcome.CANCELED


def test_a_finished_run_whose_later_pages_cannot_be_read_is_lost_in_the_end(
    client: JobsClient, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def later_page(_: int) -> Run:
        raise UnreadableReply("page 2 is a proxy's")

    over = {"run_id": 7, "state": {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"}}
    monkeypatch.setattr(client, "poll_run", lambda _: Run.from_json(over))
    monkeypatch.setattr(client, "get_run", later_page)
    with pytest.raises(RunLost, match="page 2 is a proxy's"):
        wait_for_run(client, 7, clock=clock, sleep=clock.sleep)
    assert clock.now >= Patience().outage_tolerance


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
        await poller.wait(run_id, period=0.01)
        assert RunPoller.shared(client) is not poller

    asyncio.run(scene())


def test_a_run_that_was_repaired_meanwhile_is_waited_for_again(
    client: JobsClient, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(life_cycle_state: str) -> Run:
        return Run.from_json({"run_id": 7, "state": {"life_cycle_state": life_cycle_state, "result_state": "FAILED"}})

    polled, read = iter([run("TERMINATED")] * 2), iter([run("RUNNING"), run("TERMINATED")])
    monkeypatch.setattr(client, "poll_run", lambda _: next(polled))
    monkeypatch.setattr(client, "get_run", lambda _: next(read))
    assert wait_for_run(client, 7, clock=clock, sleep=clock.sleep).is_terminal
    assert len(clock.waits) == 1
