"""When a poller may send a request: not faster than the workspace is to be asked, and not while its API is failing."""

from __future__ import annotations

import math
import threading
import weakref
from typing import TYPE_CHECKING, ClassVar

from airflow_dbjobs.client.retry import asked_wait, backoff
from airflow_dbjobs.client.wait import jittered
from airflow_dbjobs.errors import ApiError, NotFound, TooManyRequests, Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

    from airflow_dbjobs.errors import CallError

# So many runs that cannot be asked for, and none in between that can, are the API's failure rather than theirs.
_TELLING_FAILURES = 3
# For how long a rate limit only delays, before it counts as an outage.
_LIMITED_SECONDS = 60.0
# After a rate limit: requests per second at least, and how long it takes to come from none to all again.
_LEAST_RATE = 1.0
_RECOVERY_SECONDS = 600.0


class TokenBucket:
    """Lets `rate` requests per second through, and after a pause as many at once as one second brings, one at least.

    Where the API answers that this is too often, it lets fewer through, and slowly more again.

    Get the one of a workspace with `TokenBucket.of`: pollers with other credentials, and those of other event loops,
    ask the same API. `clock` reads monotonic seconds.
    """

    _shared: ClassVar[weakref.WeakValueDictionary[object, TokenBucket]] = weakref.WeakValueDictionary()
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        # What those that use it want, by connection, for as long as they are there.
        self._wanted: weakref.WeakKeyDictionary[object, dict[str, float]] = weakref.WeakKeyDictionary()
        self._first = rate
        self._clock = clock
        # What is let through after it was slowed down, and since when.
        self._slowed = math.inf
        self._slowed_at = clock()
        # When the bucket would be full, were nothing taken any more: one number, and no tokens to count.
        self._full_at = clock()

    @property
    def rate(self) -> float:
        """The lowest of the rates that its users want now."""
        return min((rate for rates in self._wanted.values() for rate in rates.values()), default=self._first)

    @classmethod
    def of(
        cls, workspace: Hashable, rate: float, clock: Callable[[], float], user: object, connection: str = ""
    ) -> TokenBucket:
        """Return the bucket of a workspace.

        `rate` is what `connection` says from now on, and holds for as long as `user` exists, who has asked by it.
        """
        with cls._lock:
            # A bucket is of one clock.
            bucket = cls._shared.get((workspace, clock))
            if bucket is None:
                bucket = cls._shared[workspace, clock] = cls(rate, clock)
            bucket._wanted.setdefault(user, {})[connection] = rate
            return bucket

    @property
    def seconds_per_request(self) -> float:
        """The time between two requests, now and in the long run."""
        recovered = self.rate * (self._clock() - self._slowed_at) / _RECOVERY_SECONDS
        return 1.0 / min(self.rate, self._slowed + recovered)

    def take(self) -> float:
        """Take a token, and return for how many seconds to wait until it is there."""
        with self._lock:
            now, each = self._clock(), self.seconds_per_request
            # At less than one request per second there is still room for one.
            burst = max(1.0, each)
            self._full_at = max(self._full_at, now) + each
            return max(0.0, self._full_at - now - burst)

    def slow_down(self) -> None:
        """Let half as many through."""
        with self._lock:
            self._slowed = max(0.5 / self.seconds_per_request, min(_LEAST_RATE, self.rate))
            self._slowed_at = self._clock()


class Gate:
    """Holds a poller's requests up: for the bucket, for a rate limit, and while the API is down.

    An error that tells of the API rather than of a run (it limits, it fails, it refuses the credentials) is nothing
    that each run has to find out. `sleep` waits; `clock` reads monotonic seconds.
    """

    def __init__(
        self, bucket: TokenBucket, *, clock: Callable[[], float], sleep: Callable[[float], Awaitable[object]]
    ) -> None:
        self._bucket = bucket
        self._clock = clock
        self._sleep = sleep
        #: Whether the API fails for whatever it is asked: one request at a time is enough to learn when it is over.
        self.is_down = False
        #: Until when nothing is to be sent.
        self.closed_until = -math.inf
        self._pauses = 0
        # The runs that could not be asked for since one could, and since when.
        self._failing: set[int] = set()
        self._failing_since = math.inf

    @property
    def seconds_per_request(self) -> float:
        """The time between two requests, now and in the long run."""
        return self._bucket.seconds_per_request

    @property
    def outage_seconds(self) -> float:
        """For how long nothing has been answered of what was asked; 0 when all is well."""
        return max(0.0, self._clock() - self._failing_since)

    async def pass_through(self) -> None:
        """Wait until a request may be sent."""
        if (wait := self._bucket.take()) > 0:
            await self._sleep(wait)
        while (wait := self.closed_until - self._clock()) > 0:
            await self._sleep(wait)

    def close(self, error: CallError) -> None:
        """Let nothing through for as long as the API asks for, else longer each time."""
        now = self._clock()
        # The answers to requests that were sent together are one.
        if now >= self.closed_until:
            self._pauses += 1
            self.closed_until = now + (asked_wait(error) or jittered(backoff(self._pauses)))

    def answered(self) -> bool:
        """Take note that the API works; return whether it was down."""
        self._failing.clear()
        self._failing_since = math.inf
        self._pauses = 0
        was_down, self.is_down = self.is_down, False
        return was_down

    def failed(self, run_id: int, error: CallError, asked_at: float, *, of: int) -> bool:
        """Take note that one `of` so many runs could not be asked for; return whether that is so for all of them."""
        if not _tells_of_the_api(error):
            return False
        self._failing.add(run_id)
        self._failing_since = min(self._failing_since, asked_at)
        limited = isinstance(error, TooManyRequests) and self.outage_seconds < _LIMITED_SECONDS
        if limited and self._clock() >= self.closed_until:
            self._bucket.slow_down()
        self.is_down = not limited and len(self._failing) >= min(_TELLING_FAILURES, of)
        if limited or self.is_down:
            self.close(error)
        return self.is_down


def _tells_of_the_api(error: CallError) -> bool:
    """Whether an error says something of the API or the credentials, and not of the run that was asked for."""
    if isinstance(error, NotFound):
        return False
    if error.transient or isinstance(error, Unauthenticated):
        return True
    # A refusal without a code comes from a gateway.
    return not (isinstance(error, ApiError) and error.error_code)
