"""The shared poller: one per workspace, credentials and event loop, for all triggers of a triggerer.

A list of the active runs answers for many runs at once, where that is the cheaper way; the others are asked for one by
one. Only ``runs/get`` decides that a run is over: a list that is stale, shifting, forbidden or blind costs requests,
never a wrong answer.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import logging
import math
import time
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from airflow_dbjobs.client.wait import jittered
from airflow_dbjobs.errors import NotFound
from airflow_dbjobs.runs.polling.active_runs import Listing
from airflow_dbjobs.runs.polling.polled_run import Round, Watched, Watcher
from airflow_dbjobs.runs.polling.requests import Asker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
    from typing import Literal

    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.client.models import Run
    from airflow_dbjobs.client.wait import Watch
    from airflow_dbjobs.errors import CallError

log = logging.getLogger(__name__)

T = TypeVar("T")

# Runs that become due within this part of the shortest period are asked for together; with many runs, within longer:
# to look at each of them takes time.
_GATHERING = 1 / 50
_GATHERING_SECONDS_PER_RUN = 20e-6
# Sooner than so much of a period after the last list began (jitter takes a tenth), it is too soon for the next.
_LIST_EVERY = 0.85
# For how long, at most, a run that goes on without being in the list is not looked for in it.
_BLIND_SECONDS = 300.0
# A list that shows a run as active which had been over for so long lags too far behind.
_TOLERATED_LAG_SECONDS = 60.0
# A list may take twice as long as asking singly would, but at least this long.
_LEAST_PATIENCE = 10.0

# For how long the event loop is held by what is done for many runs.
_SLICE_SECONDS = 0.005


class Metrics(Protocol):
    """Takes measurements; README, "Metrics", has their names and units."""

    def __call__(self, kind: Literal["count", "gauge", "timing"], name: str, value: float, workspace: str) -> object:
        """Take a value; a timing is in seconds, `workspace` the URL of who is asked."""


class RunPoller:
    """Watches the runs of one workspace, with one set of credentials, for all triggers of one event loop.

    Get the shared one with `RunPoller.shared`. `metrics` is called in the event loop and must not block.
    """

    _shared: ClassVar[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[object, RunPoller]]] = (
        weakref.WeakKeyDictionary()
    )

    def __init__(
        self,
        client: JobsClient,
        *,
        metrics: Metrics = lambda *_: None,
        sleep: Callable[[float], Coroutine[Any, Any, object]] = asyncio.sleep,
        on_idle: Callable[[], object] = lambda: None,
    ) -> None:
        self.client = client
        self._clock = client.clock
        self._metrics = metrics
        self._sleep = sleep
        self._on_idle = on_idle
        self._asker = Asker(client, self, start=self._start, sleep=sleep)
        self._gate = self._asker.gate
        self._listing = Listing(self._asker.ask_for_page, clock=client.clock, sleep=sleep)
        self._users = 0
        self._watched: dict[int, Watched] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._scheduler: asyncio.Task[None] | None = None
        self._lister: asyncio.Task[None] | None = None
        # When a list was last begun; until when runs are gathered; when they are taken up; what wakes who waits for it.
        self._listed_at = -math.inf
        self._gathering_until = -math.inf
        self._next_at = math.inf
        self._woken = asyncio.Event()

    @classmethod
    def shared(cls, client: JobsClient, metrics: Metrics = lambda *_: None) -> RunPoller:
        """Return this event loop's poller for the workspace and credentials of `client`, made at the first call."""
        pollers = cls._shared.setdefault(asyncio.get_running_loop(), {})
        key = (client.transport.identity, client.api_version)
        if key not in pollers:
            poller = cls(client, metrics=metrics, on_idle=lambda: pollers.get(key) is poller and pollers.pop(key))
            pollers[key] = poller
        # The connection may say another rate by now.
        pollers[key].asks_as_often_as(client)
        return pollers[key]

    def asks_as_often_as(self, client: JobsClient) -> None:
        """Take note of what a client of the same workspace and credentials wants."""
        self._asker.bucket_for(client)

    async def wait(self, watch: Watch) -> Run | None:
        """Return the run of `watch` when it is over. Raises RunLost.

        Returns None, after the wait that is due, where the credentials were refused: ask again with a poller of
        credentials that were read anew, or with this one.
        """
        with self._in_use():
            watcher = Watcher(watch, asyncio.get_running_loop().create_future(), contextvars.copy_context())
            watched = self._join(watcher)
            try:
                run, wait = await watcher.future
            finally:
                self._leave(watched, watcher)
            if run is None:
                await self._sleep(wait)
            return run

    async def cancel(self, run_id: int) -> None:
        """Ask the API to cancel a run, for some 30 s at most once it is its turn. Raises CallError."""
        with self._in_use():
            await self._asker.cancel(run_id)

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                # Idle: threads, connections and credentials go; who comes later makes new ones.
                self._on_idle()
                for task in self._tasks:
                    task.cancel()
                self._tasks, self._scheduler, self._lister = set(), None, None
                self._asker.close()

    def _join(self, watcher: Watcher) -> Watched:
        run_id = watcher.watch.run_id
        if run_id not in self._watched:
            self._watched[run_id] = Watched(run_id, self._clock())
        watched = self._watched[run_id]
        watched.add(watcher)
        watched.due = self._clock()
        self._wake_for(watched.due)
        if not _goes_on(self._scheduler):
            self._scheduler = self._start(self._keep_asking())
        return watched

    def _leave(self, watched: Watched, watcher: Watcher) -> None:
        watched.remove(watcher)
        if not watched.watchers:
            del self._watched[watched.run_id]

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Let `work` go on in a task with no context: it belongs to none of the watchers."""
        task = asyncio.get_running_loop().create_task(work, context=contextvars.Context())
        tasks = self._tasks
        tasks.add(task)

        def ended(_: object) -> None:
            tasks.discard(task)
            if not task.cancelled() and (error := task.exception()):
                # A mistake of ours: who waits shall hear of it rather than wait for ever.
                for watched in self._watched.values():
                    watched.fail(error)
                self._woken.set()

        task.add_done_callback(ended)
        return task

    # --- when to ask, and in which way ---

    async def _keep_asking(self) -> None:
        while True:
            self._woken.clear()
            now = self._clock()
            due, soonest, shortest = self._look_around(now)
            self._next_at = max(soonest, self._gathering_until, self._gate.closed_until)
            if self._next_at > now:
                await self._sleep_or_wake(self._next_at - now)
            else:
                look = len(self._watched) * _GATHERING_SECONDS_PER_RUN
                self._gathering_until = now + max(shortest * _GATHERING, look)
                self._measure("gauge", "watched_runs", len(self._watched))
                self._ask_for(due, now)

    def _look_around(self, now: float) -> tuple[list[Watched], float, float]:
        """Return the runs that are due, when the next one is, and the shortest period."""
        due, soonest, shortest = [], math.inf, math.inf
        is_listing = _goes_on(self._lister)
        for watched in self._watched.values():
            shortest = min(shortest, watched.period)
            # While a list is read, those that the next one may answer for wait for it.
            if watched.asking is None and not (is_listing and watched.is_listable(now)):
                soonest = min(soonest, watched.due)
                if watched.due <= now:
                    due.append(watched)
        return due, soonest, shortest

    async def _sleep_or_wake(self, seconds: float) -> None:
        """Sleep until something has changed, at most for so many seconds."""
        waits: list[asyncio.Task[Any]] = [asyncio.create_task(self._woken.wait())]
        if seconds < math.inf:
            waits.append(asyncio.create_task(self._sleep(seconds)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _wake_for(self, due: float) -> None:
        """Wake who waits for the next run to be due, if this is sooner."""
        if max(due, self._gathering_until, self._gate.closed_until) < self._next_at:
            self._woken.set()

    def _ask_for(self, due: list[Watched], now: float) -> None:
        """Begin to ask for the runs that are due, in the cheaper way."""
        together = Round(now)
        # While the API is down, one request tells whether it still is.
        if not (_goes_on(self._lister) or self._gate.is_down):
            self._list_if_worth(due, together)
        if self._gate.is_down:
            # In turn: what is wrong may be wrong with some runs only.
            due.sort(key=lambda watched: watched.asked_at)
        for watched in due:
            if watched.asking is None:
                watched.take_up(together)
                self._asker.ask_for(watched)

    def _list_if_worth(self, due: list[Watched], together: Round) -> None:
        """Begin to read the list for all it may answer for, if that is cheaper than to ask for those that are due."""
        now = together.began
        free = [watched for watched in self._watched.values() if watched.asking is None and watched.is_listable(now)]
        queued = [watched for watched in self._asker.queue if watched.is_listable(now) and not watched.is_missed]
        listable = [*free, *queued]
        cost = self._listing.cost(len(listable))
        waiting = len(queued) + sum(watched.is_listable(now) for watched in due)
        # It may be read as often as it answers for more questions than it costs: a few that are asked for more often
        # than the others are asked for singly in between.
        if waiting <= cost and (len(listable) <= cost or now - self._listed_at < _LIST_EVERY * _period(listable, cost)):
            return
        self._asker.take_back(set(queued).__contains__)
        for watched in free:
            watched.take_up(together)
        self._listed_at = now
        self._lister = self._start(self._read_list(listable, now))

    # --- asking for all at once ---

    async def _read_list(self, listable: list[Watched], now: float) -> None:
        wanted = {watched.run_id for watched in listable}
        singly = len(wanted) * self._asker.seconds_per_run
        found = await self._listing.walk(wanted, patience=max(_LEAST_PATIENCE, 2 * singly))
        # All stay together: the next list answers for them again.
        factor = jittered(1.0)
        longest_unasked: Watched | None = None
        async for watched in _in_slices(listable):
            state = found.states.get(watched.run_id)
            if state is not None and not state.is_terminal:
                watched.is_in_list(now)
                watched.saw(state)
                self._settle(watched, self._clock() + watched.period * factor)
                if longest_unasked is None or watched.asked_at < longest_unasked.asked_at:
                    longest_unasked = watched
            elif watched.listed_at is not None or watched.due <= now:
                watched.listed_at, watched.is_missed = None, found.complete
                self._asker.ask_for(watched)
            else:
                # Its own next answer tells whether it goes on.
                watched.is_missed = found.complete
                self._settle(watched, watched.due)
        if longest_unasked and longest_unasked.asking is None:
            # Should the list never forget a run that is over, this finds out.
            longest_unasked.take_up(Round(self._clock(), is_check=True))
            self._asker.ask_for(longest_unasked)
        self._lister = None
        self._woken.set()

    # --- what became of the requests for single runs ---

    def answered(self, watched: Watched, run: Run) -> None:
        """Tell those who wait for a run what the API has answered."""
        self._api_answers()
        now = self._clock()
        if watched.state is not None and run.state != watched.state:
            # As QUEUED it may not have been in the list.
            watched.blind_until = -math.inf
        elif watched.is_missed:
            watched.is_not_in_list(now, _BLIND_SECONDS)
        watched.is_missed = False
        watched.saw(run.state)
        if run.is_terminal:
            if watched.listed_at is not None and run.end_time is not None:
                over_when_listed = self.client.server_time(watched.listed_at) - run.end_time
                if over_when_listed > _TOLERATED_LAG_SECONDS:
                    self._listing.lags_behind()
            watched.ended(run)
            self._settle(watched, math.inf)
        else:
            self._settle(watched, now + jittered(watched.period))

    async def failed(self, watched: Watched, error: CallError, asked_at: float) -> None:
        """Tell those who wait for a run that it could not be asked for; all others too, where that is the API's."""
        self._settle(watched, self._clock() + watched.failed(error, asked_at))
        if isinstance(error, NotFound):
            self._api_answers()
        elif self._gate.failed(watched.run_id, error, asked_at, of=len(self._watched)):
            self._listing.was_not_to_blame()
            async for other in _in_slices(self._asker.take_back()):
                self._settle(other, self._clock() + other.failed(error, asked_at))

    def _api_answers(self) -> None:
        if self._gate.answered():
            # Those that wait are due: perhaps a list answers for all of them.
            for watched in self._asker.take_back():
                self._settle(watched, self._clock())

    def dropped(self, watched: Watched) -> None:
        """Take note that a run is not asked for, as nobody waits for it."""
        self._settle(watched, math.inf)

    def _settle(self, watched: Watched, due: float) -> None:
        """Note when a run that was asked for is to be asked for again."""
        now = self._clock()
        together, watched.asking = watched.asking, None
        if together is not None:
            together.lag = max(together.lag, now - watched.due)
            together.pending -= 1
            if not (together.pending or together.is_check):
                self._measure("timing", "tick_duration", now - together.began)
                self._measure("timing", "lag", together.lag)
                self._measure("gauge", "outage_seconds", self._gate.outage_seconds)
                self._measure("count", "requests", self._asker.requests)
                self._asker.requests = 0
        watched.due = due
        self._wake_for(due)

    def _measure(self, kind: Literal["count", "gauge", "timing"], name: str, value: float) -> None:
        try:
            self._metrics(kind, name, value, self.client.host)
        except Exception as error:  # noqa: BLE001 (whatever it is, no run is to be lost over it)
            log.warning("The poller goes on without metrics: %r", error)
            self._metrics = lambda *_: None


def _period(runs: list[Watched], number: float) -> float:
    """Return the period within which more than so many of these runs, the hastiest, are due."""
    return heapq.nsmallest(math.floor(number) + 1, (watched.period for watched in runs))[-1]


def _goes_on(task: asyncio.Task[None] | None) -> bool:
    return task is not None and not task.done()


async def _in_slices(items: Iterable[T]) -> AsyncIterator[T]:
    """Yield items, and let the event loop go on in between before they have held it for long."""
    began = time.perf_counter()
    for item in items:
        yield item
        if time.perf_counter() - began > _SLICE_SECONDS:
            await asyncio.sleep(0)
            began = time.perf_counter()
