"""The operator that launches a one-time run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_dbjobs.airflow_compat import conf
from airflow_dbjobs.operators.launch import LaunchOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_dbjobs.airflow_compat import Context
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
    from airflow_dbjobs.payloads.field_types import Int, Many, One, Text


class DatabricksSubmitRunOperator(LaunchOperator):
    """Launches a one-time run (``jobs/runs/submit``) and waits for its end.

    Returns the run's result: what its notebook passed to ``dbutils.notebook.exit`` (parsed if it is a JSON object or
    list), or for a run of several tasks a dict by task key; ``runs.result.run_result`` describes the other types of
    tasks. All fields of the payload are templated, and may contain XComArgs and native objects at any depth. Source:
    "Runs submit" of the Jobs API reference.

    Give exactly one of ``tasks`` and the ``…_task`` parameters. Parameters that are not listed here are fields of the
    API reference with the same names, as dicts or as the types in ``payloads``. ``operators.launch.LaunchOperator``
    describes the parameters of both operators that launch a run.

    :param tasks: the tasks of a multi-task run.
    :param run_name: the name of the run; the task id by default.
    :param timeout_seconds: the timeout of the run in seconds, enforced by Databricks; 0 or None for none.
    :param forward_dag_params: whether to add the DAG's params, as strings, to each task that accepts named parameters
        and has none.
    :param openlineage_inject_transport_info: whether new clusters send OpenLineage events where Airflow sends its own,
        with the same credentials; by default as Airflow's option ``[openlineage] spark_inject_transport_info``.
    :raises errors.PayloadError: when the DAG is parsed or before anything is sent, if the payload breaks a rule.
    :raises errors.ConfigurationError: likewise if another parameter is wrong.
    :raises errors.CallError: if the API gives no usable answer.
    :raises errors.RunFailed: if the run does not succeed; mostly as a subclass that says why.
    :raises errors.RunLost: if the run can no longer be polled. It is not cancelled.
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
        openlineage_inject_transport_info: bool = conf.getboolean(
            "openlineage", "spark_inject_transport_info", fallback=False
        ),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.forward_dag_params = forward_dag_params
        self.openlineage_inject_transport_info = openlineage_inject_transport_info
        self._set_payload_parameters(locals())
        self._check_early()

    def _default_payload(self) -> dict[str, Any]:
        return {"run_name": self.task_id}

    def _forward_dag_params(
        self,
        payload: dict[str, Any],
        client: JobsClient,  # noqa: ARG002 (for the other operators)
        context: Context,
    ) -> dict[str, Any]:
        from airflow_dbjobs.operators.dag_params import with_task_parameters

        return with_task_parameters(payload, self._dag_run_params(context)) if self.forward_dag_params else payload

    def _add_lineage(self, payload: dict[str, Any], client: JobsClient, context: Context) -> dict[str, Any]:
        parent, transport = self.openlineage_inject_parent_job_info, self.openlineage_inject_transport_info
        if not (parent or transport):
            return payload
        from airflow_dbjobs.operators.lineage import with_lineage

        return with_lineage(payload, client, context, parent=parent, transport=transport)
