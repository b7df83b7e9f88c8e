"""Rules for jobs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from airflow_dbjobs.payloads.field_types import type_of
from airflow_dbjobs.payloads.rules import FROM_2_1, Rule
from airflow_dbjobs.payloads.rules.access import ONE_OWNER
from airflow_dbjobs.payloads.rules.checks import (
    absent,
    all_of,
    at_most_one,
    in_range,
    joined,
    matches,
    max_entries,
    max_length,
    positive_id,
    present,
    quoted,
    required,
    unique,
    when_given,
)
from airflow_dbjobs.payloads.rules.graph import known_references
from airflow_dbjobs.payloads.rules.launches import LAUNCH_RULES
from airflow_dbjobs.payloads.rules.tags import tag_rules
from airflow_dbjobs.payloads.rules.tasks import KEY, RETRY_RULES
from airflow_dbjobs.payloads.templates import is_templated

if TYPE_CHECKING:
    from airflow_dbjobs.payloads.paths import Node
    from airflow_dbjobs.payloads.rules import Faults

_REMOVABLE = re.compile(r"\w+|(tasks|job_clusters)/[^/]+")


@when_given("triggers")
def _triggers_alone(node: Node) -> Faults:
    others = [name for name in ("schedule", "continuous", "trigger") if node.filled(name)]
    if node.filled("triggers") and others:
        yield "triggers", f"is given together with {joined(others)}"


@when_given("continuous")
def _continuous_concurrency(node: Node) -> Faults:
    runs = node.number("max_concurrent_runs")
    if node.filled("continuous") and runs is not None and runs != 1:
        yield "max_concurrent_runs", f"is {runs}"


@when_given()
def _settings_given(node: Node) -> Faults:
    value = node.value.get("new_settings")
    if node.lacks("new_settings"):
        yield "new_settings", "is missing"
    elif not isinstance(value, dict) and not is_templated(value):
        yield "new_settings", type_of(value)


@when_given("fields_to_remove")
def _removable(node: Node) -> Faults:
    for index, name in enumerate(node.items("fields_to_remove")):
        if isinstance(name, str) and not is_templated(name) and not _REMOVABLE.fullmatch(name):
            yield f"fields_to_remove[{index}]", f"is {quoted(name)}"


JOB_ID = Rule("REQ-JOB-ID", all_of(present("job_id"), positive_id("job_id")), remedy="Set the id of the job.")

RULES = {
    "JobSettings": (
        *LAUNCH_RULES,
        *RETRY_RULES,
        *tag_rules("tags"),
        Rule("NAME-JOB", max_length("name", 4096, in_bytes=True), versions=FROM_2_1),
        Rule("DESC-JOB", max_length("description", 27_700)),
        Rule("PARAM-NAME-UNIQUE", unique("parameters", "name"), warning=True),
        Rule(
            "RANGE-MAX-CONCURRENT",
            in_range("max_concurrent_runs", 0, 1000),
            remedy="Use a number in this range; 0 skips all runs.",
        ),
        Rule("TRIGGER-EXCLUSIVE", at_most_one("schedule", "continuous", "trigger"), versions=FROM_2_1),
        Rule(
            "TRIGGERS-EXCLUSIVE",
            _triggers_alone,
            "triggers replaces schedule, continuous and trigger",
            "Move them into triggers.",
        ),
        Rule(
            "CONTINUOUS-CONCURRENCY",
            _continuous_concurrency,
            "a continuous job can only have one active run",
            "Remove it.",
            warning=True,
        ),
        Rule("TAGS-COUNT", max_entries("tags", 25)),
        Rule("JOBCLUSTER-KEY-UNIQUE", unique("job_clusters", "job_cluster_key")),
        Rule(
            "JOBCLUSTER-REF",
            known_references("job_clusters", "job_cluster_key"),
            remedy="Correct the key, or add the cluster to job_clusters.",
            complete=True,
        ),
    ),
    "CreateJob": (ONE_OWNER,),
    "JobCluster": (
        Rule(
            "JOBCLUSTER-KEY-FORMAT",
            all_of(required("job_cluster_key"), matches("job_cluster_key", KEY)),
            "a key of 1 to 100 letters, digits, _ and - is required",
            "Set such a key.",
        ),
        Rule(
            "JOBCLUSTER-NO-LIBS",
            absent("libraries"),
            "a shared cluster cannot have libraries",
            "Move them into the tasks.",
        ),
    ),
    "ResetJob": (
        JOB_ID,
        Rule(
            "REQ-RESET-SETTINGS",
            _settings_given,
            "the complete settings of the job are required, as a mapping",
            "Set new_settings, or use jobs/update.",
        ),
    ),
    "UpdateJob": (
        JOB_ID,
        Rule(
            "UPDATE-REMOVE-SYNTAX",
            _removable,
            "only top-level settings, tasks/<task_key> and job_clusters/<job_cluster_key> can be removed",
            "Set the top-level setting in new_settings, without the part to remove.",
        ),
    ),
    "DeleteJob": (JOB_ID,),
    "GetJob": (JOB_ID,),
    "ListJobs": (Rule("LIST-JOBS-LIMIT", in_range("limit", 1, 100), remedy="Use next_page_token to get more."),),
}
