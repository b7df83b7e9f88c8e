"""Request bodies: how they are put together, and the rules of the API that need no server to check.

This release checks what would make a launch meaningless: which task, which job. Ids such as TASK-ONE name a rule in
messages.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from typing import Any

from airflow_dbjobs.errors import ConfigurationError, PayloadError

TASK_TYPES = (
    "notebook_task",
    "spark_python_task",
    "spark_jar_task",
    "spark_submit_task",
    "python_wheel_task",
    "sql_task",
    "dbt_task",
    "pipeline_task",
    "run_job_task",
    "condition_task",
    "for_each_task",
    "alert_task",
    "dashboard_task",
    "power_bi_task",
    "dbt_platform_task",
    "clean_rooms_notebook_task",
    "ai_runtime_task",
    "gen_ai_compute_task",
    "python_operator_task",
)
MAX_TOKEN_LENGTH = 64


def merge(body: object, named: Mapping[str, Any]) -> dict[str, Any]:
    """Return the payload made of an operator's ``json`` and its named parameters; a named one that is not None wins.

    `body` is a mapping, None, or the text of one as Jinja renders it (JSON, or a Python literal). JSON types are
    kept, None values are dropped at any depth. Raises ConfigurationError for anything else.
    """
    payload = {**_mapping(body), **{name: value for name, value in named.items() if value is not None}}
    return {str(name): _plain(value, str(name)) for name, value in payload.items() if value is not None}


def check_submit(payload: Mapping[str, Any]) -> None:
    """Check a ``jobs/runs/submit`` payload. Raises PayloadError, listing all violations."""
    violations = _token_violations(payload)
    tasks = payload.get("tasks")
    flat = _task_types(payload)
    if tasks is not None and flat:
        violations.append(
            f"- tasks, {', '.join(flat)} [TASK-FLAT-XOR-LIST]: give a list of tasks or one task's fields, not both."
        )
    elif tasks is None:
        violations += _task_violations(payload, "the payload", "")
    elif not isinstance(tasks, Sequence) or isinstance(tasks, str) or not tasks:
        violations.append(f"- tasks [TASK-ONE]: must be a list of at least one task, and is {_brief(tasks)}.")
    else:
        for index, task in enumerate(tasks):
            violations += _task_violations(task, f"tasks[{index}]", f"tasks[{index}].")
    if violations:
        raise PayloadError("jobs/runs/submit", violations)


def check_run_now(payload: Mapping[str, Any]) -> None:
    """Check a ``jobs/run-now`` payload, in which a ``job_name`` may still stand for the ``job_id``.

    Raises PayloadError, listing all violations.
    """
    violations = _token_violations(payload)
    job_id, job_name = payload.get("job_id"), payload.get("job_name")
    if job_id is not None and job_name:
        violations.append(
            f"- job_id={job_id!r}, job_name={job_name!r} [REQ-JOB-ID]: both name the job to run; leave one of them out."
        )
    elif job_id is None and not job_name:
        violations.append("- job_id [REQ-JOB-ID]: missing. Give the job's id, or its job_name.")
    elif job_id is not None and not _is_id(job_id):
        violations.append(f"- job_id [REQ-JOB-ID]: must be a positive integer, and is {job_id!r}.")
    if violations:
        raise PayloadError("jobs/run-now", violations)


def _task_violations(task: object, where: str, prefix: str) -> list[str]:
    if not isinstance(task, Mapping):
        return [f"- {where} [TASK-ONE]: must be a mapping, and is {_brief(task)}."]
    types = _task_types(task)
    if not types:
        some = ", ".join(TASK_TYPES[:5])
        return [
            f"- {where} [TASK-ONE]: says of no task what to run. Give one of {some}, … or a list of tasks as tasks."
        ]
    if len(types) > 1:
        return [
            f"- {prefix}{types[0]}, {prefix}{types[1]} [TASK-ONE]: a task has exactly one type; leave one of them out."
        ]
    definition = task[types[0]]
    if not isinstance(definition, Mapping):
        return [f"- {prefix}{types[0]} [REQ-FIELD-TYPE]: must be a mapping, and is {_brief(definition)}."]
    return []


def _task_types(task: Mapping[str, Any]) -> list[str]:
    """Return the keys that say what a task runs; a type that is newer than this release counts by its name."""
    return sorted(key for key in task if key in TASK_TYPES or str(key).endswith("_task"))


def _token_violations(payload: Mapping[str, Any]) -> list[str]:
    token = payload.get("idempotency_token")
    if token is None or len(str(token)) <= MAX_TOKEN_LENGTH:
        return []
    length = f"has {len(str(token))} characters, at most {MAX_TOKEN_LENGTH} are allowed"
    return [f"- idempotency_token [TOKEN-LENGTH]: {length}. Leave it out to have one made."]


def _is_id(value: object) -> bool:
    """Whether `value` is an INT64 id; the API accepts its digits as a string too."""
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _mapping(body: object) -> dict[str, Any]:
    if body is None or body == "":
        return {}
    if isinstance(body, str):
        body = _parse(body)
    if isinstance(body, Mapping):
        return dict(body)
    raise ConfigurationError(f"json must be a mapping, or the text of one, and is {_brief(body)}.")


def _parse(text: str) -> object:
    text = text.strip()
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        pass
    try:
        # What classic Jinja makes of a dict: its repr.
        return ast.literal_eval(text)
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        # Neither the text nor Python's error, which quotes it: it may hold secrets.
        raise ConfigurationError(
            f"json is a text of {len(text)} characters that is neither JSON nor a Python literal."
            " Check how its template renders."
        ) from None


def _plain(value: object, path: str) -> Any:
    """Return `value` as what JSON can hold, with None values of mappings dropped."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{path}.{key}") for key, item in value.items() if item is not None}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [_plain(item, f"{path}[{index}]") for index, item in enumerate(value)]
    raise ConfigurationError(
        f"{path} is a {type(value).__name__}, which JSON cannot hold. Give a string, number, boolean, list or mapping."
    )


def _brief(value: object) -> str:
    """Name a value's type; the value itself may be a whole payload, and hold secrets."""
    return f"of type {type(value).__name__}"
