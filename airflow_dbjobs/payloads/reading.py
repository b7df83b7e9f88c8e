"""From the JSON of an answer to its model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from airflow_dbjobs.payloads.catalog import load
from airflow_dbjobs.payloads.structure import Answer, Structure, facts_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_dbjobs.payloads.kinds import Kind

S = TypeVar("S", bound=Structure)


def read(model: type[S], reply: Mapping[str, Any]) -> S:
    """Return an answer as a model, what it holds as models too.

    Nothing is judged or lost: unknown fields are attributes as well, and what has another type than the reference says
    stays as it is.
    """
    facts = facts_of(model)
    made = model.model_construct(
        **{name: _read(facts[name].kind, value) if name in facts else value for name, value in reply.items()}
    )
    if isinstance(made, Answer):
        made.keep(reply)
    return made


def _read(kind: Kind, value: Any) -> Any:
    if kind.structure is None:
        return value
    if kind.many:
        model = load(kind.structure)
        return [_element(model, item) for item in value] if isinstance(value, list) else value
    return _element(load(kind.structure), value)


def _element(model: type[Structure], value: Any) -> Any:
    return read(model, value) if isinstance(value, dict) else value
