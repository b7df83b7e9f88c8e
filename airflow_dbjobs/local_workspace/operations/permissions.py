"""The Permissions API for jobs. Permissions are stored and shown, not enforced: the token allows everything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from airflow_dbjobs.local_workspace.messages import ApiError, Json
from airflow_dbjobs.local_workspace.state.grants import LEVELS, grants_of, merge_grants, principal

if TYPE_CHECKING:
    from airflow_dbjobs.local_workspace.state.records import Job

    from .context import RequestContext

#: What the cloud's jobs inherit from the folder of all jobs, in addition to the grants on each job.
_ADMINS: Final = ("group_name", "admins")
_INHERITED: Final[Json] = {"permission_level": "CAN_MANAGE", "inherited": True, "inherited_from_object": ["/jobs/"]}


def get(context: RequestContext) -> Json:
    """Show who has which permissions on a job."""
    return _shown(_job(context))


def levels(context: RequestContext) -> Json:
    """Show the permission levels."""
    _job(context)
    return {"permission_levels": [{"permission_level": level, "description": text} for level, text in LEVELS.items()]}


def replace(context: RequestContext) -> Json:
    """Replace the grants on a job; without a list, remove them all."""
    return _save(context, _job(context), merge_grants([], context.args.get("access_control_list", [])))


def update(context: RequestContext) -> Json:
    """Add grants on a job, or change them."""
    job = _job(context)
    return _save(context, job, merge_grants(grants_of(job), context.args.get("access_control_list", [])))


def _job(context: RequestContext) -> Job:
    job_id = context.args["job_id"]
    if job_id not in context.store.jobs:
        # Unlike the Jobs API, whose code here would be INVALID_PARAMETER_VALUE.
        raise ApiError(f"Job {job_id} does not exist.", code="RESOURCE_DOES_NOT_EXIST", status=404)
    return context.store.jobs[job_id]


def _save(context: RequestContext, job: Job, grants: list[Json]) -> Json:
    job.grants = grants
    context.store.save(job)
    return _shown(job)


def _shown(job: Job) -> Json:
    found = {
        principal(grant): [{"permission_level": grant["permission_level"], "inherited": False}]
        for grant in grants_of(job)
    }
    found.setdefault(_ADMINS, []).append(_INHERITED)
    entries: list[Json] = []
    for (kind, name), permissions in found.items():
        shown = {} if kind == "group_name" else {"display_name": name}
        entries.append({kind: name, **shown, "all_permissions": permissions})
    return {"object_id": f"/jobs/{job.job_id}", "object_type": "job", "access_control_list": entries}
