"""Pass Databricks' dynamic value references (``{{job.run_id}}``) through Airflow's Jinja rendering.

Databricks replaces them when the run starts. Jinja would render them as undefined names, so a Jinja extension rewrites
templates before they are compiled: a reference to a name that Airflow does not define renders to itself.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from jinja2.ext import Extension

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from jinja2 import Environment

# User-defined identifiers may contain hyphens, and almost any character between backticks.
_NAME = r"(?:[\w-]+|`[^`{}'\"\\\n]+`|\[\w+\])"
_OF_TASK = r"task\.(?:name|run_id|execution_count|notebook_path)"
_NAMESPACES = rf"(?:job|tasks|workspace|backfill|input)(?:\.{_NAME})+|input|{_OF_TASK}"
# Legacy names; Databricks recognizes them only without spaces inside the braces.
_VARIABLES = "job_id|run_id|start_date|start_time|task_retry_count|parent_run_id|task_key"
_TEXT = "'(?:[^'\\\\]|\\\\.)*'|\"(?:[^\"\\\\]|\\\\.)*\""
_TEMPLATE = re.compile(
    # Raw blocks and comments; references; all other expressions and statements, with the strings in them.
    r"\{%[-+]?\s*raw\b.*?\{%[-+]?\s*endraw\b.*?%\}|\{\#.*?\#\}"
    rf"|\{{\{{[ \t]*(?P<path>{_NAMESPACES})[ \t]*\}}\}}|\{{\{{(?P<variable>{_VARIABLES})\}}\}}"
    rf"|\{{\{{(?:{_TEXT}|[^'\"])*?\}}\}}|\{{%(?:{_TEXT}|[^'\"])*?%\}}",
    re.DOTALL,
)
# Strings, raw blocks and comments.
_CONSTANT = re.compile(rf"\{{\{{\s*(?:{_TEXT})\s*\}}\}}|\{{%[-+]?\s*raw\b.*|\{{\#.*", re.DOTALL)
_EXPRESSION = re.compile(r"[A-Za-z_]\w*(?:[.-][A-Za-z_]\w*)*")
# Names that Airflow defines for every task.
_AIRFLOW = frozenset({"run_id", "task"})


class DatabricksReferences(Extension):
    """Jinja extension that leaves Databricks' references unchanged if Airflow does not define their name."""

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:  # noqa: ARG002 (Jinja's)
        """Return the template source to compile."""
        if "{{" not in source or self.environment.variable_start_string != "{{":
            return source
        return _TEMPLATE.sub(_escaped, source)


def keeping_references(environment: Environment) -> Environment:
    """Return a Jinja environment that leaves Databricks' references unchanged."""
    if DatabricksReferences.identifier in environment.extensions:
        return environment
    return environment.overlay(extensions=[DatabricksReferences])


def _escaped(found: re.Match[str]) -> str:
    """Return an expression that renders to Airflow's value if there is one, otherwise to the reference itself."""
    reference = found["path"] or found["variable"]
    if reference is None:
        return found[0]
    if not _EXPRESSION.fullmatch(reference):
        return f"{{{{ '{found[0]}' }}}}"
    root = _root(reference)
    known = f"{root} is defined"
    if root == "task":
        # Some of these are attributes of Airflow's task, too, with the value None.
        known += f" and {reference} is defined and {reference} is not none"
    return f"{{{{ {reference} if {known} else '{found[0]}' }}}}"


def _root(reference: str) -> str:
    return re.split(r"[.-]", reference, maxsplit=1)[0]


def is_constant(text: str) -> bool:
    """Return whether Airflow renders a text to the same in each DAG run: it has no template but Databricks'."""
    return not any(map(_is_airflows, _TEMPLATE.finditer(text)))


def split_expressions(text: str) -> list[str] | None:
    """Return a text in parts: those at odd indexes are Airflow's expressions, the others have Databricks' references.

    A text without Databricks' references has a single expression: all of it. None, if a statement of Jinja may enclose
    a reference, so that the text has no such parts.
    """
    found = list(_TEMPLATE.finditer(text))
    airflows = [part for part in found if _is_airflows(part)]
    if len(airflows) == len(found):
        return ["", text, ""]
    if not all(part[0].startswith("{{") for part in airflows):
        return None
    parts, end = [], 0
    for part in airflows:
        parts += [text[end : part.start()], part[0]]
        end = part.end()
    return [*parts, text[end:]]


def _is_airflows(found: re.Match[str]) -> bool:
    """Return whether Airflow renders a template that is not a constant, nor a reference of Databricks."""
    reference = found["path"] or found["variable"]
    if reference:
        # Airflow defines run_id for each task, but usually none of the attributes task.….
        return reference == "run_id"
    return not _CONSTANT.fullmatch(found[0])


def ambiguous_references(value: object, macros: Collection[str] = ()) -> Iterator[str]:
    """Yield a message for each reference in a payload that Airflow may replace before Databricks does.

    `macros` are the names that the DAG defines for its templates.
    """
    templates: list[tuple[str, str]] = []
    _collect_templates(value, "", templates)
    for path, text in templates:
        for found in _TEMPLATE.finditer(text):
            reference = found["path"] or found["variable"]
            if reference and (_root(reference) in _AIRFLOW or _root(reference) in macros):
                yield (
                    f"{path.removeprefix('.')}: both Airflow and Databricks define {found[0]}; Airflow's value is used"
                    f" if there is one. Write {{{{ '{found[0]}' }}}} for Databricks' value, or {{{{ ({reference}) }}}}"
                    " for Airflow's."
                )


def _collect_templates(value: object, path: str, templates: list[tuple[str, str]]) -> None:
    """Append path and text of each string with an expression; the other strings, most of them, cost no call."""
    if isinstance(value, str):
        if "{{" in value:
            templates.append((path, value))
    elif isinstance(value, dict):
        for name, item in value.items():
            if type(item) is not str or "{{" in item:
                _collect_templates(item, f"{path}.{name}", templates)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            if type(item) is not str or "{{" in item:
                _collect_templates(item, f"{path}[{index}]", templates)
