"""Reads a workspace's list of active runs for a poller, and decides when that is worth its cost.

The list never proves that a run is over: it may be stale, shift while it is read, or omit runs. It only proves that the
runs in it are active.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, NamedTuple

from airflow_dbjobs.errors import ApiError, CallError, PermissionDenied, TooManyRequests, Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from airflow_dbjobs.client.models import RunsPage, RunState

# Combinations of API version ("" is the connection's) and `limit`, best first. The 2.0 reference documents pages of up
# to 1000 runs, and 0 for the largest. Newer servers reportedly allow 150, 100 or 25, and some reject 0.
_VARIANTS = (("2.0", 0), ("2.0", 999), ("2.0", 150), ("2.0", 100), ("2.0", 25), ("", 25), ("", 24), ("", 20))
_LARGEST_PAGE = 1000

# Measured: sending, parsing and rendering one entry of a list costs a fiftieth of what a request costs.
_ENTRIES_PER_REQUEST = 50

# How long the number of other active runs counts as known; after that it is measured again.
_OTHER_RUNS_SECONDS = 300.0
# How long not to read a list that is forbidden, unsupported or stale; that was too slow; or that failed.
_UNUSABLE_SECONDS = 600.0
_SLOW_SECONDS = 300.0
_FAILED_SECONDS = 60.0
# How long a fallback variant is used before the best one is tried again: a gateway may have rejected that one.
_FALLBACK_SECONDS = 3600.0
# The page size that the API uses where a request sets no limit.
_DEFAULT_PAGE = 20

_ATTEMPTS = 3


class PageRequest(NamedTuple):
    """The arguments of ``JobsClient.poll_active_runs``."""

    api_version: str | None
    limit: int
    offset: int | None = None
    page_token: str | None = None


class ListedRuns(NamedTuple):
    """The states of the active runs that the list showed, and whether it was read to its end."""

    states: Mapping[int, RunState]
    complete: bool


class ActiveRunsList:
    """Reads the list of active runs page by page, and learns its cost and which requests this server accepts.

    `fetch_page` requests one page, once; `sleep` waits between attempts; `clock` returns monotonic seconds.
    """

    def __init__(
        self,
        fetch_page: Callable[[PageRequest], Awaitable[RunsPage]],
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]],
    ) -> None:
        self._fetch_page = fetch_page
        self._clock = clock
        self._sleep = sleep
        self._variant = 0
        self._fallback_until = -math.inf
        self._page_size = _LARGEST_PAGE
        self._other_runs = 0
        self._other_runs_until = 0.0
        # Two separate reasons not to read the list: it could not be read in time, or it could and was stale.
        self._unusable_until = -math.inf
        self._stale_until = -math.inf

    def cost(self, runs: int) -> float:
        """Return the cost of reading the list with `runs` polled runs in it, in requests for single runs."""
        now = self._clock()
        if now < max(self._unusable_until, self._stale_until):
            return math.inf
        entries = runs + (self._other_runs if now < self._other_runs_until else 0)
        return _cost(math.ceil(entries / self._page_size), entries)

    async def read(self, run_ids: Collection[int], timeout: float) -> ListedRuns:  # noqa: ASYNC109 (it never raises TimeoutError)
        """Read the list until it has cost as much as polling each of `run_ids`, for at most `timeout` seconds.

        Never raises: after an error the result is incomplete, and the caller polls the missing runs.
        """
        states: dict[int, RunState] = {}
        complete = False
        try:
            async with asyncio.timeout(timeout):
                complete = await self._read(run_ids, states)
        except TimeoutError:
            self._avoid_for(_SLOW_SECONDS)
        except PermissionDenied:
            self._avoid_for(_UNUSABLE_SECONDS)
        except CallError:
            self._avoid_for(_FAILED_SECONDS)
        return ListedRuns(states, complete)

    def mark_stale(self) -> None:
        """Record that the list still showed a run long after its end."""
        self._stale_until = self._clock() + _UNUSABLE_SECONDS

    def forgive_failures(self) -> None:
        """Record that the whole API failed, so that failures of the list say nothing about the list."""
        self._unusable_until = -math.inf
        self._variant = 0

    async def _read(self, run_ids: Collection[int], states: dict[int, RunState]) -> bool:
        """Fill `states` page by page; return whether every relevant page was read. Raises CallError."""
        page = await self._first_page()
        pages, offset, token = 1, 0, ""
        while True:
            offset += len(page.states)
            is_new = page.next_page_token != token if page.next_page_token else not page.states.keys() <= states.keys()
            states.update(page.states)
            if not page.has_more or all(run_id in states for run_id in run_ids):
                self._record_other_runs(len(states) - sum(run_id in states for run_id in run_ids))
                return True
            if not is_new:
                # The same page again: this server ignores the way in which the next page was requested.
                self._next_variant()
                return False
            self._page_size = len(page.states) or self._page_size
            if self._variant == 0 and len(page.states) <= _DEFAULT_PAGE:
                # This server takes 0 for "no limit given". The pages of this reading would all be short.
                self._next_variant()
                return False
            if _cost(pages, offset) >= len(run_ids):
                # The number of remaining runs is unknown; assume as many again.
                self._record_other_runs(2 * offset)
                return False
            token = page.next_page_token
            page = await self._page(offset, token)
            pages += 1

    async def _first_page(self) -> RunsPage:
        """Return the first page, by the first variant that the server accepts. Raises CallError."""
        if self._clock() >= self._fallback_until:
            self._variant = 0
        while True:
            try:
                return await self._page(None, "")
            except ApiError as error:
                if error.transient or isinstance(error, Unauthenticated | PermissionDenied):
                    raise
                # Otherwise the server does not support this limit or version.
                if not self._next_variant():
                    raise

    def _next_variant(self) -> bool:
        """Switch to the next variant; return False if there is none, which makes the list unusable for a while."""
        if self._variant == 0:
            self._fallback_until = self._clock() + _FALLBACK_SECONDS
        self._variant = (self._variant + 1) % len(_VARIANTS)
        self._page_size = _VARIANTS[self._variant][1] or _LARGEST_PAGE
        if self._variant == 0:
            self._avoid_for(_UNUSABLE_SECONDS)
        return self._variant > 0

    async def _page(self, offset: int | None, token: str) -> RunsPage:
        version, limit = _VARIANTS[self._variant]
        request = PageRequest(version or None, limit, None if token else offset, token or None)
        attempt = 1
        while True:
            try:
                return await self._fetch_page(request)
            except CallError as error:
                if not error.transient or attempt == _ATTEMPTS:
                    raise
                # `fetch_page` itself waits out a rate limit.
                if not isinstance(error, TooManyRequests):
                    await self._sleep(attempt)
            attempt += 1

    def _avoid_for(self, seconds: float) -> None:
        self._unusable_until = max(self._unusable_until, self._clock() + seconds)

    def _record_other_runs(self, count: int) -> None:
        self._other_runs, self._other_runs_until = count, self._clock() + _OTHER_RUNS_SECONDS


def _cost(pages: float, entries: float) -> float:
    """Return the cost of reading that many pages and entries, in requests for single runs."""
    # One more: after each reading, one of the listed runs is polled to detect a stale list.
    return pages + entries / _ENTRIES_PER_REQUEST + 1
