"""JobsClient: one method per endpoint of the Jobs API 2.0, 2.1 and 2.2.

It needs no Airflow::

    from airflow_dbjobs.client import JobsClient

    client = JobsClient("https://adb-1234567890123456.7.azuredatabricks.net", token="dapi...")
    run_id = client.run_now({"job_id": 42, "idempotency_token": "nightly-2026-11-22"})
    print(client.get_run(run_id).state)

Source of endpoints and fields: the Jobs API reference, https://docs.databricks.com/api/workspace/jobs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar, cast

from airflow_dbjobs.client import pagination
from airflow_dbjobs.client.models import Run, repairs_of
from airflow_dbjobs.client.response_fields import identifier, job_name
from airflow_dbjobs.client.runs_page import RunsPage, parse_runs_page
from airflow_dbjobs.client.workspace import Workspace
from airflow_dbjobs.errors import CallError, ConfigurationError, NoRunToWaitFor, UnreadableReply

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Literal

    from airflow_dbjobs.payloads import (
        Job,
        JobPermissions,
        JobPermissionsDescription,
        RunOutput,
        ViewItem,
    )

    Body = Mapping[str, Any]
    Views = Literal["CODE", "DASHBOARDS", "ALL"]

T = TypeVar("T", Run, RunsPage)

_JOBS_PER_PAGE = 100
# The reference says "less than 25" for 2.1 and 2.2; 24 is valid however that is read.
_RUNS_PER_PAGE = {"2.0": 999, "2.1": 24, "2.2": 24}


class JobsClient(Workspace):
    """Calls the Jobs API of one workspace, from any thread.

    :param host: the workspace's URL: https, or http for a server on this machine.
    :param workspace_id: which workspace, if several share the URL; a ``?o=`` in `host` is read too.
    :param token: a personal access token.
    :param auth: any other authentication: a ``requests.auth.AuthBase``, as ``client.auth`` has them.
    :param api_version: one of ``client.workspace.API_VERSIONS``.
    :param retry: how long a failed call is retried.
    :param patience: how long failed polls are retried while waiting for a run.
    :param max_requests_per_second: the limit for all waits in a triggerer together, per workspace.
    :param connection: the id of the Airflow connection that the client was made from; shown in messages.
    :param transport: replaces `host`, `workspace_id`, `token`, `auth` and `retry`.
    :param reread: returns a transport with the current credentials; called while waiting if the API refuses the old.

    Every method raises ``errors.CallError`` (Unreachable, UnreadableReply or ApiError) if the API gave no usable reply
    even after the retries. Ids are INT64; times are epoch milliseconds, except those of ``client.models.Run``.

    Request bodies are mappings and are sent unchanged; ``payloads.check`` checks them. Replies are dicts of the types
    in ``payloads``, as the API sends them, so a field may be missing. A run is a ``client.models.Run``, which knows
    whether it is over and how it ended; its ``raw`` has all fields.
    """

    # --- jobs ---

    def create_job(self, settings: Body) -> int:
        """Create a job (``jobs/create``) and return its job_id. Names are not unique: two calls make two jobs."""
        return _id(self._post("create", _mapping(settings), repeatable=False), "job_id", "create")

    def list_jobs(
        self, *, name: str | None = None, expand_tasks: bool = False, page_size: int = _JOBS_PER_PAGE
    ) -> Iterator[Job]:
        """Yield all jobs (``jobs/list``), page by page; with `name`, only those of that name (case-insensitive).

        From 2.1 on, jobs have no tasks and clusters unless `expand_tasks` is set. They are then complete, which takes
        an additional request for each further hundred tasks of a job in 2.2 (in 2.1 a job has at most a hundred). 2.0
        has neither pages nor a filter; the client filters. Set a small `page_size` if you need only the first jobs.
        """
        name = None if name is None else str(name)  # a native template turns "2024" into a number
        query: Body = {}
        if self.api_version != "2.0":
            query = {"name": name, "expand_tasks": expand_tasks or None, "limit": page_size}
        for job in self._elements("list", "jobs", query):
            if name is not None and str(job_name(job)).casefold() != name.casefold():
                continue
            yield self.get_job(_id_in(job, "job_id")) if expand_tasks and self._is_incomplete(job) else cast("Job", job)

    def find_job_id(self, name: str) -> int:
        """Return the id of the only job named exactly `name`. Raises ConfigurationError if there is none or several."""
        found = self.find_job_ids(name)
        if len(found) == 1:
            return found[0]
        if found:
            raise ConfigurationError(
                f"job_name={name!r}: {len(found)} jobs have this name ({', '.join(map(str, found))})."
                " Set job_id instead."
            )
        hint = ""
        # One page: workspaces may have thousands of jobs.
        for job in islice(self.list_jobs(), _JOBS_PER_PAGE):
            if re.fullmatch(rf"\[[^]]+\] {re.escape(str(name))}", str(job_name(job))):
                found_at = f"{job_name(job)!r} (job_id {_id_in(job, 'job_id')})"
                hint = f" There is {found_at}: a bundle's target in development mode prefixes names."
        raise ConfigurationError(
            f"job_name={name!r}: {self.host} has no job of this name that these credentials may see.{hint}"
            " Check the spelling (case matters), or set job_id instead."
        )

    def find_job_ids(self, name: str) -> list[int]:
        """Return the ids of all jobs named exactly `name`, in ascending order."""
        jobs = self.list_jobs(name=name)
        return sorted(_id_in(job, "job_id") for job in jobs if job_name(job) == str(name))

    def get_job(self, job_id: int, *, include_trigger_state: bool = False) -> Job:
        """Return a job (``jobs/get``), with all pages of its settings' arrays."""
        query = {"job_id": job_id, "include_trigger_state": include_trigger_state or None}
        return cast("Job", pagination.whole_job(self._page_fetcher("get", query)))

    def reset_job(self, job_id: int, new_settings: Body) -> None:
        """Replace all settings of a job (``jobs/reset``)."""
        self._post("reset", {"job_id": job_id, "new_settings": _mapping(new_settings)}, void=True)

    def update_job(
        self,
        job_id: int,
        new_settings: Body | None = None,
        fields_to_remove: Sequence[str] | None = None,
    ) -> None:
        """Change or remove some settings of a job (``jobs/update``)."""
        settings = None if new_settings is None else _mapping(new_settings)
        body = {"job_id": job_id, "new_settings": settings, "fields_to_remove": fields_to_remove}
        self._post("update", body, void=True)

    def delete_job(self, job_id: int) -> None:
        """Delete a job and its history (``jobs/delete``); deleting it twice is no error."""
        self._post("delete", {"job_id": job_id}, void=True)

    # --- permissions (their path is the same for all API versions) ---

    def get_permissions(self, job_id: int) -> JobPermissions:
        """Return the permissions on a job (``permissions/jobs``)."""
        return cast("JobPermissions", self.transport.call("GET", _permissions(job_id), repeatable=True))

    def get_permission_levels(self, job_id: int) -> list[JobPermissionsDescription]:
        """Return the permission levels that can be granted on a job (``permissionLevels``)."""
        path = f"{_permissions(job_id)}/permissionLevels"
        levels = pagination.objects(self.transport.call("GET", path, repeatable=True), "permission_levels")
        return cast("list[JobPermissionsDescription]", levels)

    def set_permissions(self, job_id: int, grants: Sequence[Body]) -> JobPermissions:
        """Replace all direct grants on a job (PUT). Return the resulting permissions, including inherited ones."""
        return self._grant("PUT", job_id, grants)

    def update_permissions(self, job_id: int, grants: Sequence[Body]) -> JobPermissions:
        """Add grants to a job, or change their levels (PATCH). Return the resulting permissions."""
        return self._grant("PATCH", job_id, grants)

    # --- runs ---

    def run_now(self, payload: Body) -> int:
        """Run a job (``jobs/run-now``) and return the run_id. Retried fully only with an ``idempotency_token``."""
        return self._launch("run-now", _mapping(payload))

    def submit_run(self, payload: Body) -> int:
        """Launch a one-time run (``jobs/runs/submit``) and return its run_id; retried as `run_now` is."""
        return self._launch("runs/submit", _mapping(payload))

    def list_runs(
        self,
        *,
        job_id: int | None = None,
        active_only: bool | None = None,
        completed_only: bool | None = None,
        run_type: str | None = None,
        expand_tasks: bool | None = None,
        start_time_from: int | None = None,
        start_time_to: int | None = None,
        page_size: int | None = None,
    ) -> Iterator[Run]:
        """Yield runs, latest start first (``jobs/runs/list``), page by page.

        `start_time_from` and `start_time_to` are inclusive, in epoch milliseconds; 2.0 does not support them, so the
        client filters. `expand_tasks` needs 2.1 or newer, and takes an additional request for each further hundred
        tasks of a run in 2.2. Set a small `page_size` if you need only the latest runs.
        """
        query = {
            "job_id": job_id,
            "active_only": active_only,
            "completed_only": completed_only,
            "run_type": run_type,
            "expand_tasks": expand_tasks,
            "start_time_from": start_time_from,
            "start_time_to": start_time_to,
            "limit": page_size or _RUNS_PER_PAGE[self.api_version],
        }
        for run in self._elements("runs/list", "runs", query):
            found = self._read_as(Run, run)
            if job_id is not None and found.job_id not in {None, int(job_id)}:
                self.transport.drop_connection()
                raise UnreadableReply(f"GET jobs/runs/list returned a run of job {found.job_id} instead of {job_id}")
            if self.api_version == "2.0" and not _started_within(found, start_time_from, start_time_to):
                continue
            yield self.get_run(found.run_id) if expand_tasks and self._is_incomplete(run) else found

    def get_run(self, run_id: int, *, include_history: bool = False, include_resolved_values: bool = False) -> Run:
        """Return a run or a task run (``jobs/runs/get``), with all its tasks. Raises NotFound if there is none.

        From 2.1 on, its ``raw`` also has its repairs (with `include_history`) and its parameters after substitution
        (with `include_resolved_values`).
        """
        query = {
            "run_id": run_id,
            "include_history": include_history or None,
            "include_resolved_values": include_resolved_values or None,
        }
        return self._read_as(Run, pagination.whole_run(self._page_fetcher("runs/get", query)))

    def poll_run(self, run_id: int) -> Run:
        """Return a run with one request: without retries, and only the first page of its tasks."""
        return self._read_as(Run, self.transport.send("GET", self._path("runs/get"), query={"run_id": run_id}))

    def poll_runs(
        self,
        *,
        limit: int,
        offset: int | None = None,
        page_token: str | None = None,
        ended: bool = False,
        api_version: str | None = None,
    ) -> RunsPage:
        """Return a page of the active or of the ended runs, only their ids and states.

        It takes one request, without retries. A page has up to 1000 runs in 2.0 (with `limit` 0, the maximum), and up
        to 25 in later versions.
        """
        query = {
            "completed_only" if ended else "active_only": True,
            "limit": limit,
            "offset": offset,
            "page_token": page_token,
        }
        path = f"{api_version or self.api_version}/jobs/runs/list"
        return self._read_as(RunsPage, self.transport.send("GET", path, query=query, parse=parse_runs_page))

    def export_run(self, run_id: int, *, views: Views = "CODE") -> list[ViewItem]:
        """Return the HTML views of a notebook run (``jobs/runs/export``)."""
        reply = self._get("runs/export", {"run_id": run_id, "views_to_export": views})
        return cast("list[ViewItem]", pagination.objects(reply, "views"))

    def wait_for_run(self, run_id: int, *, timeout: float | None = None, period: float = 10.0) -> Run:
        """Poll a run every `period` seconds until it is over, and return it with all its tasks.

        Raises ``errors.RunStillActive`` after `timeout` seconds, and ``errors.RunLost`` if the run was deleted or polls
        fail for longer than `patience` allows. It does not cancel the run.
        """
        from airflow_dbjobs.client.wait import wait_for_run_until_timeout

        return wait_for_run_until_timeout(self, run_id, timeout, period)

    def cancel_run(self, run_id: int) -> None:
        """Cancel a run (``jobs/runs/cancel``), which ends some time later. On a finished run it has no effect."""
        self._post("runs/cancel", {"run_id": run_id}, void=True)

    def cancel_all_runs(self, job_id: int | None = None, *, all_queued_runs: bool = False) -> None:
        """Cancel all active runs of a job (``jobs/runs/cancel-all``).

        With `all_queued_runs`, which needs 2.1 or newer, cancel only queued runs: those of the job or, without
        `job_id`, of the workspace.
        """
        self._post("runs/cancel-all", {"job_id": job_id, "all_queued_runs": all_queued_runs or None}, void=True)

    def get_run_output(self, run_id: int) -> RunOutput:
        """Return the output of a single task run (``jobs/runs/get-output``).

        For a run with tasks, pass each ``tasks[].run_id``: from 2.1 on, the run itself has no output.
        """
        return cast("RunOutput", self._get("runs/get-output", {"run_id": run_id}))

    def delete_run(self, run_id: int) -> None:
        """Delete a finished run (``jobs/runs/delete``); its idempotency token can never be used again."""
        self._post("runs/delete", {"run_id": run_id}, void=True)

    def repair_run(self, payload: Body) -> int:
        """Run tasks of a finished run again (``jobs/runs/repair``, from 2.1); return the repair_id.

        Every repair except the first needs ``latest_repair_id``. If the payload has no such field, it is read from the
        run; None says that the run must not have been repaired. The API refuses a second repair with the same id, so
        the call can be retried. If its reply was lost, a repair that is new in the run's history counts as this one,
        although another caller may have made it at that moment. A repair does not inherit the parameters of the run:
        pass them again.
        """
        if self.api_version == "2.0":
            raise ConfigurationError("jobs/runs/repair needs api_version 2.1 or 2.2.")
        body = dict(_mapping(payload))
        if not body.get("run_id"):
            raise ConfigurationError("run_id is missing, so no run was repaired. Set it to the run to repair.")
        if "latest_repair_id" not in body:
            body["latest_repair_id"] = self._latest_repair_id(body["run_id"])
        try:
            return _id(self._post("runs/repair", body), "repair_id", "runs/repair")
        except CallError as error:
            repair_id = None
            if error.unclear:
                with suppress(CallError):
                    repair_id = self._latest_repair_id(body["run_id"])
            if repair_id is None or str(repair_id) == str(body["latest_repair_id"]):
                raise
            return repair_id

    def _latest_repair_id(self, run_id: int) -> int | None:
        repairs = repairs_of(self.get_run(run_id, include_history=True))
        return _id_in(repairs[-1], "id") if repairs else None

    def _read_as(self, kind: type[T], reply: dict[str, Any]) -> T:
        try:
            return kind.from_json(reply)
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
            self.transport.drop_connection()
            raise UnreadableReply(
                f"GET jobs/runs returned something that is not a {kind.__name__}: {error!r}"
            ) from None

    def _is_incomplete(self, entry: Mapping[str, Any]) -> bool:
        """Return True if the arrays in an element of a list are incomplete, and the rest can be fetched."""
        return self.api_version == "2.2" and bool(entry.get("has_more"))

    def _launch(self, endpoint: str, payload: Body) -> int:
        reply = self._post(endpoint, payload, repeatable=bool(payload.get("idempotency_token")))
        if endpoint == "run-now" and "run_id" not in reply:
            raise NoRunToWaitFor(
                "POST jobs/run-now returned no run_id, as it does if a continuous job is running: the API restarted"
                " it. Such a job starts its runs itself, so there is no run to wait for. Do not run it from a task, or"
                " remove `continuous` from the job."
            )
        try:
            return _id(reply, "run_id", endpoint)
        except UnreadableReply:
            self.transport.drop_connection()
            raise

    def _grant(self, method: str, job_id: int, grants: Sequence[Body]) -> JobPermissions:
        body = {"access_control_list": list(grants)}
        return cast("JobPermissions", self.transport.call(method, _permissions(job_id), body=body, repeatable=True))


def _id(reply: dict[str, Any], name: str, endpoint: str) -> int:
    # The reply of runs/get has a run_id, too.
    if "state" in reply:
        raise UnreadableReply(f"POST jobs/{endpoint} returned the answer to another request")
    try:
        return identifier(reply[name], least=1)
    except KeyError:
        failure = UnreadableReply(f"POST jobs/{endpoint} returned no {name}: nothing was launched or created")
        failure.unclear = False
        raise failure from None
    except (TypeError, ValueError) as error:
        raise UnreadableReply(f"POST jobs/{endpoint} returned an invalid {name}: {error}") from None


def _permissions(job_id: int) -> str:
    # `int` because it becomes a part of the path.
    return f"2.0/permissions/jobs/{int(job_id)}"


def _id_in(entry: Mapping[str, Any], name: str) -> int:
    try:
        return identifier(entry[name])
    except (KeyError, TypeError, ValueError) as error:
        raise UnreadableReply(f"The API returned a list with an element that has no valid {name}") from error


def _started_within(run: Run, earliest: int | None, latest: int | None) -> bool:
    start = (run.start_time or 0) * 1000
    return (earliest is None or start >= earliest) and (latest is None or start <= latest)


def _mapping(body: Body) -> Body:
    if not isinstance(body, Mapping):
        raise TypeError(f"the body of a request must be a mapping, as in run_now({{'job_id': 5}}), not {body!r}")
    return body
