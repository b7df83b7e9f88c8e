"""The types of request fields, and how values are converted to them."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, Final

from airflow_dbjobs.local_workspace.messages import ApiError, Json
from airflow_dbjobs.local_workspace.state.settings import RUN_PARAMETERS

if TYPE_CHECKING:
    from collections.abc import Callable

_INTEGERS: Final = frozenset(
    {
        "job_id", "run_id", "timeout_seconds", "max_retries", "min_retry_interval_millis",
        "max_concurrent_runs", "limit", "offset", "start_time_from", "start_time_to", "latest_repair_id",
        "num_workers",
    }
)  # fmt: skip
_BOOLEANS: Final = frozenset(
    {
        "active_only", "completed_only", "expand_tasks", "include_history", "include_resolved_values",
        "all_queued_runs", "rerun_all_failed_tasks", "rerun_dependent_tasks", "retry_on_timeout", "enabled", "disabled",
    }
)  # fmt: skip
STRINGS: Final = frozenset(
    {
        "name", "run_name", "idempotency_token", "task_key", "notebook_path", "python_file", "run_if",
        "page_token", "run_type", "existing_cluster_id", "views_to_export", "job_cluster_key", "outcome", "op",
        "user_name", "group_name", "service_principal_name", "permission_level",
    }
)  # fmt: skip
#: Strings, although clients send numbers and booleans too.
_VALUES: Final = frozenset({"left", "right", "default"})
_STRING_ARRAYS: Final = frozenset({"rerun_tasks", "fields_to_remove", "only"})
_VALUE_ARRAYS: Final = frozenset({"python_params", "jar_params", "spark_submit_params", "dbt_commands", "commands"})
_OBJECT_ARRAYS: Final = frozenset(
    {"tasks", "depends_on", "job_clusters", "environments", "libraries", "rules", "access_control_list", "faults"}
)
_STRING_MAPS: Final = frozenset(
    {"base_parameters", "notebook_params", "job_parameters", "python_named_params", "sql_params", "spark_env_vars"}
)
_OBJECTS: Final = frozenset(
    {
        "new_settings", "new_cluster", "queue", "git_source", "schedule", "spark_conf", "tags",
        "pipeline_params", "health", "run_as",
    }
)  # fmt: skip
#: What the other APIs have, none of whose fields is nested.
_FLAT_INTEGERS: Final = frozenset({"handle", "offset", "length", "notebooks_modified_after"})
_FLAT_BOOLEANS: Final = frozenset({"overwrite", "recursive", "direct_download"})
_FLAT_STRINGS: Final = frozenset(
    {"path", "format", "language", "content", "contents", "data", "source_path", "destination_path", "cluster_id"}
)
#: Task payloads whose `parameters` are an array of values; in other payloads they may be a map.
_PARAMETER_ARRAYS: Final = frozenset({"spark_python_task", "spark_jar_task", "spark_submit_task", "python_wheel_task"})


def decode(value: Any) -> Any:
    """Return a body, or the query of a GET, with the known fields converted to their types.

    Nulls and empty parameters of runs are dropped, as both count as absent. Numbers may be strings (Airflow sends
    strings only), and booleans may have any case ("True").

    :raises ApiError: MALFORMED_REQUEST, naming the first field of another type.
    """
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {name: _field(name, item) for name, item in value.items() if not _absent(name, item)}


def decode_flat(arguments: Json) -> Json:
    """Return the arguments of a request to the other APIs, converted as in `decode`; nulls count as absent."""
    readers = {name: read for names, read in _FLAT_READERS for name in names}
    return {
        name: readers[name](name, value) if name in readers else value
        for name, value in arguments.items()
        if value is not None
    }


def _absent(name: str, value: Any) -> bool:
    return value is None or (name in RUN_PARAMETERS and value in ({}, [], ""))


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
        if name == "for_each_task":
            payload |= {field: read(field, payload[field]) for field, read in _LOOP_READERS if field in payload}
        if name == "sql_task":
            _expect("sql_task.parameters", payload.get("parameters", {}), dict, "an object")
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


def _string(name: str, value: Any) -> str:
    return str(_expect(name, value, str, "a string"))


def _value(name: str, value: Any) -> str:
    if isinstance(value, dict | list):
        raise _malformed(name, value, "a string, a number or a boolean")
    return value if isinstance(value, str) else json.dumps(value)


def _value_array(name: str, value: Any) -> Any:
    """Check an array of values, and return it unchanged."""
    for item in _expect(name, value, list, "an array"):
        _value(name, item)
    return value


def _string_array(name: str, value: Any) -> Any:
    if not all(isinstance(item, str) for item in _expect(name, value, list, "an array")):
        raise _malformed(name, value, "an array of strings")
    return value


def object_array(name: str, value: Any) -> Any:
    """Check an array of objects, and return it decoded."""
    if not all(isinstance(item, dict) for item in _expect(name, value, list, "an array")):
        raise _malformed(name, value, "an array of objects")
    return decode(value)


def _malformed(name: str, value: Any, words: str) -> ApiError:
    return ApiError(f"Field '{name}' must be {words}, not {json.dumps(value)[:100]}.", code="MALFORMED_REQUEST")


_Readers = tuple[tuple[frozenset[str], "Callable[[str, Any], Any]"], ...]
_FLAT_READERS: Final[_Readers] = (
    (_FLAT_INTEGERS, _integer),
    (_FLAT_BOOLEANS, _boolean),
    (_FLAT_STRINGS, _string),
)
#: Common words, which are the names of parameters elsewhere.
_LOOP_READERS: Final = (
    ("inputs", _string),
    ("concurrency", _integer),
    ("task", lambda name, value: decode(_expect(name, value, dict, "an object"))),
)
_READERS: Final[_Readers] = (
    (_INTEGERS, _integer),
    (_BOOLEANS, _boolean),
    (STRINGS, _string),
    (_VALUES, _value),
    (_STRING_ARRAYS, _string_array),
    (_VALUE_ARRAYS, _value_array),
    (_OBJECT_ARRAYS, object_array),
    (_OBJECTS, lambda name, value: decode(_expect(name, value, dict, "an object"))),
)
