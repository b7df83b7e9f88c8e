"""Ensure that a job exists with given settings: create it if none has its name, reset it if its settings differ."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.client.pagination import objects
from airflow_dbjobs.client.response_fields import count, job_name
from airflow_dbjobs.client.settings_diff import differences
from airflow_dbjobs.errors import CallError, ConfigurationError, NotFound
from airflow_dbjobs.payloads import merge

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.payloads import Job

log = logging.getLogger(__name__)

# The maximum number of differences that one log line lists.
_MAX_LOGGED_DIFFERENCES = 10


def ensure_job(client: JobsClient, settings: Mapping[str, Any]) -> int:
    """Ensure that exactly one job has the settings' ``name``, and has these settings; return its job_id.

    `settings` is a body of ``jobs/create``. If the job exists and lacks some of them, or the API does not return some,
    all its settings are replaced; otherwise nothing is written, even if the job has additional settings. Each principal
    in ``access_control_list`` gets the listed level (an owner stays owner); other principals keep theirs. Raises
    ConfigurationError if there is no name or several jobs have it, and what `client` raises.
    """
    wanted = merge(settings, {})
    # A native template turns "2024" into a number.
    name = wanted["name"] = str(wanted.get("name") or "")
    if not name:
        raise ConfigurationError(
            "name is missing: the job is identified by its name. No job was created or changed; set name."
        )
    grants = wanted.pop("access_control_list", ())
    try:
        return _ensure(client, name, wanted, grants)
    except NotFound:
        # The job was deleted between two calls.
        return _ensure(client, name, wanted, grants)


def _ensure(client: JobsClient, name: str, wanted: dict[str, Any], grants: Sequence[Mapping[str, Any]]) -> int:
    job_id = _find(client, name)
    if job_id is None:
        # API 2.0 does not accept grants here.
        inline = {"access_control_list": grants} if grants and client.api_version != "2.0" else {}
        job_id, is_new = _create(client, name, {**wanted, **inline})
    else:
        is_new = False
    if is_new:
        log.info("Created job %d %r.", job_id, name)
    else:
        _reset(client, job_id, name, wanted)
    _grant(client, job_id, name, grants)
    return job_id


def _find(client: JobsClient, name: str) -> int | None:
    found = client.find_job_ids(name)
    if len(found) > 1:
        raise ConfigurationError(
            f"name={name!r}: {len(found)} jobs have this name ({', '.join(map(str, found))}), so the job to update is"
            " ambiguous. No job was changed. Delete or rename all but one. (Two tasks may have created them at the same"
            " time, if one of them was killed or lost its connection.)"
        )
    return found[0] if found else None


def _create(client: JobsClient, name: str, settings: Mapping[str, Any]) -> tuple[int, bool]:
    """Create the job; return its id, and True unless another caller created it at the same time."""
    try:
        mine = client.create_job(settings)
    except CallError as error:
        # The API may have created the job although the reply was lost.
        existing = _find(client, name) if error.unclear else None
        if existing is None:
            raise
        return existing, False
    try:
        twins = [job for job in client.list_jobs(name=name) if job_name(job) == name]
    except CallError as error:
        log.warning(
            "Could not check whether another caller created job %r at the same time; using job %d: %s",
            name,
            mine,
            error,
        )
        return mine, True
    first = min(twins, key=lambda job: (count(job.get("created_time")), count(job.get("job_id"))), default=None)
    other = first.get("job_id") if first else None
    if not isinstance(other, int) or other == mine:
        return mine, True
    log.info("Another caller created job %d %r at the same time: using it, and deleting job %d.", other, name, mine)
    client.delete_job(mine)
    return other, False


def _reset(client: JobsClient, job_id: int, name: str, wanted: Mapping[str, Any]) -> None:
    found = differences(wanted, _settings_of(client.get_job(job_id), wanted))
    if not found:
        log.info("Job %d %r is up to date.", job_id, name)
        return
    more = f" and {len(found) - _MAX_LOGGED_DIFFERENCES} more" if len(found) > _MAX_LOGGED_DIFFERENCES else ""
    log.info("Resetting job %d %r: it differs in %s%s.", job_id, name, ", ".join(found[:_MAX_LOGGED_DIFFERENCES]), more)
    client.reset_job(job_id, wanted)


def _settings_of(job: Job, wanted: Mapping[str, Any]) -> Mapping[str, Any]:
    settings = job.get("settings")
    if not isinstance(settings, dict):
        return {}
    runs_as = job.get("run_as_user_name") or job.get("run_as")
    if isinstance(wanted.get("run_as"), dict) and runs_as:
        # The API returns the name next to the settings, and not whether it is that of a user or a service principal.
        return {"run_as": dict.fromkeys(wanted["run_as"], runs_as), **settings}
    return settings


def _grant(client: JobsClient, job_id: int, name: str, grants: Sequence[Mapping[str, Any]]) -> None:
    if not grants:
        return
    in_place: dict[str, set[str]] = {}
    for entry in objects(client.get_permissions(job_id), "access_control_list"):
        levels = {
            str(item.get("permission_level")) for item in objects(entry, "all_permissions") if not item.get("inherited")
        }
        in_place[_principal(entry)] = levels
    wanted = {_principal(grant): grant for grant in grants}
    missing = {
        principal: grant
        for principal, grant in wanted.items()
        if not {str(grant.get("permission_level")), "IS_OWNER"} & in_place.get(principal, set())
    }
    if missing:
        grants_text = ", ".join(
            f"{grant.get('permission_level')} to {principal}" for principal, grant in missing.items()
        )
        log.info("Granting on job %d %r: %s.", job_id, name, grants_text)
        client.update_permissions(job_id, list(missing.values()))


def _principal(grant: Mapping[str, Any]) -> str:
    kinds = ("user_name", "group_name", "service_principal_name")
    return ", ".join(f"{kind} {grant[kind]}" for kind in kinds if grant.get(kind))
