"""The trigger at its deadline, and when it is told to stop: what becomes of the run, and what of the trigger."""

from __future__ import annotations

import asyncio
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS
from airflow_context import FAST, connect, fire, launch_endless, no_connection, rebuilt, until, watching

from airflow_dbjobs import airflow_compat
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
    """Return whether the run was cancelled, without waiting for one that nobody cancels."""
    asked = workspace.requests["runs/cancel"] == 1
    return asked and wait_for_run(client, run_id, period=FAST).state.result_state == "CANCELED"


@pytest.fixture
def endless(client) -> int:
    return launch_endless(client)


# --- deadlines ---


@pytest.mark.parametrize("seconds", [-1000, 0.2], ids=["passed before the trigger starts", "passes meanwhile"])
def test_at_its_deadline_a_trigger_cancels_the_run_and_says_so(workspace, client, endless, seconds):
    event = fire(rebuilt(watching(endless, deadline=time.time() + seconds)))
    assert event == {
        "run_id": endless,
        "run_page_url": "http://page",
        "timed_out": "the API accepted to cancel it",
    }
    assert read_event(event) == (endless, "http://page", "the API accepted to cancel it")
    assert was_cancelled(workspace, client, endless)


def test_a_run_that_ends_before_the_deadline_is_not_cancelled(workspace, client):
    run_id = client.submit_run({"condition_task": {"op": "EQUAL_TO", "left": "1", "right": "1"}})
    assert fire(watching(run_id, deadline=time.time() + 1000))["state"] == "TERMINATED/SUCCESS"
    assert workspace.requests["runs/cancel"] == 0


def test_a_sensors_trigger_leaves_the_run_alone_at_its_deadline(workspace, client, endless):
    event = fire(watching(endless, cancel_on_kill=False, deadline=time.time() - 1))
    assert event["timed_out"] == "it is left alone"
    assert workspace.requests["runs/cancel"] == 0


@pytest.mark.parametrize("why", ["refused", "no connection"])
def test_a_cancel_that_fails_at_the_deadline_is_told(workspace, monkeypatch, endless, why, capfd):
    if why == "refused":
        workspace.faults.append(Fault("runs/cancel", status=403, body={"message": "not yours"}))
        told = "POST jobs/runs/cancel answered 403: not yours"
    else:
        monkeypatch.delenv("AIRFLOW_CONN_DATABRICKS_DEFAULT")
        monkeypatch.setattr(DatabricksJobsHook, "aget_conn", no_connection)
        told = "the secrets backend is down"
    event = fire(watching(endless, deadline=time.time() - 1))
    assert event["timed_out"].startswith(f"it could not be cancelled and may still be running: {told}")
    assert f"Run {endless} could not be cancelled and may still be running: {told}" in capfd.readouterr().out


def test_a_timeout_is_held_back_until_airflow_3_has_noticed_the_deferral(endless):
    began = time.monotonic()
    assert "timed_out" in fire(watching(endless, deadline=time.time() - 1), settling_seconds=0.3)
    assert time.monotonic() - began >= 0.29


# --- kills ---


class Bookkeeping:
    """What Airflow says of the task when its trigger asks, by the way of the Airflow that is installed.

    Airflow 3 answers through the supervisor, which is replaced here; Airflow 2 has a database, which is real here.
    """

    def __init__(self, mocker: Any, database: Any) -> None:
        self.database = database
        self.mocker = mocker
        self.map_index = -1
        self.asked = threading.Semaphore(0)
        #: What happens when it is asked, before it answers.
        self.at_question: Callable[[], object] = lambda: None
        #: That the test is over, and with it what hangs.
        self.over = threading.Event()
        if not AIRFLOW_V_3_0_PLUS:
            ask = airflow_compat._state_from_database
            mocker.patch.object(airflow_compat, "_state_from_database", lambda *task: self._asked() or ask(*task))

    def belongs(self, trigger: DatabricksRunTrigger) -> DatabricksRunTrigger:
        """Return the trigger as the triggerer makes it ready to run."""
        trigger.task_instance = SimpleNamespace(
            dag_id="nightly", task_id="load", run_id="manual__1", map_index=self.map_index
        )
        trigger.trigger_id = 5
        return trigger

    def say(self, state: str | None, *, trigger_id: int | None = None) -> None:
        """Say that the task is in this state, None being that of a task that was cleared."""
        if AIRFLOW_V_3_0_PLUS:
            key = "load" if self.map_index < 0 else f"load_{self.map_index}"
            self._answer({"manual__1": {key: state}})
        else:
            others = {"map_index": 7} if self.map_index < 0 else {"map_index": -1}
            self.database({"map_index": self.map_index, "state": state, "trigger_id": trigger_id}, others)

    def know_nothing(self) -> None:
        """Say nothing of the task: it was deleted."""
        self._answer({"manual__1": {}}) if AIRFLOW_V_3_0_PLUS else self.database({"map_index": 7})

    def fail(self, error: Exception) -> None:
        """Fail to answer."""

        def broken() -> None:
            raise error

        self.at_question = broken
        self.say("failed")

    def _asked(self) -> None:
        self.asked.release()
        self.at_question()

    def _answer(self, states: dict[str, Any]) -> None:
        def get_task_states(**asked: Any) -> Any:
            assert asked == {
                "dag_id": "nightly",
                "task_ids": ["load"],
                "run_ids": ["manual__1"],
                "map_index": self.map_index,
            }
            self._asked()
            return states

        where = "airflow.sdk.execution_time.task_runner.RuntimeTaskInstance.get_task_states"
        self.mocker.patch(where, side_effect=get_task_states)


@pytest.fixture(scope="session")
def airflow_2(tmp_path_factory) -> Iterator[Any]:
    """Return what replaces the task instances in a database of Airflow 2; on Airflow 3 there is none."""
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

    with mock.patch.object(triggers, "_ON_KILL_IS_CALLED", False):
        asyncio.run(asyncio.wait_for(kill(), 20))


@pytest.fixture(params=[by_on_kill, by_cancelling])
def kill(request, workspace, airflow) -> Callable[[DatabricksRunTrigger], None]:
    """Return what kills the trigger of a task, in each way that some Airflow does."""
    return lambda trigger: request.param(airflow.belongs(rebuilt(trigger)), workspace)


def test_a_kill_is_carried_out_however_many_are_before_it(workspace, endless, airflow, kill):
    airflow.say("failed")
    # At the task's deadline a late cancellation would hit its next try; here there is none that joins the run.
    with mock.patch.object(run_trigger, "CANCEL_SECONDS", 0):
        kill(watching(endless))
    assert workspace.requests["runs/cancel"] == 1


@pytest.mark.parametrize("map_index", [-1, 2], ids=["", "mapped"])
@pytest.mark.parametrize("state", ["failed", "success", "scheduled", None], ids=str)
def test_a_kill_cancels_the_run_of_a_task_that_is_not_deferred_any_more(
    workspace, client, endless, airflow, kill, *, state, map_index
):
    airflow.map_index = map_index
    airflow.say(state)
    kill(watching(endless))
    assert was_cancelled(workspace, client, endless)


@pytest.mark.parametrize("map_index", [-1, 2], ids=["", "mapped"])
def test_a_trigger_that_is_moved_or_whose_triggerer_goes_leaves_the_run_alone(
    workspace, endless, airflow, kill, capfd, *, map_index
):
    airflow.map_index = map_index
    airflow.say("deferred", trigger_id=5)
    kill(watching(endless))
    assert workspace.requests["runs/cancel"] == 0
    assert f"Run {endless} goes on: its task is still deferred" in capfd.readouterr().out


@pytest.mark.skipif(AIRFLOW_V_3_0_PLUS, reason="Airflow 3 does not tell a trigger for which trigger its task waits")
def test_a_kill_cancels_the_run_of_a_task_that_was_cleared_and_is_deferred_anew(
    workspace, client, endless, airflow, kill
):
    airflow.say("deferred", trigger_id=6)
    kill(watching(endless))
    assert was_cancelled(workspace, client, endless)


def fails(airflow: Bookkeeping, monkeypatch: pytest.MonkeyPatch) -> None:
    airflow.fail(ConnectionError("nobody answers"))


def hangs(airflow: Bookkeeping, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_trigger, "STATE_TOLERANCE_SECONDS", 0.05)
    airflow.at_question = lambda: airflow.over.wait(10)
    airflow.say("failed")


def test_a_kill_cancels_the_run_of_a_task_that_was_deleted(workspace, client, endless, airflow, kill):
    airflow.know_nothing()
    kill(watching(endless))
    assert was_cancelled(workspace, client, endless)


@pytest.mark.parametrize("airflow_that", [fails, hangs])
def test_a_kill_leaves_the_run_alone_where_the_tasks_state_cannot_be_learnt(
    workspace, endless, airflow, kill, capfd, *, monkeypatch, airflow_that
):
    airflow_that(airflow, monkeypatch)
    kill(watching(endless))
    assert workspace.requests["runs/cancel"] == 0
    assert f"Run {endless} was not cancelled: Airflow cannot be asked" in capfd.readouterr().out


def test_a_sensors_trigger_never_cancels(workspace, endless, airflow, kill):
    airflow.say("failed")
    kill(watching(endless, cancel_on_kill=False))
    assert workspace.requests["runs/cancel"] == 0
    assert not airflow.asked.acquire(blocking=False)


def test_a_cancel_that_is_refused_does_not_break_the_triggerer(workspace, endless, airflow, kill, capfd):
    airflow.say("failed")
    workspace.faults.append(Fault("runs/cancel", status=403, body={"message": "not yours"}))
    kill(watching(endless))
    assert f"Run {endless} could not be cancelled and may still be running" in capfd.readouterr().out


def test_a_kill_of_a_trigger_without_a_task_cancels_nothing(workspace):
    asyncio.run(watching(7).on_kill())
    assert not workspace.requests


@pytest.mark.parametrize("on_kill_is_called", [True, False], ids=["on_kill", "cancelled"])
def test_a_kill_cancels_the_run_although_airflow_interrupts_it(
    monkeypatch, workspace, client, endless, airflow, *, on_kill_is_called
):
    monkeypatch.setattr(triggers, "_ON_KILL_IS_CALLED", on_kill_is_called)
    interrupted = threading.Event()
    airflow.at_question = lambda: interrupted.wait(10)
    airflow.say("failed")
    trigger = airflow.belongs(watching(endless))

    async def interrupt() -> None:
        if on_kill_is_called:
            killing = asyncio.create_task(trigger.on_kill())
        else:
            killing = asyncio.create_task(anext(trigger.run()))
            await until(lambda: workspace.requests["runs/get"] > 0)
            killing.cancel()
        await until(lambda: airflow.asked.acquire(blocking=False))
        assert not killing.done()
        killing.cancel()
        await asyncio.wait([killing])
        assert killing.cancelled()
        interrupted.set()
        await until(lambda: client.get_run(endless).is_terminal)
        # Nothing of it is left.
        await until(lambda: not run_trigger._going_on)

    asyncio.run(asyncio.wait_for(interrupt(), 20))
    assert client.get_run(endless).state.result_state == "CANCELED"


def test_a_trigger_that_is_cancelled_leaves_soon_and_what_it_has_begun_goes_on(
    monkeypatch, workspace, endless, airflow
):
    monkeypatch.setattr(triggers, "_ON_KILL_IS_CALLED", False)
    monkeypatch.setattr(triggers, "STOPPING_SECONDS", 0.05)
    airflow.at_question = lambda: airflow.over.wait(10)
    airflow.say("failed")

    async def leave() -> None:
        running = asyncio.create_task(anext(airflow.belongs(watching(endless)).run()))
        await until(lambda: workspace.requests["runs/get"] > 0)
        running.cancel()
        await asyncio.wait([running], timeout=9)
        assert running.cancelled()
        assert workspace.requests["runs/cancel"] == 0
        airflow.over.set()
        await until(lambda: workspace.requests["runs/cancel"] == 1)
        await until(lambda: not run_trigger._going_on)

    asyncio.run(leave())


def test_where_airflow_calls_on_kill_a_trigger_that_is_cancelled_just_leaves(monkeypatch, workspace, endless, airflow):
    monkeypatch.setattr(triggers, "_ON_KILL_IS_CALLED", True)
    airflow.say("failed")

    async def leave() -> None:
        running = asyncio.create_task(anext(airflow.belongs(watching(endless)).run()))
        await until(lambda: workspace.requests["runs/get"] > 0)
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled()

    asyncio.run(leave())
    assert not airflow.asked.acquire(blocking=False)
    assert workspace.requests["runs/cancel"] == 0
