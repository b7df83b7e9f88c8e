"""Blocking calls for an event loop, in a few daemon threads.

Neither asyncio's default executor nor ``ThreadPoolExecutor`` is used: their threads are joined at exit, so that a
request that hangs would hold up the triggerer.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, TypeVar

from airflow_dbjobs.errors import Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class DaemonThreads:
    """Runs blocking calls for one event loop in at most `limit` daemon threads, started as they are needed.

    A call that is given up (who waits for it is cancelled) is not begun any more. If it was, its thread is left to it
    and another takes its place: it may go on for long.
    """

    def __init__(self, limit: int, *, name: str) -> None:
        self._limit = limit
        self._name = name
        self._calls: queue.SimpleQueue[_Call[object] | None] = queue.SimpleQueue()
        self._started = 0
        self._pending = 0

    async def run(self, call: Callable[[], T]) -> T:
        """Return what `call` returns, or raise what it raises, without blocking the event loop.

        Raises errors.Unreachable where no thread can be had.
        """
        work = _Call(call, self._ended)
        if self._started < min(self._limit, self._pending + 1) and not self._start_thread() and not self._started:
            raise Unreachable("This machine has no thread left to ask with", sent=False)
        self._pending += 1
        calls = self._calls
        calls.put(work)  # type: ignore[arg-type] # a thread does not look at what comes of it
        try:
            return await work.future
        except asyncio.CancelledError:
            # Not after `stop`, which has told the threads of these calls to end.
            if work.is_being_made() and calls is self._calls and self._start_thread():
                self._started -= 1
                if not work.leave():
                    # It has just ended, and there is one thread too many.
                    calls.put(None)
            raise

    def stop(self) -> None:
        """Let the threads end when they have done what they were given; the next `run` starts new ones."""
        for _ in range(self._started):
            self._calls.put(None)
        self._calls, self._started = queue.SimpleQueue(), 0

    def _start_thread(self) -> bool:
        """Start one more; return whether there was one to be had."""
        try:
            threading.Thread(target=_serve, args=(self._calls,), name=self._name, daemon=True).start()
        except RuntimeError:
            return False
        self._started += 1
        return True

    def _ended(self) -> None:
        self._pending -= 1


class _Call(Generic[T]):
    """A call on its way from the event loop to a thread and back. `ended` is called in the loop when it is over."""

    def __init__(self, call: Callable[[], T], ended: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[T] = self._loop.create_future()
        self._call = call
        self._ended = ended
        self._lock = threading.Lock()
        self._is_being_made = False
        self._is_left = False

    def is_being_made(self) -> bool:
        """Whether a thread is at it."""
        with self._lock:
            return self._is_being_made

    def leave(self) -> bool:
        """Leave the thread that is at it to it, since another has its place; return whether one is at it still."""
        with self._lock:
            self._is_left = self._is_being_made
            return self._is_left

    def make(self) -> bool:
        """Make the call, in a thread; return whether that thread is to go on to the next one."""
        with self._lock:
            # It is done where nobody waits any more.
            self._is_being_made = not self.future.done()
        settle = self._make() if self._is_being_made else lambda: None
        with self._lock:
            self._is_being_made = False
        # A loop that is closed takes no calls: the process is on its way out, and nobody waits.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._settle, settle)
        return not self._is_left

    def _make(self) -> Callable[[], None]:
        """Return what tells the loop what came of it."""
        try:
            result = self._call()
        except StopIteration as error:
            # Which no future takes.
            failure: Exception = RuntimeError(repr(error))
        except Exception as error:  # noqa: BLE001 (it is raised where it is awaited)
            failure = error
        except BaseException as error:  # noqa: BLE001 (as it is; a panic in pydantic's Rust is one, and ends no thread)
            failure = RuntimeError(repr(error))
        else:
            return lambda: self.future.set_result(result)
        return lambda: self.future.set_exception(failure)

    def _settle(self, settle: Callable[[], None]) -> None:
        # Only now is the thread free, however early who waited has gone.
        self._ended()
        if not self.future.done():
            settle()


def _serve(calls: queue.SimpleQueue[_Call[object] | None]) -> None:
    while (call := calls.get()) and call.make():
        pass
