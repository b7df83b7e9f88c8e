"""Time that leaps over waits."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

import pytest

from airflow_dbjobs.local_workspace.testing.time_leap import TimeLeap

if TYPE_CHECKING:
    from collections.abc import Iterator

REAL = time.perf_counter
# Far more than anything here takes, and far less than what is leapt over.
MOST = 20.0


@pytest.fixture(autouse=True)
def leap() -> Iterator[TimeLeap]:
    began = REAL()
    with TimeLeap() as leap:
        yield leap
    assert REAL() - began < MOST


class TestSleep:
    def test_moves_both_clocks(self) -> None:
        monotonic, epoch = time.monotonic(), time.time()
        time.sleep(3600)
        assert 3600 <= time.monotonic() - monotonic < 3600 + MOST
        assert 3600 <= time.time() - epoch < 3600 + MOST

    def test_is_real_in_other_threads(self) -> None:
        began = REAL()
        thread = threading.Thread(target=time.sleep, args=(0.05,))
        thread.start()
        thread.join()
        assert REAL() - began >= 0.05


class TestEventLoop:
    def test_leaps_to_its_timers_in_their_order(self) -> None:
        async def story() -> list[int]:
            woken: list[int] = []

            async def sleep(minutes: int) -> None:
                await asyncio.sleep(minutes * 60)
                woken.append(minutes)

            await asyncio.gather(sleep(60), sleep(5), sleep(30))
            return woken

        began = time.monotonic()
        assert asyncio.run(story()) == [5, 30, 60]
        assert 3600 <= time.monotonic() - began < 3600 + MOST

    def test_leaps_over_nothing_while_a_thread_works_for_it(self) -> None:
        async def story() -> bool:
            # It would leap to this limit.
            async with asyncio.timeout(3600):
                return await asyncio.to_thread(threading.Event().wait, 0.05)

        began = time.monotonic()
        assert asyncio.run(story()) is False
        assert time.monotonic() - began < MOST


def test_all_is_real_after_the_block() -> None:
    with TimeLeap():
        time.sleep(3600)
        ahead = time.time()
    assert time.time() < ahead - 3000
