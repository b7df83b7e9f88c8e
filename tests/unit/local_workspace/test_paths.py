"""Where paths of Databricks are in the workspace's folder, and that none leaves it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_dbjobs.local_workspace.engine.notebooks import WorkspaceFileError, find_file
from airflow_dbjobs.local_workspace.state.paths import OutsideRootError, PlaceError, place_of

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Write


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/x/y.py", "x/y.py"),
        ("/Workspace/x", "x"),
        ("//Workspace/x", "x"),
        ("/Workspace", ""),
        ("/Workspaces/x", "Workspaces/x"),
        ("file:/x", "x"),
        ("file:///Workspace/x", "x"),
        ("file:/dbfs/x", "dbfs/x"),
        ("dbfs:/x", "dbfs/x"),
        ("dbfs:///x", "dbfs/x"),
        ("dbfs:x", "dbfs/x"),
        ("dbfs:/", "dbfs"),
        ("dbfs:/Workspace/x", "dbfs/Workspace/x"),
        ("/dbfs/x", "dbfs/x"),
        ("/Volumes/a/b/c", "Volumes/a/b/c"),
        ("dbfs:/Volumes/a/b/c", "Volumes/a/b/c"),
        ("/dbfs/Volumes/a/b/c", "Volumes/a/b/c"),
        ("x", "etl/x"),
        ("../x", "x"),
        ("/", ""),
        ("/x/./y/../z", "x/z"),
        ("/a~b %20é", "a~b %20é"),
    ],
)
def test_places(root: Path, path: str, place: str) -> None:
    assert place_of(root, path, folder=root / "etl") == root / place


@pytest.mark.parametrize(
    "path",
    [
        "/../x", "dbfs:/../../x", "/Volumes/../../x", "../../x", "/link/x", "dbfs:/link", "/.airflow_dbjobs",
        "/x/../.airflow_dbjobs/token", "dbfs:/../.airflow_dbjobs", "/.Airflow_DBJobs/token", "/state/token",
    ],
)  # fmt: skip
def test_places_outside_the_root_and_in_the_state_are_refused(root: Path, tmp_path: Path, path: str) -> None:
    (root / "dbfs").mkdir()
    (root / "link").symlink_to(tmp_path)
    (root / "dbfs" / "link").symlink_to(tmp_path / "missing")
    (root / "state").symlink_to(root / ".airflow_dbjobs")
    with pytest.raises(OutsideRootError, match="outside the root folder"):
        place_of(root, path, folder=root / "etl")


@pytest.mark.parametrize("path", ["/a\0", "/\ud800"])
def test_what_no_file_can_be_named_is_refused(root: Path, path: str) -> None:
    with pytest.raises(PlaceError, match="cannot be a path") as raised:
        place_of(root, path)
    assert not isinstance(raised.value, OutsideRootError)


def test_a_file_of_dbfs_is_found_there_first(root: Path, write: Write) -> None:
    write("jobs/x.py", "1")
    assert find_file(root, "dbfs:/jobs/x.py") == root / "jobs" / "x.py"
    write("dbfs/jobs/x.py", "2")
    for path in ("dbfs:/jobs/x.py", "/dbfs/jobs/x.py"):
        assert find_file(root, path) == root / "dbfs" / "jobs" / "x.py"
    with pytest.raises(WorkspaceFileError, match="not found"):
        find_file(root, "dbfs:/Volumes/x.py")
