"""Rules of the Jobs API that can be checked without a server, one module for each module of ``types``.

Each module has a table ``RULES`` from structure names to rules; ``python -m airflow_dbjobs.payloads --rules`` lists
all rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_dbjobs.payloads.paths import Node

# A path relative to the node ("" for the node itself), and what is given there.
Fault: TypeAlias = tuple[str, str]
Check: TypeAlias = "Callable[[Node], Iterator[Fault]]"

# Modules of ``types`` whose structures have rules, in a module of the same name in this folder.
MODULES_WITH_RULES = frozenset(
    {
        "access", "clusters", "code_tasks", "flow_tasks", "jobs", "libraries", "notifications", "parameters", "runs",
        "schedule", "sources", "sql_tasks", "storage", "tasks",
    }
)  # fmt: skip
# Structure -> the structure whose fields and rules it inherits.
EXTENDS = {
    "CreateJob": "JobSettings", "JobSettings": "ComputeAndTask", "SubmitRun": "ComputeAndTask", "Task": "SubmitTask",
    "SubmitTask": "ComputeAndTask", "RunNow": "RunParameters", "RepairRun": "RunParameters",
    "TaskEmailNotifications": "JobEmailNotifications", "TaskNotificationSettings": "JobNotificationSettings",
}  # fmt: skip
FROM_2_1 = ("2.1", "2.2")
ONLY_2_0 = ("2.0",)
ONLY_2_2 = ("2.2",)


@dataclass(frozen=True)
class FieldCheck:
    """A check that only runs if at least one of its fields is given."""

    fields: frozenset[str]
    check: Check

    def __call__(self, node: Node) -> Iterator[Fault]:
        """Run the check, whatever is given."""
        return self.check(node)


def precondition(check: Check) -> tuple[frozenset[str], Check]:
    """Return the fields of which at least one must be given (none: the check always runs), and the check itself."""
    return (check.fields, check.check) if isinstance(check, FieldCheck) else (frozenset(), check)


@dataclass(frozen=True)
class Rule:
    """A rule: its id, its check, what is allowed, and the remedy.

    It applies to `versions` and `endpoints` (all if empty), except for the endpoints `unless`, whose payloads do not
    show whether it is broken. A `warning` reports a probable mistake. `at_run`: while the DAG is parsed, the value may
    be a placeholder; when the task runs, it is an error.
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

    def applies(self, endpoint: str, version: str) -> bool:
        """Return whether the rule applies to an endpoint of an API version."""
        if version not in self.versions or endpoint in self.unless:
            return False
        return not self.endpoints or endpoint in self.endpoints
