"""Break things while runs go on, then count what was launched: `make chaos`.

Real Airflow (scheduler, triggerers, API server, DAG processor), and for each scenario a local workspace of its own, all
in a temporary folder and on loopback. A scenario kills, stops or cuts off something while its task instances launch or
wait; its runs end when it says so, because their programs wait for a file. Afterwards the runs on the workspace are
counted: one for each task instance, one more for each that failed by itself or was ended by a user, none cancelled
that nobody killed, none left active, and each task instance ended as it should, with its run's result.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_stack import AirflowStack, DagImportFailed, ProcessDied, WorkspaceServer, variables_of
from chaos_scenarios import SHORT_WAVES, WAVES
from chaos_scene import SCENARIOS, TERMINAL, Scene, owner_of, play
from demo import STOPPING, Progress, interrupt_once

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airflow_stack import TaskInstance
    from chaos_scene import Group, Scenario

RETRIES = 3

SETTINGS = {
    "core.parallelism": "8",
    # What notices that something is dead does so within seconds; but a machine that is busy must not seem to be dead.
    "workers.min_heartbeat_interval": "1",
    "scheduler.task_instance_heartbeat_timeout": "15",
    "scheduler.task_instance_heartbeat_timeout_detection_interval": "1",
    "scheduler.scheduler_health_check_threshold": "20",
    "scheduler.orphaned_tasks_check_interval": "2",
    "triggerer.triggerer_health_check_threshold": "8",
}

PROGRAMS = {
    # Ends when the gate opens, and returns whose run it is.
    "notebooks/works.py": """# Databricks notebook source
import pathlib, time
deadline = time.monotonic() + 900
while not pathlib.Path(dbutils.widgets.get("gate")).exists():
    if time.monotonic() > deadline:
        raise TimeoutError("the gate was never opened")
    time.sleep(0.1)
dbutils.notebook.exit(dbutils.widgets.get("owner"))
""",
    # Fails on its first launch, and leaves a file by which the second knows.
    "notebooks/fails_once.py": """# Databricks notebook source
import pathlib
owner = dbutils.widgets.get("owner")
mark = pathlib.Path(dbutils.widgets.get("gate") + "." + owner)
if not mark.exists():
    mark.touch()
    raise ValueError("the first launch fails")
dbutils.notebook.exit(owner)
""",
    # Fails on its first attempt, when the gate opens.
    "notebooks/fails_at_gate.py": """# Databricks notebook source
import pathlib, time
owner, gate = dbutils.widgets.get("owner"), pathlib.Path(dbutils.widgets.get("gate"))
deadline = time.monotonic() + 900
while not gate.exists():
    if time.monotonic() > deadline:
        raise TimeoutError("the gate was never opened")
    time.sleep(0.1)
mark = pathlib.Path(f"{gate}.{owner}")
if not mark.exists():
    mark.touch()
    raise ValueError("the first attempt fails")
dbutils.notebook.exit(owner)
""",
    "programs/works.py": """
import pathlib, sys, time
deadline = time.monotonic() + 900
while not pathlib.Path(sys.argv[1]).exists():
    if time.monotonic() > deadline:
        raise TimeoutError("the gate was never opened")
    time.sleep(0.1)
""",
}

DAGS = """
import json
from datetime import timedelta
from airflow.sdk import DAG
from airflow_dbjobs.operators import DatabricksNotebookOperator, DatabricksRunNowOperator
from airflow_dbjobs.operators import DatabricksSubmitRunOperator, DatabricksWorkflowTaskGroup

OWNER = "{{ run_id }}.{{ ti.task_id }}.{{ ti.map_index }}"
RETRIES = {"retries": RETRIES_PLACE, "retry_delay": timedelta(seconds=1)}

def add(dag_id, root, group):
    common = {name: group[name] for name in ("task_id", "deferrable", "end_in_triggerer")}
    common |= {"databricks_conn_id": dag_id, "polling_period_seconds": 1}
    gate = f"{root}/gates/{group['task_id']}"
    parameters = {"owner": OWNER, "gate": gate}
    if group["kind"] == "job":
        partial = DatabricksRunNowOperator.partial(job_name=group["program"], **common)
        partial.expand(notebook_params=[parameters] * group["count"])
        return
    if group["kind"] == "workflow":
        group_id = common.pop("task_id")
        with DatabricksWorkflowTaskGroup(group_id=group_id, databricks_conn_id=dag_id):
            for key in map("m{}".format, range(group["count"])):
                # Launch renders it, for the task that it is about.
                own = {"owner": "{{ run_id }}." + f"{group_id}.{key}.-1", "gate": gate}
                DatabricksNotebookOperator(
                    task_id=key, notebook_path=f"/notebooks/{group['program']}", notebook_params=own, **common
                )
        return
    partial = DatabricksSubmitRunOperator.partial(run_name=OWNER, **common)
    if group["kind"] == "python":
        program = {"python_file": f"/programs/{group['program']}.py", "parameters": [gate]}
        partial.expand(spark_python_task=[program] * group["count"])
    else:
        notebook = {"notebook_path": f"/notebooks/{group['program']}", "base_parameters": parameters}
        partial.expand(notebook_task=[notebook] * group["count"])

for dag_id, (root, groups) in json.loads('''SCENARIOS_PLACE''').items():
    with DAG(dag_id, schedule=None, default_args=RETRIES) as dag:
        for group in groups:
            add(dag_id, root, group)
    globals()[dag_id] = dag
"""


@dataclass
class Result:
    """What was counted after a scenario; `problems` is empty if all was as it should be."""

    name: str
    tasks: int = 0
    launches: int = 0
    failures: int = 0
    cancelled: int = 0
    active: int = 0
    lost: int = 0
    problems: list[str] = field(default_factory=list)


def run(waves: Sequence[Sequence[str]], folder: Path, progress: Progress, *, short: bool = False) -> list[Result]:
    """Play scenarios on an Airflow of their own, wave after wave, and count. All that is written goes to `folder`."""
    (folder / "dags").mkdir()
    progress.say(f"starting Airflow in {folder}")
    with AirflowStack(folder / "airflow", folder / "dags", extra_env=variables_of(SETTINGS)) as airflow:
        progress.say(f"Airflow is up: {airflow.api.url}")
        return play_waves(airflow, waves, folder, progress, short=short)


def play_waves(
    airflow: AirflowStack,
    waves: Sequence[Sequence[str]],
    folder: Path,
    progress: Progress,
    *,
    short: bool = False,
    pause: float = 0.5,
) -> list[Result]:
    """Play scenarios on an Airflow that is up, wave after wave, and count; the workspaces are in `folder`."""
    names = [name for wave in waves for name in wave]
    groups = {name: _groups(SCENARIOS[name], short=short) for name in names}
    workspaces = {name: WorkspaceServer(_make_root(folder / name), folder / name / "logs") for name in names}
    dags = {name: (str(workspaces[name].root), [asdict(group) for group in groups[name]]) for name in names}
    source = DAGS.replace("RETRIES_PLACE", str(RETRIES)).replace("SCENARIOS_PLACE", json.dumps(dags))
    airflow.add_dag("chaos.py", source)
    results = []
    for name, workspace in workspaces.items():
        # In Airflow's database, as most have them; then what answers triggers is up before a user kills a task.
        connection = {"connection_id": name, **json.loads(workspace.connection)}
        airflow.api.call("POST", "connections", body=connection)
    for wave in waves:
        with ExitStack() as open_workspaces:
            scenes = []
            for name in wave:
                workspace = open_workspaces.enter_context(workspaces[name])
                _make_jobs(workspace, groups[name])
                scenes.append(Scene(SCENARIOS[name], groups[name], airflow, workspace, progress))
            play(scenes, pause)
            results += [count(scene) for scene in scenes]
    return results


def _groups(scenario: Scenario, *, short: bool) -> list[Group]:
    groups = [replace(group, count=group.short) if short else group for group in scenario.groups]
    return [group for group in groups if group.count]


def _make_root(folder: Path) -> Path:
    root = folder / "root"
    (root / "gates").mkdir(parents=True)
    for name, source in PROGRAMS.items():
        file = root / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(source)
    return root


def _make_jobs(workspace: WorkspaceServer, groups: Iterable[Group]) -> None:
    for program in {group.program for group in groups if group.kind == "job"}:
        task = {"task_key": "main", "notebook_task": {"notebook_path": f"/notebooks/{program}"}}
        workspace.call("POST", "jobs/create", {"name": program, "max_concurrent_runs": 1000, "tasks": [task]})


def count(scene: Scene) -> Result:
    """Count what a scene has left on the workspace, and compare it with what its scenario wants."""
    scene.look()
    tasks = scene.tasks()
    result = Result(scene.scenario.name, tasks=len(tasks), problems=list(scene.problems))
    if len(tasks) != (wanted := len(scene.dag_runs) * scene.expected()):
        result.problems.append(f"there are {len(tasks)} task instances, not {wanted}")
    strangers = {owner: len(runs) for owner, runs in scene.launches().items()}
    for task in tasks:
        strangers.pop(owner_of(task), None)
        _count_task(scene, task, result)
    result.problems += [f"{owner} is no task instance, and has {number} runs" for owner, number in strangers.items()]
    return result


def _count_task(scene: Scene, task: TaskInstance, result: Result) -> None:
    group = scene.group_of(task)
    runs = scene.runs_of(task)
    ends = tuple(_end_of(run) for run in runs)
    kinds = Counter(ends)
    unwanted_cancels = max(0, kinds["CANCELED"] - group.results.count("CANCELED"))
    result.launches += len(runs)
    result.failures += len(ends) - kinds["SUCCESS"] - kinds["CANCELED"] - kinds["active"]
    result.cancelled += unwanted_cancels
    result.active += kinds["active"]
    problems = []
    if ends != group.results:
        launched = ", ".join(f"{run['run_id']} {end}" for run, end in zip(runs, ends, strict=True))
        problems.append(f"launched {launched or 'nothing'}, not {', '.join(group.results)}")
    if owner_of(task) in scene.doubled:
        problems.append("had two active runs at once")
    if loss := _loss(scene, group, task):
        problems.append(loss)
        result.lost += 1
    if problems:
        logs = scene.airflow.task_log_file(task).parent
        result.problems.append(f"{task.name}, try {task.try_number}: {'; '.join(problems)} (logs: {logs})")


def _loss(scene: Scene, group: Group, task: TaskInstance) -> str | None:
    """Return what is wrong with a task instance's end."""
    if task.state != group.state:
        return f"ended {task.state}, not {group.state}"
    if group.kind == "python" or (group.state, group.results[-1]) != ("success", "SUCCESS"):
        # There is nothing to return.
        return None
    try:
        returned = scene.airflow.api.xcom(task)
    except LookupError:
        return "returned nothing"
    return None if returned == owner_of(task) else f"returned {returned!r}"


def _end_of(run: dict[str, Any]) -> str:
    state = run["state"]
    if state["life_cycle_state"] not in TERMINAL:
        return "active"
    return str(state.get("result_state") or state["life_cycle_state"])


def print_table(results: Sequence[Result]) -> None:
    """Print a line for each scenario, and below what was not as it should be."""
    rows: list[tuple[str, ...]] = [
        ("SCENARIO", "TASKS", "LAUNCHES", "FAILURES", "CANCELLED", "ACTIVE", "LOST", "VERDICT")
    ]
    for result in results:
        counts = (result.tasks, result.launches, result.failures, result.cancelled, result.active, result.lost)
        title = f"{result.name} ({SCENARIOS[result.name].title})"
        rows.append((title, *map(str, counts), f"{len(result.problems)} problems" if result.problems else "ok"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print()
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(
        "FAILURES: runs that failed by themselves. CANCELLED: those nobody killed. LOST: tasks that did not end well."
    )
    for result in results:
        for problem in result.problems:
            print(f"\n{result.name}: {problem}")
    sys.stdout.flush()


def main() -> int:
    """Play the scenarios; return 0 if all is as it should be."""
    parser = argparse.ArgumentParser(description="Break things while runs go on, then count what was launched.")
    parser.add_argument("scenarios", nargs="*", help=f"only these, one after the other, of: {', '.join(SCENARIOS)}")
    parser.add_argument("--short", action="store_true", help="what `make test` plays")
    parser.add_argument("--keep", action="store_true", help="keep the folder with all logs also after a success")
    options = parser.parse_args()
    if unknown := set(options.scenarios) - SCENARIOS.keys():
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    for number in STOPPING:
        signal.signal(number, interrupt_once)
    waves = tuple((name,) for name in options.scenarios) or (SHORT_WAVES if options.short else WAVES)
    folder = Path(tempfile.mkdtemp(prefix="airflow_dbjobs-chaos-"))
    failed = True
    try:
        results = run(waves, folder, Progress(), short=options.short)
        print_table(results)
        failed = any(result.problems for result in results)
    except (DagImportFailed, ProcessDied, TimeoutError) as error:
        print("\n".join(["", f"The chaos failed: {error}", *getattr(error, "__notes__", ())]), file=sys.stderr)
    except KeyboardInterrupt:
        print("\nInterrupted: everything is stopped.", file=sys.stderr)
        return 130
    finally:
        if failed or options.keep:
            print(f"\nAll logs are in {folder}", flush=True)
        else:
            shutil.rmtree(folder)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
