"""Keep a job as it is written here, with typed payloads, and run it: it is written only when the DAG file changes."""

from datetime import UTC, datetime

try:
    from airflow.sdk import dag
except ImportError:  # Airflow 2.11
    from airflow.decorators import dag

from airflow_dbjobs.operators import DatabricksCreateJobsOperator, DatabricksRunNowOperator
from airflow_dbjobs.payloads import JobParameterDefinition, NotebookTask, SparkPythonTask, Task, TaskDependency


@dag(
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    params={"day": "2026-01-01"},
    tags=["databricks"],
)
def keep_job():
    keep = DatabricksCreateJobsOperator(
        task_id="keep",
        name="weekly-report",
        tasks=[
            Task(
                task_key="load",
                spark_python_task=SparkPythonTask(python_file="/jobs/load_table.py", parameters=["--table", "orders"]),
            ),
            Task(
                task_key="report",
                depends_on=[TaskDependency(task_key="load")],
                notebook_task=NotebookTask(notebook_path="/notebooks/report", base_parameters={"region": "emea"}),
            ),
        ],
        json={"parameters": [JobParameterDefinition(name="day", default="")]},
    )
    DatabricksRunNowOperator(
        task_id="run",
        job_id=keep.output,
        # What changes from run to run is a parameter: in the job's settings it would change the job each time.
        job_parameters={"day": "{{ params.day }}"},
        deferrable=True,
        polling_period_seconds=2,
    )


keep_job()
