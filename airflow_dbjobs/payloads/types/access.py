"""Who may do what with a job, and as whom it runs."""

from typing import Annotated, TypedDict

from airflow_dbjobs.payloads.field_types import Bool, Many, Text, sdk, v21


class JobAccessControlRequest(TypedDict, total=False):
    """One grant: exactly one principal, and a level."""

    user_name: Annotated[Text, v21("The user, by address.")]
    group_name: Annotated[Text, v21("The group.")]
    service_principal_name: Annotated[Text, v21("The service principal, by application id.")]
    permission_level: Annotated[Text, v21("The level: a JobPermissionLevel. Required.")]


class SetJobPermissions(TypedDict, total=False):
    """Body of permissions/jobs/{job_id}: PUT replaces a job's grants, PATCH adds to them."""

    access_control_list: Annotated[Many["JobAccessControlRequest"], sdk("The grants.")]


class JobRunAs(TypedDict, total=False):
    """As whom a job runs; exactly one of the fields."""

    user_name: Annotated[Text, v21("An active user of the workspace; only oneself, unless one is an administrator.")]
    service_principal_name: Annotated[Text, v21("Application id of a service principal one may use.")]
    group_name: Annotated[Text, sdk("A group (recent).")]


class QueueSettings(TypedDict, total=False):
    """Whether runs wait where they cannot start at once."""

    enabled: Annotated[Bool, v21("Whether they wait. Required. Default: on for jobs that API 2.2 created, else off.")]
