"""Blocking calls in daemon threads: one that fails or hangs delays no other."""

from __future__ import annotations

import asyncio
import threading

import pytest

from airflow_dbjobs.runs.polling.threads import DaemonThreads


class Trickle:
    """A call that blocks until it is released."""

    def __init__(self) -> None:
        self.begun, self.release = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.begun.set()
        self.release.wait(20)

    async def begun_in(self, threads: DaemonThreads) -> asyncio.Task[None]:
        """Return the task that awaits the call, once a thread has begun it."""
        waiting = asyncio.create_task(threads.run(self))
        while not self.begun.is_set():  # noqa: ASYNC110 (another thread sets it)
            await asyncio.sleep(0.001)
        return waiting


class Panic(BaseException):
    """As Rust code raises it: not an Exception."""


class TestErrors:
    def test_panic_is_raised_and_thread_survives(self) -> None:
        def panic() -> None:
            raise Panic("in Rust")

        async def scene() -> int:
            threads = DaemonThreads(1, name="test-threads")
            with pytest.raises(RuntimeError, match="in Rust"):
                await threads.run(panic)
            async with asyncio.timeout(10):
                answer = await threads.run(lambda: 7)
            threads.stop()
            return answer

        assert asyncio.run(scene()) == 7

    def test_stop_iteration_is_raised_as_runtime_error(self) -> None:
        # A future rejects StopIteration.
        async def scene() -> None:
            threads = DaemonThreads(1, name="test-threads")
            async with asyncio.timeout(10):
                with pytest.raises(RuntimeError, match="StopIteration"):
                    await threads.run(lambda: next(iter(())))
            threads.stop()

        asyncio.run(scene())


class TestCancelledCall:
    def test_next_call_gets_a_new_thread(self) -> None:
        trickles = Trickle()

        async def scene() -> str:
            threads = DaemonThreads(1, name="test-threads")
            async with asyncio.timeout(10):
                cancelled = await trickles.begun_in(threads)
                cancelled.cancel()
                answer = await threads.run(lambda: "in time")
            threads.stop()
            trickles.release.set()
            return answer

        assert asyncio.run(scene()) == "in time"

    def test_leaves_no_thread_too_many_after_its_end(self) -> None:
        trickles = Trickle()

        def alive() -> int:
            return sum(thread.name == "test-cancelled" for thread in threading.enumerate())

        async def scene() -> None:
            threads = DaemonThreads(1, name="test-cancelled")
            async with asyncio.timeout(10):
                cancelled = await trickles.begun_in(threads)
                cancelled.cancel()
                await threads.run(lambda: None)
                assert alive() == 2
                trickles.release.set()
                while alive() > 1:  # noqa: ASYNC110 (threads end it)
                    await asyncio.sleep(0.001)
                # The other one still serves.
                await threads.run(lambda: None)
                assert alive() == 1
            threads.stop()

        asyncio.run(scene())

    def test_queued_call_runs_when_no_thread_can_be_started(
        self,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        trickles = Trickle()

        def no_more(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        async def scene() -> str:
            threads = DaemonThreads(1, name="test-threads")
            async with asyncio.timeout(10):
                cancelled = await trickles.begun_in(threads)
                behind = asyncio.create_task(threads.run(lambda: "done"))
                await asyncio.sleep(0)
                monkeypatch.setattr(threading.Thread, "start", no_more)
                cancelled.cancel()
                await asyncio.wait([cancelled])
                trickles.release.set()
                answer = await behind
            threads.stop()
            return answer

        assert asyncio.run(scene()) == "done"

    def test_queued_call_runs_after_stop(self) -> None:
        trickles = Trickle()

        async def scene() -> str:
            threads = DaemonThreads(1, name="test-threads")
            async with asyncio.timeout(10):
                cancelled = await trickles.begun_in(threads)
                behind = asyncio.create_task(threads.run(lambda: "done"))
                await asyncio.sleep(0)
                threads.stop()
                cancelled.cancel()
                await asyncio.wait([cancelled])
                trickles.release.set()
                return await behind

        assert asyncio.run(scene()) == "done"
