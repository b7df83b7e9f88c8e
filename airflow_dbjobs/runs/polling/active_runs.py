"""The list of a workspace's active runs, as a poller reads it: how it is asked for, and when it is worth it.

A list never says that a run is over: it may lag behind, shift while it is read, or leave runs out. It only says of the
runs in it that they go on.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, NamedTuple

from airflow_dbjobs.errors import ApiError, CallError, PermissionDenied, TooManyRequests, Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from airflow_dbjobs.client.models import RunsPage, RunState

# The ways to ask, best first: API version ("" is the connection's) and `limit`. The 2.0 reference gives pages of up to
# 1000 runs, and 0 for the largest; newer servers are said to allow 150, 100 or 25, and some refuse a 0.
_FORMS = (("2.0", 0), ("2.0", 999), ("2.0", 150), ("2.0", 100), ("2.0", 25), ("", 25), ("", 24), ("", 20))
_LARGEST_PAGE = 1000

# Measured: to send, parse and render one entry of a list costs a fiftieth of what a request costs.
_ENTRIES_PER_REQUEST = 50

# For how long it counts how many runs of others there were; then they are counted again.
_FOREIGN_SECONDS = 300.0
# For how long a list is left alone that is forbidden, not served, or lags behind; that was too slow; or that failed.
_USELESS_SECONDS = 600.0
_SLOW_SECONDS = 300.0
_FAILED_SECONDS = 60.0
# After so long a better form is tried again: it may have been a gateway that refused it.
_FORM_SECONDS = 3600.0
# The size of a page where nobody asks for another.
_DEFAULT_PAGE = 20

_ATTEMPTS = 3


class PageRequest(NamedTuple):
    """The arguments of ``JobsClient.poll_active_runs``."""

    api_version: str | None
    limit: int
    offset: int | None = None
    page_token: str | None = None


class Found(NamedTuple):
    """What a walk has found: the states of runs that go on, and whether the list was read to its end."""

    states: Mapping[int, RunState]
    complete: bool


class Listing:
    """Reads the list of active runs page by page, and remembers what that costs and what this server puts up with.

    `ask` requests a page, once; `sleep` waits between two attempts; `clock` reads monotonic seconds.
    """

    def __init__(
        self,
        ask: Callable[[PageRequest], Awaitable[RunsPage]],
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]],
    ) -> None:
        self._ask = ask
        self._clock = clock
        self._sleep = sleep
        self._form = 0
        self._form_until = -math.inf
        self._page_size = _LARGEST_PAGE
        self._foreign = 0
        self._foreign_until = 0.0
        # Two reasons to leave it alone: it was not to be had, or not in time; it was, and lags behind.
        self._unusable_until = -math.inf
        self._lags_until = -math.inf

    def cost(self, runs: int) -> float:
        """Return what reading the list costs, with so many runs of ours in it, in requests for single runs."""
        now = self._clock()
        if now < max(self._unusable_until, self._lags_until):
            return math.inf
        entries = runs + (self._foreign if now < self._foreign_until else 0)
        return _cost(math.ceil(entries / self._page_size), entries)

    async def walk(self, wanted: Collection[int], patience: float) -> Found:
        """Read the list for at most `patience` seconds, or until that has cost as much as asking for `wanted` singly.

        Raises nothing: what goes wrong only leaves runs to be asked for.
        """
        states: dict[int, RunState] = {}
        complete = False
        try:
            async with asyncio.timeout(patience):
                complete = await self._read(wanted, states)
        except TimeoutError:
            self._leave_alone(_SLOW_SECONDS)
        except PermissionDenied:
            self._leave_alone(_USELESS_SECONDS)
        except CallError:
            self._leave_alone(_FAILED_SECONDS)
        return Found(states, complete)

    def lags_behind(self) -> None:
        """Take note that the list went on showing a run long after its end."""
        self._lags_until = self._clock() + _USELESS_SECONDS

    def was_not_to_blame(self) -> None:
        """Take note that the API failed, or refused, whatever it was asked: that says nothing about the list."""
        self._unusable_until = -math.inf
        self._form = 0

    async def _read(self, wanted: Collection[int], states: dict[int, RunState]) -> bool:
        """Fill `states` page by page; return whether all that matters of the list was read. Raises CallError."""
        page = await self._first_page()
        pages, offset, token = 1, 0, ""
        while True:
            offset += len(page.states)
            is_new = page.next_page_token != token if page.next_page_token else not page.states.keys() <= states.keys()
            states.update(page.states)
            if not page.has_more or all(run_id in states for run_id in wanted):
                self._know_foreign(len(states) - sum(run_id in states for run_id in wanted))
                return True
            if not is_new:
                # The same page again: this server does not turn pages the way it was asked to.
                self._try_next_form()
                return False
            self._page_size = len(page.states) or self._page_size
            if self._form == 0 and len(page.states) <= _DEFAULT_PAGE:
                # 0 is no maximum to this server. This page is as good as any other.
                self._try_next_form()
                return False
            if _cost(pages, offset) >= len(wanted):
                # How many more there are is anybody's guess.
                self._know_foreign(2 * offset)
                return False
            token = page.next_page_token
            page = await self._page(offset, token)
            pages += 1

    async def _first_page(self) -> RunsPage:
        """Return the first page, in the first form that the server accepts. Raises CallError."""
        if self._clock() >= self._form_until:
            self._form = 0
        while True:
            try:
                return await self._page(None, "")
            except ApiError as error:
                # A limit or a version that it does not serve.
                if error.transient or isinstance(error, Unauthenticated | PermissionDenied):
                    raise
                if not self._try_next_form():
                    raise

    def _try_next_form(self) -> bool:
        """Ask in another form from now on; return False where none was left, so that it begins anew, later."""
        if self._form == 0:
            self._form_until = self._clock() + _FORM_SECONDS
        self._form = (self._form + 1) % len(_FORMS)
        self._page_size = _FORMS[self._form][1] or _LARGEST_PAGE
        if self._form == 0:
            self._leave_alone(_USELESS_SECONDS)
        return self._form > 0

    async def _page(self, offset: int | None, token: str) -> RunsPage:
        version, limit = _FORMS[self._form]
        request = PageRequest(version or None, limit, None if token else offset, token or None)
        attempt = 1
        while True:
            try:
                return await self._ask(request)
            except CallError as error:
                # A rate limit is waited out by whoever sends the requests.
                if not error.transient or attempt == _ATTEMPTS:
                    raise
                if not isinstance(error, TooManyRequests):
                    await self._sleep(attempt)
            attempt += 1

    def _leave_alone(self, seconds: float) -> None:
        self._unusable_until = max(self._unusable_until, self._clock() + seconds)

    def _know_foreign(self, count: int) -> None:
        self._foreign, self._foreign_until = count, self._clock() + _FOREIGN_SECONDS


def _cost(pages: float, entries: float) -> float:
    """Return the cost of reading so much of the list, in requests for single runs."""
    # A run that is in the list is asked for once in a while all the same.
    return pages + entries / _ENTRIES_PER_REQUEST + 1
