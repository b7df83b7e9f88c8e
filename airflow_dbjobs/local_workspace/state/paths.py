"""Where files of the workspace and its state are kept.

Imported by the subprocess of every task, so it imports the standard library only.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

#: The folder, inside the workspace's root, that holds its state.
STATE_FOLDER: Final = ".airflow_dbjobs"
_IGNORED: Final = ".gitignore"
_SCHEME: Final = re.compile(r"(dbfs|file):(?://(?=/))?")
_WORKSPACE: Final = re.compile(r"/+Workspace(?=/|$)")
_VOLUMES: Final = re.compile(r"/+dbfs/+Volumes(?=/|$)")


class PlaceError(ValueError):
    """A path that no file can have: it has invalid characters, a loop of links, or is too long."""


class OutsideRootError(PlaceError):
    """A path that leaves the workspace's root, or enters the folder of its state."""


def place_of(root: Path, path: str, *, folder: Path | None = None) -> Path:
    """Return the place below the root that a path of Databricks stands for; it need not exist.

    `dbfs:/x` and `/dbfs/x` are `dbfs/x` below the root. `/Volumes/x`, with or without `dbfs:` or `/dbfs` before it, is
    `Volumes/x`. `/x`, `/Workspace/x` and `file:/x` are `x`. A relative path starts at `folder`, or at the root.

    :raises OutsideRootError: The place is outside the root or in the state folder, after following symbolic links.
    :raises PlaceError: No file can have this path.
    """
    bare = path
    if scheme := _SCHEME.match(path):
        bare = ("/dbfs/" if scheme[1] == "dbfs" else "") + path[scheme.end() :]
    if found := _VOLUMES.match(bare):
        bare = "/Volumes" + bare[found.end() :]
    elif found := _WORKSPACE.match(bare):
        bare = "/" + bare[found.end() :]
    try:
        root = root.resolve()
        start = folder if folder and not bare.startswith("/") else root
        place = (start / bare.lstrip("/")).resolve()
    except (ValueError, RuntimeError, OSError) as error:
        raise PlaceError(f"{path!r} cannot be a path: {getattr(error, 'strerror', None) or error}.") from None
    if not is_inside(root, place):
        raise OutsideRootError(f"{path!r} is outside the root folder of the local workspace.")
    return place


def with_top(root: Path, place: Path) -> Path:
    """Return a place; the folder of DBFS or of volumes that it is in is created, if needed.

    The root may be a bundle, or in Git: both leave out what is in a new folder.
    """
    top = next(filter(place.is_relative_to, _tops(root)), None)
    if top and not top.exists():
        top.mkdir(exist_ok=True)
        (top / _IGNORED).write_text("*\n")
    return place


def is_listed(root: Path, item: Path) -> bool:
    """Return whether an item of a folder is listed: what `with_top` writes is not."""
    return item.name != _IGNORED or item.parent not in _tops(root)


def _tops(root: Path) -> list[Path]:
    return [root.resolve() / name for name in ("dbfs", "Volumes")]


def is_inside(root: Path, place: Path) -> bool:
    """Return whether a place leads to one below the resolved root, or to the root itself, and not to the state."""
    try:
        place = place.resolve()
    except (RuntimeError, OSError):
        return False
    # A file system may take names in any case for the same one.
    return place.is_relative_to(root) and STATE_FOLDER not in map(str.casefold, place.relative_to(root).parts[:1])
