"""What a sensor waits for, as plain values, and how to check it: the same code in a worker and in a triggerer.

Conditions are immutable. Each check returns the condition to check next time, in which a job's name has become its id
and the job has become the run that was chosen. A check reads ``runs/get`` of a run and ``runs/list`` of a job.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_dbjobs.client.models import ACTIVE_LIFE_CYCLE_STATES, LIFE_CYCLE_STATES, RESULT_STATES
from airflow_dbjobs.errors import CallError, ConfigurationError, JobsError, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.client.models import Run
    from airflow_dbjobs.client.retry import Patience

DEFAULT_STATES = ("SUCCESS", "SUCCESS_WITH_FAILURES")
# How many of a job's latest runs to search for an active run that the list of active runs omits.
_RECENT_RUNS = 20
# Epoch times from here on are milliseconds: as seconds this is the year 5138, as milliseconds it is 1973.
_LEAST_MILLISECONDS = 1e11
_DATE_DIGITS = 8


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of a check.

    `verdict` is True if the condition is met, False if it never will be, None while that is undecided. `message` is a
    line for the log. `run` is the run that was read, reduced to one task if the condition names a task; for an idle job
    it is the latest run. `condition` is the one to check next time.
    """

    condition: Condition
    verdict: bool | None
    message: str
    run: Run | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Base of all conditions. `job_exists` records that the workspace has confirmed that the job exists."""

    kind: ClassVar[str]

    job_id: int | None = None
    job_name: str | None = None
    job_exists: bool = False

    @property
    def run_id(self) -> int | None:
        """The run to check, None if it is not known yet or the condition is about no single run."""
        return None

    @property
    def names_job(self) -> bool:
        """Whether the user named a job rather than a run."""
        return self.job_id is not None or self.job_name is not None

    @property
    def job(self) -> str:
        """The job, as messages name it."""
        if self.job_name is None:
            return f"job {self.job_id}"
        return f"job {self.job_name!r}" + (f" ({self.job_id})" if self.job_id is not None else "")

    @property
    def subject(self) -> str:
        """The run or job, as the beginning of a sentence."""
        return _capitalized(self.target)

    @property
    def target(self) -> str:
        """The run or job, within a sentence."""
        return f"run {self.run_id}" if self.run_id is not None else self.job

    @property
    def goal(self) -> str:
        """What is waited for, as the rest of "Waiting for …"."""
        raise NotImplementedError

    @property
    def is_end_of_run(self) -> bool:
        """Whether the end of one run decides it, and nothing before that."""
        return False

    @property
    def accepts_success(self) -> bool:
        """Whether it is met once a run has succeeded."""
        return False

    @property
    def is_transient(self) -> bool:
        """Whether it may be met for a short time only, so that a later check must not contradict an earlier one."""
        return True

    def for_run(self, run_id: int) -> Condition:  # noqa: ARG002 (for overriding)
        """Return the same condition for the run that was chosen."""
        return self

    def in_any_state(self) -> Condition:
        """Return a condition that the next check will find met, whatever the state."""
        return self

    def check(self, client: JobsClient) -> CheckResult:
        """Check once. Raises CallError, and ConfigurationError if there is no such job or task."""
        raise NotImplementedError

    def check_run(self, run: Run) -> CheckResult:
        """Check the run `run_id`, which was read with all its tasks. Raises ConfigurationError if it lacks the task."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values that `condition_from_dict` reads."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        lists = {name: list(value) for name, value in plain.items() if isinstance(value, tuple)}
        return {"kind": self.kind, **plain, **lists}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCondition(Condition):
    """A run, or its task `task_key`, is in one of `states`.

    The run is `chosen`, or else a run of the job: the first that started at or after `since` (epoch seconds), or the
    latest if that is None.
    """

    kind = "run"

    chosen: int | None = None
    since: float | None = None
    task_key: str | None = None
    states: tuple[str, ...] = DEFAULT_STATES

    @property
    def run_id(self) -> int | None:
        """The run to check, None if the job has no such run yet."""
        return self.chosen

    @property
    def goal(self) -> str:
        """What is waited for, as the rest of "Waiting for …"."""
        if self.run_id is None:
            return f"a run of {self.job}{self._since_text}"
        target = f"run {self.run_id}" if self.task_key is None else f"task {self.task_key} of run {self.run_id}"
        return f"{target} to be {' or '.join(self.states)}" if self.is_transient else f"the end of {target}"

    @property
    def is_end_of_run(self) -> bool:
        """Whether the end of one run decides it, and nothing before that."""
        return self.run_id is not None and self.task_key is None and not self.is_transient

    @property
    def accepts_success(self) -> bool:
        """Whether it is met once the run has succeeded."""
        return not {"SUCCESS", "TERMINATED"}.isdisjoint(self.states)

    @property
    def is_transient(self) -> bool:
        """Whether a run may enter and leave one of the states before it ends."""
        return not ACTIVE_LIFE_CYCLE_STATES.isdisjoint(self.states)

    def for_run(self, run_id: int) -> RunCondition:
        """Return the same condition for the run that was chosen."""
        return replace(self, chosen=run_id)

    def in_any_state(self) -> RunCondition:
        """Return a condition that the next check will find met, whatever the state."""
        return replace(self, states=tuple(sorted(LIFE_CYCLE_STATES | RESULT_STATES)))

    def check(self, client: JobsClient) -> CheckResult:
        """Read the run, after choosing it from the job's runs if it is not known yet."""
        if self.run_id is not None:
            return self.check_run(client.get_run(self.run_id))
        condition, chosen = self._choose_run(client)
        if chosen is None:
            return CheckResult(condition, None, f"{_capitalized(condition.job)} has no run{self._since_text} yet")
        try:
            run = client.get_run(chosen.run_id)
        except CallError as error:
            # Keep the choice, since the next check might choose another run.
            message = f"Chose run {chosen.run_id} of {condition.job}, but cannot read it; will retry: {error}"
            return CheckResult(condition, None, message, chosen)
        return condition.check_run(run)

    def check_run(self, run: Run) -> CheckResult:
        """Check the run, which was read with all its tasks."""
        if self.task_key is not None:
            return _check_task(self, run, self.task_key)
        return CheckResult(self, self.verdict(run, is_over=run.is_terminal), f"Run {run.run_id} is {run.state}", run)

    def verdict(self, run: Run, *, is_over: bool) -> bool | None:
        """Return the verdict on a run's state; `is_over` means that no other state will follow."""
        if run.state.is_any_of(self.states):
            return True
        return False if is_over else None

    def _choose_run(self, client: JobsClient) -> tuple[RunCondition, Run | None]:
        """Choose a run of the job; return the condition for it, and the run if there is one."""
        job_id = self.job_id if self.job_id is not None else client.find_job_id(str(self.job_name))
        if self.since is None:
            run = next(client.list_runs(job_id=job_id, page_size=1), None)
        else:
            run = _first_since(client, job_id, self.since)
        if run is None and self.job_id is not None and not self.job_exists:
            # Raises NotFound rather than waiting forever for a job that does not exist.
            client.get_job(job_id)
        return replace(self, chosen=run.run_id if run else None, job_id=job_id, job_exists=True), run

    @property
    def _since_text(self) -> str:
        if self.since is None:
            return ""
        return f" that started at {datetime.fromtimestamp(self.since, UTC).isoformat()} or later"


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleCondition(Condition):
    """A job has no active run."""

    kind = "idle"

    @property
    def goal(self) -> str:
        """What is waited for, as the rest of "Waiting for …"."""
        return f"{self.job} to have no active run"

    def check(self, client: JobsClient) -> CheckResult:
        """Search the job's active runs, and its latest runs.

        The filter of API 2.0 may omit runs that are QUEUED or wait for a retry; the latest runs include them.
        """
        job_id = self.job_id if self.job_id is not None else client.find_job_id(str(self.job_name))
        condition = replace(self, job_id=job_id, job_exists=self.job_exists or self.job_id is None)
        active = _active_run(client.list_runs(job_id=job_id, active_only=True, page_size=_RECENT_RUNS))
        recent = [] if active else list(islice(client.list_runs(job_id=job_id, page_size=_RECENT_RUNS), _RECENT_RUNS))
        active = active or _active_run(recent)
        if active is None and not condition.job_exists:
            # Raises NotFound for a mistyped id, which has no active run either.
            client.get_job(job_id)
        condition = replace(condition, job_exists=True)
        job = _capitalized(condition.job)
        if active is None:
            return CheckResult(condition, True, f"{job} has no active run", next(iter(recent), None))
        return CheckResult(condition, None, f"{job}: run {active.run_id} is {active.state}", active)


def condition_from_dict(plain: Mapping[str, Any]) -> Condition:
    """Return the condition that `to_dict` serialized, ignoring fields of another release. Raises JobsError."""
    kinds = {kind.kind: kind for kind in (RunCondition, IdleCondition)}
    kind = kinds.get(plain.get("kind", ""))
    if kind is None:
        raise JobsError(
            f"The sensor's trigger has a condition of kind {plain.get('kind')!r}, which this release of airflow-dbjobs"
            " does not know. Install the same release in workers and triggerers, then clear the task."
        )
    known = {field.name: plain[field.name] for field in fields(kind) if field.name in plain}
    if "states" in known:
        known["states"] = tuple(known["states"])
    return kind(**known)


def check_in_worker(
    client: JobsClient, condition: Condition, patience: Patience, *, is_first: Callable[[], bool]
) -> CheckResult:
    """Check a condition; while credentials are rejected, read them again and retry.

    Not in the first check of a try (`is_first`), where rejected credentials are a configuration error. Raises CallError
    for everything that is not retried or if a job does not exist, RunLost once the patience is exhausted or if the run
    was deleted, and ConfigurationError.
    """
    from airflow_dbjobs.client.wait import DEFAULT_PERIOD, Watch, retried

    def is_final(error: CallError) -> bool:
        return error.transient or (isinstance(error, NotFound) and condition.run_id is None) or is_first()

    watch = Watch(condition.run_id or 0, DEFAULT_PERIOD, patience, client.clock, action=f"Polling {condition.target}")
    return retried(client, watch, lambda: condition.check(client), unless=is_final)


def parse_states(states: str | Iterable[str]) -> tuple[str, ...]:
    """Return the states that a parameter names, as a list or separated by commas. Raises ConfigurationError."""
    names = states.split(",") if isinstance(states, str) else states
    parsed = tuple(dict.fromkeys(_normalized(name) for name in names))
    known = LIFE_CYCLE_STATES | RESULT_STATES
    if not parsed or not known.issuperset(parsed):
        raise ConfigurationError(
            f"states is {states!r}; it must be one or more of {', '.join(sorted(known))}. Check what it renders to."
        )
    return parsed


def epoch_seconds(since: datetime | str | float) -> float:
    """Return the time that a parameter gives, in epoch seconds. Raises ConfigurationError.

    It may be a datetime, an ISO 8601 string (both in UTC if they have no time zone) or epoch seconds.
    """
    try:
        moment = since if isinstance(since, datetime) else _parse_time(str(since).strip())
    except ValueError:
        moment = -1.0
    if isinstance(moment, datetime):
        moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if not 0 <= moment < _LEAST_MILLISECONDS:
        raise ConfigurationError(
            f"since is {since!r}; it must be a datetime, an ISO 8601 string, or epoch seconds (not milliseconds)."
            " Check what it renders to."
        )
    return moment


def _parse_time(text: str) -> datetime | float:
    """Parse a time; eight digits are a date, as in ``{{ ds_nodash }}``. Raises ValueError."""
    if not (text.isdecimal() and len(text) == _DATE_DIGITS):
        try:
            return float(text)
        except ValueError:
            pass
    return datetime.fromisoformat(text)


def _first_since(client: JobsClient, job_id: int, since: float) -> Run | None:
    """Return the first run of a job that started at or after `since`."""
    since_ms = round(since * 1000)
    # API 2.0 has no such filter, so its list (latest first) is read back to that time.
    bound = None if client.api_version == "2.0" else since_ms
    first = None
    for run in client.list_runs(job_id=job_id, start_time_from=bound):
        # A run that has not started yet may have no start time.
        if run.start_time is not None:
            if round(run.start_time * 1000) < since_ms:
                break
            first = run
    return first


def _check_task(condition: RunCondition, run: Run, task_key: str) -> CheckResult:
    task = next((task for task in run.tasks if task.task_key == task_key), None)
    if task is None:
        if not (run.tasks or run.is_terminal):
            return CheckResult(condition, None, f"Run {run.run_id} is {run.state} and has no tasks yet", run)
        keys = ", ".join(sorted(task.task_key for task in run.tasks)) or "none"
        raise ConfigurationError(
            f"task_key is {task_key!r}, but run {run.run_id} has no such task (keys are case-sensitive)."
            f" Use one of its tasks: {keys}."
        )
    task_run, message = run.only(task), f"Task {task_key} of run {run.run_id} is {task.state}"
    is_over = run.is_final(task)
    if task.state.is_terminal and not is_over:
        return CheckResult(condition, None, f"{message} and may be retried", task_run)
    return CheckResult(condition, condition.verdict(task_run, is_over=is_over), message, task_run)


def _active_run(runs: Iterable[Run]) -> Run | None:
    return next((run for run in islice(runs, _RECENT_RUNS) if not run.is_terminal), None)


def _normalized(name: object) -> str:
    normalized = str(name).strip().upper()
    # The API reference also spells it this way.
    return "TIMEDOUT" if normalized == "TIMED_OUT" else normalized


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]
