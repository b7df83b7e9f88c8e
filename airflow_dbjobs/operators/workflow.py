"""The task group that is one Databricks job, and the operator that launches it."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.airflow_compat import TaskGroup
from airflow_dbjobs.errors import ConfigurationError, PayloadError
from airflow_dbjobs.operators.run_now import DatabricksRunNowOperator
from airflow_dbjobs.operators.task import NOTHING
from airflow_dbjobs.operators.workflow_members import (
    check_members,
    check_place,
    members_of,
    order,
    upstreams_outside,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from airflow_dbjobs.airflow_compat import Context
    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.client.models import Run
    from airflow_dbjobs.operators.base import PayloadOperator
    from airflow_dbjobs.operators.workflow_job import WorkflowJob
    from airflow_dbjobs.payloads import JobAccessControlRequest, JobCluster, JobSettings, Library
    from airflow_dbjobs.payloads.field_types import Int, Many, One, Texts


class DatabricksWorkflowTaskGroup(TaskGroup):
    """A task group whose members are the tasks of one Databricks job.

    The group adds a task ``launch``, which ensures that the job ``<dag_id>.<group_id>`` has these tasks, and runs it
    once. Each member waits for its own task of the run. Members are DatabricksNotebookOperator, DatabricksTaskOperator
    and DatabricksSubmitRunOperator, at any depth of groups.

    All parameters may contain templates. Those in parameters of tasks travel as parameters of the job.

    :param group_id: the id of the group.
    :param databricks_conn_id: the Airflow connection to the workspace.
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

    def __init__(
        self,
        databricks_conn_id: str = "databricks_default",
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
        check_place(self)
        self._check_parameters()

    def _check_parameters(self) -> None:
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

    def _add_launch(self) -> None:
        if self.dag.has_task(self.launch_task_id):
            raise ConfigurationError(
                f"The DAG already has a task {self.launch_task_id}, which is the id of the task that launches workflow"
                f" group {self.group_id}. Rename the task, and enter the group only once."
            )
        check_members(self, members_of(self))
        leaves = list(self.get_leaves())
        launch = WorkflowLaunchOperator(
            task_id="launch",
            dag=self.dag,
            task_group=self,
            databricks_conn_id=self.databricks_conn_id,
            parameters={name: value for name, value in self.parameters.items() if value not in NOTHING},
        )
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


class WorkflowLaunchOperator(DatabricksRunNowOperator):
    """Launches the job of a workflow group: ensures its settings, and runs it once. The group creates it.

    Returns ``conn_id``, ``job_id`` and ``run_id``.

    :param parameters: the parameters of the group.
    """

    template_fields: Sequence[str] = ("parameters", "databricks_conn_id")

    def __init__(self, *, parameters: dict[str, Any], **kwargs: Any) -> None:
        self.parameters = parameters
        # Airflow renders the other one.
        self._templates = parameters
        # The default_args are for the members, too: what would change the launch is given.
        own = {"json": None, "idempotency_token": None, "do_xcom_push": True, "wait_for_termination": True}
        own |= {"forward_dag_params": False, "repair_run": False, "cancel_previous_runs": False}
        fields = dict.fromkeys(DatabricksRunNowOperator.payload_fields)
        super().__init__(**{**kwargs, **fields, **own, "databricks_repair_reason_new_settings": None})

    def _find_early_mistakes(self, *, strict: bool) -> list[str]:
        from airflow_dbjobs.operators.workflow_job import build_job
        from airflow_dbjobs.payloads import check_early

        job = build_job(self, self._templates, lambda _, value: value)
        with _naming(job.task_ids):
            return check_early("create", None, job.settings, template_ext=self.template_ext, strict=strict)

    def prepare_template(self) -> None:
        """Order the tasks again: the DAG is complete now, and may have tasks and dependencies from after the group."""
        super().prepare_template()
        group: Any = self.task_group
        check_members(group, members_of(group))
        order(self)

    def _build_launch_payload(self, client: JobsClient, context: Context) -> dict[str, Any]:
        from airflow_dbjobs.client.ensure_job import ensure_job
        from airflow_dbjobs.payloads.job_parameters import check_size

        if client.api_version == "2.0":
            raise ConfigurationError("A workflow group needs api_version 2.1 or 2.2 in the connection's extra.")
        self._check_order()
        job = self._render_job(context)
        check_size(job.job_parameters)
        with _naming(job.task_ids):
            self._check_payload("create", job.settings, client)
        self._warn_about_fixed(job.fixed)
        self.job_id = ensure_job(client, job.settings)
        self.job_parameters = job.job_parameters or None
        return super()._build_launch_payload(client, context)

    def _check_order(self) -> None:
        """Raise ConfigurationError if a member waits for a task that the launch does not wait for.

        That is so if Airflow did not prepare the templates of the complete DAG.
        """
        group: Any = self.task_group
        missing = sorted(upstreams_outside(self) - self.upstream_task_ids)
        if missing:
            raise ConfigurationError(
                f"Tasks of workflow group {group.group_id} wait for {', '.join(missing)}, but {self.task_id} does not,"
                " and would launch them before. Nothing was launched. Let the group itself wait, with >> before it."
            )

    def _render_job(self, context: Context) -> WorkflowJob:
        from airflow_dbjobs.operators.workflow_job import build_job

        def render(operator: PayloadOperator, value: Any) -> Any:
            with _as_task(context, operator):
                return operator.render_template(value, context)

        return build_job(self, self._templates, render)

    def _warn_about_fixed(self, paths: Sequence[str]) -> None:
        if paths:
            self.log.warning(
                "These templates become settings of the job, because only parameters of tasks can become parameters of"
                " the job: %s. The job is written whenever a value changes, and a repair of an older DAG run then uses"
                " the latest settings.",
                ", ".join(paths),
            )

    def _wait_and_finish(
        self,
        context: Context,
        client: JobsClient,
        run: Run,
        *,
        joined: bool,
        deadline: float | None,
        token_already_used: bool = False,  # noqa: ARG002 (there is no user's token)
    ) -> Any:
        from airflow_dbjobs.client.wait import wait_for_run

        # The members wait for the run. One that ends because an earlier try was killed is not theirs.
        if joined and run.state.is_being_stopped:
            run = wait_for_run(client, run.run_id, period=self.polling_period_seconds)
        if self._was_canceled_for_earlier_try(run, joined=joined):
            payload = self._build_launch_payload(client, context)
            return self._run(context, client, payload, deadline=deadline, is_second=True)
        return {"conn_id": self.databricks_conn_id, "job_id": int(self._job), "run_id": run.run_id}


@contextmanager
def _naming(task_ids: Sequence[str]) -> Iterator[None]:
    """Name the tasks of a job by their ids in Airflow, in the errors about them."""
    try:
        yield
    except PayloadError as error:
        texts = [
            re.sub(r"(?<![\w.])tasks\[(\d+)\]", lambda at: f"tasks[{task_ids[int(at[1])]}]", text)
            for text in error.violations
        ]
        raise PayloadError(error.endpoint, texts) from None


@contextmanager
def _as_task(context: Context, operator: PayloadOperator) -> Iterator[None]:
    """Let templates see an operator and its params in the context of another task."""
    values: Any = context
    conf = getattr(values.get("dag_run"), "conf", None) or {}
    kept = {name: values[name] for name in ("task", "params") if name in values}
    own = {name: value for name, value in operator.declared_params().items() if name not in conf and value is not None}
    values.update(task=operator, params={**(kept.get("params") or {}), **own})
    try:
        yield
    finally:
        for name in ("task", "params"):
            del values[name]
        values.update(kept)
