"""How a deferred task ends: as a success in the triggerer, or on the worker that Airflow starts for it.

Ending it in the triggerer saves that worker. It is possible where Airflow does nothing at a success that needs the
task's code: see `_NEEDS`, which follows ``task_runner.py`` of Airflow 3 (`_execute_task`, `_push_xcom_if_needed`,
`_handle_current_task_success` and `finalize`) and what the API server does when a worker reports the success
(`ti_update_state`).
"""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.airflow_compat import AIRFLOW_V_3_0_PLUS, conf

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.triggers.base import TriggerEvent

    from airflow_dbjobs.airflow_compat import BaseOperator, Context

RESULT_KEY = "return_value"

# What a subclass may override, because Airflow calls it before the deferral or not at a success.
_HARMLESS_METHODS = frozenset(
    {"execute", "on_kill", "pre_execute", "prepare_for_execution", "prepare_template", "render_template"}
)


def success_arguments(task: BaseOperator, context: Context, *, max_result_bytes: int) -> dict[str, Any]:
    """Return the arguments with which a trigger ends this task at a success, or leaves that to a worker.

    `task` has the parameters `end_in_triggerer` and `do_xcom_push`.
    """
    if not getattr(task, "end_in_triggerer", False):
        return {}
    if reason := _reason_for_worker(task, context):
        task.log.info("The task will resume on a worker even after a success, because %s.", reason)
        return {}
    return {"ends_task": True, "max_result_bytes": max_result_bytes if task.do_xcom_push else None}


def _reason_for_worker(task: BaseOperator, context: Context) -> str:
    """Return why a success of the task has to end on a worker, as the end of a sentence; "" if it does not."""
    try:
        return next((reason for reason, is_needed in _NEEDS.items() if is_needed(task, context)), "")
    except Exception as error:  # noqa: BLE001 (of Airflow or of a plugin; a worker is always right)
        return f"checking what it needs failed: {error!r}"


def settling_seconds() -> float:
    """Return how long after its deferral a task must not be resumed on a worker.

    Airflow 3 fails a deferred task that is resumed before the scheduler knows that the task's first process has ended,
    which takes until the next heartbeat of the worker (apache/airflow#71580, #72716). A task that succeeds in the
    triggerer need not wait: the scheduler ignores the end of a process whose task has ended.
    """
    return 1.0 + conf.getint("workers", "min_heartbeat_interval", fallback=5) if AIRFLOW_V_3_0_PLUS else 0.0


def store_result(task_instance: Any, result: Any) -> None:
    """Store what a task returns, as Airflow does after a task. Blocks, so call it in a thread."""
    from airflow_dbjobs.airflow_compat.xcoms import store_xcom

    store_xcom(task_instance, RESULT_KEY, result)


def task_success_event() -> TriggerEvent:
    """Return the event of a trigger with which its task succeeds without a worker."""
    from airflow.triggers.base import TaskSuccessEvent

    return TaskSuccessEvent()


def _is_test(_: BaseOperator, context: Context) -> bool:
    from airflow_dbjobs.airflow_compat.launches import is_test

    return is_test(context["ti"])


def _has_own_methods(task: BaseOperator, _: Context) -> bool:
    """Return whether the task, or a class outside this package, replaces a method that may be called at a success."""
    classes = type(task).__mro__
    package = next(cls for cls in classes if cls.__module__.startswith("airflow_dbjobs."))
    own = [vars(cls) for cls in classes if cls not in package.__mro__]
    names = {name for members in own for name, value in members.items() if _is_method(value) and name[:2] != "__"}
    # A function may also be set on the operator itself.
    on_task = {name for name, value in vars(task).items() if callable(value)}
    names |= {name for name in on_task if _is_method(getattr(package, name, None))}
    return any(hasattr(package, name) for name in names - _HARMLESS_METHODS)


def _is_method(value: object) -> bool:
    """Return whether a member of a class is a function, or anything that makes one: a property, a partialmethod ..."""
    return callable(value) or hasattr(value, "__get__")


def _has_post_execute(task: BaseOperator, _: Context) -> bool:
    from airflow_dbjobs.airflow_compat import BaseOperator

    method: Any = task.post_execute
    is_own = inspect.unwrap(getattr(method, "__func__", method)) is not inspect.unwrap(BaseOperator.post_execute)
    return is_own or getattr(task, "_post_execute_hook", None) is not None


def _has_listeners(_: BaseOperator, __: Context) -> bool:
    task_runner: Any = import_module("airflow.sdk.execution_time.task_runner")
    return bool(task_runner.get_listener_manager().hook.on_task_instance_success.get_hookimpls())


def _has_own_xcom_backend(task: BaseOperator, _: Context) -> bool:
    from airflow_dbjobs.airflow_compat import BaseXCom, XCom

    return task.do_xcom_push and XCom is not BaseXCom


def _has_other_links(task: BaseOperator, _: Context) -> bool:
    return any(not type(link).__module__.startswith("airflow_dbjobs.") for link in task.operator_extra_links)


def _has_mapped_dependants(task: BaseOperator, _: Context) -> bool:
    return next(iter(task.iter_mapped_dependants()), None) is not None


def _is_traced(_: BaseOperator, __: Context) -> bool:
    return bool(conf.getboolean("traces", "otel_on", fallback=False))


def _clears_task_state(_: BaseOperator, __: Context) -> bool:
    return bool(conf.getboolean("state_store", "clear_on_success", fallback=False))


# What needs a worker at a success, in the order in which it is checked.
_NEEDS: dict[str, Callable[[BaseOperator, Context], Any]] = {
    "this release of airflow-dbjobs does not do so on Airflow 2": lambda _task, _context: not AIRFLOW_V_3_0_PLUS,
    "this is a test of the DAG": _is_test,
    "another operator runs it": lambda task, context: context["ti"].task is not task,
    "it has an on_success_callback": lambda task, _: task.on_success_callback,
    "it has outlets": lambda task, _: task.outlets,
    "it has a post_execute": _has_post_execute,
    "it overrides methods of the operator": _has_own_methods,
    "a listener follows tasks": _has_listeners,
    "Airflow traces tasks": _is_traced,
    "there is a custom XCom backend": _has_own_xcom_backend,
    "it has multiple_outputs": lambda task, _: getattr(task, "multiple_outputs", False),
    "another task is mapped over its result": _has_mapped_dependants,
    "its result is that of the DAG": lambda task, _: getattr(task, "returns_dag_result", False),
    "it has a map_index_template": lambda _, context: context.get("map_index_template"),
    "it renders its template fields again afterwards": lambda task, _: task.overwrite_rtif_after_execution,
    "it has further extra links": _has_other_links,
    "[state_store] clear_on_success is set": _clears_task_state,
}
