"""A workflow group on a real Airflow: its members' retries and clears are repairs of one run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from airflow_stack import AirflowStack, TaskInstance, WorkspaceServer

pytestmark = [pytest.mark.airflow, pytest.mark.xdist_group("airflow")]

# The first attempts at the flaky tasks fail; that of the task on a worker does when the gate is open.
NOTEBOOK = """# Databricks notebook source
import json, pathlib, time
key = dbutils.widgets.get("key")
folder = pathlib.Path(dbutils.widgets.get("folder"))
runs = folder / key
number = len(runs.read_text()) if runs.exists() else 0
runs.write_text("x" * (number + 1))
while key == "flaky_here" and not (folder / "gate").exists():
    time.sleep(0.1)
if key.startswith("flaky") and not number:
    raise ValueError("not yet")
dbutils.notebook.exit(json.dumps({"key": key, "run": number + 1, "day": dbutils.widgets.get("day")}))
"""

DAG = """
from datetime import datetime, timedelta
from airflow.sdk import DAG
from airflow_dbjobs.operators import DatabricksNotebookOperator, DatabricksWorkflowTaskGroup

def member(key, deferrable, **kwargs):
    return DatabricksNotebookOperator(
        task_id=key, notebook_path="/group/notebook", max_retries=0, deferrable=deferrable,
        notebook_params={{"key": key, "folder": "{folder}", "day": "{{{{ dag_run.conf.day }}}}"}},
        polling_period_seconds=0.5, retries=1, retry_delay=timedelta(seconds=1), **kwargs
    )

with DAG("{dag_id}", schedule=None, start_date=datetime(2024, 1, 1)):
    with DatabricksWorkflowTaskGroup(group_id="etl"):
        flaky = [member("flaky", True), member("flaky_here", False)]
        load = member("load", True)
        member("extract", True) >> flaky >> load >> member("cleanup", False, trigger_rule="all_done")
"""


def test_retries_and_clears_of_members(airflow: AirflowStack, workspace_server: WorkspaceServer) -> None:
    dag_id = "workflow_group"
    folder = workspace_server.root / "group"
    folder.mkdir()
    (folder / "notebook.py").write_text(NOTEBOOK)
    airflow.add_dag(f"{dag_id}.py", DAG.format(folder=folder, dag_id=dag_id))
    run = airflow.trigger(dag_id, {"day": "monday"})

    def waits_for_repair() -> TaskInstance | None:
        task = airflow.api.dag_run(run).task("etl.flaky")
        return task if task.try_number == 2 and task.state == "deferred" else None

    airflow.wait_for("the first retry to wait for the end of the run", waits_for_repair, 120)
    (folder / "gate").touch()
    (ended,) = airflow.wait_for_runs([run], 120)
    assert {task.task_id: (task.state, task.try_number) for task in ended.tasks} == {
        "etl.launch": ("success", 1),
        "etl.extract": ("success", 1),
        "etl.flaky": ("success", 2),
        "etl.flaky_here": ("success", 2),
        "etl.load": ("success", 1),
        "etl.cleanup": ("success", 1),
    }
    assert repairs(workspace_server, dag_id) == [["cleanup", "flaky", "flaky_here", "load"]]
    load = ended.task("etl.load")
    result = airflow.api.xcom(load)

    airflow.api.clear(load)
    airflow.wait_for_task(run, "etl.load", "success", timeout=90)
    (ended,) = airflow.wait_for_runs([run], 60)
    assert repairs(workspace_server, dag_id)[1:] == [["cleanup", "load"]]
    again = airflow.api.xcom(ended.task("etl.load"))
    assert again == {**result, "run": result["run"] + 1}
    assert again["day"] == "monday"
    assert [task.try_number for task in ended.tasks if task.task_id != "etl.load"].count(1) == 3


def repairs(workspace: WorkspaceServer, dag_id: str) -> list[list[str]]:
    """Return the keys of the tasks that each repair of the DAG's only run ran again."""
    (run,) = [run for run in workspace.runs() if run["run_name"] == f"{dag_id}.etl"]
    shown = workspace.call("GET", f"jobs/runs/get?run_id={run['run_id']}&include_history=true")
    keys = {task["run_id"]: task["task_key"] for task in shown["tasks"]}
    return [sorted(keys[run_id] for run_id in item["task_run_ids"]) for item in shown["repair_history"][1:]]
