"""Looks at conditions for the triggers of an event loop: in few threads, one attempt each, and not too often."""

from __future__ import annotations

import asyncio
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_dbjobs.client.jobs_client import JobsClient
from airflow_dbjobs.errors import CallError, Unreachable
from airflow_dbjobs.runs.polling.rate_limit import Gate, TokenBucket
from airflow_dbjobs.runs.polling.threads import DaemonThreads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from airflow_dbjobs.runs.conditions import Condition, Look

# Looks at a time, and so connections, for each workspace and its credentials.
_CONCURRENCY = 4
# A look may walk many pages, each as slow as the timeouts allow. After so long its thread is given up.
_LONGEST_LOOK_SECONDS = 300.0


class Looker:
    """Looks at one workspace, with one set of credentials, for all triggers of one event loop.

    Get the shared one with `Looker.shared`. It asks once: who waits for a condition asks again when it is time to.
    """

    _shared: ClassVar[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[object, Looker]]] = (
        weakref.WeakKeyDictionary()
    )

    def __init__(self, client: JobsClient, on_idle: Callable[[], object]) -> None:
        self._client = _OneAttempt(
            api_version=client.api_version,
            transport=client.transport.with_policy(client.transport.policy),
            max_requests_per_second=client.max_requests_per_second,
        )
        self._gate = Gate(self.bucket_for(client), clock=client.clock, sleep=asyncio.sleep)
        self._threads = DaemonThreads(_CONCURRENCY, name="airflow_dbjobs-look")
        self._on_idle = on_idle
        self._users = 0

    @classmethod
    def shared(cls, client: JobsClient) -> Looker:
        """Return this event loop's looker for the workspace and credentials of `client`, to be used `in_use`."""
        lookers = cls._shared.setdefault(asyncio.get_running_loop(), {})
        key = (client.transport.identity, client.api_version)
        if key not in lookers:
            lookers[key] = cls(client, on_idle=lambda: lookers.pop(key))
        # The connection may say another rate by now.
        lookers[key].bucket_for(client)
        return lookers[key]

    def bucket_for(self, client: JobsClient) -> TokenBucket:
        """Ask no more often than the client's connection says now, and others of the same credentials."""
        workspace = client.host, client.workspace_id
        return TokenBucket.of(workspace, client.max_requests_per_second, client.clock, self, client.connection)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep threads and connections; the last user lets them go."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._on_idle()
                self._threads.stop()
                self._client.close()

    async def look(self, condition: Condition) -> Look:
        """Look at a condition, when the workspace may be asked; it counts as one request. Raises JobsError."""
        await self._gate.pass_through()
        asked_at = self._client.clock()
        try:
            look = await self._in_time(condition)
        except CallError as error:
            self._gate.failed(hash(condition), error, asked_at, of=self._users)
            raise
        self._gate.answered()
        return look

    async def _in_time(self, condition: Condition) -> Look:
        try:
            async with asyncio.timeout(_LONGEST_LOOK_SECONDS) as limit:
                return await self._threads.run(lambda: condition.look(self._client))
        except TimeoutError:
            if not limit.expired():
                # Somebody else's.
                raise
            host, longest = self._client.host, _LONGEST_LOOK_SECONDS
            raise Unreachable(f"{host} did not answer in full within {longest:.0f} s") from None


class _OneAttempt(JobsClient):
    """A client whose reads are not repeated: to wait for the next attempt would hold a thread for minutes."""

    def _get(self, endpoint: str, query: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return self.transport.send("GET", self._path(endpoint), query=query)
