"""Where a field belongs that is given where the API does not read it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_dbjobs.payloads.catalog import load
from airflow_dbjobs.payloads.structure import facts_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_dbjobs.payloads.place import Place
    from airflow_dbjobs.payloads.structure import FieldFacts

# What a run is given, and what the task calls the same.
_OF_TASKS = {
    "notebook_params": "base_parameters",
    "python_named_params": "named_parameters",
    "python_params": "parameters",
    "jar_params": "parameters",
    "spark_submit_params": "parameters",
    "sql_params": "parameters",
    "dbt_commands": "commands",
}
_OF_RUNS = {"base_parameters": "notebook_params", "named_parameters": "python_named_params"}


def where_it_belongs(place: Place, name: str) -> str:
    """Return in words where a field belongs that the structure at `place` does not have; "" where that is not known."""
    names = [name, *(table[name] for table in (_OF_TASKS, _OF_RUNS) if name in table)]
    for other in names:
        if other in place.fields:
            return f"It is called {other} here."
        for where in (*_around(place, other), *_below(place.fields, place.value, other)):
            return f"It belongs {where}{'' if other == name else f' as {other}'}."
    if only := _only_holder(place.fields, name):
        return f"It belongs in {only}."
    return ""


def _around(place: Place, name: str) -> Iterator[str]:
    """Yield where around a place there is such a field, the nearest first."""
    around = place.parent
    while around is not None:
        if name in around.fields:
            where = around.path_of("")
            yield f"in {where}, beside {place.below}" if where else f"beside {place.below.partition('[')[0]}"
        place, around = around, around.parent


def _below(fields: dict[str, FieldFacts], value: dict[str, Any], name: str) -> list[str]:
    """Return where in what is given there is such a field, the nearest first."""
    found = []
    for field, (kind, _) in fields.items():
        inner = next(iter(value.get(field) or ()), None) if kind.many else value.get(field)
        if kind.structure and isinstance(inner, dict):
            below = facts_of(load(kind.structure))
            where = f"each of {field}" if kind.many else field
            found += [f"in {where}"] if name in below else []
            found += [f"{path} of {where}" for path in _below(below, inner, name)]
    return sorted(found, key=len)


def _only_holder(fields: dict[str, FieldFacts], name: str) -> str:
    """Return the only field whose structure has such a field."""
    holders = [
        field for field, (kind, _) in fields.items() if kind.structure and name in facts_of(load(kind.structure))
    ]
    if len(holders) != 1:
        return ""
    return f"each of {holders[0]}" if fields[holders[0]].kind.many else holders[0]
