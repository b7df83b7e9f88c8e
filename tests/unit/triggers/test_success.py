"""A trigger that ends its task as a success, and everything that leaves that to a worker."""

from __future__ import annotations

import asyncio
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from airflow.triggers.base import TaskSuccessEvent
from airflow_context import FAST, connect, rebuilt, until, watching
from asgiref.sync import async_to_sync

from airflow_dbjobs.airflow_compat import AIRFLOW_V_3_0_PLUS
from airflow_dbjobs.client.jobs_client import JobsClient
from airflow_dbjobs.client.models import Run
from airflow_dbjobs.client.wait import wait_for_run
from airflow_dbjobs.local_workspace import Fault
from airflow_dbjobs.runs.conditions import IdleCondition, RunCondition
from airflow_dbjobs.runs.polling.poller import RunPoller
from airflow_dbjobs.triggers import DatabricksSensorTrigger
from airflow_dbjobs.triggers import base as triggers

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_dbjobs.local_workspace import LocalWorkspace
    from airflow_dbjobs.triggers.base import JobsTrigger

pytestmark = pytest.mark.skipif(not AIRFLOW_V_3_0_PLUS, reason="On Airflow 2 a worker ends each task")

INSTANCE = {"dag_id": "nightly", "task_id": "load", "run_id": "manual__1"}


@pytest.fixture(autouse=True)
def _connection(workspace: LocalWorkspace, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, workspace.base_url, workspace.token)


@pytest.fixture
def stored(mocker: Any) -> list[dict[str, Any]]:
    """Return what was stored in Airflow's database."""
    calls: list[dict[str, Any]] = []
    mocker.patch("airflow.sdk.bases.xcom.BaseXCom.set", side_effect=lambda **call: calls.append(call))
    return calls


def submit(client: JobsClient, left: str = "1", tasks: int = 1) -> int:
    condition = {"op": "LESS_THAN", "left": left, "right": "2"}
    return client.submit_run(
        {"tasks": [{"task_key": f"task_{number}", "condition_task": condition} for number in range(tasks)]}
    )


def of_task(trigger: JobsTrigger, map_index: int | None = -1) -> JobsTrigger:
    """Return the trigger after a stay in the database, for a task instance."""
    made: JobsTrigger = rebuilt(trigger)
    made.task_instance = SimpleNamespace(**INSTANCE, map_index=map_index)  # type: ignore[assignment]
    return made


def ending(run_id: int, **kwargs: Any) -> JobsTrigger:
    return of_task(watching(run_id, **{"ends_task": True, "max_result_bytes": 1000, **kwargs}))


def ending_sensor(condition: Any, **kwargs: Any) -> JobsTrigger:
    arguments = {"ends_task": True, "max_result_bytes": 1000, "poke_interval": FAST, **kwargs}
    return of_task(DatabricksSensorTrigger(condition.to_dict(), "databricks_default", **arguments))


def event_of(trigger: JobsTrigger, settling_seconds: float = 0) -> Any:
    """Run a trigger, and return its only event."""

    async def events() -> list[Any]:
        return [event async for event in trigger.run()]

    with mock.patch.object(triggers, "settling_seconds", return_value=settling_seconds):
        (event,) = asyncio.run(asyncio.wait_for(events(), 60))
    return event


class TestSuccess:
    def test_stores_the_result_and_ends_the_task_at_once(
        self, client: JobsClient, stored: list[dict[str, Any]]
    ) -> None:
        # If it waited until a worker could resume, this test would time out.
        assert isinstance(event_of(ending(submit(client)), settling_seconds=3600), TaskSuccessEvent)
        assert stored == [{"key": "return_value", "value": "true", **INSTANCE, "map_index": -1}]

    @pytest.mark.parametrize(("map_index", "where"), [(3, 3), (None, -1)])
    def test_is_that_of_the_map_index(
        self, client: JobsClient, stored: list[dict[str, Any]], map_index: int | None, where: int
    ) -> None:
        trigger = ending(submit(client))
        trigger.task_instance.map_index = map_index
        event_of(trigger)
        assert [call["map_index"] for call in stored] == [where]

    def test_without_a_limit_stores_no_result(
        self, client: JobsClient, workspace: LocalWorkspace, stored: list[dict[str, Any]]
    ) -> None:
        assert isinstance(event_of(ending(submit(client), max_result_bytes=None)), TaskSuccessEvent)
        assert stored == []
        assert workspace.requests["runs/get-output"] == 0

    def test_logs_what_a_worker_would(
        self, client: JobsClient, stored: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
    ) -> None:
        run_id = submit(client, tasks=2)
        event_of(ending(run_id))
        text = capsys.readouterr().out
        for line in (
            f"Run {run_id} is TERMINATED/SUCCESS",
            "Task task_0 is TERMINATED/SUCCESS",
            "Task task_1 is TERMINATED/SUCCESS",
            "2 tasks: 2 succeeded",
            "The task succeeds without resuming on a worker.",
        ):
            assert line in text
        assert stored[0]["value"] == {"task_0": "true", "task_1": "true"}

    def test_of_two_triggerers_stores_the_same_twice(self, client: JobsClient, stored: list[dict[str, Any]]) -> None:
        trigger = ending(submit(client))
        assert isinstance(event_of(trigger), TaskSuccessEvent)
        assert isinstance(event_of(of_task(trigger)), TaskSuccessEvent)
        assert stored[0] == stored[1]

    def test_is_stored_to_the_end_if_the_trigger_is_cancelled(self, client: JobsClient, mocker: Any) -> None:
        # Before 3.3 Airflow's triggerer dies if one of its requests is cancelled.
        trigger = ending(submit(client), cancel_on_kill=False)
        ends: list[str] = []

        async def cancel_while_it_stores() -> None:
            asked, answer = asyncio.Event(), asyncio.Event()

            async def request() -> None:
                asked.set()
                try:
                    await answer.wait()
                except asyncio.CancelledError:
                    ends.append("cancelled")
                    raise
                ends.append("answered")

            mocker.patch("airflow.sdk.bases.xcom.BaseXCom.set", side_effect=lambda **_: async_to_sync(request)())
            firing = asyncio.create_task(anext(aiter(trigger.run())))
            await asyncio.wait_for(asked.wait(), 60)
            firing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await firing
            answer.set()
            await until(lambda: ends)

        asyncio.run(cancel_while_it_stores())
        assert ends == ["answered"]

    def test_leaves_threads_to_other_triggers(self) -> None:
        async def use_threads() -> None:
            over = threading.Event()
            storing = [asyncio.create_task(triggers.in_thread(lambda: over.wait(60))) for _ in range(100)]
            for _ in range(5):
                # Until all of them are in the queue.
                await asyncio.sleep(0)
            try:
                assert await asyncio.wait_for(asyncio.to_thread(lambda: 7), 20) == 7
            finally:
                over.set()
            await asyncio.gather(*storing)

        asyncio.run(use_threads())

    def test_after_the_deadline_is_still_one(self, client: JobsClient, stored: list[dict[str, Any]]) -> None:
        # The run has ended in time; only what follows has not.
        trigger = ending(submit(client), deadline=time.time() + 0.5)
        read = RunPoller.call

        async def late(poller: RunPoller, call: Callable[[JobsClient], Any]) -> Any:
            while time.time() < float(trigger.deadline or 0):  # noqa: ASYNC110 (it waits for a time)
                await asyncio.sleep(0.05)
            return await read(poller, call)

        with mock.patch.object(RunPoller, "call", late):
            assert isinstance(event_of(trigger), TaskSuccessEvent)
        assert len(stored) == 1


class TestWorker:
    """What ends the task on a worker, with the same event as ever."""

    def assert_resumes(self, trigger: JobsTrigger, run_id: int, stored: list[dict[str, Any]]) -> None:
        event = event_of(trigger)
        assert not isinstance(event, TaskSuccessEvent)
        assert event.payload["run_id"] == run_id
        assert not stored

    def test_ends_the_task_if_the_trigger_does_not(self, client: JobsClient, stored: list[dict[str, Any]]) -> None:
        run_id = submit(client)
        self.assert_resumes(of_task(watching(run_id)), run_id, stored)

    def test_ends_a_failed_run(
        self, client: JobsClient, workspace: LocalWorkspace, stored: list[dict[str, Any]]
    ) -> None:
        run_id = submit(client, left="no number")
        polls = len(stored)
        self.assert_resumes(ending(run_id), run_id, stored)
        assert workspace.requests["runs/get-output"] == polls == 0

    def test_ends_a_partial_success(
        self, workspace: LocalWorkspace, client: JobsClient, stored: list[dict[str, Any]]
    ) -> None:
        run_id = submit(client)
        state = {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS_WITH_FAILURES"}
        workspace.faults.append(Fault("runs/get", status=200, body={"run_id": run_id, "state": state}, times=None))
        self.assert_resumes(ending(run_id), run_id, stored)

    def test_ends_a_run_that_was_repaired_meanwhile(
        self, workspace: LocalWorkspace, client: JobsClient, stored: list[dict[str, Any]]
    ) -> None:
        run_id = submit(client)
        wait_for_run(client, run_id, period=FAST)
        active = Run.from_json({"run_id": run_id, "state": {"life_cycle_state": "RUNNING"}})
        with mock.patch.object(JobsClient, "get_run", return_value=active):
            self.assert_resumes(ending(run_id), run_id, stored)

    @pytest.mark.parametrize("operation", ["runs/get", "runs/get-output"])
    def test_reads_what_could_not_be_read(
        self, workspace: LocalWorkspace, client: JobsClient, stored: list[dict[str, Any]], notebook: Any, operation: str
    ) -> None:
        run_id = client.submit_run({"tasks": [notebook("returns", "dbutils.notebook.exit('it')")]})
        wait_for_run(client, run_id, period=FAST)
        outage = Fault(operation, status=503, times=None)
        call = RunPoller.call

        async def during_an_outage(poller: RunPoller, read: Any) -> Any:
            workspace.faults.append(outage)
            return await call(poller, read)

        with mock.patch.object(RunPoller, "call", during_an_outage):
            self.assert_resumes(ending(run_id), run_id, stored)
        workspace.faults.remove(outage)
        assert isinstance(event_of(ending(run_id)), TaskSuccessEvent)
        assert stored[0]["value"] == "it"

    def test_stores_what_could_not_be_stored(
        self, client: JobsClient, mocker: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        mocker.patch("airflow.sdk.bases.xcom.BaseXCom.set", side_effect=OSError("no database"))
        run_id = submit(client)
        self.assert_resumes(ending(run_id), run_id, [])
        assert "Ending the task in the triggerer failed; a worker ends it: no database" in capsys.readouterr().out

    @pytest.mark.parametrize("slow", ["read", "store"])
    def test_ends_what_takes_too_long(
        self, client: JobsClient, mocker: Any, monkeypatch: pytest.MonkeyPatch, slow: str
    ) -> None:
        monkeypatch.setattr(triggers, "ENDING_SECONDS", 0.2)
        run_id = submit(client)
        over = threading.Event()

        def hangs(*_: Any, **__: Any) -> Any:
            over.wait(30)

        where = "airflow_dbjobs.runs.result.run_result" if slow == "read" else "airflow.sdk.bases.xcom.BaseXCom.set"
        mocker.patch("airflow.sdk.bases.xcom.BaseXCom.set")
        mocker.patch(where, side_effect=hangs)
        # asyncio waits at its end for the threads of its executor.
        threading.Timer(1.5, over.set).start()
        self.assert_resumes(ending(run_id), run_id, [])

    def test_ends_a_trigger_without_task(self, client: JobsClient, stored: list[dict[str, Any]]) -> None:
        run_id = submit(client)
        self.assert_resumes(rebuilt(watching(run_id, ends_task=True)), run_id, stored)

    def test_ends_a_task_that_exceeded_its_deadline(
        self, client: JobsClient, stored: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run_id = submit(client)
        event = event_of(ending(run_id, deadline=time.time() - 1))
        assert "timed_out" in event.payload
        assert not stored

    def test_ends_a_run_that_is_lost(self, stored: list[dict[str, Any]]) -> None:
        event = event_of(ending(7))
        assert "no longer exists" in event.payload["error"]
        assert not stored


class TestSensor:
    @pytest.fixture
    def run(self, client: JobsClient) -> Run:
        return wait_for_run(client, submit(client), period=FAST)

    def test_of_a_task_stores_its_result(self, run: Run, stored: list[dict[str, Any]]) -> None:
        condition = RunCondition(chosen=run.run_id, task_key="task_0")
        assert isinstance(event_of(ending_sensor(condition)), TaskSuccessEvent)
        assert [call["value"] for call in stored] == ["true"]

    def test_that_waits_for_a_failure_has_no_result(self, client: JobsClient, stored: list[dict[str, Any]]) -> None:
        run = wait_for_run(client, submit(client, left="no number"), period=FAST)
        condition = RunCondition(chosen=run.run_id, states=("FAILED",))
        assert isinstance(event_of(ending_sensor(condition)), TaskSuccessEvent)
        assert stored == []

    def test_that_pushes_no_xcom_reads_none(
        self, run: Run, workspace: LocalWorkspace, stored: list[dict[str, Any]]
    ) -> None:
        condition = RunCondition(chosen=run.run_id, task_key="task_0")
        assert isinstance(event_of(ending_sensor(condition, max_result_bytes=None)), TaskSuccessEvent)
        assert stored == []

    def test_of_an_idle_job_sets_its_link(self, client: JobsClient, stored: list[dict[str, Any]]) -> None:
        condition = {"op": "LESS_THAN", "left": "1", "right": "2"}
        job_id = client.create_job({"name": "idle", "tasks": [{"task_key": "a", "condition_task": condition}]})
        run = wait_for_run(client, client.run_now({"job_id": job_id}), period=FAST)
        assert isinstance(event_of(ending_sensor(IdleCondition(job_id=run.job_id))), TaskSuccessEvent)
        assert [(call["key"], call["value"]) for call in stored] == [("_link_DatabricksRunLink", run.page_url)]

    def test_resumes_to_publish_the_run_that_it_has_chosen(self, run: Run, stored: list[dict[str, Any]]) -> None:
        event = event_of(ending_sensor(RunCondition(job_id=run.job_id)))
        assert event.payload["run_id"] == run.run_id
        assert stored == []

    @pytest.mark.parametrize("max_result_bytes", [1000, None])
    def test_resumes_to_warn_of_a_partial_success(
        self, run: Run, workspace: LocalWorkspace, stored: list[dict[str, Any]], max_result_bytes: int | None
    ) -> None:
        state = {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS_WITH_FAILURES"}
        tasks = [{"task_key": "task_0", "run_id": 9, "state": state}]
        body = {"run_id": run.run_id, "state": state, "tasks": tasks}
        workspace.faults.append(Fault("runs/get", status=200, body=body, times=None))
        condition = RunCondition(chosen=run.run_id, task_key="task_0")
        event = event_of(ending_sensor(condition, max_result_bytes=max_result_bytes))
        assert event.payload["met"] is True
        assert stored == []

    def test_resumes_to_fail(self, run: Run, stored: list[dict[str, Any]]) -> None:
        event = event_of(ending_sensor(RunCondition(chosen=run.run_id, states=("RUNNING",))))
        assert event.payload["met"] is False
        assert stored == []
