"""Field types: what editors and mypy accept in a field, and what validation accepts.

A field is declared as ``Annotated[Int, v21("Its meaning.")]``. Like the API, validation accepts numbers and booleans
written as strings, and numbers and booleans in string fields. Any field accepts a template or an XComArg.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, Protocol, TypeAlias, TypeGuard, TypeVar

from airflow_dbjobs.payloads.templates import is_templated

Mismatch: TypeAlias = tuple[str, str, str]

# Far more than any number of the API has. Python refuses to parse thousands of digits.
MAX_DIGITS = 100
_WHOLE = re.compile(rf"\s*(-?[0-9]{{1,{MAX_DIGITS}}})(\.0{{1,{MAX_DIGITS}}})?\s*")


class FieldType(NamedTuple):
    """A type: its description, its predicate, and the type of a list's elements or a mapping's values.

    Values of the classes `exact`, which most have, fit without calling the predicate; lists and mappings with an
    `element` have none.
    """

    allowed: str
    fits: Callable[[object], bool]
    element: FieldType | None = None
    exact: frozenset[type] = frozenset()

    def mismatches(self, value: Any) -> Sequence[Mismatch]:
        """Return the path below the field, the given type and the allowed type of each value with a wrong type."""
        if type(value) in self.exact:
            return ()
        if not self.fits(value):
            return () if is_templated(value) else (("", type_of(value), self.allowed),)
        if self.element is None:
            return ()
        items, fits = value.values() if isinstance(value, dict) else value, self.element.fits
        if self.element.exact.issuperset(map(type, items)) or all(map(fits, items)):
            return ()
        return [
            (below, type_of(item), self.element.allowed)
            for below, item in _elements(value)
            if not fits(item) and not is_templated(item)
        ]


def _elements(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        # Null values are dropped before sending.
        return ((f".{key}", item) for key, item in value.items() if item is not None)
    return ((f"[{index}]", item) for index, item in enumerate(value))


def is_list(value: object) -> TypeGuard[Sequence[Any]]:
    """Return whether JSON writes `value` as a list."""
    return isinstance(value, (list, tuple))


def is_mapping(value: object) -> TypeGuard[dict[str, Any]]:
    """Return whether `value` is a JSON object."""
    return isinstance(value, dict)


def is_bool(value: object) -> bool:
    """Return whether `value` is a boolean, or the string "true" or "false" in any case."""
    return isinstance(value, bool) or (isinstance(value, str) and value.lower() in {"true", "false"})


def whole_number(value: object) -> int | None:
    """Return `value` as an integer if it is one, or a string of at most MAX_DIGITS digits; otherwise None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and (digits := _WHOLE.fullmatch(value)):
        return int(digits[1])
    return None


def _is_whole_number(value: object) -> bool:
    return whole_number(value) is not None


def _is_number(value: object) -> bool:
    if isinstance(value, str):
        try:
            return math.isfinite(float(value))
        except ValueError:
            return False
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_text(value: object) -> bool:
    return isinstance(value, (str, int, float))


TEXT = FieldType("a string", _is_text, exact=frozenset({str, int, float, bool}))
MAP = FieldType("a mapping of strings", is_mapping, TEXT)
STRUCTURE = FieldType("a mapping", is_mapping, exact=frozenset({dict}))
STRUCTURES = FieldType("a list of mappings", is_list, STRUCTURE)


def type_of(value: object) -> str:
    """Describe a value by its type only: the value may be a whole payload, and hold secrets."""
    if value is None:
        return "is null"
    return f"is of type {type(value).__name__}"


def printable(text: str) -> str:
    """Return `text` with control and other non-printable characters escaped."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


class Resolvable(Protocol):
    """An object, such as an XComArg, that Airflow replaces by a value when the task runs."""

    def resolve(self, *args: Any, **kwargs: Any) -> Any:
        """Return the value."""


class KnownFieldsOnly:
    """Marker that appears in mypy's error for a dict literal with an unknown field."""


class Untyped(Protocol):
    """Accepts a ``dict[str, Any]`` variable or return value, but no dict literal.

    mypy therefore checks a dict literal against the structure's TypedDict. ``Mapping[str, Any]`` would accept literals
    with misspelt keys.
    """

    def __getitem__(self, name: Any, /) -> KnownFieldsOnly:
        """Return a value."""


S = TypeVar("S")
Text: TypeAlias = Annotated[str | Resolvable | None, TEXT]
Int: TypeAlias = Annotated[
    int | str | Resolvable | None, FieldType("an integer", _is_whole_number, exact=frozenset({int}))
]
Number: TypeAlias = Annotated[float | str | Resolvable | None, FieldType("a number", _is_number)]
Bool: TypeAlias = Annotated[
    bool | str | Resolvable | None, FieldType("true or false", is_bool, exact=frozenset({bool}))
]
Map: TypeAlias = Annotated[Mapping[str, Any] | str | Resolvable | None, MAP]
Texts: TypeAlias = Annotated[
    Sequence[str | Resolvable] | str | Resolvable | None, FieldType("a list of strings", is_list, TEXT)
]
# The argument is a quoted name, so that the module of the structure is not imported.
One = Annotated[S | Untyped | str | Resolvable | None, STRUCTURE]
Many = Annotated[Sequence[S | Untyped | str | Resolvable] | str | Resolvable | None, STRUCTURES]


class Source(NamedTuple):
    """The meaning of a field, its documentation, and the API version it requires (None: any, or unknown)."""

    meaning: str
    document: str
    since: str | None = None


def v20(meaning: str) -> Source:
    """Declare a field that the latest reference of API 2.0 lists."""
    return Source(meaning, "Jobs API 2.0 reference")


def v21(meaning: str) -> Source:
    """Declare a field that API 2.1 introduced and 2.0 ignores."""
    return Source(meaning, "Jobs API 2.1", "2.1")


def v22(meaning: str) -> Source:
    """Declare a field that API 2.2 introduced."""
    return Source(meaning, "Jobs API 2.2", "2.2")


def sdk(meaning: str) -> Source:
    """Declare a field that the Databricks SDK lists, and that no API version is known to reject."""
    return Source(meaning, "Databricks SDK, Jobs API 2.2")
