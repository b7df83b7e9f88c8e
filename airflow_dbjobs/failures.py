"""Why a finished run failed, in words, put together from ``runs/get-output`` of its tasks."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_dbjobs.causes import error_of
from airflow_dbjobs.errors import CallError
from airflow_dbjobs.retries import RetryPolicy
from airflow_dbjobs.runs import Outcome
from airflow_dbjobs.texts import cleaned, tail

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_dbjobs.client import JobsClient
    from airflow_dbjobs.errors import RunFailed
    from airflow_dbjobs.runs import Run, RunState

log = logging.getLogger(__name__)

TRACE_TAIL_LINES = 20
LOG_TAIL_LINES = 20
# A run may have a thousand tasks; a message that names the first failures is read, and costs a call each.
MOST_TASKS_EXPLAINED = 10
# The failure is known already: an API that is down may delay its explanation a little, not by the usual ten minutes a
# call.
EXPLANATION_POLICY = RetryPolicy(retry_budget=15.0, server_error_wait=5.0, read_timeout=15.0)
_LAUNCH_WAS_SKIPPED = (
    "It never started: its job was at max_concurrent_runs. Raise that limit, turn on the job's queue, or take"
    " on_skipped='skip' to skip the task instead."
)


def failure_of(client: JobsClient, run: Run, *, if_skipped: str = _LAUNCH_WAS_SKIPPED) -> RunFailed:
    """Return the error for a run that did not succeed: its states, and each failed task's key, error, trace and page.

    The ends of what its Python and JAR tasks printed are logged: more than an error should carry about, and may hold
    what is not for all who read of it. What explains the failure may itself be unreadable (forbidden, the API down):
    then the error says so and stays the run's. `if_skipped` says what a run of the state SKIPPED means here.
    """
    lines = [f"Run {run.run_id}{_job(run)} {_verb(run.state)} ({run.state}): {run.state.message or 'no message'}"]
    failed = run.failed_tasks
    quick = client.with_policy(EXPLANATION_POLICY)
    for task in failed[:MOST_TASKS_EXPLAINED]:
        lines.append(f"Task {task.task_key} ({task.state}, run {task.run_id}): {task.page_url}".rstrip(": "))
        lines += _explanation(quick, task.run_id, task.state, f"task {task.task_key}")
    if len(failed) > MOST_TASKS_EXPLAINED:
        lines.append(f"… and {len(failed) - MOST_TASKS_EXPLAINED} more failed tasks.")
    if not run.tasks and run.outcome is not Outcome.SKIPPED:
        lines += _explanation(quick, run.run_id, run.state, f"run {run.run_id}")
    quick.close()
    if run.outcome is Outcome.SKIPPED:
        lines.append(if_skipped)
    lines.append(f"See {run.page_url}" if run.page_url else "The API gave no page for it.")
    return error_of(run, cleaned("\n".join(lines)))


def partial_success_of(run: Run) -> str:
    """Return the warning for a run that succeeded although some of its tasks failed."""
    names = ", ".join(task.task_key for task in run.failed_tasks) or "unnamed"
    return f"Run {run.run_id} succeeded, but some of its tasks failed: {names}. {run.page_url}".rstrip()


def _verb(state: RunState) -> str:
    return {
        Outcome.TIMED_OUT: "reached its timeout",
        Outcome.CANCELED: "was cancelled",
        Outcome.SKIPPED: "was skipped",
        Outcome.PARTIAL_SUCCESS: "succeeded in part",
    }.get(state.outcome, "failed")


def _job(run: Run) -> str:
    return f" of job {run.job_id}" if run.job_id else ""


def _explanation(client: JobsClient, run_id: int, state: RunState, name: str) -> list[str]:
    """Return lines that say why one task run failed; log the last ones of what it printed."""
    if not run_id:
        return _indented([state.message])
    try:
        output = client.get_run_output(run_id)
    except CallError as error:
        return _indented([state.message, f"(no output: {error})"])
    if printed := tail(str(output.logs or ""), LOG_TAIL_LINES):
        log.info("The end of what %s printed:\n%s", name, "\n".join(_indented(printed)))
    reason = str(output.error or state.message or "no error given")
    return _indented([reason, *tail(str(output.error_trace or "").strip(), TRACE_TAIL_LINES)])


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"    {line}" for text in lines if text for line in text.splitlines()]
