"""The kinds of tasks that start a program, and what each of them runs."""

from __future__ import annotations

import shlex
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from . import parameters
from .errors import CannotRunError
from .libraries import python_libraries
from .notebooks import WorkspaceFileError, find_file, find_notebook

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow_dbjobs.local_workspace.messages import Json
    from airflow_dbjobs.local_workspace.state.records import Run, TaskRun

_NO_DBT: Final = (
    "There is no dbt. Install dbt with an adapter so that it is on the PATH of the local workspace, or name them in the"
    " task's libraries."
)


@dataclass(frozen=True)
class Start:
    """A task that is about to start.

    `spec` is the task with its references replaced, `root` the workspace's folder, `folder` that of the task run.
    """

    run: Run
    task: TaskRun
    spec: Json
    root: Path
    folder: Path

    def python_libraries(self) -> Json | None:
        """Return what must be installed for a program in Python; None if there is nothing."""
        return python_libraries(self.run, self.spec, self.root)


def _notebook(start: Start) -> Json:
    task = start.spec["notebook_task"]
    file = find_notebook(start.root, task["notebook_path"])
    # runs/export returns this copy, as the user may edit the file later.
    shutil.copyfile(file, start.folder / "source")
    widgets = parameters.widget_values(start.run, task)
    return {"kind": "notebook", "file": file, "widgets": widgets, "libraries": start.python_libraries()}


def _python_file(start: Start) -> Json:
    task = start.spec["spark_python_task"]
    file = find_file(start.root, task["python_file"])
    arguments = parameters.arguments(start.run, task)
    return {"kind": "python", "file": file, "arguments": arguments, "libraries": start.python_libraries()}


def _wheel(start: Start) -> Json:
    task = start.spec["python_wheel_task"]
    return {
        "kind": "package",
        "package": task["package_name"],
        "entry_point": task["entry_point"],
        "arguments": parameters.wheel_arguments(start.run, task),
        "libraries": start.python_libraries(),
    }


def _dbt(start: Start) -> Json:
    task = start.spec["dbt_task"]
    commands = [shlex.split(command) for command in start.run.overrides.get("dbt_commands") or task["commands"]]
    if any(command[:1] != ["dbt"] for command in commands):
        message = "Each command of a dbt_task must start with 'dbt'."
        raise CannotRunError(message, "INVALID_RUN_CONFIGURATION")
    project = _folder_with("dbt_project.yml", start.root, task.get("project_directory", "/"))
    environment = {
        variable: task[field]
        for variable, field in (("DBT_CATALOG", "catalog"), ("DBT_SCHEMA", "schema"))
        if task.get(field)
    }
    if profiles := task.get("profiles_directory"):
        environment["DBT_PROFILES_DIR"] = str(_folder_with("profiles.yml", start.root, profiles, project))
    return {
        "kind": "commands",
        "commands": commands,
        "folder": str(project),
        "environment": environment,
        "if_missing": _NO_DBT,
        "libraries": start.python_libraries(),
    }


def _folder_with(name: str, root: Path, path: str, folder: Path | None = None) -> Path:
    """Return the folder of the workspace that `path` names and that has a file of this name."""
    return find_file(root, f"{path.rstrip('/')}/{name}", folder=folder).parent


#: What describes the program of each kind of task: the arguments of `write_program`, except those that all kinds have.
#: Each may raise CannotRunError and WorkspaceFileError. A task of another kind needs no program, or cannot run.
KINDS: Final[dict[str, Callable[[Start], Json]]] = {
    "notebook_task": _notebook,
    "spark_python_task": _python_file,
    "python_wheel_task": _wheel,
    "dbt_task": _dbt,
}


def describe(kind: str, start: Start) -> Json:
    """Return the program of a task.

    :raises CannotRunError: The task's file is not under the root, or what it needs is not there.
    """
    try:
        return KINDS[kind](start)
    except WorkspaceFileError as error:
        raise CannotRunError(str(error), "RESOURCE_NOT_FOUND") from None
