"""Runs as the API reports them, and the only place that decides "finished" and "succeeded".

The API describes a state twice: ``state`` (2.0 and later) and ``status`` (2.1 and later). Either may be missing, and
both grow new values; an unknown life cycle state is read as "still running", an unknown result as a failure.
"""

from __future__ import annotations

import enum
import functools
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Required

from airflow_dbjobs.client.pagination import objects
from airflow_dbjobs.client.response_fields import count, identifier, page_url, part, prose, seconds, word
from airflow_dbjobs.client.sanitize import one_line

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping

    from pydantic import TypeAdapter

    from airflow_dbjobs import payloads

TERMINAL_LIFE_CYCLE_STATES = frozenset({"TERMINATED", "SKIPPED", "INTERNAL_ERROR"})
ACTIVE_LIFE_CYCLE_STATES = frozenset(
    {"QUEUED", "PENDING", "RUNNING", "TERMINATING", "BLOCKED", "WAITING_FOR_RETRY", "WAITING"}
)
LIFE_CYCLE_STATES = TERMINAL_LIFE_CYCLE_STATES | ACTIVE_LIFE_CYCLE_STATES
# Results of tasks that never ran: because of another task, of a condition, or because somebody turned them off.
NEVER_RAN = frozenset({"UPSTREAM_FAILED", "UPSTREAM_CANCELED", "EXCLUDED", "DISABLED"})
RESULT_STATES = NEVER_RAN | {
    "SUCCESS", "SUCCESS_WITH_FAILURES", "FAILED", "TIMEDOUT", "CANCELED", "MAXIMUM_CONCURRENT_RUNS_REACHED",
}  # fmt: skip

# What `status.termination_details.code` says in the words of `state.result_state`, for replies that carry only
# `status`.
_RESULT_OF_TERMINATION_CODE = {
    "SUCCESS": "SUCCESS",
    "SUCCESS_WITH_FAILURES": "SUCCESS_WITH_FAILURES",
    "RUN_EXECUTION_ERROR": "FAILED",
    "USER_CANCELED": "CANCELED",
    "CANCELED": "CANCELED",
}
_SKIPPED_TERMINATION_CODES = frozenset(
    {"SKIPPED", "DISABLED", "MAX_CONCURRENT_RUNS_EXCEEDED", "MAX_JOB_QUEUE_SIZE_EXCEEDED"}
)
_PAGE_BY_FRAGMENT = re.compile(r"(https?://[^/?#]+)/?(\?[^#]*)?#job/(\d+)/run/(\d+)/?")


class Outcome(enum.Enum):
    """How a finished run ended."""

    SUCCESS = "success"
    PARTIAL_SUCCESS = "partial success"
    FAILED = "failed"
    TIMED_OUT = "timed out"
    CANCELED = "canceled"
    SKIPPED = "skipped"


_OUTCOME_OF_RESULT = {
    "SUCCESS": Outcome.SUCCESS,
    "SUCCESS_WITH_FAILURES": Outcome.PARTIAL_SUCCESS,
    "FAILED": Outcome.FAILED,
    "TIMEDOUT": Outcome.TIMED_OUT,
    # The reference's prose spells it so; the enum, and the wire, do not.
    "TIMED_OUT": Outcome.TIMED_OUT,
    "CANCELED": Outcome.CANCELED,
    # So the reference's older pages tell of a run that others call SKIPPED.
    "MAXIMUM_CONCURRENT_RUNS_REACHED": Outcome.SKIPPED,
}


@dataclass(frozen=True, slots=True)
class RunState:
    """The state of a run or of one of its tasks.

    ``life_cycle_state`` and ``result_state`` (None while there is none) are the API's own words, ``message`` its text.
    ``termination_code`` and ``termination_type`` are "" in 2.0. ``user_cancelled_or_timedout`` may be true while the
    run is still terminating.
    Source: RunState, RunLifeCycleState, RunResultState of the Jobs API reference.
    """

    life_cycle_state: str
    result_state: str | None = None
    message: str = ""
    termination_code: str = ""
    user_cancelled_or_timedout: bool = False
    termination_type: str = ""

    @classmethod
    def from_json(cls, run: Mapping[str, Any]) -> RunState:
        """Read the ``state`` and ``status`` of a run or task run."""
        state, status = part(run, "state"), part(run, "status")
        termination = part(status, "termination_details")
        code = word(termination.get("code"))
        life_cycle_state = word(state.get("life_cycle_state"))
        if life_cycle_state not in LIFE_CYCLE_STATES:
            life_cycle_state = _life_cycle_state(word(status.get("state")) or life_cycle_state, code)
        return cls(
            life_cycle_state=life_cycle_state,
            result_state=word(state.get("result_state")) or _RESULT_OF_TERMINATION_CODE.get(code),
            message=prose(state.get("state_message")) or prose(termination.get("message")),
            termination_code=code,
            user_cancelled_or_timedout=state.get("user_cancelled_or_timedout") is True,
            termination_type=word(termination.get("type")),
        )

    @property
    def is_terminal(self) -> bool:
        """Whether the run is over. A life cycle state that nobody has heard of counts as still running."""
        return self.life_cycle_state in TERMINAL_LIFE_CYCLE_STATES

    @property
    def is_known(self) -> bool:
        """Whether the life cycle state is one of the reference's."""
        return self.life_cycle_state in LIFE_CYCLE_STATES

    @property
    def outcome(self) -> Outcome:
        """How a finished run ended; an unknown result, or none, is a failure.

        A failed multi-task run reads INTERNAL_ERROR + FAILED, so the result is asked before the life cycle state.
        """
        if self.life_cycle_state == "SKIPPED":
            return Outcome.SKIPPED
        if self.life_cycle_state == "INTERNAL_ERROR" and self.result_state in {"SUCCESS", "SUCCESS_WITH_FAILURES"}:
            return Outcome.FAILED
        return _OUTCOME_OF_RESULT.get(self.result_state or "", Outcome.FAILED)

    def is_any_of(self, names: Container[str]) -> bool:
        """Whether this is one of these life cycle states, or the end of a run with one of these results."""
        if self.life_cycle_state in names:
            return True
        # A run that is TERMINATING has a result already, and may have no output yet.
        if not self.is_terminal:
            return False
        if self.outcome is Outcome.SKIPPED and "SKIPPED" in names:
            return True
        result = "TIMEDOUT" if self.outcome is Outcome.TIMED_OUT else self.result_state
        if result in {"SUCCESS", "SUCCESS_WITH_FAILURES"} and not self.is_success:
            result = "FAILED"
        return result in names

    @property
    def is_success(self) -> bool:
        """Whether the run is over and succeeded, be it in part."""
        return self.is_terminal and self.outcome in {Outcome.SUCCESS, Outcome.PARTIAL_SUCCESS}

    @property
    def is_being_stopped(self) -> bool:
        """Whether the run still goes on, but was cancelled or has passed its timeout. Not each TERMINATING run is."""
        return not self.is_terminal and (self.user_cancelled_or_timedout or self.result_state == "CANCELED")

    @property
    def canceled_by_platform(self) -> bool:
        """Whether a cancelled run was cancelled by the platform rather than by a person."""
        return self.outcome is Outcome.CANCELED and self.termination_code not in {"", "USER_CANCELED"}

    def __str__(self) -> str:
        """Return the two states as a person would quote them: ``TERMINATED/FAILED``."""
        return "/".join(filter(None, (self.life_cycle_state or "no state", self.result_state)))


def _life_cycle_state(status: str, termination_code: str) -> str:
    """Return the ``life_cycle_state`` that a reply with only a ``status`` means."""
    if status != "TERMINATED":
        return status
    if termination_code in _SKIPPED_TERMINATION_CODES:
        return "SKIPPED"
    return "TERMINATED" if termination_code in _RESULT_OF_TERMINATION_CODE else "INTERNAL_ERROR"


@dataclass(frozen=True, slots=True)
class TaskRun:
    """One task of a run (its latest attempt). ``run_id`` is 0 where the reply has none: it has no output to ask for."""

    run_id: int
    task_key: str
    state: RunState
    attempt_number: int
    page_url: str
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, task: Mapping[str, Any]) -> TaskRun:
        """Read one element of a run's ``tasks``."""
        return cls(
            run_id=identifier(task.get("run_id") or 0),
            task_key=word(task.get("task_key")),
            state=RunState.from_json(task),
            attempt_number=count(task.get("attempt_number")),
            page_url=_page_url(task),
            raw=task,
        )


@dataclass(frozen=True, slots=True)
class Run:
    """A run, as ``runs/get`` tells it. ``raw`` is the reply itself, with every field of it."""

    run_id: int
    job_id: int | None
    state: RunState
    #: In epoch seconds; None where the reply has none.
    start_time: float | None
    #: In epoch seconds; None while it goes on.
    end_time: float | None
    page_url: str
    run_name: str
    tasks: tuple[TaskRun, ...]
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, run: Mapping[str, Any]) -> Run:
        """Read a Run object of any API version. Raises KeyError, TypeError or ValueError where it is none."""
        return cls(
            run_id=identifier(run["run_id"]),
            job_id=identifier(run.get("job_id") or 0) or None,
            state=RunState.from_json(run),
            start_time=seconds(run.get("start_time")),
            end_time=seconds(run.get("end_time")),
            page_url=_page_url(run),
            run_name=one_line(prose(run.get("run_name"))),
            tasks=latest_attempts(TaskRun.from_json(task) for task in objects(run, "tasks")),
            raw=run,
        )

    @property
    def answer(self) -> payloads.Run:
        """The reply with all its fields as attributes, under the reference's names; read anew each time."""
        from airflow_dbjobs import payloads
        from airflow_dbjobs.payloads.reading import read

        return read(payloads.Run, self.raw)

    @property
    def is_terminal(self) -> bool:
        """Whether the run is over."""
        return self.state.is_terminal

    @property
    def outcome(self) -> Outcome:
        """How the finished run ended."""
        return self.state.outcome

    def only(self, task: TaskRun) -> Run:
        """Return the run of one task, as if it had been launched by itself."""
        return replace(
            self,
            run_id=task.run_id,
            state=task.state,
            page_url=task.page_url or self.page_url,
            tasks=(task,),
        )

    @property
    def failed_tasks(self) -> list[TaskRun]:
        """The tasks that failed by themselves, not those that another's failure kept from running."""
        return [
            task
            for task in self.tasks
            if task.state.is_terminal
            and task.state.outcome not in {Outcome.SUCCESS, Outcome.PARTIAL_SUCCESS, Outcome.SKIPPED}
            # They explain nothing.
            and task.state.result_state not in NEVER_RAN
        ]


def _page_url(raw: Mapping[str, Any]) -> str:
    """Return the page of a run, or of a task of it, at the address where all who may see it find it.

    The API names an older one, ``/?o=1#job/2/run/3``, which takes all but administrators to the workspace's first page
    (https://github.com/databricks/cli/issues/5142).
    """
    url = page_url(raw.get("run_page_url"))
    old = _PAGE_BY_FRAGMENT.fullmatch(url)
    if old is None or old[4] != str(raw.get("run_id")):
        # No such address; or the run's number in its job, which is no part of the newer one.
        return url
    return f"{old[1]}/jobs/{old[3]}/runs/{old[4]}{old[2] or ''}"


@dataclass(frozen=True, slots=True)
class RunsPage:
    """A page of ``runs/list``, of which only the runs' states are kept, by run id. ``next_page_token`` is "" in 2.0."""

    states: Mapping[int, RunState]
    has_more: bool
    next_page_token: str

    @classmethod
    def from_json(cls, page: Mapping[str, Any]) -> RunsPage:
        """Read what `parse_runs_page` returned."""
        token = page.get("next_page_token") or ""
        states = {identifier(run["run_id"]): RunState.from_json(run) for run in page.get("runs") or ()}
        return cls(states, bool(page.get("has_more")) or bool(token), token)


def parse_runs_page(body: bytes) -> dict[str, Any]:
    """Return those fields of a page of ``runs/list`` that RunsPage reads. Raises ValueError.

    A page may hold a megabyte: not to build what nobody reads halves the time.
    """
    page: dict[str, Any] = _runs_page().validate_json(body)
    return page


@functools.cache
def _runs_page() -> TypeAdapter[Any]:
    from pydantic import TypeAdapter
    from typing_extensions import TypedDict  # which pydantic asks for before Python 3.12

    class Entry(TypedDict, total=False):
        run_id: Required[int]
        state: dict[str, Any] | None
        status: dict[str, Any] | None

    class Page(TypedDict, total=False):
        runs: list[Entry] | None
        has_more: bool | None
        next_page_token: str | None
        # Then it is about a single run, and so the answer to another question.
        run_id: None

    return TypeAdapter(Page)


def repairs_of(run: Run) -> list[dict[str, Any]]:
    """Return the repairs of a run that was asked for with its history, the latest last. Raises UnreadableReply."""
    made = [item for item in objects(run.raw, "repair_history") if item.get("id")]
    # In which order they come is not said.
    return sorted(made, key=lambda item: count(item.get("start_time")))


def latest_attempts(tasks: Iterable[TaskRun]) -> tuple[TaskRun, ...]:
    """Keep the last attempt of each task: a run lists every attempt of a retried or repaired task."""
    latest: dict[str, TaskRun] = {}
    for task in tasks:
        known = latest.get(task.task_key)
        if known is None or task.attempt_number >= known.attempt_number:
            latest[task.task_key] = task
    return tuple(latest.values())
