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
    only_with,
    required,
    when_given,
)
from airflow_dbjobs.payloads.rules.tags import tag_rules
from airflow_dbjobs.payloads.types.enums import AzureAvailability

if TYPE_CHECKING:
    from airflow_dbjobs.payloads.paths import Node
    from airflow_dbjobs.payloads.rules import Faults


@when_given()
def _max_above_min(node: Node) -> Faults:
    low, high = node.number("min_workers"), node.number("max_workers")
    if low is not None and high is not None and high <= low:
        yield "", f"min_workers is {low} and max_workers {high}"


RULES = {
    "NewCluster": (
        Rule(
            "CLUSTER-SPARK-VERSION",
            required("spark_version", unless=("policy_id",)),
            "it is required, unless a policy sets it",
            "Set a Databricks Runtime version, such as 15.4.x-scala2.12.",
        ),
        Rule(
            "CLUSTER-SIZE",
            at_most_one("num_workers", "autoscale"),
            "a cluster can have a fixed size or autoscaling, not both",
            warning=True,
        ),
        Rule("CLUSTER-NUM-WORKERS", in_range("num_workers", 0), remedy="Use 0 for a cluster without workers."),
        Rule(
            "CLUSTER-NODE-TYPE",
            required("node_type_id", unless=("instance_pool_id", "policy_id")),
            "it is required, unless a pool or a policy sets it",
            "Set node_type_id, instance_pool_id or policy_id.",
            warning=True,
        ),
        Rule(
            "CLUSTER-DRIVER-POOL",
            only_with("driver_instance_pool_id", "instance_pool_id", "policy_id"),
            "a pool for the driver requires one for the workers, unless a policy sets it",
            "Also set instance_pool_id.",
        ),
        Rule("CLUSTER-TAG-COUNT", max_entries("custom_tags", 45)),
        Rule("SPARK-ENV-ASCII", ascii_only("spark_env_vars")),
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
        Rule("AZURE-FIRST-ON-DEMAND", in_range("first_on_demand", 1), remedy="Use 1 for an on-demand driver."),
        Rule("AZURE-AVAILABILITY", one_of("availability", AzureAvailability)),
    ),
}
