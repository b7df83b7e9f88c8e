"""Launches a run exactly once: decides which run a try of a task waits for, and when it launches a new one.

The API starts one run for each idempotency token: the first request with a token launches a run, and every later one
returns the id of that run. A token contains a launch (task instance, operator, job, and the number of the launch within
the try), an epoch (the time between two clears of the task), and an ordinal: the k-th run of this launch in this epoch.
So a try finds the runs of earlier tries, and only those, by sending the ordinals 1, 2, ... until it finds a run to wait
for. The reports that earlier tries stored in Airflow save most of these requests, but the tokens alone suffice.

Source: ``idempotency_token`` of "Run now" and "Runs submit" in the Jobs API reference.
"""

from __future__ import annotations

import enum
import hashlib
import json
import logging
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from airflow_dbjobs.client.models import Outcome
from airflow_dbjobs.client.transport import Attempts
from airflow_dbjobs.client.wait import none_if_deleted, read_run, retry_through_outages, wait_for_run
from airflow_dbjobs.errors import (
    ApiError,
    BadRequest,
    ConfigurationError,
    Conflict,
    JobsError,
    NotFound,
    PermissionDenied,
    RunLost,
    Unauthenticated,
    UnreadableReply,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.client.models import Run

log = logging.getLogger(__name__)

Endpoint = Literal["run-now", "runs/submit"]

# A new run may not be readable immediately; after these waits (seconds) it counts as deleted.
_VISIBILITY_WAITS = (1.0, 2.0, 4.0, 8.0, 15.0)
# The API does not document its error for the token of a deleted run, so these messages and codes may mean that.
_DELETION_MESSAGE = re.compile(r"idempotency|\bdeleted\b", re.IGNORECASE)
_DELETION_CODES = frozenset(
    {"", "INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "NOT_FOUND"}
)
# As a report: the task succeeded, so that a later try only exists because the task was cleared.
TASK_SUCCEEDED = "return_value"
# By how much the clock of a gateway (`Date`) may differ from that of the Jobs API (`start_time`).
_CLOCK_SKEW_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class LaunchIdentity:
    """One launch in one try of one Airflow task instance.

    `dag_run_start` distinguishes this DAG run from the same one in another deployment, and `max_tries` changes when the
    task is cleared; retries change neither. `deployment` is set if deployments share even that. The launch is number
    `launch_number` (from 1) of those that `operator` (a task id) makes for the same endpoint and job. If it is not
    `durable`, it ignores the runs of other tries.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    try_number: int = 1
    max_tries: int = 0
    dag_run_start: str = ""
    deployment: str = ""
    operator: str = ""
    launch_number: int = 1
    durable: bool = True


@dataclass(frozen=True, slots=True)
class LaunchTokens:
    """The idempotency tokens of one launch: ``airflow-<launch>-<epoch>-<ordinal>``; the API takes 64 characters."""

    launch: str
    epoch: str

    @classmethod
    def of(
        cls, identity: LaunchIdentity, host: str, endpoint: Endpoint, job_id: object = None, workspace_id: str = ""
    ) -> LaunchTokens:
        """Return the tokens of a launch in a workspace: its URL, and its id if several workspaces share the URL."""
        launch = (
            *(urlsplit(host).netloc.lower(), workspace_id),
            *(identity.deployment, identity.dag_id, identity.run_id, identity.task_id, identity.map_index),
            *(endpoint, str(job_id), identity.operator, identity.launch_number),
            None if identity.durable else identity.try_number,
        )
        epoch = (identity.dag_run_start, identity.max_tries)
        return cls(_digest(launch)[:24], _digest(epoch)[:16])

    def token(self, ordinal: int) -> str:
        """Return the token of the `ordinal`-th run (from 1)."""
        return f"airflow-{self.launch}-{self.epoch}-{ordinal}"

    def read(self, report: str) -> tuple[str, int, int] | None:
        """Return the epoch, ordinal and run id in a report; None if it is about another launch."""
        found = re.fullmatch(rf"airflow-{self.launch}-([0-9a-f]+)-(\d+)\.(\d+)", report)
        return (found[1], int(found[2]), int(found[3])) if found else None


def _digest(parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class Verdict(enum.Enum):
    """What a try does with the run that its token returned."""

    LAUNCHED = "this try launched it"
    JOIN = "an earlier try launched it, and it is active"
    TAKE_RESULT = "an earlier try launched it, and its success was lost with the worker"
    WAIT_FOR_END = "an earlier try launched it, and it is ending; its result will decide"
    IGNORE = "an earlier try launched it, and it ended without success"


def judge(
    run: Run,
    *,
    is_old: bool | None,
    server_time: float,
    seconds_ago: float,
    clock_skew: float = _CLOCK_SKEW_SECONDS,
    successes: Collection[Outcome] = frozenset({Outcome.SUCCESS}),
) -> Verdict:
    """Decide what to do with the run that the API returned for a token.

    `is_old` says whether an earlier try launched it; if that is None, the start of the run decides, as far as the
    server's clocks agree. The token was sent at `server_time` (epoch seconds), which was `seconds_ago`. `successes` are
    the outcomes with which the task succeeds.
    """
    if is_old is False:
        return Verdict.LAUNCHED
    looks_new = not is_old and _started_since(run, server_time)
    if not run.is_terminal:
        if run.state.is_being_stopped or run.state.life_cycle_state == "TERMINATING":
            return Verdict.WAIT_FOR_END
        return Verdict.LAUNCHED if looks_new else Verdict.JOIN
    if run.outcome in successes:
        return Verdict.LAUNCHED if looks_new else Verdict.TAKE_RESULT
    # A try must not launch two runs, so a failed run counts as its own unless that is impossible.
    duration = run.end_time - run.start_time if run.start_time and run.end_time else 0.0
    is_older = (
        is_old
        or duration > seconds_ago + 1
        # A cancelled run more likely belongs to a try that was killed, so its start need not be much earlier.
        or not _started_since(run, server_time - (0.0 if run.outcome is Outcome.CANCELED else clock_skew))
    )
    return Verdict.IGNORE if is_older else Verdict.LAUNCHED


def _started_since(run: Run, server_time: float) -> bool:
    return run.start_time is None or run.start_time >= server_time


@dataclass(frozen=True, slots=True)
class Launched:
    """The run to wait for.

    `message` is the line for the log that says why it is this run. `joined` says that an earlier try launched it.
    `token_already_used` says that the run belongs to the user's own idempotency token, and had ended before this try
    sent it. `report` is what Airflow is to store for the next try, "" for nothing.
    """

    run: Run
    message: str
    joined: bool = False
    token_already_used: bool = False
    report: str = ""


@dataclass(frozen=True, slots=True)
class _InFlight:
    """The latest token that was sent. `may_exist` says that an earlier try may have sent it before."""

    token: str
    may_exist: bool
    attempts: Attempts


class Launcher:
    """Launches the run of one try of a task, or finds the run that the try is to wait for.

    `payload` is the request body; an idempotency token in it is sent unchanged. `reports` are those of the last try
    that stored any (``Launched.report``, TASK_SUCCEEDED), or None if Airflow cannot return them. With `cancel_cleared`,
    a run from before a clear that is still active is cancelled. `successes` are the outcomes with which the task
    succeeds.
    """

    def __init__(
        self,
        client: JobsClient,
        endpoint: Endpoint,
        payload: Mapping[str, Any],
        identity: LaunchIdentity,
        *,
        reports: Collection[str] | None = None,
        cancel_cleared: bool = True,
        successes: Collection[Outcome] = frozenset({Outcome.SUCCESS}),
    ) -> None:
        self._client = client
        self._endpoint = endpoint
        self._payload = dict(payload)
        self._job_id = payload.get("job_id") if endpoint == "run-now" else None
        self._tokens = LaunchTokens.of(identity, client.host, endpoint, self._job_id, client.workspace_id)
        # A launch that ignores other tries behaves as in a first try.
        self._try_number = identity.try_number if identity.durable else 1
        self._reports = reports
        self._cancel_cleared = cancel_cleared
        # If Airflow recorded the success of an earlier try, there is no lost success to find.
        self._successes = frozenset() if TASK_SUCCEEDED in (reports or ()) else successes
        self._in_flight: _InFlight | None = None
        self._stopped = False

    def launch(self) -> Launched:
        """Return the run that this try waits for. Raises JobsError: mostly CallError or RunLost."""
        if token := self._payload.get("idempotency_token"):
            return self._launch_with_users_token(str(token))
        reports = [report for text in self._reports or () if (report := self._tokens.read(text))]
        known = {ordinal for epoch, ordinal, _ in reports if epoch == self._tokens.epoch}
        for _, _, run_id in reports if not known else ():
            self._end_cleared_run(run_id)
        ordinal, reason = max(known, default=1), ""
        while True:
            # Each earlier try launched at most one run, so none has sent the ordinal that equals this try's number.
            is_old = (ordinal in known or None) if ordinal < self._try_number else False
            found = self._launch(ordinal, reason, is_old=is_old)
            if isinstance(found, Launched):
                return found
            ordinal, reason = ordinal + 1, found

    def find_in_flight(self, client: JobsClient) -> int | None:
        """Return the run that the call in progress launches or finds, or None if there is none.

        This sends the same token again with `client`, because a signal handler must not use the client of the call that
        it interrupted. Nothing is sent if no earlier request can have reached the server, as it would launch a run.
        """
        sent = self._in_flight
        return self._post(sent.token, client) if sent and (sent.may_exist or sent.attempts.unclear) else None

    def stop(self) -> None:
        """Prevent further launches: the next one raises JobsError."""
        self._stopped = True

    def _launch(self, ordinal: int, reason: str, *, is_old: bool | None) -> Launched | str:
        """Return the run of a token to wait for, or the reason to try the next ordinal.

        `reason` is why the previous ordinal was not used.
        """
        token, started = self._tokens.token(ordinal), self._client.clock()
        try:
            run_id = self._send(token, may_exist=is_old is not False)
        except (BadRequest, NotFound, Conflict) as error:
            if is_old is not False and _may_mean_deletion(error):
                return "the run of an earlier try was deleted"
            raise
        server_time = self._client.server_time(started)
        run = self._read_new_run(run_id)
        if run is None and is_old is False:
            raise RunLost(
                f"Run {run_id} was launched, but the API cannot find it. It was cancelled. Check the workspace for it.",
                run_id=run_id,
            )
        if run is not None and self._is_of_another_job(run):
            # A proxy, say, gave the reply to another request.
            raise UnreadableReply(f"The launch of job {self._job_id} returned run {run_id} of job {run.job_id}")
        while run is not None:
            verdict = judge(
                run,
                is_old=is_old,
                server_time=server_time,
                seconds_ago=self._client.clock() - started,
                # Earlier tries usually report their runs: then a run without a report hardly belongs to one.
                clock_skew=0.0 if self._reports is None else _CLOCK_SKEW_SECONDS,
                successes=self._successes,
            )
            if verdict is Verdict.IGNORE:
                return f"run {run_id} of an earlier try ended as {run.state}"
            if verdict is not Verdict.WAIT_FOR_END:
                message = _message(run, verdict, reason, ordinal)
                return Launched(run, message, joined=verdict is not Verdict.LAUNCHED, report=f"{token}.{run_id}")
            # Until its end it may write data, and counts towards max_concurrent_runs of its job.
            log.info("Run %d of an earlier try is ending. Waiting for its end.", run_id)
            run = none_if_deleted(lambda: wait_for_run(self._client, run_id))
        return f"run {run_id} of an earlier try was deleted"

    def _launch_with_users_token(self, token: str) -> Launched:
        started = self._client.clock()
        run_id = self._send(token, may_exist=self._try_number > 1)
        server_time = self._client.server_time(started)
        run = self._read_new_run(run_id) or read_run(self._client, run_id)
        if self._is_of_another_job(run):
            raise ConfigurationError(
                f"The idempotency_token belongs to run {run_id} of job {run.job_id}, not of job {self._job_id}, so"
                f" nothing was launched. Use a different token for each job. {run.page_url}"
            )
        if _started_since(run, server_time):
            return Launched(run, _message(run, Verdict.LAUNCHED))
        start = _timestamp(run.start_time)
        message = f"Found run {run_id}, launched at {start} with the same idempotency_token: {run.page_url}"
        return Launched(run, message, token_already_used=run.is_terminal)

    def _is_of_another_job(self, run: Run) -> bool:
        return self._job_id is not None and run.job_id not in {None, int(self._job_id)}

    def _end_cleared_run(self, run_id: int) -> None:
        """Cancel a run from before the task was cleared, if it is active, and wait for its end. Raises RunLost."""
        run = none_if_deleted(lambda: read_run(self._client, run_id))
        if run is None or run.is_terminal:
            return
        if not run.state.is_being_stopped:
            if not self._cancel_cleared:
                return
            log.info("Cancelling run %d, which was launched before the task was cleared and is still active.", run_id)
            self._cancel(run_id)
        none_if_deleted(lambda: wait_for_run(self._client, run_id))

    def _send(self, token: str, *, may_exist: bool) -> int:
        attempts = Attempts()
        self._raise_if_stopped()
        self._in_flight = _InFlight(token, may_exist, attempts)
        try:
            # Checked again: a kill since the first check has cancelled the run of this token.
            self._raise_if_stopped()
            return self._post(token, self._client, attempts)
        except (Unauthenticated, PermissionDenied):
            # Nothing was launched, and the credentials may have been rotated since they were read.
            if not self._client.renew_credentials():
                raise
            self._raise_if_stopped()
            return self._post(token, self._client, attempts)

    def _post(self, token: str, client: JobsClient, attempts: Attempts | None = None) -> int:
        payload, transport = {**self._payload, "idempotency_token": token}, client.transport
        transport.attempts = attempts
        try:
            return client.run_now(payload) if self._endpoint == "run-now" else client.submit_run(payload)
        finally:
            transport.attempts = None

    def _raise_if_stopped(self) -> None:
        if self._stopped:
            raise JobsError("The task was killed before it launched its run. Nothing was launched.")

    def _read_new_run(self, run_id: int) -> Run | None:
        """Return the run, or cancel it and return None if the API cannot find it even after some time."""
        for wait in (*_VISIBILITY_WAITS, None):
            if run := none_if_deleted(lambda: read_run(self._client, run_id)):
                return run
            if wait is not None:
                self._client.sleep(wait)
        # It may be active although it cannot be read, and must not run in addition to the next one.
        self._cancel(run_id)
        return None

    def _cancel(self, run_id: int) -> None:
        """Cancel a run if it exists. Raises RunLost."""
        action = f"Cancelling run {run_id}"
        none_if_deleted(
            lambda: retry_through_outages(self._client, lambda: self._client.cancel_run(run_id), run_id, action)
        )


def _may_mean_deletion(error: ApiError) -> bool:
    """Return whether the API may have refused a token because its run was deleted."""
    return bool(_DELETION_MESSAGE.search(error.message)) or error.error_code in _DELETION_CODES


def _message(run: Run, verdict: Verdict, reason: str = "", ordinal: int = 1) -> str:
    name = f"run {run.run_id} of job {run.job_id}" if run.job_id else f"run {run.run_id}"
    page = run.page_url or "the API returned no page for it"
    if verdict is Verdict.LAUNCHED:
        return f"Launched {name}{f', because {reason}' if reason else ''}: {page}"
    origin = f"which an earlier try launched at {_timestamp(run.start_time)} (launch {ordinal} of this task)"
    if verdict is Verdict.JOIN:
        return f"Joined {name}, {origin}: {page}"
    return f"Took the result of {name}, {origin} and which succeeded: {page}"


def _timestamp(epoch_seconds: float | None) -> str:
    return datetime.fromtimestamp(epoch_seconds or 0, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
