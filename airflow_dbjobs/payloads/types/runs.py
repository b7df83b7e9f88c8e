"""Runs: the requests that launch, repair, get, list, export, cancel and delete them."""

from typing import TYPE_CHECKING, Annotated, TypedDict

from airflow_dbjobs.payloads.field_types import Bool, Int, Many, Map, One, Text, Texts, sdk, v20, v21, v22
from airflow_dbjobs.payloads.types.parameters import RunParameters
from airflow_dbjobs.payloads.types.tasks import ComputeAndTask

if TYPE_CHECKING:
    from airflow_dbjobs.payloads.types.access import JobAccessControlRequest, JobRunAs, QueueSettings
    from airflow_dbjobs.payloads.types.notifications import (
        JobEmailNotifications,
        JobNotificationSettings,
        JobsHealthRules,
        WebhookNotifications,
    )
    from airflow_dbjobs.payloads.types.sources import GitSource, JobEnvironment, JobEnvironmentVariables
    from airflow_dbjobs.payloads.types.tasks import SubmitTask


class SubmitRun(ComputeAndTask, total=False):
    """Body of jobs/runs/submit, a one-time run with a list of tasks, or the fields of a single task, as in API 2.0."""

    run_name: Annotated[Text, v20("Name of the run, at most 4096 bytes. Default: Untitled; in operators, the task id.")]
    tasks: Annotated[Many["SubmitTask"], v21("The tasks: at most 100, or 1000 in API 2.2.")]
    timeout_seconds: Annotated[Int, v20("Time after which the run is cancelled; 0: no timeout. Unit: s. Default: 0.")]
    idempotency_token: Annotated[Text, v20("At most 64 characters; the same token again returns the first run.")]
    webhook_notifications: Annotated[One["WebhookNotifications"], v20("Destinations to notify. Default: none.")]
    notification_settings: Annotated[One["JobNotificationSettings"], v20("Notifications to suppress.")]
    email_notifications: Annotated[One["JobEmailNotifications"], v21("Recipients of emails. Default: none.")]
    health: Annotated[One["JobsHealthRules"], v21("Thresholds above which the run is unhealthy. Default: none.")]
    git_source: Annotated[One["GitSource"], v21("Git repository with the files of tasks.")]
    access_control_list: Annotated[Many["JobAccessControlRequest"], v21("Permissions on the run.")]
    queue: Annotated[One["QueueSettings"], v21("Whether the run is queued if it cannot start immediately.")]
    run_as: Annotated[One["JobRunAs"], v21("Identity that it runs as. Default: the caller.")]
    environments: Annotated[Many["JobEnvironment"], v21("Serverless environments that tasks refer to.")]
    environment_variables: Annotated[Many["JobEnvironmentVariables"], v22("Variables of tasks, at most 10 sets.")]
    budget_policy_id: Annotated[Text, v22("Budget policy (deprecated: usage_policy_id).")]
    usage_policy_id: Annotated[Text, v22("Usage policy.")]
    performance_target: Annotated[Text, v22("Serverless: STANDARD, PERFORMANCE_OPTIMIZED or COST_OPTIMIZED.")]
    duration_target: Annotated[Text, v22("Permitted delay, with COST_OPTIMIZED: NO_FLEXIBILITY, 4h, 12h, 24h or 72h.")]


class RunNow(RunParameters, total=False):
    """Body of jobs/run-now, which runs a job. The operators accept job_name instead of job_id."""

    job_id: Annotated[Int, v20("The job. Required.")]
    job_name: Annotated[Text, sdk("Exact name of the job: the operator looks up the id and does not send the name.")]
    idempotency_token: Annotated[Text, v20("At most 64 characters; the same token again returns the first run.")]
    job_parameters: Annotated[Map, v21("Parameters of the job, by name; not with the other parameters.")]
    queue: Annotated[One["QueueSettings"], v21("Whether the run is queued if it cannot start immediately.")]
    only: Annotated[Texts, v22("Tasks to run; +a adds the tasks before a, a+ those after it, +a+ both.")]
    performance_target: Annotated[Text, v22("Serverless: STANDARD, PERFORMANCE_OPTIMIZED or COST_OPTIMIZED.")]
    duration_target: Annotated[Text, v22("Permitted delay, with COST_OPTIMIZED: NO_FLEXIBILITY, 4h, 12h, 24h or 72h.")]


class RepairRun(RunParameters, total=False):
    """Body of jobs/runs/repair, which reruns tasks of a run with the current settings of the job."""

    run_id: Annotated[Int, v21("The run, which must have ended. Required.")]
    rerun_tasks: Annotated[Texts, v21("Tasks to rerun, each listed once. Alternative: rerun_all_failed_tasks.")]
    rerun_all_failed_tasks: Annotated[Bool, v21("Whether to rerun all failed tasks. Alternative: rerun_tasks.")]
    rerun_dependent_tasks: Annotated[Bool, v21("Whether to rerun dependent tasks, too. Default: false.")]
    latest_repair_id: Annotated[Int, v21("Id of the latest repair; required from the second repair.")]
    job_parameters: Annotated[Map, v21("Parameters of the job, by name; not with the other parameters.")]
    performance_target: Annotated[Text, v22("Serverless: STANDARD, PERFORMANCE_OPTIMIZED or COST_OPTIMIZED.")]
    duration_target: Annotated[Text, v22("Permitted delay, with COST_OPTIMIZED: NO_FLEXIBILITY, 4h, 12h, 24h or 72h.")]


class CancelRun(TypedDict, total=False):
    """Body of jobs/runs/cancel."""

    run_id: Annotated[Int, v20("The run. Required.")]


class CancelAllRuns(TypedDict, total=False):
    """Body of jobs/runs/cancel-all."""

    job_id: Annotated[Int, v20("The job whose active runs are cancelled.")]
    all_queued_runs: Annotated[Bool, v21("Whether to cancel queued runs; without job_id of all jobs. Default: false.")]


class DeleteRun(TypedDict, total=False):
    """Body of jobs/runs/delete."""

    run_id: Annotated[Int, v20("The run, which must have ended. Required.")]


class GetRun(TypedDict, total=False):
    """Query of jobs/runs/get."""

    run_id: Annotated[Int, v20("The run, or a task run. Required.")]
    include_history: Annotated[Bool, v21("Whether to return its repairs. Default: false.")]
    include_resolved_values: Annotated[Bool, v21("Whether to return parameters with their values. Default: false.")]
    page_token: Annotated[Text, v22("Token of the next page, for a run with more than 100 tasks.")]


class GetRunOutput(TypedDict, total=False):
    """Query of jobs/runs/get-output."""

    run_id: Annotated[Int, v20("The task run. Required.")]


class ExportRun(TypedDict, total=False):
    """Query of jobs/runs/export."""

    run_id: Annotated[Int, v20("The run of a notebook task. Required.")]
    views_to_export: Annotated[Text, v20("CODE, DASHBOARDS or ALL. Default: CODE.")]


class ListRuns(TypedDict, total=False):
    """Query of jobs/runs/list."""

    job_id: Annotated[Int, v20("Only runs of this job.")]
    active_only: Annotated[Bool, v20("Only active runs; not with completed_only. Default: false.")]
    completed_only: Annotated[Bool, v20("Only completed runs; not with active_only. Default: false.")]
    run_type: Annotated[Text, v20("JOB_RUN, SUBMIT_RUN or WORKFLOW_RUN.")]
    limit: Annotated[Int, v20("Runs per page: at most 999, or 25 from 2.1; 0: the maximum. Default: 20.")]
    offset: Annotated[Int, v20("Number of runs to skip (deprecated from 2.1: page_token). Default: 0.")]
    page_token: Annotated[Text, v21("Token of the page to list.")]
    expand_tasks: Annotated[Bool, v21("Whether to return tasks and clusters. Default: false.")]
    start_time_from: Annotated[Int, v21("Only runs that started then or later. Unit: ms since 1970.")]
    start_time_to: Annotated[Int, v21("Only runs that started then or earlier. Unit: ms since 1970.")]
