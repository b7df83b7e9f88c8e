"""The Workspace API: notebooks and files are in the root folder, and nothing outside it is."""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING, Any

import pytest

from airflow_dbjobs.local_workspace.http import routes

from .conftest import mounted

if TYPE_CHECKING:
    from pathlib import Path

    import requests

    from airflow_dbjobs.local_workspace import LocalWorkspace

    from .support import Client

CODE = "dbutils.notebook.exit('imported')"


def imported(client: Client, path: Any, code: str = CODE, **fields: Any) -> requests.Response:
    content = base64.b64encode(code.encode()).decode()
    body = {"path": path, "format": "SOURCE", "language": "PYTHON", "content": content, **fields}
    return client.send("POST", "/api/2.0/workspace/import", json=body)


def mkdirs(client: Client, path: Any) -> requests.Response:
    return client.send("POST", "/api/2.0/workspace/mkdirs", json={"path": path})


def deleted(client: Client, path: str, **fields: Any) -> requests.Response:
    return client.send("POST", "/api/2.0/workspace/delete", json={"path": path, **fields})


def form(client: Client, fields: dict[str, str], files: dict[str, bytes]) -> requests.Response:
    return client.send("POST", "/api/2.0/workspace/import", data=fields, files=files)


def status(client: Client, path: str) -> Any:
    return client.get("/api/2.0/workspace/get-status", path=path)


def error(response: requests.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error_code"]


class TestImport:
    @pytest.mark.parametrize("header", ["", "# Databricks notebook source\n"])
    def test_stores_a_notebook_that_runs(self, client: Client, root: Path, header: str) -> None:
        assert imported(client, "/Workspace/hello", header + CODE).json() == {}
        assert (root / "hello.py").read_text() == f"# Databricks notebook source\n{CODE}"
        run = client.finish(notebook_task={"notebook_path": "/hello"})
        assert client.output(run)["notebook_output"]["result"] == "imported"
        assert [file.name for file in root.iterdir() if file.is_file()] == ["hello.py"]

    def test_works_where_runs_are_simulated(self, simulated: LocalWorkspace, root: Path) -> None:
        assert imported(mounted(simulated), "/hello").status_code == 200
        assert (root / "hello.py").is_file()

    def test_replaces_a_notebook_only_if_asked_to(self, client: Client, root: Path) -> None:
        imported(client, "/hello", "1")
        assert error(imported(client, "/hello", "2")) == (400, "RESOURCE_ALREADY_EXISTS")
        assert (root / "hello.py").read_text().endswith("1")
        assert imported(client, "/hello", "2", overwrite=True).status_code == 200
        assert (root / "hello.py").read_text().endswith("2")

    def test_needs_a_folder(self, client: Client) -> None:
        assert error(imported(client, "/missing/hello")) == (404, "RESOURCE_DOES_NOT_EXIST")
        assert mkdirs(client, "/missing").json() == {}
        assert imported(client, "/missing/hello").json() == {}

    @pytest.mark.parametrize(
        ("path", "fields"),
        [
            ("hello", {}), ("", {}), ("/", {}), ("/../hello", {}), ("/.airflow_dbjobs/hello", {}), ("/a\0", {}),
            ("/hello", {"language": "RUBY"}), ("/hello", {"format": "JUPYTER"}), ("/hello", {"content": "%"}),
            ("/hello", {"content": base64.b64encode(b"\xff").decode()}), ("/" + "a" * 300, {}),
        ],
    )  # fmt: skip
    def test_refuses_other_paths_and_types(self, client: Client, root: Path, path: str, fields: Any) -> None:
        before = sorted(root.parent.rglob("*.py"))
        assert error(imported(client, path, **fields)) == (400, "INVALID_PARAMETER_VALUE")
        assert sorted(root.parent.rglob("*.py")) == before

    @pytest.mark.parametrize("field", ["path", "language", "content", "overwrite"])
    def test_refuses_fields_of_other_types(self, client: Client, field: str) -> None:
        assert error(imported(client, **{"path": "/hello", field: 1})) == (400, "MALFORMED_REQUEST")

    def test_does_not_follow_links_out_of_the_root(self, client: Client, root: Path, tmp_path: Path) -> None:
        (root / "link").symlink_to(tmp_path)
        assert error(imported(client, "/link/hello")) == (400, "INVALID_PARAMETER_VALUE")

    def test_says_what_may_not_be_written(self, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> None:
            raise PermissionError

        monkeypatch.setattr("pathlib.Path.replace", refuse)
        assert error(imported(client, "/hello")) == (403, "PERMISSION_DENIED")

    @pytest.mark.parametrize(
        ("language", "file", "header"),
        [("SQL", "hello.sql", "--"), ("SCALA", "hello.scala", "//"), ("R", "hello.r", "#")],
    )
    def test_keeps_other_languages(self, client: Client, root: Path, language: str, file: str, header: str) -> None:
        for _ in range(2):
            assert imported(client, "/hello", "1", language=language, overwrite=True).json() == {}
            assert (root / file).read_text() == f"{header} Databricks notebook source\n1"
        assert status(client, "/hello")["language"] == language

    def test_a_notebook_in_another_format_takes_the_place_of_the_first(self, client: Client, root: Path) -> None:
        imported(client, "/hello")
        assert error(imported(client, "/hello", "1", language="SQL")) == (400, "RESOURCE_ALREADY_EXISTS")
        imported(client, "/hello", '{"cells": []}', format="JUPYTER", overwrite=True)
        assert [file.name for file in root.glob("hello*")] == ["hello.ipynb"]

    def test_does_not_replace_a_file_that_is_no_notebook_nor_a_folder(self, client: Client, root: Path) -> None:
        (root / "hello.py").write_text("import sys")
        assert error(imported(client, "/hello")) == (400, "RESOURCE_ALREADY_EXISTS")
        (root / "folder").mkdir()
        assert error(imported(client, "/folder", overwrite=True)) == (400, "RESOURCE_ALREADY_EXISTS")

    def test_keeps_files_as_they_are(self, client: Client, root: Path) -> None:
        (root / "raw.bin").touch(mode=0o600)
        imported(client, "/raw.bin", "\r\n\0", format="RAW", overwrite=True)
        assert (root / "raw.bin").read_bytes() == b"\r\n\0"
        assert (root / "raw.bin").stat().st_mode & 0o777 == 0o600
        imported(client, "/book.ipynb", '{"cells": []}', format="AUTO")
        assert status(client, "/book")["object_type"] == "NOTEBOOK"
        assert error(imported(client, "/other.ipynb", "[]", format="AUTO")) == (400, "INVALID_PARAMETER_VALUE")
        assert sorted(file.name for file in root.iterdir() if file.is_file()) == ["book.ipynb", "raw.bin"]

    def test_takes_forms(self, client: Client, root: Path) -> None:
        content = bytes(range(256)) + b"\r\n--\r\n\r\n"
        fields = {"path": "/data", "format": "AUTO", "overwrite": "true"}
        for _ in range(2):
            assert form(client, fields, {"content": content}).json() == {}
            assert (root / "data").read_bytes() == content

    @pytest.mark.parametrize(
        ("header", "body"),
        [
            ("multipart/form-data", b""),
            ("multipart/form-data; boundary=x", b""),
            ("multipart/form-data; boundary=x", b"--x\r\ncut"),
            (
                "multipart/form-data; boundary=x",
                b'--x\r\nContent-Disposition: form-data; name="path"\r\n\r\n\xff\r\n--x--',
            ),
        ],
    )
    def test_refuses_damaged_forms(self, client: Client, header: str, body: bytes) -> None:
        response = client.send("POST", "/api/2.0/workspace/import", data=body, headers={"Content-Type": header})
        assert error(response) == (400, "MALFORMED_REQUEST")

    def test_refuses_a_form_without_a_path(self, client: Client) -> None:
        assert error(form(client, {"format": "AUTO"}, {"content": b"1"})) == (400, "INVALID_PARAMETER_VALUE")

    def test_forms_may_be_larger_than_other_bodies(
        self, client: Client, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(routes, "MAX_BODY_BYTES", 1000)
        monkeypatch.setattr(routes, "MAX_FILE_BYTES", 2000)
        assert form(client, {"path": "/a", "format": "RAW"}, {"content": b"1" * 1500}).status_code == 200
        too_large = form(client, {"path": "/b", "format": "RAW"}, {"content": b"1" * 2000})
        assert error(too_large) == (400, "MALFORMED_REQUEST")
        assert "larger than 2000 bytes" in too_large.json()["message"]
        assert not (root / "b").exists()


class TestExport:
    def test_returns_what_is_stored(self, client: Client) -> None:
        imported(client, "/hello")
        source = f"# Databricks notebook source\n{CODE}".encode()
        shown = client.get("/api/2.0/workspace/export", path="/hello")
        assert shown == {"content": base64.b64encode(source).decode(), "file_type": "py"}
        reply = client.send("GET", "/api/2.0/workspace/export", params={"path": "/hello", "direct_download": "true"})
        assert reply.content == source

    def test_refuses_what_it_cannot_return(self, client: Client, root: Path) -> None:
        imported(client, "/hello")
        (root / "folder").mkdir()
        os.mkfifo(root / "pipe")
        for query in (
            {"path": "/hello", "format": "JUPYTER"}, {"path": "/hello", "format": "DBC"}, {"path": "/folder"},
            {"path": "/pipe"}, {"path": "hello"}, {},
        ):  # fmt: skip
            reply = client.send("GET", "/api/2.0/workspace/export", params=query)
            assert error(reply) == (400, "INVALID_PARAMETER_VALUE")
        with (root / "large").open("wb") as file:
            file.truncate(11 * 1024 * 1024)
        reply = client.send("GET", "/api/2.0/workspace/export", params={"path": "/large"})
        assert error(reply) == (400, "MAX_NOTEBOOK_SIZE_EXCEEDED")


class TestList:
    def test_shows_what_is_in_a_folder_and_nothing_else(self, client: Client, root: Path, tmp_path: Path) -> None:
        imported(client, "/hello")
        (root / "data").write_text("12345")
        (root / "folder").mkdir()
        (root / "outside").symlink_to(tmp_path)
        (root / "state").symlink_to(root / ".airflow_dbjobs")
        (root / "lost").symlink_to("nowhere")
        (root / "loop").symlink_to("loop")
        objects = client.get("/api/2.0/workspace/list", path="/")["objects"]
        assert [(item["path"], item["object_type"], item.get("size")) for item in objects] == [
            ("/data", "FILE", 5),
            ("/folder", "DIRECTORY", None),
            ("/hello", "NOTEBOOK", None),
        ]
        assert client.get("/api/2.0/workspace/list", path="/folder") == {}
        assert client.get("/api/2.0/workspace/list", path="/Workspace/hello")["objects"] == [objects[2]]
        later = objects[2]["modified_at"] + 1
        shown = client.get("/api/2.0/workspace/list", path="/", notebooks_modified_after=later)["objects"]
        assert shown == objects[:2]

    def test_ids_stay_with_their_paths(self, client: Client) -> None:
        imported(client, "/a")
        imported(client, "/b")
        before = {path: status(client, path)["object_id"] for path in ("/a", "/b")}
        imported(client, "/a", "2", overwrite=True)
        assert {path: status(client, path)["object_id"] for path in before} == before
        assert len({*before.values()}) == 2

    def test_says_what_does_not_exist(self, client: Client) -> None:
        for operation in ("list", "get-status", "export"):
            reply = client.send("GET", f"/api/2.0/workspace/{operation}", params={"path": "/nothing"})
            assert error(reply) == (404, "RESOURCE_DOES_NOT_EXIST")


class TestDelete:
    def test_removes_folders_with_content_only_if_asked_to(self, client: Client, root: Path) -> None:
        mkdirs(client, "/a/b")
        imported(client, "/a/b/hello")
        assert error(deleted(client, "/a")) == (400, "DIRECTORY_NOT_EMPTY")
        assert deleted(client, "/a/b/hello").json() == {}
        assert deleted(client, "/a/b").json() == {}
        imported(client, "/a/hello")
        assert deleted(client, "/a", recursive=True).json() == {}
        assert not (root / "a").exists()

    def test_of_a_link_keeps_what_it_leads_to(self, client: Client, root: Path) -> None:
        (root / "folder").mkdir()
        (root / "folder" / "file").touch()
        (root / "link").symlink_to("folder")
        assert deleted(client, "/link", recursive=True).json() == {}
        assert [(root / "folder" / "file").exists(), (root / "link").exists()] == [True, False]

    def test_refuses_the_root_and_what_is_outside(self, client: Client, root: Path, tmp_path: Path) -> None:
        (root / "link").symlink_to(tmp_path)
        for path in ("/", "/Workspace", "/..", "/link", "/.airflow_dbjobs", "/x/../.airflow_dbjobs/token"):
            assert error(deleted(client, path, recursive=True)) == (400, "INVALID_PARAMETER_VALUE")
        assert error(deleted(client, "/nothing")) == (404, "RESOURCE_DOES_NOT_EXIST")


class TestMkdirs:
    def test_creates_folders_once(self, client: Client, root: Path) -> None:
        for _ in range(2):
            assert mkdirs(client, "/a/b").json() == {}
        assert (root / "a" / "b").is_dir()

    def test_refuses_a_path_below_a_file(self, client: Client, root: Path) -> None:
        (root / "a").write_text("")
        for path in ("/a", "/a/b"):
            assert error(mkdirs(client, path)) == (400, "RESOURCE_ALREADY_EXISTS")


def test_other_methods_and_versions_do_not_exist(client: Client) -> None:
    for method, path in (("GET", "/api/2.0/workspace/import"), ("POST", "/api/2.1/workspace/mkdirs")):
        assert client.send(method, path).status_code == 404
