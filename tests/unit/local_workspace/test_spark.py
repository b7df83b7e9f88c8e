"""Spark in tasks: real servers of Sail (`make test-spark`), and what a workspace without an engine says."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from airflow_dbjobs.local_workspace import LocalWorkspace
from airflow_dbjobs.local_workspace.engine import spark_catalog, spark_server
from airflow_dbjobs.local_workspace.state.folder import WorkspaceError

from .conftest import mounted
from .support import TOKEN, Client, eventually, results

if TYPE_CHECKING:
    from .conftest import Run, Start


def python(path: str, **task: Any) -> dict[str, Any]:
    return {"task_key": path, "spark_python_task": {"python_file": f"/{path}.py"}, **task}


def server_pid(root: Path) -> int:
    """Return the process id of the Spark server of the workspace that serves `root`."""
    found = subprocess.run(
        ["pgrep", "-f", f"spark_process.py sail {root.resolve()}/"], check=False, capture_output=True, text=True
    )
    return int(found.stdout or 0)


class TestWithoutEngine:
    def test_using_spark_fails_with_what_to_install(self, client: Client, notebook) -> None:
        notebook("n", "print('before')\nspark.sql('SELECT 1')")
        run = client.finish(notebook_task={"notebook_path": "/n"})
        output = client.output(run)
        assert run["state"]["result_state"] == "FAILED"
        assert "pip install 'airflow-dbjobs[spark]'" in output["error"]

    def test_sql_task_needs_spark_and_a_file(self, client: Client, write) -> None:
        write("q.sql", "SELECT 1")
        state = client.finish(sql_task={"warehouse_id": "w", "file": {"path": "/q.sql"}})["state"]
        assert state["life_cycle_state"] == "INTERNAL_ERROR"
        assert state["state_message"].startswith("A sql_task needs Spark, and this local workspace has no Spark")
        for other in ({"query": {"query_id": "q"}}, {"file": {}}):
            state = client.finish(sql_task={"warehouse_id": "w", **other})["state"]
            assert state["life_cycle_state"] == "INTERNAL_ERROR"
            assert "with a file only" in state["state_message"]

    def test_an_engine_that_is_not_installed_is_refused(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(spark_server.importlib.util, "find_spec", lambda _: None)
        with pytest.raises(WorkspaceError, match=r"pip install 'airflow-dbjobs\[spark\]'"):
            LocalWorkspace(root, token=TOKEN, spark="sail")
        with pytest.raises(WorkspaceError, match="Java 17"):
            LocalWorkspace(root, token=TOKEN, spark="pyspark")

    def test_a_name_that_no_catalog_can_have_is_refused(self, root: Path) -> None:
        with pytest.raises(WorkspaceError, match="'a-b' cannot be the name of a catalog"):
            LocalWorkspace(root, token=TOKEN, spark="auto", spark_catalogs=["dev", "a-b"])

    def test_auto_is_none_where_nothing_is_installed(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(spark_server.importlib.util, "find_spec", lambda _: None)
        workspace = LocalWorkspace(root, token=TOKEN, spark="auto")
        assert workspace.spark_label == ""
        workspace.close()


class TestUseStatements:
    @pytest.mark.parametrize(
        ("statement", "translated"),
        [
            ("use sales", ["USE SCHEMA `sales`"]),
            (" USE main.`sales` ; ", ["USE CATALOG `main`", "USE SCHEMA `sales`"]),
            ("USE DATABASE main.sales", ["USE CATALOG `main`", "USE SCHEMA `sales`"]),
            ("USE IDENTIFIER( 'sales' )", ["USE SCHEMA `sales`"]),
            ("use catalog 'main'", ["USE CATALOG `main`"]),
            ("USE SCHEMA sales", ["USE SCHEMA `sales`"]),
            ("SELECT 'use x'", []),
            ("USE a b", []),
        ],
    )
    def test_are_translated_to_what_sail_takes(self, statement: str, translated: list[str]) -> None:
        assert spark_catalog.use_statements(statement) == translated


class TestStart:
    @pytest.fixture
    def launched(self, monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
        """Return the servers that were launched, which are none."""
        processes: list[subprocess.Popen[bytes]] = []

        def launch(*_: object) -> subprocess.Popen[bytes]:
            command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
            processes.append(subprocess.Popen(command, stdin=subprocess.PIPE))
            return processes[-1]

        monkeypatch.setattr(spark_server, "_is_installed", lambda _: True)
        monkeypatch.setattr(spark_server.SparkServer, "_launch", launch)
        return processes

    def test_waits_for_a_program_that_connects(self, root: Path, launched: list[subprocess.Popen[bytes]]) -> None:
        server = spark_server.SparkServer(root / "spark", "sail")
        address = "127.0.0.1", urlsplit(server.environment()["SPARK_REMOTE"]).port

        def connect(number: int) -> bool:
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(address):
                pass
            return len(launched) == number

        assert launched == []
        for number in (1, 2):
            eventually(functools.partial(connect, number))
            launched[-1].kill()
        server.close()

    def test_of_no_program_is_none(self, root: Path, launched: list[subprocess.Popen[bytes]]) -> None:
        server = spark_server.SparkServer(root / "spark", "sail")
        server.environment()
        server.close()
        assert launched == []

    def test_has_another_port_if_the_last_is_taken(self, root: Path, launched: list[subprocess.Popen[bytes]]) -> None:
        server = spark_server.SparkServer(root / "spark", "sail")
        before = server.environment()["SPARK_REMOTE"]
        assert server.environment()["SPARK_REMOTE"] == before
        server.close()
        with socket.create_server(("127.0.0.1", urlsplit(before).port)):
            server = spark_server.SparkServer(root / "spark", "sail")
            assert server.environment()["SPARK_REMOTE"] != before
            server.close()


@pytest.mark.spark
class TestSail:
    def test_unknown_catalog_is_refused(self, root: Path, output_of: Run) -> None:
        code = """
            errors = []
            for statement in ("CREATE SCHEMA IF NOT EXISTS prod.sales", "USE CATALOG prod", "USE prod.sales"):
                try:
                    spark.sql(statement)
                except Exception as error:
                    errors.append("Start it with --spark-catalogs prod." in str(error))
            dbutils.notebook.exit(str(errors))
            """
        with LocalWorkspace(root, token=TOKEN, spark="sail", spark_catalogs=["dev"]) as workspace:
            client = mounted(workspace)
            assert output_of(client, code) == "[True, True, True]"
            assert output_of(client, code.replace("prod", "dev")) == "[]"

    def test_notebook_uses_dataframes_sql_and_functions(self, spark_client: Client, output_of: Run) -> None:
        value = output_of(
            spark_client,
            """
            from pyspark.sql import functions as F

            @F.udf("long")
            def plus_one(x):
                return x + 1

            spark.range(4).withColumn("even", F.col("id") % 2 == 0).createOrReplaceTempView("numbers")
            row = spark.sql("SELECT sum(id) AS total FROM numbers WHERE even").first()
            dbutils.notebook.exit(f"{row.total} {[r[0] for r in spark.range(3).select(plus_one('id')).collect()]}")
            """,
        )
        assert value == "2 [1, 2, 3]"

    def test_sql_file_gets_parameters_and_shows_results(self, root: Path, write, start: Start) -> None:
        write(
            "q.sql",
            """
            -- Two ways; to name a parameter
            CREATE TABLE sold AS SELECT :region AS region, 'this; that' AS note;
            SELECT * FROM sold WHERE region = {{ region }};
            """,
        )
        _, client = start("--spark", "sail")
        task = {"warehouse_id": "w", "file": {"path": "/q.sql"}, "parameters": {"region": "l'Oréal"}}
        run = client.finish(sql_task=task)
        page = client.session.get(run["run_page_url"]).text
        assert run["state"]["result_state"] == "SUCCESS", page
        assert client.output(run)["sql_output"]["query_output"]["warehouse_id"] == "w"
        assert "| l&#x27;Oréal | this; that |" in page
        write("q.sql", "SELECT 1;\nSELECT missing_column;\nCREATE TABLE never AS SELECT 1")
        run = client.finish(sql_task=task)
        assert run["state"]["result_state"] == "FAILED"
        assert "missing_column" in client.output(run)["error"]

    def test_paths_of_dbfs_and_volumes_are_below_the_root(
        self, root: Path, spark_client: Client, output_of: Run
    ) -> None:
        value = output_of(
            spark_client,
            """
            dbutils.fs.put("dbfs:/in.csv", "a\\n1\\n2\\n")
            rows = spark.read.csv("dbfs:/in.csv", header=True)
            rows.write.parquet("/Volumes/main/default/files/out")
            rows.write.format("delta").option("path", "dbfs:/tables/t").saveAsTable("external")
            counts = [
                spark.read.format("parquet").load("/Volumes/main/default/files/out").count(),
                spark.sql("SELECT * FROM delta.`dbfs:/tables/t` WHERE a <> '/dbfs/x'").count(),
            ]
            try:
                spark.read.csv("dbfs:/../../x").count()
            except Exception as error:
                counts.append("outside the root folder" in str(error))
            dbutils.notebook.exit(str(counts))
            """,
        )
        assert value == "[2, 2, True]"
        assert list((root / "Volumes/main/default/files/out").glob("*.parquet"))
        assert (root / "dbfs/tables/t/_delta_log").is_dir()

    def test_page_and_announcement_say_what_runs_it(self, root: Path, write, start: Start) -> None:
        write("f.py", "print(1)")
        _, client = start("--spark", "sail", announced=["Spark: Sail 0.7"])
        run = client.finish(spark_python_task={"python_file": "/f.py"})
        assert "not Apache Spark" in client.session.get(run["run_page_url"]).text

    def test_tasks_share_tables_and_not_temporary_views(self, spark_client: Client, write) -> None:
        begin = "from pyspark.sql import SparkSession\nspark = SparkSession.builder.getOrCreate()\n"
        write(
            "save.py",
            begin + "spark.range(3).write.saveAsTable('saved')\nspark.range(9).createOrReplaceTempView('mine')\n"
            "spark.sql('CREATE SCHEMA main.sales')\n"
            "parts = spark.range(2).selectExpr('id', 'id AS part').write.format('parquet').partitionBy('part')\n"
            "parts.saveAsTable('main.sales.parts')\n"
            "spark.sql('CREATE VIEW twice AS SELECT id * 2 AS id FROM saved')\n",
        )
        write(
            "read.py",
            begin + "print(spark.table('saved').count(), spark.table('main.sales.parts').count(), end=' ')\n"
            "print(spark.sql('SELECT max(id) FROM twice').first()[0], spark.catalog.tableExists('mine'))\n"
            "spark.sql('UPDATE saved SET id = 7 WHERE id = 0')\nspark.sql('DROP TABLE main.sales.parts')\n",
        )
        write(
            "late.py",
            begin + "print(spark.sql('SELECT max(id) FROM saved').first()[0], end=' ')\n"
            "print(spark.catalog.tableExists('main.sales.parts'))\n"
            "spark.sql('USE main.sales')\nprint(spark.sql('SELECT current_schema()').first()[0])",
        )
        chain = [python("save"), python("read", depends_on=[{"task_key": "save"}])]
        run = spark_client.finish(tasks=[*chain, python("late", depends_on=[{"task_key": "read"}])])
        assert results(run) == dict.fromkeys(["save", "read", "late"], "SUCCESS"), [
            spark_client.output(run, key).get("error_trace") for key in ("save", "read", "late")
        ]
        assert spark_client.output(run, "read")["logs"].endswith("3 2 4 False\n")
        assert spark_client.output(run, "late")["logs"].endswith("7 False\nsales\n")

    def test_two_tasks_at_once_do_not_disturb_each_other(self, spark_client: Client, write) -> None:
        for name in ("one", "two"):
            write(
                f"{name}.py",
                f"""
                import pathlib, time
                from pyspark.sql import SparkSession
                spark = SparkSession.builder.getOrCreate()
                spark.sql("SELECT '{name}' AS name").createOrReplaceTempView("view")
                pathlib.Path("{name}").touch()
                while not (pathlib.Path("one").exists() and pathlib.Path("two").exists()): time.sleep(.01)
                spark.table("view").write.saveAsTable("from_{name}")
                print(spark.table("view").first().name, spark.table("from_{name}").first().name)
                """,
            )
        run = spark_client.finish(tasks=[python("one"), python("two")])
        assert spark_client.output(run, "one")["logs"].endswith("one one\n")
        assert spark_client.output(run, "two")["logs"].endswith("two two\n")

    def test_tables_survive_a_restart_of_the_workspace(self, root: Path, output_of: Run) -> None:
        with LocalWorkspace(root, token=TOKEN, spark="sail") as first:
            output_of(mounted(first), "spark.range(5).write.saveAsTable('main.default.kept')")
        with LocalWorkspace(root, token=TOKEN, spark="sail") as second:
            count = "dbutils.notebook.exit(str(spark.table('main.default.kept').count()))"
            assert output_of(mounted(second), count) == "5"

    def test_a_killed_server_is_started_again(self, root: Path, spark_client: Client, output_of: Run) -> None:
        output_of(spark_client, "spark.range(5).write.saveAsTable('kept')")
        os.kill(server_pid(root), signal.SIGKILL)
        assert output_of(spark_client, "dbutils.notebook.exit(str(spark.table('kept').count()))") == "5"

    def test_no_server_outlives_a_killed_workspace(self, root: Path, start: Start, write) -> None:
        write("without.py", "print(1)")
        write("with.py", "from databricks.sdk.runtime import spark; spark.sql('SELECT 1').collect()")
        server, client = start("--spark", "sail")
        client.finish(spark_python_task={"python_file": "/without.py"})
        assert not server_pid(root)
        client.finish(spark_python_task={"python_file": "/with.py"})
        pid = server_pid(root)
        assert pid
        server.kill()
        eventually(lambda: not server_pid(root), "the end of the Spark server")

    def test_a_program_that_outlives_its_server_learns_that_its_session_is_lost(
        self,
        start: Start,
        write,
    ) -> None:
        write(
            "f.py",
            """
            import pathlib, time
            from pyspark.sql import SparkSession
            spark = SparkSession.builder.getOrCreate()
            spark.range(3).createOrReplaceTempView("view")
            pathlib.Path("begun").touch()
            while not pathlib.Path("go").exists(): time.sleep(.01)
            spark.table("view").count()
            """,
        )
        server, client = start("--spark", "sail")
        run_id = client.submit(spark_python_task={"python_file": "/f.py"})
        folder = Path(server.args[server.args.index("--root") + 1])
        eventually((folder / "begun").exists)
        server.kill()
        server.wait()
        _, client = start("--spark", "sail")
        (folder / "go").touch()
        run = client.wait_for(run_id)
        assert run["state"]["result_state"] == "FAILED"
        assert "has been restarted" in client.output(run)["error_trace"]
