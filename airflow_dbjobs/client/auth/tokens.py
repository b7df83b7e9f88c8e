"""Cache the tokens of this process: one for equal credentials, renewed early, with one request for all waiting threads.

A lock guards each source of tokens. It is reentrant, as a signal handler (``on_kill``) may need a token in the middle
of the request that it interrupts; and no caller waits for it longer than its own time limit.
"""

from __future__ import annotations

import contextvars
import copy
import logging
import math
import os
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from requests.auth import AuthBase

from airflow_dbjobs.client.auth.token_requests import TokenRequests
from airflow_dbjobs.client.clock import SYSTEM_CLOCK, Clock
from airflow_dbjobs.errors import CallError, ConfigurationError, JobsError, SignInRefused, Unreachable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from requests import PreparedRequest

log = logging.getLogger(__name__)

# The platform refuses tokens that have 30 s left or less.
MIN_SECONDS_LEFT = 40.0
# A token is renewed when this part of its lifetime is left, or this many seconds if that is less: enough to outlast
# most outages of a token server.
_RENEW_PART, _RENEW_SECONDS = 0.2, 600.0
# The wait between two attempts to renew a token that is still valid.
_RENEW_AGAIN = 30.0
# The time limit of one request for a token. A caller with less time (a kill, say) does not renew a token that is still
# valid: a token server that hangs would use up the time for the call itself.
FETCH_SECONDS = 30.0
# A token that replaced a refused one is not replaced again within this time: the next would be refused, too.
_REPLACE_SECONDS = 60.0
# If this many requests of one source hang, another one begins only after `_HANGING_SECONDS`. A triggerer runs
# for months: threads must not pile up in it, and a network outage must not disable authentication forever.
_MOST_HANGING = 5
_HANGING_SECONDS = 300.0
# Most sources enforce the time limit themselves, and get this much longer, as their errors are more precise.
_GRACE_SECONDS = 0.25


@dataclass(frozen=True, eq=False)
class Token(AuthBase):
    """The headers that sign a request, and their lifetime in seconds."""

    headers: Mapping[str, str] = field(repr=False)
    lifetime: float

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Sign one request."""
        request.headers.update(self.headers)
        return request


class TokenSource(Protocol):
    """Credentials to fetch a token with. Equal ones share a token, so they are hashable; their repr shows no secret."""

    def fetch(self, requests: TokenRequests) -> Token:
        """Request a new token, once. Raises CallError, or ConfigurationError, which counts as a refusal."""

    def __hash__(self) -> int: ...


class _Current:
    """A token in the cache. A refusal is recorded here, so that a late one cannot concern the token's successor."""

    def __init__(self, token: Token, renew_at: float, good_until: float, *, replaced_at: float) -> None:
        self.token, self.renew_at, self.good_until = token, renew_at, good_until
        #: When it replaced a refused token; never if it did not.
        self.replaced_at = replaced_at
        self.is_refused = False

    def is_good(self, now: float) -> bool:
        return not self.is_refused and now < self.good_until


class _Entry:
    """The state of one source in the cache."""

    def __init__(self) -> None:
        #: Held during a request. The other fields are read without it.
        self.lock = threading.RLock()
        self.current: _Current | None = None
        #: How many requests have ended with a result that waiting threads share, and the last of these results.
        self.ended = 0
        self.outcome: Token | JobsError | None = None
        #: The threads that may hang, and when they started.
        self.threads: dict[threading.Thread, float] = {}


class TokenCache:
    """The tokens of a process."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._entries: dict[TokenSource, _Entry] = {}

    def token(self, source: TokenSource, limit: float) -> Token:
        """Return a token that remains valid for a while, within about `limit` seconds. Raises CallError."""
        limit = min(limit, FETCH_SECONDS)
        now = self._clock.monotonic()
        entry = self._entries.setdefault(source, _Entry())
        # Read first: if another thread gets a token meanwhile, this one shares it.
        ended = entry.ended
        current = entry.current
        if current is None or not current.is_good(now):
            return self._fetched(source, entry, ended, now + limit)
        if now >= current.renew_at and limit >= FETCH_SECONDS:
            return self._renewed(source, entry, current, now + limit)
        return current.token

    def forget(self, source: TokenSource, token: Token) -> bool:
        """Record that the API refused a token. Return True if there is another one, or if one may be requested."""
        entry = self._entries.get(source)
        current = entry.current if entry else None
        if current is None or current.token is not token or current.is_refused:
            return True
        now = self._clock.monotonic()
        if now - current.replaced_at < _REPLACE_SECONDS:
            return False
        if current.is_good(now):
            log.info("A token was refused before it expired; requesting another one: %r", source)
        current.is_refused = True
        return True

    def after_fork(self) -> None:
        """Replace all locks: the threads that may hold them exist only in the parent process."""
        for entry in self._entries.values():
            entry.lock, entry.threads = threading.RLock(), {}

    def _fetched(self, source: TokenSource, entry: _Entry, ended: int, deadline: float) -> Token:
        """Request a token, unless another request has ended since `ended` was read: then share its result."""
        lock = entry.lock
        if not lock.acquire(timeout=max(deadline - self._clock.monotonic(), 0.0)):
            raise Unreachable(f"Another thread is requesting a token and got none in time: {source!r}", sent=False)
        try:
            outcome = entry.outcome if entry.ended != ended else None
            if isinstance(outcome, JobsError):
                # Each thread gets its own copy, as a caller adds to its text.
                raise copy.copy(outcome) from outcome
            return outcome or self._fetch(source, entry, deadline)
        finally:
            lock.release()

    def _renewed(self, source: TokenSource, entry: _Entry, current: _Current, deadline: float) -> Token:
        """Renew a token that expires soon, unless another thread does; if that fails, it stays in use."""
        lock = entry.lock
        if not lock.acquire(blocking=False):
            return current.token
        try:
            if entry.current is current and self._clock.monotonic() >= current.renew_at:
                return self._fetch(source, entry, deadline)
        except JobsError as error:
            now = self._clock.monotonic()
            current.renew_at = now + _RENEW_AGAIN
            left = current.good_until - now
            log.warning(
                "Renewing a token failed; will retry. The current one is valid for another %.0f s. Error: %s",
                left,
                error,
            )
        finally:
            lock.release()
        return current.token

    def _fetch(self, source: TokenSource, entry: _Entry, deadline: float) -> Token:
        """Request a token, and store the result."""
        # A lifetime counts from when the server created the token, which is later than this.
        born = self._clock.monotonic()
        requests = TokenRequests(deadline, self._clock)
        try:
            token = self._bounded(source, entry, requests)
        except JobsError as error:
            # A thread with more time than this one had may still get a token.
            if not isinstance(error, Unreachable) or self._clock.monotonic() < deadline:
                entry.outcome = error
                entry.ended += 1
            raise
        left = min(MIN_SECONDS_LEFT, token.lifetime / 2)
        early = max(left, min(token.lifetime * _RENEW_PART, _RENEW_SECONDS))
        expires, refused = born + token.lifetime, entry.current is not None and entry.current.is_refused
        entry.current = _Current(token, expires - early, expires - left, replaced_at=born if refused else -math.inf)
        entry.outcome = token
        # Last: a thread that sees the new count also sees the result.
        entry.ended += 1
        log.debug("Got a token for %r, valid for %.0f s", source, token.lifetime)
        return token

    def _bounded(self, source: TokenSource, entry: _Entry, requests: TokenRequests) -> Token:
        """Request a token in a thread, which is abandoned if a library, a function or a disk takes too long."""
        now, seconds = self._clock.monotonic(), requests.left
        entry.threads = {thread: began for thread, began in entry.threads.items() if thread.is_alive()}
        if len(entry.threads) >= _MOST_HANGING and now - max(entry.threads.values()) < _HANGING_SECONDS:
            raise Unreachable(
                f"{len(entry.threads)} requests for a token hang; not starting another one yet: {source!r}", sent=False
            )
        answer: Future[Token] = Future()
        # The thread logs to where the caller logs.
        context = contextvars.copy_context()

        def run() -> None:
            try:
                answer.set_result(context.run(_fetch_once, source, requests))
            except BaseException as error:  # noqa: BLE001 (the caller raises it)
                answer.set_exception(error)

        thread = threading.Thread(target=run, name="airflow_dbjobs-token", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            raise Unreachable("Cannot start a thread to request a token (system limit reached)", sent=False) from None
        entry.threads[thread] = now
        try:
            return answer.result(seconds + _GRACE_SECONDS)
        except TimeoutError:
            raise Unreachable(f"Got no token within {seconds:.3g} s: {source!r}", sent=False) from None


def _fetch_once(source: TokenSource, requests: TokenRequests) -> Token:
    """Request a token. Any failure becomes a CallError, which does not quote the errors of libraries or user code."""
    try:
        return source.fetch(requests)
    except CallError as error:
        # Whatever became of this request, the API call that needs the token was not sent.
        error.sent = error.unclear = False
        raise
    except ConfigurationError as error:
        raise SignInRefused(str(error)) from None
    except SystemExit:
        # It would end the task, successfully if the exit code is 0.
        raise SignInRefused(f"Requesting a token tried to exit the process. Check {source!r}") from None
    except Exception as error:  # noqa: BLE001 (its text may hold a secret)
        raise SignInRefused(f"Requesting a token failed: {type(error).__name__}. Check {source!r}") from None


# One per process: the clients of a task, of its cancellation and of all triggers share tokens.
CACHE = TokenCache()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=CACHE.after_fork)


class TokenAuth(AuthBase):
    """Signs with a token of `source`, from a cache that equal credentials share."""

    def __init__(self, source: TokenSource, *, cache: TokenCache | None = None) -> None:
        self.source = source
        self._cache = cache or CACHE

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Sign one request."""
        return self.token()(request)

    def token(self, limit: float = math.inf) -> Token:
        """Return a token within `limit` seconds. Raises CallError with ``sent`` False."""
        return self._cache.token(self.source, limit)

    def forget(self, token: Token) -> bool:
        """Record that the API refused a token; return True if a call may succeed with another one."""
        return self._cache.forget(self.source, token)

    def __repr__(self) -> str:
        return f"TokenAuth({self.source!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TokenAuth) and self.source == other.source

    def __hash__(self) -> int:
        return hash((TokenAuth, self.source))
