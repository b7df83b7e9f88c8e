"""Workflow groups on a real Airflow: retries and clears of members repair one run, and kills end what they should."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_stack import AirflowStack, TaskInstance, WorkspaceServer

pytestmark = [pytest.mark.airflow, pytest.mark.xdist_group("airflow-2")]

# The first attempts at the flaky tasks fail. The tasks that are gated end when the gate is open.
NOTEBOOK = """# Databricks notebook source
import json, pathlib, time
key = dbutils.widgets.get("key")
folder = pathlib.Path(dbutils.widgets.get("folder"))
runs = folder / key
number = len(runs.read_text()) if runs.exists() else 0
runs.write_text("x" * (number + 1))
while key.endswith("gated") and not (folder / "gate").exists():
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

with DAG("killed_group", schedule=None, start_date=datetime(2024, 1, 1)):
    with DatabricksWorkflowTaskGroup(group_id="etl"):
        member("gated", False)
        member("deferred_and_gated", True)

with DAG("group_at_once", schedule=None, start_date=datetime(2024, 1, 1)):
    with DatabricksWorkflowTaskGroup(group_id="etl"):
        member("at_once_gated", True) >> member("after", False)

with DAG("workflow_group", schedule=None, start_date=datetime(2024, 1, 1)):
    with DatabricksWorkflowTaskGroup(group_id="etl"):
        flaky = [member("flaky", True), member("flaky_gated", False)]
        load = member("load", True)
        member("extract", True) >> flaky >> load >> member("cleanup", False, trigger_rule="all_done")
"""


@pytest.fixture(scope="module")
def folder(airflow: AirflowStack, workspace_server: WorkspaceServer) -> Path:
    """Return the folder of the notebook and its gate; the DAGs are written, too."""
    folder = workspace_server.root / "group"
    folder.mkdir()
    (folder / "notebook.py").write_text(NOTEBOOK)
    airflow.add_dag("workflow_groups.py", DAG.format(folder=folder))
    return folder


def test_kills_of_members(airflow: AirflowStack, workspace_server: WorkspaceServer, folder: Path) -> None:
    run = airflow.trigger("killed_group", {"day": "monday"})

    def all_wait() -> list[TaskInstance] | None:
        tasks = [task for task in airflow.api.dag_run(run).tasks if task.task_id != "etl.launch"]
        waits = [task.state in {"running", "deferred"} and "is RUNNING" in airflow.api.log(task) for task in tasks]
        return tasks if all(waits) else None

    def states() -> dict[str, str | None]:
        tasks = group_run(workspace_server, "killed_group")["tasks"]
        return {task["task_key"]: task["state"].get("result_state") for task in tasks}

    tasks = {task.task_id: task for task in airflow.wait_for("the members to wait", all_wait, 120)}
    airflow.api.set_state(tasks["etl.deferred_and_gated"], "failed")
    canceled = {"deferred_and_gated": "CANCELED", "gated": None}
    airflow.wait_for("the task to be cancelled", lambda: states() == canceled or None, 120)
    assert not (folder / "gate").exists()

    airflow.api.call("PATCH", f"dags/{run.dag_id}/dagRuns/{run.run_id}", body={"state": "failed"})
    run_id = group_run(workspace_server, "killed_group")["run_id"]
    says = f"accepted the cancellation of run {run_id}"
    airflow.wait_for("the run to be cancelled", lambda: says in airflow.api.log(tasks["etl.gated"]) or None, 120)
    airflow.wait_for("the other task to be cancelled", lambda: states()["gated"] == "CANCELED" or None, 60)


def test_retries_and_clears_of_members(airflow: AirflowStack, workspace_server: WorkspaceServer, folder: Path) -> None:
    dag_id = "workflow_group"
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
        "etl.flaky_gated": ("success", 2),
        "etl.load": ("success", 1),
        "etl.cleanup": ("success", 1),
    }
    assert repairs(workspace_server, dag_id) == [["cleanup", "flaky", "flaky_gated", "load"]]
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


def test_two_dag_runs_at_once(airflow: AirflowStack, workspace_server: WorkspaceServer, folder: Path) -> None:
    """The second one's run is queued behind the first one's, and each has its own parameters."""
    days = ("monday", "tuesday")
    (folder / "gate").unlink(missing_ok=True)
    runs = [airflow.trigger("group_at_once", {"day": day}) for day in days]

    def launched() -> list[str] | None:
        states = [run["state"]["life_cycle_state"] for run in runs_of_group(workspace_server, "group_at_once")]
        return sorted(states) if sorted(states) == ["QUEUED", "RUNNING"] else None

    airflow.wait_for("one run to be active and one to be queued", launched, 120)
    (folder / "gate").touch()
    ended = airflow.wait_for_runs(runs, 120)
    assert [airflow.api.xcom(run.task("etl.after"))["day"] for run in ended] == list(days)
    assert [task.try_number for run in ended for task in run.tasks] == [1] * 6
    launches = runs_of_group(workspace_server, "group_at_once")
    assert len(launches) == 2
    assert len({run["job_id"] for run in launches}) == 1


def runs_of_group(workspace: WorkspaceServer, dag_id: str) -> list[dict[str, Any]]:
    """Return the runs of a DAG's group."""
    return [run for run in workspace.runs() if run["run_name"] == f"{dag_id}.etl"]


def group_run(workspace: WorkspaceServer, dag_id: str) -> dict[str, Any]:
    """Return the only run of a DAG's group."""
    (run,) = runs_of_group(workspace, dag_id)
    shown: dict[str, Any] = workspace.call("GET", f"jobs/runs/get?run_id={run['run_id']}&include_history=true")
    return shown


def repairs(workspace: WorkspaceServer, dag_id: str) -> list[list[str]]:
    """Return the keys of the tasks that each repair of the DAG's only run ran again."""
    run = group_run(workspace, dag_id)
    keys = {task["run_id"]: task["task_key"] for task in run["tasks"]}
    return [sorted(keys[run_id] for run_id in item["task_run_ids"]) for item in run["repair_history"][1:]]
