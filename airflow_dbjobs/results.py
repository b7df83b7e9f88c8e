"""What a finished run returned, or why it failed, put together from ``runs/get-output`` of its tasks."""

from __future__ import annotations

import json
import logging
import re
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.errors import ApiError, CallError, RunFailed
from airflow_dbjobs.retries import RetryPolicy
from airflow_dbjobs.runs import NEVER_RAN, Outcome, RunState
from airflow_dbjobs.waiting import patiently

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_dbjobs.client import JobsClient
    from airflow_dbjobs.payloads import RunOutput
    from airflow_dbjobs.runs import Run, TaskRun

log = logging.getLogger(__name__)

TRACE_TAIL_LINES = 20
# A run may have a thousand tasks; a message that names the first failures is read, and costs a call each.
MOST_TASKS_EXPLAINED = 10
# The failure is known already: an API that is down may delay its explanation a little, not by the usual ten minutes a
# call.
EXPLANATION_POLICY = RetryPolicy(retry_budget=15.0, server_error_wait=5.0, read_timeout=15.0)

# Colours, other control sequences and hyperlinks of a terminal.
_ANSI_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))")
_LAUNCH_WAS_SKIPPED = (
    "It never started: its job was at max_concurrent_runs. Raise that limit, turn on the job's queue, or take"
    " on_skipped='skip' to skip the task instead."
)


def result_of(client: JobsClient, run: Run) -> Any:
    """Return what a successful run returned: what its notebook passed to ``dbutils.notebook.exit``, parsed if JSON.

    For a run of several tasks a dict of those values by task key. None where nothing was returned. An output that may
    not be read is left out with a warning: the run succeeded. Raises ``errors.CallError`` where the API gives no
    usable answer.
    """
    notebooks = [task for task in run.tasks if "notebook_task" in task.raw and task.state.outcome is Outcome.SUCCESS]
    if not run.tasks:
        return _exit_value(client, run.run_id) if "notebook_task" in (run.raw.get("task") or {}) else None
    if len(run.tasks) == 1:
        return _exit_value(client, notebooks[0].run_id) if notebooks else None
    values = {task.task_key: _exit_value(client, task.run_id) for task in notebooks}
    return {key: value for key, value in values.items() if value is not None} or None


def failure_of(client: JobsClient, run: Run, *, if_skipped: str = _LAUNCH_WAS_SKIPPED) -> RunFailed:
    """Return the error for a run that did not succeed: its states, and each failed task's key, error, trace and page.

    What explains the failure may itself be unreadable (forbidden, the API down): then the error says so and stays the
    run's. `if_skipped` says what a run of the state SKIPPED means here.
    """
    lines = [f"Run {run.run_id}{_job(run)} {_verb(run.state)} ({run.state}): {run.state.message or 'no message'}"]
    failed = failed_tasks(run)
    quick = client.with_policy(EXPLANATION_POLICY)
    for task in failed[:MOST_TASKS_EXPLAINED]:
        lines.append(f"Task {task.task_key} ({task.state}, run {task.run_id}): {task.page_url}".rstrip(": "))
        lines += _explanation(quick, task.run_id, task.state)
    if len(failed) > MOST_TASKS_EXPLAINED:
        lines.append(f"… and {len(failed) - MOST_TASKS_EXPLAINED} more failed tasks.")
    if not run.tasks and run.outcome is not Outcome.SKIPPED:
        lines += _explanation(quick, run.run_id, run.state)
    quick.close()
    if run.outcome is Outcome.SKIPPED:
        lines.append(if_skipped)
    lines.append(f"See {run.page_url}" if run.page_url else "The API gave no page for it.")
    return run.failure(_ANSI_ESCAPE.sub("", "\n".join(lines)))


def partial_success_of(run: Run) -> str:
    """Return the warning for a run that succeeded although some of its tasks failed."""
    names = ", ".join(task.task_key for task in failed_tasks(run)) or "unnamed"
    return f"Run {run.run_id} succeeded, but some of its tasks failed: {names}. {run.page_url}".rstrip()


def failed_tasks(run: Run) -> list[TaskRun]:
    """Return the tasks that failed by themselves, not those that another's failure kept from running."""
    return [
        task
        for task in run.tasks
        if task.state.is_terminal
        and task.state.outcome not in {Outcome.SUCCESS, Outcome.PARTIAL_SUCCESS, Outcome.SKIPPED}
        # They explain nothing.
        and task.state.result_state not in NEVER_RAN
    ]


def _verb(state: RunState) -> str:
    return {
        Outcome.TIMED_OUT: "reached its timeout",
        Outcome.CANCELED: "was cancelled",
        Outcome.SKIPPED: "was skipped",
        Outcome.PARTIAL_SUCCESS: "succeeded in part",
    }.get(state.outcome, "failed")


def _job(run: Run) -> str:
    return f" of job {run.job_id}" if run.job_id else ""


def _explanation(client: JobsClient, run_id: int, state: RunState) -> list[str]:
    """Return lines that say why one task run failed."""
    if not run_id:
        return _indented([state.message])
    try:
        output = client.get_run_output(run_id)
    except CallError as error:
        return _indented([state.message, f"(no output: {error})"])
    reason = str(output.error or state.message or "no error given")
    trace = str(output.error_trace or "").strip().splitlines()
    if len(trace) > TRACE_TAIL_LINES:
        trace = ["…", *trace[-TRACE_TAIL_LINES:]]
    return _indented([reason, *trace])


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"    {line}" for text in lines if text for line in text.splitlines()]


def _exit_value(client: JobsClient, run_id: int) -> Any:
    output = patiently(client, lambda: _readable_output(client, run_id), run_id) if run_id else None
    if not output or not output.notebook_output:
        return None
    if output.notebook_output.truncated:
        log.warning("The API cut the result of run %d: it returns the first 5 MB only.", run_id)
    text = output.notebook_output.result
    if not isinstance(text, str):
        return text
    try:
        value = json.loads(text)
        # Python reads more than JSON can hold (NaN, numbers that are too large); XCom could not store that.
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return text
    return value


def _readable_output(client: JobsClient, run_id: int) -> RunOutput | None:
    """Return the output of a task run, None with a warning where the API refuses it: the run succeeded all the same."""
    try:
        return client.get_run_output(run_id)
    except ApiError as error:
        if error.transient:
            raise
        log.warning("The output of run %d cannot be read, so nothing is returned for it: %s", run_id, error)
        return None
