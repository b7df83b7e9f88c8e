"""A job kept as it is described: created where there is none of its name, and reset where it differs."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.client.pagination import objects
from airflow_dbjobs.client.response_fields import count
from airflow_dbjobs.client.settings_diff import differences
from airflow_dbjobs.errors import CallError, ConfigurationError, NotFound
from airflow_dbjobs.payloads import merge
from airflow_dbjobs.payloads.structure import plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.payloads import CreateJob, Job

log = logging.getLogger(__name__)

# Beyond these a message is no longer read.
_MOST_DIFFERENCES_TOLD = 10


def keep_job(client: JobsClient, settings: Mapping[str, Any] | CreateJob) -> int:
    """Let there be one job of the settings' ``name``, with these settings; return its job_id.

    `settings` is a body of ``jobs/create``. Where the job exists and does not have all of them, or the API does not say
    so, all its settings are replaced; otherwise nothing is written, whatever else the job has. Each principal of
    ``access_control_list`` gets the level that is listed (an owner stays owner); others keep theirs. Raises
    ConfigurationError where there is no name, or several jobs have it, and what `client` raises.
    """
    wanted = merge(plain(settings), {})
    # A native template makes a number of "2024".
    name = wanted["name"] = str(wanted.get("name") or "")
    if not name:
        raise ConfigurationError("name is missing: it is by its name that the job is found. Give it one.")
    grants = wanted.pop("access_control_list", ())
    try:
        return _keep(client, name, wanted, grants)
    except NotFound:
        # Somebody has deleted it between two calls.
        return _keep(client, name, wanted, grants)


def _keep(client: JobsClient, name: str, wanted: dict[str, Any], grants: Sequence[Mapping[str, Any]]) -> int:
    job_id = _find(client, name)
    if job_id is None:
        # 2.0 does not know of grants here.
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
            f"name={name!r}: {len(found)} jobs have this name ({', '.join(map(str, found))}), and it cannot be known"
            " which of them is meant. Delete or rename all but one. (Two tasks that create it in the same moment may"
            " have made them, where one was killed or lost its connection.)"
        )
    return found[0] if found else None


def _create(client: JobsClient, name: str, settings: Mapping[str, Any]) -> tuple[int, bool]:
    """Create the job, unless somebody else does so in the same moment; return its id and whether it is ours."""
    try:
        mine = client.create_job(settings)
    except CallError as error:
        # The request may have been carried out although its reply was lost.
        mine_or_another = _find(client, name) if error.unclear else None
        if mine_or_another is None:
            raise
        return mine_or_another, False
    try:
        twins = [job for job in client.list_jobs(name=name) if getattr(job.settings, "name", None) == name]
    except CallError as error:
        log.warning("Whether somebody else has created a job %r in the same moment cannot be seen: %s", name, error)
        return mine, True
    first = min(twins, key=lambda job: (count(job.created_time), count(job.job_id)), default=None)
    if first is None or not isinstance(first.job_id, int) or first.job_id == mine:
        return mine, True
    log.info("Job %d of the name %r was created in the same moment: it stays, and %d goes.", first.job_id, name, mine)
    client.delete_job(mine)
    return first.job_id, False


def _reset(client: JobsClient, job_id: int, name: str, wanted: Mapping[str, Any]) -> None:
    found = differences(wanted, _settings_of(client.get_job(job_id), wanted))
    if not found:
        log.info("Job %d %r is as it should be.", job_id, name)
        return
    more = f" and {len(found) - _MOST_DIFFERENCES_TOLD} more" if len(found) > _MOST_DIFFERENCES_TOLD else ""
    log.info("Resetting job %d %r: it differs in %s%s.", job_id, name, ", ".join(found[:_MOST_DIFFERENCES_TOLD]), more)
    client.reset_job(job_id, wanted)


def _settings_of(job: Job, wanted: Mapping[str, Any]) -> Mapping[str, Any]:
    settings = plain(job.settings)
    if not isinstance(settings, dict):
        return {}
    runs_as = job.run_as_user_name or job.run_as
    if isinstance(wanted.get("run_as"), dict) and runs_as:
        # It is only written: the answer has the name beside the settings, and does not say whether of a user.
        settings.setdefault("run_as", dict.fromkeys(wanted["run_as"], runs_as))
    return settings


def _grant(client: JobsClient, job_id: int, name: str, grants: Sequence[Mapping[str, Any]]) -> None:
    if not grants:
        return
    in_place: dict[str, set[str]] = {}
    for entry in objects(client.get_permissions(job_id).raw, "access_control_list"):
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
        told = ", ".join(f"{grant.get('permission_level')} to {principal}" for principal, grant in missing.items())
        log.info("Granting on job %d %r: %s.", job_id, name, told)
        client.update_permissions(job_id, list(missing.values()))


def _principal(grant: Mapping[str, Any]) -> str:
    kinds = ("user_name", "group_name", "service_principal_name")
    return ", ".join(f"{kind} {grant[kind]}" for kind in kinds if grant.get(kind))
