"""The trigger: what it carries, what it fires, and how it looks its connection up."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import time
from typing import Any
from unittest import mock

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS
from airflow_context import FAST, connect, fire, launch_endless, no_connection, rebuilt, until, watching

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


def test_what_is_serialized_makes_the_same_trigger_and_holds_no_secret(workspace):
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
    }
    assert rebuilt(trigger).serialize() == trigger.serialize()
    assert workspace.token not in json.dumps(kwargs)


def test_a_trigger_of_another_release_goes_on(client):
    # The older one knew two arguments, the newer one knows more than we do.
    assert fire(DatabricksRunTrigger(run_id=start(client), databricks_conn_id="databricks_default"))
    assert fire(watching(start(client), caller_of_tomorrow={"a": 1}))


@pytest.mark.parametrize(("left", "state"), [("1", "TERMINATED/SUCCESS"), ("one", "INTERNAL_ERROR/FAILED")])
def test_the_end_of_a_run_fires_one_event(client, left, state):
    run_id = start(client, left)
    event = fire(rebuilt(watching(run_id)))
    assert event == {"run_id": run_id, "run_page_url": "http://page", "state": state}
    assert read_event(event) == (run_id, "http://page", "")


def test_the_event_waits_for_the_end_of_the_run(workspace, client):
    run_id = start(client)
    running = {"run_id": run_id, "state": {"life_cycle_state": "RUNNING"}}
    workspace.faults.append(Fault("runs/get", status=200, body=running, times=5))
    assert fire(watching(run_id))["state"] == "TERMINATED/SUCCESS"
    assert workspace.requests["runs/get"] == 6


def test_a_run_that_does_not_exist_fires_an_event_that_says_so():
    with pytest.raises(RunLost, match="Run 7 does not exist any more") as error:
        read_event(fire(watching(7)))
    assert (error.value.run_id, error.value.page_url) == (7, "http://page")


def test_a_connection_that_is_gone_fires_an_event_that_says_so():
    event = fire(DatabricksRunTrigger(7, "elsewhere"))
    with pytest.raises(RunLost, match=r"Run 7 .*left alone and may still be running.*is 'elsewhere'"):
        read_event(event)


def test_a_connection_that_cannot_be_read_for_a_while_is_looked_up_again(client, monkeypatch):
    run_id = start(client)
    wait_for_run(client, run_id, period=FAST)
    aget_conn, failures = DatabricksJobsHook.aget_conn, iter([ConnectionError("the secrets backend is down")] * 3)

    async def flaky(hook: DatabricksJobsHook) -> JobsClient:
        if error := next(failures, None):
            raise error
        return await aget_conn(hook)

    monkeypatch.setattr(DatabricksJobsHook, "aget_conn", flaky)
    assert fire(watching(run_id), lookup_seconds=10)["state"] == "TERMINATED/SUCCESS"


def test_a_look_up_that_hangs_is_given_up_and_made_again(client, monkeypatch):
    run_id = start(client)
    aget_conn, hangs = DatabricksJobsHook.aget_conn, iter([True])

    async def hanging(hook: DatabricksJobsHook) -> JobsClient:
        if next(hangs, False):
            await asyncio.Event().wait()
        return await aget_conn(hook)

    monkeypatch.setattr(DatabricksJobsHook, "aget_conn", hanging)
    monkeypatch.setattr(triggers, "LOOKUP_SECONDS", 0.2)
    assert fire(watching(run_id), lookup_seconds=10)["state"] == "TERMINATED/SUCCESS"


def test_an_event_is_held_back_until_airflow_3_has_noticed_the_deferral(client):
    assert (6 if AIRFLOW_V_3_0_PLUS else 0) == triggers.SETTLING_SECONDS
    run_id = start(client)
    wait_for_run(client, run_id, period=FAST)
    for watched in (run_id, 7):
        began = time.monotonic()
        assert fire(watching(watched), settling_seconds=0.3)["run_id"] == watched
        assert time.monotonic() - began >= 0.29


def test_a_blip_is_not_an_event(workspace, client):
    run_id = start(client)
    workspace.faults.append(Fault("runs/get", status=503, body="<html>gateway</html>"))
    assert fire(watching(run_id))["state"] == "TERMINATED/SUCCESS"


@pytest.mark.parametrize("event", [None, "done", {}, {"run_id": "7"}, {"status": "success"}])
def test_an_event_that_is_not_ours_is_refused(event):
    with pytest.raises(JobsError, match="not an event of a run"):
        read_event(event)


# --- credentials that are read anew ---


@pytest.fixture
def lookups(monkeypatch) -> list[DatabricksJobsHook]:
    """Return the look-ups of the connection so far."""
    seen: list[DatabricksJobsHook] = []
    aget_conn = DatabricksJobsHook.aget_conn

    async def look_up(hook: DatabricksJobsHook) -> JobsClient:
        seen.append(hook)
        # A secrets backend takes its time.
        await asyncio.sleep(0.02)
        return await aget_conn(hook)

    monkeypatch.setattr(DatabricksJobsHook, "aget_conn", look_up)
    return seen


async def payloads(*watched: DatabricksRunTrigger) -> list[Any]:
    """Run triggers together, as a triggerer does, and return what they fire."""
    with mock.patch.object(triggers, "SETTLING_SECONDS", 0):
        async with asyncio.timeout(20):
            events = await asyncio.gather(*(anext(trigger.run()) for trigger in watched))
    return [event.payload for event in events]


def test_a_rotated_token_is_taken_up_while_the_run_goes_on(workspace, monkeypatch, endless, lookups, capfd):
    monkeypatch.setattr(wait, "backoff", lambda _: FAST)

    async def scene() -> list[Any]:
        firing = asyncio.create_task(payloads(watching(endless)))
        await until(lambda: workspace.requests["runs/get"] > 1)
        (old,) = RunPoller._shared[asyncio.get_running_loop()].values()
        workspace.token = "local-token-of-tomorrow"
        connect(monkeypatch, workspace.base_url, workspace.token)
        asked = workspace.requests["runs/get"]
        # One is refused, or the one before it; the next is answered.
        await until(lambda: workspace.requests["runs/get"] > asked + 3)
        (new,) = RunPoller._shared[asyncio.get_running_loop()].values()
        assert new is not old, "the old credentials are forgotten"
        JobsClient(workspace.base_url, token=workspace.token).cancel_run(endless)
        return await firing

    (event,) = asyncio.run(scene())
    assert event["state"] == "TERMINATED/CANCELED"
    assert len(lookups) == 2
    said = capfd.readouterr().out
    assert said.count("The connection has changed; using its new settings.") == 1
    assert workspace.token not in said


def test_a_refusal_with_unchanged_credentials_is_waited_out_with_them(workspace, client, lookups, capfd, monkeypatch):
    # The first wait after a failure is a second.
    monkeypatch.setattr(wait, "backoff", lambda _: FAST)
    workspace.faults.append(Fault("runs/get", status=403, times=3))
    (event,) = asyncio.run(payloads(watching(start(client))))
    assert event["state"] == "TERMINATED/SUCCESS"
    assert len(lookups) == 4
    assert "has changed" not in capfd.readouterr().out


def test_a_refusal_while_the_connection_cannot_be_read_is_waited_out(workspace, client, monkeypatch, capfd):
    monkeypatch.setattr(wait, "backoff", lambda _: FAST)
    workspace.faults.append(Fault("runs/get", status=401, times=3))
    run_id, aget_conn, asked = start(client), DatabricksJobsHook.aget_conn, []

    async def only_once(hook: DatabricksJobsHook) -> JobsClient:
        asked.append(hook)
        return await (no_connection if len(asked) > 1 else aget_conn)(hook)

    monkeypatch.setattr(DatabricksJobsHook, "aget_conn", only_once)
    (event,) = asyncio.run(payloads(watching(run_id)))
    assert event["state"] == "TERMINATED/SUCCESS"
    assert len(asked) == 4
    assert "The connection cannot be read anew: the secrets backend is down" in capfd.readouterr().out


def test_the_patience_with_refusals_goes_on_over_the_readings(workspace, client, monkeypatch):
    monkeypatch.setattr(wait, "backoff", lambda _: FAST)
    connect(monkeypatch, workspace.base_url, workspace.token, extra={"denied_tolerance": 0.2})
    workspace.faults.append(Fault("runs/get", status=403, times=None))
    (event,) = asyncio.run(payloads(watching(start(client))))
    assert "left alone" in event["error"]
    assert "answered 403" in event["error"]


def test_many_triggers_look_the_connection_up_once(workspace, client, lookups, monkeypatch, endless):
    monkeypatch.setattr(wait, "backoff", lambda _: FAST)
    many, asking, hold = 50, [], asyncio.Event()
    look_up, aget_conn = triggers.look_up, DatabricksJobsHook.aget_conn

    async def counted(conn_id: str) -> JobsClient:
        asking.append(conn_id)
        return await look_up(conn_id)

    async def held(hook: DatabricksJobsHook) -> JobsClient:
        renewed = await aget_conn(hook)
        await hold.wait()
        return renewed

    monkeypatch.setattr(triggers, "look_up", counted)

    async def scene() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(payloads(*(watching(endless) for _ in range(many))))
            await until(lambda: workspace.requests["runs/get"] >= many)
            assert len(lookups) == 1, "those that start together"
            monkeypatch.setattr(DatabricksJobsHook, "aget_conn", held)
            workspace.faults.append(Fault("runs/get", status=403, times=1))
            # One answer is all watchers'.
            await until(lambda: len(asking) == 2 * many)
            client.cancel_run(endless)
            hold.set()
        assert len(lookups) == 2, "those that are refused together"

    asyncio.run(scene())


@pytest.mark.parametrize("ends", ["answers", "fails"])
def test_a_look_up_that_nobody_waits_for_any_more_ends_quietly(client, monkeypatch, ends):
    complaints: list[Any] = []
    go_on = asyncio.Event()

    async def slow(_: DatabricksJobsHook) -> JobsClient:
        await go_on.wait()
        if ends == "fails":
            raise ConnectionError("the secrets backend is down")
        return client

    monkeypatch.setattr(DatabricksJobsHook, "aget_conn", slow)

    async def scene() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        waiters = [asyncio.create_task(triggers.look_up("databricks_default")) for _ in range(3)]
        await asyncio.sleep(0)
        for waiter in waiters:
            waiter.cancel()
        await asyncio.wait(waiters)
        assert all(waiter.cancelled() for waiter in waiters)
        go_on.set()
        await until(lambda: not triggers._lookups[asyncio.get_running_loop()])
        gc.collect()
        await asyncio.sleep(0)

    asyncio.run(scene())
    assert complaints == []


def test_a_waiter_that_is_cancelled_does_not_cancel_the_look_up_of_others(client, lookups):
    async def scene() -> None:
        leaving, staying = (asyncio.create_task(triggers.look_up("databricks_default")) for _ in range(2))
        await asyncio.sleep(0)
        leaving.cancel()
        assert (await staying).host == client.host
        assert leaving.cancelled()
        # The next asks anew: somebody may have changed it.
        await triggers.look_up("databricks_default")

    asyncio.run(scene())
    assert len(lookups) == 2


def test_a_look_up_belongs_to_no_trigger(client, monkeypatch):
    whose = contextvars.ContextVar("whose", default="nobody's")
    seen: list[str] = []

    async def look(_: DatabricksJobsHook) -> JobsClient:
        seen.append(whose.get())
        return client

    monkeypatch.setattr(DatabricksJobsHook, "aget_conn", look)

    async def scene() -> None:
        whose.set("the first trigger's")
        await triggers.look_up("databricks_default")

    asyncio.run(scene())
    assert seen == ["nobody's"]


def test_a_timeout_that_is_not_the_tasks_own_leaves_the_run_alone(workspace, endless, monkeypatch):
    def hasty(*_: object, **__: object) -> None:
        raise TimeoutError("of somebody else")

    monkeypatch.setattr(JobsClient, "poll_run", hasty)
    event = fire(watching(endless, deadline=time.time() + 600))
    with pytest.raises(RunLost, match=rf"Run {endless} is left alone and may still be running: TimeoutError"):
        read_event(event)
    assert workspace.requests["runs/cancel"] == 0


def test_a_poll_interval_of_zero_fails_nobody(client, workspace, endless):
    runs = [start(client) for _ in range(5)]

    async def scene() -> list[Any]:
        impatient = asyncio.create_task(
            payloads(DatabricksRunTrigger(endless, "databricks_default", polling_period_seconds=0))
        )
        told = await payloads(*map(watching, runs))
        assert not impatient.done()
        client.cancel_run(endless)
        return [*told, *await impatient]

    states = [event["state"] for event in asyncio.run(scene())]
    assert states == ["TERMINATED/SUCCESS"] * 5 + ["TERMINATED/CANCELED"]
