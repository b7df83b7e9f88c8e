"""Who has which permission on a job: the grants on the job itself, and the identity it runs as."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from airflow_dbjobs.local_workspace.messages import ApiError, Json, describe

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .records import Job

PRINCIPALS: Final = ("user_name", "group_name", "service_principal_name")
OWNER: Final = "IS_OWNER"
LEVELS: Final = {
    "CAN_VIEW": "Can view the job and its runs.",
    "CAN_MANAGE_RUN": "Can view the job, start runs of it and cancel them.",
    "CAN_MANAGE": "Can change the job, its permissions and its runs, and delete it.",
    OWNER: "Can do all of this; the job runs as its owner unless run_as names somebody else.",
}


def merge_grants(grants: Iterable[Json], new: Iterable[Json]) -> list[Json]:
    """Return `grants` with the `new` ones, which replace those of the same principal; a new owner replaces the old.

    :raises ApiError: Naming the field and the rule.
    """
    checked = {principal(grant): grant for grant in map(_checked, new)}
    owned = any(grant["permission_level"] == OWNER for grant in checked.values())
    kept = {principal(grant): grant for grant in grants if not (owned and grant["permission_level"] == OWNER)}
    merged = [*(kept | checked).values()]
    # The message is recorded from the cloud. By the API's reference an empty list removes all grants, so it is allowed.
    if merged and sum(grant["permission_level"] == OWNER for grant in merged) != 1:
        raise ApiError("The job must have exactly one owner.")
    return merged


def ownership(user: str) -> Json:
    """Return the grant that makes a user the owner."""
    return {"user_name": user, "permission_level": OWNER}


def grants_of(job: Job) -> list[Json]:
    """Return what is granted on a job itself."""
    return [ownership(job.creator)] if job.grants is None else job.grants


def runs_as(job: Job) -> str:
    """Return the name of the principal that a job runs as: its run_as, else its owner, else its creator."""
    run_as: Json = job.settings.get("run_as", {})
    names: list[str] = [run_as[kind] for kind in PRINCIPALS if kind in run_as]
    names += [principal(grant)[1] for grant in grants_of(job) if grant["permission_level"] == OWNER]
    return [*names, job.creator][0]


def principal(grant: Json) -> tuple[str, str]:
    """Return the kind and the name of the principal of a grant."""
    return next((kind, grant[kind]) for kind in PRINCIPALS if kind in grant)


def _checked(grant: Json) -> Json:
    kinds = [kind for kind in PRINCIPALS if grant.get(kind)]
    if len(kinds) != 1:
        given = " and ".join(kinds) or "none"
        raise ApiError(f"Each entry of 'access_control_list' must name one of {', '.join(PRINCIPALS)}; found {given}.")
    level = grant.get("permission_level")
    if level not in LEVELS:
        raise ApiError(f"Field 'permission_level' must be one of {', '.join(LEVELS)}; {describe(level)}.")
    if level == OWNER and kinds == ["group_name"]:
        raise ApiError(f"Group {grant['group_name']!r} cannot own a job: an owner is a user or a service principal.")
    return {kinds[0]: grant[kinds[0]], "permission_level": level}
