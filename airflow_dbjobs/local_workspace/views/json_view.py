"""Records as JSON, in each version of the API."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from airflow_dbjobs.local_workspace.engine.loops import has_failed, latest_iterations
from airflow_dbjobs.local_workspace.messages import ApiError, Json
from airflow_dbjobs.local_workspace.state.grants import runs_as
from airflow_dbjobs.local_workspace.state.settings import (
    is_flat,
    payload_fields,
    tasks_of,
    upstream_keys,
    without_tasks,
)

from .page_tokens import decode_token, encode_token

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow_dbjobs.local_workspace.state.records import Episode, Job, Run, State, TaskRun
    from airflow_dbjobs.local_workspace.state.store import Store

#: How many elements of a nested array one reply of API 2.2 holds.
_NESTED_PAGE: Final = 100
#: Termination code and type, by result state (section 8.4 of the API reference).
_TERMINATION: Final[Mapping[str | None, tuple[str, str]]] = {
    "SUCCESS": ("SUCCESS", "SUCCESS"),
    "SUCCESS_WITH_FAILURES": ("SUCCESS_WITH_FAILURES", "SUCCESS"),
    "FAILED": ("RUN_EXECUTION_ERROR", "CLIENT_ERROR"),
    "TIMEDOUT": ("CANCELED", "CLIENT_ERROR"),
    "CANCELED": ("USER_CANCELED", "CLIENT_ERROR"),
    "MAXIMUM_CONCURRENT_RUNS_REACHED": ("MAX_CONCURRENT_RUNS_EXCEEDED", "CLIENT_ERROR"),
    "UPSTREAM_FAILED": ("SKIPPED", "CLIENT_ERROR"),
    "UPSTREAM_CANCELED": ("SKIPPED", "CLIENT_ERROR"),
    "EXCLUDED": ("SKIPPED", "SUCCESS"),
    "DISABLED": ("DISABLED", "SUCCESS"),
}
_RUN_SETTINGS: Final = ("schedule", "job_clusters", "git_source", "description")
#: How many messages of failed iterations the API shows.
_COMMON_ERRORS: Final = 3
#: The id of clusters that runs and jobs bring along, none of which exists.
CLUSTER_ID: Final = "local-cluster"
_CLUSTER_FIELDS: Final = ("existing_cluster_id", "new_cluster", "libraries")
_CLUSTERS: Final = ("existing_cluster_id", "new_cluster", "job_cluster_key")


class JsonView:
    """Shows records in one version of the API. `page_url` maps a job's and a run's id to the URL of the run's page."""

    def __init__(self, store: Store, page_url: Callable[[int, int], str], version: str) -> None:
        self._store = store
        self._page_url = page_url
        self._version = version
        self._modern = version != "2.0"

    def job(self, job: Job, *, expand: bool = True, page_token: str | None = None) -> Json:
        """Return a job, without tasks and clusters unless `expand`; `page_token` is None for an entry of a list."""
        settings: Json = {
            "name": "Untitled",
            "email_notifications": {},
            "webhook_notifications": {},
            "timeout_seconds": 0,
            "max_concurrent_runs": 1,
        }
        if self._modern or not is_flat(job.settings):
            settings |= {**without_tasks(job.settings), "format": "MULTI_TASK"}
            if expand:
                source = "GIT" if "git_source" in job.settings else "WORKSPACE"
                settings["tasks"] = [self._spelled(_with_defaults(task, source)) for task in tasks_of(job.settings)]
            else:
                settings.pop("job_clusters", None)
        else:
            settings |= {**job.settings, "format": "SINGLE_TASK"}
        # Write-only; the resulting name is shown next to the settings.
        settings.pop("run_as", None)
        if not settings.get("tasks"):
            settings.pop("tasks", None)
        settings = self._spelled(settings)
        shown: Json = {
            "job_id": job.job_id,
            "creator_user_name": job.creator,
            "run_as_user_name" if self._modern else "run_as": runs_as(job),
            "settings": settings,
            "created_time": job.created_ms,
        }
        arrays = ("tasks", "job_clusters", "environments", "parameters")
        return shown | self._cut(settings, arrays, page_token, f"Job {job.job_id}")

    def run(
        self,
        run: Run,
        *,
        expand: bool = True,
        history: bool = False,
        resolved: bool = False,
        page_token: str | None = None,
    ) -> Json:
        """Return a run, without tasks unless `expand`; `page_token` is None for an entry of a list."""
        attempts = [task for task in self._store.tasks_of(run) if task.iteration is None]
        last = attempts[-1] if run.flat and attempts else None
        shown: Json = {
            "job_id": run.job_id,
            "run_id": run.run_id,
            "job_run_id": run.run_id,
            "number_in_job": run.run_id if self._modern else run.number_in_job,
            "original_attempt_run_id": run.run_id,
            "attempt_number": last.attempt if last else 0,
            "run_name": run.run_name,
            "run_type": run.run_type,
            "trigger": run.trigger,
            "creator_user_name": run.creator,
            "run_page_url": self._page_url(run.job_id, run.run_id),
            "format": "SINGLE_TASK" if run.flat and not self._modern else "MULTI_TASK",
            "start_time": run.start_ms,
            "end_time": run.end_ms,
            **self._states(run.state, run.stop),
            **_durations(last),
        }
        shown |= _optional_fields(run)
        if last:
            shown["cluster_spec"] = {name: last.spec[name] for name in _CLUSTER_FIELDS if name in last.spec}
            if not self._modern:
                shown["task"] = _payload(last)
        if expand and (self._modern or not run.flat):
            shown["tasks"] = [self._entry(run, task, resolved=resolved) for task in attempts]
        elif not expand:
            shown.pop("job_clusters", None)
        if history:
            shown["repair_history"] = [
                *(self._episode(item, item.state) for item in run.episodes[:-1]),
                # An episode's own state is only set when it ends; until then it is the run's.
                self._episode(run.episodes[-1], run.state),
            ]
        arrays = ("tasks", "job_clusters", "job_parameters", "repair_history")
        return shown | self._cut(shown, arrays, page_token, f"Run {run.run_id}")

    def task_run(self, run: Run, task: TaskRun, *, resolved: bool = False) -> Json:
        """Return a task run as `runs/get` shows it by the task run's own id."""
        return {
            **self._entry(run, task, resolved=resolved),
            "job_id": run.job_id,
            "job_run_id": run.run_id,
            "number_in_job": task.run_id if self._modern else run.number_in_job,
            "original_attempt_run_id": self._first_attempt(run, task).run_id,
            "run_name": task.task_key,
            "run_type": run.run_type,
            "trigger": "RETRY" if task.retries else run.trigger,
            "creator_user_name": run.creator,
            "format": "MULTI_TASK",
            "task": _payload(task),
            **({"overriding_parameters": run.overrides} if run.overrides else {}),
        }

    def iterations(self, run: Run, task: TaskRun, page_token: str | None, *, resolved: bool) -> Json:
        """Return the fields that only `runs/get` of a for_each task run has."""
        if "for_each_task" not in task.spec:
            return {}
        attempts = [self._entry(run, self._store.task_runs[run_id], resolved=resolved) for run_id in task.iteration_ids]
        shown: Json = {"tasks": [self._entry(run, task, resolved=resolved)], "iterations": attempts}
        # Before version 2.2 there are no other pages.
        token = page_token if self._version == "2.2" else None
        return shown | self._cut(shown, ("iterations",), token, f"Run {task.run_id}")

    def _entry(self, run: Run, task: TaskRun, *, resolved: bool) -> Json:
        entry: Json = {
            "run_if": "ALL_SUCCESS",
            **self._spelled(task.spec),
            "run_id": task.run_id,
            "attempt_number": task.attempt,
            "start_time": task.start_ms,
            "end_time": task.end_ms,
            "run_page_url": self._page_url(run.job_id, task.run_id),
            **self._states(task.state, task.stop),
            **_durations(task),
        }
        if task.started and not task.spec.keys().isdisjoint(_CLUSTERS):
            entry["cluster_instance"] = {"cluster_id": task.spec.get("existing_cluster_id", CLUSTER_ID)}
        if resolved and task.resolved:
            entry["resolved_values"] = task.resolved
        if task.outcome is not None:
            entry["condition_task"] = {**entry["condition_task"], "outcome": task.outcome}
        if task.child_run_id is not None:
            entry["run_job_task"] = {**entry["run_job_task"], "run_id": task.child_run_id}
        if task.iteration_ids:
            stats = _loop_stats(latest_iterations(task, self._store.task_runs))
            entry["for_each_task"] = {**entry["for_each_task"], "stats": stats}
        return entry

    def _spelled(self, item: Json) -> Json:
        """Return settings or a task with the health rules in this version's spelling ("op" or "operator")."""
        if "health" not in item:
            return item
        name, other = ("op", "operator") if self._modern else ("operator", "op")
        rules = [
            {name if field == other else field: value for field, value in rule.items()}
            for rule in item["health"].get("rules", [])
        ]
        return {**item, "health": {**item["health"], "rules": rules}}

    def _first_attempt(self, run: Run, task: TaskRun) -> TaskRun:
        return next(item for item in self._store.tasks_of(run) if item.work == task.work)

    def _episode(self, episode: Episode, state: State) -> Json:
        shown = {
            "type": "ORIGINAL" if episode.repair_id is None else "REPAIR",
            "start_time": episode.start_ms,
            "end_time": episode.end_ms,
            "task_run_ids": episode.task_run_ids,
            **self._states(state),
        }
        return shown if episode.repair_id is None else {"id": episode.repair_id, **shown}

    def _states(self, state: State, stop: str | None = None) -> Json:
        """Show a state; `stop` is the result state that an active run is being stopped with."""
        v1: Json = {"life_cycle_state": state.life, "state_message": state.message}
        v1["user_cancelled_or_timedout"] = (state.result or stop) in ("CANCELED", "TIMEDOUT")
        # API 2.0 has no result state for a skipped run.
        if state.result and (self._modern or state.result != "MAXIMUM_CONCURRENT_RUNS_REACHED"):
            v1["result_state"] = state.result
        if self._modern and state.life == "QUEUED":
            v1["queue_reason"] = state.message
        return {"state": v1, "status": _status(state)} if self._modern else {"state": v1}

    def _cut(self, holder: Json, arrays: Sequence[str], page_token: str | None, what: str) -> Json:
        """Cut the arrays of `holder` to one page, in place; return the fields that lead to the next page.

        Entries of lists are cut to the first page in every version.
        """
        longest = max((len(holder[name]) for name in arrays if name in holder), default=0)
        if self._version != "2.2" and page_token is not None and longest > _NESTED_PAGE:
            raise ApiError(f"{what} has more than {_NESTED_PAGE} tasks or other elements: use API 2.2.")
        start = decode_token(page_token).get("offset", 0) if page_token and self._version == "2.2" else 0
        for name in arrays:
            if name in holder:
                holder[name] = holder[name][start : start + _NESTED_PAGE]
        if longest <= start + _NESTED_PAGE:
            return {}
        if page_token is None:
            return {"has_more": True}
        return {"has_more": True, "next_page_token": encode_token({"offset": start + _NESTED_PAGE})}


def _optional_fields(run: Run) -> Json:
    """Return the fields that are shown only if the run or its job has them."""
    fields: Json = {name: run.settings[name] for name in _RUN_SETTINGS if name in run.settings}
    if not run.flat:
        fields["run_duration"] = run.end_ms - run.start_ms if run.end_ms else 0
    if run.overrides:
        fields["overriding_parameters"] = run.overrides
    if run.job_parameters:
        fields["job_parameters"] = [{"name": name, **item} for name, item in run.job_parameters.items()]
    if run.trigger_run_id is not None:
        fields["trigger_info"] = {"run_id": run.trigger_run_id}
    return fields


def _status(state: State) -> Json:
    if not state.terminal:
        status: Json = {"state": "WAITING" if state.life == "WAITING_FOR_RETRY" else state.life}
        if state.life == "QUEUED":
            status["queue_details"] = {"code": "MAX_CONCURRENT_RUNS_REACHED", "message": state.message}
        return status
    code, kind = _TERMINATION.get(state.result, ("INTERNAL_ERROR", "INTERNAL_ERROR"))
    if state.life == "INTERNAL_ERROR" and state.code is None:
        code, kind = "INTERNAL_ERROR", "INTERNAL_ERROR"
    return {
        "state": "TERMINATED",
        "termination_details": {"code": state.code or code, "type": kind, "message": state.message},
    }


def _loop_stats(iterations: Sequence[TaskRun]) -> Json:
    failed = [item for item in iterations if has_failed(item)]
    succeeded = sum(item.state.result == "SUCCESS" for item in iterations)
    details = (_status(item.state)["termination_details"] for item in failed)
    messages = Counter((detail["message"], detail["code"]) for detail in details)
    return {
        "task_run_stats": {
            "total_iterations": len(iterations),
            "scheduled_iterations": sum(item.started for item in iterations),
            "active_iterations": sum(item.started and not item.state.terminal for item in iterations),
            "completed_iterations": succeeded + len(failed),
            "succeeded_iterations": succeeded,
            "failed_iterations": len(failed),
        },
        "error_message_stats": [
            {"count": count, "error_message": message, "termination_category": code}
            for (message, code), count in messages.most_common(_COMMON_ERRORS)
        ],
    }


def _durations(task: TaskRun | None) -> Json:
    # There is no cluster to set up or clean up. The durations of a run with several tasks are 0.
    execution = task.end_ms - task.start_ms if task and task.started and task.end_ms else 0
    return {"setup_duration": 0, "execution_duration": execution, "cleanup_duration": 0}


def _payload(task: TaskRun) -> Json:
    return {name: task.spec[name] for name in payload_fields(task.spec)}


def _with_defaults(task: Json, source: str) -> Json:
    shown: Json = {"run_if": "ALL_SUCCESS", "timeout_seconds": 0, "email_notifications": {}, **task}
    for name in ("notebook_task", "spark_python_task"):
        if name in shown:
            shown[name] = {"source": source, **shown[name]}
    if upstream_keys(task):
        shown["depends_on"] = sorted(task["depends_on"], key=lambda item: str(item["task_key"]))
    return shown
