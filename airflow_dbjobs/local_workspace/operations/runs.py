"""The operations of the Jobs API on runs."""

from __future__ import annotations

import html
import operator
from typing import TYPE_CHECKING, Final

from airflow_dbjobs.local_workspace.engine import launch
from airflow_dbjobs.local_workspace.engine.scheduler import latest_attempts
from airflow_dbjobs.local_workspace.messages import ApiError, Json
from airflow_dbjobs.local_workspace.state import grants
from airflow_dbjobs.local_workspace.state.settings import tasks_of

from .context import RequestContext, page
from .validation import check_parameters, check_settings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_dbjobs.local_workspace.state.records import Run, TaskRun

#: The tasks whose log is a part of their output.
_LOGGED: Final = {"python_wheel_task", "spark_jar_task", "spark_python_task"}


def run_now(context: RequestContext) -> Json:
    """Start a run of a job, or return the one that the idempotency token was used for."""
    run = context.run_of_token()
    if run is None:
        job = context.job()
        check_parameters(context.args)
        # Older versions of the API ignore this field.
        only = context.args.get("only", []) if context.version == "2.2" else []
        run = launch.launch_job(context.store, job, context.args, context.now_ms, only=only)
        context.claim_token(run)
    return {"run_id": run.run_id, "number_in_job": run.run_id if context.modern else run.number_in_job}


def submit(context: RequestContext) -> Json:
    """Start a one-time run, or return the one that the idempotency token was used for."""
    run = context.run_of_token()
    if run is None:
        # One-time runs cannot share clusters: the API ignores job_clusters, so a task that names one is refused.
        hidden = ("idempotency_token", "access_control_list", "job_clusters")
        settings = {name: value for name, value in context.args.items() if name not in hidden}
        check_settings(settings, context.version)
        if not tasks_of(settings):
            raise ApiError("A one-time run needs 'tasks', or a task field such as 'notebook_task'.")
        if context.modern:
            # No operation shows the permissions of a one-time run, so they are only validated.
            grants.merge_grants([grants.ownership(context.user)], context.args.get("access_control_list", []))
        run = launch.launch_one_time(context.store, settings, context.user, context.now_ms)
        context.claim_token(run)
    return {"run_id": run.run_id}


def list_(context: RequestContext) -> Json:
    """List runs, newest first."""
    active, completed = context.args.get("active_only", False), context.args.get("completed_only", False)
    if active and completed:
        raise ApiError("Fields 'active_only' and 'completed_only' exclude each other.")
    limit = context.limit(20, min(25, context.max_page) if context.modern else context.max_page)
    source = context.store.active_runs if active else context.store.runs
    runs = _listed(source.values(), context)
    if completed:
        runs = [run for run in runs if not run.active]
    shown, links = page(context, sorted(runs, key=operator.attrgetter("run_id"), reverse=True), limit)
    expand = not context.modern or context.args.get("expand_tasks", False)
    entries = [context.view.run(run, expand=expand) for run in shown]
    return {**({"runs": entries} if entries else {}), **links}


def _listed(runs: Iterable[Run], context: RequestContext) -> list[Run]:
    args = context.args
    # Few requests have a filter, and there may be thousands of runs: each filter is a pass of its own.
    runs = [run for run in runs if not run.deleted]
    for name in ("job_id", "run_type"):
        if name in args:
            runs = [run for run in runs if getattr(run, name) == args[name]]
    if context.modern and "start_time_from" in args:
        runs = [run for run in runs if run.start_ms >= args["start_time_from"]]
    if context.modern and "start_time_to" in args:
        runs = [run for run in runs if run.start_ms <= args["start_time_to"]]
    return runs


def get(context: RequestContext) -> Json:
    """Show a run or a task run."""
    run, task = context.run()
    page_token = context.args.get("page_token", "")
    resolved = context.modern and context.args.get("include_resolved_values", False)
    if task is not None:
        shown = context.view.task_run(run, task, resolved=resolved)
        return shown | context.view.iterations(run, task, page_token, resolved=resolved)
    history = context.modern and context.args.get("include_history", False)
    return context.view.run(run, history=history, resolved=resolved, page_token=page_token)


def cancel(context: RequestContext) -> Json:
    """Start to cancel a run or a task run; do nothing if it has ended.

    That a task's cancellation reaches the tasks downstream and no others is documented. That the run may be repaired
    afterwards is documented for cancelled runs; for runs with a cancelled task it is an assumption.
    """
    run, task = context.run()
    if task is None:
        context.cancel(run)
    elif not task.state.terminal and task.stop is None:
        task.stop = "CANCELED"
        context.store.save(task)
    return {}


def cancel_all(context: RequestContext) -> Json:
    """Start to cancel the active runs of a job; with `all_queued_runs` only queued ones, without a job those of all."""
    queued_only = context.modern and context.args.get("all_queued_runs", False)
    job_id = None if queued_only and "job_id" not in context.args else context.job().job_id
    for run in context.store.active_runs.values():
        if job_id in (None, run.job_id) and (run.state.life == "QUEUED" or not queued_only):
            context.cancel(run)
    return {}


def delete(context: RequestContext) -> Json:
    """Delete a run that has ended. Its idempotency token cannot be used again."""
    run, task = context.run()
    if task is not None:
        raise ApiError(f"Run {task.run_id} is a task run; only its whole run, {run.run_id}, can be deleted.")
    if run.active:
        raise ApiError(f"Run {run.run_id} is still active; cancel it first.", code="INVALID_STATE")
    for attempt in context.store.tasks_of(run):
        context.executor.remove(attempt)
    context.store.remove_run(run)
    return {}


def repair(context: RequestContext) -> Json:
    """Run tasks of a finished run again."""
    run, task = context.run()
    if task is not None:
        raise ApiError(f"Run {task.run_id} is a task run; only its whole run, {run.run_id}, can be repaired.")
    check_parameters(context.args)
    return {"repair_id": launch.repair(context.store, run, context.args, context.now_ms).repair_id}


def get_output(context: RequestContext) -> Json:
    """Show what one task run returned or printed, and why it failed."""
    run, task = _single_task(context)
    metadata = context.view.task_run(run, task) if context.args["run_id"] == task.run_id else context.view.run(run)
    shown: Json = {"metadata": metadata}
    output = context.executor.output(task)
    if "notebook_task" in task.spec:
        shown["notebook_output"] = {"truncated": output.exit_value_truncated}
        if output.exit_value is not None:
            shown["notebook_output"]["result"] = output.exit_value
    elif _LOGGED & task.spec.keys():
        shown |= {"logs": output.log, "logs_truncated": output.log_truncated}
    elif "sql_task" in task.spec:
        link = {"output_link": metadata["run_page_url"], "warehouse_id": task.spec["sql_task"].get("warehouse_id")}
        shown["sql_output"] = {"query_output": link}
    elif task.child_run_id is not None:
        shown["run_job_output"] = {"run_id": task.child_run_id}
    if task.state.result == "FAILED":
        shown["error"] = output.error or task.state.message
        if output.error_trace:
            shown["error_trace"] = output.error_trace
    return shown


def export(context: RequestContext) -> Json:
    """Return the notebook that a task run executed, in its version of that time, as HTML."""
    _, task = _single_task(context)
    wanted = context.args.get("views_to_export", "CODE")
    if wanted not in ("CODE", "DASHBOARDS", "ALL"):
        raise ApiError("Field 'views_to_export' must be CODE, DASHBOARDS or ALL.")
    source = context.executor.source(task)
    if source is None:
        raise ApiError(f"Run {context.args['run_id']} did not run a notebook, and only notebooks can be exported.")
    if wanted == "DASHBOARDS":
        return {}
    name = task.spec["notebook_task"]["notebook_path"].rpartition("/")[2]
    content = (
        f'<!DOCTYPE html><html><head><meta charset="utf-8"><title>{html.escape(name)}</title></head>'
        f"<body><pre>{html.escape(source)}</pre></body></html>"
    )
    return {"views": [{"content": content, "name": name, "type": "NOTEBOOK"}]}


def _single_task(context: RequestContext) -> tuple[Run, TaskRun]:
    """Return the task run that the request names. API 2.0 also accepts the run of a single task."""
    run, task = context.run()
    if task is not None:
        return run, task
    tasks = list(latest_attempts(context.store.tasks_of(run)).values())
    if len(tasks) == 1 and not context.modern:
        return run, tasks[0]
    keys = ", ".join(f"{item.task_key}: {item.run_id}" for item in tasks)
    raise ApiError(f"Run {run.run_id} is not a task run; pass the id of one of its tasks ({keys or 'it has none'}).")
