"""A task: what it runs, on what, after what; as part of a job, of a one-time run, or alone as in API 2.0."""

from typing import TYPE_CHECKING

from airflow_dbjobs.payloads.kinds import Bool, Int, Many, One, Text
from airflow_dbjobs.payloads.structure import Structure, sdk, seed, v21, v22

if TYPE_CHECKING:
    from airflow_dbjobs.payloads.clusters import NewCluster
    from airflow_dbjobs.payloads.code_tasks import (
        CleanRoomsNotebookTask,
        DbtCloudTask,
        DbtPlatformTask,
        DbtTask,
        NotebookTask,
        PipelineTask,
        PythonOperatorTask,
        PythonWheelTask,
        RunJobTask,
        SparkJarTask,
        SparkPythonTask,
        SparkSubmitTask,
    )
    from airflow_dbjobs.payloads.flow_tasks import ConditionTask, ForEachTask, TaskDependency
    from airflow_dbjobs.payloads.gpu_tasks import AiRuntimeTask, Compute, GenAiComputeTask
    from airflow_dbjobs.payloads.libraries import Library
    from airflow_dbjobs.payloads.notifications import (
        JobsHealthRules,
        TaskEmailNotifications,
        TaskNotificationSettings,
        WebhookNotifications,
    )
    from airflow_dbjobs.payloads.sql_tasks import AlertTask, DashboardTask, PowerBiTask, SqlTask


class JobTask(Structure):
    """What is run: exactly one of the fields."""

    notebook_task: One["NotebookTask"] = seed("A notebook.")
    spark_jar_task: One["SparkJarTask"] = seed("A class in a JAR; not with notebook_task.")
    spark_python_task: One["SparkPythonTask"] = seed("A Python file.")
    spark_submit_task: One["SparkSubmitTask"] = seed("A call of spark-submit, on a new cluster.")
    pipeline_task: One["PipelineTask"] = seed("An update of a pipeline; needs no cluster.")
    run_job_task: One["RunJobTask"] = seed("Another job; needs no cluster.")
    python_wheel_task: One["PythonWheelTask"] = v21("An entry point of a wheel.")
    sql_task: One["SqlTask"] = v21("SQL on a warehouse; needs no cluster.")
    dbt_task: One["DbtTask"] = v21("dbt.")
    condition_task: One["ConditionTask"] = v21("A comparison; needs no cluster.")
    for_each_task: One["ForEachTask"] = v21("A task for each of several inputs, with a cluster of its own.")
    dashboard_task: One["DashboardTask"] = v21("A dashboard; needs no cluster.")
    alert_task: One["AlertTask"] = v22("An alert; needs no cluster.")
    power_bi_task: One["PowerBiTask"] = v21("A Power BI model; needs no cluster.")
    dbt_platform_task: One["DbtPlatformTask"] = v21("A job of dbt's platform; needs no cluster.")
    dbt_cloud_task: One["DbtCloudTask"] = v21("A job of dbt Cloud; needs no cluster.")
    clean_rooms_notebook_task: One["CleanRoomsNotebookTask"] = v21("A notebook of a clean room.")
    ai_runtime_task: One["AiRuntimeTask"] = v21("Training on GPUs.")
    gen_ai_compute_task: One["GenAiComputeTask"] = v21("Training on GPUs (deprecated).")
    python_operator_task: One["PythonOperatorTask"] = v21("A Python function.")


class ComputeAndTask(JobTask):
    """What is run, and on which cluster."""

    existing_cluster_id: Text = seed("An all-purpose cluster. Or give new_cluster.")
    new_cluster: One["NewCluster"] = seed("A cluster made for the run. Or give existing_cluster_id.")
    libraries: Many["Library"] = seed("Libraries to install on the cluster.", default="none")


class SubmitTask(ComputeAndTask):
    """A task of a one-time run."""

    task_key: Text = v21("Its name in the run: 1 to 100 letters, digits, _ and -; unique. Required.")
    description: Text = v21("What it is for, at most 4096 bytes.")
    depends_on: Many["TaskDependency"] = v21("Tasks that must be over first.", default="none")
    run_if: Text = v21("How those must have ended: a RunIf.", default="ALL_SUCCESS")
    disabled: Bool = sdk("Whether it is left out.", default="false")
    environment_key: Text = v21("Serverless environment, one of the environments.")
    environment_variables_key: Text = v22("Environment variables, one of the environment_variables.")
    compute: One["Compute"] = sdk("Serverless compute.")
    timeout_seconds: Int = v21("Time after which it is stopped; 0: never.", default="0", unit="s")
    max_retries: Int = v21("How often a failed task is run again; -1: for ever.", default="0")
    min_retry_interval_millis: Int = v21("Time from a failed start to the next.", default="0", unit="ms")
    retry_on_timeout: Bool = v21("Whether it is run again after a timeout.", default="false")
    disable_auto_optimization: Bool = sdk("Whether serverless retries are switched off.", default="false")
    email_notifications: One["TaskEmailNotifications"] = v21("Who is mailed.", default="nobody")
    webhook_notifications: One["WebhookNotifications"] = v21("Which destinations are notified.", default="none")
    notification_settings: One["TaskNotificationSettings"] = v21("Which notifications are held back.")
    health: One["JobsHealthRules"] = v21("Thresholds beyond which it is unhealthy.", default="none")


class Task(SubmitTask):
    """A task of a job, which may run on a cluster it shares with other tasks."""

    job_cluster_key: Text = v21("One of the job_clusters. Or give another compute.")
