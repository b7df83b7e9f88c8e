"""The few forms that most rules have: each makes a check of the fields it is given."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.payloads.field_types import FieldType, is_list, is_mapping, type_of, whole_number
from airflow_dbjobs.payloads.rules import OfFields
from airflow_dbjobs.payloads.templates import is_templated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_dbjobs.payloads.paths import Node
    from airflow_dbjobs.payloads.rules import Check, Fault

MAX_SHOWN = 40
# Stricter than the fields' own types: the API takes no numbers here.
_STRING = FieldType("a string", lambda value: isinstance(value, str))
STRINGS = FieldType("a list of strings", is_list, _STRING)
STRING_MAP = FieldType("a mapping of strings", is_mapping, _STRING)
_ASCII_JSON = json.JSONEncoder(default=str)


def present(*names: str) -> Check:
    """Check that each of the fields is there, and no empty string."""

    def check(node: Node) -> Iterator[Fault]:
        for name in names:
            if node.lacks(name):
                yield name, "is missing"
            elif node.value.get(name) == "":
                yield name, "is empty"

    return check


def all_present(*names: str) -> Check:
    """Check as `present` does; but it is the structure that is at fault, not the field."""

    def check(node: Node) -> Iterator[Fault]:
        missing = [name for name in names if node.empty(name)]
        if missing:
            yield "", f"{listed(missing)} {'is' if len(missing) == 1 else 'are'} missing"

    return check


def at_most_one(*names: str) -> Check:
    """Check that no two of the fields are there."""

    def check(node: Node) -> Iterator[Fault]:
        filled = _filled(node, names)
        if len(filled) > 1:
            yield "", f"has {listed(filled)}"

    return OfFields(frozenset(names), check)


def exactly_one(*names: str) -> Check:
    """Check that one of the fields is there, and no other. A field that is unknown here may be one of a newer kind."""

    def check(node: Node) -> Iterator[Fault]:
        filled = _filled(node, names)
        if len(filled) > 1:
            yield "", f"has {listed(filled)}"
        elif not filled and all(node.empty(name) for name in names) and not node.has_unknown_fields():
            yield "", f"has none of {listed(names)}"

    return check


def _filled(node: Node, names: tuple[str, ...]) -> list[str]:
    return [name for name in names if name in node.value and node.filled(name)]


def only_with(name: str, *others: str) -> Check:
    """Check that the field is there only where one of the others is."""

    def check(node: Node) -> Iterator[Fault]:
        if node.filled(name) and all(node.empty(other) for other in others):
            yield name, f"is given without {' or '.join(others)}"

    return OfFields(frozenset([name]), check)


def absent(*names: str) -> Check:
    """Check that none of the fields is there."""

    def check(node: Node) -> Iterator[Fault]:
        for name in names:
            if node.filled(name):
                yield name, "is given"

    return OfFields(frozenset(names), check)


def in_range(name: str, low: int | None, high: int | None = None, *, zero_too: bool = False) -> Check:
    """Check that the field is an integer between the bounds, or missing."""

    def check(node: Node) -> Iterator[Fault]:
        number = node.number(name)
        if number is None or (zero_too and number == 0):
            return
        if (low is not None and number < low) or (high is not None and number > high):
            yield name, f"is {number}"

    return OfFields(frozenset([name]), check)


def positive_id(name: str) -> Check:
    """Check that the field is an integer above 0, or missing."""

    def check(node: Node) -> Iterator[Fault]:
        value = node.known(name)
        if value is not None and (whole_number(value) or 0) <= 0:
            yield name, f"is {shown(value)}" if isinstance(value, str | int | float) else type_of(value)

    return OfFields(frozenset([name]), check)


def some(name: str) -> Check:
    """Check that the field is there, whatever it holds."""

    def check(node: Node) -> Iterator[Fault]:
        if node.lacks(name):
            yield name, "is missing"

    return check


def one_of(name: str, words: Iterator[str] | tuple[str, ...] | type[Any], *, any_case: bool = False) -> Check:
    """Check that the field is one of the words, or missing."""
    allowed = {str(word).lower() if any_case else str(word) for word in words}

    def check(node: Node) -> Iterator[Fault]:
        value = node.known(name)
        if value is None:
            return
        if not isinstance(value, str):
            yield name, type_of(value)
        elif (value.lower() if any_case else value) not in allowed:
            yield name, f"is {shown(value)}"

    return OfFields(frozenset([name]), check)


def longest(name: str, limit: int, *, in_bytes: bool = False) -> Check:
    """Check that the field has no more characters, or bytes in UTF-8, than the limit."""

    def check(node: Node) -> Iterator[Fault]:
        text = node.text(name)
        if text is None:
            return
        length = len(text.encode(errors="replace")) if in_bytes else len(text)
        if length > limit:
            yield name, f"has {length:,} {'bytes' if in_bytes else 'characters'}"

    return OfFields(frozenset([name]), check)


def matches(name: str, pattern: str) -> Check:
    """Check that the whole field matches the pattern, or is missing."""
    compiled = re.compile(pattern, re.ASCII)

    def check(node: Node) -> Iterator[Fault]:
        text = node.text(name)
        if text is not None and not compiled.fullmatch(text):
            yield name, f"is {shown(text)}"

    return OfFields(frozenset([name]), check)


def most(name: str, limit: int) -> Check:
    """Check that the field, a list or a mapping, has no more entries than the limit."""

    def check(node: Node) -> Iterator[Fault]:
        value = node.value.get(name)
        if (is_list(value) or isinstance(value, dict)) and len(value) > limit:
            yield name, f"has {len(value)} entries"

    return OfFields(frozenset([name]), check)


def unique(name: str, key: str) -> Check:
    """Check that no two elements of the list have the same value of the key."""

    def check(node: Node) -> Iterator[Fault]:
        first: dict[str, int] = {}
        for index, item in node.elements(name):
            value = item.get(key)
            if not isinstance(value, str | int) or is_templated(value):
                continue
            if str(value) in first:
                yield f"{name}[{index}].{key}", f"is {shown(value)}, as is {name}[{first[str(value)]}].{key}"
            first.setdefault(str(value), index)

    return OfFields(frozenset([name]), check)


def ascii_only(name: str) -> Check:
    """Check that all strings of the field, and its keys, consist of ASCII characters."""

    def check(node: Node) -> Iterator[Fault]:
        # Parameters and variables may be secrets: they are not quoted.
        for below, text in strings_in(node.value.get(name)):
            if not text.isascii():
                yield name, f"has other characters than ASCII at {name}{below}"
                return

    return OfFields(frozenset([name]), check)


def json_size(name: str, limit: int, *, wrapped: bool = False, in_bytes: bool = True) -> Check:
    """Check that the field as compact JSON, or an object of it alone, is no longer than the limit."""

    def check(node: Node) -> Iterator[Fault]:
        value = node.known(name)
        if value is None:
            return
        length = size_over(limit, {name: value} if wrapped else value, in_bytes=in_bytes)
        if length:
            yield name, f"has {length:,} {'bytes' if in_bytes else 'characters'} as JSON"

    return OfFields(frozenset([name]), check)


def of_type(name: str, expected: FieldType) -> Check:
    """Check that the field, and each element of it, has the type, or is missing."""

    def check(node: Node) -> Iterator[Fault]:
        if node.known(name) is not None:
            for below, given, _ in expected.mismatches(node.value[name]):
                yield f"{name}{below}", given

    return OfFields(frozenset([name]), check)


def of(name: str, check: Check) -> Check:
    """Make a check only where a field is given, without which it finds nothing."""
    return OfFields(frozenset([name]), check)


def any_of(*checks: Check) -> Check:
    """Make all of the checks, one after the other."""

    def check(node: Node) -> Iterator[Fault]:
        for each in checks:
            if not isinstance(each, OfFields) or each.concerns(node):
                yield from each(node)

    if all(isinstance(each, OfFields) for each in checks):
        return OfFields(frozenset().union(*(each.fields for each in checks if isinstance(each, OfFields))), check)
    return check


def at(path: str, check: Check) -> Check:
    """Report what a check finds below one path; where it is, the text says."""

    def moved(node: Node) -> Iterator[Fault]:
        for below, given in check(node):
            yield path, f"{below} {given}" if below not in {"", path} else given

    return OfFields(check.fields, moved) if isinstance(check, OfFields) else moved


def where(condition: Callable[[Node], bool], then: Check) -> Check:
    """Make a check of those nodes for which the condition holds."""

    def check(node: Node) -> Iterator[Fault]:
        if condition(node):
            yield from then(node)

    return check


def strings_in(value: object, below: str = "") -> Iterator[tuple[str, str]]:
    """Yield each string that is known in a list or mapping, its keys among them, and where below it that is."""
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


def size_over(limit: int, value: object, *, in_bytes: bool = True) -> int | None:
    """Return how long a value is as compact JSON, if over the limit; what is templated in it counts as nothing."""
    # Written in ASCII, templates and all, it is the longer, and this is quick.
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


def shown(value: object) -> str:
    """Quote a value, which is no secret, in short; an address may hold credentials, and is not quoted."""
    if isinstance(value, str) and "://" in value:
        return "an address"
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 2]}…{text[-1]}"


def listed(names: list[str] | tuple[str, ...]) -> str:
    """Join names as a sentence does."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
