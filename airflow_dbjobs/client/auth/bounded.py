"""Calls that take no longer than they may, whatever they wait for: a library, a user's function, a slow server."""

from __future__ import annotations

import contextvars
import queue
import threading
import time
from typing import TYPE_CHECKING, TypeVar

from airflow_dbjobs.errors import SignInRefused, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

T = TypeVar("T")

# What is waited for beside, so that a call that watches its time itself is the one to say what was late.
_GRACE_SECONDS = 0.25
# So many calls of one source may hang, and then one more begins now and then: a triggerer lives for months, in which
# threads must not heap up, nor a network that was away for a while end its signing in for ever. A call's own budget
# (``RetryPolicy.retry_budget``) is longer.
_MOST_HANGING = 5
_AGAIN_SECONDS = 300.0


class BoundedCalls:
    """Makes calls in threads of their own, and leaves those that do not end in time to themselves.

    `clock` reads monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # Whose they are, and when they began. Changed by what is atomic only: there is no lock (see ``tokens``).
        self._threads: dict[threading.Thread, tuple[Hashable, float]] = {}

    def run(self, call: Callable[[], T], seconds: float, source: Hashable) -> T:
        """Return what `call` returns, or raise what it raises.

        Raises Unreachable, with ``sent`` False, where it takes longer than so many seconds, where too many of those
        of `source` hang, or where no thread can be had.
        """
        now = self._clock()
        hanging = self._hanging(source)
        if len(hanging) >= _MOST_HANGING and now - max(hanging) < _AGAIN_SECONDS:
            raise Unreachable(
                f"{len(hanging)} requests for a token hang, so that none is begun for a while: {source!r}", sent=False
            )
        answers: queue.SimpleQueue[Callable[[], T]] = queue.SimpleQueue()
        # What is logged in the thread goes where the caller's log goes.
        context = contextvars.copy_context()
        thread = threading.Thread(
            target=lambda: answers.put(_outcome(lambda: context.run(call), source)),
            name="airflow_dbjobs-token",
            daemon=True,
        )
        try:
            thread.start()
        except RuntimeError:
            raise Unreachable("This machine has no thread left to ask for a token with", sent=False) from None
        self._threads[thread] = source, now
        try:
            answer = answers.get(timeout=seconds + _GRACE_SECONDS)
        except queue.Empty:
            raise Unreachable(f"No token came within {seconds:.3g} s: {source!r}", sent=False) from None
        return answer()

    def _hanging(self, source: Hashable) -> list[float]:
        """Return when the calls of a source began that have not ended."""
        for thread in list(self._threads):
            if not thread.is_alive():
                self._threads.pop(thread, None)
        return [began for other, began in list(self._threads.values()) if other == source]


def _outcome(call: Callable[[], T], source: Hashable) -> Callable[[], T]:
    """Make a call; return what returns or raises what came of it."""
    failure: BaseException
    try:
        result = call()
    except SystemExit:
        # It would end the caller, and a task with it: in success, with 0.
        failure = SignInRefused(f"No token could be had: what gives it asked to exit. Check {source!r}")
    except BaseException as error:  # noqa: BLE001 (it is raised where it is waited for)
        failure = error
    else:
        return lambda: result

    def fail() -> T:
        raise failure

    return fail
