"""The trigger of a run at its deadline and when it is stopped: which runs are cancelled, and what is logged."""

from __future__ import annotations

import asyncio
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from airflow_context import FAST, connect, fire, launch_endless, no_connection, rebuilt, until, watching

from airflow_dbjobs.airflow_compat import AIRFLOW_V_3_0_PLUS, task_states
from airflow_dbjobs.client.wait import wait_for_run
from airflow_dbjobs.hooks import DatabricksJobsHook
from airflow_dbjobs.local_workspace import Fault
from airflow_dbjobs.triggers import base as triggers
from airflow_dbjobs.triggers import run as run_trigger
from airflow_dbjobs.triggers.events import read_event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_dbjobs.client import JobsClient
    from airflow_dbjobs.local_workspace import LocalWorkspace
    from airflow_dbjobs.triggers import DatabricksRunTrigger


@pytest.fixture(autouse=True)
def _connection(workspace, monkeypatch):
    connect(monkeypatch, workspace.base_url, workspace.token)


def was_cancelled(workspace: LocalWorkspace, client: JobsClient, run_id: int) -> bool:
    """Return whether the run was cancelled; wait for its end only if a cancellation was requested."""
    requested = workspace.requests["runs/cancel"] == 1
    return requested and wait_for_run(client, run_id, period=FAST).state.result_state == "CANCELED"


@pytest.fixture
def endless(client) -> int:
    return launch_endless(client)


class Bookkeeping:
    """The state of the task that Airflow reports to its trigger, in the way of the installed version.

    Airflow 3 answers through the supervisor, which is replaced here; Airflow 2 has a database, which is real here.
    """

    def __init__(self, mocker: Any, database: Any) -> None:
        self.database = database
        self.mocker = mocker
        self.map_index = -1
        self.queries = threading.Semaphore(0)
        #: Called for each query, before the answer.
        self.on_query: Callable[[], object] = lambda: None
        #: Set when the test is over, which releases what hangs.
        self.over = threading.Event()
        if not AIRFLOW_V_3_0_PLUS:
            query = task_states._state_from_database
            mocker.patch.object(task_states, "_state_from_database", lambda *task: self._record_query() or query(*task))

    def own(self, trigger: DatabricksRunTrigger) -> DatabricksRunTrigger:
        """Return the trigger with the attributes that the triggerer sets before running it."""
        trigger.task_instance = SimpleNamespace(
            dag_id="nightly", task_id="load", run_id="manual__1", map_index=self.map_index
        )
        trigger.trigger_id = 5
        return trigger

    def report(self, state: str | None, *, trigger_id: int | None = None) -> None:
        """Report this state of the task; None is the state of a cleared task."""
        if AIRFLOW_V_3_0_PLUS:
            key = "load" if self.map_index < 0 else f"load_{self.map_index}"
            self._answer({"manual__1": {key: state}})
        else:
            others = {"map_index": 7} if self.map_index < 0 else {"map_index": -1}
            self.database({"map_index": self.map_index, "state": state, "trigger_id": trigger_id}, others)

    def report_deleted(self) -> None:
        """Report no task: it was deleted."""
        self._answer({"manual__1": {}}) if AIRFLOW_V_3_0_PLUS else self.database({"map_index": 7})

    def fail(self, error: Exception) -> None:
        """Fail each query."""

        def broken() -> None:
            raise error

        self.on_query = broken
        self.report("failed")

    def _record_query(self) -> None:
        self.queries.release()
        self.on_query()

    def _answer(self, states: dict[str, Any]) -> None:
        def get_task_states(**query: Any) -> Any:
            assert query == {
                "dag_id": "nightly",
                "task_ids": ["load"],
                "run_ids": ["manual__1"],
                "map_index": self.map_index,
            }
            self._record_query()
            return states

        where = "airflow.sdk.execution_time.task_runner.RuntimeTaskInstance.get_task_states"
        self.mocker.patch(where, side_effect=get_task_states)


@pytest.fixture(scope="session")
def airflow_2(tmp_path_factory) -> Iterator[Any]:
    """Return a function that replaces the task instances in a database of Airflow 2; None on Airflow 3."""
    if AIRFLOW_V_3_0_PLUS:
        yield None
        return
    import sqlalchemy
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy.orm import sessionmaker

    table = TaskInstance.__table__
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path_factory.mktemp('airflow')}/airflow.db")
    TaskInstance.metadata.create_all(engine, tables=[table])

    def fill(*rows: dict[str, Any]) -> None:
        of_all = {"dag_id": "nightly", "task_id": "load", "run_id": "manual__1", "pool": "p", "pool_slots": 1}
        with engine.begin() as connection:
            connection.execute(table.delete())
            for row in rows:
                connection.execute(table.insert().values(**of_all, **row))

    with mock.patch("airflow.settings.Session", sessionmaker(bind=engine)):
        yield fill
    engine.dispose()


@pytest.fixture
def airflow(mocker, airflow_2) -> Iterator[Bookkeeping]:
    bookkeeping = Bookkeeping(mocker, airflow_2)
    yield bookkeeping
    bookkeeping.over.set()


def by_on_kill(trigger: DatabricksRunTrigger, workspace: LocalWorkspace) -> None:
    """Kill a trigger as Airflow 3.3 does."""
    asyncio.run(asyncio.wait_for(trigger.on_kill(), 20))


def by_cancelling(trigger: DatabricksRunTrigger, workspace: LocalWorkspace) -> None:
    """Kill a trigger as Airflow does before 3.3."""

    async def kill() -> None:
        running = asyncio.create_task(anext(trigger.run()))
        await until(lambda: workspace.requests["runs/get"] > 0)
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled()

    with mock.patch.object(triggers, "_AIRFLOW_CALLS_ON_KILL", False):
        asyncio.run(asyncio.wait_for(kill(), 20))


@pytest.fixture(params=[by_on_kill, by_cancelling])
def kill(request, workspace, airflow) -> Callable[[DatabricksRunTrigger], None]:
    """Return a function that kills the trigger of a task, in the way of each version of Airflow."""
    return lambda trigger: request.param(airflow.own(rebuilt(trigger)), workspace)


def fails(airflow: Bookkeeping, monkeypatch: pytest.MonkeyPatch) -> None:
    airflow.fail(ConnectionError("nobody answers"))


def hangs(airflow: Bookkeeping, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_trigger, "TASK_STATE_TIMEOUT_SECONDS", 0.05)
    airflow.on_query = lambda: airflow.over.wait(10)
    airflow.report("failed")


class TestDeadline:
    @pytest.mark.parametrize("seconds", [-1000, 0.2], ids=["passed before the trigger starts", "passes meanwhile"])
    def test_cancels_the_run_and_reports_it(self, workspace, client, endless, seconds):
        event = fire(rebuilt(watching(endless, deadline=time.time() + seconds)))
        assert event == {
            "run_id": endless,
            "run_page_url": "http://page",
            "timed_out": "the API accepted the run's cancellation",
        }
        assert read_event(event) == (endless, "http://page", "the API accepted the run's cancellation")
        assert was_cancelled(workspace, client, endless)

    def test_run_that_ends_in_time_is_not_cancelled(self, workspace, client):
        run_id = client.submit_run({"condition_task": {"op": "EQUAL_TO", "left": "1", "right": "1"}})
        assert fire(watching(run_id, deadline=time.time() + 1000))["state"] == "TERMINATED/SUCCESS"
        assert workspace.requests["runs/cancel"] == 0

    def test_trigger_of_a_sensor_cancels_nothing(self, workspace, client, endless):
        event = fire(watching(endless, cancel_on_kill=False, deadline=time.time() - 1))
        assert event["timed_out"] == "the run was not cancelled"
        assert workspace.requests["runs/cancel"] == 0

    @pytest.mark.parametrize("why", ["refused", "no connection"])
    def test_failed_cancellation_is_reported(self, workspace, monkeypatch, endless, why, capfd):
        if why == "refused":
            workspace.faults.append(Fault("runs/cancel", status=403, body={"message": "not yours"}))
            cause = "POST jobs/runs/cancel answered 403: not yours"
        else:
            monkeypatch.delenv("AIRFLOW_CONN_DATABRICKS_DEFAULT")
            monkeypatch.setattr(DatabricksJobsHook, "aget_conn", no_connection)
            cause = "the secrets backend is down"
        event = fire(watching(endless, deadline=time.time() - 1))
        assert event["timed_out"].startswith(f"it could not be cancelled and may still be running: {cause}")
        assert f"Run {endless} could not be cancelled and may still be running: {cause}" in capfd.readouterr().out

    def test_hanging_cancellation_times_out(self, monkeypatch, endless):
        async def hang(_: DatabricksJobsHook) -> None:
            await asyncio.sleep(30)

        monkeypatch.setattr(run_trigger, "CANCEL_TIMEOUT_SECONDS", 0.05)
        monkeypatch.setattr(DatabricksJobsHook, "aget_conn", hang)
        event = fire(watching(endless, deadline=time.time() - 1))
        assert event["timed_out"] == "it could not be cancelled and may still be running: TimeoutError()"

    def test_event_is_delayed_until_airflow_3_knows_deferral(self, endless):
        began = time.monotonic()
        assert "timed_out" in fire(watching(endless, deadline=time.time() - 1), settling_seconds=0.3)
        assert time.monotonic() - began >= 0.29


class TestKill:
    def test_cancels_the_run_however_many_are_queued(self, workspace, endless, airflow, kill):
        airflow.report("failed")
        # The limit at the deadline protects the next try; after a kill no try joins the run.
        with mock.patch.object(run_trigger, "CANCEL_TIMEOUT_SECONDS", 0):
            kill(watching(endless))
        assert workspace.requests["runs/cancel"] == 1

    @pytest.mark.parametrize("map_index", [-1, 0], ids=["", "mapped"])
    @pytest.mark.parametrize("state", ["failed", "success", "scheduled", None], ids=str)
    def test_cancels_the_run_of_a_task_no_longer_deferred(
        self, workspace, client, endless, airflow, kill, *, state, map_index
    ):
        airflow.map_index = map_index
        airflow.report(state)
        kill(watching(endless))
        assert was_cancelled(workspace, client, endless)

    @pytest.mark.skipif(AIRFLOW_V_3_0_PLUS, reason="Airflow 3 does not tell a trigger for which trigger its task waits")
    def test_cancels_the_run_of_a_task_deferred_again(self, workspace, client, endless, airflow, kill):
        airflow.report("deferred", trigger_id=6)
        kill(watching(endless))
        assert was_cancelled(workspace, client, endless)

    def test_cancels_the_run_of_a_deleted_task(self, workspace, client, endless, airflow, kill):
        airflow.report_deleted()
        kill(watching(endless))
        assert was_cancelled(workspace, client, endless)

    def test_rejected_cancellation_is_logged(self, workspace, endless, airflow, kill, capfd):
        airflow.report("failed")
        workspace.faults.append(Fault("runs/cancel", status=403, body={"message": "not yours"}))
        kill(watching(endless))
        assert f"Run {endless} could not be cancelled and may still be running" in capfd.readouterr().out

    @pytest.mark.parametrize("on_kill_is_called", [True, False], ids=["on_kill", "cancelled"])
    def test_cancels_the_run_although_airflow_interrupts_it(
        self, monkeypatch, workspace, client, endless, airflow, *, on_kill_is_called
    ):
        monkeypatch.setattr(triggers, "_AIRFLOW_CALLS_ON_KILL", on_kill_is_called)
        interrupted = threading.Event()
        airflow.on_query = lambda: interrupted.wait(10)
        airflow.report("failed")
        trigger = airflow.own(watching(endless))

        async def interrupt() -> None:
            if on_kill_is_called:
                killing = asyncio.create_task(trigger.on_kill())
            else:
                killing = asyncio.create_task(anext(trigger.run()))
                await until(lambda: workspace.requests["runs/get"] > 0)
                killing.cancel()
            await until(lambda: airflow.queries.acquire(blocking=False))
            assert not killing.done()
            killing.cancel()
            await asyncio.wait([killing])
            assert killing.cancelled()
            interrupted.set()
            await until(lambda: client.get_run(endless).is_terminal)
            # No background task is left.
            await until(lambda: not triggers._background_tasks)

        asyncio.run(asyncio.wait_for(interrupt(), 20))
        assert client.get_run(endless).state.result_state == "CANCELED"


class TestStoppedTrigger:
    @pytest.mark.parametrize("map_index", [-1, 0], ids=["", "mapped"])
    def test_run_of_a_moved_trigger_is_not_cancelled(self, workspace, endless, airflow, kill, capfd, *, map_index):
        airflow.map_index = map_index
        airflow.report("deferred", trigger_id=5)
        kill(watching(endless))
        assert workspace.requests["runs/cancel"] == 0
        assert f"Run {endless} continues: its task is still deferred" in capfd.readouterr().out

    @pytest.mark.parametrize("airflow_that", [fails, hangs])
    def test_run_is_not_cancelled_if_task_state_is_unknown(
        self, workspace, endless, airflow, kill, capfd, *, monkeypatch, airflow_that
    ):
        airflow_that(airflow, monkeypatch)
        kill(watching(endless))
        assert workspace.requests["runs/cancel"] == 0
        assert f"Run {endless} was not cancelled and may still be running" in capfd.readouterr().out

    def test_trigger_of_a_sensor_never_cancels(self, workspace, endless, airflow, kill):
        airflow.report("failed")
        kill(watching(endless, cancel_on_kill=False))
        assert workspace.requests["runs/cancel"] == 0
        assert not airflow.queries.acquire(blocking=False)

    def test_trigger_without_a_task_cancels_nothing(self, workspace):
        asyncio.run(watching(7).on_kill())
        assert not workspace.requests

    def test_stops_soon_while_cancellation_continues(self, monkeypatch, workspace, endless, airflow):
        monkeypatch.setattr(triggers, "_AIRFLOW_CALLS_ON_KILL", False)
        monkeypatch.setattr(triggers, "STOPPING_SECONDS", 0.05)
        airflow.on_query = lambda: airflow.over.wait(10)
        airflow.report("failed")

        async def leave() -> None:
            running = asyncio.create_task(anext(airflow.own(watching(endless)).run()))
            await until(lambda: workspace.requests["runs/get"] > 0)
            running.cancel()
            await asyncio.wait([running], timeout=9)
            assert running.cancelled()
            assert workspace.requests["runs/cancel"] == 0
            airflow.over.set()
            await until(lambda: workspace.requests["runs/cancel"] == 1)
            await until(lambda: not triggers._background_tasks)

        asyncio.run(leave())

    def test_stops_at_once_if_airflow_calls_on_kill(self, monkeypatch, workspace, endless, airflow):
        monkeypatch.setattr(triggers, "_AIRFLOW_CALLS_ON_KILL", True)
        airflow.report("failed")

        async def leave() -> None:
            running = asyncio.create_task(anext(airflow.own(watching(endless)).run()))
            await until(lambda: workspace.requests["runs/get"] > 0)
            running.cancel()
            await asyncio.wait([running])
            assert running.cancelled()

        asyncio.run(leave())
        assert not airflow.queries.acquire(blocking=False)
        assert workspace.requests["runs/cancel"] == 0
