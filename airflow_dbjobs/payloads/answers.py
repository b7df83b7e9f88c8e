"""What the API answers about jobs, runs and permissions."""

from typing import TYPE_CHECKING

from airflow_dbjobs.payloads.structure import Answer, sdk, seed, v21, v22
from airflow_dbjobs.payloads.tasks import Task
from airflow_dbjobs.payloads.told import Anything, Bool, Int, Many, Map, One, Text, Texts

if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from airflow_dbjobs.payloads.clusters import ClusterInstance, ClusterSpec
    from airflow_dbjobs.payloads.jobs import JobCluster
    from airflow_dbjobs.payloads.parameters import JobParameter, RunParameters
    from airflow_dbjobs.payloads.schedule import CronSchedule
    from airflow_dbjobs.payloads.sources import GitSource, JobEnvironmentVariables
    from airflow_dbjobs.payloads.tasks import JobTask

    # What a request may hold here (a template, a mapping) would have to be ruled out at each place of a program.
    Settings: TypeAlias = Any

    class TaskFields(Answer):
        """A task's fields, likewise."""

        task_key: Text

else:
    Settings = One["JobSettings"]
    TaskFields = Task


class RunState(Answer):
    """Where a run is in its life, and how it ended."""

    life_cycle_state: Text = seed("Where it is: a RunLifeCycleState; always told.")
    result_state: Text = seed("How it ended: a RunResultState; told once it is known.")
    state_message: Text = seed("What a person may want to read about it.")
    user_cancelled_or_timedout: Bool = seed("Whether a person, or its timeout, ended it.")
    queue_reason: Text = v21("Why it is queued.")


class QueueDetails(Answer):
    """Why a run is queued."""

    code: Text = v22("The limit that is reached, as in MAX_CONCURRENT_RUNS_REACHED.")
    message: Text = v22("What a person may want to read about it.")


class TerminationDetails(Answer):
    """How a run ended."""

    code: Text = v22("The cause, as in RUN_EXECUTION_ERROR.")
    type: Text = v22("Whose fault: SUCCESS, CLIENT_ERROR, INTERNAL_ERROR or CLOUD_FAILURE.")
    message: Text = v22("What a person may want to read about it.")


class RunStatus(Answer):
    """Where a run is in its life, in newer words than RunState's."""

    state: Text = v22("BLOCKED, PENDING, QUEUED, RUNNING, TERMINATING, TERMINATED or WAITING.")
    queue_details: One["QueueDetails"] = v22("Why it is queued.")
    termination_details: One["TerminationDetails"] = v22("How it ended.")


class RunTimes(Answer):
    """When a run, or a run of one task, took place and how long its parts took."""

    start_time: Int = seed("When it was started, its cluster's start included.", unit="ms since 1970")
    end_time: Int = seed("When it ended; 0 while it has not.", unit="ms since 1970")
    setup_duration: Int = seed("How long its cluster took to start.", unit="ms")
    execution_duration: Int = seed("How long its code took.", unit="ms")
    cleanup_duration: Int = seed("How long its cluster took to end.", unit="ms")
    run_duration: Int = v21("How long a run of several tasks took, repairs included.", unit="ms")
    queue_duration: Int = v21("How long it waited in the queue.", unit="ms")


class RunTask(RunTimes, TaskFields):
    """One attempt at one task of a run."""

    run_id: Int = v21("The task's own run, by which its output is asked for.")
    attempt_number: Int = v21("0 for the first attempt, 1 for the first retry or repair, ...")
    state: One["RunState"] = v21("Its state.")
    status: One["RunStatus"] = v22("Its state, in newer words.")
    cluster_instance: One["ClusterInstance"] = v21("Cluster that it used.")
    git_source: One["GitSource"] = v21("Repository that it took its files from.")
    run_page_url: Text = v21("Its page.")
    resolved_values: Anything = sdk("Its parameters with references filled in.", secret=True)
    effective_performance_target: Text = sdk("Performance target in force.")


class RepairHistoryItem(Answer):
    """The run as it was first, or one repair of it."""

    id: Int = v21("The repair; absent for the run as it was first.")
    type: Text = v21("ORIGINAL or REPAIR.")
    start_time: Int = v21("When it started.", unit="ms since 1970")
    end_time: Int = v21("When it ended; 0 while it has not.", unit="ms since 1970")
    state: One["RunState"] = v21("Its state.")
    status: One["RunStatus"] = v22("Its state, in newer words.")
    task_run_ids: Anything = v21("The runs of tasks that it consists of.")
    effective_performance_target: Text = sdk("Performance target in force.")


class Run(RunTimes):
    """A run, without its output."""

    job_id: Int = seed("The job; a one-time run has a hidden one.")
    run_id: Int = seed("The run.")
    number_in_job: Int = seed("Number of the run in its job, from 1; from 2.1 on the run_id.")
    original_attempt_run_id: Int = seed("First attempt, where this is a retry; else the run itself.")
    attempt_number: Int = seed("0 for the first attempt, 1 for the first retry, ...")
    job_run_id: Int = v21("The job's run that this belongs to; for a job's run itself.")
    state: One["RunState"] = seed("Its state.")
    status: One["RunStatus"] = v22("Its state, in newer words.")
    schedule: One["CronSchedule"] = seed("Schedule that started it.")
    task: One["JobTask"] = seed("What it runs (2.0).")
    cluster_spec: One["ClusterSpec"] = seed("Cluster it was to run on (2.0).")
    cluster_instance: One["ClusterInstance"] = seed("Cluster it uses (2.0).")
    overriding_parameters: One["RunParameters"] = seed("Parameters that it was given.")
    trigger: Text = seed("What started it: a TriggerType.")
    creator_user_name: Text = seed("Who launched it; absent where that user was deleted.")
    run_name: Text = seed("Its name.", default="Untitled")
    run_page_url: Text = seed("Its page.")
    run_type: Text = seed("JOB_RUN (run-now), SUBMIT_RUN (submitted) or WORKFLOW_RUN (dbutils.notebook.run).")
    tasks: Many["RunTask"] = v21("Its tasks, one entry for each attempt.")
    iterations: Many["RunTask"] = v21("Runs of a for-each task's inputs.")
    job_clusters: Many["JobCluster"] = v21("Clusters that its tasks share.")
    job_parameters: Many["JobParameter"] = v21("Parameters of the job.")
    git_source: One["GitSource"] = v21("Repository that tasks take their files from.")
    repair_history: Many["RepairHistoryItem"] = v21("The run as it was first, and its repairs; on request.")
    trigger_info: Anything = v21("More on what started it.")
    description: Text = v21("What the job is for.")
    effective_performance_target: Text = sdk("Performance target in force.")
    effective_usage_policy_id: Text = sdk("Usage policy in force.")
    environment_variables: Many["JobEnvironmentVariables"] = v22("Environment variables that tasks name.")
    duration_target: Text = v22("How late it may end, with COST_OPTIMIZED.")
    deployment_id: Text = sdk("The deployment that its job belongs to.")
    version_id: Text = sdk("Version of that deployment.")
    has_more: Bool = v22("Whether its arrays were cut to 100 elements.")
    next_page_token: Text = v22("The page with their next elements.")


class NotebookOutput(Answer):
    """What a notebook returned."""

    result: Text = seed(
        "What it passed to dbutils.notebook.exit; absent where it passed nothing."
        " Cut at 1 MB by the 2.0 reference, at 5 MB by later versions."
    )
    truncated: Bool = seed("Whether the result was cut.")


class RunJobOutput(Answer):
    """What a RunJobTask launched."""

    run_id: Int = v21("The other job's run.")


class DbtOutput(Answer):
    """What dbt left behind."""

    artifacts_link: Text = v21("Address of the artifacts, good for 30 minutes: a secret.", secret=True)
    artifacts_headers: Map = v21("Headers to ask for them with: a secret.", secret=True)


class RunOutput(Answer):
    """Output of a run of one task."""

    metadata: One["Run"] = seed("The run.")
    error: Text = seed("Why it failed, in one line; may be absent.")
    error_trace: Text = v21("The stack at the failure.")
    notebook_output: One["NotebookOutput"] = seed("What the notebook returned.")
    logs: Text = v21("The last 5 MB of what a JAR or Python task printed.")
    logs_truncated: Bool = v21("Whether the logs were cut.")
    info: Text = v21("A remark.")
    run_job_output: One["RunJobOutput"] = v21("What a RunJobTask launched.")
    dbt_output: One["DbtOutput"] = v21("What dbt left behind.")
    sql_output: Anything = v21("What a SqlTask returned.")
    alert_output: Anything = sdk("What an AlertTask found.")
    dashboard_output: Anything = sdk("What a DashboardTask drew.")
    dbt_cloud_output: Anything = sdk("What dbt's platform did, by its former name.")
    dbt_platform_output: Anything = sdk("What dbt's platform did.")
    clean_rooms_notebook_output: Anything = sdk("What a clean room's notebook returned.")
    ai_runtime_task_output: Anything = sdk("What an AiRuntimeTask logged.")


class ViewItem(Answer):
    """One exported view of a notebook's run."""

    content: Text = seed("The view, as HTML.")
    name: Text = seed("Name of the notebook or dashboard.")
    type: Text = seed("NOTEBOOK or DASHBOARD: a ViewType.")


class Job(Answer):
    """A job, as jobs/get and jobs/list tell it."""

    job_id: Int = seed("The job.")
    creator_user_name: Text = seed("Who made it; absent where that user was deleted.")
    run_as: Text = seed("As whom it runs (2.0).")
    run_as_user_name: Text = v21("As whom it runs.")
    settings: Settings = seed("Its settings.")
    created_time: Int = seed("When it was made.", unit="ms since 1970")
    effective_budget_policy_id: Text = sdk("Budget policy in force.")
    effective_usage_policy_id: Text = sdk("Usage policy in force.")
    has_more: Bool = v22("Whether its arrays were cut to 100 elements.")
    next_page_token: Text = v22("The page with their next elements.")
    trigger_state: Anything = sdk("State of its trigger.")
    trigger_details: Anything = sdk("State and history of its triggers.")


class JobPermission(Answer):
    """A level that a principal has, and where from."""

    permission_level: Text = sdk("The level: a JobPermissionLevel.")
    inherited: Bool = sdk("Whether it comes from a parent object.")
    inherited_from_object: Texts = sdk("The parent objects that it comes from.")


class JobAccessControlResponse(Answer):
    """All levels of one principal."""

    user_name: Text = sdk("The user.")
    group_name: Text = sdk("The group.")
    service_principal_name: Text = sdk("The service principal.")
    display_name: Text = sdk("Name that the workspace shows.")
    all_permissions: Many["JobPermission"] = sdk("The levels.")


class JobPermissionsDescription(Answer):
    """A level that a principal may be given."""

    permission_level: Text = sdk("The level: a JobPermissionLevel.")
    description: Text = sdk("What it allows.")


class JobPermissions(Answer):
    """Answer of permissions/jobs/{job_id}."""

    object_id: Text = sdk("The job, as in /jobs/17.")
    object_type: Text = sdk("Always job.")
    access_control_list: Many["JobAccessControlResponse"] = sdk("Who has which levels.")
