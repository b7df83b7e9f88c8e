"""The operator that creates a job or updates it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_dbjobs.operators.base import PayloadOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.payloads import (
        CronSchedule,
        GitSource,
        JobAccessControlRequest,
        JobCluster,
        JobEmailNotifications,
        JobEnvironment,
        JobNotificationSettings,
        Task,
        TriggerSettings,
        WebhookNotifications,
    )
    from airflow_dbjobs.payloads.kinds import Int, Many, Map, One, Text


class DatabricksCreateJobsOperator(PayloadOperator):
    """Creates a job (``jobs/create``), or resets the job of that name where it does not have what is given.

    Returns the job_id. What the job has beyond what is given is no difference, and nothing is written for it (but for
    what starts runs by itself: a ``schedule`` or the like). Several jobs of the name are an error that lists them.
    Every field that ends in the payload is templated, and takes XComArgs and native objects at any depth. Source:
    "Create" and "Reset" of the Jobs API reference.

    Parameters that are not named here are fields of the reference, of the same names, as dicts or as models of
    ``payloads``; those of every payload are described at ``operators.base.PayloadOperator``.

    :param name: the job's name, by which it is found. Required, here or in `json`.
    :param access_control_list: grants that the job is to have. Those that are in place are left alone, others too.
    :param forward_dag_params: give the job the DAG's params, as they are declared and as strings, as its ``parameters``
        where it is given none; not with API 2.0.
    :param polling_period_seconds: of the official operator; it has no effect in either.

    Raises ``errors.PayloadError`` or ``errors.ConfigurationError`` when it is made, and before anything is sent;
    ``errors.CallError`` where the API gives no usable answer.
    """

    endpoint = "create"
    payload_fields = (
        "name", "description", "tags", "tasks", "job_clusters", "environments", "email_notifications",
        "webhook_notifications", "notification_settings", "timeout_seconds", "schedule", "trigger",
        "max_concurrent_runs", "git_source", "access_control_list", "performance_target",
    )  # fmt: skip
    template_fields: Sequence[str] = ("json", *payload_fields, "databricks_conn_id")
    name: Any

    def __init__(
        self,
        *,
        name: Text = None,
        description: Text = None,
        tags: Map = None,
        tasks: Many[Task] = None,
        job_clusters: Many[JobCluster] = None,
        environments: Many[JobEnvironment] = None,
        email_notifications: One[JobEmailNotifications] = None,
        webhook_notifications: One[WebhookNotifications] = None,
        notification_settings: One[JobNotificationSettings] = None,
        timeout_seconds: Int = None,
        schedule: One[CronSchedule] = None,
        trigger: One[TriggerSettings] = None,
        max_concurrent_runs: Int = None,
        git_source: One[GitSource] = None,
        access_control_list: Many[JobAccessControlRequest] = None,
        performance_target: Text = None,
        forward_dag_params: bool = False,
        polling_period_seconds: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.forward_dag_params = forward_dag_params
        self._keep(locals())
        self._check_early()

    def execute(self, context: Context) -> int:
        """Create or reset the job; return its job_id."""
        from airflow_dbjobs.client.ensure_job import keep_job

        with self._connect() as client:
            return keep_job(client, self._checked_payload(client, context))

    def _completed(self, payload: dict[str, Any], client: JobsClient, context: Context) -> dict[str, Any]:  # noqa: ARG002
        if not self.forward_dag_params:
            return payload
        from airflow_dbjobs.operators.dag_params import with_parameters

        # As they are declared: what a DAG run is given belongs to its runs, and would have the job written each time.
        return with_parameters(payload, self._declared_params(), client.api_version)

    def _mistakes_when_parsed(self, *, strict: bool) -> list[str]:
        warnings = super()._mistakes_when_parsed(strict=strict)
        # Of a text only the rendered one tells.
        in_json = self.json.get("name") if isinstance(self.json, dict) else self.json
        if not self.name and not in_json and not self._may_grow:
            from airflow_dbjobs.errors import ConfigurationError

            raise ConfigurationError("name is missing: it is by its name that the job is found. Give it one.")
        return warnings
