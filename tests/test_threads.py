"""threads: blocking calls for an event loop, of which none that goes wrong or on for ever holds the others up."""

from __future__ import annotations

import asyncio
import threading

import pytest

from airflow_dbjobs.runs.polling.threads import DaemonThreads


class Trickle:
    """A call that goes on until it is told not to."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.begun.set()
        self.go_on.wait(20)

    async def begun_in(self, threads: DaemonThreads) -> asyncio.Task[None]:
        """Return what waits for the call, when a thread is at it."""
        waiting = asyncio.create_task(threads.run(self))
        while not self.begun.is_set():  # noqa: ASYNC110 (another thread sets it)
            await asyncio.sleep(0.001)
        return waiting


class Panic(BaseException):
    """What Rust raises: no Exception."""


def test_a_call_that_is_given_up_leaves_the_next_one_a_thread() -> None:
    trickles = Trickle()

    async def scene() -> str:
        threads = DaemonThreads(1, name="test-threads")
        async with asyncio.timeout(10):
            given_up = await trickles.begun_in(threads)
            given_up.cancel()
            answer = await threads.run(lambda: "in time")
        threads.stop()
        trickles.go_on.set()
        return answer

    assert asyncio.run(scene()) == "in time"


def test_a_call_that_panics_is_an_error_of_its_own_and_ends_no_thread() -> None:
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


def test_a_call_that_stops_an_iteration_is_an_error_like_any_other() -> None:
    # No future takes a StopIteration.
    async def scene() -> None:
        threads = DaemonThreads(1, name="test-threads")
        async with asyncio.timeout(10):
            with pytest.raises(RuntimeError, match="StopIteration"):
                await threads.run(lambda: next(iter(())))
        threads.stop()

    asyncio.run(scene())


def test_what_waits_behind_a_call_that_is_given_up_is_done_where_no_thread_can_replace_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trickles = Trickle()

    def no_more(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def scene() -> str:
        threads = DaemonThreads(1, name="test-threads")
        async with asyncio.timeout(10):
            given_up = await trickles.begun_in(threads)
            behind = asyncio.create_task(threads.run(lambda: "done"))
            await asyncio.sleep(0)
            monkeypatch.setattr(threading.Thread, "start", no_more)
            given_up.cancel()
            await asyncio.wait([given_up])
            trickles.go_on.set()
            answer = await behind
        threads.stop()
        return answer

    assert asyncio.run(scene()) == "done"


def test_what_was_given_before_the_stop_is_done_though_the_call_before_it_is_given_up() -> None:
    trickles = Trickle()

    async def scene() -> str:
        threads = DaemonThreads(1, name="test-threads")
        async with asyncio.timeout(10):
            given_up = await trickles.begun_in(threads)
            behind = asyncio.create_task(threads.run(lambda: "done"))
            await asyncio.sleep(0)
            threads.stop()
            given_up.cancel()
            await asyncio.wait([given_up])
            trickles.go_on.set()
            return await behind

    assert asyncio.run(scene()) == "done"
