"""The DBFS API: its files are in the folder `dbfs` below the root, with the limits of the cloud."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest

from airflow_dbjobs.local_workspace import LocalWorkspace

from .conftest import mounted
from .support import TOKEN

if TYPE_CHECKING:
    from pathlib import Path

    import requests

    from .support import Client

MB = 1024 * 1024


def post(client: Client, operation: str, **fields: Any) -> requests.Response:
    return client.send("POST", f"/api/2.0/dbfs/{operation}", json=fields)


def get(client: Client, operation: str, **query: Any) -> requests.Response:
    return client.send("GET", f"/api/2.0/dbfs/{operation}", params=query)


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def error(response: requests.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error_code"]


class TestStreams:
    def test_write_blocks(self, client: Client, root: Path) -> None:
        handle = post(client, "create", path="/a/b").json()["handle"]
        other = post(client, "create", path="/a/c").json()["handle"]
        for block in (b"1", b"2"):
            assert post(client, "add-block", handle=handle, data=encoded(block)).json() == {}
        assert post(client, "close", handle=handle).json() == {}
        assert [(root / "dbfs" / "a" / name).read_bytes() for name in "bc"] == [b"12", b""]
        for operation in ("add-block", "close"):
            assert error(post(client, operation, handle=handle)) == (404, "RESOURCE_DOES_NOT_EXIST")
        assert post(client, "close", handle=str(other)).json() == {}

    def test_end_with_the_server(self, root: Path) -> None:
        with LocalWorkspace(root, token=TOKEN) as workspace:
            handle = post(mounted(workspace), "create", path="/a").json()["handle"]
        with LocalWorkspace(root, token=TOKEN) as workspace:
            reply = post(mounted(workspace), "add-block", handle=handle, data="")
            assert "none survives a restart" in reply.json()["message"]

    def test_refuse_large_blocks_and_other_data(self, client: Client, root: Path) -> None:
        handle = post(client, "create", path="/a").json()["handle"]
        large = post(client, "add-block", handle=handle, data=encoded(b"1" * (MB + 1)))
        assert error(large) == (400, "MAX_BLOCK_SIZE_EXCEEDED")
        assert error(post(client, "add-block", handle=handle, data="%")) == (400, "INVALID_PARAMETER_VALUE")
        assert error(post(client, "add-block", handle=handle, data=1)) == (400, "MALFORMED_REQUEST")
        assert error(post(client, "add-block", handle="x", data="")) == (400, "MALFORMED_REQUEST")
        assert error(post(client, "add-block", data="")) == (400, "INVALID_PARAMETER_VALUE")
        assert (root / "dbfs" / "a").read_bytes() == b""


class TestPut:
    def test_overwrites_only_if_asked_to(self, client: Client, root: Path) -> None:
        assert post(client, "put", path="dbfs:/a", contents=encoded(b"1")).json() == {}
        for operation in ("put", "create"):
            assert error(post(client, operation, path="/a")) == (400, "RESOURCE_ALREADY_EXISTS")
        assert post(client, "put", path="/a", contents=encoded(b"2"), overwrite=True).json() == {}
        assert (root / "dbfs" / "a").read_bytes() == b"2"

    def test_more_than_a_block_needs_a_form(self, client: Client, root: Path) -> None:
        large = b"1" * (MB + 1)
        assert error(post(client, "put", path="/a", contents=encoded(large))) == (400, "MAX_BLOCK_SIZE_EXCEEDED")
        reply = client.send("POST", "/api/2.0/dbfs/put", data={"path": "/a"}, files={"contents": large})
        assert reply.json() == {}
        assert (root / "dbfs" / "a").read_bytes() == large

    @pytest.mark.parametrize(
        "path",
        ["a", "", "file:/a", "/../../a", "/../.airflow_dbjobs/a", "dbfs:/../.airflow_dbjobs/a", "/\0", "/" + "a" * 300],
    )
    def test_refuses_other_paths(self, client: Client, root: Path, path: str) -> None:
        before = sorted(root.parent.rglob("*a"))
        assert error(post(client, "put", path=path)) == (400, "INVALID_PARAMETER_VALUE")
        assert sorted(root.parent.rglob("*a")) == before

    def test_takes_names_of_any_length(self, client: Client, root: Path) -> None:
        name = "a" * 255
        assert post(client, "put", path=f"/{name}").json() == {}
        assert {file.name for file in (root / "dbfs").iterdir()} == {name, ".gitignore"}

    def test_refuses_folders(self, client: Client) -> None:
        post(client, "mkdirs", path="/a/b")
        post(client, "put", path="/file")
        for path in ("/", "/a", "/file/c", "/Volumes"):
            assert error(post(client, "put", path=path, overwrite=True)) == (400, "RESOURCE_ALREADY_EXISTS")


class TestRead:
    def test_returns_a_part(self, client: Client) -> None:
        post(client, "put", path="/a", contents=encoded(b"0123456789"))
        assert get(client, "read", path="/a").json() == {"bytes_read": 10, "data": encoded(b"0123456789")}
        assert get(client, "read", path="/a", offset=8, length=5).json() == {"bytes_read": 2, "data": encoded(b"89")}
        assert get(client, "read", path="/a", offset=10).json() == {"bytes_read": 0, "data": ""}

    def test_refuses_other_parts_and_folders(self, client: Client) -> None:
        post(client, "put", path="/a")
        for query in ({"path": "/a", "offset": -1}, {"path": "/a", "length": -1}, {"path": "/"}):
            assert error(get(client, "read", **query)) == (400, "INVALID_PARAMETER_VALUE")
        assert error(get(client, "read", path="/a", length=MB + 1)) == (400, "MAX_READ_SIZE_EXCEEDED")
        assert error(get(client, "read", path="/b")) == (404, "RESOURCE_DOES_NOT_EXIST")


class TestFolders:
    def test_are_listed(self, client: Client, root: Path, tmp_path: Path) -> None:
        assert get(client, "list", path="/").json() == {"files": []}
        post(client, "put", path="/a/file", contents=encoded(b"123"))
        post(client, "mkdirs", path="/a/b")
        (root / "dbfs" / "a" / "outside").symlink_to(tmp_path)
        files = get(client, "list", path="dbfs:/a").json()["files"]
        assert [(item["path"], item["is_dir"], item["file_size"]) for item in files] == [
            ("/a/b", True, 0),
            ("/a/file", False, 3),
        ]
        assert get(client, "list", path="/a/file").json()["files"] == files[1:]
        assert get(client, "get-status", path="/a/file").json() == files[1]
        assert error(get(client, "list", path="/nothing")) == (404, "RESOURCE_DOES_NOT_EXIST")

    def test_of_volumes_keep_their_paths(self, client: Client, root: Path) -> None:
        post(client, "put", path="dbfs:/Volumes/main/default/raw/x", contents=encoded(b"1"))
        assert (root / "Volumes" / "main" / "default" / "raw" / "x").read_bytes() == b"1"
        (shown,) = get(client, "list", path="/Volumes/main/default/raw").json()["files"]
        assert shown["path"] == "/Volumes/main/default/raw/x"

    def test_are_deleted_with_their_content_only_if_asked_to(self, client: Client, root: Path) -> None:
        post(client, "put", path="/a/b")
        assert error(post(client, "delete", path="/a")) == (400, "IO_ERROR")
        assert post(client, "delete", path="/a", recursive=True).json() == {}
        assert post(client, "delete", path="/a").json() == {}
        assert not (root / "dbfs" / "a").exists()

    def test_are_moved(self, client: Client, root: Path) -> None:
        post(client, "put", path="/a/file")
        post(client, "put", path="/other")
        assert post(client, "move", source_path="/a", destination_path="/b").json() == {}
        assert post(client, "move", source_path="/other", destination_path="/b").json() == {}
        assert sorted(file.name for file in (root / "dbfs" / "b").iterdir()) == ["file", "other"]
        for source, destination, expected in (
            ("/none", "/c", (404, "RESOURCE_DOES_NOT_EXIST")),
            ("/b/file", "/b/other", (400, "RESOURCE_ALREADY_EXISTS")),
            ("/b", "/b/c", (400, "INVALID_PARAMETER_VALUE")),
            ("/b", "/none/c", (404, "RESOURCE_DOES_NOT_EXIST")),
        ):
            assert error(post(client, "move", source_path=source, destination_path=destination)) == expected
