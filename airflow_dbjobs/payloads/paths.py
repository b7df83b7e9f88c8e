"""A mapping in a payload and its path, as the rules see it: what is given, what is not known yet, what is around it."""

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
    """What all nodes of one payload share."""

    endpoint: str
    version: str
    # "aws", "azure", "gcp", or "" where it is not known.
    cloud: str
    payload: dict[str, Any]
    # Whether fields may still come to the payload: its `json` is a template.
    open_root: bool

    @property
    def settings(self) -> dict[str, Any]:
        """The job's or run's settings: the payload itself, or what it puts into ``new_settings``."""
        inner = self.payload.get("new_settings")
        return inner if isinstance(inner, dict) else self.payload

    @property
    def is_partial(self) -> bool:
        """Whether the settings are merged into others, which are not known here."""
        return self.endpoint == "update"


@dataclass(slots=True)
class Node:
    """A mapping in a payload, of the structure of that name. The whole has no parent; others lie at `below` theirs."""

    body: Body
    value: dict[str, Any]
    structure: str
    parent: Node | None = None
    below: str = ""

    def path_of(self, below: str) -> str:
        """Return the path of something below this node, or of the node itself where `below` is empty."""
        # Made only where something is wrong.
        path = self.parent.path_of(self.below) if self.parent else ""
        if not below or not path or below.startswith(("[", ".")):
            return f"{path}{below}".removeprefix(".")
        return f"{path}.{below}"

    @property
    def fields(self) -> dict[str, Field]:
        """The fields of the structure that are known here."""
        return fields_of(self.structure)

    def meant_by(self, name: str) -> str | None:
        """Return the field that a misspelt name probably stands for."""
        meant = near_miss(name, tuple(self.fields))
        return meant if meant not in self.value else None

    def has_unknown_fields(self) -> bool:
        """Whether a field is given that is unknown here, and no slip for one that is known."""
        return any(
            name not in self.fields and self.given(name) and self.meant_by(str(name)) is None for name in self.value
        )

    def given(self, name: str) -> bool:
        """Whether the field is there, whatever it holds."""
        return self.value.get(name) is not None

    def lacks(self, name: str) -> bool:
        """Whether the field is missing for sure."""
        return not self.given(name) and not self._is_open

    def empty(self, name: str) -> bool:
        """Whether the field is missing for sure, or an empty string."""
        return self.lacks(name) or self.value.get(name) == ""

    def known(self, name: str) -> Any:
        """Return the field's value, or None where it is missing or only the run will know it."""
        value = self.value.get(name)
        return None if value is None or is_templated(value) else value

    def filled(self, name: str) -> bool:
        """Whether the field surely holds something; false, and empty strings, lists and mappings, are nothing."""
        return bool(self.known(name))

    def text(self, name: str) -> str | None:
        """Return the field's value if it is a string that is known."""
        value = self.known(name)
        return value if isinstance(value, str) else None

    def number(self, name: str) -> int | None:
        """Return the field's value if it is an integer, or its digits, that is known."""
        return whole_number(self.known(name))

    def mapping(self, name: str) -> dict[str, Any]:
        """Return the field's value if it is a mapping; else an empty one."""
        value = self.value.get(name)
        return value if isinstance(value, dict) else {}

    def items(self, name: str) -> list[Any]:
        """Return the field's elements, templated ones among them; none where it is no list."""
        value = self.value.get(name)
        return list(value) if is_list(value) else []

    def elements(self, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the index and value of those of the field's elements that are mappings."""
        for index, item in enumerate(self.items(name)):
            if isinstance(item, dict):
                yield index, item

    def all_known(self, name: str) -> bool:
        """Whether the field is no template, and none of its elements is: what is not in the list is not there."""
        value = self.value.get(name)
        return not is_templated(value) and not any(is_templated(item) for item in self.items(name))

    @property
    def _is_open(self) -> bool:
        return self.parent is None and self.body.open_root
