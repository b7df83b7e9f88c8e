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


def test_a_run_and_its_task_name_each_other(tmp_path: Path) -> None:
    root, dags, file = tmp_path / "workspace", tmp_path / "dags", tmp_path / "events"
    root.mkdir()
    dags.mkdir()
    (root / "notebook.py").write_text(NOTEBOOK)
    (dags / "lineage.py").write_text(DAGS)
    with WorkspaceServer(root, tmp_path / "logs") as workspace:
        notebook = {"notebook_path": "/notebook", "base_parameters": {"fails": "no"}}
        workspace.call(
            "POST", "jobs/create", {"name": "job", "tasks": [{"task_key": "only", "notebook_task": notebook}]}
        )
        said = run_script(tmp_path, dags, workspace.connection, "-c", SCRIPT, json.dumps(transport_to(file)))
        runs = {
            run["run_name"]: workspace.call("GET", f"jobs/runs/get?run_id={run['run_id']}") for run in workspace.runs()
        }
    events = [json.loads(line) for line in file.read_text().splitlines()]
    ends = {
        event["job"]["name"]: event
        for event in events
        if event["eventType"] in {"COMPLETE", "FAIL"} and event["job"]["name"] != "nightly"
    }
    assert {name: event["eventType"] for name, event in ends.items()} == {
        "nightly.sync": "COMPLETE",
        "nightly.deferred": "COMPLETE",
        "nightly.failed": "FAIL",
        "nightly.failed_deferred": "FAIL",
        "nightly.job": "COMPLETE",
    }, said
    started = {event["job"]["name"] for event in events if event["eventType"] == "START"}
    assert started >= {f"nightly.{name}" for name in runs}
    for name, run in runs.items():
        event = ends[f"nightly.{name}"]
        query = event["run"]["facets"]["externalQuery"]
        assert query["externalQueryId"] == str(run["run_id"])
        assert f"/runs/{run['run_id']}" in query["source"]
        parent = parent_of(run)
        assert parent["run"]["runId"] == event["run"]["runId"]
        assert (parent["job"]["namespace"], parent["job"]["name"]) == ("production", f"nightly.{name}")
        assert parent["root"]["run"]["runId"] == event["run"]["facets"]["parent"]["run"]["runId"]
        assert parent["root"]["job"]["name"] == "nightly"
        assert parent["root"]["job"]["facets"]["jobType"]["jobType"] == "DAG"
        if name != "job":
            properties = run["cluster_spec"]["new_cluster"]["spark_conf"]
            assert properties["spark.openlineage.parentRunId"] == event["run"]["runId"]
            assert properties["spark.openlineage.parentJobName"] == f"nightly.{name}"
            assert properties["spark.openlineage.rootParentRunId"] == parent["root"]["run"]["runId"]
            assert properties["spark.openlineage.transport.transports.server.auth.apiKey"] == f"Bearer {KEY}"
    for name in ("failed", "failed_deferred"):
        message = ends[f"nightly.{name}"]["run"]["facets"]["errorMessage"]["message"]
        assert "ValueError: no rows" in message
        assert str(runs[name]["run_id"]) in message
    # Only the workspace knows the key. (Airflow 3.0 logs by itself, for debugging, what a task asks it to mask.)
    assert [line for line in said.splitlines() if KEY in line and "MaskSecret(" not in line] == []
    assert KEY not in file.read_text()
    assert KEY.encode() not in (tmp_path / "airflow.db").read_bytes()


def transport_to(file: Path) -> dict[str, Any]:
    """Return the setting of a transport to a file, and to a server with a key. Nobody listens at that port."""
    server = {"type": "http", "url": "http://127.0.0.1:9", "retry": {"total": 0}}
    server["auth"] = {"type": "api_key", "apiKey": KEY}
    transports = {"file": {"type": "file", "log_file_path": str(file), "append": True}, "server": server}
    return {"type": "composite", "continue_on_failure": True, "transports": transports}


def parent_of(run: dict[str, Any]) -> dict[str, Any]:
    """Return the parent that a run found among its parameters."""
    (task,) = run["tasks"]
    given = {**task["notebook_task"]["base_parameters"]}
    given |= {parameter["name"]: parameter["value"] for parameter in run.get("job_parameters", ())}
    return json.loads(given["OPENLINEAGE_CONTEXT"])["parent"]
