"""Starts, watches and stops the programs of task runs; each has a supervisor process, and a folder for its files."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from airflow_dbjobs.local_workspace.state.records import Run, State, TaskRun
from airflow_dbjobs.local_workspace.state.settings import payload_fields

from .errors import CannotRunError
from .scheduler import stop_message
from .task_files import INSTALLING, read_failure, read_json, read_task_values, write_program
from .task_types import TASK_TYPES, TaskStart, describe

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_dbjobs.local_workspace.messages import Json

    from .spark_server import SparkServer

#: The API returns the last 5 MB of a log.
MAX_LOG_BYTES = 5 * 1024 * 1024
_VANISHED = "The process of this task vanished without leaving a result: it was killed, or the disk is full."
_SCRIPT = Path(__file__).with_name("task_process.py")
#: The variables of the server's environment that programs get: enough to find the interpreter, libraries and language,
#: to install libraries, and for profiles of dbt. Others are withheld, as Airflow and its providers keep secrets in
#: variables of any name.
_ENVIRONMENT = frozenset(
    {
        "HOME",
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "JAVA_HOME",
        "LANG",
        "LANGUAGE",
        "LD_LIBRARY_PATH",
        "LOGNAME",
        "NO_PROXY",
        "PATH",
        "PYTHONPATH",
        "SHELL",
        "SPARK_HOME",
        "SSL_CERT_FILE",
        "TMPDIR",
        "TZ",
        "USER",
        "VIRTUAL_ENV",
        "http_proxy",
        "https_proxy",
        "no_proxy",
    }
)
_ENVIRONMENT_PREFIXES = ("DBT_", "LC_", "PIP_", "UV_")


@dataclass(frozen=True)
class Output:
    """What a program has returned and printed so far. `log` is the end of what it printed."""

    log: str
    log_truncated: bool
    exit_value: str | None
    exit_value_truncated: bool
    error: str | None
    error_trace: str | None


class Executor:
    """Runs the programs of task runs. Not thread-safe: the workspace holds its lock."""

    starts_programs: Final = True

    def __init__(self, root: Path, folder: Path, spark: SparkServer | None = None) -> None:
        self._root = root
        self._spark = spark
        self._folder = folder
        self._supervisors: dict[int, subprocess.Popen[bytes]] = {}
        self._started: set[int] = set()

    def can_run(self, kind: str) -> bool:
        """Return whether tasks with this payload start a program."""
        return kind in TASK_TYPES

    def count_running(self) -> int:
        """Return how many of the programs that this server has started are still running."""
        self._supervisors = {task: process for task, process in self._supervisors.items() if process.poll() is None}
        return len(self._supervisors)

    def start(self, run: Run, task: TaskRun, spec: Json, upstream: Iterable[TaskRun] = ()) -> None:
        """Start the program of a task.

        `spec` is the task with its references replaced, and `upstream` the latest attempts at the tasks it depends on.

        :raises CannotRunError: What the task needs is not there, or the process could not be started.
        """
        folder = self._folder_of(task)
        self._started.add(task.run_id)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            program = describe(payload_fields(spec)[0], TaskStart(run, task, spec, self._root, folder))
            task_folders = {item.task_key: self._folder_of(item) for item in upstream}
            context = {
                "job_id": run.job_id,
                "run_id": task.run_id,
                "parent_run_id": run.run_id,
                "task_key": task.task_key,
                "user": run.creator,
            }
            write_program(folder, root=self._root, task_folders=task_folders, context=context, **program)
            self._supervisors[task.run_id] = _supervise(folder, self._spark.environment() if self._spark else {})
        except OSError as error:
            raise CannotRunError(f"This machine could not start the program: {error}", "CLOUD_FAILURE") from None

    def spark_label(self) -> str:
        """Return the name of what runs the Spark code of tasks; "" if nothing does."""
        return self._spark.label() if self._spark else ""

    def task_values(self, task: TaskRun | None) -> Json | None:
        """Return the values that a task run has set for others; None if there is no such task run."""
        return read_task_values(self._folder_of(task)) if task else None

    def _folder_of(self, task: TaskRun) -> Path:
        return self._folder / str(task.run_id)

    def poll(self, task: TaskRun) -> State | None:
        """Return how a program ended, its state if that has changed while it runs, else None."""
        folder = self._folder_of(task)
        ended = read_json(folder / "exit.json")
        if not ended:
            if _alive(folder):
                message = "Installing libraries." if (folder / INSTALLING).exists() else ""
                changed = task.state.life == "RUNNING" and task.state.message != message
                return State("RUNNING", message=message) if changed else None
            # It may have ended between these two checks.
            ended = read_json(folder / "exit.json")
        if task.state.life == "TERMINATING" and task.stop:
            return State("TERMINATED", task.stop, stop_message(task.stop))
        if not ended:
            return State("INTERNAL_ERROR", "FAILED", _VANISHED)
        if failure := read_failure(folder):
            return State("INTERNAL_ERROR", "FAILED", failure["message"], failure["code"])
        if ended["code"] == 0:
            return State("TERMINATED", "SUCCESS")
        return State("TERMINATED", "FAILED", "The task's code failed; see the error in the output of this task run.")

    def start_was_lost(self, task: TaskRun) -> bool:
        """Return whether an earlier server died after it had committed the start of a program, but before the start."""
        if task.planned_end_ms is not None:
            # The task was simulated, so its code must not run now.
            return False
        folder = self._folder_of(task)
        return task.run_id not in self._started and not (folder / "pid").exists() and not _alive(folder)

    def stop(self, task: TaskRun) -> None:
        """Stop a program: SIGTERM, then SIGKILL after a grace period. Returns immediately, and may be repeated."""
        self._signal(task.run_id, signal.SIGTERM)

    def kill(self, tasks: Iterable[TaskRun]) -> None:
        """Kill programs, and wait for their end."""
        ids = [task.run_id for task in tasks]
        for task_id in ids:
            # A supervisor that does not handle this signal yet has not started its program, and is killed by it.
            self._signal(task_id, signal.SIGALRM)
        for task_id in ids:
            _await_end(self._folder / str(task_id))
        for process in self._supervisors.values():
            process.wait()
        self._supervisors.clear()

    def output(self, task: TaskRun, *, max_log_bytes: int = MAX_LOG_BYTES) -> Output:
        """Return the output of a task run so far."""
        folder = self._folder_of(task)
        log, truncated = _tail(folder / "log.txt", max_log_bytes)
        result = read_json(folder / "result.json")
        code = read_json(folder / "exit.json").get("code", 0)
        return Output(
            log=log,
            log_truncated=truncated,
            exit_value=result.get("exit_value"),
            exit_value_truncated=result.get("truncated", False),
            error=read_failure(folder).get("message") or result.get("error") or _exit_error(code),
            error_trace=result.get("error_trace"),
        )

    def source(self, task: TaskRun) -> str | None:
        """Return the source of the notebook that a task run executed, in its version of that time; None without one."""
        file = self._folder_of(task) / "source"
        return file.read_text(errors="replace") if file.exists() else None

    def remove(self, task: TaskRun) -> None:
        """Delete the files of a task run."""
        shutil.rmtree(self._folder_of(task), ignore_errors=True)

    def _signal(self, task_id: int, number: signal.Signals) -> None:
        folder = self._folder / str(task_id)
        process = self._supervisors.get(task_id)
        if process is not None:
            process.send_signal(number)
        elif _alive(folder) and (folder / "pid").exists():
            # The supervisor still holds the lock, so its pid cannot have been reused.
            with contextlib.suppress(ValueError):
                os.kill(int((folder / "pid").read_text()), number)


def _supervise(folder: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start the supervisor of a task folder. It inherits a lock, whose release shows that the supervisor has ended."""
    lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with (folder / "log.txt").open("ab") as log:
            return subprocess.Popen(
                # -P: this folder must not be on the import path of the user's program.
                [sys.executable, "-P", str(_SCRIPT), str(folder), str(lock)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**program_environment(), **environment},
                pass_fds=(lock,),
                # In a new session, as Ctrl-C must only stop the server.
                start_new_session=True,
            )
    finally:
        os.close(lock)


def program_environment() -> dict[str, str]:
    """Return what programs get of the server's environment."""
    allowed = {
        name: value
        for name, value in os.environ.items()
        if name in _ENVIRONMENT or name.startswith(_ENVIRONMENT_PREFIXES)
    }
    # The log is read while the program runs.
    return {**allowed, "PYTHONUNBUFFERED": "1"}


def _alive(folder: Path) -> bool:
    """Return whether the supervisor of a task folder is alive: the kernel releases its lock however it ends."""
    try:
        lock = os.open(folder / "lock", os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _await_end(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError), (folder / "lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)


def _tail(file: Path, size_limit: int) -> tuple[str, bool]:
    try:
        with file.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(0, size - size_limit))
            return log.read(size_limit).decode(errors="replace"), size > size_limit
    except FileNotFoundError:
        return "", False


def _exit_error(code: int) -> str | None:
    """Return an error for a program that reported none itself, for example because it was killed."""
    if code < 0:
        return f"The program was killed by {signal.Signals(-code).name}"
    return f"The program exited with code {code}" if code else None
