"""What the API answers about jobs, runs and permissions: dicts, of which any field may be missing."""

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
    """Where a run is in its life, and how it ended."""

    life_cycle_state: Annotated[str, v20("Where it is: a RunLifeCycleState; always there.")]
    result_state: Annotated[str, v20("How it ended: a RunResultState; there once it is known.")]
    state_message: Annotated[str, v20("A message for people.")]
    user_cancelled_or_timedout: Annotated[bool, v20("Whether a person, or its timeout, ended it.")]
    queue_reason: Annotated[str, v21("Why it is queued.")]


class QueueDetails(TypedDict, total=False):
    """Why a run is queued."""

    code: Annotated[str, v22("The limit that is reached, as in MAX_CONCURRENT_RUNS_REACHED.")]
    message: Annotated[str, v22("A message for people.")]


class TerminationDetails(TypedDict, total=False):
    """How a run ended."""

    code: Annotated[str, v22("The cause, as in RUN_EXECUTION_ERROR.")]
    type: Annotated[str, v22("Whose fault: SUCCESS, CLIENT_ERROR, INTERNAL_ERROR or CLOUD_FAILURE.")]
    message: Annotated[str, v22("A message for people.")]


class RunStatus(TypedDict, total=False):
    """Where a run is in its life, in newer words than RunState's."""

    state: Annotated[str, v22("BLOCKED, PENDING, QUEUED, RUNNING, TERMINATING, TERMINATED or WAITING.")]
    queue_details: Annotated[QueueDetails, v22("Why it is queued.")]
    termination_details: Annotated[TerminationDetails, v22("How it ended.")]


class RunTimes(TypedDict, total=False):
    """When a run, or a run of one task, took place and how long its parts took."""

    start_time: Annotated[int, v20("When it was started, its cluster's start included. Unit: ms since 1970.")]
    end_time: Annotated[int, v20("When it ended; 0 while it has not. Unit: ms since 1970.")]
    setup_duration: Annotated[int, v20("How long its cluster took to start. Unit: ms.")]
    execution_duration: Annotated[int, v20("How long its code took. Unit: ms.")]
    cleanup_duration: Annotated[int, v20("How long its cluster took to end. Unit: ms.")]
    run_duration: Annotated[int, v21("How long a run of several tasks took, repairs included. Unit: ms.")]
    queue_duration: Annotated[int, v21("How long it waited in the queue. Unit: ms.")]


class RunTask(RunTimes, Task, total=False):
    """One attempt at one task of a run."""

    task_key: Annotated[str, v21("Its name in the run.")]  # type: ignore[misc]  # In an answer it is no template.
    run_id: Annotated[int, v21("The task's own run, by which its output is asked for.")]
    attempt_number: Annotated[int, v21("0 for the first attempt, 1 for the first retry or repair, ...")]
    state: Annotated[RunState, v21("Its state.")]
    status: Annotated[RunStatus, v22("Its state, in newer words.")]
    cluster_instance: Annotated["ClusterInstance", v21("Cluster that it used.")]
    git_source: Annotated["GitSource", v21("Repository that it took its files from.")]
    run_page_url: Annotated[str, v21("Its page.")]
    resolved_values: Annotated[Any, sdk("Its parameters with references filled in.")]
    effective_performance_target: Annotated[str, sdk("Performance target in force.")]


class RepairHistoryItem(TypedDict, total=False):
    """The run as it was first, or one repair of it."""

    id: Annotated[int, v21("The repair; absent for the run as it was first.")]
    type: Annotated[str, v21("ORIGINAL or REPAIR.")]
    start_time: Annotated[int, v21("When it started. Unit: ms since 1970.")]
    end_time: Annotated[int, v21("When it ended; 0 while it has not. Unit: ms since 1970.")]
    state: Annotated[RunState, v21("Its state.")]
    status: Annotated[RunStatus, v22("Its state, in newer words.")]
    task_run_ids: Annotated[Any, v21("The runs of tasks that it consists of.")]
    effective_performance_target: Annotated[str, sdk("Performance target in force.")]


class Run(RunTimes, total=False):
    """A run, without its output."""

    job_id: Annotated[int, v20("The job; a one-time run has a hidden one.")]
    run_id: Annotated[int, v20("The run.")]
    number_in_job: Annotated[int, v20("Number of the run in its job, from 1; from 2.1 on the run_id.")]
    original_attempt_run_id: Annotated[int, v20("First attempt, where this is a retry; else the run itself.")]
    attempt_number: Annotated[int, v20("0 for the first attempt, 1 for the first retry, ...")]
    job_run_id: Annotated[int, v21("The job's run that this belongs to; for a job's run itself.")]
    state: Annotated[RunState, v20("Its state.")]
    status: Annotated[RunStatus, v22("Its state, in newer words.")]
    schedule: Annotated["CronSchedule", v20("Schedule that started it.")]
    task: Annotated["JobTask", v20("What it runs (2.0).")]
    cluster_spec: Annotated["ClusterSpec", v20("Cluster it was to run on (2.0).")]
    cluster_instance: Annotated["ClusterInstance", v20("Cluster it uses (2.0).")]
    overriding_parameters: Annotated["RunParameters", v20("Parameters that it was given.")]
    trigger: Annotated[str, v20("What started it: a TriggerType.")]
    creator_user_name: Annotated[str, v20("Who launched it; absent where that user was deleted.")]
    run_name: Annotated[str, v20("Its name. Default: Untitled.")]
    run_page_url: Annotated[str, v20("Its page.")]
    run_type: Annotated[str, v20("JOB_RUN (run-now), SUBMIT_RUN (submitted) or WORKFLOW_RUN (dbutils.notebook.run).")]
    tasks: Annotated[list[RunTask], v21("Its tasks, one entry for each attempt.")]
    iterations: Annotated[list[RunTask], v21("Runs of a for-each task's inputs.")]
    job_clusters: Annotated[list["JobCluster"], v21("Clusters that its tasks share.")]
    job_parameters: Annotated[list["JobParameter"], v21("Parameters of the job.")]
    git_source: Annotated["GitSource", v21("Repository that tasks take their files from.")]
    repair_history: Annotated[list[RepairHistoryItem], v21("The run as it was first, and its repairs; on request.")]
    trigger_info: Annotated[Any, v21("More on what started it.")]
    description: Annotated[str, v21("What the job is for.")]
    effective_performance_target: Annotated[str, sdk("Performance target in force.")]
    effective_usage_policy_id: Annotated[str, sdk("Usage policy in force.")]
    environment_variables: Annotated[list["JobEnvironmentVariables"], v22("Environment variables that tasks name.")]
    duration_target: Annotated[str, v22("Delay allowed, with COST_OPTIMIZED.")]
    deployment_id: Annotated[str, sdk("The deployment that its job belongs to.")]
    version_id: Annotated[str, sdk("Version of that deployment.")]
    has_more: Annotated[bool, v22("Whether its arrays were cut to 100 elements.")]
    next_page_token: Annotated[str, v22("The page with their next elements.")]


class NotebookOutput(TypedDict, total=False):
    """What a notebook returned."""

    result: Annotated[str, v20("Passed to dbutils.notebook.exit, if anything; cut at 1 MB by 2.0, else at 5 MB.")]
    truncated: Annotated[bool, v20("Whether the result was cut.")]


class RunJobOutput(TypedDict, total=False):
    """What a RunJobTask launched."""

    run_id: Annotated[int, v21("The other job's run.")]


class DbtOutput(TypedDict, total=False):
    """What dbt left behind."""

    artifacts_link: Annotated[str, v21("Address of the artifacts, good for 30 minutes: a secret.")]
    artifacts_headers: Annotated[dict[str, Any], v21("Headers to ask for them with: a secret.")]


class RunOutput(TypedDict, total=False):
    """Output of a run of one task."""

    metadata: Annotated[Run, v20("The run.")]
    error: Annotated[str, v20("Why it failed, in one line; may be absent.")]
    error_trace: Annotated[str, v21("The stack at the failure.")]
    notebook_output: Annotated[NotebookOutput, v20("What the notebook returned.")]
    logs: Annotated[str, v21("The last 5 MB of what a JAR or Python task printed.")]
    logs_truncated: Annotated[bool, v21("Whether the logs were cut.")]
    info: Annotated[str, v21("A remark.")]
    run_job_output: Annotated[RunJobOutput, v21("What a RunJobTask launched.")]
    dbt_output: Annotated[DbtOutput, v21("What dbt left behind.")]
    sql_output: Annotated[Any, v21("What a SqlTask returned.")]
    alert_output: Annotated[Any, sdk("What an AlertTask found.")]
    dashboard_output: Annotated[Any, sdk("What a DashboardTask drew.")]
    dbt_cloud_output: Annotated[Any, sdk("What dbt's platform did, by its former name.")]
    dbt_platform_output: Annotated[Any, sdk("What dbt's platform did.")]
    clean_rooms_notebook_output: Annotated[Any, sdk("What a clean room's notebook returned.")]
    ai_runtime_task_output: Annotated[Any, sdk("What an AiRuntimeTask logged.")]


class ViewItem(TypedDict, total=False):
    """One exported view of a notebook's run."""

    content: Annotated[str, v20("The view, as HTML.")]
    name: Annotated[str, v20("Name of the notebook or dashboard.")]
    type: Annotated[str, v20("NOTEBOOK or DASHBOARD: a ViewType.")]


class Job(TypedDict, total=False):
    """A job, as jobs/get and jobs/list answer with it."""

    job_id: Annotated[int, v20("The job.")]
    creator_user_name: Annotated[str, v20("Who made it; absent where that user was deleted.")]
    run_as: Annotated[str, v20("As whom it runs (2.0).")]
    run_as_user_name: Annotated[str, v21("As whom it runs.")]
    settings: Annotated[Any, v20("Its settings: a JobSettings, whose fields are no templates here.")]
    created_time: Annotated[int, v20("When it was made. Unit: ms since 1970.")]
    effective_budget_policy_id: Annotated[str, sdk("Budget policy in force.")]
    effective_usage_policy_id: Annotated[str, sdk("Usage policy in force.")]
    has_more: Annotated[bool, v22("Whether its arrays were cut to 100 elements.")]
    next_page_token: Annotated[str, v22("The page with their next elements.")]
    trigger_state: Annotated[Any, sdk("State of its trigger.")]
    trigger_details: Annotated[Any, sdk("State and history of its triggers.")]


class JobPermission(TypedDict, total=False):
    """A level that a principal has, and where from."""

    permission_level: Annotated[str, sdk("The level: a JobPermissionLevel.")]
    inherited: Annotated[bool, sdk("Whether it comes from a parent object.")]
    inherited_from_object: Annotated[list[str], sdk("The parent objects that it comes from.")]


class JobAccessControlResponse(TypedDict, total=False):
    """All levels of one principal."""

    user_name: Annotated[str, sdk("The user.")]
    group_name: Annotated[str, sdk("The group.")]
    service_principal_name: Annotated[str, sdk("The service principal.")]
    display_name: Annotated[str, sdk("Name that the workspace shows.")]
    all_permissions: Annotated[list[JobPermission], sdk("The levels.")]


class JobPermissionsDescription(TypedDict, total=False):
    """A level that a principal may be given."""

    permission_level: Annotated[str, sdk("The level: a JobPermissionLevel.")]
    description: Annotated[str, sdk("What it allows.")]


class JobPermissions(TypedDict, total=False):
    """Answer of permissions/jobs/{job_id}."""

    object_id: Annotated[str, sdk("The job, as in /jobs/17.")]
    object_type: Annotated[str, sdk("Always job.")]
    access_control_list: Annotated[list[JobAccessControlResponse], sdk("Who has which levels.")]
