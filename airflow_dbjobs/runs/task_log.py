"""What a task's log tells of a run beside its states: how its tasks come on, how it ended, and how long it took."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_dbjobs.client.models import Outcome
from airflow_dbjobs.client.response_fields import seconds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_dbjobs.client.models import Run, TaskRun
    from airflow_dbjobs.client.wait import Logger

# Of a run of more tasks, lines about each would bury what matters: only those that failed have one.
MOST_TASKS_TOLD = 50
# What a task waits through says nothing that the run's own state does not.
_TOLD_WHILE_ACTIVE = frozenset({"RUNNING", "WAITING_FOR_RETRY", "WAITING"})
_PARTS = {
    "queue_duration": "in the queue",
    "setup_duration": "setup",
    "execution_duration": "execution",
    "cleanup_duration": "cleanup",
}


class TaskLog:
    """Logs the tasks of a run of several, a line for each that has begun or ended since the last look."""

    def __init__(self, log: Logger) -> None:
        self._log = log
        # By task: the run of it (each attempt is another) and the state that was told.
        self._told: dict[str, tuple[int, str]] = {}

    def __call__(self, run: Run) -> None:
        """Log what is new."""
        if len(run.tasks) < 2:  # noqa: PLR2004 (the run's own lines tell of its only task)
            return
        many = len(run.tasks) > MOST_TASKS_TOLD or bool(run.raw.get("next_page_token"))
        failed = {id(task) for task in run.failed_tasks}
        for task in run.tasks:
            news = task.run_id, str(task.state)
            is_worth_it = id(task) in failed if many else _is_told(task)
            if is_worth_it and self._told.get(task.task_key) != news:
                self._told[task.task_key] = news
                self._log.info("%s", _line(task))


def ending_of(run: Run) -> str:
    """Return in a line how a finished run ended, how long it took, and of its tasks how many ended how."""
    job = f" of job {run.job_id}" if run.job_id else ""
    took = _durations(run.raw, _total(run))
    tasks = f"; {_counts(run)}" if len(run.tasks) > 1 else ""
    return f"Run {run.run_id}{job} ended {run.state}{took}{tasks}. {run.page_url}".rstrip()


def duration(seconds: float) -> str:
    """Return a duration as people say it: ``3 h 5 min``, ``2 min 7 s``, ``4.2 s``."""
    if seconds < 10:  # noqa: PLR2004
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _is_told(task: TaskRun) -> bool:
    return task.state.is_terminal or task.state.life_cycle_state in _TOLD_WHILE_ACTIVE


def _line(task: TaskRun) -> str:
    attempt = f", attempt {task.attempt_number + 1}" if task.attempt_number else ""
    start, end = _seconds(task.raw, "start_time"), _seconds(task.raw, "end_time")
    took = _durations(task.raw, end - start if start and end else None) if task.state.is_terminal else ""
    return f"Task {task.task_key} is {task.state}{attempt}{took}"


def _total(run: Run) -> float | None:
    # From 2.1 on; it spans the repairs, while start and end are of the latest one.
    if total := _seconds(run.raw, "run_duration"):
        return total
    return run.end_time - run.start_time if run.start_time and run.end_time else None


def _durations(raw: Mapping[str, Any], total: float | None) -> str:
    parts = [f"{name} {duration(took)}" for field, name in _PARTS.items() if (took := _seconds(raw, field))]
    # Of a run of several tasks they are 0; where all was execution, it is the whole.
    told = f" ({', '.join(parts)})" if len(parts) > 1 or (parts and not _seconds(raw, "execution_duration")) else ""
    return f"{f' after {duration(total)}' if total is not None else ''}{told}"


def _seconds(raw: Mapping[str, Any], field: str) -> float | None:
    took = seconds(raw.get(field))
    return took if took and took > 0 else None


def _counts(run: Run) -> str:
    failed = len(run.failed_tasks)
    succeeded = sum(task.state.outcome in {Outcome.SUCCESS, Outcome.PARTIAL_SUCCESS} for task in run.tasks)
    left = len(run.tasks) - failed - succeeded
    counts = {"succeeded": succeeded, "failed": failed, "did not run": left}
    return f"{len(run.tasks)} tasks: " + ", ".join(f"{count} {what}" for what, count in counts.items() if count)
