"""Runs: the requests that launch, repair, list, stop and delete them."""

from typing import TYPE_CHECKING

from airflow_dbjobs.payloads.kinds import Bool, Int, Many, Map, One, Text, Texts
from airflow_dbjobs.payloads.parameters import RunParameters
from airflow_dbjobs.payloads.structure import Structure, sdk, seed, v21, v22
from airflow_dbjobs.payloads.tasks import ComputeAndTask

if TYPE_CHECKING:
    from airflow_dbjobs.payloads.access import JobAccessControlRequest, JobRunAs, QueueSettings
    from airflow_dbjobs.payloads.notifications import (
        JobEmailNotifications,
        JobNotificationSettings,
        JobsHealthRules,
        WebhookNotifications,
    )
    from airflow_dbjobs.payloads.sources import GitSource, JobEnvironment, JobEnvironmentVariables
    from airflow_dbjobs.payloads.tasks import SubmitTask


class SubmitRun(ComputeAndTask):
    """Body of jobs/runs/submit, a one-time run: a list of tasks, or as in API 2.0 one task's fields."""

    run_name: Text = seed("Name of the run, at most 4096 bytes.", default="Untitled; an operator takes its task id")
    tasks: Many["SubmitTask"] = v21("The tasks: at most 100, through API 2.2 at most 1000.")
    timeout_seconds: Int = seed("Time after which the run is stopped; 0: never.", default="0", unit="s")
    idempotency_token: Text = seed("At most 64 characters; a second request with it answers the first's run.")
    webhook_notifications: One["WebhookNotifications"] = seed("Which destinations are notified.", default="none")
    notification_settings: One["JobNotificationSettings"] = seed("Which notifications are held back.")
    email_notifications: One["JobEmailNotifications"] = v21("Who is mailed.", default="nobody")
    health: One["JobsHealthRules"] = v21("Thresholds beyond which the run is unhealthy.", default="none")
    git_source: One["GitSource"] = v21("Repository that tasks take their files from.")
    access_control_list: Many["JobAccessControlRequest"] = v21("Who may do what with the run.")
    queue: One["QueueSettings"] = v21("Whether the run waits where it cannot start at once.")
    run_as: One["JobRunAs"] = v21("As whom it runs.", default="who submits it")
    environments: Many["JobEnvironment"] = v21("Serverless environments that tasks name.")
    environment_variables: Many["JobEnvironmentVariables"] = v22("Environment variables that tasks name, at most 10.")
    budget_policy_id: Text = v22("Budget policy (deprecated: usage_policy_id).")
    usage_policy_id: Text = v22("Usage policy.")
    performance_target: Text = v22("STANDARD, PERFORMANCE_OPTIMIZED or COST_OPTIMIZED, on serverless compute.")
    duration_target: Text = v22("How late the run may end, with COST_OPTIMIZED: NO_FLEXIBILITY, 4h, 12h, 24h or 72h.")


class RunNow(RunParameters):
    """Body of jobs/run-now, which runs a job. The operators take a job_name in place of the job_id."""

    job_id: Int = seed("The job. Required.")
    job_name: Text = sdk("Exact name of the job: the operator looks its id up, and does not send the name.")
    idempotency_token: Text = seed("At most 64 characters; a second request with it answers the first's run.")
    job_parameters: Map = v21("Parameters of the job, by name; not with the other parameters.", secret=True)
    queue: One["QueueSettings"] = v21("Whether the run waits where it cannot start at once.")
    only: Texts = v22("Tasks to run; +a, a+ and +a+ take along what is before or after a.")
    performance_target: Text = v22("STANDARD, PERFORMANCE_OPTIMIZED or COST_OPTIMIZED, on serverless compute.")
    duration_target: Text = v22("How late the run may end, with COST_OPTIMIZED: NO_FLEXIBILITY, 4h, 12h, 24h or 72h.")


class RepairRun(RunParameters):
    """Body of jobs/runs/repair, which runs tasks of a run again, with the job's current settings."""

    run_id: Int = v21("The run, which must be over. Required.")
    rerun_tasks: Texts = v21("Tasks to run again, each once. Or give rerun_all_failed_tasks.")
    rerun_all_failed_tasks: Bool = v21("Whether all that failed are run again. Or give rerun_tasks.", default="false")
    rerun_dependent_tasks: Bool = v21("Whether what comes after them is run again too.", default="false")
    latest_repair_id: Int = v21("The latest repair; required from the second repair on.")
    job_parameters: Map = v21("Parameters of the job, by name; not with the other parameters.", secret=True)
    performance_target: Text = v22("STANDARD, PERFORMANCE_OPTIMIZED or COST_OPTIMIZED, on serverless compute.")
    duration_target: Text = v22("How late the run may end, with COST_OPTIMIZED: NO_FLEXIBILITY, 4h, 12h, 24h or 72h.")


class CancelRun(Structure):
    """Body of jobs/runs/cancel."""

    run_id: Int = seed("The run. Required.")


class CancelAllRuns(Structure):
    """Body of jobs/runs/cancel-all."""

    job_id: Int = seed("The job whose active runs are cancelled.")
    all_queued_runs: Bool = v21("Whether queued runs are cancelled: the job's, or without a job all.", default="false")


class DeleteRun(Structure):
    """Body of jobs/runs/delete."""

    run_id: Int = seed("The run, which must be over. Required.")


class GetRun(Structure):
    """Query of jobs/runs/get."""

    run_id: Int = seed("The run, or a run of one task. Required.")
    include_history: Bool = v21("Whether repairs are told.", default="false")
    include_resolved_values: Bool = v21("Whether parameters are told with references filled in.", default="false")
    page_token: Text = v22("Next page of a run of more than 100 tasks.")


class GetRunOutput(Structure):
    """Query of jobs/runs/get-output."""

    run_id: Int = seed("The run of one task. Required.")


class ExportRun(Structure):
    """Query of jobs/runs/export."""

    run_id: Int = seed("The run of a notebook. Required.")
    views_to_export: Text = seed("CODE, DASHBOARDS or ALL.", default="CODE")


class ListRuns(Structure):
    """Query of jobs/runs/list."""

    job_id: Int = seed("Only runs of this job.")
    active_only: Bool = seed("Only runs that are not over; not with completed_only.", default="false")
    completed_only: Bool = seed("Only runs that are over; not with active_only.", default="false")
    run_type: Text = seed("JOB_RUN, SUBMIT_RUN or WORKFLOW_RUN.")
    limit: Int = seed("Runs on a page: below 1000, from 2.1 on at most 25; 0: as many as may be.", default="20")
    offset: Int = seed("First run to tell, from the latest (deprecated from 2.1 on: page_token).", default="0")
    page_token: Text = v21("The page to tell.")
    expand_tasks: Bool = v21("Whether tasks and clusters are told.", default="false")
    start_time_from: Int = v21("Only runs that started then or later.", unit="ms since 1970")
    start_time_to: Int = v21("Only runs that started then or earlier.", unit="ms since 1970")
