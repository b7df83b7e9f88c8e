"""Rules for tasks that use a SQL warehouse."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from airflow_dbjobs.payloads.rules import Rule
from airflow_dbjobs.payloads.rules.checks import (
    all_of,
    exactly_one,
    json_size,
    max_entries,
    quoted,
    reported_at,
    required,
    when_given,
)
from airflow_dbjobs.payloads.rules.code_tasks import SOURCE
from airflow_dbjobs.payloads.rules.parameters import string_parameters

if TYPE_CHECKING:
    from airflow_dbjobs.payloads.paths import Node
    from airflow_dbjobs.payloads.rules import Faults

KINDS = {"query": "query_id", "dashboard": "dashboard_id", "alert": "alert_id", "file": "path"}
_PARAMETER = re.compile(r"[A-Za-z0-9_.-]{1,100}")


@when_given(*KINDS)
def _ids(node: Node) -> Faults:
    for kind, field in KINDS.items():
        if node.mapping(kind).get(field) in (None, "") and isinstance(node.value.get(kind), dict):
            yield "", f"{kind} has no {field}"


@when_given("alert")
def _alert_parameters(node: Node) -> Faults:
    if node.filled("alert") and node.filled("parameters"):
        yield "parameters", "is given together with alert"


@when_given("workspace_path")
def _alert_path(node: Node) -> Faults:
    path = node.text("workspace_path")
    if path and not path.startswith("/Workspace"):
        yield "workspace_path", f"is {quoted(path)}"


@when_given("parameters")
def _parameter_names(node: Node) -> Faults:
    for name in node.mapping("parameters"):
        if not _PARAMETER.fullmatch(str(name)):
            yield "parameters", f"has the name {quoted(name)}"


RULES = {
    "SqlTask": (
        *string_parameters(maps=("parameters",)),
        Rule("SQL-WAREHOUSE", required("warehouse_id"), remedy="Set the id of a SQL warehouse."),
        Rule("SQL-ONE-KIND", exactly_one(*KINDS), remedy="Use a separate task for each."),
        Rule("SQL-IDS", _ids, "the id, or the path of a file, is required", "Set it."),
        Rule("SQL-ALERT-PARAMS", _alert_parameters, "alerts do not accept parameters", "Remove the parameters."),
    ),
    "SqlTaskFile": SOURCE,
    "AlertTask": (
        *string_parameters(maps=("parameters",)),
        Rule(
            "ALERT-ONE-ID",
            reported_at("", all_of(exactly_one("alert_id", "workspace_path"), _alert_path)),
            "an alert task must have exactly one of alert_id and workspace_path, which must start with /Workspace",
            "Set one of them.",
        ),
        Rule("ALERT-SUBSCRIBERS", max_entries("subscribers", 100), remedy="Use the email address of a group."),
        Rule("ALERT-PARAM-SIZE", json_size("parameters", 10_000, in_bytes=False), remedy="Remove some parameters."),
        Rule(
            "ALERT-PARAM-KEYS",
            _parameter_names,
            "a name must have 1 to 100 letters, digits, dots, underscores and hyphens",
            "Use another name.",
        ),
    ),
}
