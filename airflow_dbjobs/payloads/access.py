"""Who may do what with a job, and as whom it runs."""

from airflow_dbjobs.payloads.kinds import Bool, Many, Text, Texts
from airflow_dbjobs.payloads.structure import Structure, sdk, v21


class JobAccessControlRequest(Structure):
    """One grant: exactly one principal, and a level."""

    user_name: Text = v21("The user, by address.")
    group_name: Text = v21("The group.")
    service_principal_name: Text = v21("The service principal, by application id.")
    permission_level: Text = v21("The level: a JobPermissionLevel. Required.")


class SetJobPermissions(Structure):
    """Body of permissions/jobs/{job_id}: PUT replaces a job's grants, PATCH adds to them."""

    access_control_list: Many["JobAccessControlRequest"] = sdk("The grants.")


class JobPermission(Structure):
    """A level that a principal has, and where from."""

    permission_level: Text = sdk("The level: a JobPermissionLevel.")
    inherited: Bool = sdk("Whether it comes from a parent object.")
    inherited_from_object: Texts = sdk("The parent objects that it comes from.")


class JobAccessControlResponse(Structure):
    """All levels of one principal."""

    user_name: Text = sdk("The user.")
    group_name: Text = sdk("The group.")
    service_principal_name: Text = sdk("The service principal.")
    display_name: Text = sdk("Name that the workspace shows.")
    all_permissions: Many["JobPermission"] = sdk("The levels.")


class JobPermissions(Structure):
    """Answer of permissions/jobs/{job_id}."""

    object_id: Text = sdk("The job, as in /jobs/17.")
    object_type: Text = sdk("Always job.")
    access_control_list: Many["JobAccessControlResponse"] = sdk("Who has which levels.")


class JobRunAs(Structure):
    """As whom a job runs; exactly one of the fields."""

    user_name: Text = v21("An active user of the workspace; only oneself, unless one is an administrator.")
    service_principal_name: Text = v21("Application id of a service principal one may use.")
    group_name: Text = sdk("A group (recent).")


class QueueSettings(Structure):
    """Whether runs wait where they cannot start at once."""

    enabled: Bool = v21("Whether they wait. Required.", default="on for jobs that API 2.2 created, else off")
