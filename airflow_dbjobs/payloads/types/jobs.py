"""Jobs: their settings, and the requests that create, replace, update, delete, get and list them."""

from typing import TYPE_CHECKING, Annotated, TypedDict

from airflow_dbjobs.payloads.field_types import Bool, Int, Many, Map, One, Text, Texts, sdk, v20, v21, v22
from airflow_dbjobs.payloads.types.tasks import ComputeAndTask

if TYPE_CHECKING:
    from airflow_dbjobs.payloads.types.access import JobAccessControlRequest, JobRunAs, QueueSettings
    from airflow_dbjobs.payloads.types.clusters import NewCluster
    from airflow_dbjobs.payloads.types.notifications import (
        JobEmailNotifications,
        JobNotificationSettings,
        JobsHealthRules,
        WebhookNotifications,
    )
    from airflow_dbjobs.payloads.types.parameters import JobParameterDefinition
    from airflow_dbjobs.payloads.types.schedule import Continuous, CronSchedule, TriggerConfiguration, TriggerSettings
    from airflow_dbjobs.payloads.types.sources import GitSource, JobEnvironment, JobEnvironmentVariables
    from airflow_dbjobs.payloads.types.tasks import Task


class JobCluster(TypedDict, total=False):
    """A cluster that tasks of a job share."""

    job_cluster_key: Annotated[Text, v21("Key that tasks refer to: 1 to 100 letters, digits, _ and -. Required.")]
    new_cluster: Annotated[One["NewCluster"], v21("The cluster; libraries belong to the tasks. Required.")]
    serverless_compute_id: Annotated[Text, sdk("Serverless compute to use instead.")]


class JobDeployment(TypedDict, total=False):
    """The deployment that manages the settings of a job, such as a bundle."""

    kind: Annotated[Text, sdk("BUNDLE or SYSTEM_MANAGED. Required.")]
    deployment_id: Annotated[Text, sdk("The deployment.")]
    metadata_file_path: Annotated[Text, sdk("File with its metadata.")]
    version_id: Annotated[Text, sdk("Version of the deployment.")]


class JobSettings(ComputeAndTask, total=False):
    """Settings of a job with a list of tasks, or with the fields of a single task, as in API 2.0."""

    name: Annotated[Text, v20("Name of the job, not necessarily unique; at most 4096 bytes. Default: Untitled.")]
    description: Annotated[Text, v21("Description, at most 27,700 characters.")]
    tasks: Annotated[Many["Task"], v21("The tasks: at most 100, or 1000 in API 2.2.")]
    job_clusters: Annotated[Many["JobCluster"], v21("Clusters that tasks share, at most 100. Default: none.")]
    parameters: Annotated[Many["JobParameterDefinition"], v21("Parameters of its runs. Default: none.")]
    tags: Annotated[Map, v21("Tags of the job and its clusters, at most 25.")]
    timeout_seconds: Annotated[Int, v20("Time after which a run is cancelled; 0: no timeout. Unit: s. Default: 0.")]
    max_retries: Annotated[Int, v20("Retries of a failed run (2.0; from 2.1 per task); -1: unlimited. Default: 0.")]
    min_retry_interval_millis: Annotated[Int, v20("Time between two attempts (2.0). Unit: ms. Default: 0.")]
    retry_on_timeout: Annotated[Bool, v20("Whether to retry a run after a timeout (2.0). Default: false.")]
    max_concurrent_runs: Annotated[Int, v20("Maximum of concurrent runs, 0 to 1000; 0 skips all runs. Default: 1.")]
    schedule: Annotated[One["CronSchedule"], v20("Schedule. Default: runs start on request only.")]
    trigger: Annotated[One["TriggerSettings"], v21("Event that starts a run.")]
    triggers: Annotated[Many["TriggerConfiguration"], v22("Triggers, instead of schedule, trigger and continuous.")]
    continuous: Annotated[One["Continuous"], v21("Keeps one run active at all times.")]
    queue: Annotated[One["QueueSettings"], v21("Whether runs are queued if they cannot start immediately.")]
    email_notifications: Annotated[One["JobEmailNotifications"], v20("Recipients of emails. Default: none.")]
    webhook_notifications: Annotated[One["WebhookNotifications"], v20("Destinations to notify. Default: none.")]
    notification_settings: Annotated[One["JobNotificationSettings"], v20("Notifications to suppress.")]
    health: Annotated[One["JobsHealthRules"], v20("Thresholds above which a run is unhealthy. Default: none.")]
    git_source: Annotated[One["GitSource"], v21("Git repository with the files of tasks.")]
    environments: Annotated[Many["JobEnvironment"], v21("Serverless environments that tasks refer to.")]
    environment_variables: Annotated[Many["JobEnvironmentVariables"], v22("Variables of tasks, at most 10 sets.")]
    run_as: Annotated[One["JobRunAs"], v21("Identity that it runs as. Default: its owner.")]
    format: Annotated[Text, v21("SINGLE_TASK or MULTI_TASK; in responses only, ignored in requests.")]
    edit_mode: Annotated[Text, sdk("UI_LOCKED or EDITABLE. Default: EDITABLE.")]
    deployment: Annotated[One["JobDeployment"], sdk("The deployment that manages these settings.")]
    parent_path: Annotated[Text, sdk("Workspace folder that the job belongs to.")]
    budget_policy_id: Annotated[Text, sdk("Budget policy (deprecated: usage_policy_id).")]
    usage_policy_id: Annotated[Text, sdk("Usage policy.")]
    performance_target: Annotated[Text, sdk("Serverless: STANDARD, PERFORMANCE_OPTIMIZED or COST_OPTIMIZED.")]
    duration_target: Annotated[Text, sdk("Permitted delay, with COST_OPTIMIZED: NO_FLEXIBILITY, 4h, 12h, 24h or 72h.")]


class CreateJob(JobSettings, total=False):
    """Body of jobs/create."""

    access_control_list: Annotated[Many["JobAccessControlRequest"], v21("Permissions on the job.")]


class ResetJob(TypedDict, total=False):
    """Body of jobs/reset, which replaces all settings of a job."""

    job_id: Annotated[Int, v20("The job. Required.")]
    new_settings: Annotated[One["JobSettings"], v20("Its complete new settings. Required.")]


class UpdateJob(TypedDict, total=False):
    """Body of jobs/update, which replaces some settings; tasks and job_clusters are merged by their keys."""

    job_id: Annotated[Int, v20("The job. Required.")]
    new_settings: Annotated[One["JobSettings"], v20("The settings to change.")]
    fields_to_remove: Annotated[Texts, v20("Settings to remove: top-level names, tasks/<key> or job_clusters/<key>.")]


class DeleteJob(TypedDict, total=False):
    """Body of jobs/delete."""

    job_id: Annotated[Int, v20("The job. Required.")]


class GetJob(TypedDict, total=False):
    """Query of jobs/get."""

    job_id: Annotated[Int, v20("The job. Required.")]
    page_token: Annotated[Text, v22("Token of the next page, for a job with more than 100 tasks.")]
    include_trigger_state: Annotated[Bool, sdk("Whether to return the state of its triggers.")]


class ListJobs(TypedDict, total=False):
    """Query of jobs/list."""

    limit: Annotated[Int, v21("Jobs on a page, 1 to 100. Default: 20.")]
    offset: Annotated[Int, v21("First job to list (deprecated since June 2023: page_token). Default: 0.")]
    page_token: Annotated[Text, v21("Token of the page to list.")]
    name: Annotated[Text, v21("Only jobs with this name, ignoring case.")]
    expand_tasks: Annotated[Bool, v21("Whether to return tasks and clusters. Default: false.")]
