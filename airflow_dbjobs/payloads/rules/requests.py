"""Rules of every request, whatever it is for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_dbjobs.payloads.body import MAX_REQUEST_BYTES
from airflow_dbjobs.payloads.rules import ONLY_2_0, Rule
from airflow_dbjobs.payloads.rules.forms import size_over

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_dbjobs.payloads.paths import Node
    from airflow_dbjobs.payloads.rules import Fault


def _size(node: Node) -> Iterator[Fault]:
    size = size_over(MAX_REQUEST_BYTES, node.value)
    if size:
        yield "", f"has {size:,} bytes as JSON"


def _always(_: Node) -> Iterator[Fault]:
    yield "", "is a call of API 2.0"


ROOT_RULES = (
    Rule("REQ-BODY-SIZE", _size, f"at most {MAX_REQUEST_BYTES:,} are allowed", "Pass large data by a file."),
    Rule(
        "REQ-ENDPOINT-VERSION",
        _always,
        "runs are repaired from API 2.1 on",
        'Set "api_version": "2.1" in the connection\'s extra.',
        versions=ONLY_2_0,
        endpoints=("runs/repair",),
    ),
)
