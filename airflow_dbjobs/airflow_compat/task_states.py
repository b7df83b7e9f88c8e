"""The states of task instances and of their DAG run, as Airflow has them now."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_dbjobs.airflow_compat import AIRFLOW_V_3_0_PLUS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow_dbjobs.airflow_compat import Context

log = logging.getLogger(__name__)

T = TypeVar("T")

# What a task of Airflow 3 gets from Airflow if the process that supervises it has died.
_SUPERVISOR_IS_GONE = (EOFError, BrokenPipeError, ConnectionResetError)


def task_state(task_instance: Any, *, trigger_id: int | None = None) -> str:
    """Return the present state of a task instance: "cleared" if it has none, "gone" if its DAG run was deleted.

    With `trigger_id`, in Airflow 2, it is "deferred again" if the task is deferred to another trigger than that. Raises
    any exception of Airflow.
    """
    if AIRFLOW_V_3_0_PLUS:
        return _state_from_supervisor(task_instance)
    return _state_from_database(task_instance, trigger_id)


def is_worker_stopping(task_instance: Any, timeout: float) -> bool:
    """Return whether a task was signalled because its worker stops: Airflow has it as running, or its supervisor died.

    The same holds if Airflow has lost track of the worker and is about to retry the task: no user sets that state.
    Waits at most `timeout` seconds for Airflow, which is called in a thread, because the caller is a signal handler and
    the interrupted code may hold any lock.
    """

    def read_state() -> str:
        try:
            return task_state(task_instance)
        except _SUPERVISOR_IS_GONE:
            return "running"

    return _read_within(timeout, read_state, "the task counts as killed") in {"running", "up_for_retry"}


def is_run_wanted_within(timeout: float, task_instance: Any, launch_task_id: str) -> bool:
    """Return what `is_run_wanted` does, True if Airflow does not answer; for signal handlers."""
    consequence = "only the run of the task itself is cancelled"
    return _read_within(timeout, lambda: is_run_wanted(task_instance, launch_task_id), consequence) is not False


def is_run_wanted(task_instance: Any, launch_task_id: str) -> bool:
    """Return whether the run that the task `launch_task_id` launched is still wanted.

    It is not if that task was cleared or marked as failed, or the DAG run was stopped.
    """
    states = states_of_tasks(task_instance, [launch_task_id])
    # After a clear, a DAG run is queued for a moment.
    return states.get(launch_task_id) == "success" and _dag_run_state(task_instance) in {"running", "queued"}


def states_of_tasks(task_instance: Any, task_ids: Sequence[str] = ()) -> dict[str, str]:
    """Return the present states of tasks of the same DAG run, by default of all; "cleared" for one that has none."""
    if AIRFLOW_V_3_0_PLUS:
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        of_runs: Mapping[str, Mapping[str, Any]] = RuntimeTaskInstance.get_task_states(
            dag_id=task_instance.dag_id, task_ids=list(task_ids) or None, run_ids=[task_instance.run_id]
        )
        found = of_runs.get(task_instance.run_id, {})
    else:
        found = _states_from_database(task_instance, task_ids)
    return {task_id: _state_name(state) for task_id, state in found.items()}


def _states_from_database(task_instance: Any, task_ids: Sequence[str]) -> dict[str, Any]:
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session

    with create_session() as session:
        query = session.query(TaskInstance.task_id, TaskInstance.state).filter_by(
            dag_id=task_instance.dag_id, run_id=task_instance.run_id
        )
        rows = (query.filter(TaskInstance.task_id.in_(task_ids)) if task_ids else query).all()
    return {row.task_id: row.state for row in rows}


def _dag_run_state(task_instance: Any) -> str:
    if AIRFLOW_V_3_0_PLUS:
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        return _state_name(RuntimeTaskInstance.get_dagrun_state(task_instance.dag_id, task_instance.run_id))
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session

    with create_session() as session:
        query = session.query(DagRun.state).filter_by(dag_id=task_instance.dag_id, run_id=task_instance.run_id)
        return _state_name(query.scalar())


def _read_within(timeout: float, read: Callable[[], T], consequence: str) -> T | None:
    """Return what `read` returns of Airflow; None if that takes too long or fails, which is logged."""
    found: list[T] = []

    def read_state() -> None:
        try:
            found.append(read())
        except Exception as error:  # noqa: BLE001 (whatever it is, the task may have been killed)
            log.warning("Reading the task's state from Airflow failed, so %s: %r", consequence, error)

    thread = threading.Thread(target=read_state, name="airflow_dbjobs task state", daemon=True)
    thread.start()
    thread.join(timeout)
    return found[0] if found else None


def _state_from_supervisor(task_instance: Any) -> str:
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    map_index = -1 if task_instance.map_index is None else task_instance.map_index
    states: Mapping[str, Mapping[str, Any]] = RuntimeTaskInstance.get_task_states(
        dag_id=task_instance.dag_id,
        task_ids=[task_instance.task_id],
        run_ids=[task_instance.run_id],
        map_index=map_index,
    )
    key = task_instance.task_id if map_index < 0 else f"{task_instance.task_id}_{map_index}"
    of_run = states.get(task_instance.run_id, {})
    return _state_name(of_run[key]) if key in of_run else "gone"


def _state_from_database(task_instance: Any, trigger_id: int | None) -> str:
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session

    with create_session() as session:
        found = (
            session.query(TaskInstance.state, TaskInstance.trigger_id)
            .filter_by(
                dag_id=task_instance.dag_id,
                task_id=task_instance.task_id,
                run_id=task_instance.run_id,
                map_index=task_instance.map_index,
            )
            .one_or_none()
        )
    if found is None:
        return "gone"
    # A trigger that moves keeps its id. If the task has another trigger, it was cleared and deferred again.
    has_another = trigger_id is not None and found.state == "deferred" and found.trigger_id != trigger_id
    return "deferred again" if has_another else _state_name(found.state)


def _state_name(state: Any) -> str:
    return "cleared" if state is None else str(getattr(state, "value", state))


def was_rescheduled(context: Context) -> bool:
    """Return whether an earlier process of this try has poked, in mode "reschedule"."""
    if AIRFLOW_V_3_0_PLUS:
        return bool(context.get("task_reschedule_count"))
    # In Airflow 2 a worker reads the database itself.
    from airflow.models.taskreschedule import TaskReschedule
    from airflow.utils.session import create_session

    instance: Any = context["ti"]
    with create_session() as session:
        return session.scalar(TaskReschedule.stmt_for_task_instance(instance).limit(1)) is not None
