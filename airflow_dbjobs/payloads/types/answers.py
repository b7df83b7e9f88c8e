"""Responses of the API about jobs, runs and permissions: dicts in which any field may be missing."""

from typing import TYPE_CHECKING, Annotated, Any, TypedDict

from airflow_dbjobs.payloads.field_types import sdk, v20, v21, v22
from airflow_dbjobs.payloads.types.tasks import Task

if TYPE_CHECKING:
    from airflow_dbjobs.payloads.types.clusters import ClusterInstance, ClusterSpec
    from airflow_dbjobs.payloads.types.jobs import JobCluster
    from airflow_dbjobs.payloads.types.parameters import JobParameter, RunParameters
    from airflow_dbjobs.payloads.types.schedule import CronSchedule
    from airflow_dbjobs.payloads.types.sources import GitSource, JobEnvironmentVariables
    from airflow_dbjobs.payloads.types.tasks import JobTask


class RunState(TypedDict, total=False):
    """State of a run: its life cycle state and its result."""

    life_cycle_state: Annotated[str, v20("A RunLifeCycleState; always given.")]
    result_state: Annotated[str, v20("A RunResultState; given once the result is known.")]
    state_message: Annotated[str, v20("A description for users.")]
    user_cancelled_or_timedout: Annotated[bool, v20("Whether a user cancelled it or it timed out.")]
    queue_reason: Annotated[str, v21("Why it is queued.")]


class QueueDetails(TypedDict, total=False):
    """Why a run is queued."""

    code: Annotated[str, v22("The limit that was reached, such as MAX_CONCURRENT_RUNS_REACHED.")]
    message: Annotated[str, v22("A description for users.")]


class TerminationDetails(TypedDict, total=False):
    """How a run ended."""

    code: Annotated[str, v22("The cause, such as RUN_EXECUTION_ERROR.")]
    type: Annotated[str, v22("Category of the cause: SUCCESS, CLIENT_ERROR, INTERNAL_ERROR or CLOUD_FAILURE.")]
    message: Annotated[str, v22("A description for users.")]


class RunStatus(TypedDict, total=False):
    """Status of a run, which replaces RunState in API 2.2."""

    state: Annotated[str, v22("BLOCKED, PENDING, QUEUED, RUNNING, TERMINATING, TERMINATED or WAITING.")]
    queue_details: Annotated[QueueDetails, v22("Why it is queued.")]
    termination_details: Annotated[TerminationDetails, v22("How it ended.")]


class RunTimes(TypedDict, total=False):
    """Times and durations of a run or a task run."""

    start_time: Annotated[int, v20("When it was started, before the cluster. Unit: ms since 1970.")]
    end_time: Annotated[int, v20("When it ended; 0 while it is active. Unit: ms since 1970.")]
    setup_duration: Annotated[int, v20("Time to start the cluster. Unit: ms.")]
    execution_duration: Annotated[int, v20("Time to execute the code. Unit: ms.")]
    cleanup_duration: Annotated[int, v20("Time to terminate the cluster. Unit: ms.")]
    run_duration: Annotated[int, v21("Total duration of a run with several tasks, including repairs. Unit: ms.")]
    queue_duration: Annotated[int, v21("Time in the queue. Unit: ms.")]


class RunTask(RunTimes, Task, total=False):
    """One attempt at one task of a run."""

    task_key: Annotated[str, v21("Its name in the run.")]  # type: ignore[misc]  # A response contains no templates.
    run_id: Annotated[int, v21("Id of the task run, with which to get its output.")]
    attempt_number: Annotated[int, v21("0 for the first attempt, 1 for the first retry or repair, ...")]
    state: Annotated[RunState, v21("Its state.")]
    status: Annotated[RunStatus, v22("Its status, which replaces the state.")]
    cluster_instance: Annotated["ClusterInstance", v21("Cluster that it used.")]
    git_source: Annotated["GitSource", v21("Repository that it took its files from.")]
    run_page_url: Annotated[str, v21("Its page.")]
    resolved_values: Annotated[Any, sdk("Its parameters with references filled in.")]
    effective_performance_target: Annotated[str, sdk("Performance target in force.")]


class RepairHistoryItem(TypedDict, total=False):
    """The original run, or a repair of it."""

    id: Annotated[int, v21("Id of the repair; absent for the original run.")]
    type: Annotated[str, v21("ORIGINAL or REPAIR.")]
    start_time: Annotated[int, v21("When it started. Unit: ms since 1970.")]
    end_time: Annotated[int, v21("When it ended; 0 while it is active. Unit: ms since 1970.")]
    state: Annotated[RunState, v21("Its state.")]
    status: Annotated[RunStatus, v22("Its status, which replaces the state.")]
    task_run_ids: Annotated[Any, v21("Ids of its task runs.")]
    effective_performance_target: Annotated[str, sdk("Performance target in force.")]


class Run(RunTimes, total=False):
    """A run, without its output."""

    job_id: Annotated[int, v20("The job; a one-time run has a hidden one.")]
    run_id: Annotated[int, v20("The run.")]
    number_in_job: Annotated[int, v20("Sequence number of the run in its job, from 1; equals run_id from API 2.1.")]
    original_attempt_run_id: Annotated[int, v20("Run id of the first attempt, if this is a retry; otherwise its own.")]
    attempt_number: Annotated[int, v20("0 for the first attempt, 1 for the first retry, ...")]
    job_run_id: Annotated[int, v21("The job run that a task run belongs to; for a job run, its own id.")]
    state: Annotated[RunState, v20("Its state.")]
    status: Annotated[RunStatus, v22("Its status, which replaces the state.")]
    schedule: Annotated["CronSchedule", v20("Schedule that started it.")]
    task: Annotated["JobTask", v20("What it runs (2.0).")]
    cluster_spec: Annotated["ClusterSpec", v20("Cluster that it was configured to use (2.0).")]
    cluster_instance: Annotated["ClusterInstance", v20("Cluster it uses (2.0).")]
    overriding_parameters: Annotated["RunParameters", v20("Parameters that it was given.")]
    trigger: Annotated[str, v20("What started it: a TriggerType.")]
    creator_user_name: Annotated[str, v20("Who launched it; absent if that user was deleted.")]
    run_name: Annotated[str, v20("Its name. Default: Untitled.")]
    run_page_url: Annotated[str, v20("Its page.")]
    run_type: Annotated[str, v20("JOB_RUN (run-now), SUBMIT_RUN (submitted) or WORKFLOW_RUN (dbutils.notebook.run).")]
    tasks: Annotated[list[RunTask], v21("Its tasks, one entry for each attempt.")]
    iterations: Annotated[list[RunTask], v21("Runs of a ForEachTask, one for each input.")]
    job_clusters: Annotated[list["JobCluster"], v21("Clusters that its tasks share.")]
    job_parameters: Annotated[list["JobParameter"], v21("Parameters of the job.")]
    git_source: Annotated["GitSource", v21("Repository that tasks take their files from.")]
    repair_history: Annotated[list[RepairHistoryItem], v21("The original run and its repairs; on request.")]
    trigger_info: Annotated[Any, v21("Details of what started it.")]
    description: Annotated[str, v21("Description of the job.")]
    effective_performance_target: Annotated[str, sdk("Performance target in force.")]
    effective_usage_policy_id: Annotated[str, sdk("Usage policy in force.")]
    environment_variables: Annotated[list["JobEnvironmentVariables"], v22("Environment variables that tasks name.")]
    duration_target: Annotated[str, v22("Delay allowed, with COST_OPTIMIZED.")]
    deployment_id: Annotated[str, sdk("The deployment that its job belongs to.")]
    version_id: Annotated[str, sdk("Version of that deployment.")]
    has_more: Annotated[bool, v22("Whether its arrays were truncated to 100 elements.")]
    next_page_token: Annotated[str, v22("Token of the page with the next elements.")]


class NotebookOutput(TypedDict, total=False):
    """What a notebook returned."""

    result: Annotated[str, v20("Value passed to dbutils.notebook.exit, up to 5 MB (1 MB in API 2.0).")]
    truncated: Annotated[bool, v20("Whether the result was truncated.")]


class RunJobOutput(TypedDict, total=False):
    """What a RunJobTask launched."""

    run_id: Annotated[int, v21("The other job's run.")]


class DbtOutput(TypedDict, total=False):
    """Artifacts of a dbt task."""

    artifacts_link: Annotated[str, v21("URL of the artifacts, valid for 30 minutes: a secret.")]
    artifacts_headers: Annotated[dict[str, Any], v21("HTTP headers to download them with: a secret.")]


class RunOutput(TypedDict, total=False):
    """Output of a task run."""

    metadata: Annotated[Run, v20("The run.")]
    error: Annotated[str, v20("Why it failed, in one line; may be absent.")]
    error_trace: Annotated[str, v21("Stack trace of the failure.")]
    notebook_output: Annotated[NotebookOutput, v20("What the notebook returned.")]
    logs: Annotated[str, v21("The last 5 MB of what a JAR or Python task printed.")]
    logs_truncated: Annotated[bool, v21("Whether the logs were truncated.")]
    info: Annotated[str, v21("Additional information.")]
    run_job_output: Annotated[RunJobOutput, v21("What a RunJobTask launched.")]
    dbt_output: Annotated[DbtOutput, v21("Artifacts of a dbt task.")]
    sql_output: Annotated[Any, v21("What a SqlTask returned.")]
    alert_output: Annotated[Any, sdk("Result of an AlertTask.")]
    dashboard_output: Annotated[Any, sdk("Result of a DashboardTask.")]
    dbt_cloud_output: Annotated[Any, sdk("Result of a DbtCloudTask.")]
    dbt_platform_output: Annotated[Any, sdk("Result of a DbtPlatformTask.")]
    clean_rooms_notebook_output: Annotated[Any, sdk("What a clean room's notebook returned.")]
    ai_runtime_task_output: Annotated[Any, sdk("What an AiRuntimeTask logged.")]


class ViewItem(TypedDict, total=False):
    """One exported view of a notebook's run."""

    content: Annotated[str, v20("The view, as HTML.")]
    name: Annotated[str, v20("Name of the notebook or dashboard.")]
    type: Annotated[str, v20("NOTEBOOK or DASHBOARD: a ViewType.")]


class Job(TypedDict, total=False):
    """A job, as returned by jobs/get and jobs/list."""

    job_id: Annotated[int, v20("The job.")]
    creator_user_name: Annotated[str, v20("Who created it; absent if that user was deleted.")]
    run_as: Annotated[str, v20("Identity that it runs as (2.0).")]
    run_as_user_name: Annotated[str, v21("Identity that it runs as.")]
    settings: Annotated[Any, v20("Its settings, a JobSettings without templates.")]
    created_time: Annotated[int, v20("When it was created. Unit: ms since 1970.")]
    effective_budget_policy_id: Annotated[str, sdk("Budget policy in force.")]
    effective_usage_policy_id: Annotated[str, sdk("Usage policy in force.")]
    has_more: Annotated[bool, v22("Whether its arrays were truncated to 100 elements.")]
    next_page_token: Annotated[str, v22("Token of the page with the next elements.")]
    trigger_state: Annotated[Any, sdk("State of its trigger.")]
    trigger_details: Annotated[Any, sdk("State and history of its triggers.")]


class JobPermission(TypedDict, total=False):
    """A permission level of a principal, and its origin."""

    permission_level: Annotated[str, sdk("The level: a JobPermissionLevel.")]
    inherited: Annotated[bool, sdk("Whether it is inherited from a parent object.")]
    inherited_from_object: Annotated[list[str], sdk("The parent objects that it is inherited from.")]


class JobAccessControlResponse(TypedDict, total=False):
    """All permission levels of one principal."""

    user_name: Annotated[str, sdk("The user.")]
    group_name: Annotated[str, sdk("The group.")]
    service_principal_name: Annotated[str, sdk("The service principal.")]
    display_name: Annotated[str, sdk("Name that the workspace shows.")]
    all_permissions: Annotated[list[JobPermission], sdk("The levels.")]


class JobPermissionsDescription(TypedDict, total=False):
    """A permission level that can be granted."""

    permission_level: Annotated[str, sdk("The level: a JobPermissionLevel.")]
    description: Annotated[str, sdk("What it allows.")]


class JobPermissions(TypedDict, total=False):
    """Response of permissions/jobs/{job_id}."""

    object_id: Annotated[str, sdk("The job, such as /jobs/17.")]
    object_type: Annotated[str, sdk("Always job.")]
    access_control_list: Annotated[list[JobAccessControlResponse], sdk("The permissions of each principal.")]
