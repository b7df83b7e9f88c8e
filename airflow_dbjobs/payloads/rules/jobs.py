"""Rules for jobs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from airflow_dbjobs.payloads.field_types import type_of
from airflow_dbjobs.payloads.rules import FROM_2_1, ONLY_2_0, ONLY_2_2, Rule
from airflow_dbjobs.payloads.rules.access import ONE_OWNER
from airflow_dbjobs.payloads.rules.checks import (
    absent,
    all_of,
    at_most_one,
    in_range,
    matches,
    max_entries,
    max_length,
    one_of,
    positive_id,
    present,
    quoted,
    required,
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
        yield "triggers", f"is given together with {' and '.join(others)}"


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
            yield f"fields_to_remove[{index}]", f"is {quoted(name)}"


def _set_and_removed(node: Node) -> Iterator[Fault]:
    settings = node.mapping("new_settings")
    both = [name for name in node.items("fields_to_remove") if isinstance(name, str) and name in settings]
    if both:
        yield "", f"sets and removes {both[0]}"


JOB_ID = (
    Rule(
        "REQ-JOB-ID",
        all_of(present("job_id"), positive_id("job_id")),
        "it is required, and must be a positive integer",
        "Set the id of the job.",
    ),
    Rule("REQ-ID-64BIT", in_range("job_id", None, MAX_ID), "an id must fit in 64 bits", "Correct the id."),
)

RULES = {
    "JobSettings": (
        *FLAT_RULES,
        *SETTINGS_RULES,
        *GRAPH_RULES,
        Rule(
            "NAME-JOB",
            max_length("name", 4096, in_bytes=True),
            "at most 4096 bytes are allowed",
            "Shorten it.",
            versions=FROM_2_1,
        ),
        Rule(
            "NAME-JOB-2_0",
            max_length("name", 4096, in_bytes=True),
            "at most 4096 bytes are allowed",
            "Shorten it.",
            versions=ONLY_2_0,
            warning=True,
        ),
        Rule(
            "DESC-JOB",
            max_length("description", 27_700),
            "at most 27,700 characters are allowed",
            "Shorten it.",
            versions=FROM_2_1,
        ),
        Rule(
            "PARAM-NAME-UNIQUE",
            unique("parameters", "name"),
            "each parameter must have a unique name",
            "Remove or rename one.",
            versions=FROM_2_1,
            warning=True,
        ),
        Rule(
            "RANGE-MAX-CONCURRENT",
            in_range("max_concurrent_runs", 0, 1000),
            "0 to 1000 are allowed",
            "Use a number in this range; 0 skips all runs.",
        ),
        Rule(
            "RANGE-MAX-RETRIES", in_range("max_retries", -1), "-1 or more is allowed", "Use -1 for unlimited retries."
        ),
        Rule(
            "RANGE-RETRY-INTERVAL",
            in_range("min_retry_interval_millis", 0),
            "0 or more is allowed",
            "Use 0 to retry immediately.",
            warning=True,
        ),
        Rule(
            "TRIGGER-EXCLUSIVE",
            at_most_one("schedule", "continuous", "trigger"),
            "they are mutually exclusive",
            "Keep only one.",
            versions=FROM_2_1,
        ),
        Rule(
            "TRIGGERS-EXCLUSIVE",
            _triggers_alone,
            "triggers replaces schedule, continuous and trigger",
            "Move them into triggers.",
            versions=ONLY_2_2,
        ),
        Rule(
            "CONTINUOUS-CONCURRENCY",
            _continuous_concurrency,
            "a continuous job can only have one active run",
            "Remove it.",
            versions=FROM_2_1,
            warning=True,
        ),
        Rule(
            "FORMAT-READONLY",
            one_of("format", ("SINGLE_TASK", "MULTI_TASK")),
            "it must be SINGLE_TASK or MULTI_TASK; the API ignores it in requests",
            "Remove it.",
            versions=FROM_2_1,
            warning=True,
        ),
        Rule(
            "TAGS-COUNT",
            max_entries("tags", 25),
            "at most 25 entries are allowed",
            "Remove some tags.",
            versions=FROM_2_1,
        ),
        *tag_rules("tags"),
        Rule(
            "JOBCLUSTERS-COUNT",
            max_entries("job_clusters", 100),
            "at most 100 entries are allowed",
            "Let more tasks share a cluster.",
            versions=FROM_2_1,
            # Source: clients generated from the OpenAPI document of 2.1.
            warning=True,
        ),
        Rule(
            "JOBCLUSTER-KEY-UNIQUE",
            unique("job_clusters", "job_cluster_key"),
            "each key must be unique",
            "Rename one.",
            versions=FROM_2_1,
        ),
        Rule(
            "JOBCLUSTER-REF",
            _known_clusters,
            "it must be the job_cluster_key of one of the job_clusters",
            "Correct the key, or add the cluster to job_clusters.",
            versions=FROM_2_1,
            unless=("update",),
        ),
    ),
    "CreateJob": (ONE_OWNER,),
    "JobCluster": (
        Rule(
            "JOBCLUSTER-KEY-FORMAT",
            required("job_cluster_key"),
            "it is required",
            "Set a key for the cluster.",
            versions=FROM_2_1,
        ),
        Rule(
            "JOBCLUSTER-KEY-FORMAT",
            matches("job_cluster_key", KEY),
            "a job_cluster_key must have 1 to 100 letters, digits, _ and -",
            "Use another name.",
            versions=FROM_2_1,
        ),
        Rule(
            "JOBCLUSTER-NO-LIBS",
            absent("libraries"),
            "a shared cluster cannot have libraries",
            "Move them into the tasks.",
            versions=FROM_2_1,
        ),
    ),
    "ResetJob": (
        *JOB_ID,
        Rule(
            "REQ-RESET-SETTINGS",
            _settings_given,
            "the complete settings of the job are required, as a mapping",
            "Set new_settings, or use jobs/update.",
        ),
    ),
    "UpdateJob": (
        *JOB_ID,
        Rule(
            "REQ-UPDATE-NOOP",
            _no_change,
            "an update must have new_settings or fields_to_remove",
            "Set one of them.",
            warning=True,
        ),
        Rule(
            "UPDATE-REMOVE-SYNTAX",
            _removable,
            "only top-level settings, tasks/<task_key> and job_clusters/<job_cluster_key> can be removed",
            "Set the top-level setting in new_settings, without the part to remove.",
        ),
        Rule(
            "UPDATE-REMOVE-OVERLAP",
            _set_and_removed,
            "an update can set or remove a setting, not both",
            "Remove one.",
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
            "Use next_page_token to get more.",
            versions=FROM_2_1,
        ),
        Rule(
            "LIST-JOBS-2_0",
            absent("limit", "offset", "page_token"),
            "API 2.0 lists all jobs at once",
            "Remove it.",
            versions=ONLY_2_0,
            warning=True,
        ),
        Rule(
            "LIST-OFFSET-DEPRECATED",
            absent("offset"),
            "the API deprecated it in June 2023",
            "Use next_page_token.",
            versions=FROM_2_1,
            warning=True,
        ),
    ),
}
