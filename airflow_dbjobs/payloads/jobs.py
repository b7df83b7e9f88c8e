"""Jobs: their settings, and the requests that make, replace and change them."""

from typing import TYPE_CHECKING

from airflow_dbjobs.payloads.kinds import Bool, Int, Many, Map, One, Text, Texts
from airflow_dbjobs.payloads.structure import Structure, sdk, seed, v21, v22
from airflow_dbjobs.payloads.tasks import ComputeAndTask

if TYPE_CHECKING:
    from airflow_dbjobs.payloads.access import JobAccessControlRequest, JobRunAs, QueueSettings
    from airflow_dbjobs.payloads.clusters import NewCluster
    from airflow_dbjobs.payloads.notifications import (
        JobEmailNotifications,
        JobNotificationSettings,
        JobsHealthRules,
        WebhookNotifications,
    )
    from airflow_dbjobs.payloads.parameters import JobParameterDefinition
    from airflow_dbjobs.payloads.schedule import Continuous, CronSchedule, TriggerConfiguration, TriggerSettings
    from airflow_dbjobs.payloads.sources import GitSource, JobEnvironment, JobEnvironmentVariables
    from airflow_dbjobs.payloads.tasks import Task


class JobCluster(Structure):
    """A cluster that tasks of a job share."""

    job_cluster_key: Text = v21("Name by which tasks choose it: 1 to 100 letters, digits, _ and -. Required.")
    new_cluster: One["NewCluster"] = v21("The cluster. Its libraries belong to the tasks. Required.")
    serverless_compute_id: Text = sdk("Serverless compute in its place.")


class JobDeployment(Structure):
    """Who keeps a job's settings, where that is not the UI."""

    kind: Text = sdk("BUNDLE or SYSTEM_MANAGED. Required.")
    deployment_id: Text = sdk("The deployment.")
    metadata_file_path: Text = sdk("File with its metadata.")
    version_id: Text = sdk("Version of the deployment.")


class JobSettings(ComputeAndTask):
    """Settings of a job: a list of tasks, or as in API 2.0 one task's fields."""

    name: Text = seed("Name of the job, which need not be unique; at most 4096 bytes.", default="Untitled")
    description: Text = v21("What it is for, at most 27,700 characters.")
    tasks: Many["Task"] = v21("The tasks: at most 100, through API 2.2 at most 1000.")
    job_clusters: Many["JobCluster"] = v21("Clusters that tasks share, at most 100.", default="none")
    parameters: Many["JobParameterDefinition"] = v21("Parameters that a run may be given.", default="none")
    tags: Map = v21("Tags of the job and its clusters, at most 25.")
    timeout_seconds: Int = seed("Time after which a run is stopped; 0: never.", default="0", unit="s")
    max_retries: Int = seed("How often a failed run is run again (2.0; later per task); -1: for ever.", default="0")
    min_retry_interval_millis: Int = seed("Time between two attempts (2.0).", default="0", unit="ms")
    retry_on_timeout: Bool = seed("Whether a run is run again after a timeout (2.0).", default="false")
    max_concurrent_runs: Int = seed("Most runs at a time, 0 to 1000; 0 skips every run.", default="1")
    schedule: One["CronSchedule"] = seed("When it runs.", default="when it is asked to")
    trigger: One["TriggerSettings"] = v21("What event makes it run.")
    triggers: Many["TriggerConfiguration"] = v22("Several of those, instead of schedule, trigger and continuous.")
    continuous: One["Continuous"] = v21("Keeps one run active.")
    queue: One["QueueSettings"] = v21("Whether runs wait where they cannot start at once.")
    email_notifications: One["JobEmailNotifications"] = seed("Who is mailed.", default="nobody")
    webhook_notifications: One["WebhookNotifications"] = seed("Which destinations are notified.", default="none")
    notification_settings: One["JobNotificationSettings"] = seed("Which notifications are held back.")
    health: One["JobsHealthRules"] = seed("Thresholds beyond which a run is unhealthy.", default="none")
    git_source: One["GitSource"] = v21("Repository that tasks take their files from.")
    environments: Many["JobEnvironment"] = v21("Serverless environments that tasks name.")
    environment_variables: Many["JobEnvironmentVariables"] = v22("Environment variables that tasks name, at most 10.")
    run_as: One["JobRunAs"] = v21("As whom it runs.", default="its owner")
    format: Text = v21("SINGLE_TASK or MULTI_TASK; told in answers, ignored in requests.")
    edit_mode: Text = sdk("UI_LOCKED or EDITABLE.", default="EDITABLE")
    deployment: One["JobDeployment"] = sdk("Who keeps these settings.")
    parent_path: Text = sdk("Workspace folder that the job belongs to.")
    budget_policy_id: Text = sdk("Budget policy (deprecated: usage_policy_id).")
    usage_policy_id: Text = sdk("Usage policy.")
    performance_target: Text = sdk("STANDARD, PERFORMANCE_OPTIMIZED or COST_OPTIMIZED, on serverless compute.")
    duration_target: Text = sdk("How late a run may end, with COST_OPTIMIZED: NO_FLEXIBILITY, 4h, 12h, 24h or 72h.")


class CreateJob(JobSettings):
    """Body of jobs/create."""

    access_control_list: Many["JobAccessControlRequest"] = v21("Who may do what with the job.")


class ResetJob(Structure):
    """Body of jobs/reset, which replaces all settings of a job."""

    job_id: Int = seed("The job. Required.")
    new_settings: One["JobSettings"] = seed("Its new settings, in whole. Required.")


class UpdateJob(Structure):
    """Body of jobs/update, which replaces some settings; tasks and job_clusters are merged by their keys."""

    job_id: Int = seed("The job. Required.")
    new_settings: One["JobSettings"] = seed("The settings that change.")
    fields_to_remove: Texts = seed("Settings that go: names at the top level, tasks/<key> or job_clusters/<key>.")


class DeleteJob(Structure):
    """Body of jobs/delete."""

    job_id: Int = seed("The job. Required.")


class GetJob(Structure):
    """Query of jobs/get."""

    job_id: Int = seed("The job. Required.")
    page_token: Text = v22("Next page of a job of more than 100 tasks.")
    include_trigger_state: Bool = sdk("Whether the state of its triggers is told.")


class ListJobs(Structure):
    """Query of jobs/list."""

    limit: Int = v21("Jobs on a page, 1 to 100.", default="20")
    offset: Int = v21("First job to tell (deprecated since June 2023: page_token).", default="0")
    page_token: Text = v21("The page to tell.")
    name: Text = v21("Only jobs of this name, in any letter case.")
    expand_tasks: Bool = v21("Whether tasks and clusters are told.", default="false")
