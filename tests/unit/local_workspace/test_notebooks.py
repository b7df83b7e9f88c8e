"""Notebooks: cells, magics, widgets, exit values."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from .support import documented

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .support import Client


@pytest.fixture
def log_of(root: Path) -> Callable[[], str]:
    """Return a function that reads the log of the only task run."""

    def read() -> str:
        (log,) = (root / ".airflow_dbjobs" / "runs").glob("*/log.txt")
        return log.read_text()

    return read


def run_notebook(client: Client, path: str, **base_parameters: str) -> dict:
    run = client.finish(notebook_task={"notebook_path": path, "base_parameters": base_parameters})
    return client.output(run)


class TestExitValue:
    def test_is_returned_and_ends_the_notebook(self, client: Client, notebook) -> None:
        notebook(
            "demo/hello",
            """
            dbutils.widgets.text("name", "nobody")
            # COMMAND ----------
            try:
                dbutils.notebook.exit("hello " + dbutils.widgets.get("name"))
            except Exception:
                pass
            # COMMAND ----------
            raise RuntimeError("not reached")
            """,
        )
        assert run_notebook(client, "/demo/hello")["notebook_output"] == {"result": "hello nobody", "truncated": False}
        output = run_notebook(client, "/demo/hello.py", name="Ada")
        assert output["notebook_output"]["result"] == "hello Ada"
        assert "error" not in output
        assert "logs" not in output

    def test_is_absent_if_not_set(self, client: Client, notebook) -> None:
        notebook("quiet", "display('x')")
        assert run_notebook(client, "/quiet")["notebook_output"] == {"truncated": False}

    def test_is_truncated_to_5_mb(self, client: Client, notebook) -> None:
        notebook("long", "dbutils.notebook.exit('x' * 6 * 1024 * 1024)")
        output = run_notebook(client, "/long")["notebook_output"]
        assert len(output["result"]) == 5 * 1024 * 1024
        assert output["truncated"] is True


class TestCells:
    def test_magics(self, client: Client, notebook) -> None:
        notebook("my lib/tools", "def double(x):\n    return 2 * x")
        notebook(
            "main",
            """
            # MAGIC %md
            # MAGIC # A title, not code
            # COMMAND ----------
            # MAGIC %pip install nothing
            # COMMAND ----------
            # MAGIC %run "./my lib/tools"
            # COMMAND ----------
            # MAGIC %python
            # MAGIC value = double(4)
            # COMMAND ----------
            # DBTITLE 1,The end
            dbutils.notebook.exit(value)
            """,
        )
        assert run_notebook(client, "/main")["notebook_output"]["result"] == "8"

    @pytest.mark.parametrize("magic", ["%scala", "%r", "%html"])
    def test_unsupported_magic_fails(self, client: Client, notebook, magic: str) -> None:
        notebook("main", f"# MAGIC {magic}\n# MAGIC whatever 1")
        assert f"cannot run {magic} cells" in run_notebook(client, "/main")["error"]

    def test_run_takes_arguments(self, client: Client, notebook) -> None:
        notebook("lib", "dbutils.widgets.text('env', 'dev')\nenv = dbutils.widgets.get('env')")
        notebook(
            "main", '# MAGIC %run ./lib $env="the test"\ndbutils.notebook.exit(env + str(dbutils.widgets.getAll()))'
        )
        assert run_notebook(client, "/main", env="x")["notebook_output"]["result"] == "the test{'env': 'x'}"

    def test_an_error_of_grpc_is_named_by_its_message(self, client: Client, notebook) -> None:
        text = '<_Rendezvous of RPC that terminated with:\\n\\tstatus = 9\\n\\tdetails = "no session"\\n>'
        notebook("main", f"raise RuntimeError('{text}')")
        assert run_notebook(client, "/main")["error"] == "RuntimeError: no session"

    def test_run_of_a_running_notebook_fails(self, client: Client, notebook) -> None:
        notebook("main", "# MAGIC %run ./lib\n# COMMAND ----------\n# MAGIC %run ./lib")
        notebook("lib", "# MAGIC %run ./main")
        assert "%run ./main in lib.py: that notebook is already running" in run_notebook(client, "/main")["error"]
        notebook("lib", "n = 1")
        assert "error" not in run_notebook(client, "/main")

    def test_output_of_cells_is_logged(self, client: Client, notebook, log_of) -> None:
        notebook(
            "main",
            """
            dbutils.fs.put("/tmp/a.txt", "1,2", True)
            # COMMAND ----------
            # MAGIC %fs head --maxBytes=1 /tmp/a.txt
            # COMMAND ----------
            # MAGIC %sh
            # MAGIC for n in 1 2; do echo $n; done
            # MAGIC exit 3
            # COMMAND ----------
            # MAGIC %fs rm -r /tmp
            # COMMAND ----------
            None
            # COMMAND ----------
            "not shown";
            # COMMAND ----------
            "a" + "b"
            """,
        )
        client.finish(notebook_task={"notebook_path": "/main"})
        assert log_of() == "Wrote 3 bytes.\nTrue\n1\n1\n2\nThe shell ended with code 3.\nTrue\n'ab'\n"

    def test_sql_needs_spark(self, client: Client, notebook) -> None:
        notebook("main", "# MAGIC %sql\n# MAGIC select 1;")
        output = run_notebook(client, "/main")
        assert output["error"].startswith("NoSparkError: this local workspace has no Spark")
        assert "main.py, line 2: select 1" in output["error_trace"]

    def test_error_has_the_line_of_the_file(self, client: Client, notebook) -> None:
        notebook("main", "x = 1\n# COMMAND ----------\n\nx / 0")
        output = run_notebook(client, "/main")
        assert output["error"] == "ZeroDivisionError: division by zero"
        assert 'main.py", line 5, in <module>\n    x / 0' in output["error_trace"]

    def test_jupyter_notebook(self, client: Client, write) -> None:
        cells = [
            {"cell_type": "markdown", "source": ["# Title"]},
            {"cell_type": "code", "source": ["%pip install x\n", "a = 7\n", "b = (a\n", "% 4)"]},
            {"cell_type": "code", "source": "dbutils.notebook.exit(b)"},
        ]
        write("main.ipynb", json.dumps({"cells": cells, "nbformat": 4}))
        assert run_notebook(client, "/main")["notebook_output"]["result"] == "3"

    def test_error_has_the_line_of_the_jupyter_cell(self, client: Client, write) -> None:
        write("main.ipynb", json.dumps({"cells": [{"cell_type": "code", "source": "a = 1\nboom(a)"}]}))
        trace = run_notebook(client, "/main")["error_trace"]
        assert 'main.ipynb cell 1", line 2' in trace
        assert "boom(a)" in trace


class TestDbutils:
    def test_widgets(self, client: Client, notebook) -> None:
        notebook(
            "main",
            """
            w = dbutils.widgets
            w.dropdown("a", "1", ["1", "2"]); w.combobox("b", "2", []); w.multiselect("c", "3", ["3"])
            w.text("d", "4", "label")
            seen = [w.getAll(), w.get("a"), w.getArgument("zz", "default"), getArgument("given")]
            w.remove("a"); seen.append(sorted(w.getAll()))
            w.removeAll(); seen.append(w.getAll())
            import json; dbutils.notebook.exit(json.dumps(seen))
            """,
        )
        seen = json.loads(run_notebook(client, "/main", given="g", d="5")["notebook_output"]["result"])
        assert seen == [
            {"a": "1", "b": "2", "c": "3", "d": "5", "given": "g"},
            "1",
            "default",
            "g",
            ["b", "c", "d", "given"],
            {},
        ]

    def test_unknown_widget_fails(self, client: Client, notebook) -> None:
        notebook("main", "dbutils.widgets.get('nope')")
        output = run_notebook(client, "/main")
        assert output["error"].startswith("InputWidgetNotDefinedError: there is no widget 'nope'")
        assert "bootstrap" not in output["error_trace"]

    def test_runs_another_notebook_in_its_own_process(self, client: Client, notebook) -> None:
        notebook("child", "x = 'child'\ndbutils.notebook.exit(dbutils.widgets.get('n') + x)")
        notebook("main", "x = 'main'\nr = dbutils.notebook.run('./child', 60, {'n': 1})\ndbutils.notebook.exit(r + x)")
        assert run_notebook(client, "/main")["notebook_output"]["result"] == "1childmain"

    @pytest.mark.parametrize(
        ("child", "timeout", "error"),
        [
            ("1 / 0", 0, "./child failed: ZeroDivisionError"),
            ("import time; time.sleep(60)", 0.3, "./child did not end within"),
        ],
    )
    def test_notebook_run_fails_or_times_out(
        self, client: Client, notebook, child: str, timeout: float, error: str
    ) -> None:
        notebook("child", child)
        notebook("main", f"dbutils.notebook.run('./child', {timeout})")
        assert error in run_notebook(client, "/main")["error"]

    def test_a_notebook_that_runs_itself_comes_to_an_end(self, client: Client, notebook) -> None:
        notebook("main", "dbutils.notebook.run('./main')")
        assert "20 notebooks wait for each other" in run_notebook(client, "/main")["error"]

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            ("dbutils.credentials.assumeRole('x')", "no dbutils.credentials"),
            ("sc.parallelize([])", "no sc.parallelize: "),
        ],
    )
    def test_unsupported_part_fails_by_name(self, client: Client, notebook, call: str, message: str) -> None:
        notebook("main", call)
        assert run_notebook(client, "/main")["error"].startswith(
            f"NotSupportedError: the local workspace has {message}"
        )

    def test_values_reach_later_tasks(self, client: Client, notebook) -> None:
        notebook("load", "dbutils.jobs.taskValues.set('rows', [1, 2])")
        notebook("report", "dbutils.notebook.exit(dbutils.jobs.taskValues.get('load', 'rows', debugValue=0))")
        load = {"task_key": "load", "notebook_task": {"notebook_path": "/load"}}
        report = {
            "task_key": "report",
            "notebook_task": {"notebook_path": "/report"},
            "depends_on": [{"task_key": "load"}],
        }
        run = client.finish(tasks=[load, report])
        assert client.output(run, "report")["notebook_output"]["result"] == "[1, 2]"

    def test_knows_its_run(self, client: Client, notebook) -> None:
        notebook("etl/main", "dbutils.notebook.exit(dbutils.notebook.getContext().toJson())")
        run = client.finish(notebook_task={"notebook_path": "/etl/main"})
        context = json.loads(client.output(run)["notebook_output"]["result"])
        assert context["extraContext"]["notebook_path"] == "/etl/main"
        assert context["tags"]["multitaskParentRunId"] == str(run["run_id"])
        assert context["currentRunId"]["id"] == run["tasks"][-1]["run_id"]


class TestModules:
    CODE = """
        import json, sys
        from databricks.sdk.runtime import dbutils, display, getArgument, spark
        import databricks.sdk.runtime as runtime
        from databricks.connect import DatabricksSession
        dbutils.fs.mkdirs("/x")
        print([item.name for item in runtime.dbutils.fs.ls("/")], type(spark).__name__)
        try:
            DatabricksSession.builder.serverless().getOrCreate()
        except NotImplementedError as error:
            print(type(error).__name__)
        """

    def test_of_the_runtime_work_in_a_python_file(self, client: Client, write) -> None:
        write("file.py", self.CODE)
        run = client.finish(spark_python_task={"python_file": "/file.py"})
        assert client.output(run)["logs"] == "['x/'] LazySession\nNoSparkError\n"

    def test_of_the_runtime_are_those_of_the_notebook(self, client: Client, notebook) -> None:
        notebook("main", "import databricks.sdk.runtime as r\ndbutils.notebook.exit(r.dbutils is dbutils)")
        assert run_notebook(client, "/main")["notebook_output"]["result"] == "True"

    @pytest.mark.parametrize("module", ["delta", "delta.tables"])
    @pytest.mark.parametrize("use", ["DeltaTable.forName(spark, 'x')", "DeltaTable(spark)"])
    def test_of_delta_say_what_to_use_instead(self, client: Client, notebook, module: str, use: str) -> None:
        notebook("main", f"from {module} import *\n{use}")
        error = run_notebook(client, "/main")["error"]
        assert error.startswith("NotSupportedError: the local workspace has no DeltaTable")
        assert "it needs Java; MERGE INTO" in error


class TestFiles:
    def test_of_databricks_are_found_by_pythons_functions(self, client: Client, notebook, root: Path) -> None:
        notebook(
            "main",
            """
            import glob, os, pathlib, shutil
            dbutils.fs.put("/Volumes/c/s/v/x.csv", "1,2")
            with open("/dbfs/y.csv", "w") as file:
                file.write(open("/Volumes/c/s/v/x.csv").read())
            pathlib.Path("/Volumes/c/s/v/new").mkdir()
            os.makedirs("/dbfs/a/b")
            shutil.copy("/dbfs/y.csv", "/dbfs/a/b")
            found = glob.glob("/dbfs/**/*.csv", recursive=True)
            shutil.rmtree("/dbfs/a")
            exist = os.path.isdir("/Volumes/c/s/v/new"), os.path.exists("/dbfs/a")
            dbutils.notebook.exit([found, sorted(os.listdir("/dbfs")), exist])
            """,
        )
        result = run_notebook(client, "/main")["notebook_output"]["result"]
        assert result == "[['/dbfs/y.csv', '/dbfs/a/b/y.csv'], ['.gitignore', 'y.csv'], (True, False)]"
        assert (root / "dbfs/y.csv").read_text() == "1,2"

    def test_that_are_missing_are_named_by_their_place(self, client: Client, notebook, root: Path) -> None:
        notebook("main", "open('/Workspace/x/y.csv')")
        assert run_notebook(client, "/main")["error"].endswith(f"No such file or directory: '{root}/x/y.csv'")

    def test_outside_of_the_root_are_refused(self, client: Client, notebook) -> None:
        notebook("main", "open('/dbfs/../../secret')")
        assert "is outside the root folder" in run_notebook(client, "/main")["error"]

    @pytest.mark.parametrize(
        "call",
        [
            "shutil.rmtree('/Workspace/')",
            "shutil.rmtree(b'.')",
            "os.rename('/Workspace', '../elsewhere')",
            "pathlib.Path('.').rename('../elsewhere')",
        ],
    )
    def test_the_root_stays(self, client: Client, notebook, root: Path, call: str) -> None:
        notebook("main", f"import os, pathlib, shutil; {call}")
        error = run_notebook(client, "/main")["error"]
        assert error.startswith("PermissionError: ")
        assert error.endswith(f"stays: the root folder of the local workspace is {root}")


class TestDocumentation:
    def test_example_logs_what_the_page_shows(self, client: Client, write, log_of) -> None:
        for file in ("load.py", "secrets.toml"):
            write(file, documented(f"# {file}"))
        assert run_notebook(client, "/load")["notebook_output"]["result"] == "2 rows"
        assert log_of().partition("\n")[2] == documented("Wrote 21 bytes.")


class TestPath:
    @pytest.mark.parametrize("path", ["/missing", "/plain"])
    def test_other_file_is_an_internal_error(self, client: Client, write, path: str) -> None:
        write("plain.py", "print('not a notebook')")
        run = client.finish(notebook_task={"notebook_path": path})
        assert run["state"]["life_cycle_state"] == "INTERNAL_ERROR"
        assert repr(path) in run["state"]["state_message"]


class TestExport:
    def test_returns_the_version_that_ran(self, client: Client, notebook) -> None:
        notebook("demo/main", "print('<b>')")
        run = client.finish(notebook_task={"notebook_path": "/demo/main"})
        notebook("demo/main", "print('changed')")
        (view,) = client.get("runs/export", run_id=run["run_id"], version="2.0")["views"]
        assert view["name"] == "main"
        assert view["type"] == "NOTEBOOK"
        assert "&lt;b&gt;" in view["content"]
        assert client.get("runs/export", run_id=run["tasks"][0]["run_id"], views_to_export="DASHBOARDS") == {}

    def test_python_file_is_refused(self, client: Client, write) -> None:
        write("file.py", "")
        run = client.finish(spark_python_task={"python_file": "/file.py"})
        error = client.refused("GET", "runs/export", {"run_id": run["tasks"][0]["run_id"]})
        assert "only notebooks" in error["message"]
