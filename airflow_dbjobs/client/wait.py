"""Waiting for a run: the rules that hold in a worker and in a triggerer, and the worker's own waiting.

A failed poll is not an outcome. Rate limits, 5xx, broken connections and unreadable replies are waited out for
``outage_tolerance``; refused credentials, which are read anew meanwhile, for ``denied_tolerance`` (a rotated token, a
maintenance window, permissions set late). Then the task fails and the run is left alone: it may be doing well. Only
``runs/get`` decides that a run is over.
"""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING, Protocol, TypeVar

from airflow_dbjobs.client.clock import Clock
from airflow_dbjobs.client.retry import asked_wait, backoff
from airflow_dbjobs.client.sanitize import cleaned
from airflow_dbjobs.errors import (
    ApiError,
    CallError,
    NotFound,
    PermissionDenied,
    RunLost,
    RunStillActive,
    Unauthenticated,
    UntrustedCertificate,
    WrongProtocol,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.client.models import Run, RunState
    from airflow_dbjobs.client.retry import Patience

log = logging.getLogger(__name__)

T = TypeVar("T")

DEFAULT_PERIOD = 10.0
# A sensor may have a `poke_interval` of 0.
LEAST_PERIOD = 0.01


class Watch:
    """One run being waited for: when to ask again, and when to give up. It neither sleeps nor calls.

    `period` is in seconds; `clock` reads monotonic seconds. `what` names it where it is not yet known which run that
    is. `on_change` is called with the run's first state and each new one, `warn` with a text when polls begin to fail
    and when they work again.
    """

    # A triggerer holds ten thousand of them.
    __slots__ = (
        "_failing_since",
        "_failures",
        "_last_state",
        "_on_change",
        "_patience",
        "_refused_since",
        "_warn",
        "_what",
        "clock",
        "period",
        "refused",
        "run_id",
    )

    def __init__(
        self,
        run_id: int,
        period: float,
        patience: Patience,
        clock: Callable[[], float],
        *,
        on_change: Callable[[RunState], None] = lambda _: None,
        warn: Callable[[str], object] = log.warning,
        what: str = "",
    ) -> None:
        self.run_id = run_id
        self._what = what
        self.period = max(period, LEAST_PERIOD)
        #: Whether the last answer was a refusal of the credentials: it may help to read them anew.
        self.refused = False
        self._patience = patience
        self.clock = clock
        self._on_change = on_change
        self._warn = warn
        self._last_state: RunState | None = None
        # Since when polls fail, and since when all that failed were refused: two patiences.
        self._failing_since: float | None = None
        self._refused_since: float | None = None
        self._failures = 0

    @property
    def what(self) -> str:
        """What is waited for, as a sentence begins with it."""
        return self._what or f"Run {self.run_id}"

    def answered(self) -> None:
        """Take note that the API has answered."""
        if self._failing_since is not None:
            self._warn(f"{self.what} can be asked for again, after {self.clock() - self._failing_since:.0f} s.")
        self._failing_since, self._refused_since, self._failures, self.refused = None, None, 0, False

    def saw(self, state: RunState) -> None:
        """Take an answer."""
        self.answered()
        if state != self._last_state:
            self._last_state = state
            self._on_change(state)

    def failed(self, error: CallError, asked_at: float) -> float:
        """Take a failed poll; return the seconds until the next. Raises RunLost where the patience is spent.

        `asked_at` is when `clock` was read before it: a question that fails after minutes failed all that time.
        """
        if isinstance(error, NotFound):
            raise RunLost(
                f"{self.what} does not exist any more: it was deleted, or is older than 60 days. ({error})",
                run_id=self.run_id,
            ) from error
        now = self.clock()
        self._failures += 1
        self.refused = isinstance(error, Unauthenticated | PermissionDenied)
        if self._failing_since is None:
            self._failing_since = asked_at
            self._warn(f"{self.what} cannot be asked for at the moment, which is tried again: {error}")
        if not (self.refused or _mendable(error)):
            self._refused_since = None
        elif self._refused_since is None:
            self._refused_since = asked_at
        if self._refused_since is not None:
            lasted, tolerance = now - self._refused_since, self._patience.denied_tolerance
        else:
            lasted, tolerance = now - self._failing_since, self._patience.outage_tolerance if error.transient else 0.0
        if lasted >= tolerance:
            raise RunLost(
                f"{self.what} could not be asked for during {lasted / 60:.0f} min; it is left alone and may still"
                f" be running. The last answer: {error}",
                run_id=self.run_id,
            ) from error
        # What the API asks for is the least.
        return max(jittered(backoff(self._failures)), asked_wait(error) or 0.0)


def _mendable(error: CallError) -> bool:
    """Whether a gateway that names no error code, or a certificate, is in the way: that may be mended while we wait."""
    return isinstance(error, UntrustedCertificate | WrongProtocol) or (
        isinstance(error, ApiError) and not error.transient and not error.error_code
    )


def jittered(seconds: float) -> float:
    """Spread waits by a tenth: many tasks start, or fail, together; their polls should not stay together."""
    return seconds * random.uniform(0.9, 1.1)  # noqa: S311 (jitter is no secret)


class Logger(Protocol):
    """What is needed of a logger, be it logging's or the one Airflow gives its triggers."""

    def info(self, event: str, /, *args: object) -> object:
        """Log at INFO."""

    def warning(self, event: str, /, *args: object) -> object:
        """Log at WARNING."""


class StateLog:
    """Logs a run's states as they change, one line each; a state that nobody has heard of is named as a warning."""

    __slots__ = ("_log", "_run_id", "_warned_of")

    def __init__(self, log: Logger, run_id: int) -> None:
        self._log = log
        self._run_id = run_id
        self._warned_of: tuple[str, ...] = ()

    def __call__(self, state: RunState) -> None:
        """Log the state that the run is in now."""
        self._log.info("Run %d is %s%s", self._run_id, state, f": {cleaned(state.message)}" if state.message else "")
        name = state.life_cycle_state
        if not state.is_known and name not in self._warned_of:
            self._warned_of += (name,)
            self._log.warning("%r is not a state this release knows; it counts as running.", name)


def patiently(client: JobsClient, call: Callable[[], T], run_id: int) -> T:
    """Return what a call about a run returns, however long the API does not answer it. Raises RunLost."""
    watch = Watch(run_id, DEFAULT_PERIOD, client.patience, client.clock)
    while True:
        asked_at = client.clock()
        try:
            return call()
        except CallError as error:
            wait_after(error, asked_at, watch, client)


def unless_deleted(ask: Callable[[], T]) -> T | None:
    """Return what `ask` returns, None where its run is gone. Raises RunLost where it is lost for another reason."""
    try:
        return ask()
    except RunLost as error:
        if isinstance(error.__cause__, NotFound):
            return None
        raise


def ask_for_run(client: JobsClient, run_id: int) -> Run:
    """Return a run as it is now, with all its tasks, however long the API does not answer. Raises RunLost."""
    return patiently(client, lambda: client.get_run(run_id), run_id)


def wait_for_run(
    client: JobsClient,
    run_id: int,
    *,
    period: float = DEFAULT_PERIOD,
    on_change: Callable[[RunState], None] = lambda _: None,
    on_poll: Callable[[Run], None] = lambda _: None,
) -> Run:
    """Ask for a run every `period` seconds until it is over, and return it with all its tasks.

    `on_change` is called with the run's first state and each new one, `on_poll` with the run as each poll shows it, of
    more than 100 tasks with some of them. Raises RunLost.
    """
    watch = Watch(run_id, period, client.patience, client.clock, on_change=on_change)
    while True:
        asked_at = client.clock()
        try:
            run = client.poll_run(run_id)
        except CallError as error:
            wait_after(error, asked_at, watch, client)
            continue
        watch.saw(run.state)
        on_poll(run)
        if run.is_terminal:
            run = ask_for_run(client, run_id)
            if run.is_terminal:
                return run
            # Somebody has repaired it since the poll.
            watch.saw(run.state)
        client.sleep(jittered(watch.period))


def wait_within(client: JobsClient, run_id: int, timeout: float | None, period: float) -> Run:
    """Wait as `wait_for_run` does, for at most so many seconds. Raises RunLost and RunStillActive."""
    with client.with_policy(client.transport.policy) as waiting:
        if timeout is not None:
            # Every wait uses it: between polls, between attempts, while the API is down.
            waiting.transport.clock = _ClockUntil(client.transport.clock, timeout, run_id)
        return wait_for_run(waiting, run_id, period=period)


class _ClockUntil(Clock):
    """A clock that sleeps until a time limit. Raises RunStillActive then."""

    def __init__(self, clock: Clock, timeout: float, run_id: int) -> None:
        self._clock = clock
        self._timeout = timeout
        self._end = clock.monotonic() + timeout
        self._run_id = run_id
        self.piece = clock.piece

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def time(self) -> float:
        return self._clock.time()

    def sleep(self, seconds: float) -> None:
        if (left := self._end - self._clock.monotonic()) <= 0:
            raise RunStillActive(
                f"Run {self._run_id} is still active after {self._timeout:.0f} s.", run_id=self._run_id
            )
        self._clock.sleep(min(seconds, left))


def wait_after(error: CallError, asked_at: float, watch: Watch, client: JobsClient) -> None:
    """Wait in a worker after a failed poll, with credentials that are read anew. Raises RunLost."""
    wait = watch.failed(error, asked_at)
    if watch.refused:
        client.renew_credentials()
    client.sleep(wait)
