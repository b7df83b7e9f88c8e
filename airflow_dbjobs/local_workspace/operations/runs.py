"""The operations of the Jobs API on runs."""

from __future__ import annotations

import html
import operator
from typing import TYPE_CHECKING

from airflow_dbjobs.local_workspace.engine import launch as launching
from airflow_dbjobs.local_workspace.engine.scheduler import latest_attempts
from airflow_dbjobs.local_workspace.messages import ApiError, Json
from airflow_dbjobs.local_workspace.operations import permissions
from airflow_dbjobs.local_workspace.operations.context import Call, page
from airflow_dbjobs.local_workspace.operations.fields import check_parameters, check_settings, tasks_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_dbjobs.local_workspace.state.records import Run, TaskRun


def run_now(call: Call) -> Json:
    """Begin a run of a job, or find the one that the idempotency token stands for."""
    run = call.run_of_token()
    if run is None:
        job = call.job()
        check_parameters(call.args)
        # Older versions do not know the field, and ignore it.
        only = call.args.get("only", []) if call.version == "2.2" else []
        run = launching.run_job(call.store, job, call.args, call.now_ms, only=only)
        call.claim_token(run)
    return {"run_id": run.run_id, "number_in_job": run.run_id if call.modern else run.number_in_job}


def submit(call: Call) -> Json:
    """Begin a one-time run, or find the one that the idempotency token stands for."""
    run = call.run_of_token()
    if run is None:
        hidden = ("idempotency_token", "access_control_list")
        settings = {name: value for name, value in call.args.items() if name not in hidden}
        check_settings(settings, call.version)
        if not tasks_of(settings):
            raise ApiError("A one-time run needs 'tasks', or a task field such as 'notebook_task'.")
        if call.modern:
            # Nothing shows the permissions of a one-time run; they must be right all the same.
            permissions.granted([permissions.ownership(call.user)], call.args.get("access_control_list", []))
        run = launching.submit(call.store, settings, call.user, call.now_ms)
        call.claim_token(run)
    return {"run_id": run.run_id}


def list_(call: Call) -> Json:
    """List runs, newest first."""
    active, completed = call.args.get("active_only", False), call.args.get("completed_only", False)
    if active and completed:
        raise ApiError("Fields 'active_only' and 'completed_only' exclude each other.")
    limit = call.limit(20, min(25, call.max_page) if call.modern else call.max_page)
    source = call.store.active_runs if active else call.store.runs
    runs = _listed(source.values(), call)
    if completed:
        runs = [run for run in runs if not run.active]
    shown, links = page(call, sorted(runs, key=operator.attrgetter("run_id"), reverse=True), limit)
    expand = not call.modern or call.args.get("expand_tasks", False)
    entries = [call.render.run(run, expand=expand) for run in shown]
    return {**({"runs": entries} if entries else {}), **links}


def _listed(runs: Iterable[Run], call: Call) -> list[Run]:
    args = call.args
    # One filter after the other: there may be thousands of runs to each page, and hardly a call has any filter.
    runs = [run for run in runs if not run.deleted]
    for name in ("job_id", "run_type"):
        if name in args:
            runs = [run for run in runs if getattr(run, name) == args[name]]
    if call.modern and "start_time_from" in args:
        runs = [run for run in runs if run.start_ms >= args["start_time_from"]]
    if call.modern and "start_time_to" in args:
        runs = [run for run in runs if run.start_ms <= args["start_time_to"]]
    return runs


def get(call: Call) -> Json:
    """Show a run or a task run."""
    run, task = call.run()
    if task is not None:
        return call.render.task_run(run, task)
    history = call.modern and call.args.get("include_history", False)
    return call.render.run(run, history=history, page_token=call.args.get("page_token", ""))


def cancel(call: Call) -> Json:
    """Begin to cancel a run or a task run; one that ended is left alone."""
    run, task = call.run()
    if task is None:
        call.stop(run)
    elif not task.state.terminal and task.stop is None:
        task.stop = "CANCELED"
        call.store.save(task)
    return {}


def cancel_all(call: Call) -> Json:
    """Begin to cancel the active runs of a job, or with `all_queued_runs` the queued ones, of it or of all jobs."""
    queued_only = call.modern and call.args.get("all_queued_runs", False)
    job_id = None if queued_only and "job_id" not in call.args else call.job().job_id
    for run in call.store.active_runs.values():
        if job_id in (None, run.job_id) and (run.state.life == "QUEUED" or not queued_only):
            call.stop(run)
    return {}


def delete(call: Call) -> Json:
    """Delete a run that ended. Its idempotency token stays taken."""
    run, task = call.run()
    if task is not None:
        raise ApiError(f"Run {task.run_id} is a task run; only its whole run, {run.run_id}, can be deleted.")
    if run.active:
        raise ApiError(f"Run {run.run_id} is still active; cancel it first.", code="INVALID_STATE")
    for attempt in call.store.tasks_of(run):
        call.executor.forget(attempt)
    call.store.remove_run(run)
    return {}


def repair(call: Call) -> Json:
    """Run tasks of a finished run again."""
    run, task = call.run()
    if task is not None:
        raise ApiError(f"Run {task.run_id} is a task run; only its whole run, {run.run_id}, can be repaired.")
    check_parameters(call.args)
    return {"repair_id": launching.repair(call.store, run, call.args, call.now_ms).repair_id}


def get_output(call: Call) -> Json:
    """Show what one task run returned or wrote, and why it failed."""
    run, task = _single_task(call)
    metadata = call.render.task_run(run, task) if call.args["run_id"] == task.run_id else call.render.run(run)
    shown: Json = {"metadata": metadata}
    output = call.executor.output(task)
    if "notebook_task" in task.spec:
        shown["notebook_output"] = {"truncated": output.exit_value_truncated}
        if output.exit_value is not None:
            shown["notebook_output"]["result"] = output.exit_value
    elif "spark_python_task" in task.spec:
        shown |= {"logs": output.log, "logs_truncated": output.log_truncated}
    elif task.child_run_id is not None:
        shown["run_job_output"] = {"run_id": task.child_run_id}
    if task.state.result == "FAILED":
        shown["error"] = output.error or task.state.message
        if output.error_trace:
            shown["error_trace"] = output.error_trace
    return shown


def export(call: Call) -> Json:
    """Return the notebook that a task run ran, as it was then, in HTML."""
    _, task = _single_task(call)
    wanted = call.args.get("views_to_export", "CODE")
    if wanted not in ("CODE", "DASHBOARDS", "ALL"):
        raise ApiError("Field 'views_to_export' must be CODE, DASHBOARDS or ALL.")
    source = call.executor.source(task)
    if source is None:
        raise ApiError(f"Run {call.args['run_id']} ran no notebook, and only notebooks can be exported.")
    if wanted == "DASHBOARDS":
        return {}
    name = task.spec["notebook_task"]["notebook_path"].rpartition("/")[2]
    content = (
        f'<!DOCTYPE html><html><head><meta charset="utf-8"><title>{html.escape(name)}</title></head>'
        f"<body><pre>{html.escape(source)}</pre></body></html>"
    )
    return {"views": [{"content": content, "name": name, "type": "NOTEBOOK"}]}


def _single_task(call: Call) -> tuple[Run, TaskRun]:
    """Return the task run that the call means. Only 2.0, which knows no other runs, lets a run stand for its task."""
    run, task = call.run()
    if task is not None:
        return run, task
    tasks = list(latest_attempts(call.store.tasks_of(run)).values())
    if len(tasks) == 1 and not call.modern:
        return run, tasks[0]
    keys = ", ".join(f"{item.task_key}: {item.run_id}" for item in tasks)
    raise ApiError(f"Run {run.run_id} is not a task run; ask for one of its tasks instead ({keys or 'it has none'}).")
