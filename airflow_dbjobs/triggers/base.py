"""What the triggers share: the connection, the deadline and the one event."""

from __future__ import annotations

import asyncio
import contextvars
import time
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_dbjobs.errors import ConfigurationError, JobsError
from airflow_dbjobs.hooks.jobs import DatabricksJobsHook
from airflow_dbjobs.triggers import events

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow_dbjobs.client.jobs_client import JobsClient

# Airflow 3 fails a deferred task whose trigger fires before the scheduler has learnt that the task's first process has
# ended, which takes until the supervisor's next heartbeat, 5 s at most (apache/airflow#71580, #72716).
SETTLING_SECONDS = 6.0 if AIRFLOW_V_3_0_PLUS else 0.0

# For how long, and how often, a connection that cannot be read is looked up again.
LOOKUP_TOLERANCE_SECONDS = 600.0
LOOKUP_WAIT_SECONDS = 20.0

# For how long a trigger that is told to stop holds its triggerer up; what it has begun goes on after that.
STOPPING_SECONDS = 5.0

# From 3.3 on Airflow calls a trigger's `on_kill`; before, a trigger learns of a kill by being cancelled.
_ON_KILL_IS_CALLED = hasattr(BaseTrigger, "on_kill")

# For how long one look-up of a connection may take.
LOOKUP_SECONDS = 60.0

# The look-ups of connections that are under way, by event loop and connection id.
_lookups: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, asyncio.Task[JobsClient]]] = (
    weakref.WeakKeyDictionary()
)


class JobsTrigger(BaseTrigger):
    """Base of the triggers: asks through a connection, fires once, and keeps to the deadline of its task.

    `deadline` (epoch seconds) is when the task's ``execution_timeout`` has passed.
    """

    def __init__(self, databricks_conn_id: str, *, run_page_url: str, deadline: float | None) -> None:
        super().__init__()
        self.databricks_conn_id = databricks_conn_id
        self.run_page_url = run_page_url
        self.deadline = deadline

    @property
    def what(self) -> str:
        """What is asked for, as a sentence begins with it."""
        raise NotImplementedError

    def event(self) -> dict[str, Any]:
        """Return what every event of this trigger says, by what is known when it fires."""
        raise NotImplementedError

    async def wait(self) -> dict[str, Any]:
        """Return what the event says besides, when there is something to fire for. Raises JobsError."""
        raise NotImplementedError

    async def give_up(self) -> str:
        """Return what became of the run when the task's time was over."""
        return "it is left alone"

    async def on_kill(self) -> None:
        """Do nothing: a run is its launching task's."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and yield one event."""
        settled = asyncio.get_running_loop().time() + SETTLING_SECONDS
        left = None if self.deadline is None else max(0.0, self.deadline - time.time())
        try:
            async with asyncio.timeout(left) as limit:
                told = await self.wait()
        except TimeoutError as error:
            if limit.expired():
                told = {"timed_out": await self.give_up()}
            else:
                told = {"error": f"{self.what} is left alone and may still be running: {error!r}"}
        except JobsError as error:
            told = events.of_error(error)
        except asyncio.CancelledError:
            if not _ON_KILL_IS_CALLED:
                with suppress(TimeoutError):
                    async with asyncio.timeout(STOPPING_SECONDS):
                        await self.on_kill()
            raise
        await asyncio.sleep(settled - asyncio.get_running_loop().time())
        yield TriggerEvent({**self.event(), **told})

    async def connect(self) -> JobsClient:
        """Look the connection up, again where that fails: to Airflow a secrets backend that is down has no connections.

        Raises JobsError in the end, naming what is left alone: ConfigurationError where Airflow says what is wrong.
        """
        deadline = asyncio.get_running_loop().time() + LOOKUP_TOLERANCE_SECONDS
        while True:
            try:
                return await look_up(self.databricks_conn_id)
            except Exception as error:
                if asyncio.get_running_loop().time() >= deadline:
                    where = f" ({self.run_page_url})" if self.run_page_url else ""
                    kind = ConfigurationError if isinstance(error, ConfigurationError) else JobsError
                    raise kind(
                        f"{self.what} cannot be asked for, is left alone and may still be running{where}: the triggerer"
                        f" cannot read the connection. {error}"
                    ) from error
                self.log.warning("The connection cannot be read, which is tried again: %s", str(error) or repr(error))
            await asyncio.sleep(LOOKUP_WAIT_SECONDS)

    async def reconnect(self, client: JobsClient) -> JobsClient:
        """Return a client with the credentials as they are now; `client` itself where nobody can tell."""
        try:
            renewed = await look_up(self.databricks_conn_id)
        except Exception as error:  # noqa: BLE001 (a secrets backend that is down: the old ones are all there is)
            self.log.warning("The connection cannot be read anew: %s", error)
            return client
        if renewed.transport.identity != client.transport.identity:
            self.log.warning("The connection has changed; using its new settings.")
        return renewed


async def look_up(conn_id: str) -> JobsClient:
    """Return a client for a connection, which is looked up once for all triggers that ask at the same time."""
    loop = asyncio.get_running_loop()
    lookups = _lookups.setdefault(loop, {})

    def finished(lookup: asyncio.Task[JobsClient]) -> None:
        del lookups[conn_id]
        if not lookup.cancelled():
            # Whoever waits is told. Where nobody does any more, asyncio shall not complain.
            lookup.exception()

    if conn_id not in lookups:
        hook = DatabricksJobsHook(conn_id, caller="DatabricksRunTrigger")
        # With no context: it belongs to none of the triggers that wait for it.
        limited = asyncio.wait_for(hook.aget_conn(), LOOKUP_SECONDS)
        lookups[conn_id] = loop.create_task(limited, context=contextvars.Context())
        lookups[conn_id].add_done_callback(finished)
    return await asyncio.shield(lookups[conn_id])
