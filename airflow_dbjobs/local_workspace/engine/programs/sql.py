"""The program of a `sql_task`: the statements of a file, in the workspace's Spark."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from airflow_dbjobs.local_workspace.engine.runtime.display import display
from airflow_dbjobs.local_workspace.engine.runtime.sql import fill_in, literal, split_statements
from airflow_dbjobs.local_workspace.engine.spark_session import MISSING, LazySession
from airflow_dbjobs.local_workspace.engine.task_files import fail

_MUSTACHE = re.compile(r"\{\{\s*(\w+)\s*\}\}")


def run(program: dict[str, Any], folder: Path) -> None:
    """Run the statements in order, and print each with its result; stop at the first that fails."""
    if "SPARK_REMOTE" not in os.environ:
        fail(folder, "INVALID_RUN_CONFIGURATION", f"A sql_task needs Spark, and {MISSING}.")
    values = program["parameters"]
    spark = LazySession()
    for statement in split_statements(Path(program["file"]).read_text(encoding="utf-8-sig")):
        print(statement, end=";\n", flush=True)
        # As in Databricks, whose values have quotes: `USE CATALOG {{name}}` takes a string.
        text = _MUSTACHE.sub(lambda found: literal(values[found[1]]) if found[1] in values else found[0], statement)
        frame = spark.sql(fill_in(text, values))
        if frame.columns:
            display(frame)
