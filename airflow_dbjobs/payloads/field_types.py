"""The types of fields: what editors and mypy allow in a field, and what the checks expect there.

A field is declared as ``Annotated[Int, v21("Its meaning.")]``. What real callers send is accepted: numbers and booleans
as strings, and numbers and booleans where a string is due. A template or an XComArg may stand in for any value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, Protocol, TypeAlias, TypeGuard, TypeVar

from airflow_dbjobs.payloads.templates import is_templated

Mismatch: TypeAlias = tuple[str, str, str]

# No number of the API has as many; of thousands Python makes none.
MAX_DIGITS = 100
_WHOLE = re.compile(rf"\s*(-?[0-9]{{1,{MAX_DIGITS}}})(\.0{{1,{MAX_DIGITS}}})?\s*")


class FieldType(NamedTuple):
    """The type of a field in words, its test, and the type of the elements of a list or the values of a mapping."""

    allowed: str
    fits: Callable[[object], bool]
    element: FieldType | None = None

    def mismatches(self, value: Any) -> Sequence[Mismatch]:
        """Return where below a field something has another type, what it is, and what is allowed."""
        if not self.fits(value):
            return () if is_templated(value) else (("", type_of(value), self.allowed),)
        if self.element is None:
            return ()
        _, fits, _ = self.element
        if all(map(fits, value.values() if isinstance(value, dict) else value)):
            return ()
        return [
            (below, type_of(item), self.element.allowed)
            for below, item in _elements(value)
            if not fits(item) and not is_templated(item)
        ]


def _elements(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        # Null is dropped before anything is sent.
        return ((f".{key}", item) for key, item in value.items() if item is not None)
    return ((f"[{index}]", item) for index, item in enumerate(value))


def is_list(value: object) -> TypeGuard[Sequence[Any]]:
    """Whether JSON makes a list of `value`."""
    return isinstance(value, (list, tuple))


def is_mapping(value: object) -> TypeGuard[dict[str, Any]]:
    """Whether `value` is a JSON object."""
    return isinstance(value, dict)


def is_bool(value: object) -> bool:
    """Whether `value` is a boolean, or spelt as one."""
    return isinstance(value, bool) or (isinstance(value, str) and value.lower() in {"true", "false"})


def whole_number(value: object) -> int | None:
    """Return the integer that `value` is, or that its digits name (of at most MAX_DIGITS); None where it is none."""
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


TEXT = FieldType("a string", _is_text)
MAP = FieldType("a mapping of strings", is_mapping, TEXT)
STRUCTURE = FieldType("a mapping", is_mapping)
STRUCTURES = FieldType("a list of mappings", is_list, STRUCTURE)


def type_of(value: object) -> str:
    """Name a value by its type: the value itself may be a whole payload, and hold secrets."""
    if value is None:
        return "is null"
    return f"is of type {type(value).__name__}"


def printable(text: str) -> str:
    """Return a text with escapes in the place of what steers a terminal, or cannot be seen."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


class Resolvable(Protocol):
    """What Airflow replaces by a value when the task runs: an XComArg, for one."""

    def resolve(self, *args: Any, **kwargs: Any) -> Any:
        """Return the value."""


class KnownFieldsOnly:
    """The type that mypy names where a dict literal has a key that is no field."""


class Untyped(Protocol):
    """A ``dict[str, Any]``, as a function may return it; its values may be of any type, so that this type fits.

    A dict literal is of the structure's type instead, or wrong: Mapping[str, Any] would let misspelt keys pass.
    """

    def __getitem__(self, name: Any, /) -> KnownFieldsOnly:
        """Return a value."""


S = TypeVar("S")
Text: TypeAlias = Annotated[str | Resolvable | None, TEXT]
Int: TypeAlias = Annotated[int | str | Resolvable | None, FieldType("an integer", _is_whole_number)]
Number: TypeAlias = Annotated[float | str | Resolvable | None, FieldType("a number", _is_number)]
Bool: TypeAlias = Annotated[bool | str | Resolvable | None, FieldType("true or false", is_bool)]
Map: TypeAlias = Annotated[Mapping[str, Any] | str | Resolvable | None, MAP]
Texts: TypeAlias = Annotated[
    Sequence[str | Resolvable] | str | Resolvable | None, FieldType("a list of strings", is_list, TEXT)
]
# A structure, by its name in quotes: its module need not be loaded.
One = Annotated[S | Untyped | str | Resolvable | None, STRUCTURE]
Many = Annotated[Sequence[S | Untyped | str | Resolvable] | str | Resolvable | None, STRUCTURES]


class Source(NamedTuple):
    """What a field means, the document that describes it, and the API version it needs (None: any, or not known)."""

    meaning: str
    document: str
    since: str | None = None


def v20(meaning: str) -> Source:
    """Declare a field that the newest 2.0 reference page lists."""
    return Source(meaning, "Jobs API 2.0 reference")


def v21(meaning: str) -> Source:
    """Declare a field that came with API 2.1, and is not understood by 2.0."""
    return Source(meaning, "Jobs API 2.1", "2.1")


def v22(meaning: str) -> Source:
    """Declare a field that came with API 2.2."""
    return Source(meaning, "Jobs API 2.2", "2.2")


def sdk(meaning: str) -> Source:
    """Declare a field that the vendor's SDK lists, and of which no version is known that would not take it."""
    return Source(meaning, "Databricks SDK, Jobs API 2.2")
