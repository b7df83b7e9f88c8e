"""Look up payload types by name, the fields of a structure, and the request structure of an endpoint."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, ForwardRef, NamedTuple, get_args

from airflow_dbjobs.payloads.field_types import STRUCTURES

if TYPE_CHECKING:
    from airflow_dbjobs.payloads.field_types import FieldType

_NAMES = {
    "access": "JobAccessControlRequest JobRunAs QueueSettings SetJobPermissions",
    "answers": """
        DbtOutput Job JobAccessControlResponse JobPermission JobPermissions JobPermissionsDescription NotebookOutput
        QueueDetails RepairHistoryItem Run RunJobOutput RunOutput RunState RunStatus RunTask TerminationDetails
        ViewItem
    """,
    "clusters": """
        AutoScale AwsAttributes AzureAttributes ClientsTypes ClusterInstance ClusterSpec ClusterTag DockerBasicAuth
        DockerImage GcpAttributes LogAnalyticsInfo NewCluster NodeTypeFlexibility SparkConfPair SparkEnvPair
        WorkloadType
    """,
    "code_tasks": """
        CleanRoomsNotebookTask DbtCloudTask DbtPlatformTask DbtTask NotebookTask ParamPair PipelineTask
        PythonOperatorTask PythonOperatorTaskParameter PythonWheelTask RunJobTask SparkJarTask SparkPythonTask
        SparkSubmitTask
    """,
    "enums": """
        AzureAvailability ConditionTaskOp GitProvider JobPermissionLevel PauseStatus RunIf RunLifeCycleState
        RunResultState RunType TriggerType ViewType ViewsToExport
    """,
    "flow_tasks": "ConditionTask ForEachTask TaskDependency",
    "gpu_tasks": "AiRuntimeTask Compute ComputeConfig ComputeSpec DeploymentSpec GenAiComputeTask",
    "jobs": "CreateJob DeleteJob GetJob JobCluster JobDeployment JobSettings ListJobs ResetJob UpdateJob",
    "libraries": "Library MavenLibrary PythonPyPiLibrary RCranLibrary",
    "notifications": """
        JobEmailNotifications JobNotificationSettings JobsHealthRule JobsHealthRules TaskEmailNotifications
        TaskNotificationSettings Webhook WebhookNotifications
    """,
    "parameters": "JobParameter JobParameterDefinition PipelineParams RunParameters",
    "runs": "CancelAllRuns CancelRun DeleteRun ExportRun GetRun GetRunOutput ListRuns RepairRun RunNow SubmitRun",
    "schedule": """
        Continuous ContinuousTriggerConfiguration CronSchedule CronTriggerConfiguration
        FileArrivalTriggerConfiguration MaintenanceWindow ModelTriggerConfiguration PeriodicTriggerConfiguration
        SqlConditionConfiguration TableUpdateTriggerConfiguration TriggerConfiguration TriggerSettings
    """,
    "sources": """
        Environment GitSnapshot GitSource JobEnvironment JobEnvironmentVariables JobEnvironmentVariablesSpec
        JobSource SparseCheckout
    """,
    "sql_tasks": """
        AlertTask AlertTaskSubscriber DashboardTask PowerBiModel PowerBiTable PowerBiTask SqlTask SqlTaskAlert
        SqlTaskDashboard SqlTaskFile SqlTaskQuery SqlTaskSubscription Subscription SubscriptionAttachment
        SubscriptionAttachmentDataAttachment SubscriptionAttachmentDataAttachmentWidget
        SubscriptionAttachmentPageAttachment SubscriptionSubscriber
    """,
    "storage": """
        ABFSSStorageInfo ClusterLogConf DbfsStorageInfo FileStorageInfo GcsStorageInfo InitScriptInfo S3StorageInfo
        VolumesStorageInfo WorkspaceStorageInfo
    """,
    "tasks": "ComputeAndTask JobTask SubmitTask Task",
}
# Type name -> its module in ``types``.
MODULE_OF = {name: module for module, names in _NAMES.items() for name in names.split()}

# Structure -> the structure whose fields and rules it inherits.
EXTENDS = {
    "CreateJob": "JobSettings", "JobSettings": "ComputeAndTask", "SubmitRun": "ComputeAndTask", "Task": "SubmitTask",
    "SubmitTask": "ComputeAndTask", "RunNow": "RunParameters", "RepairRun": "RunParameters",
    "TaskEmailNotifications": "JobEmailNotifications", "TaskNotificationSettings": "JobNotificationSettings",
}  # fmt: skip

# Endpoint below /api/<version>/jobs/ -> the structure of its body or query.
ENDPOINTS = {
    "create": "CreateJob",
    "reset": "ResetJob",
    "update": "UpdateJob",
    "delete": "DeleteJob",
    "get": "GetJob",
    "list": "ListJobs",
    "run-now": "RunNow",
    "runs/submit": "SubmitRun",
    "runs/repair": "RepairRun",
    "runs/cancel": "CancelRun",
    "runs/cancel-all": "CancelAllRuns",
    "runs/delete": "DeleteRun",
    "runs/get": "GetRun",
    "runs/get-output": "GetRunOutput",
    "runs/export": "ExportRun",
    "runs/list": "ListRuns",
    "permissions": "SetJobPermissions",
}


class Field(NamedTuple):
    """A field: its type, the API version it requires, and the structure it contains (a list of it if `many`)."""

    type: FieldType
    since: str | None
    structure: str | None
    many: bool


def find(name: str) -> Any:
    """Return a type by name; imports its module on first use."""
    return getattr(import_module(f"airflow_dbjobs.payloads.types.{MODULE_OF[name]}"), name)


@cache
def fields_of(structure: str) -> dict[str, Field]:
    """Return the fields of a structure, including inherited ones."""
    return {name: _field(hint) for name, hint in find(structure).__annotations__.items()}


def structures_of(version: str) -> list[str]:
    """Return the structures that payloads of an API version can have, with those that they inherit from."""
    found = list(ENDPOINTS.values())
    for structure in found:
        inner = [field.structure for field in fields_of(structure).values() if (field.since or "") <= version]
        found += dict.fromkeys(name for name in (EXTENDS.get(structure), *inner) if name and name not in found)
    return found


def _field(hint: Any) -> Field:
    field_type, source = hint.__metadata__
    return Field(field_type, source.since, _structure_in(hint), field_type is STRUCTURES)


def _structure_in(hint: Any) -> str | None:
    """Return the quoted structure name in a `One` or `Many` annotation."""
    if isinstance(hint, ForwardRef):
        return hint.__forward_arg__
    return next(filter(None, map(_structure_in, get_args(hint))), None)
