"""The fixtures for users' tests of DAGs, as these use them: whole DAGs by `dag.test()` on a scripted workspace."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from airflow_dbjobs.operators import DatabricksSubmitRunOperator

try:
    from airflow.sdk import DAG
except ImportError:  # Airflow 2.11
    from airflow import DAG

if TYPE_CHECKING:
    from airflow_dbjobs.local_workspace.testing.in_airflow import DagRunner
    from airflow_dbjobs.local_workspace.testing.workspace import ScriptedWorkspace

pytestmark = [pytest.mark.every_airflow, pytest.mark.filterwarnings("default")]


def dag_of(**fields: Any) -> Any:
    notebook = {"notebook_path": "/load", "base_parameters": {"day": "{{ params.day }}"}}
    with DAG("nightly", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), params={"day": "?"}) as dag:
        DatabricksSubmitRunOperator(task_id="load", run_name="load", notebook_task=notebook, **fields)
    return dag


class TestRunDag:
    def test_returns_what_a_script_returns(
        self, databricks_workspace: ScriptedWorkspace, run_dag: DagRunner, deferrable: bool
    ) -> None:
        databricks_workspace.task("load", returns={"rows": 3}, seconds=3600)
        databricks_workspace.fault("runs/submit", cut="after")
        run = run_dag(dag_of(deferrable=deferrable), conf={"day": "2026-01-01"})
        assert (run.state, run.states, run.result("load")) == ("success", {"load": "success"}, {"rows": 3})
        launched = databricks_workspace.assert_launched("load", times=1, parameters={"day": "2026-01-01"})
        assert 3600 <= launched.seconds < 3700

    def test_retries_a_lost_cluster(self, databricks_workspace: ScriptedWorkspace, run_dag: DagRunner) -> None:
        databricks_workspace.task("load", error="Cluster lost", termination_code="CLUSTER_ERROR", times=1)
        assert run_dag(dag_of(retries=1)).state == "success"
        databricks_workspace.assert_launched("load", times=2)

    def test_cancels_at_the_execution_timeout(
        self, databricks_workspace: ScriptedWorkspace, run_dag: DagRunner, deferrable: bool
    ) -> None:
        databricks_workspace.task("load", seconds=3600)
        run = run_dag(dag_of(deferrable=deferrable, execution_timeout=timedelta(minutes=10)))
        assert run.state == "failed"
        databricks_workspace.assert_canceled("load")
        databricks_workspace.assert_nothing_active()
