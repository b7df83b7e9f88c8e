"""The parameters that a task gets, merged from the job, the task and run-now."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.local_workspace.state.settings import RUN_PARAMETERS, payload_fields

from .errors import CannotRunError

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_dbjobs.local_workspace.messages import Json
    from airflow_dbjobs.local_workspace.state.records import Iteration, Run, TaskRun

_REFERENCE = re.compile(r"\{\{\s*([\w.-]+)\s*\}\}")


def job_parameters(settings: Json, given: Json) -> dict[str, Json]:
    """Return a run's parameters by name; run-now may add some that the job does not declare."""
    declared = {item["name"]: str(item.get("default", "")) for item in settings.get("parameters", [])}
    merged: dict[str, Json] = {
        name: {"default": default, "value": given.get(name, default)} for name, default in declared.items()
    }
    return merged | {name: {"value": value} for name, value in given.items() if name not in declared}


def resolved_spec(run: Run, task: TaskRun, values_of: Callable[[str], Json | None] = lambda _: None) -> Json:
    """Return a task with its dynamic value references, such as `{{job.run_id}}`, replaced; unknown ones stay.

    `values_of` returns the values that the task with a key has set, and None if they are not known: then references to
    them stay.

    :raises CannotRunError: A task upstream has not set the value, or the input of the iteration has not the field, that
        is referred to.
    """
    known = {
        "job.id": run.job_id,
        "job_id": run.job_id,
        "job.run_id": run.run_id,
        "job.repair_count": len(run.episodes) - 1,
        # The older name of the task run's id; for a run with the 2.0 shape, of the run's own id.
        "run_id": run.run_id if run.flat else task.run_id,
        "parent_run_id": run.run_id,
        "task.name": task.task_key,
        "task_key": task.task_key,
        "task.run_id": task.run_id,
        "task.execution_count": task.attempt + 1,
        **{f"job.parameters.{name}": item["value"] for name, item in run.job_parameters.items()},
    }

    def referenced(found: re.Match[str]) -> str:
        if task.iteration and found[1].partition(".")[0] == "input":
            return _input(task.iteration, found[1])
        key, _, name = found[1].removeprefix("tasks.").partition(".values.")
        if name and (values := values_of(key)) is not None:
            return _task_value(key, name, values)
        return str(known.get(found[1], found[0]))

    def replaced(value: Any) -> Any:
        match value:
            case str():
                return _REFERENCE.sub(referenced, value)
            case list():
                return [replaced(item) for item in value]
            case dict():
                return {name: replaced(item) for name, item in value.items()}
        return value

    resolved: Json = replaced(task.spec)
    return resolved


def _task_value(key: str, name: str, values: Json) -> str:
    if name not in values:
        message = f"Task {key!r} has not set the value {name!r}, which this task refers to."
        raise CannotRunError(message, "INVALID_RUN_CONFIGURATION")
    return _text(values[name])


def _input(iteration: Iteration, reference: str) -> str:
    """Return what `input`, or `input.field`, refers to in an iteration of a for_each task."""
    value = json.loads(iteration.input)
    for name in reference.split(".")[1:]:
        if not isinstance(value, dict) or name not in value:
            message = f"The input {iteration.input} has no {reference.partition('.')[2]!r}, which this task refers to."
            raise CannotRunError(message, "INVALID_RUN_CONFIGURATION")
        value = value[name]
    return _text(value)


def widget_values(run: Run, notebook_task: Json) -> dict[str, str]:
    """Return the widgets of a notebook: job parameters override run-now's, which override the task's own."""
    return _named(run, notebook_task.get("base_parameters", {}), "notebook_params")


def sql_values(run: Run, sql_task: Json) -> dict[str, str]:
    """Return the parameters of a SQL file, merged in the same way."""
    values = _named(run, sql_task.get("parameters", {}), "sql_params")
    return {name: _text(value) for name, value in values.items()}


def arguments(run: Run, task: Json, override: str = "python_params") -> list[str]:
    """Return the arguments of a program: run-now's, in the field `override`, replace the task's own."""
    return [_text(value) for value in run.overrides.get(override) or task.get("parameters", [])]


def wheel_arguments(run: Run, wheel_task: Json) -> list[str]:
    """Return the arguments of a wheel: a list, or `--name=value` for named parameters, to which the job's are added."""
    named = _wheel_named(run, wheel_task)
    return [f"--{name}={value}" for name, value in named.items()] if named else arguments(run, wheel_task)


def _wheel_named(run: Run, wheel_task: Json) -> dict[str, str]:
    own = wheel_task.get("named_parameters", {})
    given = own or run.overrides.get("python_named_params")
    named = _named(run, own, "python_named_params") if given else {}
    return {name: _text(value) for name, value in named.items()}


def dbt_commands(run: Run, dbt_task: Json) -> list[str]:
    """Return the commands of a dbt task: run-now's replace the task's own."""
    commands: list[str] = run.overrides.get("dbt_commands") or dbt_task["commands"]
    return commands


def resolved_values(run: Run, spec: Json) -> Json:
    """Return the parameters that a task gets, below its payload; `spec` is the task with its references replaced."""
    kind = payload_fields(spec)[0]
    task = spec[kind]
    values: Json = {}
    match kind:
        case "notebook_task":
            values = {"base_parameters": widget_values(run, task)}
        case "sql_task":
            values = {"parameters": sql_values(run, task)}
        case "spark_python_task":
            values = {"parameters": arguments(run, task)}
        case "spark_jar_task":
            values = {"parameters": arguments(run, task, "jar_params")}
        case "spark_submit_task":
            values = {"parameters": arguments(run, task, "spark_submit_params")}
        case "python_wheel_task":
            named = _wheel_named(run, task)
            values = {"named_parameters": named} if named else {"parameters": arguments(run, task)}
        case "dbt_task":
            values = {"commands": dbt_commands(run, task)}
        case "condition_task":
            values = {name: str(task[name]) for name in ("left", "right")}
        case "run_job_task":
            values = {name: value for name, value in task.items() if name in RUN_PARAMETERS}
    given = {name: value for name, value in values.items() if value}
    return {kind: given} if given else {}


def _named(run: Run, own: Json, override: str) -> Json:
    """Return named parameters: job parameters override run-now's, in `override`, which override the task's `own`."""
    job_values = {name: item["value"] for name, item in run.job_parameters.items()}
    return {**own, **run.overrides.get(override, {}), **job_values}


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def condition_outcome(condition: Json) -> bool:
    """Evaluate a condition task: equality compares strings, the other operators compare numbers.

    :raises ValueError: The operator is unknown, or an operand is not a number where one is needed.
    """
    op, left, right = condition["op"], str(condition["left"]), str(condition["right"])
    match op:
        case "EQUAL_TO":
            return left == right
        case "NOT_EQUAL":
            return left != right
        case "GREATER_THAN":
            return float(left) > float(right)
        case "GREATER_THAN_OR_EQUAL":
            return float(left) >= float(right)
        case "LESS_THAN":
            return float(left) < float(right)
        case "LESS_THAN_OR_EQUAL":
            return float(left) <= float(right)
    raise ValueError(f"unknown operator {op}")
