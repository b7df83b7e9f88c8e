"""A task: what it runs, on what, after what; as part of a job, of a one-time run, or alone as in API 2.0."""

from typing import TYPE_CHECKING, Annotated, TypedDict

from airflow_dbjobs.payloads.field_types import Bool, Int, Many, One, Text, sdk, v20, v21, v22

if TYPE_CHECKING:
    from airflow_dbjobs.payloads.types.clusters import NewCluster
    from airflow_dbjobs.payloads.types.code_tasks import (
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
    from airflow_dbjobs.payloads.types.flow_tasks import ConditionTask, ForEachTask, TaskDependency
    from airflow_dbjobs.payloads.types.gpu_tasks import AiRuntimeTask, Compute, GenAiComputeTask
    from airflow_dbjobs.payloads.types.libraries import Library
    from airflow_dbjobs.payloads.types.notifications import (
        JobsHealthRules,
        TaskEmailNotifications,
        TaskNotificationSettings,
        WebhookNotifications,
    )
    from airflow_dbjobs.payloads.types.sql_tasks import AlertTask, DashboardTask, PowerBiTask, SqlTask


class JobTask(TypedDict, total=False):
    """What is run: exactly one of the fields."""

    notebook_task: Annotated[One["NotebookTask"], v20("A notebook.")]
    spark_jar_task: Annotated[One["SparkJarTask"], v20("A class in a JAR; not with notebook_task.")]
    spark_python_task: Annotated[One["SparkPythonTask"], v20("A Python file.")]
    spark_submit_task: Annotated[One["SparkSubmitTask"], v20("A call of spark-submit, on a new cluster.")]
    pipeline_task: Annotated[One["PipelineTask"], v20("An update of a pipeline; needs no cluster.")]
    run_job_task: Annotated[One["RunJobTask"], v20("Another job; needs no cluster.")]
    python_wheel_task: Annotated[One["PythonWheelTask"], v21("An entry point of a wheel.")]
    sql_task: Annotated[One["SqlTask"], v21("SQL on a warehouse; needs no cluster.")]
    dbt_task: Annotated[One["DbtTask"], v21("dbt.")]
    condition_task: Annotated[One["ConditionTask"], v21("A comparison; needs no cluster.")]
    for_each_task: Annotated[One["ForEachTask"], v21("A task for each of several inputs, with a cluster of its own.")]
    dashboard_task: Annotated[One["DashboardTask"], v21("A dashboard; needs no cluster.")]
    alert_task: Annotated[One["AlertTask"], v22("An alert; needs no cluster.")]
    power_bi_task: Annotated[One["PowerBiTask"], v21("A Power BI model; needs no cluster.")]
    dbt_platform_task: Annotated[One["DbtPlatformTask"], v21("A job of dbt's platform; needs no cluster.")]
    dbt_cloud_task: Annotated[One["DbtCloudTask"], v21("A job of dbt Cloud; needs no cluster.")]
    clean_rooms_notebook_task: Annotated[One["CleanRoomsNotebookTask"], v21("A notebook of a clean room.")]
    ai_runtime_task: Annotated[One["AiRuntimeTask"], v21("Training on GPUs.")]
    gen_ai_compute_task: Annotated[One["GenAiComputeTask"], v21("Training on GPUs (deprecated).")]
    python_operator_task: Annotated[One["PythonOperatorTask"], v21("A Python function.")]


class ComputeAndTask(JobTask, total=False):
    """What is run, and on which cluster."""

    existing_cluster_id: Annotated[Text, v20("An all-purpose cluster. Or give new_cluster.")]
    new_cluster: Annotated[One["NewCluster"], v20("A cluster made for the run. Or give existing_cluster_id.")]
    libraries: Annotated[Many["Library"], v20("Libraries to install on the cluster. Default: none.")]


class SubmitTask(ComputeAndTask, total=False):
    """A task of a one-time run."""

    task_key: Annotated[Text, v21("Its name in the run: 1 to 100 letters, digits, _ and -; unique. Required.")]
    description: Annotated[Text, v21("What it is for, at most 4096 bytes.")]
    depends_on: Annotated[Many["TaskDependency"], v21("Tasks that must be over first. Default: none.")]
    run_if: Annotated[Text, v21("How those must have ended: a RunIf. Default: ALL_SUCCESS.")]
    disabled: Annotated[Bool, sdk("Whether it is left out. Default: false.")]
    environment_key: Annotated[Text, v21("Serverless environment, one of the environments.")]
    environment_variables_key: Annotated[Text, v22("Environment variables, one of the environment_variables.")]
    compute: Annotated[One["Compute"], sdk("Serverless compute.")]
    timeout_seconds: Annotated[Int, v21("Time after which it is stopped; 0: never. Unit: s. Default: 0.")]
    max_retries: Annotated[Int, v21("How often a failed task is run again; -1: for ever. Default: 0.")]
    min_retry_interval_millis: Annotated[Int, v21("Time from a failed start to the next. Unit: ms. Default: 0.")]
    retry_on_timeout: Annotated[Bool, v21("Whether it is run again after a timeout. Default: false.")]
    disable_auto_optimization: Annotated[Bool, sdk("Whether serverless retries are switched off. Default: false.")]
    email_notifications: Annotated[One["TaskEmailNotifications"], v21("Who is mailed. Default: nobody.")]
    webhook_notifications: Annotated[One["WebhookNotifications"], v21("Destinations to notify. Default: none.")]
    notification_settings: Annotated[One["TaskNotificationSettings"], v21("Which notifications are held back.")]
    health: Annotated[One["JobsHealthRules"], v21("Thresholds beyond which it is unhealthy. Default: none.")]


class Task(SubmitTask, total=False):
    """A task of a job, which may run on a cluster it shares with other tasks."""

    job_cluster_key: Annotated[Text, v21("One of the job_clusters. Or give another compute.")]
