"""Rules of runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_dbjobs.payloads.rules import FROM_2_1, ONLY_2_0, Rule
from airflow_dbjobs.payloads.rules.access import ONE_OWNER
from airflow_dbjobs.payloads.rules.forms import absent, any_of, in_range, longest, one_of, positive_id, shown, some
from airflow_dbjobs.payloads.rules.graph import GRAPH_RULES
from airflow_dbjobs.payloads.rules.launches import FLAT_RULES, MAX_ID, SETTINGS_RULES, TARGET_RULES
from airflow_dbjobs.payloads.rules.parameters import JOB_PARAMETERS
from airflow_dbjobs.payloads.rules.tasks import task_types
from airflow_dbjobs.payloads.templates import is_templated
from airflow_dbjobs.payloads.types.enums import RunType, ViewsToExport

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_dbjobs.payloads.paths import Node
    from airflow_dbjobs.payloads.rules import Fault


def _names_one_job(node: Node) -> Iterator[Fault]:
    if node.given("job_id") and node.filled("job_name"):
        yield "job_id", "is given beside job_name"
    if node.lacks("job_id") and node.empty("job_name"):
        yield "job_id", "is missing"


def _token(rule: str) -> tuple[Rule, ...]:
    return (
        Rule(
            rule,
            longest("idempotency_token", 64),
            "at most 64 are allowed",
            "Leave it out: the operator makes one.",
        ),
        Rule(
            "TOKEN-NONEMPTY",
            _empty_token,
            "an empty token protects from nothing",
            "Leave it out.",
            warning=True,
        ),
    )


def _empty_token(node: Node) -> Iterator[Fault]:
    if node.value.get("idempotency_token") == "":
        yield "idempotency_token", "is empty"


def _name_becomes_key(node: Node) -> Iterator[Fault]:
    if task_types(node):
        yield from longest("run_name", 100)(node)


def _dbt_without_git(node: Node) -> Iterator[Fault]:
    if node.given("dbt_task") and node.lacks("git_source"):
        yield "dbt_task", "is given without git_source"


def _says_what_to_cancel(node: Node) -> Iterator[Fault]:
    all_queued = node.body.version != "2.0" and str(node.value.get("all_queued_runs", False)).lower() != "false"
    if node.lacks("job_id") and not all_queued:
        yield "", "has no job_id"


def _one_selector(node: Node) -> Iterator[Fault]:
    failed = node.value.get("rerun_all_failed_tasks")
    if is_templated(failed):
        return
    all_failed = str(failed).lower() == "true"
    if all_failed and node.filled("rerun_tasks"):
        yield "", "has rerun_tasks and rerun_all_failed_tasks"
    elif not all_failed and not node.value.get("rerun_tasks"):
        yield "", "does not say what to run again"


def _no_duplicates(node: Node) -> Iterator[Fault]:
    seen: set[object] = set()
    for index, key in enumerate(node.items("rerun_tasks")):
        if isinstance(key, str) and not is_templated(key):
            if key in seen:
                yield f"rerun_tasks[{index}]", f"is {shown(key)} again"
            seen.add(key)


def _active_or_completed(node: Node) -> Iterator[Fault]:
    if all(str(node.known(name)).lower() == "true" for name in ("active_only", "completed_only")):
        yield "", "has active_only and completed_only"


def _offset(node: Node) -> Iterator[Fault]:
    yield from in_range("offset", 0)(node)
    if node.filled("offset") and node.filled("page_token"):
        yield "offset", "is given beside page_token"


def _times(node: Node) -> Iterator[Fault]:
    first, last = node.number("start_time_from"), node.number("start_time_to")
    if first is not None and last is not None and first > last:
        yield "", "start_time_from lies after start_time_to"


RUN_ID = (
    Rule(
        "REQ-RUN-ID",
        any_of(some("run_id"), positive_id("run_id")),
        "it is required, an integer above 0",
        "Give the run's id.",
    ),
    Rule("REQ-ID-64BIT", in_range("run_id", None, MAX_ID), "ids have at most 64 bits", "Check the id."),
)
JOB_IN_RANGE = Rule("REQ-ID-64BIT", in_range("job_id", None, MAX_ID), "ids have at most 64 bits", "Check the id.")

RULES = {
    "SubmitRun": (
        *FLAT_RULES,
        *SETTINGS_RULES,
        *GRAPH_RULES,
        *_token("TOKEN-SUBMIT-LENGTH"),
        ONE_OWNER,
        Rule("NAME-RUN", longest("run_name", 4096, in_bytes=True), "at most 4096 are allowed", "Shorten it."),
        Rule(
            "RUNNAME-AS-TASKKEY",
            _name_becomes_key,
            "the name becomes the task's key, of which the API keeps 100 characters",
            "Shorten it, or give a list of tasks.",
            versions=FROM_2_1,
            warning=True,
        ),
        Rule(
            "JOBCLUSTER-NOT-ON-SUBMIT",
            absent("job_clusters"),
            "a one-time run can have no shared clusters",
            "Give each task a new_cluster of its own.",
            versions=FROM_2_1,
        ),
        Rule(
            "DBT-FLAT-GIT",
            _dbt_without_git,
            "such a task takes its project from a repository",
            "Give git_source, or a list of tasks.",
            versions=FROM_2_1,
            warning=True,
        ),
    ),
    "RunNow": (
        Rule(
            "REQ-JOB-ID",
            _names_one_job,
            "a job must be named by its job_id or by its job_name",
            "Give one of the two alone.",
        ),
        Rule(
            "REQ-JOB-ID",
            positive_id("job_id"),
            "it must be an integer above 0",
            "Give the job's id, or its job_name.",
            at_run=True,
        ),
        JOB_IN_RANGE,
        *_token("TOKEN-RUNNOW-LENGTH"),
        *JOB_PARAMETERS,
        *TARGET_RULES,
    ),
    "RepairRun": (
        Rule(
            "REQ-REPAIR-RUN-ID",
            any_of(some("run_id"), positive_id("run_id")),
            "it is required, an integer above 0",
            "Give the run's id.",
            versions=FROM_2_1,
        ),
        RUN_ID[1],
        Rule(
            "REPAIR-SELECTOR",
            _one_selector,
            "exactly one of rerun_tasks and rerun_all_failed_tasks is required",
            "Give one, and leave the other out.",
            versions=FROM_2_1,
        ),
        Rule(
            "REPAIR-NO-DUPES",
            _no_duplicates,
            "each task must be named once",
            "Leave it out; a run lists a task once for each attempt.",
            versions=FROM_2_1,
            warning=True,
        ),
        *JOB_PARAMETERS,
        *TARGET_RULES,
    ),
    "CancelRun": RUN_ID,
    "DeleteRun": RUN_ID,
    "GetRun": RUN_ID,
    "GetRunOutput": RUN_ID,
    "ExportRun": (
        *RUN_ID,
        Rule(
            "EXPORT-VIEWS",
            one_of("views_to_export", ViewsToExport),
            f"it must be one of {', '.join(ViewsToExport)}",
            "Give one of these.",
        ),
    ),
    "CancelAllRuns": (
        JOB_IN_RANGE,
        Rule(
            "REQ-CANCEL-ALL-TARGET",
            _says_what_to_cancel,
            "job_id is required, or from API 2.1 on all_queued_runs as true",
            "Give the job's id.",
        ),
    ),
    "ListRuns": (
        JOB_IN_RANGE,
        Rule(
            "LIST-RUNS-LIMIT-2_0",
            in_range("limit", 0, 999),
            "0 to 999 are allowed; 0 is the most",
            "Ask for the next page by offset.",
            versions=ONLY_2_0,
        ),
        Rule(
            "LIST-RUNS-LIMIT-2_1",
            in_range("limit", 0, 25),
            "0 to 25 are allowed; 0 is the most",
            "Follow next_page_token.",
            versions=FROM_2_1,
        ),
        Rule(
            "LIST-RUNS-ACTIVE-XOR",
            _active_or_completed,
            "these two exclude each other",
            "Leave one out.",
        ),
        Rule(
            "LIST-RUNS-TYPE",
            one_of("run_type", RunType),
            f"it must be one of {', '.join(RunType)}",
            "Give one of these.",
        ),
        Rule(
            "LIST-RUNS-TIME",
            _times,
            "the first of the two must be the earlier",
            "Swap them.",
            versions=FROM_2_1,
            warning=True,
        ),
        Rule(
            "LIST-OFFSET", _offset, "0 or more is allowed, without a page_token beside it", "Correct or leave it out."
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
