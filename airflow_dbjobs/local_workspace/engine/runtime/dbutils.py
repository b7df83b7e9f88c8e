"""`dbutils`, put together from its parts. Each part is made at its first use."""

from __future__ import annotations

import sys
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.local_workspace.engine.notebooks import WorkspaceFileError, find_notebook
from airflow_dbjobs.local_workspace.engine.task_files import read_json, write_program

from .errors import Missing, NotebookExit, NotebookRunError
from .utility import Utility
from .widgets import Widgets

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .context import Context
    from .files import FileSystem
    from .secrets import Secrets

#: As many notebooks may run each other; each is a process, so one that runs itself would fill the memory.
_MAX_DEPTH = 20
_SCRIPT = Path(__file__).resolve().parents[1] / "task_process.py"


class DBUtils(Utility):
    """`dbutils` of one program.

    :param folder: The folder of the task.
    :param program: What `write_program` has written.
    """

    def __init__(self, folder: Path, program: Mapping[str, Any]) -> None:
        self._folder = folder
        self._program = program
        self._root = Path(program["root"])
        self.widgets = Widgets(program["widgets"])
        self.notebook = NotebookUtils(folder, program)
        self.credentials = Missing("dbutils.credentials")
        self.library = Library()

    @cached_property
    def fs(self) -> FileSystem:
        """Files in DBFS and in volumes."""
        from .files import FileSystem

        return FileSystem(self._root)

    @cached_property
    def secrets(self) -> Secrets:
        """Secrets from a file in the workspace's root."""
        from .secrets import Secrets

        return Secrets(self._root)

    @cached_property
    def jobs(self) -> SimpleNamespace:
        """Values of the run's tasks."""
        from .task_values import TaskValues

        key, others = self._program["context"].get("task_key", ""), self._program["task_folders"]
        return SimpleNamespace(taskValues=TaskValues(self._folder, key, others))

    @cached_property
    def data(self) -> SimpleNamespace:
        """Statistics of DataFrames."""
        from .display import summarize

        return SimpleNamespace(summarize=summarize)


class Library(Utility):
    """`dbutils.library`. The Python environment is the user's own here, so nothing changes it."""

    def restartPython(self) -> None:
        """Do nothing but say so."""
        print("The local workspace skips dbutils.library.restartPython.")

    def installPyPI(self, package: str, *_: object, **__: object) -> None:
        """Do nothing but say so."""
        print(f"The local workspace skips dbutils.library.installPyPI({package!r}).")


class NotebookUtils(Utility):
    """`dbutils.notebook`."""

    def __init__(self, folder: Path, program: Mapping[str, Any]) -> None:
        self._folder = folder
        self._program = program

    def exit(self, value: object = "") -> None:
        """End the notebook with a value."""
        raise NotebookExit(value)

    def run(self, path: str, timeout_seconds: int = 0, arguments: Mapping[str, Any] | None = None) -> str:
        """Run another notebook in its own process; return its exit value ("" if it set none)."""
        # Imported here, as few notebooks need them, and every task should start fast.
        import subprocess
        import tempfile

        root = Path(self._program["root"])
        depth = self._program.get("nested", 0) + 1
        if depth > _MAX_DEPTH:
            raise NotebookRunError(f"{path} was not run: {_MAX_DEPTH} notebooks wait for each other, one by the other")
        try:
            file = find_notebook(root, path, folder=Path.cwd())
        except WorkspaceFileError as error:
            raise NotebookRunError(str(error)) from None
        widgets = {name: str(value) for name, value in (arguments or {}).items()}
        with tempfile.TemporaryDirectory(prefix="notebook-", dir=self._folder) as scratch:
            folder = Path(scratch)
            context = self._program["context"]
            # Nested: this program gets the result as it is.
            write_program(folder, kind="notebook", file=file, root=root, widgets=widgets, context=context, nested=depth)
            command = [sys.executable, "-P", str(_SCRIPT), scratch]
            try:
                code = subprocess.run(command, check=False, timeout=timeout_seconds or None).returncode
            except subprocess.TimeoutExpired:
                raise NotebookRunError(f"{path} did not end within {timeout_seconds} s") from None
            result = read_json(folder / "result.json")
        if code:
            raise NotebookRunError(f"{path} failed: {result.get('error', f'exit code {code}')}")
        return str(result.get("exit_value", ""))

    def getContext(self) -> Context:
        """Return what is known of this run."""
        from .context import Context

        return Context(self._program)

    @property
    def entry_point(self) -> SimpleNamespace:
        """The way by which notebooks reach the context: `entry_point.getDbutils().notebook().getContext()`."""
        return SimpleNamespace(getDbutils=lambda: SimpleNamespace(notebook=lambda: self))
