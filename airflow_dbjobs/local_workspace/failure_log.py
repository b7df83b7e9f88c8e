"""What the log says when the workspace itself fails: each reason once a minute, however often it fails."""

from __future__ import annotations

import logging
import sqlite3
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

#: Not our mistakes: a full disk, a file that is damaged or gone. A traceback would say no more than the message.
_OUTSIDE: Final = (sqlite3.Error, OSError)
_QUIET_SECONDS: Final = 60


class Trouble:
    """Logs failures. `clock` is the time in seconds, from any start."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told_at: dict[str, float] = {}

    def tell(self, what: str, error: Exception) -> str:
        """Log that `what` failed, unless the log has the same reason already; return a message for who called."""
        reason, now = f"{type(error).__name__}: {error}", self._clock()
        self._told_at = {other: at for other, at in self._told_at.items() if now - at < _QUIET_SECONDS}
        ours = not isinstance(error, _OUTSIDE)
        if reason not in self._told_at:
            self._told_at[reason] = now
            log.error("%s: %s", what, error, exc_info=error if ours else None)
        return "The local workspace failed; its log says why." if ours else f"The local workspace failed: {error}."
