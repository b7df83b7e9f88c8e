"""Submit a notebook as a one-time run, and pass on what it returned."""

from datetime import UTC, datetime

try:
    from airflow.sdk import dag, task
except ImportError:  # Airflow 2.11
    from airflow.decorators import dag, task

from airflow_dbjobs.operators import DatabricksSubmitRunOperator


@dag(
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    params={"text": "a rose is a rose is a rose"},
    tags=["databricks"],
)
def submit_notebook():
    count = DatabricksSubmitRunOperator(
        task_id="count_words",
        # No cluster: on Databricks the notebook then runs on serverless compute.
        notebook_task={
            "notebook_path": "/notebooks/word_count",
            "base_parameters": {"text": "{{ params.text }}"},
        },
        timeout_seconds=300,
        polling_period_seconds=2,
    )

    @task
    def tell(result: dict) -> str:
        # The notebook ended with dbutils.notebook.exit(json.dumps({...})): here is the dict.
        return f"{result['words']} words, most of them {result['most_common']!r}"

    tell(count.output)


submit_notebook()
