"""The tests on each Airflow: `make test-matrix`, or `make test-matrix ONLY="3.0 3.1"`.

A script, not a pytest file. What fails on one Airflow does not keep it from going on to the next.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

VERSIONS = ("2.11", "3.0", "3.1", "3.2", "3.3")
# Whose environment is the one to develop in.
NEWEST = VERSIONS[-1]

# The options of pytest.
STAGES = {
    "unit tests": ("-n", "2", "--dist", "loadgroup", "-m", "not (airflow or browser or deployment or spark)"),
    "dag.test": ("-m", "airflow", "tests", "--ignore", "tests/airflow/stack"),
    "scheduler": ("-m", "every_airflow", "tests/airflow/stack"),
}
COUNTED = ("failures", "errors", "skipped")


def main() -> int:
    """Run all stages on all versions, print what came of it, and return 0 if nothing failed."""
    parser = argparse.ArgumentParser(description="Run the tests on each Airflow.")
    parser.add_argument("versions", nargs="*", metavar="VERSION", help=f"some of {', '.join(VERSIONS)}")
    wanted = parser.parse_args().versions or VERSIONS
    if unknown := set(wanted) - set(VERSIONS):
        parser.error(f"no such version: {', '.join(sorted(unknown))}; there are {', '.join(VERSIONS)}")
    rows, failed = [("AIRFLOW", *(stage.upper() for stage in STAGES))], False
    for version in wanted:
        row, good = try_version(version)
        rows.append(row)
        failed |= not good
    print_table(rows)
    return 1 if failed else 0


def try_version(version: str) -> tuple[tuple[str, ...], bool]:
    """Run all stages on one version; return its row of the table, and whether all is well."""
    environment = ".venv" if version == NEWEST else f".venv-{version}"
    made = subprocess.run(["make", f"{environment}/installed"], check=False)
    if made.returncode:
        return (version, *("not installed" for _ in STAGES)), False
    python = f"{environment}/bin/python"
    code = "import importlib.metadata; print(importlib.metadata.version('apache-airflow'))"
    exact = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    cells, all_good = [], True
    for stage, options in STAGES.items():
        print(f"\n== Airflow {exact}: {stage}", flush=True)
        cell, good = run_stage(python, options)
        cells.append(cell)
        all_good &= good
    return (exact, *cells), all_good


def run_stage(python: str, options: tuple[str, ...]) -> tuple[str, bool]:
    """Run pytest; return how many tests passed and did not, and whether it is content."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        done = subprocess.run([python, "-m", "pytest", "-q", f"--junitxml={report}", *options], check=False)
        if not report.exists():
            return f"pytest ended with {done.returncode}", False
        suite = next(ElementTree.parse(report).iter("testsuite"))
    failures, errors, skipped = (int(suite.get(name, 0)) for name in COUNTED)
    passed = int(suite.get("tests", 0)) - failures - errors - skipped
    counts = {"passed": passed, "failed": failures + errors, "skipped": skipped}
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "no tests", not done.returncode


def print_table(rows: list[tuple[str, ...]]) -> None:
    """Print a line for each version."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print()
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    sys.exit(main())
