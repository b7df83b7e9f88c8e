"""The operations of the Jobs API on jobs."""

from __future__ import annotations

from airflow_dbjobs.local_workspace.messages import ApiError, Json
from airflow_dbjobs.local_workspace.state import grants
from airflow_dbjobs.local_workspace.state.records import Job
from airflow_dbjobs.local_workspace.state.settings import is_flat, tasks_of, without_tasks

from .context import RequestContext, page
from .validation import check_settings


def create(context: RequestContext) -> Json:
    """Create a job; names need not be unique."""
    settings = _settings_of(context.args)
    check_settings(settings, context.version)
    job = Job(context.store.new_id(), settings, context.user, context.now_ms)
    # API 2.0 does not know the field, and ignores unknown fields.
    if context.modern and (given := context.args.get("access_control_list")):
        job.grants = grants.merge_grants([grants.ownership(context.user)], given)
    context.store.save(job)
    return {"job_id": job.job_id}


def get(context: RequestContext) -> Json:
    """Show a job."""
    return context.view.job(context.job(), page_token=context.args.get("page_token", ""))


def list_(context: RequestContext) -> Json:
    """List jobs, newest first: all of them in API 2.0, one page in later versions."""
    name = context.args.get("name", "").lower()
    jobs = [
        job
        for job in sorted(context.store.jobs.values(), key=lambda job: -job.job_id)
        if not (name and context.modern) or job.settings.get("name", "Untitled").lower() == name
    ]
    if not context.modern:
        return {"jobs": [context.view.job(job) for job in jobs]} if jobs else {}
    shown, links = page(context, jobs, context.limit(20, 100, least=1))
    expand = context.args.get("expand_tasks", False)
    entries = [context.view.job(job, expand=expand) for job in shown]
    return {**({"jobs": entries} if entries else {}), **links}


def reset(context: RequestContext) -> Json:
    """Replace the settings of a job."""
    job = context.job()
    if "new_settings" not in context.args:
        raise ApiError("Field 'new_settings' is missing.")
    settings = _settings_of(context.args["new_settings"])
    # As in the cloud, a reset without run_as keeps the old one.
    if "run_as" in job.settings:
        settings.setdefault("run_as", job.settings["run_as"])
    return _replace(context, job, settings)


def update(context: RequestContext) -> Json:
    """Change some settings of a job."""
    job = context.job()
    new = _settings_of(context.args.get("new_settings", {}))
    return _replace(context, job, _merged(job.settings, new, context.args.get("fields_to_remove", [])))


def delete(context: RequestContext) -> Json:
    """Delete a job and its runs, cancelling the active ones. Deleting a job that does not exist is not an error."""
    job = context.store.jobs.get(context.args.get("job_id", 0))
    if job is not None:
        context.store.remove_job(job)
        for run in context.store.runs_of(job.job_id):
            if run.active:
                run.deleted = True
                context.cancel(run)
                context.store.save(run)
            else:
                for task in context.store.tasks_of(run):
                    context.executor.remove(task)
                context.store.remove_run(run)
    return {}


def _settings_of(body: Json) -> Json:
    # `format` is read-only; access control has its own API.
    return {name: value for name, value in body.items() if name not in ("format", "access_control_list", "job_id")}


def _merged(settings: Json, new: Json, remove: list[str]) -> Json:
    """Return the settings after `jobs/update`: keyed arrays are merged by key, other fields are replaced."""
    if is_flat(settings) and ("tasks" in new or any(path.partition("/")[0] == "tasks" for path in remove)):
        # Clients of API 2.1 and later have read this job as one with a single task.
        settings = {**without_tasks(settings), "tasks": tasks_of(settings)}
    merged = {**settings, **new}
    for given, other in (("new_cluster", "existing_cluster_id"), ("existing_cluster_id", "new_cluster")):
        if given in new and other not in new:
            merged.pop(other, None)
    for field, key in (("tasks", "task_key"), ("job_clusters", "job_cluster_key")):
        if field in new and settings.get(field):
            by_key = {item.get(key): item for item in settings[field]}
            merged[field] = list((by_key | {item.get(key): item for item in new[field]}).values())
    for path in remove:
        field, _, name = path.partition("/")
        if not name:
            merged.pop(field, None)
        elif field in ("tasks", "job_clusters"):
            key = "task_key" if field == "tasks" else "job_cluster_key"
            merged[field] = [item for item in merged.get(field, []) if item.get(key) != name]
        else:
            raise ApiError(
                f"Field 'fields_to_remove' has {path!r}; the only paths are tasks/<key> and job_clusters/<key>."
            )
    return merged


def _replace(context: RequestContext, job: Job, settings: Json) -> Json:
    check_settings(settings, context.version)
    job.settings = settings
    context.store.save(job)
    # The timeout is the only setting that applies to runs that are already active.
    for run in context.store.active_runs.values():
        if run.job_id == job.job_id:
            run.settings["timeout_seconds"] = settings.get("timeout_seconds", 0)
            context.store.save(run)
    return {}
