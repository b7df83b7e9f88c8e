"""The JSON files of a task folder: how the server, a task's supervisor and its program exchange data.

Imported by the subprocess of every task, so it imports the standard library only.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

#: A file of this name exists while the libraries of a task are installed.
INSTALLING = "installing"
_TASK_VALUES = "task_values.json"
_FAILURE = "failure.json"


def write_json(file: Path, content: object) -> None:
    """Write a file in one step: readers see all of it or nothing."""
    scratch = file.with_suffix(".tmp")
    scratch.write_text(json.dumps(content))
    scratch.replace(file)


def read_json(file: Path) -> dict[str, Any]:
    """Return the object in a file, or an empty one if the file is missing or was damaged by a power cut."""
    try:
        content = json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def fail(folder: Path, code: str, message: str) -> NoReturn:
    """End the task's program, and let the task end as INTERNAL_ERROR with a termination code.

    For what keeps the user's code from running, not for errors of that code.
    """
    print(message, file=sys.stderr)  # noqa: T201 - what the program prints is its log
    write_json(folder / _FAILURE, {"code": code, "message": message})
    sys.exit(1)


def read_failure(folder: Path) -> dict[str, str]:
    """Return the `code` and `message` of `fail`, or an empty object."""
    return read_json(folder / _FAILURE)


def write_program(
    folder: Path,
    *,
    kind: str,
    root: Path,
    file: Path | None = None,
    arguments: Sequence[str] = (),
    widgets: Mapping[str, str] | None = None,
    task_folders: Mapping[str, Path] | None = None,
    context: Mapping[str, Any] | None = None,
    **details: object,
) -> None:
    """Describe a task's program to its subprocess.

    :param kind: "python", "notebook", or the name of a module in `programs`, which may need `details`.
    :param file: The Python file or notebook.
    :param task_folders: The folder of the newest attempt at each task upstream, by task key:
        `dbutils.jobs.taskValues` reads the values that those tasks have set.
    :param context: What the program may know of its run: `job_id`, `run_id` (of the task run), `parent_run_id`,
        `task_key` and `user`, as far as they are known.
    """
    program = {
        "kind": kind,
        "root": str(root),
        "file": str(file) if file else None,
        "arguments": list(arguments),
        "widgets": dict(widgets or {}),
        "task_folders": {key: str(path) for key, path in (task_folders or {}).items()},
        "context": dict(context or {}),
        **details,
    }
    write_json(folder / "program.json", program)


def read_task_values(folder: Path) -> dict[str, Any]:
    """Return what the program of a task folder has set by `dbutils.jobs.taskValues`: JSON values, by name."""
    return read_json(folder / _TASK_VALUES)


def set_task_value(folder: Path, name: str, value: object) -> None:
    """Set a value that later tasks of the run can read.

    :raises TypeError: JSON cannot represent the value.
    """
    write_json(folder / _TASK_VALUES, {**read_task_values(folder), name: value})
