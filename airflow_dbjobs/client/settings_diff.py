"""Whether a job has the settings that are wanted: what was asked for is contained in what the API answers.

The API answers with more than it was given, which is no difference: defaults, the cloud's attributes, and what somebody
has added by hand. A field that is no longer asked for looks the same, and goes with the next reset; only what starts
runs by itself must be asked for. What the API does not answer back may have changed, and so counts as different.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.payloads import JobSettings
from airflow_dbjobs.payloads.catalog import load
from airflow_dbjobs.payloads.kinds import MAP
from airflow_dbjobs.payloads.structure import facts_of
from airflow_dbjobs.payloads.tasks import ComputeAndTask

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from airflow_dbjobs.payloads.kinds import Kind
    from airflow_dbjobs.payloads.structure import Structure

# By which field the elements of an array are told apart, wherever they stand: the API answers them in its own order.
_KEYS = ("task_key", "job_cluster_key", "environment_key", "environment_variables_key", "name", "id", "metric")
# A single task's fields stand among a job's settings in API 2.0.
_RETRIES = ("max_retries", "min_retry_interval_millis", "retry_on_timeout")
# None of these is ever the API's own doing.
_STARTS_RUNS = ("schedule", "trigger", "triggers", "continuous")
_IN_ANY_LETTER_CASE = ("git_provider",)
_NOTHING: tuple[object, ...] = (None, "", {}, [])


def differences(wanted: Mapping[str, Any], actual: Mapping[str, Any]) -> list[str]:
    """Return the paths of what is wanted and not so in a job's settings."""
    starting = (name for name in _STARTS_RUNS if actual.get(name) and not wanted.get(name))
    return sorted({*starting, *_of_structures(JobSettings, _with_tasks(wanted), _with_tasks(actual), "")})


def _with_tasks(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings in the form that has a list of tasks, without the name of their form, which the API ignores."""
    settings = {name: value for name, value in settings.items() if name != "format"}
    of_task = {*facts_of(ComputeAndTask), *_RETRIES}
    task = {name: value for name, value in settings.items() if name in of_task and value not in _NOTHING}
    if settings.get("tasks") or not task:
        return settings
    rest = {name: value for name, value in settings.items() if name not in of_task}
    return {**rest, "tasks": [task]}


def _of_structures(
    model: type[Structure] | None, wanted: Mapping[str, Any], actual: Mapping[str, Any], path: str
) -> Iterator[str]:
    facts = facts_of(model) if model else {}
    for name, value in wanted.items():
        below = f"{path}.{name}" if path else name
        if actual.get(name) is not None:
            yield from _of_values(facts[name].kind if name in facts else None, value, actual[name], below)
        elif value not in _NOTHING:
            yield below


def _of_values(kind: Kind | None, wanted: Any, actual: Any, path: str) -> Iterator[str]:
    model = load(kind.structure) if kind and kind.structure else None
    if kind is MAP and isinstance(wanted, dict) and isinstance(actual, dict):
        # Its names are the user's own, and an empty text is a value.
        for name in {**wanted, **actual}:
            if name not in wanted or name not in actual or not _same(wanted[name], actual[name]):
                yield f"{path}.{name}"
    elif isinstance(wanted, dict) and isinstance(actual, dict):
        yield from _of_structures(model, wanted, actual, path)
    elif model and all(isinstance(item, dict) for value in (wanted, actual) for item in _items(value)):
        yield from _of_arrays(model, wanted, actual, path)
    elif path.endswith(_IN_ANY_LETTER_CASE):
        if str(wanted).casefold() != str(actual).casefold():
            yield path
    elif wanted is not None and not _same(wanted, actual):
        yield path


def _items(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else (value,)


def _of_arrays(model: type[Structure], wanted: Any, actual: Any, path: str) -> Iterator[str]:
    wanted, actual = _items(wanted), _items(actual)
    key = next((name for name in _KEYS if _tells_apart(name, wanted) and _tells_apart(name, actual)), None)
    if key:
        one, other = ({str(element[key]): element for element in elements} for elements in (wanted, actual))
        yield from (f"{path}[{name}]" for name in one.keys() ^ other.keys())
        for name in one.keys() & other.keys():
            yield from _of_structures(model, one[name], other[name], f"{path}[{name}]")
    elif len(wanted) != len(actual):
        yield path
    else:
        for number, (element, its_like) in enumerate(zip(wanted, actual, strict=True)):
            yield from _of_structures(model, element, its_like, f"{path}[{number}]")


def _tells_apart(name: str, elements: Sequence[Mapping[str, Any]]) -> bool:
    names = {str(element.get(name)) for element in elements}
    return len(names) == len(elements) and all(element.get(name) is not None for element in elements)


def _same(wanted: Any, actual: Any) -> bool:
    """Whether two values are the same, a number or a boolean as text included."""
    if isinstance(wanted, list) and isinstance(actual, list):
        return len(wanted) == len(actual) and all(map(_same, wanted, actual))
    if isinstance(wanted, str) and isinstance(actual, int | float):
        with suppress(ValueError):
            wanted = json.loads(wanted.lower())
    return bool(wanted == actual) or _text(wanted) == _text(actual)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
