"""Run functions of this file on Databricks: one for each element of a list, one for all, one that describes a run."""

from datetime import UTC, datetime

try:
    from airflow.sdk import dag, task
except ImportError:  # Airflow 2.11
    from airflow.decorators import dag, task

from airflow_dbjobs.payloads import NotebookTask, SubmitRun


@dag(
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    default_args={"polling_period_seconds": 2},
    tags=["databricks"],
)
def taskflow():
    # No cluster: on Databricks these functions run on serverless compute.
    @task.databricks_python(deferrable=True)
    def count_words(text: str) -> int:
        import re

        return len(re.findall(r"\w+", text))

    @task.databricks_python
    def add(counts: list[int]) -> int:
        return sum(counts)

    # This function runs in Airflow, and returns the payload of a run.
    @task.databricks_submit(timeout_seconds=300)
    def say(words: int) -> SubmitRun:
        notebook = NotebookTask(notebook_path="/notebooks/word_count", base_parameters={"text": "word " * words})
        return SubmitRun(notebook_task=notebook, run_name=f"say {words} words")

    say(add(count_words.expand(text=["a rose is", "a rose is a rose", "is a rose"])))


taskflow()
