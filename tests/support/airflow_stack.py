"""Real Airflow 3 for the integration tests and the demo: each component a subprocess, all it writes in one folder.

    with AirflowStack(home, dags_folder, connections={"databricks_default": '{"conn_type": ...}'}) as airflow:
        run = airflow.run_dag("my_dag", conf={"n": 1})
        assert run.state == "success"
        print(airflow.api.xcom(run.task("my_task")))

From the ground up: `Processes` starts subprocesses and leaves none behind; `WorkspaceServer` is a local workspace for
the tasks of Airflow to talk to; `AirflowApi` asks the public REST API (nothing here reads the database); `AirflowStack`
runs Airflow and waits for things to happen in it.
"""

from __future__ import annotations

import base64
import json
import os
import pwd
import random
import re
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self, TypeVar

import psutil
import requests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

T = TypeVar("T")

FINISHED = frozenset({"success", "failed"})

# Named by the environment variable that every process started here carries, and so do its children and theirs.
MARK = "DBJOBS_TEST_PROCESSES"

# On Linux the kernel ends a component whose parent was killed with SIGKILL and could not clean up. `setpriv` executes
# the command in its own place, so that the process id stays the one we know.
_DIE_WITH_PARENT = ("setpriv", "--pdeathsig", "TERM", "--") if shutil.which("setpriv") else ()

# What the components are called in Airflow's list of jobs. The api-server is not there: it is up when it answers.
_JOB_TYPES = {"scheduler": "SchedulerJob", "dag-processor": "DagProcessorJob", "triggerer": "TriggererJob"}


class ProcessDied(RuntimeError):
    """A process ended that should be running; the message holds its exit code and the end of its log."""


class DagImportFailed(RuntimeError):
    """Files of the DAG folder that Airflow could not import; the message holds their full tracebacks."""


def free_port() -> int:
    """Return a loopback port that nobody listens on, and that the kernel gives to no outgoing connection meanwhile."""
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no free port between 20000 and 32000")


def _kind(component: str) -> str:
    return re.sub(r"-\d+$", "", component)


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def clean_environment() -> dict[str, str]:
    """Return this process' environment without the user's Airflow settings, and with no proxy for loopback."""
    environment = {name: value for name, value in os.environ.items() if not name.lstrip("_").startswith("AIRFLOW")}
    loopback = "127.0.0.1,localhost"
    for name in ("no_proxy", "NO_PROXY"):
        environment[name] = f"{environment[name]},{loopback}" if environment.get(name) else loopback
    return environment


def variables_of(settings: Mapping[str, str]) -> dict[str, str]:
    """Return Airflow's settings ("core.executor") as the environment variables by which it reads them."""
    return {f"AIRFLOW__{name.replace('.', '__').upper()}": value for name, value in settings.items()}


class Processes:
    """Named subprocesses with a log each, none of which outlives `stop_all`: nor do their children and grandchildren.

    Process groups are not enough for that: Airflow gives each task a group of its own, and a task may start what
    outlives it. So everything is found again by a mark in its environment, and so are the children of what is marked.
    """

    def __init__(self, logs: Path, environment: Mapping[str, str], *, grace: float = 8.0) -> None:
        self.logs = logs
        self._mark = secrets.token_hex(8)
        # SPT_NOENV: else setproctitle, which Airflow calls, writes a process' title over the environment we look at.
        self._environment = {**environment, MARK: self._mark, "SPT_NOENV": "1", "PYTHONUNBUFFERED": "1"}
        self._grace = grace
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._unmarked: set[psutil.Process] = set()
        self._paused: set[psutil.Process] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_all()

    @property
    def names(self) -> frozenset[str]:
        """The processes that should be running."""
        return frozenset(self._running)

    def run(self, name: str, *command: str, timeout: float, user: str | None = None) -> None:
        """Run a command to its end, which must be a good one."""
        self.start(name, *command, user=user)
        try:
            code = self._running[name].wait(timeout)
        finally:
            process = self._running.pop(name)
            if process.poll() is None:
                process.kill()
                process.wait()
        if code:
            raise self._died(name, code)

    def start(self, name: str, *command: str, user: str | None = None) -> None:
        """Start a command in a process group of its own: Ctrl-C reaches us alone, and we stop it in good order.

        Root can start it as another user, who may not be allowed to enter the folder we are in.
        """
        self.logs.mkdir(parents=True, exist_ok=True)
        with self._log(name).open("ab") as log:
            self._running[name] = subprocess.Popen(
                [*_DIE_WITH_PARENT, *command],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
                user=user,
                group=pwd.getpwnam(user).pw_gid if user else None,
                extra_groups=[] if user else None,
                cwd="/" if user else None,
            )

    def stop(self, name: str) -> None:
        """Ask a process to end; it has the grace time to do so before it and its children are killed."""
        process = self._running.pop(name)
        tree = self._tree(process)
        process.terminate()
        try:
            process.wait(self._grace)
        except subprocess.TimeoutExpired:
            self._kill(tree)
            process.wait()

    def terminate(self, name: str) -> None:
        """Ask a process and all its children to end, all at once, and wait until they have: as systemd stops a unit."""
        process = self._running.pop(name)
        tree = self._tree(process)
        _signal_each(tree, signal.SIGTERM)
        _, alive = psutil.wait_procs(tree[1:], self._grace)
        self._kill(alive)
        try:
            process.wait(self._grace)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self, name: str, *, children: bool = True) -> None:
        """End a process, and by default its children, as a power cut would: with SIGKILL, all at once."""
        process = self._running.pop(name)
        self._kill(self._tree(process) if children else [psutil.Process(process.pid)])
        process.wait()

    def pause(self, *processes: psutil.Process) -> None:
        """Stop processes and their children where they are, as a machine that is suspended, until `resume`."""
        tree = {member for process in processes for member in (process, *_children(process))}
        _signal_each(tree, signal.SIGSTOP)
        self._paused |= tree

    def resume(self, *processes: psutil.Process) -> None:
        """Let paused processes and their children go on, or all that are paused."""
        tree = {member for process in processes for member in (process, *_children(process))} or set(self._paused)
        _signal_each(tree, signal.SIGCONT)
        self._paused -= tree

    def process(self, name: str) -> psutil.Process:
        """Return a running process."""
        return psutil.Process(self._running[name].pid)

    def descendant(self, pid: int) -> psutil.Process:
        """Return a process that was started here, or by one that was. Raises LookupError: a stranger, or gone."""
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            process = psutil.Process(pid)
            if process.environ().get(MARK) == self._mark:
                return process
        raise LookupError(f"No process that was started here has the id {pid}")

    def check(self) -> None:
        """Raise an error that explains itself if a process has ended that should be running."""
        for name, process in self._running.items():
            if process.poll() is not None:
                raise self._died(name, process.returncode)

    def stop_all(self) -> None:
        """End everything that was started here: politely, then not. Ctrl-C has to wait for the end of this."""
        with _interrupts_ignored():
            self.resume()
            self._signal_until_gone(signal.SIGTERM, self._grace)
            self._signal_until_gone(signal.SIGKILL, self._grace)
            for process in self._running.values():
                process.wait(self._grace)
            self._running.clear()

    def alive(self) -> set[psutil.Process]:
        """Return every live process that was started here, or by one that was."""
        # A zombie has no environment, and counts as gone.
        running = psutil.process_iter(["environ"])
        marked = {process for process in running if (process.info["environ"] or {}).get(MARK) == self._mark}
        # The local workspace keeps its environment, and so our mark, from the programs it runs. They are found through
        # their parents, and remembered for when these are gone.
        self._unmarked |= {child for process in marked for child in _children(process)} - marked
        self._unmarked = {process for process in self._unmarked if _lives(process)}
        return marked | self._unmarked

    def wait_for(self, what: str, condition: Callable[[], T | None], timeout: float) -> T:
        """Ask until the condition gives something else than None; fail as soon as a process dies that should live."""
        deadline = time.monotonic() + timeout
        while True:
            self.check()
            # The server does not answer yet, not in time, or not any more because a test has killed it: ask again.
            with suppress(requests.ConnectionError, requests.Timeout):
                if (found := condition()) is not None:
                    return found
            if time.monotonic() > deadline:
                raise TimeoutError(f"Waited {timeout:.0f} s for {what}. The logs are in {self.logs}")
            time.sleep(0.3)

    def tail(self, name: str, lines: int = 30) -> str:
        """Return the last lines of a process' log."""
        return "\n".join(self._log(name).read_text(errors="replace").splitlines()[-lines:])

    def _signal_until_gone(self, signal_number: int, patience: float) -> None:
        """Signal each process once, those too that turn up late, until none is left or patience ends."""
        signalled: set[psutil.Process] = set()
        deadline = time.monotonic() + patience
        while (alive := self.alive()) and time.monotonic() < deadline:
            _signal_each(alive - signalled, signal_number)
            signalled |= alive
            time.sleep(0.05)

    @staticmethod
    def _tree(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
        root = psutil.Process(process.pid)
        return [root, *_children(root)]

    @staticmethod
    def _kill(tree: Iterable[psutil.Process]) -> None:
        _signal_each(tree, signal.SIGKILL)

    def _log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def _died(self, name: str, code: int) -> ProcessDied:
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return ProcessDied(f"{name} {how}. The end of its log, {self._log(name)}:\n{self.tail(name)}")


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _signal_each(processes: Iterable[psutil.Process], signal_number: int) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # it may have ended since we looked
            process.send_signal(signal_number)


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Let nothing break off a clean-up. Signal handlers belong to the main thread, and so does KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class WorkspaceServer:
    """A local workspace as users have it: a process of its own that serves the folder `root`."""

    def __init__(self, root: Path, logs: Path) -> None:
        self.root = root
        self._port = free_port()
        self._token = secrets.token_hex(16)
        self._session = requests.Session()
        self._session.trust_env = False
        self.url = f"http://127.0.0.1:{self._port}"
        self.processes = Processes(logs, clean_environment())

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.processes.stop_all()
        self._session.close()

    def start(self) -> None:
        """Start the server, again after `kill`: it is the same workspace, at the same place."""
        options = ["--root", str(self.root), "--port", str(self._port), "--token", self._token]
        if (self.root / "databricks.yml").exists():
            options += ["--jobs", str(self.root)]
        self.processes.start("workspace", sys.executable, "-m", "airflow_dbjobs.local_workspace", *options)
        self.processes.wait_for("the local workspace", lambda: self.call("GET", "jobs/list"), timeout=30)

    def kill(self) -> None:
        """End the server with SIGKILL. The programs of its runs go on, as they do in the cloud."""
        self.processes.kill("workspace", children=False)

    @property
    def connection(self) -> str:
        """The Airflow connection that leads here, as JSON."""
        where = {"host": "127.0.0.1", "port": self._port, "schema": "http"}
        return json.dumps({"conn_type": "databricks_jobs", **where, "password": self._token})

    @property
    def pages_url(self) -> str:
        """The address of the page with the recent runs, as the server prints it when it starts."""
        return self.processes.tail("workspace", sys.maxsize).rpartition("Runs can be seen at ")[2].split()[0]

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Make a call of the Jobs API, `path` being what follows `/api/2.2/`, and return its JSON."""
        return self._call(method, f"2.2/{path}", body)

    def runs(self, *, active_only: bool = False) -> list[dict[str, Any]]:
        """Return the runs, oldest first, as `jobs/runs/list` shows them."""
        first = f"jobs/runs/list?limit=25&active_only={str(active_only).lower()}"
        page = self.call("GET", first)
        runs = list(page.get("runs", ()))
        while token := page.get("next_page_token"):
            page = self.call("GET", f"{first}&page_token={token}")
            runs += page.get("runs", ())
        return sorted(runs, key=lambda run: int(run["run_id"]))

    def add_fault(self, operation: str, **how: Any) -> None:
        """Let requests fail; the parameters are those of `airflow_dbjobs.local_workspace.Fault`."""
        self._call("POST", "local/faults", {"operation": operation, **how})

    def clear_faults(self) -> None:
        """Let new requests succeed again. A reply that is late already stays late."""
        self._call("DELETE", "local/faults")

    def requests(self) -> dict[str, int]:
        """Return how many requests have come in since the server's start, by operation ("runs/get")."""
        return dict(self._call("GET", "local/requests")["requests"])

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        headers = {"Authorization": f"Bearer {self._token}"}
        reply = self._session.request(method, f"{self.url}/api/{path}", json=body, headers=headers, timeout=30)
        return _json(reply)


@dataclass(frozen=True)
class TaskInstance:
    """A task instance as it was when the API was asked."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    state: str | None
    try_number: int
    start: datetime | None
    end: datetime | None
    pid: int | None
    # The job id of the triggerer that has its trigger.
    triggerer: int | None
    # Airflow's own id of this try.
    id: str

    @property
    def name(self) -> str:
        """`load` or, mapped, `load[2]`."""
        return self.task_id if self.map_index < 0 else f"{self.task_id}[{self.map_index}]"

    @property
    def duration(self) -> float | None:
        """Seconds from start to end, or None before the end."""
        return (self.end - self.start).total_seconds() if self.start and self.end else None


@dataclass(frozen=True)
class DagRun:
    """A DAG run and its task instances as they were when the API was asked."""

    dag_id: str
    run_id: str
    state: str
    tasks: tuple[TaskInstance, ...] = ()

    def task(self, task_id: str, map_index: int = -1) -> TaskInstance:
        """Return one task instance."""
        for task in self.tasks:
            if (task.task_id, task.map_index) == (task_id, map_index):
                return task
        names = ", ".join(task.name for task in self.tasks)
        raise LookupError(f"{self.dag_id} has no task {task_id} with map index {map_index}, only {names}")


@dataclass(frozen=True)
class Job:
    """A component as it enters itself in Airflow's database."""

    job_id: int
    job_type: str
    start: datetime | None
    heartbeat: datetime | None


class AirflowApi:
    """What the tests ask of Airflow's public REST API (v2), as plain values.

    With `simple_auth_manager_all_admins` the server gives an admin's token to every caller; all but Airflow 3.1
    would give one to each request, too.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._session = requests.Session()
        self._session.trust_env = False  # neither a proxy nor a .netrc has a say in a call to loopback

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def call(self, method: str, path: str, *, params: Mapping[str, Any] | None = None, body: Any = None) -> Any:
        """Make any call of the API and return its JSON; an error status raises, with the server's explanation."""
        if "Authorization" not in self._session.headers:
            token = _json(self._session.get(f"{self.url}/auth/token", timeout=30))["access_token"]
            self._session.headers["Authorization"] = f"Bearer {token}"
        reply = self._session.request(method, f"{self.url}/api/v2/{path}", params=params, json=body, timeout=30)
        return _json(reply)

    def jobs(self) -> list[Job]:
        """Return all components but the api-server that were ever started, oldest first."""
        jobs = self._pages("jobs", "jobs")
        return sorted((_job(job) for job in jobs), key=lambda job: job.job_id)

    def dags(self) -> dict[str, str]:
        """Return the ids of the parsed DAGs, each with its file's path in the DAG folder."""
        return {dag["dag_id"]: dag["relative_fileloc"] for dag in self._pages("dags", "dags")}

    def import_errors(self) -> dict[str, str]:
        """Return the tracebacks of the files that could not be imported, by path in the DAG folder."""
        return {error["filename"]: error["stack_trace"] for error in self._pages("importErrors", "import_errors")}

    def unpause(self, dag_id: str) -> None:
        """Let the DAG's runs be scheduled."""
        self.call("PATCH", f"dags/{dag_id}", body={"is_paused": False})

    def parse_again(self, dag_id: str) -> None:
        """Let the DAG's file be parsed soon, although it has not changed."""
        self.call("PUT", f"parseDagFile/{self.call('GET', f'dags/{dag_id}')['file_token']}")

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> DagRun:
        """Create a DAG run."""
        # With no logical date, two runs of one DAG can be triggered in the same second.
        run = self.call("POST", f"dags/{dag_id}/dagRuns", body={"logical_date": None, "conf": dict(conf or {})})
        return DagRun(dag_id, run["dag_run_id"], run["state"])

    def runs_of(self, dag_id: str) -> list[DagRun]:
        """Return the runs of a DAG, without their tasks."""
        runs = self._pages(f"dags/{dag_id}/dagRuns", "dag_runs")
        return [DagRun(dag_id, run["dag_run_id"], run["state"]) for run in runs]

    def dag_run(self, run: DagRun) -> DagRun:
        """Return the run as it is now."""
        path = f"dags/{run.dag_id}/dagRuns/{run.run_id}"
        # The state first: a run that has ended by then has no task that still moves.
        state = self.call("GET", path)["state"]
        tasks = [_task_instance(task) for task in self._pages(f"{path}/taskInstances", "task_instances")]
        return replace(run, state=state, tasks=tuple(tasks))

    def xcom(self, task: TaskInstance, key: str = "return_value") -> Any:
        """Return what the task pushed; a LookupError says that it pushed nothing under this key."""
        try:
            entry = self.call("GET", f"{_path(task)}/xcomEntries/{key}", params={"map_index": task.map_index})
        except requests.HTTPError as error:
            if error.response is not None and error.response.status_code == requests.codes.not_found:
                raise LookupError(f"{task.dag_id}.{task.name} pushed no XCom {key!r}") from error
            raise
        return entry["value"]

    def log(self, task: TaskInstance, try_number: int | None = None) -> str:
        """Return the task's log, by default of its latest try, a line for each message."""
        path = f"{_path(task)}/logs/{try_number or task.try_number}"
        log = self.call("GET", path, params={"map_index": task.map_index, "full_content": True})
        return "\n".join(_log_line(message) for message in log["content"])

    def delete(self, dag_id: str) -> None:
        """Delete a DAG with its DAG runs and their tasks. (Airflow deletes no DAG run alone that is still running.)"""
        self.call("DELETE", f"dags/{dag_id}")

    def is_stale(self, dag_id: str) -> bool:
        """Return whether the DAG processor has noticed that the DAG's file is gone."""
        return bool(self.call("GET", f"dags/{dag_id}")["is_stale"])

    def retries(self, dag_id: str, task_id: str) -> float:
        """Return the `retries` of a task, as the DAG processor has read them last."""
        return float(self.call("GET", f"dags/{dag_id}/tasks/{task_id}")["retries"])

    def set_state(self, task: TaskInstance, state: str) -> None:
        """Mark the task success, failed or skipped, as a user does in the UI."""
        path = _path(task) if task.map_index < 0 else f"{_path(task)}/{task.map_index}"
        self.call("PATCH", path, body={"new_state": state})

    def clear(self, task: TaskInstance) -> None:
        """Clear the task, whatever its state, as a user does in the UI to have it run again."""
        wanted = task.task_id if task.map_index < 0 else [task.task_id, task.map_index]
        body = {"dag_run_id": task.run_id, "task_ids": [wanted], "only_failed": False, "dry_run": False}
        self.call("POST", f"dags/{task.dag_id}/clearTaskInstances", body=body)

    def extra_links(self, task: TaskInstance) -> dict[str, str | None]:
        """Return the URLs of the task's buttons in the UI, by name."""
        links = self.call("GET", f"{_path(task)}/links", params={"map_index": task.map_index})
        return dict(links["extra_links"])

    def _pages(self, path: str, key: str) -> Iterator[dict[str, Any]]:
        """Yield the entries of a collection, whatever the size of its pages."""
        offset = 0
        while True:
            page = self.call("GET", path, params={"limit": 100, "offset": offset})
            yield from page[key]
            offset += len(page[key])
            if not page[key] or offset >= page["total_entries"]:
                return


class AirflowStack:
    """Airflow 3 on SQLite with a LocalExecutor, from `with` to the end of its block.

    `home` becomes AIRFLOW_HOME: database, configuration and logs, `home/logs/<component>.log` among them.
    `connections` are URIs or JSON by connection id. `extra_env` is for everything else that a test wants to set.

    Tasks have an API server of their own. Else a user's action, while tasks come and go, may block the API server for
    as long as Airflow waits for a lock: it is entered into the audit log in the event loop, which the request that
    holds SQLite's lock needs to let go of it.
    """

    # What starts the components, and what those are called that run tasks.
    processes_type = Processes
    worker_kind = "scheduler"

    def __init__(
        self,
        home: Path,
        dags_folder: Path,
        *,
        connections: Mapping[str, str] | None = None,
        extra_env: Mapping[str, str] | None = None,
    ) -> None:
        self.home = home.resolve()
        self.dags_folder = dags_folder.resolve()
        port, self._execution_port = free_port(), free_port()
        self.api = AirflowApi(f"http://127.0.0.1:{port}")
        self._commands = {
            "api-server": ("api-server", "--host", "127.0.0.1", "--port", str(port), "--apps", "core"),
            "execution-api-server": (
                *("api-server", "--host", "127.0.0.1", "--port", str(self._execution_port), "--apps", "execution"),
            ),
            # Logs are read from the folder, by the api-server: it needs nobody to serve them.
            "scheduler": ("scheduler", "--skip-serve-logs"),
            "dag-processor": ("dag-processor",),
            "triggerer": ("triggerer", "--skip-serve-logs"),
        }
        environment = {**clean_environment(), **self._settings()}
        environment |= {f"AIRFLOW_CONN_{name.upper()}": value for name, value in (connections or {}).items()}
        self.processes = self.processes_type(self.home / "logs", environment | dict(extra_env or {}))
        # The job ids of the components that are up, by name.
        self._jobs: dict[str, int] = {}

    def _settings(self) -> dict[str, str]:
        settings = {
            "core.dags_folder": str(self.dags_folder),
            "core.executor": "LocalExecutor",
            "core.parallelism": "4",
            "core.load_examples": "False",
            "core.simple_auth_manager_all_admins": "True",
            "core.execution_api_server_url": f"http://127.0.0.1:{self._execution_port}/execution/",
            # The default asks the name service for this machine's full name, which takes seconds where there is none.
            "core.hostname_callable": "socket.gethostname",
            # A file that a test has just rewritten takes effect at once.
            "core.min_serialized_dag_update_interval": "0",
            # Five processes write to this file; SQLite's own patience with a lock is five seconds.
            "database.sql_alchemy_conn": f"sqlite:///{self.home}/airflow.db?timeout=30",
            # On a busy machine the first answers take longer than the five seconds after which a task is given up.
            "workers.execution_api_timeout": "60",
            "api.base_url": self.api.url,
            # Airflow 3.0 starts four of them, each of which loads all there is.
            "api.workers": "1",
            "api.secret_key": secrets.token_hex(16),
            "api_auth.jwt_secret": secrets.token_hex(32),
            "core.fernet_key": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "logging.base_log_folder": str(self.home / "logs"),
            "logging.colored_console_log": "False",
            # Look for new and changed DAG files every second. Unchanged ones are left alone: parsing costs CPU time.
            "dag_processor.refresh_interval": "1",
            "dag_processor.bundle_refresh_check_interval": "1",
            "dag_processor.min_file_process_interval": "600",
            "scheduler.scheduler_idle_sleep_time": "0.2",
            "scheduler.scheduler_heartbeat_sec": "1",
            "scheduler.job_heartbeat_sec": "1",
            "scheduler.trigger_timeout_check_interval": "1",
            "triggerer.job_heartbeat_sec": "1",
        }
        return {"AIRFLOW_HOME": str(self.home), **variables_of(settings)}

    def __enter__(self) -> Self:
        try:
            self.home.mkdir(parents=True, exist_ok=True)
            self._start_services()
            self.processes.run("db-migrate", *self._airflow("db", "migrate"), timeout=120)
            # All at once: they load the same modules for seconds, and there is more than one core.
            self.start(*self._commands)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.api.close()
        self.processes.stop_all()

    def _start_services(self) -> None:
        """Start what Airflow itself needs."""

    @staticmethod
    def _airflow(*arguments: str) -> list[str]:
        return [sys.executable, "-m", "airflow", *arguments]

    def start(self, *components: str, timeout: float = 120) -> None:
        """Start components and wait until each is up. `triggerer-2` is a further triggerer, and so on."""
        begin = datetime.now(UTC)
        for name in components:
            self._jobs.pop(name, None)
            self.processes.start(name, *self._airflow(*self._command(name)))

        def all_up() -> bool | None:
            # Two triggerers that are started together are both up, but nothing shows which is which.
            jobs = [job for job in self.api.jobs() if job.start and job.start > begin]
            wanted = [name for name in components if _kind(name) in _JOB_TYPES]
            for name in wanted:
                ids = {job.job_id for job in jobs if job.job_type == _JOB_TYPES[_kind(name)]}
                if name not in self._jobs and (new := ids - set(self._jobs.values())):
                    self._jobs[name] = min(new)
            return (self._jobs.keys() >= set(wanted) and _listens(self._execution_port)) or None

        self.wait_for("Airflow to start", all_up, timeout)

    def _command(self, component: str) -> tuple[str, ...]:
        return self._commands[_kind(component)]

    def job(self, component: str) -> Job:
        """Return what Airflow knows of a component that was started."""
        return next(job for job in self.api.jobs() if job.job_id == self._jobs[component])

    def stop(self, component: str) -> None:
        """Stop a component in good order."""
        self.processes.stop(component)

    def terminate(self, component: str) -> None:
        """Stop a component with all its children at once: the scheduler with its tasks and their supervisors."""
        self.processes.terminate(component)

    def kill(self, component: str) -> None:
        """Kill a component with all its children, as when its machine dies; the scheduler takes its tasks along."""
        self.processes.kill(component)

    def pause(self, component: str) -> None:
        """Stop a component where it is, as when its machine is suspended, until `processes.resume`."""
        process = self.processes.process(component)
        self.processes.pause(process)
        # SQLite has one lock for all: a component that is stopped while it writes would stop every other one.
        while self._database_is_locked():
            self.processes.resume(process)
            time.sleep(0.1)
            self.processes.pause(process)

    def _database_is_locked(self) -> bool:
        # Others write too, but for less than this time.
        with closing(sqlite3.connect(self.home / "airflow.db", timeout=2, isolation_level=None)) as database:
            try:
                database.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                    raise
                return True
            database.rollback()
        return False

    def kill_task(self, task: TaskInstance, *, with_supervisor: bool = False) -> None:
        """Kill a running task's process; with its supervisor nobody is left to tell Airflow, as when a machine dies."""
        supervisor, process = self._processes_of(task)
        _signal_each([supervisor, process] if with_supervisor else [process], signal.SIGKILL)

    def pause_task(self, task: TaskInstance) -> psutil.Process:
        """Stop a running task and its supervisor where they are, until `processes.resume`; return the task process."""
        supervisor, process = self._processes_of(task)
        self.processes.pause(supervisor)
        return process

    def _processes_of(self, task: TaskInstance) -> tuple[psutil.Process, psutil.Process]:
        """Return the supervisor of a running task, and the task's own process."""
        if task.state != "running" or task.pid is None:
            raise LookupError(f"{task.dag_id}.{task.name} has no process: it is {task.state}")
        process = self.processes.descendant(task.pid)
        supervisor = process.parent()
        if supervisor is None or not self._worker_over(supervisor):
            raise LookupError(f"{task.dag_id}.{task.name} has no supervisor any more")
        return supervisor, process

    def worker_of(self, task: TaskInstance) -> str:
        """Return the component that runs a running task: with a LocalExecutor the scheduler."""
        return str(self._worker_over(self._processes_of(task)[0]))

    def _worker_over(self, supervisor: psutil.Process) -> str | None:
        for name in self.processes.names:
            if _kind(name) == self.worker_kind and supervisor in _children(self.processes.process(name)):
                return name
        return None

    def lose_worker(self, task: TaskInstance) -> None:
        """Let a running task lose its worker; here only the task's own process can be lost without the scheduler."""
        self.kill_task(task)

    def add_dag(self, file_name: str, source: str) -> Path:
        """Write a DAG file as a whole, so that it is never parsed half-written."""
        path = self.dags_folder / file_name
        unfinished = path.with_suffix(".unfinished")
        unfinished.write_text(source)
        return unfinished.replace(path)

    def wait_for_dag_files(self, files: Iterable[Path], timeout: float = 60) -> list[str]:
        """Wait until each file has given DAGs, and return their ids; a file that cannot be imported raises."""
        wanted = {str(file.resolve().relative_to(self.dags_folder)) for file in files}

        def parsed() -> list[str] | None:
            self._raise_import_errors(wanted)
            dags = {dag_id: file for dag_id, file in self.api.dags().items() if file in wanted}
            return sorted(dags) if wanted == set(dags.values()) else None

        return self.wait_for(f"DAGs in {', '.join(sorted(wanted))}", parsed, timeout)

    def wait_for_dag(self, dag_id: str, timeout: float = 60) -> None:
        """Wait until the DAG is known; a file of the folder that cannot be imported in the meantime raises."""

        def known() -> bool | None:
            if dag_id in self.api.dags():
                return True
            self._raise_import_errors()
            return None

        self.wait_for(f"DAG {dag_id} to be parsed", known, timeout)

    def _raise_import_errors(self, only: set[str] | None = None) -> None:
        errors = self.api.import_errors()
        if failed := [f"{file}:\n{trace}" for file, trace in errors.items() if only is None or file in only]:
            raise DagImportFailed("\n".join(failed))

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> DagRun:
        """Wait until the DAG is parsed, unpause it, and create a run."""
        self.wait_for_dag(dag_id)
        self.api.unpause(dag_id)
        return self.api.trigger(dag_id, conf)

    def watch(self, dag_id: str, text: str, timeout: float = 90) -> None:
        """Unpause a DAG that is scheduled by a watched asset, and wait until the triggerer logs that it watches."""
        self.wait_for_dag(dag_id)
        self.api.unpause(dag_id)
        # Airflow begins to watch for a DAG that is active when it parses its file.
        self.api.parse_again(dag_id)
        self.wait_for(f"{text!r}", lambda: text in self.processes.tail("triggerer", sys.maxsize) or None, timeout)

    def run_dag(self, dag_id: str, conf: Mapping[str, Any] | None = None, timeout: float = 120) -> DagRun:
        """Trigger a run and return it when it has ended, well or badly."""
        return self.wait_for_runs([self.trigger(dag_id, conf)], timeout)[0]

    def wait_for_runs(
        self, runs: Sequence[DagRun], timeout: float = 120, on_change: Callable[[TaskInstance], None] | None = None
    ) -> list[DagRun]:
        """Wait until all runs have ended; `on_change` is called with every task instance that has changed its state."""
        now = {run.run_id: run for run in runs}
        reported: dict[tuple[str, str, str], tuple[int, str | None]] = {}

        def all_ended() -> bool | None:
            for run in [run for run in now.values() if run.state not in FINISHED]:
                now[run.run_id] = self.api.dag_run(run)
                for task in now[run.run_id].tasks:
                    where, what = (task.dag_id, task.run_id, task.name), (task.try_number, task.state)
                    if on_change and reported.get(where) != what:
                        on_change(task)
                    reported[where] = what
            return all(run.state in FINISHED for run in now.values()) or None

        try:
            self.wait_for(f"{len(runs)} DAG run(s) to end", all_ended, timeout)
        except TimeoutError as error:
            for run in now.values():
                tasks = ", ".join(f"{task.name} {task.state}" for task in run.tasks)
                error.add_note(f"{run.dag_id} is {run.state}: {tasks}")
            raise
        return [now[run.run_id] for run in runs]

    def wait_for_task(
        self, run: DagRun, task_id: str, *states: str, map_index: int = -1, timeout: float = 60
    ) -> TaskInstance:
        """Wait until a task is in one of these states."""

        def reached() -> TaskInstance | None:
            task = self.api.dag_run(run).task(task_id, map_index)
            return task if task.state in states else None

        return self.wait_for(f"{run.dag_id}.{task_id} to be {' or '.join(states)}", reached, timeout)

    def wait_for(self, what: str, condition: Callable[[], T | None], timeout: float) -> T:
        """Ask until the condition gives something else than None; fail as soon as a component dies."""
        return self.processes.wait_for(what, condition, timeout)

    def worker_starts(self, task: TaskInstance) -> int:
        """Return how many worker processes this try has had: the API server logs each."""
        log = (self.home / "logs" / "execution-api-server.log").read_text(errors="replace")
        return sum("Task started" in line and task.id in line for line in log.splitlines())

    def task_log_file(self, task: TaskInstance) -> Path:
        """Return where the log of the task's latest try is, for a person to open."""
        folder = self.home / "logs" / f"dag_id={task.dag_id}" / f"run_id={task.run_id}" / f"task_id={task.task_id}"
        if task.map_index >= 0:
            folder /= f"map_index={task.map_index}"
        return folder / f"attempt={task.try_number}.log"


def _json(reply: requests.Response) -> Any:
    """Return the body, or raise an error that says what the server had to say."""
    if not reply.ok:
        request = f"{reply.request.method} {reply.url}"
        raise requests.HTTPError(f"{request}: {reply.status_code} {reply.text}", response=reply)
    return reply.json() if reply.content else None


def _path(task: TaskInstance) -> str:
    return f"dags/{task.dag_id}/dagRuns/{task.run_id}/taskInstances/{task.task_id}"


def _when(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _task_instance(answer: Mapping[str, Any]) -> TaskInstance:
    return TaskInstance(
        dag_id=answer["dag_id"],
        run_id=answer["dag_run_id"],
        task_id=answer["task_id"],
        map_index=answer["map_index"],
        state=answer["state"],
        try_number=answer["try_number"],
        start=_when(answer["start_date"]),
        end=_when(answer["end_date"]),
        pid=answer["pid"],
        triggerer=(answer["trigger"] or {}).get("triggerer_id"),
        id=answer["id"],
    )


def _job(answer: Mapping[str, Any]) -> Job:
    return Job(
        job_id=answer["id"],
        job_type=answer["job_type"],
        start=_when(answer["start_date"]),
        heartbeat=_when(answer["latest_heartbeat"]),
    )


def _log_line(message: str | Mapping[str, Any]) -> str:
    """Give a structured log message as a line of text, and after it the tracebacks of the exceptions it carries."""
    if isinstance(message, str):
        return message
    lines = [" ".join(str(message[key]) for key in ("timestamp", "level", "event") if message.get(key))]
    for cause in message.get("error_detail") or ():
        frames = cause["frames"]
        lines += [f'  File "{frame["filename"]}", line {frame["lineno"]}, in {frame["name"]}' for frame in frames]
        lines.append(f"{cause['exc_type']}: {cause['exc_value']}")
    return "\n".join(lines)
