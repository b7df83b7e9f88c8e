"""The local workspace runs a workflow group of the official provider, which knows nothing of it, as the cloud would."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from airflow_context import AIRFLOW_V_3_3_PLUS
from airflow_stack import WorkspaceServer
from dag_script import run_script

OFFICIAL = Path(__file__).parents[2] / ".venv-official"

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="the official provider's release is the one for Airflow 3.3"),
    pytest.mark.skipif(
        not (OFFICIAL / "installed").exists(), reason="make .venv-official/installed makes what it needs"
    ),
]

MEMBERS = ("extract", "broken", "load", "after", "cleanup")
NOTEBOOK = """# Databricks notebook source
if {fails}:
    raise ValueError("no such day")
dbutils.notebook.exit(dbutils.widgets.get("day"))
"""

DAG = """
from datetime import datetime, timezone
from airflow.sdk import DAG
from airflow.providers.databricks.operators.databricks import DatabricksNotebookOperator
from airflow.providers.databricks.operators.databricks_workflow import DatabricksWorkflowTaskGroup

CLUSTER = {"spark_version": "15.4.x-scala2.12", "node_type_id": "i3.xlarge", "num_workers": 1}

def member(name, **fields):
    return DatabricksNotebookOperator(
        task_id=name, databricks_conn_id="databricks_default", notebook_path=f"/{name}", source="WORKSPACE",
        job_cluster_key="shared", polling_period_seconds=1, **fields,
    )

with DAG("official", schedule=None, start_date=datetime(2024, 1, 1, tzinfo=timezone.utc)) as dag:
    with DatabricksWorkflowTaskGroup(
        group_id="group", databricks_conn_id="databricks_default", notebook_params={"day": "monday"},
        job_clusters=[{"job_cluster_key": "shared", "new_cluster": CLUSTER}],
    ):
        extract, broken, after = member("extract"), member("broken"), member("after")
        load = member("load", deferrable=True)
        cleanup = member("cleanup", trigger_rule="all_done")
        extract >> [broken, load]
        broken >> after
        [after, load] >> cleanup
"""

SCRIPT = """
import json
from airflow.utils.db import initdb

initdb()
from official import dag

run = dag.test()
print("the end of", json.dumps({ti.task_id: ti.state for ti in run.get_task_instances()}))
"""


def test_a_group_of_the_official_provider_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its job is there already, with other tasks, so that it is reset."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(OFFICIAL)])
    for folder in ("workspace", "dags"):
        (tmp_path / folder).mkdir()
    for name in MEMBERS:
        (tmp_path / "workspace" / f"{name}.py").write_text(NOTEBOOK.format(fails=name == "broken"))
    (tmp_path / "dags" / "official.py").write_text(DAG)
    with WorkspaceServer(tmp_path / "workspace", tmp_path / "logs") as server:
        connection = json.dumps({**json.loads(server.connection), "conn_type": "databricks"})
        old = {"task_key": "old", "notebook_task": {"notebook_path": "/old"}}
        job_id = server.call("POST", "jobs/create", {"name": "official.group", "tasks": [old]})["job_id"]
        printed = run_script(tmp_path, tmp_path / "dags", connection, "-c", SCRIPT)
        (listed,) = server.runs()
        run = server.call("GET", f"jobs/runs/get?run_id={listed['run_id']}")
        outputs = [server.call("GET", f"jobs/runs/get-output?run_id={task['run_id']}") for task in run["tasks"]]
    ends = [json.loads(line.removeprefix("the end of ")) for line in printed.splitlines() if "the end of " in line]
    others = dict.fromkeys(("group.launch", "group.extract", "group.load", "group.cleanup"), "success")
    assert ends == [{**others, "group.broken": "failed", "group.after": "upstream_failed"}], printed
    assert (run["job_id"], run["state"]["result_state"]) == (job_id, "SUCCESS_WITH_FAILURES")
    assert [cluster["job_cluster_key"] for cluster in run["job_clusters"]] == ["shared"]
    assert {task["job_cluster_key"] for task in run["tasks"]} == {"shared"}
    members = {
        task["notebook_task"]["notebook_path"]: (task["state"]["result_state"], output["notebook_output"].get("result"))
        for task, output in zip(run["tasks"], outputs, strict=True)
    }
    assert members == {
        "/extract": ("SUCCESS", "monday"),
        "/broken": ("FAILED", None),
        "/load": ("SUCCESS", "monday"),
        "/after": ("UPSTREAM_FAILED", None),
        "/cleanup": ("SUCCESS", "monday"),
    }
