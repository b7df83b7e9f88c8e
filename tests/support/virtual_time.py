"""An event loop whose time is virtual: an hour in which nothing happens passes at once.

It jumps only when nothing is going on, neither in the loop nor in the threads of a poller that it `attend`s to. What a
thread asks of a model of the API takes virtual time too (`hold`): the thread really waits meanwhile, and the loop goes
on. Calls that come at the same moment are decided in the order of their keys, whichever thread was faster, so that a
story with seeded jitter is the same each time it is played.
"""

from __future__ import annotations

import asyncio
import queue
import random
import selectors
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_dbjobs.runs.polling.threads import DaemonThreads

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from airflow_dbjobs.runs.polling.poller import RunPoller

T = TypeVar("T")

# Of real time: no thread of a test is at work for so long.
PATIENCE = 30.0
# Of one moment of virtual time: a loop that turns so often without waiting will do so for ever.
MOST_ROUNDS = 100_000
# Apart from each other, for their order to be certain; more than the loop's own resolution of a nanosecond.
APART = 1e-6


class Stuck(Exception):
    """Time cannot go on."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time, which begins at 0."""

    def __init__(self) -> None:
        self.now = 0.0
        self._rounds = 0
        self._threads: list[DaemonThreads] = []
        # The calls in threads that wait for virtual time: those still to be decided, and all.
        self._undecided: list[_Held] = []
        self._held: set[_Held] = set()
        self._decided = 0
        # What wakes the loop while it really waits; there are no sockets here.
        self._calls: queue.SimpleQueue[None] = queue.SimpleQueue()
        super().__init__(_Selector(self))

    def time(self) -> float:
        """Return the virtual time, in seconds."""
        return self.now

    def attend(self, poller: RunPoller) -> None:
        """Let no time pass while a thread of this poller is at work."""
        self._threads += [value for value in vars(poller._requests).values() if isinstance(value, DaemonThreads)]

    def hold(self, key: str, decide: Callable[[], tuple[float, T]]) -> T:
        """Return what `decide` says, after as many virtual seconds as it says; for a thread of an attended poller.

        It is called in the loop's thread, when all threads at work have come to a `hold`, in the order of the keys.
        """
        held = _Held(key, decide)
        self.call_soon_threadsafe(self._arrived, held)
        if not held.released.acquire(timeout=PATIENCE):
            raise Stuck(f"{key} was not answered")
        answer: T = held.answer
        return answer

    def _write_to_self(self) -> None:
        """Wake the loop, from another thread: what asyncio does through a socket."""
        self._calls.put(None)

    def pass_time(self, timeout: float | None) -> None:
        """Let `timeout` pass, or first what is going on in other threads."""
        self._rounds += 1
        if self._rounds > MOST_ROUNDS:
            raise Stuck(f"something never waits, at {self.now} s")
        if sum(threads._pending for threads in self._threads) > len(self._held):
            try:
                self._calls.get(timeout=PATIENCE)
            except queue.Empty:
                raise Stuck(f"a thread is at work for {PATIENCE} s") from None
        elif self._undecided:
            self._decide()
        elif timeout is None:
            raise Stuck(f"everybody waits for somebody else, at {self.now} s")
        else:
            self.now += timeout
            self._rounds = 0

    def _arrived(self, held: _Held) -> None:
        self._held.add(held)
        self._undecided.append(held)

    def _decide(self) -> None:
        calls, self._undecided = sorted(self._undecided, key=lambda held: held.key), []
        for held in calls:
            seconds, held.answer = held.decide()
            self._decided += 1
            self.call_later(seconds + self._decided % 1000 * APART, self._release, held)

    def _release(self, held: _Held) -> None:
        self._held.discard(held)
        held.released.release()


class _Held:
    """A call in a thread that waits for virtual time."""

    def __init__(self, key: str, decide: Callable[[], tuple[float, Any]]) -> None:
        self.key = key
        self.decide = decide
        self.answer: Any = None
        self.released = threading.Lock()
        self.released.acquire()


class _Selector(selectors.DefaultSelector):
    """Waits in virtual time for what comes in real time."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        """Let the time pass that the loop has nothing to do."""
        if timeout is None or timeout > 0:
            self._loop.pass_time(timeout)
        return []


def run(story: Callable[[VirtualLoop], Coroutine[Any, Any, T]], *, seed: int = 0) -> T:
    """Return what `story` returns, played in virtual time."""
    before = random.getstate()
    random.seed(seed)
    loop = VirtualLoop()
    try:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            return runner.run(story(loop))
    finally:
        random.setstate(before)
