"""Validate a payload: its fields against the schema, and each of its structures against the rules.

Operators validate twice: the known part when the DAG is parsed, and the complete payload before it is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_dbjobs.errors import ConfigurationError, PayloadError
from airflow_dbjobs.payloads.body import depth_reported, merge, to_json
from airflow_dbjobs.payloads.field_types import is_list, printable, type_of
from airflow_dbjobs.payloads.paths import Body, Node
from airflow_dbjobs.payloads.rules import MODULES_WITH_RULES, Rule
from airflow_dbjobs.payloads.rules.requests import ROOT_RULES
from airflow_dbjobs.payloads.schema import ENDPOINTS, EXTENDS, MODULE_OF, fields_of
from airflow_dbjobs.payloads.suggestions import where_it_belongs
from airflow_dbjobs.payloads.templates import UNKNOWN, is_templated, mask_texts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airflow_dbjobs.payloads.field_types import Mismatch
    from airflow_dbjobs.payloads.schema import Field

VERSIONS = ("2.2", "2.1", "2.0")
# Warnings that are often the cause of an error: a required field is missing because its name is misspelt.
_CAUSES = ("FIELD-NAME", "FIELD-PLACE", "FIELD-UNKNOWN")


class Finding(NamedTuple):
    """An error or warning: path, rule id, what is given, what is allowed, and the remedy.

    `at_run`: while the DAG is parsed, the value may be a placeholder.
    """

    path: str
    rule: str
    given: str
    allowed: str
    remedy: str
    is_error: bool = True
    at_run: bool = False

    def __str__(self) -> str:
        # Names in a payload may contain control characters.
        return printable(f"{self.path or 'the payload'} [{self.rule}]: {self.given}; {self.allowed}. {self.remedy}")


def check(endpoint: str, payload: object, version: str, *, cloud: str = "", strict: bool = False) -> list[str]:
    """Validate a payload and return its warnings.

    Numbers and booleans may be written as strings. Values with Databricks' references ("{{job.run_id}}") are not
    checked.

    :param endpoint: the endpoint below jobs/, such as "run-now".
    :param payload: the request body.
    :param version: the API version: "2.2", "2.1" or "2.0".
    :param cloud: "aws", "azure" or "gcp", if known.
    :param strict: treat warnings as errors.
    :raises PayloadError: with all errors, if the payload has any.
    :raises ConfigurationError: if the payload cannot be written as JSON.
    """
    _must_be_one_of("endpoint", endpoint, ENDPOINTS)
    _must_be_one_of("version", version, VERSIONS)
    with depth_reported:
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
    """Validate the known part of a payload while the DAG is parsed, and return warnings about placeholders.

    Values with templates are not checked. The API version is unknown without the connection, so a payload passes if it
    is valid in any version. A placeholder is a value such as a job_id of 0. All other warnings appear in the task's log
    only, as Airflow parses a DAG file every few seconds.

    :param endpoint: the endpoint below jobs/, such as "run-now".
    :param body: the operator's ``json``.
    :param named: the operator's named parameters.
    :param may_grow: whether a subclass of the operator may add fields later.
    :param template_ext: suffixes by which that subclass recognizes names of template files.
    :param strict: treat warnings, including placeholders, as errors.
    :raises PayloadError: with all errors, if the payload has any.
    :raises ConfigurationError: if the payload cannot be written as JSON.
    """
    _must_be_one_of("endpoint", endpoint, ENDPOINTS)
    # Airflow calls a function if it is the whole value of a template field, but not inside one.
    unknown = is_templated(body) or callable(body) or (may_grow and isinstance(body, str))
    known = {name: UNKNOWN if callable(value) else value for name, value in named.items()}
    with depth_reported:
        payload = merge(None if unknown else body, known, keep_templates=True)
        if may_grow and template_ext:
            suffixes = tuple(template_ext)
            payload = mask_texts(payload, lambda text: text.endswith(suffixes))
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
    """Return the errors and warnings for a payload in one API version.

    `cloud` is "aws", "azure" or "gcp", if known. `open_root`: the payload may get more fields later.
    """
    if not isinstance(payload, dict):
        return [
            Finding("", "REQ-BODY-OBJECT", type_of(payload), "a request body must be a JSON object", "Use a mapping.")
        ]
    found: list[Finding] = []
    root = Node(Body(endpoint, version, cloud, payload, open_root), payload, ENDPOINTS[endpoint])
    _apply((rule for rule in ROOT_RULES if version in rule.versions and rule.applies(endpoint)), root, found)
    _visit(root, found)
    return found


def findings_of_any_version(endpoint: str, payload: object, *, open_root: bool = False) -> list[Finding]:
    """Return the findings in the newest version that has no errors and knows all fields, or else in the newest."""
    newest: list[Finding] = []
    for version in VERSIONS:
        found = findings(endpoint, payload, version, open_root=open_root)
        if not any(finding.is_error or finding.rule == "FIELD-VERSION" for finding in found):
            return found
        newest = newest or found
    return newest


def _visit(node: Node, found: list[Finding]) -> None:
    """Append the findings in a structure: those of its rules first, then those in its fields."""
    fields, simple, rules_by_field, rules = _expected(node.structure, node.body.endpoint, node.body.version)
    start = len(found)
    _apply(rules, node, found)
    for name in node.value:
        if name in rules_by_field:
            _apply(rules_by_field[name], node, found)
    reported = found[start:]
    for name, value in node.value.items():
        if value is None or type(value) in simple.get(name, ()):
            continue
        if name not in fields:
            if node.path_of(str(name)) not in _refused(reported):
                found.append(_unknown(node, str(name)))
        elif (fields[name].since or "") > node.body.version:
            # The value is not checked, as this version ignores the field.
            found.append(_too_new(node, name, fields[name].since))
        else:
            if mismatches := fields[name].type.mismatches(value):
                found += _mistyped(node, name, mismatches, _refused(reported))
            _descend(node, name, fields[name], found)


def _descend(node: Node, name: str, field: Field, found: list[Finding]) -> None:
    """Visit the structures in a field."""
    value, structure = node.value[name], field.structure
    if not structure:
        return
    if isinstance(value, dict) and not field.many:
        _visit(Node(node.body, value, structure, node, name), found)
    elif is_list(value) and field.many:
        for index, item in enumerate(value):
            if isinstance(item, dict):
                _visit(Node(node.body, item, structure, node, f"{name}[{index}]"), found)


def _apply(rules: Iterable[Rule], node: Node, found: list[Finding]) -> None:
    """Append the findings of `rules` at a node."""
    for rule in rules:
        check = rule.check
        if check.fields and check.fields.isdisjoint(node.value):
            continue
        for below, given in check.run(node):
            path, is_error = node.path_of(below), not rule.warning
            found.append(Finding(path, rule.id, given, rule.allowed, rule.remedy, is_error, rule.at_run))


def _refused(reported: list[Finding]) -> set[str]:
    return {finding.path for finding in reported if finding.is_error}


def _mistyped(node: Node, name: str, mismatches: Iterable[Mismatch], refused: set[str]) -> Iterator[Finding]:
    for below, given, allowed in mismatches:
        path = node.path_of(name + below)
        # If a rule reported the same path, its message is more specific.
        if path not in refused:
            yield Finding(path, "REQ-FIELD-TYPE", given, f"it must be {allowed}", f"Write it as {allowed}.")


def _too_new(node: Node, name: str, since: str | None) -> Finding:
    return Finding(
        node.path_of(name),
        "FIELD-VERSION",
        f"needs API version {since} or later",
        f"the API ignores it in version {node.body.version}, the connection's api_version",
        f'Set "api_version": "{since}" in the connection\'s extra, or remove the field.',
        is_error=False,
    )


def _unknown(node: Node, name: str) -> Finding:
    """Return a warning for a field that the API will ignore, with a suggestion of what was meant."""
    rule, remedy = "FIELD-UNKNOWN", "Remove it, unless the API is newer than this release."
    if belongs := where_it_belongs(node, name):
        rule, remedy = "FIELD-PLACE", belongs
    elif meant := node.meant_by(name):
        rule, remedy = "FIELD-NAME", f"Did you mean {meant}?"
    return Finding(
        node.path_of(name),
        rule,
        f"is not a known field of {node.structure}",
        "the API ignores unknown fields",
        remedy,
        is_error=False,
    )


class _Expected(NamedTuple):
    """The fields of a structure; by field, the classes whose values are right; and the rules.

    `rules_by_field` are the rules that need one certain field, and `rules` all others.
    """

    fields: dict[str, Field]
    simple: dict[str, frozenset[type]]
    rules_by_field: dict[str, list[Rule]]
    rules: list[Rule]


@lru_cache(maxsize=1024)
def _expected(structure: str, endpoint: str, version: str) -> _Expected:
    """Return fields and rules of a structure, including inherited ones; imports their modules on first use."""
    fields = fields_of(structure)
    simple = {
        name: field.type.exact
        for name, field in fields.items()
        if not field.structure and (field.since or "") <= version
    }
    by_field: dict[str, list[Rule]] = {}
    rest = []
    inherited: str | None = structure
    while inherited:
        for rule in own_rules(inherited, version):
            if not rule.applies(endpoint):
                continue
            if len(rule.check.fields) == 1:
                by_field.setdefault(next(iter(rule.check.fields)), []).append(rule)
            else:
                rest.append(rule)
        inherited = EXTENDS.get(inherited)
    return _Expected(fields, simple, by_field, rest)


def own_rules(structure: str, version: str) -> list[Rule]:
    """Return the rules of a structure in an API version, without inherited ones and those for newer fields."""
    module = MODULE_OF[structure]
    if module not in MODULES_WITH_RULES:
        return []
    rules: tuple[Rule, ...] = import_module(f"airflow_dbjobs.payloads.rules.{module}").RULES.get(structure, ())
    newer = {name for name, field in fields_of(structure).items() if (field.since or "") > version}
    return [
        rule for rule in rules if version in rule.versions and not (rule.check.fields and rule.check.fields <= newer)
    ]
