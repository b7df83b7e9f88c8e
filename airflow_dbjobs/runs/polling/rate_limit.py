"""When a poller may send a request: within the workspace's rate limit, and rarely while its API is failing."""

from __future__ import annotations

import math
import threading
import weakref
from typing import TYPE_CHECKING, ClassVar

from airflow_dbjobs.client.retry import backoff, requested_wait
from airflow_dbjobs.client.wait import jittered
from airflow_dbjobs.errors import ApiError, NotFound, TooManyRequests, Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.errors import CallError

# That many runs whose polls fail, with no answer in between, count as an outage of the API.
_OUTAGE_FAILURES = 3
# How long a rate limit only delays requests before it counts as an outage.
_RATE_LIMIT_SECONDS = 60.0
# After a rate limit: the lowest rate, in requests per second, and how long the rate takes to rise from zero to full.
_LOWEST_RATE = 1.0
_RECOVERY_SECONDS = 600.0


class TokenBucket:
    """Admits `rate` requests per second; after a pause one second's worth at once, but at least one.

    When the API reports a rate limit, the bucket halves its rate and then raises it slowly.

    Get the bucket of a workspace with `TokenBucket.shared`: pollers with other credentials or in other event loops call
    the same API. `clock` returns monotonic seconds.
    """

    _shared: ClassVar[weakref.WeakValueDictionary[object, TokenBucket]] = weakref.WeakValueDictionary()
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        # The rates that each user's connections set, for as long as the user exists.
        self._rates: weakref.WeakKeyDictionary[object, dict[str, float]] = weakref.WeakKeyDictionary()
        self._initial_rate = rate
        self._clock = clock
        # The rate after the last reduction, and when that was.
        self._reduced_rate = math.inf
        self._reduced_at = clock()
        # When the bucket would be full if nothing more were taken: one number replaces a count of tokens.
        self._full_at = clock()

    @property
    def rate(self) -> float:
        """The lowest of the rates that its users' connections set, in requests per second."""
        return min((rate for rates in self._rates.values() for rate in rates.values()), default=self._initial_rate)

    @classmethod
    def shared(
        cls, workspace: Hashable, rate: float, clock: Callable[[], float], user: object, connection: str = ""
    ) -> TokenBucket:
        """Return the bucket of a workspace.

        `rate` is what `connection` sets now; it replaces what `user` had from this connection, and holds for as long as
        `user` exists.
        """
        with cls._lock:
            # All times in a bucket are readings of one clock.
            bucket = cls._shared.get((workspace, clock))
            if bucket is None:
                bucket = cls._shared[workspace, clock] = cls(rate, clock)
            bucket._rates.setdefault(user, {})[connection] = rate
            return bucket

    @classmethod
    def for_client(cls, client: JobsClient, user: object) -> TokenBucket:
        """Return the bucket of the client's workspace, with the rate that the client's connection sets for `user`."""
        workspace = client.host, client.workspace_id
        return cls.shared(workspace, client.max_requests_per_second, client.clock, user, client.connection)

    @property
    def seconds_per_request(self) -> float:
        """The average time between two requests at the present rate."""
        recovered = self.rate * (self._clock() - self._reduced_at) / _RECOVERY_SECONDS
        return 1.0 / min(self.rate, self._reduced_rate + recovered)

    def take(self, tokens: float = 1.0) -> float:
        """Take tokens; return the seconds to wait until they are available."""
        with self._lock:
            now, each = self._clock(), self.seconds_per_request * tokens
            # Below one request per second, the bucket still holds one.
            burst = max(1.0, each)
            self._full_at = max(self._full_at, now) + each
            return max(0.0, self._full_at - now - burst)

    def halve_rate(self) -> None:
        """Halve the rate, but not below the lowest."""
        with self._lock:
            self._reduced_rate = max(0.5 / self.seconds_per_request, min(_LOWEST_RATE, self.rate))
            self._reduced_at = self._clock()


class RequestGate:
    """Delays a poller's requests: for the token bucket, during a rate limit, and while the API is down.

    An error of the API rather than of one run (a rate limit, a server failure, rejected credentials) concerns all runs;
    the other runs need not find it out by requests of their own. `sleep` waits; `clock` returns monotonic seconds.
    """

    def __init__(
        self, bucket: TokenBucket, *, clock: Callable[[], float], sleep: Callable[[float], Awaitable[object]]
    ) -> None:
        self._bucket = bucket
        self._clock = clock
        self._sleep = sleep
        #: Whether the API fails for every run: then one request at a time suffices to notice the recovery.
        self.is_down = False
        #: How many tokens a request takes: more than one if other processes poll the workspace too.
        self.weight = 1.0
        #: Until when to send nothing.
        self.paused_until = -math.inf
        self._pauses = 0
        # The runs whose polls have failed since the last answer, and since when.
        self._failing: set[Hashable] = set()
        self._failing_since = math.inf

    @property
    def seconds_per_request(self) -> float:
        """The average time between two requests at the present rate."""
        return self._bucket.seconds_per_request * self.weight

    @property
    def outage_seconds(self) -> float:
        """How long the API has not answered; 0 if it does."""
        return max(0.0, self._clock() - self._failing_since)

    async def wait_turn(self) -> None:
        """Wait until a request may be sent."""
        if (wait := self._bucket.take(self.weight)) > 0:
            await self._sleep(wait)
        while (wait := self.paused_until - self._clock()) > 0:
            await self._sleep(wait)

    def pause(self, error: CallError) -> None:
        """Send nothing for as long as the API requests, or else for longer each time."""
        now = self._clock()
        # Errors of requests that were in flight together count as one.
        if now >= self.paused_until:
            self._pauses += 1
            self.paused_until = now + (requested_wait(error) or jittered(backoff(self._pauses)))

    def record_answer(self) -> bool:
        """Record that the API has answered; return whether it was down."""
        self._failing.clear()
        self._failing_since = math.inf
        self._pauses = 0
        was_down, self.is_down = self.is_down, False
        return was_down

    def record_failure(self, polled: Hashable, error: CallError, sent_at: float, *, of: int) -> bool:
        """Record that polling one `of` so many failed; return whether the API is down for all of them."""
        if not _is_api_failure(error):
            return False
        self._failing.add(polled)
        self._failing_since = min(self._failing_since, sent_at)
        limited = isinstance(error, TooManyRequests) and self.outage_seconds < _RATE_LIMIT_SECONDS
        if limited and self._clock() >= self.paused_until:
            self._bucket.halve_rate()
        self.is_down = not limited and len(self._failing) >= min(_OUTAGE_FAILURES, of)
        if limited or self.is_down:
            self.pause(error)
        return self.is_down


def _is_api_failure(error: CallError) -> bool:
    """Return whether the API or the credentials may be the cause of an error, rather than the polled run."""
    if isinstance(error, NotFound):
        return False
    if error.transient or isinstance(error, Unauthenticated):
        return True
    # An error response without an error code comes from a gateway.
    return not (isinstance(error, ApiError) and error.error_code)
