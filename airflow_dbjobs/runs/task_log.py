"""What a task's log says about a run apart from its states: the states of its tasks, how it ended, how long it took."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_dbjobs.client.models import Outcome
from airflow_dbjobs.client.response_fields import seconds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_dbjobs.client.models import Run, TaskRun
    from airflow_dbjobs.client.wait import Logger

# With more tasks, only those that failed are logged: lines about all of them would hide what matters.
MAX_LOGGED_TASKS = 50
# The other active states of a task (PENDING, QUEUED, ...) add nothing to the state of its run.
_LOGGED_ACTIVE_STATES = frozenset({"RUNNING", "WAITING_FOR_RETRY", "WAITING"})
_PHASES = {
    "queue_duration": "in the queue",
    "setup_duration": "setup",
    "execution_duration": "execution",
    "cleanup_duration": "cleanup",
}


class TaskStateLogger:
    """Logs the tasks of a run of several tasks: one line for each that began or ended since the last call."""

    def __init__(self, log: Logger) -> None:
        self._log = log
        # By task key: the run id of the task's attempt, and the state that was logged.
        self._logged: dict[str, tuple[int, str]] = {}

    def __call__(self, run: Run) -> None:
        """Log the tasks whose state is new."""
        if len(run.tasks) < 2:  # noqa: PLR2004 (the state of a single task is that of the run)
            return
        only_failed = len(run.tasks) > MAX_LOGGED_TASKS or bool(run.raw.get("next_page_token"))
        failed = {id(task) for task in run.failed_tasks}
        for task in run.tasks:
            attempt_and_state = task.run_id, str(task.state)
            is_relevant = id(task) in failed if only_failed else _is_relevant(task)
            if is_relevant and self._logged.get(task.task_key) != attempt_and_state:
                self._logged[task.task_key] = attempt_and_state
                self._log.info("%s", _task_line(task))


def run_summary(run: Run) -> str:
    """Return one line about a finished run: how it ended, how long it took, and how many of its tasks succeeded."""
    job = f" of job {run.job_id}" if run.job_id else ""
    durations = _durations(run.raw, _total_seconds(run))
    tasks = f"; {_task_counts(run)}" if len(run.tasks) > 1 else ""
    return f"Run {run.run_id}{job} ended as {run.state}{durations}{tasks}. {run.page_url}".rstrip()


def format_duration(seconds: float) -> str:
    """Return a duration for people: ``3 h 5 min``, ``2 min 7 s``, ``4.2 s``."""
    if seconds < 10:  # noqa: PLR2004
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _is_relevant(task: TaskRun) -> bool:
    return task.state.is_terminal or task.state.life_cycle_state in _LOGGED_ACTIVE_STATES


def _task_line(task: TaskRun) -> str:
    attempt = f", attempt {task.attempt_number + 1}" if task.attempt_number else ""
    start, end = _seconds(task.raw, "start_time"), _seconds(task.raw, "end_time")
    durations = _durations(task.raw, end - start if start and end else None) if task.state.is_terminal else ""
    return f"Task {task.task_key} is {task.state}{attempt}{durations}"


def _total_seconds(run: Run) -> float | None:
    # This field (API 2.1 and newer) includes repairs; start and end are those of the latest repair.
    if total := _seconds(run.raw, "run_duration"):
        return total
    return run.end_time - run.start_time if run.start_time and run.end_time else None


def _durations(raw: Mapping[str, Any], total: float | None) -> str:
    phases = [f"{name} {format_duration(took)}" for field, name in _PHASES.items() if (took := _seconds(raw, field))]
    # Runs of several tasks have no phases; if execution is the only one, it is equal to the total.
    is_informative = len(phases) > 1 or (phases and not _seconds(raw, "execution_duration"))
    listed = f" ({', '.join(phases)})" if is_informative else ""
    return f"{f' after {format_duration(total)}' if total is not None else ''}{listed}"


def _seconds(raw: Mapping[str, Any], field: str) -> float | None:
    took = seconds(raw.get(field))
    return took if took and took > 0 else None


def _task_counts(run: Run) -> str:
    canceled = sum(task.state.outcome is Outcome.CANCELED for task in run.failed_tasks)
    failed = len(run.failed_tasks) - canceled
    succeeded = sum(task.state.outcome in {Outcome.SUCCESS, Outcome.PARTIAL_SUCCESS} for task in run.tasks)
    not_run = len(run.tasks) - succeeded - failed - canceled
    counts = {"succeeded": succeeded, "failed": failed, "cancelled": canceled, "did not run": not_run}
    return f"{len(run.tasks)} tasks: " + ", ".join(f"{count} {what}" for what, count in counts.items() if count)
