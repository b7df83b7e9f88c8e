"""Time that leaps over waits: who sleeps wakes up at once, and the clock of the process has moved on."""

from __future__ import annotations

import asyncio
import selectors
import signal
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Self
from unittest import mock

if TYPE_CHECKING:
    from asyncio import Future
    from concurrent.futures import Executor

_REAL_SLEEP = time.sleep
# While a thread works for an event loop, the loop looks so often whether it has ended, in real seconds.
_THREAD_WAIT = 0.05
# Of real time, for a signal to arrive.
_SIGNAL_WAIT = 5.0


class TimeLeap:
    """A block in which its thread's ``time.sleep``, and the event loops of ``asyncio.run``, wait no real time.

    ``time.time`` and ``time.monotonic`` are the real ones plus what was leapt over; ``datetime.now`` stays real.
    """

    def __init__(self) -> None:
        self._ahead = 0.0
        self._thread = threading.get_ident()
        self._patches = mock.patch.multiple(
            time, time=self._shifted(time.time), monotonic=self._shifted(time.monotonic), sleep=self._sleep
        )
        self._loop_patch = mock.patch.object(asyncio.events, "new_event_loop", partial(LeapingLoop, self))

    def __enter__(self) -> Self:
        self._patches.start()
        self._loop_patch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop_patch.stop()
        self._patches.stop()

    def leap(self, seconds: float) -> None:
        """Let that much time pass at once. A time limit of Airflow's for the running task passes with it."""
        left = _airflow_alarm()
        if left and left <= seconds:
            self._ahead += left
            signal.setitimer(signal.ITIMER_REAL, 1e-6)
            # The signal's handler raises.
            _REAL_SLEEP(_SIGNAL_WAIT)
            return
        if left:
            signal.setitimer(signal.ITIMER_REAL, left - seconds)
        self._ahead += max(0.0, seconds)

    def _sleep(self, seconds: float) -> None:
        if threading.get_ident() != self._thread:
            _REAL_SLEEP(seconds)
            return
        # Other threads get their turn.
        _REAL_SLEEP(0)
        self.leap(seconds)

    def _shifted(self, clock: Any) -> Any:
        return lambda: clock() + self._ahead


def _airflow_alarm() -> float:
    """Return the seconds until Airflow ends the task of the main thread for its ``execution_timeout``; 0 without."""
    owner = getattr(signal.getsignal(signal.SIGALRM), "__self__", None)
    if threading.current_thread() is not threading.main_thread() or not type(owner).__module__.startswith("airflow."):
        return 0.0
    return signal.getitimer(signal.ITIMER_REAL)[0]


class LeapingLoop(asyncio.SelectorEventLoop):
    """An event loop that leaps to its next timer, unless a thread works for it."""

    def __init__(self, time_leap: TimeLeap) -> None:
        self.time_leap = time_leap
        self._in_threads: set[Future[Any]] = set()
        super().__init__(_LeapingSelector(self))

    def run_in_executor(self, executor: Executor | None, func: Any, *args: Any) -> Any:  # type: ignore[override] # simpler
        """Run a function in a thread, during which no time is leapt over."""
        future = super().run_in_executor(executor, func, *args)
        self._in_threads.add(future)
        future.add_done_callback(self._in_threads.discard)
        return future

    @property
    def is_working(self) -> bool:
        """Whether a thread works for this loop."""
        return bool(self._in_threads)


class _LeapingSelector(selectors.DefaultSelector):
    def __init__(self, loop: LeapingLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        """Return what is ready; if nothing is, leap, or wait for a thread."""
        if timeout is None:
            return super().select(None)
        ready = super().select(0)
        if ready or timeout <= 0:
            return ready
        if self._loop.is_working:
            return super().select(min(timeout, _THREAD_WAIT))
        self._loop.time_leap.leap(timeout)
        return []
