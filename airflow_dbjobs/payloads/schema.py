"""The types by name; the fields of each structure; and which structure is the request of which endpoint."""

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
# The module below ``types`` of each type.
HOME = {name: module for module, names in _NAMES.items() for name in names.split()}

# What is sent to an endpoint, or asked of it, below /api/<version>/jobs/.
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
    """A field: its type, the API version that it needs, and the name of the structure that it holds, one or many."""

    type: FieldType
    since: str | None
    structure: str | None
    many: bool


def find(name: str) -> Any:
    """Return a type by its name; its module is loaded on the first use."""
    return getattr(import_module(f"airflow_dbjobs.payloads.types.{HOME[name]}"), name)


@cache
def fields_of(structure: str) -> dict[str, Field]:
    """Return the fields of a structure, those that it inherits among them."""
    return {name: _field(hint) for name, hint in find(structure).__annotations__.items()}


def _field(hint: Any) -> Field:
    field_type, source = hint.__metadata__
    return Field(field_type, source.since, _structure_in(hint), field_type is STRUCTURES)


def _structure_in(hint: Any) -> str | None:
    """Return the name in quotes in a hint: that of `One` or `Many`."""
    if isinstance(hint, ForwardRef):
        return hint.__forward_arg__
    return next(filter(None, map(_structure_in, get_args(hint))), None)
