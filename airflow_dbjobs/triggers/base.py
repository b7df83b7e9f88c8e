"""The base of the triggers: one connection lookup for all, the deadline, and a single event."""

from __future__ import annotations

import asyncio
import contextvars
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_dbjobs.airflow_compat.metrics import stats
from airflow_dbjobs.airflow_compat.task_end import settling_seconds, store_result, task_success_event
from airflow_dbjobs.errors import ConfigurationError, JobsError
from airflow_dbjobs.hooks.jobs import DatabricksJobsHook
from airflow_dbjobs.links import push_link
from airflow_dbjobs.triggers import events

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from airflow_dbjobs.client.jobs_client import JobsClient

T = TypeVar("T")

# How long, and how often, to retry a failed connection lookup, and how long one lookup may take.
LOOKUP_TOLERANCE_SECONDS = 600.0
LOOKUP_WAIT_SECONDS = 20.0
LOOKUP_TIMEOUT_SECONDS = 60.0

# How long a cancelled trigger may delay its triggerer. A cancellation that it has begun continues after that.
STOPPING_SECONDS = 5.0

# How long reading and storing the result of a success may take; after that a worker does it. The first answer of
# Airflow in a triggerer takes seconds, and longer on a busy machine.
ENDING_SECONDS = 120.0

# Airflow calls a trigger's `on_kill` from 3.3 on; before, a killed trigger is only cancelled.
_AIRFLOW_CALLS_ON_KILL = hasattr(BaseTrigger, "on_kill")

# Whether this process has imported what triggers use. (`sys.modules` also has what is still being imported.)
_is_loaded = False

# The connection lookups in progress, by event loop and connection id.
_lookups: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, asyncio.Task[JobsClient]]] = (
    weakref.WeakKeyDictionary()
)

# The threads that store results. Airflow stores one at a time, and while a thousand results wait for that, the event
# loop's own threads must stay free for other triggers.
_executor = ThreadPoolExecutor(2, thread_name_prefix="airflow_dbjobs result")

# Keeps references, because an event loop keeps only weak ones to its tasks.
_background_tasks: set[asyncio.Task[Any]] = set()


class Success(NamedTuple):
    """What a task succeeds with: its result, None if it has none, and the page of its link, if that is new."""

    result: Any = None
    page_url: str = ""

    def store(self, task_instance: Any) -> None:
        """Store both for the task. Blocks, so call it in a thread."""
        if self.page_url:
            push_link(task_instance, self.page_url)
        if self.result is not None:
            store_result(task_instance, self.result)


class JobsTrigger(BaseTrigger):
    """Base of the triggers: waits with the client of a connection, fires once, and obeys its task's deadline.

    `deadline` (epoch seconds) is when the task exceeds its ``execution_timeout``. With `ends_task` the task succeeds
    without a worker where it can, and `max_result_bytes` limits what is stored as its result; None: nothing is.
    """

    def __init__(
        self,
        databricks_conn_id: str,
        *,
        run_page_url: str,
        deadline: float | None,
        ends_task: bool = False,
        max_result_bytes: int | None = None,
    ) -> None:
        super().__init__()
        self.databricks_conn_id = databricks_conn_id
        self.run_page_url = run_page_url
        self.deadline = deadline
        self.ends_task = ends_task
        self.max_result_bytes = max_result_bytes

    @property
    def subject(self) -> str:
        """What the trigger polls, as the beginning of a sentence."""
        raise NotImplementedError

    def event(self) -> dict[str, Any]:
        """Return the keys that every event of this trigger has, as known when it fires."""
        raise NotImplementedError

    async def wait(self) -> dict[str, Any]:
        """Wait until the trigger has to fire; return the other keys of the event. Raises JobsError."""
        raise NotImplementedError

    async def read_success(self) -> Success | None:
        """Return what the task succeeds with after `wait`, None if a worker has to end it. Raises any exception."""
        raise NotImplementedError

    def common_arguments(self) -> dict[str, Any]:
        """Return the serialized arguments that all triggers have."""
        return {
            "databricks_conn_id": self.databricks_conn_id,
            "run_page_url": self.run_page_url,
            "deadline": self.deadline,
            "ends_task": self.ends_task,
            "max_result_bytes": self.max_result_bytes,
        }

    async def on_deadline(self) -> str:
        """Return what was done about the run at the deadline, as the end of an error message."""
        return "nothing was cancelled"

    async def on_kill(self) -> None:
        """Do nothing: by default the run does not belong to the task."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and yield one event."""
        began = asyncio.get_running_loop().time()
        try:
            outcome = await self._wait_until_deadline()
            success = await self._succeed() if outcome.keys().isdisjoint(("error", "timed_out")) else None
        except asyncio.CancelledError:
            if not _AIRFLOW_CALLS_ON_KILL:
                with suppress(TimeoutError):
                    async with asyncio.timeout(STOPPING_SECONDS):
                        await self.on_kill()
            raise
        if success is None:
            await asyncio.sleep(began + settling_seconds() - asyncio.get_running_loop().time())
        yield success or TriggerEvent({**self.event(), **outcome})

    async def _wait_until_deadline(self) -> dict[str, Any]:
        """Wait until the trigger has to fire or its task exceeds its deadline; return the other keys of the event."""
        left = None if self.deadline is None else max(0.0, self.deadline - time.time())
        try:
            async with asyncio.timeout(left) as limit:
                await load()
                return await self.wait()
        except TimeoutError as error:
            if limit.expired():
                return {"timed_out": await self.on_deadline()}
            return {
                "error": f"{self.subject} is no longer polled, because its trigger failed: {error!r}. Nothing was"
                " cancelled, and the run may still be running. See the triggerer's log."
            }
        except JobsError as error:
            return events.error_event(error)

    async def _succeed(self) -> TriggerEvent | None:
        """Return the event that ends the task as a success, None if a worker has to end it."""
        ti: Any = self.task_instance
        if not self.ends_task or ti is None:
            return None
        try:
            async with asyncio.timeout(ENDING_SECONDS):
                success = await self.read_success()
                if success is not None:
                    # Stored before the event, because Airflow encodes twice what an event carries. If this triggerer
                    # dies in between, the next one stores the same again.
                    await in_thread(lambda: success.store(ti))
        except Exception as error:  # noqa: BLE001 (whatever it is, a worker does it again, and explains it)
            self.log.warning("Ending the task in the triggerer failed; a worker ends it: %s", str(error) or repr(error))
            return None
        if success is None:
            return None
        self.log.info("The task succeeds without resuming on a worker.")
        return task_success_event()

    async def connect(self) -> JobsClient:
        """Return a client, retrying a failed lookup: Airflow reports a secrets backend that is down as no connection.

        Raises JobsError once the tolerance is exhausted: ConfigurationError if Airflow reported a wrong setting.
        """
        deadline = asyncio.get_running_loop().time() + LOOKUP_TOLERANCE_SECONDS
        while True:
            try:
                return await client_of(self.databricks_conn_id)
            except Exception as error:
                if asyncio.get_running_loop().time() >= deadline:
                    page = f" ({self.run_page_url})" if self.run_page_url else ""
                    kind = ConfigurationError if isinstance(error, ConfigurationError) else JobsError
                    raise kind(
                        f"{self.subject} cannot be polled: the triggerer could not read the connection for"
                        f" {LOOKUP_TOLERANCE_SECONDS / 60:.0f} min. Nothing was cancelled, and the run may still be"
                        f" running{page}. {str(error) or repr(error)}"
                    ) from error
                conn_id, reason = self.databricks_conn_id, str(error) or repr(error)
                self.log.warning("Reading the connection %r failed; will retry: %s", conn_id, reason)
            await asyncio.sleep(LOOKUP_WAIT_SECONDS)

    async def reconnect(self, client: JobsClient) -> JobsClient:
        """Return a client with the connection's present credentials, or `client` if that cannot be read."""
        conn_id = self.databricks_conn_id
        try:
            renewed = await client_of(conn_id)
        except Exception as error:  # noqa: BLE001 (a secrets backend may raise anything)
            reason = str(error) or repr(error)
            self.log.warning(
                "Reading the connection %r again failed; keeping the previous credentials: %s", conn_id, reason
            )
            return client
        if renewed.transport.identity != client.transport.identity:
            self.log.warning("The connection %r has changed; using its new settings.", conn_id)
        return renewed


async def load() -> None:
    """Import what triggers use, in a thread: in the event loop, their first use would block it for 200 ms."""
    global _is_loaded  # noqa: PLW0603 (a process has its modules once)
    if not _is_loaded:
        await asyncio.to_thread(_import_modules)
        _is_loaded = True


def _import_modules() -> None:
    import asgiref.sync  # noqa: F401

    from airflow_dbjobs.runs import conditions, ended_runs, workflow_task  # noqa: F401
    from airflow_dbjobs.runs.polling import poller  # noqa: F401

    # Airflow reads a file for its first metric. A timer sends nothing before it is stopped.
    with suppress(Exception):
        stats().timer("dbjobs.poller.lag")


async def in_thread(call: Callable[[], T]) -> T:
    """Return what a call returns that asks Airflow, in a thread. Raises what it raises."""
    from asgiref.sync import sync_to_async

    # Airflow's supervisor can only be asked from a thread in which asgiref makes the call.
    return await run_to_completion(sync_to_async(call, thread_sensitive=False, executor=_executor)())


async def run_to_completion(work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns; cancelling the caller does not cancel `work`.

    A cancellation would also reach the request of a thread that asks Airflow. Before 3.3 Airflow's triggerer then dies,
    because it takes the late answer for that of its next request.
    """
    task = asyncio.create_task(work)
    _background_tasks.add(task)
    task.add_done_callback(_on_background_task_done)
    return await asyncio.shield(task)


def _on_background_task_done(task: asyncio.Task[Any]) -> None:
    _background_tasks.discard(task)
    if not task.cancelled():
        # Marks the error as retrieved: asyncio would log it if the caller was cancelled.
        task.exception()


async def client_of(conn_id: str) -> JobsClient:
    """Return a client for a connection, with one lookup for all triggers that need it at the same time."""
    loop = asyncio.get_running_loop()
    lookups = _lookups.setdefault(loop, {})

    def on_done(lookup: asyncio.Task[JobsClient]) -> None:
        del lookups[conn_id]
        if not lookup.cancelled():
            # Marks the error as retrieved: asyncio would log it if every caller was cancelled.
            lookup.exception()

    if conn_id not in lookups:
        hook = DatabricksJobsHook(conn_id, caller="DatabricksRunTrigger")
        # In an empty context, since it belongs to none of the triggers that await it.
        limited = asyncio.wait_for(run_to_completion(hook.aget_conn()), LOOKUP_TIMEOUT_SECONDS)
        lookups[conn_id] = loop.create_task(limited, context=contextvars.Context())
        lookups[conn_id].add_done_callback(on_done)
    return await asyncio.shield(lookups[conn_id])
