"""The sensor that waits until a job has no active run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_dbjobs.sensors.base import DatabricksSensor, rendered_id, require_one_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.runs.conditions import CheckResult, Condition


class DatabricksJobIdleSensor(DatabricksSensor):
    """Waits until a job has no active run: none that is running, queued or waiting for a retry.

    The job may become active again at any time, and a run that was launched a moment ago may not appear in the
    workspace's lists yet. The sensor never changes or cancels a run. The task's link leads to an active run while there
    is one, and then to the job's latest run.

    :param job_id: the id of the job. Give either this or `job_name`, as a value, a template or an XComArg.
    :param job_name: the exact name of the job.
    :param databricks_conn_id: the Airflow connection to the workspace.
    :param deferrable: whether to wait in the triggerer, which checks every ``poke_interval`` seconds.

    All parameters of Airflow's sensors apply, as for ``DatabricksRunSensor``. Raises ``errors.ConfigurationError`` if
    the parameters name no job, ``errors.NotFound`` if the workspace has no such job.
    """

    template_fields: Sequence[str] = ("job_id", "job_name", "databricks_conn_id")

    def __init__(self, *, job_id: int | str | None = None, job_name: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.job_id = job_id
        self.job_name = job_name
        require_one_of(self, "job_id", "job_name")

    def _rendered_condition(self) -> Condition:
        from airflow_dbjobs.runs.conditions import IdleCondition

        require_one_of(self, "job_id", "job_name")
        return IdleCondition(
            job_id=rendered_id(self, "job_id"),
            job_name=None if self.job_name is None else str(self.job_name),
        )

    def _finish(self, client: JobsClient, result: CheckResult) -> None:  # noqa: ARG002 (there is no value to return)
        return None
