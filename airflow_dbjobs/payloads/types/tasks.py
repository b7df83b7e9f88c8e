"""Tasks of jobs and one-time runs, and the fields of a single task, as in API 2.0."""

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
    """The type of a task: exactly one of the fields."""

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
    for_each_task: Annotated[One["ForEachTask"], v21("A loop over inputs; the task in it has its own cluster.")]
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
    """The type of a task and its cluster."""

    existing_cluster_id: Annotated[Text, v20("Id of an all-purpose cluster. Alternative: new_cluster.")]
    new_cluster: Annotated[One["NewCluster"], v20("A cluster to create for the run. Alternative: existing_cluster_id.")]
    libraries: Annotated[Many["Library"], v20("Libraries to install on the cluster. Default: none.")]


class SubmitTask(ComputeAndTask, total=False):
    """A task of a one-time run."""

    task_key: Annotated[Text, v21("Its name in the run: 1 to 100 letters, digits, _ and -; unique. Required.")]
    description: Annotated[Text, v21("Description, at most 4096 bytes.")]
    depends_on: Annotated[Many["TaskDependency"], v21("Dependencies on other tasks. Default: none.")]
    run_if: Annotated[Text, v21("Condition on their results: a RunIf. Default: ALL_SUCCESS.")]
    disabled: Annotated[Bool, sdk("Whether to skip it. Default: false.")]
    environment_key: Annotated[Text, v21("Key of one of the environments, for serverless compute.")]
    environment_variables_key: Annotated[Text, v22("Key of one of the environment_variables.")]
    compute: Annotated[One["Compute"], sdk("Serverless compute.")]
    timeout_seconds: Annotated[Int, v21("Time after which it is cancelled; 0: no timeout. Unit: s. Default: 0.")]
    max_retries: Annotated[Int, v21("Retries of a failed task; -1: unlimited. Default: 0.")]
    min_retry_interval_millis: Annotated[Int, v21("Time from one attempt's start to the next. Unit: ms. Default: 0.")]
    retry_on_timeout: Annotated[Bool, v21("Whether to retry after a timeout. Default: false.")]
    disable_auto_optimization: Annotated[Bool, sdk("Whether not to retry on serverless compute. Default: false.")]
    email_notifications: Annotated[One["TaskEmailNotifications"], v21("Recipients of emails. Default: none.")]
    webhook_notifications: Annotated[One["WebhookNotifications"], v21("Destinations to notify. Default: none.")]
    notification_settings: Annotated[One["TaskNotificationSettings"], v21("Notifications to suppress.")]
    health: Annotated[One["JobsHealthRules"], v21("Thresholds above which it is unhealthy. Default: none.")]


class Task(SubmitTask, total=False):
    """A task of a job, which can share a cluster with other tasks."""

    job_cluster_key: Annotated[Text, v21("Key of one of the job_clusters. Alternative: another cluster.")]
