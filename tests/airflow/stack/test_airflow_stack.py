"""The harness itself: that its Airflow runs and defers tasks, and that its processes end when it says so."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import psutil
import pytest
from airflow_stack import DagImportFailed, ProcessDied, Processes
from deployment_stack import RestartedProcesses

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_stack import AirflowStack, TaskInstance

needs_airflow = [pytest.mark.airflow, pytest.mark.xdist_group("airflow")]

TINY = """
from datetime import timedelta
from airflow.sdk import BaseOperator, dag, task
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger

class WaitInTriggerer(BaseOperator):
    def execute(self, context):
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=8)), method_name="done")

    def done(self, context, event):
        return "done"

@dag(schedule=None)
def tiny():
    @task
    def double(n, dag_run=None):
        print("doubling", n)
        return n * dag_run.conf["factor"]

    double.expand(n=[1, 2]) >> WaitInTriggerer(task_id="wait")

tiny()
"""

WRITER = """
# Airflow runs no file in which it does not find its own name and "dag".
import sqlite3, time
from pathlib import Path

database = sqlite3.connect("{home}/airflow.db", timeout=30, isolation_level=None)
database.execute("BEGIN IMMEDIATE")
Path("{home}/writes").touch()
time.sleep(4)
database.rollback()
"""

FAILING = """
from airflow.sdk import dag, task

@dag(schedule=None)
def failing():
    @task
    def fail():
        raise ValueError("the reason")

    fail()

failing()
"""

PARENT_AND_CHILD = """
import subprocess, sys, time
# Neither the parent's environment nor its process group: only the family tie leads to it.
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env={}, start_new_session=True)
print(child.pid, flush=True)
time.sleep(60)
"""


class TestAirflow:
    pytestmark = needs_airflow

    def test_runs_and_defers_tasks(self, airflow: AirflowStack) -> None:
        airflow.add_dag("tiny.py", TINY)
        changes: list[TaskInstance] = []
        run = airflow.trigger("tiny", {"factor": 2})
        (run,) = airflow.wait_for_runs([run], on_change=changes.append)

        assert run.state == "success"
        assert {task.name for task in run.tasks if task.state == "success"} == {"double[0]", "double[1]", "wait"}
        assert ("wait", "deferred") in [(task.name, task.state) for task in changes]
        second = run.task("double", map_index=1)
        assert airflow.api.xcom(second) == 4
        assert "doubling 2" in airflow.api.log(second)
        assert "doubling 2" in airflow.task_log_file(second).read_text()
        with pytest.raises(LookupError, match="pushed no XCom 'nothing'"):
            airflow.api.xcom(second, "nothing")

    def test_tells_why_a_task_failed(self, airflow: AirflowStack) -> None:
        airflow.add_dag("failing.py", FAILING)
        run = airflow.run_dag("failing")
        assert (run.state, run.task("fail").state) == ("failed", "failed")
        assert "ValueError: the reason" in airflow.api.log(run.task("fail"))

    def test_tells_why_a_file_cannot_be_imported(self, airflow: AirflowStack) -> None:
        file = airflow.add_dag("broken.py", "from airflow.sdk import dag\nimport no_such_module\n")
        try:
            with pytest.raises(DagImportFailed, match="No module named 'no_such_module'"):
                airflow.wait_for_dag("broken")
        finally:
            # Else it would be the explanation of whatever another test waits for.
            file.unlink()
            airflow.wait_for("the import error to go", lambda: not airflow.api.import_errors() or None, timeout=30)

    def test_a_deferred_task_survives_its_triggerer(self, airflow: AirflowStack) -> None:
        airflow.add_dag("tiny.py", TINY)
        run = airflow.trigger("tiny", {"factor": 2})
        airflow.wait_for_task(run, "wait", "deferred")
        airflow.kill("triggerer")
        airflow.start("triggerer")
        (run,) = airflow.wait_for_runs([run])
        assert run.state == "success"

    def test_pauses_no_component_that_keeps_the_others_from_writing(self, airflow: AirflowStack) -> None:
        writes = airflow.home / "writes"
        file = airflow.add_dag("writer.py", WRITER.format(home=airflow.home))
        try:
            airflow.wait_for("the file to lock the database", lambda: writes.exists() or None, timeout=60)
            airflow.pause("dag-processor")
            airflow.api.call("POST", "variables", body={"key": "written", "value": "meanwhile"})
        finally:
            airflow.processes.resume()
            file.unlink()


class TestProcesses:
    def test_none_outlives_the_end(self, tmp_path: Path) -> None:
        with Processes(tmp_path, environment={}) as processes:
            processes.start("parent", sys.executable, "-c", PARENT_AND_CHILD)
            child = int(processes.wait_for("the child", lambda: processes.tail("parent") or None, timeout=10))
            assert child in {process.pid for process in processes.alive()}
        assert processes.alive() == set()
        assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE

    def test_a_kill_takes_the_children_along(self, tmp_path: Path) -> None:
        with Processes(tmp_path, environment={}) as processes:
            processes.start("parent", sys.executable, "-c", PARENT_AND_CHILD)
            processes.wait_for("the child", lambda: processes.tail("parent") or None, timeout=10)
            processes.kill("parent")
            assert processes.wait_for("the end", lambda: not processes.alive() or None, timeout=10)
            processes.check()  # it was ended on purpose: nobody misses it

    def test_a_death_explains_itself(self, tmp_path: Path) -> None:
        with Processes(tmp_path, environment={}) as processes:
            processes.start("frail", sys.executable, "-c", "import sys; sys.exit('out of luck')")
            with pytest.raises(ProcessDied, match=r"frail ended with exit code 1[\s\S]*frail\.log[\s\S]*out of luck"):
                processes.wait_for("something", lambda: None, timeout=10)

    def test_what_ends_is_started_again_but_not_for_ever(self, tmp_path: Path) -> None:
        with RestartedProcesses(tmp_path, environment={}) as processes:
            processes.start("frail", sys.executable, "-c", "print('up', flush=True)")
            processes.start("sound", sys.executable, "-c", "import time; time.sleep(60)")
            with pytest.raises(ProcessDied, match="frail ended with exit code 0"):
                processes.wait_for("something", lambda: None, timeout=60)
            assert processes.restarts == {"frail": 6}
            assert processes.tail("frail").splitlines() == ["up"] * 6

    def test_patience_ends(self, tmp_path: Path) -> None:
        with Processes(tmp_path, environment={}) as processes, pytest.raises(TimeoutError, match="for a miracle"):
            processes.wait_for("a miracle", lambda: None, timeout=0)
