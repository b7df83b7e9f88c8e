"""Run a job that exists on Databricks, with parameters, waiting in the triggerer: no worker is occupied."""

from datetime import UTC, datetime

try:
    from airflow.sdk import dag
except ImportError:  # Airflow 2.11
    from airflow.decorators import dag

from airflow_dbjobs.operators import DatabricksRunNowOperator


@dag(
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    params={"day": "2026-01-01", "region": "emea"},
    tags=["databricks"],
)
def run_job_deferrable():
    DatabricksRunNowOperator(
        task_id="report",
        job_name="daily-report",
        notebook_params={"day": "{{ params.day }}", "region": "{{ params.region }}"},
        deferrable=True,
        polling_period_seconds=2,
    )


run_job_deferrable()
