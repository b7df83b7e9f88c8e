"""Compare the wanted settings of a job with those that the API returns, which must contain all that are wanted.

The API returns more than it was given: defaults, attributes of the cloud, and changes made in the UI. These are no
differences. A setting that is no longer wanted cannot be distinguished from them, so it stays until the next reset,
except if it starts runs (a schedule, a trigger): that counts as a difference. So does a wanted setting that the API
does not return, as it may have changed.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.payloads.field_types import MAP
from airflow_dbjobs.payloads.schema import fields_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from airflow_dbjobs.payloads.schema import Field

# The fields that identify the elements of an array; the API returns them in its own order.
_KEYS = ("task_key", "job_cluster_key", "environment_key", "environment_variables_key", "name", "id", "metric")
# In API 2.0, the fields of a single task are among the job's settings.
_RETRIES = ("max_retries", "min_retry_interval_millis", "retry_on_timeout")
# The API never adds these itself.
_STARTS_RUNS = ("schedule", "trigger", "triggers", "continuous")
_CASE_INSENSITIVE = ("git_provider",)
_NOTHING: tuple[object, ...] = (None, "", {}, [])


def differences(wanted: Mapping[str, Any], actual: Mapping[str, Any]) -> list[str]:
    """Return the paths of the settings that differ."""
    starting = (name for name in _STARTS_RUNS if actual.get(name) and not wanted.get(name))
    return sorted({*starting, *_structure_differences("JobSettings", _with_tasks(wanted), _with_tasks(actual), "")})


def _with_tasks(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings in the multi-task format, without the field ``format``, which the API ignores."""
    settings = {name: value for name, value in settings.items() if name != "format"}
    of_task = {*fields_of("ComputeAndTask"), *_RETRIES}
    task = {name: value for name, value in settings.items() if name in of_task and value not in _NOTHING}
    if settings.get("tasks") or not task:
        return settings
    rest = {name: value for name, value in settings.items() if name not in of_task}
    return {**rest, "tasks": [task]}


def _structure_differences(
    structure: str | None, wanted: Mapping[str, Any], actual: Mapping[str, Any], path: str
) -> Iterator[str]:
    fields = fields_of(structure) if structure else {}
    for name, value in wanted.items():
        below = f"{path}.{name}" if path else name
        if actual.get(name) is not None:
            yield from _value_differences(fields.get(name), value, actual[name], below)
        elif value not in _NOTHING:
            yield below


def _value_differences(field: Field | None, wanted: Any, actual: Any, path: str) -> Iterator[str]:
    structure = field.structure if field else None
    if field and field.type is MAP and isinstance(wanted, dict) and isinstance(actual, dict):
        # The user chooses the names, and an empty string is a value.
        for name in {**wanted, **actual}:
            if name not in wanted or name not in actual or not _equal(wanted[name], actual[name]):
                yield f"{path}.{name}"
    elif isinstance(wanted, dict) and isinstance(actual, dict):
        yield from _structure_differences(structure, wanted, actual, path)
    elif structure and all(isinstance(item, dict) for value in (wanted, actual) for item in _items(value)):
        yield from _array_differences(structure, wanted, actual, path)
    elif path.endswith(_CASE_INSENSITIVE):
        if str(wanted).casefold() != str(actual).casefold():
            yield path
    elif wanted is not None and not _equal(wanted, actual):
        yield path


def _items(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else (value,)


def _array_differences(structure: str, wanted: Any, actual: Any, path: str) -> Iterator[str]:
    wanted, actual = _items(wanted), _items(actual)
    key = next((name for name in _KEYS if _identifies(name, wanted) and _identifies(name, actual)), None)
    if key:
        one, other = ({str(element[key]): element for element in elements} for elements in (wanted, actual))
        yield from (f"{path}[{name}]" for name in one.keys() ^ other.keys())
        for name in one.keys() & other.keys():
            yield from _structure_differences(structure, one[name], other[name], f"{path}[{name}]")
    elif len(wanted) != len(actual):
        yield path
    else:
        for number, (element, counterpart) in enumerate(zip(wanted, actual, strict=True)):
            yield from _structure_differences(structure, element, counterpart, f"{path}[{number}]")


def _identifies(name: str, elements: Sequence[Mapping[str, Any]]) -> bool:
    values = {str(element.get(name)) for element in elements}
    return len(values) == len(elements) and all(element.get(name) is not None for element in elements)


def _equal(wanted: Any, actual: Any) -> bool:
    """Return True if two values are equal; a number or boolean equals its text."""
    if isinstance(wanted, list) and isinstance(actual, list):
        return len(wanted) == len(actual) and all(map(_equal, wanted, actual))
    if isinstance(wanted, str) and isinstance(actual, int | float):
        with suppress(ValueError):
            wanted = json.loads(wanted.lower())
    return bool(wanted == actual) or _text(wanted) == _text(actual)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
