"""Tries of a task and their launches: what identifies them, and what a try reports to the next one."""

from __future__ import annotations

import logging
import time
import uuid
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.airflow_compat import AIRFLOW_V_3_0_PLUS, conf

if TYPE_CHECKING:
    from collections.abc import Hashable

    from airflow_dbjobs.airflow_compat import BaseOperator, Context
    from airflow_dbjobs.runs.launch import LaunchIdentity

log = logging.getLogger(__name__)


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
    if start is None or start in planned or is_test(task_instance):
        return _launch_counter(task_instance).test_id
    return str(start.timestamp())


def is_test(task_instance: Any) -> bool:
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
            from airflow_dbjobs.airflow_compat.xcoms import store_xcom

            store_xcom(task_instance, report, run_id)
        else:
            _store_report_in_audit_log(task_instance, report)
    except Exception as error:  # noqa: BLE001 (whatever it is, later tries do not depend on reports)
        log.warning(
            "Airflow did not store the report of the launch of run %d; retries find it anyway: %r", run_id, error
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
