"""What waiting for runs costs a triggerer, with this provider's trigger and with the official one's.

Each case watches N runs of a local workspace, in a process of its own or several, and is measured as polling_measure.py
says. Then the same through a real `airflow triggerer` (polling_triggerer.py). `make bench`, or by hand, with both
providers and matplotlib installed: `PYTHONPATH=tests/support python tests/benchmarks/polling.py [--quick] [--only N,N]
[--part PART] [--output FILE] [--plot FILE]`; `--from FILE` shows what was measured before. Exits with 1 if ours is over
a budget.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polling_triggerer
from polling_budgets import budgets, budgets_table
from polling_measure import Case, Timing, measure
from polling_plot import plot
from polling_report import add_memory_per_run, report

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZES = (1, 100, 1000, 2000, 10_000)
QUICK_SIZES = (1, 1000)
# Runs that several triggerers share, and how many triggerers.
FLEETS = ((2000, 4), (10_000, 10))
QUICK_FLEETS = ((2000, 4),)
# The periods of many runs are longer, so that the workspace, one process of Python, can answer all that asks it.
PERIODS = {(2000, 1): 5, (10_000, 1): 5, (2000, 4): 5, (10_000, 10): 20}
# With many more runs than this the official provider's triggers and the workspace keep two processors busy.
OFFICIAL_MOST = 2000
# The smallest pages that the Jobs API has: with how many runs they are tried, too.
SMALL_PAGE = 25
SMALL_PAGE_LEAST = 1000

# Our trigger may hold its event back for its first 6 s: these must be over before the runs end.
QUICK = Timing(warm_up=0.0, steady=10.0, lateness=2.0)

PARTS = ("cases", "triggerer")


def main() -> int:
    """Measure, or read what was measured, and show it; exit 1 if a budget is exceeded or a case failed."""
    options = parse()
    if options.source:
        measured = json.loads(options.source.read_text())
    else:
        measured = run(options)
        if options.output:
            options.output.write_text(json.dumps(measured, indent=1) + "\n")
    kept = True
    if cases := measured["cases"]:
        print(report(measured["about"], cases), budgets_table(cases), sep="\n\n")
        kept = all(row.kept for row in budgets(cases))
    if stages := measured["triggerer"]:
        print("", polling_triggerer.report(stages), sep="\n")
    for failure in measured["failed"]:
        print(f"\nNot measured: {failure}")
    if options.plot:
        plot(cases, options.plot)
    return 0 if kept and not measured["failed"] else 1


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", type=sizes, metavar="N,N", help="numbers of runs of one triggerer (1 is always among them)"
    )
    parser.add_argument("--quick", action="store_true", help="fewer cases, short windows, no real triggerer")
    parser.add_argument("--part", choices=PARTS, help="the cases alone, or the real triggerer alone")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write what was measured to this file, as JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw it into this file, a PNG")
    parser.add_argument("--from", type=Path, metavar="FILE", dest="source", help="measure nothing: show this JSON")
    return parser.parse_args()


def sizes(text: str) -> list[int]:
    """Read numbers of runs."""
    # What one run takes is what the memory of many is compared with.
    return sorted({1, *(int(number) for number in text.split(","))})


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure what was asked for. What cannot be measured is told of, and costs nothing else."""
    timing = QUICK if options.quick else Timing()
    folder = Path(tempfile.mkdtemp(prefix="dbjobs-polling-"))
    say(f"logs are in {folder}")
    measured: dict[str, Any] = {"about": about(), "cases": [], "triggerer": [], "failed": []}

    @contextmanager
    def telling(what: object) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, OSError) as error:
            measured["failed"].append(f"{what}: {error}")
            say(measured["failed"][-1])

    if options.part != "triggerer":
        for case in cases(options):
            with telling(case):
                measured["cases"].append(found := measure(case, timing, folder / str(case)))
                say(f"{case}: {found['requests']:.1f} requests and {found['cpu_seconds'] * 1e3:.0f} ms per interval")
        add_memory_per_run(measured["cases"])
    if options.part == "triggerer" or not (options.part or options.quick or options.only):
        with telling("the triggerer"):
            measured["triggerer"] = polling_triggerer.run(folder / "triggerer", say)
    if not measured["failed"]:
        shutil.rmtree(folder)
    return measured


def cases(options: argparse.Namespace) -> list[Case]:
    """Return the cases to measure: those that are compared one after the other."""
    sizes = options.only or (QUICK_SIZES if options.quick else SIZES)
    fleets = () if options.only else QUICK_FLEETS if options.quick else FLEETS
    found = []
    for runs, triggerers in (*((runs, 1) for runs in sizes), *fleets):
        period = PERIODS.get((runs, triggerers), 2)
        # A quick look does without the official provider's requests for 2000 runs.
        if runs <= OFFICIAL_MOST and not (options.quick and triggerers > 1):
            found.append(Case("official", runs, 1000, triggerers, period))
        found.append(Case("ours", runs, 1000, triggerers, period))
        if runs >= SMALL_PAGE_LEAST:
            found.append(Case("ours", runs, SMALL_PAGE, triggerers, period))
    return found


def about() -> dict[str, Any]:
    """Return what the numbers depend on."""
    return {
        "airflow": version("apache-airflow"),
        "official": version("apache-airflow-providers-databricks"),
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "date": time.strftime("%Y-%m-%d"),
    }


def say(text: str) -> None:
    """Tell of the progress, beside the report."""
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
