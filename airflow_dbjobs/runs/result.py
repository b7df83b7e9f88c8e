"""The result of a successful run, as a task returns it, from ``runs/get-output`` of the run's tasks."""

from __future__ import annotations

import json
import logging
import math
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_dbjobs.client.models import Outcome
from airflow_dbjobs.client.response_fields import identifier
from airflow_dbjobs.client.wait import retry_through_outages
from airflow_dbjobs.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.client.models import Run
    from airflow_dbjobs.payloads import RunOutput

T = TypeVar("T")

log = logging.getLogger(__name__)

# XComs are stored in Airflow's database, and read by every task that uses them.
MAX_RESULT_BYTES = 1_000_000
# What a notebook returns as an object with this key alone is the value in it, of any type that JSON has.
RETURN_VALUE_KEY = "airflow_return_value"
# Airflow marks values that it has serialized itself with these keys, so it rejects them in values, and deeper nesting.
_RESERVED_KEYS = frozenset({"__classname__", "__id__", "__type", "__var"})
_MAX_DEPTH = 100
# The text of a query may be confidential to users who may read the XCom.
_OMITTED_SQL_FIELDS = frozenset({"query_text", "sql_statements"})


def run_result(client: JobsClient, run: Run, *, max_bytes: int = MAX_RESULT_BYTES) -> Any:
    """Return what a successful run returned, or None if it returned nothing.

    A run of several tasks returns a dict by task key, of the tasks that succeeded and returned something. What a task
    returns depends on its type:

    - notebook: what it passed to ``dbutils.notebook.exit``, parsed if it is a JSON object or list;
    - condition: ``"true"`` or ``"false"``;
    - for each: the numbers of its iterations: in total, succeeded, failed, ...;
    - run job: the ``run_id`` of the other job's run, and as ``result`` what that returned;
    - SQL: links to the output, the state of an alert; alert: its state;
    - dbt: the ``run_id`` with which its artifacts can be read; the link to them is a secret, and not returned;
    - others: nothing.

    A result of more than `max_bytes` is truncated, which makes it text, and a warning gives its size. An output that
    the API refuses to return is omitted with a warning, because the run has succeeded. Raises RunLost if reading it
    failed for too long.
    """
    values = _task_values(client, run)
    if not values:
        return None
    values = _truncated(values, run, max_bytes)
    return values if len(run.tasks) > 1 else next(iter(values.values()))


def read_success(
    client: JobsClient, *, run_id: int, max_bytes: int | None, attempt: int | None = None
) -> tuple[Run, Any] | None:
    """Return a run that has succeeded, with its result (None if `max_bytes` is None); None if it has not (yet).

    With `attempt`, only that task run of the run is meant; None if another attempt at the task has followed it.
    """
    run = client.get_run(run_id)
    if attempt is not None:
        task = next((task for task in run.tasks if task.run_id == attempt), None)
        if task is None:
            return None
        run = run.only(task)
    if run.outcome is not Outcome.SUCCESS:
        return None
    return run, None if max_bytes is None else run_result(client, run, max_bytes=max_bytes)


def _task_values(client: JobsClient, run: Run) -> dict[str, Any]:
    """Return by task key what the tasks returned that succeeded and returned something."""
    if not run.tasks:
        # In API 2.0 a run has no list of tasks.
        value = _task_value(client, run.run_id, run.raw.get("task") or {})
        return {} if value is None else {"": value}
    values = {
        task.task_key: _task_value(client, task.run_id, task.raw)
        for task in run.tasks
        if task.state.outcome is Outcome.SUCCESS
    }
    return {key: value for key, value in values.items() if value is not None}


def _task_value(client: JobsClient, run_id: int, task: Mapping[str, Any]) -> Any:
    """Return what a task returned; None with a warning if its output is malformed, because the run has succeeded."""
    try:
        return _read_task_value(client, run_id, task)
    except (AttributeError, TypeError, ValueError, KeyError) as error:
        log.warning("The output of run %d is malformed, so the task returns no result for it: %r", run_id, error)
        return None


def _read_task_value(client: JobsClient, run_id: int, task: Mapping[str, Any]) -> Any:
    if condition := task.get("condition_task"):
        return condition.get("outcome")
    if loop := task.get("for_each_task"):
        return (loop.get("stats") or {}).get("task_run_stats")
    if not run_id:
        return None
    if "dbt_task" in task:
        return {"run_id": run_id}
    read = next((read for name, read in _READERS.items() if name in task), None)
    output = _none_if_refused(client, run_id, lambda: client.get_run_output(run_id)) if read else None
    return read(client, run_id, output) if read and output else None


def _notebook_value(_client: JobsClient, run_id: int, output: RunOutput) -> Any:
    notebook = output.get("notebook_output") or {}
    if notebook.get("truncated"):
        log.warning("The API truncated the result of run %d: it returns only the first 5 MB.", run_id)
    text = notebook.get("result")
    if not isinstance(text, str):
        return text
    text = _storable_text(text)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if isinstance(value, dict) and value.keys() == {RETURN_VALUE_KEY}:
        value = value[RETURN_VALUE_KEY]
        if isinstance(value, str):
            return _storable_text(value)
        return value if fits_xcom(value) else json.dumps(value)
    # Numbers and words stay as the notebook passed them: 1.10 must not become 1.1.
    return value if isinstance(value, dict | list) and fits_xcom(value) else text


def fits_xcom(value: Any, depth: int = 0) -> bool:
    """Return whether XCom can store a parsed value: Python parses more than JSON allows, and Airflow stores less."""
    if isinstance(value, dict):
        fits = depth < _MAX_DEPTH and _RESERVED_KEYS.isdisjoint(value)
        return fits and all(fits_xcom(key) and fits_xcom(item, depth + 1) for key, item in value.items())
    if isinstance(value, list):
        return depth < _MAX_DEPTH and all(fits_xcom(item, depth + 1) for item in value)
    if isinstance(value, str):
        # JSON escapes can spell characters that cannot be stored.
        return value == _storable_text(value)
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, int) or -(2**63) <= value < 2**63


def _storable_text(text: str) -> str:
    """Replace characters that databases cannot store: lone surrogates, and in PostgreSQL NUL."""
    return text.encode(errors="replace").decode().replace("\0", "?")


def _run_job_value(client: JobsClient, _run_id: int, output: RunOutput) -> Any:
    found = (output.get("run_job_output") or {}).get("run_id")
    if not found:
        return None
    child_id = identifier(found)
    # This ends: a job may run a job that runs a job, but none runs itself.
    child = _none_if_refused(client, child_id, lambda: client.get_run(child_id))
    values = _task_values(client, child) if child else {}
    has_several = child is not None and len(child.tasks) > 1
    return {"run_id": child_id, "result": values if values and has_several else next(iter(values.values()), None)}


def _sql_value(_client: JobsClient, _run_id: int, output: RunOutput) -> Any:
    answer = output.get("sql_output")
    parts = answer.values() if isinstance(answer, dict) else ()
    found = next((value for value in parts if isinstance(value, dict)), {})
    return {name: value for name, value in found.items() if name not in _OMITTED_SQL_FIELDS} or None


def _alert_value(_client: JobsClient, _run_id: int, output: RunOutput) -> Any:
    answer = output.get("alert_output")
    state = answer.get("alert_state") if isinstance(answer, dict) else None
    return {"alert_state": state} if state else None


_READERS: dict[str, Callable[[JobsClient, int, RunOutput], Any]] = {
    "notebook_task": _notebook_value,
    "run_job_task": _run_job_value,
    "sql_task": _sql_value,
    "alert_task": _alert_value,
}


def _none_if_refused(client: JobsClient, run_id: int, read: Callable[[], T]) -> T | None:
    """Return what `read` returns, or None with a warning if the API refuses it, because the run has succeeded."""

    def read_or_none() -> T | None:
        try:
            return read()
        except ApiError as error:
            if error.transient:
                raise
            log.warning(
                "The output of run %d could not be read, so the task returns no result for it: %s", run_id, error
            )
            return None

    return retry_through_outages(client, read_or_none, run_id, f"Reading the output of run {run_id}")


def _truncated(values: dict[str, Any], run: Run, max_bytes: int) -> dict[str, Any]:
    """If the values together have more than `max_bytes`, truncate those that have more than an equal share of it."""
    sizes = {key: len(_to_bytes(value)) for key, value in values.items()}
    if (total := sum(sizes.values())) <= max_bytes:
        return values
    share = max_bytes // len(values)
    large = [key for key in values if sizes[key] > share]
    log.warning(
        "The result of run %d has %d bytes, more than max_result_bytes (%d), so %s truncated and returned as text. Let"
        " the run write large results to a table or a file, and return their location. %s",
        run.run_id,
        total,
        max_bytes,
        f"the results of {', '.join(large)} were" if len(values) > 1 else "it was",
        run.page_url,
    )
    return {key: _truncate(value, share) if key in large else value for key, value in values.items()}


def _truncate(value: Any, size: int) -> str:
    return _to_bytes(value)[:size].decode(errors="ignore")


def _to_bytes(value: Any) -> bytes:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.encode(errors="replace")
