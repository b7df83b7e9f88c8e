"""DAGs in tests: a database of their own, and ``dag.test()`` of a DAG that no folder contains."""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from airflow_dbjobs.airflow_compat import AIRFLOW_V_3_0_PLUS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# What `airflow.settings` keeps of a database.
_DATABASE = (
    "SQL_ALCHEMY_CONN", "SQL_ALCHEMY_CONN_ASYNC", "DAGS_FOLDER", "engine", "async_engine", "Session",
    "NonScopedSession", "AsyncSession",
)  # fmt: skip
_BUNDLES = '[{"name": "dags-folder", "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle", "kwargs": {}}]'


def settings_of(home: Path) -> dict[str, str]:
    """Return the environment variables by which Airflow keeps its database, DAGs and logs in a folder of the tests."""
    return {
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": f"sqlite+aiosqlite:///{home}/airflow.db",
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": _BUNDLES,
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        # Airflow 3.2 does without an API server, and yet not without its secret.
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
    }


@contextmanager
def database() -> Iterator[None]:
    """Let Airflow use the database that the environment variables name, until the end of the block."""
    settings: Any = import_module("airflow.settings")
    previous = {name: vars(settings)[name] for name in _DATABASE if name in vars(settings)}
    settings.configure_vars()
    settings.configure_orm()
    try:
        yield
    finally:
        settings.dispose_orm()
        vars(settings).update(previous)


def create_tables() -> None:
    """Create the tables of Airflow's database, which is empty."""
    from airflow.utils.db import initdb

    initdb()


def dag_in_file(file: Path, dag_id: str | None) -> Any:
    """Return the DAG of a file. Raises ValueError unless there is exactly one, or one with that id."""
    bag = _dag_bag(file.resolve(strict=True))
    if bag.import_errors:
        raise ValueError(f"{file} cannot be imported:\n" + "\n".join(map(str, bag.import_errors.values())))
    found = [dag for dag in bag.dags.values() if dag_id in (None, dag.dag_id)]
    if len(found) != 1:
        raise ValueError(f"{file} has the DAGs {sorted(bag.dags)}; name one of them as dag_id.")
    return found[0]


def run(dag: Any, conf: dict[str, Any] | None) -> Any:
    """Run a DAG by ``dag.test()`` and return its DAG run. Retries come at once, and sensors keep their process."""
    if AIRFLOW_V_3_0_PLUS:
        _bring_to_database(dag)
    with _without_waits(dag), _one_api() if AIRFLOW_V_3_0_PLUS else _survived_timeouts():
        return dag.test(run_conf=conf)


def task_states(dag_run: Any) -> dict[str, str | None]:
    """Return the state of each task instance of a DAG run, those of mapped tasks as "task[0]"."""
    from airflow.utils.session import create_session

    with create_session() as session:
        return {
            ti.task_id if ti.map_index < 0 else f"{ti.task_id}[{ti.map_index}]": ti.state and str(ti.state)
            for ti in sorted(dag_run.get_task_instances(session=session), key=lambda ti: (ti.task_id, ti.map_index))
        }


def result(dag_run: Any, task_id: str, map_index: int) -> Any:
    """Return what a task of a DAG run has returned; None if nothing."""
    from airflow.utils.session import create_session

    where = {"dag_id": dag_run.dag_id, "run_id": dag_run.run_id, "task_id": task_id, "map_index": map_index}
    with create_session() as session:
        if not AIRFLOW_V_3_0_PLUS:
            return import_module("airflow.models.xcom").XCom.get_one(**where, key="return_value", session=session)
        model = import_module("airflow.models.xcom").XComModel
        stored = session.query(model).filter_by(**where, key="return_value").first()
        return stored and model.deserialize_value(stored)


def _dag_bag(folder: Path) -> Any:
    try:
        module = import_module("airflow.dag_processing.dagbag")
    except ImportError:  # before Airflow 3.2
        module = import_module("airflow.models.dagbag")
    return module.DagBag(str(folder))


def _bring_to_database(dag: Any) -> None:
    """Store a DAG as if its folder had been processed: ``dag.test()`` finds only what that folder has."""
    bag = _dag_bag(Path(os.devnull))
    sync = getattr(import_module(type(bag).__module__), "sync_bag_to_db", None)
    # Airflow 3.0 has no such function, and does without.
    if sync is not None:
        manager = import_module("airflow.dag_processing.bundles.manager").DagBundlesManager()
        manager.sync_bundles_to_db()
        bag.bag_dag(dag)
        sync(bag, next(iter(manager.get_all_dag_bundles())).name, None)


@contextmanager
def _one_api() -> Iterator[None]:
    """Let all tasks share the API server in this process, as from Airflow 3.3 on: making one takes a second."""
    module = import_module("airflow.api_fastapi.execution_api.app")
    with mock.patch.object(module, "InProcessExecutionAPI", _shared_api()):
        yield


@cache
def _shared_api() -> Callable[[], Any]:
    """Return what makes the API server of this process, or returns the one that it made."""
    return cache(import_module("airflow.api_fastapi.execution_api.app").InProcessExecutionAPI)


@contextmanager
def _survived_timeouts() -> Iterator[None]:
    """Let ``dag.test()`` of Airflow 2.11 handle a task that exceeds its ``execution_timeout`` as any failed task."""
    from airflow_dbjobs.airflow_compat import AirflowException, AirflowTaskTimeout

    module = import_module("airflow.models.dag")
    run_task = module._run_task  # noqa: SLF001 - it has no other name

    def run_task_or_fail(**arguments: Any) -> None:
        try:
            run_task(**arguments)
        except AirflowTaskTimeout as error:
            # It is no Exception, so it would end the test.
            raise AirflowException(str(error)) from error

    with mock.patch.object(module, "_run_task", run_task_or_fail):
        yield


@contextmanager
def _without_waits(dag: Any) -> Iterator[None]:
    """Let Airflow wait for neither a retry nor a sensor in reschedule mode, as it does so by the time of day."""
    tasks = [getattr(task, "partial_kwargs", None) or vars(task) for task in dag.tasks]
    rescheduled = [fields for fields in tasks if fields.get("mode") == "reschedule"]
    task_instance = import_module("airflow.models.taskinstance").TaskInstance
    with mock.patch.object(task_instance, "next_retry_datetime", lambda instance: instance.end_date):
        try:
            for fields in rescheduled:
                fields["mode"] = "poke"
            yield
        finally:
            for fields in rescheduled:
                fields["mode"] = "reschedule"
