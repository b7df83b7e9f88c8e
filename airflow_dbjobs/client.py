"""JobsClient: one method per endpoint of the Jobs API 2.0, 2.1 and 2.2.

It needs no Airflow::

    from airflow_dbjobs.client import JobsClient

    client = JobsClient("https://adb-1234567890123456.7.azuredatabricks.net", token="dapi...")
    run_id = client.run_now({"job_id": 42, "idempotency_token": "nightly-2026-11-22"})
    print(client.get_run(run_id).state)

Source of endpoints and fields: the Jobs API reference, https://docs.databricks.com/api/workspace/jobs.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from airflow_dbjobs.auth import choose_auth
from airflow_dbjobs.errors import ConfigurationError, UnreadableReply
from airflow_dbjobs.retries import MAX_REQUESTS_PER_SECOND, Patience
from airflow_dbjobs.runs import Run, RunsPage, parse_runs_page
from airflow_dbjobs.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Literal

    from requests.auth import AuthBase

    from airflow_dbjobs.retries import RetryPolicy

T = TypeVar("T", Run, RunsPage)

log = logging.getLogger(__name__)

API_VERSIONS = ("2.0", "2.1", "2.2")
DEFAULT_API_VERSION = "2.2"

# The arrays of a job or run that 2.2 cuts into pages of 100 elements; each page repeats the other fields.
_PAGED_RUN_ARRAYS = ("tasks", "job_clusters", "job_parameters", "repair_history", "iterations")
_PAGED_JOB_ARRAYS = ("tasks", "job_clusters", "environments", "parameters")
_JOBS_PER_PAGE = 100
# The text of 2.1 and 2.2 says "less than 25"; 24 satisfies every reading.
_RUNS_PER_PAGE = {"2.0": 999, "2.1": 24, "2.2": 24}


class JobsClient:
    """Calls the Jobs API of one workspace, from any thread.

    `host` is a URL (``https://`` is assumed where the scheme is missing). Sign in with `token` (a personal access
    token), with `username` and `password`, or with any ``requests.auth.AuthBase`` as `auth`. `api_version` is one of
    API_VERSIONS. `retry` says how long a call goes on trying, `patience` how long those who wait for a run put up with
    calls that fail; `max_requests_per_second` is what all that wait in one process may ask of the workspace together
    (those that wait in a worker ask one by one and are not counted). `transport` replaces host and credentials; it is
    how the hook and the tests set limits and clocks.
    `reread` returns a transport with the credentials as they are now: who waits for a run calls it when they are
    refused.

    Every method raises ``errors.CallError`` (Unreachable, UnreadableReply, ApiError) where the API gave no usable
    answer even after the retries of ``transport``. Ids are INT64, times epoch milliseconds. Payloads and replies are
    the JSON objects of the reference, except that runs come as ``runs.Run``.
    """

    def __init__(
        self,
        host: str = "",
        *,
        token: str | None = None,
        username: str | None = None,
        password: str | None = None,
        auth: AuthBase | None = None,
        api_version: str = DEFAULT_API_VERSION,
        retry: RetryPolicy | None = None,
        patience: Patience | None = None,
        max_requests_per_second: float = MAX_REQUESTS_PER_SECOND,
        transport: Transport | None = None,
        reread: Callable[[], Transport] | None = None,
    ) -> None:
        if api_version not in API_VERSIONS:
            raise ConfigurationError(f"api_version is {api_version!r}; it must be one of {', '.join(API_VERSIONS)}.")
        if transport is None:
            if auth is None:
                auth = choose_auth(login=username, password=password, extra={"token": token})
            transport = Transport(workspace_url(host), auth, policy=retry)
        self.transport = transport
        self.api_version = api_version
        self.patience = patience or Patience()
        self.max_requests_per_second = max_requests_per_second
        self._reread = reread

    @property
    def host(self) -> str:
        """The workspace's URL: scheme, host and port."""
        return self.transport.base_url

    @property
    def clock(self) -> Callable[[], float]:
        """What time is read from: monotonic seconds, unless the transport has another."""
        return self.transport.clock

    @property
    def sleep(self) -> Callable[[float], None]:
        """What waits, for so many seconds."""
        return self.transport.sleep

    def server_time(self, reading: float) -> float:
        """Return what the server's clock said, in epoch seconds, when `clock` read `reading`."""
        return self.transport.server_time(reading)

    def with_policy(self, retry: RetryPolicy) -> JobsClient:
        """Return a client of the same workspace with other limits, sharing no session and no lock with this one."""
        return JobsClient(
            api_version=self.api_version,
            transport=self.transport.with_policy(retry),
            patience=self.patience,
            max_requests_per_second=self.max_requests_per_second,
        )

    def renew_credentials(self) -> None:
        """Read the credentials anew, where somebody has said how: they may have been rotated since."""
        if self._reread is None:
            return
        try:
            transport = self._reread()
        except Exception as error:  # noqa: BLE001 (a secrets backend that is down: the old ones are all there is)
            log.warning("The connection cannot be read anew: %s", error)
            return
        if transport.identity != self.transport.identity:
            log.warning("The connection has changed: going on with what it says now.")
            self.transport.close()
            self.transport = transport

    def close(self) -> None:
        """Close all connections."""
        self.transport.close()

    # --- jobs ---

    def create_job(self, settings: Mapping[str, Any]) -> int:
        """Create a job (``jobs/create``) and return its job_id. Names are not unique: two calls make two jobs."""
        return _id(self._post("create", settings, repeatable=False), "job_id", "create")

    def list_jobs(self, *, name: str | None = None, expand_tasks: bool = False) -> Iterator[dict[str, Any]]:
        """Yield all jobs (``jobs/list``), page by page; with `name`, those of that name (case does not matter).

        2.0 has no pages and no filter: there the filter is applied here.
        """
        if self.api_version == "2.0":
            for job in self._get("list").get("jobs") or ():
                if name is None or str(job.get("settings", {}).get("name", "")).casefold() == name.casefold():
                    yield job
            return
        query = {"name": name, "expand_tasks": expand_tasks or None, "limit": _JOBS_PER_PAGE}
        for page in self._pages("list", query):
            yield from page.get("jobs") or ()

    def find_job_id(self, name: str) -> int:
        """Return the id of the only job called exactly `name`. Raises ConfigurationError if none is, or several."""
        name = str(name)  # a native template makes a number of "2024"
        found = [job["job_id"] for job in self.list_jobs(name=name) if job.get("settings", {}).get("name") == name]
        if len(found) == 1:
            return int(found[0])
        if found:
            ids = ", ".join(map(str, sorted(found)))
            raise ConfigurationError(
                f"job_name={name!r}: {len(found)} jobs have this name ({ids}). Give the job_id instead."
            )
        raise ConfigurationError(
            f"job_name={name!r}: {self.host} has no job of this name that these credentials may see."
            " Check the spelling (case counts), or give the job_id."
        )

    def get_job(self, job_id: int) -> dict[str, Any]:
        """Return a job (``jobs/get``); the arrays of its settings are whole, however many pages they came in."""
        job = self._get("get", {"job_id": job_id})
        for page in self._further_pages("get", {"job_id": job_id}, job):
            _extend(job.setdefault("settings", {}), page.get("settings") or {}, _PAGED_JOB_ARRAYS)
        return job

    def reset_job(self, job_id: int, new_settings: Mapping[str, Any]) -> None:
        """Replace all settings of a job (``jobs/reset``)."""
        self._post("reset", {"job_id": job_id, "new_settings": new_settings}, void=True)

    def update_job(
        self, job_id: int, new_settings: Mapping[str, Any] | None = None, fields_to_remove: Sequence[str] | None = None
    ) -> None:
        """Change or remove some settings of a job (``jobs/update``)."""
        body = {"job_id": job_id, "new_settings": new_settings, "fields_to_remove": fields_to_remove}
        self._post("update", body, void=True)

    def delete_job(self, job_id: int) -> None:
        """Delete a job and its history (``jobs/delete``); deleting it again does nothing."""
        self._post("delete", {"job_id": job_id}, void=True)

    # --- runs ---

    def run_now(self, payload: Mapping[str, Any]) -> int:
        """Run a job (``jobs/run-now``) and return the run_id. Only a call with an ``idempotency_token`` is repeated."""
        return self._launch("run-now", payload)

    def submit_run(self, payload: Mapping[str, Any]) -> int:
        """Launch a one-time run (``jobs/runs/submit``) and return its run_id, repeated as `run_now` is."""
        return self._launch("runs/submit", payload)

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
    ) -> Iterator[Run]:
        """Yield runs, latest start first (``jobs/runs/list``), page by page.

        `expand_tasks`, `start_time_from` and `start_time_to` (epoch milliseconds, inclusive) need 2.1 or newer.
        """
        query = {
            "job_id": job_id,
            "active_only": active_only,
            "completed_only": completed_only,
            "run_type": run_type,
            "expand_tasks": expand_tasks,
            "start_time_from": start_time_from,
            "start_time_to": start_time_to,
            "limit": _RUNS_PER_PAGE[self.api_version],
        }
        pages = self._offset_pages("runs/list", query) if self.api_version == "2.0" else self._pages("runs/list", query)
        for page in pages:
            for run in page.get("runs") or ():
                yield _read_as(Run, run)

    def get_run(self, run_id: int, *, include_history: bool = False) -> Run:
        """Return a run or a task run (``jobs/runs/get``), with all its tasks. Raises NotFound where there is none."""
        query = {"run_id": run_id, "include_history": include_history or None}
        run = self._get("runs/get", query)
        for page in self._further_pages("runs/get", query, run):
            _extend(run, page, _PAGED_RUN_ARRAYS)
        return _read_as(Run, run)

    def poll_run(self, run_id: int) -> Run:
        """Ask for a run once, with no retry and only its first page: what a poller does that waits by itself."""
        return _read_as(Run, self.transport.send("GET", self._path("runs/get"), query={"run_id": run_id}))

    def poll_active_runs(
        self, *, limit: int, offset: int | None = None, page_token: str | None = None, api_version: str | None = None
    ) -> RunsPage:
        """Ask once for a page of the active runs, of which only ids and states are read: what a poller does.

        2.0 has pages of up to 1000 runs (`limit` 0 means as many as may be), others of 25.
        """
        query = {"active_only": True, "limit": limit, "offset": offset, "page_token": page_token}
        path = f"{api_version or self.api_version}/jobs/runs/list"
        return _read_as(RunsPage, self.transport.send("GET", path, query=query, parse=parse_runs_page))

    def export_run(self, run_id: int, *, views: Literal["CODE", "DASHBOARDS", "ALL"] = "CODE") -> list[dict[str, Any]]:
        """Return the HTML views of a notebook run (``jobs/runs/export``): dicts of content, name and type."""
        reply = self._get("runs/export", {"run_id": run_id, "views_to_export": views})
        return list(reply.get("views") or ())

    def cancel_run(self, run_id: int) -> None:
        """Ask for the end of a run (``jobs/runs/cancel``); it ends some time later. A finished run stays as it is."""
        self._post("runs/cancel", {"run_id": run_id}, void=True)

    def cancel_all_runs(self, job_id: int) -> None:
        """Ask for the end of all active runs of a job (``jobs/runs/cancel-all``)."""
        self._post("runs/cancel-all", {"job_id": job_id}, void=True)

    def get_run_output(self, run_id: int) -> dict[str, Any]:
        """Return what a single task run printed and returned (``jobs/runs/get-output``).

        For a run with tasks ask for each ``tasks[].run_id``: from 2.1 on the run itself has no output.
        """
        return self._get("runs/get-output", {"run_id": run_id})

    def delete_run(self, run_id: int) -> None:
        """Delete a finished run (``jobs/runs/delete``); its idempotency token can never be used again."""
        self._post("runs/delete", {"run_id": run_id}, void=True)

    def repair_run(self, payload: Mapping[str, Any]) -> int:
        """Run failed or named tasks of a finished run again (``jobs/runs/repair``, from 2.1); return the repair_id."""
        if self.api_version == "2.0":
            raise ConfigurationError("jobs/runs/repair needs api_version 2.1 or 2.2.")
        return _id(self._post("runs/repair", payload, repeatable=False), "repair_id", "runs/repair")

    # --- how a call is made ---

    def _path(self, endpoint: str) -> str:
        return f"{self.api_version}/jobs/{endpoint}"

    def _get(self, endpoint: str, query: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return self.transport.call("GET", self._path(endpoint), query=query, repeatable=True)

    def _post(
        self, endpoint: str, body: Mapping[str, Any], *, repeatable: bool = True, void: bool = False
    ) -> dict[str, Any]:
        sent = {name: value for name, value in body.items() if value is not None}
        return self.transport.call("POST", self._path(endpoint), body=sent, repeatable=repeatable, void=void)

    def _launch(self, endpoint: str, payload: Mapping[str, Any]) -> int:
        reply = self._post(endpoint, payload, repeatable=bool(payload.get("idempotency_token")))
        # A continuous job that runs already is answered without one.
        return _id(reply, "run_id", endpoint)

    def _pages(self, endpoint: str, query: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        first = self._get(endpoint, query)
        yield first
        yield from self._further_pages(endpoint, query, first)

    def _further_pages(
        self, endpoint: str, query: Mapping[str, Any], page: Mapping[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """Yield the pages after `page`, following ``next_page_token`` (a missing or empty one ends the walk)."""
        token = page.get("next_page_token")
        while token:
            following = self._get(endpoint, {**query, "page_token": token})
            yield following
            token = following.get("next_page_token")

    def _offset_pages(self, endpoint: str, query: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the pages of a 2.0 list, which are addressed by offset."""
        offset, more = 0, True
        while more:
            page = self._get(endpoint, {**query, "offset": offset})
            yield page
            count = len(page.get("runs") or ())
            offset, more = offset + count, bool(page.get("has_more")) and count > 0


def workspace_url(host: str | None, *, schema: str = "", port: int | None = None) -> str:
    """Return a workspace's URL: scheme, host and port, and nothing else.

    `host` may be a name, or a URL as a browser shows it, of which scheme, name and port count. `schema` (http or https)
    and `port` win over those of `host`; the scheme is https where neither says. Raises ConfigurationError.
    """
    given = (host or "").strip()
    if not given:
        raise ConfigurationError("host is empty. Put the workspace's URL there: https://adb-….azuredatabricks.net.")
    try:
        parts = urlsplit(given if "://" in given else f"//{given}")
        name, port = parts.hostname, port or parts.port
    except ValueError:
        # Python's message quotes the part that is wrong, which may be a password.
        raise ConfigurationError("host is not a URL: its name or its port cannot be read.") from None
    scheme = (schema.strip() or parts.scheme or "https").lower()
    if scheme not in {"http", "https"}:
        raise ConfigurationError(f"schema is {scheme!r}; it must be https (or http, for a workspace on this machine).")
    if not name or any(character.isspace() for character in name):
        raise ConfigurationError(
            "host names no host. Put the workspace's URL there: https://adb-….azuredatabricks.net."
        )
    return f"{scheme}://{f'[{name}]' if ':' in name else name}{f':{port}' if port else ''}"


def _id(reply: dict[str, Any], name: str, endpoint: str) -> int:
    try:
        return int(reply[name])
    except (KeyError, TypeError, ValueError) as error:
        nothing = UnreadableReply(f"POST jobs/{endpoint} answered without a {name}: nothing was launched or made")
        nothing.unclear = False
        raise nothing from error


def _read_as(kind: type[T], reply: dict[str, Any]) -> T:
    try:
        return kind.from_json(reply)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UnreadableReply(f"GET jobs/runs answered with something that is no {kind.__name__}: {error!r}") from error


def _extend(whole: dict[str, Any], page: Mapping[str, Any], arrays: tuple[str, ...]) -> None:
    for name in arrays:
        if page.get(name):
            whole[name] = [*(whole.get(name) or ()), *page[name]]
