"""Wait for a task of a job that others run, then until the job is idle; {"since": ...} leaves earlier runs out."""

from datetime import UTC, datetime

try:
    from airflow.sdk import dag
except ImportError:  # Airflow 2.11
    from airflow.decorators import dag

from airflow_dbjobs.sensors import DatabricksJobIdleSensor, DatabricksRunSensor


@dag(
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    params={"since": "2026-01-01"},
    tags=["databricks"],
)
def wait_for_job():
    how = {"job_name": "nightly-load", "deferrable": True, "poke_interval": 2, "timeout": 3600}
    loaded = DatabricksRunSensor(task_id="loaded", since="{{ params.since }}", task_key="load", **how)
    loaded >> DatabricksJobIdleSensor(task_id="idle", **how)


wait_for_job()
