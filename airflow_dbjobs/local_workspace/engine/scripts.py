"""The executor of a scripted workspace: it runs no code, and a script says how each task ends."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from airflow_dbjobs.local_workspace.state.records import Run, State, TaskRun

from .errors import CannotRunError
from .executor import MAX_LOG_BYTES, Output
from .simulation import SimulatedExecutor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from airflow_dbjobs.local_workspace.messages import Json

#: The notebook of a `@task.databricks_python` function has this parameter, and exits with an object of this key.
_FUNCTION_PARAMETER: Final = "airflow_call"
_FUNCTION_RESULT: Final = "airflow_return_value"
#: The termination codes of failures (section 8.3 of the API reference).
FAILURE_CODES: Final = (
    "BREAKING_CHANGE", "BUDGET_POLICY_LIMIT_EXCEEDED", "CLOUD_FAILURE", "CLUSTER_ERROR",
    "CLUSTER_REQUEST_LIMIT_EXCEEDED", "CLUSTER_TERMINATED_BY_USER", "DRIVER_ERROR", "FEATURE_DISABLED",
    "INTERNAL_ERROR", "INVALID_CLUSTER_REQUEST", "INVALID_RUN_CONFIGURATION", "LIBRARY_INSTALLATION_ERROR",
    "MAX_CONCURRENT_RUNS_EXCEEDED", "MAX_JOB_QUEUE_SIZE_EXCEEDED", "MAX_SPARK_CONTEXTS_EXCEEDED",
    "REPOSITORY_CHECKOUT_FAILED", "RESOURCE_NOT_FOUND", "RUN_EXECUTION_ERROR", "STORAGE_ACCESS_ERROR",
    "UNAUTHORIZED_ERROR", "WORKSPACE_RUN_LIMIT_EXCEEDED",
)  # fmt: skip
#: The other termination codes, and what to write instead.
_NO_FAILURES: Final = {
    "SUCCESS": "leave it out",
    "SUCCESS_WITH_FAILURES": "leave it out",
    "USER_CANCELED": "use canceled=True",
    "CANCELED": "use canceled=True",
    "SKIPPED": "let a task fail that this one depends on",
    "DISABLED": "set `disabled` in the task itself",
}


@dataclass
class Script:
    """How tasks end. `name` is a task's key, the name of a job or a one-time run, or a job's id.

    `times` is how many attempts at tasks still follow the script; None: all.

    :raises ValueError: No task ends like that.
    """

    name: str | int
    returns: Any = None
    error: str = ""
    termination_code: str = ""
    seconds: float = 0.0
    logs: str = ""
    times: int | None = None
    used: bool = False
    canceled: bool = False

    def __post_init__(self) -> None:
        if self.canceled and (self.returns is not None or self.error or self.termination_code):
            raise ValueError("A cancelled task has no result and no error: use canceled=True without them.")
        if self.termination_code:
            _check_failure_code(self.termination_code)

    def rank(self, run: Run, task: TaskRun) -> int:
        """Return how well the script fits a task: 2 if it names the task, 1 if it names the run or job, else 0.

        The key of a for_each task names its iterations.
        """
        keys = (task.task_key, task.iteration.loop if task.iteration else None)
        return 2 if self.name in keys else int(self.name in (run.run_name, run.job_id))

    @property
    def end(self) -> State:
        """How the task ends."""
        if not (self.error or self.termination_code):
            return State("TERMINATED", "SUCCESS")
        code = self.termination_code or "RUN_EXECUTION_ERROR"
        life = "TERMINATED" if code == "RUN_EXECUTION_ERROR" else "INTERNAL_ERROR"
        return State(life, "FAILED", self.error or f"The task failed with {code}.", code)


def _check_failure_code(code: str) -> None:
    if code in _NO_FAILURES:
        raise ValueError(f"termination_code={code!r} is no failure: {_NO_FAILURES[code]}.")
    if code not in FAILURE_CODES:
        close = difflib.get_close_matches(code.upper(), FAILURE_CODES, n=1)
        meant = f"; did you mean {close[0]!r}?" if close else "."
        raise ValueError(f"termination_code={code!r} is no termination code of the API{meant}")


class ScriptedExecutor(SimulatedExecutor):
    """Ends each attempt at a task as the first script says that fits and has not been used up.

    :param cancel: Cancels the run of a task, as a person does.
    """

    def __init__(self, now_ms: Callable[[], int], cancel: Callable[[TaskRun], None]) -> None:
        super().__init__(0.0, now_ms)
        self._cancel = cancel
        self.scripts: list[Script] = []
        self._script_of: dict[int, Script] = {}

    def start(self, run: Run, task: TaskRun, spec: Json, upstream: Iterable[TaskRun] = ()) -> None:
        """Plan the end of a task that has just started.

        :raises CannotRunError: The script is about a notebook, and the task is none.
        """
        super().start(run, task, spec, upstream)
        fitting = [script for script in self.scripts if script.times != 0 and script.rank(run, task)]
        if not fitting:
            return
        # Of those that fit equally well, the one that was written first.
        script = max(fitting, key=lambda script: script.rank(run, task))
        script.used = True
        if script.times is not None:
            script.times -= 1
        if script.returns is not None and "notebook_task" not in spec:
            message = f"The script of {script.name!r} returns a value, which of all tasks only a notebook does."
            raise CannotRunError(message, "INVALID_RUN_CONFIGURATION")
        self._script_of[task.run_id] = script
        task.planned_end_ms = task.start_ms + round(script.seconds * 1000)
        task.planned_result = script.end.result

    def poll(self, task: TaskRun) -> State | None:
        """Return how a task ended, or None while it is active. Cancel its run if the script says so."""
        state = super().poll(task)
        script = self._script_of.get(task.run_id)
        if script is None or state is None or state.result not in ("FAILED", "SUCCESS"):
            return state
        if script.canceled:
            self._cancel(task)
            return None
        return script.end

    def output(self, task: TaskRun, *, max_log_bytes: int = MAX_LOG_BYTES) -> Output:
        """Return what the script says."""
        script = self._script_of.get(task.run_id)
        if script is None or not task.state.terminal:
            return super().output(task, max_log_bytes=max_log_bytes)
        has_failed = task.state.result == "FAILED"
        value = None if has_failed else script.returns
        if value is not None and _FUNCTION_PARAMETER in task.spec["notebook_task"].get("base_parameters", {}):
            value = {_FUNCTION_RESULT: value}
        return Output(
            script.logs,
            log_truncated=False,
            exit_value=value if value is None or isinstance(value, str) else json.dumps(value),
            exit_value_truncated=False,
            error=task.state.message if has_failed else None,
            error_trace=f"Traceback (most recent call last):\n{task.state.message}" if has_failed else None,
        )
