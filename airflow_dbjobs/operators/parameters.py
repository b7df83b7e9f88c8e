"""Checks of operator and sensor parameters: numbers given as text, and suggestions for unknown names."""

from __future__ import annotations

import inspect
import math
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow_dbjobs.airflow_compat import BaseOperator


def parse_number(
    name: str,
    value: Any,
    expected: str,
    *,
    at_least: float = -math.inf,
    above: float = -math.inf,
    whole: bool = False,
) -> Any:
    """Return a parameter that is a number, or a string of one. Raises ConfigurationError, which names it."""
    parsed = value
    for parse in (int, float) if isinstance(value, str) else ():
        with suppress(ValueError):
            parsed = parse(value)
            break
    if isinstance(parsed, float) and parsed.is_integer() and (whole or isinstance(value, str)):
        parsed = int(parsed)
    is_number = isinstance(parsed, int if whole else int | float) and not isinstance(parsed, bool)
    if is_number and parsed != math.inf and parsed >= at_least and parsed > above:
        return parsed
    from airflow_dbjobs.errors import ConfigurationError

    raise ConfigurationError(f"{name} is {value!r:.100}; it must be {expected}.")


@contextmanager
def suggesting_parameters(operator: type[BaseOperator], given: Mapping[str, Any]) -> Iterator[None]:
    """Add suggestions to the error that Airflow raises in this context for unknown parameters among `given`."""
    from airflow_dbjobs.airflow_compat import AirflowException

    try:
        yield
    except (TypeError, AirflowException) as error:
        if suggestions := _suggestions(operator, given):
            raise type(error)("\n".join([str(error), *suggestions])) from None
        raise


def _suggestions(operator: type[BaseOperator], given: Mapping[str, Any]) -> list[str]:
    from airflow_dbjobs.payloads.schema import ENDPOINTS, fields_of
    from airflow_dbjobs.payloads.suggestions import near_miss

    constructors = [init for base in operator.__mro__ if (init := vars(base).get("__init__")) and base is not object]
    parameters = {name for init in constructors for name in inspect.signature(init).parameters}
    endpoint = getattr(operator, "endpoint", None)
    fields = fields_of(ENDPOINTS[endpoint]) if endpoint else {}
    suggestions = []
    for name, value in given.items():
        if name in fields and name in parameters and not isinstance(value, str):
            suggestions.append(f"{name} is a parameter of Airflow: give the payload's {name} in `json`.")
        elif name in fields and name not in parameters:
            suggestions.append(f"{name} is a field of the payload but no parameter: give it in `json`.")
        elif name not in parameters and (meant := near_miss(name, tuple(sorted({*parameters, *fields})))):
            suggestions.append(f"{name}: did you mean {meant}?")
    return suggestions
