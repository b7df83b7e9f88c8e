"""The second part of polling.py: 500 triggers in a real `airflow triggerer`, which is all that runs of Airflow.

What the triggerer takes without the provider's triggers is measured, too: with no triggers, and with as many that sleep
all the time (its own bookkeeping grows with their number). Deferred tasks are written into Airflow's database instead
of being deferred by workers, each of a DAG run of its own; an event is counted as recorded when the triggerer has
handed the task back to the scheduler, of which there is none.
"""

from __future__ import annotations

import json
import random
import sqlite3
import statistics
import sys
import time
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from airflow_stack import AirflowStack
from polling_case import connection_id
from polling_measure import CONN_TYPES, percentile
from polling_report import table
from polling_workspace import SimulatedWorkspace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

TRIGGERS = 500
PERIOD = 5
WARM_UP_SECONDS = 8.0
STEADY_INTERVALS = 4
PATIENCE_SECONDS = 180

DAG_ID = "polling"
DAG_FILE = f"""\
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

with DAG({DAG_ID!r}, schedule=None):
    EmptyOperator(task_id="wait")
"""

TITLES = {
    "none": "no triggers",
    "sleeping": "triggers that sleep",
    "official": "official provider",
    "ours": "airflow_dbjobs",
}


def run(folder: Path, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Measure the triggerer with nothing to do, with triggers that do nothing, and with those of each provider."""
    with ExitStack() as stack:
        workspaces = {
            provider: stack.enter_context(SimulatedWorkspace(folder / provider, 1000)) for provider in CONN_TYPES
        }
        airflow = stack.enter_context(TriggererAlone(folder / "airflow", workspaces))
        stages = []
        for name, title in TITLES.items():
            stages.append(stage := airflow.play(name, workspaces.get(name)))
            say(f"triggerer, {title}: {stage['cpu_seconds'] * 1e3:.0f} ms per interval")
    for stage in stages:
        stage["extra_cpu_seconds"] = stage["cpu_seconds"] - stages[1]["cpu_seconds"]
    return stages


def report(stages: Sequence[Mapping[str, Any]]) -> str:
    """Return what was measured as a Markdown table."""
    text = f"""\
The same in a real `airflow triggerer` (one process that runs the triggers, and one that keeps them in the database):
{TRIGGERS} triggers, intervals of {PERIOD} s. CPU is that of both processes; "extra" is what exceeds the CPU with
as many triggers that sleep. Airflow records one event after the other: that is part of the time to the event.
"""
    heads = [
        "in the triggerer",
        "CPU per interval, ms",
        "extra, ms",
        "requests per interval",
        "to the event: median, s",
    ]
    rows = [[*heads, "p95, s", "max, s"]]
    for stage in stages:
        provider = stage["name"] in CONN_TYPES
        row = [TITLES[stage["name"]], f"{stage['cpu_seconds'] * 1e3:,.0f}"]
        row.append(f"{stage['extra_cpu_seconds'] * 1e3:,.0f}" if provider else "")
        row.append(f"{stage['requests']:,.1f}" if provider else "")
        row += [f"{stage[f'delay_{which}']:.1f}" if provider else "" for which in ("median", "p95", "max")]
        rows.append(row)
    return "\n".join([text, table(rows)])


class TriggererAlone(AirflowStack):
    """An Airflow that has a database and a triggerer, which is started anew for each stage."""

    def __init__(self, home: Path, workspaces: Mapping[str, SimulatedWorkspace]) -> None:
        connections = {
            connection_id(provider): workspace.connection_for(CONN_TYPES[provider])
            for provider, workspace in workspaces.items()
        }
        dags = home / "dags"
        dags.mkdir(parents=True)
        (dags / "polling_dag.py").write_text(DAG_FILE)
        super().__init__(home, dags, connections=connections)

    def __enter__(self) -> Self:
        try:
            self.processes.run("db-migrate", *self._airflow("db", "migrate"), timeout=PATIENCE_SECONDS)
            self.processes.run("reserialize", *self._airflow("dags", "reserialize"), timeout=PATIENCE_SECONDS)
        except BaseException:
            self.__exit__()
            raise
        return self

    def play(self, name: str, workspace: SimulatedWorkspace | None) -> dict[str, Any]:
        """Return what the triggerer took with triggers of this name."""
        run_ids = workspace.launch(TRIGGERS) if workspace else list(range(TRIGGERS if name == "sleeping" else 0))
        self._write_triggers(name, run_ids)
        self.processes.start("triggerer", *self._airflow(*self._commands["triggerer"]))
        self.wait_for("the triggerer", self._is_up, PATIENCE_SECONDS)
        self.wait_for("the triggers to be taken", lambda: self._taken() == len(run_ids) or None, PATIENCE_SECONDS)
        time.sleep(WARM_UP_SECONDS)
        stage = {"name": name, "triggers": len(run_ids)} | self._steady(workspace)
        if workspace:
            stage |= self._ending(workspace, run_ids)
        self.processes.stop("triggerer")
        return stage

    def _write_triggers(self, name: str, run_ids: Sequence[int]) -> None:
        wanted = self.home / f"{name}.json"
        wanted.write_text(json.dumps({"name": name, "run_ids": run_ids, "period": PERIOD, "dag_id": DAG_ID}))
        script = Path(__file__).with_name("polling_rows.py")
        self.processes.run(f"rows-{name}", sys.executable, str(script), str(wanted), timeout=PATIENCE_SECONDS)

    def _steady(self, workspace: SimulatedWorkspace | None) -> dict[str, Any]:
        polls, cpu, start = workspace.polls() if workspace else 0, self._cpu_seconds(), time.monotonic()
        time.sleep(STEADY_INTERVALS * PERIOD)
        intervals = (time.monotonic() - start) / PERIOD
        polls = workspace.polls() - polls if workspace else 0
        return {"cpu_seconds": (self._cpu_seconds() - cpu) / intervals, "requests": polls / intervals}

    def _ending(self, workspace: SimulatedWorkspace, run_ids: Sequence[int]) -> dict[str, float]:
        time.sleep(random.uniform(0, PERIOD))
        end = workspace.end(run_ids)
        self.wait_for("the events", lambda: not self._ask("SELECT 1 FROM trigger LIMIT 1") or None, PATIENCE_SECONDS)
        delays = []
        for method, recorded in self._ask(
            "SELECT next_method, scheduled_dttm FROM task_instance WHERE state = 'scheduled'"
        ):
            if method == "__fail__":
                raise RuntimeError(f"A trigger has failed: see {self.processes.logs}")
            delays.append(datetime.fromisoformat(recorded).replace(tzinfo=UTC).timestamp() - end)
        if len(delays) != len(run_ids):
            raise RuntimeError(f"{len(delays)} of {len(run_ids)} triggers have fired: see {self.processes.logs}")
        return {
            "delay_median": statistics.median(delays),
            "delay_p95": percentile(delays, 95),
            "delay_max": max(delays),
        }

    def _cpu_seconds(self) -> float:
        triggerer = self.processes.process("triggerer")
        times = [process.cpu_times() for process in (triggerer, *triggerer.children(recursive=True))]
        return sum(time.user + time.system for time in times)

    def _is_up(self) -> bool | None:
        children = self.processes.process("triggerer").children()
        running = self._ask("SELECT 1 FROM job WHERE job_type = 'TriggererJob' AND state = 'running'")
        return bool(children and running) or None

    def _taken(self) -> int:
        return int(self._ask("SELECT count(*) FROM trigger WHERE triggerer_id IS NOT NULL")[0][0])

    def _ask(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"file:{self.home}/airflow.db?mode=ro", timeout=30, uri=True)) as database:
            return database.execute(query).fetchall()
