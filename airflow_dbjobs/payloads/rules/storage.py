"""Rules for log destinations and init scripts."""

from __future__ import annotations

from airflow_dbjobs.payloads.rules import Rule
from airflow_dbjobs.payloads.rules.checks import at_most_one, exactly_one

LOCATIONS = ("workspace", "abfss", "dbfs", "file", "gcs", "s3", "volumes")

RULES = {
    "ClusterLogConf": (Rule("CLUSTER-LOG-ONE", at_most_one("dbfs", "s3", "volumes")),),
    "InitScriptInfo": (
        Rule("INIT-SCRIPT-ONE", exactly_one(*LOCATIONS), remedy="Use a separate entry for each script."),
    ),
}
