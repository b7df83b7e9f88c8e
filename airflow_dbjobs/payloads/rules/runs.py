"""Rules for runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_dbjobs.payloads.rules import FROM_2_1, ONLY_2_0, Rule
from airflow_dbjobs.payloads.rules.access import ONE_OWNER
from airflow_dbjobs.payloads.rules.checks import (
    absent,
    all_of,
    in_range,
    max_length,
    one_of,
    positive_id,
    present,
    quoted,
    when_given,
)
from airflow_dbjobs.payloads.rules.launches import LAUNCH_RULES, TARGET_RULES
from airflow_dbjobs.payloads.rules.parameters import JOB_PARAMETERS
from airflow_dbjobs.payloads.rules.tasks import task_types
from airflow_dbjobs.payloads.templates import is_templated
from airflow_dbjobs.payloads.types.enums import RunType, ViewsToExport

if TYPE_CHECKING:
    from airflow_dbjobs.payloads.paths import Node
    from airflow_dbjobs.payloads.rules import Faults


@when_given()
def _one_job_reference(node: Node) -> Faults:
    if node.given("job_id") and node.filled("job_name"):
        yield "job_id", "is given together with job_name"
    if node.lacks("job_id") and node.empty("job_name"):
        yield "job_id", "is missing"


@when_given("idempotency_token")
def _empty_token(node: Node) -> Faults:
    if node.value["idempotency_token"] == "":
        yield "idempotency_token", "is empty"


@when_given("run_name")
def _name_becomes_key(node: Node) -> Faults:
    if task_types(node):
        yield from max_length("run_name", 100)(node)


@when_given("dbt_task")
def _dbt_without_git(node: Node) -> Faults:
    if node.given("dbt_task") and node.lacks("git_source"):
        yield "dbt_task", "is given without git_source"


@when_given()
def _cancel_target(node: Node) -> Faults:
    all_queued = node.body.version != "2.0" and str(node.value.get("all_queued_runs", False)).lower() != "false"
    if node.lacks("job_id") and not all_queued:
        yield "", "has no job_id"


@when_given()
def _one_selector(node: Node) -> Faults:
    failed = node.value.get("rerun_all_failed_tasks")
    if is_templated(failed):
        return
    all_failed = str(failed).lower() == "true"
    if all_failed and node.filled("rerun_tasks"):
        yield "", "has rerun_tasks and rerun_all_failed_tasks"
    elif not all_failed and not node.value.get("rerun_tasks"):
        yield "", "has no tasks to rerun"


@when_given("rerun_tasks")
def _no_duplicates(node: Node) -> Faults:
    keys = node.items("rerun_tasks")
    for index, key in enumerate(keys):
        if isinstance(key, str) and not is_templated(key) and key in keys[:index]:
            yield f"rerun_tasks[{index}]", f"repeats {quoted(key)}"


@when_given("active_only")
def _active_or_completed(node: Node) -> Faults:
    if all(str(node.known(name)).lower() == "true" for name in ("active_only", "completed_only")):
        yield "", "has active_only and completed_only"


@when_given("offset")
def _offset(node: Node) -> Faults:
    yield from in_range("offset", 0)(node)
    if node.filled("offset") and node.filled("page_token"):
        yield "offset", "is given together with page_token"


def _token(rule: str) -> tuple[Rule, ...]:
    nothing = "an empty token does not prevent duplicate runs"
    length = max_length("idempotency_token", 64)
    return (
        Rule(rule, length, remedy="Remove it: the operator generates a token."),
        Rule("TOKEN-NONEMPTY", _empty_token, nothing, "Remove it.", warning=True),
    )


_RUN_ID = all_of(present("run_id"), positive_id("run_id"))
RUN_ID = (Rule("REQ-RUN-ID", _RUN_ID, remedy="Set the id of the run."),)
ANY_JOB_ID = Rule("REQ-JOB-ID", positive_id("job_id"), remedy="Set the id of the job.")

RULES = {
    "SubmitRun": (
        *LAUNCH_RULES,
        *_token("TOKEN-SUBMIT-LENGTH"),
        ONE_OWNER,
        Rule("NAME-RUN", max_length("run_name", 4096, in_bytes=True)),
        Rule(
            "RUNNAME-AS-TASKKEY",
            _name_becomes_key,
            "it becomes the task_key, which the API cuts to 100 characters",
            "Shorten it, or use a list of tasks.",
            versions=FROM_2_1,
            warning=True,
        ),
        Rule(
            "JOBCLUSTER-NOT-ON-SUBMIT",
            absent("job_clusters"),
            "a one-time run cannot have shared clusters",
            "Set new_cluster in each task.",
            versions=FROM_2_1,
        ),
        Rule(
            "DBT-FLAT-GIT",
            _dbt_without_git,
            "a single dbt task requires git_source",
            "Set git_source, or use a list of tasks.",
            warning=True,
        ),
    ),
    "RunNow": (
        Rule(
            "REQ-JOB-ID",
            _one_job_reference,
            "exactly one of job_id and job_name is required",
            "Set one of the two.",
        ),
        Rule("REQ-JOB-ID", positive_id("job_id"), remedy="Set the id of the job, or use job_name.", at_run=True),
        *_token("TOKEN-RUNNOW-LENGTH"),
        *JOB_PARAMETERS,
        *TARGET_RULES,
    ),
    "RepairRun": (
        Rule("REQ-REPAIR-RUN-ID", _RUN_ID, remedy="Set the id of the run.", versions=FROM_2_1),
        Rule(
            "REPAIR-SELECTOR",
            _one_selector,
            "exactly one of rerun_tasks and rerun_all_failed_tasks is required",
            "Set one of the two.",
            versions=FROM_2_1,
        ),
        Rule(
            "REPAIR-NO-DUPES",
            _no_duplicates,
            "each task must be listed once",
            "Remove the duplicate; a run lists a task once for each attempt.",
            warning=True,
        ),
        *JOB_PARAMETERS,
        *TARGET_RULES,
    ),
    "CancelRun": RUN_ID,
    "DeleteRun": RUN_ID,
    "GetRun": RUN_ID,
    "GetRunOutput": RUN_ID,
    "ExportRun": (*RUN_ID, Rule("EXPORT-VIEWS", one_of("views_to_export", ViewsToExport))),
    "CancelAllRuns": (
        ANY_JOB_ID,
        Rule(
            "REQ-CANCEL-ALL-TARGET",
            _cancel_target,
            "job_id is required, or all_queued_runs: true from API 2.1",
            "Set the id of the job.",
        ),
    ),
    "ListRuns": (
        ANY_JOB_ID,
        Rule(
            "LIST-RUNS-LIMIT-2_0",
            in_range("limit", 0, 999),
            "0 to 999 are allowed; 0 means the maximum",
            "Use offset to get the next page.",
            versions=ONLY_2_0,
        ),
        Rule(
            "LIST-RUNS-LIMIT-2_1",
            in_range("limit", 0, 25),
            "0 to 25 are allowed; 0 means the maximum",
            "Use next_page_token.",
            versions=FROM_2_1,
        ),
        Rule("LIST-RUNS-ACTIVE-XOR", _active_or_completed, "the two are mutually exclusive", "Remove one."),
        Rule("LIST-RUNS-TYPE", one_of("run_type", RunType)),
        Rule("LIST-OFFSET", _offset, "0 or more is allowed, and not together with page_token", "Correct or remove it."),
    ),
}
