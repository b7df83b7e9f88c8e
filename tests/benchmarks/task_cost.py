"""What a task costs Airflow: worker starts, time and CPU, for this provider and the official one.

A real Airflow runs twenty deferred tasks, whose runs take ten seconds, for one provider after the other, and counts how
many worker processes they start, how many requests they send, and how much CPU all its processes take. Then twenty are
the members of a workflow group, and one task waits in a worker for a run of two seconds, with the default settings of
each operator. The workspace is simulated, so that the runs cost nothing. Run by hand, with both providers installed:
`PYTHONPATH=tests/support python tests/benchmarks/task_cost.py [--tasks 20] [--quick] [--output FILE]`. Exits 1 if ours
is over budget.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psutil
from airflow_stack import AirflowStack, WorkspaceServer

LONG_SECONDS, SHORT_SECONDS = 10, 2
PERIOD_SECONDS = 2
# How long all processes are watched while no task runs.
IDLE_SECONDS = 10
SETTINGS = {"AIRFLOW__CORE__PARALLELISM": "8"}
# Longer than any of these tasks; a machine may be busy.
TIMEOUT = 600

OFFICIAL = "airflow.providers.databricks.operators.databricks"
OURS = "airflow_dbjobs.operators"


@dataclass(frozen=True, eq=False)
class Variant:
    """A DAG whose tasks are compared: the provider's module, and the operator's arguments."""

    name: str
    module: str
    arguments: dict[str, object]
    short: bool = False
    # Whether the tasks are the members of a workflow group; its launch is then one more.
    group: bool = False
    # At most so many worker starts for each task, and so many seconds for the longest task; None: no budget.
    most_starts: float | None = None
    most_seconds: float | None = None

    def keeps_budget(self, cost: Cost, tasks: int) -> bool:
        """Return whether the tasks of this variant cost no more than they may."""
        starts_kept = self.most_starts is None or cost.starts <= self.most_starts * (tasks + self.group)
        return starts_kept and (self.most_seconds is None or cost.longest <= self.most_seconds)

    @property
    def dag_id(self) -> str:
        """The name, as Airflow wants it."""
        return self.name.replace(" ", "_").replace(",", "")

    @property
    def connection(self) -> str:
        """The connection to the workspace whose runs are as long as this variant wants."""
        provider = "official" if self.module == OFFICIAL else "ours"
        return f"{provider}_{'short' if self.short else 'long'}"

    def dag(self, tasks: int) -> str:
        """Return the DAG file."""
        count = 1 if self.short else tasks
        if self.group:
            return self._group_dag(count)
        arguments = {"task_id": "run", "databricks_conn_id": self.connection, **self.arguments}
        payloads = [{**TASK, "run_name": f"{self.name} {number}"} for number in range(count)]
        return (
            f"from airflow.sdk import DAG\nfrom {self.module} import DatabricksSubmitRunOperator\n"
            f"with DAG({self.dag_id!r}, schedule=None):\n"
            f"    DatabricksSubmitRunOperator.partial(**{arguments!r}).expand(json={payloads!r})\n"
        )

    def _group_dag(self, members: int) -> str:
        arguments = {"notebook_path": "/any", "source": "WORKSPACE", "existing_cluster_id": "any", **self.arguments}
        workflow = f"{self.module}_workflow" if self.module == OFFICIAL else self.module
        return (
            f"from airflow.sdk import DAG\nfrom {self.module} import DatabricksNotebookOperator\n"
            f"from {workflow} import DatabricksWorkflowTaskGroup\n"
            f"with DAG({self.dag_id!r}, schedule=None):\n"
            f"    with DatabricksWorkflowTaskGroup(group_id='group', databricks_conn_id={self.connection!r}):\n"
            f"        for number in range({members}):\n"
            f"            DatabricksNotebookOperator(task_id=f'run_{{number}}', **{arguments!r})\n"
        )


TASK = {"tasks": [{"task_key": "only", "notebook_task": {"notebook_path": "/any"}, "existing_cluster_id": "any"}]}
_DEFERRED = {"deferrable": True, "polling_period_seconds": PERIOD_SECONDS}
VARIANTS = (
    Variant("official, deferrable", OFFICIAL, _DEFERRED),
    Variant("ours, end_in_triggerer off", OURS, {**_DEFERRED, "end_in_triggerer": False}),
    Variant("ours, end_in_triggerer on", OURS, _DEFERRED, most_starts=1),
    Variant("official, group", OFFICIAL, _DEFERRED, group=True),
    Variant("ours, group", OURS, _DEFERRED, group=True, most_starts=1),
    Variant("official, synchronous", OFFICIAL, {}, short=True),
    Variant("ours, synchronous", OURS, {}, short=True, most_seconds=4),
)


@dataclass(frozen=True)
class Cost:
    """What the tasks of a variant have cost. `cpu` is what all processes took beyond what they take when idle."""

    starts: int
    requests: int
    wall: float
    cpu: float
    shortest: float
    longest: float


class SimulatedWorkspace(WorkspaceServer):
    """A workspace whose runs end by themselves after some seconds."""

    def __init__(self, root: Path, logs: Path, seconds: float) -> None:
        super().__init__(root, logs)
        self._seconds = seconds

    def start(self) -> None:
        """Start the server."""
        options = ("--root", str(self.root), "--port", str(self._port), "--token", self._token)
        simulate = ("--simulate", str(self._seconds))
        self.processes.start("workspace", sys.executable, "-m", "airflow_dbjobs.local_workspace", *options, *simulate)
        self.processes.wait_for("the local workspace", lambda: self.call("GET", "jobs/list"), timeout=TIMEOUT)


def main() -> int:
    """Run the tasks of all variants, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=20, help="deferred tasks of each variant (default 20)")
    parser.add_argument("--quick", action="store_true", help="8 deferred tasks of each variant")
    parser.add_argument("--output", type=Path, help="write the table to this file, too")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="dbjobs-cost-"))
    try:
        tasks = 8 if options.quick else options.tasks
        costs = measure_all(folder, tasks)
    except BaseException:
        print(f"All logs are in {folder}", file=sys.stderr)
        raise
    shutil.rmtree(folder)
    text = table(costs, tasks)
    print(text)
    if options.output:
        options.output.write_text(text)
    exceeded = [variant.name for variant, cost in costs.items() if not variant.keeps_budget(cost, tasks)]
    for name in exceeded:
        print(f"Over budget: {name}")
    return 1 if exceeded else 0


def measure_all(folder: Path, tasks: int) -> dict[Variant, Cost]:
    """Measure all variants on an Airflow of their own."""
    connections, workspaces = {}, {}
    with ExitStack() as running:
        for length, seconds in (("long", LONG_SECONDS), ("short", SHORT_SECONDS)):
            root = folder / length
            root.mkdir()
            workspace = running.enter_context(SimulatedWorkspace(root, folder / f"{length}_logs", seconds))
            workspaces[length] = workspace
            for provider, conn_type in (("official", "databricks"), ("ours", "databricks_jobs")):
                connection = json.loads(workspace.connection) | {"conn_type": conn_type}
                connections[f"{provider}_{length}"] = json.dumps(connection)
        dags = folder / "dags"
        dags.mkdir()
        for variant in VARIANTS:
            (dags / f"{variant.dag_id}.py").write_text(variant.dag(tasks))
        (dags / "warm_up.py").write_text(Variant("warm up", OURS, _DEFERRED).dag(2))
        stack = AirflowStack(folder / "home", dags, connections=connections, extra_env=SETTINGS)
        airflow = running.enter_context(stack)
        airflow.wait_for_dag_files(dags.glob("*.py"), TIMEOUT)
        # The first tasks of a new Airflow take longer.
        airflow.run_dag("warm_up", timeout=TIMEOUT)
        idle = idle_cpu(airflow)
        costs = {}
        for variant in VARIANTS:
            workspace = workspaces["short" if variant.short else "long"]
            costs[variant] = cost = measure(airflow, workspace, variant, idle)
            print(time.strftime("%H:%M:%S"), f"{variant.name}: {cost}", file=sys.stderr, flush=True)
        return costs


def measure(airflow: AirflowStack, workspace: WorkspaceServer, variant: Variant, idle: float) -> Cost:
    """Run the DAG of a variant once."""
    earlier = sum(workspace.requests().values())
    before, began = cpu_seconds(airflow), time.monotonic()
    run = airflow.run_dag(variant.dag_id, timeout=TIMEOUT)
    wall = time.monotonic() - began
    # The last processes of the tasks end after their DAG run, and count once they have ended.
    time.sleep(IDLE_SECONDS)
    cpu = cpu_seconds(airflow) - before - (time.monotonic() - began) * idle
    if run.state != "success":
        raise RuntimeError(f"{variant.name}: the DAG run is {run.state}")
    durations = [task.duration or 0.0 for task in run.tasks]
    requests = sum(workspace.requests().values()) - earlier
    return Cost(sum(map(airflow.worker_starts, run.tasks)), requests, wall, cpu, min(durations), max(durations))


def idle_cpu(airflow: AirflowStack) -> float:
    """Return how many seconds of CPU all processes take in a second while no task runs."""
    before, began = cpu_seconds(airflow), time.monotonic()
    time.sleep(IDLE_SECONDS)
    return (cpu_seconds(airflow) - before) / (time.monotonic() - began)


def cpu_seconds(airflow: AirflowStack) -> float:
    """Return the CPU time of all processes of Airflow, including those that have ended and were waited for."""
    total = 0.0
    for process in airflow.processes.alive():
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def table(costs: dict[Variant, Cost], tasks: int) -> str:
    """Return the table of all variants."""
    official = version("apache-airflow-providers-databricks")
    about = (
        f"Airflow {version('apache-airflow')}, official provider {official}, LocalExecutor,"
        f" {os.cpu_count()} processors."
        f"\n{tasks} deferred tasks whose runs take {LONG_SECONDS} s, polled every {PERIOD_SECONDS} s; one synchronous"
        f" task whose run takes {SHORT_SECONDS} s, with default settings."
    )
    lines = [
        about,
        "",
        "| | worker starts | requests | wall | CPU beyond idle | a task takes |",
        "|---|---|---|---|---|---|",
    ]
    for variant, cost in costs.items():
        takes = (
            f"{cost.shortest:.1f} to {cost.longest:.1f} s" if cost.shortest != cost.longest else f"{cost.longest:.1f} s"
        )
        lines.append(
            f"| {variant.name} | {cost.starts} | {cost.requests} | {cost.wall:.1f} s | {cost.cpu:.1f} s | {takes} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
