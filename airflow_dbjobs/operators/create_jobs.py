"""The operator that creates a job or updates it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_dbjobs.operators.base import PayloadOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_dbjobs.airflow_compat import Context
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
    from airflow_dbjobs.payloads.field_types import Int, Many, Map, One, Text


class DatabricksCreateJobsOperator(PayloadOperator):
    """Creates a job (``jobs/create``), or resets the job of that name if its settings differ from the given ones.

    Returns the job_id. Only the given settings are compared: anything else that the job has is no difference, except
    what starts runs by itself, such as a ``schedule``. All fields of the payload are templated, and may contain
    XComArgs and native objects at any depth. Source: "Create" and "Reset" of the Jobs API reference.

    Parameters that are not listed here are fields of the API reference with the same names, as dicts or as the types in
    ``payloads``. ``operators.base.PayloadOperator`` describes the parameters of all operators.

    :param name: the exact name by which the job is found. Required, here or in `json`.
    :param access_control_list: permissions that the job must have. Other permissions are kept.
    :param forward_dag_params: whether the DAG's params, as declared and as strings, become the job's ``parameters`` if
        you give none; not with API 2.0.
    :param polling_period_seconds: accepted for DAGs of the official operator; has no effect there either.
    :raises errors.PayloadError: when the DAG is parsed or before anything is sent, if the payload breaks a rule.
    :raises errors.ConfigurationError: likewise if another parameter is wrong, or if several jobs have the name.
    :raises errors.CallError: if the API gives no usable answer.
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
        self._set_payload_parameters(locals())
        self._check_early()

    def execute(self, context: Context) -> int:
        """Create or reset the job; return its job_id."""
        from airflow_dbjobs.client.ensure_job import ensure_job

        with self._connect() as client:
            return ensure_job(client, self._build_payload(client, context))

    def _forward_dag_params(self, payload: dict[str, Any], client: JobsClient, context: Context) -> dict[str, Any]:  # noqa: ARG002
        if not self.forward_dag_params:
            return payload
        from airflow_dbjobs.operators.dag_params import with_parameters

        # With their defaults: the values of each DAG run would change the job each time.
        return with_parameters(payload, self.declared_params(), client.api_version)

    def _find_early_mistakes(self, *, strict: bool) -> list[str]:
        warnings = super()._find_early_mistakes(strict=strict)
        # A template may render to a dict with a name.
        in_json = self.json.get("name") if isinstance(self.json, dict) else self.json
        if not self.name and not in_json and not self._is_subclassed:
            from airflow_dbjobs.errors import ConfigurationError

            raise ConfigurationError("name is missing: the operator finds the job by its name. Give it one.")
        return warnings
