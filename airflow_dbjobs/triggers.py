"""The deferrable trigger of a run: carries plain values to the triggerer, asks the shared poller, yields one event."""

from __future__ import annotations

import asyncio
import contextvars
import time
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_dbjobs import airflow_compat, events
from airflow_dbjobs.errors import ConfigurationError, JobsError
from airflow_dbjobs.hooks import DatabricksJobsHook

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from airflow_dbjobs.client import JobsClient


T = TypeVar("T")

# Airflow 3 fails a deferred task whose trigger fires before the scheduler has learnt that the task's first process has
# ended, which takes until the supervisor's next heartbeat, 5 s at most (apache/airflow#71580, #72716).
SETTLING_SECONDS = 6.0 if AIRFLOW_V_3_0_PLUS else 0.0

# For how long, and how often, a connection that cannot be read is looked up again.
LOOKUP_TOLERANCE_SECONDS = 600.0
LOOKUP_WAIT_SECONDS = 20.0

# For how long the task's state is asked for. The first answer in a triggerer takes seconds, on a busy machine many.
STATE_TOLERANCE_SECONDS = 60.0
# For how long the connection is looked up and the run cancelled when the task's time is over: its next try joins what
# goes on then, and must not have it cancelled later.
CANCEL_SECONDS = 28.0
# For how long a trigger that is told to stop holds its triggerer up; what it has begun goes on after that.
STOPPING_SECONDS = 5.0

# From 3.3 on Airflow calls a trigger's `on_kill`; before, a trigger learns of a kill by being cancelled.
_ON_KILL_IS_CALLED = hasattr(BaseTrigger, "on_kill")

# For how long one look-up of a connection may take.
LOOKUP_SECONDS = 60.0

# An event loop keeps only weak references to its tasks.
_going_on: set[asyncio.Task[Any]] = set()

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
                return await _look_up(self.databricks_conn_id)
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
            renewed = await _look_up(self.databricks_conn_id)
        except Exception as error:  # noqa: BLE001 (a secrets backend that is down: the old ones are all there is)
            self.log.warning("The connection cannot be read anew: %s", error)
            return client
        if renewed.transport.identity != client.transport.identity:
            self.log.warning("The connection has changed; using its new settings.")
        return renewed


class DatabricksRunTrigger(JobsTrigger):
    """Fires once, when a run is over, when its task's time is, or when the run can no longer be waited for.

    `run_id` is the run, `databricks_conn_id` the connection to ask through, `polling_period_seconds` the time between
    two questions. `run_page_url` is carried for the resumed task. `deadline` (epoch seconds) is when the task's
    ``execution_timeout`` has passed. `cancel_on_kill` says that the run belongs to the task: it is cancelled at the
    deadline, and when the task is killed. Arguments of another release are ignored, so that a trigger written to
    Airflow's database before an upgrade or a downgrade goes on.
    """

    def __init__(
        self,
        run_id: int,
        databricks_conn_id: str,
        *,
        polling_period_seconds: float = 10,
        run_page_url: str = "",
        cancel_on_kill: bool = True,
        deadline: float | None = None,
        **_: Any,
    ) -> None:
        super().__init__(databricks_conn_id, run_page_url=run_page_url, deadline=deadline)
        self.run_id = run_id
        self.polling_period_seconds = polling_period_seconds
        self.cancel_on_kill = cancel_on_kill

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments; no credentials among them."""
        return (
            "airflow_dbjobs.triggers.DatabricksRunTrigger",
            {
                "run_id": self.run_id,
                "databricks_conn_id": self.databricks_conn_id,
                "polling_period_seconds": self.polling_period_seconds,
                "run_page_url": self.run_page_url,
                "cancel_on_kill": self.cancel_on_kill,
                "deadline": self.deadline,
            },
        )

    @property
    def what(self) -> str:
        """The run, as a sentence begins with it."""
        return f"Run {self.run_id}"

    def event(self) -> dict[str, Any]:
        """Return which run it is: what ``events`` reads."""
        return {"run_id": self.run_id, "run_page_url": self.run_page_url}

    async def give_up(self) -> str:
        """Cancel the run, if it is the task's, when the task's time is over."""
        why = "its task has passed its execution_timeout"
        return await _to_its_end(self._cancel(why, within=CANCEL_SECONDS))

    async def on_kill(self) -> None:
        """Cancel the run when a user marked or cleared the deferred task.

        That a trigger is told to stop does not mean that: it may be moved to another triggerer, or its triggerer may be
        going. The task instance is still deferred then, and the run goes on.
        """
        if self.cancel_on_kill:
            # Airflow repeats its cancellation every second and so interrupts this method.
            await _to_its_end(self._cancel_unless_moved())

    async def wait(self) -> dict[str, Any]:
        """Wait for the end of the run. Raises JobsError."""
        from airflow_dbjobs.metrics import to_airflow
        from airflow_dbjobs.poller import RunPoller
        from airflow_dbjobs.waiting import StateLog, Watch

        client = await self.connect()
        watch = Watch(
            self.run_id,
            self.polling_period_seconds,
            client.patience,
            client.clock,
            on_change=StateLog(self.log, self.run_id),
            warn=self.log.warning,
        )
        while True:
            # From here on all triggers of the poller hold the same client.
            poller = RunPoller.shared(client, to_airflow)
            client = poller.client
            if run := await poller.wait(watch):
                return {"state": str(run.state)}
            client = await self.reconnect(client)

    async def _cancel_unless_moved(self) -> None:
        try:
            async with asyncio.timeout(STATE_TOLERANCE_SECONDS):
                state = await self._task_state()
        except Exception as error:  # noqa: BLE001 (whatever it is, nobody else would tell)
            self.log.warning("Airflow did not tell the state of the task: %r", error)
            state = None
        if state == "deferred":
            self.log.info("Run %d goes on: its task is still deferred, only its trigger moves.", self.run_id)
        elif state is None:
            self.log.warning("Run %d was not cancelled: Airflow cannot be asked what became of its task.", self.run_id)
        else:
            # However long it takes with a thousand at once: no next try joins this run.
            await self._cancel(f"its task is {state} now", within=None)

    async def _cancel(self, why: str, *, within: float | None) -> str:
        """Cancel the run, if it belongs to the task, and return what became of that; give up after so many seconds."""
        from airflow_dbjobs.poller import RunPoller

        if not self.cancel_on_kill:
            return "it is left alone"
        try:
            async with asyncio.timeout(within):
                await RunPoller.shared(await _look_up(self.databricks_conn_id)).cancel(self.run_id)
        except Exception as error:  # noqa: BLE001 (the secrets backend may raise anything, and nobody else would tell)
            why_not = str(error) or repr(error)
            self.log.warning("Run %d could not be cancelled and may still be running: %s", self.run_id, why_not)
            return f"it could not be cancelled and may still be running: {why_not}"
        self.log.info("Run %d: %s, and the API accepted to cancel it.", self.run_id, why)
        return "the API accepted to cancel it"

    async def _task_state(self) -> str | None:
        """Return the task instance's state, as ``airflow_compat.task_state`` does; None where there is no task."""
        from asgiref.sync import sync_to_async

        if self.task_instance is None:
            return None
        trigger_id = None if AIRFLOW_V_3_0_PLUS else self.trigger_id
        return await sync_to_async(airflow_compat.task_state)(self.task_instance, trigger_id=trigger_id)


async def _to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns; it goes on where who waits for it is told to stop."""
    going_on = asyncio.create_task(work)
    _going_on.add(going_on)
    going_on.add_done_callback(_going_on.discard)
    return await asyncio.shield(going_on)


async def _look_up(conn_id: str) -> JobsClient:
    """Return a client for a connection, which is looked up once for all triggers that ask at the same time."""
    loop = asyncio.get_running_loop()
    lookups = _lookups.setdefault(loop, {})

    def finished(lookup: asyncio.Task[JobsClient]) -> None:
        del lookups[conn_id]
        if not lookup.cancelled():
            # Whoever waits is told. Where nobody does any more, asyncio shall not complain.
            lookup.exception()

    if conn_id not in lookups:
        hook = DatabricksJobsHook(conn_id, caller=DatabricksRunTrigger.__name__)
        # With no context: it belongs to none of the triggers that wait for it.
        look_up = asyncio.wait_for(hook.aget_conn(), LOOKUP_SECONDS)
        lookups[conn_id] = loop.create_task(look_up, context=contextvars.Context())
        lookups[conn_id].add_done_callback(finished)
    return await asyncio.shield(lookups[conn_id])
