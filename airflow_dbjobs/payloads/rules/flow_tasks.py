"""Rules of conditions, loops and dependencies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_dbjobs.payloads.rules import FROM_2_1, Rule
from airflow_dbjobs.payloads.rules.forms import all_present, any_of, at, in_range, listed, longest, one_of, present
from airflow_dbjobs.payloads.types.enums import ConditionTaskOp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_dbjobs.payloads.paths import Node
    from airflow_dbjobs.payloads.rules import Fault


def _condition(node: Node) -> Iterator[Fault]:
    # An empty string is something to compare with.
    missing = [name for name in ("op", "left", "right") if node.lacks(name)]
    if missing:
        yield "", f"{listed(missing)} {'is' if len(missing) == 1 else 'are'} missing"


def _nested(node: Node) -> Iterator[Fault]:
    if node.mapping("task").get("for_each_task") is not None:
        yield "task.for_each_task", "is given"


RULES = {
    "ConditionTask": (
        Rule(
            "COND-REQUIRED",
            at("", any_of(_condition, one_of("op", ConditionTaskOp))),
            f"a condition must have left, right, and as op one of {', '.join(ConditionTaskOp)}",
            "Correct or complete the condition.",
            versions=FROM_2_1,
        ),
    ),
    "TaskDependency": (
        Rule("DEPENDS-EXISTS", present("task_key"), "it is required", "Name the task.", versions=FROM_2_1),
    ),
    "ForEachTask": (
        Rule(
            "FOREACH-REQUIRED",
            all_present("inputs", "task"),
            "both are required",
            "Give inputs and the task.",
            versions=FROM_2_1,
        ),
        Rule(
            "FOREACH-NO-NESTING",
            _nested,
            "the task of a for_each_task must not be one itself",
            "Call another job by run_job_task instead.",
            versions=FROM_2_1,
            warning=True,
        ),
        Rule(
            "FOREACH-INPUT-SIZE",
            longest("inputs", 10_000),
            "at most 10,000 are allowed in a literal list",
            "Take the inputs from a task value.",
            versions=FROM_2_1,
            warning=True,
        ),
        Rule(
            "FOREACH-CONCURRENCY",
            in_range("concurrency", 1, 100),
            "1 to 100 are allowed",
            "Give a number in between.",
            versions=FROM_2_1,
            warning=True,
        ),
    ),
}
