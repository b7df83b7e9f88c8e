"""Rules for tasks that use a SQL warehouse."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from airflow_dbjobs.payloads.rules import FROM_2_1, ONLY_2_2, Rule
from airflow_dbjobs.payloads.rules.checks import (
    all_of,
    exactly_one,
    json_size,
    max_entries,
    quoted,
    reported_at,
    required,
)
from airflow_dbjobs.payloads.rules.code_tasks import SOURCE
from airflow_dbjobs.payloads.rules.parameters import string_parameters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_dbjobs.payloads.paths import Node
    from airflow_dbjobs.payloads.rules import Fault

KINDS = {"query": "query_id", "dashboard": "dashboard_id", "alert": "alert_id", "file": "path"}
_PARAMETER = re.compile(r"[A-Za-z0-9_.-]{1,100}")


def _ids(node: Node) -> Iterator[Fault]:
    for kind, field in KINDS.items():
        if node.mapping(kind).get(field) in (None, "") and isinstance(node.value.get(kind), dict):
            yield "", f"{kind} has no {field}"


def _alert_parameters(node: Node) -> Iterator[Fault]:
    if node.filled("alert") and node.filled("parameters"):
        yield "parameters", "is given together with alert"


def _alert_path(node: Node) -> Iterator[Fault]:
    path = node.text("workspace_path")
    if path and not path.startswith("/Workspace"):
        yield "workspace_path", f"is {quoted(path)}"


def _parameter_names(node: Node) -> Iterator[Fault]:
    for name in node.mapping("parameters"):
        if not _PARAMETER.fullmatch(str(name)):
            yield "parameters", f"has the name {quoted(name)}"


RULES = {
    "SqlTask": (
        *string_parameters(maps=("parameters",)),
        Rule(
            "SQL-WAREHOUSE",
            required("warehouse_id"),
            "it is required",
            "Set the id of a SQL warehouse.",
            versions=FROM_2_1,
        ),
        Rule(
            "SQL-ONE-KIND",
            exactly_one(*KINDS),
            f"a SQL task must have exactly one of {', '.join(KINDS)}",
            "Use a separate task for each.",
            versions=FROM_2_1,
        ),
        Rule(
            "SQL-IDS",
            _ids,
            "the id, or the path of a file, is required",
            "Set it.",
            versions=FROM_2_1,
        ),
        Rule(
            "SQL-ALERT-PARAMS",
            _alert_parameters,
            "alerts do not accept parameters",
            "Remove the parameters.",
            versions=FROM_2_1,
        ),
    ),
    "SqlTaskFile": SOURCE,
    "AlertTask": (
        *string_parameters(maps=("parameters",)),
        Rule(
            "ALERT-ONE-ID",
            reported_at("", all_of(exactly_one("alert_id", "workspace_path"), _alert_path)),
            "an alert task must have exactly one of alert_id and workspace_path, which must start with /Workspace",
            "Set one of them.",
            versions=ONLY_2_2,
        ),
        Rule(
            "ALERT-SUBSCRIBERS",
            max_entries("subscribers", 100),
            "at most 100 entries are allowed",
            "Use the email address of a group.",
            versions=ONLY_2_2,
        ),
        Rule(
            "ALERT-PARAM-SIZE",
            json_size("parameters", 10_000, in_bytes=False),
            "at most 10,000 characters are allowed",
            "Remove some parameters.",
            versions=ONLY_2_2,
        ),
        Rule(
            "ALERT-PARAM-KEYS",
            _parameter_names,
            "a name must have 1 to 100 letters, digits, dots, underscores and hyphens",
            "Use another name.",
            versions=ONLY_2_2,
        ),
    ),
}
