"""The shared poller: one per workspace, credentials and event loop, for all triggers of a triggerer.

One request for the list of active runs can replace the polls of many runs, and is used where that costs less; all else
is polled one by one. A run is over when ``runs/get`` says so, or a list of ended runs does of a run that was active
before: that a list does not contain a run decides nothing. So a list which is stale, shifting, forbidden or incomplete
costs extra requests but never gives a wrong result.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, cast

from airflow_dbjobs.client.models import Run
from airflow_dbjobs.client.wait import jittered
from airflow_dbjobs.errors import NotFound
from airflow_dbjobs.runs.polling.lists import RunLists
from airflow_dbjobs.runs.polling.metrics import Meter
from airflow_dbjobs.runs.polling.polled import PolledCondition, PolledRun, PollRound, RunEnd, Waiter, shortest_period
from airflow_dbjobs.runs.polling.rate_limit import RequestGate, TokenBucket
from airflow_dbjobs.runs.polling.requests import RequestQueue
from airflow_dbjobs.runs.polling.threads import T, in_slices

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable, Iterator

    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.client.wait import Watch
    from airflow_dbjobs.errors import CallError
    from airflow_dbjobs.runs.conditions import CheckResult, Condition
    from airflow_dbjobs.runs.polling.metrics import Metrics

# Runs that become due within this fraction of the shortest period are polled in one round. With many runs the interval
# is longer, because examining each of them takes time.
_ROUND_FRACTION = 1 / 50
_ROUND_SECONDS_PER_RUN = 20e-6
# The least time between two lists, as a fraction of the period (jitter shortens a period by a tenth).
_LIST_INTERVAL_FRACTION = 0.85
# How long, at most, an active run that is missing from lists is not expected in them.
_LONGEST_UNLISTED_SECONDS = 300.0
# A list that shows a run as active this long after its end is too stale to be used.
_TOLERATED_LAG_SECONDS = 60.0
# Each end lets a trigger do its work, and all of them that are reported at once do it before anything else.
_ENDS_PER_SLICE = 20
# Reading a list may take twice as long as polling its runs one by one, and always this long.
_LEAST_LIST_TIMEOUT = 10.0


class RunPoller:
    """Polls runs and conditions in one workspace, with one set of credentials, for all triggers of one event loop.

    Get the shared instance with `RunPoller.shared`. `metrics` is called in the event loop and must not block.
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
        self._measure = Meter(metrics, client.host)
        self._sleep = sleep
        self._on_idle = on_idle
        self._gate = RequestGate(TokenBucket.for_client(client, self), clock=client.clock, sleep=sleep)
        self._requests = RequestQueue(client, self._gate, self, start=self._start)
        self._lists = RunLists(self._requests.fetch_page, clock=client.clock, sleep=sleep)
        self._users = 0
        self._polled: dict[Hashable, PolledRun] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._scheduler: asyncio.Task[None] | None = None
        self._list_reader: asyncio.Task[None] | None = None
        # How often the list was read, and when it was last requested; when the next round may begin, and when it will;
        # what ends that wait.
        self._readings = 0
        self._listed_at = -math.inf
        self._earliest_round = -math.inf
        self._next_round = math.inf
        self._woken = asyncio.Event()

    @classmethod
    def shared(cls, client: JobsClient, metrics: Metrics = lambda *_: None) -> RunPoller:
        """Return this event loop's poller for the workspace and credentials of `client`, creating it if necessary."""
        pollers = cls._shared.setdefault(asyncio.get_running_loop(), {})
        key = (client.transport.identity, client.api_version)
        if key not in pollers:
            poller = cls(client, metrics=metrics, on_idle=lambda: pollers.get(key) is poller and pollers.pop(key))
            pollers[key] = poller
        # The connection may have set another rate since.
        TokenBucket.for_client(client, pollers[key])
        return pollers[key]

    async def wait(self, watch: Watch) -> RunEnd | None:
        """Return how the run of `watch` ended when it is over. Raises RunLost.

        A run that is repaired at that time may be active again. Returns None, after the required wait, if the
        credentials were rejected: call again, on a poller with credentials that were read again or on this one.
        """
        return cast("RunEnd | None", await self._wait(watch.run_id, watch))

    async def check(
        self, condition: Condition, watch: Watch, judge: Callable[[CheckResult], CheckResult | None]
    ) -> CheckResult | None:
        """Check a condition until `judge`, which receives each result, returns one. Raises JobsError.

        All callers that wait for tasks of a run share one request for it, as do those with equal conditions. Returns
        None as `wait` does.
        """
        if condition.run_id is None:
            result = await self._wait(condition, watch, judge)
        else:
            result = await self._wait(condition.run_id, watch, lambda run: judge(condition.check_run(run)))
        return cast("CheckResult | None", result)

    async def _wait(self, key: int | Condition, watch: Watch, judge: Callable[[Any], Any] | None = None) -> Any:
        with self._in_use():
            waiter = Waiter(watch, asyncio.get_running_loop().create_future(), contextvars.copy_context(), judge)
            polled = self._join(key, waiter)
            try:
                result, wait = await waiter.future
            finally:
                self._leave(polled, waiter)
            if result is None:
                await self._sleep(wait)
            return result

    async def cancel(self, run_id: int) -> None:
        """Cancel a run, in at most about 30 s once a thread is free. Raises CallError."""
        with self._in_use():
            await self._requests.cancel(run_id)

    async def call(self, call: Callable[[JobsClient], T]) -> T:
        """Return what `call` returns of a client that does not retry, in a thread; it counts as one request."""
        with self._in_use():
            return await self._requests.call(call)

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                # Idle: release threads, connections and credentials. The next user creates new ones.
                self._on_idle()
                for task in self._tasks:
                    task.cancel()
                self._tasks, self._scheduler, self._list_reader = set(), None, None
                self._requests.close()

    def _join(self, key: int | Condition, waiter: Waiter) -> PolledRun:
        if key not in self._polled:
            now = self._clock()
            self._polled[key] = PolledRun(key, now) if isinstance(key, int) else PolledCondition(key, now)
        polled = self._polled[key]
        polled.add(waiter)
        polled.due = self._clock()
        self._wake_for(polled.due)
        if not _is_active(self._scheduler):
            self._scheduler = self._start(self._run_rounds())
        return polled

    def _leave(self, polled: PolledRun, waiter: Waiter) -> None:
        polled.remove(waiter)
        if not polled.waiters:
            del self._polled[polled.key]

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine as a task in an empty context, since it belongs to none of the callers."""
        task = asyncio.get_running_loop().create_task(work, context=contextvars.Context())
        (tasks := self._tasks).add(task)

        def on_done(_: object) -> None:
            tasks.discard(task)
            if not task.cancelled() and (error := task.exception()):
                # A bug in this package: raise it in all callers, which would otherwise wait forever.
                for polled in self._polled.values():
                    polled.fail(error)
                self._woken.set()

        task.add_done_callback(on_done)
        return task

    # --- when to poll, and whether by the list ---

    async def _run_rounds(self) -> None:
        while True:
            self._woken.clear()
            now = self._clock()
            due, soonest, shortest = self._find_due(now)
            self._next_round = max(soonest, self._earliest_round, self._gate.paused_until)
            if self._next_round > now:
                await self._sleep_or_wake(self._next_round - now)
            else:
                self._earliest_round = now + max(shortest * _ROUND_FRACTION, len(self._polled) * _ROUND_SECONDS_PER_RUN)
                self._measure("gauge", "watched_runs", len(self._polled))
                self._start_round(due, now)

    def _find_due(self, now: float) -> tuple[list[PolledRun], float, float]:
        """Return the runs that are due, when the next run is due, and the shortest period."""
        due, soonest, shortest = [], math.inf, math.inf
        is_reading = _is_active(self._list_reader)
        for polled in self._polled.values():
            shortest = min(shortest, polled.period)
            # While a list is being read, runs that the next one may contain wait for that.
            if polled.in_flight is None and not (is_reading and polled.is_listable(now)):
                soonest = min(soonest, polled.due)
                if polled.due <= now:
                    due.append(polled)
        return due, soonest, shortest

    async def _sleep_or_wake(self, seconds: float) -> None:
        """Sleep for at most that many seconds, or until woken."""
        waits: list[asyncio.Task[Any]] = [asyncio.create_task(self._woken.wait())]
        if seconds < math.inf:
            waits.append(asyncio.create_task(self._sleep(seconds)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _wake_for(self, due: float) -> None:
        """Wake the scheduler if a run has become due before the next round."""
        if max(due, self._earliest_round, self._gate.paused_until) < self._next_round:
            self._woken.set()

    def _start_round(self, due: list[PolledRun], now: float) -> None:
        """Poll what is due, in the cheaper way."""
        poll_round = PollRound(now)
        self._gate.weight = self._lists.processes(len(self._polled))
        # While the API is down, a single request suffices to notice its recovery.
        if not (_is_active(self._list_reader) or self._gate.is_down):
            self._read_list_if_cheaper(due, poll_round)
        if self._gate.is_down:
            # Take turns, because the failure may concern only some of the runs.
            due.sort(key=lambda polled: polled.polled_at)
        for polled in due:
            if polled.in_flight is None:
                polled.start_poll(poll_round)
                self._requests.poll(polled)

    def _read_list_if_cheaper(self, due: list[PolledRun], poll_round: PollRound) -> None:
        """Start to read the list for all runs it may contain, if polling the runs that are due would cost more."""
        now = poll_round.began
        idle = [polled for polled in self._polled.values() if polled.in_flight is None and polled.is_listable(now)]
        queued = [polled for polled in self._requests.queued if polled.is_listable(now) and not polled.is_missing]
        listable = [*idle, *queued]
        cost = self._lists.cost(len(listable))
        pending = len(queued) + sum(polled.is_listable(now) for polled in due)
        # The list is read as often as it replaces more polls than it costs. A few runs with shorter periods than the
        # rest are polled one by one in between.
        interval = _LIST_INTERVAL_FRACTION * self._lists.stretch(len(listable), len(self._polled))
        if pending <= cost and (
            len(listable) <= cost or now - self._listed_at < interval * shortest_period(listable, cost)
        ):
            return
        self._requests.withdraw(set(queued).__contains__)
        for polled in idle:
            polled.start_poll(poll_round)
        self._listed_at = now
        self._list_reader = self._start(self._read_list(listable, now))

    async def _read_list(self, listable: list[PolledRun], now: float) -> None:
        run_ids = {polled.key for polled in listable}
        timeout = max(_LEAST_LIST_TIMEOUT, 2 * len(run_ids) * self._requests.seconds_per_run)
        listed = await self._lists.read_active(run_ids, timeout, self._polled)
        self._readings += 1
        stretch = self._lists.stretch(len(run_ids), len(self._polled))
        self._measure("gauge", "foreign_share", 1.0 - self._lists.share(len(self._polled)))
        # One jitter for all keeps them together, so that the next list serves all of them again.
        factor = jittered(stretch)
        missing: list[PolledRun] = []
        longest_unpolled: PolledRun | None = None
        async for polled in in_slices(listable):
            state = listed.states.get(polled.key)
            if state is not None and not state.is_terminal:
                polled.record_listed(now)
                polled.report_state(state)
                self._end_poll(polled, now if polled.needs_tasks else self._clock() + polled.period * factor)
                if longest_unpolled is None or polled.polled_at < longest_unpolled.polled_at:
                    longest_unpolled = polled
            elif polled.listed_at is not None or polled.due <= now:
                polled.is_missing = listed.complete
                missing.append(polled)
            else:
                # Its own next poll will show whether it is active.
                polled.is_missing = listed.complete
                self._end_poll(polled, polled.due)
        if listed.complete:
            missing = await self._report_ended(missing, listable, timeout)
        async for polled in in_slices(missing):
            polled.listed_at = None
            self._requests.poll(polled)
        if longest_unpolled and longest_unpolled.in_flight is None and (stretch == 1.0 or self._readings % 2):
            # Detects a list that keeps showing runs after their end.
            longest_unpolled.start_poll(PollRound(self._clock(), is_check=True))
            self._requests.poll(longest_unpolled)
        self._list_reader = None
        self._woken.set()

    async def _report_ended(
        self,
        missing: list[PolledRun],
        listable: list[PolledRun],
        timeout: float,  # noqa: ASYNC109 (see RunLists)
    ) -> list[PolledRun]:
        """Report the ends that the list of ended runs shows, if many runs are missing; return those to poll."""
        # What was not seen active may have been repaired since the list was made.
        ours = {polled.key: polled for polled in listable if polled.was_active}
        wanted = ours.keys() & {polled.key for polled in missing}
        if not self._lists.saves_polls(len(wanted)):
            return missing
        ended = await self._lists.read_ended(wanted, ours.keys(), timeout)
        async for run_id, state in in_slices(ended.items(), _ENDS_PER_SLICE):
            if state.is_terminal and (polled := ours.get(run_id)) and not polled.needs_tasks:
                polled.report_state(state)
                self._end_poll(polled, math.inf)
        others = [polled for polled in missing if polled.in_flight]
        moved = [polled for polled in others if polled.listed_at is not None]
        if not self._lists.saves_polls(len(moved)):
            return others
        # Most of them are active: while a list is read, each end moves later runs to pages that were read already.
        for polled in moved:
            polled.listed_at = None
            self._end_poll(polled, self._clock())
        return [polled for polled in others if polled.in_flight]

    # --- the outcome of polls ---

    def on_answer(self, polled: PolledRun, answer: Run | CheckResult) -> None:
        """Report the API's answer to the callers that wait for it."""
        self._record_answer()
        now = self._clock()
        if isinstance(answer, Run):
            polled.record_polled(answer.state, now, _LONGEST_UNLISTED_SECONDS)
            if answer.is_terminal and polled.listed_at is not None and answer.end_time is not None:
                lag = self._requests.server_time(polled.listed_at) - answer.end_time
                if lag > _TOLERATED_LAG_SECONDS:
                    self._lists.mark_stale()
        polled.report_answer(answer)
        due = now + jittered(polled.period)
        if polled.has_newcomer:
            due = now
        elif polled.in_flight and polled.in_flight.is_check:
            # The next list, for which it was due, still serves it.
            due = polled.due
        self._end_poll(polled, due)

    async def on_failure(self, polled: PolledRun, error: CallError, sent_at: float) -> None:
        """Report a failed poll to the callers that wait for it, and an outage of the API to all callers."""
        self._end_poll(polled, self._clock() + polled.report_failure(error, sent_at))
        if isinstance(error, NotFound):
            self._record_answer()
        elif self._gate.record_failure(polled.key, error, sent_at, of=len(self._polled)):
            self._lists.forgive_failures()
            async for other in in_slices(self._requests.withdraw()):
                self._end_poll(other, self._clock() + other.report_failure(error, sent_at))

    def _record_answer(self) -> None:
        if self._gate.record_answer():
            # The outage is over. Make the queued runs due, since a list may now serve all of them.
            for polled in self._requests.withdraw():
                self._end_poll(polled, self._clock())

    def on_dropped(self, polled: PolledRun) -> None:
        """Record that something is not polled any more."""
        self._end_poll(polled, math.inf)

    def _end_poll(self, polled: PolledRun, due: float) -> None:
        """Take a run out of its round, and set when to poll it next; measure the round with its last run."""
        now = self._clock()
        poll_round, polled.in_flight = polled.in_flight, None
        if poll_round is not None:
            poll_round.lag = max(poll_round.lag, now - polled.due)
            poll_round.pending -= 1
            if not (poll_round.pending or poll_round.is_check):
                self._measure("timing", "tick_duration", now - poll_round.began)
                self._measure("timing", "lag", poll_round.lag)
                self._measure("gauge", "outage_seconds", self._gate.outage_seconds)
                self._measure("count", "requests", self._requests.requests)
                self._requests.requests = 0
        polled.due = due
        self._wake_for(due)


def _is_active(task: asyncio.Task[None] | None) -> bool:
    return task is not None and not task.done()
