"""Why a task cannot start."""

from __future__ import annotations


class CannotRunError(Exception):
    """A task cannot start. `code` is its termination code."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code
