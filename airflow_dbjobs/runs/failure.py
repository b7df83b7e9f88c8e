"""Why a finished run failed, in words, put together from ``runs/get-output`` of its tasks."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_dbjobs.client.models import Outcome
from airflow_dbjobs.client.pagination import objects
from airflow_dbjobs.client.response_fields import count, identifier, part, prose, word
from airflow_dbjobs.client.retry import RetryPolicy
from airflow_dbjobs.client.sanitize import cleaned, tail
from airflow_dbjobs.errors import CallError
from airflow_dbjobs.runs.failure_cause import error_of, kind_of_child, kind_of_messages

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.client.models import Run, RunState, TaskRun
    from airflow_dbjobs.errors import RunFailed
    from airflow_dbjobs.payloads import RunOutput

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
    with client.with_policy(EXPLANATION_POLICY) as quick:
        explained = _Explanation(quick)
        lines = [_ending(run), *explained.of_tasks(run)]
        if not run.tasks and run.outcome is not Outcome.SKIPPED:
            lines += explained.of_run(run.run_id, run.state, f"run {run.run_id}")
    if run.outcome is Outcome.SKIPPED:
        lines.append(if_skipped)
    lines.append(f"See {run.page_url}" if run.page_url else "The API gave no page for it.")
    return error_of(run, cleaned("\n".join(lines)), explained.causes)


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


def _ending(run: Run) -> str:
    return f"Run {run.run_id}{_job(run)} {_verb(run.state)} ({run.state}): {run.state.message or 'no message'}"


class _Explanation:
    """Says why a run failed, and of what those tasks failed that ran others: jobs, iterations (`causes`)."""

    def __init__(self, client: JobsClient) -> None:
        self.causes: dict[int, type[RunFailed]] = {}
        self._client = client
        # Each costs a call, those of the jobs that a job runs among them.
        self._left = MOST_TASKS_EXPLAINED
        # No job can run itself, but a wrong answer could name a run that was told of.
        self._told: set[int] = set()

    def of_tasks(self, run: Run) -> list[str]:
        """Return lines for each failed task of a run."""
        self._told.add(run.run_id)
        failed = run.failed_tasks
        told, lines = failed[: max(self._left, 0)], []
        for task in told:
            self._left -= 1
            lines.append(f"Task {task.task_key} ({task.state}, run {task.run_id}): {task.page_url}".rstrip(": "))
            lines += self._of_iterations(task) or self.of_run(task.run_id, task.state, f"task {task.task_key}")
        if len(failed) > len(told):
            lines.append(f"… and {len(failed) - len(told)} more failed tasks.")
        return lines

    def of_run(self, run_id: int, state: RunState, name: str) -> list[str]:
        """Return lines that say why one task run failed; log the last ones of what it printed."""
        if not run_id:
            return _indented([state.message])
        try:
            output = self._client.get_run_output(run_id)
        except CallError as error:
            return _indented([state.message, f"(no output: {error})"])
        if printed := tail(str(output.logs or ""), LOG_TAIL_LINES):
            log.info("The end of what %s printed:\n%s", name, "\n".join(_indented(printed)))
        reason = str(output.error or state.message or "no error given")
        lines = _indented([reason, *tail(str(output.error_trace or "").strip(), TRACE_TAIL_LINES)])
        return lines + self._of_child(run_id, output)

    def _of_child(self, run_id: int, output: RunOutput) -> list[str]:
        """Return lines about the run of the job that a task ran; none where it ran no job, or that did not fail."""
        try:
            child_id = identifier(getattr(output.run_job_output, "run_id", None))
        except (TypeError, ValueError):
            return []
        if child_id in self._told:
            return []
        try:
            child = self._client.get_run(child_id)
        except CallError as error:
            return _indented([f"(run {child_id} of the job that it ran cannot be read: {error})"])
        if not child.is_terminal or child.state.is_success:
            return []
        lines = [_ending(child), *self.of_tasks(child)]
        if not child.tasks and child.outcome is not Outcome.SKIPPED:
            lines += self.of_run(child_id, child.state, f"run {child_id}")
        self.causes[run_id] = kind_of_child(child, self.causes)
        return _indented([*lines, f"See {child.page_url}" if child.page_url else ""])

    def _of_iterations(self, task: TaskRun) -> list[str]:
        """Return lines about the iterations that failed; none where the task has none, or does not tell of them."""
        try:
            stats = part(part(task.raw, "for_each_task"), "stats")
            counts = part(stats, "task_run_stats")
            told = [
                (count(item.get("count")), word(item.get("termination_category")), prose(item.get("error_message")))
                for item in objects(stats, "error_message_stats")
            ]
        except (TypeError, CallError):
            return []
        if kind := kind_of_messages((category, message) for _, category, message in told):
            self.causes[task.run_id] = kind
        failed, total = count(counts.get("failed_iterations")), count(counts.get("total_iterations"))
        lines = [f"{failed} of {total} iterations failed."] if failed else []
        return _indented([*lines, *(f"{times} times: {message}" for times, _, message in told[:MOST_TASKS_EXPLAINED])])


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"    {line}" for text in lines if text for line in text.splitlines()]
