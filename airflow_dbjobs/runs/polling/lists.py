"""Reads a workspace's lists of runs for a poller, and decides when that is worth its cost.

A list never proves that a run is over by not containing it: it may be stale, shift while it is read, or omit runs. What
it says of a run that it contains is true, or was when the list was made.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, NamedTuple

from airflow_dbjobs.errors import ApiError, CallError, PermissionDenied, TooManyRequests, Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Container, Mapping, Set

    from airflow_dbjobs.client.models import RunState
    from airflow_dbjobs.client.runs_page import RunsPage

# API versions ("" is the connection's) and limits, best first. The 2.0 reference documents pages of up to 1000 runs,
# and 0 for the largest. Newer servers reportedly allow 25 or less, and every server its own default of 20.
_FORMS = (("2.0", 0), ("2.0", 999), ("", 25), ("", 20))
_LARGEST_PAGE = 1000
# The page size that the API uses where a request sets no limit.
_DEFAULT_PAGE = 20
# How long another form than the best one is used before that is tried again: a gateway may have rejected it.
_FALLBACK_SECONDS = 3600.0

# Measured: sending, parsing and rendering one entry of a list costs a fiftieth of what a request costs.
_ENTRIES_PER_REQUEST = 50
# How long the number of other active runs counts as known; after that it is measured again.
_OTHER_RUNS_SECONDS = 300.0
# The list shows the runs of others too, for which other processes may read it. That many, at most, are assumed: each
# reads the list less often and uses a part of the rate limit, so that together they cost hardly more than one.
_MOST_PROCESSES = 4.0

# How long a list that could not be read in time is not read: twice as long after each failure.
_FIRST_BACKOFF_SECONDS = 60.0
_LONGEST_BACKOFF_SECONDS = 600.0
_ATTEMPTS = 3


class PageRequest(NamedTuple):
    """The arguments of ``JobsClient.poll_runs``."""

    api_version: str | None
    limit: int
    offset: int | None = None
    page_token: str | None = None
    ended: bool = False


class ListedRuns(NamedTuple):
    """The states of the active runs that the list showed, and whether it was read to its end."""

    states: Mapping[int, RunState]
    complete: bool


class RunLists:
    """Reads lists of runs page by page, and learns their cost and which requests this server accepts.

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
        self._form = 0
        self._fallback_until = -math.inf
        self._page_size = _LARGEST_PAGE
        # Of the other entries in the list, some may be runs that this poller polls one by one; the rest are foreign.
        self._known_others = 0
        self._known_foreign = 0
        self._others_known_until = -math.inf
        # Two separate reasons not to read the list: it could not be read in time, or it could and was stale.
        self._unusable_until = -math.inf
        self._backoff = 0.0
        self._stale_until = -math.inf
        # Until when not to read the list of ended runs, because many runs of others ended.
        self._ended_useless_until = -math.inf

    # --- what reading costs ---

    def cost(self, runs: int) -> float:
        """Return the cost of reading the list of active runs for `runs` of them, in requests for single runs."""
        if self._clock() < max(self._unusable_until, self._stale_until):
            return math.inf
        entries = runs + self._others
        return _cost(math.ceil(entries / self._page_size), entries)

    def share(self, runs: int) -> float:
        """Return which part of the active runs `runs` of this poller are, as far as known."""
        foreign = self._known_foreign if self._others else 0
        return runs / (runs + foreign) if runs else 1.0

    def processes(self, runs: int) -> float:
        """Return how many processes share the workspace's rate limit, if all have as many runs: four at most."""
        return min(1.0 / self.share(runs), _MOST_PROCESSES)

    def stretch(self, runs: int, watched: int) -> float:
        """Return in how many periods to read the list once, given how many more pages it has than `runs` fill.

        `watched` is the number of all runs of this poller.
        """
        pages = math.ceil((runs + self._others) / self._page_size) / max(1, math.ceil(runs / self._page_size))
        return max(1.0, min(pages, self.processes(watched)))

    def saves_polls(self, runs: int) -> bool:
        """Return whether reading a page can replace the polls of `runs` runs, if it shows them."""
        return runs > 2 * _cost(1, min(runs, self._page_size))

    @property
    def _others(self) -> int:
        return self._known_others if self._clock() < self._others_known_until else 0

    # --- reading ---

    async def read_active(
        self,
        run_ids: Set[int],
        timeout: float,  # noqa: ASYNC109 (it never raises TimeoutError)
        watched: Container[object],
    ) -> ListedRuns:
        """Read the active runs until that has cost as much as polling `run_ids`, for at most `timeout` seconds.

        `watched` are all runs of this poller. Never raises: after an error the result is incomplete, and the caller
        polls the missing runs.
        """
        states: dict[int, RunState] = {}

        def foreign() -> int:
            return sum(run_id not in watched for run_id in states)

        def is_enough(_: RunsPage, pages: int, entries: int) -> bool | None:
            if run_ids <= states.keys():
                return True
            if _cost(pages, entries) >= len(run_ids):
                # The number of remaining runs is unknown; assume as many again.
                self._record_others(2 * entries, 2 * foreign())
                return False
            return None

        complete = await self._read(states, timeout, is_enough)
        if complete:
            self._record_others(sum(run_id not in run_ids for run_id in states), foreign())
        return ListedRuns(states, complete)

    async def read_ended(self, run_ids: Set[int], among: Set[int], timeout: float) -> Mapping[int, RunState]:  # noqa: ASYNC109 (it never raises TimeoutError)
        """Read ended runs, latest start first, until all `run_ids` are found or a page has few of `among`.

        Never raises: after an error the result has fewer runs.
        """
        states: dict[int, RunState] = {}
        if self._clock() < self._ended_useless_until:
            return states

        def is_enough(page: RunsPage, *_: int) -> bool | None:
            found = sum(run_id in among for run_id in page.states)
            return True if found < _cost(1, len(page.states)) or run_ids <= states.keys() else None

        await self._read(states, timeout, is_enough, ended=True)
        if among.isdisjoint(states):
            self._ended_useless_until = self._clock() + _FIRST_BACKOFF_SECONDS
        return states

    def mark_stale(self) -> None:
        """Record that the list still showed a run long after its end."""
        self._stale_until = self._clock() + _LONGEST_BACKOFF_SECONDS

    def forgive_failures(self) -> None:
        """Record that the whole API failed, so that failures of the list say nothing about the list."""
        self._unusable_until, self._backoff = -math.inf, 0.0
        self._form = 0

    async def _read(
        self,
        states: dict[int, RunState],
        timeout: float,  # noqa: ASYNC109 (it never raises TimeoutError)
        is_enough: Callable[[RunsPage, int, int], bool | None],
        *,
        ended: bool = False,
    ) -> bool:
        """Fill `states` page by page; return what `is_enough` does, True at the end of the list, False on failure."""
        try:
            async with asyncio.timeout(timeout):
                complete = await self._read_pages(states, is_enough, ended=ended)
        except (TimeoutError, CallError):
            self._back_off()
            return False
        self._backoff = 0.0
        return complete

    async def _read_pages(
        self, states: dict[int, RunState], is_enough: Callable[[RunsPage, int, int], bool | None], *, ended: bool
    ) -> bool:
        page = await self._first_page(ended=ended)
        pages, offset, token = 1, 0, ""
        while True:
            offset += len(page.states)
            is_new = page.next_page_token != token if page.next_page_token else not page.states.keys() <= states.keys()
            states.update(page.states)
            if not page.has_more:
                return True
            if (enough := is_enough(page, pages, offset)) is not None:
                return enough
            if not is_new or (self._form == 0 and len(page.states) <= _DEFAULT_PAGE):
                # The same page again: this server ignores the way in which the next page was requested. Or it takes 0
                # for "no limit given", and the pages of this reading would all be short.
                self._next_form()
                return False
            self._page_size = len(page.states) or self._page_size
            token = page.next_page_token
            page = await self._page(offset, token, ended=ended)
            pages += 1

    async def _first_page(self, *, ended: bool) -> RunsPage:
        """Return the first page, by the first form that the server accepts. Raises CallError."""
        if self._clock() >= self._fallback_until:
            self._form = 0
        while True:
            try:
                return await self._page(None, "", ended=ended)
            except ApiError as error:
                if error.transient or isinstance(error, Unauthenticated | PermissionDenied):
                    raise
                # Otherwise the server does not support this limit or version.
                if not self._next_form():
                    raise

    def _next_form(self) -> bool:
        """Switch to the next form; return False if there is none, which makes the list unusable for a while."""
        if self._form == 0:
            self._fallback_until = self._clock() + _FALLBACK_SECONDS
        self._form = (self._form + 1) % len(_FORMS)
        self._page_size = _FORMS[self._form][1] or _LARGEST_PAGE
        if self._form == 0:
            self._unusable_until = self._clock() + _LONGEST_BACKOFF_SECONDS
        return self._form > 0

    async def _page(self, offset: int | None, token: str, *, ended: bool) -> RunsPage:
        version, limit = _FORMS[self._form]
        request = PageRequest(version or None, limit, None if token else offset, token or None, ended)
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

    def _back_off(self) -> None:
        self._backoff = min(max(_FIRST_BACKOFF_SECONDS, 2 * self._backoff), _LONGEST_BACKOFF_SECONDS)
        self._unusable_until = max(self._unusable_until, self._clock() + self._backoff)

    def _record_others(self, others: int, foreign: int) -> None:
        self._known_others, self._known_foreign = others, foreign
        self._others_known_until = self._clock() + _OTHER_RUNS_SECONDS


def _cost(pages: float, entries: float) -> float:
    """Return the cost of reading that many pages and entries, in requests for single runs."""
    # One more: after a reading, one of the listed runs is polled to detect a stale list.
    return pages + entries / _ENTRIES_PER_REQUEST + 1
