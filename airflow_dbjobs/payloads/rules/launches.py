"""Rules that jobs and one-time runs share: the flat form of API 2.0 beside a list of tasks, timeouts, targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_dbjobs.payloads.rules import FROM_2_1, ONLY_2_0, ONLY_2_2, Rule
from airflow_dbjobs.payloads.rules.forms import at_most_one, in_range, listed, of, one_of
from airflow_dbjobs.payloads.rules.tasks import ONE_TYPE_REMEDY, not_two_types, task_types

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_dbjobs.payloads.paths import Node
    from airflow_dbjobs.payloads.rules import Fault

MAX_ID = 2**63 - 1
TASKS_OF_2_0 = (
    "notebook_task",
    "spark_jar_task",
    "spark_python_task",
    "spark_submit_task",
    "pipeline_task",
    "run_job_task",
)
NEED_NO_CLUSTER = ("pipeline_task", "run_job_task")
RETRIES = ("max_retries", "min_retry_interval_millis", "retry_on_timeout")
OF_ONE_TASK = ("existing_cluster_id", "new_cluster", "libraries", *RETRIES)
TARGETS = ("STANDARD", "PERFORMANCE_OPTIMIZED", "COST_OPTIMIZED")
DURATIONS = ("NO_FLEXIBILITY", "4h", "12h", "24h", "72h")


def _one_task(node: Node) -> Iterator[Fault]:
    """Find a payload of API 2.0 that runs nothing, or two things, or what that version does not know."""
    known = [name for name in TASKS_OF_2_0 if node.known(name) not in (None, "")]
    if len(known) > 1:
        yield "", f"has {listed(known)}"
    if all(node.lacks(name) for name in TASKS_OF_2_0):
        newer = ["tasks"] if node.given("tasks") else task_types(node)
        yield "", f"has {listed(newer)}, which need API 2.1 or later" if newer else "does not say what to run"


def _notebook_and_jar(node: Node) -> Iterator[Fault]:
    if node.filled("notebook_task") and node.filled("spark_jar_task"):
        yield "", "has notebook_task and spark_jar_task"


def _one_compute(node: Node) -> Iterator[Fault]:
    if node.filled("existing_cluster_id") and node.filled("new_cluster"):
        yield "", "has existing_cluster_id and new_cluster"
    elif any(node.given(name) for name in NEED_NO_CLUSTER):
        return
    elif all(node.empty(name) for name in ("existing_cluster_id", "new_cluster")):
        yield "", "has no cluster"


def _list_or_flat(node: Node) -> Iterator[Fault]:
    flat = [name for name in task_types(node) if node.filled(name)]
    if flat and node.filled("tasks"):
        yield "", f"has tasks and {listed(flat)}"


def _beside_tasks(node: Node) -> Iterator[Fault]:
    """Find what belongs to one task, and is lost beside a list of tasks."""
    for name in OF_ONE_TASK if node.filled("tasks") else ():
        if name in node.fields and node.filled(name):
            yield name, "is given beside tasks"


def _something_to_run(node: Node) -> Iterator[Fault]:
    if task_types(node):
        return
    if node.lacks("tasks"):
        yield "", "does not say what to run"
    elif node.given("tasks") and not node.value["tasks"]:
        yield "tasks", "is empty"


def _duration(node: Node) -> Iterator[Fault]:
    target = node.known("duration_target")
    if target is None:
        return
    yield from one_of("duration_target", DURATIONS)(node)
    if node.lacks("performance_target"):
        yield "duration_target", "is given without performance_target"
    elif node.known("performance_target") not in (None, "COST_OPTIMIZED"):
        yield "duration_target", "is given with another performance_target"


TARGET_RULES = (
    Rule(
        "ENUM-PERF-TARGET",
        one_of("performance_target", TARGETS),
        f"it must be one of {', '.join(TARGETS)}; the API drops other words",
        "Give one of these.",
        versions=ONLY_2_2,
        warning=True,
    ),
    Rule(
        "DURATION-TARGET",
        _duration,
        f"it must be one of {', '.join(DURATIONS)}, with performance_target COST_OPTIMIZED",
        "Correct the two, or leave duration_target out.",
        versions=ONLY_2_2,
    ),
)

SETTINGS_RULES = (
    Rule("RANGE-TIMEOUT", in_range("timeout_seconds", 0), "0 or more is allowed", "0 is no timeout."),
    *TARGET_RULES,
)

FLAT_RULES = (
    Rule(
        "TASK-ONE-2_0",
        _one_task,
        f"in API 2.0 it must have exactly one of {', '.join(TASKS_OF_2_0)}",
        'Give one of these alone, or set "api_version" in the connection\'s extra.',
        versions=ONLY_2_0,
        unless=("update",),
    ),
    Rule(
        "TASK-NOTEBOOK-NOT-JAR",
        _notebook_and_jar,
        "these two exclude each other",
        "Leave one out.",
        versions=ONLY_2_0,
    ),
    Rule(
        "COMPUTE-ONE-2_0",
        _one_compute,
        "exactly one of existing_cluster_id and new_cluster is required, none for pipelines and other jobs",
        "Give one of them, and leave the other out.",
        versions=ONLY_2_0,
        unless=("update",),
    ),
    Rule(
        "TASK-ONE-2_1",
        not_two_types,
        "a task must have exactly one type",
        "Leave one out, or make a list of tasks.",
        versions=FROM_2_1,
        unless=("update",),
    ),
    # A one-time run that runs nothing is refused; jobs without tasks are made by tools that add them later.
    Rule(
        "TASK-PRESENT-2_1",
        _something_to_run,
        "at least one task is needed",
        ONE_TYPE_REMEDY.replace("...", "or a list of tasks as tasks."),
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
    # Known from other clients only, not from the reference.
    Rule(
        "TASK-FLAT-XOR-LIST",
        _list_or_flat,
        "a payload has a list of tasks or one task's fields, not both",
        "Leave one out.",
        versions=FROM_2_1,
        warning=True,
    ),
    Rule(
        "FIELD-BESIDE-TASKS",
        of("tasks", _beside_tasks),
        "each task has its own, and the API ignores this one",
        "Move it into the tasks that need it.",
        versions=FROM_2_1,
        warning=True,
    ),
    # Without either a single task may be serverless.
    Rule(
        "COMPUTE-ONE-2_1",
        at_most_one("existing_cluster_id", "new_cluster"),
        "at most one of existing_cluster_id, new_cluster is allowed",
        "Leave one out.",
        versions=FROM_2_1,
    ),
)
