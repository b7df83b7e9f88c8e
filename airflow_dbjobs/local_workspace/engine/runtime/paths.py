"""Where the paths of `dbutils.fs` and Spark are on this machine."""

from __future__ import annotations

from pathlib import Path

from airflow_dbjobs.local_workspace.state.paths import place_of


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
