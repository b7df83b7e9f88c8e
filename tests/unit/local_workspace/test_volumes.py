"""The Files API: its files are in the folder `Volumes` below the root."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .conftest import mounted

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_dbjobs.local_workspace import LocalWorkspace

    from .support import Client

FILE = "/api/2.0/fs/files/Volumes/main/default/raw/a"
FOLDER = "/api/2.0/fs/directories/Volumes/main/default/raw"


def test_files(client: Client, root: Path) -> None:
    place = root / "Volumes" / "main" / "default" / "raw" / "a"
    # Not JSON, nor a form, whatever it says of itself.
    for content in (b"{", b"0123456789"):
        reply = client.send("PUT", FILE, data=content, headers={"Content-Type": "multipart/form-data"})
        assert (reply.status_code, place.read_bytes()) == (204, content)
    assert client.send("PUT", f"{FILE}?overwrite=false", data=b"1").json()["error_code"] == "ALREADY_EXISTS"
    head = client.send("HEAD", FILE)
    assert (head.status_code, head.headers["Content-Length"], head.content) == (200, "10", b"")
    assert head.headers["Last-Modified"].endswith("GMT")
    assert client.send("GET", FILE).content == b"0123456789"
    assert client.send("DELETE", FILE).status_code == 204
    for method in ("GET", "HEAD", "DELETE"):
        assert client.send(method, FILE).status_code == 404


@pytest.mark.parametrize(
    ("part", "status", "content"),
    [
        ("bytes=2-4", 206, b"234"),
        ("bytes=8-", 206, b"89"),
        ("bytes=8-99", 206, b"89"),
        ("lines=1-2", 200, b"0123456789"),
    ],
)
def test_parts_of_a_file(client: Client, part: str, status: int, content: bytes) -> None:
    client.send("PUT", FILE, data=b"0123456789")
    reply = client.send("GET", FILE, headers={"Range": part})
    assert (reply.status_code, reply.content) == (status, content)
    assert client.send("GET", FILE, headers={"Range": "bytes=10-"}).status_code == 416


def test_folders(client: Client) -> None:
    for _ in range(2):
        assert client.send("PUT", f"{FOLDER}/b").status_code == 204
    client.send("PUT", FILE, data=b"123")
    contents = client.get(FOLDER)["contents"]
    assert [(item["name"], item["is_directory"], item.get("file_size")) for item in contents] == [
        ("a", False, 3),
        ("b", True, None),
    ]
    assert contents[0]["path"] == "/Volumes/main/default/raw/a"
    assert client.send("DELETE", FOLDER).json()["error_code"] == "FAILED_PRECONDITION"
    for method, path, status in (
        ("HEAD", FOLDER, 200), ("HEAD", FILE.replace("files", "directories"), 404), ("GET", f"{FOLDER}/none", 404),
        ("GET", FOLDER.replace("directories", "files"), 404), ("PUT", FILE.replace("files", "directories"), 400),
        ("PUT", FOLDER.replace("directories", "files"), 409), ("DELETE", f"{FOLDER}/b", 204),
    ):  # fmt: skip
        assert client.send(method, path).status_code == status


@pytest.mark.parametrize(
    "path", ["/tmp/a", "/Volumes", "/Volumes/../a", "/Volumes/%2e%2e/.airflow_dbjobs/a", "/Workspace/a"]
)
def test_what_is_not_in_a_volume_is_refused(client: Client, root: Path, path: str) -> None:
    for kind in ("files", "directories"):
        reply = client.send("PUT", f"/api/2.0/fs/{kind}{path}", data=b"1")
        assert (reply.status_code, reply.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert not (root / "a").exists()


def test_faults_and_counters_ignore_the_file(stepped: LocalWorkspace) -> None:
    client = mounted(stepped)
    client.send("PUT", FILE)
    client.send("GET", f"{FILE}2")
    assert stepped.requests == {"/api/2.0/fs/files": 2}
