"""Walks a payload by its models, and asks the rules of each structure it comes by."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from airflow_dbjobs.payloads.catalog import ENDPOINTS, load
from airflow_dbjobs.payloads.kinds import type_of
from airflow_dbjobs.payloads.place import Body, Place
from airflow_dbjobs.payloads.rules import MODULES_WITH_RULES, Rule
from airflow_dbjobs.payloads.rules.requests import ROOT_RULES
from airflow_dbjobs.payloads.spelling import near_miss
from airflow_dbjobs.payloads.structure import Structure, facts_of
from airflow_dbjobs.payloads.templates import is_templated

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

VERSIONS = ("2.2", "2.1", "2.0")


class Finding(NamedTuple):
    """One thing that is wrong, or probably is: where, by which rule, what was given, what is allowed, what to do."""

    path: str
    rule: str
    given: str
    allowed: str
    remedy: str
    is_error: bool = True

    def __str__(self) -> str:
        return f"{self.path or 'the payload'} [{self.rule}]: {self.given}; {self.allowed}. {self.remedy}"


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
    model = load(ENDPOINTS[endpoint])
    root = Place(Body(endpoint, version, cloud, payload, open_root), "", model.__name__, payload, None)
    rules = [rule for rule in ROOT_RULES if rule.applies(endpoint, version)]
    return [*_broken(rules, root), *_visit(root, model)]


def findings_of_any_version(endpoint: str, payload: object, *, open_root: bool = False) -> list[Finding]:
    """Return what is wrong with a payload whichever API version it is for: nothing, where it suits one of them."""
    newest: list[Finding] = []
    for version in VERSIONS:
        found = findings(endpoint, payload, version, open_root=open_root)
        if not any(finding.is_error or finding.rule == "FIELD-VERSION" for finding in found):
            return []
        newest = newest or found
    return newest


def _visit(place: Place, model: type[Structure]) -> Iterator[Finding]:
    rules = _rules_for(model, place.body.endpoint, place.body.version)
    broken = list(_broken(rules.others, place))
    for name in place.value:
        if name in rules.by_field:
            broken += _broken(rules.by_field[name], place)
    yield from broken
    yield from _judge_fields(place, model, {finding.path for finding in broken if finding.is_error})


def _judge_fields(place: Place, model: type[Structure], refused: set[str]) -> Iterator[Finding]:
    """Judge the names and types of a structure's fields, and what they hold; a path that is refused is told of."""
    facts = facts_of(model)
    for name, value in place.value.items():
        if name not in facts:
            yield from _misspelling(place, model, str(name))
            continue
        kind, since = facts[name]
        if value is None:
            continue
        if since and since > place.body.version:
            # What the version does not know, it does not judge.
            yield _too_new(place, name, since)
        elif not is_templated(value):
            for below, given, allowed in kind.mismatches(value):
                path = place.path_of(name + below)
                # A rule has told more of a wrong type than that it is wrong.
                if path not in refused:
                    yield Finding(path, "REQ-FIELD-TYPE", given, f"it must be {allowed}", f"Write it as {allowed}.")
            if kind.structure:
                yield from _descend(place, name, value, kind.structure, many=kind.many)


def _descend(place: Place, name: str, value: object, structure: str, *, many: bool) -> Iterator[Finding]:
    """Judge the structures that a field holds."""
    model = load(structure)
    if many:
        for index, item in place.elements(name):
            yield from _visit(place.child(f"{name}[{index}]", structure, item), model)
    elif isinstance(value, dict):
        yield from _visit(place.child(name, structure, value), model)


def _too_new(place: Place, name: str, since: str) -> Finding:
    return Finding(
        place.path_of(name),
        "FIELD-VERSION",
        f"needs API version {since} or later",
        f"the connection's api_version is {place.body.version}, which does not know it",
        f'Set "api_version": "{since}" in the connection\'s extra, or leave the field out.',
        is_error=False,
    )


def _broken(rules: Iterable[Rule], place: Place) -> Iterator[Finding]:
    for rule in rules:
        if rule.fields and place.value.keys().isdisjoint(rule.fields):
            continue
        for below, given in rule.check(place):
            yield Finding(place.path_of(below), rule.id, given, rule.allowed, rule.remedy, not rule.warning)


def _misspelling(place: Place, model: type[Structure], name: str) -> Iterator[Finding]:
    meant = near_miss(name, tuple(facts_of(model)))
    if meant and meant not in place.value:
        yield Finding(
            place.path_of(name),
            "FIELD-NAME",
            f"is no field of {model.__name__} that is known here",
            "the API ignores what it does not know",
            f"Did you mean {meant}?",
            is_error=False,
        )


class _Rules(NamedTuple):
    """Rules of a structure: those of one field, which wait for it, by its name; and the others."""

    by_field: dict[str, list[Rule]]
    others: list[Rule]


@lru_cache(maxsize=1024)
def _rules_for(model: type[Structure], endpoint: str, version: str) -> _Rules:
    """Return the rules of a model and of those it extends; their modules are loaded as the models are."""
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
    return _Rules(by_field, [rule for rule in found if len(rule.fields) != 1])
