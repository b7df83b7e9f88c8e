"""Walks a payload by its models, and asks the rules of each structure it comes by."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from airflow_dbjobs.payloads.catalog import ENDPOINTS, load
from airflow_dbjobs.payloads.kinds import printable, type_of
from airflow_dbjobs.payloads.misplaced import where_it_belongs
from airflow_dbjobs.payloads.place import Body, Place
from airflow_dbjobs.payloads.rules import MODULES_WITH_RULES, Rule
from airflow_dbjobs.payloads.rules.requests import ROOT_RULES
from airflow_dbjobs.payloads.structure import Structure, facts_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airflow_dbjobs.payloads.kinds import Kind
    from airflow_dbjobs.payloads.structure import FieldFacts

VERSIONS = ("2.2", "2.1", "2.0")


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
    root = Place(Body(endpoint, version, cloud, payload, open_root), payload, ENDPOINTS[endpoint])
    _ask((rule for rule in ROOT_RULES if rule.applies(endpoint, version)), root, found)
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


def _visit(place: Place, found: list[Finding]) -> None:
    """Add to `found` what is wrong with a structure: what its rules tell, then what its fields are and hold."""
    fields, rules_by_field, rules = _expected(place.structure, place.body.endpoint, place.body.version)
    start = len(found)
    _ask(rules, place, found)
    for name in place.value:
        if name in rules_by_field:
            _ask(rules_by_field[name], place, found)
    refused = {finding.path for finding in found[start:] if finding.is_error}
    for name, value in place.value.items():
        if value is None:
            continue
        if name not in fields:
            if place.path_of(str(name)) not in refused:
                found.append(_unknown(place, str(name)))
            continue
        kind, since = fields[name]
        if since and since > place.body.version:
            # What the version does not know, it does not judge.
            found.append(_too_new(place, name, since))
            continue
        if not kind.fits(value):
            found += _mistyped(place, name, kind, refused)
        if kind.structure:
            _descend(place, name, kind.structure, found, many=kind.many)


def _descend(place: Place, name: str, structure: str, found: list[Finding], *, many: bool) -> None:
    """Visit the structures that a field holds."""
    value = place.value[name]
    if many:
        for index, item in place.elements(name):
            _visit(Place(place.body, item, structure, place, f"{name}[{index}]"), found)
    elif isinstance(value, dict):
        _visit(Place(place.body, value, structure, place, name), found)


def _ask(rules: Iterable[Rule], place: Place, found: list[Finding]) -> None:
    """Add to `found` what rules tell of a place."""
    for rule in rules:
        if rule.fields and place.value.keys().isdisjoint(rule.fields):
            continue
        for below, given in rule.check(place):
            path, is_error = place.path_of(below), not rule.warning
            found.append(Finding(path, rule.id, given, rule.allowed, rule.remedy, is_error, rule.at_run))


def _mistyped(place: Place, name: str, kind: Kind, refused: set[str]) -> Iterator[Finding]:
    for below, given, allowed in kind.mismatches(place.value[name]):
        path = place.path_of(name + below)
        # A rule has told more of a wrong type than that it is wrong.
        if path not in refused:
            yield Finding(path, "REQ-FIELD-TYPE", given, f"it must be {allowed}", f"Write it as {allowed}.")


def _too_new(place: Place, name: str, since: str) -> Finding:
    return Finding(
        place.path_of(name),
        "FIELD-VERSION",
        f"needs API version {since} or later",
        f"the connection's api_version is {place.body.version}, which does not know it",
        f'Set "api_version": "{since}" in the connection\'s extra, or leave the field out.',
        is_error=False,
    )


def _unknown(place: Place, name: str) -> Finding:
    """Tell of a field that the API is going to ignore, and what may have been meant."""
    rule, remedy = "FIELD-UNKNOWN", "Leave it out, unless the API is newer than this release."
    if belongs := where_it_belongs(place, name):
        rule, remedy = "FIELD-PLACE", belongs
    elif meant := place.meant_by(name):
        rule, remedy = "FIELD-NAME", f"Did you mean {meant}?"
    return Finding(
        place.path_of(name),
        rule,
        f"is no field of {place.structure} that is known here",
        "the API ignores what it does not know",
        remedy,
        is_error=False,
    )


class _Expected(NamedTuple):
    """What is expected of a structure: its fields; the rules of one field, which wait for it; and the others."""

    fields: dict[str, FieldFacts]
    rules_by_field: dict[str, list[Rule]]
    rules: list[Rule]


@lru_cache(maxsize=1024)
def _expected(structure: str, endpoint: str, version: str) -> _Expected:
    """Return what is expected of a structure and of those it extends; rules are loaded as the models are."""
    model = load(structure)
    found: list[Rule] = []
    for base in model.__mro__:
        module = base.__module__.rpartition(".")[2]
        if issubclass(base, Structure) and module in MODULES_WITH_RULES:
            table = import_module(f"airflow_dbjobs.payloads.rules.{module}").RULES
            found += [rule for rule in table.get(base.__name__, ()) if rule.applies(endpoint, version)]
    by_field: dict[str, list[Rule]] = {}
    for rule in found:
        if len(rule.fields) == 1:
            (name,) = rule.fields
            by_field.setdefault(name, []).append(rule)
    return _Expected(facts_of(model), by_field, [rule for rule in found if len(rule.fields) != 1])
