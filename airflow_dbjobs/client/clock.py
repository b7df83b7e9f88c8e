"""The clock of this machine as an object, so that tests can pass one in which minutes take milliseconds."""

from __future__ import annotations

import time


class Clock:
    """Reads the time and sleeps."""

    #: An interruptible wait sleeps for at most this many seconds before it checks for the interruption.
    piece = 0.5

    def monotonic(self) -> float:
        """Return monotonic seconds."""
        return time.monotonic()

    def time(self) -> float:
        """Return the time of day in epoch seconds."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Sleep."""
        time.sleep(seconds)


#: A single object, because clients share their view of a workspace's rate limit only if they share the clock.
SYSTEM_CLOCK = Clock()
