"""OpenLineage's listener on a real Airflow: it follows deferred tasks to their end, which is on a worker."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from airflow_stack import AirflowStack, DagRun, WorkspaceServer

pytestmark = [pytest.mark.airflow, pytest.mark.every_airflow, pytest.mark.xdist_group("airflow")]

NOTEBOOK = """# Databricks notebook source
assert dbutils.widgets.get("fails") == "no", "no rows"
"""

DAGS = """
from airflow.sdk import dag
from airflow_dbjobs.operators import DatabricksSubmitRunOperator

def run(task_id, fails="no"):
    notebook = {"notebook_path": "/lineage", "base_parameters": {"fails": fails}}
    DatabricksSubmitRunOperator(
        task_id=task_id, notebook_task=notebook, polling_period_seconds=0.5, deferrable=True,
        openlineage_inject_parent_job_info=True,
    )

@dag(schedule=None)
def followed_by_openlineage():
    run("good")
    run("bad", "yes")

followed_by_openlineage()
"""


@pytest.fixture(scope="module")
def followed(other: AirflowStack, workspace_server: WorkspaceServer) -> DagRun:
    (workspace_server.root / "lineage.py").write_text(NOTEBOOK)
    other.wait_for_dag_files([other.add_dag("lineage.py", DAGS)], 120)
    return other.run_dag("followed_by_openlineage", timeout=300)


def end_of(airflow: AirflowStack, name: str) -> dict[str, Any] | None:
    """Return the event of the end of the job `name`, if it has come."""
    events = map(json.loads, (airflow.home.parent / "events").read_text().splitlines())
    return next((event for event in events if event["job"]["name"] == name and event["eventType"] != "START"), None)


@pytest.mark.parametrize(("task_id", "state"), [("good", "success"), ("bad", "failed")])
def test_a_deferred_task_ends_on_a_worker_with_an_event_that_names_its_run(
    other: AirflowStack, followed: DagRun, workspace_server: WorkspaceServer, task_id: str, state: str
) -> None:
    task = followed.task(task_id)
    assert task.state == state
    assert "even after a success, because a listener follows tasks." in other.api.log(task)

    event = other.wait_for(
        "the event of the task's end", lambda: end_of(other, f"followed_by_openlineage.{task_id}"), 30
    )
    assert event["eventType"] == ("FAIL" if state == "failed" else "COMPLETE")
    run_id = other.api.xcom(task, "run_id")
    assert event["run"]["facets"]["externalQuery"]["externalQueryId"] == str(run_id)
    assert ("no rows" in json.dumps(event["run"]["facets"].get("errorMessage"))) == (state == "failed")
    run = workspace_server.call("GET", f"jobs/runs/get?run_id={run_id}")
    context = json.loads(run["tasks"][0]["notebook_task"]["base_parameters"]["OPENLINEAGE_CONTEXT"])
    assert context["parent"]["run"]["runId"] == event["run"]["runId"]
