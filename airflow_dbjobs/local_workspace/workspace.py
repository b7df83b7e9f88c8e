"""The local workspace: it answers requests, and a thread advances its runs."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from dataclasses import replace
from email.utils import formatdate
from typing import TYPE_CHECKING, Self

from .engine.executor import Executor
from .engine.runner import Runner
from .engine.simulation import MAX_SECONDS, AnyExecutor, SimulatedExecutor
from .engine.spark_server import SparkServer
from .failure_log import FailureLog
from .faults import Fault, parse_faults
from .http import auth, routes
from .messages import ApiError, Reply, Request, json_reply
from .operations import bulk
from .operations.context import Memory, RequestContext
from .state.folder import PAGE_KEY, WorkspaceError, kept_secret, lock_folder, state_folder
from .state.store import Store
from .views.json_view import JsonView
from .views.pages import Pages

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from .engine.spark_server import Engine
    from .http.adapter import WorkspaceAdapter
    from .jobs_files.loading import JobsFiles
    from .messages import Json

_TICK_SECONDS = 0.05
#: The pause after a failed tick, for example because the disk is full.
_RETRY_SECONDS = 1.0


class LocalWorkspace:
    """A Databricks workspace in a folder.

    `handle` answers requests. `tick` advances the runs; between `start` (or `with`) and `close` a thread calls it, and
    otherwise a test can.

    :param root: The workspace's folder. Its state is kept in the subfolder `.airflow_dbjobs`, and survives a restart.
    :param token: The API token.
    :param base_url: The URL of the server, for links to the pages of runs.
    :param clock: Returns the time in seconds since the epoch.
    :param max_parallel_tasks: How many programs run at a time; more tasks wait as PENDING.
    :param simulate: Run no code: each task takes this many seconds and succeeds, unless its parameters
        `simulated_seconds` and `simulated_result` override that. None runs the tasks.
    :param max_page: The largest page of runs/list in API 2.0 (newer real servers have 25). Later versions never exceed
        25.
    :param spark: What runs the Spark code of tasks: "sail", "pyspark", "none", or "auto", the first that is installed.
    :param spark_catalogs: The names of catalogs in addition to `main`, `workspace` and `hive_metastore`.
    :param jobs: The files whose jobs the workspace creates or resets at its start.
    :raises WorkspaceError: `root` is not a folder, another workspace has it open, or its state is damaged; the token is
        empty; `spark` is not installed; a file of `jobs` is wrong; `simulate`, `max_page` or `max_parallel_tasks` is
        out of range; or parameters contradict each other.
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
        spark: Engine = "none",
        spark_catalogs: Sequence[str] = (),
        jobs: JobsFiles | None = None,
    ) -> None:
        if not token.strip():
            raise WorkspaceError("The token is empty; a workspace runs code, so it needs one.")
        if not (token.isascii() and token.isprintable()):
            raise WorkspaceError("The token has characters that an HTTP header cannot hold; use letters and digits.")
        if simulate is not None and not 0 <= simulate <= MAX_SECONDS:
            raise WorkspaceError(f"simulate must be from 0 to {MAX_SECONDS} seconds, not {simulate}.")
        if simulate is not None and spark in ("sail", "pyspark"):
            raise WorkspaceError(f"Simulated tasks run no code: leave out --simulate or --spark {spark}.")
        if max_page < 1:
            raise WorkspaceError(f"max_page must be at least 1, not {max_page}.")
        if max_parallel_tasks < 1:
            raise WorkspaceError(f"max_parallel_tasks must be at least 1, not {max_parallel_tasks}.")
        folder = state_folder(root)
        self._root = root.resolve()
        page_key = kept_secret(folder, PAGE_KEY)
        self.token = token
        self.base_url = base_url
        #: The faults to inject; tests may add to them at any time.
        self.faults: list[Fault] = []
        #: How many requests came in, by operation ("runs/get"), including those that a fault made fail.
        self.requests: Counter[str] = Counter()
        self._clock = clock
        self._simulate = simulate
        self._max_page = max_page
        self._user = auth.user_name()
        self._spark = SparkServer(folder / "spark", "none" if simulate is not None else spark, spark_catalogs)
        #: The jobs of the files, and what is not as in the cloud.
        self.file_jobs, self.file_notes = jobs.read(self._root, user=self._user, host=base_url) if jobs else ([], [])
        self._failures = FailureLog()
        self._memory = Memory()
        self._lock_file = lock_folder(folder)
        try:
            self._store = Store(folder / "workspace.sqlite3")
        except WorkspaceError:
            os.close(self._lock_file)
            raise
        self._executor = self._new_executor(folder / "runs")
        self._pages = Pages(self._store, self._executor, base_url=base_url, key=page_key, now_ms=self._now_ms)
        self._runner = Runner(self._store, self._executor, max_parallel_tasks)
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._save_file_jobs(jobs.sources if jobs else set())

    def _save_file_jobs(self, sources: set[str]) -> None:
        if sources:
            from .jobs_files.loading import save

            with self._store.changes():
                save(self.file_jobs, sources, self._context)

    def _new_executor(self, folder: Path) -> AnyExecutor:
        """Return what runs tasks: their code, with `folder` for its output, or a simulation."""
        if self._simulate is None:
            return Executor(self._root, folder, self._spark)
        return SimulatedExecutor(self._simulate, self._now_ms)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the thread that advances runs."""
        if any(task.started for run in self._store.active_runs.values() for task in self._store.tasks_of(run)):
            # Their programs may wait for the Spark server, which has ended with the earlier workspace.
            self._spark.environment()
        self._thread = threading.Thread(target=self._keep_ticking, name="local-workspace", daemon=True)
        self._thread.start()

    def close(self, *, leave_running: bool = False) -> None:
        """Stop, and kill all programs; with `leave_running` they keep running, and the next workspace finds them."""
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
                self._spark.close()
                os.close(self._lock_file)

    @property
    def spark_label(self) -> str:
        """The name of what runs the Spark code of tasks; "" if nothing does."""
        return self._spark.label()

    @property
    def pages_url(self) -> str:
        """The URL of the page that lists the recent runs, with the key that opens it."""
        return self._pages.front_url

    def adapter(self) -> WorkspaceAdapter:
        """Return an adapter by which a `requests.Session` reaches this workspace, to mount at `base_url`."""
        from .http.adapter import WorkspaceAdapter

        return WorkspaceAdapter(self)

    def handle(self, request: Request) -> Reply:
        """Answer a request; its changes are durable when this returns."""
        reply = self._answer(request) if request.path.startswith("/api/local/") else self._answer_or_fail(request)
        # Clients use the date to find out whether a run is older than their request.
        return replace(reply, headers={"Date": formatdate(self._clock(), usegmt=True), **reply.headers})

    def _answer_or_fail(self, request: Request) -> Reply:
        """Answer a request, or apply the fault that it matches."""
        operation = routes.operation_of(request.path)
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
        except Exception as error:  # noqa: BLE001 - a bug is logged, and answered with status 500
            message = self._failures.report(f"{request.method} {request.path} failed", error)
            return ApiError(message, code="INTERNAL_ERROR", status=500).reply()
        if request.method == "POST":
            self._wake.set()
        return reply

    def _route(self, request: Request) -> Reply:
        if request.path.startswith("/api/"):
            auth.check_credentials(request, self.token)
            return self._call_api(request)
        if reply := auth.discovery(request, self.base_url):
            return reply
        if (request.method, request.path) == ("POST", "/oidc/v1/token"):
            return auth.issue_token(request, self.token)
        return self._pages.find(request) or routes.not_found(request)

    def _call_api(self, request: Request) -> Reply:
        if (answer := self._control(request)) is not None:
            return json_reply(answer)
        found = routes.find_operation(request)
        if found is None:
            return routes.not_found(request)
        version, operation = found
        result = operation(self._context(version, routes.arguments(request), request))
        return result if isinstance(result, Reply) else json_reply(result)

    def _context(self, version: str, args: Json, request: Request | None = None) -> RequestContext:
        return RequestContext(
            request=request or Request("POST", "/"),
            memory=self._memory,
            store=self._store,
            executor=self._executor,
            root=self._root,
            view=JsonView(self._store, self._pages.url, version),
            version=version,
            args=args,
            user=self._user,
            now_ms=self._now_ms(),
            max_page=self._max_page,
        )

    def _control(self, request: Request) -> Json | None:
        """Answer requests to this workspace's own API, for tests and benchmarks; return None for other requests."""
        match request.method, request.path:
            case "POST", "/api/local/faults":
                self.faults += parse_faults(routes.arguments(request))
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
        """Start `count` simulated runs with one task, which ends after `seconds` with `result`; return their ids.

        :raises ApiError: An argument is invalid, or the workspace does not simulate.
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
        """End active simulated runs, all at the same time; return that time in epoch milliseconds.

        :raises ApiError: An argument or a run is invalid, or the workspace does not simulate. Then no run ends.
        """
        self._simulated_seconds()
        with self._lock, self._store.changes():
            now_ms = self._now_ms()
            bulk.end(self._store, self._runner, run_ids=run_ids, result=result, now_ms=now_ms)
        return now_ms

    def _bulk_fields(self, request: Request, required: str, *optional: str) -> Json:
        self._simulated_seconds()
        body = routes.arguments(request)
        bulk.check_names(body, required, *optional)
        return body

    def _simulated_seconds(self) -> float:
        if self._simulate is None:
            raise ApiError("This needs a workspace that was started with --simulate.")
        return self._simulate

    def tick(self) -> None:
        """Advance all runs: notice the end of programs, start tasks, enforce timeouts, end runs."""
        with self._lock, self._store.changes():
            self._runner.tick(self._now_ms())

    def _keep_ticking(self) -> None:
        while not self._closing:
            try:
                self.tick()
                pause = _TICK_SECONDS if self._store.active_runs else None
            except Exception as error:  # noqa: BLE001 - logged, and retried
                self._failures.report("The local workspace could not advance its runs, and will retry", error)
                pause = _RETRY_SECONDS
            self._wake.wait(pause)
            # Cleared before `_closing` and the runs are read: they are always changed before `_wake` is set.
            self._wake.clear()

    def _now_ms(self) -> int:
        return round(self._clock() * 1000)
