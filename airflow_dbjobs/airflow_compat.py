"""The only module that tells Airflow's versions apart, or uses anything outside Airflow's public API."""

from __future__ import annotations

import functools
import logging
import threading
import time
import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow import __version__

try:
    from airflow.sdk.configuration import conf
except ImportError:  # before Airflow 3.2
    from airflow.configuration import conf

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping
    from typing import Literal

    from airflow.sdk import (
        BaseHook,
        BaseOperator,
        BaseOperatorLink,
        BaseSensorOperator,
        Connection,
        Context,
        PokeReturnValue,
    )
    from airflow.sdk.bases.xcom import BaseXCom
    from airflow.sdk.exceptions import (
        AirflowException,
        AirflowFailException,
        AirflowNotFoundException,
        AirflowSensorTimeout,
        AirflowSkipException,
        AirflowTaskTimeout,
        ParamValidationError,
    )
    from airflow.sdk.log import redact
    from airflow.sdk.types import TaskInstanceKey

    from airflow_dbjobs.errors import RunFailed
    from airflow_dbjobs.runs.launch import LaunchIdentity

log = logging.getLogger(__name__)

AIRFLOW_V_3_0_PLUS = not __version__.startswith("2.")

# --- names ---

# The modules that may contain a name, from the newest Airflow to 2.11. The common-compat provider has such a table too,
# but not in the version that Airflow 3.0's constraints pin.
_EXCEPTIONS = (
    "AirflowException", "AirflowFailException", "AirflowNotFoundException", "AirflowSensorTimeout",
    "AirflowSkipException", "AirflowTaskTimeout", "ParamValidationError",
)  # fmt: skip
_MODULES = {
    "BaseHook": ("airflow.sdk", "airflow.hooks.base"),
    "BaseOperator": ("airflow.sdk", "airflow.models.baseoperator"),
    "BaseOperatorLink": ("airflow.sdk", "airflow.models.baseoperatorlink"),
    "BaseSensorOperator": ("airflow.sdk", "airflow.sensors.base"),
    "PokeReturnValue": ("airflow.sdk", "airflow.sensors.base"),
    "BaseXCom": ("airflow.sdk.bases.xcom",),
    "XCom": ("airflow.sdk.execution_time.xcom", "airflow.models.xcom"),
    "SENSITIVE_FIELD_PLACEHOLDER": ("airflow.www.views",),
    "redact": ("airflow.sdk.log", "airflow.sdk.execution_time.secrets_masker", "airflow.utils.log.secrets_masker"),
    **dict.fromkeys(_EXCEPTIONS, ("airflow.sdk.exceptions", "airflow.exceptions")),
}


def __getattr__(name: str) -> Any:
    """Import a name from Airflow when it is first used, so that importing this module is cheap."""
    for module in _MODULES.get(name, ()):
        try:
            globals()[name] = found = getattr(import_module(module), name)
        except (ImportError, AttributeError):
            continue
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# --- tries of a task, and their launches ---


def launch_identity(context: Context, *, operator: str, launch_number: int, durable: bool) -> LaunchIdentity:
    """Return what identifies a launch: the try of a task instance, and which of its launches this is."""
    from airflow_dbjobs.runs.launch import LaunchIdentity

    ti = context["ti"]
    return LaunchIdentity(
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        task_id=ti.task_id,
        map_index=-1 if ti.map_index is None else ti.map_index,
        # `airflow tasks test` does not count tries.
        try_number=max(1, ti.try_number),
        max_tries=ti.max_tries or 0,
        dag_run_start=_dag_run_start(context),
        deployment=conf.get("databricks_jobs", "deployment", fallback=""),
        operator=operator,
        launch_number=launch_number,
        durable=durable,
    )


def _dag_run_start(context: Context) -> str:
    """Return a text that distinguishes this DAG run from the same one in another deployment.

    It is the start of the DAG run, because no two schedulers start one in the same microsecond. For ``dag.test()`` and
    ``airflow tasks test``, which do not record a start, it is random.
    """
    dag_run, task_instance = context.get("dag_run"), context["ti"]
    start = getattr(dag_run, "start_date", None)
    planned = (getattr(dag_run, "logical_date", None), getattr(dag_run, "run_after", None))
    if start is None or start in planned or _is_test(task_instance):
        return _launch_counter(task_instance).test_id
    return str(start.timestamp())


def _is_test(task_instance: Any) -> bool:
    """Return whether this is ``dag.test()`` or ``airflow tasks test``, whose tasks no other process retries."""
    if not AIRFLOW_V_3_0_PLUS:
        return bool(getattr(task_instance, "test_mode", False))
    from airflow.sdk.execution_time import task_runner

    return type(getattr(task_runner, "SUPERVISOR_COMMS", None)).__name__ == "InProcessSupervisorComms"


class _LaunchCounter:
    """Counts the launches of one try in this process. `test_id` identifies a DAG run that has no start."""

    def __init__(self, task_instance: Any, key: tuple[Hashable, ...], test_id: str) -> None:
        self.task_instance = task_instance
        self.key = key
        self.counts: Counter[Hashable] = Counter()
        self.test_id = test_id


# The counter of the latest try: a worker process has only one, and ``dag.test()`` runs one after the other.
_counter: _LaunchCounter | None = None
_test_ids: dict[Hashable, str] = {}


def _launch_counter(task_instance: Any) -> _LaunchCounter:
    global _counter  # noqa: PLW0603 (Airflow runs one task at a time in a process)
    instance = (task_instance.dag_id, task_instance.run_id, task_instance.task_id, task_instance.map_index)
    key = (*instance, task_instance.try_number)
    if _counter is None or _counter.task_instance is not task_instance or _counter.key != key:
        if task_instance.try_number <= 1 or instance not in _test_ids:
            _test_ids[instance] = uuid.uuid4().hex
        _counter = _LaunchCounter(task_instance, key, _test_ids[instance])
    return _counter


def next_launch_number(task_instance: Any, launch_key: Hashable) -> int:
    """Return the number (from 1) of this launch among those of the try that have the same key."""
    counts = _launch_counter(task_instance).counts
    counts[launch_key] += 1
    return counts[launch_key]


def set_launch_number(task_instance: Any, launch_key: Hashable, number: int) -> None:
    """Record that the process which deferred this try made `number` launches with the key."""
    _launch_counter(task_instance).counts[launch_key] = number


def is_resumed_retry(context: Context, deferred_by: int | None) -> bool:
    """Return whether Airflow resumes a retry where try number `deferred_by` was deferred, as Airflow 3.0 does.

    The task must then start from the beginning. Airflow also keeps the start time of the failed try; this replaces it,
    for `task_deadline`.
    """
    if deferred_by is None or deferred_by >= context["ti"].try_number:
        return False
    context["ti"].start_date = datetime.now(UTC)
    return True


def task_deadline(task: BaseOperator, context: Context) -> float | None:
    """Return when the task exceeds its ``execution_timeout`` (epoch seconds), which Airflow 3 forgets at a deferral."""
    if task.execution_timeout is None:
        return None
    start = getattr(context["ti"], "start_date", None)
    return (start.timestamp() if start else time.time()) + task.execution_timeout.total_seconds()


# --- reports of launches to the next try ---

# Airflow 2 deletes a task's XComs before each try, so reports are stored in its audit log.
_REPORT_EVENT = "databricks_run"


def report_launch(task_instance: Any, report: str, run_id: int) -> None:
    """Store a report of a launch for the next try of this task. `report` begins with "airflow-"."""
    try:
        if AIRFLOW_V_3_0_PLUS:
            # The report is the key, because Airflow gives the next try the keys of this try's XComs, not their values.
            store_xcom(task_instance, report, run_id)
        else:
            _store_report_in_audit_log(task_instance, report)
    except Exception as error:  # noqa: BLE001 (whatever it is, later tries do not depend on reports)
        log.warning(
            "Airflow did not store the report of the launch of run %d; retries find it anyway: %r", run_id, error
        )


def store_xcom(task_instance: Any, key: str, value: Any) -> None:
    """Store an XCom of a task now, on Airflow 3: in Airflow's database, even if there is a custom XCom backend."""
    from airflow.sdk.bases.xcom import BaseXCom

    BaseXCom.set(
        key=key,
        value=value,
        dag_id=task_instance.dag_id,
        task_id=task_instance.task_id,
        run_id=task_instance.run_id,
        map_index=task_instance.map_index,
    )


def _store_report_in_audit_log(task_instance: Any, report: str) -> None:
    from airflow.models.log import Log
    from airflow.utils.session import create_session

    with create_session() as session:
        session.add(Log(_REPORT_EVENT, task_instance, extra=report))


def reported_launches(task_instance: Any) -> list[str] | None:
    """Return the reports of the last try that stored any, for ``runs.launch.Launcher``; None if they are unknown."""
    if AIRFLOW_V_3_0_PLUS:
        start = getattr(task_instance, "_ti_context_from_server", None)
        # Airflow 3.0 starts the retry of a deferred task as if it resumed it, without these keys.
        return None if start is None or start.next_method else list(start.xcom_keys_to_clear or ())
    return _reports_in_audit_log(task_instance)


def _reports_in_audit_log(task_instance: Any) -> list[str] | None:
    from airflow.models.log import Log
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session

    from airflow_dbjobs.runs.launch import TASK_SUCCEEDED

    if not isinstance(task_instance, TaskInstance):
        return None
    with create_session() as session:
        rows = (
            session.query(Log.try_number, Log.event, Log.extra)
            .filter_by(
                dag_id=task_instance.dag_id,
                task_id=task_instance.task_id,
                run_id=task_instance.run_id,
                map_index=task_instance.map_index,
            )
            .filter(Log.event.in_((_REPORT_EVENT, "success")), Log.try_number < task_instance.try_number)
            .all()
        )
    last = max((row.try_number for row in rows), default=0)
    return [row.extra if row.event == _REPORT_EVENT else TASK_SUCCEEDED for row in rows if row.try_number == last]


# --- the state of a task instance ---

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
    return states == ["running"]


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


# --- secrets ---


def redact_error(error: RunFailed) -> RunFailed:
    """Mask in an error the secrets that Airflow masks in logs, because errors also appear in callbacks and mails."""
    from airflow_dbjobs.airflow_compat import redact

    error.args = (redact(str(error)),)
    return error


# --- metrics ---

PREFIX = "dbjobs.poller."


def emit_metric(kind: Literal["count", "gauge", "timing"], name: str, value: float, workspace: str) -> None:
    """Send a measurement of ``RunPoller`` to Airflow as ``dbjobs.poller.<name>``, tagged with the workspace's host."""
    metrics, tags = stats(), {"workspace": urlsplit(workspace).hostname or ""}
    if kind == "count":
        metrics.incr(PREFIX + name, int(value), tags=tags)
    elif kind == "gauge":
        metrics.gauge(PREFIX + name, value, tags=tags)
    else:
        metrics.timing(PREFIX + name, timedelta(seconds=value), tags=tags)


@functools.cache
def stats() -> Any:
    """Return Airflow's metrics."""
    # The same module as the triggerer uses; the SDK has a copy, but that is only set up in tasks.
    try:
        module = import_module("airflow.observability.stats")
    except ModuleNotFoundError:  # before Airflow 3.2
        module = import_module("airflow.stats")
    # Newer versions have functions instead of a class.
    return module if hasattr(module, "incr") else module.Stats
