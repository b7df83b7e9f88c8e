"""What operators and sensors do with the parameters they are given: numbers in texts, and names that nobody knows."""

from __future__ import annotations

import inspect
import math
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow.providers.common.compat.sdk import BaseOperator


def number(
    name: str, value: Any, must_be: str, *, least: float = -math.inf, above: float = -math.inf, whole: bool = False
) -> Any:
    """Return a parameter that is a number, or the text of one. Raises ConfigurationError, which names it."""
    made = value
    for read in (int, float) if isinstance(value, str) else ():
        with suppress(ValueError):
            made = read(value)
            break
    if isinstance(made, float) and made.is_integer() and (whole or isinstance(value, str)):
        made = int(made)
    is_number = isinstance(made, int if whole else int | float) and not isinstance(made, bool)
    if is_number and made != math.inf and made >= least and made > above:
        return made
    from airflow_dbjobs.errors import ConfigurationError

    raise ConfigurationError(f"{name} is {value!r:.100}; it must be {must_be}.")


@contextmanager
def explained(kind: type[BaseOperator], given: Mapping[str, Any]) -> Iterator[None]:
    """Add to Airflow's error about a parameter what may have been meant, and what is a field of the payload."""
    from airflow.providers.common.compat.sdk import AirflowException

    try:
        yield
    except (TypeError, AirflowException) as error:
        if advice := _advice(kind, given):
            raise type(error)("\n".join([str(error), *advice])) from None
        raise


def _advice(kind: type[BaseOperator], given: Mapping[str, Any]) -> list[str]:
    from airflow_dbjobs.payloads.catalog import ENDPOINTS, load
    from airflow_dbjobs.payloads.spelling import near_miss
    from airflow_dbjobs.payloads.structure import facts_of

    constructors = [made for base in kind.__mro__ if (made := vars(base).get("__init__")) and base is not object]
    parameters = {name for made in constructors for name in inspect.signature(made).parameters}
    endpoint = getattr(kind, "endpoint", None)
    fields = facts_of(load(ENDPOINTS[endpoint])) if endpoint else {}
    advice = []
    for name, value in given.items():
        if name in fields and name in parameters and not isinstance(value, str):
            advice.append(f"{name} is a parameter of Airflow's own: give the payload's {name} in `json`.")
        elif name in fields and name not in parameters:
            advice.append(f"{name} is a field of the payload, and no parameter: give it in `json`.")
        elif name not in parameters and (meant := near_miss(name, tuple(sorted({*parameters, *fields})))):
            advice.append(f"{name}: did you mean {meant}?")
    return advice
