"""Tasks that launch several runs, by `dag.test()` on a real Airflow with its database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from airflow_stack import WorkspaceServer
from dag_script import run_script

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.airflow, pytest.mark.every_airflow]

# Ends with an error for as long as the file is there that its parameter names.
NOTEBOOK = """# Databricks notebook source
import pathlib
if pathlib.Path(dbutils.widgets.get("fails_with")).exists():
    raise ValueError("not yet")
dbutils.notebook.exit(dbutils.widgets.get("fails_with"))
"""

DAGS = """
import os, pathlib
from datetime import datetime, timedelta, timezone
from airflow import DAG
try:
    from airflow.sdk import task
except ImportError:  # Airflow 2.11
    from airflow.decorators import task
from airflow_dbjobs.operators import DatabricksSubmitRunOperator

flag = pathlib.Path(os.environ["FLAG"])

def launch(name, context, fails=False):
    payload = {"notebook_path": "/notebook", "base_parameters": {"fails_with": str(flag) if fails else "/nowhere"}}
    operator = DatabricksSubmitRunOperator(
        task_id=name, run_name=name, notebook_task=payload, polling_period_seconds=0.2
    )
    return operator.execute(context)

def clean_up(context):
    launch("clean_up", context)

HOW = {"retries": 1, "retry_delay": timedelta(0)}

with DAG("callback", schedule=None, start_date=datetime(2024, 1, 1, tzinfo=timezone.utc)) as callback:
    payload = {"notebook_path": "/notebook", "base_parameters": {"fails_with": str(flag)}}
    DatabricksSubmitRunOperator(
        task_id="load", run_name="load", notebook_task=payload, polling_period_seconds=0.2,
        on_retry_callback=clean_up, **HOW,
    )

with DAG("loop", schedule=None, start_date=datetime(2024, 1, 1, tzinfo=timezone.utc)) as loop:
    @task(**HOW)
    def parts(**context):
        launch("first", context)
        try:
            launch("second", context, fails=True)
        finally:
            flag.unlink(missing_ok=True)
        return launch("third", context)

    parts()
"""

SCRIPT = """
import inspect, os, sys
from datetime import datetime, timezone
from airflow.utils.db import initdb

os.environ["FLAG"] = sys.argv[1]
initdb()
from launches import callback, flag, loop

day = datetime(2025, 1, 1, tzinfo=timezone.utc)
for dag in (callback, callback, loop, loop):
    flag.touch()
    name = "logical_date" if "logical_date" in inspect.signature(dag.test).parameters else "execution_date"
    run = dag.test(**{name: day})
    print("the end of", dag.dag_id, getattr(run.state, "value", run.state))
"""


def test_each_launch_has_its_own_run(tmp_path: Path) -> None:
    """The same DAG run is tested twice: its runs of the first time are none of the second's."""
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace" / "notebook.py").write_text(NOTEBOOK)
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "launches.py").write_text(DAGS)
    with WorkspaceServer(tmp_path / "workspace", tmp_path / "logs") as server:
        said = run_script(tmp_path, tmp_path / "dags", server.connection, "-c", SCRIPT, str(tmp_path / "flag"))
        runs = sorted(server.runs(), key=lambda run: int(run["run_id"]))
    ends = [line.removeprefix("the end of ") for line in said.splitlines() if line.startswith("the end of ")]
    assert ends == ["callback failed"] * 2 + ["loop success"] * 2, said
    launched = [(run["run_name"], run["state"]["result_state"]) for run in runs]
    failing = [("load", "FAILED"), ("clean_up", "SUCCESS"), ("load", "FAILED")]
    resumed = [("first", "SUCCESS"), ("second", "FAILED"), ("second", "SUCCESS"), ("third", "SUCCESS")]
    assert launched == failing * 2 + resumed * 2
