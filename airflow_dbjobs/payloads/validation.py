"""The check of a payload: its fields by the schema, and the rules of each structure in it.

Operators check twice: what is known when the DAG is parsed, and all of it before it is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_dbjobs.errors import ConfigurationError, PayloadError
from airflow_dbjobs.payloads.body import depth_in_words, merge, to_json
from airflow_dbjobs.payloads.field_types import printable, type_of
from airflow_dbjobs.payloads.paths import Body, Node
from airflow_dbjobs.payloads.rules import EXTENDS, MODULES_WITH_RULES, Rule
from airflow_dbjobs.payloads.rules.requests import ROOT_RULES
from airflow_dbjobs.payloads.schema import ENDPOINTS, HOME, fields_of
from airflow_dbjobs.payloads.suggestions import where_it_belongs
from airflow_dbjobs.payloads.templates import UNKNOWN, is_templated, without

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airflow_dbjobs.payloads.field_types import Mismatch
    from airflow_dbjobs.payloads.schema import Field

VERSIONS = ("2.2", "2.1", "2.0")
# Findings that may be why another one is there: a misspelt name is often why a field is missing.
_CAUSES = ("FIELD-NAME", "FIELD-PLACE", "FIELD-UNKNOWN")


class Finding(NamedTuple):
    """One thing that is wrong, or probably is: where, by which rule, what was given, what is allowed, what to do.

    `at_run` says that it may be a placeholder while the DAG is parsed.
    """

    path: str
    rule: str
    given: str
    allowed: str
    remedy: str
    is_error: bool = True
    at_run: bool = False

    def __str__(self) -> str:
        # Names in the payload may hold what steers a terminal.
        return printable(f"{self.path or 'the payload'} [{self.rule}]: {self.given}; {self.allowed}. {self.remedy}")


def check(endpoint: str, payload: object, version: str, *, cloud: str = "", strict: bool = False) -> list[str]:
    """Check a payload for an endpoint ("run-now") of an API version. Returns warnings.

    Numbers and booleans may be strings. What Databricks fills in itself ("{{job.run_id}}") is not checked.
    `cloud` is "aws", "azure" or "gcp" where it is known. Where `strict`, a warning is a violation, too. Raises
    PayloadError, listing all violations, or ConfigurationError where the payload cannot be JSON.
    """
    _must_be_one_of("endpoint", endpoint, ENDPOINTS)
    _must_be_one_of("version", version, VERSIONS)
    with depth_in_words:
        if isinstance(payload, Mapping):
            payload = to_json(payload, keep_templates=True)
        found = findings(endpoint, payload, version, cloud=cloud)
    _raise_errors(endpoint, found, found if strict else [finding for finding in found if finding.is_error])
    return [str(finding) for finding in found]


def check_early(
    endpoint: str,
    body: object,
    named: Mapping[str, Any],
    *,
    may_grow: bool = False,
    template_ext: Iterable[str] = (),
    strict: bool = False,
) -> list[str]:
    """Check what is known of a payload while the DAG is parsed: its ``json`` and its named parameters.

    Templates are not checked, whole or in part. Which version the API has only the connection knows: what
    suits any version passes. `may_grow` says that a class of the user's own made the operator: fields may come to the
    payload later, and a text that ends in one of its `template_ext` is the name of a template file. Raises
    PayloadError, listing all violations, or ConfigurationError where the payload cannot be JSON.

    Returns what may be a placeholder (a job_id of 0), and is a violation where `strict`. Other warnings are left to the
    task's log, as a DAG file is parsed every few seconds; where `strict`, they are violations, too.
    """
    _must_be_one_of("endpoint", endpoint, ENDPOINTS)
    # Airflow calls a function that is the whole of a template field, and no other.
    unknown = is_templated(body) or callable(body) or (may_grow and isinstance(body, str))
    known = {name: UNKNOWN if callable(value) else value for name, value in named.items()}
    with depth_in_words:
        payload = merge(None if unknown else body, known, keep_templates=True)
        if may_grow and template_ext:
            suffixes = tuple(template_ext)
            payload = without(payload, lambda text: text.endswith(suffixes))
        found = findings_of_any_version(endpoint, payload, open_root=unknown or may_grow)
    placeholders = [finding for finding in found if finding.at_run]
    errors = [finding for finding in found if finding.is_error and not finding.at_run]
    _raise_errors(endpoint, found, found if strict else errors)
    return [str(finding) for finding in placeholders]


def _must_be_one_of(name: str, given: str, allowed: Iterable[str]) -> None:
    if given not in allowed:
        raise ConfigurationError(f"{name} is {given!r}; it must be one of {', '.join(allowed)}.")


def _raise_errors(endpoint: str, found: list[Finding], errors: list[Finding]) -> None:
    if errors:
        listed = [finding for finding in found if finding in errors or finding.rule in _CAUSES]
        raise PayloadError(f"jobs/{endpoint}", [f"- {finding}" for finding in listed])


def findings(
    endpoint: str, payload: object, version: str = "2.2", *, cloud: str = "", open_root: bool = False
) -> list[Finding]:
    """Return all that is wrong with a payload for an endpoint ("run-now") of one API version.

    `cloud` is "aws", "azure" or "gcp" where it is known. `open_root` says that more fields may come to the payload.
    """
    if not isinstance(payload, dict):
        return [
            Finding("", "REQ-BODY-OBJECT", type_of(payload), "a request body is one JSON object", "Give a mapping.")
        ]
    found: list[Finding] = []
    root = Node(Body(endpoint, version, cloud, payload, open_root), payload, ENDPOINTS[endpoint])
    _apply((rule for rule in ROOT_RULES if rule.applies(endpoint, version)), root, found)
    _visit(root, found)
    return found


def findings_of_any_version(endpoint: str, payload: object, *, open_root: bool = False) -> list[Finding]:
    """Return what is wrong with a payload whichever API version it is for: only warnings where it suits one."""
    newest: list[Finding] = []
    for version in VERSIONS:
        found = findings(endpoint, payload, version, open_root=open_root)
        if not any(finding.is_error or finding.rule == "FIELD-VERSION" for finding in found):
            return found
        newest = newest or found
    return newest


def _visit(node: Node, found: list[Finding]) -> None:
    """Add to `found` what is wrong with a structure: what its rules find, then what its fields are and hold."""
    fields, rules_by_field, rules = _expected(node.structure, node.body.endpoint, node.body.version)
    start = len(found)
    _apply(rules, node, found)
    for name in node.value:
        if name in rules_by_field:
            _apply(rules_by_field[name], node, found)
    refused = {finding.path for finding in found[start:] if finding.is_error}
    for name, value in node.value.items():
        if value is None:
            continue
        if name not in fields:
            if node.path_of(str(name)) not in refused:
                found.append(_unknown(node, str(name)))
            continue
        field_type, since, structure, many = fields[name]
        if since and since > node.body.version:
            # Nor is what it holds checked: the version does not know it.
            found.append(_too_new(node, name, since))
            continue
        if mismatches := field_type.mismatches(value):
            found += _mistyped(node, name, mismatches, refused)
        if structure:
            _descend(node, name, structure, found, many=many)


def _descend(node: Node, name: str, structure: str, found: list[Finding], *, many: bool) -> None:
    """Visit the structures that a field holds."""
    value = node.value[name]
    if many:
        for index, item in node.elements(name):
            _visit(Node(node.body, item, structure, node, f"{name}[{index}]"), found)
    elif isinstance(value, dict):
        _visit(Node(node.body, value, structure, node, name), found)


def _apply(rules: Iterable[Rule], node: Node, found: list[Finding]) -> None:
    """Add to `found` what rules find at a node."""
    for rule in rules:
        if rule.fields and node.value.keys().isdisjoint(rule.fields):
            continue
        for below, given in rule.check(node):
            path, is_error = node.path_of(below), not rule.warning
            found.append(Finding(path, rule.id, given, rule.allowed, rule.remedy, is_error, rule.at_run))


def _mistyped(node: Node, name: str, mismatches: Iterable[Mismatch], refused: set[str]) -> Iterator[Finding]:
    for below, given, allowed in mismatches:
        path = node.path_of(name + below)
        # A rule says more of a wrong type than that it is wrong.
        if path not in refused:
            yield Finding(path, "REQ-FIELD-TYPE", given, f"it must be {allowed}", f"Write it as {allowed}.")


def _too_new(node: Node, name: str, since: str) -> Finding:
    return Finding(
        node.path_of(name),
        "FIELD-VERSION",
        f"needs API version {since} or later",
        f"the connection's api_version is {node.body.version}, which does not know it",
        f'Set "api_version": "{since}" in the connection\'s extra, or leave the field out.',
        is_error=False,
    )


def _unknown(node: Node, name: str) -> Finding:
    """Report a field that the API is going to ignore, and what may have been meant."""
    rule, remedy = "FIELD-UNKNOWN", "Leave it out, unless the API is newer than this release."
    if belongs := where_it_belongs(node, name):
        rule, remedy = "FIELD-PLACE", belongs
    elif meant := node.meant_by(name):
        rule, remedy = "FIELD-NAME", f"Did you mean {meant}?"
    return Finding(
        node.path_of(name),
        rule,
        f"is no field of {node.structure} that is known here",
        "the API ignores what it does not know",
        remedy,
        is_error=False,
    )


class _Expected(NamedTuple):
    """What is expected of a structure: its fields; the rules of one field, which wait for it; and the others."""

    fields: dict[str, Field]
    rules_by_field: dict[str, list[Rule]]
    rules: list[Rule]


@lru_cache(maxsize=1024)
def _expected(structure: str, endpoint: str, version: str) -> _Expected:
    """Return what is expected of a structure and of those it extends; rules are loaded as the structures are."""
    rules = [rule for rule in _rules_of(structure) if rule.applies(endpoint, version)]
    by_field: dict[str, list[Rule]] = {}
    for rule in rules:
        if len(rule.fields) == 1:
            (name,) = rule.fields
            by_field.setdefault(name, []).append(rule)
    return _Expected(fields_of(structure), by_field, [rule for rule in rules if len(rule.fields) != 1])


def _rules_of(structure: str | None) -> Iterator[Rule]:
    while structure:
        module = HOME[structure]
        if module in MODULES_WITH_RULES:
            yield from import_module(f"airflow_dbjobs.payloads.rules.{module}").RULES.get(structure, ())
        structure = EXTENDS.get(structure)
