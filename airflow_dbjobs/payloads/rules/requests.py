"""Rules for all requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_dbjobs.payloads.body import MAX_REQUEST_BYTES
from airflow_dbjobs.payloads.rules import ONLY_2_0, Rule
from airflow_dbjobs.payloads.rules.checks import size_if_over, when_given

if TYPE_CHECKING:
    from airflow_dbjobs.payloads.paths import Node
    from airflow_dbjobs.payloads.rules import Faults


@when_given()
def _size(node: Node) -> Faults:
    if size := size_if_over(MAX_REQUEST_BYTES, node.value):
        yield "", f"has {size:,} bytes as JSON"


@when_given()
def _repair_in_2_0(_: Node) -> Faults:
    yield "", "is a repair through API 2.0"


ROOT_RULES = (
    Rule("REQ-BODY-SIZE", _size, f"at most {MAX_REQUEST_BYTES:,} bytes are allowed", "Pass large data in a file."),
    Rule(
        "REQ-ENDPOINT-VERSION",
        _repair_in_2_0,
        "repairs require API 2.1 or later",
        'Set "api_version": "2.1" in the connection\'s extra.',
        versions=ONLY_2_0,
        endpoints=("runs/repair",),
    ),
)
