"""Runs: the requests that launch, repair, list, stop and delete them."""

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
    """Body of jobs/runs/submit, a one-time run: a list of tasks, or as in API 2.0 one task's fields."""

    run_name: Annotated[Text, v20("Name of the run, at most 4096 bytes. Default: Untitled; an operator's task id.")]
    tasks: Annotated[Many["SubmitTask"], v21("The tasks: at most 100, through API 2.2 at most 1000.")]
    timeout_seconds: Annotated[Int, v20("Time after which the run is stopped; 0: never. Unit: s. Default: 0.")]
    idempotency_token: Annotated[Text, v20("At most 64 characters; a second request with it answers the first's run.")]
    webhook_notifications: Annotated[One["WebhookNotifications"], v20("Destinations to notify. Default: none.")]
    notification_settings: Annotated[One["JobNotificationSettings"], v20("Which notifications are held back.")]
    email_notifications: Annotated[One["JobEmailNotifications"], v21("Who is mailed. Default: nobody.")]
    health: Annotated[One["JobsHealthRules"], v21("Thresholds beyond which the run is unhealthy. Default: none.")]
    git_source: Annotated[One["GitSource"], v21("Repository that tasks take their files from.")]
    access_control_list: Annotated[Many["JobAccessControlRequest"], v21("Who may do what with the run.")]
    queue: Annotated[One["QueueSettings"], v21("Whether the run waits where it cannot start at once.")]
    run_as: Annotated[One["JobRunAs"], v21("As whom it runs. Default: who submits it.")]
    environments: Annotated[Many["JobEnvironment"], v21("Serverless environments that tasks name.")]
    environment_variables: Annotated[Many["JobEnvironmentVariables"], v22("Variables that tasks name, at most 10.")]
    budget_policy_id: Annotated[Text, v22("Budget policy (deprecated: usage_policy_id).")]
    usage_policy_id: Annotated[Text, v22("Usage policy.")]
    performance_target: Annotated[Text, v22("Serverless: STANDARD, PERFORMANCE_OPTIMIZED or COST_OPTIMIZED.")]
    duration_target: Annotated[Text, v22("Delay allowed, with COST_OPTIMIZED: NO_FLEXIBILITY, 4h, 12h, 24h or 72h.")]


class RunNow(RunParameters, total=False):
    """Body of jobs/run-now, which runs a job. The operators take a job_name in place of the job_id."""

    job_id: Annotated[Int, v20("The job. Required.")]
    job_name: Annotated[Text, sdk("Exact name of the job: the operator looks its id up, and does not send the name.")]
    idempotency_token: Annotated[Text, v20("At most 64 characters; a second request with it answers the first's run.")]
    job_parameters: Annotated[Map, v21("Parameters of the job, by name; not with the other parameters.")]
    queue: Annotated[One["QueueSettings"], v21("Whether the run waits where it cannot start at once.")]
    only: Annotated[Texts, v22("Tasks to run; +a, a+ and +a+ take along what is before or after a.")]
    performance_target: Annotated[Text, v22("Serverless: STANDARD, PERFORMANCE_OPTIMIZED or COST_OPTIMIZED.")]
    duration_target: Annotated[Text, v22("Delay allowed, with COST_OPTIMIZED: NO_FLEXIBILITY, 4h, 12h, 24h or 72h.")]


class RepairRun(RunParameters, total=False):
    """Body of jobs/runs/repair, which runs tasks of a run again, with the job's current settings."""

    run_id: Annotated[Int, v21("The run, which must be over. Required.")]
    rerun_tasks: Annotated[Texts, v21("Tasks to run again, each once. Or give rerun_all_failed_tasks.")]
    rerun_all_failed_tasks: Annotated[Bool, v21("Whether all that failed run again. Or give rerun_tasks.")]
    rerun_dependent_tasks: Annotated[Bool, v21("Whether what comes after them is run again too. Default: false.")]
    latest_repair_id: Annotated[Int, v21("The latest repair; required from the second repair on.")]
    job_parameters: Annotated[Map, v21("Parameters of the job, by name; not with the other parameters.")]
    performance_target: Annotated[Text, v22("Serverless: STANDARD, PERFORMANCE_OPTIMIZED or COST_OPTIMIZED.")]
    duration_target: Annotated[Text, v22("Delay allowed, with COST_OPTIMIZED: NO_FLEXIBILITY, 4h, 12h, 24h or 72h.")]


class CancelRun(TypedDict, total=False):
    """Body of jobs/runs/cancel."""

    run_id: Annotated[Int, v20("The run. Required.")]


class CancelAllRuns(TypedDict, total=False):
    """Body of jobs/runs/cancel-all."""

    job_id: Annotated[Int, v20("The job whose active runs are cancelled.")]
    all_queued_runs: Annotated[Bool, v21("Cancel queued runs: the job's, or without a job all. Default: false.")]


class DeleteRun(TypedDict, total=False):
    """Body of jobs/runs/delete."""

    run_id: Annotated[Int, v20("The run, which must be over. Required.")]


class GetRun(TypedDict, total=False):
    """Query of jobs/runs/get."""

    run_id: Annotated[Int, v20("The run, or a run of one task. Required.")]
    include_history: Annotated[Bool, v21("Whether to answer with its repairs. Default: false.")]
    include_resolved_values: Annotated[Bool, v21("Answer with parameters' references filled in. Default: false.")]
    page_token: Annotated[Text, v22("Next page of a run of more than 100 tasks.")]


class GetRunOutput(TypedDict, total=False):
    """Query of jobs/runs/get-output."""

    run_id: Annotated[Int, v20("The run of one task. Required.")]


class ExportRun(TypedDict, total=False):
    """Query of jobs/runs/export."""

    run_id: Annotated[Int, v20("The run of a notebook. Required.")]
    views_to_export: Annotated[Text, v20("CODE, DASHBOARDS or ALL. Default: CODE.")]


class ListRuns(TypedDict, total=False):
    """Query of jobs/runs/list."""

    job_id: Annotated[Int, v20("Only runs of this job.")]
    active_only: Annotated[Bool, v20("Only runs that are not over; not with completed_only. Default: false.")]
    completed_only: Annotated[Bool, v20("Only runs that are over; not with active_only. Default: false.")]
    run_type: Annotated[Text, v20("JOB_RUN, SUBMIT_RUN or WORKFLOW_RUN.")]
    limit: Annotated[Int, v20("Runs on a page: below 1000, from 2.1 on at most 25; 0: as many as may be. Default: 20.")]
    offset: Annotated[Int, v20("First run to list, from the latest (deprecated from 2.1 on: page_token). Default: 0.")]
    page_token: Annotated[Text, v21("The page to list.")]
    expand_tasks: Annotated[Bool, v21("Whether to answer with tasks and clusters. Default: false.")]
    start_time_from: Annotated[Int, v21("Only runs that started then or later. Unit: ms since 1970.")]
    start_time_to: Annotated[Int, v21("Only runs that started then or earlier. Unit: ms since 1970.")]
