"""Who may do what with a job, and as whom it runs."""

from airflow_dbjobs.payloads.kinds import Bool, Many, Text
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


class JobRunAs(Structure):
    """As whom a job runs; exactly one of the fields."""

    user_name: Text = v21("An active user of the workspace; only oneself, unless one is an administrator.")
    service_principal_name: Text = v21("Application id of a service principal one may use.")
    group_name: Text = sdk("A group (recent).")


class QueueSettings(Structure):
    """Whether runs wait where they cannot start at once."""

    enabled: Bool = v21("Whether they wait. Required.", default="on for jobs that API 2.2 created, else off")
