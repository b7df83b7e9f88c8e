"""What is retried, when, and for how long.

One call (the reference advises to retry a 5xx for up to 10 minutes, at least 30 s apart):

- 429 and 503 with ``Retry-After``: after what it says, capped;
- 429 without it, and 400 ``COULD_NOT_ACQUIRE_LOCK``: exponential backoff with jitter;
- any other 5xx but 501: ``server_error_wait`` apart; a GET's first wait is ``first_wait``;
- no answer, or an unreadable one: backoff from ``first_wait``;
- nothing else.

A call that is not repeatable (it would launch or create a second time) is repeated only where the request provably
never reached the server, or was refused by a rate limit.
"""

from __future__ import annotations

import email.utils
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_dbjobs.errors import ApiError, ServerError, TooManyRequests

if TYPE_CHECKING:
    from airflow_dbjobs.errors import CallError

LONGEST_BACKOFF = 60.0
LONGEST_RETRY_AFTER = 300.0
_SERVICE_UNAVAILABLE = 503


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long one call is retried. Numbers are seconds.

    `retry_budget`: how long after the first attempt another one may begin. `server_error_wait`: the minimum wait after
    a 5xx. `connect_timeout` and `read_timeout`: of one attempt, however little of the budget is left. `first_wait`: the
    first wait of a backoff, and of a GET. `ends_with_budget`: attempts end with the budget, as the caller does.
    """

    retry_budget: float = 600.0
    server_error_wait: float = 30.0
    connect_timeout: float = 10.0
    read_timeout: float = 60.0
    first_wait: float = 1.0
    ends_with_budget: bool = False


@dataclass(frozen=True, slots=True)
class Patience:
    """How long failing polls of a run are tolerated. All values are seconds.

    `outage_tolerance`: the API is down or limiting. `denied_tolerance`: the credentials are refused.
    """

    outage_tolerance: float = 3600.0
    denied_tolerance: float = 600.0


# The limit of all waits in one triggerer together, per workspace.
MAX_REQUESTS_PER_SECOND = 100.0


@dataclass(frozen=True, slots=True)
class Retry:
    """The decision to try again: why, and the least number of seconds to wait before."""

    reason: str
    wait: float


def retry_decision(error: CallError, *, attempt: int, repeatable: bool, policy: RetryPolicy) -> Retry | None:
    """Decide whether to repeat a call whose `attempt`-th try (from 1) ended in `error`; None means no.

    `repeatable` says that the call may reach the server twice without harm: it reads, it ends in the same state, or it
    carries an idempotency token.
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
    return Retry(error.summary if isinstance(error, ApiError) else str(error), wait)


def _after(error: ApiError, otherwise: float) -> Retry:
    """Return a retry after what the reply asks for, or after `otherwise` seconds."""
    seconds = asked_wait(error)
    if seconds is None:
        return Retry(error.summary, otherwise)
    return Retry(f"{error.summary}, Retry-After {seconds:.0f} s", seconds)


def asked_wait(error: CallError) -> float | None:
    """Return the seconds to wait that a 429 or 503 asks for (at least 1 s, capped), or None where it asks for none."""
    if isinstance(error, ApiError) and (isinstance(error, TooManyRequests) or error.status == _SERVICE_UNAVAILABLE):
        seconds = retry_after_seconds(error.retry_after, time.time())
        return None if seconds is None else max(1.0, min(seconds, LONGEST_RETRY_AFTER))
    return None


def backoff(attempt: int, first: float = 1.0) -> float:
    """Return the wait after the `attempt`-th failure (from 1): twice the one before, up to LONGEST_BACKOFF seconds."""
    # The exponent is bounded for the sake of the 1025th attempt: a larger one overflows a float.
    return min(first * 2.0 ** min(attempt - 1, 10), LONGEST_BACKOFF)


def retry_after_seconds(header: str | None, now: float) -> float | None:
    """Return the seconds that a Retry-After header (a number, or an HTTP date) asks for; None if it is not usable."""
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
