"""Blocking calls for an event loop, in a few daemon threads.

Neither asyncio's default executor nor ``ThreadPoolExecutor`` is used: their threads are joined at exit, so that a
request that hangs would hold up the triggerer.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_dbjobs.errors import Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
V = TypeVar("V")


class DaemonThreads:
    """Runs blocking calls for one event loop in at most `limit` daemon threads, started as they are needed."""

    def __init__(self, limit: int, *, name: str) -> None:
        self._limit = limit
        self._name = name
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._started = 0
        self._pending = 0

    async def run(self, call: Callable[[], T]) -> T:
        """Return what `call` returns, or raise what it raises, without blocking the event loop.

        Raises errors.Unreachable where no thread can be had.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        begun = False

        def work() -> None:
            nonlocal begun
            if future.done():
                # Who waited has gone, and may have told that it was not done.
                self._settle(loop, future, lambda _: None, None)
                return
            begun = True
            try:
                result = call()
            except Exception as error:  # noqa: BLE001 (it is raised where it is awaited)
                self._settle(loop, future, future.set_exception, error)
            except BaseException as error:  # noqa: BLE001 (as it is; a panic in pydantic's Rust is one, and ends no thread)
                self._settle(loop, future, future.set_exception, RuntimeError(repr(error)))
            else:
                self._settle(loop, future, future.set_result, result)

        if self._started < min(self._limit, self._pending + 1):
            self._start_thread()
        self._pending += 1
        self._calls.put(work)
        try:
            return await future
        except asyncio.CancelledError:
            if begun:
                # It may go on for long, and who gave it up has more to do: the thread is left to it.
                self.stop()
            raise

    def _start_thread(self) -> None:
        """Start one more. Raises Unreachable where none is to be had, and there is none that could do the work."""
        try:
            threading.Thread(target=self._serve, args=(self._calls,), name=self._name, daemon=True).start()
        except RuntimeError as error:
            if not self._started:
                raise Unreachable("This machine has no thread left to ask with", sent=False) from error
        else:
            self._started += 1

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
