"""The local workspace: it answers requests, and lets a thread move its runs on."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from dataclasses import replace
from email.utils import formatdate
from typing import TYPE_CHECKING, Self

from airflow_dbjobs.local_workspace.engine.executor import Executor
from airflow_dbjobs.local_workspace.engine.runner import Runner
from airflow_dbjobs.local_workspace.engine.simulation import MAX_SECONDS, AnyExecutor, SimulatedExecutor
from airflow_dbjobs.local_workspace.failure_log import Trouble
from airflow_dbjobs.local_workspace.faults import Fault, parse_faults
from airflow_dbjobs.local_workspace.http import routes as api
from airflow_dbjobs.local_workspace.messages import ApiError, Reply, Request, json_reply
from airflow_dbjobs.local_workspace.operations import bulk
from airflow_dbjobs.local_workspace.operations.context import Call
from airflow_dbjobs.local_workspace.state.folder import PAGE_KEY, WorkspaceError, claim, kept_secret, state_folder
from airflow_dbjobs.local_workspace.state.store import Store
from airflow_dbjobs.local_workspace.views.json_view import Renderer
from airflow_dbjobs.local_workspace.views.pages import Pages

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from airflow_dbjobs.local_workspace.http.adapter import WorkspaceAdapter
    from airflow_dbjobs.local_workspace.messages import Json

_TICK_SECONDS = 0.05
#: After a tick that failed, say because the disk is full.
_RETRY_SECONDS = 1.0


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
    simulate:
        Run nothing: each task takes so many seconds and succeeds, unless its parameters `simulated_seconds` and
        `simulated_result` say otherwise. None: tasks are run.
    max_page:
        The largest page of runs/list in API 2.0; newer real servers have 25. Later versions never exceed 25.

    Raises
    ------
    WorkspaceError
        `root` is no folder, another workspace has it open, its state is damaged, or the token is empty; `simulate`,
        `max_page` or `max_parallel_tasks` is out of range.
    """

    def __init__(
        self,
        root: Path,
        *,
        token: str,
        base_url: str = "http://127.0.0.1:8765",
        clock: Callable[[], float] = time.time,
        max_parallel_tasks: int = 64,
        simulate: float | None = None,
        max_page: int = 1000,
    ) -> None:
        if not token.strip():
            raise WorkspaceError("The token is empty; a workspace runs code, so it does not open without one.")
        if not (token.isascii() and token.isprintable()):
            raise WorkspaceError("The token has characters that an HTTP header cannot hold; use letters and digits.")
        if simulate is not None and not 0 <= simulate <= MAX_SECONDS:
            raise WorkspaceError(f"Simulated tasks take from 0 to {MAX_SECONDS} seconds, not {simulate}.")
        if max_page < 1:
            raise WorkspaceError(f"A page holds at least 1 run; max_page is {max_page}.")
        if max_parallel_tasks < 1:
            raise WorkspaceError(f"At least 1 task runs at a time; max_parallel_tasks is {max_parallel_tasks}.")
        folder = state_folder(root)
        page_key = kept_secret(folder, PAGE_KEY)
        self.token = token
        self.base_url = base_url
        #: What goes wrong with requests; add to it at will.
        self.faults: list[Fault] = []
        #: How many requests came in, by operation ("runs/get"), failed ones included.
        self.requests: Counter[str] = Counter()
        self._clock = clock
        self._simulate = simulate
        self._max_page = max_page
        self._user = api.user_name()
        self._trouble = Trouble()
        self._lock_file = claim(folder)
        try:
            self._store = Store(folder / "workspace.sqlite3")
        except WorkspaceError:
            os.close(self._lock_file)
            raise
        self._executor: AnyExecutor = (
            Executor(root.resolve(), folder / "runs") if simulate is None else SimulatedExecutor(simulate, self._now_ms)
        )
        self._pages = Pages(self._store, self._executor, base_url=base_url, key=page_key)
        self._runner = Runner(self._store, self._executor, max_parallel_tasks)
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

    @property
    def pages_url(self) -> str:
        """The address of the page that lists the recent runs, with the key that lets a browser in."""
        return self._pages.front_url

    def adapter(self) -> WorkspaceAdapter:
        """Return what makes a `requests.Session` talk to this workspace: `session.mount(ws.base_url, ws.adapter())`."""
        from airflow_dbjobs.local_workspace.http.adapter import WorkspaceAdapter

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
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets a reply
            message = self._trouble.tell(f"{request.method} {request.path} failed", error)
            return ApiError(message, code="INTERNAL_ERROR", status=500).reply()
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
        return self._pages.find(request) or api.bad_target(request)

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
            render=Renderer(self._store, self._pages.url, version),
            version=version,
            args=api.arguments(request),
            user=self._user,
            now_ms=self._now_ms(),
            max_page=self._max_page,
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
        return self._control(request)

    def _control(self, request: Request) -> Json | None:
        """Answer what only this workspace has, for tests and benchmarks; None: it is something else."""
        match request.method, request.path:
            case "POST", "/api/local/faults":
                self.faults += parse_faults(api.arguments(request))
                return {}
            case "DELETE", "/api/local/faults":
                self.faults.clear()
                return {}
            case "GET", "/api/local/requests":
                return {"requests": dict(self.requests)}
            case "POST", "/api/local/runs":
                return {"run_ids": self.create_runs(**self._bulk_fields(request, "count", "seconds", "result"))}
            case "POST", "/api/local/end-runs":
                return {"end_time": self.end_runs(**self._bulk_fields(request, "run_ids", "result"))}
        return None

    def create_runs(self, count: int, *, seconds: float | None = None, result: str = "SUCCESS") -> list[int]:
        """Begin so many simulated runs of one task, which ends after `seconds` with `result`; return their ids.

        Raises:
            ApiError: an argument is wrong, or the workspace does not simulate.
        """
        default = self._simulated_seconds()
        with self._lock, self._store.changes():
            seconds = default if seconds is None else seconds
            ids = bulk.create(
                self._store,
                self._runner,
                count=count,
                seconds=seconds,
                result=result,
                user=self._user,
                now_ms=self._now_ms(),
            )
        self._wake.set()
        return ids

    def end_runs(self, run_ids: Sequence[int], *, result: str = "SUCCESS") -> int:
        """End active simulated runs, all in the same instant; return it in epoch milliseconds.

        Raises:
            ApiError: an argument or a run is wrong, or the workspace does not simulate. Then none has ended.
        """
        self._simulated_seconds()
        with self._lock, self._store.changes():
            now_ms = self._now_ms()
            bulk.end(self._store, self._runner, run_ids=run_ids, result=result, now_ms=now_ms)
        return now_ms

    def _bulk_fields(self, request: Request, required: str, *optional: str) -> Json:
        self._simulated_seconds()
        body = api.arguments(request)
        bulk.check_names(body, required, *optional)
        return body

    def _simulated_seconds(self) -> float:
        if self._simulate is None:
            raise ApiError("This workspace runs its tasks; only one that was started with --simulate can do this.")
        return self._simulate

    def tick(self) -> None:
        """Do what is due: notice programs that ended, start tasks, stop those out of time, end runs."""
        with self._lock, self._store.changes():
            self._runner.tick(self._now_ms())

    def _keep_ticking(self) -> None:
        while not self._closing:
            try:
                self.tick()
                pause = _TICK_SECONDS if self._store.active_runs else None
            except Exception as error:  # noqa: BLE001 - whatever it is, it may be over the next time
                self._trouble.tell("The local workspace could not move its runs on, and will retry", error)
                pause = _RETRY_SECONDS
            self._wake.wait(pause)
            # Only now, before `_closing` and the runs are looked at again: whoever sets it has changed those before.
            self._wake.clear()

    def _now_ms(self) -> int:
        return round(self._clock() * 1000)
