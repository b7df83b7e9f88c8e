"""The kinds of fields: which JSON type a field has, as the checks read it and as editors and mypy see it.

A field's annotation is one of the names below. What real callers send is accepted: numbers and booleans as strings,
numbers and booleans where a string is due. A templated value is of every kind.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeAlias, TypeGuard, TypeVar, Union

from airflow_dbjobs.payloads.templates import is_templated

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# What a kind finds wrong: where below the field, what was given, what is allowed.
Mismatch: TypeAlias = tuple[str, str, str]

# No number of the API has as many; of thousands Python makes none.
MAX_DIGITS = 100
_WHOLE = re.compile(rf"\s*(-?[0-9]{{1,{MAX_DIGITS}}})(\.0{{1,{MAX_DIGITS}}})?\s*")


class Kind:
    """One kind of field. `structure` names the model of what it holds, where that is a mapping with fields."""

    structure: str | None = None
    many = False

    def __init__(self, allowed: str) -> None:
        self.allowed = allowed

    def fits(self, value: object) -> bool:
        """Whether a value, which holds no template, has the type."""
        raise NotImplementedError

    def mismatches(self, value: object) -> list[Mismatch]:
        """Tell what of a value that does not fit has another type than the field; templates have every type."""
        return [] if is_templated(value) else [("", type_of(value), self.allowed)]


class _Text(Kind):
    def fits(self, value: object) -> bool:
        return isinstance(value, (str, int, float))


class _Int(Kind):
    def fits(self, value: object) -> bool:
        return whole_number(value) is not None


class _Number(Kind):
    def fits(self, value: object) -> bool:
        if isinstance(value, str):
            try:
                return math.isfinite(float(value))
            except ValueError:
                return False
        return isinstance(value, int | float) and not isinstance(value, bool)


class _Bool(Kind):
    def fits(self, value: object) -> bool:
        return isinstance(value, bool) or (isinstance(value, str) and value.lower() in {"true", "false"})


class _Map(Kind):
    def fits(self, value: object) -> bool:
        return isinstance(value, dict) and all(map(TEXT.fits, value.values()))

    def mismatches(self, value: object) -> list[Mismatch]:
        if not isinstance(value, dict):
            return super().mismatches(value)
        return [
            (f".{key}", type_of(item), TEXT.allowed)
            for key, item in value.items()
            # Null is dropped before anything is sent.
            if item is not None and not TEXT.fits(item) and not is_templated(item)
        ]


class _List(Kind):
    """A list whose elements have one kind."""

    def __init__(self, allowed: str, element: Kind) -> None:
        super().__init__(allowed)
        self.element = element

    def fits(self, value: object) -> bool:
        return is_list(value) and all(map(self.element.fits, value))

    def mismatches(self, value: object) -> list[Mismatch]:
        if not is_list(value):
            return super().mismatches(value)
        return [
            (f"[{index}]", type_of(item), self.element.allowed)
            for index, item in enumerate(value)
            if not self.element.fits(item) and not is_templated(item)
        ]


class _Mapping(Kind):
    """A mapping whose fields the model named `structure` describes; they are judged apart."""

    def __init__(self, structure: str) -> None:
        super().__init__("a mapping")
        self.structure = structure

    def fits(self, value: object) -> bool:
        return isinstance(value, dict)


class _Mappings(_List):
    """A list of mappings whose fields the model named `structure` describes."""

    many = True

    def __init__(self, structure: str) -> None:
        super().__init__("a list of mappings", _Mapping(structure))
        self.structure = structure


class _Anything(Kind):
    def fits(self, value: object) -> bool:  # noqa: ARG002 (whatever it is)
        return True


TEXT = _Text("a string")
INT = _Int("an integer")
NUMBER = _Number("a number")
BOOL = _Bool("true or false")
MAP = _Map("a mapping of strings")
TEXTS = _List("a list of strings", TEXT)
ANYTHING = _Anything("anything")


def is_list(value: object) -> TypeGuard[Sequence[Any]]:
    """Whether JSON makes a list of `value`."""
    return isinstance(value, (list, tuple))


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


if TYPE_CHECKING:

    class Resolvable(Protocol):
        """What Airflow puts a value for when the task runs: an XComArg, for one."""

        def resolve(self, *args: Any, **kwargs: Any) -> Any:
            """Return the value."""

    _S = TypeVar("_S")
    Text: TypeAlias = str | Resolvable | None
    Int: TypeAlias = int | str | Resolvable | None
    Number: TypeAlias = float | int | str | Resolvable | None
    Bool: TypeAlias = bool | str | Resolvable | None
    Map: TypeAlias = Mapping[str, Any] | str | Resolvable | None
    Texts: TypeAlias = Sequence[str | Resolvable] | str | Resolvable | None
    Anything: TypeAlias = Any
    One = Union[_S, Mapping[str, Any], str, Resolvable, None]  # noqa: UP007 (a generic alias of `X | Y` needs 3.12)
    Many = Union[Sequence[_S | Mapping[str, Any] | str | Resolvable], str, Resolvable, None]  # noqa: UP007 (likewise)
else:
    Text = Annotated[Any, TEXT]
    Int = Annotated[Any, INT]
    Number = Annotated[Any, NUMBER]
    Bool = Annotated[Any, BOOL]
    Map = Annotated[Any, MAP]
    Texts = Annotated[Any, TEXTS]
    Anything = Annotated[Any, ANYTHING]

    class One:
        """``One["NewCluster"]``: a NewCluster, or a mapping of its fields. Named only, not loaded."""

        def __class_getitem__(cls, structure):
            return Annotated[Any, _Mapping(structure)]

    class Many:
        """``Many["Library"]``: a list of those."""

        def __class_getitem__(cls, structure):
            return Annotated[Any, _Mappings(structure)]
