"""Run the example DAGs on a real Airflow against a local workspace: `make demo`, or `make demo KEEP=1`.

Everything happens in `.demo/` of the repository, on loopback, and ends with this process. `--keep` leaves Airflow and
the workspace up, to look at in a browser, until Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from airflow_stack import AirflowStack, DagImportFailed, DagRun, ProcessDied, TaskInstance, WorkspaceServer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "example_dags"
DEMO = REPOSITORY / ".demo"
RUNS_TIMEOUT = 300
STOPPING = (signal.SIGINT, signal.SIGTERM)


def start_a_run(workspace: WorkspaceServer) -> dict[str, Any]:
    """Start the run that `wait_for_run` waits for, as somebody else would."""
    load = {"python_file": "/jobs/load_table.py", "parameters": ["--table", "suppliers"]}
    tasks = [{"task_key": "load", "spark_python_task": load}]
    run = workspace.call("POST", "jobs/runs/submit", {"run_name": "started elsewhere", "tasks": tasks})
    return {"run_id": run["run_id"]}


def run_job(workspace: WorkspaceServer, name: str) -> dict[str, Any]:
    """Run a job of the workspace's bundle as somebody else would."""
    (job,) = workspace.call("GET", f"jobs/list?name={name}")["jobs"]
    workspace.call("POST", "jobs/run-now", {"job_id": job["job_id"]})
    return {}


# What must be there before a DAG is triggered; it returns the conf of the DAG run. Other DAGs need nothing.
PREPARATIONS: Mapping[str, Callable[[WorkspaceServer], dict[str, Any]]] = {
    "wait_for_job": partial(run_job, name="nightly-load"),
    "wait_for_run": start_a_run,
}


# The DAGs that are scheduled by events: what the triggerer logs when it watches for these, and what is to happen then.
EVENTS: Mapping[str, tuple[str, Callable[[WorkspaceServer], object]]] = {
    "start_after_job": ("Watching job 'monthly-closing'", partial(run_job, name="monthly-closing"))
}


class Progress:
    """Says what happens, each line with the seconds since the start."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def say(self, text: str) -> None:
        """Print a line at once, also where the output is a file or a pipe."""
        print(f"{time.monotonic() - self._start:6.1f} s  {text}", flush=True)

    def task_changed(self, task: TaskInstance) -> None:
        """Tell of a task's new state; one that Airflow has not looked at yet has none."""
        again = f" (try {task.try_number})" if task.try_number > 1 else ""
        if task.state:
            self.say(f"{task.dag_id}.{task.name}: {task.state}{again}")


def main() -> int:
    """Run the demo; return 0 if every example succeeded."""
    parser = argparse.ArgumentParser(description="Run the example DAGs on a real Airflow against a local workspace.")
    parser.add_argument("--keep", action="store_true", help="keep Airflow and the workspace up until Ctrl-C")
    keep = parser.parse_args().keep
    for number in STOPPING:
        signal.signal(number, interrupt_once)
    try:
        make_folder()
        return run(keep=keep)
    except (DagImportFailed, ProcessDied, TimeoutError, DemoError) as error:
        print("\n".join(["", f"The demo failed: {error}", *getattr(error, "__notes__", ())]), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted: everything is stopped.", file=sys.stderr)
        return 130


def interrupt_once(*_: object) -> None:
    """Begin to clean up, and let nothing break that off: a SIGTERM at `make` may reach us twice."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


class DemoError(RuntimeError):
    """The demo cannot go on, for a reason that its user can do something about."""


def make_folder() -> None:
    """Recreate the demo's folder, unless a demo is running in it."""
    running = [str(process.pid) for process in psutil.process_iter(["environ"]) if _belongs_to_demo(process)]
    if running:
        raise DemoError(f"another demo is running in {DEMO}. End it with Ctrl-C, or: kill {' '.join(running)}")
    if DEMO.exists():
        shutil.rmtree(DEMO)
    shutil.copytree(EXAMPLES / "workspace", DEMO / "workspace")


def _belongs_to_demo(process: psutil.Process) -> bool:
    return bool((process.info["environ"] or {}).get("AIRFLOW_HOME") == str(DEMO / "airflow"))


def run(*, keep: bool) -> int:
    """Start everything, run the DAGs, report."""
    progress = Progress()
    progress.say(f"starting a local workspace and Airflow in {DEMO} (this takes 15 to 30 seconds)")
    with WorkspaceServer(DEMO / "workspace", DEMO / "logs") as workspace:
        progress.say(f"the workspace is up: {workspace.url}")
        connections = {"databricks_default": workspace.connection}
        with AirflowStack(DEMO / "airflow", EXAMPLES, connections=connections) as airflow:
            progress.say(f"Airflow is up: {airflow.api.url}")
            runs = run_examples(airflow, workspace, progress, EXAMPLES)
            print_table(airflow, runs)
            failed = print_failures(airflow, runs)
            if keep:
                print(f"\nAirflow (no login): {airflow.api.url}\nWorkspace: {workspace.pages_url}", flush=True)
                print("Both stay up until Ctrl-C.", flush=True)
                wait_for_interrupt(airflow, workspace)
    progress.say("everything is stopped")
    return 1 if failed else 0


def run_examples(airflow: AirflowStack, workspace: WorkspaceServer, progress: Progress, folder: Path) -> list[DagRun]:
    """Run all DAGs of the examples, which are in this folder, side by side, until all have ended."""
    dag_ids = airflow.wait_for_dag_files(folder.glob("*.py"))
    if unknown := (PREPARATIONS.keys() | EVENTS.keys()) - set(dag_ids):
        raise DemoError(f"{folder} has no DAG {', '.join(sorted(unknown))}")
    progress.say(f"running {len(dag_ids)} DAGs: {', '.join(dag_ids)}")
    runs = []
    for dag_id in dag_ids:
        if dag_id not in EVENTS:
            prepare = PREPARATIONS.get(dag_id)
            runs.append(airflow.trigger(dag_id, prepare(workspace) if prepare else None))
    for dag_id, (text, happen) in EVENTS.items():
        airflow.watch(dag_id, text, RUNS_TIMEOUT)
        happen(workspace)
        runs += airflow.wait_for(f"{dag_id} to start", partial(started_by_event, airflow, dag_id), RUNS_TIMEOUT)
    return airflow.wait_for_runs(runs, RUNS_TIMEOUT, on_change=progress.task_changed)


def started_by_event(airflow: AirflowStack, dag_id: str) -> list[DagRun] | None:
    """Return the run of a DAG that starts by itself, None if it has not started yet."""
    return airflow.api.runs_of(dag_id) or None


def print_table(airflow: AirflowStack, runs: Sequence[DagRun]) -> None:
    """Print a line for each task: how it ended, and where its run can be looked at."""
    rows = [("DAG", "TASK", "STATE", "SECONDS", "RETURNED", "RUN PAGE")]
    for task in _tasks(runs):
        seconds = "" if task.duration is None else f"{task.duration:.1f}"
        page = next(filter(None, airflow.api.extra_links(task).values()), "")
        rows.append((task.dag_id, task.name, task.state or "", seconds, returned(airflow, task), page))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print()
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    sys.stdout.flush()


def print_failures(airflow: AirflowStack, runs: Sequence[DagRun]) -> bool:
    """Say what failed and why; return whether anything did."""
    failed = [run for run in runs if run.state != "success"]
    for task in (task for task in _tasks(failed) if task.state == "failed"):
        last_lines = "\n".join(airflow.api.log(task).splitlines()[-15:])
        print(f"\n{task.dag_id}.{task.name} failed. The end of its log, {airflow.task_log_file(task)}:\n{last_lines}")
    verdict = f"{len(runs) - len(failed)} of {len(runs)} DAG runs succeeded"
    print(f"\n{verdict}; failed: {', '.join(run.dag_id for run in failed)}" if failed else f"\n{verdict}", flush=True)
    return bool(failed)


def returned(airflow: AirflowStack, task: TaskInstance, width: int = 60) -> str:
    """Return the beginning of what the task returned, as JSON; nothing if it returned nothing."""
    try:
        text = json.dumps(airflow.api.xcom(task))
    except LookupError:
        return ""
    return text if len(text) <= width else f"{text[: width - 3]}..."


def wait_for_interrupt(airflow: AirflowStack, workspace: WorkspaceServer) -> None:
    """Return at Ctrl-C; raise if something dies before."""
    try:
        while True:
            airflow.processes.check()
            workspace.processes.check()
            time.sleep(1)
    except KeyboardInterrupt:
        print()


def _tasks(runs: Sequence[DagRun]) -> list[TaskInstance]:
    """Return the tasks of all runs, those of a DAG in the order of their start; what never started comes last."""
    tasks = [task for run in runs for task in run.tasks]
    return sorted(tasks, key=lambda task: (task.dag_id, task.start is None, task.start, task.map_index))


if __name__ == "__main__":
    sys.exit(main())
