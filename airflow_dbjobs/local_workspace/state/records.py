"""The records of the workspace: jobs, runs, and the task runs of a run. Times are epoch milliseconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from airflow_dbjobs.local_workspace.messages import Json

TERMINAL: Final = frozenset({"TERMINATED", "SKIPPED", "INTERNAL_ERROR"})


@dataclass(frozen=True)
class State:
    """Where a run or task run is in its life, and how it ended.

    `life` and `result` use the words of the API (`life_cycle_state`, `result_state`). `code` is the termination code
    of API 2.1+, given only where it does not follow from the other two.
    """

    life: str
    result: str | None = None
    message: str = ""
    code: str | None = None

    @property
    def terminal(self) -> bool:
        """Whether this state is final (for a run: until it is repaired)."""
        return self.life in TERMINAL


@dataclass
class Job:
    """A saved job. `settings` are kept as they were given, flat (2.0 shape) or with `tasks`."""

    job_id: int
    settings: Json
    creator: str
    created_ms: int
    #: How many runs it has had: the source of `number_in_job`.
    runs_started: int = 0
    #: Each has one of user_name, group_name and service_principal_name, and a permission_level. None: its creator owns
    #: it, and that is all.
    grants: list[Json] | None = None


@dataclass
class TaskRun:
    """One attempt at one task of a run. `spec` is the task as it stands in the settings."""

    run_id: int
    parent_id: int
    task_key: str
    spec: Json
    #: When it was created; once it starts, when it started.
    start_ms: int
    state: State = field(default_factory=lambda: State("BLOCKED"))
    end_ms: int = 0
    started: bool = False
    #: Counts all attempts at this task in the run, repairs included.
    attempt: int = 0
    #: Counts the automatic retries since the run, or its last repair, began.
    retries: int = 0
    not_before_ms: int = 0
    #: The result state this task run is being stopped with, if it is.
    stop: str | None = None
    #: Of a condition task: "true" or "false".
    outcome: str | None = None
    #: Of a run_job task: the run it started.
    child_run_id: int | None = None
    #: Of a task that is simulated, once it has started: when it ends, and with which result state.
    planned_end_ms: int | None = None
    planned_result: str | None = None


@dataclass
class Episode:
    """The original run, or one repair of it. `repair_id` is None for the original."""

    repair_id: int | None
    start_ms: int
    task_run_ids: list[int]
    end_ms: int = 0
    state: State = field(default_factory=lambda: State("PENDING"))


@dataclass
class Run:
    """A run of a job, or a one-time run (which has a job id of its own that names no job)."""

    run_id: int
    job_id: int
    number_in_job: int
    run_type: str
    run_name: str
    creator: str
    trigger: str
    #: The job's settings as of the launch, without its tasks.
    settings: Json
    #: Whether the payload had the 2.0 shape, with one task and no `tasks`.
    flat: bool
    start_ms: int
    #: When its timeout began to count: it does not while a run is queued, and a repair begins anew.
    clock_ms: int
    state: State = field(default_factory=lambda: State("PENDING"))
    end_ms: int = 0
    #: `notebook_params`, `python_params` and so on, as given to run-now.
    overrides: Json = field(default_factory=dict)
    #: `{name: {"default": ..., "value": ...}}`
    job_parameters: dict[str, Json] = field(default_factory=dict)
    #: The result state all of it is being stopped with, if it is.
    stop: str | None = None
    #: Its job was deleted: it is hidden, and removed when it ends.
    deleted: bool = False
    #: Of a run that a run_job task started: the run of that task.
    trigger_run_id: int | None = None
    episodes: list[Episode] = field(default_factory=list)

    @property
    def active(self) -> bool:
        """Whether the run has yet to end."""
        return not self.state.terminal
