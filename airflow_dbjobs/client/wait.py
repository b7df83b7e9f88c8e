"""How to wait for a run: the rules that workers and triggerers share, and the functions that wait in a worker.

A failed poll says nothing about the run. Rate limits, 5xx, broken connections and unreadable replies are retried for
``outage_tolerance``. Rejected credentials are read again and retried for ``denied_tolerance``: a token may have been
rotated, or a permission granted late. After that the task fails, and the run is not cancelled, because it may be fine.
In a worker only ``runs/get`` decides that a run is over.
"""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING, Protocol, TypeVar

from airflow_dbjobs.client.clock import Clock
from airflow_dbjobs.client.retry import backoff, requested_wait
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
# In the message of RunLost for a run that was deleted.
NO_LONGER_EXISTS = "no longer exists"
# The waits after the first polls of a run, in seconds, where the period is longer: a short run ends its task soon.
_FIRST_WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)
_TWO_MINUTES = 120.0
# A sensor may have a `poke_interval` of 0.
_SHORTEST_PERIOD = 0.01


class Watch:
    """The state of waiting for one run: when to poll next, and when to stop trying. It neither sleeps nor calls.

    :param run_id: the run.
    :param period: the time between two polls, in seconds.
    :param patience: how long to retry failed polls.
    :param clock: returns monotonic seconds.
    :param on_change: called with the first state of the run, and with each new one.
    :param warn: called with a text when polls begin to fail, and when they succeed again.
    :param action: what is retried, as the beginning of a sentence; "Polling run <run_id>" by default.
    """

    def __init__(
        self,
        run_id: int,
        period: float,
        patience: Patience,
        clock: Callable[[], float],
        *,
        on_change: Callable[[RunState], None] = lambda _: None,
        warn: Callable[[str], object] = log.warning,
        action: str = "",
    ) -> None:
        self.run_id = run_id
        self.period = max(period, _SHORTEST_PERIOD)
        self.clock = clock
        #: Whether the last poll failed because the API rejected the credentials; reading them again may help.
        self.credentials_rejected = False
        self._patience = patience
        self._on_change = on_change
        self._warn = warn
        self._name = action or f"Polling run {run_id}"
        self._last_state: RunState | None = None
        # When polls began to fail, and when they began to fail in a way that has its own, shorter tolerance.
        self._failing_since: float | None = None
        self._rejected_since: float | None = None
        self._failures = 0

    def record_answer(self) -> None:
        """Record that the API answered."""
        if self._failing_since is not None:
            self._warn(f"{self._name} succeeded again after {self.clock() - self._failing_since:.0f} s.")
        self._failing_since, self._rejected_since, self._failures = None, None, 0
        self.credentials_rejected = False

    def record_state(self, state: RunState) -> None:
        """Record an answer, and report the run's state if it is new."""
        self.record_answer()
        if state != self._last_state:
            self._last_state = state
            self._on_change(state)

    def record_failure(self, error: CallError, sent_at: float) -> float:
        """Record a failed poll, which was sent when `clock` returned `sent_at`; return the seconds until the next.

        Raises RunLost once the tolerance is exceeded, or if the run no longer exists.
        """
        if isinstance(error, NotFound):
            raise RunLost(
                f"Run {self.run_id} {NO_LONGER_EXISTS}: it was deleted, or it is older than 60 days. ({error})",
                run_id=self.run_id,
            ) from error
        now = self.clock()
        self._failures += 1
        self.credentials_rejected = isinstance(error, Unauthenticated | PermissionDenied)
        if self._failing_since is None:
            # A request that times out has failed for all the time it took.
            self._failing_since = sent_at
            self._warn(f"{self._name} failed; will retry: {error}")
        if not (self.credentials_rejected or _is_obstacle(error)):
            self._rejected_since = None
        elif self._rejected_since is None:
            self._rejected_since = sent_at
        if self._rejected_since is not None:
            lasted, setting, tolerance = now - self._rejected_since, "denied_tolerance", self._patience.denied_tolerance
        else:
            lasted, setting = now - self._failing_since, "outage_tolerance"
            tolerance = self._patience.outage_tolerance if error.transient else 0.0
        if lasted >= tolerance:
            duration = f"{lasted / 60:.0f} min" if lasted >= _TWO_MINUTES else f"{lasted:.0f} s"
            reason = f"for {duration}, longer than {setting} allows" if tolerance else "and is not retried"
            raise RunLost(
                f"{self._name} failed {reason}. The run was not cancelled and may still be running. Last error:"
                f" {error}",
                run_id=self.run_id,
            ) from error
        return max(jittered(backoff(self._failures)), requested_wait(error) or 0.0)


def _is_obstacle(error: CallError) -> bool:
    """Return whether something before the API is in the way, which may be fixed soon: a gateway, or a certificate."""
    return isinstance(error, UntrustedCertificate | WrongProtocol) or (
        isinstance(error, ApiError) and not error.transient and not error.error_code
    )


def jittered(seconds: float) -> float:
    """Change a wait by up to a tenth, so that tasks which start or fail together do not poll together."""
    return seconds * random.uniform(0.9, 1.1)  # noqa: S311 (jitter is no secret)


class Logger(Protocol):
    """The methods that loggers need here: those of `logging`, and those that Airflow gives its triggers."""

    def info(self, event: str, /, *args: object) -> object:
        """Log at INFO."""

    def warning(self, event: str, /, *args: object) -> object:
        """Log at WARNING."""


class RunStateLogger:
    """Logs each new state of a run as one line, and warns once about each state that this release does not know."""

    def __init__(self, log: Logger, run_id: int) -> None:
        self._log = log
        self._run_id = run_id
        self._warned_of: tuple[str, ...] = ()

    def __call__(self, state: RunState) -> None:
        """Log the run's new state."""
        self._log.info("Run %d is %s%s", self._run_id, state, f": {cleaned(state.message)}" if state.message else "")
        name = state.life_cycle_state
        if not state.is_known and name not in self._warned_of:
            self._warned_of += (name,)
            self._log.warning("This release does not know the state %r; the run counts as active.", name)


def retry_through_outages(client: JobsClient, call: Callable[[], T], run_id: int, action: str = "") -> T:
    """Return what a call about a run returns, retrying it as long as polls are retried. Raises RunLost.

    `action` is as in `Watch`.
    """
    return retried(client, Watch(run_id, DEFAULT_PERIOD, client.patience, client.clock, action=action), call)


def retried(
    client: JobsClient, watch: Watch, call: Callable[[], T], *, unless: Callable[[CallError], bool] = lambda _: False
) -> T:
    """Return what a call returns, retrying it in a worker as `watch` says. Raises RunLost.

    While the API rejects the credentials, they are read again. An error for which `unless` returns True is raised.
    """
    while True:
        sent_at = client.clock()
        try:
            return call()
        except CallError as error:
            if unless(error):
                raise
            wait = watch.record_failure(error, sent_at)
            if watch.credentials_rejected:
                client.renew_credentials()
            client.sleep(wait)


def none_if_deleted(read: Callable[[], T]) -> T | None:
    """Return what `read` returns, or None if it raises RunLost because the run no longer exists."""
    try:
        return read()
    except RunLost as error:
        if isinstance(error.__cause__, NotFound):
            return None
        raise


def read_run(client: JobsClient, run_id: int) -> Run:
    """Return a run with all its tasks, retrying as long as polls are retried. Raises RunLost."""
    return retry_through_outages(client, lambda: client.get_run(run_id), run_id)


def wait_for_run(
    client: JobsClient,
    run_id: int,
    *,
    period: float = DEFAULT_PERIOD,
    on_change: Callable[[RunState], None] = lambda _: None,
    on_poll: Callable[[Run], None] = lambda _: None,
    until: Callable[[Run], object] | None = None,
) -> Run:
    """Poll a run until it is over, and return it with all its tasks.

    :param client: the client of the workspace; its `patience` limits how long failed polls are retried.
    :param run_id: the run.
    :param period: the time between two polls, in seconds; the first ones follow each other sooner.
    :param on_change: called with the first state of the run, and with each new one.
    :param on_poll: called with the run after each poll; a run of more than 100 tasks then has only some of them.
    :param until: what to wait for instead, judged by the run with all its tasks.
    :raises errors.RunLost: if the run was deleted, or polls failed for too long. The run is not cancelled.
    """
    watch = Watch(run_id, period, client.patience, client.clock, on_change=on_change)
    first_waits = iter(_FIRST_WAITS)
    poll, is_met = (client.get_run, until) if until else (client.poll_run, lambda run: run.is_terminal)
    while True:
        run = retried(client, watch, lambda: poll(run_id))
        watch.record_state(run.state)
        on_poll(run)
        if is_met(run):
            run = read_run(client, run_id)
            if is_met(run):
                return run
            # It was repaired since the poll.
            watch.record_state(run.state)
        client.sleep(jittered(min(watch.period, next(first_waits, watch.period))))


def wait_for_run_until_timeout(client: JobsClient, run_id: int, timeout: float | None, period: float) -> Run:
    """Wait as `wait_for_run` does, for at most `timeout` seconds. Raises RunLost and RunStillActive."""
    with client.with_policy(client.transport.policy) as waiting:
        if timeout is not None:
            # All waits use it: between polls, between attempts, and during an outage.
            waiting.transport.clock = _ClockUntil(client.transport.clock, timeout, run_id)
        return wait_for_run(waiting, run_id, period=period)


class _ClockUntil(Clock):
    """A clock that sleeps only until a time limit, and then raises RunStillActive."""

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
                f"Run {self._run_id} is still active after {self._timeout:.0f} s. It was not cancelled: wait for it"
                " again, or cancel it with cancel_run.",
                run_id=self._run_id,
            )
        self._clock.sleep(min(seconds, left))
