"""Reusable checks, from which most rules are built: each function returns a check of the given fields."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.payloads.field_types import FieldType, is_list, is_mapping, type_of, whole_number
from airflow_dbjobs.payloads.rules import FieldCheck, precondition
from airflow_dbjobs.payloads.templates import is_templated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_dbjobs.payloads.paths import Node
    from airflow_dbjobs.payloads.rules import Check, Fault

MAX_QUOTED = 40
# Stricter than the types of the fields: the API rejects numbers here.
_STRING = FieldType("a string", lambda value: isinstance(value, str), exact=frozenset({str}))
STRINGS = FieldType("a list of strings", is_list, _STRING)
STRING_MAP = FieldType("a mapping of strings", is_mapping, _STRING)
# A payload without end was refused before, or raises RecursionError.
_ASCII_JSON = json.JSONEncoder(default=str, check_circular=False)


def required(*names: str) -> Check:
    """Check that each field is given and is not an empty string."""

    def check(node: Node) -> Iterator[Fault]:
        for name in names:
            value = node.value.get(name)
            if value == "":
                yield name, "is empty"
            elif value is None and node.lacks(name):
                yield name, "is missing"

    return check


def all_required(*names: str) -> Check:
    """Check like `required`, but report all missing fields together, for the structure."""

    def check(node: Node) -> Iterator[Fault]:
        missing = [name for name in names if node.empty(name)]
        if missing:
            yield "", f"{joined(missing)} {'is' if len(missing) == 1 else 'are'} missing"

    return check


def at_most_one(*names: str) -> Check:
    """Check that at most one of the fields is given."""

    def check(node: Node) -> Iterator[Fault]:
        filled = _filled(node, names)
        if len(filled) > 1:
            yield "", f"has {joined(filled)}"

    return FieldCheck(frozenset(names), check)


def exactly_one(*names: str) -> Check:
    """Check that exactly one of the fields is given. An unknown field counts: a newer API may have added it."""

    def check(node: Node) -> Iterator[Fault]:
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

    def check(node: Node) -> Iterator[Fault]:
        if node.filled(name) and all(node.empty(other) for other in others):
            yield name, f"is given without {' or '.join(others)}"

    return FieldCheck(frozenset([name]), check)


def absent(*names: str) -> Check:
    """Check that none of the fields is given."""

    def check(node: Node) -> Iterator[Fault]:
        for name in names:
            if node.filled(name):
                yield name, "is given"

    return FieldCheck(frozenset(names), check)


def in_range(name: str, low: int | None, high: int | None = None, *, zero_too: bool = False) -> Check:
    """Check that the field, if it is an integer, is within the bounds; `zero_too` also allows 0."""

    def check(node: Node) -> Iterator[Fault]:
        number = node.number(name)
        if number is None or (zero_too and number == 0):
            return
        if (low is not None and number < low) or (high is not None and number > high):
            yield name, f"is {number}"

    return FieldCheck(frozenset([name]), check)


def positive_id(name: str) -> Check:
    """Check that the field, if given, is a positive integer."""

    def check(node: Node) -> Iterator[Fault]:
        value = node.known(name)
        if value is not None and (whole_number(value) or 0) <= 0:
            yield name, f"is {quoted(value)}" if isinstance(value, str | int | float) else type_of(value)

    return FieldCheck(frozenset([name]), check)


def present(name: str) -> Check:
    """Check that the field is given; its value may be empty."""

    def check(node: Node) -> Iterator[Fault]:
        if node.lacks(name):
            yield name, "is missing"

    return check


def one_of(name: str, words: Iterator[str] | tuple[str, ...] | type[Any], *, any_case: bool = False) -> Check:
    """Check that the field, if given, is one of the words."""
    allowed = {str(word).lower() if any_case else str(word) for word in words}

    def check(node: Node) -> Iterator[Fault]:
        value = node.known(name)
        if value is None:
            return
        if not isinstance(value, str):
            yield name, type_of(value)
        elif (value.lower() if any_case else value) not in allowed:
            yield name, f"is {quoted(value)}"

    return FieldCheck(frozenset([name]), check)


def max_length(name: str, limit: int, *, in_bytes: bool = False) -> Check:
    """Check that the field has at most `limit` characters, or bytes in UTF-8."""

    def check(node: Node) -> Iterator[Fault]:
        text = node.text(name)
        if text is None:
            return
        length = len(text.encode(errors="replace")) if in_bytes else len(text)
        if length > limit:
            yield name, f"has {length:,} {'bytes' if in_bytes else 'characters'}"

    return FieldCheck(frozenset([name]), check)


def matches(name: str, pattern: str) -> Check:
    """Check that the field, if given, matches the whole pattern."""
    compiled = re.compile(pattern, re.ASCII)

    def check(node: Node) -> Iterator[Fault]:
        text = node.text(name)
        if text is not None and not compiled.fullmatch(text):
            yield name, f"is {quoted(text)}"

    return FieldCheck(frozenset([name]), check)


def max_entries(name: str, limit: int) -> Check:
    """Check that the field, a list or a mapping, has at most `limit` entries."""

    def check(node: Node) -> Iterator[Fault]:
        value = node.value.get(name)
        if (is_list(value) or isinstance(value, dict)) and len(value) > limit:
            yield name, f"has {len(value)} entries"

    return FieldCheck(frozenset([name]), check)


def unique(name: str, key: str) -> Check:
    """Check that no two elements of the list have the same value for `key`."""

    def check(node: Node) -> Iterator[Fault]:
        first: dict[str, int] = {}
        for index, item in node.elements(name):
            value = item.get(key)
            if not isinstance(value, str | int) or is_templated(value):
                continue
            if str(value) in first:
                yield f"{name}[{index}].{key}", f"is {quoted(value)}, as is {name}[{first[str(value)]}].{key}"
            first.setdefault(str(value), index)

    return FieldCheck(frozenset([name]), check)


def ascii_only(name: str) -> Check:
    """Check that all strings in the field, including keys, are ASCII."""

    def check(node: Node) -> Iterator[Fault]:
        # Values may be secrets, so the message does not quote them.
        for below, text in strings_in(node.value.get(name)):
            if not text.isascii():
                yield name, f"has non-ASCII characters at {name}{below}"
                return

    return FieldCheck(frozenset([name]), check)


def json_size(name: str, limit: int, *, wrapped: bool = False, in_bytes: bool = True) -> Check:
    """Check the size of the field as compact JSON; with `wrapped`, including the field's name."""

    def check(node: Node) -> Iterator[Fault]:
        value = node.known(name)
        if value is None:
            return
        length = size_if_over(limit, {name: value} if wrapped else value, in_bytes=in_bytes)
        if length:
            yield name, f"has {length:,} {'bytes' if in_bytes else 'characters'} as JSON"

    return FieldCheck(frozenset([name]), check)


def of_type(name: str, expected: FieldType) -> Check:
    """Check that the field, if given, and each of its elements have the expected type."""

    def check(node: Node) -> Iterator[Fault]:
        if node.known(name) is not None:
            for below, given, _ in expected.mismatches(node.value[name]):
                yield f"{name}{below}", given

    return FieldCheck(frozenset([name]), check)


def when_given(fields: str | tuple[str, ...], check: Check) -> Check:
    """Run a check only if the field, or one of the fields, is given; without them the check finds nothing."""
    return FieldCheck(frozenset([fields] if isinstance(fields, str) else fields), check)


def all_of(*checks: Check) -> Check:
    """Run all of the checks."""
    parts = [precondition(each) for each in checks]

    def check(node: Node) -> Iterator[Fault]:
        for fields, run in parts:
            if not fields or not fields.isdisjoint(node.value):
                yield from run(node)

    return FieldCheck(frozenset().union(*(fields for fields, _ in parts)), check) if all(f for f, _ in parts) else check


def reported_at(path: str, check: Check) -> Check:
    """Report all faults of a check at `path`; their own paths appear in the message."""

    def moved(node: Node) -> Iterator[Fault]:
        for below, given in check(node):
            yield path, f"{below} {given}" if below not in {"", path} else given

    return FieldCheck(check.fields, moved) if isinstance(check, FieldCheck) else moved


def only_if(condition: Callable[[Node], bool], then: Check) -> Check:
    """Run a check only on nodes for which the condition holds."""

    def check(node: Node) -> Iterator[Fault]:
        if condition(node):
            yield from then(node)

    return check


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
