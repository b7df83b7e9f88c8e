"""The JSON files of a task folder: how the server, a task's supervisor and its program exchange data.

Imported by the subprocess of every task, so it imports the standard library only.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


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


def write_program(
    folder: Path,
    *,
    kind: str,
    file: Path,
    root: Path,
    arguments: list[str] | None = None,
    widgets: dict[str, str] | None = None,
) -> None:
    """Describe a task's program to its subprocess: `kind` is "python" or "notebook"."""
    program = {
        "kind": kind,
        "file": str(file),
        "root": str(root),
        "arguments": arguments or [],
        "widgets": widgets or {},
    }
    write_json(folder / "program.json", program)
