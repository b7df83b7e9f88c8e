"""Read payload files, JSON or YAML, with the line number of each field."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml  # type: ignore[import-untyped]  # its stubs are a package of their own

from airflow_dbjobs.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Container, Iterator
    from pathlib import Path


@dataclass(frozen=True)
class Document:
    """A payload from a file, with the line number of each path in it."""

    payload: Any
    lines: dict[str, int]

    def line_of(self, path: str) -> int:
        """Return the line of a field; for a missing field, the line of the structure that lacks it."""
        return self.lines.get(nearest(path, self.lines), 1)


def nearest(path: str, known: Container[str]) -> str:
    """Return the path of the innermost known structure that has `path`; "" if there is none."""
    while path and path not in known:
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return path


_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # untyped, see above
    """Loads JSON types only: dates stay strings, and so do times such as 12:30, numbers to base 60 in YAML 1.1."""

    def resolve(self, kind: type, value: Any, implicit: Any) -> Any:
        tag = super().resolve(kind, value, implicit)
        is_time = kind is yaml.ScalarNode and ":" in value and tag in _NUMBERS
        return "tag:yaml.org,2002:str" if is_time else tag


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


# Limit for values that YAML aliases add: a few lines of nested aliases can expand to billions.
MAX_ALIASED_VALUES = 100_000


class _DuplicateField(Exception):
    """A mapping contains a field twice."""

    def __init__(self, name: str, line: int | None = None) -> None:
        super().__init__(f"{'' if line is None else f':{line}'}: {name} is given twice. Remove one.")


class _TooManyAliases(Exception):
    """The aliases of a file expand to too many values."""


def read(file: Path, *, may_be_empty: bool = False) -> list[Document]:
    """Return the payloads of a file; YAML may contain several documents. ``-`` reads JSON or YAML from standard input.

    Raises ConfigurationError if the file cannot be read or contains no payload.
    """
    try:
        # Editors on Windows write a byte order mark.
        text = (sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()).decode("utf-8-sig")
        documents = _documents(text, file.suffix.lower() == ".json", guess=str(file) == "-")
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{file}: not UTF-8 text.") from error
    except json.JSONDecodeError as error:
        raise ConfigurationError(f"{file}:{error.lineno}: not valid JSON: {error.msg}.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigurationError(
            f"{file}{line}: not valid YAML: {getattr(error, 'problem', None) or error}."
        ) from error
    except _DuplicateField as error:
        raise ConfigurationError(f"{file}{error}") from None
    except _TooManyAliases:
        raise ConfigurationError(
            f"{file}: the YAML aliases expand to more than {MAX_ALIASED_VALUES:,} values. Write a smaller payload."
        ) from None
    except RecursionError:
        raise ConfigurationError(f"{file}: the payload contains itself or is nested too deeply.") from None
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        # The messages of the parsers quote the value, which may be a secret.
        raise ConfigurationError(
            f"{file}: contains a value that cannot be read: it does not match its YAML tag, or has too many digits."
        ) from error
    if not documents and not may_be_empty:
        raise ConfigurationError(f"{file}: contains no payload.")
    return documents


def _documents(text: str, is_json: bool, *, guess: bool) -> list[Document]:
    if not text.strip():
        return []
    if is_json or guess:
        try:
            return _read_json(text)
        except json.JSONDecodeError:
            if is_json:
                raise
    return list(_read_yaml(text))


def _read_json(text: str) -> list[Document]:
    payload = json.loads(text)
    try:
        # Used for the line numbers only. JSON is YAML, except for tabs.
        node = yaml.compose(text.replace("\t", " "), Loader=_Loader)
    except yaml.YAMLError:
        return [Document(json.loads(text, object_pairs_hook=_without_duplicates), {})]
    _refuse_duplicates(node)
    return [Document(payload, dict(_lines(node)))]


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in pairs:
        if name in made:
            raise _DuplicateField(name)
        made[name] = value
    return made


def _read_yaml(text: str) -> Iterator[Document]:
    loader = _Loader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            _refuse_too_many_aliases(node)
            # Must precede construct_document, which merges "<<" into the fields of a mapping.
            _refuse_duplicates(node)
            yield Document(loader.construct_document(node), dict(_lines(node)))
    finally:
        loader.dispose()


def _children(node: Any) -> Iterator[Any]:
    for child in () if isinstance(node, yaml.ScalarNode) else node.value:
        yield from child if isinstance(child, tuple) else (child,)


def _refuse_too_many_aliases(node: Any) -> None:
    """Raise _TooManyAliases if aliases expand to more than MAX_ALIASED_VALUES values."""
    sizes: dict[int, int] = {}

    def size(node: Any) -> int:
        # Aliases share the node that they refer to; its size is computed once.
        if id(node) not in sizes:
            sizes[id(node)] = 1 + sum(map(size, _children(node)))
        return sizes[id(node)]

    if size(node) - len(sizes) > MAX_ALIASED_VALUES:
        raise _TooManyAliases


def _refuse_duplicates(node: Any) -> None:
    """Raise _DuplicateField if a mapping contains a field twice; parsers would use the last one silently."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise _DuplicateField(key.value, key.start_mark.line + 1)
                seen.add(key.value)
            _refuse_duplicates(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_duplicates(item)


def _lines(node: Any, path: str = "") -> Iterator[tuple[str, int]]:
    """Yield path and line number of a node and all its descendants."""
    yield path, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = f"{path}.{key.value}".removeprefix(".")
            yield from _lines(value, below)
            # The key's line takes precedence, as the value may start on a later one.
            yield below, key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _lines(item, f"{path}[{index}]")
