"""The Workspace API: notebooks that are imported are files of the root folder, and run."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest

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
