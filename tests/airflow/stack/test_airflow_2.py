"""Tasks on a real Airflow 2.11, deferred ones above all: it tells a trigger of a kill only by stopping it."""

from __future__ import annotations

import itertools
import re
import sqlite3
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any, Self

import pytest
from airflow_stack import Processes, WorkspaceServer, clean_environment, variables_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from statsd_listener import StatsdListener

pytestmark = [pytest.mark.airflow, pytest.mark.xdist_group("airflow")]

NOTEBOOKS = {
    # Long enough for every test to look at it while it runs; what ends well is cancelled.
    "sleeps.py": "# Databricks notebook source\nimport time\ntime.sleep(600)\n",
    "ends.py": "# Databricks notebook source\n",
    "waits.py": """# Databricks notebook source
import pathlib, time
while not pathlib.Path(dbutils.widgets.get("for_file")).exists():
    time.sleep(0.1)
""",
}

ONLY = {"task_key": "only", "condition_task": {"op": "EQUAL_TO", "left": "1", "right": "1"}}

DAGS = """
from datetime import datetime, timedelta
from airflow import DAG
from airflow_dbjobs.operators import (
    DatabricksNotebookOperator, DatabricksSubmitRunOperator, DatabricksWorkflowTaskGroup
)
from airflow_dbjobs.sensors import DatabricksRunSensor

def make(name, notebook="sleeps", parameters=None, deferrable=True, **options):
    with DAG(name, schedule="@once", start_date=datetime(2024, 1, 1)):
        DatabricksSubmitRunOperator(
            task_id="run",
            run_name=name,
            notebook_task={"notebook_path": f"/notebooks/{notebook}", "base_parameters": parameters or {}},
            deferrable=deferrable,
            polling_period_seconds=0.5,
            **options,
        )

for name in ("failed", "success", "cleared"):
    make(name)
make("here", "ends", deferrable=False)
make("moved", "waits", {"for_file": "GO"})
with DAG("of_a_job", schedule="@once", start_date=datetime(2024, 1, 1)):
    DatabricksRunSensor(
        task_id="run", job_name="sensed", task_key="only", deferrable=True, poke_interval=1, timeout=300
    )
make("out_of_time", execution_timeout=timedelta(seconds=15), retries=1, retry_delay=timedelta(seconds=1))
with DAG("killed_group", schedule=None, start_date=datetime(2024, 1, 1)):
    with DatabricksWorkflowTaskGroup(group_id="etl"):
        for key in ("deferred", "here"):
            DatabricksNotebookOperator(
                task_id=key,
                notebook_path="/notebooks/waits",
                notebook_params={"for_file": "GROUP"},
                deferrable=key == "deferred",
                # The executor runs one task at a time: that which waits on its worker comes last.
                priority_weight=200 if key == "deferred" else 100,
                polling_period_seconds=0.5,
                retries=1,
                retry_delay=timedelta(0),
            )
"""


MEASUREMENTS = {"watched_runs", "requests", "tick_duration", "lag", "outage_seconds"}


class Airflow2:
    """Airflow 2.11 on SQLite: scheduler with a SequentialExecutor, and triggerer. Tests look into its database."""

    def __init__(self, home: Path, workspace: WorkspaceServer, statsd: StatsdListener) -> None:
        self.home = home
        self.workspace = workspace
        settings = {
            "core.dags_folder": str(home / "dags"),
            "core.executor": "SequentialExecutor",
            "core.load_examples": "False",
            "core.dags_are_paused_at_creation": "False",
            "core.hostname_callable": "socket.gethostname",
            "database.sql_alchemy_conn": f"sqlite:///{home}/airflow.db?timeout=30",
            "scheduler.scheduler_idle_sleep_time": "0.2",
            "scheduler.trigger_timeout_check_interval": "1",
            # What was killed is noticed soon.
            "scheduler.scheduler_zombie_task_threshold": "5",
            "scheduler.zombie_detection_interval": "1",
            "triggerer.job_heartbeat_sec": "1",
            "triggerer.triggerer_health_check_threshold": "5",
            **statsd.settings,
        }
        environment = {
            **clean_environment(),
            **variables_of(settings),
            "AIRFLOW_HOME": str(home),
            "AIRFLOW_CONN_DATABRICKS_DEFAULT": workspace.connection,
        }
        # The executor starts tasks with the command `airflow`.
        environment["PATH"] = f"{sys.prefix}/bin:{environment['PATH']}"
        self.processes = Processes(home / "logs", environment)

    def __enter__(self) -> Self:
        try:
            self.airflow("db", "migrate")
            self.start("scheduler", "--skip-serve-logs")
            self.start("triggerer", "--skip-serve-logs")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.processes.stop_all()

    def start(self, component: str, *options: str) -> None:
        self.processes.start(component, sys.executable, "-m", "airflow", component, *options)

    def airflow(self, *arguments: str) -> None:
        self.processes.run("-".join(arguments[:2]), sys.executable, "-m", "airflow", *arguments, timeout=120)

    def database(self, statement: str, *values: object) -> list[Any]:
        with closing(sqlite3.connect(self.home / "airflow.db", timeout=30)) as database, database:
            return database.execute(statement, values).fetchall()

    def tasks(self, dag_id: str) -> dict[str, tuple[str, int]]:
        """Return the state of each of the DAG's tasks, and which try it is in."""
        rows = self.database("select task_id, state, try_number from task_instance where dag_id = ?", dag_id)
        return {task_id: (state, try_number) for task_id, state, try_number in rows}

    def task(self, dag_id: str) -> tuple[str, int]:
        """Return the state of the DAG's only task, and which try it is in."""
        (task,) = self.tasks(dag_id).values() or [("none", 0)]
        return task

    def kill_worker(self, dag_id: str, task_id: str) -> None:
        """End a running task's process, and those that watch it up to the scheduler, with SIGKILL."""
        ((pid,),) = self.database("select pid from task_instance where dag_id = ? and task_id = ?", dag_id, task_id)
        task, scheduler = self.processes.descendant(pid), self.processes.process("scheduler")
        watchers = list(itertools.takewhile(lambda process: process != scheduler, task.parents()))
        for process in (*reversed(watchers), task):
            process.kill()

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """Return the runs that the DAG's task has launched, the latest first."""
        runs = self.workspace.call("GET", "jobs/runs/list").get("runs", [])
        return [run for run in runs if run["run_name"] == dag_id]

    def results(self, dag_id: str) -> list[str | None]:
        return [run["state"].get("result_state") for run in self.runs(dag_id)]

    def log(self, dag_id: str) -> str:
        """Return what all tries of the DAG's task have logged, and their triggers."""
        files = (self.home / "logs" / f"dag_id={dag_id}").rglob("*.log*")
        return "\n".join(file.read_text() for file in sorted(files))

    def wait_for(self, what: str, condition: Callable[[], bool], timeout: float = 60) -> None:
        self.processes.wait_for(what, lambda: condition() or None, timeout)

    def wait_until_watched(self, dag_id: str) -> None:
        """Wait until a trigger has asked for the task's latest run."""

        def watched() -> bool:
            runs = self.runs(dag_id)
            return bool(runs) and f"Run {runs[0]['run_id']} is RUNNING" in self.log(dag_id)

        self.wait_for(f"{dag_id} to be deferred and its run watched", watched)


@pytest.fixture(scope="module")
def airflow2(tmp_path_factory: pytest.TempPathFactory, statsd: StatsdListener) -> Iterator[Airflow2]:
    folder = tmp_path_factory.mktemp("airflow2")
    for name in ("workspace/notebooks", "home/dags", "home/logs"):
        (folder / name).mkdir(parents=True)
    for name, source in NOTEBOOKS.items():
        (folder / "workspace" / "notebooks" / name).write_text(source)
    (folder / "home" / "dags" / "deferred.py").write_text(
        DAGS.replace("GO", str(folder / "home" / "go")).replace("GROUP", str(folder / "home" / "group"))
    )
    with WorkspaceServer(folder / "workspace", folder / "logs") as workspace:
        # Before the DAG that waits for a run of it.
        workspace.call("POST", "jobs/create", {"name": "sensed", "tasks": [ONLY]})
        with Airflow2(folder / "home", workspace, statsd) as running:
            yield running


@pytest.mark.parametrize("state", ["failed", "success"])
def test_marking_a_deferred_task_cancels_its_run(airflow2: Airflow2, state: str) -> None:
    airflow2.wait_until_watched(state)
    # What the UI does to a task instance.
    airflow2.database("update task_instance set state = ? where dag_id = ?", state, state)
    airflow2.wait_for("the run to be cancelled", lambda: airflow2.results(state) == ["CANCELED"], 30)
    # The trigger logs after the API has answered.
    said = f"its task is {state} now, and the API accepted the run's cancellation"
    airflow2.wait_for("the trigger's word", lambda: said in airflow2.log(state), 10)


def test_clearing_a_deferred_task_cancels_its_run_and_launches_another(airflow2: Airflow2) -> None:
    airflow2.wait_until_watched("cleared")
    airflow2.airflow("tasks", "clear", "--yes", "cleared")
    airflow2.wait_for("a new run", lambda: len(airflow2.results("cleared")) == 2)
    airflow2.wait_for("its end", lambda: airflow2.results("cleared") == [None, "CANCELED"], 30)


def test_execution_timeout_of_a_deferred_task_cancels_its_run_and_fails_the_try(airflow2: Airflow2) -> None:
    airflow2.wait_for("both tries to fail", lambda: airflow2.task("out_of_time") == ("failed", 2), 120)
    airflow2.wait_for("the runs to end", lambda: airflow2.results("out_of_time") == ["CANCELED", "CANCELED"], 10)
    assert "AirflowTaskTimeout" in airflow2.log("out_of_time")
    assert "exceeded its execution_timeout, and the API accepted the run's cancellation" in airflow2.log("out_of_time")


@pytest.mark.every_airflow
def test_a_task_that_waits_on_its_worker_ends_with_its_run(airflow2: Airflow2) -> None:
    airflow2.wait_for("the task to succeed", lambda: airflow2.task("here") == ("success", 1), 120)
    assert airflow2.results("here") == ["SUCCESS"]


@pytest.mark.every_airflow
def test_a_triggerer_that_stops_leaves_the_run_alone_and_the_next_one_goes_on(airflow2: Airflow2) -> None:
    airflow2.wait_until_watched("moved")
    airflow2.processes.stop("triggerer")
    airflow2.start("triggerer", "--skip-serve-logs")
    (airflow2.home / "go").touch()
    airflow2.wait_for("the task to succeed", lambda: airflow2.task("moved") == ("success", 1))
    assert airflow2.results("moved") == ["SUCCESS"]


@pytest.mark.every_airflow
def test_a_sensor_of_a_job_waits_for_its_first_run_in_the_triggerer(airflow2: Airflow2) -> None:
    airflow2.wait_for("the trigger to look", lambda: "has no run yet" in airflow2.log("of_a_job"), 120)
    (job,) = airflow2.workspace.call("GET", "jobs/list")["jobs"]
    run_id = airflow2.workspace.call("POST", "jobs/run-now", {"job_id": job["job_id"]})["run_id"]
    airflow2.wait_for("the task to succeed", lambda: airflow2.task("of_a_job") == ("success", 1))
    assert f"Task only of run {run_id} is TERMINATED/SUCCESS" in airflow2.log("of_a_job")


def test_kills_of_a_group_lose_and_double_nothing(airflow2: Airflow2) -> None:
    dag_id = "killed_group"
    parsed = "select 1 from serialized_dag where dag_id = ?"
    airflow2.wait_for("the DAG to be parsed", lambda: bool(airflow2.database(parsed, dag_id)))
    airflow2.airflow("dags", "trigger", dag_id)

    def waits() -> bool:
        tasks, log = airflow2.tasks(dag_id), airflow2.log(dag_id)
        return (tasks.get("etl.deferred"), tasks.get("etl.here")) == (("deferred", 1), ("running", 1)) and all(
            re.search(rf"Task {key} of run \d+ is RUNNING", log) for key in ("deferred", "here")
        )

    airflow2.wait_for("both members to wait", waits, 400)
    airflow2.processes.kill("triggerer")
    airflow2.kill_worker(dag_id, "etl.here")
    airflow2.start("triggerer", "--skip-serve-logs")
    airflow2.wait_for("the retry", lambda: airflow2.tasks(dag_id)["etl.here"] == ("running", 2), 120)
    (airflow2.home / "group").touch()
    ends = {"etl.launch": ("success", 1), "etl.deferred": ("success", 1), "etl.here": ("success", 2)}
    airflow2.wait_for("the ends", lambda: airflow2.tasks(dag_id) == ends, 120)
    jobs = airflow2.workspace.call("GET", f"jobs/list?name={dag_id}.etl")["jobs"]
    (run,) = airflow2.runs(f"{dag_id}.etl")
    run = airflow2.workspace.call("GET", f"jobs/runs/get?run_id={run['run_id']}&include_history=true")
    assert len(jobs) == 1
    assert [item["type"] for item in run["repair_history"]] == ["ORIGINAL"]
    assert [task["state"]["result_state"] for task in run["tasks"]] == ["SUCCESS", "SUCCESS"]


def test_the_triggerer_sends_the_pollers_measurements_where_airflows_go(
    airflow2: Airflow2, statsd: StatsdListener
) -> None:
    airflow2.wait_for(
        "all of them",
        lambda: {name for name in MEASUREMENTS if statsd.values(f"airflow.dbjobs.poller.{name}")} == MEASUREMENTS,
    )
    assert "its task is still deferred" in airflow2.log("moved")
