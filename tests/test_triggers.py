"""The trigger: what it carries, what it fires, and what it does when it is killed."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS
from airflow_context import FAST, connect, fire, rebuilt

from airflow_dbjobs import triggers
from airflow_dbjobs.errors import JobsError, RunLost
from airflow_dbjobs.hooks import DatabricksJobsHook
from airflow_dbjobs.local_workspace import Fault
from airflow_dbjobs.triggers import DatabricksRunTrigger, read_event
from airflow_dbjobs.waiting import wait_for_run

if TYPE_CHECKING:
    from airflow_dbjobs.client import JobsClient

needs_task_states = pytest.mark.skipif(
    not AIRFLOW_V_3_0_PLUS, reason="Airflow 2 neither calls on_kill of a trigger nor lets one ask for a task's state"
)


@pytest.fixture(autouse=True)
def _connection(workspace, monkeypatch):
    connect(monkeypatch, workspace.base_url, workspace.token)


def watching(run_id: int, **kwargs: Any) -> DatabricksRunTrigger:
    return DatabricksRunTrigger(
        run_id, "databricks_default", polling_period_seconds=FAST, run_page_url="http://page", **kwargs
    )


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


def killed(mocker: Any, client: JobsClient, told: Any, *, map_index: int = -1, **kwargs: Any) -> str | None:
    """Kill the trigger of an active run, where Airflow tells `told` of its task; return what became of the run."""
    run_id = client.submit_run({"timeout_seconds": 60, "spark_python_task": {"python_file": "sleep.py"}})
    asked = mocker.patch(
        "airflow.sdk.execution_time.task_runner.RuntimeTaskInstance.get_task_states",
        side_effect=lambda **_: told,
    )
    trigger = rebuilt(watching(run_id, **kwargs))
    trigger.task_instance = SimpleNamespace(dag_id="nightly", task_id="load", run_id="manual__1", map_index=map_index)
    asyncio.run(trigger.on_kill())
    if trigger.cancel_on_kill:
        asked.assert_called_once_with(dag_id="nightly", task_ids=["load"], run_ids=["manual__1"], map_index=map_index)
    if client.get_run(run_id).state.life_cycle_state in {"PENDING", "RUNNING"}:
        return None
    return wait_for_run(client, run_id, period=FAST).state.result_state


@pytest.fixture
def _sleeper(workspace, tmp_path):
    (tmp_path / "workspace" / "sleep.py").write_text("import time; time.sleep(60)")


@needs_task_states
@pytest.mark.usefixtures("_sleeper")
@pytest.mark.parametrize(
    ("told", "map_index"),
    [
        ({"manual__1": {"load": "failed"}}, -1),
        ({"manual__1": {"load": "success"}}, -1),
        ({"manual__1": {"load": None}}, -1),
        ({"manual__1": {"load_2": "failed"}}, 2),
    ],
    ids=["failed", "success", "cleared", "mapped"],
)
def test_a_kill_after_the_task_was_marked_or_cleared_cancels_the_run(mocker, client, told, map_index):
    assert killed(mocker, client, told, map_index=map_index) == "CANCELED"


@needs_task_states
@pytest.mark.usefixtures("_sleeper")
@pytest.mark.parametrize(
    ("told", "map_index"),
    [
        ({"manual__1": {"load": "deferred"}}, -1),
        ({"manual__1": {"load_2": "deferred"}}, 2),
        ({"manual__1": {}}, -1),
        ({}, -1),
    ],
    ids=["moved to another triggerer", "moved, mapped", "unknown task", "unknown run"],
)
def test_a_kill_leaves_the_run_alone_unless_the_task_is_known_to_be_over(mocker, client, told, map_index):
    assert killed(mocker, client, told, map_index=map_index) is None


@needs_task_states
@pytest.mark.usefixtures("_sleeper")
def test_a_sensors_trigger_never_cancels(mocker, client):
    assert killed(mocker, client, {"manual__1": {"load": "failed"}}, cancel_on_kill=False) is None


@needs_task_states
@pytest.mark.usefixtures("_sleeper")
def test_a_kill_cancels_the_run_although_airflow_interrupts_it(mocker, client):
    run_id = client.submit_run({"timeout_seconds": 60, "spark_python_task": {"python_file": "sleep.py"}})
    interrupted = threading.Event()
    mocker.patch(
        "airflow.sdk.execution_time.task_runner.RuntimeTaskInstance.get_task_states",
        side_effect=lambda **_: interrupted.wait(10) and {"manual__1": {"load": "failed"}},
    )
    trigger = watching(run_id)
    trigger.task_instance = SimpleNamespace(dag_id="nightly", task_id="load", run_id="manual__1", map_index=-1)

    async def interrupt() -> None:
        killing = asyncio.create_task(trigger.on_kill())
        await asyncio.sleep(0)
        killing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await killing
        interrupted.set()
        while not client.get_run(run_id).is_terminal:  # noqa: ASYNC110 (the workspace has no event to wait for)
            await asyncio.sleep(FAST)

    asyncio.run(asyncio.wait_for(interrupt(), 10))
    assert client.get_run(run_id).state.result_state == "CANCELED"


def test_a_kill_of_a_trigger_without_a_task_cancels_nothing(workspace):
    asyncio.run(watching(7).on_kill())
    assert not workspace.requests


@needs_task_states
def test_a_cancel_that_is_refused_does_not_break_the_triggerer(mocker, workspace, capfd):
    mocker.patch(
        "airflow.sdk.execution_time.task_runner.RuntimeTaskInstance.get_task_states",
        return_value={"manual__1": {"load": "failed"}},
    )
    trigger = watching(7)
    trigger.task_instance = SimpleNamespace(dag_id="nightly", task_id="load", run_id="manual__1", map_index=-1)
    asyncio.run(trigger.on_kill())
    assert "Run 7 could not be cancelled and may still be running" in capfd.readouterr().out
