"""The operations of the Jobs API on jobs."""

from __future__ import annotations

from airflow_dbjobs.local_workspace.messages import ApiError, Json
from airflow_dbjobs.local_workspace.operations import permissions
from airflow_dbjobs.local_workspace.operations.context import Call, page
from airflow_dbjobs.local_workspace.operations.fields import check_settings, is_flat, tasks_of, without_tasks
from airflow_dbjobs.local_workspace.state.records import Job


def create(call: Call) -> Json:
    """Save a new job; names need not be unique."""
    settings = _settings_of(call.args)
    check_settings(settings, call.version)
    job = Job(call.store.new_id(), settings, call.user, call.now_ms)
    # 2.0 has no such field, and what is unknown is ignored.
    if call.modern and (given := call.args.get("access_control_list")):
        job.grants = permissions.granted([permissions.ownership(call.user)], given)
    call.store.save(job)
    return {"job_id": job.job_id}


def get(call: Call) -> Json:
    """Show a job."""
    return call.render.job(call.job(), page_token=call.args.get("page_token", ""))


def list_(call: Call) -> Json:
    """List jobs, newest first: all of them in 2.0, a page in 2.1+."""
    name = call.args.get("name", "").lower()
    jobs = [
        job
        for job in sorted(call.store.jobs.values(), key=lambda job: -job.job_id)
        if not (name and call.modern) or job.settings.get("name", "Untitled").lower() == name
    ]
    if not call.modern:
        return {"jobs": [call.render.job(job) for job in jobs]} if jobs else {}
    shown, links = page(call, jobs, call.limit(20, 100, least=1))
    expand = call.args.get("expand_tasks", False)
    entries = [call.render.job(job, expand=expand) for job in shown]
    return {**({"jobs": entries} if entries else {}), **links}


def reset(call: Call) -> Json:
    """Replace the settings of a job."""
    job = call.job()
    if "new_settings" not in call.args:
        raise ApiError("Field 'new_settings' is missing.")
    settings = _settings_of(call.args["new_settings"])
    # What the cloud does: a reset that does not speak of the identity keeps it.
    if "run_as" in job.settings:
        settings.setdefault("run_as", job.settings["run_as"])
    return _replace(call, job, settings)


def update(call: Call) -> Json:
    """Change some settings of a job."""
    job = call.job()
    new = _settings_of(call.args.get("new_settings", {}))
    return _replace(call, job, _merged(job.settings, new, call.args.get("fields_to_remove", [])))


def delete(call: Call) -> Json:
    """Delete a job and its runs; its active runs are cancelled. Deleting it again is no error."""
    job = call.store.jobs.get(call.args.get("job_id", 0))
    if job is not None:
        call.store.remove_job(job)
        for run in call.store.runs_of(job.job_id):
            if run.active:
                run.deleted = True
                call.stop(run)
                call.store.save(run)
            else:
                for task in call.store.tasks_of(run):
                    call.executor.forget(task)
                call.store.remove_run(run)
    return {}


def _settings_of(body: Json) -> Json:
    # `format` is for reading; access control has an API of its own.
    return {name: value for name, value in body.items() if name not in ("format", "access_control_list", "job_id")}


def _merged(settings: Json, new: Json, remove: list[str]) -> Json:
    """Return what `jobs/update` makes of settings: keyed arrays are merged by key, other fields replaced whole."""
    if is_flat(settings) and ("tasks" in new or any(path.partition("/")[0] == "tasks" for path in remove)):
        # Who calls 2.1+ has read it with the one task that it is.
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
            raise ApiError(f"Field 'fields_to_remove' has {path!r}; only tasks/<key> and job_clusters/<key> are paths.")
    return merged


def _replace(call: Call, job: Job, settings: Json) -> Json:
    check_settings(settings, call.version)
    job.settings = settings
    call.store.save(job)
    # Of all settings only the timeout reaches runs that are under way.
    for run in call.store.active_runs.values():
        if run.job_id == job.job_id:
            run.settings["timeout_seconds"] = settings.get("timeout_seconds", 0)
            call.store.save(run)
    return {}
