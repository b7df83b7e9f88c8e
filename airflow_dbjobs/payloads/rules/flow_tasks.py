"""Rules for conditions, loops and dependencies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_dbjobs.payloads.rules import Rule
from airflow_dbjobs.payloads.rules.checks import (
    all_of,
    all_required,
    in_range,
    max_length,
    one_of,
    reported_at,
    required,
    when_given,
)
from airflow_dbjobs.payloads.types.enums import ConditionTaskOp

if TYPE_CHECKING:
    from airflow_dbjobs.payloads.paths import Node
    from airflow_dbjobs.payloads.rules import Faults


@when_given("task")
def _nested(node: Node) -> Faults:
    if node.mapping("task").get("for_each_task") is not None:
        yield "task.for_each_task", "is given"


RULES = {
    "ConditionTask": (
        Rule(
            "COND-REQUIRED",
            reported_at(
                "", all_of(all_required("op", "left", "right", may_be_empty=True), one_of("op", ConditionTaskOp))
            ),
            f"a condition must have left, right, and as op one of {', '.join(ConditionTaskOp)}",
            "Correct or complete the condition.",
        ),
    ),
    "TaskDependency": (Rule("DEPENDS-EXISTS", required("task_key"), remedy="Set the key of the task to depend on."),),
    "ForEachTask": (
        Rule("FOREACH-REQUIRED", all_required("inputs", "task"), remedy="Set inputs and task."),
        Rule(
            "FOREACH-NO-NESTING",
            _nested,
            "a for_each_task must not contain another for_each_task",
            "Run another job with run_job_task instead.",
            warning=True,
        ),
        Rule(
            "FOREACH-INPUT-SIZE",
            max_length("inputs", 10_000),
            remedy="Pass longer inputs as a task value.",
            warning=True,
        ),
        Rule("FOREACH-CONCURRENCY", in_range("concurrency", 1, 100), warning=True),
    ),
}
