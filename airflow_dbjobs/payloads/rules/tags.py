"""Rules for tags, which differ by cloud: they apply if the workspace or the payload shows the cloud."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from airflow_dbjobs.payloads.field_types import is_list
from airflow_dbjobs.payloads.rules import Rule
from airflow_dbjobs.payloads.rules.checks import quoted, when_given
from airflow_dbjobs.payloads.templates import is_templated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_dbjobs.payloads.paths import Node
    from airflow_dbjobs.payloads.rules import Check, Faults

_AZURE_KEY = re.compile(r"(?!azure|microsoft|windows)[^<>%*&+?\\/;]{1,512}", re.IGNORECASE)
_AZURE_VALUE = re.compile(r".{0,256}", re.DOTALL)
_AWS_KEY = re.compile(r"[\w \-+=.:/@]{1,127}", re.ASCII)
_AWS_VALUE = re.compile(r"[\w \-+=.:/@]{0,255}", re.ASCII)
_GCP_KEY = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_GCP_VALUE = re.compile(rf"({_GCP_KEY.pattern})?")
_AWS_CHARACTERS = "letters, digits, spaces and characters of +-=._:/@"
_GCP_CHARACTERS = "letters, digits and characters of _.-, and begin and end with a letter or digit"
_ATTRIBUTES = {"azure_attributes": "azure", "aws_attributes": "aws", "gcp_attributes": "gcp"}


def cloud_of(node: Node) -> str:
    """Return "azure", "aws" or "gcp", from the workspace or a cluster's attributes, or "" if unknown."""
    shown = (cloud for cluster in _clusters(node) for name, cloud in _ATTRIBUTES.items() if cluster.get(name))
    return node.body.cloud or next(shown, "")


def _clusters(node: Node) -> Iterator[dict[str, object]]:
    settings = node.body.settings
    yield node.value
    for holder in (settings, *_mappings(settings.get("job_clusters")), *_mappings(settings.get("tasks"))):
        cluster = holder.get("new_cluster")
        if isinstance(cluster, dict):
            yield cluster


def _mappings(value: object) -> list[dict[str, object]]:
    return [item for item in value if isinstance(item, dict)] if is_list(value) else []


def _each(part: Literal["key", "value"], field: str, cloud: str, pattern: re.Pattern[str]) -> Check:
    """Check each key, or each value that is a string, on one cloud."""

    @when_given(field, remedy=f"Use another {part}.")
    def check(node: Node) -> Faults:
        for key, value in node.mapping(field).items():
            text = str(key) if part == "key" else value
            if not isinstance(text, str) or pattern.fullmatch(text) or is_templated(text):
                continue
            if cloud_of(node) == cloud:
                yield f"{field}.{key}", f"the {part} is {quoted(text)}, of {len(text)} characters"

    return check


def tag_rules(field: str) -> tuple[Rule, ...]:
    """Return the rules for a field with tags.

    Source of those for AWS: error messages that another client received; the reference does not mention them.
    """
    return (
        Rule(
            "TAG-KEY-AZURE",
            _each("key", field, "azure", _AZURE_KEY),
            r"on Azure a key must have 1 to 512 characters, none of <>%*&+?\/;, and not start with azure, microsoft or"
            " windows",
        ),
        Rule(
            "TAG-VALUE-AZURE",
            _each("value", field, "azure", _AZURE_VALUE),
            "on Azure a value must have at most 256 characters",
        ),
        Rule(
            "TAG-KEY-AWS",
            _each("key", field, "aws", _AWS_KEY),
            f"on AWS a key must have 1 to 127 {_AWS_CHARACTERS}",
            warning=True,
        ),
        Rule(
            "TAG-VALUE-AWS",
            _each("value", field, "aws", _AWS_VALUE),
            f"on AWS a value must have at most 255 {_AWS_CHARACTERS}",
            warning=True,
        ),
        Rule(
            "TAG-GCP",
            _each("key", field, "gcp", _GCP_KEY),
            f"on Google Cloud a key must have 1 to 63 {_GCP_CHARACTERS}",
            warning=True,
        ),
        Rule(
            "TAG-GCP",
            _each("value", field, "gcp", _GCP_VALUE),
            f"on Google Cloud a value must have at most 63 {_GCP_CHARACTERS}",
            warning=True,
        ),
    )
