"""DAGs of this provider, run by real Airflow components against a local workspace in a process of its own."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import requests
from airflow_context import AIRFLOW_V_3_3_PLUS
from documentation import example

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_stack import AirflowStack, DagRun, TaskInstance, WorkspaceServer
    from statsd_listener import StatsdListener

pytestmark = [pytest.mark.airflow, pytest.mark.xdist_group("airflow")]

LINK = "Databricks run"

NOTEBOOKS = {
    "answer.py": """# Databricks notebook source
import json
dbutils.notebook.exit(json.dumps({"answer": 6 * int(dbutils.widgets.get("times"))}))
""",
    "fails.py": """# Databricks notebook source
def divide(a, b):
    return a / b

divide(1, 0)
""",
    # Long enough for every test to look at it while it runs; a test that ends well cancels it.
    "sleeps.py": """# Databricks notebook source
import time
time.sleep(600)
""",
    # Ends when a file appears beside it.
    "waits.py": """# Databricks notebook source
import pathlib, time
while not pathlib.Path(dbutils.widgets.get("for_file")).exists():
    time.sleep(0.1)
dbutils.notebook.exit("the file is there")
""",
    "fails_once.py": """# Databricks notebook source
import pathlib
marker = pathlib.Path(dbutils.widgets.get("folder")) / dbutils.widgets.get("name")
if not marker.exists():
    marker.touch()
    raise ValueError("not yet")
dbutils.notebook.exit("at last")
""",
    "word_count.py": """# Databricks notebook source
dbutils.notebook.exit(str(len(dbutils.widgets.get("text").split())))
""",
}

DAGS = """
from datetime import timedelta
from airflow.sdk import dag, task
from airflow_dbjobs.operators import DatabricksRunNowOperator, DatabricksSubmitRunOperator
from airflow_dbjobs.sensors import DatabricksJobIdleSensor, DatabricksRunSensor

FAST = {"polling_period_seconds": 0.5}

def notebook(name, **parameters):
    return {"notebook_path": f"/notebooks/{name}", "base_parameters": parameters}

@dag(schedule=None, render_template_as_native_obj=True)
def both_modes():
    for name, deferrable in (("here", False), ("deferred", True)):
        answer = DatabricksSubmitRunOperator(
            task_id=name,
            notebook_task=notebook("answer", times="{{ dag_run.conf.times }}"),
            deferrable=deferrable,
            **FAST,
        )
        @task(task_id=f"after_{name}")
        def after(result):
            return result["answer"] + 1
        after(answer.output)

@dag(schedule=None, render_template_as_native_obj=True)
def one_run():
    DatabricksSubmitRunOperator(
        task_id="run",
        notebook_task="{{ dag_run.conf.notebook }}",
        databricks_conn_id="{{ dag_run.conf.get('conn_id', 'databricks_default') }}",
        json="{{ dag_run.conf.get('json', {}) }}",
        **FAST,
    )

@dag(schedule=None, render_template_as_native_obj=True)
def one_run_deferred():
    DatabricksSubmitRunOperator(
        task_id="run", notebook_task="{{ dag_run.conf.notebook }}", deferrable=True, **FAST
    )

@dag(schedule=None)
def out_of_time():
    for name, deferrable in (("here", False), ("deferred", True)):
        DatabricksSubmitRunOperator(
            task_id=name,
            run_name=f"out of time {name}",
            notebook_task=notebook("sleeps"),
            deferrable=deferrable,
            execution_timeout=timedelta(seconds=8),
            retries=1,
            retry_delay=timedelta(seconds=1),
            **FAST,
        )

@dag(schedule=None, render_template_as_native_obj=True)
def run_job():
    DatabricksRunNowOperator(task_id="run", job_name="{{ dag_run.conf.job_name }}", on_skipped="skip", **FAST)

@dag(schedule=None, render_template_as_native_obj=True)
def sensors():
    wanted = {"run_id": "{{ dag_run.conf.run_id }}", "poke_interval": 1}
    DatabricksRunSensor(task_id="poke", **wanted)
    DatabricksRunSensor(task_id="reschedule", mode="reschedule", **wanted)
    DatabricksRunSensor(task_id="deferrable", deferrable=True, **wanted)

@dag(schedule=None)
def sensors_of_a_job():
    how = {"job_name": "sensed", "deferrable": True, "poke_interval": 1, "timeout": 300}
    since = "{{ dag_run.run_after }}"
    DatabricksRunSensor(task_id="run", since=since, **how)
    DatabricksRunSensor(task_id="task", since=since, task_key="wait", **how)
    running = DatabricksRunSensor(task_id="running", since=since, states=["RUNNING", "SUCCESS"], **how)
    running >> DatabricksJobIdleSensor(task_id="idle", **how)

@dag(schedule=None, render_template_as_native_obj=True)
def connection_in_the_database():
    how = {"databricks_conn_id": "in_the_database", "deferrable": True}
    waits = notebook("waits", for_file="{{ dag_run.conf.for_file }}")
    DatabricksSubmitRunOperator(task_id="run", notebook_task=waits, **FAST, **how)
    DatabricksJobIdleSensor(task_id="idle", job_id="{{ dag_run.conf.job_id }}", poke_interval=1, **how)

@dag(schedule=None, params={"folder": "nowhere"})
def repaired():
    for name, deferrable in (("here", False), ("deferred", True)):
        DatabricksRunNowOperator(
            task_id=name, job_name=f"fails once {name}", repair_run=True, deferrable=deferrable, **FAST
        )

for make in (
    both_modes, one_run, one_run_deferred, out_of_time, run_job, sensors, sensors_of_a_job, connection_in_the_database,
    repaired,
):
    make()
"""

HOPELESS_DAG = """
from datetime import timedelta
from airflow.sdk import dag
from airflow_dbjobs.operators import DatabricksSubmitRunOperator
from airflow_dbjobs.retry_policy import DatabricksRetryPolicy

@dag(schedule=None)
def hopeless():
    DatabricksSubmitRunOperator(
        task_id="run",
        run_name="hopeless",
        notebook_task={"notebook_path": "/notebooks/fails"},
        polling_period_seconds=0.5,
        retries=2,
        retry_delay=timedelta(seconds=1),
        retry_policy=DatabricksRetryPolicy(),
    )

hopeless()
"""


@pytest.fixture(scope="module", autouse=True)
def material(workspace_server: WorkspaceServer, airflow: AirflowStack) -> None:
    """Put the notebooks into the workspace and the DAGs into Airflow."""
    folder = workspace_server.root / "notebooks"
    folder.mkdir(exist_ok=True)
    for name, source in NOTEBOOKS.items():
        (folder / name).write_text(source)
    airflow.add_dag("provider.py", DAGS)


def launched(airflow: AirflowStack, task: TaskInstance, timeout: float = 60) -> int:
    """Return the run_id that the task pushed, as soon as it has."""

    def pushed() -> int | None:
        try:
            return int(airflow.api.xcom(task, "run_id"))
        except LookupError:
            return None

    return airflow.wait_for("the task to launch its run", pushed, timeout)


def state_of(workspace_server: WorkspaceServer, run_id: int) -> dict[str, Any]:
    return dict(workspace_server.call("GET", f"jobs/runs/get?run_id={run_id}")["state"])


def wait_for_end(airflow: AirflowStack, workspace_server: WorkspaceServer, run_id: int) -> dict[str, Any]:
    def ended() -> dict[str, Any] | None:
        state = state_of(workspace_server, run_id)
        return state if state["life_cycle_state"] in {"TERMINATED", "INTERNAL_ERROR", "SKIPPED"} else None

    return airflow.wait_for(f"run {run_id} to end", ended, 30)


def logs(airflow: AirflowStack, run: DagRun) -> str:
    """Return the logs of all tasks: what to read when a run did not end as it should."""
    return "\n\n".join(f"{task.name} {task.state}\n{airflow.api.log(task)}" for task in run.tasks)


def only_task(run: DagRun) -> TaskInstance:
    (task,) = run.tasks
    return task


@pytest.mark.every_airflow
def test_a_result_goes_on_to_the_next_task_in_both_modes(airflow: AirflowStack) -> None:
    run = airflow.run_dag("both_modes", {"times": "7"})
    assert run.state == "success", logs(airflow, run)
    for name in ("here", "deferred"):
        assert airflow.api.xcom(run.task(name)) == {"answer": 42}
        assert airflow.api.xcom(run.task(f"after_{name}")) == 43
        url = airflow.api.xcom(run.task(name), "run_page_url")
        assert airflow.api.extra_links(run.task(name)) == {LINK: url}
        assert f"/runs/{airflow.api.xcom(run.task(name), 'run_id')}" in url


def test_a_failure_explains_itself_in_the_task_log(airflow: AirflowStack) -> None:
    run = airflow.run_dag("one_run_deferred", {"notebook": {"notebook_path": "/notebooks/fails"}})
    task = only_task(run)
    assert (run.state, task.state) == ("failed", "failed")
    log = airflow.api.log(task)
    assert "UserCodeFailed" in log
    assert re.search(r"Run \d+ of job \d+ ended as \S+ after ", log)
    assert "ZeroDivisionError: division by zero" in log
    assert "in divide" in log
    assert airflow.api.xcom(task, "run_page_url") in log


@pytest.mark.parametrize(("dag_id", "waiting"), [("one_run", "running"), ("one_run_deferred", "deferred")])
def test_the_link_is_there_while_the_run_goes_on_and_marking_the_task_failed_cancels_the_run(
    airflow: AirflowStack, workspace_server: WorkspaceServer, dag_id: str, waiting: str
) -> None:
    run = airflow.trigger(dag_id, {"notebook": {"notebook_path": "/notebooks/sleeps"}})
    task = airflow.wait_for_task(run, "run", "running", "deferred")
    run_id = launched(airflow, task)
    task = airflow.wait_for_task(run, "run", waiting)
    assert state_of(workspace_server, run_id)["life_cycle_state"] in {"PENDING", "RUNNING"}
    url = airflow.wait_for("the link", lambda: airflow.api.extra_links(task)[LINK], 10)
    assert f"/runs/{run_id}" in url
    assert str(run_id) in requests.get(url, timeout=10).text
    # A task that is marked before the triggerer has its trigger is killed by nobody: wait until somebody watches.
    airflow.wait_for("the run to be watched", lambda: f"Run {run_id} is " in airflow.api.log(task) or None, 30)

    airflow.api.set_state(task, "failed")
    assert wait_for_end(airflow, workspace_server, run_id)["result_state"] == "CANCELED"


@pytest.mark.every_airflow
def test_execution_timeout_cancels_the_run_and_fails_the_try_in_both_modes(
    airflow: AirflowStack, workspace_server: WorkspaceServer
) -> None:
    run = airflow.run_dag("out_of_time")
    for task in run.tasks:
        assert (task.state, task.try_number) == ("failed", 2), "a timeout is a failure that Airflow retries"
        assert "AirflowTaskTimeout" in airflow.api.log(task)
        runs = [
            run
            for run in workspace_server.call("GET", "jobs/runs/list")["runs"]
            if run["run_name"] == f"out of time {task.task_id}"
        ]
        states = [wait_for_end(airflow, workspace_server, run["run_id"])["result_state"] for run in runs]
        assert states == ["CANCELED", "CANCELED"], "each try launches a run, as that of the try before was cancelled"
    log = airflow.api.log(run.task("deferred"))
    assert "did not end within the task's execution_timeout of 0:00:08: the API accepted the run's cancellation" in log
    assert re.search(r"Launched run \d+ .*, because run \d+ of an earlier try", log)


def test_a_run_that_never_started_skips_the_task(airflow: AirflowStack, workspace_server: WorkspaceServer) -> None:
    settings = {"name": "busy job", "notebook_task": {"notebook_path": "/notebooks/sleeps"}, "max_concurrent_runs": 1}
    # Jobs made through 2.2 queue by default; then the run would wait, and so would the task.
    settings["queue"] = {"enabled": False}
    job_id = workspace_server.call("POST", "jobs/create", settings)["job_id"]
    other = workspace_server.call("POST", "jobs/run-now", {"job_id": job_id})["run_id"]
    run = airflow.run_dag("run_job", {"job_name": "busy job"})
    assert only_task(run).state == "skipped"
    assert "max_concurrent_runs" in airflow.api.log(only_task(run))
    workspace_server.call("POST", "jobs/runs/cancel", {"run_id": other})


def test_a_failed_run_is_repaired_with_the_params_of_the_dag_run_in_both_modes(
    airflow: AirflowStack, workspace_server: WorkspaceServer, tmp_path: Path
) -> None:
    for name in ("here", "deferred"):
        task = {"notebook_path": "/notebooks/fails_once", "base_parameters": {"name": name}}
        job = {"name": f"fails once {name}", "tasks": [{"task_key": "only", "notebook_task": task}]}
        job["parameters"] = [{"name": "folder", "default": ""}]
        workspace_server.call("POST", "jobs/create", job)
    run = airflow.run_dag("repaired", {"folder": str(tmp_path)})
    assert run.state == "success", logs(airflow, run)
    for task in run.tasks:
        assert (airflow.api.xcom(task), task.try_number) == ("at last", 1)
        log = airflow.api.log(task)
        assert "ValueError: not yet" in log
        assert re.search(r"Repairing run \d+ \(1 of at most 1\): only", log)


@pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="Airflow 3.3 introduced retry policies")
def test_a_retry_policy_fails_at_once_what_no_try_can_mend(
    airflow: AirflowStack, workspace_server: WorkspaceServer
) -> None:
    airflow.add_dag("hopeless.py", HOPELESS_DAG)
    run = airflow.run_dag("hopeless")
    assert (run.state, only_task(run).try_number) == ("failed", 1)
    assert "Retry policy decision" in airflow.api.log(only_task(run))
    assert [run["run_name"] for run in workspace_server.runs()].count("hopeless") == 1


@pytest.mark.every_airflow
def test_a_sensor_waits_in_each_mode_and_returns_what_the_run_returned(
    airflow: AirflowStack, workspace_server: WorkspaceServer, statsd: StatsdListener, tmp_path: Path
) -> None:
    signal = tmp_path / "go"
    notebook = {"notebook_path": "/notebooks/waits", "base_parameters": {"for_file": str(signal)}}
    run_id = workspace_server.call("POST", "jobs/runs/submit", {"notebook_task": notebook})["run_id"]
    run = airflow.trigger("sensors", {"run_id": run_id})
    airflow.wait_for_task(run, "poke", "running")
    airflow.wait_for_task(run, "reschedule", "up_for_reschedule")
    airflow.wait_for_task(run, "deferrable", "deferred")
    # The triggerer sends the poller's measurements where Airflow's go.
    watched = "airflow.dbjobs.poller.watched_runs"
    airflow.processes.wait_for("the poller's metrics", lambda: "1|g" in statsd.values(watched) or None, timeout=60)
    signal.touch()
    (run,) = airflow.wait_for_runs([run])
    assert run.state == "success", logs(airflow, run)
    assert {airflow.api.xcom(task) for task in run.tasks} == {"the file is there"}
    assert all(f"/runs/{run_id}" in str(airflow.api.extra_links(task)[LINK]) for task in run.tasks)
    for name, kind in (("requests", "c"), ("tick_duration", "ms"), ("lag", "ms"), ("outage_seconds", "g")):
        assert {value.rpartition("|")[2] for value in statsd.values(f"airflow.dbjobs.poller.{name}")} == {kind}


def test_sensors_of_a_job_wait_in_the_triggerer_before_it_has_a_run(
    airflow: AirflowStack, workspace_server: WorkspaceServer, tmp_path: Path
) -> None:
    signal = tmp_path / "go"
    notebook = {"notebook_path": "/notebooks/waits", "base_parameters": {"for_file": str(signal)}}
    tasks = [{"task_key": "wait", "notebook_task": notebook}]
    job = workspace_server.call("POST", "jobs/create", {"name": "sensed", "tasks": tasks})
    run = airflow.trigger("sensors_of_a_job")
    for name in ("run", "task", "running"):
        airflow.wait_for_task(run, name, "deferred")
    run_id = workspace_server.call("POST", "jobs/run-now", job)["run_id"]
    airflow.wait_for_task(run, "running", "success")
    # The worker was woken to set the link, and the run still goes on.
    waiting = airflow.api.dag_run(run).task("run")
    link = airflow.wait_for("the link", lambda: airflow.api.extra_links(waiting).get(LINK), 60)
    assert f"/runs/{run_id}" in link
    airflow.wait_for_task(run, "idle", "deferred")
    signal.touch()
    (run,) = airflow.wait_for_runs([run])
    assert run.state == "success", logs(airflow, run)
    assert airflow.api.xcom(run.task("run")) == airflow.api.xcom(run.task("task")) == "the file is there"
    said = airflow.api.log(run.task("run"))
    assert "has no run that started at" in said
    assert f"Run {run_id} is TERMINATED/SUCCESS" in said


@pytest.mark.every_airflow
def test_triggers_look_up_a_connection_that_only_airflows_database_has(
    airflow: AirflowStack, workspace_server: WorkspaceServer, tmp_path: Path
) -> None:
    # On Airflow 3.0 a look-up that blocks the triggerer's event loop is an error: "You cannot use AsyncToSync ...".
    define(airflow, {"connection_id": "in_the_database", **json.loads(workspace_server.connection)})
    signal = tmp_path / "go"
    notebook = {"notebook_path": "/notebooks/waits", "base_parameters": {"for_file": str(signal)}}
    job = workspace_server.call("POST", "jobs/create", {"name": "busy", "notebook_task": notebook})
    active = workspace_server.call("POST", "jobs/run-now", job)["run_id"]
    run = airflow.trigger("connection_in_the_database", {"for_file": str(signal), **job})
    tasks = [airflow.wait_for_task(run, name, "deferred") for name in ("run", "idle")]

    def both_have_asked() -> bool | None:
        of_run, of_idle = map(airflow.api.log, tasks)
        return ("is RUNNING" in of_run and str(active) in of_idle) or None

    airflow.wait_for("the triggers to ask", both_have_asked, 60)
    signal.touch()
    (run,) = airflow.wait_for_runs([run])
    assert run.state == "success", logs(airflow, run)
    assert airflow.api.xcom(run.task("run")) == "the file is there"


BAD_INPUT: dict[str, dict[str, Any]] = {
    "unknown-connection": {"conn_id": "nobody"},
    "empty-host": {"conn_id": "no_host"},
    "wrong-token": {"conn_id": "wrong_token"},
    "no-task": {"notebook": None},
    "two-tasks": {"json": {"spark_python_task": {"python_file": "/x.py"}}},
}


@pytest.fixture(scope="module")
def bad_runs(airflow: AirflowStack, workspace_server: WorkspaceServer) -> dict[str, DagRun]:
    """Return a DAG run for each bad input, when all have ended; none has launched a run."""
    good = json.loads(workspace_server.connection)
    for conn_id, change in {"no_host": {"host": ""}, "wrong_token": {"password": "not-the-token"}}.items():
        define(airflow, {"connection_id": conn_id, **good, **change})
    active = active_runs(workspace_server)
    notebook = {"notebook_path": "/notebooks/sleeps"}
    runs = [airflow.trigger("one_run", {"notebook": notebook, **conf}) for conf in BAD_INPUT.values()]
    ended = airflow.wait_for_runs(runs)
    assert active_runs(workspace_server) <= active
    return dict(zip(BAD_INPUT, ended, strict=True))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("unknown-connection", [r"databricks_conn_id is 'nobody'", r"AIRFLOW_CONN_NOBODY"]),
        ("empty-host", [r"Connection 'no_host': host is empty", r"workspace's URL"]),
        ("wrong-token", [r"PermissionDenied", r"answered 403", r"Check that the connection's token"]),
        ("no-task", [r"PayloadError", r"\[TASK-PRESENT-2_1\]", r"Set one of notebook_task"]),
        ("two-tasks", [r"\[TASK-ONE-2_1\]: has notebook_task and spark_python_task", r"Keep only one"]),
    ],
)
def test_bad_input_is_named_in_the_task_log_and_launches_nothing(
    airflow: AirflowStack, bad_runs: dict[str, DagRun], name: str, expected: list[str]
) -> None:
    run = bad_runs[name]
    log = airflow.api.log(only_task(run))
    assert run.state == "failed"
    for pattern in expected:
        assert re.search(pattern, log), log
    assert airflow.api.extra_links(only_task(run)) == {LINK: None}


def define(airflow: AirflowStack, connection: dict[str, Any]) -> None:
    known = {entry["connection_id"] for entry in airflow.api.call("GET", "connections")["connections"]}
    if connection["connection_id"] not in known:
        airflow.api.call("POST", "connections", body=connection)


def active_runs(workspace_server: WorkspaceServer) -> set[int]:
    answer = workspace_server.call("GET", "jobs/runs/list?active_only=true")
    return {run["run_id"] for run in answer.get("runs", ())}


def test_the_dag_of_the_readme_does_what_the_readme_says(airflow: AirflowStack) -> None:
    airflow.add_dag("readme.py", example("python", "def count_words():"))
    run = airflow.run_dag("count_words")
    assert run.state == "success", logs(airflow, run)
    assert airflow.api.xcom(run.task("count")) == "5"
    assert re.search(r"\b5\b", airflow.api.log(run.task("show")))
