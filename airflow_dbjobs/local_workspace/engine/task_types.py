"""The types of tasks that start a program, and what each of them runs."""

from __future__ import annotations

import shlex
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from . import parameters
from .errors import CannotRunError
from .libraries import python_libraries
from .notebooks import WorkspaceFileError, find_file, find_notebook
from .spark_session import spark_home

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow_dbjobs.local_workspace.messages import Json
    from airflow_dbjobs.local_workspace.state.records import Run, TaskRun

_NO_DBT: Final = (
    "There is no dbt. Install dbt with an adapter so that it is on the PATH of the local workspace, or name them in the"
    " task's libraries."
)
_NO_FILE: Final = (
    "The local workspace runs a sql_task with a file only: queries, dashboards and alerts are objects of Databricks"
    " SQL, which it does not have."
)
_NO_SPARK: Final = (
    "needs Apache Spark with its JARs and Java: install pyspark 4 (not pyspark-client) in the environment of the local "
    "workspace, and a Java from version 17 on."
)
_LOCAL: Final = ["--master", "local[*]", "--conf", "spark.ui.enabled=false"]


@dataclass(frozen=True)
class TaskStart:
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


def _notebook(start: TaskStart) -> Json:
    task = start.spec["notebook_task"]
    file = find_notebook(start.root, task["notebook_path"])
    # runs/export returns this copy, as the user may edit the file later.
    shutil.copyfile(file, start.folder / "source")
    widgets = parameters.widget_values(start.run, task)
    return {"kind": "notebook", "file": file, "widgets": widgets, "libraries": start.python_libraries()}


def _python_file(start: TaskStart) -> Json:
    task = start.spec["spark_python_task"]
    file = find_file(start.root, task["python_file"])
    arguments = parameters.arguments(start.run, task)
    return {"kind": "python", "file": file, "arguments": arguments, "libraries": start.python_libraries()}


def _wheel(start: TaskStart) -> Json:
    task = start.spec["python_wheel_task"]
    return {
        "kind": "package",
        "package": task["package_name"],
        "entry_point": task["entry_point"],
        "arguments": parameters.wheel_arguments(start.run, task),
        "libraries": start.python_libraries(),
    }


def _dbt(start: TaskStart) -> Json:
    task = start.spec["dbt_task"]
    commands = [_dbt_command(command) for command in parameters.dbt_commands(start.run, task)]
    project = _folder_with("dbt_project.yml", start.root, task.get("project_directory", "/"))
    environment = {
        variable: task[field]
        for variable, field in (("DBT_CATALOG", "catalog"), ("DBT_SCHEMA", "schema"))
        if task.get(field)
    }
    # Its log is shown as text.
    environment["DBT_USE_COLORS"] = "false"
    if profiles := task.get("profiles_directory"):
        environment["DBT_PROFILES_DIR"] = str(_folder_with("profiles.yml", start.root, profiles, project))
    return {
        "kind": "commands",
        "commands": commands,
        "working_folder": str(project),
        "environment": environment,
        "if_missing": _NO_DBT,
        "libraries": start.python_libraries(),
    }


def _sql(start: TaskStart) -> Json:
    task = start.spec["sql_task"]
    match task:
        case {"file": {"path": str(path)}}:
            file = find_file(start.root, path)
            return {"kind": "sql", "file": file, "parameters": parameters.sql_values(start.run, task)}
    raise CannotRunError(_NO_FILE, "INVALID_RUN_CONFIGURATION")


def _jar(start: TaskStart) -> Json:
    task = start.spec["spark_jar_task"]
    jars = [
        str(find_file(start.root, library["jar"])) for library in start.spec.get("libraries", []) if "jar" in library
    ]
    options = ["--class", task["main_class_name"], "--jars", ",".join(jars)]
    # The name of no file: all classes are in the libraries.
    arguments = [*options, "spark-internal", *parameters.arguments(start.run, task, "jar_params")]
    return _spark_submit(start, "A spark_jar_task", arguments)


def _submit(start: TaskStart) -> Json:
    arguments = parameters.arguments(start.run, start.spec["spark_submit_task"], "spark_submit_params")
    return _spark_submit(start, "A spark_submit_task", [_local_path(start.root, argument) for argument in arguments])


def _local_path(root: Path, argument: str) -> str:
    """Return a parameter of spark-submit with a file of the workspace as a path of this machine."""
    try:
        return str(find_file(root, argument)) if "/" in argument else argument
    except WorkspaceFileError:
        return argument


def _spark_submit(start: TaskStart, task: str, arguments: list[str]) -> Json:
    home = spark_home()
    if home is None:
        raise CannotRunError(f"{task} {_NO_SPARK}", "INVALID_RUN_CONFIGURATION")
    # A Spark of its own, not the server for which the variable is.
    command = ["env", "-u", "SPARK_REMOTE", str(home / "bin" / "spark-submit"), *_LOCAL, *arguments]
    return {
        "kind": "commands",
        "commands": [command],
        "working_folder": str(start.root),
        "environment": {"SPARK_HOME": str(home), "SPARK_LOCAL_IP": "127.0.0.1"},
        "if_missing": _NO_SPARK,
    }


def _dbt_command(command: str) -> list[str]:
    try:
        arguments = shlex.split(command)
    except ValueError as error:
        raise CannotRunError(f"{command!r} is not a command: {error}.", "INVALID_RUN_CONFIGURATION") from None
    if arguments[:1] != ["dbt"]:
        raise CannotRunError(f"{command!r} does not start with 'dbt'.", "INVALID_RUN_CONFIGURATION")
    return arguments


def _folder_with(name: str, root: Path, path: str, folder: Path | None = None) -> Path:
    """Return the folder of the workspace that `path` names and that has a file of this name."""
    return find_file(root, f"{path.rstrip('/')}/{name}", folder=folder).parent


#: What describes the program of each type of task: the arguments of `write_program`, except those that all types have.
#: Each may raise CannotRunError and WorkspaceFileError. A task of another type needs no program, or cannot run.
TASK_TYPES: Final[dict[str, Callable[[TaskStart], Json]]] = {
    "notebook_task": _notebook,
    "spark_python_task": _python_file,
    "python_wheel_task": _wheel,
    "dbt_task": _dbt,
    "sql_task": _sql,
    "spark_jar_task": _jar,
    "spark_submit_task": _submit,
}


def describe(task_type: str, start: TaskStart) -> Json:
    """Return the program of a task.

    :raises CannotRunError: The task's file is not under the root, or what it needs is not there.
    """
    try:
        return TASK_TYPES[task_type](start)
    except WorkspaceFileError as error:
        raise CannotRunError(str(error), "RESOURCE_NOT_FOUND") from None
