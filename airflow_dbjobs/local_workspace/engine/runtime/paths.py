"""Where the paths that programs name are on this machine: those of DBFS, volumes and the workspace's files."""

from __future__ import annotations

import builtins
import contextlib
import functools
import io
import os
from pathlib import Path
from typing import Any

from airflow_dbjobs.local_workspace.state.paths import place_of, with_top

#: The folders at the root of a disk of Databricks that Python's own functions reach, too.
_FOLDERS = ("/dbfs", "/Volumes", "/Workspace", "/databricks-datasets")
_FILE_FUNCTIONS = (
    *("access", "chmod", "listdir", "lstat", "makedirs", "mkdir", "open", "remove", "rename", "replace", "rmdir"),
    *("scandir", "stat", "truncate", "unlink", "utime"),
)


def redirect_files(root: Path) -> None:
    """Let Python's functions find DBFS, volumes and the workspace's files where this machine has no such folders."""
    inside = f"{root.resolve()}/"
    lstat = os.lstat

    def redirected(path: Any) -> Any:
        text = os.fspath(path) if isinstance(path, (str, Path)) else ""
        if not text.startswith(_FOLDERS) or text.startswith(inside):
            return path
        _, folder, *_ = parts = text.split("/")
        if f"/{folder}" not in _FOLDERS:
            return path
        with contextlib.suppress(OSError, ValueError):
            # A Mac has its disks in /Volumes.
            lstat("/".join(parts[:3]))
            return path
        # DBFS itself always exists, and so do volumes.
        with_top(root, root.resolve() / "dbfs")
        return str(with_top(root, place_of(root, f"dbfs:{text}" if folder == "databricks-datasets" else text)))

    def changed(function: Any) -> Any:
        @functools.wraps(function)
        def call(*paths: Any, **options: Any) -> Any:
            return function(*map(redirected, paths[:2]), *paths[2:], **options)

        for capable in (os.supports_dir_fd, os.supports_effective_ids, os.supports_fd, os.supports_follow_symlinks):
            if function in capable:
                capable.add(call)
        return call

    builtins.open = io.open = changed(open)
    for name in _FILE_FUNCTIONS:
        setattr(os, name, changed(getattr(os, name)))


def full_path(path: str) -> str:
    """Return a path with its scheme: one without is in DBFS, in a volume or in the workspace's files."""
    scheme, colon, rest = path.partition(":")
    if colon and "/" not in scheme:
        return f"{scheme}:/{rest.lstrip('/')}" if scheme in ("dbfs", "file") else path
    bare = "/" + path.lstrip("/")
    return f"file:{bare}" if _is_in_workspace(bare) else f"dbfs:{bare}"


def _is_in_workspace(path: str) -> bool:
    return path == "/Workspace" or path.startswith("/Workspace/")


def local_path(root: Path, path: str) -> Path | None:
    """Return where a path is on this machine; None if its scheme is one of cloud storage."""
    scheme, _, rest = full_path(path).partition(":")
    if scheme not in ("dbfs", "file"):
        return None
    if scheme == "dbfs" or _is_in_workspace(rest):
        return place_of(root, f"{scheme}:{rest}")
    # The disk of the machine itself, where the program may read and write anyway.
    return Path(rest)
