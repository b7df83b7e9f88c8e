"""A mapping in a payload, as the rules see it: its values, its path, its parent, and what is still unknown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.payloads.field_types import is_list, whole_number
from airflow_dbjobs.payloads.schema import Field, fields_of
from airflow_dbjobs.payloads.suggestions import near_miss
from airflow_dbjobs.payloads.templates import is_templated

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Body:
    """Context that all nodes of a payload share."""

    endpoint: str
    version: str
    # "aws", "azure", "gcp", or "" if unknown.
    cloud: str
    payload: dict[str, Any]
    # Whether the payload may get more fields later, because its `json` is a template.
    open_root: bool

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the job or run: ``new_settings`` if given, otherwise the payload itself."""
        inner = self.payload.get("new_settings")
        return inner if isinstance(inner, dict) else self.payload

    @property
    def is_partial(self) -> bool:
        """Whether the API merges the settings into existing ones, which are unknown here."""
        return self.endpoint == "update"


@dataclass(slots=True)
class Node:
    """A mapping in a payload. `structure` names its type; `below` is its path in `parent`, which the root lacks."""

    body: Body
    value: dict[str, Any]
    structure: str
    parent: Node | None = None
    below: str = ""

    def path_of(self, below: str) -> str:
        """Return the full path of `below`, a path relative to this node; of the node itself if `below` is empty."""
        # Computed on demand: only findings need it.
        path = self.parent.path_of(self.below) if self.parent else ""
        if not below or not path or below.startswith(("[", ".")):
            return f"{path}{below}".removeprefix(".")
        return f"{path}.{below}"

    @property
    def fields(self) -> dict[str, Field]:
        """The known fields of the structure."""
        return fields_of(self.structure)

    def meant_by(self, name: str) -> str | None:
        """Return the field that was probably meant by a misspelt name, unless it is given as well."""
        meant = near_miss(name, tuple(self.fields))
        return meant if meant not in self.value else None

    def has_unknown_fields(self) -> bool:
        """Return whether an unknown field is given that is not a probable misspelling of a known one."""
        return any(
            name not in self.fields and self.given(name) and self.meant_by(str(name)) is None for name in self.value
        )

    def given(self, name: str) -> bool:
        """Return whether the field has a value, including templates and empty values."""
        return self.value.get(name) is not None

    def lacks(self, name: str) -> bool:
        """Return whether the field is definitely missing: not given, and no template may add it."""
        return self.value.get(name) is None and not self._is_open

    def empty(self, name: str) -> bool:
        """Return whether the field is definitely missing, or an empty string."""
        value = self.value.get(name)
        return value == "" or (value is None and not self._is_open)

    def known(self, name: str) -> Any:
        """Return the value of the field, or None if it is missing or a template."""
        value = self.value.get(name)
        return None if value is None or is_templated(value) else value

    def filled(self, name: str) -> bool:
        """Return whether the field has a known, true value: no template, false, zero or empty value."""
        return bool(self.known(name))

    def text(self, name: str) -> str | None:
        """Return the value of the field if it is a string and no template."""
        value = self.value.get(name)
        return value if isinstance(value, str) and not is_templated(value) else None

    def number(self, name: str) -> int | None:
        """Return the value of the field if it is an integer, or a string of digits."""
        return whole_number(self.value.get(name))

    def mapping(self, name: str) -> dict[str, Any]:
        """Return the value of the field if it is a mapping, otherwise an empty mapping."""
        value = self.value.get(name)
        return value if isinstance(value, dict) else {}

    def items(self, name: str) -> list[Any]:
        """Return the elements of the field, templates included; an empty list if it is not a list."""
        value = self.value.get(name)
        return list(value) if is_list(value) else []

    def elements(self, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield index and value of the elements that are mappings."""
        for index, item in enumerate(self.items(name)):
            if isinstance(item, dict):
                yield index, item

    def all_known(self, name: str) -> bool:
        """Return whether neither the field nor any of its elements is a template, so that the list is complete."""
        return not is_templated(self.value.get(name)) and not any(map(is_templated, self.items(name)))

    @property
    def _is_open(self) -> bool:
        return self.parent is None and self.body.open_root
