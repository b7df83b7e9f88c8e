"""What a poller knows of the runs it watches, and those who wait for them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import asyncio
    import contextvars

    from airflow_dbjobs.client.models import Run, RunState
    from airflow_dbjobs.client.wait import Watch
    from airflow_dbjobs.errors import CallError


class Watcher(NamedTuple):
    """Somebody who waits for a run, and is told by `future`: the run, or None and for how long to wait.

    `context` is theirs: what is logged for them goes where their log goes.
    """

    watch: Watch
    future: asyncio.Future[tuple[Run | None, float]]
    context: contextvars.Context

    def tell(self, run: Run | None, wait: float = 0.0) -> None:
        """Let them go on with the run that is over, or with None, for them to come back after so many seconds."""
        if not self.future.done():
            self.future.set_result((run, wait))

    def fail(self, error: BaseException) -> None:
        """Let them go on with an error."""
        if not self.future.done():
            self.future.set_exception(error)


class Round:
    """The runs that became due together: when, how many are still to be answered, and the latest of the answers.

    `is_check` says that none was due: what it measures tells nothing.
    """

    __slots__ = ("began", "is_check", "lag", "pending")

    def __init__(self, began: float, *, is_check: bool = False) -> None:
        self.began = began
        self.is_check = is_check
        self.pending = 0
        self.lag = 0.0


class Watched:
    """A run that somebody waits for. Times are readings of the poller's clock."""

    __slots__ = (
        "_period",
        "asked_at",
        "asking",
        "blind_for",
        "blind_until",
        "due",
        "is_missed",
        "listed_at",
        "run_id",
        "state",
        "watchers",
    )

    def __init__(self, run_id: int, now: float) -> None:
        self.run_id = run_id
        self.watchers: list[Watcher] = []
        self._period = math.inf
        #: When it is to be asked for; while it is, as part of what; when it was last asked for singly, or came.
        self.due = now
        self.asking: Round | None = None
        self.asked_at = now
        #: The state that all watchers know; None: they have to be told.
        self.state: RunState | None = None
        #: When the last list was begun, if that had it.
        self.listed_at: float | None = None
        #: Whether a list did not have it, so that it is asked for now. Where it then goes on, no list is expected to
        #: have it for some time.
        self.is_missed = False
        self.blind_until = -math.inf
        self.blind_for = 0.0

    @property
    def period(self) -> float:
        """The shortest of the watchers' periods, in seconds."""
        if not self._period:
            # Worked out when it is asked for, not for each of a thousand watchers who leave.
            self._period = min((watcher.watch.period for watcher in self.watchers), default=math.inf)
        return self._period

    def is_listable(self, now: float) -> bool:
        """Whether a list may answer for it."""
        return self.blind_until <= now

    def add(self, watcher: Watcher) -> None:
        """Let somebody wait for it."""
        self.watchers.append(watcher)
        self._period = min(self.period, watcher.watch.period)
        self.state = None

    def take_up(self, together: Round) -> None:
        """Let it be asked for, as part of a round."""
        self.asking = together
        together.pending += 1

    def is_in_list(self, begun_at: float) -> None:
        """Take note that a list, begun at a reading of the clock, has it."""
        self.listed_at, self.blind_until, self.blind_for = begun_at, -math.inf, 0.0

    def is_not_in_list(self, now: float, longest: float) -> None:
        """Take note that it goes on and yet no list shows it: it is not looked for there, longer each time."""
        self.blind_for = min(max(self.period, 2 * self.blind_for), longest)
        self.blind_until = now + self.blind_for

    def remove(self, watcher: Watcher) -> None:
        """Let somebody wait for it no longer."""
        self.watchers.remove(watcher)
        self._period = 0.0

    def ended(self, run: Run) -> None:
        """Tell the watchers that it is over."""
        for watcher in self.watchers:
            watcher.tell(run)

    def fail(self, error: BaseException) -> None:
        """Let the watchers go on with an error."""
        for watcher in self.watchers:
            watcher.fail(error)

    def saw(self, state: RunState) -> None:
        """Tell the watchers a state, where it is news."""
        if state == self.state:
            return
        self.state = state
        for watcher in self.watchers:
            try:
                watcher.context.run(watcher.watch.saw, state)
            except Exception as error:  # noqa: BLE001 (it is raised where the run is waited for)
                watcher.fail(error)

    def failed(self, error: CallError, asked_at: float) -> float:
        """Tell the watchers that it could not be asked for; return the seconds until it is to be asked for again."""
        self.state = None
        soonest = math.inf
        for watcher in self.watchers:
            try:
                wait = watcher.context.run(watcher.watch.failed, error, asked_at)
            # RunLost, or whatever goes wrong in what the watcher brought along.
            except Exception as lost:  # noqa: BLE001 (it is raised where the run is waited for)
                watcher.fail(lost)
                continue
            if watcher.watch.refused:
                watcher.tell(None, wait)
            else:
                soonest = min(soonest, wait)
        return soonest
