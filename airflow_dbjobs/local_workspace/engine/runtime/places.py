"""Where the paths that programs name are on this machine: those of DBFS, volumes and the workspace's files."""

from __future__ import annotations

import builtins
import contextlib
import functools
import io
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.local_workspace.state.paths import place_of

if TYPE_CHECKING:
    from types import ModuleType

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)
#: Paths in SQL: after a keyword, or in place of a table's name.
_IN_SQL = re.compile(
    r"""((?:\bLOCATION|\bCOPY\s+INTO|\bFROM|\bread_files\s*\()\s*'
    |\b(?:avro|binaryFile|csv|delta|json|orc|parquet|text)\.`)([^'`]+)""",
    re.VERBOSE | re.IGNORECASE,
)


#: `USE name` sets the schema, which Sail only knows by its longer form.
_USE = re.compile(r"\A\s*USE\s+(?!(?:CATALOG|DATABASE|NAMESPACE|SCHEMA)\b)", re.IGNORECASE)
#: The folders at the root of a disk of Databricks that Python's own functions reach, too.
_FOLDERS = re.compile(r"/(?:dbfs|Volumes|Workspace|databricks-datasets)(?=/|$)")
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
        found = _FOLDERS.match(text)
        if not found or text.startswith(inside):
            return path
        with contextlib.suppress(OSError, ValueError):
            # A Mac has its disks in /Volumes.
            lstat("/".join(text.split("/")[:3]))
            return path
        # DBFS itself always exists.
        (root / "dbfs").mkdir(exist_ok=True)
        return str(place_of(root, f"dbfs:{text}" if found[0] == "/databricks-datasets" else text))

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
    if scheme := _SCHEME.match(path):
        return f"{scheme[1]}:/{path[scheme.end() :].lstrip('/')}" if scheme[1] in ("dbfs", "file") else path
    bare = "/" + path.lstrip("/")
    return f"file:{bare}" if bare.startswith("/Workspace/") else f"dbfs:{bare}"


def local_place(root: Path, path: str) -> Path | None:
    """Return where a path is on this machine; None if its scheme is one of cloud storage."""
    scheme, _, rest = full_path(path).partition(":")
    if scheme not in ("dbfs", "file"):
        return None
    if scheme == "dbfs" or rest.startswith("/Workspace/"):
        return place_of(root, f"{scheme}:{rest}")
    # The disk of the machine itself, where the program may read and write anyway.
    return Path(rest)


def complete_plans(module: ModuleType, root: Path) -> None:
    """Let Spark's plans have paths of this machine: the server knows no others."""
    inside = f"{root.resolve()}/"

    def local(path: str) -> str:
        # A plan may be sent more than once.
        place = None if path.startswith(inside) else local_place(root, path)
        return f"{place}/" if place and path.endswith("/") else str(place or path)

    def with_paths(plan: Any) -> None:
        if options := getattr(plan, "_options", None) or getattr(plan, "options", None):
            options.update({name: local(value) for name, value in options.items() if name.lower() == "path"})
        if getattr(plan, "_paths", None):
            plan._paths = [local(path) for path in plan._paths]  # noqa: SLF001 - there is no public way
        if getattr(plan, "path", None):
            plan.path = local(plan.path)
        if hasattr(plan, "_query"):
            query = _IN_SQL.sub(lambda found: found[1] + local(found[2]), plan._query)  # noqa: SLF001 - as above
            plan._query = _USE.sub("USE SCHEMA ", query)  # noqa: SLF001 - as above

    for kind, method in (
        (module.DataSource, "plan"),
        (module.WriteOperation, "command"),
        (module.SQL, "plan"),
        (module.SQL, "command"),
    ):
        _before(kind, method, with_paths)


def _before(kind: type, method: str, action: Any) -> None:
    """Let a method do something to its object first."""
    original = getattr(kind, method)

    def changed(self: Any, *arguments: Any, **options: Any) -> Any:
        action(self)
        return original(self, *arguments, **options)

    setattr(kind, method, changed)
