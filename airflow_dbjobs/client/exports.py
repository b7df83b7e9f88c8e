"""Exported views of a notebook's run, as files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_dbjobs.payloads import ViewItem

# Names are notebooks' and dashboards': they may hold a slash, and be longer than a file's name may be.
_NOT_IN_A_FILE_NAME = re.compile(r"[^\w. -]+")
_LONGEST_NAME_BYTES = 200


def write_views(views: Iterable[ViewItem], folder: str | Path) -> list[Path]:
    """Write each view to ``<number>-<name>.html`` in `folder`, which is made; other files stay. Raises OSError."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, view in enumerate(views, 1):
        name = _NOT_IN_A_FILE_NAME.sub("_", str(view.get("name") or "view"))
        name = name.encode()[:_LONGEST_NAME_BYTES].decode(errors="ignore")
        path = folder / f"{number}-{name}.html"
        path.write_text(str(view.get("content") or ""), encoding="utf-8", errors="replace")
        paths.append(path)
    return paths
