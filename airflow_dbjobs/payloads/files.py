"""Reads payload files, JSON or YAML, and knows on which line each of their fields stands."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml  # type: ignore[import-untyped]  # its stubs are a package of their own

from airflow_dbjobs.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True)
class Document:
    """One payload of a file, and the line of each path in it."""

    payload: Any
    lines: dict[str, int]

    def line_of(self, path: str) -> int:
        """Return the line of a field; of one that is missing, the line of what it is missing in."""
        while path and path not in self.lines:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.lines.get(path, 1)


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # untyped, see above
    """Reads what JSON can hold: a date is a string."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read(file: Path) -> list[Document]:
    """Return the payloads of a file, of which YAML may hold several. Raises ConfigurationError if it cannot be read."""
    try:
        text = file.read_text(encoding="utf-8")
        return _read_json(text) if file.suffix == ".json" else list(_read_yaml(text))
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{file}: is no text in UTF-8.") from error
    except json.JSONDecodeError as error:
        raise ConfigurationError(f"{file}:{error.lineno}: is no JSON: {error.msg}.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigurationError(f"{file}{line}: is no YAML: {getattr(error, 'problem', None) or error}.") from error


def _read_json(text: str) -> list[Document]:
    payload = json.loads(text)
    try:
        # JSON is YAML, but for tabs; the lines are all that is taken from it.
        node = yaml.compose(text.replace("\t", " "), Loader=_Loader)
    except yaml.YAMLError:
        return [Document(payload, {})]
    return [Document(payload, dict(_lines(node)))]


def _read_yaml(text: str) -> Iterator[Document]:
    loader = _Loader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            yield Document(loader.construct_document(node), dict(_lines(node)))
    finally:
        loader.dispose()


def _lines(node: Any, path: str = "") -> Iterator[tuple[str, int]]:
    """Yield the path and line of a node and of all below it."""
    yield path, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = f"{path}.{key.value}".removeprefix(".")
            yield from _lines(value, below)
            # The field's own line, where its value starts on a later one.
            yield below, key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _lines(item, f"{path}[{index}]")
