"""`dbutils.widgets`."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from .errors import InputWidgetNotDefinedError
from .utility import Utility

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Widgets(Utility):
    """`dbutils.widgets`: the notebook's parameters, which override the defaults that the notebook defines."""

    def __init__(self, parameters: Mapping[str, str]) -> None:
        self._values = dict(parameters)

    def text(self, name: str, defaultValue: str, label: str = "") -> None:
        """Define a widget."""
        self._values.setdefault(name, str(defaultValue))

    def dropdown(self, name: str, defaultValue: str, choices: list[str], label: str = "") -> None:
        """Define a widget whose value is one of `choices`."""
        self._values.setdefault(name, str(defaultValue))

    combobox = multiselect = dropdown

    def get(self, name: str) -> str:
        """Return the value of a widget; raise InputWidgetNotDefinedError if it is not defined."""
        if name not in self._values:
            raise InputWidgetNotDefinedError(f"there is no widget {name!r}, and no parameter of that name")
        return self._values[name]

    def getArgument(self, name: str, default: str | None = None) -> str:
        """Return the value of a widget, or `default`."""
        return self.get(name) if default is None else self._values.get(name, default)

    def getAll(self) -> dict[str, str]:
        """Return all values, by name."""
        return dict(self._values)

    def remove(self, name: str) -> None:
        """Remove a widget."""
        self._values.pop(name, None)

    def removeAll(self) -> None:
        """Remove all widgets."""
        self._values.clear()

    @contextlib.contextmanager
    def overridden(self, arguments: Mapping[str, str]) -> Iterator[None]:
        """Give widgets other values for a while, as the arguments of `%run` do."""
        before = {name: self._values[name] for name in arguments if name in self._values}
        self._values.update(arguments)
        yield
        self._values.update(before)
