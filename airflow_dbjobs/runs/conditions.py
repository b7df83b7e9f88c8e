"""What a sensor waits for, as plain values, and one look at it: the same in a worker and in a triggerer.

A condition never changes; each look returns the one to go on with, in which a job's name has become its id, and the job
the run that was chosen. What it reads is ``runs/get`` of a run, and ``runs/list`` of a job.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_dbjobs.client.models import ACTIVE_LIFE_CYCLE_STATES, LIFE_CYCLE_STATES, NEVER_RAN, RESULT_STATES, Outcome
from airflow_dbjobs.client.response_fields import count
from airflow_dbjobs.errors import CallError, ConfigurationError, JobsError, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.client.models import Run, TaskRun
    from airflow_dbjobs.client.retry import Patience

DEFAULT_STATES = ("SUCCESS", "SUCCESS_WITH_FAILURES")
# The latest runs of a job among which one may be active that the list of the active runs leaves out.
_RECENT_RUNS = 20
# The year 5138, in seconds; any time since 1973, in milliseconds.
_NO_SECONDS = 1e11
_DATE_DIGITS = 8


@dataclass(frozen=True, slots=True)
class Look:
    """What a look showed.

    `verdict` is True where it is as it should be, False where it never will be, None where that is still open. `says`
    is a line for the log. `run` is the run that was seen, or only the task of it that is waited for; of an idle job the
    latest. `condition` is to be looked for from now on.
    """

    condition: Condition
    verdict: bool | None
    says: str
    run: Run | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Base of what may be waited for. `job_exists` says that the workspace has told so."""

    kind: ClassVar[str]

    job_id: int | None = None
    job_name: str | None = None
    job_exists: bool = False

    @property
    def run_id(self) -> int | None:
        """The run that it is about, where that is known."""
        return None

    @property
    def is_of_a_job(self) -> bool:
        """Whether a job was named, and not a run."""
        return self.job_id is not None or self.job_name is not None

    @property
    def job(self) -> str:
        """The job, as a log line names it."""
        if self.job_name is None:
            return f"job {self.job_id}"
        return f"job {self.job_name!r}" + (f" ({self.job_id})" if self.job_id is not None else "")

    @property
    def what(self) -> str:
        """What is asked for, as a sentence begins with it."""
        return f"Run {self.run_id}" if self.run_id is not None else _capital(self.job)

    @property
    def goal(self) -> str:
        """What is waited for: "Waiting for …"."""
        raise NotImplementedError

    @property
    def is_end_of_a_run(self) -> bool:
        """Whether the end of one run decides, and nothing before it."""
        return False

    @property
    def may_pass(self) -> bool:
        """Whether it may be met and soon not be any more: then it counts that it was."""
        return True

    def of_run(self, run_id: int) -> Condition:  # noqa: ARG002 (for overriding)
        """Return the condition for a run that has been chosen."""
        return self

    def in_any_state(self) -> Condition:
        """Return the condition that the next look meets, whatever it shows."""
        return self

    def look(self, client: JobsClient) -> Look:
        """Ask once. Raises CallError, and ConfigurationError where what is waited for cannot be."""
        raise NotImplementedError

    def to_plain(self) -> dict[str, Any]:
        """Return what `from_plain` reads: values that JSON has."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        lists = {name: list(value) for name, value in plain.items() if isinstance(value, tuple)}
        return {"kind": self.kind, **plain, **lists}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCondition(Condition):
    """A run, or its task `task_key`, is in one of `states`.

    The run is `chosen`, or else one of the job: the first that started at `since` (epoch seconds) or later, the latest
    where that is None.
    """

    kind = "run"

    chosen: int | None = None
    since: float | None = None
    task_key: str | None = None
    states: tuple[str, ...] = DEFAULT_STATES

    @property
    def run_id(self) -> int | None:
        """The run, where it is known."""
        return self.chosen

    @property
    def goal(self) -> str:
        """What is waited for: "Waiting for …"."""
        if self.run_id is None:
            return f"a run of {self.job}{self._since_when}"
        whose = f"run {self.run_id}" if self.task_key is None else f"task {self.task_key} of run {self.run_id}"
        return f"{whose} to be {' or '.join(self.states)}" if self.may_pass else f"the end of {whose}"

    @property
    def is_end_of_a_run(self) -> bool:
        """Whether the end of one run decides, and nothing before it."""
        return self.run_id is not None and self.task_key is None and not self.may_pass

    @property
    def may_pass(self) -> bool:
        """Whether one of the states is left again by itself."""
        return not ACTIVE_LIFE_CYCLE_STATES.isdisjoint(self.states)

    def of_run(self, run_id: int) -> RunCondition:
        """Return the condition for a run that has been chosen."""
        return replace(self, chosen=run_id)

    def in_any_state(self) -> RunCondition:
        """Return the condition that the next look meets, whatever it shows."""
        return replace(self, states=tuple(sorted(LIFE_CYCLE_STATES | RESULT_STATES)))

    def look(self, client: JobsClient) -> Look:
        """Ask for the run; before that, where it is not known yet, for the job's runs."""
        if self.run_id is not None:
            return _look_at(self, client.get_run(self.run_id))
        condition, chosen = self._with_run(client)
        if chosen is None:
            return Look(condition, None, f"{_capital(condition.job)} has no run{self._since_when} yet")
        try:
            run = client.get_run(chosen.run_id)
        except CallError as error:
            # The choice is kept, since the next look might make another.
            says = f"Run {chosen.run_id} is the one of {condition.job}, and cannot be asked for at the moment: {error}"
            return Look(condition, None, says, chosen)
        return _look_at(condition, run)

    def verdict(self, run: Run, *, is_over: bool) -> bool | None:
        """Return what a state means; that a run `is_over` says that no other will follow."""
        if run.state.is_any_of(self.states):
            return True
        return False if is_over else None

    def _with_run(self, client: JobsClient) -> tuple[RunCondition, Run | None]:
        """Return the condition with the job's run that is to be waited for, and that run, where there is one."""
        job_id = self.job_id if self.job_id is not None else client.find_job_id(str(self.job_name))
        if self.since is None:
            run = next(client.list_runs(job_id=job_id, page_size=1), None)
        else:
            run = _first_since(client, job_id, self.since)
        if run is None and self.job_id is not None and not self.job_exists:
            # Nobody would wait for ever for a job that does not exist.
            client.get_job(job_id)
        return replace(self, chosen=run.run_id if run else None, job_id=job_id, job_exists=True), run

    @property
    def _since_when(self) -> str:
        if self.since is None:
            return ""
        return f" that started at {datetime.fromtimestamp(self.since, UTC).isoformat()} or later"


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleCondition(Condition):
    """A job has no active run."""

    kind = "idle"

    @property
    def goal(self) -> str:
        """What is waited for: "Waiting for …"."""
        return f"{self.job} to have no active run"

    def look(self, client: JobsClient) -> Look:
        """Ask for the job's active runs.

        The filter of API 2.0 may leave runs out that are QUEUED or wait for a retry, so the latest runs count too.
        """
        job_id = self.job_id if self.job_id is not None else client.find_job_id(str(self.job_name))
        condition = replace(self, job_id=job_id, job_exists=self.job_exists or self.job_id is None)
        active = _active_run(client.list_runs(job_id=job_id, active_only=True, page_size=_RECENT_RUNS))
        recent = [] if active else list(islice(client.list_runs(job_id=job_id, page_size=_RECENT_RUNS), _RECENT_RUNS))
        active = active or _active_run(recent)
        if active is None and not condition.job_exists:
            # A mistyped id is no idle job.
            client.get_job(job_id)
        condition = replace(condition, job_exists=True)
        if active is None:
            return Look(condition, True, f"{_capital(condition.job)} has no active run", next(iter(recent), None))
        return Look(condition, None, f"{_capital(condition.job)}: run {active.run_id} is {active.state}", active)


def from_plain(plain: Mapping[str, Any]) -> Condition:
    """Return the condition that `to_plain` made plain; fields of another release are ignored. Raises JobsError."""
    kinds = {kind.kind: kind for kind in (RunCondition, IdleCondition)}
    kind = kinds.get(plain.get("kind", ""))
    if kind is None:
        raise JobsError(f"This release knows no condition {plain.get('kind')!r}: it was made by a newer one.")
    known = {field.name: plain[field.name] for field in fields(kind) if field.name in plain}
    if "states" in known:
        known["states"] = tuple(known["states"])
    return kind(**known)


def look_patiently(
    client: JobsClient, condition: Condition, patience: Patience, *, is_first: Callable[[], bool]
) -> Look:
    """Look in a worker; refused credentials are waited out, and read anew meanwhile.

    Not so at the first look of a try, which `is_first` tells: what is wrong there was so from the start. Raises
    CallError for what is not waited out, or where a job does not exist, RunLost where the patience is spent or the run
    is gone, and ConfigurationError.
    """
    from airflow_dbjobs.client.wait import DEFAULT_PERIOD, Watch, wait_after

    watch = Watch(condition.run_id or 0, DEFAULT_PERIOD, patience, client.clock, what=condition.what)
    while True:
        asked_at = client.clock()
        try:
            return condition.look(client)
        except CallError as error:
            if error.transient or (isinstance(error, NotFound) and condition.run_id is None) or is_first():
                raise
            wait_after(error, asked_at, watch, client)


def wanted_states(states: str | Iterable[str]) -> tuple[str, ...]:
    """Return the states of a parameter: names, or a text of names with commas. Raises ConfigurationError."""
    names = states.split(",") if isinstance(states, str) else states
    wanted = tuple(dict.fromkeys(_spelled(name) for name in names))
    known = LIFE_CYCLE_STATES | RESULT_STATES
    if not wanted or not known.issuperset(wanted):
        raise ConfigurationError(
            f"states is {states!r}; it must be one or more of {', '.join(sorted(known))}. Check what it renders to."
        )
    return wanted


def epoch_seconds(since: datetime | str | float) -> float:
    """Return the time of a parameter, in epoch seconds. Raises ConfigurationError.

    It is a datetime (UTC where it has no zone), an ISO text of one, or epoch seconds.
    """
    try:
        moment = since if isinstance(since, datetime) else _moment(str(since).strip())
    except ValueError:
        moment = -1.0
    if isinstance(moment, datetime):
        moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if not 0 <= moment < _NO_SECONDS:
        raise ConfigurationError(
            f"since is {since!r}; it must be a datetime, an ISO text of one, or epoch seconds (not milliseconds)."
            " Check what it renders to."
        )
    return moment


def _moment(text: str) -> datetime | float:
    """Read a time; eight digits are a date, as ``{{ ds_nodash }}`` writes it. Raises ValueError."""
    if not (text.isdecimal() and len(text) == _DATE_DIGITS):
        try:
            return float(text)
        except ValueError:
            pass
    return datetime.fromisoformat(text)


def _first_since(client: JobsClient, job_id: int, since: float) -> Run | None:
    """Return the first run of a job that started at `since` or later."""
    since_ms = round(since * 1000)
    # 2.0 has no such filter, and so its list is read as far as it goes back to that time.
    bound = None if client.api_version == "2.0" else since_ms
    first = None
    for run in client.list_runs(job_id=job_id, start_time_from=bound):
        # A run that has not started yet may have no time.
        if run.start_time is not None:
            if round(run.start_time * 1000) < since_ms:
                break
            first = run
    return first


def _look_at(condition: RunCondition, run: Run) -> Look:
    if condition.task_key is not None:
        return _look_at_task(condition, run, condition.task_key)
    verdict = condition.verdict(run, is_over=run.is_terminal)
    return Look(condition, verdict, f"Run {run.run_id} is {run.state}", run)


def _look_at_task(condition: RunCondition, run: Run, task_key: str) -> Look:
    task = next((task for task in run.tasks if task.task_key == task_key), None)
    if task is None:
        if not (run.tasks or run.is_terminal):
            return Look(condition, None, f"Run {run.run_id} is {run.state} and shows no tasks yet", run)
        keys = ", ".join(sorted(task.task_key for task in run.tasks)) or "it shows none"
        raise ConfigurationError(
            f"task_key={task_key!r}: run {run.run_id} has no such task (case counts). Its tasks: {keys}."
        )
    alone, says = run.only(task), f"Task {task_key} of run {run.run_id} is {task.state}"
    is_over = task.state.is_terminal and (run.is_terminal or not _may_be_retried(task))
    if task.state.is_terminal and not is_over:
        return Look(condition, None, f"{says}, and may be retried", alone)
    return Look(condition, condition.verdict(alone, is_over=is_over), says, alone)


def _active_run(runs: Iterable[Run]) -> Run | None:
    return next((run for run in islice(runs, _RECENT_RUNS) if not run.is_terminal), None)


def _may_be_retried(task: TaskRun) -> bool:
    """Whether another attempt may follow one that is over. Serverless compute retries where nobody has said how often.

    Attempts are counted from 0, over repairs.
    """
    outcome, raw = task.state.outcome, task.raw
    if task.state.result_state in NEVER_RAN or not (
        outcome is Outcome.FAILED or (outcome is Outcome.TIMED_OUT and raw.get("retry_on_timeout"))
    ):
        return False
    if raw.get("max_retries") is None:
        return True
    limit = count(raw["max_retries"])
    return limit < 0 or task.attempt_number < limit


def _spelled(name: object) -> str:
    spelled = str(name).strip().upper()
    # The reference's prose spells it so.
    return "TIMEDOUT" if spelled == "TIMED_OUT" else spelled


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
