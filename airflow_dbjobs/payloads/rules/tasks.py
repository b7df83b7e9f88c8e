"""Rules of one task: what it runs, on what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_dbjobs.payloads.rules import FROM_2_1, Rule
from airflow_dbjobs.payloads.rules.forms import (
    absent,
    at_most_one,
    in_range,
    listed,
    longest,
    matches,
    of,
    one_of,
    present,
)
from airflow_dbjobs.payloads.schema import fields_of
from airflow_dbjobs.payloads.suggestions import CERTAIN, near_miss
from airflow_dbjobs.payloads.types.enums import RunIf

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_dbjobs.payloads.paths import Node
    from airflow_dbjobs.payloads.rules import Fault

COMPUTE = ("existing_cluster_id", "new_cluster", "job_cluster_key")
# They bring their own compute, or need none; serverless compute needs no word either.
NEED_A_CLUSTER = ("spark_jar_task", "spark_submit_task")
# On serverless compute.
NEED_AN_ENVIRONMENT = ("spark_python_task", "python_wheel_task", "dbt_task")
OF_THE_REPEATED = (
    *COMPUTE, "environment_key", "libraries", "max_retries", "min_retry_interval_millis", "retry_on_timeout",
)  # fmt: skip
KEY = r"[\w-]{1,100}"


def task_types(node: Node) -> list[str]:
    """Return the fields that say what is run; a type newer than this release counts by its name, a slip does not."""
    names = [str(name) for name in node.value if str(name).endswith("_task")]
    return sorted(name for name in names if _is_task_type(name) and node.given(name))


def _is_task_type(name: str) -> bool:
    known = fields_of("JobTask")
    return name in known or near_miss(name, tuple(known), CERTAIN) is None


def one_type(node: Node) -> Iterator[Fault]:
    """Find a task that runs nothing, or two things."""
    types = task_types(node)
    if not types:
        yield "", "does not say what to run"
    yield from _not_two(node, types)


def not_two_types(node: Node) -> Iterator[Fault]:
    """Find a task that runs two things."""
    yield from _not_two(node, task_types(node))


def _not_two(node: Node, types: list[str]) -> Iterator[Fault]:
    # An empty mapping says what is run, too.
    known = [name for name in types if node.known(name) not in (None, "")]
    if len(known) > 1:
        yield "", f"has {listed(known)}"


def _submit_on_existing(node: Node) -> Iterator[Fault]:
    if node.given("spark_submit_task") and node.filled("existing_cluster_id"):
        yield "spark_submit_task", "is given with existing_cluster_id"


def _submit_with_libraries(node: Node) -> Iterator[Fault]:
    if node.given("spark_submit_task") and node.filled("libraries"):
        yield "spark_submit_task", "is given with libraries"


def _submit_with_conf(node: Node) -> Iterator[Fault]:
    if node.given("spark_submit_task") and node.mapping("new_cluster").get("spark_conf"):
        yield "spark_submit_task", "is given with new_cluster.spark_conf"


def _beside_loop(node: Node) -> Iterator[Fault]:
    """Find what belongs to the task that a for_each_task repeats, and is lost beside it."""
    for name in OF_THE_REPEATED if node.given("for_each_task") else ():
        if node.filled(name):
            yield name, "is given beside for_each_task"


def _environment_needed(node: Node) -> Iterator[Fault]:
    needs = [name for name in NEED_AN_ENVIRONMENT if node.given(name)]
    if needs and not any(node.given(name) for name in (*COMPUTE, "environment_key", "compute")):
        yield "", f"has {needs[0]}, no cluster and no environment_key"


def _compute_needed(node: Node) -> Iterator[Fault]:
    needs = [name for name in NEED_A_CLUSTER if node.given(name)]
    if needs and not any(node.given(name) for name in (*COMPUTE, "environment_key", "compute")):
        yield "", f"has {needs[0]} and no cluster"


ONE_TYPE_REMEDY = "Give one of notebook_task, spark_python_task, sql_task, ..."

RULES = {
    "ComputeAndTask": (
        Rule(
            "ENV-REQUIRED",
            _environment_needed,
            "on serverless compute such a task needs an environment",
            "Give a cluster, or in a list of tasks an environment_key, and describe it in environments.",
            versions=FROM_2_1,
            unless=("update",),
            warning=True,
        ),
        Rule(
            "SUBMIT-NEW-CLUSTER-ONLY",
            of("spark_submit_task", _submit_on_existing),
            "spark-submit runs on new clusters only",
            "Give new_cluster instead.",
        ),
        Rule(
            "SUBMIT-NO-LIBRARIES",
            of("spark_submit_task", _submit_with_libraries),
            "spark-submit takes libraries as arguments",
            "Give them by --jars and --py-files.",
        ),
        Rule(
            "SUBMIT-NO-LIBRARIES",
            of("spark_submit_task", _submit_with_conf),
            "spark-submit takes settings as arguments",
            "Give them by --conf.",
            warning=True,
        ),
    ),
    "SubmitTask": (
        Rule("TASKKEY-REQUIRED", present("task_key"), "it is required", "Name the task.", versions=FROM_2_1),
        Rule(
            "TASKKEY-FORMAT",
            matches("task_key", KEY),
            "a task_key must have 1 to 100 letters, digits, _ and -",
            "Choose another name.",
            versions=FROM_2_1,
            # Known from clients that were generated from the 2.1 document.
            warning=True,
        ),
        Rule("TASK-ONE-2_1", one_type, "a task must have exactly one type", ONE_TYPE_REMEDY, versions=FROM_2_1),
        Rule(
            "COMPUTE-ONE-2_1",
            at_most_one(*COMPUTE),
            f"at most one of {', '.join(COMPUTE)} is allowed",
            "Leave all but one out.",
            versions=FROM_2_1,
        ),
        Rule(
            "COMPUTE-REQUIRED-2_1",
            _compute_needed,
            "such a task needs a cluster",
            "Give new_cluster, existing_cluster_id or job_cluster_key.",
            versions=FROM_2_1,
            warning=True,
        ),
        Rule(
            "FOREACH-BESIDE",
            of("for_each_task", _beside_loop),
            "the task that is repeated has its own, and the API ignores this one",
            "Move it into for_each_task.task.",
            versions=FROM_2_1,
            warning=True,
        ),
        Rule(
            "DESC-TASK",
            longest("description", 4096, in_bytes=True),
            "at most 4096 are allowed",
            "Shorten it.",
            versions=FROM_2_1,
            # Likewise.
            warning=True,
        ),
        Rule(
            "RUNIF-ENUM",
            one_of("run_if", RunIf),
            f"it must be one of {', '.join(RunIf)}",
            "Give one of these.",
            versions=FROM_2_1,
        ),
        Rule("RANGE-MAX-RETRIES", in_range("max_retries", -1), "-1 or more is allowed", "-1 retries for ever."),
        Rule("RANGE-TIMEOUT", in_range("timeout_seconds", 0), "0 or more is allowed", "0 is no timeout."),
        Rule(
            "RANGE-RETRY-INTERVAL",
            in_range("min_retry_interval_millis", 0),
            "0 or more is allowed",
            "0 retries at once.",
            warning=True,
        ),
        Rule(
            "JOBCLUSTER-NOT-ON-SUBMIT",
            absent("job_cluster_key"),
            "tasks of a one-time run can share no cluster",
            "Give the task a new_cluster of its own.",
            versions=FROM_2_1,
            endpoints=("runs/submit",),
        ),
    ),
}
