"""Notebooks: cells, magics, widgets, exit values."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .support import Client


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

    @pytest.mark.parametrize("magic", ["%sql", "%scala", "%sh", "%fs"])
    def test_unsupported_magic_fails(self, client: Client, notebook, magic: str) -> None:
        notebook("main", f"# MAGIC {magic}\n# MAGIC whatever 1")
        assert f"cannot run {magic} cells" in run_notebook(client, "/main")["error"]

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

    @pytest.mark.parametrize("call", ["jobs.taskValues.set('a', 1)", "fs.ls('/')", "secrets.get('a', 'b')"])
    def test_unsupported_part_fails_by_name(self, client: Client, notebook, call: str) -> None:
        notebook("main", f"dbutils.{call}")
        assert run_notebook(client, "/main")["error"].startswith(
            "NotSupportedError: the local workspace has no dbutils."
        )


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
