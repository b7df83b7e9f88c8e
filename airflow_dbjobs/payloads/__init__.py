"""Request bodies: models of the API's data structures, how a body is put together, and the rules it must keep.

The models are loaded when they are named: ``from airflow_dbjobs.payloads import NewCluster, NotebookTask``. A mistake is
told by ``check``, which the operators call. ``python -m airflow_dbjobs.payloads FILE...`` checks files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_dbjobs.payloads.body import merge as merge
from airflow_dbjobs.payloads.catalog import HOME, find
from airflow_dbjobs.payloads.checks import check as check
from airflow_dbjobs.payloads.checks import check_early as check_early

if TYPE_CHECKING:
    from airflow_dbjobs.payloads.access import (
        JobAccessControlRequest as JobAccessControlRequest,
        JobAccessControlResponse as JobAccessControlResponse,
        JobPermission as JobPermission,
        JobPermissions as JobPermissions,
        JobRunAs as JobRunAs,
        QueueSettings as QueueSettings,
        SetJobPermissions as SetJobPermissions,
    )
    from airflow_dbjobs.payloads.answers import (
        DbtOutput as DbtOutput,
        NotebookOutput as NotebookOutput,
        QueueDetails as QueueDetails,
        RepairHistoryItem as RepairHistoryItem,
        Run as Run,
        RunJobOutput as RunJobOutput,
        RunOutput as RunOutput,
        RunState as RunState,
        RunStatus as RunStatus,
        RunTask as RunTask,
        TerminationDetails as TerminationDetails,
        ViewItem as ViewItem,
    )
    from airflow_dbjobs.payloads.clusters import (
        AutoScale as AutoScale,
        AwsAttributes as AwsAttributes,
        AzureAttributes as AzureAttributes,
        ClientsTypes as ClientsTypes,
        ClusterInstance as ClusterInstance,
        ClusterSpec as ClusterSpec,
        ClusterTag as ClusterTag,
        DockerBasicAuth as DockerBasicAuth,
        DockerImage as DockerImage,
        GcpAttributes as GcpAttributes,
        LogAnalyticsInfo as LogAnalyticsInfo,
        NewCluster as NewCluster,
        NodeTypeFlexibility as NodeTypeFlexibility,
        SparkConfPair as SparkConfPair,
        SparkEnvPair as SparkEnvPair,
        WorkloadType as WorkloadType,
    )
    from airflow_dbjobs.payloads.code_tasks import (
        CleanRoomsNotebookTask as CleanRoomsNotebookTask,
        DbtCloudTask as DbtCloudTask,
        DbtPlatformTask as DbtPlatformTask,
        DbtTask as DbtTask,
        NotebookTask as NotebookTask,
        ParamPair as ParamPair,
        PipelineTask as PipelineTask,
        PythonOperatorTask as PythonOperatorTask,
        PythonOperatorTaskParameter as PythonOperatorTaskParameter,
        PythonWheelTask as PythonWheelTask,
        RunJobTask as RunJobTask,
        SparkJarTask as SparkJarTask,
        SparkPythonTask as SparkPythonTask,
        SparkSubmitTask as SparkSubmitTask,
    )
    from airflow_dbjobs.payloads.enums import (
        AzureAvailability as AzureAvailability,
        ConditionTaskOp as ConditionTaskOp,
        GitProvider as GitProvider,
        JobPermissionLevel as JobPermissionLevel,
        PauseStatus as PauseStatus,
        RunIf as RunIf,
        RunLifeCycleState as RunLifeCycleState,
        RunResultState as RunResultState,
        RunType as RunType,
        TriggerType as TriggerType,
        ViewType as ViewType,
        ViewsToExport as ViewsToExport,
    )
    from airflow_dbjobs.payloads.flow_tasks import (
        ConditionTask as ConditionTask,
        ForEachTask as ForEachTask,
        TaskDependency as TaskDependency,
    )
    from airflow_dbjobs.payloads.gpu_tasks import (
        AiRuntimeTask as AiRuntimeTask,
        Compute as Compute,
        ComputeConfig as ComputeConfig,
        ComputeSpec as ComputeSpec,
        DeploymentSpec as DeploymentSpec,
        GenAiComputeTask as GenAiComputeTask,
    )
    from airflow_dbjobs.payloads.jobs import (
        CreateJob as CreateJob,
        DeleteJob as DeleteJob,
        GetJob as GetJob,
        Job as Job,
        JobCluster as JobCluster,
        JobDeployment as JobDeployment,
        JobSettings as JobSettings,
        ListJobs as ListJobs,
        ResetJob as ResetJob,
        UpdateJob as UpdateJob,
    )
    from airflow_dbjobs.payloads.libraries import (
        Library as Library,
        MavenLibrary as MavenLibrary,
        PythonPyPiLibrary as PythonPyPiLibrary,
        RCranLibrary as RCranLibrary,
    )
    from airflow_dbjobs.payloads.notifications import (
        JobEmailNotifications as JobEmailNotifications,
        JobNotificationSettings as JobNotificationSettings,
        JobsHealthRule as JobsHealthRule,
        JobsHealthRules as JobsHealthRules,
        TaskEmailNotifications as TaskEmailNotifications,
        TaskNotificationSettings as TaskNotificationSettings,
        Webhook as Webhook,
        WebhookNotifications as WebhookNotifications,
    )
    from airflow_dbjobs.payloads.parameters import (
        JobParameter as JobParameter,
        JobParameterDefinition as JobParameterDefinition,
        PipelineParams as PipelineParams,
        RunParameters as RunParameters,
    )
    from airflow_dbjobs.payloads.runs import (
        CancelAllRuns as CancelAllRuns,
        CancelRun as CancelRun,
        DeleteRun as DeleteRun,
        ExportRun as ExportRun,
        GetRun as GetRun,
        GetRunOutput as GetRunOutput,
        ListRuns as ListRuns,
        RepairRun as RepairRun,
        RunNow as RunNow,
        SubmitRun as SubmitRun,
    )
    from airflow_dbjobs.payloads.schedule import (
        Continuous as Continuous,
        ContinuousTriggerConfiguration as ContinuousTriggerConfiguration,
        CronSchedule as CronSchedule,
        CronTriggerConfiguration as CronTriggerConfiguration,
        FileArrivalTriggerConfiguration as FileArrivalTriggerConfiguration,
        MaintenanceWindow as MaintenanceWindow,
        ModelTriggerConfiguration as ModelTriggerConfiguration,
        PeriodicTriggerConfiguration as PeriodicTriggerConfiguration,
        SqlConditionConfiguration as SqlConditionConfiguration,
        TableUpdateTriggerConfiguration as TableUpdateTriggerConfiguration,
        TriggerConfiguration as TriggerConfiguration,
        TriggerSettings as TriggerSettings,
    )
    from airflow_dbjobs.payloads.sources import (
        Environment as Environment,
        GitSnapshot as GitSnapshot,
        GitSource as GitSource,
        JobEnvironment as JobEnvironment,
        JobEnvironmentVariables as JobEnvironmentVariables,
        JobEnvironmentVariablesSpec as JobEnvironmentVariablesSpec,
        JobSource as JobSource,
        SparseCheckout as SparseCheckout,
    )
    from airflow_dbjobs.payloads.sql_tasks import (
        AlertTask as AlertTask,
        AlertTaskSubscriber as AlertTaskSubscriber,
        DashboardTask as DashboardTask,
        PowerBiModel as PowerBiModel,
        PowerBiTable as PowerBiTable,
        PowerBiTask as PowerBiTask,
        SqlTask as SqlTask,
        SqlTaskAlert as SqlTaskAlert,
        SqlTaskDashboard as SqlTaskDashboard,
        SqlTaskFile as SqlTaskFile,
        SqlTaskQuery as SqlTaskQuery,
        SqlTaskSubscription as SqlTaskSubscription,
        Subscription as Subscription,
        SubscriptionAttachment as SubscriptionAttachment,
        SubscriptionAttachmentDataAttachment as SubscriptionAttachmentDataAttachment,
        SubscriptionAttachmentDataAttachmentWidget as SubscriptionAttachmentDataAttachmentWidget,
        SubscriptionAttachmentPageAttachment as SubscriptionAttachmentPageAttachment,
        SubscriptionSubscriber as SubscriptionSubscriber,
    )
    from airflow_dbjobs.payloads.storage import (
        ABFSSStorageInfo as ABFSSStorageInfo,
        ClusterLogConf as ClusterLogConf,
        DbfsStorageInfo as DbfsStorageInfo,
        FileStorageInfo as FileStorageInfo,
        GcsStorageInfo as GcsStorageInfo,
        InitScriptInfo as InitScriptInfo,
        S3StorageInfo as S3StorageInfo,
        VolumesStorageInfo as VolumesStorageInfo,
        WorkspaceStorageInfo as WorkspaceStorageInfo,
    )
    from airflow_dbjobs.payloads.tasks import JobTask as JobTask, SubmitTask as SubmitTask, Task as Task

__all__ = ["check", "check_early", "merge", *HOME]


def __getattr__(name: str) -> Any:
    if name not in HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return find(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *HOME})
