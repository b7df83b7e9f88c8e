"""In what a job's settings differ from those that are wanted, as far as it matters.

The API answers with more than it was given: defaults, and what a reset would keep in any case. It may tell the elements
of an array in another order, and the one task of a single-task job as a list of one.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.payloads import JobSettings
from airflow_dbjobs.payloads.catalog import load
from airflow_dbjobs.payloads.structure import default_of, facts_of
from airflow_dbjobs.payloads.tasks import ComputeAndTask

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from airflow_dbjobs.payloads.structure import FieldFacts, Structure

# By which field the elements of an array are told apart, wherever they stand.
_KEYS = ("task_key", "job_cluster_key", "environment_key", "environment_variables_key", "name", "id", "metric")
# A single task's fields stand among a job's settings in API 2.0.
_RETRIES = ("max_retries", "min_retry_interval_millis", "retry_on_timeout")
# What the API says without having been told, and what it keeps over a reset that does not speak of it: these values,
# or any (...). A cluster that says nothing of its cloud is given the cloud's attributes.
_TOLD_BY_THE_API: dict[str, dict[str, tuple[object, ...]]] = {
    "JobSettings": {"run_as": (...,), "performance_target": ("PERFORMANCE_OPTIMIZED",)},
    "NewCluster": {"enable_elastic_disk": (...,), "data_security_mode": ("SINGLE_USER",)},
    "AwsAttributes": {"availability": ("SPOT_WITH_FALLBACK",), "zone_id": (...,)},
    "AzureAttributes": {"first_on_demand": (1,)},
}
# What a request may hold, and the API makes nothing of.
_IGNORED_BY_THE_API = {"JobSettings": ("format",), "GitSource": ("git_snapshot",)}
_IN_ANY_LETTER_CASE = ("git_provider",)
# These say something even where all that they hold is a default.
_WITH_A_MEANING_OF_THEIR_OWN = ("continuous",)
_NOTHING: tuple[object, ...] = (None, "", {}, [])


def differences(wanted: Mapping[str, Any], actual: Mapping[str, Any], api_version: str) -> list[str]:
    """Return the paths of what a reset of a job with settings `actual` to `wanted` would change."""
    source = "GIT" if wanted.get("git_source") else "WORKSPACE"
    if api_version == "2.2" and "queue" not in wanted and actual.get("queue") == {"enabled": True}:
        # That is so for what 2.2 creates.
        actual = {name: value for name, value in actual.items() if name != "queue"}
    found = _Comparison(source).of_structures(JobSettings, _with_tasks(wanted), _with_tasks(actual), "")
    return sorted(set(found))


def _with_tasks(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings in the form that has a list of tasks."""
    of_task = {*facts_of(ComputeAndTask), *_RETRIES}
    task = {name: value for name, value in settings.items() if name in of_task and value not in _NOTHING}
    if settings.get("tasks") or not task:
        return dict(settings)
    rest = {name: value for name, value in settings.items() if name not in of_task}
    return {**rest, "tasks": [task]}


class _Comparison:
    """Compares what is wanted with what there is. `source` is whence a task has its files that does not say so."""

    def __init__(self, source: str) -> None:
        self._source = source

    def of_structures(
        self, model: type[Structure], wanted: Mapping[str, Any], actual: Mapping[str, Any], path: str
    ) -> Iterator[str]:
        facts = facts_of(model)
        for name in {**wanted, **actual}:
            below = f"{path}.{name}" if path else name
            one, other = wanted.get(name), actual.get(name)
            if name in _IGNORED_BY_THE_API.get(model.__name__, ()):
                continue
            if one is not None and other is not None:
                yield from self._of_values(facts.get(name), one, other, below)
            elif not self._is_default(model, name, other if one is None else one, by_the_api=one is None):
                yield below

    def _of_values(self, facts: FieldFacts | None, wanted: Any, actual: Any, path: str) -> Iterator[str]:
        structure = facts.kind.structure if facts else None
        if isinstance(wanted, dict) and isinstance(actual, dict):
            if structure:
                yield from self.of_structures(load(structure), wanted, actual, path)
            else:
                for name in {**wanted, **actual}:
                    if name not in wanted or name not in actual or not _same(wanted[name], actual[name]):
                        yield f"{path}.{name}"
        elif structure and isinstance(wanted, list) and isinstance(actual, list):
            yield from self._of_arrays(load(structure), wanted, actual, path)
        elif path.endswith(_IN_ANY_LETTER_CASE):
            if str(wanted).casefold() != str(actual).casefold():
                yield path
        elif not _same(wanted, actual):
            yield path

    def _of_arrays(self, model: type[Structure], wanted: list[Any], actual: list[Any], path: str) -> Iterator[str]:
        if not all(isinstance(element, dict) for element in (*wanted, *actual)):
            if not _same(wanted, actual):
                yield path
        elif key := next((name for name in _KEYS if _tells_apart(name, wanted) and _tells_apart(name, actual)), None):
            one, other = ({str(element[key]): element for element in elements} for elements in (wanted, actual))
            for name in {**one, **other}:
                if name in one and name in other:
                    yield from self.of_structures(model, one[name], other[name], f"{path}[{name}]")
                else:
                    yield f"{path}[{name}]"
        elif len(wanted) != len(actual):
            yield path
        else:
            for number, (element, its_like) in enumerate(zip(wanted, actual, strict=True)):
                like = its_like
                if path == "tasks" and len(wanted) == 1 and "task_key" not in element:
                    # The API has made a key up for the only task.
                    like = {name: value for name, value in its_like.items() if name != "task_key"}
                yield from self.of_structures(model, element, like, f"{path}[{number}]")

    def _is_default(self, model: type[Structure], name: str, value: object, *, by_the_api: bool) -> bool:
        """Whether to leave a field out comes to the same; or, `by_the_api`, has made the API tell it by itself."""
        if name in _WITH_A_MEANING_OF_THEIR_OWN:
            return value is None
        if value in _NOTHING or (by_the_api and _is_told_by_the_api(model, name, value)):
            return True
        facts = facts_of(model).get(name)
        if facts and facts.kind.structure and isinstance(value, dict):
            below = load(facts.kind.structure)
            return all(self._is_default(below, field, item, by_the_api=by_the_api) for field, item in value.items())
        default = default_of(model, name)
        if default.startswith("GIT where"):
            default = self._source
        return _same(default, value) or str(value).lower() == default


def _tells_apart(name: str, elements: Sequence[Mapping[str, Any]]) -> bool:
    names = {str(element.get(name)) for element in elements}
    return len(names) == len(elements) and all(element.get(name) is not None for element in elements)


def _is_told_by_the_api(model: type[Structure], name: str, value: object) -> bool:
    values = _TOLD_BY_THE_API.get(model.__name__, {}).get(name, ())
    return ... in values or value in values


def _same(wanted: Any, actual: Any) -> bool:
    """Whether two values are the same, a number or a boolean as text included."""
    if isinstance(wanted, dict) and isinstance(actual, dict):
        return wanted.keys() == actual.keys() and all(_same(wanted[name], actual[name]) for name in wanted)
    if isinstance(wanted, list) and isinstance(actual, list):
        return len(wanted) == len(actual) and all(map(_same, wanted, actual))
    if isinstance(wanted, str) and isinstance(actual, int | float):
        with suppress(ValueError):
            wanted = json.loads(wanted.lower())
    return bool(wanted == actual) or _text(wanted) == _text(actual)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
