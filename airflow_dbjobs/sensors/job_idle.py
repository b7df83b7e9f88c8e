"""The sensor that waits until a job has no active runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_dbjobs.sensors.base import DatabricksSensor, check_one_of, number_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.runs.conditions import Condition, Look


class DatabricksJobIdleSensor(DatabricksSensor):
    """Waits until a job has no active run: none that runs, is queued or waits for a retry.

    It says nothing of the next moment: a run may start right after, and one that has just been launched may not be in
    the workspace's lists yet. No run is ever touched. The task's link leads to an active run, and in the end to the
    job's latest.

    :param job_id: the job, by its id,
    :param job_name: or by its exact name; exactly one of the two. Each may be a template or an XComArg.
    :param databricks_conn_id: the connection to the workspace.
    :param deferrable: wait in the triggerer, which asks every ``poke_interval`` seconds.

    All parameters of Airflow's sensors hold, as with ``DatabricksRunSensor``. Raises ``errors.ConfigurationError`` for
    parameters that name no job, ``errors.NotFound`` for a job that the workspace does not know.
    """

    template_fields: Sequence[str] = ("job_id", "job_name", "databricks_conn_id")

    def __init__(self, *, job_id: int | str | None = None, job_name: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.job_id = job_id
        self.job_name = job_name
        check_one_of(self, "job_id", "job_name")

    def _wanted(self) -> Condition:
        from airflow_dbjobs.runs.conditions import IdleCondition

        check_one_of(self, "job_id", "job_name")
        return IdleCondition(
            job_id=number_of(self, "job_id"),
            job_name=None if self.job_name is None else str(self.job_name),
        )

    def _finish(self, client: JobsClient, look: Look) -> None:  # noqa: ARG002 (there is nothing to return)
        return None
