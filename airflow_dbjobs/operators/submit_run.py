"""The operator that launches a one-time run."""

from __future__ import annotations

import hashlib
import inspect
import re
import time
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.airflow_compat import conf
from airflow_dbjobs.operators.launch import LaunchOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_dbjobs.airflow_compat import Context
    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.operators.workflow.group import DatabricksWorkflowTaskGroup
    from airflow_dbjobs.operators.workflow.member import Member
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

_SET_BY_GROUP = ("task_key", "depends_on", "run_if")
_MAX_KEY = 100


def _make_key(task_id: str) -> str:
    """Return the task key made of a task id; one that is too long is cut, and unique by its hash."""
    key = re.sub(r"[^A-Za-z0-9_-]", "_", task_id.replace(".", "__"))
    if len(key) <= _MAX_KEY:
        return key
    digest = hashlib.sha256(task_id.encode()).hexdigest()[:16]
    return f"{key[: _MAX_KEY - 1 - len(digest)]}_{digest}"


def literal_key(task: object) -> str:
    """Return the ``task_key`` in a task's settings, or an empty string if there is none but a template."""
    from airflow_dbjobs.payloads.templates import is_templated

    key = task.get("task_key") if isinstance(task, dict) else None
    return key if isinstance(key, str) and not is_templated(key) else ""


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
    :param databricks_task_key: the key of its only task in the run of a workflow group. By default it is made of the
        task id.
    :param workflow_run_metadata: ``conn_id``, ``job_id`` and ``run_id`` of a run, as the task ``launch`` of a workflow
        group returns them: the operator then launches no run, but waits for the task of this run that has its key.
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
    template_fields: Sequence[str] = (
        "json", *payload_fields, "idempotency_token", "databricks_conn_id", "workflow_run_metadata",
    )  # fmt: skip

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
        databricks_task_key: str | None = None,
        workflow_run_metadata: Any = None,
        openlineage_inject_transport_info: bool = conf.getboolean(
            "openlineage", "spark_inject_transport_info", fallback=False
        ),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.forward_dag_params = forward_dag_params
        self._given_task_key = databricks_task_key
        self.workflow_run_metadata = workflow_run_metadata
        self.openlineage_inject_transport_info = openlineage_inject_transport_info
        self._set_payload_parameters(locals())
        # Rendered, it may be None.
        self._is_in_other_run = workflow_run_metadata is not None
        # In a workflow group: the present try of the task.
        self._member: Member | None = None
        self._check_early()

    def execute(self, context: Context) -> Any:
        """Launch the run and return its result; in a workflow group wait for the task in the group's run instead."""
        member = self._as_member(context)
        # Airflow 2 would mistake `super().execute` for a call outside of a task.
        return member.execute() if member else inspect.unwrap(LaunchOperator.execute)(self, context)

    def execute_complete(self, context: Context, event: Any = None, **kwargs: Any) -> Any:
        """Continue after the trigger has fired."""
        member = self._as_member(context)
        return member.resume(event, **kwargs) if member else super().execute_complete(context, event, **kwargs)

    def _as_member(self, context: Context) -> Member | None:
        if self.workflow_group is None and not self._is_in_other_run:
            return None
        from airflow_dbjobs.operators.workflow.member import Member

        self._context, self._member = context, Member(self, context)
        return self._member

    def _cancel(self, began: float | None = None) -> None:
        if self._member:
            self._member.cancel(began or time.monotonic())
        else:
            super()._cancel(began)

    @property
    def workflow_group(self) -> DatabricksWorkflowTaskGroup | None:
        """The workflow group that the operator is in, at any depth."""
        group: Any = self.task_group
        while group is not None and not getattr(group, "is_databricks", False):
            group = group.parent_group
        return group  # type: ignore[no-any-return]

    @property
    def databricks_task_key(self) -> str:
        """The key of its only task: the given one, or one made of the task id without the workflow group's."""
        group = self.workflow_group
        prefix: str = group.child_id("") if group else ""  # type: ignore[no-untyped-call]
        return self._given_task_key or self._key_in_settings() or _make_key(self.task_id.removeprefix(prefix))

    def databricks_task(self) -> dict[str, Any]:
        """Return the settings of its only task, templated or rendered, without those that its workflow group decides.

        Raises what `task_settings` does.
        """
        return {name: value for name, value in self.task_settings().items() if name not in _SET_BY_GROUP}

    def task_settings(self) -> dict[str, Any]:
        """Return all settings of its only task that are given.

        Raises ConfigurationError if there is not exactly one task, or if something is given that a task does not have.
        """
        from airflow_dbjobs.errors import ConfigurationError
        from airflow_dbjobs.payloads import merge
        from airflow_dbjobs.payloads.schema import fields_of

        if isinstance(self.json, str):
            raise ConfigurationError(
                f"{self.task_id}: json must be a mapping in a workflow group; its values may be templates."
            )
        body = merge(self.json, self._payload_parameters(), keep_templates=True)
        tasks = body.pop("tasks", [{}])
        if not isinstance(tasks, list) or len(tasks) != 1 or not isinstance(tasks[0], dict):
            raise ConfigurationError(
                f"{self.task_id}: an operator in a workflow group must have exactly one task. Write an operator for"
                " each task, as a dict whose values may be templates."
            )
        of_run = [name for name in body if name in fields_of("SubmitRun").keys() - fields_of("Task").keys()]
        of_run += ["forward_dag_params"] if self.forward_dag_params else []
        if of_run:
            raise ConfigurationError(
                f"{self.task_id}: {', '.join(of_run)}: not for a task in a workflow group, which is a part of the"
                " group's run. Give extra_job_params or notebook_params to the group instead."
            )
        return {**tasks[0], **body}

    def _key_in_settings(self) -> str:
        tasks: Any = getattr(self, "tasks", None)
        if tasks is None and isinstance(self.json, dict):
            tasks = self.json.get("tasks")
        return literal_key(tasks[0]) if isinstance(tasks, (list, tuple)) and len(tasks) == 1 else ""

    def _find_early_mistakes(self, *, strict: bool) -> list[str]:
        # A workflow group checks its members' job, and a task of another run is not submitted.
        is_member = self.workflow_group is not None or self.workflow_run_metadata is not None
        return [] if is_member else super()._find_early_mistakes(strict=strict)

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
