"""Rules of schedules and triggers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_dbjobs.payloads.field_types import type_of, whole_number
from airflow_dbjobs.payloads.rules import FROM_2_1, ONLY_2_2, Rule
from airflow_dbjobs.payloads.rules.forms import all_present, any_of, at, exactly_one, in_range, one_of, present, shown
from airflow_dbjobs.payloads.templates import is_templated
from airflow_dbjobs.payloads.types.enums import PauseStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_dbjobs.payloads.paths import Node
    from airflow_dbjobs.payloads.rules import Fault

RETRY_MODES = ("NEVER", "ON_FAILURE")
UNITS = ("MINUTES", "HOURS", "DAYS", "WEEKS")
QUARTZ_FIELDS = (6, 7)
TABLE_NAME_PARTS = 3


def _quartz(node: Node) -> Iterator[Fault]:
    name = "quartz_cron_expression"
    expression = node.text(name)
    if not expression:
        if node.lacks(name) or expression == "":
            yield name, "is missing"
        return
    parts = expression.split()
    if len(parts) not in QUARTZ_FIELDS:
        yield name, f"is {shown(expression)}, of {len(parts)} fields"
    elif (parts[3] == "?") == (parts[5] == "?"):
        yield name, f"is {shown(expression)}, with {'two ?' if parts[3] == '?' else 'no ?'}"


def _periodic(node: Node) -> Iterator[Fault]:
    interval, unit = node.value.get("interval"), node.value.get("unit")
    if node.lacks("interval") or node.lacks("unit"):
        yield "", f"{'interval' if node.lacks('interval') else 'unit'} is missing"
    if interval is not None and not is_templated(interval) and (whole_number(interval) or 0) <= 0:
        yield "interval", f"is {shown(interval)}" if isinstance(interval, str | int | float) else type_of(interval)
    if unit is not None and not is_templated(unit) and unit not in UNITS:
        yield "unit", f"is {shown(unit)}"


def _table_names(node: Node) -> Iterator[Fault]:
    if node.lacks("table_names") or node.value.get("table_names") == []:
        yield "table_names", "is missing or empty"
    for index, table in enumerate(node.items("table_names")):
        if isinstance(table, str) and not is_templated(table) and not _is_full_name(table):
            yield f"table_names[{index}]", f"is {shown(table)}"


def _is_full_name(table: str) -> bool:
    # A name in back quotes may hold dots: it is not taken apart.
    return "`" in table or len([part for part in table.split(".") if part]) == TABLE_NAME_PARTS


PAUSE = Rule("ENUM-PAUSE", one_of("pause_status", PauseStatus), "it must be PAUSED or UNPAUSED", "Give one of these.")
QUARTZ = Rule(
    "SCHED-QUARTZ",
    _quartz,
    "a Quartz expression must have 6 or 7 fields, seconds first, and ? for the day of month or of week, not both",
    'Write it as "0 15 22 * * ?" does for a quarter past ten in the evening.',
)
TIMEZONE = Rule("SCHED-TIMEZONE", present("timezone_id"), "it is required", "Name a time zone, as in Europe/Berlin.")
MIN_SECONDS = Rule(
    "TRIGGER-MIN-SECONDS",
    any_of(
        in_range("min_time_between_triggers_seconds", 60, zero_too=True),
        in_range("wait_after_last_change_seconds", 60, zero_too=True),
    ),
    "0 or at least 60 seconds are allowed",
    "Give 60 or more, or leave it out.",
    versions=FROM_2_1,
)
RETRY_MODE = Rule(
    "CONTINUOUS-RETRY-MODE",
    one_of("task_retry_mode", RETRY_MODES),
    f"it must be one of {', '.join(RETRY_MODES)}",
    "Give one of these.",
    versions=FROM_2_1,
)
TRIGGER_KINDS = ("file_arrival", "table_update", "periodic", "model")

RULES = {
    "CronSchedule": (PAUSE, QUARTZ, TIMEZONE),
    "CronTriggerConfiguration": (QUARTZ, TIMEZONE),
    "Continuous": (PAUSE, RETRY_MODE),
    "ContinuousTriggerConfiguration": (RETRY_MODE,),
    "MaintenanceWindow": (
        Rule(
            "MAINTENANCE-HOUR",
            at("", any_of(all_present("start_hour", "day_of_week", "timezone_id"), in_range("start_hour", 0, 23))),
            "a window must have a start_hour of 0 to 23, a day_of_week and a timezone_id",
            "Correct or complete the window.",
            versions=ONLY_2_2,
        ),
    ),
    "TriggerSettings": (
        PAUSE,
        Rule(
            "TRIGGER-ONE-KIND",
            exactly_one(*TRIGGER_KINDS),
            f"a trigger must have exactly one of {', '.join(TRIGGER_KINDS)}",
            "Give one, and leave the others out.",
            versions=FROM_2_1,
        ),
    ),
    "TriggerConfiguration": (
        PAUSE,
        Rule(
            "TRIGGERS-EXCLUSIVE",
            exactly_one("schedule", "continuous", *TRIGGER_KINDS),
            f"an entry must have exactly one of schedule, continuous, {', '.join(TRIGGER_KINDS)}",
            "Give one, and each other trigger an entry of its own.",
            versions=ONLY_2_2,
        ),
    ),
    "FileArrivalTriggerConfiguration": (
        Rule(
            "TRIGGER-FILE-URL",
            present("url"),
            "it is required",
            "Give the folder to watch.",
            versions=FROM_2_1,
        ),
        MIN_SECONDS,
    ),
    "TableUpdateTriggerConfiguration": (
        Rule(
            "TRIGGER-TABLE-NAMES",
            at("table_names", _table_names),
            "a list of at least one table is required, each written as catalog.schema.table",
            "Give the tables' full names.",
            versions=FROM_2_1,
        ),
        Rule(
            "TRIGGER-TABLE-CONDITION",
            one_of("condition", ("ANY_UPDATED", "ALL_UPDATED")),
            "it must be ANY_UPDATED or ALL_UPDATED",
            "Give one of these.",
            versions=FROM_2_1,
        ),
        MIN_SECONDS,
    ),
    "ModelTriggerConfiguration": (MIN_SECONDS,),
    "PeriodicTriggerConfiguration": (
        Rule(
            "TRIGGER-PERIODIC",
            at("", _periodic),
            f"interval must be an integer above 0, and unit one of {', '.join(UNITS)}",
            "Correct what is wrong, and give both.",
            versions=FROM_2_1,
        ),
    ),
}
