"""Functions of a DAG file that run on Databricks, on a real Airflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from airflow_stack import AirflowStack, WorkspaceServer

pytestmark = [pytest.mark.airflow, pytest.mark.xdist_group("airflow-2")]

DAGS = """
from airflow.sdk import dag, task

HOW = {"polling_period_seconds": 0.5, "deferrable": True}

@dag(schedule=None, default_args=HOW)
def functions_meet():
    @task.databricks_python
    def length(word: str):
        import re
        return len(re.sub("[^a-z]", "", word))

    @task.databricks_python
    def total(lengths):
        return sum(lengths)

    @task.databricks_submit
    def again(number):
        return {"notebook_task": {"notebook_path": "/again", "base_parameters": {"number": number}}}

    again(total(length.expand(word=["a1", "bb2", "ccc3"])))

@dag(schedule=None, default_args=HOW)
def function_fails():
    @task.databricks_python
    def load(day):
        rows = []
        assert rows, f"no rows on {day}"  # the line

    load("{{ dag_run.conf.day }}")

functions_meet(), function_fails()
"""


@pytest.fixture(scope="module", autouse=True)
def _dags(airflow: AirflowStack, workspace_server: WorkspaceServer) -> None:
    notebook = "# Databricks notebook source\ndbutils.notebook.exit(dbutils.widgets.get('number') + ' again')\n"
    (workspace_server.root / "again.py").write_text(notebook)
    airflow.add_dag("functions.py", DAGS)


def test_mapped_functions_run_on_databricks_and_their_results_meet(airflow: AirflowStack) -> None:
    run = airflow.run_dag("functions_meet")
    logs = {task.name: airflow.api.log(task) for task in run.tasks}
    assert run.state == "success", logs
    assert sorted(airflow.api.xcom(task) for task in run.tasks if task.name.startswith("length")) == [1, 2, 3]
    assert (airflow.api.xcom(run.task("total")), airflow.api.xcom(run.task("again"))) == (6, "6 again")
    assert "will resume on a worker" not in logs["total"], "its success ends in the triggerer"


def test_a_failing_function_names_the_line_of_the_dag_file(airflow: AirflowStack) -> None:
    run = airflow.run_dag("function_fails", {"day": "monday"})
    assert run.state == "failed"
    line = 1 + DAGS[: DAGS.index("# the line")].count("\n")
    place = f"({airflow.dags_folder / 'functions.py'}, line {line}, in load)"
    assert f"AssertionError: no rows on monday {place}" in airflow.api.log(run.task("load"))
