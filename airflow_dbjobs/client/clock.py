"""The time of this machine, as one object: tests pass another, so that minutes pass in milliseconds."""

from __future__ import annotations

import time


class Clock:
    """Reads the time, and sleeps."""

    #: The longest sleep, in seconds, that nothing interrupts.
    piece = 0.5

    def monotonic(self) -> float:
        """Return monotonic seconds."""
        return time.monotonic()

    def time(self) -> float:
        """Return the time of day in epoch seconds."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


#: One object: clients whose clock is the same share what they know of a workspace's rate limit.
SYSTEM_CLOCK = Clock()
