"""Reusable checks, from which most rules are built: each function returns a check of the given fields."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.payloads.field_types import FieldType, is_list, is_mapping, type_of, whole_number
from airflow_dbjobs.payloads.rules import Check
from airflow_dbjobs.payloads.templates import is_templated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from airflow_dbjobs.payloads.paths import Node
    from airflow_dbjobs.payloads.rules import Faults

MAX_QUOTED = 40
MAX_ID = 2**63 - 1
# Stricter than the types of the fields: the API rejects numbers here.
_STRING = FieldType("a string", lambda value: isinstance(value, str), exact=frozenset({str}))
STRINGS = FieldType("a list of strings", is_list, _STRING)
STRING_MAP = FieldType("a mapping of strings", is_mapping, _STRING)
# A payload without end was refused before, or raises RecursionError.
_ASCII_JSON = json.JSONEncoder(default=str, check_circular=False)


def when_given(*fields: str, allowed: str = "", remedy: str = "") -> Callable[[Callable[[Node], Faults]], Check]:
    """Make a function a check that finds nothing unless one of the fields is given; without fields, it always runs."""
    return lambda run: Check(run, frozenset(fields), allowed, remedy)


def required(*names: str, unless: tuple[str, ...] = ()) -> Check:
    """Check that each field is given and is not an empty string, unless one of some other fields is given."""

    @when_given(allowed="it is required")
    def check(node: Node) -> Faults:
        for name in names:
            value = node.value.get(name)
            if (value == "" or (value is None and node.lacks(name))) and not any(map(node.given, unless)):
                yield name, "is empty" if value == "" else "is missing"

    return check


def all_required(*names: str, may_be_empty: bool = False) -> Check:
    """Check like `required`, but report all missing fields together, for the structure."""

    @when_given(allowed="both are required")
    def check(node: Node) -> Faults:
        if missing := [name for name in names if (node.lacks if may_be_empty else node.empty)(name)]:
            yield "", are_missing(missing)

    return check


def are_missing(names: list[str]) -> str:
    """Say that fields are missing."""
    return f"{joined(names)} {'is' if len(names) == 1 else 'are'} missing"


def at_most_one(*names: str) -> Check:
    """Check that at most one of the fields is given."""

    @when_given(*names, allowed=f"at most one of {', '.join(names)} is allowed", remedy="Keep only one.")
    def check(node: Node) -> Faults:
        filled = _filled(node, names)
        if len(filled) > 1:
            yield "", f"has {joined(filled)}"

    return check


def exactly_one(*names: str) -> Check:
    """Check that exactly one of the fields is given. An unknown field counts: a newer API may have added it."""

    @when_given(allowed=f"exactly one of {', '.join(names)} is required", remedy="Set one of them, and no other.")
    def check(node: Node) -> Faults:
        filled = _filled(node, names)
        if len(filled) > 1:
            yield "", f"has {joined(filled)}"
        elif not filled and all(node.empty(name) for name in names) and not node.has_unknown_fields():
            yield "", f"has none of {joined(names)}"

    return check


def _filled(node: Node, names: tuple[str, ...]) -> list[str]:
    return [name for name in names if name in node.value and node.filled(name)]


def only_with(name: str, *others: str) -> Check:
    """Check that the field is given only together with at least one of the others."""
    either = " or ".join(others)

    @when_given(name, allowed=f"it requires {either}", remedy=f"Also set {either}.")
    def check(node: Node) -> Faults:
        if node.filled(name) and all(node.empty(other) for other in others):
            yield name, f"is given without {either}"

    return check


def absent(*names: str) -> Check:
    """Check that none of the fields is given."""

    @when_given(*names)
    def check(node: Node) -> Faults:
        for name in names:
            if node.filled(name):
                yield name, "is given"

    return check


def in_range(name: str, low: int, high: int | None = None, *, zero_too: bool = False) -> Check:
    """Check that the field, if it is an integer, is within the bounds; `zero_too` also allows 0."""

    def fault(value: Any) -> str:
        number = whole_number(value)
        if number is None or (zero_too and number == 0):
            return ""
        return f"is {number}" if number < low or (high is not None and number > high) else ""

    bounds = "0 and " * zero_too + (f"{low} or more" if high is None else f"{low} to {high}")
    allowed = f"{bounds} {'are' if zero_too or high is not None else 'is'} allowed"
    return _value(name, fault, allowed, "Use a number in this range.")


def positive_id(name: str) -> Check:
    """Check that the field, if given, is a positive integer of 64 bits."""

    def fault(value: Any) -> str:
        if 0 < (whole_number(value) or 0) <= MAX_ID:
            return ""
        return f"is {quoted(value)}" if isinstance(value, str | int | float) else type_of(value)

    return _value(name, fault, "it must be a positive integer of at most 64 bits")


def present(name: str) -> Check:
    """Check that the field is given; its value may be empty."""

    @when_given(allowed="it is required")
    def check(node: Node) -> Faults:
        if node.lacks(name):
            yield name, "is missing"

    return check


def one_of(name: str, values: Iterable[str], *, any_case: bool = False) -> Check:
    """Check that the field, if given, is one of the values."""
    values = list(values)
    allowed = {value.lower() if any_case else value for value in values}

    def fault(value: Any) -> str:
        if not isinstance(value, str):
            return type_of(value)
        return "" if (value.lower() if any_case else value) in allowed else f"is {quoted(value)}"

    return _value(name, fault, f"it must be one of {', '.join(values)}", "Use one of these.")


def max_length(name: str, limit: int, *, in_bytes: bool = False) -> Check:
    """Check that the field has at most `limit` characters, or bytes in UTF-8."""
    unit = "bytes" if in_bytes else "characters"

    def fault(value: Any) -> str:
        if not isinstance(value, str):
            return ""
        length = len(value.encode(errors="replace")) if in_bytes else len(value)
        return f"has {length:,} {unit}" if length > limit else ""

    return _value(name, fault, f"at most {limit:,} {unit} are allowed", "Shorten it.")


def matches(name: str, pattern: str) -> Check:
    """Check that the field, if given, matches the whole pattern."""
    compiled = re.compile(pattern, re.ASCII)

    def fault(value: Any) -> str:
        return f"is {quoted(value)}" if isinstance(value, str) and not compiled.fullmatch(value) else ""

    return _value(name, fault, remedy="Use another name.")


def max_entries(name: str, limit: int) -> Check:
    """Check that the field, a list or a mapping, has at most `limit` entries."""

    def fault(value: Any) -> str:
        return f"has {len(value)} entries" if (is_list(value) or is_mapping(value)) and len(value) > limit else ""

    return _value(name, fault, f"at most {limit} entries are allowed", "Remove some of them.")


def json_size(name: str, limit: int, *, wrapped: bool = False, in_bytes: bool = True) -> Check:
    """Check the size of the field as compact JSON; with `wrapped`, including the field's name."""
    unit = "bytes" if in_bytes else "characters"

    def fault(value: Any) -> str:
        length = size_if_over(limit, {name: value} if wrapped else value, in_bytes=in_bytes)
        return f"has {length:,} {unit} as JSON" if length else ""

    allowed = f"at most {limit:,} {unit} are allowed{', including the name of the field' * wrapped}"
    return _value(name, fault, allowed, "Pass large data in a file.")


def _value(name: str, fault: Callable[[Any], str], allowed: str = "", remedy: str = "") -> Check:
    """Check the value of the field, unless it is a template: `fault` says what is wrong with it, "" if nothing is."""

    @when_given(name, allowed=allowed, remedy=remedy)
    def check(node: Node) -> Faults:
        value = node.known(name)
        if value is not None and (given := fault(value)):
            yield name, given

    return check


def unique(name: str, key: str) -> Check:
    """Check that no two elements of the list have the same value for `key`."""

    @when_given(name, allowed=f"each {key} must be unique", remedy="Rename one.")
    def check(node: Node) -> Faults:
        first: dict[str, int] = {}
        for index, item in node.elements(name):
            value = item.get(key)
            if not isinstance(value, str | int) or is_templated(value):
                continue
            if str(value) in first:
                yield f"{name}[{index}].{key}", f"is {quoted(value)}, as is {name}[{first[str(value)]}].{key}"
            first.setdefault(str(value), index)

    return check


def ascii_only(name: str) -> Check:
    """Check that all strings in the field, including keys, are ASCII."""

    @when_given(name, allowed="all text in it must be ASCII", remedy="Encode the value, or pass it in a file.")
    def check(node: Node) -> Faults:
        # Values may be secrets, so the message does not quote them.
        for below, text in strings_in(node.value.get(name)):
            if not text.isascii():
                yield name, f"has non-ASCII characters at {name}{below}"
                return

    return check


def of_type(name: str, expected: FieldType) -> Check:
    """Check that the field, if given, and each of its elements have the expected type."""

    @when_given(name, allowed=f"it must be {expected.allowed}")
    def check(node: Node) -> Faults:
        if node.known(name) is not None:
            for below, given, _ in expected.mismatches(node.value[name]):
                yield f"{name}{below}", given

    return check


def all_of(*checks: Check) -> Check:
    """Run all of the checks."""
    # If one of them always runs, all do.
    fields = frozenset().union(*(each.fields for each in checks)) if all(each.fields for each in checks) else ()
    allowed = ", and ".join(dict.fromkeys(each.allowed for each in checks if each.allowed))

    @when_given(*fields, allowed=allowed, remedy=checks[-1].remedy)
    def check(node: Node) -> Faults:
        for each in checks:
            if not each.fields or not each.fields.isdisjoint(node.value):
                yield from each.run(node)

    return check


def reported_at(path: str, check: Check) -> Check:
    """Report all faults of a check at `path`; their own paths appear in the message."""

    @when_given(*check.fields, allowed=check.allowed, remedy=check.remedy)
    def moved(node: Node) -> Faults:
        for below, given in check(node):
            yield path, f"{below} {given}" if below not in {"", path} else given

    return moved


def strings_in(value: object, below: str = "") -> Iterator[tuple[str, str]]:
    """Yield path and value of each string in a list or mapping, including keys, except templates."""
    if isinstance(value, str):
        if not is_templated(value):
            yield below, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from strings_in(str(key), f"{below} (a name)")
            yield from strings_in(item, f"{below}.{key}")
    elif is_list(value):
        for index, item in enumerate(value):
            yield from strings_in(item, f"{below}[{index}]")


def size_if_over(limit: int, value: object, *, in_bytes: bool = True) -> int | None:
    """Return the size of a value as compact JSON if it exceeds the limit; templates in it count as empty."""
    # A fast upper bound: escaped to ASCII, and with its templates, the text is longer.
    if len(_ASCII_JSON.encode(value)) <= limit:
        return None
    text = json.dumps(_known_part(value), separators=(",", ":"), ensure_ascii=False, default=str)
    length = len(text.encode(errors="replace")) if in_bytes else len(text)
    return length if length > limit else None


def _known_part(value: object) -> object:
    if is_templated(value):
        return ""
    if isinstance(value, dict):
        return {str(key): _known_part(item) for key, item in value.items()}
    if is_list(value):
        return [_known_part(item) for item in value]
    return value


def quoted(value: object) -> str:
    """Quote a value that is no secret, shortened. A URL is not quoted, as it may contain credentials."""
    if isinstance(value, str) and "://" in value:
        return "a URL"
    text = repr(value)
    return text if len(text) <= MAX_QUOTED else f"{text[: MAX_QUOTED - 2]}…{text[-1]}"


def joined(names: list[str] | tuple[str, ...]) -> str:
    """Join names to an enumeration: "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
