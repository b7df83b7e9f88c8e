"""Advances runs as time passes, programs end and requests change them, by carrying out the scheduler's decisions."""

from __future__ import annotations

import logging
import sqlite3
from typing import TYPE_CHECKING

from airflow_dbjobs.local_workspace.state.records import Run, State, TaskRun
from airflow_dbjobs.local_workspace.state.settings import payload_fields

from . import launch, loops, parameters
from .errors import CannotRunError
from .scheduler import End, EndRun, Retry, Start, Step, Stop, StopRun, next_check, next_steps, upstream_of
from .task_types import TASK_TYPES
from .timers import RunTimers

if TYPE_CHECKING:
    from airflow_dbjobs.local_workspace.messages import Json
    from airflow_dbjobs.local_workspace.state.store import Store

    from .simulation import AnyExecutor

log = logging.getLogger(__name__)

#: Starting a process takes milliseconds, in which no request is answered, so each tick starts only a few.
_STARTS_PER_TICK = 8
#: Thousands of iterations that take no time would block requests for minutes. What is left is due at the next tick.
_ROUNDS_PER_TICK = 20
_RUNNABLE = f"{', '.join(TASK_TYPES)}, condition_task, run_job_task and for_each_task"


class Runner:
    """Advances runs. Not thread-safe: the workspace holds its lock.

    Everything that happens in one call gets the same timestamp.
    """

    def __init__(self, store: Store, executor: AnyExecutor, max_parallel_tasks: int) -> None:
        self._store = store
        self._executor = executor
        self._max_parallel_tasks = max_parallel_tasks
        self._free_slots = 0
        self._now_ms = 0
        self._timers = RunTimers()

    def tick(self, now_ms: int) -> None:
        """Do all that is due: notice the end of programs, start tasks, enforce timeouts, end runs."""
        self._free_slots = min(_STARTS_PER_TICK, self._max_parallel_tasks - self._executor.count_running())
        due = self._store.take_changed_runs() | self._timers.take_due(now_ms)
        try:
            # In the order of arrival, so that a job's queue is first in, first out.
            for run_id in sorted(due):
                if run := self._store.active_runs.get(run_id):
                    self.advance(run, now_ms)
        except BaseException:
            # Some of them have not been advanced.
            self._store.mark_all_changed()
            raise

    def advance(self, run: Run, now_ms: int) -> None:
        """Do what is due for one run."""
        self._now_ms = now_ms
        try:
            self._take_steps(run)
        except sqlite3.Error:
            # Not the run's fault: nothing can be saved now, so the next tick tries again.
            raise
        except Exception:
            # A bug in handling this run must not stop other runs, nor let clients wait for this one forever.
            log.exception("Run %s could not be advanced; it ends with an internal error", run.run_id)
            self._abort(run)
        if run.active:
            self._timers.schedule(run.run_id, next_check(run, self._store.tasks_of(run)))

    def _take_steps(self, run: Run) -> None:
        if run.state.life == "QUEUED":
            if not launch.has_slot(self._store, run):
                return
            run.state, run.clock_ms = State("PENDING"), self._now_ms
            self._store.save(run)
        for task in self._store.tasks_of(run):
            if task.state.life in ("RUNNING", "TERMINATING"):
                self._check(run, task)
        for _ in range(_ROUNDS_PER_TICK):
            steps = next_steps(run, self._store.tasks_of(run), self._now_ms) if run.active else []
            # sum, not any: every step is carried out, whether or not an earlier one changed anything.
            if sum(self._carry_out(run, step) for step in steps) == 0:
                break

    def _check(self, run: Run, task: TaskRun) -> None:
        """Notice the end of an active task run. That of a for_each task follows from those of its iterations."""
        if task.iteration_ids:
            return
        if task.child_run_id is not None:
            if state := self._child_state(task):
                self._end(task, state)
            return
        if task.state.life == "RUNNING" and self._executor.start_was_lost(task):
            self._execute(run, task)
            return
        state = self._executor.poll(task)
        if state and state.terminal:
            self._end(task, state)
        elif state:
            task.state = state
            self._store.save(task)
        elif task.state.life == "TERMINATING":
            self._executor.stop(task)

    def _child_state(self, task: TaskRun) -> State | None:
        """Return how a run_job task ends, from the run that it started; None while that run is active."""
        child = self._store.runs.get(task.child_run_id or 0)
        if child is None:
            return State("INTERNAL_ERROR", "FAILED", "The run that this task started has been deleted.")
        if child.active:
            return None
        if task.stop:
            return State("TERMINATED", task.stop, child.state.message)
        if child.state.result in ("SUCCESS", "SUCCESS_WITH_FAILURES"):
            return State("TERMINATED", "SUCCESS")
        result = "CANCELED" if child.state.result == "CANCELED" else "FAILED"
        ended = child.state.result or child.state.life
        return State("TERMINATED", result, f"Run {child.run_id} of job {child.job_id} ended {ended}.")

    def _carry_out(self, run: Run, step: Step) -> bool:
        """Carry out a step; return whether anything changed."""
        match step:
            case Start(task):
                return self._start(run, task)
            case Stop(task, result):
                self._stop(task, result)
            case End(task, state):
                self._end(task, state)
            case Retry(task, not_before_ms):
                launch.retry(self._store, run, task, not_before_ms, self._now_ms)
            case StopRun(result):
                run.stop, run.state = result, State("TERMINATING", message="Being stopped.")
                self._store.save(run)
            case EndRun(state):
                self._end_run(run, state)
        return True

    def _start(self, run: Run, task: TaskRun) -> bool:
        kind = payload_fields(task.spec)[0]
        needs_slot = self._executor.can_run(kind) and self._executor.starts_programs
        if needs_slot and self._free_slots <= 0:
            if task.state.life == "PENDING":
                return False
            task.state = State("PENDING", message="Waiting for a free slot on this machine.")
            self._store.save(task)
            return True
        task.state, task.started, task.start_ms = State("RUNNING"), True, self._now_ms
        if run.state.life != "RUNNING":
            run.state = State("RUNNING")
        self._store.save(run, task)
        if needs_slot:
            # Committed before the start: a server that dies in between must not start the program twice.
            self._store.commit()
            self._free_slots -= 1
        self._execute(run, task)
        return True

    def _execute(self, run: Run, task: TaskRun) -> None:
        kind = payload_fields(task.spec)[0]
        upstream = upstream_of(task, self._store.tasks_of(run))
        try:
            spec = parameters.resolved_spec(run, task, lambda key: self._executor.task_values(upstream.get(key)))
            task.resolved = parameters.resolved_values(run, spec)
            self._store.save(task)
            if self._executor.can_run(kind):
                self._executor.start(run, task, spec, upstream.values())
            else:
                self._run_inline(run, task, kind, spec[kind])
        except CannotRunError as error:
            self._end(task, State("INTERNAL_ERROR", "FAILED", str(error), error.code))

    def _run_inline(self, run: Run, task: TaskRun, kind: str, payload: Json) -> None:
        """Run a task that needs no program.

        :raises CannotRunError: The local workspace cannot run such a task, or its job does not exist.
        """
        if kind == "condition_task":
            try:
                task.outcome = "true" if parameters.condition_outcome(payload) else "false"
            except ValueError as error:
                self._end(task, State("TERMINATED", "FAILED", f"The condition cannot be evaluated: {error}."))
            else:
                self._end(task, State("TERMINATED", "SUCCESS"))
        elif kind == "run_job_task":
            job = self._store.jobs.get(payload["job_id"])
            if job is None:
                raise CannotRunError(f"Job {payload['job_id']} does not exist.", "RESOURCE_NOT_FOUND")
            task.child_run_id = launch.launch_job(self._store, job, payload, self._now_ms, parent=run).run_id
        elif kind == "for_each_task":
            inputs = loops.inputs_of(payload)
            launch.start_iterations(self._store, run, task, inputs, self._now_ms)
            if not inputs:
                self._end(task, loops.state_after([]))
        else:
            message = f"The local workspace cannot run a {kind}; it can run {_RUNNABLE}."
            raise CannotRunError(message, "INVALID_RUN_CONFIGURATION")

    def _stop(self, task: TaskRun, result: str) -> None:
        task.stop = result
        task.state = State("TERMINATING", message="Being stopped.")
        child = self._store.runs.get(task.child_run_id or 0)
        if child is None:
            self._executor.stop(task)
        elif child.active:
            child.stop = "CANCELED"
            child.state = State("TERMINATING", message="Being cancelled with the run that started it.")
            self._store.save(child)
        self._store.save(task)

    def _end(self, task: TaskRun, state: State) -> None:
        task.state, task.end_ms = state, self._now_ms
        self._store.save(task)

    def _abort(self, run: Run) -> None:
        """End a run and its tasks with an internal error, and stop their programs."""
        message = "The local workspace failed to advance this run; see its log."
        state = State("INTERNAL_ERROR", "FAILED", message)
        for task in self._store.tasks_of(run):
            if task.state.terminal:
                continue
            try:
                self._stop(task, "CANCELED")
            except Exception:
                log.exception("The program of task run %s could not be stopped", task.run_id)
            self._end(task, state)
        self._end_run(run, state)

    def _end_run(self, run: Run, state: State) -> None:
        run.state, run.end_ms = state, self._now_ms
        run.episodes[-1].state, run.episodes[-1].end_ms = state, run.end_ms
        self._store.save(run)
        if run.deleted:
            for task in self._store.tasks_of(run):
                self._executor.remove(task)
            self._store.remove_run(run)
