"""Checks conditions for the triggers of an event loop: in few threads, one attempt each, within the rate limit."""

from __future__ import annotations

import asyncio
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_dbjobs.client.jobs_client import JobsClient
from airflow_dbjobs.errors import CallError
from airflow_dbjobs.runs.polling.rate_limit import RequestGate, TokenBucket
from airflow_dbjobs.runs.polling.threads import DaemonThreads, respond_within

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from airflow_dbjobs.runs.conditions import CheckResult, Condition

# Simultaneous checks, and so connections, per workspace and credentials.
_CONCURRENCY = 4
# A check may read many pages, each as slow as the timeouts allow. After that time its thread is abandoned.
_CHECK_TIMEOUT_SECONDS = 300.0


class ConditionPoller:
    """Checks conditions in one workspace, with one set of credentials, for all triggers of one event loop.

    Get the shared instance with `ConditionPoller.shared`. Each call checks once; the caller decides when to check
    again.
    """

    _shared: ClassVar[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[object, ConditionPoller]]] = (
        weakref.WeakKeyDictionary()
    )

    def __init__(self, client: JobsClient, on_idle: Callable[[], object]) -> None:
        self._client = _SingleAttemptClient(
            api_version=client.api_version,
            transport=client.transport.with_policy(client.transport.policy),
            max_requests_per_second=client.max_requests_per_second,
        )
        bucket = TokenBucket.for_client(client, self)
        self._gate = RequestGate(bucket, clock=client.clock, sleep=asyncio.sleep)
        self._threads = DaemonThreads(_CONCURRENCY, name="airflow_dbjobs-condition")
        self._on_idle = on_idle
        self._users = 0

    @classmethod
    def shared(cls, client: JobsClient) -> ConditionPoller:
        """Return this event loop's poller for the workspace and credentials of `client`; use it within `in_use`."""
        pollers = cls._shared.setdefault(asyncio.get_running_loop(), {})
        key = (client.transport.identity, client.api_version)
        if key not in pollers:
            pollers[key] = cls(client, on_idle=lambda: pollers.pop(key))
        # The connection may have set another rate since.
        TokenBucket.for_client(client, pollers[key])
        return pollers[key]

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep threads and connections open; when the last user leaves, they are closed."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._on_idle()
                self._threads.stop()
                self._client.close()

    async def check(self, condition: Condition) -> CheckResult:
        """Check a condition as soon as the rate limit allows; it counts as one request. Raises JobsError."""
        await self._gate.wait_turn()
        sent_at = self._client.clock()
        check = self._threads.run(lambda: condition.check(self._client))
        try:
            result = await respond_within(_CHECK_TIMEOUT_SECONDS, self._client.host, check)
        except CallError as error:
            self._gate.record_failure(hash(condition), error, sent_at, of=self._users)
            raise
        self._gate.record_answer()
        return result


class _SingleAttemptClient(JobsClient):
    """A client that does not retry reads: waiting for the next attempt would occupy a thread for minutes."""

    def _get(self, endpoint: str, query: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return self.transport.send("GET", self._path(endpoint), query=query)
