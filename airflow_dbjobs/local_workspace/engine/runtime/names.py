"""The names that Databricks defines in notebooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_dbjobs.local_workspace.engine.spark_session import LazySession

from .display import display, displayHTML
from .errors import Missing

if TYPE_CHECKING:
    from .dbutils import DBUtils

_NO_CONTEXT = ": Spark Connect has no SparkContext and no RDDs; use DataFrames"


def provided_names(dbutils: DBUtils) -> dict[str, Any]:
    """Return the names that Databricks defines in notebooks."""
    spark = LazySession()

    def sql(*arguments: Any, **options: Any) -> Any:
        return spark.sql(*arguments, **options)

    def table(name: str) -> Any:
        return spark.table(name)

    def udf(*arguments: Any, **options: Any) -> Any:
        from pyspark.sql.functions import udf

        return udf(*arguments, **options)

    return {
        "dbutils": dbutils,
        "display": display,
        "displayHTML": displayHTML,
        "getArgument": dbutils.widgets.getArgument,
        "spark": spark,
        "sqlContext": spark,
        "sc": Missing("sc", _NO_CONTEXT),
        "sql": sql,
        "table": table,
        "udf": udf,
    }
