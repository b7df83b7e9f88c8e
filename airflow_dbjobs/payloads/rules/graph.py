"""Rules for the list of tasks as a whole: size, keys, dependencies, and references to environments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_dbjobs.payloads.field_types import is_list
from airflow_dbjobs.payloads.rules import ONLY_2_2, Rule
from airflow_dbjobs.payloads.rules.checks import max_entries, quoted, unique, when_given
from airflow_dbjobs.payloads.templates import is_templated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_dbjobs.payloads.paths import Node
    from airflow_dbjobs.payloads.rules import Check, Faults


def _by_key(node: Node, name: str, key: str) -> dict[str, dict[str, Any]] | None:
    """Return the elements of a list by key, or None if a template may add elements or hides a key."""
    if not node.all_known(name) or not (node.given(name) or node.lacks(name)):
        return None
    elements = {str(element.get(key)): element for _, element in node.elements(name)}
    return None if any(map(is_templated, elements)) else elements


def _dependencies(node: Node) -> Iterator[tuple[int, str, dict[str, Any], str]]:
    """Yield each dependency with a literal key: the index of the task, the dependency's path, itself, and the key."""
    for index, task in node.elements("tasks"):
        depends_on = task.get("depends_on")
        for position, dependency in enumerate(depends_on if is_list(depends_on) else ()):
            key = dependency.get("task_key") if isinstance(dependency, dict) else None
            if isinstance(key, str) and not is_templated(key):
                yield index, f"tasks[{index}].depends_on[{position}]", dependency, key


@when_given("tasks")
def _known_dependencies(node: Node) -> Faults:
    if (tasks := _by_key(node, "tasks", "task_key")) is None:
        return
    for _, path, _, key in _dependencies(node):
        if key not in tasks:
            yield f"{path}.task_key", f"is {quoted(key)}"


@when_given("tasks")
def _dependency_outcomes(node: Node) -> Faults:
    conditional = [found for found in _dependencies(node) if found[2].get("outcome") is not None]
    tasks = (_by_key(node, "tasks", "task_key") if conditional else None) or {}
    for _, path, dependency, key in conditional:
        outcome = dependency["outcome"]
        if is_templated(outcome):
            continue
        if str(outcome).lower() not in {"true", "false"}:
            yield f"{path}.outcome", f"is {quoted(outcome)}"
        elif key in tasks and tasks[key].get("condition_task") is None:
            yield f"{path}.outcome", f"is given, but {quoted(key)} is not a condition_task"


@when_given("tasks")
def _dependency_cycle(node: Node) -> Faults:
    """Report a cycle: repeatedly remove tasks without remaining dependencies; what cannot be removed has one."""
    waits_for: dict[str, set[str]] = {}
    keys = {index: str(task.get("task_key")) for index, task in node.elements("tasks")}
    for index, _, _, key in _dependencies(node):
        waits_for.setdefault(keys[index], set()).add(key)
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


def known_references(name: str, key: str) -> Check:
    """Check that tasks, including those in loops, only refer to keys of elements of the list."""

    @when_given("tasks", allowed=f"it must be the {key} of one of the {name}")
    def check(node: Node) -> Faults:
        if (known := _by_key(node, name, key)) is None:
            return
        for index, task in node.elements("tasks"):
            inner: object = task
            path = f"tasks[{index}]"
            while isinstance(inner, dict):
                given = inner.get(key)
                if given and not is_templated(given) and str(given) not in known:
                    yield f"{path}.{key}", f"is {quoted(given)}"
                loop = inner.get("for_each_task")
                inner = loop.get("task") if isinstance(loop, dict) else None
                path += ".for_each_task.task"

    return check


GRAPH_RULES = (
    Rule(
        "TASKS-COUNT-2_1",
        max_entries("tasks", 100),
        "at most 100 entries are allowed through API 2.1",
        'Set "api_version": "2.2" in the connection\'s extra.',
        versions=("2.1",),
    ),
    Rule(
        "TASKS-COUNT-2_2", max_entries("tasks", 1000), remedy="Use a for_each_task or several jobs.", versions=ONLY_2_2
    ),
    Rule("TASKKEY-UNIQUE", unique("tasks", "task_key")),
    Rule(
        "DEPENDS-EXISTS",
        _known_dependencies,
        "it must be the task_key of one of the tasks",
        "Correct the key, or add the task.",
        complete=True,
    ),
    Rule(
        "DEPENDS-OUTCOME",
        _dependency_outcomes,
        'an outcome must be "true" or "false", and the dependency a condition_task',
        "Correct or remove it.",
        complete=True,
    ),
    Rule(
        "DEPENDS-ACYCLIC",
        _dependency_cycle,
        "no task may depend on itself, directly or through others",
        "Remove one of these dependencies.",
    ),
    Rule("ENV-KEY-UNIQUE", unique("environments", "environment_key")),
    Rule(
        "ENV-KEY-REF",
        known_references("environments", "environment_key"),
        remedy="Correct the key, or add the environment.",
        complete=True,
    ),
    Rule("ENVVAR-ENTRIES", max_entries("environment_variables", 10), remedy="Merge some entries."),
)
