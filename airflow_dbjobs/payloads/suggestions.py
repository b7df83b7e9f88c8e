"""Suggest what was meant by a field that a structure does not have: a similar name or another place."""

from __future__ import annotations

import difflib
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.payloads.field_types import is_list
from airflow_dbjobs.payloads.schema import fields_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_dbjobs.payloads.paths import Node
    from airflow_dbjobs.payloads.schema import Field

# Similarity ratios from which a name probably, or almost certainly, is a misspelling of another.
LIKELY = 0.8
CERTAIN = 0.9
# Parameter of a run -> its name in the task.
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


@lru_cache(maxsize=1024)
def near_miss(name: str, known: tuple[str, ...], likeness: float = LIKELY) -> str | None:
    """Return the known name most similar to `name`, or None if none reaches the ratio `likeness`."""
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=likeness)), None)


def where_it_belongs(node: Node, name: str) -> str:
    """Return a sentence that says where a misplaced field belongs, or "" if that is unknown."""
    names = [name, *(table[name] for table in (_OF_TASKS, _OF_RUNS) if name in table)]
    for other in names:
        if other in node.fields:
            return f"It is called {other} here."
        for where in (*_around(node, other), *_below(node.fields, node.value, other)):
            return f"It belongs {where}{'' if other == name else f' as {other}'}."
    if only := _only_holder(node.fields, name):
        return f"It belongs in {only}."
    return ""


def _around(node: Node, name: str) -> Iterator[str]:
    """Yield the enclosing structures that have the field, nearest first."""
    around = node.parent
    while around is not None:
        if name in around.fields:
            where = around.path_of("")
            yield f"in {where}, next to {node.below}" if where else f"next to {node.below.partition('[')[0]}"
        node, around = around, around.parent


def _below(fields: dict[str, Field], value: dict[str, Any], name: str) -> list[str]:
    """Return the given nested structures that have the field, nearest first."""
    found = []
    for field, (_, _, structure, many) in fields.items():
        inner = value.get(field)
        if many and is_list(inner):
            inner = next(iter(inner), None)
        if structure and isinstance(inner, dict):
            below = fields_of(structure)
            where = _in_words(field, many)
            found += [f"in {where}"] if name in below else []
            found += [f"{path} of {where}" for path in _below(below, inner, name)]
    return sorted(found, key=len)


def _only_holder(fields: dict[str, Field], name: str) -> str:
    """Return the field whose structure has the field `name`, if there is exactly one such field."""
    holders = [
        _in_words(field, many)
        for field, (_, _, structure, many) in fields.items()
        if structure and name in fields_of(structure)
    ]
    return holders[0] if len(holders) == 1 else ""


def _in_words(field: str, many: bool) -> str:
    return f"each of {field}" if many else field
