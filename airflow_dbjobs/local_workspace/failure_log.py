"""Logs failures of the workspace itself, each reason once a minute, however often it recurs."""

from __future__ import annotations

import logging
import sqlite3
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

#: Not bugs: a full disk, a damaged or missing file. A traceback would add nothing to the message.
_EXTERNAL: Final = (sqlite3.Error, OSError)
_QUIET_SECONDS: Final = 60


class FailureLog:
    """Logs failures without repeating itself; `clock` counts seconds from any start."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._logged_at: dict[str, float] = {}

    def report(self, what: str, error: Exception) -> str:
        """Log that `what` failed, unless the reason was logged in the last minute; return a message for the caller."""
        reason, now = f"{type(error).__name__}: {error}", self._clock()
        self._logged_at = {other: at for other, at in self._logged_at.items() if now - at < _QUIET_SECONDS}
        is_bug = not isinstance(error, _EXTERNAL)
        if reason not in self._logged_at:
            self._logged_at[reason] = now
            log.error("%s: %s", what, error, exc_info=error if is_bug else None)
        return "The local workspace failed; see its log." if is_bug else f"The local workspace failed: {error}."
