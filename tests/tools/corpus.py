"""Runs the payload checker over a folder of cases that others wrote, and prints false alarms and misses.

The folder holds up to three: ``valid`` and ``boundary``, whose bodies must pass without an error, and ``invalid``,
whose bodies break one rule each. A case is a JSON file with ``endpoint``, ``api`` and ``body`` (or ``body_py``, a
Python expression); an invalid one has ``rule``, ``severity`` and ``where`` too, the path of the offending field. Of the
invalid cases that are errors, and not ``contested``, 97 in 100 must be refused, with a place that is ``where`` or lies
above it. Run it with `make corpus CORPUS=DIR`, or `python tests/tools/corpus.py DIR`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from airflow_dbjobs.payloads.validation import Finding, findings

SHARE_REFUSED = 0.97


def read(file: Path) -> tuple[dict[str, Any], Any]:
    """Return a case and its body."""
    case = json.loads(file.read_text(encoding="utf-8"))
    # The expressions are data of the corpus, without names other than builtins.
    return case, case["body"] if "body" in case else eval(case["body_py"])


def judge(case: dict[str, Any], body: Any) -> list[Finding]:
    """Return the errors that the checker finds."""
    endpoint = case["endpoint"].removeprefix("jobs/")
    return [finding for finding in findings(endpoint, body, case["api"]) if finding.is_error]


def encloses(place: str, where: str) -> bool:
    """Whether a place is the offending field, or lies above it."""
    return place in {"", where} or (where.startswith(place) and where[len(place)] in ".[")


def false_alarms(folder: Path) -> list[str]:
    """Return the findings for those cases of a folder in which nothing is wrong."""
    return [
        f"{folder.name}/{file.name}: {finding}"
        for file in sorted(folder.glob("*.json"))
        for finding in judge(*read(file))
    ]


def misses(folder: Path) -> tuple[list[str], int, int]:
    """Return the cases that are not refused as they should be, and how many are, of how many."""
    missed, due = [], 0
    for file in sorted(folder.glob("*.json")):
        case, body = read(file)
        found = judge(case, body)
        name = f"{folder.name}/{file.name}"
        if case["severity"] != "error":
            missed += [f"{name}: {case['rule']} only warns, and this is an error: {finding}" for finding in found]
            continue
        if case.get("contested"):
            continue
        due += 1
        if not any(encloses(finding.path, case["where"]) for finding in found):
            others = "; ".join(f"{finding.path} [{finding.rule}]" for finding in found) or "nothing"
            missed.append(f"{name}: {case['rule']} at {case['where'] or 'the payload'}; found {others}")
    return missed, due - len([line for line in missed if "; found " in line]), due


def main() -> int:
    """Print the comparison; exit 1 where the checker falls short."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder with valid, boundary and invalid")
    folder = parser.parse_args().folder
    alarms = [line for name in ("valid", "boundary") for line in false_alarms(folder / name)]
    missed, refused, due = misses(folder / "invalid")
    counts = {name: len(list((folder / name).glob("*.json"))) for name in ("valid", "boundary")}
    if not sum(counts.values()) + due:
        print(f"{folder} holds no cases")
        return 1
    print(*alarms, *missed, sep="\n")
    print(f"{counts['valid']} valid and {counts['boundary']} boundary cases: {len(alarms)} false alarms")
    print(f"{due} invalid cases: {refused} refused ({refused / max(due, 1):.1%}; at least {SHARE_REFUSED:.0%} are due)")
    return 1 if alarms or refused < SHARE_REFUSED * due else 0


if __name__ == "__main__":
    sys.exit(main())
