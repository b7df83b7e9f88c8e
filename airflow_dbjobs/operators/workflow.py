"""The task group that is one Databricks job, and the operator that launches it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_dbjobs.airflow_compat import TaskGroup
from airflow_dbjobs.operators.run_now import DatabricksRunNowOperator
from airflow_dbjobs.operators.submit_run import DatabricksSubmitRunOperator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_dbjobs.airflow_compat import Context
    from airflow_dbjobs.client.jobs_client import JobsClient


class DatabricksWorkflowTaskGroup(TaskGroup):
    """A task group whose members are the tasks of one Databricks job."""

    is_databricks = True

    def __init__(
        self,
        databricks_conn_id: str = "databricks_default",
        access_control_list: Any = None,
        existing_clusters: Any = None,
        extra_job_params: Any = None,
        jar_params: Any = None,
        job_clusters: Any = None,
        max_concurrent_runs: Any = 1,
        notebook_packages: Any = None,
        notebook_params: Any = None,
        python_params: Any = None,
        spark_submit_params: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.databricks_conn_id = databricks_conn_id
        self.job_clusters = job_clusters
        self.extra_job_params = extra_job_params or {}

    @property
    def launch_task_id(self) -> str:
        """The id of the task that launches the job."""
        return str(self.child_id("launch"))

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Add the task that launches the job."""
        try:
            if kind is None:
                members = list(members_of(self))
                keys = {member.task_id for member in members}
                launch = WorkflowLaunchOperator(
                    task_id="launch",
                    task_group=self,
                    dag=self.dag,
                    databricks_conn_id=self.databricks_conn_id,
                    job={"job_clusters": self.job_clusters, **self.extra_job_params},
                )
                for member in members:
                    if keys.isdisjoint(member.upstream_task_ids):
                        launch >> member
        finally:
            super().__exit__(kind, error, trace)


def members_of(group: Any) -> Iterator[DatabricksSubmitRunOperator]:
    for child in group.children.values():
        if isinstance(child, TaskGroup):
            yield from members_of(child)
        elif isinstance(child, DatabricksSubmitRunOperator):
            yield child


class WorkflowLaunchOperator(DatabricksRunNowOperator):
    template_fields = ("job", "databricks_conn_id")

    def __init__(self, *, job: dict[str, Any], **kwargs: Any) -> None:
        self.job = job
        super().__init__(**{**kwargs, "wait_for_termination": False, "forward_dag_params": False})

    def _find_early_mistakes(self, *, strict: bool) -> list[str]:  # noqa: ARG002
        return []

    def execute(self, context: Context) -> dict[str, Any]:
        super().execute(context)
        return {"conn_id": self.databricks_conn_id, "job_id": int(self._job), "run_id": self.run_id}

    def _build_launch_payload(self, client: JobsClient, context: Context) -> dict[str, Any]:
        from airflow_dbjobs.client.ensure_job import ensure_job

        group: Any = self.task_group
        members = {member.task_id: member for member in members_of(group)}
        settings = {
            "name": f"{self.dag_id}.{group.group_id}",
            "max_concurrent_runs": 1,
            "queue": {"enabled": True},
            "tasks": [
                {
                    **member.render_template(member.databricks_task(), context),
                    "task_key": member.databricks_task_key,
                    "depends_on": [
                        {"task_key": members[other].databricks_task_key}
                        for other in sorted(member.upstream_task_ids & members.keys())
                    ],
                    "run_if": {"all_done": "ALL_DONE"}.get(str(member.trigger_rule), "ALL_SUCCESS"),
                }
                for member in members.values()
            ],
            **self.job,
        }
        return {"job_id": ensure_job(client, settings)}
