"""Runs as the API reports them. Only this module decides whether a run is finished and whether it succeeded.

The API describes a state twice: as ``state`` (2.0 and later) and as ``status`` (2.1 and later). Either may be missing,
and later versions may add values. An unknown life cycle state counts as active, an unknown result as a failure.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from airflow_dbjobs.client.pagination import objects
from airflow_dbjobs.client.response_fields import (
    count,
    identifier,
    message_text,
    page_url,
    seconds,
    strict_name,
    strict_object,
)
from airflow_dbjobs.client.sanitize import one_line

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping

    from airflow_dbjobs import payloads

TERMINAL_LIFE_CYCLE_STATES = frozenset({"TERMINATED", "SKIPPED", "INTERNAL_ERROR"})
ACTIVE_LIFE_CYCLE_STATES = frozenset(
    {"QUEUED", "PENDING", "RUNNING", "TERMINATING", "BLOCKED", "WAITING_FOR_RETRY", "WAITING"}
)
LIFE_CYCLE_STATES = TERMINAL_LIFE_CYCLE_STATES | ACTIVE_LIFE_CYCLE_STATES
# Results of tasks that never ran: because of another task or a condition, or because they are disabled.
NEVER_RAN = frozenset({"UPSTREAM_FAILED", "UPSTREAM_CANCELED", "EXCLUDED", "DISABLED"})
RESULT_STATES = NEVER_RAN | {
    "SUCCESS", "SUCCESS_WITH_FAILURES", "FAILED", "TIMEDOUT", "CANCELED", "MAXIMUM_CONCURRENT_RUNS_REACHED",
}  # fmt: skip

# The `state.result_state` for each `status.termination_details.code`, for replies that have only `status`.
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
# With one of these fields, a task that sets no limit is not retried.
_FIELDS_WITHOUT_AUTOMATIC_RETRIES = (
    "existing_cluster_id", "new_cluster", "job_cluster_key", "disable_auto_optimization",
)  # fmt: skip
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
    # The reference's text spells it this way; its enum and actual replies do not.
    "TIMED_OUT": Outcome.TIMED_OUT,
    "CANCELED": Outcome.CANCELED,
    # Older pages of the reference have this result for a run that is otherwise SKIPPED.
    "MAXIMUM_CONCURRENT_RUNS_REACHED": Outcome.SKIPPED,
}


@dataclass(frozen=True, slots=True)
class RunState:
    """The state of a run or of one of its tasks.

    ``life_cycle_state``, ``result_state`` (None while there is none) and ``message`` are as the API returns them.
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
        state, status = strict_object(run, "state"), strict_object(run, "status")
        termination = strict_object(status, "termination_details")
        code = strict_name(termination.get("code"))
        life_cycle_state = strict_name(state.get("life_cycle_state"))
        if life_cycle_state not in LIFE_CYCLE_STATES:
            life_cycle_state = _life_cycle_state(strict_name(status.get("state")) or life_cycle_state, code)
        return cls(
            life_cycle_state=life_cycle_state,
            result_state=strict_name(state.get("result_state")) or _RESULT_OF_TERMINATION_CODE.get(code),
            message=message_text(state.get("state_message")) or message_text(termination.get("message")),
            termination_code=code,
            user_cancelled_or_timedout=state.get("user_cancelled_or_timedout") is True,
            termination_type=strict_name(termination.get("type")),
        )

    @property
    def is_terminal(self) -> bool:
        """True if the run is over. An unknown life cycle state counts as active."""
        return self.life_cycle_state in TERMINAL_LIFE_CYCLE_STATES

    @property
    def is_known(self) -> bool:
        """True if the life cycle state is documented."""
        return self.life_cycle_state in LIFE_CYCLE_STATES

    @property
    def outcome(self) -> Outcome:
        """How a finished run ended; an unknown result, or none, is a failure.

        A failed multi-task run has INTERNAL_ERROR and FAILED, so the result takes precedence over the life cycle state.
        """
        if self.life_cycle_state == "SKIPPED":
            return Outcome.SKIPPED
        if self.life_cycle_state == "INTERNAL_ERROR" and self.result_state in {"SUCCESS", "SUCCESS_WITH_FAILURES"}:
            return Outcome.FAILED
        return _OUTCOME_OF_RESULT.get(self.result_state or "", Outcome.FAILED)

    def is_any_of(self, names: Container[str]) -> bool:
        """Return True if the life cycle state is one of `names`, or if the run is over and its result is one."""
        if self.life_cycle_state in names:
            return True
        # A TERMINATING run already has a result, but may not have its output yet.
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
        """True if the run is over and succeeded, at least partially."""
        return self.is_terminal and self.outcome in {Outcome.SUCCESS, Outcome.PARTIAL_SUCCESS}

    @property
    def is_being_stopped(self) -> bool:
        """True if the run is active, but was cancelled or timed out. A TERMINATING run need not be."""
        return not self.is_terminal and (self.user_cancelled_or_timedout or self.result_state == "CANCELED")

    @property
    def canceled_by_platform(self) -> bool:
        """True if the platform, not a person, cancelled the run."""
        return self.outcome is Outcome.CANCELED and self.termination_code not in {"", "USER_CANCELED"}

    def __str__(self) -> str:
        """Return both states in the form ``TERMINATED/FAILED``."""
        return "/".join(filter(None, (self.life_cycle_state or "no state", self.result_state)))


def _life_cycle_state(status: str, termination_code: str) -> str:
    """Return the ``life_cycle_state`` for a reply that has only a ``status``."""
    if status != "TERMINATED":
        return status
    if termination_code in _SKIPPED_TERMINATION_CODES:
        return "SKIPPED"
    return "TERMINATED" if termination_code in _RESULT_OF_TERMINATION_CODE else "INTERNAL_ERROR"


@dataclass(frozen=True, slots=True)
class TaskRun:
    """One task of a run (its latest attempt). ``run_id`` is 0 if the reply has none; there is no output then."""

    run_id: int
    task_key: str
    state: RunState
    attempt_number: int
    page_url: str
    raw: payloads.RunTask = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, task: Mapping[str, Any]) -> TaskRun:
        """Read one element of a run's ``tasks``."""
        return cls(
            run_id=identifier(task.get("run_id") or 0),
            task_key=strict_name(task.get("task_key")),
            state=RunState.from_json(task),
            attempt_number=count(task.get("attempt_number")),
            page_url=_page_url(task),
            raw=cast("payloads.RunTask", task),
        )

    @property
    def may_be_retried(self) -> bool:
        """True if Databricks may start another attempt after this finished one.

        Serverless compute, that is a task without a cluster, retries tasks that set no limit, unless they forbid it.
        Attempts are counted from 0, across repairs.
        """
        outcome, raw = self.state.outcome, self.raw
        if self.state.result_state in NEVER_RAN or not (
            outcome is Outcome.FAILED or (outcome is Outcome.TIMED_OUT and raw.get("retry_on_timeout"))
        ):
            return False
        if raw.get("max_retries") is None:
            return not any(raw.get(field) for field in _FIELDS_WITHOUT_AUTOMATIC_RETRIES)
        limit = count(raw["max_retries"])
        return limit < 0 or self.attempt_number < limit


@dataclass(frozen=True, slots=True)
class Run:
    """A run as ``runs/get`` returns it. ``raw`` is the reply with all its fields."""

    run_id: int
    job_id: int | None
    state: RunState
    #: In epoch seconds; None if the reply has none.
    start_time: float | None
    #: In epoch seconds; None while the run is active.
    end_time: float | None
    page_url: str
    run_name: str
    tasks: tuple[TaskRun, ...]
    raw: payloads.Run = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, run: Mapping[str, Any]) -> Run:
        """Read a Run object of any API version. Raises KeyError, TypeError or ValueError if it is not one."""
        return cls(
            run_id=identifier(run["run_id"]),
            job_id=identifier(run.get("job_id") or 0) or None,
            state=RunState.from_json(run),
            start_time=seconds(run.get("start_time")),
            end_time=seconds(run.get("end_time")),
            page_url=_page_url(run),
            run_name=one_line(message_text(run.get("run_name"))),
            tasks=latest_attempts(TaskRun.from_json(task) for task in objects(run, "tasks")),
            raw=cast("payloads.Run", run),
        )

    @property
    def is_terminal(self) -> bool:
        """True if the run is over."""
        return self.state.is_terminal

    @property
    def outcome(self) -> Outcome:
        """How the finished run ended."""
        return self.state.outcome

    def is_final(self, task: TaskRun) -> bool:
        """Return whether a task of this run has ended, and no other attempt will follow by itself."""
        return task.state.is_terminal and (self.is_terminal or not task.may_be_retried)

    def only(self, task: TaskRun) -> Run:
        """Return the run of one task, as if it had been launched on its own."""
        return replace(
            self,
            run_id=task.run_id,
            state=task.state,
            start_time=seconds(task.raw.get("start_time")),
            end_time=seconds(task.raw.get("end_time")),
            page_url=task.page_url or self.page_url,
            tasks=(task,),
            raw=cast("payloads.Run", task.raw),
        )

    @property
    def failed_tasks(self) -> list[TaskRun]:
        """The tasks that failed themselves, without those that did not run because another task failed."""
        return [
            task
            for task in self.tasks
            if task.state.is_terminal
            and task.state.outcome not in {Outcome.SUCCESS, Outcome.PARTIAL_SUCCESS, Outcome.SKIPPED}
            # These do not explain why the run failed.
            and task.state.result_state not in NEVER_RAN
        ]


def _page_url(raw: Mapping[str, Any]) -> str:
    """Return the URL of the page of a run or a task run, in the form that works for all users.

    The API returns an older form, ``/?o=1#job/2/run/3``, which redirects everyone except administrators to the
    workspace's home page (https://github.com/databricks/cli/issues/5142).
    """
    url = page_url(raw.get("run_page_url"))
    old = _PAGE_BY_FRAGMENT.fullmatch(url)
    if old is None or old[4] != str(raw.get("run_id")):
        # Another form of URL, or one with the run's number within its job, which the newer form cannot have.
        return url
    return f"{old[1]}/jobs/{old[3]}/runs/{old[4]}{old[2] or ''}"


def repairs_of(run: Run) -> list[dict[str, Any]]:
    """Return the repairs of a run that was read with its history, the latest last. Raises UnreadableReply."""
    repairs = [item for item in objects(run.raw, "repair_history") if item.get("id")]
    # The API does not document their order.
    return sorted(repairs, key=lambda item: count(item.get("start_time")))


def latest_attempts(tasks: Iterable[TaskRun]) -> tuple[TaskRun, ...]:
    """Keep the last attempt of each task: a run lists every attempt of a retried or repaired task."""
    latest: dict[str, TaskRun] = {}
    for task in tasks:
        known = latest.get(task.task_key)
        if known is None or task.attempt_number >= known.attempt_number:
            latest[task.task_key] = task
    return tuple(latest.values())
