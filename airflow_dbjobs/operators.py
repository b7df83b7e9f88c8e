"""The operators of a DAG: launch a run, wait for it, return what it returned or fail with what it failed of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_dbjobs.launch_operator import LaunchOperator
from airflow_dbjobs.operator_parameters import number
from airflow_dbjobs.payload_operator import PayloadOperator, without_models

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from airflow_dbjobs.airflow_compat import Context
    from airflow_dbjobs.client import JobsClient
    from airflow_dbjobs.payloads import (
        AiRuntimeTask,
        AlertTask,
        CleanRoomsNotebookTask,
        ConditionTask,
        CronSchedule,
        DashboardTask,
        DbtCloudTask,
        DbtPlatformTask,
        DbtTask,
        ForEachTask,
        GenAiComputeTask,
        GitSource,
        JobAccessControlRequest,
        JobCluster,
        JobEmailNotifications,
        JobEnvironment,
        JobNotificationSettings,
        Library,
        NewCluster,
        NotebookTask,
        PipelineTask,
        PowerBiTask,
        PythonOperatorTask,
        PythonWheelTask,
        RunJobTask,
        SparkJarTask,
        SparkPythonTask,
        SparkSubmitTask,
        SqlTask,
        SubmitTask,
        Task,
        TriggerSettings,
        WebhookNotifications,
    )
    from airflow_dbjobs.payloads.kinds import Int, Many, Map, One, Text, Texts
    from airflow_dbjobs.runs import Run

_REPAIRS = "a whole number, 1 or more. repair_run=False makes none"


class DatabricksSubmitRunOperator(LaunchOperator):
    """Launches a one-time run (``jobs/runs/submit``) and waits for its end.

    Returns what the run returned, as ``results.result_of`` describes it: the value its notebook passed to
    ``dbutils.notebook.exit`` (parsed if it is a JSON object or list), or for a run of several tasks a dict by task key.
    Every field that ends in the payload is templated, and takes XComArgs and native objects at any depth. Source: "Runs
    submit" of the Jobs API reference.

    Exactly one of ``tasks`` and the ``…_task`` parameters says what to run. Parameters that are not named here are
    fields of the reference, of the same names, as dicts or as models of ``payloads``; the parameters of every launch
    are described at ``launch_operator.LaunchOperator``.

    :param tasks: the tasks of a multi-task run.
    :param run_name: default: the task id.
    :param timeout_seconds: the run's own timeout, enforced by the platform; 0 or None for none.
    :param forward_dag_params: give the DAG's params, as strings, to each task that takes parameters by name and has
    none.

    Raises ``errors.PayloadError`` or ``errors.ConfigurationError`` when it is made, and before anything is sent;
    ``errors.RunFailed`` (or a class below it) where the run does not succeed, ``errors.CallError`` where the API gives
    no usable answer.
    """

    endpoint = "runs/submit"
    payload_fields = (
        "tasks", "notebook_task", "spark_python_task", "spark_jar_task", "spark_submit_task", "pipeline_task",
        "dbt_task", "python_wheel_task", "sql_task", "run_job_task", "condition_task", "for_each_task", "alert_task",
        "dashboard_task", "power_bi_task", "dbt_platform_task", "dbt_cloud_task", "clean_rooms_notebook_task",
        "python_operator_task", "ai_runtime_task", "gen_ai_compute_task", "new_cluster", "existing_cluster_id",
        "libraries", "environments", "run_name", "timeout_seconds", "access_control_list", "git_source",
        "performance_target",
    )  # fmt: skip
    template_fields: Sequence[str] = ("json", *payload_fields, "idempotency_token", "databricks_conn_id")

    def __init__(
        self,
        *,
        tasks: Many[SubmitTask] = None,
        notebook_task: One[NotebookTask] = None,
        spark_python_task: One[SparkPythonTask] = None,
        spark_jar_task: One[SparkJarTask] = None,
        spark_submit_task: One[SparkSubmitTask] = None,
        pipeline_task: One[PipelineTask] = None,
        dbt_task: One[DbtTask] = None,
        python_wheel_task: One[PythonWheelTask] = None,
        sql_task: One[SqlTask] = None,
        run_job_task: One[RunJobTask] = None,
        condition_task: One[ConditionTask] = None,
        for_each_task: One[ForEachTask] = None,
        alert_task: One[AlertTask] = None,
        dashboard_task: One[DashboardTask] = None,
        power_bi_task: One[PowerBiTask] = None,
        dbt_platform_task: One[DbtPlatformTask] = None,
        dbt_cloud_task: One[DbtCloudTask] = None,
        clean_rooms_notebook_task: One[CleanRoomsNotebookTask] = None,
        python_operator_task: One[PythonOperatorTask] = None,
        ai_runtime_task: One[AiRuntimeTask] = None,
        gen_ai_compute_task: One[GenAiComputeTask] = None,
        new_cluster: One[NewCluster] = None,
        existing_cluster_id: Text = None,
        libraries: Many[Library] = None,
        environments: Many[JobEnvironment] = None,
        run_name: Text = None,
        timeout_seconds: Int = None,
        access_control_list: Many[JobAccessControlRequest] = None,
        git_source: One[GitSource] = None,
        performance_target: Text = None,
        forward_dag_params: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.forward_dag_params = forward_dag_params
        self._keep(locals())
        self._check_early()

    def _defaults(self) -> dict[str, Any]:
        return {"run_name": self.task_id}

    def _completed(
        self,
        payload: dict[str, Any],
        client: JobsClient,  # noqa: ARG002 (others need it)
        context: Context,
    ) -> dict[str, Any]:
        from airflow_dbjobs.dag_params import with_task_parameters

        return with_task_parameters(payload, self._dag_params(context)) if self.forward_dag_params else payload


class DatabricksRunNowOperator(LaunchOperator):
    """Runs an existing job (``jobs/run-now``) and waits for its end.

    Returns what the run returned, as DatabricksSubmitRunOperator does. Every field that ends in the payload is
    templated, and takes XComArgs and native objects at any depth. Source: "Run now" of the Jobs API reference.

    Parameters that are not named here are fields of the reference, of the same names; the parameters of every launch
    are described at ``launch_operator.LaunchOperator``. Raises what DatabricksSubmitRunOperator raises.

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
        from airflow_dbjobs.dag_params import with_job_parameters

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
        from airflow_dbjobs.previous_runs import cancel_previous_runs

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
        from airflow_dbjobs.repairs import Repairs

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


class DatabricksCreateJobsOperator(PayloadOperator):
    """Creates a job (``jobs/create``), or resets the job of that name where it does not have what is given.

    Returns the job_id. What the job has beyond what is given is no difference, and nothing is written for it (but for
    what starts runs by itself: a ``schedule`` or the like). Several jobs of the name are an error that lists them.
    Every field that ends in the payload is templated, and takes XComArgs and native objects at any depth. Source:
    "Create" and "Reset" of the Jobs API reference.

    Parameters that are not named here are fields of the reference, of the same names, as dicts or as models of
    ``payloads``; those of every payload are described at ``payload_operator.PayloadOperator``.

    :param name: the job's name, by which it is found. Required, here or in `json`.
    :param access_control_list: grants that the job is to have. Those that are in place are left alone, others too.
    :param forward_dag_params: give the job the DAG's params, as they are declared and as strings, as its ``parameters``
        where it is given none; not with API 2.0.
    :param polling_period_seconds: of the official operator; it has no effect in either.

    Raises ``errors.PayloadError`` or ``errors.ConfigurationError`` when it is made, and before anything is sent;
    ``errors.CallError`` where the API gives no usable answer.
    """

    endpoint = "create"
    payload_fields = (
        "name", "description", "tags", "tasks", "job_clusters", "environments", "email_notifications",
        "webhook_notifications", "notification_settings", "timeout_seconds", "schedule", "trigger",
        "max_concurrent_runs", "git_source", "access_control_list", "performance_target",
    )  # fmt: skip
    template_fields: Sequence[str] = ("json", *payload_fields, "databricks_conn_id")
    name: Any

    def __init__(
        self,
        *,
        name: Text = None,
        description: Text = None,
        tags: Map = None,
        tasks: Many[Task] = None,
        job_clusters: Many[JobCluster] = None,
        environments: Many[JobEnvironment] = None,
        email_notifications: One[JobEmailNotifications] = None,
        webhook_notifications: One[WebhookNotifications] = None,
        notification_settings: One[JobNotificationSettings] = None,
        timeout_seconds: Int = None,
        schedule: One[CronSchedule] = None,
        trigger: One[TriggerSettings] = None,
        max_concurrent_runs: Int = None,
        git_source: One[GitSource] = None,
        access_control_list: Many[JobAccessControlRequest] = None,
        performance_target: Text = None,
        forward_dag_params: bool = False,
        polling_period_seconds: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.forward_dag_params = forward_dag_params
        self._keep(locals())
        self._check_early()

    def execute(self, context: Context) -> int:
        """Create or reset the job; return its job_id."""
        from airflow_dbjobs.jobs import keep_job

        with self._connect() as client:
            return keep_job(client, self._checked_payload(client, context))

    def _completed(self, payload: dict[str, Any], client: JobsClient, context: Context) -> dict[str, Any]:  # noqa: ARG002
        if not self.forward_dag_params:
            return payload
        from airflow_dbjobs.dag_params import with_parameters

        # As they are declared: what a DAG run is given belongs to its runs, and would have the job written each time.
        return with_parameters(payload, self._declared_params(), client.api_version)

    def _mistakes_when_parsed(self, *, strict: bool) -> list[str]:
        warnings = super()._mistakes_when_parsed(strict=strict)
        # Of a text only the rendered one tells.
        in_json = self.json.get("name") if isinstance(self.json, dict) else self.json
        if not self.name and not in_json and not self._may_grow:
            from airflow_dbjobs.errors import ConfigurationError

            raise ConfigurationError("name is missing: it is by its name that the job is found. Give it one.")
        return warnings
