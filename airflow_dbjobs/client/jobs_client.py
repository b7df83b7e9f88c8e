"""JobsClient: one method per endpoint of the Jobs API 2.0, 2.1 and 2.2.

It needs no Airflow::

    from airflow_dbjobs.client import JobsClient

    client = JobsClient("https://adb-1234567890123456.7.azuredatabricks.net", token="dapi...")
    run_id = client.run_now({"job_id": 42, "idempotency_token": "nightly-2026-11-22"})
    print(client.get_run(run_id).state)

Source of endpoints and fields: the Jobs API reference, https://docs.databricks.com/api/workspace/jobs.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar, cast

from airflow_dbjobs.client import pagination
from airflow_dbjobs.client.models import Run, RunsPage, parse_runs_page, repairs_of
from airflow_dbjobs.client.response_fields import identifier, job_name
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
# The text of 2.1 and 2.2 says "less than 25"; 24 satisfies every reading.
_RUNS_PER_PAGE = {"2.0": 999, "2.1": 24, "2.2": 24}


class JobsClient(Workspace):
    """Calls the Jobs API of one workspace, from any thread.

    `host` is a URL (https, but for an ``http://`` of this machine); where several workspaces share it, its ``?o=`` or
    `workspace_id` says which is meant. Authenticate with `token` (a personal access token), or with any
    ``requests.auth.AuthBase`` as `auth` (``client.auth`` has them). `api_version` is one of
    ``client.workspace.API_VERSIONS``. `retry` says for how long a call is retried, `patience` for how long waiting for
    a run tolerates calls that fail; `max_requests_per_second` is what all that wait in one process may request of the
    workspace together (those that wait in a worker poll one by one and are not counted); `connection`
    names where it comes from. `transport` replaces host and credentials; it is how the hook and the tests set limits
    and clocks. `reread` returns a transport with the credentials as they are now: who waits for a run calls it when
    they are refused.

    Every method raises ``errors.CallError`` (Unreachable, UnreadableReply, ApiError) where the API gave no usable
    answer even after the retries of ``client.transport``. Ids are INT64; times are epoch milliseconds, but for those of
    ``client.models.Run``.

    Bodies are mappings, and are sent as they are: ``payloads.check`` checks them. Answers are dicts of the types in
    ``payloads``, as the API sends them: a field may be missing. A run comes as ``client.models.Run``, which knows
    whether it is over and how it ended; its ``raw`` has all its fields.
    """

    # --- jobs ---

    def create_job(self, settings: Body) -> int:
        """Create a job (``jobs/create``) and return its job_id. Names are not unique: two calls make two jobs."""
        return _id(self._post("create", _mapping(settings), repeatable=False), "job_id", "create")

    def list_jobs(
        self, *, name: str | None = None, expand_tasks: bool = False, page_size: int = _JOBS_PER_PAGE
    ) -> Iterator[Job]:
        """Yield all jobs (``jobs/list``), page by page; with `name`, those of that name (case does not matter).

        From 2.1 on jobs come without tasks and clusters, unless `expand_tasks`: then with all of them, for which 2.2 is
        asked once more for each hundred tasks that a job has above the first (2.1 knows no more than a hundred). 2.0
        has no pages and no filter: there the filter is applied here. Who wants a few jobs only gives a small
        `page_size`.
        """
        name = None if name is None else str(name)  # a native template makes a number of "2024"
        query: Body = {}
        if self.api_version != "2.0":
            query = {"name": name, "expand_tasks": expand_tasks or None, "limit": page_size}
        for job in self._elements("list", "jobs", query):
            if name is not None and str(job_name(job)).casefold() != name.casefold():
                continue
            yield self.get_job(_told(job, "job_id")) if expand_tasks and self._is_cut(job) else cast("Job", job)

    def find_job_id(self, name: str) -> int:
        """Return the id of the only job called exactly `name`. Raises ConfigurationError if none is, or several."""
        found = self.find_job_ids(name)
        if len(found) == 1:
            return found[0]
        if found:
            raise ConfigurationError(
                f"job_name={name!r}: {len(found)} jobs have this name ({', '.join(map(str, found))})."
                " Give the job_id instead."
            )
        raise ConfigurationError(
            f"job_name={name!r}: {self.host} has no job of this name that these credentials may see."
            " Check the spelling (case counts), or give the job_id."
        )

    def find_job_ids(self, name: str) -> list[int]:
        """Return the ids of all jobs called exactly `name`, in ascending order."""
        jobs = self.list_jobs(name=name)
        return sorted(_told(job, "job_id") for job in jobs if job_name(job) == str(name))

    def get_job(self, job_id: int, *, include_trigger_state: bool = False) -> Job:
        """Return a job (``jobs/get``); the arrays of its settings are whole, however many pages they came in."""
        query = {"job_id": job_id, "include_trigger_state": include_trigger_state or None}
        return cast("Job", pagination.whole_job(self._asks("get", query)))

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
        """Delete a job and its history (``jobs/delete``); deleting it again does nothing."""
        self._post("delete", {"job_id": job_id}, void=True)

    # --- permissions, which have a path of their own, the same in all versions ---

    def get_permissions(self, job_id: int) -> JobPermissions:
        """Return who may do what with a job (``permissions/jobs``)."""
        return cast("JobPermissions", self.transport.call("GET", _permissions(job_id), repeatable=True))

    def get_permission_levels(self, job_id: int) -> list[JobPermissionsDescription]:
        """Return the levels that may be granted on a job (``permissionLevels``)."""
        path = f"{_permissions(job_id)}/permissionLevels"
        levels = pagination.objects(self.transport.call("GET", path, repeatable=True), "permission_levels")
        return cast("list[JobPermissionsDescription]", levels)

    def set_permissions(self, job_id: int, grants: Sequence[Body]) -> JobPermissions:
        """Replace all direct grants of a job (PUT). Return what holds then, inherited grants included."""
        return self._grant("PUT", job_id, grants)

    def update_permissions(self, job_id: int, grants: Sequence[Body]) -> JobPermissions:
        """Add grants to a job, or change the level of those who have one (PATCH). Return what holds then."""
        return self._grant("PATCH", job_id, grants)

    # --- runs ---

    def run_now(self, payload: Body) -> int:
        """Run a job (``jobs/run-now``) and return the run_id. Only a call with an ``idempotency_token`` is repeated."""
        return self._launch("run-now", _mapping(payload))

    def submit_run(self, payload: Body) -> int:
        """Launch a one-time run (``jobs/runs/submit``) and return its run_id, repeated as `run_now` is."""
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

        `start_time_from` and `start_time_to` are inclusive, in epoch milliseconds; 2.0 does not know them, and there
        they are applied here. `expand_tasks` needs 2.1 or newer; tasks come whole, for which 2.2 is asked once more for
        each hundred tasks that a run has above the first. Who wants a few runs only gives a small `page_size`.
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
            if self.api_version == "2.0" and not _started_within(found, start_time_from, start_time_to):
                continue
            yield self.get_run(found.run_id) if expand_tasks and self._is_cut(run) else found

    def get_run(self, run_id: int, *, include_history: bool = False, include_resolved_values: bool = False) -> Run:
        """Return a run or a task run (``jobs/runs/get``), with all its tasks. Raises NotFound where there is none.

        From 2.1 on it comes with its repairs (`include_history`) and with its parameters as they were filled in
        (`include_resolved_values`), where they are asked for: see ``Run.raw``.
        """
        query = {
            "run_id": run_id,
            "include_history": include_history or None,
            "include_resolved_values": include_resolved_values or None,
        }
        return self._read_as(Run, pagination.whole_run(self._asks("runs/get", query)))

    def poll_run(self, run_id: int) -> Run:
        """Ask for a run once, with no retry and only its first page: what a poller does that waits by itself."""
        return self._read_as(Run, self.transport.send("GET", self._path("runs/get"), query={"run_id": run_id}))

    def poll_active_runs(
        self, *, limit: int, offset: int | None = None, page_token: str | None = None, api_version: str | None = None
    ) -> RunsPage:
        """Ask once for a page of the active runs, of which only ids and states are read: what a poller does.

        2.0 has pages of up to 1000 runs (`limit` 0 means as many as may be), others of 25.
        """
        query = {"active_only": True, "limit": limit, "offset": offset, "page_token": page_token}
        path = f"{api_version or self.api_version}/jobs/runs/list"
        return self._read_as(RunsPage, self.transport.send("GET", path, query=query, parse=parse_runs_page))

    def export_run(self, run_id: int, *, views: Views = "CODE") -> list[ViewItem]:
        """Return the HTML views of a notebook run (``jobs/runs/export``)."""
        reply = self._get("runs/export", {"run_id": run_id, "views_to_export": views})
        return cast("list[ViewItem]", pagination.objects(reply, "views"))

    def wait_for_run(self, run_id: int, *, timeout: float | None = None, period: float = 10.0) -> Run:
        """Poll a run every `period` seconds until it is over, and return it with all its tasks.

        Raises ``errors.RunStillActive`` after `timeout` seconds, and ``errors.RunLost`` where the API does not answer
        for as long as `patience` says. It cancels nothing.
        """
        from airflow_dbjobs.client.wait import wait_for_run_until_timeout

        return wait_for_run_until_timeout(self, run_id, timeout, period)

    def cancel_run(self, run_id: int) -> None:
        """Ask for the end of a run (``jobs/runs/cancel``); it ends some time later. A finished run stays as it is."""
        self._post("runs/cancel", {"run_id": run_id}, void=True)

    def cancel_all_runs(self, job_id: int | None = None, *, all_queued_runs: bool = False) -> None:
        """Ask for the end of all active runs of a job (``jobs/runs/cancel-all``).

        With `all_queued_runs`, which needs 2.1 or newer, only for the end of those that are queued: the job's, or all
        of the workspace where no job is given.
        """
        self._post("runs/cancel-all", {"job_id": job_id, "all_queued_runs": all_queued_runs or None}, void=True)

    def get_run_output(self, run_id: int) -> RunOutput:
        """Return what a single task run printed and returned (``jobs/runs/get-output``).

        For a run with tasks ask for each ``tasks[].run_id``: from 2.1 on the run itself has no output.
        """
        return cast("RunOutput", self._get("runs/get-output", {"run_id": run_id}))

    def delete_run(self, run_id: int) -> None:
        """Delete a finished run (``jobs/runs/delete``); its idempotency token can never be used again."""
        self._post("runs/delete", {"run_id": run_id}, void=True)

    def repair_run(self, payload: Body) -> int:
        """Run tasks of a finished run again (``jobs/runs/repair``, from 2.1); return the repair_id.

        ``latest_repair_id``, which each repair but the first needs, is looked up where the payload has none. By it the
        API refuses to make a repair twice, so that the call may be repeated; where its reply was lost, the repair that
        the run's history has since is taken for it (which somebody else may have made in that moment). Parameters of
        the run are not inherited: give them again.
        """
        if self.api_version == "2.0":
            raise ConfigurationError("jobs/runs/repair needs api_version 2.1 or 2.2.")
        body = dict(_mapping(payload))
        if not body.get("run_id"):
            raise ConfigurationError("run_id is missing: it names the run to repair.")
        if body.get("latest_repair_id") is None:
            body["latest_repair_id"] = self._latest_repair_id(body["run_id"])
        try:
            return _id(self._post("runs/repair", body), "repair_id", "runs/repair")
        except CallError as error:
            made = None
            if error.unclear:
                with suppress(CallError):
                    made = self._latest_repair_id(body["run_id"])
            if made is None or str(made) == str(body["latest_repair_id"]):
                raise
            return made

    def _latest_repair_id(self, run_id: int) -> int | None:
        repairs = repairs_of(self.get_run(run_id, include_history=True))
        return _told(repairs[-1], "id") if repairs else None

    def _read_as(self, kind: type[T], reply: dict[str, Any]) -> T:
        try:
            return kind.from_json(reply)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            self.transport.drop_connection()
            raise UnreadableReply(
                f"GET jobs/runs answered with something that is no {kind.__name__}: {error!r}"
            ) from None

    def _is_cut(self, entry: Mapping[str, Any]) -> bool:
        """Whether an element of a list shows a part of its arrays only, and the rest can be had."""
        return self.api_version == "2.2" and bool(entry.get("has_more"))

    def _launch(self, endpoint: str, payload: Body) -> int:
        reply = self._post(endpoint, payload, repeatable=bool(payload.get("idempotency_token")))
        if endpoint == "run-now" and "run_id" not in reply:
            raise NoRunToWaitFor(
                "POST jobs/run-now answered without a run_id, as it does for a continuous job that runs already: it was"
                " restarted. Such a job starts its runs itself and has none to wait for. Take no task that runs it, or"
                " remove `continuous` from the job."
            )
        return _id(reply, "run_id", endpoint)

    def _grant(self, method: str, job_id: int, grants: Sequence[Body]) -> JobPermissions:
        body = {"access_control_list": list(grants)}
        return cast("JobPermissions", self.transport.call(method, _permissions(job_id), body=body, repeatable=True))


def _id(reply: dict[str, Any], name: str, endpoint: str) -> int:
    try:
        return identifier(reply[name])
    except KeyError:
        nothing = UnreadableReply(f"POST jobs/{endpoint} answered without a {name}: nothing was launched or made")
        nothing.unclear = False
        raise nothing from None
    except (TypeError, ValueError) as error:
        raise UnreadableReply(f"POST jobs/{endpoint} answered with a {name} that is none: {error}") from None


def _permissions(job_id: int) -> str:
    # A number and nothing else: it becomes a part of the path.
    return f"2.0/permissions/jobs/{int(job_id)}"


def _told(entry: Mapping[str, Any], name: str) -> int:
    try:
        return identifier(entry[name])
    except (KeyError, TypeError, ValueError) as error:
        raise UnreadableReply(f"The API answered with a list of which an element has no {name}") from error


def _started_within(run: Run, earliest: int | None, latest: int | None) -> bool:
    start = (run.start_time or 0) * 1000
    return (earliest is None or start >= earliest) and (latest is None or start <= latest)


def _mapping(body: Body) -> Body:
    if not isinstance(body, Mapping):
        raise TypeError(f"the body of a request is a mapping, as in run_now({{'job_id': 5}}), not {body!r}")
    return body
