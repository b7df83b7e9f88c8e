"""The base of all models, and how a field tells its meaning, unit, default and source."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence, Set
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from airflow_dbjobs.payloads.body import depth_in_words
from airflow_dbjobs.payloads.kinds import ANYTHING, Kind

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

_SCALARS = frozenset({str, int, float, bool, type(None)})
_TEXTS = (str, bytes, bytearray)


class Structure(BaseModel):
    """A data structure of the Jobs API, with the reference's field names; every field may be left out.

    A model holds what it is given, templates and unknown fields among it, and judges nothing itself: the operator (or
    ``payloads.check``) judges the whole payload at once, so that one message names every violation by its full path.
    """

    # defer_build: most processes only read what the fields are, and never make an instance.
    model_config = ConfigDict(extra="allow", defer_build=True, protected_namespaces=())

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a plain dict, without those that are None; templates and XComArgs stay as they are."""
        with depth_in_words:
            return _fields_of(self)


class Answer(Structure):
    """A data structure that the API answers with. A field that the answer has not is None."""

    _raw: Mapping[str, Any] = PrivateAttr(default_factory=dict)

    @property
    def raw(self) -> Mapping[str, Any]:
        """The JSON that this was read from."""
        return self._raw

    if TYPE_CHECKING:
        # Fields that are unknown here are attributes as well.
        def __getattr__(self, name: str) -> Any: ...

    def keep(self, raw: Mapping[str, Any]) -> None:
        """Remember what this was read from."""
        self._raw = raw


def plain(value: Any) -> Any:
    """Return `value` with each model in it, at any depth, made a dict, and each enum member the value it stands for.

    What holds neither is returned as it is, the same object. Raises ConfigurationError where it holds itself.
    """
    with depth_in_words:
        return _plain(value)


def _plain(value: Any) -> Any:
    kind = type(value)
    if kind in _SCALARS:
        return value
    if isinstance(value, Structure):
        return _fields_of(value)
    if isinstance(value, enum.Enum):
        return value.value
    if kind is dict or isinstance(value, Mapping):
        return _plain_mapping(value)
    if kind is list or kind is tuple or (isinstance(value, Sequence | Set) and not isinstance(value, _TEXTS)):
        return _plain_list(value)
    return value


def _plain_mapping(value: Mapping[Any, Any]) -> Any:
    made, same = {}, True
    for key, item in value.items():
        new_key = key if type(key) is str else _plain(key)
        new = made[new_key] = item if type(item) in _SCALARS else _plain(item)
        same = same and new is item and new_key is key
    return value if same else made


def _plain_list(value: Sequence[Any] | Set[Any]) -> Any:
    items = [item if type(item) in _SCALARS else _plain(item) for item in value]
    if all(new is old for new, old in zip(items, value, strict=True)):
        return value
    return tuple(items) if isinstance(value, tuple) else set(items) if isinstance(value, Set) else items


def _fields_of(model: Structure) -> dict[str, Any]:
    fields = {**vars(model), **(model.__pydantic_extra__ or {})}
    return {name: _plain(value) for name, value in fields.items() if value is not None}


class FieldFacts(NamedTuple):
    """What the checks know of a field: its kind, and the API version that it needs (None: any, or not known)."""

    kind: Kind
    since: str | None


@cache
def facts_of(model: type[Structure]) -> dict[str, FieldFacts]:
    """Return the facts of each field of a model. They are asked for at each place of each payload."""
    return {name: FieldFacts(_kind(field), _extra(field).get("since")) for name, field in model.model_fields.items()}


def _kind(field: FieldInfo) -> Kind:
    return next((item for item in field.metadata if isinstance(item, Kind)), ANYTHING)


def _extra(field: FieldInfo) -> dict[str, Any]:
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}


def seed(meaning: str, *, default: str = "", unit: str = "", secret: bool = False) -> Any:
    """Declare a field that the newest 2.0 reference page lists. What may hold a secret is not in the model's repr."""
    return _field(meaning, "Jobs API 2.0 reference", None, default, unit, secret=secret)


def v21(meaning: str, *, default: str = "", unit: str = "", secret: bool = False) -> Any:
    """Declare a field that came with API 2.1, and is not understood by 2.0."""
    return _field(meaning, "Jobs API 2.1", "2.1", default, unit, secret=secret)


def v22(meaning: str, *, default: str = "", unit: str = "", secret: bool = False) -> Any:
    """Declare a field that came with API 2.2."""
    return _field(meaning, "Jobs API 2.2", "2.2", default, unit, secret=secret)


def sdk(meaning: str, *, default: str = "", unit: str = "", secret: bool = False) -> Any:
    """Declare a field that the vendor's SDK lists, and of which no version is known that would not take it."""
    return _field(meaning, "Databricks SDK, Jobs API 2.2", None, default, unit, secret=secret)


def _field(meaning: str, source: str, since: str | None, default: str, unit: str, *, secret: bool) -> Any:
    trail = (f"Unit: {unit}." if unit else "", f"Default: {default}." if default else "", f"[{source}]")
    return Field(
        default=None,
        repr=not secret,
        description=" ".join([meaning, *(part for part in trail if part)]),
        json_schema_extra={"source": source, "since": since, "default": default, "unit": unit},
    )
