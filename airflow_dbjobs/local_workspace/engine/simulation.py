"""The executor of the simulated mode: it runs no code, and each task takes some time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from airflow_dbjobs.local_workspace.state.records import Run, State, TaskRun
from airflow_dbjobs.local_workspace.state.settings import payload_fields

from .errors import CannotRunError
from .executor import MAX_LOG_BYTES, Executor, Output
from .scheduler import stop_message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from airflow_dbjobs.local_workspace.messages import Json

RESULTS: Final = ("SUCCESS", "FAILED")
#: The longest simulated task: a year. More is taken for a mistake.
MAX_SECONDS: Final = 365 * 24 * 3600
#: The fields of payloads that may hold a map of parameters, and the fields of run-now that override them.
_PARAMETER_MAPS: Final = ("base_parameters", "named_parameters", "parameters")
_OVERRIDES: Final = {
    "notebook_task": "notebook_params",
    "sql_task": "sql_params",
    "python_wheel_task": "python_named_params",
}


class SimulatedExecutor:
    """Ends each task after some time. The planned end is part of the `TaskRun`, so it survives a restart.

    :param seconds: How long a task takes, unless its parameter `simulated_seconds` overrides it.
    :param now_ms: Returns the time in epoch milliseconds.
    """

    starts_programs: Final = False

    def __init__(self, seconds: float, now_ms: Callable[[], int]) -> None:
        self._seconds = seconds
        self._now_ms = now_ms

    def can_run(self, kind: str) -> bool:
        """Return whether tasks with this payload are simulated: all but those that start no program anyway."""
        return kind not in ("condition_task", "run_job_task", "for_each_task")

    def count_running(self) -> int:
        """Return 0: there are no programs."""
        return 0

    def start(self, run: Run, task: TaskRun, spec: Json, upstream: Iterable[TaskRun] = ()) -> None:  # noqa: ARG002 - as Executor
        """Plan the end of a task that has just started; `spec` is the task with its references replaced.

        :raises CannotRunError: The parameter `simulated_seconds` or `simulated_result` is invalid.
        """
        given = named_parameters(run, spec)
        seconds = _seconds(given.get("simulated_seconds", self._seconds))
        result = given.get("simulated_result", "SUCCESS")
        if seconds is None:
            raise _bad_parameter("simulated_seconds", given, f"a number from 0 to {MAX_SECONDS}")
        if result not in RESULTS:
            raise _bad_parameter("simulated_result", given, " or ".join(RESULTS))
        task.planned_end_ms = task.start_ms + round(seconds * 1000)
        task.planned_result = result

    def spark_label(self) -> str:
        """Return "": there are no programs."""
        return ""

    def task_values(self, task: TaskRun | None) -> Json | None:  # noqa: ARG002 - as Executor
        """Return None: no program has set any."""
        return None

    def poll(self, task: TaskRun) -> State | None:
        """Return how a task ended, or None while it is active."""
        if task.state.life == "TERMINATING" and task.stop:
            return State("TERMINATED", task.stop, stop_message(task.stop))
        if task.planned_end_ms is None:
            message = "The workspace was restarted with --simulate, so the program of this task was lost."
            return State("INTERNAL_ERROR", "FAILED", message)
        if self._now_ms() < task.planned_end_ms:
            return None
        message = "This task was simulated, with the result FAILED." if task.planned_result == "FAILED" else ""
        return State("TERMINATED", task.planned_result, message)

    def start_was_lost(self, task: TaskRun) -> bool:  # noqa: ARG002 - as Executor
        """Return False: a start is committed together with its planned end."""
        return False

    def stop(self, task: TaskRun) -> None:
        """Do nothing: `poll` notices that the task is being stopped."""

    def kill(self, tasks: Iterable[TaskRun]) -> None:
        """Do nothing: there are no programs."""

    def output(self, task: TaskRun, *, max_log_bytes: int = MAX_LOG_BYTES) -> Output:  # noqa: ARG002 - as Executor
        """Return an empty output."""
        return Output(
            "", log_truncated=False, exit_value=None, exit_value_truncated=False, error=None, error_trace=None
        )

    def source(self, task: TaskRun) -> str | None:  # noqa: ARG002 - as Executor
        """Return None: no notebook ran."""
        return None

    def remove(self, task: TaskRun) -> None:
        """Do nothing: there are no files."""


AnyExecutor: TypeAlias = Executor | SimulatedExecutor


def named_parameters(run: Run, spec: Json) -> Json:
    """Return the named parameters of a task: job parameters override run-now's, which override the task's own."""
    kind = payload_fields(spec)[0]
    maps = [spec[kind].get(name) for name in _PARAMETER_MAPS]
    maps.append(run.overrides.get(_OVERRIDES.get(kind, "")))
    maps.append({name: item["value"] for name, item in run.job_parameters.items()})
    return {name: value for given in maps if isinstance(given, dict) for name, value in given.items()}


def _seconds(value: object) -> float | None:
    try:
        seconds = float(str(value))
    except ValueError:
        return None
    return seconds if 0 <= seconds <= MAX_SECONDS else None


def _bad_parameter(name: str, given: Json, expected: str) -> CannotRunError:
    message = f"Parameter '{name}' must be {expected}, not {given[name]!r}."
    return CannotRunError(message, "INVALID_RUN_CONFIGURATION")
