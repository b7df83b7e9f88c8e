"""The kinds of fields: which JSON type a field has, as the checks read it and as editors and mypy see it.

A field's annotation is one of the names below. What real callers send is accepted: numbers and booleans as strings,
numbers and booleans where a string is due. A templated value is of every kind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeAlias, TypeGuard, TypeVar, Union

from airflow_dbjobs.payloads.templates import is_templated

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

# What a kind finds wrong: where below the field, what was given, what is allowed.
Mismatch: TypeAlias = tuple[str, str, str]


class Kind:
    """One kind of field. `structure` names the model of what it holds, where that is a mapping with fields."""

    structure: str | None = None
    many = False

    def __init__(self, allowed: str) -> None:
        self.allowed = allowed

    def mismatches(self, value: object) -> Iterable[Mismatch]:
        """Tell what of a value, which is not templated, has another type than the field."""
        return () if self.fits(value) else (("", type_of(value), self.allowed),)

    def fits(self, value: object) -> bool:
        """Whether a value, which is not templated, has the type."""
        raise NotImplementedError


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
                float(value)
            except ValueError:
                return False
            return True
        return isinstance(value, int | float) and not isinstance(value, bool)


class _Bool(Kind):
    def fits(self, value: object) -> bool:
        return isinstance(value, bool) or (isinstance(value, str) and value.lower() in {"true", "false"})


class _Map(Kind):
    def mismatches(self, value: object) -> Iterator[Mismatch]:
        if not isinstance(value, dict):
            yield "", type_of(value), self.allowed
            return
        for key, item in value.items():
            if not is_templated(item) and not isinstance(item, str | bool | int | float):
                yield f".{key}", type_of(item), "a string"


class _Texts(Kind):
    def mismatches(self, value: object) -> Iterator[Mismatch]:
        if not is_list(value):
            yield "", type_of(value), self.allowed
            return
        for index, item in enumerate(value):
            if not is_templated(item) and not TEXT.fits(item):
                yield f"[{index}]", type_of(item), TEXT.allowed


class StructureKind(Kind):
    """A mapping whose fields the model named `structure` describes, or a list of those."""

    def __init__(self, structure: str, *, many: bool = False) -> None:
        super().__init__("a list of mappings" if many else "a mapping")
        self.structure = structure
        self.many = many

    def mismatches(self, value: object) -> Iterator[Mismatch]:
        """Tell whether this is no mapping, or which elements of the list are none; their fields are judged apart."""
        if not self.many:
            if not isinstance(value, dict):
                yield "", type_of(value), self.allowed
        elif not is_list(value):
            yield "", type_of(value), self.allowed
        else:
            for index, item in enumerate(value):
                if not is_templated(item) and not isinstance(item, dict):
                    yield f"[{index}]", type_of(item), "a mapping"


class _Anything(Kind):
    def fits(self, value: object) -> bool:  # noqa: ARG002 (whatever it is)
        return True


TEXT = _Text("a string")
INT = _Int("an integer")
NUMBER = _Number("a number")
BOOL = _Bool("true or false")
MAP = _Map("a mapping of strings")
TEXTS = _Texts("a list of strings")
ANYTHING = _Anything("anything")


def is_list(value: object) -> TypeGuard[Sequence[Any]]:
    """Whether JSON makes a list of `value`."""
    return isinstance(value, (list, tuple))


def whole_number(value: object) -> int | None:
    """Return the integer that `value` is, or that its digits name; None where it is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        digits = value.strip()
        if digits.removeprefix("-").isascii() and digits.removeprefix("-").isdigit():
            return int(digits)
    return None


def type_of(value: object) -> str:
    """Name a value by its type: the value itself may be a whole payload, and hold secrets."""
    if value is None:
        return "is null"
    return f"is of type {type(value).__name__}"


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
            return Annotated[Any, StructureKind(structure)]

    class Many:
        """``Many["Library"]``: a list of those."""

        def __class_getitem__(cls, structure):
            return Annotated[Any, StructureKind(structure, many=True)]
