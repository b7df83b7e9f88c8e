"""Launch a run exactly once: which run a try of a task waits for, and when it launches a new one.

The API starts one run for each idempotency token: the request that first brings a token launches, every later one
returns that run's id. A token names a launch (task instance, operator, job, and which launch of the try it is), an
epoch (the time between two clears of the task), and an ordinal: the k-th run of this launch in this epoch. So a try
finds the runs of earlier tries by sending ordinals 1, 2, ... until it meets a run to wait for, and finds nobody else's.
What earlier tries reported to Airflow saves most of these requests, but the tokens alone suffice.

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
from airflow_dbjobs.client.wait import ask_for_run, patiently, unless_deleted, wait_for_run
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
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.client.models import Run

log = logging.getLogger(__name__)

Endpoint = Literal["run-now", "runs/submit"]

# A run that was just launched may not be readable at once; after these waits (seconds) it counts as deleted.
_VISIBILITY_WAITS = (1.0, 2.0, 4.0, 8.0, 15.0)
# The API does not document how it refuses the token of a deleted run: the message may say it, or the code allows it.
_DELETION_MESSAGE = re.compile(r"idempotency|\bdeleted\b", re.IGNORECASE)
_DELETION_CODES = frozenset(
    {"", "INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "NOT_FOUND"}
)
# Among the reports of a try, says that the task ended well: a try after that is one of a cleared task.
TASK_SUCCEEDED = "return_value"
# How far the clocks of a gateway (`Date`) and of the Jobs API (`start_time`) may be apart.
_CLOCK_SKEW_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class TaskTry:
    """One try of one Airflow task instance, and which of its launches is meant.

    `dag_run_start` tells this DAG run from the same one in another deployment, `max_tries` changes with each clear of
    the task, and neither when the task is retried; `deployment` is set by deployments that share the rest. The launch
    is the `launch_number`-th (from 1) of `operator` (a task id) for the same endpoint and job. One that is not
    `durable` neither joins nor takes over runs of other tries.
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
        cls, task_try: TaskTry, host: str, endpoint: Endpoint, job_id: object = None, workspace_id: str = ""
    ) -> LaunchTokens:
        """Return the tokens of a launch on a workspace: its URL, and its id where many workspaces have that URL."""
        launch = (
            *(urlsplit(host).netloc.lower(), workspace_id),
            *(task_try.deployment, task_try.dag_id, task_try.run_id, task_try.task_id, task_try.map_index),
            *(endpoint, str(job_id), task_try.operator, task_try.launch_number),
            None if task_try.durable else task_try.try_number,
        )
        epoch = (task_try.dag_run_start, task_try.max_tries)
        return cls(_digest(launch)[:24], _digest(epoch)[:16])

    def token(self, ordinal: int) -> str:
        """Return the token of the `ordinal`-th run (from 1)."""
        return f"airflow-{self.launch}-{self.epoch}-{ordinal}"

    def read(self, report: str) -> tuple[str, int, int] | None:
        """Return epoch, ordinal and run id of a try's report; None where it is about another launch."""
        found = re.fullmatch(rf"airflow-{self.launch}-([0-9a-f]+)-(\d+)\.(\d+)", report)
        return (found[1], int(found[2]), int(found[3])) if found else None


def _digest(parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class Verdict(enum.Enum):
    """What a run is to the try that sent its token."""

    LAUNCHED = "launched by this try"
    JOIN = "launched by an earlier try, and active"
    TAKE = "launched by an earlier try, and its success was lost with the worker"
    ENDING = "launched by an earlier try, and about to end: how, its end will tell"
    PASS = "over, and of no use to this try"  # noqa: S105 (a verdict, not a password)


def judge(
    run: Run,
    *,
    is_old: bool | None,
    server_time: float,
    seconds_ago: float,
    clock_skew: float = _CLOCK_SKEW_SECONDS,
    successes: Collection[Outcome] = frozenset({Outcome.SUCCESS}),
) -> Verdict:
    """Decide what `run` is to the try that sent its token, at `server_time` (epoch seconds), `seconds_ago`.

    `is_old` says whether an earlier try launched it, None where that is not known: then its start tells, as far as the
    server's clocks agree. `successes` are the outcomes that let the task succeed.
    """
    if is_old is False:
        return Verdict.LAUNCHED
    looks_new = not is_old and _started_since(run, server_time)
    if not run.is_terminal:
        if run.state.is_being_stopped or run.state.life_cycle_state == "TERMINATING":
            return Verdict.ENDING
        return Verdict.LAUNCHED if looks_new else Verdict.JOIN
    if run.outcome in successes:
        return Verdict.LAUNCHED if looks_new else Verdict.TAKE
    # A try launches one run at most: one that failed is its own, unless it must be older.
    took = run.end_time - run.start_time if run.start_time and run.end_time else 0.0
    is_older = (
        is_old
        or took > seconds_ago + 1
        # A cancelled one is rather that of a try which was killed.
        or not _started_since(run, server_time - (0.0 if run.outcome is Outcome.CANCELED else clock_skew))
    )
    return Verdict.PASS if is_older else Verdict.LAUNCHED


def _started_since(run: Run, server_time: float) -> bool:
    return run.start_time is None or run.start_time >= server_time


@dataclass(frozen=True, slots=True)
class Launched:
    """The run to wait for; `story` says in one line why this one, and `joined` that an earlier try launched it.

    `token_is_used_up` says that the user's own token stands for a run that was over before it was sent. `report` is
    what Airflow is to store for the next try, "" for nothing.
    """

    run: Run
    story: str
    joined: bool = False
    token_is_used_up: bool = False
    report: str = ""


@dataclass(frozen=True, slots=True)
class _InFlight:
    """A token that is being sent, or was; `is_known` says that an earlier try may have sent it."""

    token: str
    is_known: bool
    attempts: Attempts


class Launcher:
    """Launches the run of one try of a task, or finds the one that it is to wait for.

    `payload` is the request body; a token in it is sent as it is. `reports` are those of the task's last try that left
    any (``Launched.report``, TASK_SUCCEEDED), or None where Airflow cannot tell. `cancels` says that a run from before
    a clear is cancelled if it is still active; a task that does not wait for its run does not cancel it.
    """

    def __init__(
        self,
        client: JobsClient,
        endpoint: Endpoint,
        payload: Mapping[str, Any],
        task_try: TaskTry,
        *,
        reports: Collection[str] | None = None,
        cancels: bool = True,
        successes: Collection[Outcome] = frozenset({Outcome.SUCCESS}),
    ) -> None:
        self._client = client
        self._endpoint = endpoint
        self._payload = dict(payload)
        self._job_id = payload.get("job_id") if endpoint == "run-now" else None
        self._tokens = LaunchTokens.of(task_try, client.host, endpoint, self._job_id, client.workspace_id)
        # Where no other try counts, this one is the first.
        self._try_number = task_try.try_number if task_try.durable else 1
        self._reports = reports
        self._cancels = cancels
        # No earlier success is lost where Airflow has taken note of it.
        self._successes = frozenset() if TASK_SUCCEEDED in (reports or ()) else successes
        self._in_flight: _InFlight | None = None
        self._stopped = False

    def launch(self) -> Launched:
        """Return the run that this try waits for. Raises ``errors.CallError`` and ``errors.RunLost``."""
        if token := self._payload.get("idempotency_token"):
            return self._launch_with_token_of_the_user(str(token))
        reports = [report for text in self._reports or () if (report := self._tokens.read(text))]
        known = {ordinal for epoch, ordinal, _ in reports if epoch == self._tokens.epoch}
        for _, _, run_id in reports if not known else ():
            self._end_run_from_before_the_clear(run_id)
        ordinal, passed = max(known, default=1), ""
        while True:
            # Each earlier try has launched one run at most, so that nobody can have sent the ordinal of this try.
            is_old = (ordinal in known or None) if ordinal < self._try_number else False
            found = self._launch(ordinal, passed, is_old=is_old)
            if isinstance(found, Launched):
                return found
            ordinal, passed = ordinal + 1, found

    def find_in_flight(self, client: JobsClient) -> int | None:
        """Return the run that the call under way launches or finds; None where none was made.

        It sends the same token once more, but only where that may find a run: where no attempt can have reached the
        server, it would launch one. `client` is to send it: a signal handler must not use the one that it interrupted.
        """
        sent = self._in_flight
        return self._post(sent.token, client) if sent and (sent.is_known or sent.attempts.unclear) else None

    def stop(self) -> None:
        """Launch nothing from now on: the next launch raises JobsError."""
        self._stopped = True

    def _launch(self, ordinal: int, passed: str, *, is_old: bool | None) -> Launched | str:
        """Return the run of a token to wait for, or why there is none. `passed` is why, of the ordinal before."""
        token, started = self._tokens.token(ordinal), self._client.clock()
        try:
            run_id = self._send(token, is_known=is_old is not False)
        except (BadRequest, NotFound, Conflict) as error:
            if is_old is not False and _may_mean_deletion(error):
                return "the run of an earlier try was deleted"
            raise
        server_time = self._client.server_time(started)
        run = self._look(run_id)
        if run is None and is_old is False:
            raise RunLost(f"Run {run_id} was launched, but the API does not find it. It was cancelled.", run_id=run_id)
        while run is not None:
            verdict = judge(
                run,
                is_old=is_old,
                server_time=server_time,
                seconds_ago=self._client.clock() - started,
                # Where Airflow tells what earlier tries launched, a run that it does not know is rarely theirs.
                clock_skew=0.0 if self._reports is None else _CLOCK_SKEW_SECONDS,
                successes=self._successes,
            )
            if verdict is Verdict.PASS:
                return f"run {run_id} of an earlier try has ended {run.state}"
            if verdict is not Verdict.ENDING:
                story = _story(run, verdict, passed, ordinal)
                return Launched(run, story, joined=verdict is not Verdict.LAUNCHED, report=f"{token}.{run_id}")
            # Until its end it may write, and it counts for max_concurrent_runs of its job.
            log.info("Run %d of an earlier try is about to end. Waiting for its end.", run_id)
            run = unless_deleted(lambda: wait_for_run(self._client, run_id))
        return f"run {run_id} of an earlier try was deleted"

    def _launch_with_token_of_the_user(self, token: str) -> Launched:
        started = self._client.clock()
        run_id = self._send(token, is_known=self._try_number > 1)
        server_time = self._client.server_time(started)
        run = self._look(run_id) or ask_for_run(self._client, run_id)
        if self._job_id is not None and run.job_id not in {None, int(self._job_id)}:
            raise ConfigurationError(
                f"The idempotency_token stands for run {run_id} of job {run.job_id}, not of job {self._job_id}, and so"
                f" launched nothing. Give each job a token of its own. {run.page_url}"
            )
        if _started_since(run, server_time):
            return Launched(run, _story(run, Verdict.LAUNCHED))
        story = f"Found run {run_id}, launched at {_at(run.start_time)} with the same idempotency_token: {run.page_url}"
        return Launched(run, story, token_is_used_up=run.is_terminal)

    def _end_run_from_before_the_clear(self, run_id: int) -> None:
        """Cancel what an earlier try launched before the task was cleared, and wait for its end. Raises RunLost."""
        run = unless_deleted(lambda: ask_for_run(self._client, run_id))
        if run is None or run.is_terminal:
            return
        if not run.state.is_being_stopped:
            if not self._cancels:
                return
            log.info("Run %d was launched before the task was cleared, and is still active. Cancelling it.", run_id)
            self._cancel(run_id)
        unless_deleted(lambda: wait_for_run(self._client, run_id))

    def _send(self, token: str, *, is_known: bool) -> int:
        attempts = Attempts()
        self._refuse_if_stopped()
        self._in_flight = _InFlight(token, is_known, attempts)
        try:
            # Once more: a kill in between has cancelled what the token now stands for.
            self._refuse_if_stopped()
            return self._post(token, self._client, attempts)
        except (Unauthenticated, PermissionDenied):
            # Nothing was launched, and the credentials may have been rotated since they were read.
            if not self._client.renew_credentials():
                raise
            self._refuse_if_stopped()
            return self._post(token, self._client, attempts)

    def _post(self, token: str, client: JobsClient, attempts: Attempts | None = None) -> int:
        payload, transport = {**self._payload, "idempotency_token": token}, client.transport
        transport.attempts = attempts
        try:
            return client.run_now(payload) if self._endpoint == "run-now" else client.submit_run(payload)
        finally:
            transport.attempts = None

    def _refuse_if_stopped(self) -> None:
        if self._stopped:
            raise JobsError("The task was killed before it launched its run.")

    def _look(self, run_id: int) -> Run | None:
        """Return the run as it is now, or None where it is gone."""
        for wait in (*_VISIBILITY_WAITS, None):
            if run := unless_deleted(lambda: ask_for_run(self._client, run_id)):
                return run
            if wait is not None:
                self._client.sleep(wait)
        # It may be active all the same, and invisible: it must not run in addition to the next one.
        self._cancel(run_id)
        return None

    def _cancel(self, run_id: int) -> None:
        """Cancel a run, if there is one. Raises RunLost."""
        unless_deleted(lambda: patiently(self._client, lambda: self._client.cancel_run(run_id), run_id))


def _may_mean_deletion(error: ApiError) -> bool:
    """Whether a token may have been refused because its run was deleted."""
    return bool(_DELETION_MESSAGE.search(error.message)) or error.error_code in _DELETION_CODES


def _story(run: Run, verdict: Verdict, passed: str = "", ordinal: int = 1) -> str:
    name = f"run {run.run_id} of job {run.job_id}" if run.job_id else f"run {run.run_id}"
    page = run.page_url or "the API gave no page for it"
    if verdict is Verdict.LAUNCHED:
        return f"Launched {name}{f', as {passed}' if passed else ''}: {page}"
    when = f"an earlier try launched at {_at(run.start_time)} (launch {ordinal} of this task)"
    if verdict is Verdict.JOIN:
        return f"Joined {name}, which {when}: {page}"
    return f"Took the result of {name}, which {when} and which succeeded: {page}"


def _at(epoch_seconds: float | None) -> str:
    return datetime.fromtimestamp(epoch_seconds or 0, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
