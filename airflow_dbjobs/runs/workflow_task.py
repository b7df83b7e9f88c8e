"""What a member of a workflow group does about its task in the group's run: wait, end by it, or have it repaired.

Several tasks of Airflow share one run, and each try of them starts from what it finds: the latest attempt at its task,
and the note that an earlier try left about that attempt. So a lost worker is only another start. An attempt ends one
try only: a retry after a failure, or a clear, needs another attempt, which a repair of the run makes.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.client.models import NEVER_RAN, Outcome, RunState
from airflow_dbjobs.client.pagination import objects
from airflow_dbjobs.errors import ConfigurationError, JobsError
from airflow_dbjobs.runs.conditions import CheckResult, RunCondition

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.client.models import Run, TaskRun

# The results of tasks that did not run because of a task before them.
UPSTREAM_RESULTS = frozenset({"UPSTREAM_FAILED", "UPSTREAM_CANCELED"})
# States of an Airflow task that has ended and will not start again.
_ENDED = frozenset({"success", "failed", "skipped", "upstream_failed", "removed", "gone"})
# States of an Airflow task whose next try has not started.
_WAITS_FOR_NEXT_TRY = frozenset({"cleared", "scheduled", "queued", "up_for_retry", "restarting"})


class Stage(enum.StrEnum):
    """How far a try has come with an attempt."""

    WAITING = "waiting"
    ENDED = "ended"
    WANTS_REPAIR = "wants_repair"


@dataclass(frozen=True, slots=True)
class Note:
    """What a try of a member leaves to later tries, and tells its siblings, about the latest attempt at its task.

    `attempt` is the attempt's run id. `epoch` changes when the Airflow task is cleared, and `try_number` with each try.
    `joined` says that an earlier try had waited for the same attempt.
    """

    attempt: int
    epoch: int
    try_number: int
    stage: Stage = Stage.WAITING
    joined: bool = False

    @classmethod
    def from_json(cls, plain: Any) -> Note | None:
        """Return the note that `to_json` wrote; None if there is none that this release understands."""
        try:
            stage, joined = Stage(plain["stage"]), bool(plain.get("joined"))
            return cls(int(plain["attempt"]), int(plain["epoch"]), int(plain["try"]), stage, joined)
        except (TypeError, KeyError, ValueError, AttributeError):
            return None

    def to_json(self) -> dict[str, Any]:
        """Return JSON values that `from_json` reads."""
        plain = {"attempt": self.attempt, "epoch": self.epoch, "try": self.try_number, "stage": self.stage.value}
        return {**plain, **({"joined": True} if self.joined else {})}

    def is_by(self, mine: Note) -> bool:
        """Return whether the try that left `mine` left this note, too."""
        return (self.epoch, self.try_number) == (mine.epoch, mine.try_number)


class Step(enum.Enum):
    """What a member does next."""

    WAIT_FOR_TASK = "wait for the end of the attempt"
    CANCEL = "cancel the attempt, from before the clear, and wait for its end"
    WAIT_FOR_RUN = "wait for the end of the run, which can only be repaired then"
    REPAIR = "have the task repaired"
    END = "end by the attempt"


def next_step(
    run: Run, task: TaskRun, note: Note | None, *, epoch: int, try_number: int, successes: Collection[Outcome]
) -> tuple[Step, Note | None]:
    """Return what a try does, and the note to leave before (None: none has to be).

    `task` is the latest attempt, `note` what was noted last. `successes` are the outcomes with which the task succeeds.
    """
    mine = Note(task.run_id, epoch, try_number)
    known = note if note and note.attempt == task.run_id else None
    if not run.is_final(task):
        step, left = _while_active(task, known, mine)
    elif _is_used_up(task, known, mine, successes):
        step, left = Step.REPAIR if run.is_terminal else Step.WAIT_FOR_RUN, replace(mine, stage=Stage.WANTS_REPAIR)
    else:
        step, left = Step.END, replace(mine, stage=Stage.ENDED)
    return step, None if left == known else left


def _while_active(task: TaskRun, known: Note | None, mine: Note) -> tuple[Step, Note | None]:
    if known is None:
        return Step.WAIT_FOR_TASK, mine
    is_ending = task.state.is_being_stopped or task.state.life_cycle_state == "TERMINATING"
    if known.epoch != mine.epoch or known.stage is Stage.WANTS_REPAIR:
        # The user wants another attempt than this one.
        return Step.WAIT_FOR_TASK if is_ending else Step.CANCEL, replace(mine, stage=Stage.WANTS_REPAIR)
    if known.is_by(mine) or is_ending:
        # An attempt that ends because of an earlier try does not become this one's.
        return Step.WAIT_FOR_TASK, known
    return Step.WAIT_FOR_TASK, replace(mine, joined=True)


def _is_used_up(task: TaskRun, known: Note | None, mine: Note, successes: Collection[Outcome]) -> bool:
    """Return whether a finished attempt ended an earlier try, so that this one needs another attempt.

    Within an epoch that holds for failures only: an earlier try that did not end by a success was lost with its worker.
    """
    if known is None:
        return False
    if known.epoch != mine.epoch or known.stage is Stage.WANTS_REPAIR:
        return True
    if not has_run(task.state) or task.state.outcome in successes:
        return False
    # A cancelled attempt that was joined was cancelled with the try that had waited for it.
    return not known.is_by(mine) or (known.joined and task.state.outcome is Outcome.CANCELED)


def has_run(state: RunState) -> bool:
    """Return whether a finished task was started, rather than skipped or kept from running by other tasks."""
    return state.outcome is not Outcome.SKIPPED and state.result_state not in NEVER_RAN


def find_task(run: Run, task_key: str) -> TaskRun | None:
    """Return the latest attempt at a task, None if the run has no tasks (yet). Raises ConfigurationError."""
    task = next((task for task in run.tasks if task.task_key == task_key), None)
    if task is None and run.tasks:
        keys = ", ".join(sorted(task.task_key for task in run.tasks))
        raise ConfigurationError(
            f"Run {run.run_id} has no task {task_key!r}. It was probably added to the DAG, or renamed, after the run"
            f" was launched. The run's tasks: {keys}."
        )
    return task


def find_active_attempt(client: JobsClient, run_id: int, task_key: str, *, known: int | None = None) -> int | None:
    """Return the run id of the active attempt at a task, None if there is none; `known` if that cannot be read."""
    try:
        task = find_task(client.get_run(run_id), task_key)
    except JobsError:
        return known
    return None if task is None or task.state.is_terminal else task.run_id


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskEndCondition(RunCondition):
    """The end of the latest attempt at a task; with `attempt`, the end of the run or an attempt other than that."""

    kind = "task_end"

    attempt: int | None = None

    def check_run(self, run: Run) -> CheckResult:
        """Check the run, which was read with all its tasks. Raises ConfigurationError if it lacks the task."""
        task = find_task(run, str(self.task_key))
        if task is None:
            # A run that never started may have no tasks.
            return CheckResult(self, run.is_terminal or None, f"Run {run.run_id} is {run.state} and has no tasks", run)
        subject = f"Task {self.task_key} of run {run.run_id} is {task.state}"
        if self.attempt is None:
            met, message = run.is_final(task), subject
        else:
            met, message = run.is_terminal or task.run_id != self.attempt, f"{subject}; the run is {run.state}"
        return CheckResult(self, met or None, message, run.only(task))


def is_due(attempt: TaskRun, note: Note | None, state: str, successes: Collection[Outcome]) -> bool | None:
    """Return whether a sibling needs a repair, too; None if that is not decided yet.

    `attempt` is the latest, and has ended; `state` is the Airflow task's state ("cleared" if it has none).
    """
    if state in _ENDED:
        return False
    known = note if note and note.attempt == attempt.run_id else None
    if known and known.stage is Stage.WANTS_REPAIR:
        return True
    if not has_run(attempt.state):
        return False
    has_failed = attempt.state.outcome not in successes
    # It ended by a failure, and starts again. In all other cases it may only be about to end by this attempt.
    is_retried = known is not None and known.stage is Stage.ENDED and state in _WAITS_FOR_NEXT_TRY and has_failed
    return True if is_retried else None


def failed_upstream(run: Run, task: TaskRun) -> list[str]:
    """Return the keys of the tasks because of which a task did not run: the first of each chain of failures."""
    by_key = {other.task_key: other for other in run.tasks}
    found: set[str] = set()
    seen: set[str] = set()
    pending = upstream_keys(task)
    while pending:
        key = pending.pop()
        upstream = by_key.get(key)
        if upstream is None or key in seen:
            continue
        seen.add(key)
        if upstream.state.result_state in UPSTREAM_RESULTS:
            pending += upstream_keys(upstream)
        elif upstream.state.is_terminal and has_run(upstream.state) and not upstream.state.is_success:
            found.add(key)
    return sorted(found)


def upstream_keys(task: TaskRun) -> list[str]:
    """Return the keys of the tasks that a task depends on."""
    return [str(item.get("task_key")) for item in objects(task.raw, "depends_on")]
