"""Where paths of Databricks are in the workspace's folder, and that none leaves it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_dbjobs.local_workspace.engine.notebooks import WorkspaceFileError, find_file
from airflow_dbjobs.local_workspace.state.paths import OutsideRootError, PlaceError, place_of, with_top

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Write
    from .support import Client


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


@pytest.mark.parametrize("top", ["dbfs", "Volumes"])
def test_new_folders_of_dbfs_and_volumes_are_ignored_by_git(root: Path, top: str) -> None:
    place = root / top / "a"
    assert with_top(root, place) == place
    assert (root / top / ".gitignore").read_text() == "*\n"


def test_folders_that_exist_are_left_as_they_are(root: Path) -> None:
    (root / "dbfs").mkdir()
    with_top(root, root / "dbfs" / "a")
    with_top(root, root / "etl")
    assert [item.relative_to(root).as_posix() for item in root.rglob("*")] == ["dbfs"]


@pytest.mark.parametrize(
    "code",
    [
        "dbutils.fs.put('dbfs:/a/b', 'x')",
        "dbutils.fs.mkdirs('dbfs:/a')",
        "dbutils.fs.cp('file:/Workspace/n.py', 'dbfs:/a/b')",
        "dbutils.fs.ls('/')",
        "open('/dbfs/b', 'w').close()",
    ],
)
def test_notebooks_make_ignored_folders(client: Client, root: Path, notebook: Write, code: str) -> None:
    notebook("n", code)
    assert client.finish(notebook_task={"notebook_path": "/n"})["state"]["result_state"] == "SUCCESS"
    assert (root / "dbfs" / ".gitignore").is_file()


@pytest.mark.parametrize(
    ("method", "path", "fields"),
    [
        ("POST", "dbfs/mkdirs", {"json": {"path": "/a"}}),
        ("POST", "dbfs/put", {"json": {"path": "/a/b", "contents": ""}}),
        ("GET", "dbfs/list", {"params": {"path": "/"}}),
        ("PUT", "fs/directories/Volumes/main/default/v", {}),
        ("PUT", "fs/files/Volumes/main/default/v/a", {"data": b"x"}),
    ],
)
def test_the_api_makes_ignored_folders(client: Client, root: Path, method: str, path: str, fields: Any) -> None:
    assert client.send(method, f"/api/2.0/{path}", **fields).ok
    assert len([*root.glob("[dV]*/.gitignore")]) == 1
