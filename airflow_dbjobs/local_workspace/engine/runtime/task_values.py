"""`dbutils.jobs.taskValues`: what tasks of a run tell later tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.local_workspace.engine.task_files import read_task_values, set_task_value

from .utility import Utility

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The API's limit for the JSON of a value.
_MAX_BYTES = 48 * 1024


class TaskValues(Utility):
    """`dbutils.jobs.taskValues`.

    :param folder: The folder of this task, whose key is `task_key`.
    :param task_folders: The folders of the tasks upstream, by task key.
    """

    def __init__(self, folder: Path, task_key: str, task_folders: Mapping[str, str]) -> None:
        self._folder = folder
        self._task_folders = {**task_folders, task_key: str(folder)}

    def set(self, key: str, value: Any) -> None:
        """Set a value that later tasks of the run can read.

        :raises ValueError: The value cannot be represented as JSON, or is too large.
        """
        try:
            size = len(json.dumps(value).encode())
        except (TypeError, ValueError) as error:
            raise ValueError(f"task value {key!r} cannot be represented as JSON: {error}") from None
        if size > _MAX_BYTES:
            raise ValueError(f"task value {key!r} has {size} bytes of JSON; {_MAX_BYTES} are allowed")
        set_task_value(self._folder, key, value)

    def get(self, taskKey: str, key: str, default: Any = None, debugValue: Any = None) -> Any:
        """Return a value that a task of this run has set, or `default`.

        :raises ValueError: There is no such task or value, and no default.
        """
        folder = self._task_folders.get(taskKey)
        values = read_task_values(Path(folder)) if folder else {}
        if key not in values and default is None:
            missing = f"value {key!r} of task {taskKey!r}" if folder else f"task {taskKey!r} upstream in this run"
            raise ValueError(f"there is no {missing}, and no default was given")
        return values.get(key, default)
