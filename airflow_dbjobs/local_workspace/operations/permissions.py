"""The permissions of jobs, as the Permissions API shows and changes them.

They are kept and shown, and hold nobody back: whoever has the token of this workspace may do everything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from airflow_dbjobs.local_workspace.messages import ApiError, Json, in_words

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_dbjobs.local_workspace.operations.context import Call
    from airflow_dbjobs.local_workspace.state.records import Job

_PRINCIPALS: Final = ("user_name", "group_name", "service_principal_name")
_OWNER: Final = "IS_OWNER"
_LEVELS: Final = {
    "CAN_VIEW": "Can view the job and its runs.",
    "CAN_MANAGE_RUN": "Can view the job, start runs of it and cancel them.",
    "CAN_MANAGE": "Can change the job, its permissions and its runs, and delete it.",
    _OWNER: "Can do all this; the job runs as its owner unless run_as says otherwise.",
}
#: What the cloud's jobs have from the folder of all jobs, beside what is granted on each.
_ADMINS: Final = ("group_name", "admins")
_INHERITED: Final[Json] = {"permission_level": "CAN_MANAGE", "inherited": True, "inherited_from_object": ["/jobs/"]}


def get(call: Call) -> Json:
    """Show who has which permissions on a job."""
    return _shown(_job(call))


def levels(call: Call) -> Json:
    """Show which levels there are."""
    _job(call)
    return {"permission_levels": [{"permission_level": level, "description": text} for level, text in _LEVELS.items()]}


def replace(call: Call) -> Json:
    """Replace what is granted on a job itself; without a list nothing is granted any more."""
    return _save(call, _job(call), granted([], call.args.get("access_control_list", [])))


def update(call: Call) -> Json:
    """Add to what is granted on a job, or change it."""
    job = _job(call)
    return _save(call, job, granted(_grants(job), call.args.get("access_control_list", [])))


def granted(grants: Iterable[Json], new: Iterable[Json]) -> list[Json]:
    """Return `grants` with the `new` ones added, each in place of what its principal had; a new owner replaces the old.

    Raises:
        ApiError: naming the field and the rule.
    """
    checked = {_principal(grant): grant for grant in map(_checked, new)}
    owned = any(grant["permission_level"] == _OWNER for grant in checked.values())
    kept = {_principal(grant): grant for grant in grants if not (owned and grant["permission_level"] == _OWNER)}
    merged = [*(kept | checked).values()]
    # Recorded on the cloud, word for word. Its reference lets an empty list remove all, so that one passes.
    if merged and sum(grant["permission_level"] == _OWNER for grant in merged) != 1:
        raise ApiError("The job must have exactly one owner.")
    return merged


def ownership(user: str) -> Json:
    """Return the grant that makes a user the owner."""
    return {"user_name": user, "permission_level": _OWNER}


def runs_as(job: Job) -> str:
    """Return the name of whom a job runs as: as its run_as says, or its owner, or where it has none its creator."""
    run_as: Json = job.settings.get("run_as", {})
    names: list[str] = [run_as[kind] for kind in _PRINCIPALS if kind in run_as]
    names += [_principal(grant)[1] for grant in _grants(job) if grant["permission_level"] == _OWNER]
    return [*names, job.creator][0]


def _job(call: Call) -> Job:
    job_id = call.args["job_id"]
    if job_id not in call.store.jobs:
        # Another service than the Jobs API, whose INVALID_PARAMETER_VALUE is a habit of its own.
        raise ApiError(f"Job {job_id} does not exist.", code="RESOURCE_DOES_NOT_EXIST", status=404)
    return call.store.jobs[job_id]


def _grants(job: Job) -> list[Json]:
    return [ownership(job.creator)] if job.grants is None else job.grants


def _save(call: Call, job: Job, grants: list[Json]) -> Json:
    job.grants = grants
    call.store.save(job)
    return _shown(job)


def _shown(job: Job) -> Json:
    found = {
        _principal(grant): [{"permission_level": grant["permission_level"], "inherited": False}]
        for grant in _grants(job)
    }
    found.setdefault(_ADMINS, []).append(_INHERITED)
    entries: list[Json] = []
    for (kind, name), permissions in found.items():
        shown = {} if kind == "group_name" else {"display_name": name}
        entries.append({kind: name, **shown, "all_permissions": permissions})
    return {"object_id": f"/jobs/{job.job_id}", "object_type": "job", "access_control_list": entries}


def _checked(grant: Json) -> Json:
    kinds = [kind for kind in _PRINCIPALS if grant.get(kind)]
    if len(kinds) != 1:
        given = " and ".join(kinds) or "none"
        raise ApiError(f"Each entry of 'access_control_list' must name one of {', '.join(_PRINCIPALS)}; found {given}.")
    level = grant.get("permission_level")
    if level not in _LEVELS:
        raise ApiError(f"Field 'permission_level' must be one of {', '.join(_LEVELS)}; {in_words(level)}.")
    if level == _OWNER and kinds == ["group_name"]:
        raise ApiError(f"Group {grant['group_name']!r} cannot own a job: an owner is a user or a service principal.")
    return {kinds[0]: grant[kinds[0]], "permission_level": level}


def _principal(grant: Json) -> tuple[str, str]:
    return next((kind, grant[kind]) for kind in _PRINCIPALS if kind in grant)
