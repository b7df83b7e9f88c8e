"""Reads payload files, JSON or YAML, and knows on which line each of their fields stands."""

from __future__ import annotations

import json
import sys
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


# How many values the aliases of a YAML file may add; some lines of nested aliases stand for billions.
MAX_ALIASED_VALUES = 100_000


class _Twice(Exception):
    """A mapping gives a field twice."""

    def __init__(self, name: str, line: int | None = None) -> None:
        super().__init__(f"{'' if line is None else f':{line}'}: gives {name} twice.")


class _TooManyAliases(Exception):
    """The aliases of a file stand for too many values."""


def read(file: Path) -> list[Document]:
    """Return the payloads of a file, of which YAML may hold several; - is standard input, of either kind.

    Raises ConfigurationError if it cannot be read, or holds none.
    """
    try:
        # Windows writes a mark at the start.
        text = (sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()).decode("utf-8-sig")
        documents = _documents(text, file.suffix.lower() == ".json", guess=str(file) == "-")
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
    except _Twice as error:
        raise ConfigurationError(f"{file}{error}") from None
    except _TooManyAliases:
        raise ConfigurationError(
            f"{file}: its aliases stand for more than {MAX_ALIASED_VALUES:,} values, which no payload has."
        ) from None
    except RecursionError:
        raise ConfigurationError(f"{file}: holds itself, or is too deep to be read.") from None
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        # The parsers' own errors, which quote the value.
        raise ConfigurationError(
            f"{file}: holds a value that cannot be read: one that is not of its tag, or a number of too many digits."
        ) from error
    if not documents:
        raise ConfigurationError(f"{file}: holds no payload.")
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
        # JSON is YAML, but for tabs; the lines are all that is taken from it.
        node = yaml.compose(text.replace("\t", " "), Loader=_Loader)
    except yaml.YAMLError:
        return [Document(json.loads(text, object_pairs_hook=_each_once), {})]
    _refuse_twice(node)
    return [Document(payload, dict(_lines(node)))]


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in pairs:
        if name in made:
            raise _Twice(name)
        made[name] = value
    return made


def _read_yaml(text: str) -> Iterator[Document]:
    loader = _Loader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            _refuse_too_many_aliases(node)
            # Before what "<<" merges in is put beside a mapping's own fields.
            _refuse_twice(node)
            yield Document(loader.construct_document(node), dict(_lines(node)))
    finally:
        loader.dispose()


def _children(node: Any) -> Iterator[Any]:
    for child in () if isinstance(node, yaml.ScalarNode) else node.value:
        yield from child if isinstance(child, tuple) else (child,)


def _refuse_too_many_aliases(node: Any) -> None:
    """Raise _TooManyAliases where aliases stand for more values than can be looked at."""
    sizes: dict[int, int] = {}

    def size(node: Any) -> int:
        # Of an alias the node is the same, and is counted once.
        if id(node) not in sizes:
            sizes[id(node)] = 1 + sum(map(size, _children(node)))
        return sizes[id(node)]

    if size(node) - len(sizes) > MAX_ALIASED_VALUES:
        raise _TooManyAliases


def _refuse_twice(node: Any) -> None:
    """Raise _Twice where a mapping gives a field twice, of which only the last would count."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise _Twice(key.value, key.start_mark.line + 1)
                seen.add(key.value)
            _refuse_twice(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_twice(item)


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
