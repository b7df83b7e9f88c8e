"""TaskFlow decorators by `dag.test()` on a real Airflow with its database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from airflow_stack import WorkspaceServer
from dag_script import run_script

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.airflow, pytest.mark.every_airflow]

DAGS = """
from datetime import datetime, timezone
try:
    from airflow.sdk import dag, task
except ImportError:  # Airflow 2.11
    from airflow.decorators import dag, task

HOW = {"schedule": None, "start_date": datetime(2024, 1, 1, tzinfo=timezone.utc)}
HOW |= {"default_args": {"polling_period_seconds": 0.2}}

@dag(**HOW)
def mapped():
    @task
    def names():
        return ["a", "bb", "ccc"]

    @task.databricks_python
    def length(name, factor, ds=None):
        import re
        assert re.fullmatch("[0-9-]{10}", ds)
        return len(name) * factor

    @task.databricks_python(deferrable=True)
    def total(lengths: list[int], day: str) -> dict[str, int]:
        return {"sum": sum(lengths), "digits": len(day)}

    @task.databricks_submit(json={"run_name": "of json"})
    def again(result):
        assert result == {"sum": 60, "digits": 10}, result
        return {"notebook_task": {"notebook_path": "{{ params.path }}"}}

    @task
    def tell(result, sum):
        print("told", result, sum)

    both = total(length.partial(factor=10).expand(name=names()), "{{ ds }}")
    again.override(params={"path": "/again"})(both)
    tell(both, both["sum"])

@dag(**HOW)
def failing():
    @task.databricks_python
    def divide(a, b):
        def inner():
            return a / b  # the line
        return inner()

    divide(1, 0)

mapped(), failing()
"""

SCRIPT = """
from airflow.utils.db import initdb
initdb()
import decorated
for make in (decorated.mapped, decorated.failing):
    run = make().test()
    print("the end of", run.dag_id, getattr(run.state, "value", run.state))
"""


def test_functions_run_on_databricks_and_their_results_meet(tmp_path: Path) -> None:
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace" / "again.py").write_text("# Databricks notebook source\n")
    (tmp_path / "dags").mkdir()
    file = tmp_path / "dags" / "decorated.py"
    file.write_text(DAGS)
    with WorkspaceServer(tmp_path / "workspace", tmp_path / "logs") as server:
        said = run_script(tmp_path, tmp_path / "dags", server.connection, "-c", SCRIPT)
        runs = sorted(server.runs(), key=lambda run: int(run["run_id"]))
        # The log, in which the error is too, has a form of its own in each Airflow.
        failed = server.call("GET", f"jobs/runs/get?run_id={runs[-1]['run_id']}")["tasks"][0]["run_id"]
        error = server.call("GET", f"jobs/runs/get-output?run_id={failed}")["error"]
    ends = [line.removeprefix("the end of ") for line in said.splitlines() if line.startswith("the end of ")]
    assert ends == ["mapped success", "failing failed"], said
    assert "told {'sum': 60, 'digits': 10} 60" in said
    assert [run["run_name"] for run in runs] == ["length", "length", "length", "total", "of json", "divide"]
    line = 1 + DAGS[: DAGS.index("# the line")].count("\n")
    assert error == f"ZeroDivisionError: division by zero ({file}, line {line}, in inner)"
    assert len(list((tmp_path / "workspace").rglob("airflow_dbjobs/length_*.py"))) == 1
