"""The deferrable trigger: carries plain values to the triggerer, asks the shared poller, yields one event."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_dbjobs.errors import JobsError, RunLost
from airflow_dbjobs.hooks import DatabricksJobsHook

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from airflow_dbjobs.client import JobsClient


# Airflow 3 fails a deferred task whose trigger fires before the scheduler has learnt that the task's first process has
# ended, which takes until the supervisor's next heartbeat, 5 s at most (apache/airflow#71580, #72716).
SETTLING_SECONDS = 6.0 if AIRFLOW_V_3_0_PLUS else 0.0

# For how long, and how often, a connection that cannot be read is looked up again.
LOOKUP_TOLERANCE_SECONDS = 600.0
LOOKUP_WAIT_SECONDS = 20.0

# An event loop keeps only weak references to its tasks.
_killing: set[asyncio.Task[None]] = set()


class DatabricksRunTrigger(BaseTrigger):
    """Fires once, when a run is over, or when it can no longer be waited for.

    `run_id` is the run, `databricks_conn_id` the connection to ask through, `polling_period_seconds` the time between
    two questions. `run_page_url` is carried for the resumed task. Arguments of another release are ignored, so that a
    trigger written to Airflow's database before an upgrade or a downgrade goes on.
    """

    def __init__(
        self,
        run_id: int,
        databricks_conn_id: str,
        polling_period_seconds: float = 10,
        run_page_url: str = "",
        cancel_on_kill: bool = True,
        **_: Any,
    ) -> None:
        super().__init__()
        self.run_id = run_id
        self.databricks_conn_id = databricks_conn_id
        self.polling_period_seconds = polling_period_seconds
        self.run_page_url = run_page_url
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
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait for the run and yield the event that `read_event` reads."""
        from airflow_dbjobs.poller import RunPoller, StateLog

        loop = asyncio.get_running_loop()
        settled = loop.time() + SETTLING_SECONDS
        event = {"run_id": self.run_id, "run_page_url": self.run_page_url}
        try:
            poller = RunPoller.shared(await self._connect())
            run = await poller.wait(self.run_id, period=self.polling_period_seconds, on_change=StateLog(self.log))
        except JobsError as error:
            event["error"] = str(error)
        else:
            event["state"] = str(run.state)
        await asyncio.sleep(settled - loop.time())
        yield TriggerEvent(event)

    async def on_kill(self) -> None:
        """Cancel the run when a user marked or cleared the deferred task. Called by Airflow 3.3 and newer.

        Airflow calls it as well when it moves the trigger to another triggerer: the task instance is still deferred
        then, and the run goes on.
        """
        if self.cancel_on_kill:
            # Airflow 3.3 repeats its cancellation every second and so interrupts this method; what it started goes on.
            killing = asyncio.create_task(self._cancel_unless_moved())
            _killing.add(killing)
            killing.add_done_callback(_killing.discard)
            await asyncio.shield(killing)

    async def _cancel_unless_moved(self) -> None:
        from airflow_dbjobs.poller import RunPoller

        try:
            state = await self._task_state()
        except Exception as error:  # noqa: BLE001 (whatever it is, nobody else would tell)
            self.log.warning("What became of the task cannot be learnt: %r", error)
            state = None
        if state == "deferred":
            self.log.info("Run %d goes on: its task is still deferred, only its trigger moves.", self.run_id)
            return
        if state is None:
            self.log.warning("Run %d is left alone: what became of its task cannot be learnt.", self.run_id)
            return
        try:
            await RunPoller.shared(await self._hook().aget_conn()).cancel(self.run_id)
        except JobsError as error:
            self.log.warning("Run %d could not be cancelled and may still be running: %s", self.run_id, error)
        else:
            self.log.info("Run %d: its task is %s now, and the API accepted to cancel it.", self.run_id, state)

    async def _connect(self) -> JobsClient:
        """Look the connection up, again where that fails: to Airflow a secrets backend that is down has no connections.

        Raises RunLost in the end, naming the run that is left alone.
        """
        deadline = asyncio.get_running_loop().time() + LOOKUP_TOLERANCE_SECONDS
        while True:
            try:
                return await self._hook().aget_conn()
            except Exception as error:
                if asyncio.get_running_loop().time() >= deadline:
                    raise RunLost(
                        f"Run {self.run_id} cannot be asked for, is left alone and may still be running"
                        f" ({self.run_page_url}): the triggerer cannot read the connection. {error}",
                        run_id=self.run_id,
                        page_url=self.run_page_url,
                    ) from error
                self.log.warning("The connection cannot be read, which is tried again: %s", error)
            await asyncio.sleep(LOOKUP_WAIT_SECONDS)

    def _hook(self) -> DatabricksJobsHook:
        return DatabricksJobsHook(self.databricks_conn_id, caller=type(self).__name__)

    async def _task_state(self) -> str | None:
        """Return the task instance's state ("cleared" where it has none), or None where it cannot be learnt."""
        from asgiref.sync import sync_to_async

        instance = self.task_instance
        if instance is None:
            return None
        # Airflow 3.3, the first version to call `on_kill`, gives a trigger this one way to ask.
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        states: Mapping[str, Mapping[str, Any]] = await sync_to_async(RuntimeTaskInstance.get_task_states)(
            dag_id=instance.dag_id,
            task_ids=[instance.task_id],
            run_ids=[instance.run_id],
            map_index=instance.map_index,
        )
        key = instance.task_id if instance.map_index < 0 else f"{instance.task_id}_{instance.map_index}"
        of_run = states.get(instance.run_id, {})
        if key not in of_run:
            return None
        state = of_run[key]
        return "cleared" if state is None else str(getattr(state, "value", state))


def read_event(event: Any) -> tuple[int, str]:
    """Return the run_id and the page of the run that `DatabricksRunTrigger` saw end.

    Raises errors.RunLost where the trigger could not wait for the end, and errors.JobsError for an event that is not
    ours.
    """
    if not isinstance(event, dict) or not isinstance(event.get("run_id"), int):
        raise JobsError(f"The trigger fired something that is not an event of a run: {event!r}")
    run_id, page_url = event["run_id"], str(event.get("run_page_url") or "")
    if error := event.get("error"):
        raise RunLost(str(error), run_id=run_id, page_url=page_url)
    return run_id, page_url
