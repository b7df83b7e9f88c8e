"""Workflow groups, by `dag.test()` on a real Airflow with its database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from airflow_stack import WorkspaceServer
from dag_script import run_script

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.airflow, pytest.mark.every_airflow]

# The first attempt fails if its key says so.
NOTEBOOK = """# Databricks notebook source
import pathlib
key = dbutils.widgets.get("key")
first = pathlib.Path(key + ".first")
if not first.exists():
    first.touch()
    if key.startswith("flaky"):
        raise ValueError("not yet")
dbutils.notebook.exit('{"key": "%s"}' % key)
"""

DAGS = """
from datetime import datetime, timedelta, timezone
from airflow import DAG
try:
    from airflow.sdk import task
except ImportError:  # Airflow 2.11
    from airflow.decorators import task
from airflow_dbjobs.airflow_compat import task_states
from airflow_dbjobs.operators import DatabricksNotebookOperator, DatabricksWorkflowTaskGroup

def member(key, **kwargs):
    return DatabricksNotebookOperator(
        task_id=key, notebook_path="/notebook", notebook_params={"key": key}, polling_period_seconds=0.2,
        retries=1, retry_delay=timedelta(0), **kwargs
    )

with DAG("group", schedule=None, start_date=datetime(2024, 1, 1, tzinfo=timezone.utc)) as group:
    with DatabricksWorkflowTaskGroup(group_id="etl"):
        flaky = [member("flaky"), member("flaky_deferred", deferrable=True)]
        load = member("load", deferrable=True)
        member("extract") >> flaky >> load

    @task
    def ask_airflow(**context):
        print("the run is wanted:", task_states.is_run_wanted(context["ti"], "etl.launch"))
        print("the run of another task is wanted:", task_states.is_run_wanted(context["ti"], "ask_airflow"))

    load >> ask_airflow()
"""

SCRIPT = """
import inspect
from datetime import datetime, timezone
from airflow.utils.db import initdb

initdb()
from groups import group

name = "logical_date" if "logical_date" in inspect.signature(group.test).parameters else "execution_date"
run = group.test(**{name: datetime(2025, 1, 1, tzinfo=timezone.utc)})
print("the end:", getattr(run.state, "value", run.state))
"""


def test_retries_of_members_repair_the_run(tmp_path: Path) -> None:
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace" / "notebook.py").write_text(NOTEBOOK)
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "groups.py").write_text(DAGS)
    with WorkspaceServer(tmp_path / "workspace", tmp_path / "logs") as server:
        output = run_script(tmp_path, tmp_path / "dags", server.connection, "-c", SCRIPT)
        (run,) = server.runs()
        history = server.call("GET", f"jobs/runs/get?run_id={run['run_id']}&include_history=true")
    assert "the end: success" in output
    assert "the run is wanted: True" in output
    assert "the run of another task is wanted: False" in output
    keys = {task["run_id"]: task["task_key"] for task in history["tasks"]}
    repaired = [sorted(keys[run_id] for run_id in item["task_run_ids"]) for item in history["repair_history"][1:]]
    assert repaired == [["flaky", "flaky_deferred", "load"]], output
    assert all(task["state"]["result_state"] == "SUCCESS" for task in history["tasks"] if task["attempt_number"])
