"""Forwards the params of a DAG as parameters of a run or job that has none of its own."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.payloads.job_parameters import size_of, to_text
from airflow_dbjobs.payloads.rules.parameters import MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

log = logging.getLogger(__name__)

# The API accepts either job_parameters for a run, or these.
OTHER_PARAMETERS = (
    "jar_params",
    "notebook_params",
    "python_params",
    "spark_submit_params",
    "python_named_params",
    "sql_params",
    "dbt_commands",
    "pipeline_params",
)
# For each type of task the field with named parameters, and the fields that exclude it.
NAMED_PARAMETERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "notebook_task": ("base_parameters", ()),
    "python_wheel_task": ("named_parameters", ("parameters",)),
    "sql_task": ("parameters", ("alert",)),
    "run_job_task": ("job_parameters", OTHER_PARAMETERS),
}
_VALID_NAME = re.compile(r"[A-Za-z0-9_.-]+")


def with_job_parameters(payload: Mapping[str, Any], params: Mapping[str, Any], api_version: str) -> dict[str, Any]:
    """Return the body of a run-now request with `params` as its ``job_parameters``.

    Returns it unchanged if it has parameters of any kind, if `params` are too large, or with API 2.0, which has no job
    parameters.
    """
    if api_version == "2.0" or any(name in payload for name in ("job_parameters", *OTHER_PARAMETERS)):
        return dict(payload)
    forwarded = _to_texts(params)
    if not forwarded or _is_too_large(forwarded, "a run"):
        return dict(payload)
    log.info("Forwarding the DAG's params as job_parameters: %s", ", ".join(forwarded))
    return {**payload, "job_parameters": forwarded}


def with_parameters(payload: Mapping[str, Any], params: Mapping[str, Any], api_version: str) -> dict[str, Any]:
    """Return a job's settings with `params` as its ``parameters``, unless it has some; not with API 2.0."""
    forwarded = _to_texts(params)
    if api_version == "2.0" or payload.get("parameters") or not forwarded:
        return dict(payload)
    return {**payload, "parameters": [{"name": name, "default": text} for name, text in forwarded.items()]}


def with_task_parameters(payload: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of a runs/submit request with `params` in each task that has no parameters but accepts some."""
    forwarded = _to_texts(params)
    if not forwarded:
        return dict(payload)
    return change_tasks(payload, lambda task: _fill_task(task, forwarded))


def change_tasks(payload: Mapping[str, Any], change: Callable[[Mapping[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """Return a payload after `change` of what may be a task: itself, each of its tasks, and those in loops."""
    changed = dict(change(payload))
    tasks, loop = changed.get("tasks"), changed.get("for_each_task")
    if isinstance(tasks, list):
        changed["tasks"] = [change_tasks(task, change) if isinstance(task, dict) else task for task in tasks]
    if isinstance(loop, dict) and isinstance(loop.get("task"), dict):
        changed["for_each_task"] = {**loop, "task": change_tasks(loop["task"], change)}
    return changed


def _fill_task(task: Mapping[str, Any], params: Mapping[str, str]) -> dict[str, Any]:
    filled = dict(task)
    for kind, (field, excluding) in NAMED_PARAMETERS.items():
        settings = filled.get(kind)
        if not isinstance(settings, dict) or any(name in settings for name in (field, *excluding)):
            continue
        if field == "job_parameters" and _is_too_large(params, f"the job of task {filled.get('task_key') or kind}"):
            continue
        filled[kind] = {**settings, field: dict(params)}
    return filled


def _is_too_large(params: Mapping[str, str], recipient: str) -> bool:
    """Return whether the API would reject these ``job_parameters``, and warn if so."""
    size = size_of(params)
    if size <= MAX_BYTES:
        return False
    log.warning(
        "The DAG's params are not forwarded to %s: they have %d bytes, and the API accepts %d.",
        recipient,
        size,
        MAX_BYTES,
    )
    return True


def _to_texts(params: Mapping[str, Any]) -> dict[str, str]:
    """Return params as strings, which the API requires, without those that have no value or an invalid name."""
    texts = {name: to_text(value) for name, value in params.items() if value is not None}
    if invalid := [name for name in texts if not _VALID_NAME.fullmatch(name)]:
        log.warning(
            "These params are not forwarded, because the API does not accept their names: %s",
            ", ".join(map(repr, invalid)),
        )
    return {name: text for name, text in texts.items() if name not in invalid}
