"""A clock for tests of what takes minutes, and how the clients that a hook makes get another one."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING

from airflow_dbjobs.client import clock as module

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from airflow_dbjobs.client import JobsClient


class Clock(module.Clock):
    """Time that passes only while somebody sleeps; `at` says what happens when."""

    piece = math.inf

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []
        self.at: dict[float, Callable[[], object]] = {}

    def __call__(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self()

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds
        for due in sorted(moment for moment in self.at if moment <= self.now):
            self.at.pop(due)()

    async def sleep_async(self, seconds: float) -> None:
        self.sleep(seconds)
        await asyncio.sleep(0)

    def rule(self, client: JobsClient) -> None:
        """Let the client's time be this one."""
        client.transport.clock = self


class CallingClock(module.Clock):
    """A clock of functions."""

    piece = math.inf

    def __init__(self, monotonic: Callable[[], float], sleep: Callable[[float], object]) -> None:
        # Clients share their view of a workspace's rate limit only if they read the same clock.
        self.monotonic = monotonic  # type: ignore[method-assign]
        self.sleep = sleep  # type: ignore[method-assign, assignment]


def rule_all(monkeypatch: pytest.MonkeyPatch, **functions: Callable[..., object]) -> None:
    """Let the clock of every client that nobody has given one use these functions."""
    monkeypatch.setattr(module.Clock, "piece", math.inf)
    for name, function in functions.items():
        monkeypatch.setattr(module.Clock, name, staticmethod(function))


def shorten_waits(monkeypatch: pytest.MonkeyPatch, longest: float) -> None:
    """Let no client wait for more than `longest` seconds: what it waits for comes at once, in real time."""
    rule_all(monkeypatch, sleep=lambda seconds: time.sleep(min(seconds, longest)))
