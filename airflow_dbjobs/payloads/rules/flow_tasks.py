"""Rules for conditions, loops and dependencies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_dbjobs.payloads.rules import FROM_2_1, Rule
from airflow_dbjobs.payloads.rules.checks import (
    all_of,
    all_required,
    in_range,
    joined,
    max_length,
    one_of,
    reported_at,
    required,
)
from airflow_dbjobs.payloads.types.enums import ConditionTaskOp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_dbjobs.payloads.paths import Node
    from airflow_dbjobs.payloads.rules import Fault


def _condition(node: Node) -> Iterator[Fault]:
    # Empty strings are valid operands.
    missing = [name for name in ("op", "left", "right") if node.lacks(name)]
    if missing:
        yield "", f"{joined(missing)} {'is' if len(missing) == 1 else 'are'} missing"


def _nested(node: Node) -> Iterator[Fault]:
    if node.mapping("task").get("for_each_task") is not None:
        yield "task.for_each_task", "is given"


RULES = {
    "ConditionTask": (
        Rule(
            "COND-REQUIRED",
            reported_at("", all_of(_condition, one_of("op", ConditionTaskOp))),
            f"a condition must have left, right, and as op one of {', '.join(ConditionTaskOp)}",
            "Correct or complete the condition.",
            versions=FROM_2_1,
        ),
    ),
    "TaskDependency": (
        Rule(
            "DEPENDS-EXISTS",
            required("task_key"),
            "it is required",
            "Set the key of the task to depend on.",
            versions=FROM_2_1,
        ),
    ),
    "ForEachTask": (
        Rule(
            "FOREACH-REQUIRED",
            all_required("inputs", "task"),
            "both are required",
            "Set inputs and task.",
            versions=FROM_2_1,
        ),
        Rule(
            "FOREACH-NO-NESTING",
            _nested,
            "a for_each_task must not contain another for_each_task",
            "Run another job with run_job_task instead.",
            versions=FROM_2_1,
            warning=True,
        ),
        Rule(
            "FOREACH-INPUT-SIZE",
            max_length("inputs", 10_000),
            "at most 10,000 characters are allowed",
            "Pass longer inputs as a task value.",
            versions=FROM_2_1,
            warning=True,
        ),
        Rule(
            "FOREACH-CONCURRENCY",
            in_range("concurrency", 1, 100),
            "1 to 100 are allowed",
            "Use a number in this range.",
            versions=FROM_2_1,
            warning=True,
        ),
    ),
}
