"""In what a job's settings differ from those that are wanted, as far as it matters.

The API answers with more than it was given: defaults, and what a reset would keep in any case. It may tell the elements
of an array in another order, and the one task of a single-task job as a list of one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from airflow_dbjobs.payloads.structure import FieldFacts, Structure

# By which field the elements of an array are told apart, wherever they stand.
_KEYS = ("task_key", "job_cluster_key", "environment_key", "environment_variables_key", "name")
# A single task's fields stand among a job's settings in API 2.0.
_RETRIES = ("max_retries", "min_retry_interval_millis", "retry_on_timeout")
# What the API says without having been told, and what it keeps over a reset that does not speak of it: these values,
# or any (...).
_TOLD_BY_THE_API: dict[str, dict[str, tuple[object, ...]]] = {
    "JobSettings": {"format": (...,), "run_as": (...,), "queue": ({"enabled": True},)},
    "GitSource": {"git_snapshot": (...,)},
    "NewCluster": {"enable_elastic_disk": (...,)},
    "AzureAttributes": {"first_on_demand": (1,)},
}
_NOTHING: tuple[object, ...] = (None, "", {}, [])


def differences(wanted: Mapping[str, Any], actual: Mapping[str, Any]) -> list[str]:
    """Return the paths of what a reset of a job with settings `actual` to `wanted` would change."""
    from airflow_dbjobs.payloads import JobSettings

    return sorted(set(_of_structure(JobSettings, _with_tasks(wanted), _with_tasks(actual), "")))


def _with_tasks(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings in the form that has a list of tasks."""
    from airflow_dbjobs.payloads.structure import facts_of
    from airflow_dbjobs.payloads.tasks import ComputeAndTask

    of_task = {*facts_of(ComputeAndTask), *_RETRIES}
    task = {name: value for name, value in settings.items() if name in of_task and value not in _NOTHING}
    if settings.get("tasks") or not task:
        return dict(settings)
    rest = {name: value for name, value in settings.items() if name not in of_task}
    return {**rest, "tasks": [task]}


def _of_structure(
    model: type[Structure], wanted: Mapping[str, Any], actual: Mapping[str, Any], path: str
) -> Iterator[str]:
    from airflow_dbjobs.payloads.structure import facts_of

    facts = facts_of(model)
    for name in {**wanted, **actual}:
        below = f"{path}.{name}" if path else name
        one, other = wanted.get(name), actual.get(name)
        if one is None or other is None:
            left = actual.get(name) if one is None else one
            by_the_api = one is None and _is_told_by_the_api(model, name, left)
            if not by_the_api and not _is_default(model, name, left):
                yield below
        else:
            yield from _of_values(facts.get(name), one, other, below)


def _of_values(facts: FieldFacts | None, wanted: Any, actual: Any, path: str) -> Iterator[str]:
    from airflow_dbjobs.payloads.catalog import load

    structure = facts.kind.structure if facts else None
    if structure and isinstance(wanted, dict) and isinstance(actual, dict):
        yield from _of_structure(load(structure), wanted, actual, path)
    elif structure and isinstance(wanted, list) and isinstance(actual, list):
        yield from _of_arrays(load(structure), wanted, actual, path)
    elif not _same(wanted, actual):
        yield path


def _of_arrays(model: type[Structure], wanted: list[Any], actual: list[Any], path: str) -> Iterator[str]:
    if len(wanted) != len(actual) or not all(isinstance(element, dict) for element in (*wanted, *actual)):
        if not _same(wanted, actual):
            yield path
        return
    key = next((name for name in _KEYS if _tells_apart(name, wanted) and _tells_apart(name, actual)), None)
    if key:
        by_key = {str(element[key]): element for element in actual}
        for element in wanted:
            name = str(element[key])
            if name in by_key:
                yield from _of_structure(model, element, by_key[name], f"{path}[{name}]")
            else:
                yield f"{path}[{name}]"
        return
    for number, (one, other) in enumerate(zip(wanted, actual, strict=True)):
        if len(wanted) == 1 and "task_key" not in one:
            # The API has made a key up for the only task.
            other = {name: value for name, value in other.items() if name != "task_key"}  # noqa: PLW2901 (without it)
        yield from _of_structure(model, one, other, f"{path}[{number}]")


def _tells_apart(name: str, elements: Sequence[Mapping[str, Any]]) -> bool:
    names = {str(element.get(name)) for element in elements}
    return len(names) == len(elements) and all(element.get(name) is not None for element in elements)


def _is_told_by_the_api(model: type[Structure], name: str, value: object) -> bool:
    values = _TOLD_BY_THE_API.get(model.__name__, {}).get(name, ())
    return ... in values or value in values


def _is_default(model: type[Structure], name: str, value: object) -> bool:
    """Whether to leave a field out comes to the same."""
    from airflow_dbjobs.payloads.catalog import load
    from airflow_dbjobs.payloads.structure import default_of, facts_of

    if value in _NOTHING:
        return True
    facts = facts_of(model).get(name)
    if facts and facts.kind.structure and isinstance(value, dict):
        below = load(facts.kind.structure)
        return all(_is_default(below, field, item) for field, item in value.items())
    default = default_of(model, name)
    return _text(value) == default or (default == "GIT where the job has a git_source" and value == "WORKSPACE")


def _same(one: Any, other: Any) -> bool:
    """Whether two values are the same, a number or a boolean as text included."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other) or (not isinstance(one, dict | list) and _text(one) == _text(other))


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
