"""The same things break for both providers: what becomes of the task, and of the runs it launched.

One real Airflow runs each scenario of breakage_scenarios.py four times side by side: with the official provider's
operator and with ours, waiting in the worker and in the triggerer. Each of the four has a local workspace of its own:
what breaks for one breaks for no other. A cell of the table is what was seen in Airflow and in the workspace when the
task had ended; the verdict compares how far that is from what is right. `make bench-breakage`, or by hand, with both
providers installed: `PYTHONPATH=tests/support python tests/benchmarks/breakage.py [--only NAME ...] [--output FILE]`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import requests
from airflow_stack import AirflowStack, WorkspaceServer
from breakage_case import NOTEBOOK, Case, Outcome, Scenario, Variant, Wait
from breakage_scenarios import SCENARIOS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

OFFICIAL = ("official", "airflow.providers.databricks.operators.databricks", "databricks")
OURS = ("ours", "airflow_dbjobs.operators", "databricks_jobs")
VARIANTS = tuple(Variant(*provider, deferrable) for provider in (OFFICIAL, OURS) for deferrable in (False, True))

SETTINGS = {
    # Room for the tries of four tasks, those too that Airflow still takes for running.
    "AIRFLOW__CORE__PARALLELISM": "8",
    # A triggerer that was killed is soon given up, and its triggers are taken over.
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "5",
}
# What is slower by less than this may owe it to the order in which four tasks share the processors.
SLOWER_SECONDS = 10
ERROR_LENGTH = 600

ABOUT = f"""\
Airflow {version("apache-airflow")}, LocalExecutor, {os.cpu_count()} processors. DatabricksSubmitRunOperator of both
providers, all defaults but `polling_period_seconds=1`, `retries=2`, `retry_delay` 1 s (an outage may outlast the tries
of a task that does not wait it out by itself). Seconds count from the DAG run's start and include what the scenario
itself waits. Verdicts compare, in this order: the task's state, runs left active, runs that went on beside the right
ones, runs launched, tries used; differences of more than {SLOWER_SECONDS} s are told.
"""


def main() -> int:
    """Play the scenarios and print the table; exit 1 if one could not be played."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [scenario.name for scenario in SCENARIOS]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"some of: {', '.join(names)}")
    parser.add_argument("--output", type=Path, help="write the report to this file, too")
    options = parser.parse_args()
    chosen = [scenario for scenario in SCENARIOS if scenario.name in (options.only or names)]
    folder = Path(tempfile.mkdtemp(prefix="dbjobs-breakage-"))
    say(f"starting Airflow and {len(VARIANTS)} workspaces in {folder}")
    cases: list[Case] = []
    try:
        with Bench(folder) as bench:
            # The first tasks of a new Airflow take longer, and in the order in which they come.
            bench.play(replace(SCENARIOS[0], name="warm-up"))
            for scenario in chosen:
                cases += bench.play(scenario)
    finally:
        text = report(cases)
        print(text)
        if options.output:
            options.output.write_text(text)
    if failed := any(case.outcome is None for case in cases):
        say(f"all logs are in {folder}")
    else:
        shutil.rmtree(folder)
    return int(failed)


def say(text: str) -> None:
    """Tell of the progress, beside the report."""
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


class Bench:
    """A running Airflow that has the DAGs of all variants, and a workspace for each of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open = ExitStack()

    def __enter__(self) -> Bench:
        with ExitStack() as opening:
            self._workspaces = {variant: opening.enter_context(self._workspace(variant)) for variant in VARIANTS}
            self._airflow = opening.enter_context(self._stack())
            self._airflow.wait_for_dag_files((self._folder / "dags").glob("*.py"))
            self._open = opening.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _workspace(self, variant: Variant) -> WorkspaceServer:
        root = self._folder / variant.name
        root.mkdir()
        (root / "notebook.py").write_text(NOTEBOOK)
        return WorkspaceServer(root, self._folder / f"{variant.name}_logs")

    def _stack(self) -> AirflowStack:
        connections = {}
        dags = self._folder / "dags"
        dags.mkdir()
        for variant, workspace in self._workspaces.items():
            for name, source in variant.dag_files().items():
                (dags / name).write_text(source)
            connection = json.loads(workspace.connection) | {"conn_type": variant.conn_type}
            connections[variant.name] = json.dumps(connection)
            connections[f"{variant.name}_wrong_token"] = json.dumps(connection | {"password": "wrong"})
        return AirflowStack(self._folder / "home", dags, connections=connections, extra_env=SETTINGS)

    def play(self, scenario: Scenario) -> list[Case]:
        """Play a scenario for all variants, until all have ended."""
        say(f"{scenario.name}: {scenario.title}")
        cases = [Case(scenario, variant, self._airflow, self._workspaces[variant]) for variant in VARIANTS]
        kill = TriggererKill(self._airflow, sum(variant.deferrable for variant in VARIANTS))
        for case in cases:
            case.triggerer_killed = kill
        playing = [Play(case) for case in cases]
        while playing := [play for play in playing if play.goes_on()]:
            self._airflow.processes.check()
            time.sleep(0.1)
        for case in cases:
            say(f"    {case.variant.name}: {case.outcome or case.error}")
        return cases


class TriggererKill:
    """Kills the triggerer that all deferrable variants share, once all of them are ready for it, and starts it anew."""

    def __init__(self, airflow: AirflowStack, users: int) -> None:
        self._airflow = airflow
        self._users = users
        self._ready: set[str] = set()
        self._done = False

    def __call__(self, case: Case) -> bool:
        self._ready.add(case.variant.name)
        if not self._done and len(self._ready) == self._users:
            self._airflow.kill("triggerer")
            self._airflow.start("triggerer")
            self._done = True
        return self._done


class Play:
    """A case on its way through its script."""

    def __init__(self, case: Case) -> None:
        self._script = case.play()
        self._wait_for(next(self._script))

    def goes_on(self) -> bool:
        """Go on with the script if what it waits for has come, or is too late to come; False at its end."""
        came = False
        # The API server is busy, or not there for a moment: ask again.
        with suppress(requests.RequestException):
            came = self._wait.until()
        if came or time.monotonic() > self._deadline:
            try:
                self._wait_for(self._script.send(came))
            except StopIteration:
                return False
        return True

    def _wait_for(self, wait: Wait) -> None:
        self._wait, self._deadline = wait, time.monotonic() + wait.seconds


def report(cases: Sequence[Case]) -> str:
    """Return the table, and below it what the tasks that failed had to say."""
    by_scenario: dict[Scenario, dict[Variant, Case]] = {}
    for case in cases:
        by_scenario.setdefault(case.scenario, {})[case.variant] = case
    heads = [f"{_title(variant)}, {variant.mode}" for variant in VARIANTS]
    rows = [["scenario", "right", *heads, "verdict"], ["---"] * (len(heads) + 3)]
    for scenario, of_variant in by_scenario.items():
        cells = [str(of_variant[variant].outcome or f"not played: {of_variant[variant].error}") for variant in VARIANTS]
        rows.append([scenario.title, str(scenario.right), *cells, verdict(scenario, of_variant)])
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    errors = [
        f"- {case.scenario.name}, {case.variant.name}: {_shortened(case.outcome.error)}"
        for case in cases
        if case.outcome and case.outcome.error
    ]
    return "\n".join([ABOUT, "", *lines, "", "What the tasks that failed said:", "", *(errors or ["- nothing"]), ""])


def verdict(scenario: Scenario, of_variant: Mapping[Variant, Case]) -> str:
    """Say how ours compares to the official one, by what was seen."""
    official, ours = VARIANTS[:2], VARIANTS[2:]
    by_mode = {}
    for theirs, mine in zip(official, ours, strict=True):
        by_mode[mine.mode] = compare(of_variant[theirs].outcome, of_variant[mine].outcome, scenario)
    if len(set(by_mode.values())) == 1:
        return next(iter(by_mode.values()))
    return "; ".join(f"{mode}: {text}" for mode, text in by_mode.items())


def compare(theirs: Outcome | None, ours: Outcome | None, scenario: Scenario) -> str:
    """Compare two outcomes: how far they are from what is right, and where that is the same, how long they took."""
    if theirs is None or ours is None:
        return "not played"
    harm, official_harm = ours.harm(scenario.right), theirs.harm(scenario.right)
    if harm != official_harm:
        text = "better" if harm < official_harm else "worse"
    else:
        text = "as good"
        if abs(longer := ours.seconds - theirs.seconds) > SLOWER_SECONDS:
            text += f", {abs(longer):.0f} s {'slower' if longer > 0 else 'faster'}"
    return text if not any(harm) else f"{text}, **not right**"


def _shortened(error: str) -> str:
    half = ERROR_LENGTH // 2
    return error if len(error) <= ERROR_LENGTH else f"{error[:half]} [...] {error[-half:]}"


def _title(variant: Variant) -> str:
    return f"official {version('apache-airflow-providers-databricks')}" if variant.provider == OFFICIAL[0] else "ours"


if __name__ == "__main__":
    sys.exit(main())
