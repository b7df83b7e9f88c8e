"""The operator that runs a single task, in a workflow group or in a run of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_dbjobs.operators.submit_run import DatabricksSubmitRunOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_dbjobs.payloads import NewCluster, Task
    from airflow_dbjobs.payloads.field_types import Bool, Int, One, Text

# The fields of a task that are parameters of the operators, and win over those of the task's settings.
_TASK_FIELDS = (
    "new_cluster", "existing_cluster_id", "job_cluster_key", "max_retries", "min_retry_interval_millis",
    "retry_on_timeout",
)  # fmt: skip


class SingleTaskOperator(DatabricksSubmitRunOperator):
    """Base of the operators that run one task, which differ in its settings.

    ``operators.submit_run.DatabricksSubmitRunOperator`` describes the other parameters.

    :param databricks_task_key: the key of the task in the run, by default made of the task id.
    :param new_cluster: a cluster to create for the task. Without any cluster it runs on serverless compute.
    :param existing_cluster_id: the all-purpose cluster to use instead.
    :param job_cluster_key: the cluster among the workflow group's ``job_clusters`` to use instead.
    :param max_retries: how often Databricks itself retries the task; -1 for unlimited retries.
    :param min_retry_interval_millis: the time between the starts of two such attempts, in milliseconds.
    :param retry_on_timeout: whether Databricks retries the task after a timeout.
    :param workflow_run_metadata: ``conn_id``, ``job_id`` and ``run_id`` of the run that contains the task, for a task
        outside the workflow group.
    """

    template_fields: Sequence[str] = (
        *DatabricksSubmitRunOperator.template_fields,
        *(name for name in _TASK_FIELDS if name not in DatabricksSubmitRunOperator.payload_fields),
    )

    def __init__(
        self,
        *,
        job_cluster_key: Text = None,
        new_cluster: One[NewCluster] = None,
        existing_cluster_id: Text = None,
        max_retries: Int = None,
        min_retry_interval_millis: Int = None,
        retry_on_timeout: Bool = None,
        **kwargs: Any,
    ) -> None:
        self.job_cluster_key = job_cluster_key
        self.max_retries = max_retries
        self.min_retry_interval_millis = min_retry_interval_millis
        self.retry_on_timeout = retry_on_timeout
        super().__init__(new_cluster=new_cluster, existing_cluster_id=existing_cluster_id, **kwargs)

    def _task_settings(self) -> dict[str, Any]:
        raise NotImplementedError

    def databricks_task(self) -> dict[str, Any]:
        """Return the settings of the task."""
        given = {name: value for name in _TASK_FIELDS if (value := getattr(self, name)) not in (None, "", {})}
        return {**self._task_settings(), **given}

    def _payload_parameters(self) -> dict[str, Any]:
        of_run = {name: value for name, value in super()._payload_parameters().items() if name not in _TASK_FIELDS}
        return {**of_run, "tasks": [{"task_key": self.databricks_task_key, **self.databricks_task()}]}


class DatabricksTaskOperator(SingleTaskOperator):
    """Runs one task of any type: as a member of a workflow group, or else as a one-time run of its own.

    :param task_config: the settings of the task, as in the API reference.
    """

    template_fields: Sequence[str] = (*SingleTaskOperator.template_fields, "task_config")

    def __init__(self, *, task_config: One[Task], **kwargs: Any) -> None:
        self.task_config = task_config
        super().__init__(**kwargs)

    def _task_settings(self) -> dict[str, Any]:
        return dict(self.task_config)  # type: ignore[call-overload, no-any-return]
