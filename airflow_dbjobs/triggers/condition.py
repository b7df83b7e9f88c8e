"""The trigger of a sensor that waits for more than the end of a run: it checks a condition periodically."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_dbjobs.airflow_compat.metrics import emit_metric
from airflow_dbjobs.triggers.base import JobsTrigger, Success

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.runs.conditions import CheckResult, Condition


class DatabricksSensorTrigger(JobsTrigger):
    """Fires once: when the condition is met or can no longer be met, or when a job's run has been chosen.

    It never cancels a run. Unknown arguments are ignored, so that a trigger which another release stored in Airflow's
    database still works.

    :param condition: the condition as JSON values, written by ``Condition.to_dict`` in ``airflow_dbjobs.runs``.
    :param databricks_conn_id: the Airflow connection to the workspace.
    :param poke_interval: the time between two checks, in seconds.
    :param run_page_url: the page of the run, passed on to the resumed task.
    :param deadline: when the task exceeds its ``execution_timeout``, in epoch seconds; None if it has none.
    :param ends_task: whether the task succeeds here, without a worker, once the condition is met.
    :param max_result_bytes: the maximum size of the result that is then stored; None: none is stored.
    """

    def __init__(
        self,
        condition: Mapping[str, Any],
        databricks_conn_id: str,
        *,
        poke_interval: float = 60,
        run_page_url: str = "",
        deadline: float | None = None,
        ends_task: bool = False,
        max_result_bytes: int | None = None,
        **_: Any,
    ) -> None:
        super().__init__(
            databricks_conn_id,
            run_page_url=run_page_url,
            deadline=deadline,
            ends_task=ends_task,
            max_result_bytes=max_result_bytes,
        )
        self.condition = condition
        self.poke_interval = poke_interval
        # The condition that the latest check returned; None before `wait`.
        self._latest: Condition | None = None
        # After `wait`: the client, and the result with which the trigger fires.
        self._decided: tuple[JobsClient, CheckResult] | None = None
        # The message that was logged last.
        self._logged = ""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments, which contain no credentials."""
        return (
            "airflow_dbjobs.triggers.DatabricksSensorTrigger",
            {
                **self.common_arguments(),
                "condition": dict(self.condition),
                "poke_interval": self.poke_interval,
            },
        )

    @property
    def subject(self) -> str:
        """The run or job, as the beginning of a sentence."""
        return self._latest.subject if self._latest else "The sensor's condition"

    def event(self) -> dict[str, Any]:
        """Return the run that the condition is about, None if there is none yet, and its page."""
        run_id = self._latest.run_id if self._latest else self.condition.get("chosen")
        return {"run_id": run_id, "run_page_url": self.run_page_url}

    async def wait(self) -> dict[str, Any]:
        """Check the condition until the trigger has to fire; return the verdict. Raises JobsError."""
        from airflow_dbjobs.client.wait import Watch
        from airflow_dbjobs.runs.conditions import condition_from_dict
        from airflow_dbjobs.runs.polling.poller import RunPoller

        self._latest = condition_from_dict(self.condition)
        client = await self.connect()
        watch = Watch(
            self._latest.run_id or 0,
            self.poke_interval,
            client.patience,
            client.clock,
            warn=self.log.warning,
            action=f"Polling {self._latest.target}",
        )
        while True:
            poller = RunPoller.shared(client, emit_metric)
            client = poller.client
            if result := await poller.check(self._latest, watch, self._judge):
                self._decided = client, result
                return {"met": result.verdict is True, "state": result.message}
            client = await self.reconnect(client)

    async def read_success(self) -> Success | None:
        """Return what the sensor succeeds with. A worker publishes the run that has been chosen of a job."""
        from airflow_dbjobs.client.models import Outcome
        from airflow_dbjobs.runs.polling.poller import RunPoller
        from airflow_dbjobs.runs.result import run_result

        if self._decided is None or self._latest is None:
            return None
        client, decided = self._decided
        run, run_id, limit = decided.run, self._latest.run_id, self.max_result_bytes
        if decided.verdict is not True or run_id != self.condition.get("chosen"):
            return None
        if run_id is None or run is None:
            return Success(page_url=self.run_page_url)
        if run.state.is_success and run.outcome is not Outcome.SUCCESS:
            # A worker warns of a partial success.
            return None
        if limit is None or not run.state.is_success:
            return Success()
        poller = RunPoller.shared(client, emit_metric)
        return Success(await poller.call(lambda client: run_result(client, run, max_bytes=limit)))

    def _judge(self, result: CheckResult) -> CheckResult | None:
        """Return a result to fire for; log and remember it."""
        was_chosen = self._latest is not None and self._latest.run_id is not None
        self._latest = condition = result.condition
        if result.run and condition.run_id is None:
            # An active run of a job, or the latest run of an idle job: the resumed task does not check again.
            self.run_page_url = result.run.page_url
        if result.message != self._logged:
            self._logged = result.message
            self.log.info("%s", result.message)
        is_chosen_now = condition.run_id is not None and not was_chosen
        return result if result.verdict is not None or is_chosen_now else None
