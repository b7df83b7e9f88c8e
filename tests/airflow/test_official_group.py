"""The local workspace runs a workflow group of the official provider, which knows nothing of it, as the cloud would."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from airflow_stack import WorkspaceServer
from dag_script import run_script

OFFICIAL = Path(__file__).parents[2] / ".venv-official"

pytestmark = [
    pytest.mark.airflow,
    # It is of the release that fits Airflow 3.3.
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

for _ in range(2):
    run = dag.test()
    print("the end of", json.dumps({ti.task_id: ti.state for ti in run.get_task_instances()}))
"""


def test_a_group_of_the_official_provider_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second DAG run resets the job of the first one, and runs it again."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(OFFICIAL)])
    for folder in ("workspace", "dags"):
        (tmp_path / folder).mkdir()
    for name in MEMBERS:
        (tmp_path / "workspace" / f"{name}.py").write_text(NOTEBOOK.format(fails=name == "broken"))
    (tmp_path / "dags" / "official.py").write_text(DAG)
    with WorkspaceServer(tmp_path / "workspace", tmp_path / "logs") as server:
        connection = json.dumps({**json.loads(server.connection), "conn_type": "databricks"})
        printed = run_script(tmp_path, tmp_path / "dags", connection, "-c", SCRIPT)
        runs = [server.call("GET", f"jobs/runs/get?run_id={run['run_id']}") for run in server.runs()]
        outputs = {
            task["notebook_task"]["notebook_path"]: server.call("GET", f"jobs/runs/get-output?run_id={task['run_id']}")[
                "notebook_output"
            ].get("result")
            for task in runs[0]["tasks"]
        }
    ends = [json.loads(line.removeprefix("the end of ")) for line in printed.splitlines() if "the end of " in line]
    others = dict.fromkeys(("group.launch", "group.extract", "group.load", "group.cleanup"), "success")
    assert ends == [{**others, "group.broken": "failed", "group.after": "upstream_failed"}] * 2, printed
    assert len(runs) == 2
    assert len({run["job_id"] for run in runs}) == 1
    for run in runs:
        assert run["state"]["result_state"] == "SUCCESS_WITH_FAILURES"
        assert [cluster["job_cluster_key"] for cluster in run["job_clusters"]] == ["shared"]
        assert {task["job_cluster_key"] for task in run["tasks"]} == {"shared"}
        assert {task["notebook_task"]["notebook_path"]: task["state"]["result_state"] for task in run["tasks"]} == {
            "/extract": "SUCCESS",
            "/broken": "FAILED",
            "/load": "SUCCESS",
            "/after": "UPSTREAM_FAILED",
            "/cleanup": "SUCCESS",
        }
    assert outputs == {**dict.fromkeys(("/extract", "/load", "/cleanup"), "monday"), "/broken": None, "/after": None}
