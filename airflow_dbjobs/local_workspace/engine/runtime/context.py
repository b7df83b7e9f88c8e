"""What a notebook may know of its run: the context that `dbutils.notebook` reaches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import NotSupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping


class Context:
    """What a notebook may know of its run: `notebookPath()`, `tags()` and others, whose values `get` returns."""

    def __init__(self, program: Mapping[str, Any]) -> None:
        known = program["context"]
        self._tags = {
            name: str(value)
            for name, value in {
                "jobId": known.get("job_id"),
                "runId": known.get("run_id"),
                "currentRunId": known.get("run_id"),
                "multitaskParentRunId": known.get("parent_run_id"),
                "taskKey": known.get("task_key"),
                "user": known.get("user"),
                "notebookPath": _path(program),
            }.items()
            if value is not None
        }

    def tags(self) -> Tags:
        """Return all values by name."""
        return Tags(self._tags)

    def toJson(self) -> str:
        """Return all values as JSON."""
        run = {"id": int(self._tags["currentRunId"])} if "currentRunId" in self._tags else None
        extra = {"notebook_path": self._tags.get("notebookPath")}
        return json.dumps({"tags": self._tags, "extraContext": extra, "currentRunId": run})

    safeToJson = toJson

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda: Option("user" if name == "userName" else name, self._tags)


def _path(program: Mapping[str, Any]) -> str | None:
    """Return the path of the notebook or Python file in the workspace; the program of a wheel has none."""
    if program["file"] is None:
        return None
    return f"/{Path(program['file']).relative_to(Path(program['root']).resolve()).with_suffix('')}"


class Tags:
    """The values of a context by name."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values

    def get(self, name: str) -> Option:
        """Return a value that may be missing."""
        return Option(name, self._values)

    def apply(self, name: str) -> str:
        """Return a value; raise NotSupportedError if it is not known."""
        return self.get(name).get()


class Option:
    """A value that may be missing, as in Scala."""

    def __init__(self, name: str, values: Mapping[str, str]) -> None:
        self._name = name
        self._values = values

    def get(self) -> str:
        """Return the value; raise NotSupportedError if it is not known."""
        if self._name not in self._values:
            raise NotSupportedError(f"the local workspace does not know {self._name!r} of a notebook's context")
        return self._values[self._name]

    def getOrElse(self, default: Any) -> Any:
        """Return the value, or `default`."""
        return self._values.get(self._name, default)

    def isDefined(self) -> bool:
        """Return whether the value is known."""
        return self._name in self._values

    def toString(self) -> str:
        """Return the value as it is shown in Scala."""
        return f"Some({self.get()})" if self.isDefined() else "None"
