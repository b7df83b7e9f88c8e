"""Rules of jobs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from airflow_dbjobs.payloads.field_types import type_of
from airflow_dbjobs.payloads.rules import FROM_2_1, ONLY_2_0, ONLY_2_2, Rule
from airflow_dbjobs.payloads.rules.access import ONE_OWNER
from airflow_dbjobs.payloads.rules.forms import (
    absent,
    any_of,
    at_most_one,
    in_range,
    longest,
    matches,
    most,
    one_of,
    positive_id,
    present,
    shown,
    some,
    unique,
)
from airflow_dbjobs.payloads.rules.graph import GRAPH_RULES, is_decidable, unknown_references
from airflow_dbjobs.payloads.rules.launches import FLAT_RULES, MAX_ID, SETTINGS_RULES
from airflow_dbjobs.payloads.rules.tags import tag_rules
from airflow_dbjobs.payloads.rules.tasks import KEY
from airflow_dbjobs.payloads.templates import is_templated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_dbjobs.payloads.paths import Node
    from airflow_dbjobs.payloads.rules import Fault

_REMOVABLE = re.compile(r"\w+|(tasks|job_clusters)/[^/]+")


def _triggers_alone(node: Node) -> Iterator[Fault]:
    others = [name for name in ("schedule", "continuous", "trigger") if node.filled(name)]
    if node.filled("triggers") and others:
        yield "triggers", f"is given beside {' and '.join(others)}"


def _known_clusters(node: Node) -> Iterator[Fault]:
    if not is_decidable(node, "job_clusters"):
        return
    clusters = [cluster.get("job_cluster_key") for _, cluster in node.elements("job_clusters")]
    if any(is_templated(key) for key in clusters):
        return
    yield from unknown_references(node, "job_cluster_key", clusters)


def _continuous_concurrency(node: Node) -> Iterator[Fault]:
    runs = node.number("max_concurrent_runs")
    if node.filled("continuous") and runs is not None and runs != 1:
        yield "max_concurrent_runs", f"is {runs}"


def _settings_given(node: Node) -> Iterator[Fault]:
    value = node.value.get("new_settings")
    if node.lacks("new_settings"):
        yield "new_settings", "is missing"
    elif not isinstance(value, dict) and not is_templated(value):
        yield "new_settings", type_of(value)


def _no_change(node: Node) -> Iterator[Fault]:
    if node.lacks("new_settings") and node.lacks("fields_to_remove"):
        yield "", "changes nothing"


def _removable(node: Node) -> Iterator[Fault]:
    for index, name in enumerate(node.items("fields_to_remove")):
        if isinstance(name, str) and not is_templated(name) and not _REMOVABLE.fullmatch(name):
            yield f"fields_to_remove[{index}]", f"is {shown(name)}"


def _set_and_removed(node: Node) -> Iterator[Fault]:
    settings = node.mapping("new_settings")
    both = [name for name in node.items("fields_to_remove") if isinstance(name, str) and name in settings]
    if both:
        yield "", f"sets and removes {both[0]}"


JOB_ID = (
    Rule(
        "REQ-JOB-ID",
        any_of(some("job_id"), positive_id("job_id")),
        "it is required, an integer above 0",
        "Give the job's id.",
    ),
    Rule("REQ-ID-64BIT", in_range("job_id", None, MAX_ID), "ids have at most 64 bits", "Check the id."),
)

RULES = {
    "JobSettings": (
        *FLAT_RULES,
        *SETTINGS_RULES,
        *GRAPH_RULES,
        Rule(
            "NAME-JOB",
            longest("name", 4096, in_bytes=True),
            "at most 4096 are allowed",
            "Shorten it.",
            versions=FROM_2_1,
        ),
        Rule(
            "NAME-JOB-2_0",
            longest("name", 4096, in_bytes=True),
            "at most 4096 are allowed",
            "Shorten it.",
            versions=ONLY_2_0,
            warning=True,
        ),
        Rule(
            "DESC-JOB", longest("description", 27_700), "at most 27,700 are allowed", "Shorten it.", versions=FROM_2_1
        ),
        Rule(
            "PARAM-NAME-UNIQUE",
            unique("parameters", "name"),
            "a job can have one parameter of a name",
            "Leave one out.",
            versions=FROM_2_1,
            warning=True,
        ),
        Rule(
            "RANGE-MAX-CONCURRENT",
            in_range("max_concurrent_runs", 0, 1000),
            "0 to 1000 are allowed",
            "Give a number in between; 0 skips every run.",
        ),
        Rule("RANGE-MAX-RETRIES", in_range("max_retries", -1), "-1 or more is allowed", "-1 retries for ever."),
        Rule(
            "RANGE-RETRY-INTERVAL",
            in_range("min_retry_interval_millis", 0),
            "0 or more is allowed",
            "0 retries at once.",
            warning=True,
        ),
        Rule(
            "TRIGGER-EXCLUSIVE",
            at_most_one("schedule", "continuous", "trigger"),
            "these exclude each other",
            "Leave all but one out.",
            versions=FROM_2_1,
        ),
        Rule(
            "TRIGGERS-EXCLUSIVE",
            _triggers_alone,
            "the list takes the place of those",
            "Move them into triggers.",
            versions=ONLY_2_2,
        ),
        Rule(
            "CONTINUOUS-CONCURRENCY",
            _continuous_concurrency,
            "a continuous job can have one run at a time only",
            "Leave it out.",
            versions=FROM_2_1,
            warning=True,
        ),
        Rule(
            "FORMAT-READONLY",
            one_of("format", ("SINGLE_TASK", "MULTI_TASK")),
            "it must be SINGLE_TASK or MULTI_TASK, and is ignored in requests",
            "Leave it out.",
            versions=FROM_2_1,
            warning=True,
        ),
        Rule("TAGS-COUNT", most("tags", 25), "at most 25 are allowed", "Leave some tags out.", versions=FROM_2_1),
        *tag_rules("tags"),
        Rule(
            "JOBCLUSTERS-COUNT",
            most("job_clusters", 100),
            "at most 100 are allowed",
            "Let tasks share clusters.",
            versions=FROM_2_1,
            # Known from clients that were generated from the 2.1 document.
            warning=True,
        ),
        Rule(
            "JOBCLUSTER-KEY-UNIQUE",
            unique("job_clusters", "job_cluster_key"),
            "a job can have one cluster of a name",
            "Rename one.",
            versions=FROM_2_1,
        ),
        Rule(
            "JOBCLUSTER-REF",
            _known_clusters,
            "it must name one of the job_clusters",
            "Correct the name, or add the cluster to job_clusters.",
            versions=FROM_2_1,
            unless=("update",),
        ),
    ),
    "CreateJob": (ONE_OWNER,),
    "JobCluster": (
        Rule(
            "JOBCLUSTER-KEY-FORMAT",
            present("job_cluster_key"),
            "it is required",
            "Name the cluster.",
            versions=FROM_2_1,
        ),
        Rule(
            "JOBCLUSTER-KEY-FORMAT",
            matches("job_cluster_key", KEY),
            "a job_cluster_key must have 1 to 100 letters, digits, _ and -",
            "Choose another name.",
            versions=FROM_2_1,
        ),
        Rule(
            "JOBCLUSTER-NO-LIBS",
            absent("libraries"),
            "libraries belong to tasks, and a shared cluster can have none",
            "Move them to the tasks.",
            versions=FROM_2_1,
        ),
    ),
    "ResetJob": (
        *JOB_ID,
        Rule(
            "REQ-RESET-SETTINGS",
            _settings_given,
            "the job's settings are required, as a mapping, in whole",
            "Give new_settings, or use jobs/update.",
        ),
    ),
    "UpdateJob": (
        *JOB_ID,
        Rule(
            "REQ-UPDATE-NOOP",
            _no_change,
            "new_settings or fields_to_remove say what changes",
            "Give one of them.",
            warning=True,
        ),
        Rule(
            "UPDATE-REMOVE-SYNTAX",
            _removable,
            "what is removed must be a setting at the top level, tasks/<task_key> or job_clusters/<job_cluster_key>",
            "Remove the whole setting, and set the rest of it anew.",
        ),
        Rule(
            "UPDATE-REMOVE-OVERLAP",
            _set_and_removed,
            "a setting can be set or removed, not both",
            "Leave one out.",
            warning=True,
        ),
    ),
    "DeleteJob": JOB_ID,
    "GetJob": JOB_ID,
    "ListJobs": (
        Rule(
            "LIST-JOBS-LIMIT",
            in_range("limit", 1, 100),
            "1 to 100 are allowed",
            "Follow next_page_token for more.",
            versions=FROM_2_1,
        ),
        Rule(
            "LIST-JOBS-2_0",
            absent("limit", "offset", "page_token"),
            "API 2.0 lists all jobs at once",
            "Leave it out.",
            versions=ONLY_2_0,
            warning=True,
        ),
        Rule(
            "LIST-OFFSET-DEPRECATED",
            absent("offset"),
            "it is deprecated since June 2023",
            "Follow next_page_token.",
            versions=FROM_2_1,
            warning=True,
        ),
    ),
}
