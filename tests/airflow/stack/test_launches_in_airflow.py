"""Whose run it is on a real Airflow: workers lost or stopped, users who edit, clear and delete, two deployments."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from airflow_stack import AirflowStack, DagRun, TaskInstance, WorkspaceServer

pytestmark = [pytest.mark.airflow, pytest.mark.xdist_group("airflow")]

# Ends when its gate is there.
GATED = """# Databricks notebook source
import pathlib, time
while not pathlib.Path(dbutils.widgets.get("gate")).exists():
    time.sleep(0.1)
dbutils.notebook.exit("done")
"""

DAG = """
import os
from datetime import datetime, timedelta
from airflow.sdk import DAG
from airflow_dbjobs.operators import DatabricksSubmitRunOperator

with DAG("{dag_id}", schedule={schedule!r}, start_date=datetime(2024, 1, 1), catchup=False):
    for name in {tasks}:
        DatabricksSubmitRunOperator(
            task_id=name,
            run_name=os.environ.get("DEPLOYMENT", "") + "{dag_id}." + name,
            notebook_task={{
                "notebook_path": "/notebooks/gated",
                "base_parameters": {{"gate": "{gates}/{dag_id}." + name}},
            }},
            deferrable="deferred" in name,
            polling_period_seconds=0.5,
            retries={retries},
            retry_delay=timedelta(seconds=1),
        )
"""


class Scene:
    """A DAG of an Airflow whose runs end when the test says so, and the workspace that runs them."""

    def __init__(self, airflow: AirflowStack, workspace: WorkspaceServer, dag_id: str, tasks: tuple[str, ...]) -> None:
        self.airflow = airflow
        self.workspace = workspace
        self.dag_id = dag_id
        self.tasks = tasks
        notebooks = workspace.root / "notebooks"
        notebooks.mkdir(exist_ok=True)
        (notebooks / "gated.py").write_text(GATED)

    def write(self, retries: int, *, schedule: str | None = None) -> None:
        """Write the DAG's file."""
        values = {"dag_id": self.dag_id, "tasks": self.tasks, "retries": retries, "schedule": schedule}
        self.airflow.add_dag(f"{self.dag_id}.py", DAG.format(gates=self.workspace.root, **values))

    def start(self, retries: int) -> DagRun:
        self.write(retries)
        return self.airflow.trigger(self.dag_id)

    def open_gates(self, *tasks: str) -> None:
        for task_id in tasks or self.tasks:
            (self.workspace.root / f"{self.dag_id}.{task_id}").touch()

    def results(self, task_id: str, deployment: str = "") -> list[str | None]:
        """Return the result of each run of a task, the oldest first; None while it is active."""
        name = f"{deployment}{self.dag_id}.{task_id}"
        runs = [run for run in self.workspace.runs() if run["run_name"] == name]
        runs.sort(key=lambda run: int(run["run_id"]))
        return [run["state"].get("result_state") for run in runs]

    def waits(self, run: DagRun, task_id: str, *, try_number: int = 1) -> TaskInstance:
        """Wait until a try of a task waits for its run: it says so in its log."""

        def found() -> TaskInstance | None:
            task = self.airflow.api.dag_run(run).task(task_id)
            if task.try_number != try_number or task.state not in {"running", "deferred"}:
                return None
            return task if "is RUNNING" in self.airflow.api.log(task) else None

        return self.airflow.wait_for(f"try {try_number} of {task_id} to wait", found, 90)

    def ends(self, run: DagRun) -> dict[str, str | None]:
        (ended,) = self.airflow.wait_for_runs([run], 120)
        return {task.task_id: task.state for task in ended.tasks}


@pytest.fixture(params=["airflow", pytest.param("deployment", marks=pytest.mark.deployment)])
def stack(request: pytest.FixtureRequest) -> AirflowStack:
    """Return Airflow with a LocalExecutor; `make test-deployment` takes one as it is deployed, with Celery."""
    stack: AirflowStack = request.getfixturevalue(request.param)
    return stack


@pytest.fixture
def scene(stack: AirflowStack, workspace_server: WorkspaceServer, request: pytest.FixtureRequest) -> Scene:
    name = request.node.name.removeprefix("test_").partition("[")[0][:40]
    return Scene(stack, workspace_server, name, getattr(request, "param", ("here",)))


def test_lowered_retries_of_a_lost_worker(scene: Scene) -> None:
    """By retries and max_tries the task looks cleared, and was not: the next try joins."""
    run = scene.start(retries=3)
    task = scene.waits(run, "here")
    scene.write(retries=2)
    scene.airflow.wait_for(
        "the file to be read", lambda: scene.airflow.api.retries(scene.dag_id, "here") == 2 or None, 60
    )
    scene.airflow.lose_worker(task)
    joined = scene.waits(run, "here", try_number=2)
    assert "Joined run" in scene.airflow.api.log(joined)
    scene.open_gates()
    assert scene.ends(run) == {"here": "success"}
    assert scene.results("here") == ["SUCCESS"]


@pytest.mark.parametrize("scene", [("here", "deferred", "holds")], indirect=True)
def test_raised_retries_of_a_cleared_task(scene: Scene) -> None:
    """The user clears before the DAG processor has read the file: the task looks retried, and runs again."""
    run = scene.start(retries=1)
    scene.open_gates("here", "deferred")
    done = [scene.airflow.wait_for_task(run, name, "success", timeout=90) for name in ("here", "deferred")]
    scene.airflow.pause("dag-processor")
    try:
        scene.write(retries=3)
        for task in done:
            scene.airflow.api.clear(task)
        for task in done:

            def again(task_id: str = task.task_id) -> bool | None:
                return scene.results(task_id) == ["SUCCESS", "SUCCESS"] or None

            scene.airflow.wait_for(f"{task.task_id} to run again", again, 90)
    finally:
        scene.airflow.processes.resume()
    scene.open_gates()
    assert set(scene.ends(run).values()) == {"success"}
    assert [scene.results(name) for name in scene.tasks] == [["SUCCESS"] * 2, ["SUCCESS"] * 2, ["SUCCESS"]]


@pytest.mark.parametrize("scene", [("deferred",)], indirect=True)
def test_deleted_dag_of_a_deferred_task(scene: Scene) -> None:
    scene.waits(scene.start(retries=1), "deferred")
    (scene.airflow.dags_folder / f"{scene.dag_id}.py").unlink()
    # Until then Airflow's own DAG processor may write to the DAG's row, and it dies if the row is gone.
    scene.airflow.wait_for("the file to be missed", lambda: scene.airflow.api.is_stale(scene.dag_id) or None, 60)
    scene.airflow.api.delete(scene.dag_id)
    scene.airflow.wait_for(
        "the run to be cancelled", lambda: scene.results("deferred") == ["CANCELED"] or None, timeout=90
    )


def test_cleared_task_of_a_worker_that_was_lost_for_good(scene: Scene) -> None:
    """Nobody is left to cancel its run, and its DAG run is over: the cleared task does."""
    run = scene.start(retries=0)
    scene.airflow.lose_worker(scene.waits(run, "here"))
    assert scene.ends(run) == {"here": "failed"}
    assert scene.results("here") == [None]
    scene.airflow.api.clear(scene.airflow.api.dag_run(run).task("here"))
    scene.waits(run, "here", try_number=2)
    scene.open_gates()
    assert scene.ends(run) == {"here": "success"}
    assert scene.results("here") == ["CANCELED", "SUCCESS"]


def test_worker_that_is_stopped_with_all_its_processes(scene: Scene) -> None:
    """The worker (that is the scheduler with a LocalExecutor) and all its tasks are to end at the same time."""
    run = scene.start(retries=2)
    worker = scene.airflow.worker_of(scene.waits(run, "here"))
    scene.airflow.terminate(worker)
    assert scene.results("here") == [None]
    scene.airflow.start(worker)
    joined = scene.waits(run, "here", try_number=2)
    assert "Joined run" in scene.airflow.api.log(joined)
    scene.open_gates()
    assert scene.ends(run) == {"here": "success"}
    assert scene.results("here") == ["SUCCESS"]


def test_two_deployments(scene: Scene, other: AirflowStack) -> None:
    """The same DAG on both has the same scheduled run; one of the tasks is killed."""
    there = Scene(other, scene.workspace, scene.dag_id, scene.tasks)
    runs = []
    for side in (scene, there):
        side.write(retries=1, schedule="@once")
        side.airflow.wait_for_dag(side.dag_id)
        side.airflow.api.unpause(side.dag_id)
        runs.append(only_run(side))
    assert runs[0].run_id == runs[1].run_id
    task = scene.waits(runs[0], "here")
    there.waits(runs[1], "here")
    scene.airflow.api.set_state(task, "failed")
    scene.airflow.wait_for("the run to be cancelled", lambda: scene.results("here") == ["CANCELED"] or None, 60)
    assert there.results("here", "other ") == [None]
    scene.open_gates()
    assert there.ends(runs[1]) == {"here": "success"}
    assert there.results("here", "other ") == ["SUCCESS"]


def test_a_listener_follows_each_success_on_a_worker(other: AirflowStack, workspace_server: WorkspaceServer) -> None:
    scene = Scene(other, workspace_server, "followed", ("deferred",))
    run = scene.start(retries=0)
    scene.open_gates()
    assert scene.ends(run) == {"deferred": "success"}
    task = other.api.dag_run(run).task("deferred")
    assert other.worker_starts(task) == 2
    assert (other.home.parent / "heard of deferred").exists()
    assert "because a listener follows tasks." in other.api.log(task)


def only_run(scene: Scene) -> DagRun:
    """Return the DAG run that the scheduler made."""
    from airflow_stack import DagRun

    def made() -> DagRun | None:
        runs = scene.airflow.api.call("GET", f"dags/{scene.dag_id}/dagRuns")["dag_runs"]
        return DagRun(scene.dag_id, runs[0]["dag_run_id"], runs[0]["state"]) if runs else None

    return scene.airflow.wait_for("a scheduled DAG run", made, 60)
