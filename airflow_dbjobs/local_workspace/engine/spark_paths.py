"""Paths of DBFS, volumes and the workspace in Spark's requests: it gets the places in the root that they stand for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.local_workspace.state.paths import place_of

if TYPE_CHECKING:
    from pathlib import Path

#: A path, or one in SQL, where it is quoted.
_PATH = re.compile(r"""(?:^|(?<=['"`]))(?:dbfs:/|/dbfs/|/Volumes/|(?:file:)?/Workspace/)[^'"`]*""")
_MARKS = (b"dbfs:/", b"/dbfs/", b"/Volumes/", b"/Workspace/")


def localize(request: Any, data: bytes, root: Path) -> bytes:
    """Replace the paths in a request, whose bytes are `data`; return its bytes.

    :raises PlaceError: A path leads out of the root.
    """
    if not any(mark in data for mark in _MARKS):
        return data
    # Not recursive, as the plans of long chains of DataFrames are deep.
    messages = [request]
    while messages:
        message = messages.pop()
        for field, value in message.ListFields():
            if field.name in ("path", "query") and isinstance(value, str):
                setattr(message, field.name, _local(value, root))
            elif field.name == "paths":
                value[:] = [_local(path, root) for path in value]
            elif field.name == "options" and "path" in value:
                value["path"] = _local(value["path"], root)
            elif field.message_type and not field.message_type.GetOptions().map_entry:
                messages += [value] if hasattr(value, "ListFields") else value
    changed: bytes = request.SerializeToString()
    return changed


def _local(text: str, root: Path) -> str:
    return _PATH.sub(lambda found: str(place_of(root, found[0])), text)
