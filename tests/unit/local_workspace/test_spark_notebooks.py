"""What notebooks do with Spark, on real servers of Sail (`make test-spark`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .support import documented

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Run
    from .support import Client

pytestmark = pytest.mark.spark


@pytest.fixture
def log_of(root: Path, output_of: Run, spark_client: Client):
    """Return a function that runs a notebook, and returns its log without the warnings of libraries."""

    def run(code: str) -> str:
        output_of(spark_client, code)
        (log,) = (root / ".airflow_dbjobs" / "runs").glob("*/log.txt")
        return log.read_text().rpartition("require_minimum_pandas_version()\n")[2]

    return run


TABLE = "+----+---+\n| id | n |\n+----+---+\n| 1  | a |\n+----+---+\n"


class TestDisplay:
    def test_of_dataframes_as_function_and_as_method(self, log_of) -> None:
        log = log_of("""
            df = spark.createDataFrame([(1, "a")], "id int, n string")
            display(df)
            df.display()
            display(df.toPandas())
            """)
        assert log == TABLE * 3

    def test_is_cut_after_a_hundred_rows(self, log_of) -> None:
        assert log_of("display(spark.range(101))").endswith("| 99 |\n+----+\n(the first 100 rows)\n")


class TestSql:
    def test_cells_have_parameters_and_leave_a_dataframe(self, log_of) -> None:
        log = log_of("""
            # MAGIC %sql
            # MAGIC -- one cell; three statements
            # MAGIC CREATE WIDGET TEXT name DEFAULT 'a';
            # MAGIC CREATE SCHEMA IF NOT EXISTS bronze; USE bronze;
            # MAGIC SELECT 1 AS id, :name AS n, '${name}' = 'a' AS same
            # COMMAND ----------
            _sqldf.drop("same").display()
            # COMMAND ----------
            spark.catalog.currentDatabase()
            """)
        assert log.endswith(TABLE + "'bronze'\n")

    def test_error_names_the_cell(self, spark_client: Client, notebook) -> None:
        notebook("main", "x = 1\n# COMMAND ----------\n# MAGIC %sql select * from nowhere")
        run = spark_client.finish(notebook_task={"notebook_path": "/main"})
        trace = spark_client.output(run)["error_trace"]
        assert "main.py, line 4: select * from nowhere" in trace


class TestDocumentation:
    def test_example_runs(self, spark_client: Client, output_of: Run) -> None:
        code = documented("# report.py").removeprefix("# Databricks notebook source\n")
        assert output_of(spark_client, code) == "42"


class TestPaths:
    def test_of_dbfs_and_volumes_are_found_by_spark(self, log_of, root: Path) -> None:
        log = log_of("""
            dbutils.fs.put("/Volumes/c/s/v/in/a.csv", "id,n\\n1,a\\n", True)
            spark.read.csv("/Volumes/c/s/v/in/", header=True).write.parquet("dbfs:/mnt/out")
            spark.read.csv("/Volumes/c/s/v/in/*.csv", header=True).write.option("path", "/mnt/t").saveAsTable("t")
            # COMMAND ----------
            # MAGIC %sql
            # MAGIC CREATE TABLE u (id int) LOCATION '/mnt/u';
            # MAGIC INSERT INTO u VALUES (1);
            # MAGIC SELECT u.id, p.n FROM u JOIN parquet.`/mnt/out` p ON p.id = u.id JOIN t ON t.id = u.id
            """)
        assert log.endswith(TABLE)
        assert {path.name for path in (root / "dbfs/mnt").iterdir()} == {"out", "t", "u"}


class TestFunctions:
    def test_that_need_a_session_find_one(self, spark_client: Client, output_of: Run) -> None:
        code = """
            from pyspark.sql.functions import pandas_udf
            @pandas_udf("long")
            def more(x):
                return x + 1
            @udf("string")
            def text(x):
                return str(x)
            rows = spark.range(2).select(more("id").alias("m"), text("id").alias("t")).collect()
            dbutils.notebook.exit([tuple(row) for row in rows])
            """
        assert output_of(spark_client, code) == "[(1, '0'), (2, '1')]"
