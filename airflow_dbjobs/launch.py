"""Launching exactly once: which run a try of a task waits for, and when a new one is launched.

Every launch carries an idempotency token, for which the API starts exactly one run: the POST that first brings a token
launches, every later one returns that run's id. The k-th token of a task instance is made of its identity and of k, so
each try can find what the tries before it launched by walking k = 1, 2, ... until it meets a run to wait for; no
state is kept anywhere. On a first try that is one POST, and the one GET that is wanted anyway.

Source: ``idempotency_token`` of "Run now" and "Runs submit" in the Jobs API reference.
"""

from __future__ import annotations

import enum
import hashlib
import json
import logging
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from airflow_dbjobs.errors import ApiError, BadRequest, Conflict, JobsError, NotFound
from airflow_dbjobs.runs import Outcome
from airflow_dbjobs.waiting import ask_for_run, patiently, unless_deleted, wait_for_run

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from airflow_dbjobs.client import JobsClient
    from airflow_dbjobs.runs import Run

log = logging.getLogger(__name__)

Endpoint = Literal["run-now", "runs/submit"]

# A run that was just launched may not be readable at once; after these waits (seconds) it counts as deleted.
_VISIBILITY_WAITS = (1.0, 2.0, 4.0, 8.0, 15.0)
# How the API refuses the token of a run that was deleted is not documented: the text may tell, or the code may not
# contradict.
_TELLS_OF_DELETION = re.compile(r"idempotency|\bdeleted\b", re.IGNORECASE)
_MAY_MEAN_DELETION = frozenset(
    {"", "INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "NOT_FOUND"}
)
# Two runs that began as far apart as two POSTs of one walk were answered, give or take so much, were launched by these.
# Runs of two tries are seconds apart, and the POSTs of a walk mostly a tenth of a second.
_SAME_WALK_SECONDS = 0.25
# So many in a row, or the text means something else.
_MOST_DELETIONS = 20


@dataclass(frozen=True, slots=True)
class TaskTry:
    """One try of one Airflow task instance.

    `tries_before_clear` counts the tries before the task was last cleared, `dag_run_start` is in epoch seconds (None
    where the DAG run has no start).
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    try_number: int = 1
    tries_before_clear: int = 0
    dag_run_start: float | None = None

    def was_cleared_since(self, launches: int) -> bool:
        """Whether the `launches`-th run may be from before the last clear: before the first try after it all are."""
        first_after_clear = 0 < self.tries_before_clear == self.try_number - 1
        return first_after_clear or launches <= self.tries_before_clear

    def identity(self, host: str, *, of_this_try_alone: bool = False) -> tuple[object, ...]:
        """Return what tells this task instance (or this try of it) from all others that use a workspace.

        Nothing in it changes when a task is retried (unless it is of this try alone) or cleared.
        """
        task = (urlsplit(host).netloc.lower(), self.dag_id, self.run_id, self.task_id, self.map_index)
        return (*task, self.try_number) if of_this_try_alone else task


def token_of(identity: tuple[object, ...], ordinal: int) -> str:
    """Return the idempotency token of the `ordinal`-th run (from 1) of a task instance; the API takes 64 characters."""
    return f"airflow-{hashlib.sha256(json.dumps([*identity, ordinal]).encode()).hexdigest()[:48]}"


class Verdict(enum.Enum):
    """What a run that a token stands for is to the try that asks."""

    LAUNCHED = "launched by this try"
    JOIN = "launched by an earlier try, and active"
    CLEARED = "launched before the task was cleared, and still active"
    TAKE = "launched by an earlier try whose success was lost with its worker"
    ENDING = "launched by an earlier try, and about to end: what it is, its end will tell"
    PASS = "no run of this try"  # noqa: S105 (a verdict, not a password)


def judge(run: Run, launches: int, task_try: TaskTry, *, since: float, successes: Collection[Outcome]) -> Verdict:
    """Say what a run that a token stands for is to `task_try`.

    It is the `launches`-th run of the task instance since its DAG run began. `since` is the server's time of this
    walk's first POST, in epoch seconds. `successes` are the outcomes that let the task succeed. A run that another try
    launched in the second before counts as launched by this one: the server tells its time in whole seconds.
    """
    if run.start_time is None or run.start_time >= since:
        return Verdict.LAUNCHED
    if not run.is_terminal:
        if run.state.is_being_stopped or run.state.life_cycle_state == "TERMINATING":
            return Verdict.ENDING
        return Verdict.CLEARED if task_try.was_cleared_since(launches) else Verdict.JOIN
    # An older success counts only where no clear can have come after it: each try launches one run at most, so those
    # beyond the tries before the clear came after it. The first try after a clear always runs anew.
    lost = (
        run.outcome in successes
        and not task_try.was_cleared_since(launches)
        and task_try.try_number > 1
        and task_try.dag_run_start is not None
        and run.start_time > task_try.dag_run_start
    )
    return Verdict.TAKE if lost else Verdict.PASS


@dataclass(frozen=True, slots=True)
class Launched:
    """The run to wait for. `story` tells in one line how it came to be this one.

    `joined` says that an earlier try launched it. `token_is_used_up` says that the user's own token stands for a run
    that was over before it was sent.
    """

    run: Run
    story: str
    joined: bool = False
    token_is_used_up: bool = False


class Launcher:
    """Launches the run of one try of a task, or finds the one it is to wait for.

    `payload` is the request body; a token in it is sent as it is. `durable` False lets each try launch a run of its
    own. `cancels` says that a run from before a clear is cancelled where it still goes on, as it is when a task is
    cleared that waits for it; a task that does not wait leaves it alone.
    """

    def __init__(
        self,
        client: JobsClient,
        endpoint: Endpoint,
        payload: Mapping[str, Any],
        task_try: TaskTry,
        *,
        durable: bool = True,
        cancels: bool = True,
        successes: Collection[Outcome] = frozenset({Outcome.SUCCESS}),
    ) -> None:
        self._client = client
        self._endpoint = endpoint
        self._payload = dict(payload)
        self._identity = task_try.identity(client.host, of_this_try_alone=not durable)
        # Where no other try counts, this one is the first.
        self._try = task_try if durable else replace(task_try, try_number=1, tries_before_clear=0)
        self._cancels = cancels
        self._successes = successes
        # What `find_in_flight` sends again.
        self._in_flight: tuple[str, int] | None = None
        self._stopped = False

    def launch(self) -> Launched:
        """Return the run that this try waits for. Raises ``errors.CallError`` and ``errors.RunLost``."""
        if self._payload.get("idempotency_token"):
            return self._launch_with_the_users_token()
        walk = _Walk(self._try, self._successes)
        while True:
            walk.ordinal += 1
            sent = self._client.clock()
            run_id: int | None
            try:
                run_id = self._send(token_of(self._identity, walk.ordinal), walk.ordinal)
            except (BadRequest, NotFound, Conflict) as error:
                if not _may_mean_deletion(error, walk.refusals):
                    raise
                run_id, walk.refusals = None, walk.refusals + 1
            else:
                walk.refusals = 0
            walk.posted(sent, self._client)
            run = self._look(run_id) if run_id else None
            if run is None:
                walk.passes_deleted(run_id)
            elif launched := self._launched(run, walk):
                return launched

    def find_in_flight(self, client: JobsClient) -> int | None:
        """Return the run that the call which is under way launches or finds; None where none was made.

        It sends the same token once more, through `client`: a signal handler must not use the one it broke into. Where
        that stands for a run that is over, an earlier try may have launched another one.
        """
        if self._in_flight is None:
            return None
        token, sent = self._in_flight
        run_id = self._post(token, client)
        # Each try before this one has launched one run at most. With the user's own token nothing is walked.
        for ordinal in range(sent + 1, self._try.try_number if sent else 0):
            if not client.get_run(run_id).is_terminal:
                # An active run is never passed before its end, so there is none beyond it.
                break
            run_id = self._post(token_of(self._identity, ordinal), client)
        return run_id

    def stop(self) -> None:
        """Launch nothing from now on: the next launch raises JobsError."""
        self._stopped = True

    def _launch_with_the_users_token(self) -> Launched:
        reading = self._client.clock()
        run_id = self._send(str(self._payload["idempotency_token"]), 0)
        since = self._client.server_time(reading)
        run = self._look(run_id) or ask_for_run(self._client, run_id)
        if run.start_time is None or run.start_time >= since:
            return Launched(run, _story(run, Verdict.LAUNCHED, _Walk(self._try, self._successes)))
        story = f"Found run {run_id}, launched at {_at(run.start_time)} with the same idempotency_token: {run.page_url}"
        return Launched(run, story, token_is_used_up=run.is_terminal)

    def _send(self, token: str, ordinal: int) -> int:
        self._refuse_if_stopped()
        self._in_flight = token, ordinal
        # Once more: a kill in between has cancelled what the token now stands for.
        self._refuse_if_stopped()
        return self._post(token, self._client)

    def _post(self, token: str, client: JobsClient) -> int:
        payload = {**self._payload, "idempotency_token": token}
        return client.run_now(payload) if self._endpoint == "run-now" else client.submit_run(payload)

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
        # Where it is there after all, and only cannot be seen, it is not to go on beside the next one.
        self._cancel(run_id)
        return None

    def _cancel(self, run_id: int) -> None:
        """Cancel a run, if there is one. Raises RunLost."""
        unless_deleted(lambda: patiently(self._client, lambda: self._client.cancel_run(run_id), run_id))

    def _launched(self, run: Run, walk: _Walk) -> Launched | None:
        """Return the run as the one to wait for, once it is clear that it is, or None where the walk goes on."""
        found: Run | None = run
        verdict = walk.judge(run)
        if verdict is Verdict.CLEARED and self._cancels:
            # Whoever cleared the task has had it cancelled, or will, or nobody could: it is not to go on.
            log.info("Run %d was launched before the task was cleared: cancelling it.", run.run_id)
            self._cancel(run.run_id)
            verdict = Verdict.ENDING
        if verdict is Verdict.ENDING:
            # Where it is being cancelled, too: until its end it may write, and takes the place of the only run that its
            # job allows by default.
            log.info("Run %d of an earlier try is about to end, which is waited for.", run.run_id)
            found = unless_deleted(lambda: wait_for_run(self._client, run.run_id))
            verdict = walk.judge(found) if found else Verdict.PASS
        if found is None:
            walk.passes_deleted(run.run_id)
            return None
        if verdict in {Verdict.PASS, Verdict.CLEARED}:
            walk.passes(found)
            return None
        return Launched(found, _story(found, verdict, walk), joined=verdict is not Verdict.LAUNCHED)


class _Walk:
    """What one walk over a task's tokens has learnt so far."""

    def __init__(self, task_try: TaskTry, successes: Collection[Outcome]) -> None:
        self.ordinal = 0
        #: How many tokens in a row were refused just now.
        self.refusals = 0
        #: Of the run before, in one line, where there was one.
        self.passed = ""
        self._try = task_try
        self._successes = successes
        # The server's time of the first POST.
        self._since: float | None = None
        # When the last POST was answered, by our clock, and the one before; when the run before began, by the server's.
        self._answered = self._answered_before = 0.0
        self._start_before: float | None = None
        # Runs that may have been launched before the DAG run began: it may have been deleted and made again.
        self._older = 0

    @property
    def launches(self) -> int:
        """How many runs the task has launched since its DAG run began, up to the one that is looked at."""
        return self.ordinal - self._older

    def posted(self, sent: float, client: JobsClient) -> None:
        """Take note of a POST that was just answered, and was first sent when our clock read `sent`."""
        self._answered_before, self._answered = self._answered, client.clock()
        if self._since is None:
            self._since = client.server_time(sent)

    def judge(self, run: Run) -> Verdict:
        if self._is_launched_after_all(run):
            return Verdict.LAUNCHED
        return judge(run, self.launches, self._try, since=self._since or 0.0, successes=self._successes)

    def passes(self, run: Run) -> None:
        """Take note that `run` is not the one to wait for."""
        self.passed = f"run {run.run_id} of an earlier try " + (
            f"has ended {run.state}" if run.is_terminal else "is from before the clear"
        )
        self._start_before = run.start_time
        start = self._try.dag_run_start
        self._older += start is None or run.start_time is None or run.start_time <= start

    def passes_deleted(self, run_id: int | None) -> None:
        """Take note that the run of a token was deleted; its id is known only where the token was not refused."""
        self.passed = f"{f'run {run_id}' if run_id else 'the run'} of an earlier try was deleted"
        self._start_before = None
        self._older += 1

    def _is_launched_after_all(self, run: Run) -> bool:
        """Whether `run` and the one before began as far apart as our POSTs were: then both are ours, for all Date says.

        Where a gateway's clock is ahead, a run that ends at once would otherwise count as older, again and again.
        """
        if run.start_time is None or self._start_before is None:
            return False
        apart = run.start_time - self._start_before
        return abs(apart - (self._answered - self._answered_before)) < _SAME_WALK_SECONDS


def _may_mean_deletion(error: ApiError, refusals: int) -> bool:
    """Whether a token may have been refused because its run was deleted, after so many refusals just before.

    Where two in a row are refused and nobody says why, it was not for the token.
    """
    if _TELLS_OF_DELETION.search(error.message):
        return refusals < _MOST_DELETIONS
    return refusals == 0 and error.error_code in _MAY_MEAN_DELETION


def _story(run: Run, verdict: Verdict, walk: _Walk) -> str:
    name = f"run {run.run_id} of job {run.job_id}" if run.job_id else f"run {run.run_id}"
    page = run.page_url or "the API gave no page for it"
    if verdict is Verdict.LAUNCHED:
        return f"Launched {name}{f' anew, as {walk.passed}' if walk.passed else ''}: {page}"
    when = f"an earlier try launched at {_at(run.start_time)} (launch {walk.ordinal} of this task)"
    if verdict is Verdict.JOIN:
        return f"Joined {name}, which {when}: {page}"
    return f"Took the result of {name}, which {when} and which succeeded: {page}"


def _at(epoch_seconds: float | None) -> str:
    return datetime.fromtimestamp(epoch_seconds or 0, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
