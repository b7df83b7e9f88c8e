"""What the chaos is played with: scenarios as steps, a scene for each while it is played, and what plays them."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import requests

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airflow_stack import AirflowStack, DagRun, TaskInstance, WorkspaceServer
    from demo import Progress

# Of each single wait.
TIMEOUT = 180
TERMINAL = ("TERMINATED", "SKIPPED", "INTERNAL_ERROR")


@dataclass(frozen=True)
class Group:
    """Mapped task instances that are alike, and what is to become of each."""

    task_id: str
    # "notebook" and "python" are submitted, "job" is run by its name; a "workflow" is a group of tasks that are not
    # mapped, and have attempts at their tasks of one run where others have runs.
    kind: str = "notebook"
    deferrable: bool = False
    # Whether a deferred success may end without a worker.
    end_in_triggerer: bool = True
    program: str = "works"
    # How the runs of one task instance end: there is one launch for each.
    results: tuple[str, ...] = ("SUCCESS",)
    state: str = "success"
    count: int = 2
    # How many in the short form; 0 leaves the group out.
    short: int = 1


@dataclass(frozen=True)
class Wait:
    """What a scenario waits for: until the condition gives something true."""

    what: str
    condition: Callable[[], Any]
    timeout: float = TIMEOUT


# The steps of a scenario: it yields what it waits for, and is sent what the condition gave.
Steps = Generator[Wait, Any, Any]


@dataclass(frozen=True)
class Scenario:
    """Something that breaks, and the tasks that must not suffer from it."""

    name: str
    title: str
    groups: tuple[Group, ...]
    steps: Callable[[Scene], Steps]


SCENARIOS: dict[str, Scenario] = {}


def scenario(title: str, *groups: Group) -> Callable[[Callable[[Scene], Steps]], Callable[[Scene], Steps]]:
    """Make a scenario, of the same name, of a function that returns its steps."""

    def add(steps: Callable[[Scene], Steps]) -> Callable[[Scene], Steps]:
        SCENARIOS[steps.__name__] = Scenario(steps.__name__, title, groups, steps)
        return steps

    return add


class Scene:
    """A scenario while it is played: its workspace, its DAG runs, and what its steps are made of."""

    def __init__(
        self,
        scenario: Scenario,
        groups: Sequence[Group],
        airflow: AirflowStack,
        workspace: WorkspaceServer,
        progress: Progress,
    ) -> None:
        self.scenario = scenario
        self.groups = {group.task_id: group for group in groups}
        self.airflow = airflow
        self.workspace = workspace
        self.dag_runs: list[DagRun] = []
        # What went wrong before the count, and who had two runs at once that nobody was cancelling.
        self.problems: list[str] = []
        self.doubled: set[str] = set()
        self._progress = progress
        self._launches: dict[str, list[dict[str, Any]]] | None = None

    def say(self, text: str) -> None:
        """Tell what happens."""
        self._progress.say(f"{self.scenario.name}: {text}")

    def trigger(self) -> None:
        """Create a DAG run."""
        self.dag_runs.append(self.airflow.trigger(self.scenario.name))
        self.say(f"triggered, {self.expected()} task instances")

    def expected(self, *task_ids: str) -> int:
        """Return how many task instances these groups have in one DAG run, or all groups."""
        return sum(self.groups[task_id].count for task_id in task_ids or self.groups)

    def tasks(self, *task_ids: str) -> list[TaskInstance]:
        """Return the task instances of these groups, or of all, as they are now."""
        found = [task for run in self.dag_runs for task in self.airflow.api.dag_run(run).tasks]
        # Until the scheduler has looked at what is mapped, it stands there once, with no index.
        counted = [task for task in found if task.map_index >= 0 or self._is_member(task)]
        return [task for task in counted if task.task_id.partition(".")[0] in (task_ids or self.groups)]

    def group_of(self, task: TaskInstance) -> Group:
        """Return the group of a task instance."""
        return self.groups[task.task_id.partition(".")[0]]

    def _is_member(self, task: TaskInstance) -> bool:
        """Tell whether a task instance is a member of a workflow group."""
        group_id, _, key = task.task_id.partition(".")
        return bool(key) and key != "launch" and self.groups[group_id].kind == "workflow"

    def runs_of(self, task: TaskInstance) -> list[dict[str, Any]]:
        """Return the runs on the workspace that a task instance has launched, oldest first; or a member's attempts."""
        if self._launches is None:
            self._launches = self.launches()
        return self._launches.get(owner_of(task), [])

    def launches(self, *, active_only: bool = False) -> dict[str, list[dict[str, Any]]]:
        """Return the runs on the workspace, and the attempts in runs of workflow groups, by task instance."""
        found = by_owner(run for run in self.workspace.runs(active_only=active_only) if "job_parameters" not in run)
        for run in self.workspace.runs(active_only=active_only):
            if "job_parameters" not in run:
                continue
            values = {parameter["name"]: parameter["value"] for parameter in run["job_parameters"]}
            for attempt in self.workspace.call("GET", f"jobs/runs/get?run_id={run['run_id']}")["tasks"]:
                if not active_only or attempt["state"]["life_cycle_state"] not in TERMINAL:
                    found.setdefault(values[f"{attempt['task_key']}_owner"], []).append(attempt)
        return found

    def log_of(self, task: TaskInstance) -> str:
        """Return what the worker and the triggerers have logged in the task's latest try."""
        file = self.airflow.task_log_file(task)
        return "\n".join(log.read_text(errors="replace") for log in file.parent.glob(f"{file.name}*"))

    def look(self) -> None:
        """Take note of who has two runs at once that are not being cancelled."""
        self._launches = None
        with suppress(requests.ConnectionError, requests.Timeout):  # the scenario has killed the workspace
            for owner, runs in self.launches(active_only=True).items():
                if sum(run["state"]["life_cycle_state"] != "TERMINATING" for run in runs) > 1:
                    self.doubled.add(owner)

    def open_gates(self, *task_ids: str) -> None:
        """Let the programs of these groups end, or of all: those that run, and those that come later."""
        for task_id in task_ids or self.groups:
            (self.workspace.root / "gates" / task_id).touch()
        self.say(f"the runs{' of ' * bool(task_ids)}{', '.join(task_ids)} may end")

    def hold_replies(self, *operations: str) -> None:
        """Let the replies to these requests come too late for who sent them."""
        for operation in operations:
            self.workspace.add_fault(operation, hang=600, times=1000)

    def kill(self, tasks: Iterable[TaskInstance], *, with_supervisor: bool = False) -> None:
        """Kill the processes of running tasks."""
        for task in tasks:
            self.airflow.kill_task(task, with_supervisor=with_supervisor)
            self.say(f"killed {task.name} in try {task.try_number}{', and its supervisor' * with_supervisor}")

    def recover(self) -> None:
        """After a failure: let everything come to an end, so that it can be counted."""
        self.airflow.processes.resume()
        if not self.workspace.processes.names:
            self.workspace.start()
        self.workspace.clear_faults()
        self.open_gates()

    def every(self, what: str, test: Callable[[TaskInstance], object], *task_ids: str) -> Steps:
        """Wait until all task instances of these groups, or of all, pass the test, and return them."""

        def condition() -> list[TaskInstance] | None:
            tasks = self.tasks(*task_ids)
            complete = len(tasks) == len(self.dag_runs) * self.expected(*task_ids)
            return tasks if complete and all(map(test, tasks)) else None

        return (yield Wait(f"every task of {', '.join(task_ids or self.groups)} {what}", condition))

    def fetches_output(self, task: TaskInstance) -> bool:
        """Tell whether a task runs and all of them ask for their runs' outputs, once each, as they do at the end."""
        return task.state == "running" and self.workspace.requests().get("runs/get-output", 0) >= self.expected()

    def launched(self, *task_ids: str) -> Steps:
        """Wait until each task instance has a run whose program runs, and return the task instances."""

        def has_run(task: TaskInstance) -> bool:
            return any(run["state"]["life_cycle_state"] == "RUNNING" for run in self.runs_of(task))

        return (yield from self.every("to have a running run", has_run, *task_ids))

    def watched(self, *task_ids: str) -> Steps:
        """Wait until each task instance's log shows that its latest run was polled, and return the task instances."""

        def is_watched(task: TaskInstance) -> bool:
            runs = self.runs_of(task)
            waits = task.state == ("deferred" if self.group_of(task).deferrable else "running")
            of_member = f"Task {task.task_id.partition('.')[2]} of run "
            watches = of_member if self._is_member(task) else f"Run {runs[-1]['run_id']} is " if runs else ""
            return bool(waits and runs and watches in self.log_of(task))

        return (yield from self.every("to watch its run", is_watched, *task_ids))

    def tried_again(self, tasks: Iterable[TaskInstance]) -> Steps:
        """Wait until a later try of each of these is under way, or over."""
        before = {owner_of(task): task for task in tasks}

        def is_later(task: TaskInstance) -> bool:
            old = before.get(owner_of(task))
            started_again = old is None or (task.start and old.start and task.start > old.start)
            return bool(started_again and task.state in ("running", "deferred", "success"))

        yield from self.every("to be tried again", is_later)


def owner_of(task: TaskInstance) -> str:
    """Return the name that a task instance's runs bear."""
    return f"{task.run_id}.{task.task_id}.{task.map_index}"


def by_owner(runs: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return runs of the workspace by the task instance that launched them."""
    found = defaultdict(list)
    for run in runs:
        parameters = run.get("overriding_parameters", {}).get("notebook_params", {})
        found[str(parameters.get("owner") or run["run_name"])].append(run)
    return dict(found)


def play(scenes: Sequence[Scene], pause: float = 0.5) -> None:
    """Play scenes side by side until each has ended; what goes wrong with one is noted with it, and others go on."""
    scripts = {scene: _Script(scene) for scene in scenes}
    while going_on := [script for script in scripts.values() if not script.over]:
        scenes[0].airflow.processes.check()
        for script in going_on:
            script.go_on()
        time.sleep(pause)


class _Script:
    """The steps of a scene, and where they stand."""

    def __init__(self, scene: Scene) -> None:
        self.over = False
        self._scene = scene
        self._steps = self._all_steps()
        self._wait: Wait | None = None
        self._deadline = 0.0

    def go_on(self) -> None:
        """Go on as far as possible without waiting."""
        self._scene.look()
        try:
            if self._wait is None:
                self._take(next(self._steps))
            elif found := self._condition():
                self._take(self._steps.send(found))
            elif time.monotonic() > self._deadline:
                timed_out = TimeoutError(f"waited {self._wait.timeout:.0f} s for {self._wait.what}")
                self._take(self._steps.throw(timed_out))
        except StopIteration:
            self.over = True

    def _take(self, wait: Wait) -> None:
        self._wait, self._deadline = wait, time.monotonic() + wait.timeout

    def _condition(self) -> Any:
        # A server does not answer that the scenario has killed, or that is short of CPU time: ask again.
        with suppress(requests.ConnectionError, requests.Timeout):
            return self._wait.condition() if self._wait else None

    def _all_steps(self) -> Steps:
        scene = self._scene
        try:
            yield from scene.scenario.steps(scene)
            scene.say("waiting for the tasks to end")
        except (TimeoutError, LookupError, requests.HTTPError) as error:
            scene.say(f"FAILED: {error}")
            scene.problems.append(str(error))
            scene.recover()
        try:
            yield Wait("the DAG runs to end", self._have_ended)
            yield Wait("the runs to end", lambda: not scene.workspace.runs(active_only=True), timeout=30)
        except TimeoutError as error:
            scene.problems.append(str(error))

    def _have_ended(self) -> bool:
        runs = [self._scene.airflow.api.dag_run(run) for run in self._scene.dag_runs]
        return all(run.state in ("success", "failed") for run in runs)
