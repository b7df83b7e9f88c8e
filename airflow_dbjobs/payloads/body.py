"""How a request body is put together from an operator's ``json`` and its named parameters, and what JSON can hold."""

from __future__ import annotations

import ast
import enum
import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from airflow_dbjobs.errors import ConfigurationError
from airflow_dbjobs.payloads.field_types import MAX_DIGITS, is_list, printable, type_of
from airflow_dbjobs.payloads.templates import is_templated

# The reference says "10 MB" without saying which.
MAX_REQUEST_BYTES = 10 * 1024 * 1024
# What code is given as texts, by a run or its task: the values of a mapping, or the elements of a list.
TEXT_PARAMETERS = frozenset(
    {
        "job_parameters", "notebook_params", "python_named_params", "sql_params", "python_params", "jar_params",
        "spark_submit_params", "dbt_commands", "base_parameters", "named_parameters", "notebook_base_parameters",
        "parameters", "commands",
    }
)  # fmt: skip
_SCALARS = frozenset({str, bool, type(None)})
_TOO_LONG = 10**MAX_DIGITS
_HOW_IT_RENDERS = (
    "Check how its template renders; with render_template_as_native_obj=True a DAG keeps lists and mappings."
)


def merge(body: object, named: Mapping[str, Any], *, keep_templates: bool = False) -> dict[str, Any]:
    """Return the payload made of an operator's ``json`` and its named parameters; a named one that is not None wins.

    `body` is a mapping, None, or the text of a mapping as Jinja renders it (JSON, or a Python literal); so is each
    field that holds a list or a mapping. None values are dropped, at any depth; JSON types are kept, but numbers and
    booleans in parameters become the texts that the API has there. Raises ConfigurationError for anything else;
    `keep_templates` lets XComArgs and the like stay, before they are rendered.
    """
    with depth_in_words:
        payload = {**_mapping(body), **{name: value for name, value in named.items() if value is not None}}
        made: dict[str, Any] = _plain(payload if keep_templates else _rendered(payload), "", keep_templates)
        _write_parameters_as_texts(made)
    return made


def to_json(payload: Mapping[Any, Any], *, keep_templates: bool = False) -> dict[str, Any]:
    """Return a payload as what JSON can hold, with None values of mappings dropped. Raises ConfigurationError."""
    with depth_in_words:
        made: dict[str, Any] = _plain(payload, "", keep_templates)
    return made


class _DepthInWords:
    """Tells in words of a payload that is too deep to be read; cheaper than a generator, for each operator pays it."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, RecursionError):
            raise ConfigurationError(
                "The payload holds itself, or lists and mappings in each other that are too deep to be read."
            ) from None


depth_in_words = _DepthInWords()


def _mapping(body: Any) -> Mapping[Any, Any]:
    if body is None or body == "":
        return {}
    if isinstance(body, str):
        body = _parse("json", body)
    if isinstance(body, Mapping):
        return body
    raise ConfigurationError(f"json must be a mapping, or the text of one, and {type_of(body)}.")


def _rendered(payload: dict[Any, Any]) -> dict[Any, Any]:
    """Return the payload with those texts parsed that a template made of a list or a mapping."""
    texts = {name: value for name, value in payload.items() if isinstance(value, str) and name in _lists_and_mappings()}
    return {**payload, **{name: _list_or_mapping(name, text) for name, text in texts.items()}}


def _list_or_mapping(name: str, text: str) -> object:
    if not text:
        return None
    try:
        value = _parse(name, text)
    except ConfigurationError:
        # What Databricks fills in itself is left to it.
        if is_templated(text):
            return text
        raise
    if value is None or is_list(value) or isinstance(value, dict):
        return value
    raise ConfigurationError(
        f"{name} is a text of {len(text)} characters, of which Python reads a value that {type_of(value)}, and it must"
        f" be a list or a mapping. {_HOW_IT_RENDERS}"
    )


@cache
def _lists_and_mappings() -> frozenset[str]:
    """Return the fields of requests that hold a list or a mapping; in no request has one of them another kind."""
    from airflow_dbjobs.payloads.schema import ENDPOINTS, fields_of

    fields = [field for structure in ENDPOINTS.values() for field in fields_of(structure).items()]
    return frozenset(name for name, field in fields if field.type.fits([]) or field.type.fits({}))


def _parse(name: str, text: str) -> object:
    text = text.strip()
    try:
        return json.loads(text)
    # A number of thousands of digits is a ValueError of another kind.
    except (ValueError, RecursionError):
        pass
    try:
        # What classic Jinja makes of a dict: its repr.
        return ast.literal_eval(text)
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        # Neither the text nor Python's error, which quotes it: it may hold secrets.
        raise ConfigurationError(
            f"{name} is a text of {len(text)} characters that is neither JSON nor a Python literal. {_HOW_IT_RENDERS}"
        ) from None


def _write_parameters_as_texts(value: Any) -> None:
    """Spell numbers and booleans in parameters as JSON does, wherever in a payload parameters are."""
    for item in value if isinstance(value, list) else value.values():
        if isinstance(item, dict | list):
            _write_parameters_as_texts(item)
    for name in TEXT_PARAMETERS & value.keys() if isinstance(value, dict) else ():
        given = value[name]
        for key, item in given.items() if isinstance(given, dict) else enumerate(given if is_list(given) else ()):
            if isinstance(item, int | float):
                given[key] = json.dumps(item)


def _plain(value: Any, path: str, keep_templates: bool) -> Any:
    """Return `value` as what JSON can hold, with None values of mappings dropped."""
    # Most values are scalars, which are not worth a call, dicts and lists: to ask for a Mapping or Sequence is slow.
    if type(value) is int and -_TOO_LONG < value < _TOO_LONG:
        return value
    if type(value) is dict or isinstance(value, Mapping):
        made = {}
        for key, item in value.items():
            if item is not None:
                name = key if type(key) is str else _key(key, path)
                made[name] = item if type(item) in _SCALARS else _plain(item, f"{path}.{name}", keep_templates)
        return made
    if isinstance(value, (list, tuple)):
        return [
            item if type(item) in _SCALARS else _plain(item, f"{path}[{index}]", keep_templates)
            for index, item in enumerate(value)
        ]
    if value is None or (isinstance(value, (str, int, float)) and not isinstance(value, enum.Enum)):
        if isinstance(value, (int, float)) and not -_TOO_LONG < value < _TOO_LONG:
            raise ConfigurationError(f"{_in_words(path)} is {_odd_number(value)}. Give another number.")
        return value
    if keep_templates and is_templated(value):
        return value
    return _plain(_simpler(value, path), path, keep_templates)


def _simpler(value: Any, path: str) -> Any:
    """Return what a value stands for that is none of JSON's itself."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return list(value)
    raise ConfigurationError(
        f"{_in_words(path)} is a {type(value).__name__}, which JSON cannot hold."
        " Give a string, number, boolean, list or mapping."
    )


def _key(key: object, path: str) -> str:
    """Return a key that is no plain string as JSON spells it."""
    if isinstance(key, enum.Enum):
        return _key(key.value, path)
    if isinstance(key, str):
        return str(key)
    if key is None or (isinstance(key, int | float) and -_TOO_LONG < key < _TOO_LONG):
        return json.dumps(key)
    raise ConfigurationError(f"{_in_words(path)} has a key that {type_of(key)}, which JSON cannot hold. Give a string.")


def _in_words(path: str) -> str:
    return printable(path.removeprefix(".")) or "the payload"


def _odd_number(value: float) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value}, which JSON cannot hold"
    return f"a number of more than {MAX_DIGITS} digits, which the API takes nowhere"
