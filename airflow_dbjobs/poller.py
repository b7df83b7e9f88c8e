"""The shared poller: one per workspace, credentials and event loop, for all triggers of a triggerer.

``RunPoller`` asks ``runs/get`` for each run it watches. Everything else (who shares a poller, its threads and
connections, periods, outages) is as it stays when a listing answers for many runs at once: that goes into
``RunPoller._ask``.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import weakref
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from airflow_dbjobs.errors import CallError
from airflow_dbjobs.retries import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_dbjobs.client import JobsClient
    from airflow_dbjobs.runs import Run
    from airflow_dbjobs.waiting import Watch

T = TypeVar("T")
V = TypeVar("V")

# Airflow gives a trigger's `on_kill` 30 s.
CANCEL_POLICY = RetryPolicy(
    retry_budget=25.0, server_error_wait=0.5, connect_timeout=5.0, read_timeout=10.0, first_wait=0.5
)


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
        sleep: Callable[[float], Any] = asyncio.sleep,
        on_idle: Callable[[], object] = lambda: None,
    ) -> None:
        self._client = client
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

    async def wait(self, watch: Watch) -> Run | None:
        """Return the run of `watch` when it is over. Raises RunLost.

        Returns None, after the wait that is due, where the credentials were refused: ask again with a poller of
        credentials that were read anew, or with this one.
        """
        with self._in_use():
            while True:
                watch.asks()
                try:
                    run = await self._ask(watch.run_id)
                    wait = watch.answered(run)
                except CallError as error:
                    wait = watch.failed(error)
                else:
                    if wait is None:
                        return run
                await self._sleep(wait)
                if watch.refused:
                    return None

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
