"""The trigger that waits for the end of a run, and cancels a launched run when its task is killed."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.airflow_compat import AIRFLOW_V_3_0_PLUS, task_states
from airflow_dbjobs.airflow_compat.metrics import emit_metric
from airflow_dbjobs.triggers.base import JobsTrigger, Success, client_of, run_to_completion

if TYPE_CHECKING:
    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.client.models import RunState
    from airflow_dbjobs.client.wait import Watch
    from airflow_dbjobs.runs.conditions import CheckResult
    from airflow_dbjobs.runs.polling.poller import RunPoller

# How long to wait for the task's state. The first answer in a triggerer takes seconds, and longer on a busy machine.
TASK_STATE_TIMEOUT_SECONDS = 60.0
# How long connection lookup and cancellation may take at the deadline. After that the task's next try may have joined
# the run, which must not be cancelled then.
CANCEL_TIMEOUT_SECONDS = 28.0


class DatabricksRunTrigger(JobsTrigger):
    """Fires once: when a run is over, when its task exceeds its deadline, or when the run can no longer be polled.

    Unknown arguments are ignored, so that a trigger which another release stored in Airflow's database still works.

    :param run_id: the run to wait for.
    :param databricks_conn_id: the Airflow connection to the workspace.
    :param polling_period_seconds: the time between two polls, in seconds.
    :param run_page_url: the page of the run, passed on to the resumed task.
    :param cancel_on_kill: whether the run belongs to the task: then it is cancelled at the deadline, and when the task
        is killed.
    :param deadline: when the task exceeds its ``execution_timeout``, in epoch seconds; None if it has none.
    :param ends_task: whether the task succeeds here, without a worker, if the run does.
    :param max_result_bytes: the maximum size of the result that is then stored; None: none is stored.
    :param task_key: the task of a workflow group's run to wait for, instead of for the run; `cancel_on_kill` then only
        concerns that task, unless the whole run is not wanted any more.
    :param attempt: the run id of the attempt at that task that the Airflow task has seen.
    :param wants_repair: whether to wait until the run can be repaired, or has another attempt at that task.
    :param launch_task_id: the task that launched the workflow group's run.
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
        ends_task: bool = False,
        max_result_bytes: int | None = None,
        task_key: str | None = None,
        attempt: int | None = None,
        wants_repair: bool = False,
        launch_task_id: str = "",
        **_: Any,
    ) -> None:
        super().__init__(
            databricks_conn_id,
            run_page_url=run_page_url,
            deadline=deadline,
            ends_task=ends_task,
            max_result_bytes=max_result_bytes,
        )
        self.run_id = run_id
        self.polling_period_seconds = polling_period_seconds
        self.cancel_on_kill = cancel_on_kill
        self.task_key = task_key
        self.attempt = attempt
        self.wants_repair = wants_repair
        self.launch_task_id = launch_task_id
        # The message about the task that was logged last.
        self._logged = ""
        # After `wait`, if the run has succeeded: the client that can read it.
        self._client: JobsClient | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments, which contain no credentials."""
        return (
            "airflow_dbjobs.triggers.DatabricksRunTrigger",
            {
                **self.common_arguments(),
                "run_id": self.run_id,
                "polling_period_seconds": self.polling_period_seconds,
                "cancel_on_kill": self.cancel_on_kill,
                **self._task_arguments(),
            },
        )

    def _task_arguments(self) -> dict[str, Any]:
        if self.task_key is None:
            return {}
        return {
            "task_key": self.task_key,
            "attempt": self.attempt,
            "wants_repair": self.wants_repair,
            "launch_task_id": self.launch_task_id,
        }

    @property
    def subject(self) -> str:
        """The run, as the beginning of a sentence."""
        return f"Run {self.run_id}"

    def event(self) -> dict[str, Any]:
        """Return the run and its page."""
        return {"run_id": self.run_id, "run_page_url": self.run_page_url}

    async def on_deadline(self) -> str:
        """Cancel the run if it belongs to the task; return what was done, as the end of an error message."""
        reason = "its task exceeded its execution_timeout"
        return await run_to_completion(self._cancel(reason, within=CANCEL_TIMEOUT_SECONDS, killed=False))

    async def on_kill(self) -> None:
        """Cancel the run if a user marked or cleared the deferred task.

        A trigger is also stopped when it moves to another triggerer or its triggerer shuts down. The task instance is
        still deferred then, and the run continues.
        """
        if self.cancel_on_kill:
            # Airflow repeats its cancellation every second, and so interrupts this method.
            await run_to_completion(self._cancel_unless_deferred())

    async def wait(self) -> dict[str, Any]:
        """Wait for the end of the run; return its state. Raises JobsError."""
        from airflow_dbjobs.client.models import Outcome
        from airflow_dbjobs.client.wait import RunStateLogger, Watch
        from airflow_dbjobs.runs.polling.poller import RunPoller

        client = await self.connect()
        watch = Watch(
            self.run_id,
            self.polling_period_seconds,
            client.patience,
            client.clock,
            on_change=RunStateLogger(self.log, self.run_id),
            warn=self.log.warning,
        )
        while True:
            # All triggers of a poller use its client from here on, so that their own clients can be freed.
            poller = RunPoller.shared(client, emit_metric)
            client = poller.client
            if state := await self._poll(poller, watch):
                self._client = client if state.outcome is Outcome.SUCCESS else None
                return {"state": str(state)}
            client = await self.reconnect(client)

    async def _poll(self, poller: RunPoller, watch: Watch) -> RunState | None:
        """Return the state in which the run or its task ended; None if the credentials were rejected."""
        from airflow_dbjobs.runs.workflow_task import TaskEndCondition

        if self.task_key is None:
            end = await poller.wait(watch)
            return end and end.state
        known = self.attempt if self.wants_repair else None
        condition = TaskEndCondition(chosen=self.run_id, task_key=self.task_key, attempt=known)
        result = await poller.check(condition, watch, self._judge)
        return result.run.state if result and result.run else None

    def _judge(self, result: CheckResult) -> CheckResult | None:
        if result.message != self._logged:
            self._logged = result.message
            self.log.info("%s", result.message)
        return result if result.verdict else None

    async def read_success(self) -> Success | None:
        """Read the run again, as a worker would, because it may have been repaired, and its result."""
        from airflow_dbjobs.runs.polling.poller import RunPoller
        from airflow_dbjobs.runs.result import read_success
        from airflow_dbjobs.runs.task_log import TaskStateLogger, run_summary

        if self._client is None:
            return None
        read = partial(read_success, run_id=self.run_id, max_bytes=self.max_result_bytes, attempt=self.attempt)
        found = await RunPoller.shared(self._client, emit_metric).call(read)
        if found is None:
            return None
        run, result = found
        TaskStateLogger(self.log)(run)
        self.log.info("%s", run_summary(run))
        return Success(result)

    async def _cancel_unless_deferred(self) -> None:
        try:
            async with asyncio.timeout(TASK_STATE_TIMEOUT_SECONDS):
                state = await self._task_state()
        except Exception as error:  # noqa: BLE001 (Airflow may raise anything, and nothing else would log it)
            self.log.warning("Reading the task's state from Airflow failed: %r", error)
            state = None
        if state == "deferred":
            self.log.info("Run %d continues: its task is still deferred, only its trigger was stopped.", self.run_id)
        elif state is None:
            self.log.warning(
                "Run %d was not cancelled and may still be running, because the state of its task is unknown. If the"
                " task was killed, cancel the run in the workspace.",
                self.run_id,
            )
        else:
            # No limit, since a thousand runs may be cancelled at once and no later try joins this run.
            await self._cancel(f"its task is {state} now", within=None, killed=True)

    async def _cancel(self, reason: str, *, within: float | None, killed: bool) -> str:
        """Cancel the run if it belongs to the task, in at most `within` seconds; return what was done.

        Of a workflow group's run, cancel the active attempt at the task only, unless the kill concerns the whole run.
        """
        from airflow_dbjobs.runs.polling.poller import RunPoller

        if not self.cancel_on_kill:
            return "the run was not cancelled"
        canceled: int | None = self.run_id
        try:
            async with asyncio.timeout(within):
                poller = RunPoller.shared(await client_of(self.databricks_conn_id))
                if self.task_key is not None and not (killed and not await self._is_run_wanted()):
                    canceled = await poller.call(self._find_active_attempt)
                if canceled is None:
                    return "its task was not active"
                await poller.cancel(canceled)
        except Exception as error:  # noqa: BLE001 (a secrets backend may raise anything, and nothing else would log it)
            cause = str(error) or repr(error)
            self.log.warning("Run %d could not be cancelled and may still be running: %s", canceled, cause)
            return f"it could not be cancelled and may still be running: {cause}"
        self.log.info("Run %d: %s, and the API accepted the run's cancellation.", canceled, reason)
        return "the API accepted the run's cancellation"

    def _find_active_attempt(self, client: JobsClient) -> int | None:
        from airflow_dbjobs.runs.workflow_task import find_active_attempt

        return find_active_attempt(client, self.run_id, str(self.task_key), known=self.attempt)

    async def _is_run_wanted(self) -> bool:
        """Return whether other tasks still need the run; True if Airflow does not answer."""
        from asgiref.sync import sync_to_async

        if self.task_instance is None or not self.launch_task_id:
            return True
        read = sync_to_async(task_states.is_run_wanted)(self.task_instance, self.launch_task_id)
        try:
            async with asyncio.timeout(TASK_STATE_TIMEOUT_SECONDS):
                return await run_to_completion(read)
        except Exception as error:  # noqa: BLE001 (Airflow may raise anything, and nothing else would log it)
            self.log.warning("Reading the state of %s from Airflow failed: %r", self.launch_task_id, error)
            return True

    async def _task_state(self) -> str | None:
        """Return the task instance's state, as ``task_states.task_state`` does; None if the trigger has no task."""
        from asgiref.sync import sync_to_async

        if self.task_instance is None:
            return None
        trigger_id = None if AIRFLOW_V_3_0_PLUS else self.trigger_id
        read = sync_to_async(task_states.task_state)(self.task_instance, trigger_id=trigger_id)
        return await run_to_completion(read)
