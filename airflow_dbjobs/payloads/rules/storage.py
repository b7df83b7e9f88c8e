"""Rules of log destinations and init scripts."""

from __future__ import annotations

from airflow_dbjobs.payloads.rules import Rule
from airflow_dbjobs.payloads.rules.forms import at_most_one, exactly_one

LOCATIONS = ("workspace", "abfss", "dbfs", "file", "gcs", "s3", "volumes")

RULES = {
    "ClusterLogConf": (
        Rule(
            "CLUSTER-LOG-ONE",
            at_most_one("dbfs", "s3", "volumes"),
            "logs can go to one destination only",
            "Leave all but one out.",
        ),
    ),
    "InitScriptInfo": (
        Rule(
            "INIT-SCRIPT-ONE",
            exactly_one(*LOCATIONS),
            f"an init script must have exactly one of {', '.join(LOCATIONS)}",
            "Give one, and each other script an entry of its own.",
        ),
    ),
}
