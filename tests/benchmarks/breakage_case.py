"""A task that breakage.py breaks: what can be done to it and its runs, and what is seen of them in the end."""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil
import requests
from airflow_stack import FINISHED

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from airflow_stack import AirflowStack, DagRun, TaskInstance, WorkspaceServer

    Steps = Generator["Wait", bool, None]

EXECUTION_TIMEOUT_SECONDS = 15
LOAD_SECONDS = 3
LONGEST_SECONDS = 120
SETTLING_SECONDS = 15
NO_ERROR = "its log has no error"

# Waits for its gate, a file, so that a scenario decides for how long a run goes on.
NOTEBOOK = """# Databricks notebook source
import pathlib, time
gate, fails = pathlib.Path(dbutils.widgets.get("gate")), dbutils.widgets.get("fails")
failed_before = gate.with_suffix(".failed")
if fails == "always" or (fails == "once" and not failed_before.exists()):
    failed_before.touch()
    raise RuntimeError("the notebook failed")
while not gate.exists():
    time.sleep(0.2)
dbutils.notebook.exit("done")
"""


class Wait(NamedTuple):
    """Until when a script stands still; it is sent whether the condition came true in time."""

    until: Callable[[], bool]
    seconds: float


@dataclass(frozen=True)
class Variant:
    """One way to run a task."""

    provider: str
    operators: str
    conn_type: str
    deferrable: bool

    @property
    def mode(self) -> str:
        return "deferrable" if self.deferrable else "sync"

    @property
    def name(self) -> str:
        """Its workspace, its connection and the beginning of its DAGs' ids."""
        return f"{self.provider}_{self.mode}"

    def dag_files(self) -> dict[str, str]:
        """Return the DAG files by name: a DAG in each, for each set of settings that cannot be templated."""
        return {
            f"{self.name}_{kind}.py": DAG_FILE.format(
                operators=self.operators,
                load_seconds=LOAD_SECONDS if kind == "slow" else 0,
                name=f"{self.name}_{kind}",
                deferrable=self.deferrable,
                settings=settings,
            )
            for kind, settings in KINDS.items()
        }


KINDS = {
    "usual": '"retries": 2',
    # Takes its time to load, so that its process can be killed before it has ended.
    "slow": '"retries": 2',
    "timed": f'"retries": 0, "execution_timeout": timedelta(seconds={EXECUTION_TIMEOUT_SECONDS})',
}
DAG_FILE = """
import time
from datetime import timedelta
from airflow.sdk import DAG
from {operators} import DatabricksSubmitRunOperator

time.sleep({load_seconds})
with DAG("{name}", schedule=None, render_template_as_native_obj=True):
    DatabricksSubmitRunOperator(
        task_id="run",
        run_name="{{{{ dag_run.conf.run_name }}}}",
        notebook_task={{"notebook_path": "/notebook", "base_parameters": {{
            "gate": "{{{{ dag_run.conf.gate }}}}", "fails": "{{{{ dag_run.conf.fails }}}}"
        }}}},
        idempotency_token="{{{{ dag_run.conf.token }}}}",
        databricks_conn_id="{{{{ dag_run.conf.connection }}}}",
        polling_period_seconds=1,
        retry_delay=timedelta(seconds=1),
        deferrable={deferrable},
        **{{{settings}}},
    )
"""


@dataclass(frozen=True)
class Scenario:
    """Something that breaks, or does not, in the life of a task."""

    name: str
    title: str
    right: Right
    script: Callable[[Case], Steps]


@dataclass(frozen=True)
class Right:
    """What should become of a task: its state, and the runs it launched; `tries` None: it does not matter."""

    state: str = "success"
    launched: int = 1
    cancelled: int = 0
    tries: int | None = 1
    # What the error of a failed task must mention.
    says: str = ""

    def __str__(self) -> str:
        tries = "" if self.tries in (None, 1) else f", {self.tries} tries"
        says = f", the error names `{self.says}`" if self.says else ""
        cancelled = f", {self.cancelled} cancelled" if self.cancelled else ""
        return f"{self.state}{tries}, {_runs(self.launched)}{cancelled}{says}"


@dataclass(frozen=True)
class Outcome:
    """What became of a task and of the runs it launched, as seen in Airflow and in the workspace."""

    state: str
    tries: int
    seconds: float
    launched: int
    succeeded: int
    failed: int
    cancelled: int
    active: int
    error: str = ""
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        tries = f", {self.tries} tries" if self.tries > 1 else ""
        ends = {"succeeded": self.succeeded, "failed": self.failed, "cancelled": self.cancelled}
        ends["**left active**"] = self.active
        # One run that succeeded, of a task that did, says nothing more.
        usual = (self.state, self.launched, self.succeeded) == ("success", 1, 1)
        told = "" if usual else ", ".join(f"{count} {how}" for how, count in ends.items() if count)
        notes = "".join(f"; {note}" for note in self.notes)
        return f"{self.state}{tries}, {_runs(self.launched)}{f' ({told})' if told else ''}, {self.seconds:.0f} s{notes}"

    def harm(self, right: Right) -> tuple[int, ...]:
        """Return how far this is from what is right, the worst first; nothing but zeros is right."""
        went_on = self.launched - self.cancelled
        return (
            int(self.state != right.state),
            self.active,
            abs(went_on - (right.launched - right.cancelled)),
            abs(self.launched - right.launched),
            0 if right.tries is None else abs(self.tries - right.tries),
            int(right.says not in self.error),
        )


class Case:
    """One scenario in one variant: its task in Airflow, and that task's runs in the workspace."""

    def __init__(self, scenario: Scenario, variant: Variant, airflow: AirflowStack, workspace: WorkspaceServer) -> None:
        self.scenario = scenario
        self.variant = variant
        self.workspace = workspace
        self.outcome: Outcome | None = None
        # Why it could not be played.
        self.error = ""
        self.triggerer_killed: Callable[[Case], bool] = lambda _: False
        self._airflow = airflow
        self._dag_run: DagRun | None = None
        self._begin = self._end = time.monotonic()
        self._listings = 0
        self._notes: list[str] = []

    # What a script does.

    def start(self, *, kind: str = "usual", fails: str = "never", token: str | None = None, conn: str = "") -> None:
        notebook = {"gate": str(self._gate), "fails": fails}
        conf = {"run_name": self.scenario.name, "token": token, "connection": conn or self.variant.name}
        self._dag_run = self._airflow.trigger(f"{self.variant.name}_{kind}", conf | notebook)
        self._begin = time.monotonic()

    def open_gate(self) -> None:
        """Let the runs come to their end, unless the task has ended before: what it left active is to be seen."""
        if self._dag_run is None or not self.ended():
            self._gate.touch()

    def close_gate(self) -> None:
        """Let runs that have not ended go on."""
        self._gate.unlink(missing_ok=True)

    def fault(self, operation: str, **how: Any) -> None:
        self.workspace.add_fault(operation, **how)

    def kill_process(self) -> None:
        """Kill the task's process, and it alone: its supervisor tells Airflow."""
        try:
            self._airflow.kill_task(self.task)
        except (LookupError, psutil.NoSuchProcess):
            self.note("was over before it could be killed")

    def mark_failed(self) -> None:
        self._airflow.api.set_state(self.task, "failed")

    def clear(self) -> None:
        self._airflow.api.clear(self.task)

    def note(self, text: str) -> None:
        self._notes.append(text)

    # What a script waits for.

    @property
    def task(self) -> TaskInstance:
        return self._airflow.api.dag_run(self._started).task("run")

    def runs(self) -> list[dict[str, Any]]:
        """Return the runs of this case, oldest first."""
        runs = self.workspace.runs()
        # Each page of the listing is a request of ours, and not a poll.
        self._listings += max(1, -(-len(runs) // 25))
        return [run for run in runs if run["run_name"] == self.scenario.name]

    def launched(self, count: int = 1) -> bool:
        return len(self.runs()) >= count

    def ended(self) -> bool:
        return self._airflow.api.dag_run(self._started).state in FINISHED

    def settled(self) -> bool:
        """Whether no run is active any more."""
        return not any(is_active(run) for run in self.runs())

    def watched(self, seconds: float = 90) -> Wait:
        """Wait until the task, running or deferred, has its run's state asked for again and again, or has ended."""
        since: list[int] = []
        # A task that comes back within 5 s of its deferral may fail for Airflow's own sake (apache/airflow#71580).
        waiting, polls = ("deferred", 7) if self.variant.deferrable else ("running", 3)

        def condition() -> bool:
            state = self.task.state
            if state in FINISHED and self.ended():
                return True
            if state != waiting or not self.launched():
                since.clear()
                return False
            since.append(self._polls())
            return since[-1] >= since[0] + polls

        return Wait(condition, seconds)

    def asked(self, times: int, seconds: float = 60) -> Wait:
        """Wait until the API was asked so many times for a run. It asks nothing itself that a fault could hit."""
        enough = self._polls() + times
        return Wait(lambda: self._polls() >= enough or self.ended(), seconds)

    def _polls(self) -> int:
        requests = self.workspace.requests()
        return requests.get("runs/get", 0) + requests.get("runs/list", 0) - self._listings

    # What is left to see in the end.

    def play(self) -> Steps:
        """Play the scenario, and observe what came of it."""
        try:
            yield from self._play()
        except (requests.RequestException, LookupError, psutil.Error) as error:
            self.error = f"{type(error).__name__}: {error}"
        finally:
            self.workspace.clear_faults()
            self._end_runs()

    def _play(self) -> Steps:
        yield from self.scenario.script(self)
        if not (yield Wait(self.ended, LONGEST_SECONDS)):
            self.note(f"no end within {LONGEST_SECONDS} s")
        self._end = time.monotonic()
        # A cancellation takes a moment, and so does the end of a run that nobody waits for.
        yield Wait(self.settled, SETTLING_SECONDS)
        self.outcome = self._observe()

    def _observe(self) -> Outcome:
        task, runs = self.task, self.runs()
        results = Counter("ACTIVE" if is_active(run) else run["state"].get("result_state", "") for run in runs)
        return Outcome(
            state=task.state or "none",
            tries=task.try_number,
            seconds=self._end - self._begin,
            launched=len(runs),
            succeeded=results["SUCCESS"],
            failed=results["FAILED"],
            cancelled=results["CANCELED"],
            active=results["ACTIVE"],
            error=self._error(task) if task.state == "failed" else "",
            notes=tuple(self._notes),
        )

    def _error(self, task: TaskInstance) -> str:
        """Return the error with which the last try ended, as its log has it, in one line."""
        log = self._airflow.api.log(task)
        # An exception may have more lines than one; after it come its cause's frames, or the next message and its time.
        found = re.search(r"^[A-Za-z_.]*[A-Z]\w+: .*?(?=^  File |^\d{4}-|\Z)", log, re.MULTILINE | re.DOTALL)
        if found:
            return " / ".join(found[0].strip().splitlines())
        return next((line for line in reversed(log.splitlines()) if " error " in line), NO_ERROR)

    def _end_runs(self) -> None:
        """End what was left active, so that it does not disturb what comes next."""
        for run in self.runs():
            if is_active(run):
                self.workspace.call("POST", "jobs/runs/cancel", {"run_id": run["run_id"]})

    @property
    def _started(self) -> DagRun:
        if self._dag_run is None:
            raise LookupError(f"{self.scenario.name} has not been started")
        return self._dag_run

    @property
    def _gate(self) -> Path:
        return self.workspace.root / f"{self.scenario.name}.gate"


def is_active(run: dict[str, Any]) -> bool:
    return run["state"]["life_cycle_state"] not in {"TERMINATED", "SKIPPED", "INTERNAL_ERROR"}


def _runs(count: int) -> str:
    return "no run" if not count else "1 run" if count == 1 else f"{count} runs"
