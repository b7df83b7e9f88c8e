"""The operator that launches a one-time run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_dbjobs.operators.launch import LaunchOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.payloads import (
        AiRuntimeTask,
        AlertTask,
        CleanRoomsNotebookTask,
        ConditionTask,
        DashboardTask,
        DbtCloudTask,
        DbtPlatformTask,
        DbtTask,
        ForEachTask,
        GenAiComputeTask,
        GitSource,
        JobAccessControlRequest,
        JobEnvironment,
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
    )
    from airflow_dbjobs.payloads.kinds import Int, Many, One, Text


class DatabricksSubmitRunOperator(LaunchOperator):
    """Launches a one-time run (``jobs/runs/submit``) and waits for its end.

    Returns what the run returned, as ``runs.result.result_of`` describes it: the value its notebook passed to
    ``dbutils.notebook.exit`` (parsed if it is a JSON object or list), or for a run of several tasks a dict by task key.
    Every field that ends in the payload is templated, and takes XComArgs and native objects at any depth. Source: "Runs
    submit" of the Jobs API reference.

    Exactly one of ``tasks`` and the ``…_task`` parameters says what to run. Parameters that are not named here are
    fields of the reference, of the same names, as dicts or as models of ``payloads``; the parameters of every launch
    are described at ``operators.launch.LaunchOperator``.

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
        from airflow_dbjobs.operators.dag_params import with_task_parameters

        return with_task_parameters(payload, self._dag_params(context)) if self.forward_dag_params else payload
