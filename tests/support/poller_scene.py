"""A poller that polls a model of the API in virtual time, and callers that wait for runs."""

from __future__ import annotations

import asyncio
import math
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import virtual_time
from in_process import connect_clients
from injected_clock import CallingClock
from listing_model import ModelAdapter, World

from airflow_dbjobs.client import JobsClient
from airflow_dbjobs.client.auth import BearerAuth
from airflow_dbjobs.client.retry import MAX_REQUESTS_PER_SECOND, Patience
from airflow_dbjobs.client.transport import Transport
from airflow_dbjobs.client.wait import Watch
from airflow_dbjobs.runs.polling.poller import RunPoller

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from airflow_dbjobs.client.models import RunState
    from airflow_dbjobs.runs.polling.polled import RunEnd

THREADS = "airflow_dbjobs-"


class Measured(NamedTuple):
    """A measurement that a poller reported, and when."""

    kind: str
    name: str
    value: float
    workspace: str
    at: float


@dataclass(eq=False)
class Caller:
    """A caller that waits until a run is over, as a trigger does, and everything that was reported to it."""

    run_id: int
    joined: float
    #: When it received the run or an error, or left.
    ended: float = math.inf
    run: RunEnd | None = None
    error: BaseException | None = None
    #: The reported states and warnings, and when; when its credentials were rejected.
    states: list[tuple[float, RunState]] = field(default_factory=list)
    warnings: list[tuple[float, str]] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)
    task: asyncio.Task[None] | None = None

    @property
    def life_cycle_states(self) -> list[str]:
        """The life cycle states that were reported."""
        return [state.life_cycle_state for _, state in self.states]

    def leave(self) -> None:
        """Stop waiting."""
        assert self.task is not None
        self.task.cancel()


class Scene:
    """A poller of a world, and callers that wait for its runs. Times are seconds since the story began."""

    def __init__(self, world: World, loop: virtual_time.VirtualLoop, options: dict[str, Any]) -> None:
        self.world = world
        self.loop = loop
        self._options = options
        self.callers: list[Caller] = []
        self.metrics: list[Measured] = []
        world.serve(loop)
        self.poller = self.new_poller()

    @property
    def now(self) -> float:
        """The virtual time."""
        return self.loop.time()

    def new_poller(
        self,
        *,
        token: str = "a-token",
        rate: float | None = None,
        patience: Patience | None = None,
        api_version: str | None = None,
    ) -> RunPoller:
        """Return another poller of the world, with its own credentials and settings."""

        def sleep(seconds: float) -> None:
            self.loop.hold("sleep", lambda: (seconds, None))

        client = JobsClient(
            transport=Transport(self.world.base_url, BearerAuth(token), clock=CallingClock(self.loop.time, sleep)),
            api_version=api_version or self._options.get("api_version", "2.2"),
            patience=patience or self._options.get("patience"),
            max_requests_per_second=rate or self._options.get("rate", MAX_REQUESTS_PER_SECOND),
        )

        def report(kind: str, name: str, value: float, workspace: str) -> None:
            self.metrics.append(Measured(kind, name, value, workspace, self.now))

        poller = RunPoller(client, metrics=report)
        self.loop.attend(poller)
        return poller

    def watch(
        self,
        run_id: int,
        period: float = 10.0,
        *,
        poller: RunPoller | None = None,
        patience: Patience | None = None,
        on_change: Callable[[RunState], object] = lambda _: None,
        on_warning: Callable[[str], object] = lambda _: None,
    ) -> Caller:
        """Add a caller that waits for a run."""
        caller = Caller(run_id, self.now)
        self.callers.append(caller)

        def changed(state: RunState) -> None:
            caller.states.append((self.now, state))
            on_change(state)

        def warned(text: str) -> None:
            caller.warnings.append((self.now, text))
            on_warning(text)

        poller = poller or self.poller
        patience = patience or poller.client.patience
        watch = Watch(run_id, period, patience, self.loop.time, on_change=changed, warn=warned)
        caller.task = self.loop.create_task(self._wait(caller, watch, poller))
        return caller

    def watch_all(self, run_ids: Iterable[int] | None = None, period: float = 10.0, **options: Any) -> list[Caller]:
        """Add a caller for each run of the world, or for some."""
        return [self.watch(run_id, period, **options) for run_id in run_ids or self.world.runs]

    async def _wait(self, caller: Caller, watch: Watch, poller: RunPoller) -> None:
        try:
            while (run := await poller.wait(watch)) is None:
                caller.refusals.append(self.now)
        except Exception as error:  # noqa: BLE001 (it is looked at by the test)
            caller.error = error
        else:
            caller.run = run
        finally:
            caller.ended = self.now

    async def until(self, at: float) -> None:
        """Let the time pass until `at`."""
        await asyncio.sleep(at - self.now)

    async def over(self, callers: Iterable[Caller] | None = None, *, within: float) -> None:
        """Wait until all callers, or some, have a result, for at most `within` seconds."""
        tasks = [caller.task for caller in callers or self.callers if caller.task]
        _, pending = await asyncio.wait(tasks, timeout=within)
        assert not pending, f"{len(pending)} of {len(tasks)} still wait"

    def delay(self, caller: Caller) -> float:
        """Return how late a caller learned of an end: the time since the end, or since it joined."""
        return caller.ended - max(caller.joined, self.world.runs[caller.run_id].ends)

    def delays(self, callers: Iterable[Caller] | None = None) -> list[float]:
        """Return how late each caller that learned of an end did."""
        return [self.delay(caller) for caller in callers or self.callers if caller.run]

    def check_outcomes(self) -> None:
        """Assert that no end was reported before the API returned it, and none that is not the run's."""
        for caller in self.callers:
            if caller.run is not None:
                model = self.world.runs[caller.run_id]
                assert caller.run.run_id == caller.run_id
                assert caller.run.state.is_terminal
                assert caller.run.state.result_state == model.result
                assert self.world.shown_over[caller.run_id] >= model.ends
                assert caller.ended >= self.world.shown_over[caller.run_id]

    async def leave_all(self) -> None:
        """Remove all callers, and assert that no task is left behind."""
        tasks = [caller.task for caller in self.callers if caller.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # No request in flight takes longer than the longest timeout.
        await asyncio.sleep(100)
        assert asyncio.all_tasks() == {asyncio.current_task()}, "a task is left behind"


def play(world: World, story: Callable[[Scene], Coroutine[Any, Any, Any]], *, seed: int = 0, **options: Any) -> Scene:
    """Run a story in virtual time, with options of `Scene.new_poller`; return the scene at its end."""

    async def run(loop: virtual_time.VirtualLoop) -> Scene:
        wrong: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: wrong.append(context))
        scene = Scene(world, loop, options)
        try:
            await story(scene)
        finally:
            await scene.leave_all()
        scene.check_outcomes()
        assert wrong == []
        return scene

    threads = set(threading.enumerate())
    with pytest.MonkeyPatch.context() as monkeypatch:
        connect_clients(monkeypatch, ModelAdapter)
        scene = virtual_time.run(run, seed=seed)
        for thread in set(threading.enumerate()) - threads:
            if thread.name.startswith(THREADS):
                thread.join(10)
                assert not thread.is_alive(), "a thread is left behind"
    return scene
