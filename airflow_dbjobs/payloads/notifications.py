"""Who is told about a run, when, and what counts as unhealthy."""

from airflow_dbjobs.payloads.kinds import Bool, Int, Many, Text, Texts
from airflow_dbjobs.payloads.structure import Structure, seed, v21


class JobEmailNotifications(Structure):
    """Addresses that are mailed, by event. Addresses are ASCII."""

    on_start: Texts = seed("Mailed when a run begins.", default="nobody")
    on_success: Texts = seed("Mailed when a run ends well.", default="nobody")
    on_failure: Texts = seed("Mailed when a run fails, times out, or is skipped.", default="nobody")
    on_duration_warning_threshold_exceeded: Texts = seed("Mailed when a run outlasts its RUN_DURATION_SECONDS rule.")
    on_streaming_backlog_exceeded: Texts = v21("Mailed when a stream falls behind a STREAMING_BACKLOG rule.")
    on_maintenance_start: Texts = v21("Mailed when a continuous job's maintenance begins.")
    on_maintenance_complete: Texts = v21("Mailed when a continuous job's maintenance is over.")
    no_alert_for_skipped_runs: Bool = seed("Whether on_failure stays silent for skipped runs.", default="false")


class TaskEmailNotifications(JobEmailNotifications):
    """Addresses that are mailed about one task, by event."""


class Webhook(Structure):
    """One destination of notifications."""

    id: Text = seed("Id of a notification destination of the workspace. Required.")


class WebhookNotifications(Structure):
    """Destinations that are notified, by event; at most three for each."""

    on_start: Many["Webhook"] = seed("Notified when a run begins.", default="none")
    on_success: Many["Webhook"] = seed("Notified when a run ends well.", default="none")
    on_failure: Many["Webhook"] = seed("Notified when a run fails, times out, or is skipped.", default="none")
    on_duration_warning_threshold_exceeded: Many["Webhook"] = seed(
        "Notified when a run outlasts its RUN_DURATION_SECONDS rule."
    )
    on_streaming_backlog_exceeded: Many["Webhook"] = v21(
        "Notified when a stream falls behind a STREAMING_BACKLOG rule."
    )
    on_maintenance_start: Many["Webhook"] = v21("Notified when a continuous job's maintenance begins.")
    on_maintenance_complete: Many["Webhook"] = v21("Notified when a continuous job's maintenance is over.")


class JobNotificationSettings(Structure):
    """Which notifications are held back."""

    no_alert_for_skipped_runs: Bool = seed("Whether on_failure stays silent for skipped runs.", default="false")
    no_alert_for_canceled_runs: Bool = seed("Whether on_failure stays silent for cancelled runs.", default="false")
    alert_on_last_attempt: Bool = seed("Whether only the first start and the last failure are told.", default="false")


class TaskNotificationSettings(JobNotificationSettings):
    """Which notifications about one task are held back."""


class JobsHealthRule(Structure):
    """A threshold; a run beyond it is unhealthy, and may be told of."""

    metric: Text = seed("What is measured: RUN_DURATION_SECONDS; from 2.1 on also STREAMING_BACKLOG_.... Required.")
    operator: Text = seed("How it is compared: GREATER_THAN. Named op from 2.1 on.")
    op: Text = v21("How it is compared: GREATER_THAN. Required from 2.1 on.")
    value: Int = seed("The threshold, in the metric's unit. Required.")


class JobsHealthRules(Structure):
    """The thresholds of a job, a task or a run."""

    rules: Many["JobsHealthRule"] = seed("The rules.", default="none")
