"""Command line that validates payload files: ``python -m airflow_dbjobs.payloads FILE...``."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from airflow_dbjobs.errors import ConfigurationError
from airflow_dbjobs.payloads.body import depth_reported, to_json
from airflow_dbjobs.payloads.bundles import (
    FILE_NAMES,
    Node,
    default_target,
    is_part,
    is_relative,
    jobs_of,
    map_paths,
    merge_elements,
    node_of,
    parameters_as_texts,
    read_bundle,
    root_file,
    root_of,
    targets_of,
    with_target,
)
from airflow_dbjobs.payloads.field_types import printable
from airflow_dbjobs.payloads.files import nearest, read
from airflow_dbjobs.payloads.rules.requests import ROOT_RULES
from airflow_dbjobs.payloads.schema import ENDPOINTS, fields_of, structures_of
from airflow_dbjobs.payloads.templates import UNKNOWN, mask_texts
from airflow_dbjobs.payloads.validation import VERSIONS, Finding, findings, own_rules

EPILOG = """\
Without --endpoint, the fields of a payload determine its endpoint:
  update       new_settings or fields_to_remove
  runs/repair  rerun_tasks, rerun_all_failed_tasks or latest_repair_id
  create       job_id and settings, the response of jobs/get: its settings are checked
  run-now      job_id or job_name
  runs/submit  run_name or idempotency_token
  create       name, tasks, or the fields of a single task
  create       bundle, resources, targets or variables: the jobs of a Databricks bundle are checked, for each target
Exit code: 0 if there are no errors (warnings are allowed), 1 if a file breaks a rule or cannot be read.
"""
_VARIABLE = re.compile(r"\$\{var(?:iables)?\.([A-Za-z][\w-]*)")
_REPAIR = {"rerun_tasks", "rerun_all_failed_tasks", "latest_repair_id"}


def endpoint_of(payload: Mapping[str, Any]) -> str | None:
    """Return the endpoint that the fields of a payload indicate, or None if they indicate none."""
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


def problems(payload: Any, endpoint: str | None, version: str) -> list[Finding]:
    """Return the findings in a payload. Raises ConfigurationError if its endpoint cannot be determined.

    Strings with substitutions of a Databricks bundle (``${var.x}``) are not checked.
    """
    prefix = ""
    if endpoint is None and isinstance(payload, Mapping):
        if "job_id" in payload and isinstance(payload.get("settings"), Mapping):
            payload, prefix, endpoint = payload["settings"], "settings", "create"
        else:
            endpoint = endpoint_of(payload)
            if endpoint is None:
                raise ConfigurationError("the fields match no endpoint. Name it with --endpoint.")
    with depth_reported:
        body = to_json(payload) if isinstance(payload, Mapping) else payload
        found = findings(endpoint or "create", mask_texts(body, lambda text: "${" in text), version)
    if body and isinstance(body, dict) and body.keys().isdisjoint(fields_of(ENDPOINTS[endpoint or "create"])):
        allowed = f"a payload for {endpoint} must have at least one of its fields"
        found.append(Finding("", "REQ-FIELDS", "has only unknown fields", allowed, "Check the file and --endpoint."))
    return [finding._replace(path=f"{prefix}.{finding.path}".strip(".")) for finding in found]


def report(file: Path, endpoint: str | None, version: str, checked: set[str]) -> Iterator[tuple[bool, str]]:
    """Yield for each finding in a file, or a bundle's root file, whether it is an error, and the line to print.

    The places of the payloads that it has checked are added to `checked`.
    """
    if file.is_dir():
        yield True, f"{file}: has no {FILE_NAMES[0]}. Name the files to check."
        return
    try:
        documents = read(file)
        if endpoint is None and is_part(documents[0].payload):
            with depth_reported:
                yield from _report_bundle(read_bundle(file, node_of(documents[0], file)), version, checked)
            return
    except ConfigurationError as error:
        yield True, str(error)
        return
    for index, document in enumerate(documents):
        checked.add(f"{file}:{index}")
        try:
            found = problems(document.payload, endpoint, version)
        except ConfigurationError as error:
            yield True, f"{file}:{document.line_of('')}: {error}"
            continue
        for finding in sorted(found, key=lambda finding: document.line_of(finding.path)):
            yield _line(f"{file}:{document.line_of(finding.path)}", finding)


def _report_bundle(bundle: Node, version: str, checked: set[str]) -> Iterator[tuple[bool, str]]:
    """Yield what `report` does, with the places of the fields in the bundle's files instead of those in a job."""
    for target in targets_of(bundle) or [default_target(bundle)]:
        for key, settings in jobs_of(with_target(bundle, target)).items():
            checked.add(f"{bundle.file}:{key}")
            job = merge_elements(settings)
            nodes = dict(job.by_path())
            if bundle.file.name in FILE_NAMES:
                yield from _undeclared(nodes.values(), bundle, target)
            payload = parameters_as_texts(map_paths(job, _unknown_if_relative)).plain()
            for finding in problems(payload, "create", version):
                known = nearest(finding.path, nodes)
                node, missing = nodes[known], finding.path.removeprefix(known).lstrip(".")
                path = f"{node.path}.{missing}".removesuffix(".").replace(".[", "[")
                yield _line(f"{node.file}:{node.line}", finding._replace(path=path))


def _undeclared(nodes: Iterable[Node], bundle: Node, target: str) -> Iterator[tuple[bool, str]]:
    """Yield what `report` does for variables that nothing declares."""
    declared = bundle.fields("variables").keys() | bundle.fields("targets", target, "variables").keys()
    for node in nodes:
        for name in _VARIABLE.findall(node.value) if isinstance(node.value, str) else ():
            if name not in declared:
                yield True, f"{node.place}: there is no variable {name!r}. Declare it in `variables`."


def _unknown_if_relative(node: Node) -> Node:
    return replace(node, value=UNKNOWN) if is_relative(node.value) else node


def _line(place: str, finding: Finding) -> tuple[bool, str]:
    return finding.is_error, f"{place}: {'' if finding.is_error else 'warning: '}{finding}"


def list_rules() -> Iterator[str]:
    """Yield a line for each rule: id, severity, API versions, structure, and what is allowed."""
    listed = [(version, "any", rule) for rule in ROOT_RULES for version in rule.versions]
    for version in VERSIONS:
        for structure in structures_of(version):
            listed += [(version, structure, rule) for rule in own_rules(structure, version)]
    versions: dict[tuple[str, bool, str, str], set[str]] = {}
    for version, structure, rule in listed:
        versions.setdefault((rule.id, rule.warning, structure, rule.allowed), set()).add(version)
    for (rule_id, is_warning, structure, allowed), found in sorted(versions.items()):
        severity = "warning" if is_warning else "error"
        yield f"{rule_id:<32}{severity:<9}{','.join(sorted(found)):<13}{structure}: {allowed}"


def _print(line: str) -> None:
    """Print a line, with control characters and characters outside the output's encoding escaped."""
    encoding = sys.stdout.encoding or "utf-8"
    print(printable(line).encode(encoding, errors="backslashreplace").decode(encoding))  # noqa: T201 (its output)


def main(arguments: list[str] | None = None) -> int:
    """Check the files named on the command line and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m airflow_dbjobs.payloads",
        description="Check request bodies for the Databricks Jobs API in JSON or YAML files.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="file to check; - reads standard input")
    parser.add_argument(
        "--endpoint", choices=sorted(ENDPOINTS), help="endpoint of all files; default: determined by the fields"
    )
    parser.add_argument("--api-version", choices=VERSIONS, default=VERSIONS[0], help="default: %(default)s")
    parser.add_argument("--no-warnings", dest="warnings", action="store_false", help="print errors only")
    parser.add_argument(
        "--bundles-only", action="store_true", help="ignore files that are neither databricks.yml nor included by one"
    )
    parser.add_argument("--rules", action="store_true", help="list the rules and exit")
    options = parser.parse_args(arguments)
    if options.rules:
        for line in list_rules():
            _print(line)
        return 0
    if not options.files:
        parser.error("no files given")
    failed = printed = False
    checked: set[str] = set()
    # A folder stands for the bundle in it. Several of the files may belong to one bundle.
    files = [root_file(file) or file for file in options.files]
    files = files if options.endpoint else list(dict.fromkeys(map(root_of, files)))
    reports = (
        report(file, options.endpoint, options.api_version, checked)
        for file in files
        if file.name in FILE_NAMES or not options.bundles_only
    )
    # Most mistakes in a bundle are in all its targets.
    for is_error, line in dict.fromkeys(chain.from_iterable(reports)):
        failed = failed or is_error
        if is_error or options.warnings:
            printed = True
            _print(line)
    if not printed:
        _print(f"No mistakes. Jobs and other payloads checked: {len(checked)}.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
