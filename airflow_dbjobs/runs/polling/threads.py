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
from typing import TYPE_CHECKING, TypeVar

from airflow_dbjobs.errors import Unreachable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

T = TypeVar("T")

# How long a loop over many items may block the event loop.
_SLICE_SECONDS = 0.005


class DaemonThreads:
    """Runs blocking calls for one event loop in daemon threads, started on demand, at most `limit` of them at a time.

    Cancelling `run` drops a call that has not started yet. A call that has started keeps its thread, possibly for long,
    but no longer counts.
    """

    def __init__(self, limit: int, *, name: str) -> None:
        self._limit = limit
        self._name = name
        self._turns = asyncio.Semaphore(limit)
        self._calls: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._started = 0
        # How many calls the threads have or will get, whether or not a caller still waits for them.
        self._pending = 0

    async def run(self, call: Callable[[], T]) -> T:
        """Return what `call` returns, or raise what it raises, without blocking the event loop.

        Raises errors.Unreachable if no thread can be started.
        """
        async with self._turns:
            if self._started <= self._pending and not self._start_thread() and not self._started:
                raise Unreachable("Cannot start another thread (system limit reached)", sent=False)
            future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
            self._pending += 1
            self._calls.put(lambda: self._execute(call, future))
            return await future

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

    def _execute(self, call: Callable[[], T], future: asyncio.Future[T]) -> None:
        """Make a call in a thread, unless its caller was cancelled, and hand its outcome to the event loop."""
        deliver = (lambda: None) if future.done() else _outcome(call, future)
        # A closed loop takes no calls: the process is exiting, and nothing awaits the result.
        with suppress(RuntimeError):
            future.get_loop().call_soon_threadsafe(self._end, future, deliver)

    def _end(self, future: asyncio.Future[T], deliver: Callable[[], None]) -> None:
        self._pending -= 1
        if not future.done():
            deliver()
        elif self._started > self._limit:
            # Another thread was started because this call kept one after its caller was cancelled.
            self._started -= 1
            self._calls.put(None)


def _outcome(call: Callable[[], T], future: asyncio.Future[T]) -> Callable[[], None]:
    """Make a call; return the function that passes its result or error to the future."""
    try:
        result = call()
    except StopIteration as error:
        # A future rejects StopIteration.
        failure: Exception = RuntimeError(repr(error))
    except Exception as error:  # noqa: BLE001 (it is raised where it is awaited)
        failure = error
    except BaseException as error:  # noqa: BLE001 (a panic in a Rust extension is one, and must not end the thread)
        failure = RuntimeError(repr(error))
    else:
        return lambda: future.set_result(result)
    return lambda: future.set_exception(failure)


def _serve(calls: queue.SimpleQueue[Callable[[], object] | None]) -> None:
    while call := calls.get():
        call()


async def respond_within(seconds: float, host: str, call: Awaitable[T]) -> T:
    """Return the result of a call to `host`. Raises errors.Unreachable if it takes more than `seconds`.

    Each request has a time limit; this one also holds where a library below does not keep it.
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
