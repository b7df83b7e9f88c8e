"""When a job runs: on a schedule, on an event, or all the time."""

from airflow_dbjobs.payloads.kinds import Int, One, Text, Texts
from airflow_dbjobs.payloads.structure import Structure, sdk, seed, v21, v22


class SqlConditionConfiguration(Structure):
    """A query that is asked before a trigger fires."""

    sql_query_id: Text = sdk("The query. Required.")
    warehouse_id: Text = sdk("SQL warehouse that runs it. Required.")
    trigger_mode: Text = sdk("When to fire: QUERY_RETURNS_ROWS or RESULT_VALUE_CHANGES.")


class CronSchedule(Structure):
    """A schedule in Quartz's cron syntax."""

    quartz_cron_expression: Text = seed('Seconds first, as in "0 15 22 * * ?". Required.')
    timezone_id: Text = seed("Java time zone that it is meant in, as in Europe/Berlin. Required.")
    pause_status: Text = seed(
        "PAUSED or UNPAUSED. The reference names no default; this one is the SDK's, of other triggers.",
        default="UNPAUSED",
    )
    sql_condition: One["SqlConditionConfiguration"] = sdk("Query that must agree.")


class MaintenanceWindow(Structure):
    """When a continuous job may be restarted for maintenance."""

    start_hour: Int = v22("Hour of the day, 0 to 23. Required.", unit="h")
    day_of_week: Text = v22("MONDAY to SUNDAY. Required.")
    timezone_id: Text = v22("Time zone that the hour is meant in. Required.")


class Continuous(Structure):
    """A job of which one run is always active."""

    pause_status: Text = v21("PAUSED or UNPAUSED.", default="UNPAUSED")
    task_retry_mode: Text = v21("Whether failed tasks are run again: NEVER or ON_FAILURE.", default="NEVER")
    maintenance_window: One["MaintenanceWindow"] = v22("When a run may be restarted for maintenance.")


class FileArrivalTriggerConfiguration(Structure):
    """Fires when files arrive."""

    url: Text = v21("Folder that is watched, as in s3://bucket/in/. Required.")
    min_time_between_triggers_seconds: Int = v21("Shortest time between two runs, 60 or more; 0: none.", unit="s")
    wait_after_last_change_seconds: Int = v21("Quiet time before a run, 60 or more; 0: none.", unit="s")


class TableUpdateTriggerConfiguration(Structure):
    """Fires when tables are updated."""

    table_names: Texts = v21("The tables, as in main.sales.orders. Required.")
    condition: Text = v21("ANY_UPDATED or ALL_UPDATED.", default="ANY_UPDATED")
    min_time_between_triggers_seconds: Int = v21("Shortest time between two runs, 60 or more; 0: none.", unit="s")
    wait_after_last_change_seconds: Int = v21("Quiet time before a run, 60 or more; 0: none.", unit="s")


class ModelTriggerConfiguration(Structure):
    """Fires when a model of the registry changes."""

    condition: Text = sdk("MODEL_CREATED, MODEL_VERSION_READY or MODEL_ALIAS_SET. Required.")
    securable_name: Text = sdk("The model, or the schema or catalog that is watched.")
    aliases: Texts = sdk("The aliases that count, with MODEL_ALIAS_SET.")
    min_time_between_triggers_seconds: Int = sdk("Shortest time between two runs, 60 or more; 0: none.", unit="s")
    wait_after_last_change_seconds: Int = sdk("Quiet time before a run, 60 or more; 0: none.", unit="s")


class PeriodicTriggerConfiguration(Structure):
    """Fires at even intervals."""

    interval: Int = v21("How many units lie between two runs. Required.")
    unit: Text = v21("MINUTES, HOURS, DAYS or WEEKS. Required.")


class TriggerSettings(Structure):
    """What triggers a job; exactly one kind."""

    pause_status: Text = v21("PAUSED or UNPAUSED.", default="UNPAUSED")
    file_arrival: One["FileArrivalTriggerConfiguration"] = v21("Files arrive.")
    table_update: One["TableUpdateTriggerConfiguration"] = v21("Tables are updated.")
    periodic: One["PeriodicTriggerConfiguration"] = v21("Time passes.")
    model: One["ModelTriggerConfiguration"] = sdk("A model changes.")
    sql_condition: One["SqlConditionConfiguration"] = sdk("Query that must agree.")


class CronTriggerConfiguration(Structure):
    """A schedule, as an entry of the list of triggers."""

    quartz_cron_expression: Text = v22("Seconds first. Required.")
    timezone_id: Text = v22("Java time zone. Required.")


class ContinuousTriggerConfiguration(Structure):
    """A continuous job, as an entry of the list of triggers."""

    task_retry_mode: Text = v22("NEVER or ON_FAILURE.")
    maintenance_window: One["MaintenanceWindow"] = v22("When a run may be restarted for maintenance.")


class TriggerConfiguration(Structure):
    """One of several triggers of a job; exactly one kind."""

    pause_status: Text = v22("PAUSED or UNPAUSED.", default="UNPAUSED")
    schedule: One["CronTriggerConfiguration"] = v22("A schedule.")
    continuous: One["ContinuousTriggerConfiguration"] = v22("One run is always active.")
    file_arrival: One["FileArrivalTriggerConfiguration"] = v22("Files arrive.")
    table_update: One["TableUpdateTriggerConfiguration"] = v22("Tables are updated.")
    periodic: One["PeriodicTriggerConfiguration"] = v22("Time passes.")
    model: One["ModelTriggerConfiguration"] = v22("A model changes.")
    sql_condition: One["SqlConditionConfiguration"] = v22("Query that must agree.")
