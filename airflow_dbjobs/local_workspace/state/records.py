"""The records of the workspace: jobs, runs, and the task runs of a run. Times are epoch milliseconds.

The state file stores records under the names of their attributes, so a renamed attribute makes it unreadable.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from airflow_dbjobs.local_workspace.messages import Json

TERMINAL: Final = frozenset({"TERMINATED", "SKIPPED", "INTERNAL_ERROR"})


@dataclass(frozen=True)
class State:
    """The state of a run or task run.

    `life` and `result` are the API's `life_cycle_state` and `result_state`. `code` is the termination code of API 2.1
    and later, set only if the other two do not imply it.
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
    """A saved job. `settings` are kept as they were sent: flat (the 2.0 shape) or with `tasks`."""

    job_id: int
    settings: Json
    creator: str
    created_ms: int
    #: How many runs it has had; `number_in_job` comes from it.
    runs_started: int = 0
    #: Each has one of user_name, group_name and service_principal_name, and a permission_level. None: the creator is
    #: the owner, and there are no other grants.
    grants: list[Json] | None = None
    #: The bundle, file or folder that it was read from.
    source: str | None = None


@dataclass(frozen=True)
class Iteration:
    """One pass of a for_each task: the task's key, the number of the pass from 0 on, and its input as JSON."""

    loop: str
    number: int
    input: str


@dataclass
class TaskRun:
    """One attempt at one task of a run, or at one iteration of a for_each task. `spec` is the task from the settings.

    An iteration has the key and the settings of the task in the loop.
    """

    run_id: int
    parent_id: int
    task_key: str
    spec: Json
    #: When the attempt was created; once it has started, when it started.
    start_ms: int
    state: State = field(default_factory=lambda: State("BLOCKED"))
    end_ms: int = 0
    started: bool = False
    #: The number of earlier attempts at this task in the run, repairs included.
    attempt: int = 0
    #: The number of automatic retries since the run, or its last repair, began.
    retries: int = 0
    not_before_ms: int = 0
    #: The result state that this task run will end with, once a stop was requested.
    stop: str | None = None
    #: Its parameters with references replaced, from its start on: the API's `resolved_values`.
    resolved: Json = field(default_factory=dict)
    #: Condition tasks only: "true" or "false".
    outcome: str | None = None
    #: run_job tasks only: the run that the task started.
    child_run_id: int | None = None
    #: for_each tasks only, from their start on: the attempts at their iterations.
    iteration_ids: list[int] = field(default_factory=list)
    #: Iterations only.
    iteration: Iteration | None = None
    #: Simulated tasks only, from their start on: when they will end, and with which result state.
    planned_end_ms: int | None = None
    planned_result: str | None = None

    @property
    def work(self) -> tuple[str, Iteration | None]:
        """What this is an attempt at, among all task runs of the run."""
        return self.task_key, self.iteration


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
    """A run of a job, or a one-time run (whose job id belongs to no job)."""

    run_id: int
    job_id: int
    number_in_job: int
    run_type: str
    run_name: str
    creator: str
    trigger: str
    #: The job's settings at launch, without its tasks.
    settings: Json
    #: Whether the settings had the 2.0 shape: one task, and no `tasks`.
    flat: bool
    start_ms: int
    #: When its timeout started counting: when it left the queue, or when its latest repair began.
    clock_ms: int
    state: State = field(default_factory=lambda: State("PENDING"))
    end_ms: int = 0
    #: `notebook_params`, `python_params` and so on, as sent to run-now.
    overrides: Json = field(default_factory=dict)
    #: `{name: {"default": ..., "value": ...}}`
    job_parameters: dict[str, Json] = field(default_factory=dict)
    #: The result state that the run will end with, once a stop was requested.
    stop: str | None = None
    #: The job was deleted: the run is hidden, and removed when it ends.
    deleted: bool = False
    #: Set if a run_job task started this run: the run of that task.
    trigger_run_id: int | None = None
    episodes: list[Episode] = field(default_factory=list)

    @property
    def active(self) -> bool:
        """Whether the run has not ended yet."""
        return not self.state.terminal
