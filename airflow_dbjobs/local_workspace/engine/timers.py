"""When to look at which run again."""

from __future__ import annotations

import heapq


class Agenda:
    """The next look at each run, in epoch milliseconds."""

    def __init__(self) -> None:
        self._next: dict[int, int] = {}
        #: By time. What differs from `_next` has been put off or moved up since, and is skipped.
        self._heap: list[tuple[int, int]] = []

    def put(self, run_id: int, at_ms: int) -> None:
        """Look at a run at `at_ms`, and not when it was said before."""
        if self._next.get(run_id) != at_ms:
            self._next[run_id] = at_ms
            heapq.heappush(self._heap, (at_ms, run_id))

    def take_due(self, now_ms: int) -> set[int]:
        """Return the runs whose time has come, and forget them."""
        due = set()
        while self._heap and self._heap[0][0] <= now_ms:
            at_ms, run_id = heapq.heappop(self._heap)
            if self._next.get(run_id) == at_ms:
                del self._next[run_id]
                due.add(run_id)
        return due
