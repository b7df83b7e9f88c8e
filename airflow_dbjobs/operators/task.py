"""The operators that run a single task, in a workflow group or in a run of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_dbjobs.operators.submit_run import DatabricksSubmitRunOperator, literal_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_dbjobs.payloads import NewCluster, Task
    from airflow_dbjobs.payloads.field_types import Bool, Int, One, Text

# The fields of a task that are parameters of the operators.
_NEW_FIELDS = ("job_cluster_key", "max_retries", "min_retry_interval_millis", "retry_on_timeout")
_TASK_FIELDS = ("new_cluster", "existing_cluster_id", "libraries", *_NEW_FIELDS)
# What DAGs of the official operators give for nothing.
NOTHING: tuple[object, ...] = (None, "", {}, [])


class SingleTaskOperator(DatabricksSubmitRunOperator):
    """Base of the operators that run one task, which differ in its settings.

    The task is one of the job of a workflow group, or else of a one-time run. Without any cluster it runs on serverless
    compute. ``operators.submit_run.DatabricksSubmitRunOperator`` describes the other parameters.

    :param job_cluster_key: the key of one of the workflow group's ``job_clusters``.
    :param new_cluster: a cluster to create for this task.
    :param existing_cluster_id: the id of an all-purpose cluster.
    :param max_retries: how often Databricks retries the task in the run; -1 for unlimited retries.
    :param min_retry_interval_millis: the time from the start of a failed attempt to the next, in milliseconds.
    :param retry_on_timeout: whether Databricks retries the task after a timeout.
    """

    template_fields: Sequence[str] = (*DatabricksSubmitRunOperator.template_fields, *_NEW_FIELDS)

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
        """Return the settings of the task, which the parameters for its fields override."""
        raise NotImplementedError

    def _task_fields(self) -> dict[str, Any]:
        return {name: value for name in _TASK_FIELDS if (value := getattr(self, name)) not in NOTHING}

    def _payload_parameters(self) -> dict[str, Any]:
        given = {name: value for name, value in super()._payload_parameters().items() if name not in _TASK_FIELDS}
        types = {name: given.pop(name) for name in list(given) if name.endswith("_task")}
        task = {**types, **self._task_settings(), **self._task_fields(), "task_key": self.databricks_task_key}
        return {**given, "tasks": [task]}


class DatabricksTaskOperator(SingleTaskOperator):
    """Runs a task of any type: one of the job of a workflow group, or else of a one-time run.

    ``operators.task.SingleTaskOperator`` describes the other parameters, and
    ``operators.submit_run.DatabricksSubmitRunOperator`` the result.

    :param task_config: the settings of the task: a dict as in the API reference, or the type ``payloads.Task``.
    """

    template_fields: Sequence[str] = (*SingleTaskOperator.template_fields, "task_config")

    def __init__(self, *, task_config: One[Task], **kwargs: Any) -> None:
        self.task_config: Any = task_config
        super().__init__(**kwargs)

    def _task_settings(self) -> dict[str, Any]:
        if isinstance(self.task_config, dict):
            return self.task_config
        from airflow_dbjobs.errors import ConfigurationError

        raise ConfigurationError(f"{self.task_id}: task_config must be a dict; its values may be templates.")

    def _key_in_settings(self) -> str:
        return literal_key(self.task_config)
