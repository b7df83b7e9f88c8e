"""Leads Airflow's connections to a workspace in this process, and runs DAGs there.

Of the local workspace, only this module imports from the provider.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from airflow_dbjobs.airflow_compat import Connection, dag_tests
from airflow_dbjobs.client.clock import Clock
from airflow_dbjobs.client.transport import Transport
from airflow_dbjobs.hooks.jobs import DatabricksJobsHook
from airflow_dbjobs.runs.polling.rate_limit import TokenBucket
from airflow_dbjobs.runs.polling.threads import DaemonThreads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import requests

    from airflow_dbjobs.local_workspace.workspace import LocalWorkspace

    from .workspace import ScriptedWorkspace


@contextmanager
def clients_connected(workspace: LocalWorkspace) -> Iterator[None]:
    """Let every client of this process send its requests to a workspace in it, without a socket."""
    new_session = Transport._new_session  # noqa: SLF001 - where all sessions come from

    def connected_session(transport: Transport) -> requests.Session:
        session = new_session(transport)
        session.mount(transport.base_url, workspace.adapter())
        return session

    with mock.patch.object(Transport, "_new_session", connected_session):
        yield


@contextmanager
def connected(workspace: ScriptedWorkspace) -> Iterator[None]:
    """Let every connection of type ``databricks_jobs`` lead to a workspace in this process."""
    url = urlsplit(workspace.base_url)

    def get_connection(conn_id: str) -> Any:
        return Connection(
            conn_id=conn_id,
            conn_type="databricks_jobs",
            schema=url.scheme,
            host=url.hostname,
            port=url.port,
            password=workspace.token,
            extra=json.dumps(workspace.connection_extra),
        )

    def run_in_executor(_: DaemonThreads, call: Callable[[], Any]) -> asyncio.Future[Any]:
        # In a thread that the event loop knows of, so that it leaps over no time meanwhile.
        return asyncio.get_running_loop().run_in_executor(None, call)

    with ExitStack() as patches:
        patches.enter_context(clients_connected(workspace))
        patches.enter_context(mock.patch.object(DatabricksJobsHook, "get_connection", staticmethod(get_connection)))
        # A wait that takes no time needs no interruption.
        patches.enter_context(mock.patch.object(Clock, "piece", math.inf))
        patches.enter_context(mock.patch.object(DaemonThreads, "run", run_in_executor))
        # All these workspaces have one address, but each test has a time of its own: after a test that has leapt over
        # an hour, a poller with the bucket of that test would wait for an hour.
        patches.enter_context(mock.patch.object(TokenBucket, "_shared", WeakValueDictionary()))
        yield


def create_database(home: Path) -> dict[str, str]:
    """Create a database in a folder of the tests; return the environment variables that lead Airflow to it."""
    (home / "dags").mkdir()
    settings = dag_tests.settings_of(home)
    with database(settings):
        dag_tests.create_tables()
    return settings


@contextmanager
def database(settings: Mapping[str, str] | None) -> Iterator[None]:
    """Let Airflow use the database of these environment variables in the block; None: the one it is configured for."""
    if settings is None:
        yield
        return
    with mock.patch.dict(os.environ, settings), dag_tests.database():
        yield


@dataclass(frozen=True)
class TestedDag:
    """How a DAG ended. `state` is that of the DAG run, `states` has those of its tasks: "load", or "load[0]" if mapped.

    `dag_run` is Airflow's own object.
    """

    __test__ = False

    state: str
    states: dict[str, str | None]
    dag_run: Any = field(repr=False)

    def result(self, task_id: str, map_index: int = -1) -> Any:
        """Return what a task returned; None if nothing."""
        return dag_tests.result(self.dag_run, task_id, map_index)


class DagRunner:
    """Runs DAGs by ``dag.test()``."""

    def __call__(self, dag: Any, conf: Mapping[str, Any] | None = None, *, dag_id: str | None = None) -> TestedDag:
        """Run a DAG and return how it ended.

        :param dag: A DAG, or the path of the file that has it.
        :param conf: The configuration of the DAG run, from which its params come.
        :param dag_id: Which DAG of the file, if there are several.
        """
        if isinstance(dag, str | Path):
            dag = dag_tests.dag_in_file(Path(dag), dag_id)
        dag_run = dag_tests.run(dag, dict(conf or {}))
        return TestedDag(str(dag_run.state), dag_tests.task_states(dag_run), dag_run)
