"""Which failed calls are retried, when, and for how long.

The API reference advises to retry a 5xx for up to 10 minutes, with at least 30 s between attempts. A call is retried
after:

- 429 or 503 with ``Retry-After``: after the time in that header, up to a maximum;
- 429 without it, or 400 ``COULD_NOT_ACQUIRE_LOCK``: with exponential backoff and jitter;
- any other 5xx except 501: after ``server_error_wait``, but a GET for the first time after ``first_wait``;
- no reply, or an unreadable one: with exponential backoff from ``first_wait``.

Other errors are not retried. A call that is not repeatable (repeating it would launch or create twice) is retried only
if a rate limit refused it, or if the request certainly did not reach the server.
"""

from __future__ import annotations

import email.utils
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_dbjobs.errors import ApiError, ServerError, TooManyRequests, UnreadableReply

if TYPE_CHECKING:
    from airflow_dbjobs.errors import CallError

LONGEST_BACKOFF = 60.0
LONGEST_RETRY_AFTER = 300.0
_SERVICE_UNAVAILABLE = 503


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long one call is retried. Numbers are seconds.

    `retry_budget`: how long after the first attempt another one may begin. `server_error_wait`: the minimum wait after
    a 5xx. `connect_timeout` and `read_timeout`: the timeouts of one attempt, which may exceed the budget. `first_wait`:
    the first wait of a backoff, and of a GET after a 5xx. `ends_with_budget`: also end an attempt when the budget is
    spent.
    """

    retry_budget: float = 600.0
    server_error_wait: float = 30.0
    connect_timeout: float = 10.0
    read_timeout: float = 60.0
    first_wait: float = 1.0
    ends_with_budget: bool = False


@dataclass(frozen=True, slots=True)
class Patience:
    """How long failing polls of a run are retried. All values are seconds.

    `outage_tolerance`: while the API is down or a rate limit refuses polls. `denied_tolerance`: while the API refuses
    the credentials.
    """

    outage_tolerance: float = 3600.0
    denied_tolerance: float = 600.0


# The limit for all waits in one triggerer together, per workspace.
MAX_REQUESTS_PER_SECOND = 100.0


@dataclass(frozen=True, slots=True)
class Retry:
    """The decision to retry: the reason, and the minimum wait in seconds."""

    reason: str
    wait: float


def retry_decision(error: CallError, *, attempt: int, repeatable: bool, policy: RetryPolicy) -> Retry | None:
    """Return whether and when to retry a call whose `attempt`-th attempt (from 1) ended in `error`; None: not at all.

    A call is `repeatable` if it may reach the server twice without harm: it only reads, is idempotent, or carries an
    idempotency token.
    """
    wait = backoff(attempt, policy.first_wait)
    if isinstance(error, TooManyRequests):
        return _after(error, wait)
    if not error.transient or (error.sent and not repeatable):
        return None
    if isinstance(error, ServerError):
        first_read = attempt == 1 and error.call.startswith("GET ")
        wait = policy.first_wait if first_read else policy.server_error_wait
        return _after(error, wait)
    return Retry(error.summary if isinstance(error, ApiError | UnreadableReply) else str(error), wait)


def _after(error: ApiError, otherwise: float) -> Retry:
    """Return a retry after the reply's ``Retry-After``, or after `otherwise` seconds."""
    seconds = requested_wait(error)
    if seconds is None:
        return Retry(error.summary, otherwise)
    return Retry(f"{error.summary}, Retry-After {seconds:.0f} s", seconds)


def requested_wait(error: CallError) -> float | None:
    """Return the wait that a 429 or 503 requests by ``Retry-After``, from 1 s to LONGEST_RETRY_AFTER; None if none."""
    if isinstance(error, ApiError) and (isinstance(error, TooManyRequests) or error.status == _SERVICE_UNAVAILABLE):
        seconds = retry_after_seconds(error.retry_after, time.time())
        return None if seconds is None else max(1.0, min(seconds, LONGEST_RETRY_AFTER))
    return None


def backoff(attempt: int, first: float = 1.0) -> float:
    """Return the wait after the `attempt`-th failure (from 1): doubled each time, up to LONGEST_BACKOFF seconds."""
    # The exponent is limited because from the 1025th attempt on the power would overflow a float.
    return min(first * 2.0 ** min(attempt - 1, 10), LONGEST_BACKOFF)


def retry_after_seconds(header: str | None, now: float) -> float | None:
    """Return the seconds until the time in a Retry-After header (seconds or an HTTP date); None if it is invalid."""
    if not header:
        return None
    try:
        seconds = float(header)
    except ValueError:
        pass
    else:
        return max(0.0, seconds) if math.isfinite(seconds) else None
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - now)
    except (ValueError, OverflowError):
        return None
