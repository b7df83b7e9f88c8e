"""Rules of clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_dbjobs.payloads.rules import Rule
from airflow_dbjobs.payloads.rules.forms import (
    all_present,
    any_of,
    ascii_only,
    at_most_one,
    in_range,
    most,
    of,
    one_of,
    only_with,
    present,
    where,
)
from airflow_dbjobs.payloads.rules.tags import tag_rules
from airflow_dbjobs.payloads.types.enums import AzureAvailability

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_dbjobs.payloads.paths import Node
    from airflow_dbjobs.payloads.rules import Fault


def _has_no_policy(node: Node) -> bool:
    """Whether no cluster policy may give what is left out: its fixed values always do, its defaults on demand."""
    return not node.given("policy_id")


def _grows(node: Node) -> Iterator[Fault]:
    low, high = node.number("min_workers"), node.number("max_workers")
    if low is not None and high is not None and high <= low:
        yield "", f"min_workers is {low} and max_workers {high}"


def _has_machines(node: Node) -> Iterator[Fault]:
    if all(node.lacks(name) for name in ("node_type_id", "instance_pool_id", "policy_id")):
        yield "", "has no node_type_id"


RULES = {
    "NewCluster": (
        Rule(
            "CLUSTER-SPARK-VERSION",
            where(_has_no_policy, present("spark_version")),
            "it is required, unless a policy gives it",
            "Name the runtime, as in 15.4.x-scala2.12.",
        ),
        Rule(
            "CLUSTER-SIZE",
            at_most_one("num_workers", "autoscale"),
            "a cluster has a fixed size, or grows, not both",
            "Leave num_workers or autoscale out.",
            warning=True,
        ),
        Rule("CLUSTER-NUM-WORKERS", in_range("num_workers", 0), "0 or more is allowed", "0 is a driver alone."),
        Rule(
            "CLUSTER-NODE-TYPE",
            _has_machines,
            "node_type_id is required, unless a pool or a policy gives it",
            "Give node_type_id, instance_pool_id or policy_id.",
            warning=True,
        ),
        Rule(
            "CLUSTER-DRIVER-POOL",
            of(
                "driver_instance_pool_id",
                where(_has_no_policy, only_with("driver_instance_pool_id", "instance_pool_id")),
            ),
            "a driver's pool needs a pool for the workers, unless a policy gives it",
            "Give instance_pool_id too.",
        ),
        Rule("CLUSTER-TAG-COUNT", most("custom_tags", 45), "at most 45 are allowed", "Leave some tags out."),
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
            any_of(all_present("min_workers", "max_workers"), _grows),
            "both are required, and max_workers must be greater than min_workers",
            "Give both, max_workers the greater, or num_workers instead of autoscale.",
            warning=True,
        ),
    ),
    "AzureAttributes": (
        Rule(
            "AZURE-FIRST-ON-DEMAND",
            in_range("first_on_demand", 1),
            "it must be greater than 0",
            "Give 1 for an on-demand driver, or leave it out.",
        ),
        Rule(
            "AZURE-AVAILABILITY",
            one_of("availability", AzureAvailability),
            f"it must be one of {', '.join(AzureAvailability)}",
            "Give one of these.",
        ),
    ),
}
