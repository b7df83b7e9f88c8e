"""Rules for tags, which differ by cloud: they apply if the workspace or the payload shows the cloud."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from airflow_dbjobs.payloads.field_types import is_list
from airflow_dbjobs.payloads.rules import FieldCheck, Rule
from airflow_dbjobs.payloads.rules.checks import quoted
from airflow_dbjobs.payloads.templates import is_templated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_dbjobs.payloads.paths import Node
    from airflow_dbjobs.payloads.rules import Check, Fault

_AZURE_KEY = re.compile(r"(?!azure|microsoft|windows)[^<>%*&+?\\/;]{1,512}", re.IGNORECASE)
_AWS_KEY = re.compile(r"[\w \-+=.:/@]{1,127}", re.ASCII)
_AWS_VALUE = re.compile(r"[\w \-+=.:/@]{0,255}", re.ASCII)
_GCP = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
_GCP_CHARACTERS = "letters, digits and characters of _.-, and begin and end with a letter or digit"
_ATTRIBUTES = {"azure_attributes": "azure", "aws_attributes": "aws", "gcp_attributes": "gcp"}
MAX_AZURE_VALUE = 256


def cloud_of(node: Node) -> str:
    """Return "azure", "aws" or "gcp", from the workspace or a cluster's attributes, or "" if unknown."""
    return node.body.cloud or next((cloud for cluster in _clusters(node) for cloud in _cloud_of(cluster)), "")


def _clusters(node: Node) -> Iterator[dict[str, object]]:
    settings = node.body.settings
    yield node.value
    for holder in (settings, *_mappings(settings.get("job_clusters")), *_mappings(settings.get("tasks"))):
        cluster = holder.get("new_cluster")
        if isinstance(cluster, dict):
            yield cluster


def _mappings(value: object) -> list[dict[str, object]]:
    return [item for item in value if isinstance(item, dict)] if is_list(value) else []


def _cloud_of(cluster: dict[str, object]) -> Iterator[str]:
    yield from (cloud for name, cloud in _ATTRIBUTES.items() if cluster.get(name))


def _keys(field: str, cloud: str, fits: Callable[[str], object]) -> Check:
    def check(node: Node) -> Iterator[Fault]:
        for key in node.mapping(field):
            if not fits(str(key)) and cloud_of(node) == cloud:
                yield f"{field}.{key}", f"the key is {quoted(key)}"

    return FieldCheck(frozenset([field]), check)


def _values(field: str, cloud: str, fits: Callable[[str], object]) -> Check:
    def check(node: Node) -> Iterator[Fault]:
        for key, value in node.mapping(field).items():
            if isinstance(value, str) and not fits(value) and not is_templated(value) and cloud_of(node) == cloud:
                yield f"{field}.{key}", f"the value is {quoted(value)}, of {len(value)} characters"

    return FieldCheck(frozenset([field]), check)


def tag_rules(field: str) -> tuple[Rule, ...]:
    """Return the rules for a field with tags."""
    remedy = "Use a valid key or value."
    return (
        Rule(
            "TAG-KEY-AZURE",
            _keys(field, "azure", _AZURE_KEY.fullmatch),
            r"on Azure a key must have 1 to 512 characters, none of <>%*&+?\/;, and not start with azure, microsoft or"
            " windows",
            remedy,
        ),
        Rule(
            "TAG-VALUE-AZURE",
            _values(field, "azure", lambda value: len(value) <= MAX_AZURE_VALUE),
            "on Azure a value must have at most 256 characters",
            "Shorten it.",
        ),
        Rule(
            "TAG-KEY-AWS",
            _keys(field, "aws", _AWS_KEY.fullmatch),
            "on AWS a key must have 1 to 127 letters, digits, spaces and characters of +-=._:/@",
            remedy,
            # Source: error messages that another client received; the reference does not mention it.
            warning=True,
        ),
        Rule(
            "TAG-VALUE-AWS",
            _values(field, "aws", _AWS_VALUE.fullmatch),
            "on AWS a value must have at most 255 letters, digits, spaces and characters of +-=._:/@",
            remedy,
            warning=True,
        ),
        Rule(
            "TAG-GCP",
            _keys(field, "gcp", lambda key: key and _GCP.fullmatch(key)),
            f"on Google Cloud a key must have 1 to 63 {_GCP_CHARACTERS}",
            remedy,
            warning=True,
        ),
        Rule(
            "TAG-GCP",
            _values(field, "gcp", _GCP.fullmatch),
            f"on Google Cloud a value must have at most 63 {_GCP_CHARACTERS}",
            remedy,
            warning=True,
        ),
    )
