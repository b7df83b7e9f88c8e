"""What a poller polls, a run or a condition, with the state that it keeps for each and the callers that wait for it."""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_dbjobs.errors import NotFound

if TYPE_CHECKING:
    import asyncio
    import contextvars
    from collections.abc import Callable, Hashable

    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.client.models import Run, RunState
    from airflow_dbjobs.client.wait import Watch
    from airflow_dbjobs.errors import CallError
    from airflow_dbjobs.runs.conditions import CheckResult, Condition


class RunEnd(NamedTuple):
    """A run that is over, and how it ended: all that a list shows of it."""

    run_id: int
    state: RunState


class Waiter(NamedTuple):
    """A caller that waits for the end of a run or, with `judge`, for a condition.

    `judge` receives each answer and returns what the caller waits for, or None. `future` resolves to that, or to None
    and the seconds to wait before calling again. What is logged for the caller is logged in its `context`, and so in
    its own log.
    """

    watch: Watch
    future: asyncio.Future[tuple[Any, float]]
    context: contextvars.Context
    judge: Callable[[Any], Any] | None = None

    def resolve(self, result: Any, wait: float = 0.0) -> None:
        """Return a result to the caller, or None and the seconds to wait before calling again."""
        if not self.future.done():
            self.future.set_result((result, wait))

    def fail(self, error: BaseException) -> None:
        """Raise an error in the caller."""
        if not self.future.done():
            self.future.set_exception(error)

    def call(self, function: Callable[..., Any], *args: object) -> Any:
        """Return what one of the caller's functions returns; raise what it raises in the caller, and return None."""
        try:
            return self.context.run(function, *args)
        except Exception as error:  # noqa: BLE001 (it is raised where the caller waits)
            self.fail(error)
            return None


class PollRound:
    """What became due together: when, how many have no answer yet, and by how much the latest was late.

    `is_check` marks a poll of a run that was not due, which must not count in the metrics.
    """

    def __init__(self, began: float, *, is_check: bool = False) -> None:
        self.began = began
        self.is_check = is_check
        self.pending = 0
        self.lag = 0.0


class PolledRun:
    """A run that at least one caller waits for. Times are readings of the poller's clock."""

    key: Any

    def __init__(self, key: Hashable, now: float) -> None:
        #: The run's id.
        self.key = key
        self.waiters: list[Waiter] = []
        self._period = math.inf
        #: When to poll next.
        self.due = now
        #: The poll round it is part of, None between polls.
        self.in_flight: PollRound | None = None
        #: The last individual poll, or when the first caller came.
        self.polled_at = now
        #: The state that all callers know; None if it has to be reported to them.
        self.state: RunState | None = None
        #: Whether a caller needs its tasks, which lists do not show.
        self.needs_tasks = False
        #: The callers that judge the answer to the latest poll, and whether another one has come since.
        self.judges: tuple[Waiter, ...] = ()
        self.has_newcomer = False
        #: Whether it was active when it was seen before: then it has ended since if a list shows its end.
        self.was_active = False
        #: When the latest list was requested, if that contained the run.
        self.listed_at: float | None = None
        #: Whether it was missing from a complete list, and is therefore being polled.
        self.is_missing = False
        #: Until when an active run is not expected in lists because it was missing, and how long that interval is.
        self.unlisted_until = -math.inf
        self.unlisted_for = 0.0

    def read(self, client: JobsClient) -> Run | CheckResult:
        """Poll it, in a thread. Raises CallError."""
        return client.get_run(self.key) if self.judges else client.poll_run(self.key)

    @property
    def period(self) -> float:
        """The shortest polling period of its callers, in seconds."""
        if not self._period:
            # Computed on demand, not each time one of a thousand callers leaves.
            self._period = min((waiter.watch.period for waiter in self.waiters), default=math.inf)
        return self._period

    def is_listable(self, now: float) -> bool:
        """Return whether a list can be expected to contain it and to say enough."""
        return self.unlisted_until <= now and not self.needs_tasks

    def add(self, waiter: Waiter) -> None:
        """Add a caller, which has to learn the run's state."""
        self.waiters.append(waiter)
        self._period = min(self.period, waiter.watch.period)
        self.state = None
        if waiter.judge:
            self.needs_tasks = self.has_newcomer = True

    def remove(self, waiter: Waiter) -> None:
        """Remove a caller."""
        self.waiters.remove(waiter)
        self._period = 0.0
        self.needs_tasks = self.needs_tasks and any(waiter.judge for waiter in self.waiters)

    def start_poll(self, poll_round: PollRound) -> None:
        """Make it part of a poll round."""
        self.in_flight = poll_round
        poll_round.pending += 1

    def record_sent(self, now: float) -> None:
        """Record that it is being polled, for the callers that wait for it now."""
        self.polled_at, self.has_newcomer = now, False
        self.judges = tuple(waiter for waiter in self.waiters if waiter.judge)

    def record_listed(self, requested_at: float) -> None:
        """Record that a list, requested at that time, contained it."""
        self.listed_at, self.unlisted_until, self.unlisted_for = requested_at, -math.inf, 0.0
        self.is_missing = False

    def record_polled(self, state: RunState, now: float, longest_unlisted: float) -> None:
        """Record what ``runs/get`` returned about a run that lists may not contain."""
        if self.state is not None and state != self.state:
            # In its former state, such as QUEUED, it may have been missing from lists.
            self.unlisted_until = -math.inf
        elif self.is_missing:
            # Active and yet missing from lists: the interval without lists doubles each time.
            self.unlisted_for = min(max(self.period, 2 * self.unlisted_for), longest_unlisted)
            self.unlisted_until = now + self.unlisted_for
        self.is_missing = False

    def report_answer(self, run: Any) -> None:
        """Report what `read` returned to the callers that judge it, and its state to all others."""
        self._report_to_judges(run)
        self.report_state(run.state)

    def report_state(self, state: RunState) -> None:
        """Report a state to the callers if it has changed, and its end to those that wait for that."""
        if state != self.state:
            self.state, self.was_active = state, not state.is_terminal
            for waiter in self.waiters:
                if not waiter.judge:
                    waiter.call(waiter.watch.record_state, state)
        if state.is_terminal:
            for waiter in self.waiters:
                if not waiter.judge:
                    waiter.resolve(RunEnd(self.key, state))

    def report_failure(self, error: CallError, sent_at: float) -> float:
        """Report a failed poll to the callers; return the seconds until the next poll."""
        self.state = None
        soonest = math.inf
        for waiter in self.waiters:
            # It raises RunLost in the caller in the end.
            wait = waiter.call(waiter.watch.record_failure, error, sent_at)
            if wait is None:
                continue
            if waiter.watch.credentials_rejected:
                waiter.resolve(None, wait)
            else:
                soonest = min(soonest, wait)
        return soonest

    def fail(self, error: BaseException) -> None:
        """Raise an error in all callers."""
        for waiter in self.waiters:
            waiter.fail(error)

    def _report_to_judges(self, answer: object) -> None:
        # Not to newcomers: what they wait for may have happened since the request.
        for waiter in self.judges:
            if waiter.judge and not waiter.future.done():
                waiter.call(waiter.watch.record_answer)
                if (result := waiter.call(waiter.judge, answer)) is not None:
                    waiter.resolve(result)


class PolledCondition(PolledRun):
    """A condition about a job, which each check may develop: a name becomes an id. `key` is the condition at first."""

    def __init__(self, key: Condition, now: float) -> None:
        super().__init__(key, now)
        self._latest = key

    def read(self, client: JobsClient) -> CheckResult:
        """Check it, in a thread. Raises CallError, and ConfigurationError if there is no such job."""
        return self._latest.check(client)

    def report_answer(self, result: Any) -> None:
        """Report the result of a check to the callers."""
        self._latest = result.condition
        self._report_to_judges(result)

    def report_failure(self, error: CallError, sent_at: float) -> float:
        """Report a failed check to the callers; a job that does not exist is an error."""
        if isinstance(error, NotFound):
            self.fail(error)
            return math.inf
        return super().report_failure(error, sent_at)


def shortest_period(runs: list[PolledRun], number: float) -> float:
    """Return the shortest time within which more than `number` of these runs become due."""
    return heapq.nsmallest(math.floor(number) + 1, (polled.period for polled in runs))[-1]
