"""Notifications about runs, and health rules."""

from typing import Annotated, TypedDict

from airflow_dbjobs.payloads.field_types import Bool, Int, Many, Text, Texts, v20, v21


class JobEmailNotifications(TypedDict, total=False):
    """Email addresses to notify, by event. ASCII only."""

    on_start: Annotated[Texts, v20("When a run starts. Default: none.")]
    on_success: Annotated[Texts, v20("When a run succeeds. Default: none.")]
    on_failure: Annotated[Texts, v20("When a run fails, times out or is skipped. Default: none.")]
    on_duration_warning_threshold_exceeded: Annotated[Texts, v20("When a run exceeds RUN_DURATION_SECONDS.")]
    on_streaming_backlog_exceeded: Annotated[Texts, v21("When a stream exceeds a STREAMING_BACKLOG rule.")]
    on_maintenance_start: Annotated[Texts, v21("When maintenance of a continuous job starts.")]
    on_maintenance_complete: Annotated[Texts, v21("When maintenance of a continuous job ends.")]
    no_alert_for_skipped_runs: Annotated[Bool, v20("Whether skipped runs send no on_failure. Default: false.")]


class TaskEmailNotifications(JobEmailNotifications, total=False):
    """Email addresses to notify about a task, by event."""


class Webhook(TypedDict, total=False):
    """A notification destination."""

    id: Annotated[Text, v20("Id of a notification destination of the workspace. Required.")]


class WebhookNotifications(TypedDict, total=False):
    """Notification destinations, by event; at most three for each."""

    on_start: Annotated[Many["Webhook"], v20("When a run starts. Default: none.")]
    on_success: Annotated[Many["Webhook"], v20("When a run succeeds. Default: none.")]
    on_failure: Annotated[Many["Webhook"], v20("When a run fails, times out or is skipped. Default: none.")]
    on_duration_warning_threshold_exceeded: Annotated[Many["Webhook"], v20("When a run exceeds RUN_DURATION_SECONDS.")]
    on_streaming_backlog_exceeded: Annotated[Many["Webhook"], v21("When a stream exceeds a STREAMING_BACKLOG rule.")]
    on_maintenance_start: Annotated[Many["Webhook"], v21("When maintenance of a continuous job starts.")]
    on_maintenance_complete: Annotated[Many["Webhook"], v21("When maintenance of a continuous job ends.")]


class JobNotificationSettings(TypedDict, total=False):
    """Which notifications to suppress."""

    no_alert_for_skipped_runs: Annotated[Bool, v20("Whether skipped runs send no on_failure. Default: false.")]
    no_alert_for_canceled_runs: Annotated[Bool, v20("Whether cancelled runs send no on_failure. Default: false.")]
    alert_on_last_attempt: Annotated[Bool, v20("Only the first start and the last failure. Default: false.")]


class TaskNotificationSettings(JobNotificationSettings, total=False):
    """Which notifications about a task to suppress."""


class JobsHealthRule(TypedDict, total=False):
    """A threshold of a metric; a run above it is unhealthy, which can trigger a notification."""

    metric: Annotated[Text, v20("RUN_DURATION_SECONDS, or from 2.1 a STREAMING_BACKLOG_... metric. Required.")]
    operator: Annotated[Text, v20("GREATER_THAN. Named op from 2.1.")]
    op: Annotated[Text, v21("GREATER_THAN. Required from 2.1.")]
    value: Annotated[Int, v20("The threshold, in the unit of the metric. Required.")]


class JobsHealthRules(TypedDict, total=False):
    """The thresholds of a job, a task or a run."""

    rules: Annotated[Many["JobsHealthRule"], v20("The rules. Default: none.")]
