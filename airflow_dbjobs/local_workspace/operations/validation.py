"""The rules for job and run settings, and for the parameters of run-now and repair."""

from __future__ import annotations

import graphlib
import json
import re
from typing import TYPE_CHECKING, Final

from airflow_dbjobs.local_workspace.messages import ApiError, describe
from airflow_dbjobs.local_workspace.state.settings import (
    OVERRIDES,
    RUN_PARAMETERS,
    is_flat,
    payload_fields,
    upstream_keys,
)

from .fields import object_array

if TYPE_CHECKING:
    from airflow_dbjobs.local_workspace.messages import Json

_MAX_CONCURRENT_RUNS: Final = 1000
_MAX_PARAMETER_BYTES: Final = 10_000
_MAX_CONCURRENCY: Final = 100
#: In characters.
_MAX_INPUTS: Final = 10_000
_RUN_IF_RULES: Final = frozenset(
    {"ALL_SUCCESS", "AT_LEAST_ONE_SUCCESS", "NONE_FAILED", "ALL_DONE", "AT_LEAST_ONE_FAILED", "ALL_FAILED"}
)
_REQUIRED: Final[dict[str, tuple[str, ...]]] = {
    "notebook_task": ("notebook_path",),
    "spark_python_task": ("python_file",),
    "python_wheel_task": ("package_name", "entry_point"),
    "dbt_task": ("commands",),
    "spark_jar_task": ("main_class_name",),
    "condition_task": ("op", "left", "right"),
    "run_job_task": ("job_id",),
    "for_each_task": ("inputs", "task"),
}
#: In lower case, as the API ignores case.
_GIT_PROVIDERS: Final = frozenset(
    {
        "github", "gitlab", "bitbucketcloud", "githubenterprise", "bitbucketserver", "gitlabenterpriseedition",
        "azuredevopsservices", "awscodecommit",
    }
)  # fmt: skip
_CLUSTER_CHOICES: Final = ("existing_cluster_id", "job_cluster_key", "new_cluster")
_TASK_KEY: Final = re.compile(r"[\w-]{1,100}")
_PARAMETER_NAME: Final = re.compile(r"[\w.-]+")


def check_settings(settings: Json, version: str) -> None:
    """Check the settings of a job or of a one-time run. They may have no task, as jobs may get their tasks later.

    :raises ApiError: Naming the field and the rule.
    """
    _check_tasks(settings, version)
    if not 0 <= settings.get("max_concurrent_runs", 1) <= _MAX_CONCURRENT_RUNS:
        raise ApiError(f"Field 'max_concurrent_runs' must be between 0 and {_MAX_CONCURRENT_RUNS}.")
    if "git_source" in settings:
        provider = settings["git_source"].get("git_provider")
        if str(provider).lower() not in _GIT_PROVIDERS:
            known = ", ".join(sorted(_GIT_PROVIDERS))
            raise ApiError(f"Field 'git_source.git_provider' must be one of {known}; {describe(provider)}.")
    if settings.get("timeout_seconds", 0) < 0:
        raise ApiError("Field 'timeout_seconds' must not be negative.")
    for parameter in object_array("parameters", settings.get("parameters", [])):
        if not _PARAMETER_NAME.fullmatch(parameter.get("name", "")):
            raise ApiError(
                "Field 'parameters' must be a list of {name, default}; names have letters, digits, _ - and ."
            )


def _check_tasks(settings: Json, version: str) -> None:
    payloads = payload_fields(settings)
    if not is_flat(settings):
        if payloads:
            raise ApiError(f"Fields 'tasks' and '{payloads[0]}' exclude each other.")
        _check_graph(settings["tasks"], version)
        _check_clusters(settings)
    elif payloads:
        _check_payload(settings, "the settings")
        if settings.get("job_clusters"):
            raise ApiError("Field 'job_clusters' needs 'tasks': settings with a single task cannot share clusters.")


def _check_payload(task: Json, where: str) -> None:
    payloads = payload_fields(task)
    if len(payloads) != 1:
        given = "none" if not payloads else " and ".join(f"'{name}'" for name in payloads)
        raise ApiError(f"Exactly one task field, such as 'notebook_task', is needed in {where}; found {given}.")
    for field in _REQUIRED.get(payloads[0], ()):
        if task[payloads[0]].get(field) in (None, ""):
            raise ApiError(f"Field '{payloads[0]}.{field}' is missing in {where}.")
    if "for_each_task" in task:
        _check_loop(task["for_each_task"], where)


def _check_loop(loop: Json, where: str) -> None:
    if "for_each_task" in loop["task"]:
        raise ApiError(f"Field 'for_each_task.task' in {where} must not be a for_each_task itself.")
    _check_task(loop["task"])
    if not 1 <= loop.get("concurrency", 1) <= _MAX_CONCURRENCY:
        raise ApiError(f"Field 'for_each_task.concurrency' in {where} must be between 1 and {_MAX_CONCURRENCY}.")
    if len(loop["inputs"]) > _MAX_INPUTS:
        raise ApiError(f"Field 'for_each_task.inputs' in {where} must have at most {_MAX_INPUTS} characters.")


def _check_graph(tasks: list[Json], version: str) -> None:
    limit = 1000 if version == "2.2" else 100
    if len(tasks) > limit:
        raise ApiError(f"Field 'tasks' has {len(tasks)} elements; API {version} takes at most {limit}.")
    graph: dict[str, list[str]] = {}
    for task in tasks:
        key = _check_task(task)
        if key in graph:
            raise ApiError(f"Field 'task_key' must be unique; {key!r} is there twice.")
        graph[key] = upstream_keys(task)
    for key, upstream in graph.items():
        for name in upstream:
            if name not in graph:
                raise ApiError(f"Field 'depends_on' of task {key!r} names {name!r}, which is not a task of this job.")
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        raise ApiError(f"Field 'depends_on' has a cycle: {' <- '.join(error.args[1])}.") from None


def _check_clusters(settings: Json) -> None:
    """Check that each task has at most one cluster (without one it is serverless), and that shared ones exist."""
    shared = [cluster.get("job_cluster_key") for cluster in settings.get("job_clusters", [])]
    for key in shared:
        if key is None or not _TASK_KEY.fullmatch(key) or shared.count(key) > 1:
            raise ApiError(
                f"Field 'job_cluster_key' must be 1 to 100 letters, digits, - or _, and unique; {describe(key)}."
            )
    for task in _with_inner(settings["tasks"]):
        given = [name for name in _CLUSTER_CHOICES if name in task]
        if len(given) > 1:
            raise ApiError(f"Fields '{given[0]}' and '{given[1]}' of task {task['task_key']!r} exclude each other.")
        if (key := task.get("job_cluster_key")) is not None and key not in shared:
            raise ApiError(
                f"Field 'job_cluster_key' of task {task['task_key']!r} names {key!r}, which is not in 'job_clusters'."
            )


def _with_inner(tasks: list[Json]) -> list[Json]:
    """Return tasks, and those in their loops."""
    return [*tasks, *(task["for_each_task"]["task"] for task in tasks if "for_each_task" in task)]


def _check_task(task: Json) -> str:
    key: str | None = task.get("task_key")
    if key is None or not _TASK_KEY.fullmatch(key):
        raise ApiError(f"Field 'task_key' must be 1 to 100 letters, digits, - or _; {describe(key)}.")
    _check_payload(task, f"task {key!r}")
    if not all("task_key" in item for item in task.get("depends_on", [])):
        raise ApiError("Field 'depends_on' must hold objects with a 'task_key'.", code="MALFORMED_REQUEST")
    if task.get("run_if", "ALL_SUCCESS") not in _RUN_IF_RULES:
        raise ApiError(f"Field 'run_if' of task {key!r} must be one of {', '.join(sorted(_RUN_IF_RULES))}.")
    return key


def check_parameters(args: Json) -> None:
    """Check the parameters of run-now or repair.

    :raises ApiError: They exclude each other, or one is larger than 10,000 bytes.
    """
    given = sorted(OVERRIDES & args.keys())
    if "job_parameters" in args and given:
        raise ApiError(f"Fields 'job_parameters' and '{given[0]}' exclude each other.")
    if {"jar_params", "notebook_params"} <= args.keys():
        raise ApiError("Fields 'jar_params' and 'notebook_params' exclude each other.")
    for name in sorted(args.keys() & RUN_PARAMETERS):
        size = len(json.dumps({name: args[name]}, separators=(",", ":"), ensure_ascii=False).encode())
        if size > _MAX_PARAMETER_BYTES:
            raise ApiError(f"Field '{name}' is {size} bytes of JSON; at most {_MAX_PARAMETER_BYTES} are allowed.")
