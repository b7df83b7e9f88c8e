"""Repairs tasks of a workflow group's run: these and those that depend on them run again in the same run, once."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.client.models import RunState, repairs_of
from airflow_dbjobs.client.pagination import objects
from airflow_dbjobs.client.wait import retry_through_outages
from airflow_dbjobs.errors import CallError, JobsError, PermissionDenied, Unauthenticated, restored
from airflow_dbjobs.runs.workflow_task import find_task, upstream_keys

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.client.models import Run, TaskRun

log = logging.getLogger(__name__)

# How often to poll a run that does not show a repair yet.
_VISIBILITY_POLLS = 3


def read_with_repairs(client: JobsClient, run_id: int, *, period: float) -> Run:
    """Return a run with its repairs. Raises RunLost.

    If the latest repair is active but the run's own state does not show that, it is polled some more times.
    """

    def read() -> Run:
        return client.get_run(run_id, include_history=True)

    run = retry_through_outages(client, read, run_id)
    for _ in range(_VISIBILITY_POLLS):
        if not (run.is_terminal and is_being_repaired(run)):
            break
        client.sleep(period)
        run = retry_through_outages(client, read, run_id)
    return run


def repair_tasks(client: JobsClient, run: Run, task: TaskRun, keys: Iterable[str], *, period: float) -> None:
    """Repair tasks of a finished run, and return once it shows another attempt at `task`, or is active.

    `run` was read with its repairs. Also returns if somebody else has repaired it since, which the API compares with
    the id of its latest repair. Raises CallError if the API refuses the repair.
    """
    request = repair_request(run, keys)
    error: CallError | None = None
    try:
        _send(client, request)
        log.warning("Repairing run %d: %s", run.run_id, ", ".join(request["rerun_tasks"]))
    except CallError as refusal:
        error = refusal
    if _has_changed(client, run, task, made=error is None, period=period):
        if error:
            log.info("Run %d has been repaired meanwhile. The request of this task was answered: %s", run.run_id, error)
        return
    if error is None:
        raise JobsError(
            f"The API accepted a repair of run {run.run_id}, but does not show another attempt at task {task.task_key}."
            f" {run.page_url}"
        )
    text = (
        f"Task {task.task_key} of run {run.run_id} ended as {task.state} before this try began, and could not be"
        f" repaired: {error}. Nothing was started. {run.page_url}"
    )
    raise restored(type(error), (text.rstrip(),), vars(error)) from error.__cause__


def _send(client: JobsClient, request: dict[str, Any]) -> None:
    try:
        client.repair_run(request)
    except (Unauthenticated, PermissionDenied):
        # Nothing was repaired, and the credentials may have been rotated since they were read.
        if not client.renew_credentials():
            raise
        client.repair_run(request)


def _has_changed(client: JobsClient, judged: Run, task: TaskRun, *, made: bool, period: float) -> bool:
    """Return whether the run shows the repair that was `made` or, if none was, any change since it was judged."""
    for wait in (*(period,) * _VISIBILITY_POLLS, None):
        run = read_with_repairs(client, judged.run_id, period=period)
        latest = find_task(run, task.task_key)
        is_repaired = not made and latest_repair(run) != latest_repair(judged)
        if not run.is_terminal or is_repaired or (latest and latest.run_id != task.run_id):
            return True
        if wait is not None:
            client.sleep(wait)
    return False


def latest_repair(run: Run) -> dict[str, Any] | None:
    """Return the latest repair of a run that was read with its history; None if it was never repaired."""
    repairs = repairs_of(run)
    return repairs[-1] if repairs else None


def is_being_repaired(run: Run) -> bool:
    """Return whether the latest repair is active, which the run's own state may not show yet."""
    repair = latest_repair(run)
    state = RunState.from_json(repair) if repair else None
    return state is not None and state.is_known and not state.is_terminal


def dependents(run: Run, keys: Iterable[str]) -> set[str]:
    """Return the keys of the tasks that depend on these, directly or not: a repair runs them again by itself."""
    found: set[str] = set()
    new = set(keys)
    while new:
        new = {task.task_key for task in run.tasks if not new.isdisjoint(upstream_keys(task))} - found
        found |= new
    return found


def repair_request(run: Run, keys: Iterable[str]) -> dict[str, Any]:
    """Return the request that repairs tasks of a run, which was read with its history, and those that depend on them.

    The API refuses it if the run has been repaired since. A repair does not inherit the run's parameters.
    """
    repair = latest_repair(run)
    parameters = {
        str(item.get("name")): item["value"]
        for item in objects(run.raw, "job_parameters")
        if item.get("value") is not None
    }
    return {
        "run_id": run.run_id,
        "rerun_tasks": sorted(set(keys)),
        "rerun_dependent_tasks": True,
        **({"job_parameters": parameters} if parameters else {}),
        # None is also meant: the run must not have been repaired.
        "latest_repair_id": repair["id"] if repair else None,
    }
