"""Rules for clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_dbjobs.payloads.rules import Rule
from airflow_dbjobs.payloads.rules.checks import (
    all_of,
    all_required,
    ascii_only,
    at_most_one,
    in_range,
    max_entries,
    one_of,
    only_if,
    only_with,
    required,
    when_given,
)
from airflow_dbjobs.payloads.rules.tags import tag_rules
from airflow_dbjobs.payloads.types.enums import AzureAvailability

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_dbjobs.payloads.paths import Node
    from airflow_dbjobs.payloads.rules import Fault


def _has_no_policy(node: Node) -> bool:
    """Return whether no cluster policy is given, which may set missing fields."""
    return not node.given("policy_id")


def _max_above_min(node: Node) -> Iterator[Fault]:
    low, high = node.number("min_workers"), node.number("max_workers")
    if low is not None and high is not None and high <= low:
        yield "", f"min_workers is {low} and max_workers {high}"


def _node_type_missing(node: Node) -> Iterator[Fault]:
    if all(node.lacks(name) for name in ("node_type_id", "instance_pool_id", "policy_id")):
        yield "", "has no node_type_id"


RULES = {
    "NewCluster": (
        Rule(
            "CLUSTER-SPARK-VERSION",
            only_if(_has_no_policy, required("spark_version")),
            "it is required, unless a policy sets it",
            "Set a Databricks Runtime version, such as 15.4.x-scala2.12.",
        ),
        Rule(
            "CLUSTER-SIZE",
            at_most_one("num_workers", "autoscale"),
            "a cluster can have a fixed size or autoscaling, not both",
            "Remove num_workers or autoscale.",
            warning=True,
        ),
        Rule(
            "CLUSTER-NUM-WORKERS",
            in_range("num_workers", 0),
            "0 or more is allowed",
            "Use 0 for a cluster without workers.",
        ),
        Rule(
            "CLUSTER-NODE-TYPE",
            _node_type_missing,
            "node_type_id is required, unless a pool or a policy sets it",
            "Set node_type_id, instance_pool_id or policy_id.",
            warning=True,
        ),
        Rule(
            "CLUSTER-DRIVER-POOL",
            when_given(
                "driver_instance_pool_id",
                only_if(_has_no_policy, only_with("driver_instance_pool_id", "instance_pool_id")),
            ),
            "a pool for the driver requires one for the workers, unless a policy sets it",
            "Also set instance_pool_id.",
        ),
        Rule(
            "CLUSTER-TAG-COUNT", max_entries("custom_tags", 45), "at most 45 entries are allowed", "Remove some tags."
        ),
        Rule(
            "SPARK-ENV-ASCII",
            ascii_only("spark_env_vars"),
            "names and values of environment variables must be ASCII",
            "Encode the value, or read it from a file.",
        ),
        *tag_rules("custom_tags"),
    ),
    "AutoScale": (
        Rule(
            "CLUSTER-AUTOSCALE",
            all_of(all_required("min_workers", "max_workers"), _max_above_min),
            "both are required, and max_workers must be greater than min_workers",
            "Correct the two, or use num_workers instead of autoscale.",
            warning=True,
        ),
    ),
    "AzureAttributes": (
        Rule(
            "AZURE-FIRST-ON-DEMAND",
            in_range("first_on_demand", 1),
            "it must be greater than 0",
            "Use 1 for an on-demand driver, or remove it.",
        ),
        Rule(
            "AZURE-AVAILABILITY",
            one_of("availability", AzureAvailability),
            f"it must be one of {', '.join(AzureAvailability)}",
            "Use one of these.",
        ),
    ),
}
