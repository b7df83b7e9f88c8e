"""Calls that take no longer than they may, whatever they wait for: a library, a user's function, a slow server."""

from __future__ import annotations

import contextvars
import queue
import threading
from typing import TYPE_CHECKING, TypeVar

from airflow_dbjobs.errors import Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

T = TypeVar("T")

# What is waited for beside, so that a call that watches its time itself is the one to say what was late.
_GRACE_SECONDS = 0.25
# How many calls of one kind may hang at a time: a triggerer lives for months.
_MOST_HANGING = 5


class BoundedCalls:
    """Makes calls in threads of their own, and leaves those that do not end in time to themselves."""

    def __init__(self) -> None:
        self._threads: list[tuple[Hashable, threading.Thread]] = []

    def run(self, call: Callable[[], T], seconds: float, kind: Hashable) -> T:
        """Return what `call` returns, or raise what it raises.

        Raises Unreachable, with ``sent`` False, where it takes longer than so many seconds, where too many of its
        `kind` hang, or where no thread can be had.
        """
        self._threads = [(other, thread) for other, thread in self._threads if thread.is_alive()]
        if sum(other == kind for other, _ in self._threads) >= _MOST_HANGING:
            raise Unreachable(f"{_MOST_HANGING} requests for a token hang, so that none is begun: {kind!r}", sent=False)
        answers: queue.SimpleQueue[Callable[[], T]] = queue.SimpleQueue()
        # What is logged in the thread goes where the caller's log goes.
        context = contextvars.copy_context()
        thread = threading.Thread(
            target=lambda: answers.put(_outcome(lambda: context.run(call))), name="airflow_dbjobs-token", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:
            raise Unreachable("This machine has no thread left to ask for a token with", sent=False) from None
        self._threads.append((kind, thread))
        try:
            answer = answers.get(timeout=seconds + _GRACE_SECONDS)
        except queue.Empty:
            raise Unreachable(f"No token came within {seconds:.3g} s: {kind!r}", sent=False) from None
        return answer()


def _outcome(call: Callable[[], T]) -> Callable[[], T]:
    """Make a call; return what returns or raises what came of it."""
    try:
        result = call()
    except BaseException as error:  # noqa: BLE001 (it is raised where it is waited for)
        failure = error
    else:
        return lambda: result

    def fail() -> T:
        raise failure

    return fail
