"""A poller at work on a model of the API, in virtual time, and those who wait for runs."""

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

    from airflow_dbjobs.client.models import Run, RunState

THREADS = "airflow_dbjobs-"


class Measured(NamedTuple):
    """What a poller has measured."""

    kind: str
    name: str
    value: float
    workspace: str
    at: float


@dataclass(eq=False)
class Watching:
    """Somebody who waits for a run until it is over, as a trigger does, and all that happened to them."""

    run_id: int
    joined: float
    #: When they were told, or left.
    ended: float = math.inf
    run: Run | None = None
    error: BaseException | None = None
    #: The states they were told, and when; what they were warned of; when their credentials were refused.
    states: list[tuple[float, RunState]] = field(default_factory=list)
    warnings: list[tuple[float, str]] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)
    task: asyncio.Task[None] | None = None

    @property
    def lives(self) -> list[str]:
        """The life cycle states they were told."""
        return [state.life_cycle_state for _, state in self.states]

    def leave(self) -> None:
        """Wait no longer."""
        assert self.task is not None
        self.task.cancel()


class Scene:
    """A poller of a world, and those who wait for runs of it. Times are seconds since the story began."""

    def __init__(self, world: World, loop: virtual_time.VirtualLoop, options: dict[str, Any]) -> None:
        self.world = world
        self.loop = loop
        self._options = options
        self.watchings: list[Watching] = []
        self.metrics: list[Measured] = []
        world.serve(loop)
        self.poller = self.new_poller()

    @property
    def now(self) -> float:
        """The time."""
        return self.loop.time()

    def new_poller(
        self,
        *,
        token: str = "a-token",
        rate: float | None = None,
        patience: Patience | None = None,
        api_version: str | None = None,
    ) -> RunPoller:
        """Return a poller of the world with credentials, and whatever else, of its own."""

        def sleep(seconds: float) -> None:
            self.loop.hold("sleep", lambda: (seconds, None))

        client = JobsClient(
            transport=Transport(self.world.base_url, BearerAuth(token), clock=CallingClock(self.loop.time, sleep)),
            api_version=api_version or self._options.get("api_version", "2.2"),
            patience=patience or self._options.get("patience"),
            max_requests_per_second=rate or self._options.get("rate", MAX_REQUESTS_PER_SECOND),
        )
        poller = RunPoller(client, metrics=lambda *values: self.metrics.append(Measured(*values, self.now)))
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
    ) -> Watching:
        """Let somebody begin to wait for a run."""
        watching = Watching(run_id, self.now)
        self.watchings.append(watching)

        def changed(state: RunState) -> None:
            watching.states.append((self.now, state))
            on_change(state)

        def warned(text: str) -> None:
            watching.warnings.append((self.now, text))
            on_warning(text)

        poller = poller or self.poller
        patience = patience or poller.client.patience
        watch = Watch(run_id, period, patience, self.loop.time, on_change=changed, warn=warned)
        watching.task = self.loop.create_task(self._wait(watching, watch, poller))
        return watching

    def watch_all(self, run_ids: Iterable[int] | None = None, period: float = 10.0, **options: Any) -> list[Watching]:
        """Let somebody begin to wait for each run of the world, or for some."""
        return [self.watch(run_id, period, **options) for run_id in run_ids or self.world.runs]

    async def _wait(self, watching: Watching, watch: Watch, poller: RunPoller) -> None:
        try:
            while (run := await poller.wait(watch)) is None:
                watching.refusals.append(self.now)
        except Exception as error:  # noqa: BLE001 (it is looked at by the test)
            watching.error = error
        else:
            watching.run = run
        finally:
            watching.ended = self.now

    async def until(self, at: float) -> None:
        """Let the time pass up to a moment."""
        await asyncio.sleep(at - self.now)

    async def over(self, watchings: Iterable[Watching] | None = None, *, within: float) -> None:
        """Wait until all, or some, who wait have been told something, at most for so many seconds."""
        tasks = [watching.task for watching in watchings or self.watchings if watching.task]
        _, pending = await asyncio.wait(tasks, timeout=within)
        assert not pending, f"{len(pending)} of {len(tasks)} still wait"

    def delay(self, watching: Watching) -> float:
        """Return how late somebody was told of an end: after it, or after they joined."""
        return watching.ended - max(watching.joined, self.world.runs[watching.run_id].ends)

    def delays(self, watchings: Iterable[Watching] | None = None) -> list[float]:
        """Return how late those were told who were told of an end."""
        return [self.delay(watching) for watching in watchings or self.watchings if watching.run]

    def check_outcomes(self) -> None:
        """No end was told before ``runs/get`` said so, and none that is not the run's."""
        for watching in self.watchings:
            if watching.run is not None:
                model = self.world.runs[watching.run_id]
                assert watching.run.run_id == watching.run_id
                assert watching.run.is_terminal
                assert watching.run.state.result_state == model.result
                assert self.world.shown_over[watching.run_id] >= model.ends
                assert watching.ended >= self.world.shown_over[watching.run_id]

    async def leave_all(self) -> None:
        """Let nobody wait any more, and see that nothing is left behind."""
        tasks = [watching.task for watching in self.watchings if watching.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # What is under way takes no longer than the longest timeout.
        await asyncio.sleep(100)
        assert asyncio.all_tasks() == {asyncio.current_task()}, "a task is left behind"


def play(world: World, story: Callable[[Scene], Coroutine[Any, Any, Any]], *, seed: int = 0, **options: Any) -> Scene:
    """Tell a story in virtual time; `options` are those of `Scene.new_poller`. Return the scene as it then is."""

    async def told(loop: virtual_time.VirtualLoop) -> Scene:
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
        scene = virtual_time.run(told, seed=seed)
        for thread in set(threading.enumerate()) - threads:
            if thread.name.startswith(THREADS):
                thread.join(10)
                assert not thread.is_alive(), "a thread is left behind"
    return scene
