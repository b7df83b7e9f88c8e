"""The programs of task runs: subprocesses under a supervisor each, and a folder each with what they leave behind."""

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

from airflow_dbjobs.local_workspace.engine import parameters
from airflow_dbjobs.local_workspace.engine.bootstrap import read_json, write_program
from airflow_dbjobs.local_workspace.engine.notebooks import WorkspaceFileError, find_file, find_notebook
from airflow_dbjobs.local_workspace.engine.scheduler import stop_message
from airflow_dbjobs.local_workspace.state.records import Run, State, TaskRun

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_dbjobs.local_workspace.messages import Json

#: Of a log, in bytes; the API returns the last 5 MB.
MAX_LOG_BYTES = 5 * 1024 * 1024
_VANISHED = "The process of this task vanished without leaving a result: it was killed, or the disk is full."
_SUPERVISOR = Path(__file__).with_name("supervisor.py")
#: What a program may know of the server's environment: enough to find its interpreter, libraries and language. A list
#: of what is allowed, because nobody can list all names under which Airflow and its providers keep secrets.
_ENVIRONMENT = frozenset(
    {
        "HOME",
        "JAVA_HOME",
        "LANG",
        "LANGUAGE",
        "LD_LIBRARY_PATH",
        "LOGNAME",
        "PATH",
        "PYTHONPATH",
        "SHELL",
        "SPARK_HOME",
        "SSL_CERT_FILE",
        "TMPDIR",
        "TZ",
        "USER",
        "VIRTUAL_ENV",
    }
)


class CannotRunError(Exception):
    """A task that was not started. `code` is its termination code."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Output:
    """What a program has left so far. `log` is the end of its output; `exit_value` and `error` are None if unset."""

    log: str
    log_truncated: bool
    exit_value: str | None
    exit_value_truncated: bool
    error: str | None
    error_trace: str | None


class Executor:
    """Starts, watches and stops the programs of task runs. Not thread-safe: the workspace holds its lock."""

    starts_programs: Final = True

    def __init__(self, root: Path, folder: Path) -> None:
        self._root = root
        self._folder = folder
        self._supervisors: dict[int, subprocess.Popen[bytes]] = {}
        self._started: set[int] = set()

    def can_run(self, kind: str) -> bool:
        """Tell whether there is a program to start for tasks with this payload."""
        return kind in ("notebook_task", "spark_python_task")

    def count_running(self) -> int:
        """Return how many of the programs that this server has started still run."""
        self._supervisors = {task: process for task, process in self._supervisors.items() if process.poll() is None}
        return len(self._supervisors)

    def start(self, run: Run, task: TaskRun, spec: Json) -> None:
        """Start the program of a notebook or Python task; `spec` is the task with its references replaced.

        Raises:
            CannotRunError: it names no file under the root, or the machine has no room for another process.
        """
        folder = self._folder / str(task.run_id)
        self._started.add(task.run_id)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if "notebook_task" in spec:
                file = find_notebook(self._root, spec["notebook_task"]["notebook_path"])
                widgets = parameters.widget_values(run, spec["notebook_task"])
                write_program(folder, kind="notebook", file=file, root=self._root, widgets=widgets)
                # Kept for runs/export: the user may go on editing.
                shutil.copyfile(file, folder / "source")
            else:
                file = find_file(self._root, spec["spark_python_task"]["python_file"])
                arguments = parameters.arguments(run, spec["spark_python_task"])
                write_program(folder, kind="python", file=file, root=self._root, arguments=arguments)
            self._supervisors[task.run_id] = _supervise(folder)
        except WorkspaceFileError as error:
            raise CannotRunError(str(error), "RESOURCE_NOT_FOUND") from None
        except OSError as error:
            raise CannotRunError(f"This machine could not start the program: {error}", "CLOUD_FAILURE") from None

    def poll(self, task: TaskRun) -> State | None:
        """Return how a program ended, or None while it runs."""
        folder = self._folder / str(task.run_id)
        ended = read_json(folder / "exit.json")
        if not ended:
            if _alive(folder):
                return None
            # It may have ended between these two looks.
            ended = read_json(folder / "exit.json")
        if task.state.life == "TERMINATING" and task.stop:
            return State("TERMINATED", task.stop, stop_message(task.stop))
        if not ended:
            return State("INTERNAL_ERROR", "FAILED", _VANISHED)
        if ended["code"] == 0:
            return State("TERMINATED", "SUCCESS")
        return State("TERMINATED", "FAILED", "The task's code failed; the output of this task run has the error.")

    def never_began(self, task: TaskRun) -> bool:
        """Tell whether an earlier server died between noting that a program runs and starting it."""
        if task.planned_end_ms is not None:
            # It was simulated: where nothing was to run, nothing runs later either.
            return False
        folder = self._folder / str(task.run_id)
        return task.run_id not in self._started and not (folder / "pid").exists() and not _alive(folder)

    def stop(self, task: TaskRun) -> None:
        """Ask a program to end: SIGTERM, then SIGKILL after a grace. May be repeated; returns at once."""
        self._signal(task.run_id, signal.SIGTERM)

    def kill(self, tasks: Iterable[TaskRun]) -> None:
        """End programs at once, and wait until they are gone."""
        ids = [task.run_id for task in tasks]
        for task_id in ids:
            # A supervisor that has not yet seen to this signal has no program either, and dies of it.
            self._signal(task_id, signal.SIGALRM)
        for task_id in ids:
            _await_end(self._folder / str(task_id))
        for process in self._supervisors.values():
            process.wait()
        self._supervisors.clear()

    def output(self, task: TaskRun, *, max_log_bytes: int = MAX_LOG_BYTES) -> Output:
        """Return what the program of a task run has left so far."""
        folder = self._folder / str(task.run_id)
        log, truncated = _tail(folder / "log.txt", max_log_bytes)
        result = read_json(folder / "result.json")
        code = read_json(folder / "exit.json").get("code", 0)
        return Output(
            log=log,
            log_truncated=truncated,
            exit_value=result.get("exit_value"),
            exit_value_truncated=result.get("truncated", False),
            error=result.get("error") or _exit_error(code),
            error_trace=result.get("error_trace"),
        )

    def source(self, task: TaskRun) -> str | None:
        """Return the text of the notebook that a task run ran, as it was then; None if it ran none."""
        file = self._folder / str(task.run_id) / "source"
        return file.read_text(errors="replace") if file.exists() else None

    def forget(self, task: TaskRun) -> None:
        """Remove what the program of a task run has left."""
        shutil.rmtree(self._folder / str(task.run_id), ignore_errors=True)

    def _signal(self, task_id: int, number: signal.Signals) -> None:
        folder = self._folder / str(task_id)
        process = self._supervisors.get(task_id)
        if process is not None:
            process.send_signal(number)
        elif _alive(folder) and (folder / "pid").exists():
            # Whoever holds the lock has this pid, so it cannot have passed to another process.
            with contextlib.suppress(ValueError):
                os.kill(int((folder / "pid").read_text()), number)


def _supervise(folder: Path) -> subprocess.Popen[bytes]:
    """Start the supervisor of a task folder. It inherits a lock that tells us for how long it lives."""
    lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with (folder / "log.txt").open("ab") as log:
            return subprocess.Popen(
                # -P: the folder of this package must not be on the path of the user's program.
                [sys.executable, "-P", str(_SUPERVISOR), str(folder), str(lock)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(),
                pass_fds=(lock,),
                # A session of its own: Ctrl-C at the server is not meant for it.
                start_new_session=True,
            )
    finally:
        os.close(lock)


def _environment() -> dict[str, str]:
    allowed = {name: value for name, value in os.environ.items() if name in _ENVIRONMENT or name.startswith("LC_")}
    # The log is read while the program runs.
    return {**allowed, "PYTHONUNBUFFERED": "1"}


def _alive(folder: Path) -> bool:
    """Tell whether the supervisor of a task folder lives: the kernel drops its lock with it, whatever ends it."""
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
    """Return the error of a program that left none itself, say because it was killed or called `os._exit`."""
    if code < 0:
        return f"The program was ended by {signal.Signals(-code).name}"
    return f"The program exited with code {code}" if code else None
