"""Records as the API shows them, in each of its versions."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Final

from airflow_dbjobs.local_workspace.messages import ApiError, Json
from airflow_dbjobs.local_workspace.operations.fields import is_flat, tasks_of, upstream_keys, without_tasks
from airflow_dbjobs.local_workspace.operations.permissions import runs_as

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow_dbjobs.local_workspace.state.records import Episode, Job, Run, State, TaskRun
    from airflow_dbjobs.local_workspace.state.store import Store

#: Elements of a nested array that one reply of API 2.2 holds.
_NESTED_PAGE: Final = 100
#: Termination code and type by result state (8.4 of the reference); others are failures of the user's code.
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
_CLUSTER_FIELDS: Final = ("existing_cluster_id", "new_cluster", "libraries")


class Renderer:
    """Shows records in one version of the API. `page_url` returns the page of a run, given its job's id and its own."""

    def __init__(self, store: Store, page_url: Callable[[int, int], str], version: str) -> None:
        self._store = store
        self._page_url = page_url
        self._version = version
        self._modern = version != "2.0"

    def job(self, job: Job, *, expand: bool = True, page_token: str | None = None) -> Json:
        """Return a job. Without `expand` it has no tasks and no clusters; without `page_token` it stands in a list."""
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
        # Only for writing; what comes of it is shown beside the settings.
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

    def run(self, run: Run, *, expand: bool = True, history: bool = False, page_token: str | None = None) -> Json:
        """Return a run. Without `expand` it has no tasks; without `page_token` it stands in a list."""
        attempts = self._store.tasks_of(run)
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
        shown |= _given(run)
        if last:
            shown["cluster_spec"] = {name: last.spec[name] for name in _CLUSTER_FIELDS if name in last.spec}
            if not self._modern:
                shown["task"] = _payload(last)
        if expand and (self._modern or not run.flat):
            shown["tasks"] = [self._entry(run, task) for task in attempts]
        elif not expand:
            shown.pop("job_clusters", None)
        if history:
            shown["repair_history"] = [
                *(self._episode(item, item.state) for item in run.episodes[:-1]),
                # The state of the last one is kept when it ends; until then it is the run's.
                self._episode(run.episodes[-1], run.state),
            ]
        arrays = ("tasks", "job_clusters", "job_parameters", "repair_history")
        return shown | self._cut(shown, arrays, page_token, f"Run {run.run_id}")

    def task_run(self, run: Run, task: TaskRun) -> Json:
        """Return a task run as `runs/get` shows it when asked for its own id."""
        return {
            **self._entry(run, task),
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

    def _entry(self, run: Run, task: TaskRun) -> Json:
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
        if task.outcome is not None:
            entry["condition_task"] = {**entry["condition_task"], "outcome": task.outcome}
        if task.child_run_id is not None:
            entry["run_job_task"] = {**entry["run_job_task"], "run_id": task.child_run_id}
        return entry

    def _spelled(self, item: Json) -> Json:
        """Return settings or a task, the comparison in its health rules named as this version names it."""
        if "health" not in item:
            return item
        name, other = ("op", "operator") if self._modern else ("operator", "op")
        rules = [
            {name if field == other else field: value for field, value in rule.items()}
            for rule in item["health"].get("rules", [])
        ]
        return {**item, "health": {**item["health"], "rules": rules}}

    def _first_attempt(self, run: Run, task: TaskRun) -> TaskRun:
        return next(item for item in self._store.tasks_of(run) if item.task_key == task.task_key)

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
        """Show a state; `stop` is the result that was asked for while the run still goes on."""
        v1: Json = {"life_cycle_state": state.life, "state_message": state.message}
        v1["user_cancelled_or_timedout"] = (state.result or stop) in ("CANCELED", "TIMEDOUT")
        # 2.0 knows no result of a run that was skipped.
        if state.result and (self._modern or state.result != "MAXIMUM_CONCURRENT_RUNS_REACHED"):
            v1["result_state"] = state.result
        if self._modern and state.life == "QUEUED":
            v1["queue_reason"] = state.message
        return {"state": v1, "status": _status(state)} if self._modern else {"state": v1}

    def _cut(self, holder: Json, arrays: Sequence[str], page_token: str | None, what: str) -> Json:
        """Cut the arrays of `holder` to a page, in place; return what tells the client that there is more.

        An entry of a list is cut to the first page, in every version.
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


def _given(run: Run) -> Json:
    """Return what there is to show only if the run, or its job, has it."""
    given: Json = {name: run.settings[name] for name in _RUN_SETTINGS if name in run.settings}
    if not run.flat:
        given["run_duration"] = run.end_ms - run.start_ms if run.end_ms else 0
    if run.overrides:
        given["overriding_parameters"] = run.overrides
    if run.job_parameters:
        given["job_parameters"] = [{"name": name, **item} for name, item in run.job_parameters.items()]
    if run.trigger_run_id is not None:
        given["trigger_info"] = {"run_id": run.trigger_run_id}
    return given


def _status(state: State) -> Json:
    if not state.terminal:
        words = {"WAITING_FOR_RETRY": "WAITING"}
        status: Json = {"state": words.get(state.life, state.life)}
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


def _durations(task: TaskRun | None) -> Json:
    # There is no cluster to set up or to clean up; the durations of a run of several tasks are 0.
    execution = task.end_ms - task.start_ms if task and task.started and task.end_ms else 0
    return {"setup_duration": 0, "execution_duration": execution, "cleanup_duration": 0}


def _payload(task: TaskRun) -> Json:
    return {name: value for name, value in task.spec.items() if name.endswith("_task")}


def _with_defaults(task: Json, source: str) -> Json:
    shown: Json = {"run_if": "ALL_SUCCESS", "timeout_seconds": 0, "email_notifications": {}, **task}
    for name in ("notebook_task", "spark_python_task"):
        if name in shown:
            shown[name] = {"source": source, **shown[name]}
    if upstream_keys(task):
        shown["depends_on"] = sorted(task["depends_on"], key=lambda item: str(item["task_key"]))
    return shown


def encode_token(content: Json) -> str:
    """Return an opaque page token."""
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


def decode_token(token: str) -> dict[str, int]:
    """Return the content of a page token.

    Raises:
        ApiError: it is none of ours.
    """
    try:
        content = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or not all(type(value) is int and value >= 0 for value in content.values()):
        raise ApiError("Field 'page_token' is not a token that this workspace gave out.")
    return content
