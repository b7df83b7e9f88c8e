"""Checks payload files: ``python -m airflow_dbjobs.payloads FILE...``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from airflow_dbjobs.errors import ConfigurationError
from airflow_dbjobs.payloads.body import depth_in_words, to_json
from airflow_dbjobs.payloads.field_types import printable
from airflow_dbjobs.payloads.files import Document, read
from airflow_dbjobs.payloads.rules import MODULES_WITH_RULES
from airflow_dbjobs.payloads.rules.requests import ROOT_RULES
from airflow_dbjobs.payloads.schema import ENDPOINTS, fields_of
from airflow_dbjobs.payloads.templates import without
from airflow_dbjobs.payloads.validation import VERSIONS, Finding, findings

EPILOG = """\
Which endpoint a payload is for is told by its fields: new_settings or fields_to_remove: update; rerun_tasks,
rerun_all_failed_tasks or latest_repair_id: runs/repair; job_id and settings, as jobs/get answers: create, of the
settings; job_id or job_name: run-now; run_name or idempotency_token: runs/submit; other settings of a job: create.
Exits 0 where nothing is wrong, or warnings only; 1 where a file breaks a rule or cannot be read.
"""
_REPAIR = {"rerun_tasks", "rerun_all_failed_tasks", "latest_repair_id"}


def endpoint_of(payload: Mapping[str, Any]) -> str | None:
    """Return which endpoint a payload is for, or None where it is none that is known here."""
    names = set(payload)
    signs = {
        "update": {"new_settings", "fields_to_remove"},
        "runs/repair": _REPAIR,
        "run-now": {"job_id", "job_name"},
        "runs/submit": {"run_name", "idempotency_token"},
        "create": {"name", "tasks"},
    }
    for endpoint, marks in signs.items():
        if names & marks:
            return endpoint
    return "create" if any(str(name).endswith("_task") for name in names) else None


def problems(document: Document, endpoint: str | None, version: str) -> list[Finding]:
    """Return what is wrong with a payload. Raises ConfigurationError where it is not known what it is.

    What a bundle fills in (``${var.x}``) is left out of judgement.
    """
    payload, prefix = document.payload, ""
    if endpoint is None and isinstance(payload, Mapping):
        if "job_id" in payload and isinstance(payload.get("settings"), Mapping):
            payload, prefix, endpoint = payload["settings"], "settings", "create"
        else:
            endpoint = endpoint_of(payload)
            if endpoint is None:
                raise ConfigurationError("is no payload that is known by its fields: say which by --endpoint.")
    with depth_in_words:
        body = to_json(payload) if isinstance(payload, Mapping) else payload
        # A bundle fills these in.
        found = findings(endpoint or "create", without(body, lambda text: "${" in text), version)
    if body and isinstance(body, dict) and body.keys().isdisjoint(fields_of(ENDPOINTS[endpoint or "create"])):
        allowed = f"a payload for {endpoint} has fields that are known there"
        found.append(Finding("", "REQ-FIELDS", "has unknown fields only", allowed, "Check what the file is for."))
    return [finding._replace(path=f"{prefix}.{finding.path}".strip(".")) for finding in found]


def report(file: Path, endpoint: str | None, version: str) -> Iterator[tuple[bool, str]]:
    """Yield a line for each thing that is wrong with a file, and whether that is an error."""
    try:
        documents = read(file)
    except ConfigurationError as error:
        yield True, str(error)
        return
    for document in documents:
        try:
            found = problems(document, endpoint, version)
        except ConfigurationError as error:
            yield True, f"{file}:{document.line_of('')}: {error}"
            continue
        for finding in sorted(found, key=lambda finding: document.line_of(finding.path)):
            mark = "" if finding.is_error else "warning: "
            yield finding.is_error, f"{file}:{document.line_of(finding.path)}: {mark}{finding}"


def list_rules() -> Iterator[str]:
    """Yield a line for each rule: its id, whether it warns only, the versions, and what is allowed where."""
    tables = {
        module: import_module(f"airflow_dbjobs.payloads.rules.{module}").RULES for module in sorted(MODULES_WITH_RULES)
    }
    rules = [(rule, structure) for table in tables.values() for structure, rules in table.items() for rule in rules]
    rules = [*((rule, "any") for rule in ROOT_RULES), *rules]
    lines = (
        f"{rule.id:<32}{'warning' if rule.warning else 'error':<9}{','.join(rule.versions):<13}{name}: {rule.allowed}"
        for rule, name in sorted(rules, key=lambda pair: pair[0].id)
    )
    # One rule may be made for several fields.
    yield from dict.fromkeys(lines)


def _say(line: str) -> None:
    """Print a line; what steers a terminal, and what the output's encoding does not have, is escaped."""
    encoding = sys.stdout.encoding or "utf-8"
    print(printable(line).encode(encoding, errors="backslashreplace").decode(encoding))  # noqa: T201 (its output)


def main(arguments: list[str] | None = None) -> int:
    """Check the files that the command line names; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m airflow_dbjobs.payloads",
        description="Check request bodies of the Databricks Jobs API, JSON or YAML files, by its rules.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="a file; - is standard input")
    parser.add_argument("--endpoint", choices=sorted(ENDPOINTS), help="what the payloads are for")
    parser.add_argument("--api-version", choices=VERSIONS, default=VERSIONS[0])
    parser.add_argument("--no-warnings", dest="warnings", action="store_false", help="print errors only")
    parser.add_argument("--rules", action="store_true", help="list the rules, and check nothing")
    options = parser.parse_args(arguments)
    if options.rules:
        for line in list_rules():
            _say(line)
        return 0
    if not options.files:
        parser.error("name the files to check")
    failed = False
    for file in options.files:
        for is_error, line in report(file, options.endpoint, options.api_version):
            failed = failed or is_error
            if is_error or options.warnings:
                _say(line)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
