"""The job of a workflow group: its settings, made of the members' tasks, and the parameters of its runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_dbjobs.errors import ConfigurationError
from airflow_dbjobs.operators.workflow.structure import depends_on, members_of, run_if
from airflow_dbjobs.payloads import merge
from airflow_dbjobs.payloads.job_parameters import JobParameters, own_names, to_text, varies

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow_dbjobs.operators.base import PayloadOperator

# By type of task the parameter of the group that such tasks get as `parameters`, if they have none.
_ARGUMENTS = {
    "spark_jar_task": "jar_params",
    "spark_python_task": "python_params",
    "spark_submit_task": "spark_submit_params",
}
_SHARED = ("notebook_params", *_ARGUMENTS.values())


class WorkflowJob(NamedTuple):
    """A job and a run of it.

    `fixed` names the templates that are settings of the job, and `task_ids` are those of its tasks.
    """

    settings: dict[str, Any]
    job_parameters: dict[str, str]
    fixed: list[str]
    task_ids: list[str]


def build_job(
    launch: PayloadOperator, parameters: Mapping[str, Any], render: Callable[[PayloadOperator, Any], Any] | None = None
) -> WorkflowJob:
    """Return the job of a workflow group.

    :param launch: the task that launches it.
    :param parameters: the parameters of the group, with their templates.
    :param render: returns a value with the templates of an operator rendered; None while the DAG is parsed.
    """
    is_template = render is None
    render = render or _unchanged
    group: Any = launch.task_group
    members = members_of(group)
    own = {task_id: member.databricks_task() for task_id, member in members.items()}
    extra = dict(parameters.get("extra_job_params", {}))
    declared, templates = _without_templates(extra.pop("parameters", ()))
    names = {str(entry.get("name")) for entry in declared}
    hoisted = JobParameters(names.union(parameters.get("notebook_params", ()), *map(own_names, own.values())))
    # However many tasks get a template of the group, the job has one parameter for it.
    shared = {name: parameters[name] for name in _SHARED if isinstance(parameters.get(name), (dict, list, tuple))}
    parameters = {**parameters, **hoisted.hoist_fields(shared, _SHARED, "group", str(group.group_id))}
    tasks = {task_id: _fill(task, task_id, parameters) for task_id, task in own.items()}
    values = {name: render(launch, template) for name, template in {**templates, **hoisted.templates}.items()}
    settings = []
    for task_id, member in members.items():
        key, before = member.databricks_task_key, set(hoisted.templates)
        task = render(member, hoisted.hoist(tasks[task_id], key, task_id))
        settings.append({**task, "task_key": key, "depends_on": depends_on(member, members), "run_if": run_if(member)})
        values |= {name: render(member, hoisted.templates[name]) for name in hoisted.templates if name not in before}
    of_job = {
        "name": f"{launch.dag_id}.{group.group_id}",
        # A second DAG run waits for the first one's run instead of being skipped.
        "queue": {"enabled": True},
        **{name: parameters.get(name) for name in ("max_concurrent_runs", "job_clusters", "access_control_list")},
        **extra,
    }
    # Not rendered: a DAG with native objects would turn an empty default into None.
    all_parameters = [*declared, *({"name": name, "default": ""} for name in hoisted.templates)]
    job = {**render(launch, hoisted.fix(of_job, str(group.group_id))), "tasks": settings, "parameters": all_parameters}
    given = merge(job, {}, keep_templates=is_template).items()
    return WorkflowJob(
        {name: value for name, value in given if value not in ("", [], {})},
        {name: to_text(value) for name, value in values.items() if value is not None},
        hoisted.fixed,
        list(members),
    )


def _without_templates(entries: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the job's own parameters with empty defaults in the place of templates, and these by name."""
    templates = {str(entry.get("name")): entry["default"] for entry in entries if varies(entry.get("default"))}
    declared = [{**entry, "default": ""} if str(entry.get("name")) in templates else dict(entry) for entry in entries]
    return declared, templates


def _unchanged(_: PayloadOperator, value: Any) -> Any:
    return value


def _fill(task: Mapping[str, Any], task_id: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return a member's task with the parameters and libraries of the group that tasks of its type get."""
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
