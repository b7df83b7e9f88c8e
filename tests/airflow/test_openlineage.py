"""The events of OpenLineage's own listener, and what the runs know of the tasks that launched them, by `dag.test()`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from airflow_stack import WorkspaceServer
from dag_script import run_script

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.airflow, pytest.mark.every_airflow]

KEY = "the-key-of-the-lineage-server"

NOTEBOOK = """# Databricks notebook source
if dbutils.widgets.get("fails") == "yes":
    raise ValueError("no rows")
dbutils.notebook.exit(dbutils.widgets.get("OPENLINEAGE_CONTEXT"))
"""

DAGS = """
from datetime import datetime, timezone
from airflow import DAG
from airflow_dbjobs.operators import DatabricksRunNowOperator, DatabricksSubmitRunOperator

def submit(name, fails="no", **kwargs):
    notebook = {"notebook_path": "/notebook", "base_parameters": {"fails": fails}}
    cluster = {"spark_version": "15.4.x-scala2.12", "num_workers": 1, "node_type_id": "i3.xlarge"}
    DatabricksSubmitRunOperator(
        task_id=name, run_name=name, notebook_task=notebook, new_cluster=cluster, polling_period_seconds=0.2, **kwargs
    )

with DAG("nightly", schedule=None, start_date=datetime(2024, 1, 1, tzinfo=timezone.utc)) as nightly:
    submit("sync")
    submit("deferred", deferrable=True)
    submit("failed", "yes")
    submit("failed_deferred", "yes", deferrable=True)
    DatabricksRunNowOperator(task_id="job", job_name="job", polling_period_seconds=0.2, deferrable=True)
"""

SCRIPT = """
import os, sys
os.environ.update(
    AIRFLOW__OPENLINEAGE__TRANSPORT=sys.argv[1],
    AIRFLOW__OPENLINEAGE__NAMESPACE="production",
    AIRFLOW__OPENLINEAGE__SPARK_INJECT_PARENT_JOB_INFO="True",
    AIRFLOW__OPENLINEAGE__SPARK_INJECT_TRANSPORT_INFO="True",
)
from airflow.utils.db import initdb

initdb()
from lineage import nightly

nightly.test()
"""


def parameter(run: dict[str, Any], name: str) -> str:
    (task,) = run["tasks"]
    return task["notebook_task"]["base_parameters"][name]


def test_a_run_and_its_task_name_each_other(tmp_path: Path) -> None:
    root, dags, events = tmp_path / "workspace", tmp_path / "dags", tmp_path / "events"
    root.mkdir()
    dags.mkdir()
    (root / "notebook.py").write_text(NOTEBOOK)
    (dags / "lineage.py").write_text(DAGS)
    # Nobody listens at this port.
    server = {"type": "http", "url": "http://127.0.0.1:9", "retry": {"total": 0}, "auth": {"type": "api_key", "apiKey": KEY}}
    file = {"type": "file", "log_file_path": str(events), "append": True}
    transport = {"type": "composite", "continue_on_failure": True, "transports": {"file": file, "server": server}}
    with WorkspaceServer(root, tmp_path / "logs") as workspace:
        job = {"name": "job", "tasks": [{"task_key": "only", "notebook_task": {"notebook_path": "/notebook", "base_parameters": {"fails": "no"}}}]}
        workspace.call("POST", "jobs/create", job)
        said = run_script(tmp_path, dags, workspace.connection, "-c", SCRIPT, json.dumps(transport))
        print(said)
        runs = workspace.runs()
    print(json.dumps(runs, indent=1))
    print(events.read_text())
    assert 0
