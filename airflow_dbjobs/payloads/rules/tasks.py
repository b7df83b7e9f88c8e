"""Rules for a single task: its type and its compute."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_dbjobs.payloads.rules import FROM_2_1, Rule
from airflow_dbjobs.payloads.rules.checks import (
    absent,
    at_most_one,
    in_range,
    joined,
    matches,
    one_of,
    required,
    when_given,
)
from airflow_dbjobs.payloads.schema import fields_of
from airflow_dbjobs.payloads.suggestions import CERTAIN, near_miss
from airflow_dbjobs.payloads.types.enums import RunIf

if TYPE_CHECKING:
    from airflow_dbjobs.payloads.paths import Node
    from airflow_dbjobs.payloads.rules import Faults

COMPUTE = ("existing_cluster_id", "new_cluster", "job_cluster_key")
# All other types have their own compute, need none, or can run on serverless compute.
NEED_A_CLUSTER = ("spark_jar_task", "spark_submit_task")
# These need an environment_key on serverless compute.
NEED_AN_ENVIRONMENT = ("spark_python_task", "python_wheel_task", "dbt_task")
FIELDS_OF_LOOP_TASK = (
    *COMPUTE, "environment_key", "libraries", "max_retries", "min_retry_interval_millis", "retry_on_timeout",
)  # fmt: skip
KEY = r"[\w-]{1,100}"


def task_types(node: Node) -> list[str]:
    """Return the given task types. An unknown name that ends in _task counts, unless it is a misspelling."""
    names = [name for name in map(str, node.value) if name.endswith("_task")]
    return sorted([name for name in names if _is_task_type(name) and node.given(name)])


def _is_task_type(name: str) -> bool:
    known = fields_of("JobTask")
    return name in known or near_miss(name, tuple(known), CERTAIN) is None


@when_given()
def exactly_one_type(node: Node) -> Faults:
    """Report a task without a type, or with several."""
    if not task_types(node):
        yield "", "has no task type"
    yield from at_most_one_type(node)


@when_given()
def at_most_one_type(node: Node) -> Faults:
    """Report a task with several types."""
    # An empty mapping counts as a task type, too.
    known = [name for name in task_types(node) if node.known(name) not in (None, "")]
    if len(known) > 1:
        yield "", f"has {joined(known)}"


@when_given("spark_submit_task")
def _submit_on_existing(node: Node) -> Faults:
    if node.given("spark_submit_task") and node.filled("existing_cluster_id"):
        yield "spark_submit_task", "is given with existing_cluster_id"


@when_given("spark_submit_task")
def _submit_with_libraries(node: Node) -> Faults:
    if node.given("spark_submit_task") and node.filled("libraries"):
        yield "spark_submit_task", "is given with libraries"


@when_given("spark_submit_task")
def _submit_with_conf(node: Node) -> Faults:
    if node.given("spark_submit_task") and node.mapping("new_cluster").get("spark_conf"):
        yield "spark_submit_task", "is given with new_cluster.spark_conf"


@when_given("for_each_task")
def _fields_ignored_by_loop(node: Node) -> Faults:
    """Report fields that the API ignores next to for_each_task: the task in the loop has its own."""
    for name in FIELDS_OF_LOOP_TASK if node.given("for_each_task") else ():
        if node.filled(name):
            yield name, "is given together with for_each_task"


@when_given(*NEED_AN_ENVIRONMENT)
def _environment_needed(node: Node) -> Faults:
    if needs := _without_compute(node, NEED_AN_ENVIRONMENT):
        yield "", f"has {needs}, but neither a cluster nor an environment_key"


@when_given(*NEED_A_CLUSTER)
def _compute_needed(node: Node) -> Faults:
    if needs := _without_compute(node, NEED_A_CLUSTER):
        yield "", f"has {needs}, but no cluster"


def _without_compute(node: Node, types: tuple[str, ...]) -> str:
    """Return which of these types a task has that says nothing of its compute, "" if none."""
    if any(node.given(name) for name in (*COMPUTE, "environment_key", "compute")):
        return ""
    return next((name for name in types if node.given(name)), "")


ONE_TYPE_REMEDY = "Set one of notebook_task, spark_python_task, sql_task, ..."
TIMEOUT = Rule("RANGE-TIMEOUT", in_range("timeout_seconds", 0), remedy="Use 0 for no timeout.")
RETRY_RULES = (
    Rule("RANGE-MAX-RETRIES", in_range("max_retries", -1), remedy="Use -1 for unlimited retries."),
    Rule(
        "RANGE-RETRY-INTERVAL",
        in_range("min_retry_interval_millis", 0),
        remedy="Use 0 to retry immediately.",
        warning=True,
    ),
)

RULES = {
    "ComputeAndTask": (
        Rule(
            "ENV-REQUIRED",
            _environment_needed,
            "on serverless compute it requires an environment",
            "Set a cluster, or use a list of tasks with an environment_key of one of the environments.",
            versions=FROM_2_1,
            complete=True,
            warning=True,
        ),
        Rule(
            "SUBMIT-NEW-CLUSTER-ONLY",
            _submit_on_existing,
            "spark-submit only runs on new clusters",
            "Use new_cluster instead.",
        ),
        Rule(
            "SUBMIT-NO-LIBRARIES",
            _submit_with_libraries,
            "spark-submit accepts libraries only as arguments",
            "Pass them with --jars and --py-files.",
        ),
        Rule(
            "SUBMIT-NO-LIBRARIES",
            _submit_with_conf,
            "spark-submit accepts settings only as arguments",
            "Pass them with --conf.",
            warning=True,
        ),
    ),
    "SubmitTask": (
        TIMEOUT,
        *RETRY_RULES,
        Rule("TASKKEY-REQUIRED", required("task_key"), remedy="Set a key for the task."),
        # Source of the warning: clients generated from the OpenAPI document of 2.1.
        Rule(
            "TASKKEY-FORMAT",
            matches("task_key", KEY),
            "a task_key must have 1 to 100 letters, digits, _ and -",
            warning=True,
        ),
        Rule("TASK-ONE-2_1", exactly_one_type, "a task must have exactly one type", ONE_TYPE_REMEDY),
        Rule("COMPUTE-ONE-2_1", at_most_one(*COMPUTE)),
        Rule(
            "COMPUTE-REQUIRED-2_1",
            _compute_needed,
            "it requires a cluster",
            "Set new_cluster, existing_cluster_id or job_cluster_key.",
            warning=True,
        ),
        Rule(
            "FOREACH-BESIDE",
            _fields_ignored_by_loop,
            "the API ignores it, as the task in the loop has its own",
            "Move it into for_each_task.task.",
            warning=True,
        ),
        Rule("RUNIF-ENUM", one_of("run_if", RunIf)),
        Rule(
            "JOBCLUSTER-NOT-ON-SUBMIT",
            absent("job_cluster_key"),
            "tasks of a one-time run cannot share a cluster",
            "Set new_cluster in the task.",
            endpoints=("runs/submit",),
        ),
    ),
}
