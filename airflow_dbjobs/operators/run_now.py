"""The operator that runs an existing job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_dbjobs.operators.base import without_models
from airflow_dbjobs.operators.launch import LaunchOperator
from airflow_dbjobs.operators.parameters import number

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from airflow.providers.common.compat.sdk import Context

    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.client.models import Run
    from airflow_dbjobs.payloads.kinds import Int, Map, Text, Texts

_REPAIRS = "a whole number, 1 or more. repair_run=False makes none"


class DatabricksRunNowOperator(LaunchOperator):
    """Runs an existing job (``jobs/run-now``) and waits for its end.

    Returns what the run returned, as DatabricksSubmitRunOperator does. Every field that ends in the payload is
    templated, and takes XComArgs and native objects at any depth. Source: "Run now" of the Jobs API reference.

    Parameters that are not named here are fields of the reference, of the same names; the parameters of every launch
    are described at ``operators.launch.LaunchOperator``. Raises what DatabricksSubmitRunOperator raises.

    :param job_id: the job.
    :param job_name: the job's exact name instead, looked up at run time; where several jobs have it, an error lists
    them.
    :param forward_dag_params: give the DAG's params, as strings, as ``job_parameters`` where the run is given no
    parameters of any kind.
    :param repair_run: repair a run that failed: its failed tasks, and what depends on them, run again in the same run,
    with the job's settings as they are by then, and with the same parameters.
    :param max_repairs: how often a run is repaired, in all tries of the task and by anybody else.
    :param databricks_repair_reason_new_settings: settings of the job by reason: a run is then repaired only where its
    message, or a failed task's, contains a reason, and the settings are written to the job before (``jobs/update``).
    :param cancel_previous_runs: before the launch, cancel the job's active runs, and wait for their end; from the
    second try on, those that started before the DAG run.
    """

    endpoint = "run-now"
    payload_fields = (
        "job_id", "job_name", "job_parameters", "notebook_params", "python_params", "python_named_params",
        "jar_params", "spark_submit_params", "dbt_commands", "performance_target",
    )  # fmt: skip
    template_fields: Sequence[str] = ("json", *payload_fields, "idempotency_token", "databricks_conn_id")

    def __init__(
        self,
        *,
        job_id: Int = None,
        job_name: Text = None,
        job_parameters: Map = None,
        notebook_params: Map = None,
        python_params: Texts = None,
        python_named_params: Map = None,
        jar_params: Texts = None,
        spark_submit_params: Texts = None,
        dbt_commands: Texts = None,
        performance_target: Text = None,
        forward_dag_params: bool = True,
        repair_run: bool = False,
        max_repairs: int = 1,
        databricks_repair_reason_new_settings: dict[str, Any] | None = None,
        cancel_previous_runs: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.forward_dag_params = forward_dag_params
        self.repair_run = repair_run
        self.max_repairs = number("max_repairs", max_repairs, _REPAIRS, least=1, whole=True)
        self.databricks_repair_reason_new_settings = without_models(databricks_repair_reason_new_settings)
        self._check_reasons()
        self.cancel_previous_runs = cancel_previous_runs
        self._keep(locals())
        self._check_early()

    def _check_reasons(self) -> None:
        """Check when a run is repaired, and with what settings."""
        reasons = self.databricks_repair_reason_new_settings
        if not reasons:
            return
        if not isinstance(reasons, dict) or not all(
            isinstance(reason, str) and isinstance(fields, dict) for reason, fields in reasons.items()
        ):
            raise ValueError(
                "databricks_repair_reason_new_settings must have for each reason (words of a run's message) the job's"
                " settings to write, as a dict: {} writes none."
            )
        if not self.repair_run:
            # An error would be right; DAGs of the official operator, which says nothing, shall go on.
            self.log.warning("%s: databricks_repair_reason_new_settings does nothing without repair_run.", self.task_id)

    def _completed(self, payload: dict[str, Any], client: JobsClient, context: Context) -> dict[str, Any]:
        from airflow_dbjobs.operators.dag_params import with_job_parameters

        if self.repair_run and client.api_version == "2.0":
            from airflow_dbjobs.errors import ConfigurationError

            raise ConfigurationError("repair_run needs api_version 2.1 or 2.2 in the connection's extra.")
        if not self.forward_dag_params:
            return payload
        return with_job_parameters(payload, self._dag_params(context), client.api_version)

    def _resolved(self, payload: dict[str, Any], client: JobsClient) -> dict[str, Any]:
        name = payload.pop("job_name", None)
        return {**payload, "job_id": client.find_job_id(name)} if name else payload

    def _make_way(self, context: Context, client: JobsClient, payload: dict[str, Any]) -> None:
        is_first = context["ti"].try_number <= 1 and self._launch_of[1] == 1
        dag_run_start: datetime | None = getattr(context.get("dag_run"), "start_date", None)
        # Later, what started after the DAG run may be a run that this try could join, or has launched.
        if not self.cancel_previous_runs or (dag_run_start is None and not is_first):
            return
        from airflow_dbjobs.runs.cancel_previous import cancel_previous_runs

        if "job_id" not in payload:
            from airflow_dbjobs.errors import ConfigurationError

            raise ConfigurationError("cancel_previous_runs needs to know the job. Give job_id or job_name.")
        before = None if is_first or dag_run_start is None else dag_run_start.timestamp()
        cancel_previous_runs(client, int(payload["job_id"]), started_before=before, period=self.polling_period_seconds)

    def _repaired(self, context: Context, client: JobsClient, run: Run) -> Run | None:
        def killed() -> bool:
            return self._killed

        if not self.repair_run or killed() or run.outcome in self._successes():
            return None
        from airflow_dbjobs.runs.repair import Repairs

        repairs = Repairs(
            client,
            lambda: self._checked_payload(client, context),
            most=self.max_repairs,
            new_settings=self.databricks_repair_reason_new_settings,
            period=self.polling_period_seconds,
            stopped=killed,
        )
        self._is_repairing = True
        try:
            repaired = repairs.repair(run)
        finally:
            self._is_repairing = False
        if killed() and not self._is_left:
            self._cancel()
        self._raise_if_killed()
        return repaired
