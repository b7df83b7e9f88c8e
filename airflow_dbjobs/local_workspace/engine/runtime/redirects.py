"""Python's own functions for files, which find DBFS, volumes and the workspace's files too."""

from __future__ import annotations

import builtins
import contextlib
import functools
import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.local_workspace.state.paths import place_of, with_top

if TYPE_CHECKING:
    from collections.abc import Callable

#: The folders at the root of a disk of Databricks that Python's own functions reach, too.
_FOLDERS = ("/dbfs", "/Volumes", "/Workspace", "/databricks-datasets")
_FILE_FUNCTIONS = (
    *("access", "chmod", "listdir", "lstat", "makedirs", "mkdir", "open", "remove", "rename", "replace", "rmdir"),
    *("scandir", "stat", "truncate", "unlink", "utime"),
)


def redirect_files(root: Path) -> None:
    """Let Python's functions find DBFS, volumes and the workspace's files where this machine has no such folders.

    The root itself cannot be deleted or renamed, as little as `/Workspace` on Databricks.
    """
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

    _keep(root, redirected)
    builtins.open = io.open = changed(open)
    for name in _FILE_FUNCTIONS:
        setattr(os, name, changed(getattr(os, name)))


def _keep(root: Path, redirected: Callable[[Any], Any]) -> None:
    def check(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("shutil.rmtree", "os.rename"):
            place = Path(os.fsdecode(redirected(arguments[0]))).resolve()
            if root.resolve().is_relative_to(place):
                raise PermissionError(f"{arguments[0]} stays: the root folder of the local workspace is {root}")

    sys.addaudithook(check)
