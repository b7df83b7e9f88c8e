"""The members of a workflow group: what may be one, and how they and the launch are ordered among the DAG's tasks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_dbjobs.airflow_compat import BaseOperator, MappedTaskGroup, TaskGroup, XComArg
from airflow_dbjobs.errors import ConfigurationError
from airflow_dbjobs.operators.submit_run import DatabricksSubmitRunOperator
from airflow_dbjobs.payloads.rules.tasks import KEY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow_dbjobs.operators.workflow.group import DatabricksWorkflowTaskGroup

    Members = Mapping[str, DatabricksSubmitRunOperator]

RUN_IF = {
    "all_success": "ALL_SUCCESS",
    "all_done": "ALL_DONE",
    "all_failed": "ALL_FAILED",
    "one_success": "AT_LEAST_ONE_SUCCESS",
    "one_failed": "AT_LEAST_ONE_FAILED",
    "none_failed": "NONE_FAILED",
    # NONE_FAILED needs a success, too.
    "none_failed_min_one_success": "NONE_FAILED",
    # That of a teardown.
    "all_done_setup_success": "ALL_DONE",
}
_ALTERNATIVES = ", ".join(rule for rule in RUN_IF if rule != "all_done_setup_success")
_TEXT = r"'[^']*'|\"[^\"]*\""
_XCOM_PULL = re.compile(rf"\bxcom_pull\(((?:{_TEXT}|\([^()]*\)|[^()'\"])*)\)")
# What such a call has if it reads another DAG run.
_OF_ANOTHER_RUN = re.compile(r"\b(?:include_prior_dates|dag_id|run_id)\s*=")
_TASK_IDS = re.compile(rf"(?:^|\btask_ids\s*=)\s*({_TEXT}|\[[^\]]*\]|\([^)]*\))")


def members_of(group: DatabricksWorkflowTaskGroup) -> dict[str, DatabricksSubmitRunOperator]:
    """Return the members of a group by task id. Raises ConfigurationError for a task that cannot be one."""
    nodes = (node for node in _tasks_in(group) if node.task_id != group.launch_task_id)
    return {node.task_id: node if isinstance(node, DatabricksSubmitRunOperator) else _refuse(node) for node in nodes}


def _tasks_in(group: TaskGroup) -> Iterator[Any]:
    for child in group.children.values():
        if isinstance(child, MappedTaskGroup):
            raise ConfigurationError(
                f"{child.group_id} is a mapped task group in a workflow group, whose job always has the same tasks. Use"
                " an operator with a for_each_task, or move the mapped group out of the workflow group."
            )
        if isinstance(child, TaskGroup):
            yield from _tasks_in(child)
        else:
            yield child


def _refuse(task: Any) -> NoReturn:
    if not isinstance(task, BaseOperator):
        raise ConfigurationError(
            f"{task.task_id} is a mapped task in a workflow group, whose job always has the same tasks. Use a"
            " for_each_task instead of expand(), or move it out of the group."
        )
    instead = "Use an operator with a condition_task instead" if hasattr(task, "skip_all_except") else "Move it out"
    raise ConfigurationError(
        f"{task.task_id} is a {task.task_type}: a workflow group may contain only DatabricksNotebookOperator,"
        f" DatabricksTaskOperator and DatabricksSubmitRunOperator, whose tasks Databricks runs. {instead}."
    )


def check_place(group: DatabricksWorkflowTaskGroup) -> None:
    """Raise ConfigurationError if a group is inside a group that cannot contain it."""
    above: Any = group.parent_group
    while above is not None:
        if isinstance(above, MappedTaskGroup):
            raise ConfigurationError(
                f"Workflow group {group.group_id} is inside the mapped task group {above.group_id}: all its mapped"
                " instances would be the same job. Move it out, and use a for_each_task in it."
            )
        if getattr(above, "is_databricks", False):
            raise ConfigurationError(
                f"Workflow group {group.group_id} is inside the workflow group {above.group_id}, which already is one"
                " job. Use an ordinary TaskGroup for a part of it, or a run_job_task for another job."
            )
        above = above.parent_group


def check_members(group: DatabricksWorkflowTaskGroup, members: Members) -> None:
    """Raise ConfigurationError if the members cannot be the tasks of one job."""
    if not members:
        raise ConfigurationError(
            f"Workflow group {group.group_id} has no tasks, and a job needs one. Add an operator to it."
        )
    by_key: dict[str, str] = {}
    for task_id, member in members.items():
        key = member.databricks_task_key
        if not re.fullmatch(KEY, key):
            raise ConfigurationError(
                f"{task_id}: databricks_task_key is {key[:200]!r}; it must have 1 to 100 letters, digits, _ and -."
                " Shorten or change it, or omit it."
            )
        if key in by_key:
            raise ConfigurationError(
                f"{task_id} has the task key {key!r} of {by_key[key]}, and keys must be unique in a job. Give one of"
                " the two another databricks_task_key."
            )
        by_key[key] = task_id
        check_references(group, members, task_id, member.databricks_task())
    for member in members.values():
        run_if(member)


def run_if(member: DatabricksSubmitRunOperator) -> str:
    """Return the condition of a member's task. Raises ConfigurationError if its trigger rule has no counterpart."""
    rule = str(getattr(member.trigger_rule, "value", member.trigger_rule))
    if rule not in RUN_IF:
        raise ConfigurationError(
            f"{member.task_id}: trigger_rule {rule!r} has no counterpart in Databricks, which decides whether the tasks"
            f" of a workflow group run. Use one of {_ALTERNATIVES}."
        )
    configured = member.task_settings().get("run_if")
    if configured not in (None, RUN_IF[rule]):
        raise ConfigurationError(
            f"{member.task_id}: run_if is {configured!r}, but trigger_rule {rule!r} means {RUN_IF[rule]}. Omit run_if,"
            f" and give the trigger_rule that means it: one of {_ALTERNATIVES}."
        )
    return RUN_IF[rule]


def given_dependencies(member: DatabricksSubmitRunOperator) -> dict[str, dict[str, Any]]:
    """Return the entries by key of ``depends_on`` in a member's settings, which may require an outcome."""
    entries = member.task_settings().get("depends_on")
    entries = entries if isinstance(entries, list) else []
    return {str(entry.get("task_key")): entry for entry in entries if isinstance(entry, dict)}


def depends_on(member: DatabricksSubmitRunOperator, members: Members) -> list[dict[str, Any]]:
    """Return the dependencies of a member's task: what it waits for in the group, and those in its settings."""
    given = given_dependencies(member)
    keys = {members[task_id].databricks_task_key for task_id in member.upstream_task_ids & members.keys()}
    return [given.get(key, {"task_key": key}) for key in sorted(keys | given.keys())]


def check_references(group: DatabricksWorkflowTaskGroup, members: Members, user: str, settings: object) -> None:
    """Raise ConfigurationError if a template or an XComArg in `settings` needs the value of a task of the group."""
    outputs = (other.task_id for other, _ in XComArg.iter_xcom_references(settings))
    for task_id in (*outputs, *_pulled_task_ids(settings)):
        if task_id in members or task_id == group.launch_task_id:
            raise ConfigurationError(
                f"{user} uses the output of {task_id}, which is not known when the group's job is"
                " launched. Let the code of that task set a task value, and use"
                " '{{tasks.<task key>.values.<name>}}'; '{{job.run_id}}' is the run's id."
            )


def _pulled_task_ids(value: object) -> Iterator[str]:
    """Yield the ids of tasks whose values in the same DAG run the templates in `value` read by ``xcom_pull``."""
    if isinstance(value, str):
        for call in _XCOM_PULL.findall(value) if "xcom_pull" in value else ():
            if not _OF_ANOTHER_RUN.search(call):
                yield from (text[1:-1] for ids in _TASK_IDS.findall(call.strip()) for text in re.findall(_TEXT, ids))
    elif isinstance(value, (dict, list, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _pulled_task_ids(item)


def order(launch: BaseOperator) -> None:
    """Let the launch wait for all that a member waits for outside the group, and the first members for the launch.

    Raises ConfigurationError if this is impossible.
    """
    group: Any = launch.task_group
    members = members_of(group)
    by_key = {member.databricks_task_key: member for member in members.values()}
    for member in members.values():
        keys = given_dependencies(member)
        new = [other for key in keys if (other := by_key.get(key)) and other.task_id not in member.upstream_task_ids]
        if new:
            member.set_upstream(new)
    for task_id in sorted(upstreams_outside(launch) - launch.upstream_task_ids):
        launch.set_upstream(launch.dag.get_task(task_id))
    for member in members.values():
        if members.keys().isdisjoint(member.upstream_task_ids) and launch.task_id not in member.upstream_task_ids:
            member.set_upstream(launch)


def check_failure_rules(members: Members) -> None:
    """Raise ConfigurationError if Airflow would skip a member that Databricks runs after a failure.

    All that a member waits for outside its group has succeeded, because the launch waits for it. The order is complete.
    """
    for task_id, member in members.items():
        inside, outside = member.upstream_task_ids & members.keys(), member.upstream_task_ids - members.keys()
        rule = str(getattr(member.trigger_rule, "value", member.trigger_rule))
        if outside and (rule == "all_failed" or (rule == "one_failed" and not inside)):
            raise ConfigurationError(
                f"{task_id}: trigger_rule {rule!r} never holds, because the task also waits for"
                f" {', '.join(sorted(outside))}, without whose success the group's job is not launched. Let it wait for"
                " tasks of the group only, and say so in the with block."
            )


def upstreams_outside(launch: BaseOperator) -> set[str]:
    """Return the tasks outside a group for which the group or a member waits.

    Raises ConfigurationError if one of them waits for a member.
    """
    group: Any = launch.task_group
    members, tasks = members_of(group), launch.dag.task_dict
    upstream = set(group.upstream_task_ids).union(*(member.upstream_task_ids for member in members.values()))
    groups = launch.dag.task_group.get_task_group_dict()
    for above in filter(None, map(groups.get, group.upstream_group_ids)):
        upstream.update(task.task_id for task in above.get_leaves())
    # A copy of the DAG may have some tasks only.
    outside = (upstream & tasks.keys()) - members.keys() - {launch.task_id}
    after = _tasks_after(launch, members)
    for task_id in sorted(outside & after.keys()):
        raise ConfigurationError(
            f"Workflow group {group.group_id} waits for {task_id}, which itself waits for {after[task_id]} in the"
            " group. The tasks of a group run in one go, without waiting for others in between. Split the group in"
            f" two, or move {task_id} before or after it."
        )
    return outside


def _tasks_after(launch: BaseOperator, members: Members) -> dict[str, str]:
    """Return the tasks outside a group that wait for tasks in it, each with one of these."""
    after: dict[str, str] = {}
    tasks = launch.dag.task_dict
    pending = [(task_id, task_id) for task_id in (*members, launch.task_id)]
    while pending:
        task_id, origin = pending.pop()
        for downstream in tasks[task_id].downstream_task_ids:
            if downstream not in members and downstream not in after:
                after[downstream] = origin
                pending.append((downstream, origin))
    return after
