"""Run tasks as one Databricks job. One fails at first: Airflow's retry repairs it, in the same run of the job."""

from datetime import UTC, datetime, timedelta

try:
    from airflow.sdk import dag, task
except ImportError:  # Airflow 2.11
    from airflow.decorators import dag, task

from airflow_dbjobs.operators import DatabricksNotebookOperator, DatabricksTaskOperator, DatabricksWorkflowTaskGroup

# One cluster for all tasks of a run. Tasks that name no cluster run on serverless compute.
CLUSTER = {
    "job_cluster_key": "small",
    "new_cluster": {"spark_version": "16.4.x-scala2.12", "node_type_id": "i3.xlarge", "num_workers": 1},
}


@dag(
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    params={"day": "2026-01-01"},
    default_args={"deferrable": True, "polling_period_seconds": 2},
    tags=["databricks"],
)
def workflow_group():
    with DatabricksWorkflowTaskGroup(group_id="sales", job_clusters=[CLUSTER]) as sales:
        extract = DatabricksTaskOperator(
            task_id="extract",
            job_cluster_key="small",
            task_config={
                "spark_python_task": {"python_file": "/jobs/load_table.py", "parameters": ["--table", "orders"]}
            },
        )
        regions = [
            DatabricksNotebookOperator(
                task_id=region,
                notebook_path="/notebooks/sales",
                job_cluster_key="small",
                notebook_params={
                    "region": region,
                    # Reaches the job as a parameter of it, so that its settings are the same for each day.
                    "day": "{{ params.day }}",
                    # Databricks replaces this one.
                    "repairs": "{{job.repair_count}}",
                },
                retries=1,
                retry_delay=timedelta(seconds=1),
            )
            for region in ("emea", "apac")
        ]
        load = DatabricksTaskOperator(
            task_id="load",
            job_cluster_key="small",
            task_config={
                "spark_python_task": {"python_file": "/jobs/load_table.py", "parameters": ["--table", "sales"]}
            },
        )
        # Runs even if another task fails.
        cleanup = DatabricksNotebookOperator(
            task_id="cleanup",
            notebook_path="/notebooks/clean_up",
            job_cluster_key="small",
            trigger_rule="all_done",
        )
        extract >> regions >> load >> cleanup

    @task
    def tell(result: dict) -> str:
        return f"sales of {result['region']} on {result['day']}: {result['sales']}"

    sales >> tell(regions[0].output)


workflow_group()
