"""Databricks' dynamic value references (``{{job.run_id}}``) in texts that Jinja renders first.

Databricks fills them in when the run starts. To Jinja they are expressions with names that it does not know, so a
DAG's templates are rewritten before Jinja reads them: a reference whose name Airflow does not have renders to itself.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from jinja2.ext import Extension

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from jinja2 import Environment

# Identifiers that users choose may have hyphens, and whatever else between back quotes.
_NAME = r"(?:[\w-]+|`[^`{}'\"\\\n]+`|\[\w+\])"
_OF_TASK = r"task\.(?:name|run_id|execution_count|notebook_path)"
_NAMESPACES = rf"(?:job|tasks|workspace|backfill|input)(?:\.{_NAME})+|input|{_OF_TASK}"
# Older names; Databricks reads them only without blanks around them.
_VARIABLES = "job_id|run_id|start_date|start_time|task_retry_count|parent_run_id|task_key"
_TEXT = "'(?:[^'\\\\]|\\\\.)*'|\"(?:[^\"\\\\]|\\\\.)*\""
_TEMPLATE = re.compile(
    # What Jinja does not evaluate; a reference; any other expression or statement, the texts in it included.
    r"\{%[-+]?\s*raw\b.*?\{%[-+]?\s*endraw\b.*?%\}|\{\#.*?\#\}"
    rf"|\{{\{{[ \t]*(?P<path>{_NAMESPACES})[ \t]*\}}\}}|\{{\{{(?P<variable>{_VARIABLES})\}}\}}"
    rf"|\{{\{{(?:{_TEXT}|[^'\"])*?\}}\}}|\{{%(?:{_TEXT}|[^'\"])*?%\}}",
    re.DOTALL,
)
_EXPRESSION = re.compile(r"[A-Za-z_]\w*(?:[.-][A-Za-z_]\w*)*")
# Names that every task has in Airflow.
_AIRFLOW = frozenset({"run_id", "task"})


class DatabricksReferences(Extension):
    """Lets Databricks' references pass Jinja as they are written, where Airflow does not have their name."""

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:  # noqa: ARG002 (Jinja's)
        """Return the template to compile."""
        if "{{" not in source or self.environment.variable_start_string != "{{":
            return source
        return _TEMPLATE.sub(_kept, source)


def keeping_references(environment: Environment) -> Environment:
    """Return a Jinja environment whose templates let Databricks' references pass."""
    if DatabricksReferences.identifier in environment.extensions:
        return environment
    return environment.overlay(extensions=[DatabricksReferences])


def _kept(found: re.Match[str]) -> str:
    """Return an expression that renders to a reference, or to Airflow's value where Airflow has one."""
    reference = found["path"] or found["variable"]
    if reference is None:
        return found[0]
    if not _EXPRESSION.fullmatch(reference):
        return f"{{{{ '{found[0]}' }}}}"
    root = _root(reference)
    known = f"{root} is defined"
    if root == "task":
        # Airflow's task has some attributes of these names, which are None.
        known += f" and {reference} is defined and {reference} is not none"
    return f"{{{{ {reference} if {known} else '{found[0]}' }}}}"


def _root(reference: str) -> str:
    return re.split(r"[.-]", reference, maxsplit=1)[0]


def ambiguous_references(value: object, macros: Collection[str] = (), path: str = "") -> Iterator[str]:
    """Yield a message for each reference in a payload that Airflow may fill in before Databricks does.

    `macros` are the names that the DAG defines for its templates.
    """
    if isinstance(value, str):
        for found in _TEMPLATE.finditer(value) if "{{" in value else ():
            reference = found["path"] or found["variable"]
            if reference and (_root(reference) in _AIRFLOW or _root(reference) in macros):
                yield (
                    f"{path}: both Airflow and Databricks have {found[0]}, and Airflow's value is used where there is"
                    f" one. Write {{{{ '{found[0]}' }}}} for that of Databricks, {{{{ ({reference}) }}}} for Airflow's."
                )
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from ambiguous_references(item, macros, f"{path}.{name}".removeprefix("."))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from ambiguous_references(item, macros, f"{path}[{index}]")
