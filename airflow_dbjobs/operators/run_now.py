"""The operator that runs an existing job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_dbjobs.operators.launch import LaunchOperator
from airflow_dbjobs.operators.parameters import parse_number

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from airflow_dbjobs.airflow_compat import Context
    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.client.models import Run
    from airflow_dbjobs.payloads.field_types import Int, Map, Text, Texts

_MAX_REPAIRS = "a whole number, 1 or more. For no repairs, set repair_run=False"


class DatabricksRunNowOperator(LaunchOperator):
    """Runs an existing job (``jobs/run-now``) and waits for the end of the run.

    Returns the run's result, as DatabricksSubmitRunOperator does. All fields of the payload are templated, and may
    contain XComArgs and native objects at any depth. Source: "Run now" of the Jobs API reference.

    Parameters that are not listed here are fields of the API reference with the same names.
    ``operators.launch.LaunchOperator`` describes the parameters of both operators that launch a run.

    :param job_id: the id of the job.
    :param job_name: the exact name of the job, instead of its id. It is looked up when the task runs.
    :param forward_dag_params: whether the DAG's params, as strings, become the ``job_parameters`` of the run if you
        give no parameters of any kind.
    :param repair_run: whether to repair a failed run: its failed tasks, and those that depend on them, run again in the
        same run, with the same parameters and the job's settings at that time.
    :param max_repairs: how often a run may be repaired, including repairs by earlier tries and by other people.
    :param databricks_repair_reason_new_settings: job settings by reason. A run is then repaired only if its message, or
        that of a failed task, contains a reason, whose settings are written to the job first (``jobs/update``).
    :param cancel_previous_runs: whether to cancel the job's active runs before the launch, and to wait for their end;
        from the second try on, only runs that started before the DAG run.
    :raises errors.PayloadError: when the DAG is parsed or before anything is sent, if the payload breaks a rule.
    :raises errors.ConfigurationError: likewise if another parameter is wrong, or if not exactly one job has the name.
    :raises errors.CallError: if the API gives no usable answer.
    :raises errors.RunFailed: if the run does not succeed; mostly as a subclass that says why.
    :raises errors.RunLost: if the run can no longer be polled. It is not cancelled.
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
        self.max_repairs = parse_number("max_repairs", max_repairs, _MAX_REPAIRS, at_least=1, whole=True)
        self.databricks_repair_reason_new_settings = databricks_repair_reason_new_settings
        self._check_repair_reasons()
        self.cancel_previous_runs = cancel_previous_runs
        self._set_payload_parameters(locals())
        self._check_early()

    def _check_repair_reasons(self) -> None:
        reasons = self.databricks_repair_reason_new_settings
        if not reasons:
            return
        if not isinstance(reasons, dict) or not all(
            isinstance(reason, str) and isinstance(fields, dict) for reason, fields in reasons.items()
        ):
            raise ValueError(
                "databricks_repair_reason_new_settings must map each reason (words of a run's message) to a dict of the"
                " job settings to write; {} writes none."
            )
        if not self.repair_run:
            # Not an error, because the official operator ignores it silently and its DAGs must keep working.
            self.log.warning(
                "%s: databricks_repair_reason_new_settings has no effect without repair_run=True.", self.task_id
            )

    def _build_payload(self, client: JobsClient, context: Context) -> dict[str, Any]:
        if self.repair_run and client.api_version == "2.0":
            from airflow_dbjobs.errors import ConfigurationError

            raise ConfigurationError("repair_run needs api_version 2.1 or 2.2 in the connection's extra.")
        return super()._build_payload(client, context)

    def _forward_dag_params(self, payload: dict[str, Any], client: JobsClient, context: Context) -> dict[str, Any]:
        from airflow_dbjobs.operators.dag_params import with_job_parameters

        if not self.forward_dag_params:
            return payload
        return with_job_parameters(payload, self._dag_run_params(context), client.api_version)

    def _add_lineage(self, payload: dict[str, Any], client: JobsClient, context: Context) -> dict[str, Any]:
        if not self.openlineage_inject_parent_job_info:
            return payload
        from airflow_dbjobs.operators.lineage import with_job_context

        return with_job_context(payload, client, context)

    def _build_launch_payload(self, client: JobsClient, context: Context) -> dict[str, Any]:
        payload = super()._build_launch_payload(client, context)
        name = payload.pop("job_name", None)
        return {**payload, "job_id": client.find_job_id(name)} if name else payload

    def _prepare_launch(self, context: Context, client: JobsClient, payload: dict[str, Any]) -> None:
        is_first = context["ti"].try_number <= 1 and self._launch_number == 1
        dag_run_start: datetime | None = getattr(context.get("dag_run"), "start_date", None)
        # A later launch keeps runs that started after the DAG run: this try may have launched one, or may join one.
        if not self.cancel_previous_runs or (dag_run_start is None and not is_first):
            return
        from airflow_dbjobs.runs.cancel_previous import cancel_previous_runs

        if "job_id" not in payload:
            from airflow_dbjobs.errors import ConfigurationError

            raise ConfigurationError("cancel_previous_runs needs the job. Give job_id or job_name.")
        before = None if is_first or dag_run_start is None else dag_run_start.timestamp()
        cancel_previous_runs(client, int(payload["job_id"]), started_before=before, period=self.polling_period_seconds)

    def _repair(self, context: Context, client: JobsClient, run: Run) -> Run | None:
        def is_killed() -> bool:
            return self._killed

        if not self.repair_run or is_killed() or run.outcome in self._successes():
            return None
        from airflow_dbjobs.runs.repair import RunRepairer

        repairer = RunRepairer(
            client,
            lambda: self._build_payload(client, context),
            max_repairs=self.max_repairs,
            settings_by_reason=self.databricks_repair_reason_new_settings,
            period=self.polling_period_seconds,
            is_killed=is_killed,
        )
        self._is_repairing = True
        try:
            repaired = repairer.repair(run)
        finally:
            self._is_repairing = False
        if is_killed() and not self._left_to_next_try:
            self._cancel()
        self._raise_if_killed()
        return repaired
