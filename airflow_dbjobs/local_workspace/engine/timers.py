"""When each run is due for another look by the runner."""

from __future__ import annotations

import heapq


class RunTimers:
    """One timer per run, in epoch milliseconds."""

    def __init__(self) -> None:
        self._due_at: dict[int, int] = {}
        #: Ordered by time. An entry that differs from `_due_at` is out of date, and skipped.
        self._heap: list[tuple[int, int]] = []

    def schedule(self, run_id: int, at_ms: int) -> None:
        """Set or replace the timer of a run."""
        if self._due_at.get(run_id) != at_ms:
            self._due_at[run_id] = at_ms
            heapq.heappush(self._heap, (at_ms, run_id))

    def take_due(self, now_ms: int) -> set[int]:
        """Return the runs whose timers have expired, and clear those timers."""
        due = set()
        while self._heap and self._heap[0][0] <= now_ms:
            at_ms, run_id = heapq.heappop(self._heap)
            if self._due_at.get(run_id) == at_ms:
                del self._due_at[run_id]
                due.add(run_id)
        return due
