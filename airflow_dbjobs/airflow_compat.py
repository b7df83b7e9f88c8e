"""What this package needs to know of a task and Airflow's public API does not tell. Its versions differ in it."""

from __future__ import annotations

import functools
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from typing import Literal

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, Context

    from airflow_dbjobs.errors import RunFailed

import logging
import threading
import uuid
from collections import Counter
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import conf
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from airflow.providers.common.compat.sdk import Context

    from airflow_dbjobs.runs.launch import TaskTry

log = logging.getLogger(__name__)

#: The state of a task instance that Airflow does not have any more: its DAG or DAG run was deleted.
GONE = "gone"

# Airflow 2 keeps reports in its audit log: it deletes a task's XComs before each try.
_REPORT_EVENT = "databricks_run"


# A task asks Airflow 3 through the process that supervises it.
_SUPERVISOR_IS_GONE = (EOFError, BrokenPipeError, ConnectionResetError)


def task_try(context: Context, *, operator: str, launch_number: int, durable: bool) -> TaskTry:
    """Return which try of which task instance this is, and which of its launches."""
    from airflow_dbjobs.runs.launch import TaskTry

    ti = context["ti"]
    return TaskTry(
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        task_id=ti.task_id,
        map_index=-1 if ti.map_index is None else ti.map_index,
        # `airflow tasks test` counts no tries.
        try_number=max(1, ti.try_number),
        max_tries=ti.max_tries or 0,
        dag_run_start=_dag_run_start(context),
        deployment=conf.get("databricks_jobs", "deployment", fallback=""),
        operator=operator,
        launch_number=launch_number,
        durable=durable,
    )


def report_launch(task_instance: Any, report: str, run_id: int) -> None:
    """Store what the next try of this task wants to know of a launch: `report`, which begins with "airflow-"."""
    store = _report_as_xcom if AIRFLOW_V_3_0_PLUS else _report_in_audit_log
    try:
        store(task_instance, report, run_id)
    except Exception as error:  # noqa: BLE001 (whatever it is, a later try can do without)
        log.warning("Airflow did not store a report on the launch of run %d: %r", run_id, error)


def _report_as_xcom(task_instance: Any, report: str, run_id: int) -> None:
    from airflow.sdk.bases.xcom import BaseXCom

    # Airflow gives a try the names of the XComs that the try before it left, not their values.
    BaseXCom.set(
        key=report,
        value=run_id,
        dag_id=task_instance.dag_id,
        task_id=task_instance.task_id,
        run_id=task_instance.run_id,
        map_index=task_instance.map_index,
    )


def _report_in_audit_log(task_instance: Any, report: str, _: int) -> None:
    from airflow.models.log import Log
    from airflow.utils.session import create_session

    with create_session() as session:
        session.add(Log(_REPORT_EVENT, task_instance, extra=report))


def reported_launches(task_instance: Any) -> list[str] | None:
    """Return what ``runs.launch.Launcher`` needs to know of the last try that launched; None if Airflow cannot tell."""
    if AIRFLOW_V_3_0_PLUS:
        start = getattr(task_instance, "_ti_context_from_server", None)
        # Airflow 3.0 starts the retry of a deferred task as if it resumed it, and tells no names then.
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


def _dag_run_start(context: Context) -> str:
    """Return what tells this DAG run from the same one elsewhere, and stays the same until it is over.

    No two schedulers start a DAG run in the same microsecond. ``dag.test()`` and ``airflow tasks test``, which give
    theirs no start of its own, get a random name.
    """
    dag_run, task_instance = context.get("dag_run"), context["ti"]
    start = getattr(dag_run, "start_date", None)
    planned = (getattr(dag_run, "logical_date", None), getattr(dag_run, "run_after", None))
    if start is None or start in planned or _is_test(task_instance):
        return _launches_of(task_instance).test
    return str(start.timestamp())


def _is_test(task_instance: Any) -> bool:
    """Whether this process plays the scheduler as well: nobody else tries the task again."""
    if not AIRFLOW_V_3_0_PLUS:
        return bool(getattr(task_instance, "test_mode", False))
    from airflow.sdk.execution_time import task_runner

    return type(getattr(task_runner, "SUPERVISOR_COMMS", None)).__name__ == "InProcessSupervisorComms"


class _Launches:
    """The launches of one try in this process: how many of each. `test` names a DAG run that has no start."""

    def __init__(self, task_instance: Any, key: tuple[Hashable, ...], test: str) -> None:
        self.task_instance = task_instance
        self.key = key
        self.counts: Counter[Hashable] = Counter()
        self.test = test


# Of the try that this process launched for last: a worker has one, ``dag.test()`` one after the other.
_current: _Launches | None = None
_tests: dict[Hashable, str] = {}


def _launches_of(task_instance: Any) -> _Launches:
    global _current  # noqa: PLW0603 (it is the process's)
    instance = (task_instance.dag_id, task_instance.run_id, task_instance.task_id, task_instance.map_index)
    key = (*instance, task_instance.try_number)
    if _current is None or _current.task_instance is not task_instance or _current.key != key:
        if task_instance.try_number <= 1 or instance not in _tests:
            _tests[instance] = uuid.uuid4().hex
        _current = _Launches(task_instance, key, _tests[instance])
    return _current


def next_launch_number(task_instance: Any, what: Hashable) -> int:
    """Return which launch of `what` (from 1) this is in the try, however many operators launch in it."""
    counts = _launches_of(task_instance).counts
    counts[what] += 1
    return counts[what]


def resume_launch(task_instance: Any, what: Hashable, number: int) -> None:
    """Note that the process which deferred this try had made `number` launches of `what`."""
    counts = _launches_of(task_instance).counts
    counts[what] = max(counts[what], number)


def task_state(task_instance: Any, *, trigger_id: int | None = None) -> str:
    """Return the state of a task instance as Airflow has it now, "cleared" where it has none, GONE where it is deleted.

    `trigger_id` is the trigger that asks. Raises what Airflow raises.
    """
    if AIRFLOW_V_3_0_PLUS:
        return _state_from_supervisor(task_instance)
    return _state_from_database(task_instance, trigger_id)


def is_worker_stopping(task_instance: Any, seconds: float) -> bool:
    """Whether a task has to stop because its worker stops: Airflow still has it as running, or its supervisor died.

    Airflow has so many seconds to tell, and is asked in a thread: in a signal handler the caller may hold any lock.
    """
    states: list[str] = []

    def ask() -> None:
        try:
            states.append(task_state(task_instance))
        except _SUPERVISOR_IS_GONE:
            states.append("running")
        except Exception as error:  # noqa: BLE001 (whatever it is, Airflow may have killed the task)
            log.warning("Airflow did not tell whether the task was killed: %r", error)

    thread = threading.Thread(target=ask, name="airflow_dbjobs task state", daemon=True)
    thread.start()
    thread.join(seconds)
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
    return _named(of_run[key]) if key in of_run else GONE


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
        return GONE
    # A trigger that moves stays the task's trigger; a task that was cleared may have been deferred again.
    is_another = trigger_id is not None and found.state == "deferred" and found.trigger_id != trigger_id
    return "deferred again" if is_another else _named(found.state)


def _named(state: Any) -> str:
    return "cleared" if state is None else str(getattr(state, "value", state))


def deadline_of(task: BaseOperator, context: Context) -> float | None:
    """Return when ``execution_timeout`` has passed (epoch seconds): Airflow 3 does not watch it during a deferral."""
    if task.execution_timeout is None:
        return None
    start = getattr(context["ti"], "start_date", None)
    return (start.timestamp() if start else time.time()) + task.execution_timeout.total_seconds()


def begins_anew(context: Context, deferred_by: int | None) -> bool:
    """Return whether an earlier try has deferred: Airflow 3.0 lets a retry go on where the failed try ended.

    It leaves the task the start of the failed try, too. This one begins now, which `deadline_of` must know.
    """
    if deferred_by is None or deferred_by >= context["ti"].try_number:
        return False
    context["ti"].start_date = datetime.now(UTC)
    return True


def redacted(error: RunFailed) -> RunFailed:
    """Return an error without what Airflow knows to be secret: it masks logs, but callbacks and mails tell it too."""
    from airflow.providers.common.compat.sdk import redact

    error.args = (redact(str(error)),)
    return error


PREFIX = "dbjobs.poller."


def to_airflow(kind: Literal["count", "gauge", "timing"], name: str, value: float, workspace: str) -> None:
    """Hand a measurement of `poller.RunPoller` on, named ``dbjobs.poller.<name>`` and tagged with the workspace."""
    stats, tags = _stats(), {"workspace": urlsplit(workspace).hostname or ""}
    if kind == "count":
        stats.incr(PREFIX + name, int(value), tags=tags)
    elif kind == "gauge":
        stats.gauge(PREFIX + name, value, tags=tags)
    else:
        stats.timing(PREFIX + name, timedelta(seconds=value), tags=tags)


@functools.cache
def _stats() -> Any:
    # What the triggerer itself counts with: the SDK's copy, which common-compat would give, is set up for tasks only.
    try:
        module = import_module("airflow.observability.stats")
    except ModuleNotFoundError:  # before Airflow 3.2
        module = import_module("airflow.stats")
    # The class gives way to functions of the module.
    return module if hasattr(module, "incr") else module.Stats
