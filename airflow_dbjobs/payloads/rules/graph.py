"""Rules for the list of tasks as a whole: size, keys, dependencies, and references to environments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_dbjobs.payloads.rules import FROM_2_1, ONLY_2_2, Rule
from airflow_dbjobs.payloads.rules.checks import max_entries, quoted, unique
from airflow_dbjobs.payloads.templates import is_templated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_dbjobs.payloads.paths import Node
    from airflow_dbjobs.payloads.rules import Fault


def is_decidable(node: Node, name: str) -> bool:
    """Return whether a list is complete: no template may add elements to it."""
    return node.all_known(name) and (node.given(name) or node.lacks(name))


def _keys(node: Node) -> dict[str, dict[str, object]] | None:
    """Return the tasks by key, or None if a template hides a key."""
    if not is_decidable(node, "tasks"):
        return None
    tasks = {str(task.get("task_key")): task for _, task in node.elements("tasks")}
    return None if any(is_templated(key) for key in tasks) else tasks


def _dependencies(node: Node) -> Iterator[tuple[int, int, dict[str, object], str]]:
    """Yield each dependency with a literal key: the index of the task, its own index, itself, and the key."""
    for index, task in node.elements("tasks"):
        depends_on = task.get("depends_on")
        for position, dependency in enumerate(depends_on if isinstance(depends_on, list | tuple) else ()):
            if isinstance(dependency, dict):
                key = dependency.get("task_key")
                if isinstance(key, str) and not is_templated(key):
                    yield index, position, dependency, key


def _known_dependencies(node: Node) -> Iterator[Fault]:
    tasks = _keys(node)
    if tasks is None:
        return
    for index, position, _, key in _dependencies(node):
        if key not in tasks:
            yield f"tasks[{index}].depends_on[{position}].task_key", f"is {quoted(key)}"


def _dependency_outcomes(node: Node) -> Iterator[Fault]:
    conditional = [found for found in _dependencies(node) if found[2].get("outcome") is not None]
    tasks = _keys(node) if conditional else None
    for index, position, dependency, key in conditional:
        outcome = dependency["outcome"]
        if is_templated(outcome):
            continue
        where = f"tasks[{index}].depends_on[{position}].outcome"
        if str(outcome).lower() not in {"true", "false"}:
            yield where, f"is {quoted(outcome)}"
        elif tasks is not None and key in tasks and tasks[key].get("condition_task") is None:
            yield where, f"is given, but {quoted(key)} is not a condition_task"


def _dependency_cycle(node: Node) -> Iterator[Fault]:
    """Report a cycle: repeatedly remove tasks without remaining dependencies; what cannot be removed has one."""
    waits_for: dict[str, set[str]] = {}
    indexes = {index: task.get("task_key") for index, task in node.elements("tasks")}
    for index, _, _, key in _dependencies(node):
        waits_for.setdefault(str(indexes[index]), set()).add(key)
    size = len(waits_for) + 1
    while len(waits_for) < size:
        size = len(waits_for)
        # Tasks are usually listed after those that they depend on, so one pass is enough.
        for task in list(waits_for):
            if waits_for.keys().isdisjoint(waits_for[task]):
                del waits_for[task]
    if waits_for:
        # Each remaining task is in a cycle or depends on one, so following dependencies leads into a cycle.
        visited: dict[str, int] = {}
        task = min(waits_for)
        while task not in visited:
            visited[task] = len(visited)
            task = min(waits_for[task] & waits_for.keys())
        cycle = list(visited)[visited[task] :]
        yield "tasks", f"has a cycle in depends_on: {', '.join(quoted(task) for task in cycle[:5])}"


def _known_environments(node: Node) -> Iterator[Fault]:
    if not is_decidable(node, "environments"):
        return
    keys = [environment.get("environment_key") for _, environment in node.elements("environments")]
    if any(is_templated(key) for key in keys):
        return
    yield from unknown_references(node, "environment_key", keys)


def unknown_references(node: Node, field: str, known: list[object]) -> Iterator[Fault]:
    """Report tasks, including those in loops, whose `field` is none of the `known` keys."""
    for index, task in node.elements("tasks"):
        inner: object = task
        depth = 0
        while isinstance(inner, dict):
            key = inner.get(field)
            if key and not is_templated(key) and key not in known:
                yield f"tasks[{index}]{'.for_each_task.task' * depth}.{field}", f"is {quoted(key)}"
            loop = inner.get("for_each_task")
            inner = loop.get("task") if isinstance(loop, dict) else None
            depth += 1


GRAPH_RULES = (
    Rule(
        "TASKS-COUNT-2_1",
        max_entries("tasks", 100),
        "at most 100 entries are allowed through API 2.0 and 2.1",
        'Set "api_version": "2.2" in the connection\'s extra.',
        versions=("2.0", "2.1"),
    ),
    Rule(
        "TASKS-COUNT-2_2",
        max_entries("tasks", 1000),
        "at most 1000 entries are allowed",
        "Use a for_each_task or several jobs.",
        versions=ONLY_2_2,
    ),
    Rule(
        "TASKKEY-UNIQUE",
        unique("tasks", "task_key"),
        "each key must be unique",
        "Rename one.",
        versions=FROM_2_1,
    ),
    Rule(
        "DEPENDS-EXISTS",
        _known_dependencies,
        "it must be the task_key of one of the tasks",
        "Correct the key, or add the task.",
        versions=FROM_2_1,
        unless=("update",),
    ),
    Rule(
        "DEPENDS-OUTCOME",
        _dependency_outcomes,
        'an outcome must be "true" or "false", and the dependency a condition_task',
        "Correct or remove it.",
        versions=FROM_2_1,
        unless=("update",),
    ),
    Rule(
        "DEPENDS-ACYCLIC",
        _dependency_cycle,
        "no task may depend on itself, directly or through others",
        "Remove one of these dependencies.",
        versions=FROM_2_1,
    ),
    Rule(
        "ENV-KEY-UNIQUE",
        unique("environments", "environment_key"),
        "each key must be unique",
        "Rename one.",
        versions=FROM_2_1,
    ),
    Rule(
        "ENV-KEY-REF",
        _known_environments,
        "it must be the environment_key of one of the environments",
        "Correct the key, or add the environment.",
        versions=FROM_2_1,
        unless=("update",),
    ),
    Rule(
        "ENVVAR-ENTRIES",
        max_entries("environment_variables", 10),
        "at most 10 entries are allowed",
        "Merge some entries.",
        versions=ONLY_2_2,
    ),
)
