"""Wait for a run that was started elsewhere: trigger this DAG with {"run_id": ...}."""

from datetime import UTC, datetime

try:
    from airflow.sdk import dag
except ImportError:  # Airflow 2.11
    from airflow.decorators import dag

from airflow_dbjobs.sensors import DatabricksRunSensor


@dag(
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    params={"run_id": 0},
    tags=["databricks"],
)
def wait_for_run():
    DatabricksRunSensor(
        task_id="wait",
        run_id="{{ params.run_id }}",
        deferrable=True,
        poke_interval=2,
        timeout=3600,
    )


wait_for_run()
