"""The task group that is one Databricks job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_dbjobs.airflow_compat import TaskGroup
from airflow_dbjobs.operators.task import NOTHING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from airflow_dbjobs.payloads import JobAccessControlRequest, JobCluster, JobSettings, Library
    from airflow_dbjobs.payloads.field_types import Int, Many, One, Texts


class DatabricksWorkflowTaskGroup(TaskGroup):
    """A task group whose members are the tasks of one Databricks job.

    The group adds a task ``launch``, which ensures that the job ``<dag_id>.<group_id>`` has these tasks, and runs it
    once. Each member waits for its own task of the run. Members are DatabricksNotebookOperator, DatabricksTaskOperator
    and DatabricksSubmitRunOperator, at any depth of groups.

    All parameters may contain templates. Those in parameters of tasks travel as parameters of the job.

    :param group_id: the id of the group.
    :param databricks_conn_id: the Airflow connection to the workspace; by default that of the ``default_args``, else
        ``databricks_default``.
    :param access_control_list: permissions that the job must have. Other permissions are kept.
    :param existing_clusters: accepted for DAGs of the official group; has no effect there either.
    :param extra_job_params: more settings of the job, as in the API reference of ``jobs/create``, except ``tasks``.
        They override the group's own.
    :param jar_params: the parameters of JAR tasks that have none.
    :param job_clusters: clusters that members share; they refer to one by its ``job_cluster_key``.
    :param max_concurrent_runs: how many runs of the job may be active at once; others are queued.
    :param notebook_packages: libraries for each notebook task, in addition to its own.
    :param notebook_params: parameters of each notebook task; its own take precedence.
    :param python_params: the parameters of tasks with a Python file that have none.
    :param spark_submit_params: the parameters of spark-submit tasks that have none.
    :raises errors.ConfigurationError: when the DAG is parsed, if the members cannot be the tasks of one job.
    """

    is_databricks = True
    # Airflow's copies of a group lose its attributes, and may be without the task.
    _lacks_launch = False

    def __init__(
        self,
        databricks_conn_id: str | None = None,
        *,
        group_id: str,
        access_control_list: Many[JobAccessControlRequest] = None,
        existing_clusters: Texts = None,
        extra_job_params: One[JobSettings] = None,
        jar_params: Texts = None,
        job_clusters: Many[JobCluster] = None,
        max_concurrent_runs: Int = 1,
        notebook_packages: Many[Library] = None,
        notebook_params: Any = None,
        python_params: Texts = None,
        spark_submit_params: Texts = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(group_id=group_id, **kwargs)
        self._lacks_launch = True
        self.databricks_conn_id = databricks_conn_id
        self.existing_clusters = existing_clusters
        self.parameters = {
            "access_control_list": access_control_list,
            "extra_job_params": extra_job_params or {},
            "jar_params": jar_params,
            "job_clusters": job_clusters,
            "max_concurrent_runs": max_concurrent_runs,
            "notebook_packages": notebook_packages,
            "notebook_params": notebook_params,
            "python_params": python_params,
            "spark_submit_params": spark_submit_params,
        }
        self._check_parameters()

    def _check_parameters(self) -> None:
        from airflow_dbjobs.errors import ConfigurationError
        from airflow_dbjobs.operators.workflow.structure import check_place

        check_place(self)
        extra = self.parameters["extra_job_params"]
        given = {**self.parameters, "parameters": extra.get("parameters") if isinstance(extra, dict) else None}
        kinds = {"extra_job_params": dict, "notebook_params": dict, "notebook_packages": list, "parameters": list}
        for name, kind in kinds.items():
            if given[name] and not isinstance(given[name], kind):
                where = "in extra_job_params " if name == "parameters" else ""
                raise ConfigurationError(
                    f"Workflow group {self.group_id}: {name} {where}must be a {kind.__name__}; its values may be"
                    " templates."
                )
        if isinstance(extra, dict) and "tasks" in extra:
            raise ConfigurationError(
                f"Workflow group {self.group_id}: extra_job_params has tasks, but the tasks of its job are those in"
                " the group. Write an operator in the group for each."
            )

    @property
    def launch_task_id(self) -> str:
        """The id of the task that launches the job."""
        return str(self.child_id("launch"))  # type: ignore[no-untyped-call]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Add the task that launches the job, unless the body of the ``with`` statement raised an error."""
        try:
            if kind is None:
                self._add_launch()
        finally:
            # An error must not leave the group behind as the context of other tasks.
            super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]

    def serialize_for_task_group(self) -> Any:
        """Return the group as Airflow stores it, which is the end of parsing. Raises ConfigurationError."""
        self.check_launch()
        return super().serialize_for_task_group()

    def check_launch(self) -> None:
        """Raise ConfigurationError if nothing launches the group's job."""
        if self._lacks_launch:
            from airflow_dbjobs.errors import ConfigurationError

            raise ConfigurationError(
                f"Workflow group {self.group_id} has no task {self.launch_task_id}: the DAG file never entered it, or"
                " caught an error in it. Write its tasks in a `with` statement with the group."
            )

    def _add_launch(self) -> None:
        from airflow_dbjobs.errors import ConfigurationError
        from airflow_dbjobs.operators.workflow.launch import WorkflowLaunchOperator
        from airflow_dbjobs.operators.workflow.structure import check_members, check_references, members_of, order

        if self.dag.has_task(self.launch_task_id):
            raise ConfigurationError(
                f"The DAG already has a task {self.launch_task_id}, which is the id of the task that launches workflow"
                f" group {self.group_id}. Rename the task, enter the group only once, and give prefix_group_id=False to"
                " one group at most."
            )
        members = members_of(self)
        check_members(self, members)
        check_references(self, members, f"Workflow group {self.group_id}", self.parameters)
        leaves = list(self.get_leaves())
        launch = WorkflowLaunchOperator(
            task_id="launch",
            dag=self.dag,
            task_group=self,
            # An argument that is given has precedence over the default_args.
            **({"databricks_conn_id": self.databricks_conn_id} if self.databricks_conn_id else {}),
            parameters={name: value for name, value in self.parameters.items() if value not in NOTHING},
        )
        self._lacks_launch = False
        order(launch)
        self._connect_downstream(leaves)

    def _connect_downstream(self, leaves: Sequence[Any]) -> None:
        """Let those tasks wait for the group which were put after it when it had no tasks yet."""
        groups = self.dag.task_group.get_task_group_dict()
        after = [self.dag.get_task(task_id) for task_id in sorted(self.downstream_task_ids)]
        after += [root for group_id in sorted(map(str, self.downstream_group_ids)) for root in groups[group_id].roots]
        for leaf in leaves:
            if new := [task for task in after if task.task_id not in leaf.downstream_task_ids]:
                leaf.set_downstream(new)
