"""Permissions on jobs, the identity that a job runs as, and queue settings."""

from typing import Annotated, TypedDict

from airflow_dbjobs.payloads.field_types import Bool, Many, Text, sdk, v21


class JobAccessControlRequest(TypedDict, total=False):
    """A permission for exactly one principal."""

    user_name: Annotated[Text, v21("Email address of the user.")]
    group_name: Annotated[Text, v21("The group.")]
    service_principal_name: Annotated[Text, v21("Application id of the service principal.")]
    permission_level: Annotated[Text, v21("The level: a JobPermissionLevel. Required.")]


class SetJobPermissions(TypedDict, total=False):
    """Body of permissions/jobs/{job_id}: PUT replaces the permissions of a job, PATCH adds to them."""

    access_control_list: Annotated[Many["JobAccessControlRequest"], sdk("The permissions.")]


class JobRunAs(TypedDict, total=False):
    """The identity that a job runs as; exactly one of the fields."""

    user_name: Annotated[Text, v21("An active user of the workspace; only administrators can set another user.")]
    service_principal_name: Annotated[Text, v21("Application id of a service principal that the caller may use.")]
    group_name: Annotated[Text, sdk("A group.")]


class QueueSettings(TypedDict, total=False):
    """Whether runs are queued if they cannot start immediately."""

    enabled: Annotated[Bool, v21("Whether runs are queued. Required. Without queue: true in API 2.2.")]
