"""Who is told about a run, when, and what counts as unhealthy."""

from typing import Annotated, TypedDict

from airflow_dbjobs.payloads.field_types import Bool, Int, Many, Text, Texts, v20, v21


class JobEmailNotifications(TypedDict, total=False):
    """Addresses that are mailed, by event. Addresses are ASCII."""

    on_start: Annotated[Texts, v20("Mailed when a run begins. Default: nobody.")]
    on_success: Annotated[Texts, v20("Mailed when a run ends well. Default: nobody.")]
    on_failure: Annotated[Texts, v20("Mailed when a run fails, times out, or is skipped. Default: nobody.")]
    on_duration_warning_threshold_exceeded: Annotated[Texts, v20("Mailed when a run exceeds RUN_DURATION_SECONDS.")]
    on_streaming_backlog_exceeded: Annotated[Texts, v21("Mailed when a stream exceeds a STREAMING_BACKLOG rule.")]
    on_maintenance_start: Annotated[Texts, v21("Mailed when a continuous job's maintenance begins.")]
    on_maintenance_complete: Annotated[Texts, v21("Mailed when a continuous job's maintenance is over.")]
    no_alert_for_skipped_runs: Annotated[Bool, v20("Whether on_failure is silent for skipped runs. Default: false.")]


class TaskEmailNotifications(JobEmailNotifications, total=False):
    """Addresses that are mailed about one task, by event."""


class Webhook(TypedDict, total=False):
    """One destination of notifications."""

    id: Annotated[Text, v20("Id of a notification destination of the workspace. Required.")]


class WebhookNotifications(TypedDict, total=False):
    """Destinations that are notified, by event; at most three for each."""

    on_start: Annotated[Many["Webhook"], v20("Notified when a run begins. Default: none.")]
    on_success: Annotated[Many["Webhook"], v20("Notified when a run ends well. Default: none.")]
    on_failure: Annotated[Many["Webhook"], v20("Notified when a run fails, times out, or is skipped. Default: none.")]
    on_duration_warning_threshold_exceeded: Annotated[Many["Webhook"], v20("Notified when a run exceeds it.")]
    on_streaming_backlog_exceeded: Annotated[Many["Webhook"], v21("Notified when a stream falls behind.")]
    on_maintenance_start: Annotated[Many["Webhook"], v21("Notified when a continuous job's maintenance begins.")]
    on_maintenance_complete: Annotated[Many["Webhook"], v21("Notified when a continuous job's maintenance is over.")]


class JobNotificationSettings(TypedDict, total=False):
    """Which notifications are held back."""

    no_alert_for_skipped_runs: Annotated[Bool, v20("Whether on_failure is silent for skipped runs. Default: false.")]
    no_alert_for_canceled_runs: Annotated[Bool, v20("Whether on_failure is silent for cancelled runs. Default: false.")]
    alert_on_last_attempt: Annotated[Bool, v20("Report the first start and the last failure only. Default: false.")]


class TaskNotificationSettings(JobNotificationSettings, total=False):
    """Which notifications about one task are held back."""


class JobsHealthRule(TypedDict, total=False):
    """A threshold; a run beyond it is unhealthy, and may be told of."""

    metric: Annotated[Text, v20("RUN_DURATION_SECONDS; from 2.1 on also STREAMING_BACKLOG_.... Required.")]
    operator: Annotated[Text, v20("How it is compared: GREATER_THAN. Named op from 2.1 on.")]
    op: Annotated[Text, v21("How it is compared: GREATER_THAN. Required from 2.1 on.")]
    value: Annotated[Int, v20("The threshold, in the metric's unit. Required.")]


class JobsHealthRules(TypedDict, total=False):
    """The thresholds of a job, a task or a run."""

    rules: Annotated[Many["JobsHealthRule"], v20("The rules. Default: none.")]
