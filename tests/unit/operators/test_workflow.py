"""Workflow groups: what launch makes of the members, and what a group refuses."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow import DAG

from airflow_dbjobs.operators import DatabricksNotebookOperator, DatabricksWorkflowTaskGroup

if TYPE_CHECKING:
    from airflow_context import Scene


def new_dag(**kwargs: Any) -> DAG:
    return DAG("nightly", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), **kwargs)


def test_runs_the_members_as_one_job(scene: Scene) -> None:
    with new_dag() as dag, DatabricksWorkflowTaskGroup(group_id="etl"):
        extract = DatabricksNotebookOperator(task_id="extract", **scene.notebook("", "extract", gated=False))
        load = DatabricksNotebookOperator(task_id="load", **scene.notebook("", "load", gated=False))
        extract >> load
    launch = dag.get_task("etl.launch")
    metadata = launch.execute(scene.context)
    assert metadata == {
        "conn_id": "databricks_default",
        "job_id": metadata["job_id"],
        "run_id": scene.ti.xcom["run_id"],
    }
