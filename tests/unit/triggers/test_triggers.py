"""The trigger of a run: its arguments, its event, and the lookup of its connection."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import time
from typing import Any
from unittest import mock

import pytest
from airflow_context import FAST, connect, fire, launch_endless, no_connection, rebuilt, until, watching

from airflow_dbjobs.airflow_compat import AIRFLOW_V_3_0_PLUS
from airflow_dbjobs.client import JobsClient, wait
from airflow_dbjobs.client.wait import wait_for_run
from airflow_dbjobs.errors import JobsError, RunLost
from airflow_dbjobs.hooks import DatabricksJobsHook
from airflow_dbjobs.local_workspace import Fault
from airflow_dbjobs.runs.polling.poller import RunPoller
from airflow_dbjobs.triggers import DatabricksRunTrigger
from airflow_dbjobs.triggers import base as triggers
from airflow_dbjobs.triggers.events import read_event


@pytest.fixture(autouse=True)
def _connection(workspace, monkeypatch):
    connect(monkeypatch, workspace.base_url, workspace.token)


@pytest.fixture
def endless(client) -> int:
    return launch_endless(client)


def start(client: JobsClient, left: str = "1") -> int:
    condition = {"op": "LESS_THAN", "left": left, "right": "2"}
    return client.submit_run({"tasks": [{"task_key": "a", "condition_task": condition}]})


@pytest.fixture
def lookups(monkeypatch) -> list[DatabricksJobsHook]:
    """Return the list of connection lookups so far."""
    seen: list[DatabricksJobsHook] = []
    aget_conn = DatabricksJobsHook.aget_conn

    async def slow_lookup(hook: DatabricksJobsHook) -> JobsClient:
        seen.append(hook)
        # A secrets backend is slow.
        await asyncio.sleep(0.02)
        return await aget_conn(hook)

    monkeypatch.setattr(DatabricksJobsHook, "aget_conn", slow_lookup)
    return seen


async def payloads(*watched: DatabricksRunTrigger) -> list[Any]:
    """Run triggers together, as a triggerer does, and return their payloads."""
    with mock.patch.object(triggers, "settling_seconds", return_value=0):
        async with asyncio.timeout(20):
            events = await asyncio.gather(*(anext(trigger.run()) for trigger in watched))
    return [event.payload for event in events]


class TestSerialization:
    def test_arguments_rebuild_the_trigger_without_secrets(self, workspace):
        trigger = watching(7, cancel_on_kill=False, deadline=1.5)
        path, kwargs = trigger.serialize()
        assert path == "airflow_dbjobs.triggers.DatabricksRunTrigger"
        assert kwargs == {
            "run_id": 7,
            "databricks_conn_id": "databricks_default",
            "polling_period_seconds": FAST,
            "run_page_url": "http://page",
            "cancel_on_kill": False,
            "deadline": 1.5,
            "ends_task": False,
            "max_result_bytes": None,
        }
        assert rebuilt(trigger).serialize() == trigger.serialize()
        assert workspace.token not in json.dumps(kwargs)

    def test_trigger_of_another_release_works(self, client):
        # An older release knew two arguments, a newer one may know more than this one.
        assert fire(DatabricksRunTrigger(run_id=start(client), databricks_conn_id="databricks_default"))
        assert fire(watching(start(client), caller_of_tomorrow={"a": 1}))


class TestEvent:
    @pytest.mark.parametrize(("left", "state"), [("1", "TERMINATED/SUCCESS"), ("one", "INTERNAL_ERROR/FAILED")])
    def test_fires_once_at_the_end_of_the_run(self, client, left, state):
        run_id = start(client, left)
        event = fire(rebuilt(watching(run_id)))
        assert event == {"run_id": run_id, "run_page_url": "http://page", "state": state}
        assert read_event(event) == (run_id, "http://page", "")

    def test_does_not_fire_while_the_run_is_active(self, workspace, client):
        run_id = start(client)
        running = {"run_id": run_id, "state": {"life_cycle_state": "RUNNING"}}
        workspace.faults.append(Fault("runs/get", status=200, body=running, times=5))
        assert fire(watching(run_id))["state"] == "TERMINATED/SUCCESS"
        assert workspace.requests["runs/get"] == 6

    def test_reports_a_missing_run(self):
        with pytest.raises(RunLost, match="Run 7 no longer exists") as error:
            read_event(fire(watching(7)))
        assert (error.value.run_id, error.value.page_url) == (7, "http://page")

    def test_is_delayed_until_airflow_3_knows_the_deferral(self, client):
        assert (6 if AIRFLOW_V_3_0_PLUS else 0) == triggers.settling_seconds()
        run_id = start(client)
        wait_for_run(client, run_id, period=FAST)
        for watched in (run_id, 7):
            began = time.monotonic()
            assert fire(watching(watched), settling_seconds=0.3)["run_id"] == watched
            assert time.monotonic() - began >= 0.29

    def test_brief_failure_fires_no_event(self, workspace, client):
        run_id = start(client)
        workspace.faults.append(Fault("runs/get", status=503, body="<html>gateway</html>"))
        assert fire(watching(run_id))["state"] == "TERMINATED/SUCCESS"

    def test_foreign_timeout_error_cancels_nothing(self, workspace, endless, monkeypatch):
        def hasty(*_: object, **__: object) -> None:
            raise TimeoutError("foreign")

        monkeypatch.setattr(JobsClient, "poll_run", hasty)
        event = fire(watching(endless, deadline=time.time() + 600))
        with pytest.raises(
            RunLost,
            match=rf"Run {endless} is no longer polled, .*TimeoutError.*Nothing was cancelled, and the run may still",
        ):
            read_event(event)
        assert workspace.requests["runs/cancel"] == 0

    @pytest.mark.parametrize("event", [None, "done", {}, {"run_id": "7"}, {"status": "success"}])
    def test_foreign_event_is_rejected(self, event):
        with pytest.raises(JobsError, match="an event that does not name a run"):
            read_event(event)


class TestPollingPeriod:
    def test_zero_delays_no_other_trigger(self, client, workspace, endless):
        runs = [start(client) for _ in range(5)]

        async def scene() -> list[Any]:
            impatient = asyncio.create_task(
                payloads(DatabricksRunTrigger(endless, "databricks_default", polling_period_seconds=0))
            )
            fired = await payloads(*map(watching, runs))
            assert not impatient.done()
            client.cancel_run(endless)
            return [*fired, *await impatient]

        states = [event["state"] for event in asyncio.run(scene())]
        assert states == ["TERMINATED/SUCCESS"] * 5 + ["TERMINATED/CANCELED"]


class TestConnectionLookup:
    def test_missing_connection_is_reported(self):
        event = fire(DatabricksRunTrigger(7, "elsewhere"))
        with pytest.raises(
            RunLost,
            match=r"Run 7 cannot be polled: .*Nothing was cancelled, and the run may still be running.*is 'elsewhere'",
        ):
            read_event(event)

    def test_failed_lookup_is_retried(self, client, monkeypatch):
        run_id = start(client)
        wait_for_run(client, run_id, period=FAST)
        aget_conn, failures = DatabricksJobsHook.aget_conn, iter([ConnectionError("the secrets backend is down")] * 3)

        async def flaky(hook: DatabricksJobsHook) -> JobsClient:
            if error := next(failures, None):
                raise error
            return await aget_conn(hook)

        monkeypatch.setattr(DatabricksJobsHook, "aget_conn", flaky)
        assert fire(watching(run_id), lookup_seconds=10)["state"] == "TERMINATED/SUCCESS"

    def test_hanging_lookup_times_out_and_is_retried(self, client, monkeypatch):
        run_id = start(client)
        aget_conn, hangs = DatabricksJobsHook.aget_conn, iter([True])

        async def hanging(hook: DatabricksJobsHook) -> JobsClient:
            if next(hangs, False):
                await asyncio.Event().wait()
            return await aget_conn(hook)

        monkeypatch.setattr(DatabricksJobsHook, "aget_conn", hanging)
        monkeypatch.setattr(triggers, "LOOKUP_TIMEOUT_SECONDS", 0.2)
        assert fire(watching(run_id), lookup_seconds=10)["state"] == "TERMINATED/SUCCESS"

    def test_many_triggers_share_one_lookup(self, workspace, client, lookups, monkeypatch, endless):
        monkeypatch.setattr(wait, "backoff", lambda _: FAST)
        many, callers, hold = 50, [], asyncio.Event()
        client_of, aget_conn = triggers.client_of, DatabricksJobsHook.aget_conn

        async def counted(conn_id: str) -> JobsClient:
            callers.append(conn_id)
            return await client_of(conn_id)

        async def held(hook: DatabricksJobsHook) -> JobsClient:
            renewed = await aget_conn(hook)
            await hold.wait()
            return renewed

        monkeypatch.setattr(triggers, "client_of", counted)

        async def scene() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(payloads(*(watching(endless) for _ in range(many))))
                await until(lambda: workspace.requests["runs/get"] >= many)
                assert len(lookups) == 1, "those that start together"
                monkeypatch.setattr(DatabricksJobsHook, "aget_conn", held)
                workspace.faults.append(Fault("runs/get", status=403, times=1))
                # One response reaches all callers.
                await until(lambda: len(callers) == 2 * many)
                client.cancel_run(endless)
                hold.set()
            assert len(lookups) == 2, "those that are refused together"

        asyncio.run(scene())

    @pytest.mark.parametrize("ends", ["answers", "fails"])
    def test_abandoned_lookup_ends_quietly(self, client, monkeypatch, ends):
        complaints: list[Any] = []
        release = asyncio.Event()

        async def slow(_: DatabricksJobsHook) -> JobsClient:
            await release.wait()
            if ends == "fails":
                raise ConnectionError("the secrets backend is down")
            return client

        monkeypatch.setattr(DatabricksJobsHook, "aget_conn", slow)

        async def scene() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
            waiters = [asyncio.create_task(triggers.client_of("databricks_default")) for _ in range(3)]
            await asyncio.sleep(0)
            for waiter in waiters:
                waiter.cancel()
            await asyncio.wait(waiters)
            assert all(waiter.cancelled() for waiter in waiters)
            release.set()
            await until(lambda: not triggers._lookups[asyncio.get_running_loop()])
            gc.collect()
            await asyncio.sleep(0)

        asyncio.run(scene())
        assert complaints == []

    def test_cancelled_caller_does_not_cancel_it_for_others(self, client, lookups):
        async def scene() -> None:
            leaving, staying = (asyncio.create_task(triggers.client_of("databricks_default")) for _ in range(2))
            await asyncio.sleep(0)
            leaving.cancel()
            assert (await staying).host == client.host
            assert leaving.cancelled()
            # The next caller starts a new lookup: the connection may have changed.
            await triggers.client_of("databricks_default")

        asyncio.run(scene())
        assert len(lookups) == 2

    def test_runs_in_an_empty_context(self, client, monkeypatch):
        whose = contextvars.ContextVar("whose", default="of no trigger")
        seen: list[str] = []

        async def lookup(_: DatabricksJobsHook) -> JobsClient:
            seen.append(whose.get())
            return client

        monkeypatch.setattr(DatabricksJobsHook, "aget_conn", lookup)

        async def scene() -> None:
            whose.set("of the first trigger")
            await triggers.client_of("databricks_default")

        asyncio.run(scene())
        assert seen == ["of no trigger"]


class TestRejectedCredentials:
    def test_rotated_token_is_used_while_the_run_is_active(self, workspace, monkeypatch, endless, lookups, capfd):
        monkeypatch.setattr(wait, "backoff", lambda _: FAST)

        async def scene() -> list[Any]:
            firing = asyncio.create_task(payloads(watching(endless)))
            await until(lambda: workspace.requests["runs/get"] > 1)
            (old,) = RunPoller._shared[asyncio.get_running_loop()].values()
            workspace.token = "local-token-of-tomorrow"
            connect(monkeypatch, workspace.base_url, workspace.token)
            polls = workspace.requests["runs/get"]
            # One or two polls are rejected; the next is answered.
            await until(lambda: workspace.requests["runs/get"] > polls + 3)
            (new,) = RunPoller._shared[asyncio.get_running_loop()].values()
            assert new is not old, "the old credentials are forgotten"
            JobsClient(workspace.base_url, token=workspace.token).cancel_run(endless)
            return await firing

        (event,) = asyncio.run(scene())
        assert event["state"] == "TERMINATED/CANCELED"
        assert len(lookups) == 2
        logged = capfd.readouterr().out
        assert logged.count("The connection 'databricks_default' has changed; using its new settings.") == 1
        assert workspace.token not in logged

    def test_rejection_of_unchanged_credentials_is_retried(self, workspace, client, lookups, capfd, monkeypatch):
        # The first wait after a failure is a second.
        monkeypatch.setattr(wait, "backoff", lambda _: FAST)
        workspace.faults.append(Fault("runs/get", status=403, times=3))
        (event,) = asyncio.run(payloads(watching(start(client))))
        assert event["state"] == "TERMINATED/SUCCESS"
        assert len(lookups) == 4
        assert "has changed" not in capfd.readouterr().out

    def test_rejection_is_retried_while_lookup_fails(self, workspace, client, monkeypatch, capfd):
        monkeypatch.setattr(wait, "backoff", lambda _: FAST)
        workspace.faults.append(Fault("runs/get", status=401, times=3))
        run_id, aget_conn, lookups = start(client), DatabricksJobsHook.aget_conn, []

        async def only_once(hook: DatabricksJobsHook) -> JobsClient:
            lookups.append(hook)
            return await (no_connection if len(lookups) > 1 else aget_conn)(hook)

        monkeypatch.setattr(DatabricksJobsHook, "aget_conn", only_once)
        (event,) = asyncio.run(payloads(watching(run_id)))
        assert event["state"] == "TERMINATED/SUCCESS"
        assert len(lookups) == 4
        logged = capfd.readouterr().out
        assert "Reading the connection 'databricks_default' again failed" in logged
        assert "keeping the previous credentials: the secrets backend is down" in logged

    def test_tolerance_spans_all_lookups(self, workspace, client, monkeypatch):
        monkeypatch.setattr(wait, "backoff", lambda _: FAST)
        connect(monkeypatch, workspace.base_url, workspace.token, extra={"denied_tolerance": 0.2})
        workspace.faults.append(Fault("runs/get", status=403, times=None))
        (event,) = asyncio.run(payloads(watching(start(client))))
        assert "was not cancelled" in event["error"]
        assert "answered 403" in event["error"]
