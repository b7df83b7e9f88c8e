"""When a job runs: on a schedule, on an event, or continuously."""

from typing import Annotated, TypedDict

from airflow_dbjobs.payloads.field_types import Int, One, Text, Texts, sdk, v20, v21, v22


class SqlConditionConfiguration(TypedDict, total=False):
    """A SQL query whose result decides whether a trigger fires."""

    sql_query_id: Annotated[Text, sdk("The query. Required.")]
    warehouse_id: Annotated[Text, sdk("SQL warehouse that runs it. Required.")]
    trigger_mode: Annotated[Text, sdk("When to fire: QUERY_RETURNS_ROWS or RESULT_VALUE_CHANGES.")]


class CronSchedule(TypedDict, total=False):
    """A schedule in Quartz cron syntax."""

    quartz_cron_expression: Annotated[Text, v20('Quartz expression, seconds first, such as "0 15 22 * * ?". Required.')]
    timezone_id: Annotated[Text, v20("Java time zone of the schedule, such as Europe/Berlin. Required.")]
    pause_status: Annotated[Text, v20("PAUSED or UNPAUSED. Default: UNPAUSED (according to the SDK).")]
    sql_condition: Annotated[One["SqlConditionConfiguration"], sdk("Query that decides whether it fires.")]


class MaintenanceWindow(TypedDict, total=False):
    """When a continuous job may be restarted for maintenance."""

    start_hour: Annotated[Int, v22("Hour of the day, 0 to 23. Required. Unit: h.")]
    day_of_week: Annotated[Text, v22("MONDAY to SUNDAY. Required.")]
    timezone_id: Annotated[Text, v22("Time zone of the hour. Required.")]


class Continuous(TypedDict, total=False):
    """A continuous job, which always has one active run."""

    pause_status: Annotated[Text, v21("PAUSED or UNPAUSED. Default: UNPAUSED.")]
    task_retry_mode: Annotated[Text, v21("Whether to retry failed tasks: NEVER or ON_FAILURE. Default: NEVER.")]
    maintenance_window: Annotated[One["MaintenanceWindow"], v22("When a run may be restarted for maintenance.")]


class FileArrivalTriggerConfiguration(TypedDict, total=False):
    """Fires when files arrive."""

    url: Annotated[Text, v21("Folder to watch, such as s3://bucket/in/. Required.")]
    min_time_between_triggers_seconds: Annotated[Int, v21("Minimum time between runs, from 60; 0: none. Unit: s.")]
    wait_after_last_change_seconds: Annotated[Int, v21("Time without changes before a run, from 60; 0: none. Unit: s.")]


class TableUpdateTriggerConfiguration(TypedDict, total=False):
    """Fires when tables are updated."""

    table_names: Annotated[Texts, v21("Full names of the tables, such as main.sales.orders. Required.")]
    condition: Annotated[Text, v21("ANY_UPDATED or ALL_UPDATED. Default: ANY_UPDATED.")]
    min_time_between_triggers_seconds: Annotated[Int, v21("Minimum time between runs, from 60; 0: none. Unit: s.")]
    wait_after_last_change_seconds: Annotated[Int, v21("Time without changes before a run, from 60; 0: none. Unit: s.")]


class ModelTriggerConfiguration(TypedDict, total=False):
    """Fires when a registered model changes."""

    condition: Annotated[Text, sdk("MODEL_CREATED, MODEL_VERSION_READY or MODEL_ALIAS_SET. Required.")]
    securable_name: Annotated[Text, sdk("The model, schema or catalog to watch.")]
    aliases: Annotated[Texts, sdk("The aliases to watch, with MODEL_ALIAS_SET.")]
    min_time_between_triggers_seconds: Annotated[Int, sdk("Minimum time between runs, from 60; 0: none. Unit: s.")]
    wait_after_last_change_seconds: Annotated[Int, sdk("Time without changes before a run, from 60; 0: none. Unit: s.")]


class PeriodicTriggerConfiguration(TypedDict, total=False):
    """Fires at regular intervals."""

    interval: Annotated[Int, v21("Number of units between runs. Required.")]
    unit: Annotated[Text, v21("MINUTES, HOURS, DAYS or WEEKS. Required.")]


class TriggerSettings(TypedDict, total=False):
    """What triggers a job; exactly one kind."""

    pause_status: Annotated[Text, v21("PAUSED or UNPAUSED. Default: UNPAUSED.")]
    file_arrival: Annotated[One["FileArrivalTriggerConfiguration"], v21("Files arrive.")]
    table_update: Annotated[One["TableUpdateTriggerConfiguration"], v21("Tables are updated.")]
    periodic: Annotated[One["PeriodicTriggerConfiguration"], v21("Time passes.")]
    model: Annotated[One["ModelTriggerConfiguration"], sdk("A model changes.")]
    sql_condition: Annotated[One["SqlConditionConfiguration"], sdk("Query that decides whether it fires.")]


class CronTriggerConfiguration(TypedDict, total=False):
    """A schedule, as an entry of the list of triggers."""

    quartz_cron_expression: Annotated[Text, v22("Seconds first. Required.")]
    timezone_id: Annotated[Text, v22("Java time zone. Required.")]


class ContinuousTriggerConfiguration(TypedDict, total=False):
    """A continuous job, as an entry of the list of triggers."""

    task_retry_mode: Annotated[Text, v22("NEVER or ON_FAILURE.")]
    maintenance_window: Annotated[One["MaintenanceWindow"], v22("When a run may be restarted for maintenance.")]


class TriggerConfiguration(TypedDict, total=False):
    """One of several triggers of a job; exactly one kind."""

    pause_status: Annotated[Text, v22("PAUSED or UNPAUSED. Default: UNPAUSED.")]
    schedule: Annotated[One["CronTriggerConfiguration"], v22("A schedule.")]
    continuous: Annotated[One["ContinuousTriggerConfiguration"], v22("One run is always active.")]
    file_arrival: Annotated[One["FileArrivalTriggerConfiguration"], v22("Files arrive.")]
    table_update: Annotated[One["TableUpdateTriggerConfiguration"], v22("Tables are updated.")]
    periodic: Annotated[One["PeriodicTriggerConfiguration"], v22("Time passes.")]
    model: Annotated[One["ModelTriggerConfiguration"], v22("A model changes.")]
    sql_condition: Annotated[One["SqlConditionConfiguration"], v22("Query that decides whether it fires.")]
