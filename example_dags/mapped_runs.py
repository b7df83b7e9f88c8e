"""Launch one run for each element of a list that is known only when the DAG runs."""

from datetime import UTC, datetime

try:
    from airflow.sdk import dag, task
except ImportError:  # Airflow 2.11
    from airflow.decorators import dag, task

from airflow_dbjobs.operators import DatabricksSubmitRunOperator


@dag(schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False, tags=["databricks"])
def mapped_runs():
    @task
    def tables_to_load() -> list[dict]:
        return [
            {"python_file": "/jobs/load_table.py", "parameters": ["--table", table]}
            for table in ("customers", "orders", "items")
        ]

    DatabricksSubmitRunOperator.partial(task_id="load", deferrable=True, polling_period_seconds=2).expand(
        spark_python_task=tables_to_load()
    )


mapped_runs()
