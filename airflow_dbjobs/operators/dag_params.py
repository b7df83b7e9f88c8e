"""The params of a DAG as parameters of a run, where the run is given none."""

from __future__ import annotations

import json
import logging
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)

# The API takes a run's job_parameters or these.
_OTHERS = (
    "jar_params",
    "notebook_params",
    "python_params",
    "spark_submit_params",
    "python_named_params",
    "sql_params",
    "dbt_commands",
    "pipeline_params",
)
# Where a task of a one-time run takes parameters by name, and beside which of its fields it takes none.
_FIELDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "notebook_task": ("base_parameters", ()),
    "python_wheel_task": ("named_parameters", ("parameters",)),
    "sql_task": ("parameters", ("alert",)),
    "run_job_task": ("job_parameters", _OTHERS),
}
_NAME = re.compile(r"[A-Za-z0-9_.-]+")
MAX_BYTES = 10_000


def with_job_parameters(payload: Mapping[str, Any], params: Mapping[str, Any], api_version: str) -> dict[str, Any]:
    """Return the body of a run-now with `params` as its ``job_parameters``, unless the API would refuse that.

    It would beside other parameters, and in 2.0, which has none of a job.
    """
    if api_version == "2.0" or any(name in payload for name in ("job_parameters", *_OTHERS)):
        return dict(payload)
    forwarded = _texts(params)
    if not forwarded:
        return dict(payload)
    if _is_too_large(forwarded, "a run"):
        return dict(payload)
    log.info("Forwarding the DAG's params as job_parameters: %s", ", ".join(forwarded))
    return {**payload, "job_parameters": forwarded}


def with_parameters(payload: Mapping[str, Any], params: Mapping[str, Any], api_version: str) -> dict[str, Any]:
    """Return a job's settings with `params` as its ``parameters``, unless it has some; 2.0 knows none."""
    forwarded = _texts(params)
    if api_version == "2.0" or payload.get("parameters") or not forwarded:
        return dict(payload)
    return {**payload, "parameters": [{"name": name, "default": text} for name, text in forwarded.items()]}


def with_task_parameters(payload: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of a runs/submit with `params` in each task that takes parameters by name and has none."""
    forwarded = _texts(params)
    if not forwarded:
        return dict(payload)
    made = _filled(payload, forwarded)
    tasks = payload.get("tasks")
    if isinstance(tasks, list):
        made["tasks"] = [_filled(task, forwarded) if isinstance(task, dict) else task for task in tasks]
    return made


def _filled(task: Mapping[str, Any], params: Mapping[str, str]) -> dict[str, Any]:
    made = dict(task)
    for kind, (field, others) in _FIELDS.items():
        given = made.get(kind)
        if not isinstance(given, dict) or any(name in given for name in (field, *others)):
            continue
        if field == "job_parameters" and _is_too_large(params, f"the job of task {made.get('task_key') or kind}"):
            continue
        made[kind] = {**given, field: dict(params)}
    loop = made.get("for_each_task")
    if isinstance(loop, dict) and isinstance(loop.get("task"), dict):
        made["for_each_task"] = {**loop, "task": _filled(loop["task"], params)}
    return made


def _is_too_large(params: Mapping[str, str], whom: str) -> bool:
    """Whether the API would refuse these as ``job_parameters``, the name counted in; a warning says so."""
    size = len(json.dumps({"job_parameters": params}, ensure_ascii=False, separators=(",", ":")).encode())
    if size <= MAX_BYTES:
        return False
    log.warning(
        "The DAG's params are not forwarded to %s: they have %d bytes, and %d are allowed.", whom, size, MAX_BYTES
    )
    return True


def _texts(params: Mapping[str, Any]) -> dict[str, str]:
    """Return params as the API takes them, as strings; those without a value, or whose names it does not take, not."""
    texts = {name: _text(value) for name, value in params.items() if value is not None}
    if odd := [name for name in texts if not _NAME.fullmatch(name)]:
        log.warning("Not forwarded, since parameters have no such names: %s", ", ".join(map(repr, odd)))
    return {name: text for name, text in texts.items() if name not in odd}


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
