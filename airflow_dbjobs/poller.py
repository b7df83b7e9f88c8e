"""Waiting for runs: one shared poller per workspace and event loop; a worker that waits by itself keeps the same rules.

A failed poll is not an outcome. Rate limits, 5xx, broken connections and unreadable replies are waited out for
``outage_tolerance``; refused credentials for ``denied_tolerance`` (a maintenance window, permissions set late). Then
the task fails and the run is left alone: it may be doing well. Only ``runs/get`` decides that a run is over.

``RunPoller`` asks ``runs/get`` for each run it watches. Everything else (who shares a poller, its threads and
connections, periods, outages) is as it stays when a listing answers for many runs at once: that goes into
``RunPoller._ask``.
"""

from __future__ import annotations

import asyncio
import queue
import random
import threading
import time
import weakref
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from airflow_dbjobs.errors import (
    ApiError,
    CallError,
    NotFound,
    PermissionDenied,
    RunLost,
    Unauthenticated,
    UntrustedCertificate,
)
from airflow_dbjobs.transport import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_dbjobs.client import JobsClient
    from airflow_dbjobs.runs import Run

T = TypeVar("T")
V = TypeVar("V")

DEFAULT_PERIOD = 10.0
LONGEST_OUTAGE_WAIT = 60.0
# Airflow gives a trigger's `on_kill` 30 s.
CANCEL_POLICY = RetryPolicy(budget=25.0, server_error_wait=1.0, connect_timeout=5.0, read_timeout=10.0)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long failing polls are waited out, in seconds: the API down or limiting, and the credentials refused."""

    outage_tolerance: float = 3600.0
    denied_tolerance: float = 600.0


class Watch:
    """One run being waited for: when to ask again, and when to give up. It neither sleeps nor calls."""

    def __init__(
        self,
        run_id: int,
        period: float,
        patience: Patience,
        clock: Callable[[], float],
        on_change: Callable[[Run], None],
    ) -> None:
        self.run_id = run_id
        self._period = period
        self._patience = patience
        self._clock = clock
        self._on_change = on_change
        self._last_state: object = None
        # Since when polls fail, and since when all that failed were refused: two patiences.
        self._failing_since: float | None = None
        self._refused_since: float | None = None
        self._failures = 0

    def answered(self, run: Run) -> float | None:
        """Take an answer; return the seconds until the next question, or None where the run is over."""
        self._failing_since, self._refused_since, self._failures = None, None, 0
        if run.state != self._last_state:
            self._last_state = run.state
            self._on_change(run)
        if run.is_terminal:
            return None
        return _jittered(self._period)

    def failed(self, error: CallError) -> float:
        """Take a failed poll; return the seconds until the next. Raises RunLost where the patience is spent."""
        if isinstance(error, NotFound):
            raise RunLost(
                f"Run {self.run_id} does not exist any more: it was deleted, or is older than 60 days. ({error})",
                run_id=self.run_id,
            ) from error
        now = self._clock()
        self._failures += 1
        self._failing_since = now if self._failing_since is None else self._failing_since
        self._refused_since = (now if self._refused_since is None else self._refused_since) if _refused(error) else None
        if self._refused_since is not None:
            lasted, tolerance = now - self._refused_since, self._patience.denied_tolerance
        else:
            lasted, tolerance = now - self._failing_since, self._patience.outage_tolerance if error.transient else 0.0
        if lasted >= tolerance:
            raise RunLost(
                f"Run {self.run_id} could not be asked for during {lasted / 60:.0f} min; it is left alone and may still"
                f" be running. The last answer: {error}",
                run_id=self.run_id,
            ) from error
        return _jittered(min(2.0 ** min(self._failures - 1, 10), LONGEST_OUTAGE_WAIT))


def _refused(error: CallError) -> bool:
    """Whether the API, or a gateway that names no error code, refused to answer: that may be mended while we wait."""
    return isinstance(error, Unauthenticated | PermissionDenied | UntrustedCertificate) or (
        isinstance(error, ApiError) and not error.transient and not error.error_code
    )


def _jittered(seconds: float) -> float:
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

    def __init__(self, log: Logger) -> None:
        self._log = log
        self._warned_of: set[str] = set()

    def __call__(self, run: Run) -> None:
        """Log the state that `run` is in now."""
        message = f": {run.state.message}" if run.state.message else ""
        self._log.info("Run %d is %s%s", run.run_id, run.state, message)
        name = run.state.life_cycle_state
        if not run.state.is_known and name not in self._warned_of:
            self._warned_of.add(name)
            self._log.warning("%r is not a state this release knows; it counts as running.", name)


def patiently(
    call: Callable[[], T],
    run_id: int,
    *,
    patience: Patience | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Return what a call about a run returns, however long the API does not answer it. Raises RunLost."""
    watch = Watch(run_id, DEFAULT_PERIOD, patience or Patience(), clock, lambda _: None)
    while True:
        try:
            return call()
        except CallError as error:
            sleep(watch.failed(error))


def ask_for_run(client: JobsClient, run_id: int) -> Run:
    """Return a run as it is now, with all its tasks, however long the API does not answer. Raises RunLost."""
    return patiently(lambda: client.get_run(run_id), run_id)


def wait_for_run(
    client: JobsClient,
    run_id: int,
    *,
    period: float = DEFAULT_PERIOD,
    patience: Patience | None = None,
    on_change: Callable[[Run], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Run:
    """Ask for a run every `period` seconds until it is over, and return it with all its tasks.

    `on_change` is called with the run at its first state and at each new one. Raises RunLost.
    """
    watch = Watch(run_id, period, patience or Patience(), clock, on_change)
    while True:
        try:
            wait = watch.answered(client.poll_run(run_id))
        except CallError as error:
            wait = watch.failed(error)
        if wait is None:
            run = patiently(lambda: client.get_run(run_id), run_id, patience=patience, clock=clock, sleep=sleep)
            if run.is_terminal:
                return run
            # Somebody has repaired it since the poll.
            wait = watch.answered(run) or 0.0
        sleep(wait)


class RunPoller:
    """Watches the runs of one workspace, with one set of credentials, for all triggers of one event loop.

    Get the shared one with `RunPoller.shared`. Its calls run in a few daemon threads of its own: asyncio's default
    executor is not used, since its threads are joined at exit and a hanging request would hold up the triggerer.
    """

    _shared: ClassVar[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[object, RunPoller]]] = (
        weakref.WeakKeyDictionary()
    )

    def __init__(
        self,
        client: JobsClient,
        *,
        patience: Patience | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Any] = asyncio.sleep,
        on_idle: Callable[[], object] = lambda: None,
    ) -> None:
        self._client = client
        self._patience = patience or Patience()
        self._clock = clock
        self._sleep = sleep
        self._threads = _DaemonThreads(4, name="airflow_dbjobs-poller")
        # A cancellation has 30 s: it must not wait behind polls that hang.
        self._cancelling = _DaemonThreads(2, name="airflow_dbjobs-cancel")
        self._on_idle = on_idle
        self._users = 0

    @classmethod
    def shared(cls, client: JobsClient) -> RunPoller:
        """Return this event loop's poller for the workspace and credentials of `client`, made at the first call."""
        pollers = cls._shared.setdefault(asyncio.get_running_loop(), {})
        key = (client.transport.identity, client.api_version)
        if key not in pollers:
            pollers[key] = cls(client, on_idle=lambda: pollers.pop(key, None))
        return pollers[key]

    async def wait(
        self, run_id: int, *, period: float = DEFAULT_PERIOD, on_change: Callable[[Run], None] = lambda _: None
    ) -> Run:
        """Return the run when it is over; `on_change` as in `wait_for_run`, in the event loop. Raises RunLost."""
        watch = Watch(run_id, period, self._patience, self._clock, on_change)
        with self._in_use():
            while True:
                try:
                    run = await self._ask(run_id)
                    wait = watch.answered(run)
                except CallError as error:
                    wait = watch.failed(error)
                else:
                    if wait is None:
                        return run
                await self._sleep(wait)

    async def cancel(self, run_id: int) -> None:
        """Ask the API to cancel a run, within the 30 s that Airflow gives. Raises CallError."""
        quick = self._client.with_policy(CANCEL_POLICY)
        with self._in_use(), closing(quick):
            await self._cancelling.run(lambda: quick.cancel_run(run_id))

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
                self._threads.stop()
                self._cancelling.stop()
                self._client.close()

    async def _ask(self, run_id: int) -> Run:
        return await self._threads.run(lambda: self._client.poll_run(run_id))


class _DaemonThreads:
    """Runs blocking calls for an event loop in at most `limit` daemon threads, started as they are needed."""

    def __init__(self, limit: int, *, name: str) -> None:
        self._limit = limit
        self._name = name
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._started = 0
        self._pending = 0

    async def run(self, call: Callable[[], T]) -> T:
        """Return what `call` returns, or raise what it raises, without blocking the event loop."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def work() -> None:
            try:
                result = call()
            except Exception as error:  # noqa: BLE001 (it is raised where it is awaited)
                self._settle(loop, future, future.set_exception, error)
            else:
                self._settle(loop, future, future.set_result, result)

        self._pending += 1
        if self._started < min(self._limit, self._pending):
            self._started += 1
            threading.Thread(target=self._serve, args=(self._calls,), name=self._name, daemon=True).start()
        self._calls.put(work)
        return await future

    def _settle(
        self,
        loop: asyncio.AbstractEventLoop,
        future: asyncio.Future[Any],
        setter: Callable[[V], None],
        value: V,
    ) -> None:
        """Settle `future` in its loop, unless who waited for it has gone, or the loop has."""

        def in_loop() -> None:
            # Only now is the thread free, however early who waited has gone.
            self._pending -= 1
            if not future.done():
                setter(value)

        # A loop that is closed takes no calls: the process is on its way out, and nobody waits.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(in_loop)

    def stop(self) -> None:
        """Let the threads end when they have done what they were given; the next `run` starts new ones."""
        for _ in range(self._started):
            self._calls.put(None)
        self._calls, self._started = queue.SimpleQueue(), 0

    @staticmethod
    def _serve(calls: queue.SimpleQueue[Callable[[], None] | None]) -> None:
        while work := calls.get():
            work()
