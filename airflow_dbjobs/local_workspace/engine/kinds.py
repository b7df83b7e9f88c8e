"""The kinds of tasks that start a program, and what each of them runs."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from . import parameters
from .errors import CannotRunError
from .notebooks import WorkspaceFileError, find_file, find_notebook

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow_dbjobs.local_workspace.messages import Json
    from airflow_dbjobs.local_workspace.state.records import Run, TaskRun


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


def _notebook(start: Start) -> Json:
    task = start.spec["notebook_task"]
    file = find_notebook(start.root, task["notebook_path"])
    # runs/export returns this copy, as the user may edit the file later.
    shutil.copyfile(file, start.folder / "source")
    return {"kind": "notebook", "file": file, "widgets": parameters.widget_values(start.run, task)}


def _python_file(start: Start) -> Json:
    task = start.spec["spark_python_task"]
    file = find_file(start.root, task["python_file"])
    return {"kind": "python", "file": file, "arguments": parameters.arguments(start.run, task)}


#: What describes the program of each kind of task: the arguments of `write_program`, except those that all kinds have.
#: Each may raise CannotRunError and WorkspaceFileError. A task of another kind needs no program, or cannot run.
KINDS: Final[dict[str, Callable[[Start], Json]]] = {
    "notebook_task": _notebook,
    "spark_python_task": _python_file,
}


def describe(kind: str, start: Start) -> Json:
    """Return the program of a task.

    :raises CannotRunError: The task's file is not under the root, or what it needs is not there.
    """
    try:
        return KINDS[kind](start)
    except WorkspaceFileError as error:
        raise CannotRunError(str(error), "RESOURCE_NOT_FOUND") from None
