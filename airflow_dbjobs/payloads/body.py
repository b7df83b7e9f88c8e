"""How a request body is put together from an operator's ``json`` and its named parameters."""

from __future__ import annotations

import ast
import enum
import json
from collections.abc import Mapping, Sequence
from typing import Any

from airflow_dbjobs.errors import ConfigurationError
from airflow_dbjobs.payloads.kinds import type_of
from airflow_dbjobs.payloads.templates import is_templated

_SCALARS = frozenset({str, bool, int, float, type(None)})


def merge(body: object, named: Mapping[str, Any], *, keep_templates: bool = False) -> dict[str, Any]:
    """Return the payload made of an operator's ``json`` and its named parameters; a named one that is not None wins.

    `body` is a mapping, None, or the text of one as Jinja renders it (JSON, or a Python literal). JSON types are
    kept, None values are dropped at any depth. Raises ConfigurationError for anything else; `keep_templates` lets
    XComArgs and the like stay, before they are rendered.
    """
    payload = {**_mapping(body), **{name: value for name, value in named.items() if value is not None}}
    return {str(name): _plain(value, str(name), keep_templates) for name, value in payload.items() if value is not None}


def _mapping(body: object) -> dict[str, Any]:
    if body is None or body == "":
        return {}
    if isinstance(body, str):
        body = _parse(body)
    if isinstance(body, Mapping):
        return dict(body)
    raise ConfigurationError(f"json must be a mapping, or the text of one, and {type_of(body)}.")


def _parse(text: str) -> object:
    text = text.strip()
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        pass
    try:
        # What classic Jinja makes of a dict: its repr.
        return ast.literal_eval(text)
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        # Neither the text nor Python's error, which quotes it: it may hold secrets.
        raise ConfigurationError(
            f"json is a text of {len(text)} characters that is neither JSON nor a Python literal."
            " Check how its template renders."
        ) from None


def _plain(value: object, path: str, keep_templates: bool) -> Any:
    """Return `value` as what JSON can hold, with None values of mappings dropped."""
    # Most values are scalars, which are not worth a call, dicts and lists: to ask for a Mapping or Sequence is slow.
    if type(value) is dict or isinstance(value, Mapping):
        made = {}
        for key, item in value.items():
            if item is not None:
                made[str(key)] = item if type(item) in _SCALARS else _plain(item, f"{path}.{key}", keep_templates)
        return made
    if isinstance(value, (list, tuple)):
        return [
            item if type(item) in _SCALARS else _plain(item, f"{path}[{index}]", keep_templates)
            for index, item in enumerate(value)
        ]
    if isinstance(value, enum.Enum):
        return _plain(value.value, path, keep_templates)
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return _plain(list(value), path, keep_templates)
    if keep_templates and is_templated(value):
        return value
    raise ConfigurationError(
        f"{path} is a {type(value).__name__}, which JSON cannot hold. Give a string, number, boolean, list or mapping."
    )
