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

# Paths relative to the node ("" for the node itself), and what is given there.
Faults: TypeAlias = "Iterator[tuple[str, str]]"

# Modules of ``types`` whose structures have rules, in a module of the same name in this folder.
MODULES_WITH_RULES = frozenset(
    {
        "access", "clusters", "code_tasks", "flow_tasks", "jobs", "libraries", "notifications", "parameters", "runs",
        "schedule", "sources", "sql_tasks", "storage", "tasks",
    }
)  # fmt: skip
FROM_2_1 = ("2.1", "2.2")
ONLY_2_0 = ("2.0",)
ONLY_2_2 = ("2.2",)


@dataclass(frozen=True)
class Check:
    """What finds faults: `run`, only called if one of `fields` is given (if there are none, always).

    `allowed` and `remedy` are the texts of a rule that has none of its own.
    """

    run: Callable[[Node], Faults]
    fields: frozenset[str] = frozenset()
    allowed: str = ""
    remedy: str = ""

    def __call__(self, node: Node) -> Faults:
        """Yield the faults, whatever is given."""
        return self.run(node)


@dataclass
class Rule:
    """A rule: its id, its check, what is allowed, and the remedy; by default the two that the check has.

    It applies in the API versions that have its structure and the fields of its check, if they are among `versions`;
    to `endpoints` (all if empty); and with `complete` not to an update, whose payload is only a part of the settings. A
    `warning` reports a probable mistake. `at_run`: while the DAG is parsed, the value may be a placeholder; when the
    task runs, it is an error.
    """

    id: str
    check: Check
    allowed: str = ""
    remedy: str = ""
    versions: tuple[str, ...] = ("2.0", "2.1", "2.2")
    endpoints: tuple[str, ...] = ()
    complete: bool = False
    warning: bool = False
    at_run: bool = False

    def __post_init__(self) -> None:
        self.allowed = self.allowed or self.check.allowed
        self.remedy = self.remedy or self.check.remedy

    def applies(self, endpoint: str) -> bool:
        """Return whether the rule applies to the payloads of an endpoint."""
        return not (self.complete and endpoint == "update") and (not self.endpoints or endpoint in self.endpoints)
