"""Runs blocking calls for an event loop in a few daemon threads.

asyncio's default executor and ``ThreadPoolExecutor`` join their threads at exit, so that a hanging request would delay
the exit of the triggerer. These threads are not joined.
"""

from __future__ import annotations

import asyncio
import queue
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, TypeVar

from airflow_dbjobs.errors import Unreachable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

T = TypeVar("T")

# How long a loop over many items may block the event loop.
_SLICE_SECONDS = 0.005


class DaemonThreads:
    """Runs blocking calls for one event loop in at most `limit` daemon threads, started on demand.

    Cancelling `run` drops a call that has not started yet. A call that has started keeps its thread, possibly for long,
    and another thread replaces that one.
    """

    def __init__(self, limit: int, *, name: str) -> None:
        self._limit = limit
        self._name = name
        self._calls: queue.SimpleQueue[_Call[object] | None] = queue.SimpleQueue()
        self._started = 0
        self._pending = 0

    async def run(self, call: Callable[[], T]) -> T:
        """Return what `call` returns, or raise what it raises, without blocking the event loop.

        Raises errors.Unreachable if no thread can be started.
        """
        work = _Call(call, self._call_ended)
        if self._started < min(self._limit, self._pending + 1) and not self._start_thread() and not self._started:
            raise Unreachable("Cannot start another thread (system limit reached)", sent=False)
        self._pending += 1
        calls = self._calls
        calls.put(work)  # type: ignore[arg-type] # a thread ignores the type of the result
        try:
            return await work.future
        except asyncio.CancelledError:
            # After `stop`, which ends the threads of these calls, there is nothing to replace.
            if work.is_running() and calls is self._calls and self._start_thread():
                self._started -= 1
                if not work.detach():
                    # The call has just ended, which leaves one thread too many.
                    calls.put(None)
            raise

    def stop(self) -> None:
        """Let the threads end once they have made the calls they were given; the next `run` starts new ones."""
        for _ in range(self._started):
            self._calls.put(None)
        self._calls, self._started = queue.SimpleQueue(), 0

    def _start_thread(self) -> bool:
        """Start a thread; return False if the system allows no more."""
        try:
            threading.Thread(target=_serve, args=(self._calls,), name=self._name, daemon=True).start()
        except RuntimeError:
            return False
        self._started += 1
        return True

    def _call_ended(self) -> None:
        self._pending -= 1


async def respond_within(seconds: float, host: str, call: Awaitable[T]) -> T:
    """Return the result of a call to `host`. Raises errors.Unreachable if it takes more than `seconds`.

    `requests` limits the time between two reads, and so never ends a reply that trickles.
    """
    try:
        async with asyncio.timeout(seconds) as limit:
            return await call
    except TimeoutError:
        if not limit.expired():
            # The call itself raised it.
            raise
        raise Unreachable(f"{host} did not answer in full within {seconds:.0f} s") from None


async def in_slices(items: Iterable[T], most: int = sys.maxsize) -> AsyncIterator[T]:
    """Yield items, and let the event loop run in between before they, or `most` of them, have blocked it for long."""
    began = time.perf_counter()
    for number, item in enumerate(items, 1):
        yield item
        if number % most == 0 or time.perf_counter() - began > _SLICE_SECONDS:
            await asyncio.sleep(0)
            began = time.perf_counter()


class _Call(Generic[T]):
    """A call that the event loop hands to a thread, and whose result goes back. `on_end` is called in the loop."""

    def __init__(self, call: Callable[[], T], on_end: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[T] = self._loop.create_future()
        self._call = call
        self._on_end = on_end
        self._lock = threading.Lock()
        self._is_running = False
        self._is_detached = False

    def is_running(self) -> bool:
        """Return whether a thread is making the call."""
        with self._lock:
            return self._is_running

    def detach(self) -> bool:
        """Let the thread end after this call, since another replaces it; return False if the call has ended."""
        with self._lock:
            self._is_detached = self._is_running
            return self._is_detached

    def execute(self) -> bool:
        """Make the call, in a thread; return whether that thread should take another one."""
        with self._lock:
            # The future is done where the caller was cancelled.
            self._is_running = not self.future.done()
        deliver = self._outcome() if self._is_running else lambda: None
        with self._lock:
            self._is_running = False
        # A closed loop takes no calls: the process is exiting, and nothing awaits the result.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._end, deliver)
        return not self._is_detached

    def _outcome(self) -> Callable[[], None]:
        """Make the call; return the function that passes its result or error to the future."""
        try:
            result = self._call()
        except StopIteration as error:
            # A future rejects StopIteration.
            failure: Exception = RuntimeError(repr(error))
        except Exception as error:  # noqa: BLE001 (it is raised where it is awaited)
            failure = error
        except BaseException as error:  # noqa: BLE001 (a panic in a Rust extension is one, and must not end the thread)
            failure = RuntimeError(repr(error))
        else:
            return lambda: self.future.set_result(result)
        return lambda: self.future.set_exception(failure)

    def _end(self, deliver: Callable[[], None]) -> None:
        # The thread was busy until now, even if the caller was cancelled long ago.
        self._on_end()
        if not self.future.done():
            deliver()


def _serve(calls: queue.SimpleQueue[_Call[object] | None]) -> None:
    while (call := calls.get()) and call.execute():
        pass
