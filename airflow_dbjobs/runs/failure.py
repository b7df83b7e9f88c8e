"""The error for a run that did not succeed, with a message that explains why, from ``runs/get-output`` of its tasks."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_dbjobs.client.models import Outcome, TaskRun
from airflow_dbjobs.client.pagination import objects
from airflow_dbjobs.client.response_fields import count, identifier, message_text, strict_name, strict_object
from airflow_dbjobs.client.retry import RetryPolicy
from airflow_dbjobs.client.sanitize import cleaned, tail
from airflow_dbjobs.errors import CallError
from airflow_dbjobs.runs.failure_cause import child_run_error_class, iterations_error_class, run_failed_error

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.client.models import Run, RunState
    from airflow_dbjobs.errors import RunFailed
    from airflow_dbjobs.payloads import RunOutput

log = logging.getLogger(__name__)

TRACE_TAIL_LINES = 20
LOG_TAIL_LINES = 20
# A run may have a thousand tasks. Each explanation costs a request, and a message that long would not be read.
MAX_EXPLAINED_TASKS = 10
# The failure itself is already known, so an API that is down must not delay the task for the usual 10 minutes.
EXPLANATION_POLICY = RetryPolicy(retry_budget=15.0, server_error_wait=5.0, read_timeout=15.0)
_LAUNCHED_RUN_SKIPPED = (
    "It never started: its job was at max_concurrent_runs. Raise that limit, turn on the job's queue, or set"
    " on_skipped='skip' to skip the task instead."
)


def explain_failure(client: JobsClient, run: Run, *, if_skipped: str = _LAUNCHED_RUN_SKIPPED) -> RunFailed:
    """Return the error for a run that did not succeed: its state, and each failed task's key, error, trace and page.

    The last lines that its Python and JAR tasks printed are logged rather than added to the error, because they are
    long and may be confidential. If the API does not return an explanation, the message says so. `if_skipped` is added
    to the message if the run was skipped.
    """
    with client.with_policy(EXPLANATION_POLICY) as quick:
        explanation = _Explanation(quick)
        lines = [_ending(run), *explanation.of_tasks(run)]
        if not run.tasks and run.outcome is not Outcome.SKIPPED:
            lines += explanation.of_run(run.run_id, run.state, f"run {run.run_id}")
    if run.outcome is Outcome.SKIPPED:
        lines.append(if_skipped)
    lines.append(f"See {run.page_url}" if run.page_url else "The API returned no page for it.")
    return run_failed_error(run, cleaned("\n".join(lines)), explanation.inner_errors)


def partial_success_warning(run: Run) -> str:
    """Return the warning for a run that succeeded although some of its tasks failed."""
    names = ", ".join(task.task_key for task in run.failed_tasks) or "unnamed"
    return f"Run {run.run_id} succeeded, but some of its tasks failed: {names}. {run.page_url}".rstrip()


def _verb(state: RunState) -> str:
    return {
        Outcome.TIMED_OUT: "reached its timeout",
        Outcome.CANCELED: "was cancelled",
        Outcome.SKIPPED: "was skipped",
        Outcome.PARTIAL_SUCCESS: "partially succeeded",
    }.get(state.outcome, "failed")


def _job(run: Run) -> str:
    return f" of job {run.job_id}" if run.job_id else ""


def _ending(run: Run) -> str:
    return f"Run {run.run_id}{_job(run)} {_verb(run.state)} ({run.state}): {run.state.message or 'no message'}"


class _Explanation:
    """Explains the failure of a run, and of the runs of other jobs that its tasks started.

    `inner_errors` maps the run id of a task that ran another job, or iterations, to the error class of their failure.
    """

    def __init__(self, client: JobsClient) -> None:
        self.inner_errors: dict[int, type[RunFailed]] = {}
        self._client = client
        # For the tasks of the run and of all its child runs together.
        self._explainable = MAX_EXPLAINED_TASKS
        # A job cannot run itself, but a wrong reply must not cause endless recursion.
        self._explained_runs: set[int] = set()

    def of_tasks(self, run: Run) -> list[str]:
        """Return lines for each failed task of a run."""
        self._explained_runs.add(run.run_id)
        failed = run.failed_tasks
        explained, lines = failed[: max(self._explainable, 0)], []
        for task in explained:
            self._explainable -= 1
            lines.append(f"Task {task.task_key} ({task.state}, run {task.run_id}): {task.page_url}".rstrip(": "))
            lines += self._of_iterations(task) or self.of_run(task.run_id, task.state, f"task {task.task_key}")
        if len(failed) > len(explained):
            lines.append(f"… and {len(failed) - len(explained)} more failed tasks.")
        return lines

    def of_run(self, run_id: int, state: RunState, name: str) -> list[str]:
        """Return lines that explain the failure of one task run, and log the last lines that it printed."""
        if not run_id:
            return _indented([state.message])
        try:
            output = self._client.get_run_output(run_id)
        except CallError as error:
            return _indented([state.message, f"(its output could not be read: {error})"])
        if printed := tail(str(output.get("logs") or ""), LOG_TAIL_LINES):
            log.info("The last lines of the output of %s:\n%s", name, "\n".join(_indented(printed)))
        reason = str(output.get("error") or state.message or "no error message")
        lines = _indented([reason, *tail(str(output.get("error_trace") or "").strip(), TRACE_TAIL_LINES)])
        return lines + self._of_child_run(run_id, output)

    def _of_child_run(self, run_id: int, output: RunOutput) -> list[str]:
        """Return lines about the run of another job that a task started, if that run failed."""
        try:
            child_id = identifier(strict_object(output, "run_job_output").get("run_id"))
        except (TypeError, ValueError):
            return []
        if child_id in self._explained_runs:
            return []
        try:
            child = self._client.get_run(child_id)
        except CallError as error:
            return _indented([f"(run {child_id}, which it started, could not be read: {error})"])
        if not child.is_terminal or child.state.is_success:
            return []
        lines = [_ending(child), *self.of_tasks(child)]
        if not child.tasks and child.outcome is not Outcome.SKIPPED:
            lines += self.of_run(child_id, child.state, f"run {child_id}")
        self.inner_errors[run_id] = child_run_error_class(child, self.inner_errors)
        return _indented([*lines, f"See {child.page_url}" if child.page_url else ""])

    def _of_iterations(self, task: TaskRun) -> list[str]:
        """Return lines about the failed iterations of a task, if it has iterations and the API describes them."""
        try:
            stats = strict_object(strict_object(task.raw, "for_each_task"), "stats")
            counts = strict_object(stats, "task_run_stats")
            failures = [
                (
                    count(item.get("count")),
                    strict_name(item.get("termination_category")),
                    message_text(item.get("error_message")),
                )
                for item in objects(stats, "error_message_stats")
            ]
        except (TypeError, CallError):
            return []
        if kind := iterations_error_class((category, message) for _, category, message in failures):
            self.inner_errors[task.run_id] = kind
        failed, total = count(counts.get("failed_iterations")), count(counts.get("total_iterations"))
        lines = [f"{failed} of {total} iterations failed."] if failed else []
        lines += [f"{times} times: {message}" for times, _, message in failures[:MAX_EXPLAINED_TASKS]]
        return _indented([task.state.message, *lines, *self._of_first_iteration(task)] if lines else [])

    def _of_first_iteration(self, task: TaskRun) -> list[str]:
        """Return lines about the first iteration of a task that failed in the end, if the API lists it."""
        try:
            listed = objects(self._client.get_run(task.run_id).raw, "iterations")
            iterations = [TaskRun.from_json(item) for item in listed]
        except (CallError, TypeError, ValueError) as error:
            return [f"(its iterations could not be read: {error})"]
        failed = [item for item in iterations if item.state.outcome in (Outcome.FAILED, Outcome.TIMED_OUT)]
        if not failed:
            return []
        # Each attempt is in the list, and an iteration that succeeded in the end has had fewer.
        first = max(failed, key=lambda item: item.attempt_number)
        line = f"Iteration {first.task_key} ({first.state}, run {first.run_id}): {first.page_url}".rstrip(": ")
        return [line, *self.of_run(first.run_id, first.state, f"iteration {first.run_id}")]


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"    {line}" for text in lines if text for line in text.splitlines()]
