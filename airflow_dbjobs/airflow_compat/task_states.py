"""The state of a task instance, as Airflow has it now."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.airflow_compat import AIRFLOW_V_3_0_PLUS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_dbjobs.airflow_compat import Context

log = logging.getLogger(__name__)

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
    states: list[str] = []

    def read_state() -> None:
        try:
            states.append(task_state(task_instance))
        except _SUPERVISOR_IS_GONE:
            states.append("running")
        except Exception as error:  # noqa: BLE001 (whatever it is, the task may have been killed)
            log.warning("Reading the task's state from Airflow failed, so the task counts as killed: %r", error)

    thread = threading.Thread(target=read_state, name="airflow_dbjobs task state", daemon=True)
    thread.start()
    thread.join(timeout)
    return states in (["running"], ["up_for_retry"])


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
