"""Decides what to do next with a run, from its records and the time only; the runner carries it out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_dbjobs.local_workspace.state.records import Run, State, TaskRun
from airflow_dbjobs.local_workspace.state.settings import upstream_keys

from .loops import latest_iterations, state_after

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_dbjobs.local_workspace.messages import Json

_FAILED = frozenset({"FAILED", "TIMEDOUT", "UPSTREAM_FAILED"})
_CANCELED = frozenset({"CANCELED", "UPSTREAM_CANCELED"})
#: Skipped on purpose: to tasks downstream these count as success, unless all of their dependencies were skipped.
_EXCLUDED = frozenset({"EXCLUDED", "DISABLED"})


@dataclass(frozen=True)
class Start:
    """Start the task run."""

    task: TaskRun


@dataclass(frozen=True)
class Stop:
    """Stop the program (or the child run) of the task run, which then ends with `result`."""

    task: TaskRun
    result: str


@dataclass(frozen=True)
class End:
    """End the task run in `state`; it never starts."""

    task: TaskRun
    state: State


@dataclass(frozen=True)
class Retry:
    """Add another attempt that does not start before `not_before_ms`."""

    task: TaskRun
    not_before_ms: int


@dataclass(frozen=True)
class StopRun:
    """Stop the whole run, which then ends with `result`."""

    result: str


@dataclass(frozen=True)
class EndRun:
    """End the run in `state`."""

    state: State


Step = Start | Stop | End | Retry | StopRun | EndRun


def next_steps(run: Run, attempts: Sequence[TaskRun], now_ms: int) -> list[Step]:
    """Return the steps that are due for a run that is not queued, given all attempts at its tasks."""
    if not attempts and run.stop is None:
        message = f"Job {run.job_id} has no tasks, so there was nothing to run; add tasks to the job."
        return [EndRun(State("INTERNAL_ERROR", "FAILED", message, "INVALID_RUN_CONFIGURATION"))]
    tasks = latest_attempts(attempts)
    if run.stop is None and _overdue(run.settings, run.clock_ms, now_ms):
        return [StopRun("TIMEDOUT")]
    loops = _active_loops(tasks, attempts)
    retries = [Retry(task, _retry_at(task)) for task in tasks.values() if run.stop is None and wants_retry(task)]
    if retries:
        return [*retries]
    steps: list[Step] = []
    for key, task in tasks.items():
        if key in loops:
            steps += _loop_steps(run, task, loops[key], now_ms)
        elif step := _task_step(run.stop, task, tasks, now_ms):
            steps.append(step)
    if not steps and all(task.state.terminal for task in tasks.values()):
        return [EndRun(_rollup(run, tasks))]
    return steps


def next_check(run: Run, attempts: Sequence[TaskRun]) -> int:
    """Return when an active run needs its next check, if nothing changes it before, in epoch milliseconds.

    0 means at every tick: the run waits for something that must be polled, such as the end of a program.
    """
    tasks = latest_attempts(attempts).values()
    if run.state.life in ("QUEUED", "TERMINATING"):
        return 0
    times = [_deadline(run.settings, run.clock_ms)]
    for task in tasks:
        match task.state.life:
            case "RUNNING" if task.planned_end_ms is not None:
                times += [task.planned_end_ms, _deadline(task.spec, task.start_ms)]
            case "BLOCKED" | "WAITING_FOR_RETRY":
                # 0 here: it waits for another task, whose end changes the run.
                times.append(task.not_before_ms)
            case "RUNNING" | "TERMINATING" | "PENDING":
                return 0
    return min(filter(None, times), default=0)


def latest_attempts(attempts: Sequence[TaskRun]) -> dict[str, TaskRun]:
    """Return the latest attempt at each task, by task key. Iterations are not among them."""
    return {task.task_key: task for task in attempts if task.iteration is None}


def upstream_of(task: TaskRun, attempts: Sequence[TaskRun]) -> dict[str, TaskRun]:
    """Return the latest attempts at the tasks that `task` depends on, directly or through others, by task key.

    An iteration depends on what its for_each task depends on.
    """
    latest = latest_attempts(attempts)
    found: dict[str, TaskRun] = {}
    ahead = upstream_keys(latest[task.iteration.loop].spec if task.iteration else task.spec)
    while ahead:
        key = ahead.pop()
        # The run may be one of a part of the job's tasks.
        if key in latest and key not in found:
            found[key] = latest[key]
            ahead += upstream_keys(latest[key].spec)
    return found


def wants_retry(task: TaskRun) -> bool:
    """Return whether an ended task run is retried. Of a for_each task only the iterations are."""
    limit = 0 if "for_each_task" in task.spec else task.spec.get("max_retries", 0)
    if not task.state.terminal or (limit >= 0 and task.retries >= limit):
        return False
    return task.state.result == "FAILED" or (
        task.state.result == "TIMEDOUT" and task.spec.get("retry_on_timeout", False)
    )


def _active_loops(tasks: dict[str, TaskRun], attempts: Sequence[TaskRun]) -> dict[str, list[TaskRun]]:
    """Return the latest attempts at the iterations of the active for_each tasks that have any, by task key."""
    active = {key: task for key, task in tasks.items() if task.iteration_ids and not task.state.terminal}
    by_id = {task.run_id: task for task in attempts} if active else {}
    return {key: latest_iterations(task, by_id) for key, task in active.items()}


def _loop_steps(run: Run, loop: TaskRun, iterations: Sequence[TaskRun], now_ms: int) -> list[Step]:
    """Return the steps that are due for an active for_each task and its iterations."""
    may_retry = not (run.stop or loop.stop)
    retries = [Retry(item, _retry_at(item)) for item in iterations if may_retry and wants_retry(item)]
    if not retries and all(item.state.terminal for item in iterations):
        stopped = State("TERMINATED", loop.stop, stop_message(loop.stop)) if loop.stop else None
        return [End(loop, stopped or state_after(iterations))]
    if stop := _task_step(run.stop, loop, {}, now_ms):
        # The iterations are stopped with its result, once it has one.
        return [stop]
    if retries:
        return [*retries]
    active = sum(item.state.life in ("RUNNING", "TERMINATING") for item in iterations)
    free = loop.spec["for_each_task"].get("concurrency", 1) - active
    steps: list[Step] = []
    for item in iterations:
        # Iterations depend on no task: the task in the loop has no dependencies of its own.
        step = _task_step(loop.stop, item, {}, now_ms)
        if isinstance(step, Start):
            free -= 1
        if step and not (isinstance(step, Start) and free < 0):
            steps.append(step)
    return steps


def _task_step(stop_all: str | None, task: TaskRun, tasks: dict[str, TaskRun], now_ms: int) -> Step | None:
    """Return what is due for a task. `stop_all` is the result that all tasks are being stopped with."""
    match task.state.life:
        case "RUNNING":
            if stop := task.stop or stop_all:
                return Stop(task, stop)
            return Stop(task, "TIMEDOUT") if _overdue(task.spec, task.start_ms, now_ms) else None
        case "BLOCKED" | "PENDING" | "WAITING_FOR_RETRY":
            if stop := stop_all or task.stop:
                return End(task, State("TERMINATED", stop, stop_message(stop)))
            if now_ms < task.not_before_ms:
                return None
            return _unblock(task, tasks)
    return None


def _unblock(task: TaskRun, tasks: dict[str, TaskRun]) -> Step | None:
    if task.spec.get("disabled"):
        return End(task, State("TERMINATED", "DISABLED", "The task is disabled.", "DISABLED"))
    # Tasks that are not in the run (excluded by `only` of run-now) are not waited for.
    upstream = [tasks[key] for key in upstream_keys(task.spec) if key in tasks]
    if not all(item.state.terminal for item in upstream):
        return None
    branches = {item["task_key"]: item.get("outcome") for item in task.spec.get("depends_on", [])}
    # The branch that a condition did not take counts as excluded. A condition that could not be evaluated took none.
    results = [
        "EXCLUDED"
        if item.outcome and branches[item.task_key] not in (None, "", item.outcome)
        else item.state.result or ""
        for item in upstream
    ]
    rule = task.spec.get("run_if", "ALL_SUCCESS")
    reason = result_if_unmet(rule, results)
    if reason is None:
        return Start(task)
    message = f"Not run: its dependencies ended {', '.join(results)}, and its run_if is {rule}."
    return End(task, State("TERMINATED", reason, message))


def result_if_unmet(rule: str, results: Sequence[str]) -> str | None:
    """Return the result state of a task whose `run_if` rule its dependencies' results do not meet; None if they do.

    For dependencies that ended SUCCESS and FAILED it is "UPSTREAM_FAILED" with "ALL_SUCCESS", and None with "ALL_DONE".
    """
    if not results:
        return None
    failed, canceled, excluded = (sum(result in kind for result in results) for kind in (_FAILED, _CANCELED, _EXCLUDED))
    ran = len(results) - excluded
    if not ran:
        return "EXCLUDED"
    # The vendor's documentation: tasks whose rule handles failures also run after a cancellation.
    unsuccessful = failed + canceled
    met = {
        "ALL_SUCCESS": not unsuccessful,
        "AT_LEAST_ONE_SUCCESS": unsuccessful < ran,
        "NONE_FAILED": not unsuccessful,
        "ALL_DONE": True,
        "AT_LEAST_ONE_FAILED": unsuccessful > 0,
        "ALL_FAILED": unsuccessful == ran,
    }[rule]
    if met:
        return None
    if rule in ("AT_LEAST_ONE_FAILED", "ALL_FAILED"):
        return "EXCLUDED"
    return "UPSTREAM_CANCELED" if canceled and not failed else "UPSTREAM_FAILED"


def _rollup(run: Run, tasks: dict[str, TaskRun]) -> State:
    """Return the final state of a run whose tasks have all ended."""
    if run.stop:
        return State("TERMINATED", run.stop, stop_message(run.stop))
    if run.flat:
        return next(iter(tasks.values())).state
    inner = {key for task in tasks.values() for key in upstream_keys(task.spec)}
    leaves = {task.state.result for key, task in tasks.items() if key not in inner}
    failed = [key for key, task in tasks.items() if task.state.result in ("FAILED", "TIMEDOUT")]
    names = ", ".join(failed)
    if leaves & _FAILED:
        # As recorded from the cloud: a run with failed tasks is INTERNAL_ERROR, while the task itself is TERMINATED.
        message = f"Failed: task {names}. See the output of each; tasks that depend on it were not run."
        return State("INTERNAL_ERROR", "FAILED", message, "RUN_EXECUTION_ERROR")
    if leaves & _CANCELED:
        return State("TERMINATED", "CANCELED", stop_message("CANCELED"))
    if failed or any(task.state.result in _CANCELED for task in tasks.values()):
        message = "All leaf tasks succeeded, but not all others."
        return State("TERMINATED", "SUCCESS_WITH_FAILURES", f"{message} Failed: task {names}." if failed else message)
    return State("TERMINATED", "SUCCESS")


def stop_message(result: str) -> str:
    """Return the state message of a run or task run that was stopped with `result`."""
    return "Cancelled." if result == "CANCELED" else "Timed out."


def _overdue(limits: Json, since_ms: int, now_ms: int) -> bool:
    deadline = _deadline(limits, since_ms)
    return bool(deadline) and now_ms >= deadline


def _deadline(limits: Json, since_ms: int) -> int:
    """Return when a timeout expires; 0 if there is none."""
    timeout = int(limits.get("timeout_seconds", 0))
    return since_ms + timeout * 1000 if timeout else 0


def _retry_at(task: TaskRun) -> int:
    # The interval is measured from the start of the failed attempt.
    return task.start_ms + int(task.spec.get("min_retry_interval_millis", 0))
