"""Build a request body from an operator's ``json`` and named parameters, and convert it to JSON types."""

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

# The reference says "10 MB", without defining MB: this is the larger reading.
MAX_REQUEST_BYTES = 10 * 1024 * 1024
# Fields whose values (of a mapping) or elements (of a list) reach the code as strings.
TEXT_PARAMETERS = frozenset(
    {
        "job_parameters", "notebook_params", "python_named_params", "sql_params", "python_params", "jar_params",
        "spark_submit_params", "dbt_commands", "base_parameters", "named_parameters", "notebook_base_parameters",
        "parameters", "commands",
    }
)  # fmt: skip
_SCALARS = frozenset({str, bool, type(None)})
_TOO_LONG = 10**MAX_DIGITS
_RENDERING_HINT = (
    "Check what its template renders to; with render_template_as_native_obj=True a DAG keeps lists and mappings."
)


def merge(body: object, named: Mapping[str, Any], *, keep_templates: bool = False) -> dict[str, Any]:
    """Merge an operator's ``json`` and its named parameters; named parameters that are not None take precedence.

    `body` is a mapping, None, or a mapping that Jinja rendered to a string (JSON or a Python literal); lists and
    mappings in fields may be rendered strings, too. None values are dropped at any depth. Numbers and booleans among
    the parameters of code become strings, which the API requires. With `keep_templates`, XComArgs and similar objects
    stay as they are. Raises ConfigurationError for values that are not JSON.
    """
    with depth_reported:
        payload = {**_mapping(body), **{name: value for name, value in named.items() if value is not None}}
        made: dict[str, Any] = _plain(payload if keep_templates else _rendered(payload), "", keep_templates, True)
    return made


def to_json(payload: Mapping[Any, Any], *, keep_templates: bool = False) -> dict[str, Any]:
    """Convert a payload to JSON types and drop None values of mappings. Raises ConfigurationError if it cannot."""
    with depth_reported:
        made: dict[str, Any] = _plain(payload, "", keep_templates, False)
    return made


class _DepthReported:
    """Turns RecursionError into ConfigurationError. Every operator enters it; a generator would be slower."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, RecursionError):
            raise ConfigurationError(
                "The payload contains itself or is nested too deeply. Remove the reference to itself, or flatten it."
            ) from None


depth_reported = _DepthReported()


def _mapping(body: Any) -> Mapping[Any, Any]:
    if body is None or body == "":
        return {}
    if isinstance(body, str):
        body = _parse("json", body)
    if isinstance(body, Mapping):
        return body
    raise ConfigurationError(f"json {type_of(body)}; it must be a mapping, or a string that holds one.")


def _rendered(payload: dict[Any, Any]) -> dict[Any, Any]:
    """Parse the strings in fields of lists and mappings, which templates rendered."""
    texts = {name: value for name, value in payload.items() if isinstance(value, str) and name in _lists_and_mappings()}
    return {**payload, **{name: _list_or_mapping(name, text) for name, text in texts.items()}}


def _list_or_mapping(name: str, text: str) -> object:
    if not text:
        return None
    try:
        value = _parse(name, text)
    except ConfigurationError:
        # Databricks fills in its own references.
        if is_templated(text):
            return text
        raise
    if value is None or is_list(value) or isinstance(value, dict):
        return value
    raise ConfigurationError(
        f"{name} is a string of {len(text)} characters that holds a value of type {type(value).__name__}; it must hold"
        f" a list or a mapping. {_RENDERING_HINT}"
    )


@cache
def _lists_and_mappings() -> frozenset[str]:
    """Return the request fields that hold lists or mappings; no name has different types in two requests."""
    from airflow_dbjobs.payloads.schema import ENDPOINTS, fields_of

    fields = [field for structure in ENDPOINTS.values() for field in fields_of(structure).items()]
    return frozenset(name for name, field in fields if field.type.fits([]) or field.type.fits({}))


def _parse(name: str, text: str) -> object:
    text = text.strip()
    try:
        return json.loads(text)
    # Python raises a plain ValueError for a number with thousands of digits.
    except (ValueError, RecursionError):
        pass
    try:
        # Without native rendering, Jinja renders a dict to its repr.
        return ast.literal_eval(text)
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        # The string may hold secrets: neither quote it nor chain Python's error, which does.
        raise ConfigurationError(
            f"{name} is a string of {len(text)} characters that is neither JSON nor a Python literal. {_RENDERING_HINT}"
        ) from None


def _plain(value: Any, path: str, keep_templates: bool, stringify: bool) -> Any:
    """Convert `value` to JSON types, without the None values of mappings; optionally parameters of code to strings."""
    # isinstance with Mapping or Sequence is slow, and each operator runs this.
    if isinstance(value, (list, tuple)):
        return [
            item if type(item) in _SCALARS else _plain(item, f"{path}[{index}]", keep_templates, stringify)
            for index, item in enumerate(value)
        ]
    if type(value) is int and -_TOO_LONG < value < _TOO_LONG:
        return value
    if type(value) is dict or isinstance(value, Mapping):
        made = {}
        for key, item in value.items():
            if item is not None:
                name = key if type(key) is str else _key(key, path)
                made[name] = (
                    item if type(item) in _SCALARS else _plain(item, f"{path}.{name}", keep_templates, stringify)
                )
                if stringify and name in TEXT_PARAMETERS:
                    _stringify_items(made[name])
        return made
    if value is None or (isinstance(value, (str, int, float)) and not isinstance(value, enum.Enum)):
        if isinstance(value, (int, float)) and not -_TOO_LONG < value < _TOO_LONG:
            raise ConfigurationError(f"{_display_path(path)} is {_describe_number(value)}. Use another number.")
        return value
    if keep_templates and is_templated(value):
        return value
    return _plain(_json_value(value, path), path, keep_templates, stringify)


def _stringify_items(parameters: Any) -> None:
    """Replace numbers and booleans in a list or mapping by their JSON text, in place."""
    if isinstance(parameters, (dict, list)):
        for key, item in parameters.items() if isinstance(parameters, dict) else enumerate(parameters):
            if isinstance(item, (int, float)):
                parameters[key] = json.dumps(item)


def _json_value(value: Any, path: str) -> Any:
    """Return the JSON value of an enum member or a sequence."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return list(value)
    raise ConfigurationError(
        f"{_display_path(path)} is a {type(value).__name__}, which JSON cannot hold."
        " Use a string, number, boolean, list or mapping."
    )


def _key(key: object, path: str) -> str:
    """Return the string that JSON writes for a key."""
    if isinstance(key, enum.Enum):
        return _key(key.value, path)
    if isinstance(key, str):
        return str(key)
    if key is None or (isinstance(key, int | float) and -_TOO_LONG < key < _TOO_LONG):
        return json.dumps(key)
    raise ConfigurationError(
        f"{_display_path(path)} has a key that {type_of(key)}, which JSON cannot hold. Use a string."
    )


def _display_path(path: str) -> str:
    return printable(path.removeprefix(".")) or "the payload"


def _describe_number(value: float) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value}, which JSON cannot hold"
    return f"a number of more than {MAX_DIGITS} digits, which the API does not accept"
