"""The base of all models, and how a field tells its meaning, unit, default and source."""

from __future__ import annotations

import enum
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from airflow_dbjobs.payloads.kinds import ANYTHING, Kind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic.fields import FieldInfo


class Structure(BaseModel):
    """A data structure of the Jobs API, with the reference's field names; every field may be left out.

    A model holds what it is given, templates and unknown fields among it, and judges nothing itself: the operator (or
    ``payloads.check``) judges the whole payload at once, so that one message names every violation by its full path.
    """

    # defer_build: most processes only read what the fields are, and never make an instance.
    model_config = ConfigDict(extra="allow", defer_build=True, protected_namespaces=())

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a plain dict, without those that are None; templates and XComArgs stay as they are."""
        fields = {**vars(self), **(self.__pydantic_extra__ or {})}
        return {name: plain(value) for name, value in fields.items() if value is not None}


class Answer(Structure):
    """A data structure that the API answers with. A field that the answer has not is None."""

    _raw: Mapping[str, Any] = PrivateAttr(default_factory=dict)

    @property
    def raw(self) -> Mapping[str, Any]:
        """The JSON that this was read from."""
        return self._raw

    def keep(self, raw: Mapping[str, Any]) -> None:
        """Remember what this was read from."""
        self._raw = raw


def plain(value: Any) -> Any:
    """Return `value` with each model in it, at any depth, made a dict, and each enum member the value it stands for.

    What holds neither is returned as it is, the same object.
    """
    if isinstance(value, Structure):
        return value.to_dict()
    if isinstance(value, enum.Enum):
        return value.value
    kind = type(value)
    if kind is dict:
        made = {key: plain(item) for key, item in value.items()}
        return made if any(made[key] is not value[key] for key in value) else value
    if kind is list or kind is tuple:
        items = [plain(item) for item in value]
        return kind(items) if any(new is not old for new, old in zip(items, value, strict=True)) else value
    return value


class FieldFacts(NamedTuple):
    """What the checks know of a field: its kind, and the API version that it needs (None: any, or not known)."""

    kind: Kind
    since: str | None


@cache
def facts_of(model: type[Structure]) -> dict[str, FieldFacts]:
    """Return the facts of each field of a model. They are asked for at each place of each payload."""
    return {name: FieldFacts(_kind(field), _extra(field).get("since")) for name, field in model.model_fields.items()}


def default_of(model: type[Structure], name: str) -> str:
    """Return what the reference says is so where a field is left out; "" where it says nothing."""
    field = model.model_fields.get(name)
    return str(_extra(field).get("default") or "") if field else ""


def _kind(field: FieldInfo) -> Kind:
    return next((item for item in field.metadata if isinstance(item, Kind)), ANYTHING)


def _extra(field: FieldInfo) -> dict[str, Any]:
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}


def seed(meaning: str, *, default: str = "", unit: str = "") -> Any:
    """Declare a field that the newest 2.0 reference page lists."""
    return _field(meaning, "Jobs API 2.0 reference", None, default, unit)


def v21(meaning: str, *, default: str = "", unit: str = "") -> Any:
    """Declare a field that came with API 2.1, and is not understood by 2.0."""
    return _field(meaning, "Jobs API 2.1", "2.1", default, unit)


def v22(meaning: str, *, default: str = "", unit: str = "") -> Any:
    """Declare a field that came with API 2.2."""
    return _field(meaning, "Jobs API 2.2", "2.2", default, unit)


def sdk(meaning: str, *, default: str = "", unit: str = "") -> Any:
    """Declare a field that the vendor's SDK lists, and of which no version is known that would not take it."""
    return _field(meaning, "Databricks SDK, Jobs API 2.2", None, default, unit)


def _field(meaning: str, source: str, since: str | None, default: str, unit: str) -> Any:
    trail = (f"Unit: {unit}." if unit else "", f"Default: {default}." if default else "", f"[{source}]")
    return Field(
        default=None,
        description=" ".join([meaning, *(part for part in trail if part)]),
        json_schema_extra={"source": source, "since": since, "default": default, "unit": unit},
    )
