"""The references in a bundle: `${var.x}`, `${bundle.target}`, `${resources.jobs.KEY.id}` and so on."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_dbjobs.payloads.bundles import Node

_REFERENCE = re.compile(r"\$\{([^\W\d_][\w-]*(?:\.[^\W\d_][\w-]*|\[\d+\])*)\}")
_NAME = re.compile(r"[^.\[\]]+")
#: Where references begin. Others, such as `${HOME}`, do not belong to the bundle.
_SECTIONS = ("bundle", "workspace", "variables", "resources")
#: A few lines of variables that consist of each other can expand to billions of values.
_MAX_REPLACED = 100_000
_DEFINITION = {"default", "lookup", "type", "description"}


class References:
    """Replaces the references of a bundle by their values.

    :param bundle: The bundle, with what the target overrides.
    :param target: The name of the target.
    :param known: Values that the files do not have, by reference: `{"bundle.target": "dev"}`.
    """

    def __init__(self, bundle: Node, target: str, known: Mapping[str, Any]) -> None:
        self._bundle = bundle
        self._target = target
        self._known = known
        self._replaced_count = 0
        #: References that only a real workspace can replace, and where each is first. They stay as they are.
        self.unknown: dict[str, str] = {}

    def resolved(self, node: Node) -> Node:
        """Return a value with the references in it replaced.

        :raises ConfigurationError: A variable has no value, or a reference leads to itself.
        """
        return self._resolved(node, ())

    def _resolved(self, node: Node, active: tuple[str, ...]) -> Node:
        return node.map(lambda scalar, _: self._replaced(scalar, active))

    def _replaced(self, node: Node, active: tuple[str, ...]) -> Node:
        """Return a scalar with its references replaced. One that is nothing but a reference becomes any value."""
        if not isinstance(node.value, str):
            return node
        if whole := _REFERENCE.fullmatch(node.value):
            found = self._value(whole[1], node, active)
            # A relative path is relative to the file with the reference.
            return replace(found, file=node.file, line=node.line, path=node.path) if found else node

        def text(match: re.Match[str]) -> str:
            found = self._value(match[1], node, active)
            if found and isinstance(found.value, dict | list):
                raise ConfigurationError(f"{node.place}: {match[0]} is not a text; it must be a field's whole value.")
            value = found.value if found else match[0]
            return value if isinstance(value, str) else json.dumps(value)

        return replace(node, value=_REFERENCE.sub(text, node.value))

    def _value(self, reference: str, node: Node, active: tuple[str, ...]) -> Node | None:
        """Return the value of a reference in `node`, or None if it is unknown."""
        if reference in active:
            raise ConfigurationError(f"{node.place}: ${{{reference}}} leads to itself. Replace one of the references.")
        self._replaced_count += 1
        if self._replaced_count > _MAX_REPLACED:
            raise ConfigurationError(
                f"{node.place}: the references expand to more than {_MAX_REPLACED:,} values. Write smaller variables."
            )
        if reference in self._known:
            return replace(node, value=self._known[reference])
        section, *names = _NAME.findall(reference)
        path = [int(name) if name.isdecimal() else name for name in names]
        if section == "var" or (section == "variables" and path[1:2] == ["value"]):
            section, path = "variables", [*path[:1], *(path[1:] if section == "var" else path[2:])]
        if section not in _SECTIONS or not path:
            return None
        # What follows the name of a variable is a part of its value, which may consist of references, too.
        whole, part = (
            (self._variable(str(path[0]), node), path[1:])
            if section == "variables"
            else (self._bundle.get(section, *path), [])
        )
        found = self._resolved(whole, (*active, reference)).get(*part) if whole else None
        if found is None:
            self.unknown.setdefault(reference, node.place)
        return found

    def _variable(self, name: str, node: Node) -> Node | None:
        """Return the value of a variable, or None if only a real workspace could look it up."""
        variable = f"BUNDLE_VAR_{name}"
        if variable in os.environ:
            return replace(node, value=os.environ[variable])
        declared = self._bundle.get("variables", name)
        for definition in (self._bundle.get("targets", self._target, "variables", name), declared):
            if definition is None or definition.value is None:
                continue
            if not (isinstance(definition.value, dict) and definition.value.keys() <= _DEFINITION):
                return definition
            if (default := definition.get("default")) and default.value is not None:
                return default
            if definition.get("lookup"):
                return None
        if declared is None:
            raise ConfigurationError(f"{node.place}: there is no variable {name!r}. Declare it in `variables`.")
        raise ConfigurationError(
            f"{node.place}: the variable {name!r} has no value. Give it a default, or set the environment variable"
            f" {variable}."
        )
