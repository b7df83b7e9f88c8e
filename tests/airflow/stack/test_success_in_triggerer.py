"""Deferred tasks that succeed in the triggerer, and those that need a worker for it, on a real Airflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_stack import AirflowStack, DagRun, TaskInstance, WorkspaceServer

pytestmark = [pytest.mark.airflow, pytest.mark.xdist_group("airflow-2")]

QUICK = """# Databricks notebook source
import json
dbutils.notebook.exit(json.dumps({"who": dbutils.widgets.get("who")}))
"""
WAITS = """# Databricks notebook source
import pathlib, time
while not pathlib.Path(dbutils.widgets.get("gate")).exists():
    time.sleep(0.1)
dbutils.notebook.exit("the gate is open")
"""
LIST = """# Databricks notebook source
dbutils.notebook.exit("[1, 2]")
"""

DAGS = """
import pathlib
from airflow.sdk import Asset, dag, task
from airflow_dbjobs.operators import DatabricksSubmitRunOperator
from airflow_dbjobs.sensors import DatabricksJobIdleSensor, DatabricksRunSensor

MADE = Asset("made-by-a-run")

def touch(name):
    return lambda *_, **__: pathlib.Path("FOLDER", name).touch()

def run(task_id, path="quick", **kwargs):
    notebook = {"notebook_path": f"/{path}", "base_parameters": {"who": task_id}}
    return DatabricksSubmitRunOperator(
        task_id=task_id, notebook_task=notebook, polling_period_seconds=0.5, deferrable=True, **kwargs
    )

@task
def keeps(value):
    return value

@dag(schedule=None)
def needs():
    keeps(run("plain").output)
    run("no_xcom", do_xcom_push=False)
    run("switched_off", end_in_triggerer=False)
    run("callback", on_success_callback=touch("called back"))
    run("post", post_execute=touch("post-executed"))
    run("outlet", outlets=[MADE])
    keeps.override(task_id="over_each").expand(value=run("mapped_over", "list").output)

@dag(schedule=[MADE])
def after_the_asset():
    keeps("the asset")

@dag(schedule=None)
def many():
    notebooks = [{"notebook_path": "/quick", "base_parameters": {"who": str(number)}} for number in range(6)]
    DatabricksSubmitRunOperator.partial(task_id="run", polling_period_seconds=0.5, deferrable=True).expand(
        notebook_task=notebooks
    )

@dag(schedule=None)
def waiting():
    notebook = {"notebook_path": "/waits", "base_parameters": {"gate": "{{ dag_run.conf.gate }}"}}
    DatabricksSubmitRunOperator(
        task_id="run", notebook_task=notebook, polling_period_seconds=0.5, deferrable=True, pool="of_one"
    )

@dag(schedule=None, render_template_as_native_obj=True)
def ended_sensors():
    how = {"deferrable": True, "poke_interval": 0.5}
    DatabricksRunSensor(task_id="of_a_run", run_id="{{ dag_run.conf.run_id }}", **how)
    DatabricksRunSensor(task_id="of_a_task", run_id="{{ dag_run.conf.run_id }}", task_key="wait", **how)
    DatabricksJobIdleSensor(task_id="idle", job_id="{{ dag_run.conf.job_id }}", **how)

for make in (needs, after_the_asset, many, waiting, ended_sensors):
    make()
"""

# Its trigger stops for good after it has stored the result, the first time that a file allows it.
STOPPING_TRIGGER = """
import asyncio, pathlib
from airflow_dbjobs.triggers import run

class StoppingTrigger(run.DatabricksRunTrigger):
    def serialize(self):
        return "stopping.StoppingTrigger", super().serialize()[1]

    async def _succeed(self):
        event = await super()._succeed()
        allowed = pathlib.Path("FOLDER", "stop")
        if event is not None and allowed.exists():
            allowed.rename(allowed.with_suffix(".stopped"))
            await asyncio.sleep(3600)
        return event
"""
STOPPING_DAG = """
from airflow.sdk import dag
import stopping
from airflow_dbjobs.operators import DatabricksSubmitRunOperator
from airflow_dbjobs.triggers import run
run.DatabricksRunTrigger = stopping.StoppingTrigger

@dag(schedule=None)
def stopped():
    notebook = {"notebook_path": "/quick", "base_parameters": {"who": "the only one"}}
    DatabricksSubmitRunOperator(task_id="run", notebook_task=notebook, polling_period_seconds=0.5, deferrable=True)

stopped()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("success")


@pytest.fixture(scope="module", autouse=True)
def material(airflow: AirflowStack, folder: Path, workspace_server: WorkspaceServer) -> None:
    """Put the notebooks into the workspace, and the DAGs and the pool into Airflow."""
    for name, source in {"quick": QUICK, "waits": WAITS, "list": LIST}.items():
        (workspace_server.root / f"{name}.py").write_text(source)
    (airflow.home / "config" / "stopping.py").write_text(STOPPING_TRIGGER.replace("FOLDER", str(folder)))
    files = {"success.py": DAGS.replace("FOLDER", str(folder)), "stopping_dag.py": STOPPING_DAG}
    airflow.api.call("POST", "pools", body={"name": "of_one", "slots": 1})
    airflow.wait_for_dag_files([airflow.add_dag(*file) for file in files.items()], 120)


def result_of(airflow: AirflowStack, task: TaskInstance) -> object:
    try:
        return airflow.api.xcom(task)
    except LookupError:
        return None


@pytest.fixture(scope="module")
def needs(airflow: AirflowStack) -> DagRun:
    """Return a DAG run with a task for each thing that may need a worker at a success."""
    airflow.api.unpause("after_the_asset")
    run = airflow.run_dag("needs", timeout=300)
    assert run.state == "success", "\n".join(f"{task.name} {task.state}" for task in run.tasks)
    return run


@pytest.mark.every_airflow
class TestWhichTasks:
    def test_a_plain_task_has_one_worker_and_all_that_a_worker_leaves(
        self, airflow: AirflowStack, needs: DagRun
    ) -> None:
        task = needs.task("plain")
        assert airflow.worker_starts(task) == 1
        assert airflow.api.xcom(task) == airflow.api.xcom(needs.task("keeps")) == {"who": "plain"}
        run_id = airflow.api.xcom(task, "run_id")
        assert f"/runs/{run_id}" in str(airflow.api.extra_links(task)["Databricks run"])
        log = airflow.api.log(task)
        assert f"Run {run_id} is TERMINATED/SUCCESS" in log
        assert f"Run {run_id} of job" in log
        assert "The task succeeds without resuming on a worker." in log
        assert (task.duration or 0) > 0

    def test_a_task_without_result_stores_none(self, airflow: AirflowStack, needs: DagRun) -> None:
        task = needs.task("no_xcom")
        assert (airflow.worker_starts(task), result_of(airflow, task)) == (1, None)

    @pytest.mark.parametrize(
        ("task_id", "reason"),
        [
            ("switched_off", None),
            ("callback", "it has an on_success_callback"),
            ("post", "it has a post_execute"),
            ("outlet", "it has outlets"),
            ("mapped_over", "another task is mapped over its result"),
        ],
    )
    def test_what_a_success_needs_runs_on_a_worker(
        self, airflow: AirflowStack, needs: DagRun, task_id: str, reason: str | None
    ) -> None:
        task = needs.task(task_id)
        assert airflow.worker_starts(task) == 2
        assert result_of(airflow, task) == ([1, 2] if task_id == "mapped_over" else {"who": task_id})
        assert (f"because {reason}." in airflow.api.log(task)) == (reason is not None)

    def test_callbacks_and_assets_work_as_ever(self, airflow: AirflowStack, needs: DagRun, folder: Path) -> None:
        assert (folder / "called back").exists()
        assert (folder / "post-executed").exists()
        assert [task.map_index for task in needs.tasks if task.task_id == "over_each"] == [0, 1]

        def triggered() -> bool | None:
            return bool(airflow.api.call("GET", "dags/after_the_asset/dagRuns")["dag_runs"]) or None

        airflow.wait_for("the DAG that waits for the asset", triggered, 60)

    def test_many_short_mapped_runs_succeed_with_one_worker_each(self, airflow: AirflowStack) -> None:
        run = airflow.run_dag("many", timeout=300)
        assert [task.state for task in run.tasks] == ["success"] * 6
        assert [airflow.worker_starts(task) for task in run.tasks] == [1] * 6
        assert [airflow.api.xcom(task) for task in run.tasks] == [{"who": str(task.map_index)} for task in run.tasks]

    def test_sensors_end_in_the_triggerer_too(
        self, airflow: AirflowStack, workspace_server: WorkspaceServer, folder: Path
    ) -> None:
        gate = folder / "gate of the sensors"
        notebook = {"notebook_path": "/waits", "base_parameters": {"gate": str(gate)}}
        tasks = [{"task_key": "wait", "notebook_task": notebook}]
        job = workspace_server.call("POST", "jobs/create", {"name": "sensed in the triggerer", "tasks": tasks})
        run_id = workspace_server.call("POST", "jobs/run-now", job)["run_id"]
        run = airflow.trigger("ended_sensors", {"run_id": run_id, **job})
        for name in ("of_a_run", "of_a_task", "idle"):
            airflow.wait_for_task(run, name, "deferred")
        gate.touch()
        (run,) = airflow.wait_for_runs([run])
        assert run.state == "success"
        assert {task.name: (airflow.worker_starts(task), result_of(airflow, task)) for task in run.tasks} == {
            "of_a_run": (1, "the gate is open"),
            "of_a_task": (1, "the gate is open"),
            "idle": (1, None),
        }
        for name in ("of_a_run", "idle"):
            assert f"/runs/{run_id}" in str(airflow.api.extra_links(run.task(name))["Databricks run"])


class TestUserActions:
    def test_a_cleared_success_launches_again(self, airflow: AirflowStack, needs: DagRun) -> None:
        before = needs.task("no_xcom")
        airflow.api.clear(before)
        (run,) = airflow.wait_for_runs([airflow.api.dag_run(needs)], timeout=180)
        after = run.task("no_xcom")
        assert (after.state, after.try_number, airflow.worker_starts(after)) == ("success", 2, 1)

    def test_a_marked_task_stays_marked_and_its_run_is_cancelled(
        self, airflow: AirflowStack, workspace_server: WorkspaceServer, folder: Path
    ) -> None:
        run = airflow.trigger("waiting", {"gate": str(folder / "gate that stays shut")})
        task = airflow.wait_for_task(run, "run", "deferred")
        run_id = airflow.api.xcom(task, "run_id")
        airflow.wait_for("the run to be watched", lambda: f"Run {run_id} is " in airflow.api.log(task) or None, 60)
        airflow.api.set_state(task, "failed")

        def cancelled() -> bool | None:
            state = workspace_server.call("GET", f"jobs/runs/get?run_id={run_id}")["state"]
            return state.get("result_state") == "CANCELED" or None

        airflow.wait_for("the run to be cancelled", cancelled, 60)
        assert airflow.api.dag_run(run).task("run").state == "failed"


class TestChaos:
    @pytest.mark.parametrize("how", ["killed", "paused"])
    def test_a_triggerer_lost_between_storing_and_firing_loses_nothing(
        self, airflow: AirflowStack, folder: Path, how: str
    ) -> None:
        stop = folder / "stop"
        stopped = stop.with_suffix(".stopped")
        stopped.unlink(missing_ok=True)
        stop.touch()
        run = airflow.trigger("stopped")
        airflow.wait_for("the trigger to store its result", lambda: stopped.exists() or None, 120)
        task = airflow.wait_for_task(run, "run", "deferred")
        assert airflow.api.xcom(task) == {"who": "the only one"}
        if how == "killed":
            airflow.kill("triggerer")
            airflow.start("triggerer")
        else:
            airflow.pause("triggerer")
            airflow.start("triggerer-2")
        (run,) = airflow.wait_for_runs([run], timeout=180)
        task = run.task("run")
        if how == "paused":
            # The first one may fire now, too.
            airflow.processes.resume()
            airflow.stop("triggerer-2")
        assert (task.state, task.try_number, airflow.worker_starts(task)) == ("success", 1, 1)
        assert airflow.api.xcom(task) == {"who": "the only one"}
