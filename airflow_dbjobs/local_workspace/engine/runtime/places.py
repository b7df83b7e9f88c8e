"""Where the paths that programs name are on this machine: those of DBFS, volumes and the workspace's files."""

from __future__ import annotations

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
            plan._query = _IN_SQL.sub(lambda found: found[1] + local(found[2]), plan._query)  # noqa: SLF001 - as above

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
