"""What a finished run returned, put together from ``runs/get-output`` of its tasks."""

from __future__ import annotations

import json
import logging
import math
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_dbjobs.client.models import Outcome
from airflow_dbjobs.client.response_fields import identifier
from airflow_dbjobs.client.wait import patiently
from airflow_dbjobs.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.client.models import Run
    from airflow_dbjobs.payloads import RunOutput

T = TypeVar("T")

log = logging.getLogger(__name__)

# XCom is kept in Airflow's database and read by every task that takes it.
MAX_RESULT_BYTES = 1_000_000
# By these keys Airflow's XCom knows what it has serialized itself; it refuses them, and what is deeper than this.
_RESERVED = frozenset({"__classname__", "__id__", "__type", "__var"})
_DEEPEST = 100
# Of what a SQL task tells: the text may hold what is not for all who may read an XCom.
_NOT_TOLD = frozenset({"query_text", "sql_statements"})


def result_of(client: JobsClient, run: Run, *, max_bytes: int = MAX_RESULT_BYTES) -> Any:
    """Return what a successful run returned; None where that is nothing.

    For a run of several tasks a dict by task key, of those that succeeded and returned something. What a task returns
    depends on its type:

    - notebook: what it passed to ``dbutils.notebook.exit``, parsed if it is a JSON object or list;
    - condition: ``"true"`` or ``"false"``;
    - for each: how many of its iterations there were, succeeded, failed ...;
    - run job: the ``run_id`` of the job's run, and as ``result`` what that returned;
    - SQL: links to the output, the state of an alert; alert: its state;
    - dbt: the ``run_id`` by which its artifacts can be asked for: the link to them is a secret, and stays where it is;
    - others: nothing.

    What is larger than `max_bytes` is cut, and then text, with a warning that names the size. An output that
    may not be read is left out with a warning: the run succeeded. Raises ``errors.CallError`` where the API gives no
    usable answer.
    """
    values = _values(client, run)
    if not values:
        return None
    if len(run.tasks) > 1:
        return _fitted(values, run, max_bytes)
    return next(iter(_fitted(values, run, max_bytes).values()))


def _values(client: JobsClient, run: Run) -> dict[str, Any]:
    """Return by task key what the tasks returned that succeeded and returned something."""
    if not run.tasks:
        # The flat form of API 2.0.
        value = _value(client, run.run_id, run.raw.get("task") or {})
        return {} if value is None else {"": value}
    values = {
        task.task_key: _value(client, task.run_id, task.raw)
        for task in run.tasks
        if task.state.outcome is Outcome.SUCCESS
    }
    return {key: value for key, value in values.items() if value is not None}


def _value(client: JobsClient, run_id: int, task: Mapping[str, Any]) -> Any:
    """Return what a task returned; None with a warning where that is not what the reference says: the run succeeded."""
    try:
        return _told(client, run_id, task)
    except (AttributeError, TypeError, ValueError, KeyError) as error:
        log.warning(
            "The output of run %d is not as the reference says, so nothing is returned for it: %r", run_id, error
        )
        return None


def _told(client: JobsClient, run_id: int, task: Mapping[str, Any]) -> Any:
    if condition := task.get("condition_task"):
        return condition.get("outcome")
    if loop := task.get("for_each_task"):
        return (loop.get("stats") or {}).get("task_run_stats")
    if not run_id:
        return None
    if "dbt_task" in task:
        return {"run_id": run_id}
    read = next((read for name, read in _READERS.items() if name in task), None)
    output = _readable(client, run_id, lambda: client.get_run_output(run_id)) if read else None
    return read(client, run_id, output) if read and output else None


def _exit_value(_client: JobsClient, run_id: int, output: RunOutput) -> Any:
    notebook = output.get("notebook_output") or {}
    if notebook.get("truncated"):
        log.warning("The API cut the result of run %d: it returns the first 5 MB only.", run_id)
    text = notebook.get("result")
    if not isinstance(text, str):
        return text
    text = _in_whole_characters(text)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    # Of a number or a word the text is what the notebook passed: 1.10 stays 1.10.
    return value if isinstance(value, dict | list) and _is_storable(value) else text


def _is_storable(value: Any, depth: int = 0) -> bool:
    """Whether XCom can keep what JSON told: Python reads more than JSON has, and Airflow keeps less."""
    if isinstance(value, dict):
        fits = depth < _DEEPEST and _RESERVED.isdisjoint(value)
        return fits and all(_is_storable(key) and _is_storable(item, depth + 1) for key, item in value.items())
    if isinstance(value, list):
        return depth < _DEEPEST and all(_is_storable(item, depth + 1) for item in value)
    if isinstance(value, str):
        # JSON can spell as escapes what no text holds.
        return value == _in_whole_characters(value)
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, int) or -(2**63) <= value < 2**63


def _in_whole_characters(text: str) -> str:
    """Return a text without half characters, which no database holds, and without NUL, which PostgreSQL does not."""
    return text.encode(errors="replace").decode().replace("\0", "?")


def _of_job(client: JobsClient, _run_id: int, output: RunOutput) -> Any:
    found = (output.get("run_job_output") or {}).get("run_id")
    if not found:
        return None
    child_id = identifier(found)
    # A job may run a job that runs a job; none runs itself.
    child = _readable(client, child_id, lambda: client.get_run(child_id))
    values = _values(client, child) if child else {}
    several = child is not None and len(child.tasks) > 1
    return {"run_id": child_id, "result": values if values and several else next(iter(values.values()), None)}


def _of_sql(_client: JobsClient, _run_id: int, output: RunOutput) -> Any:
    answer = output.get("sql_output")
    parts = answer.values() if isinstance(answer, dict) else ()
    found = next((value for value in parts if isinstance(value, dict)), {})
    return {name: value for name, value in found.items() if name not in _NOT_TOLD} or None


def _of_alert(_client: JobsClient, _run_id: int, output: RunOutput) -> Any:
    answer = output.get("alert_output")
    state = answer.get("alert_state") if isinstance(answer, dict) else None
    return {"alert_state": state} if state else None


_READERS: dict[str, Callable[[JobsClient, int, RunOutput], Any]] = {
    "notebook_task": _exit_value,
    "run_job_task": _of_job,
    "sql_task": _of_sql,
    "alert_task": _of_alert,
}


def _readable(client: JobsClient, run_id: int, ask: Callable[[], T]) -> T | None:
    """Return what `ask` returns, None with a warning where the API refuses it: the run succeeded all the same."""

    def asked() -> T | None:
        try:
            return ask()
        except ApiError as error:
            if error.transient:
                raise
            log.warning("The output of run %d cannot be read, so nothing is returned for it: %s", run_id, error)
            return None

    return patiently(client, asked, run_id)


def _fitted(values: dict[str, Any], run: Run, max_bytes: int) -> dict[str, Any]:
    """If the values together are larger than `max_bytes`, cut those that are larger than an equal part of it."""
    sizes = {key: len(_bytes(value)) for key, value in values.items()}
    if (size := sum(sizes.values())) <= max_bytes:
        return values
    share = max_bytes // len(values)
    large = [key for key in values if sizes[key] > share]
    log.warning(
        "The result of run %d has %d bytes, more than the %d that max_result_bytes lets into XCom: %scut, and"
        " returned as text. Let the run write large results to a table or a file, and return where they are. %s",
        run.run_id,
        size,
        max_bytes,
        f"{', '.join(large)}: " if len(values) > 1 else "",
        run.page_url,
    )
    return {key: _cut(value, share) if key in large else value for key, value in values.items()}


def _cut(value: Any, size: int) -> str:
    return _bytes(value)[:size].decode(errors="ignore")


def _bytes(value: Any) -> bytes:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.encode(errors="replace")
