"""What must change in the plans of Spark's programs for the workspace's server."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.local_workspace.state.paths import with_top

from .paths import local_path

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

#: Paths in SQL: after a keyword, or in place of a table's name. What `extract(year FROM '...')` takes is not a path.
_IN_SQL = re.compile(
    r"""((?:\bLOCATION|\bCOPY\s+INTO|\bFROM(?=\s*'(?:/|\w+:/))|\bread_files\s*\()\s*'
    |\b(?:avro|binaryFile|csv|delta|json|orc|parquet|text)\.`)([^'`]+)""",
    re.VERBOSE | re.IGNORECASE,
)


def complete_plans(module: ModuleType, root: Path) -> None:
    """Let Spark's plans have paths of this machine: the server knows no others."""
    inside = f"{root.resolve()}/"

    def local(path: str) -> str:
        # A plan may be sent more than once.
        place = None if path.startswith(inside) else local_path(root, path)
        place = place and with_top(root, place)
        return f"{place}/" if place and path.endswith("/") else str(place or path)

    def with_paths(plan: Any) -> None:
        if options := getattr(plan, "_options", None) or getattr(plan, "options", None):
            options.update({name: local(value) for name, value in options.items() if name.lower() == "path"})
        if getattr(plan, "_paths", None):
            plan._paths = [local(path) for path in plan._paths]  # noqa: SLF001 - there is no public way
        for name in ("path", "_path"):
            if path := getattr(plan, name, None):
                setattr(plan, name, local(path))
        if hasattr(plan, "_query"):
            plan._query = _IN_SQL.sub(lambda found: found[1] + local(found[2]), plan._query)  # noqa: SLF001 - as above

    for kind, method in (
        (module.DataSource, "plan"),
        (module.WriteOperation, "command"),
        (module.CreateTable, "plan"),
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
