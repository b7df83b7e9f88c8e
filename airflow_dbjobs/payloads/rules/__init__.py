"""The rules of the Jobs API that need no server, one table for each module of models.

A table maps the name of a structure to its rules; ``python -m airflow_dbjobs.payloads --rules`` lists them all.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_dbjobs.payloads.paths import Node

# The path below the node ("" for the node itself), and what was given there.
Fault: TypeAlias = tuple[str, str]
Check: TypeAlias = "Callable[[Node], Iterator[Fault]]"

# Modules of models whose structures have rules, in a module of the same name beside this one.
MODULES_WITH_RULES = frozenset(
    {
        "access", "clusters", "code_tasks", "flow_tasks", "jobs", "libraries", "notifications", "parameters", "runs",
        "schedule", "sources", "sql_tasks", "storage", "tasks",
    }
)  # fmt: skip
# The structures that have the fields, and so the rules, of another.
EXTENDS = {
    "CreateJob": "JobSettings", "JobSettings": "ComputeAndTask", "SubmitRun": "ComputeAndTask", "Task": "SubmitTask",
    "SubmitTask": "ComputeAndTask", "RunNow": "RunParameters", "RepairRun": "RunParameters",
    "TaskEmailNotifications": "JobEmailNotifications", "TaskNotificationSettings": "JobNotificationSettings",
}  # fmt: skip
FROM_2_1 = ("2.1", "2.2")
ONLY_2_0 = ("2.0",)
ONLY_2_2 = ("2.2",)


@dataclass(frozen=True)
class OfFields:
    """A check of some fields, which finds nothing where none of them is given."""

    fields: frozenset[str]
    check: Check

    def concerns(self, node: Node) -> bool:
        """Whether any of the fields is given."""
        return not node.value.keys().isdisjoint(self.fields)

    def __call__(self, node: Node) -> Iterator[Fault]:
        """Make the check."""
        return self.check(node)


@dataclass(frozen=True)
class Rule:
    """One rule: an id, what it checks, what is allowed, and what to do instead.

    `versions` and `endpoints` say where it holds, `unless` at which endpoints it cannot be decided; a `warning` tells
    of what is probably wrong. What an `at_run` rule finds may be a placeholder while the DAG is parsed, and is an error
    when the task runs.
    """

    id: str
    check: Check
    allowed: str
    remedy: str
    versions: tuple[str, ...] = ("2.0", "2.1", "2.2")
    endpoints: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()
    warning: bool = False
    at_run: bool = False

    @cached_property
    def fields(self) -> frozenset[str]:
        """Fields without any of which there is nothing to check; none where that is not so simple."""
        return self.check.fields if isinstance(self.check, OfFields) else frozenset()

    def applies(self, endpoint: str, version: str) -> bool:
        """Whether the rule holds for an endpoint of an API version."""
        if version not in self.versions or endpoint in self.unless:
            return False
        return not self.endpoints or endpoint in self.endpoints
