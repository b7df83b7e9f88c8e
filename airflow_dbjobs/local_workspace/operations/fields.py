"""What a request body may say: JSON types as the API takes them, and the rules that job and run settings must keep."""

from __future__ import annotations

import contextlib
import graphlib
import json
import re
from typing import TYPE_CHECKING, Any, Final

from airflow_dbjobs.local_workspace.messages import ApiError, Json, in_words

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_TOKEN_LENGTH: Final = 64
_MAX_CONCURRENT_RUNS: Final = 1000
MAX_PARAMETER_BYTES: Final = 10_000
RUN_IF_RULES: Final = frozenset(
    {"ALL_SUCCESS", "AT_LEAST_ONE_SUCCESS", "NONE_FAILED", "ALL_DONE", "AT_LEAST_ONE_FAILED", "ALL_FAILED"}
)
#: Task parameters that run-now may override.
OVERRIDES: Final = frozenset(
    {
        "jar_params",
        "notebook_params",
        "python_params",
        "spark_submit_params",
        "python_named_params",
        "pipeline_params",
        "sql_params",
        "dbt_commands",
    }
)
#: Parameters of a run. The cloud knows no difference between empty ones and none.
_RUN_PARAMETERS: Final = OVERRIDES | {"job_parameters"}
#: Fields of a task that the 2.0 shape puts at the top level, beside the task payload itself.
_FLAT_TASK_FIELDS: Final = frozenset(
    {
        "existing_cluster_id",
        "new_cluster",
        "libraries",
        "max_retries",
        "min_retry_interval_millis",
        "retry_on_timeout",
        "environment_key",
    }
)
_REQUIRED: Final[dict[str, tuple[str, ...]]] = {
    "notebook_task": ("notebook_path",),
    "spark_python_task": ("python_file",),
    "condition_task": ("op", "left", "right"),
    "run_job_task": ("job_id",),
}
#: In lower case; the API does not look at case.
_GIT_PROVIDERS: Final = frozenset(
    {
        "github",
        "gitlab",
        "bitbucketcloud",
        "githubenterprise",
        "bitbucketserver",
        "gitlabenterpriseedition",
        "azuredevopsservices",
        "awscodecommit",
    }
)
_TASK_KEY: Final = re.compile(r"[\w-]{1,100}")
_PARAMETER_NAME: Final = re.compile(r"[\w.-]+")

_INTEGERS: Final = frozenset(
    {
        "job_id",
        "run_id",
        "timeout_seconds",
        "max_retries",
        "min_retry_interval_millis",
        "max_concurrent_runs",
        "limit",
        "offset",
        "start_time_from",
        "start_time_to",
        "latest_repair_id",
        "num_workers",
    }
)
_BOOLEANS: Final = frozenset(
    {
        "active_only",
        "completed_only",
        "expand_tasks",
        "include_history",
        "all_queued_runs",
        "rerun_all_failed_tasks",
        "rerun_dependent_tasks",
        "retry_on_timeout",
        "enabled",
        "disabled",
    }
)
_STRINGS: Final = frozenset(
    {
        "name",
        "run_name",
        "idempotency_token",
        "task_key",
        "notebook_path",
        "python_file",
        "run_if",
        "page_token",
        "run_type",
        "existing_cluster_id",
        "views_to_export",
        "job_cluster_key",
        "outcome",
        "op",
        "user_name",
        "group_name",
        "service_principal_name",
        "permission_level",
    }
)
#: Of strings, but callers send numbers and booleans too.
_VALUES: Final = frozenset({"left", "right", "default"})
_STRING_ARRAYS: Final = frozenset({"rerun_tasks", "fields_to_remove", "only"})
_VALUE_ARRAYS: Final = frozenset({"python_params", "jar_params", "spark_submit_params", "dbt_commands"})
_OBJECT_ARRAYS: Final = frozenset(
    {"tasks", "depends_on", "job_clusters", "environments", "libraries", "rules", "access_control_list", "faults"}
)
_STRING_MAPS: Final = frozenset(
    {"base_parameters", "notebook_params", "job_parameters", "python_named_params", "sql_params", "spark_env_vars"}
)
_OBJECTS: Final = frozenset(
    {
        "new_settings",
        "new_cluster",
        "queue",
        "git_source",
        "schedule",
        "spark_conf",
        "tags",
        "pipeline_params",
        "health",
        "run_as",
    }
)
#: Task payloads whose `parameters` are an array of values; those of others may be a map.
_PARAMETER_ARRAYS: Final = frozenset({"spark_python_task", "spark_jar_task", "spark_submit_task", "python_wheel_task"})


def decode(value: Any) -> Any:
    """Return a body, or the query of a GET, with its known fields in their own JSON types.

    Nulls and empty parameters of runs are left out: both count as not given. Numbers may come
    as strings (Airflow sends all of them so) and booleans in any case ("True").

    Raises:
        ApiError: MALFORMED_REQUEST, naming the first field that has another type.
    """
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {name: _field(name, item) for name, item in value.items() if not _absent(name, item)}


def _absent(name: str, value: Any) -> bool:
    return value is None or (name in _RUN_PARAMETERS and value in ({}, [], ""))


def _field(name: str, value: Any) -> Any:
    if name in _STRING_MAPS:
        return {key: _value(f"{name}.{key}", item) for key, item in _expect(name, value, dict, "an object").items()}
    for names, read in _READERS:
        if name in names:
            return read(name, value)
    if name.endswith("_task"):
        payload = decode(_expect(name, value, dict, "an object"))
        if name in _PARAMETER_ARRAYS and "parameters" in payload:
            _value_array(f"{name}.parameters", payload["parameters"])
        return payload
    return decode(value)


def _integer(name: str, value: Any) -> int:
    if isinstance(value, int | str) and not isinstance(value, bool):
        with contextlib.suppress(ValueError):
            if abs(number := int(value)) < 2**63:
                return number
    raise _malformed(name, value, "an integer")


def _boolean(name: str, value: Any) -> bool:
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    return bool(_expect(name, value, bool, "a boolean"))


def _expect(name: str, value: Any, kind: type, words: str) -> Any:
    if not isinstance(value, kind):
        raise _malformed(name, value, words)
    return value


def _value(name: str, value: Any) -> str:
    if isinstance(value, dict | list):
        raise _malformed(name, value, "a string, a number or a boolean")
    return value if isinstance(value, str) else json.dumps(value)


def _value_array(name: str, value: Any) -> Any:
    """Check an array of values; they are kept as they were given."""
    for item in _expect(name, value, list, "an array"):
        _value(name, item)
    return value


def _string_array(name: str, value: Any) -> Any:
    if not all(isinstance(item, str) for item in _expect(name, value, list, "an array")):
        raise _malformed(name, value, "an array of strings")
    return value


def _object_array(name: str, value: Any) -> Any:
    if not all(isinstance(item, dict) for item in _expect(name, value, list, "an array")):
        raise _malformed(name, value, "an array of objects")
    return decode(value)


def _malformed(name: str, value: Any, words: str) -> ApiError:
    return ApiError(f"Field '{name}' must be {words}, not {json.dumps(value)[:100]}.", code="MALFORMED_REQUEST")


_READERS: Final[tuple[tuple[frozenset[str], Callable[[str, Any], Any]], ...]] = (
    (_INTEGERS, _integer),
    (_BOOLEANS, _boolean),
    (_STRINGS, lambda name, value: _expect(name, value, str, "a string")),
    (_VALUES, _value),
    (_STRING_ARRAYS, _string_array),
    (_VALUE_ARRAYS, _value_array),
    (_OBJECT_ARRAYS, _object_array),
    (_OBJECTS, lambda name, value: decode(_expect(name, value, dict, "an object"))),
)


def payload_fields(task: Json) -> list[str]:
    """Return the names of the task payloads (`notebook_task`, ...) in a task, or in settings of the 2.0 shape."""
    return [name for name in task if name.endswith("_task")]


def is_flat(settings: Json) -> bool:
    """Tell whether settings have the 2.0 shape: one task, spread over the top level."""
    return not settings.get("tasks")


def tasks_of(settings: Json) -> list[Json]:
    """Return the tasks of checked settings; those of the 2.0 shape have at most one, whose key comes from the name."""
    if not is_flat(settings):
        return list(settings["tasks"])
    if not payload_fields(settings):
        return []
    name = settings.get("run_name") or settings.get("name") or "Untitled"
    fields = {key: value for key, value in settings.items() if key in _FLAT_TASK_FIELDS or key.endswith("_task")}
    return [{"task_key": re.sub(r"[^A-Za-z0-9_-]", "_", name)[:100], **fields}]


def without_tasks(settings: Json) -> Json:
    """Return what settings say about the whole job or run."""
    flat = is_flat(settings)
    return {
        name: value
        for name, value in settings.items()
        if name != "tasks" and not (flat and (name in _FLAT_TASK_FIELDS or name.endswith("_task")))
    }


def check_settings(settings: Json, version: str) -> None:
    """Check the settings of a job or of a one-time run. They may have no task: a job may get its tasks later.

    Raises:
        ApiError: naming the field and the rule.
    """
    _check_tasks(settings, version)
    if not 0 <= settings.get("max_concurrent_runs", 1) <= _MAX_CONCURRENT_RUNS:
        raise ApiError(f"Field 'max_concurrent_runs' must be between 0 and {_MAX_CONCURRENT_RUNS}.")
    if "git_source" in settings:
        provider = settings["git_source"].get("git_provider")
        if str(provider).lower() not in _GIT_PROVIDERS:
            known = ", ".join(sorted(_GIT_PROVIDERS))
            raise ApiError(f"Field 'git_source.git_provider' must be one of {known}; {in_words(provider)}.")
    if settings.get("timeout_seconds", 0) < 0:
        raise ApiError("Field 'timeout_seconds' must not be negative.")
    for parameter in _object_array("parameters", settings.get("parameters", [])):
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
                raise ApiError(f"Field 'depends_on' of task {key!r} names {name!r}, which is no task of this job.")
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        raise ApiError(f"Field 'depends_on' has a cycle: {' <- '.join(error.args[1])}.") from None


def _check_task(task: Json) -> str:
    key: str | None = task.get("task_key")
    if key is None or not _TASK_KEY.fullmatch(key):
        raise ApiError(f"Field 'task_key' must be 1 to 100 letters, digits, - or _; {in_words(key)}.")
    _check_payload(task, f"task {key!r}")
    if task.get("run_if", "ALL_SUCCESS") not in RUN_IF_RULES:
        raise ApiError(f"Field 'run_if' of task {key!r} must be one of {', '.join(sorted(RUN_IF_RULES))}.")
    return key


def upstream_keys(task: Json) -> list[str]:
    """Return the keys of the tasks that a task depends on."""
    dependencies = task.get("depends_on", [])
    if not all("task_key" in item for item in dependencies):
        raise ApiError("Field 'depends_on' must hold objects with a 'task_key'.", code="MALFORMED_REQUEST")
    return [item["task_key"] for item in dependencies]


def check_parameters(args: Json) -> None:
    """Check the parameters of run-now or repair.

    Raises:
        ApiError: they exclude each other, or one is larger than 10,000 bytes.
    """
    given = sorted(OVERRIDES & args.keys())
    if "job_parameters" in args and given:
        raise ApiError(f"Fields 'job_parameters' and '{given[0]}' exclude each other.")
    if {"jar_params", "notebook_params"} <= args.keys():
        raise ApiError("Fields 'jar_params' and 'notebook_params' exclude each other.")
    for name in given:
        size = len(json.dumps({name: args[name]}, separators=(",", ":"), ensure_ascii=False).encode())
        if size > MAX_PARAMETER_BYTES:
            raise ApiError(f"Field '{name}' is {size} bytes of JSON; at most {MAX_PARAMETER_BYTES} are allowed.")
