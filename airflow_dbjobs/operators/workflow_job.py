"""The job of a workflow group: its settings, made of the members' tasks, and the parameters of its runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_dbjobs.errors import ConfigurationError
from airflow_dbjobs.operators.workflow_members import depends_on, members_of, run_if
from airflow_dbjobs.payloads import merge
from airflow_dbjobs.payloads.job_parameters import JobParameters, own_names, to_text, varies

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_dbjobs.operators.base import PayloadOperator
    from airflow_dbjobs.operators.submit_run import DatabricksSubmitRunOperator

# By type of task the parameter of the group that such tasks get as `parameters`, if they have none.
_ARGUMENTS = {
    "spark_jar_task": "jar_params",
    "spark_python_task": "python_params",
    "spark_submit_task": "spark_submit_params",
}


class WorkflowJob(NamedTuple):
    """A job and a run of it.

    `fixed` names the templates that are settings of the job, and `task_ids` are those of its tasks.
    """

    settings: dict[str, Any]
    job_parameters: dict[str, str]
    fixed: list[str]
    task_ids: list[str]


def build_job(
    launch: PayloadOperator, parameters: Mapping[str, Any], render: Callable[[PayloadOperator, Any], Any]
) -> WorkflowJob:
    """Return the job of a workflow group.

    :param launch: the task that launches it.
    :param parameters: the parameters of the group, with their templates.
    :param render: returns a value with the templates of an operator rendered. While the DAG is parsed it returns the
        value unchanged.
    """
    group: Any = launch.task_group
    members = members_of(group)
    tasks = {task_id: _with_group_parameters(member, parameters) for task_id, member in members.items()}
    extra = parameters.get("extra_job_params", {})
    declared = [dict(entry) for entry in extra.get("parameters", ())]
    hoisted = JobParameters({str(entry.get("name")) for entry in declared}.union(*map(own_names, tasks.values())))
    values: dict[str, Any] = {}
    for entry in declared:
        if varies(entry.get("default")):
            values[str(entry.get("name"))] = render(launch, entry["default"])
            entry["default"] = ""
    settings = []
    for task_id, member in members.items():
        key = member.databricks_task_key
        task = render(member, hoisted.hoist(tasks[task_id], key, task_id))
        settings.append({**task, "task_key": key, "depends_on": depends_on(member, members), "run_if": run_if(member)})
        new = hoisted.templates.keys() - values.keys()
        values |= {name: render(member, hoisted.templates[name]) for name in hoisted.templates if name in new}
    of_job = {
        "name": f"{launch.dag_id}.{group.group_id}",
        # A second DAG run waits for the first one's run instead of being skipped.
        "queue": {"enabled": True},
        **{name: parameters.get(name) for name in ("max_concurrent_runs", "job_clusters", "access_control_list")},
        **extra,
        "parameters": [*declared, *({"name": name, "default": ""} for name in hoisted.templates)],
    }
    job = {**render(launch, hoisted.fix(of_job, str(group.group_id))), "tasks": settings}
    return WorkflowJob(
        {name: value for name, value in merge(job, {}, keep_templates=True).items() if value not in ("", [], {})},
        {name: to_text(value) for name, value in values.items() if value is not None},
        hoisted.fixed,
        list(members),
    )


def _with_group_parameters(member: DatabricksSubmitRunOperator, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return a member's task with the parameters and libraries of the group that tasks of its type get."""
    return _fill(member.databricks_task(), member.task_id, parameters)


def _fill(task: Mapping[str, Any], task_id: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    filled = dict(task)
    notebook = filled.get("notebook_task")
    if isinstance(notebook, dict):
        if given := parameters.get("notebook_params"):
            own = notebook.get("base_parameters") or {}
            _must_be(own, dict, task_id, "notebook_params")
            filled["notebook_task"] = {**notebook, "base_parameters": {**given, **own}}
        if given := parameters.get("notebook_packages"):
            own = filled.get("libraries") or []
            _must_be(own, list, task_id, "notebook_packages")
            filled["libraries"] = [*own, *(library for library in given if library not in own)]
    for kind, name in _ARGUMENTS.items():
        settings = filled.get(kind)
        if isinstance(settings, dict) and parameters.get(name) and not settings.get("parameters"):
            filled[kind] = {**settings, "parameters": parameters[name]}
    loop = filled.get("for_each_task")
    if isinstance(loop, dict) and isinstance(loop.get("task"), dict):
        filled["for_each_task"] = {**loop, "task": _fill(loop["task"], task_id, parameters)}
    return filled


def _must_be(value: object, kind: type, task_id: str, name: str) -> None:
    if not isinstance(value, kind):
        raise ConfigurationError(
            f"{task_id}: {name} must be a {kind.__name__}, because the workflow group has {name}, too; its values may"
            " be templates."
        )
