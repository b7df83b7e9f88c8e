"""The local workspace: it answers requests, and moves runs on as time passes and programs end."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections import Counter
from dataclasses import replace
from email.utils import formatdate
from typing import TYPE_CHECKING, Self

from . import api, launching, pages, parameters
from .call import Call
from .executor import CannotRunError, Executor
from .faults import Fault, parse_faults
from .folder import WorkspaceError, claim, state_folder
from .model import Run, State, TaskRun
from .render import Renderer
from .scheduler import End, EndRun, Retry, Start, Step, Stop, StopRun, next_steps
from .settings import payload_fields
from .store import Store
from .wire import ApiError, Reply, Request, json_reply

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .adapter import WorkspaceAdapter
    from .wire import Json

log = logging.getLogger(__name__)

_TICK_SECONDS = 0.05
#: Starting a process takes milliseconds, during which no request is answered; so many at a time, then others' turn.
_STARTS_PER_TICK = 8
_RUNNABLE = "notebook_task, spark_python_task, condition_task and run_job_task"


class LocalWorkspace:
    """A Databricks workspace in a folder.

    `handle` answers requests. `tick` does what is due: a thread does so between `start` (or `with`) and `close`, or a
    test by hand.

    Parameters
    ----------
    root:
        The folder that is the workspace. State is kept in `.airflow_dbjobs` in it, and survives.
    token:
        What callers must present.
    base_url:
        Where the pages of runs are said to be.
    clock:
        The time in seconds since the epoch.
    max_parallel_tasks:
        Further tasks wait as PENDING until a program ends.

    Raises
    ------
    WorkspaceError
        `root` is no folder, another workspace has it open, or the token is empty.
    """

    def __init__(
        self,
        root: Path,
        *,
        token: str,
        base_url: str = "http://127.0.0.1:8765",
        clock: Callable[[], float] = time.time,
        max_parallel_tasks: int = 64,
    ) -> None:
        if not token.strip():
            raise WorkspaceError("The token is empty; a workspace runs code, so it does not open without one.")
        folder = state_folder(root)
        self._lock_file = claim(folder)
        self.token = token
        self.base_url = base_url
        #: What goes wrong with requests; add to it at will.
        self.faults: list[Fault] = []
        #: How many requests came in, by operation ("runs/get"), failed ones included.
        self.requests: Counter[str] = Counter()
        self._clock = clock
        self._max_parallel_tasks = max_parallel_tasks
        self._free_slots = 0
        self._user = api.user_name()
        self._store = Store(folder / "workspace.sqlite3")
        self._executor = Executor(root.resolve(), folder / "runs")
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Let a thread move runs on from now on."""
        self._thread = threading.Thread(target=self._keep_ticking, name="local-workspace", daemon=True)
        self._thread.start()

    def close(self, *, leave_running: bool = False) -> None:
        """Stop, and end all programs at once; with `leave_running` they go on, and the next workspace finds them."""
        self._closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        with self._lock:
            if not leave_running:
                runs = self._store.active_runs.values()
                self._executor.kill(task for run in runs for task in self._store.tasks_of(run) if task.started)
            try:
                self._store.close()
            finally:
                os.close(self._lock_file)

    def adapter(self) -> WorkspaceAdapter:
        """Return what makes a `requests.Session` talk to this workspace: `session.mount(ws.base_url, ws.adapter())`."""
        from .adapter import WorkspaceAdapter

        return WorkspaceAdapter(self)

    def handle(self, request: Request) -> Reply:
        """Answer a request; what it changed is durable when this returns."""
        reply = self._answer(request) if request.path.startswith("/api/local/") else self._answer_or_fail(request)
        # Clients tell by it whether a run is older than their request.
        return replace(reply, headers={"Date": formatdate(self._clock(), usegmt=True), **reply.headers})

    def _answer_or_fail(self, request: Request) -> Reply:
        """Answer a request, unless a fault is due."""
        operation = api.operation_of(request.path)
        with self._lock:
            self.requests[operation] += 1
            fault = next((item for item in self.faults if item.takes(operation)), None)
        return fault.apply(request, self._answer) if fault else self._answer(request)

    def _answer(self, request: Request) -> Reply:
        try:
            with self._lock, self._store.changes():
                reply = self._route(request)
        except ApiError as error:
            return error.reply()
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            return ApiError("The local workspace failed; its log says why.", code="INTERNAL_ERROR", status=500).reply()
        if request.method == "POST":
            self._wake.set()
        return reply

    def _route(self, request: Request) -> Reply:
        if request.path.startswith("/api/"):
            api.check_credentials(request, self.token)
            return self._call_api(request)
        if reply := api.discovery(request, self.base_url):
            return reply
        if (request.method, request.path) == ("POST", "/oidc/v1/token"):
            return api.issue_token(request, self.token)
        # A browser has no way to send the token, so pages are open to whoever can reach the loopback interface.
        page = pages.find(self._store, self._executor, request.path) if request.method == "GET" else None
        return page or api.bad_target(request)

    def _call_api(self, request: Request) -> Reply:
        if (answer := self._beside_jobs(request)) is not None:
            return json_reply(answer)
        found = api.find_operation(request)
        if found is None:
            return api.bad_target(request)
        version, operation = found
        call = Call(
            store=self._store,
            executor=self._executor,
            render=Renderer(self._store, self.base_url, version),
            version=version,
            args=api.arguments(request),
            user=self._user,
            now_ms=self._now_ms(),
        )
        return json_reply(operation(call))

    def _beside_jobs(self, request: Request) -> Json | None:
        """Answer what is not part of the Jobs API; None: it is, or does not exist."""
        match request.method, request.path:
            case "GET", "/api/2.0/preview/scim/v2/Me":
                return api.me(self._user)
            case "GET", "/api/2.1/clusters/spark-versions":
                # Airflow asks for it to test a connection; there are no clusters here.
                return {"versions": []}
            case "POST", "/api/local/faults":
                self.faults += parse_faults(api.arguments(request))
                return {}
            case "DELETE", "/api/local/faults":
                self.faults.clear()
                return {}
            case "GET", "/api/local/requests":
                return {"requests": dict(self.requests)}
        return None

    def tick(self) -> None:
        """Do what is due: notice programs that ended, start tasks, stop those out of time, end runs."""
        with self._lock, self._store.changes():
            self._free_slots = min(_STARTS_PER_TICK, self._max_parallel_tasks - self._executor.count_running())
            for run in list(self._store.active_runs.values()):
                try:
                    self._advance(run)
                except sqlite3.Error:
                    # Not a matter of this run: nothing can be noted now, so the tick is tried again.
                    raise
                except Exception:
                    # Whatever is wrong with this run, others go on, and nobody waits for it for ever.
                    log.exception("Run %s could not go on", run.run_id)
                    self._give_up(run)

    def _keep_ticking(self) -> None:
        while not self._closing:
            try:
                self.tick()
            except Exception:
                log.exception("The local workspace could not move its runs on; it tries again.")
            self._wake.wait(_TICK_SECONDS if self._store.active_runs else None)
            # Only now, before `_closing` and the runs are looked at again: whoever sets it has changed those before.
            self._wake.clear()

    def _now_ms(self) -> int:
        return round(self._clock() * 1000)

    def _advance(self, run: Run) -> None:
        if run.state.life == "QUEUED":
            if not launching.has_slot(self._store, run):
                return
            run.state, run.clock_ms = State("PENDING"), self._now_ms()
            self._store.save(run)
        for task in self._store.tasks_of(run):
            if task.state.life in ("RUNNING", "TERMINATING"):
                self._look_after(run, task)
        progress = True
        while progress and run.active:
            steps = next_steps(run, self._store.tasks_of(run), self._now_ms())
            # Each step is carried out, whether or not one before it changed anything.
            progress = sum(self._carry_out(run, step) for step in steps) > 0

    def _look_after(self, run: Run, task: TaskRun) -> None:
        """Notice how a task run that is under way ended."""
        if task.child_run_id is not None:
            if state := self._child_state(task):
                self._end(task, state)
            return
        if task.state.life == "RUNNING" and self._executor.never_began(task):
            # The server was killed after it had noted the start, and before it started anything.
            self._execute(run, task)
        elif state := self._executor.poll(task):
            self._end(task, state)
        elif task.state.life == "TERMINATING":
            self._executor.stop(task)

    def _child_state(self, task: TaskRun) -> State | None:
        """Return how a run_job task ends, given the run it started; None while that run is active."""
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
        """Carry out what the scheduler decided; tell whether anything changed."""
        match step:
            case Start(task):
                return self._start(run, task)
            case Stop(task, result):
                self._stop(task, result)
            case End(task, state):
                self._end(task, state)
            case Retry(task, not_before_ms):
                launching.retry(self._store, run, task, not_before_ms, self._now_ms())
            case StopRun(result):
                run.stop, run.state = result, State("TERMINATING", message="Being stopped.")
                self._store.save(run)
            case EndRun(state):
                self._end_run(run, state)
        return True

    def _start(self, run: Run, task: TaskRun) -> bool:
        kind = payload_fields(task.spec)[0]
        executes = kind in ("notebook_task", "spark_python_task")
        if executes and self._free_slots <= 0:
            if task.state.life == "PENDING":
                return False
            task.state = State("PENDING", message="Waiting for its turn on this machine.")
            self._store.save(task)
            return True
        task.state, task.started, task.start_ms = State("RUNNING"), True, self._now_ms()
        if run.state.life != "RUNNING":
            run.state = State("RUNNING")
        self._store.save(run, task)
        if executes:
            # Noted before it happens: a server that dies in between must not start the program twice.
            self._store.commit()
            self._free_slots -= 1
            self._execute(run, task)
        else:
            self._run_without_program(run, task, kind)
        return True

    def _execute(self, run: Run, task: TaskRun) -> None:
        try:
            self._executor.start(run, task, parameters.resolved_spec(run, task))
        except CannotRunError as error:
            self._end(task, State("INTERNAL_ERROR", "FAILED", str(error), error.code))

    def _run_without_program(self, run: Run, task: TaskRun, kind: str) -> None:
        payload = parameters.resolved_spec(run, task)[kind]
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
                message = f"Job {payload['job_id']} does not exist."
                self._end(task, State("INTERNAL_ERROR", "FAILED", message, "RESOURCE_NOT_FOUND"))
            else:
                child = launching.run_job(self._store, job, payload, self._now_ms(), parent=run)
                task.child_run_id = child.run_id
        else:
            message = f"The local workspace cannot run a {kind}; it can run {_RUNNABLE}."
            self._end(task, State("INTERNAL_ERROR", "FAILED", message, "INVALID_RUN_CONFIGURATION"))

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
        task.state, task.end_ms = state, self._now_ms()
        self._store.save(task)

    def _give_up(self, run: Run) -> None:
        """End a run with which something is wrong; its tasks end at once, and their programs are told to."""
        message = "The local workspace failed to go on with this run; its log says why."
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
        run.state, run.end_ms = state, self._now_ms()
        run.episodes[-1].state, run.episodes[-1].end_ms = state, run.end_ms
        self._store.save(run)
        if run.deleted:
            for task in self._store.tasks_of(run):
                self._executor.forget(task)
            self._store.remove_run(run)
