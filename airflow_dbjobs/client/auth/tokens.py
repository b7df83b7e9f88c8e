"""Tokens: kept for all who sign in with equal credentials, renewed early, and fetched once however many need one.

A signal handler (``on_kill``) may need a token while the call that it broke into is fetching one. So nothing here holds
a lock, a fetch of the same thread is never waited for, and each waiter waits on a lock of its own.
"""

from __future__ import annotations

import copy
import logging
import math
import os
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from requests.auth import AuthBase

from airflow_dbjobs.client.auth.bounded import BoundedCalls
from airflow_dbjobs.client.auth.http import TokenRequests
from airflow_dbjobs.errors import ConfigurationError, JobsError, SignInRefused, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from requests import PreparedRequest

log = logging.getLogger(__name__)

# The platform refuses tokens that have 30 s left or less.
LEAST_SECONDS_LEFT = 40.0
# A token is renewed when this part of its time is left, or this many seconds: time to sit out a token server's outage.
_RENEW_PART, _RENEW_SECONDS = 0.2, 600.0
# How long after a renewal that has failed the next is tried, while the token still holds.
_RENEW_AGAIN = 30.0
# How long fetching a token may take, where the caller has more time. Who has less (a kill, say) renews none before its
# time: a token server that hangs would take what the call itself needs.
FETCH_SECONDS = 30.0
# With less time left than this, a waiter fetches none itself.
_HASTE_SECONDS = 1.0
# A token that replaces a refused one, and is refused sooner than this, is not replaced: so would be the next.
_REPLACE_SECONDS = 60.0


@dataclass(frozen=True, eq=False)
class Token(AuthBase):
    """The headers that sign a request, and for how many seconds they are good."""

    headers: Mapping[str, str] = field(repr=False)
    lifetime: float

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Sign one request."""
        request.headers.update(self.headers)
        return request


class TokenSource(Protocol):
    """Credentials that a token is given for. Equal ones share it, so they are hashable; their repr has no secret."""

    def fetch(self, requests: TokenRequests) -> Token:
        """Ask for a new token, once, in a thread of its own. Raises CallError with ``sent`` False: nothing was sent."""

    def __hash__(self) -> int: ...


@dataclass
class _Kept:
    """A token at hand."""

    token: Token
    born: float
    renew_at: float
    good_until: float


class _Flight:
    """A fetch under way, and who waits for what comes of it."""

    def __init__(self, until: float) -> None:
        self.owner = threading.get_ident()
        self.until = until
        self.token: Token | None = None
        self.error: JobsError | None = None
        self._is_over = False
        self._waiters: list[threading.Lock] = []

    def land(self) -> None:
        self._is_over = True
        for waiter in self._waiters:
            waiter.release()

    def wait(self, seconds: float) -> bool:
        """Wait until it is over, at most for so many seconds; return whether it is."""
        waiter = threading.Lock()
        waiter.acquire()
        # In this order: `land` either sees the waiter, or was before the look at `_is_over`.
        self._waiters.append(waiter)
        return self._is_over or waiter.acquire(timeout=min(max(seconds, 0.0), threading.TIMEOUT_MAX))


class TokenCache:
    """The tokens of a process. `clock` reads monotonic seconds, `wall` the time of day in epoch seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._wall = wall
        self._kept: dict[TokenSource, _Kept] = {}
        self._flights: dict[TokenSource, _Flight] = {}
        # When a token was last replaced because it was refused.
        self._replaced: dict[TokenSource, float] = {}
        self._calls = BoundedCalls(clock)

    def token(self, source: TokenSource, limit: float) -> Token:
        """Return a token that is good for some time yet, taking at most about so many seconds. Raises CallError."""
        limit = min(limit, FETCH_SECONDS)
        now = self._clock()
        kept = self._kept.get(source)
        if kept is None or now >= kept.good_until:
            return self._fetched(source, kept, now + limit)
        if now >= kept.renew_at and limit >= FETCH_SECONDS:
            return self._renewed(source, kept, now + limit)
        return kept.token

    def forget(self, source: TokenSource, token: Token) -> bool:
        """Take note that a token was refused; return whether there is another, or one is worth to be fetched."""
        kept = self._kept.get(source)
        if kept is None or kept.token is not token:
            return True
        now = self._clock()
        if now - self._replaced.get(source, -math.inf) < _REPLACE_SECONDS:
            return False
        self._replaced[source] = now
        if now < kept.good_until:
            kept.good_until = -math.inf
            log.info("A token is refused before its time, and another asked for: %r", source)
        return True

    def after_fork(self) -> None:
        """Forget the fetches of the parent process, whose threads are not here."""
        self._flights.clear()

    def _fetched(self, source: TokenSource, seen: _Kept | None, deadline: float) -> Token:
        """Fetch a token, or wait for the one that another thread is fetching."""
        while True:
            flight = self._flights.setdefault(source, mine := _Flight(deadline))
            if flight is mine:
                return self._fly(source, seen, mine)
            if flight.owner == mine.owner:
                # This is a signal handler, in the middle of that fetch.
                return self._fetch(source, deadline)
            if self._clock() >= flight.until:
                # It hangs, or a signal's exception came before it began.
                self._flights.pop(source, None)
            elif not flight.wait(deadline - self._clock()):
                raise Unreachable(f"Another thread asks for a token, and none came in time: {source!r}", sent=False)
            elif flight.error and self._was_hurried(flight, deadline):
                # With more time it may succeed.
                continue
            elif flight.error:
                # Each gets its own: who catches it adds to it.
                raise copy.copy(flight.error) from flight.error
            elif flight.token:
                return flight.token

    def _was_hurried(self, flight: _Flight, deadline: float) -> bool:
        """Whether a fetch failed for want of time, of which the caller has some yet."""
        now = self._clock()
        return isinstance(flight.error, Unreachable) and now >= flight.until and deadline - now >= _HASTE_SECONDS

    def _renewed(self, source: TokenSource, kept: _Kept, deadline: float) -> Token:
        """Fetch the next token before the one at hand is over; return the latter where somebody is at it, or fails."""
        if self._flights.setdefault(source, mine := _Flight(deadline)) is not mine:
            return kept.token
        try:
            return self._fly(source, kept, mine)
        except JobsError as error:
            now = self._clock()
            kept.renew_at = now + _RENEW_AGAIN
            log.warning(
                "The token cannot be renewed at the moment; it is good for %.0f s yet: %s", kept.good_until - now, error
            )
            return kept.token

    def _fly(self, source: TokenSource, seen: _Kept | None, mine: _Flight) -> Token:
        """Fetch a token for all that wait, unless one has come since the cache was looked into."""
        try:
            kept = self._kept.get(source)
            is_new = kept is not None and kept is not seen
            mine.token = kept.token if kept and is_new else self._fetch(source, mine.until)
        except JobsError as error:
            mine.error = error
            raise
        else:
            return mine.token
        finally:
            self._flights.pop(source, None)
            mine.land()

    def _fetch(self, source: TokenSource, deadline: float) -> Token:
        # What is said of its time counts from when it was made: after this.
        born = self._clock()
        requests = TokenRequests(deadline, clock=self._clock, wall=self._wall)
        try:
            token = self._calls.run(lambda: source.fetch(requests), requests.left, source)
        except ConfigurationError as error:
            # It is dealt with as wrong credentials are.
            raise SignInRefused(str(error)) from None
        except JobsError:
            raise
        except Exception as error:  # noqa: BLE001 (of a library, of a user's function; its text may hold a secret)
            raise SignInRefused(f"No token could be had: {type(error).__name__}. Check {source!r}") from None
        left = min(LEAST_SECONDS_LEFT, token.lifetime / 2)
        early = max(left, min(token.lifetime * _RENEW_PART, _RENEW_SECONDS))
        end = born + token.lifetime
        for other, kept in list(self._kept.items()):
            if born >= kept.good_until and other != source:
                self._kept.pop(other, None)
        self._kept[source] = _Kept(token, born, end - early, end - left)
        log.debug("A token for %r, good for %.0f s", source, token.lifetime)
        return token


# A process has one: a task's client, its cancellation's and those of all triggers sign in together.
CACHE = TokenCache()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=CACHE.after_fork)


class TokenAuth(AuthBase):
    """Signs with a token of `source`, from a cache that all share who sign in with equal credentials."""

    def __init__(self, source: TokenSource, *, cache: TokenCache | None = None) -> None:
        self.source = source
        self._cache = cache or CACHE

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Sign one request."""
        return self.token()(request)

    def token(self, limit: float = math.inf) -> Token:
        """Return a token, taking at most so many seconds. Raises CallError with ``sent`` False."""
        return self._cache.token(self.source, limit)

    def forget(self, token: Token) -> bool:
        """Take note that a token was refused; return whether it is worth to try with another."""
        return self._cache.forget(self.source, token)

    def __repr__(self) -> str:
        return f"TokenAuth({self.source!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TokenAuth) and self.source == other.source

    def __hash__(self) -> int:
        return hash((TokenAuth, self.source))
