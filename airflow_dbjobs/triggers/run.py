"""The trigger that waits for the end of a launched run and cancels it on a kill."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_dbjobs import airflow_compat
from airflow_dbjobs.triggers.base import JobsTrigger, look_up

if TYPE_CHECKING:
    from collections.abc import Coroutine


T = TypeVar("T")

# For how long the task's state is asked for. The first answer in a triggerer takes seconds, on a busy machine many.
STATE_TOLERANCE_SECONDS = 60.0
# For how long the connection is looked up and the run cancelled when the task's time is over: its next try joins what
# goes on then, and must not have it cancelled later.
CANCEL_SECONDS = 28.0

# An event loop keeps only weak references to its tasks.
_going_on: set[asyncio.Task[Any]] = set()


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
        """Return which run it is: what ``triggers.events`` reads."""
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
        from airflow_dbjobs.airflow_compat import to_airflow
        from airflow_dbjobs.client.wait import StateLog, Watch
        from airflow_dbjobs.runs.polling.poller import RunPoller

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
        from airflow_dbjobs.runs.polling.poller import RunPoller

        if not self.cancel_on_kill:
            return "it is left alone"
        try:
            async with asyncio.timeout(within):
                await RunPoller.shared(await look_up(self.databricks_conn_id)).cancel(self.run_id)
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
