"""Rules for schedules and triggers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_dbjobs.payloads.rules import Rule
from airflow_dbjobs.payloads.rules.checks import (
    all_of,
    all_required,
    exactly_one,
    in_range,
    one_of,
    positive_id,
    quoted,
    reported_at,
    required,
    when_given,
)
from airflow_dbjobs.payloads.templates import is_templated
from airflow_dbjobs.payloads.types.enums import PauseStatus

if TYPE_CHECKING:
    from airflow_dbjobs.payloads.paths import Node
    from airflow_dbjobs.payloads.rules import Faults

UNITS = ("MINUTES", "HOURS", "DAYS", "WEEKS")
QUARTZ_FIELDS = (6, 7)
TABLE_NAME_PARTS = 3


@when_given()
def _quartz(node: Node) -> Faults:
    name = "quartz_cron_expression"
    expression = node.text(name)
    if not expression:
        if node.empty(name):
            yield name, "is missing"
        return
    parts = expression.split()
    if len(parts) not in QUARTZ_FIELDS:
        yield name, f"is {quoted(expression)}, of {len(parts)} fields"
    elif (parts[3] == "?") == (parts[5] == "?"):
        yield name, f"is {quoted(expression)}, with {'? in both day fields' if parts[3] == '?' else 'no ?'}"


@when_given()
def _table_names(node: Node) -> Faults:
    if node.lacks("table_names") or node.value.get("table_names") == []:
        yield "table_names", "is missing or empty"
    for index, table in enumerate(node.items("table_names")):
        if isinstance(table, str) and not is_templated(table) and not _is_full_name(table):
            yield f"table_names[{index}]", f"is {quoted(table)}"


def _is_full_name(table: str) -> bool:
    # A name in backticks may contain dots, so it is not split.
    return "`" in table or len([part for part in table.split(".") if part]) == TABLE_NAME_PARTS


PAUSE = Rule("ENUM-PAUSE", one_of("pause_status", PauseStatus))
QUARTZ = Rule(
    "SCHED-QUARTZ",
    _quartz,
    "a Quartz expression must have 6 or 7 fields, seconds first, and ? in exactly one of day of month and day of week",
    'For example, "0 15 22 * * ?" runs daily at 22:15.',
)
TIMEZONE = Rule("SCHED-TIMEZONE", required("timezone_id"), remedy="Set a time zone, such as Europe/Berlin.")
MIN_SECONDS = Rule(
    "TRIGGER-MIN-SECONDS",
    all_of(
        in_range("min_time_between_triggers_seconds", 60, zero_too=True),
        in_range("wait_after_last_change_seconds", 60, zero_too=True),
    ),
    remedy="Use 60 or more, or remove it.",
)
RETRY_MODE = Rule("CONTINUOUS-RETRY-MODE", one_of("task_retry_mode", ("NEVER", "ON_FAILURE")))
TRIGGER_KINDS = ("file_arrival", "table_update", "periodic", "model")

RULES = {
    "CronSchedule": (PAUSE, QUARTZ, TIMEZONE),
    "CronTriggerConfiguration": (QUARTZ, TIMEZONE),
    "Continuous": (PAUSE, RETRY_MODE),
    "ContinuousTriggerConfiguration": (RETRY_MODE,),
    "MaintenanceWindow": (
        Rule(
            "MAINTENANCE-HOUR",
            reported_at(
                "", all_of(all_required("start_hour", "day_of_week", "timezone_id"), in_range("start_hour", 0, 23))
            ),
            "a window must have a start_hour of 0 to 23, a day_of_week and a timezone_id",
            "Correct or complete the window.",
        ),
    ),
    "TriggerSettings": (PAUSE, Rule("TRIGGER-ONE-KIND", exactly_one(*TRIGGER_KINDS))),
    "TriggerConfiguration": (
        PAUSE,
        Rule(
            "TRIGGERS-EXCLUSIVE",
            exactly_one("schedule", "continuous", *TRIGGER_KINDS),
            remedy="Use a separate entry for each trigger.",
        ),
    ),
    "FileArrivalTriggerConfiguration": (
        Rule("TRIGGER-FILE-URL", required("url"), remedy="Set the folder to watch."),
        MIN_SECONDS,
    ),
    "TableUpdateTriggerConfiguration": (
        Rule(
            "TRIGGER-TABLE-NAMES",
            reported_at("table_names", _table_names),
            "at least one table is required, each as catalog.schema.table",
            "Use the full names of the tables.",
        ),
        Rule("TRIGGER-TABLE-CONDITION", one_of("condition", ("ANY_UPDATED", "ALL_UPDATED"))),
        MIN_SECONDS,
    ),
    "ModelTriggerConfiguration": (MIN_SECONDS,),
    "PeriodicTriggerConfiguration": (
        Rule(
            "TRIGGER-PERIODIC",
            reported_at("", all_of(all_required("interval", "unit"), positive_id("interval"), one_of("unit", UNITS))),
            f"interval must be a positive integer, and unit one of {', '.join(UNITS)}",
            "Set both, and correct the value.",
        ),
    ),
}
