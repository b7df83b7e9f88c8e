"""Words of the API. A field takes the word itself too, and newer words than these are not refused by the models."""

from __future__ import annotations

from enum import StrEnum


class PauseStatus(StrEnum):
    """Whether a schedule or trigger is held."""

    PAUSED = "PAUSED"
    UNPAUSED = "UNPAUSED"


class AzureAvailability(StrEnum):
    """What kind of machines a cluster on Azure gets. Source: Jobs API 2.0 reference."""

    SPOT_AZURE = "SPOT_AZURE"
    ON_DEMAND_AZURE = "ON_DEMAND_AZURE"
    # Spot machines, or on-demand ones where there are none.
    SPOT_WITH_FALLBACK_AZURE = "SPOT_WITH_FALLBACK_AZURE"


class RunIf(StrEnum):
    """How the tasks that a task depends on must have ended. Source: Jobs API 2.1."""

    ALL_SUCCESS = "ALL_SUCCESS"
    AT_LEAST_ONE_SUCCESS = "AT_LEAST_ONE_SUCCESS"
    # None failed, and at least one ran.
    NONE_FAILED = "NONE_FAILED"
    ALL_DONE = "ALL_DONE"
    AT_LEAST_ONE_FAILED = "AT_LEAST_ONE_FAILED"
    ALL_FAILED = "ALL_FAILED"


class ConditionTaskOp(StrEnum):
    """How a condition compares: the first two strings, the others numbers. Source: Jobs API 2.1."""

    EQUAL_TO = "EQUAL_TO"
    NOT_EQUAL = "NOT_EQUAL"
    GREATER_THAN = "GREATER_THAN"
    GREATER_THAN_OR_EQUAL = "GREATER_THAN_OR_EQUAL"
    LESS_THAN = "LESS_THAN"
    LESS_THAN_OR_EQUAL = "LESS_THAN_OR_EQUAL"


class GitProvider(StrEnum):
    """Who hosts a repository. Source: Jobs API 2.1."""

    GITHUB = "gitHub"
    GITHUB_ENTERPRISE = "gitHubEnterprise"
    GITLAB = "gitLab"
    GITLAB_ENTERPRISE_EDITION = "gitLabEnterpriseEdition"
    BITBUCKET_CLOUD = "bitbucketCloud"
    BITBUCKET_SERVER = "bitbucketServer"
    AZURE_DEV_OPS_SERVICES = "azureDevOpsServices"
    AWS_CODE_COMMIT = "awsCodeCommit"


class JobPermissionLevel(StrEnum):
    """What a principal may do with a job. Source: Databricks SDK."""

    IS_OWNER = "IS_OWNER"
    CAN_MANAGE = "CAN_MANAGE"
    CAN_MANAGE_RUN = "CAN_MANAGE_RUN"
    CAN_VIEW = "CAN_VIEW"


class RunLifeCycleState(StrEnum):
    """Where a run is in its life; the last three are ends. Source: Jobs API 2.0 reference, two from 2.1."""

    QUEUED = "QUEUED"
    PENDING = "PENDING"
    # Waits for the tasks it depends on (2.1).
    BLOCKED = "BLOCKED"
    WAITING_FOR_RETRY = "WAITING_FOR_RETRY"
    RUNNING = "RUNNING"
    TERMINATING = "TERMINATING"
    TERMINATED = "TERMINATED"
    SKIPPED = "SKIPPED"
    INTERNAL_ERROR = "INTERNAL_ERROR"


class RunResultState(StrEnum):
    """How a run ended. Source: Jobs API 2.0 reference, those after CANCELED from 2.1."""

    SUCCESS = "SUCCESS"
    FAILED = "FAILED"
    TIMEDOUT = "TIMEDOUT"
    CANCELED = "CANCELED"
    SUCCESS_WITH_FAILURES = "SUCCESS_WITH_FAILURES"
    MAXIMUM_CONCURRENT_RUNS_REACHED = "MAXIMUM_CONCURRENT_RUNS_REACHED"
    UPSTREAM_FAILED = "UPSTREAM_FAILED"
    UPSTREAM_CANCELED = "UPSTREAM_CANCELED"
    EXCLUDED = "EXCLUDED"
    DISABLED = "DISABLED"


class TriggerType(StrEnum):
    """What started a run. Source: Jobs API 2.0 reference, those after RETRY from 2.1."""

    PERIODIC = "PERIODIC"
    ONE_TIME = "ONE_TIME"
    RETRY = "RETRY"
    RUN_JOB_TASK = "RUN_JOB_TASK"
    FILE_ARRIVAL = "FILE_ARRIVAL"
    CONTINUOUS = "CONTINUOUS"
    CONTINUOUS_RESTART = "CONTINUOUS_RESTART"
    TABLE = "TABLE"


class RunType(StrEnum):
    """How a run came about: run-now or a trigger, runs/submit, dbutils.notebook.run."""

    JOB_RUN = "JOB_RUN"
    SUBMIT_RUN = "SUBMIT_RUN"
    WORKFLOW_RUN = "WORKFLOW_RUN"


class ViewType(StrEnum):
    """What an exported view shows. Source: Jobs API 2.0 reference."""

    NOTEBOOK = "NOTEBOOK"
    DASHBOARD = "DASHBOARD"


class ViewsToExport(StrEnum):
    """Which views of a run are exported. Source: Jobs API 2.0 reference."""

    CODE = "CODE"
    DASHBOARDS = "DASHBOARDS"
    ALL = "ALL"
