"""The parts of dbutils that need neither Spark nor a process."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from airflow_dbjobs.local_workspace.engine.runtime.context import Context
from airflow_dbjobs.local_workspace.engine.runtime.dbutils import DBUtils
from airflow_dbjobs.local_workspace.engine.runtime.errors import NotSupportedError
from airflow_dbjobs.local_workspace.engine.runtime.files import FileInfo, FileSystem
from airflow_dbjobs.local_workspace.engine.runtime.paths import local_path
from airflow_dbjobs.local_workspace.engine.runtime.secrets import Secrets
from airflow_dbjobs.local_workspace.engine.runtime.spark_plans import complete_plans
from airflow_dbjobs.local_workspace.engine.runtime.sql import (
    changes_widgets,
    fill_in,
    split_statements,
    substitute,
)
from airflow_dbjobs.local_workspace.engine.runtime.task_values import TaskValues
from airflow_dbjobs.local_workspace.engine.runtime.widgets import Widgets
from airflow_dbjobs.local_workspace.state.paths import OutsideRootError

CIRCULAR: list[Any] = []
CIRCULAR.append(CIRCULAR)


@pytest.fixture
def fs(tmp_path: Path) -> FileSystem:
    return FileSystem(tmp_path)


class TestFiles:
    def test_put_and_head(self, fs: FileSystem, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert fs.put("/mnt/raw/a.txt", "hëllo")
        assert capsys.readouterr().out == "Wrote 6 bytes.\n"
        assert (tmp_path / "dbfs/mnt/raw/a.txt").read_text() == "hëllo"
        assert fs.head("dbfs:/mnt/raw/a.txt", 1) == "h"
        with pytest.raises(FileExistsError, match="overwrite=True"):
            fs.put("/mnt/raw/a.txt", "")

    def test_ls(self, fs: FileSystem) -> None:
        assert fs.ls("/") == []
        fs.put("/Volumes/c/s/v/b.txt", "xy")
        fs.mkdirs("/Volumes/c/s/v/a")
        folder, file = fs.ls("/Volumes/c/s/v/")
        assert isinstance(file, FileInfo)
        assert (file.path, file.name, file.size) == ("dbfs:/Volumes/c/s/v/b.txt", "b.txt", 2)
        assert (folder.path, folder.name, folder.size) == ("dbfs:/Volumes/c/s/v/a/", "a/", 0)
        assert (file.isFile(), file.isDir(), folder.isFile(), folder.isDir()) == (True, False, False, True)
        assert fs.ls("/Volumes/c/s/v/b.txt") == [file]

    def test_ls_leaves_out_links_that_lead_nowhere(self, fs: FileSystem, tmp_path: Path) -> None:
        fs.put("/a.txt", "")
        (tmp_path / "dbfs" / "link").symlink_to("missing")
        assert [item.name for item in fs.ls("/")] == ["a.txt"]

    def test_missing_path_is_named_as_notebooks_look_for_it(self, fs: FileSystem) -> None:
        with pytest.raises(FileNotFoundError, match=r"java\.io\.FileNotFoundException.* /no such"):
            fs.ls("/no such")

    def test_cp_and_mv(self, fs: FileSystem, tmp_path: Path) -> None:
        fs.put("/a/x.txt", "x")
        fs.cp("/a/x.txt", "/b/")
        fs.cp("/a/x.txt", "/b/y.txt")
        fs.cp("/b", "file:" + str(tmp_path / "c"), recurse=True)
        assert sorted(item.name for item in (tmp_path / "c").iterdir()) == ["x.txt", "y.txt"]
        fs.mv("/b", "/d", True)
        assert [item.name for item in fs.ls("/d")] == ["x.txt", "y.txt"]
        assert not (tmp_path / "dbfs/b").exists()
        with pytest.raises(OSError, match="recurse=True"):
            fs.cp("/a", "/e")

    def test_rm(self, fs: FileSystem, tmp_path: Path) -> None:
        fs.put("/a/b/x.txt", "x")
        with pytest.raises(OSError, match="recurse=True"):
            fs.rm("/a")
        assert fs.rm("/a/b/x.txt")
        assert not fs.rm("/a/b/x.txt")
        assert fs.rm("/a", True)
        assert not (tmp_path / "dbfs/a").exists()

    @pytest.mark.parametrize("path", ["/Workspace", "file:/Workspace/", "dbfs:/..", "root", "parent"])
    def test_rm_spares_the_workspace_itself(self, fs: FileSystem, tmp_path: Path, path: str) -> None:
        fs.put("/a/x.txt", "x")
        path = {"root": f"file:{tmp_path}", "parent": f"file:{tmp_path}/dbfs/../.."}.get(path, path)
        with pytest.raises(OSError, match="is not deleted: the root folder of the local workspace is"):
            fs.rm(path, True)
        assert fs.head("/a/x.txt") == "x"

    @pytest.mark.parametrize("dest", ["/a", "/a/b/c"])
    def test_mv_into_itself_changes_nothing(self, fs: FileSystem, dest: str) -> None:
        fs.put("/a/x.txt", "x")
        with pytest.raises(OSError, match="/a cannot be copied into itself: /a"):
            fs.mv("/a", dest, True)
        assert [item.name for item in fs.ls("/a")] == ["x.txt"]

    def test_mounts_are_folders(self, fs: FileSystem, capsys: pytest.CaptureFixture[str]) -> None:
        assert fs.mounts() == []
        fs.mount(source="wasbs://c@a.blob.core.windows.net", mount_point="/mnt/raw", extra_configs={"key": "secret"})
        assert [mount.mountPoint for mount in fs.mounts()] == ["/mnt/raw"]
        assert "does not mount wasbs://c@a.blob.core.windows.net" in capsys.readouterr().out
        assert fs.refreshMounts()
        fs.unmount("/mnt/raw")
        assert fs.mounts() == []

    def test_cloud_storage_is_out_of_reach(self, fs: FileSystem) -> None:
        with pytest.raises(NotSupportedError, match="no access to s3://bucket/x"):
            fs.ls("s3://bucket/x")

    def test_help_names_the_methods(self, fs: FileSystem, capsys: pytest.CaptureFixture[str]) -> None:
        fs.help()
        fs.help("rm")
        text = capsys.readouterr().out
        assert "mkdirs(dir: 'str') -> 'bool': Create a folder and those above it." in text
        assert text.count("rm(dir") == 2


class TestPlaces:
    @pytest.mark.parametrize(
        ("path", "place"),
        [
            ("/x", "dbfs/x"),
            ("x", "dbfs/x"),
            ("/Volumes/a/b/c", "Volumes/a/b/c"),
            ("/Workspace/x", "x"),
            ("/Workspace", ""),
            ("file:/Workspace/x", "x"),
            ("/mnt/x/*.csv", "dbfs/mnt/x/*.csv"),
        ],
    )
    def test_are_below_the_root(self, tmp_path: Path, path: str, place: str) -> None:
        assert local_path(tmp_path, path) == tmp_path / place

    def test_of_other_schemes(self, tmp_path: Path) -> None:
        assert local_path(tmp_path, "file:///etc/hosts") == Path("/etc/hosts")
        assert local_path(tmp_path, "abfss://a@b/x") is None

    def test_outside_the_root_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(OutsideRootError):
            local_path(tmp_path, "/../../x")


class TestPlans:
    @pytest.fixture
    def plans(self, tmp_path: Path) -> ModuleType:
        """Return a module with classes like those of Spark's plans, completed for a workspace."""
        module = ModuleType("plans")
        for name in ("DataSource", "WriteOperation", "CreateTable", "SQL"):
            send = dict.fromkeys(("plan", "command"), vars)
            setattr(module, name, type(name, (SimpleNamespace,), send))
        complete_plans(module, tmp_path)
        return module

    def test_have_paths_of_this_machine_however_often_they_are_sent(self, plans: Any, tmp_path: Path) -> None:
        source = plans.DataSource(_paths=["/mnt/x/", "s3://b/x"], _options={"Path": "/Volumes/a/b/c", "sep": "/"})
        for _ in range(2):
            assert source.plan() == {
                "_paths": [f"{tmp_path}/dbfs/mnt/x/", "s3://b/x"],
                "_options": {"Path": f"{tmp_path}/Volumes/a/b/c", "sep": "/"},
            }
        assert plans.WriteOperation(path="dbfs:/x").command() == {"path": f"{tmp_path}/dbfs/x"}
        assert plans.CreateTable(_path="/x").plan() == {"_path": f"{tmp_path}/dbfs/x"}

    @pytest.mark.parametrize(
        ("query", "sent"),
        [
            ("create table t (x int) location '/mnt/t'", "create table t (x int) location '{}/dbfs/mnt/t'"),
            ("SELECT '/mnt' FROM csv.`/mnt/a.csv`", "SELECT '/mnt' FROM csv.`{}/dbfs/mnt/a.csv`"),
            ("COPY INTO t FROM '/Volumes/a/b/c'", "COPY INTO t FROM '{}/Volumes/a/b/c'"),
            ("SELECT extract(year FROM '2026-11-30')", "SELECT extract(year FROM '2026-11-30')"),
        ],
    )
    def test_of_sql_have_them_too(self, plans: Any, tmp_path: Path, query: str, sent: str) -> None:
        assert plans.SQL(_query=query).plan() == {"_query": sent.format(tmp_path)}


class TestSecrets:
    @pytest.fixture
    def secrets(self, tmp_path: Path) -> Secrets:
        (tmp_path / "secrets.toml").write_text('[db]\nuser = "ada"\npassword = "pä"\n\n[mail]\n')
        return Secrets(tmp_path)

    def test_are_read_from_the_file(self, secrets: Secrets) -> None:
        assert secrets.get(scope="db", key="user") == "ada"
        assert secrets.getBytes("db", "password") == "pä".encode()
        assert [item.key for item in secrets.list("db")] == ["user", "password"]
        assert [scope.name for scope in secrets.listScopes()] == ["db", "mail"]

    @pytest.mark.parametrize(
        ("scope", "key", "message"),
        [("no", "x", r"add \[no\] to .*secrets.toml"), ("db", "x", "Secret does not exist with scope: db and key: x")],
    )
    def test_missing_ones_say_where_to_add_them(self, secrets: Secrets, scope: str, key: str, message: str) -> None:
        with pytest.raises(LookupError, match=message):
            secrets.get(scope, key)

    @pytest.mark.parametrize("text", ["[db", 'password = "x"', "[db]\npassword = 1"])
    def test_other_files_are_refused(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "secrets.toml").write_text(text)
        with pytest.raises(ValueError, match=r"secrets\.toml"):
            Secrets(tmp_path).listScopes()

    def test_a_file_that_is_no_text_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "secrets.toml").write_bytes(b"\xff")
        with pytest.raises(ValueError, match=r"^secrets\.toml is not text in UTF-8$"):
            Secrets(tmp_path).listScopes()

    def test_without_a_file_there_are_none(self, tmp_path: Path) -> None:
        assert Secrets(tmp_path).listScopes() == []


class TestTaskValues:
    def test_are_read_by_other_tasks(self, tmp_path: Path) -> None:
        own = TaskValues(tmp_path, "load", {})
        own.set("rows", {"n": [1, None]})
        own.set("more", 2)
        assert own.get("load", "more") == 2
        values = TaskValues(tmp_path / "other", "other", {"load": str(tmp_path)})
        assert values.get("load", "rows", debugValue=0) == {"n": [1, None]}
        assert values.get(taskKey="load", key="no", default=3) == 3
        assert values.get("no", "rows", 4) == 4

    @pytest.mark.parametrize(("task", "missing"), [("load", "value 'no' of task 'load'"), ("no", "task 'no'")])
    def test_missing_ones_fail(self, tmp_path: Path, task: str, missing: str) -> None:
        with pytest.raises(ValueError, match=missing):
            TaskValues(tmp_path, "load", {}).get(task, "no", debugValue=1)

    @pytest.mark.parametrize(
        ("value", "message"), [({1}, "as JSON"), (CIRCULAR, "'x' cannot"), ("x" * 50_000, "50002 bytes")]
    )
    def test_others_than_small_json_are_refused(self, tmp_path: Path, value: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            TaskValues(tmp_path, "load", {}).set("x", value)


class TestContext:
    @pytest.fixture
    def program(self, tmp_path: Path) -> dict[str, Any]:
        context = {
            "job_id": 7,
            "run_id": 9,
            "parent_run_id": 8,
            "task_key": "load",
            "user": "ada",
        }
        file = str(tmp_path / "etl/load.py")
        return {"root": str(tmp_path), "file": file, "widgets": {}, "task_folders": {}, "context": context}

    def test_is_reached_as_notebooks_do(self, tmp_path: Path, program: dict[str, Any]) -> None:
        dbutils = DBUtils(tmp_path, program)
        context = dbutils.notebook.entry_point.getDbutils().notebook().getContext()
        assert context.notebookPath().get() == "/etl/load"
        assert context.userName().get() == "ada"
        assert context.jobId().isDefined()
        assert context.tags().apply("multitaskParentRunId") == "8"
        assert context.browserHostName().getOrElse(None) is None
        assert json.loads(context.toJson())["currentRunId"] == {"id": 9}

    def test_of_a_wheel_has_no_path(self, program: dict[str, Any]) -> None:
        context = Context(program | {"file": None})
        assert not context.notebookPath().isDefined()
        assert json.loads(context.toJson())["extraContext"] == {"notebook_path": None}

    def test_does_not_invent_what_only_the_cloud_has(self, program: dict[str, Any]) -> None:
        with pytest.raises(NotSupportedError, match="'apiToken'"):
            Context(program).apiToken().get()


class TestSql:
    def test_statements_end_at_semicolons_outside_strings_and_comments(self) -> None:
        text = "select ';' -- ;\n; select `a;b` /* ; */;\n-- nothing\n;"
        assert split_statements(text) == ["select ';' -- ;", "select `a;b` /* ; */"]

    def test_parameters_are_those_that_are_marked(self) -> None:
        values = {"a": "1", "b": "2"}
        assert fill_in("select :a, ':b', x::b, :c, '12:b'", values) == "select '1', ':b', x::b, :c, '12:b'"
        assert substitute("select * from ${b}.$a where x = '${c}' and $d", values) == (
            "select * from 2.1 where x = '${c}' and $d"
        )

    def test_widgets_are_created_and_removed(self) -> None:
        widgets = Widgets({"given": "1"})
        assert changes_widgets("-- note\ncreate widget text day default '2026-11-30'", widgets)
        assert changes_widgets('CREATE WIDGET DROPDOWN given DEFAULT "x" CHOICES SELECT 1', widgets)
        assert widgets.getAll() == {"given": "1", "day": "2026-11-30"}
        assert changes_widgets("REMOVE WIDGET day", widgets)
        assert widgets.getAll() == {"given": "1"}
        assert not changes_widgets("create table widget (x int)", widgets)


class TestWidgets:
    def test_arguments_of_run_hold_for_a_while(self) -> None:
        widgets = Widgets({"a": "1"})
        with widgets.overridden({"a": "2", "b": "3"}):
            assert widgets.getAll() == {"a": "2", "b": "3"}
        assert widgets.get("a") == "1"
