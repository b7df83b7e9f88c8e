"""The state that a poller keeps for each run, and the callers that wait for it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import asyncio
    import contextvars

    from airflow_dbjobs.client.models import Run, RunState
    from airflow_dbjobs.client.wait import Watch
    from airflow_dbjobs.errors import CallError


class Waiter(NamedTuple):
    """A caller that waits for a run.

    `future` resolves to the finished run, or to None and the seconds to wait before calling again. What is logged for
    the caller is logged in its `context`, and so in its own log.
    """

    watch: Watch
    future: asyncio.Future[tuple[Run | None, float]]
    context: contextvars.Context

    def resolve(self, run: Run | None, wait: float = 0.0) -> None:
        """Return the finished run to the caller, or None and the seconds to wait before calling again."""
        if not self.future.done():
            self.future.set_result((run, wait))

    def fail(self, error: BaseException) -> None:
        """Raise an error in the caller."""
        if not self.future.done():
            self.future.set_exception(error)


class PollRound:
    """The runs that became due together: when, how many have no answer yet, and by how much the latest was late.

    `is_check` marks a poll of a run that was not due, which must not count in the metrics.
    """

    __slots__ = ("began", "is_check", "lag", "pending")

    def __init__(self, began: float, *, is_check: bool = False) -> None:
        self.began = began
        self.is_check = is_check
        self.pending = 0
        self.lag = 0.0


class PolledRun:
    """A run that at least one caller waits for. Times are readings of the poller's clock."""

    __slots__ = (
        "_period",
        "due",
        "in_flight",
        "is_missing",
        "listed_at",
        "polled_at",
        "run_id",
        "state",
        "unlisted_for",
        "unlisted_until",
        "waiters",
    )

    def __init__(self, run_id: int, now: float) -> None:
        self.run_id = run_id
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
        #: When the latest list was requested, if that contained the run.
        self.listed_at: float | None = None
        #: Whether it was missing from a complete list, and is therefore being polled.
        self.is_missing = False
        #: Until when an active run is not expected in lists because it was missing, and how long that interval is.
        self.unlisted_until = -math.inf
        self.unlisted_for = 0.0

    @property
    def period(self) -> float:
        """The shortest polling period of its callers, in seconds."""
        if not self._period:
            # Computed on demand, not each time one of a thousand callers leaves.
            self._period = min((waiter.watch.period for waiter in self.waiters), default=math.inf)
        return self._period

    def is_listable(self, now: float) -> bool:
        """Return whether a list can be expected to contain it."""
        return self.unlisted_until <= now

    def add(self, waiter: Waiter) -> None:
        """Add a caller, which has to learn the run's state."""
        self.waiters.append(waiter)
        self._period = min(self.period, waiter.watch.period)
        self.state = None

    def remove(self, waiter: Waiter) -> None:
        """Remove a caller."""
        self.waiters.remove(waiter)
        self._period = 0.0

    def start_poll(self, poll_round: PollRound) -> None:
        """Make it part of a poll round."""
        self.in_flight = poll_round
        poll_round.pending += 1

    def record_listed(self, requested_at: float) -> None:
        """Record that a list, requested at that time, contained it."""
        self.listed_at, self.unlisted_until, self.unlisted_for = requested_at, -math.inf, 0.0

    def record_unlisted(self, now: float, longest: float) -> None:
        """Record that it is active and yet missing from lists; the interval without lists doubles each time."""
        self.unlisted_for = min(max(self.period, 2 * self.unlisted_for), longest)
        self.unlisted_until = now + self.unlisted_for

    def finish(self, run: Run) -> None:
        """Return the finished run to all callers."""
        for waiter in self.waiters:
            waiter.resolve(run)

    def fail(self, error: BaseException) -> None:
        """Raise an error in all callers."""
        for waiter in self.waiters:
            waiter.fail(error)

    def report_state(self, state: RunState) -> None:
        """Report a state to the callers if it has changed."""
        if state == self.state:
            return
        self.state = state
        for waiter in self.waiters:
            try:
                waiter.context.run(waiter.watch.record_state, state)
            except Exception as error:  # noqa: BLE001 (it is raised where the run is waited for)
                waiter.fail(error)

    def report_failure(self, error: CallError, sent_at: float) -> float:
        """Report a failed poll to the callers; return the seconds until the next poll."""
        self.state = None
        soonest = math.inf
        for waiter in self.waiters:
            try:
                wait = waiter.context.run(waiter.watch.record_failure, error, sent_at)
            # RunLost, or any error of the caller's own callbacks.
            except Exception as lost:  # noqa: BLE001 (it is raised where the run is waited for)
                waiter.fail(lost)
                continue
            if waiter.watch.credentials_rejected:
                waiter.resolve(None, wait)
            else:
                soonest = min(soonest, wait)
        return soonest
