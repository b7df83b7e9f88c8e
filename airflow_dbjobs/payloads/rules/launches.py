"""Rules for both jobs and one-time runs: single-task and multi-task format, timeouts, performance targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_dbjobs.payloads.rules import FROM_2_1, ONLY_2_0, ONLY_2_2, Rule
from airflow_dbjobs.payloads.rules.checks import at_most_one, joined, one_of, when_given
from airflow_dbjobs.payloads.rules.graph import GRAPH_RULES
from airflow_dbjobs.payloads.rules.tasks import ONE_TYPE_REMEDY, TIMEOUT, at_most_one_type, task_types

if TYPE_CHECKING:
    from airflow_dbjobs.payloads.paths import Node
    from airflow_dbjobs.payloads.rules import Faults

TASKS_OF_2_0 = (
    "notebook_task", "spark_jar_task", "spark_python_task", "spark_submit_task", "pipeline_task", "run_job_task",
)  # fmt: skip
NEED_NO_CLUSTER = ("pipeline_task", "run_job_task")
FIELDS_OF_ONE_TASK = (
    "existing_cluster_id", "new_cluster", "libraries", "max_retries", "min_retry_interval_millis", "retry_on_timeout",
)  # fmt: skip
DURATIONS = ("NO_FLEXIBILITY", "4h", "12h", "24h", "72h")


@when_given()
def _one_task(node: Node) -> Faults:
    """Report a payload for API 2.0 without a task, with several, or with a task that needs a newer version."""
    known = [name for name in TASKS_OF_2_0 if node.known(name) not in (None, "")]
    if len(known) > 1:
        yield "", f"has {joined(known)}"
    if all(node.lacks(name) for name in TASKS_OF_2_0):
        newer = ["tasks"] if node.given("tasks") else task_types(node)
        yield "", f"has {joined(newer)}, which need API 2.1 or later" if newer else "has no task"


@when_given()
def _one_compute(node: Node) -> Faults:
    if node.filled("existing_cluster_id") and node.filled("new_cluster"):
        yield "", "has existing_cluster_id and new_cluster"
    elif any(node.given(name) for name in NEED_NO_CLUSTER):
        return
    elif all(node.empty(name) for name in ("existing_cluster_id", "new_cluster")):
        yield "", "has no cluster"


@when_given("tasks")
def _list_or_flat(node: Node) -> Faults:
    flat = [name for name in task_types(node) if node.filled(name)]
    if flat and node.filled("tasks"):
        yield "", f"has tasks and {joined(flat)}"


@when_given("tasks")
def _fields_ignored_with_tasks(node: Node) -> Faults:
    """Report fields of a single task that the API ignores if there is a list of tasks."""
    for name in FIELDS_OF_ONE_TASK if node.filled("tasks") else ():
        if name in node.fields and node.filled(name):
            yield name, "is given together with tasks"


@when_given()
def _something_to_run(node: Node) -> Faults:
    if task_types(node):
        return
    if node.lacks("tasks"):
        yield "", "has no task"
    elif node.given("tasks") and not node.value["tasks"]:
        yield "tasks", "is empty"


@when_given("duration_target")
def _duration(node: Node) -> Faults:
    if node.known("duration_target") is None:
        return
    yield from one_of("duration_target", DURATIONS)(node)
    if node.lacks("performance_target"):
        yield "duration_target", "is given without performance_target"
    elif node.known("performance_target") not in (None, "COST_OPTIMIZED"):
        yield "duration_target", "is given with a different performance_target"


TARGET_RULES = (
    # The API ignores other values.
    Rule(
        "ENUM-PERF-TARGET",
        one_of("performance_target", ("STANDARD", "PERFORMANCE_OPTIMIZED", "COST_OPTIMIZED")),
        versions=ONLY_2_2,
        warning=True,
    ),
    Rule(
        "DURATION-TARGET",
        _duration,
        f"it must be one of {', '.join(DURATIONS)}, with performance_target COST_OPTIMIZED",
        "Correct both, or remove duration_target.",
        versions=ONLY_2_2,
    ),
)

LAUNCH_RULES = (
    Rule(
        "TASK-ONE-2_0",
        _one_task,
        f"API 2.0 requires exactly one of {', '.join(TASKS_OF_2_0)}",
        'Keep only one, or set "api_version" to 2.1 or later in the connection\'s extra.',
        versions=ONLY_2_0,
        complete=True,
    ),
    Rule("TASK-NOTEBOOK-NOT-JAR", at_most_one("notebook_task", "spark_jar_task"), versions=ONLY_2_0),
    Rule(
        "COMPUTE-ONE-2_0",
        _one_compute,
        "exactly one of existing_cluster_id and new_cluster is required, except for pipeline_task and run_job_task",
        "Set one of them.",
        versions=ONLY_2_0,
        complete=True,
    ),
    Rule(
        "TASK-ONE-2_1",
        at_most_one_type,
        "a task must have exactly one type",
        "Keep only one, or use a list of tasks.",
        versions=FROM_2_1,
        complete=True,
    ),
    # The API rejects a one-time run without a task, but some tools create a job first and add its tasks later.
    Rule(
        "TASK-PRESENT-2_1",
        _something_to_run,
        "at least one task is required",
        ONE_TYPE_REMEDY.replace("...", "or a list of tasks."),
        versions=FROM_2_1,
        endpoints=("runs/submit",),
    ),
    Rule(
        "TASK-PRESENT-2_1",
        _something_to_run,
        "a job without a task runs nothing",
        "Add tasks.",
        versions=FROM_2_1,
        endpoints=("create", "reset"),
        warning=True,
    ),
    # Source: other clients; the reference does not mention it.
    Rule(
        "TASK-FLAT-XOR-LIST",
        _list_or_flat,
        "a payload can have a list of tasks or the fields of a single task, not both",
        "Remove one.",
        warning=True,
    ),
    Rule(
        "FIELD-BESIDE-TASKS",
        _fields_ignored_with_tasks,
        "the API ignores it, as each task has its own",
        "Move it into the tasks that need it.",
        warning=True,
    ),
    # Neither is required: a single task can run on serverless compute.
    Rule("COMPUTE-ONE-2_1", at_most_one("existing_cluster_id", "new_cluster"), versions=FROM_2_1),
    TIMEOUT,
    *TARGET_RULES,
    *GRAPH_RULES,
)
