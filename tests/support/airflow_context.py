"""What the tests of the Airflow rooms share: what Airflow does around a task, with no database and no scheduler."""

from __future__ import annotations

import asyncio
import json
import pkgutil
import textwrap
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from airflow import __version__
from injected_clock import rule_all
from packaging.version import Version

from airflow_dbjobs.airflow_compat import AIRFLOW_V_3_0_PLUS, launches
from airflow_dbjobs.client import JobsClient
from airflow_dbjobs.links import XCOM_KEY
from airflow_dbjobs.local_workspace.http import routes
from airflow_dbjobs.operators import DatabricksRunNowOperator, DatabricksSubmitRunOperator
from airflow_dbjobs.triggers import DatabricksRunTrigger

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_mock import MockerFixture

    from airflow_dbjobs.airflow_compat import BaseOperator
    from airflow_dbjobs.client.models import Run
    from airflow_dbjobs.hooks import DatabricksJobsHook
    from airflow_dbjobs.local_workspace import LocalWorkspace
    from airflow_dbjobs.local_workspace.messages import Reply, Request
    from airflow_dbjobs.operators.launch import LaunchOperator

# What the tests import of Airflow from one place or another, in addition to what airflow_compat has.
if TYPE_CHECKING or AIRFLOW_V_3_0_PLUS:
    from airflow.sdk import Param
    from airflow.sdk.log import mask_secret
else:
    from airflow.models.param import Param  # noqa: F401
    from airflow.utils.log.secrets_masker import mask_secret  # noqa: F401
try:
    from airflow.sdk.exceptions import TaskDeferred
except ImportError:  # before Airflow 3.2
    from airflow.exceptions import TaskDeferred  # type: ignore[no-redef]

AIRFLOW_V_3_3_PLUS = Version(__version__).release >= (3, 3)
FAST = 0.02
LAUNCHES = ("runs/submit", "run-now")
# A program begins with this, and so is active until the test lets it go on.
_GATE = """\
import pathlib, time
while not pathlib.Path("gate").exists():
    time.sleep(0.01)
"""


class TaskInstance:
    """Records what a task pushes. `at_link` is called when the link is there: the run is being announced."""

    dag_id = "nightly"
    task_id = "load"
    run_id = "manual__1"
    map_index = -1
    try_number = 1
    max_tries = 0
    #: What the task's `retries` are; a clear adds them to `max_tries`.
    retries = 0
    start_date: datetime | None = None

    def __init__(self) -> None:
        #: What its try reports about its launches, and what the try before it did.
        self.reports: list[str] = []
        self.earlier_reports: list[str] = []
        self.xcom: dict[str, Any] = {}
        self.link: str | None = None
        self.deferred = False
        self.at_link: Callable[[], None] = lambda: None

    def xcom_push(self, key: str, value: Any) -> None:
        if key == XCOM_KEY:
            self.link = value
            self.at_link()
        else:
            self.xcom[key] = json.loads(json.dumps(value))

    def get_first_reschedule_date(self, _: Any) -> None:
        """Airflow 3's sensors ask for it in reschedule mode."""


class WorkerLost(BaseException):
    """What ends a process in the middle, with nobody to tell the task."""


class Scene:
    """A workspace with a connection to it, and a task instance.

    `sent` has the launches, `user_agents` those of all calls, `deferrals` what became of the tasks that were run.
    """

    def __init__(
        self, workspace: LocalWorkspace, root: Path, monkeypatch: pytest.MonkeyPatch, mocker: MockerFixture
    ) -> None:
        self.workspace = workspace
        self.root = root
        self.ti = TaskInstance()
        self.dag_run = SimpleNamespace(start_date=datetime.now(UTC) - timedelta(minutes=1))
        self.context: Any = {"ti": self.ti, "dag_run": self.dag_run}
        self.deferrals: list[TaskDeferred] = []
        self._ahead = 0.0
        self.sent: list[dict[str, Any]] = []
        self.user_agents: set[str] = set()
        #: Called when the workspace has handled a launch, and before the reply is on its way.
        self.at_launch: Callable[[], None] = lambda: None
        # Airflow's edges, but for the last, which only watches.
        if AIRFLOW_V_3_0_PLUS:
            mocker.patch("airflow.sdk.bases.xcom.BaseXCom.set", side_effect=self._set)
        mocker.patch.object(launches, "report_launch", side_effect=lambda ti, report, _: ti.reports.append(report))
        mocker.patch.object(launches, "reported_launches", side_effect=lambda ti: ti.earlier_reports)
        self._handle = workspace.handle
        monkeypatch.setattr(workspace, "handle", self._watched)
        connect(monkeypatch, workspace.base_url, workspace.token)

    def notebook(self, code: str = "", name: str = "notebook", *, gated: bool = True) -> dict[str, Any]:
        """Write a notebook and return the `notebook_task` that runs it; by default it waits for the gate."""
        gate = _GATE if gated else ""
        (self.root / f"{name}.py").write_text(f"# Databricks notebook source\n{gate}{textwrap.dedent(code)}\n")
        return {"notebook_path": f"/{name}"}

    def open_gate(self) -> None:
        (self.root / "gate").touch()

    def launches(self) -> int:
        return sum(self.workspace.requests[operation] for operation in LAUNCHES)

    def later(self, seconds: float) -> None:
        """Let so many seconds pass for the workspace; its time runs on from there."""
        self._ahead += seconds
        self.workspace._clock = lambda: time.time() + self._ahead

    def next_try(self, *, cleared: bool = False) -> None:
        """Let the task's next try begin, some seconds later: a retry, or the first try after the task was cleared.

        A test that needs it says in `ti.retries` how many the task has.
        """
        self.later(3)
        earlier, self.ti = self.ti, TaskInstance()
        self.ti.map_index, self.ti.retries = earlier.map_index, earlier.retries
        self.ti.try_number = earlier.try_number + 1
        self.ti.earlier_reports = earlier.reports
        self.ti.max_tries = earlier.try_number + earlier.retries if cleared else earlier.max_tries
        self.context["ti"] = self.ti

    def lose_worker(self, make: Callable[[], BaseOperator]) -> int:
        """Run a task whose worker is lost when the run is launched; return the run, which is still active."""

        def lost() -> None:
            raise WorkerLost

        self.ti.at_link = lost
        with pytest.raises(WorkerLost):
            make().execute(self.context)
        self.new_process()
        return int(self.ti.xcom["run_id"])

    def defer_task(self, make: Callable[[], BaseOperator]) -> TaskDeferred:
        """Run a task up to its deferral, which is returned."""
        with pytest.raises(TaskDeferred) as deferral:
            make().execute(self.context)
        return deferral.value

    def run_task(self, make: Callable[[], BaseOperator]) -> Any:
        """Run a task as Airflow does: after a deferral in a new process, with the trigger rebuilt in another."""
        go_on = make().execute
        while True:
            try:
                return go_on(self.context)
            except TaskDeferred as deferral:
                self.ti.deferred = True
                self.new_process()
                self.deferrals.append(deferral)
                kwargs = {**json.loads(json.dumps(deferral.kwargs or {})), "event": fire(rebuilt(deferral.trigger))}
                go_on = partial(make().resume_execution, deferral.method_name, kwargs)

    def new_process(self) -> None:
        """Forget what a process knows of the launches that it has made."""
        launches._counter = None

    def _set(self, *, key: str, value: Any, **where: Any) -> None:
        ti = self.ti
        assert where == {"dag_id": ti.dag_id, "task_id": ti.task_id, "run_id": ti.run_id, "map_index": ti.map_index}
        ti.xcom_push(key, value)

    def _watched(self, request: Request) -> Reply:
        reply = self._handle(request)
        self.user_agents.add(request.headers["user-agent"])
        if routes.operation_of(request.path) in LAUNCHES:
            self.sent.append(json.loads(request.body))
            self.at_launch()
        return reply


def submit(**kwargs: Any) -> DatabricksSubmitRunOperator:
    # A program whose gate nobody opens ends by this timeout, and fails the test.
    return DatabricksSubmitRunOperator(
        **{"task_id": "load", "polling_period_seconds": FAST, "timeout_seconds": 20, **kwargs}
    )


def run_now(**kwargs: Any) -> DatabricksRunNowOperator:
    return DatabricksRunNowOperator(**{"task_id": "load", "polling_period_seconds": FAST, **kwargs})


def launching(kind: type[BaseOperator], client: JobsClient, tasks: list[Any], **kwargs: Any) -> Callable[[], Any]:
    """Return what makes an operator of `kind` that runs `tasks`."""
    if kind is DatabricksSubmitRunOperator:
        return lambda: submit(tasks=tasks, **kwargs)
    job_id = client.create_job({"name": "nightly", "tasks": tasks, "timeout_seconds": 20})
    return lambda: run_now(job_id=job_id, **kwargs)


def kill_at_the_first_poll(operator: LaunchOperator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the task be killed while it waits for its run."""
    poll_run = JobsClient.poll_run

    def killed_meanwhile(client: JobsClient, run_id: int) -> Run:
        monkeypatch.setattr(JobsClient, "poll_run", poll_run)
        operator.on_kill()
        return poll_run(client, run_id)

    monkeypatch.setattr(JobsClient, "poll_run", killed_meanwhile)


def called_by_airflow(kind: type[Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Let Airflow look for calls of ``execute`` by others; return the arguments by which it knows its own."""
    module = import_module("airflow.sdk.bases.operator" if AIRFLOW_V_3_0_PLUS else "airflow.models.baseoperator")
    monkeypatch.setattr(module.ExecutorSafeguard, "test_mode", False)
    mark = module.ExecutorSafeguard.sentinel_value if AIRFLOW_V_3_0_PLUS else module._sentinel
    return {f"{kind.__name__}__sentinel": mark}


def connect(monkeypatch: pytest.MonkeyPatch, host: str, password: str, **fields: Any) -> None:
    """Define the connection databricks_default, as a deployment may: in the environment."""
    connection = {"conn_type": "databricks_jobs", "host": host, "password": password, **fields}
    monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", json.dumps(connection))


def parsed(file: Path) -> Any:
    """Return the DagBag of a file, as Airflow parses it."""
    try:
        from airflow.dag_processing.dagbag import DagBag
    except ModuleNotFoundError:  # before Airflow 3.2
        from airflow.models.dagbag import DagBag  # type: ignore[no-redef]
    return DagBag(file)


def rebuilt(trigger: Any) -> Any:
    """Return a trigger as the triggerer gets it: from its class path and arguments, after a stay in the database."""
    classpath, kwargs = trigger.serialize()
    return pkgutil.resolve_name(classpath)(**json.loads(json.dumps(kwargs)))


def fire(trigger: Any, *, settling_seconds: float = 0, lookup_seconds: float = 0) -> Any:
    """Run a trigger and return the payload of its only event, as it comes out of the database.

    No scheduler looks on here, so nothing has to settle before the trigger fires.
    """

    async def events() -> list[Any]:
        return [event.payload async for event in trigger.run()]

    with (
        mock.patch("airflow_dbjobs.triggers.base.settling_seconds", return_value=settling_seconds),
        mock.patch("airflow_dbjobs.triggers.base.LOOKUP_TOLERANCE_SECONDS", lookup_seconds),
        mock.patch("airflow_dbjobs.triggers.base.LOOKUP_WAIT_SECONDS", 0.01),
    ):
        # Only so that no test waits for ever: it may start a workspace meanwhile, on a machine that is busy.
        (payload,) = asyncio.run(asyncio.wait_for(events(), 300))
    return json.loads(json.dumps(payload))


def watching(run_id: int, **kwargs: Any) -> DatabricksRunTrigger:
    """Return the trigger of a run."""
    return DatabricksRunTrigger(
        run_id, "databricks_default", polling_period_seconds=FAST, run_page_url="http://page", **kwargs
    )


def launch_endless(client: JobsClient) -> int:
    """Launch a run that is active until somebody cancels it."""
    task = {"condition_task": {"op": "EQUAL_TO", "left": "1", "right": "1"}}
    return client.run_now({"job_id": client.create_job({"max_concurrent_runs": 0, "queue": {"enabled": True}, **task})})


async def no_connection(_: DatabricksJobsHook) -> JobsClient:
    """Look a connection up as a triggerer does whose secrets backend is down."""
    raise ConnectionError("the secrets backend is down")


async def until(happened: Callable[[], Any]) -> None:
    """Let the loop go on until something has happened elsewhere."""
    async with asyncio.timeout(10):
        while not happened():  # noqa: ASYNC110 (neither workspace nor threads have an event to wait for)
            await asyncio.sleep(0.001)


class FastTime:
    """A clock whose sleeps take no time: an outage of minutes passes in milliseconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        rule_all(monkeypatch, monotonic=lambda: self.now, sleep=self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
