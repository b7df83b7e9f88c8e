"""The sensors while the API fails or refuses: what is waited out, for how long, and who waits."""

from __future__ import annotations

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred
from airflow_context import FAST, FastTime, connect, launch_endless

from airflow_dbjobs.errors import PermissionDenied, RunLost, ServerError, Unauthenticated
from airflow_dbjobs.local_workspace import Fault
from airflow_dbjobs.sensor_trigger import DatabricksSensorTrigger
from airflow_dbjobs.sensors import DatabricksJobIdleSensor, DatabricksRunSensor
from airflow_dbjobs.transport import Transport
from airflow_dbjobs.triggers import DatabricksRunTrigger
from airflow_dbjobs.waiting import wait_for_run

TASK = {"task_key": "load", "condition_task": {"op": "EQUAL_TO", "left": "1", "right": "1"}}


@pytest.fixture
def run_id(client) -> int:
    return wait_for_run(client, client.submit_run({"tasks": [TASK]}), period=FAST).run_id


@pytest.fixture
def time(run_id, monkeypatch) -> FastTime:
    """Let all later waits take no time."""
    return FastTime(monkeypatch)


def sensor(**kwargs) -> DatabricksRunSensor:
    return DatabricksRunSensor(**{"task_id": "load", "poke_interval": FAST, "timeout": 5000, **kwargs})


@pytest.mark.parametrize("mode", ["poke", "reschedule"])
@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_are_waited_out_within_a_poke(scene, run_id, time, mode, status):
    refusal = Fault("runs/get", status=status, times=6)
    scene.workspace.faults.append(refusal)
    assert sensor(run_id=run_id, mode=mode).poke(scene.context).is_done
    assert refusal.times == 0


def test_a_token_that_is_rotated_during_a_poke_is_taken_up(scene, run_id, time, monkeypatch):
    scene.workspace.token = "local-token-of-tomorrow"

    def rotated(seconds: float) -> None:
        connect(monkeypatch, scene.workspace.base_url, scene.workspace.token)
        time.sleep(seconds)

    monkeypatch.setitem(Transport.__init__.__kwdefaults__, "sleep", rotated)
    assert sensor(run_id=run_id).poke(scene.context).is_done


@pytest.mark.parametrize(("timeout", "lasts"), [(5000, 600), (60, 60)])
def test_a_refusal_that_lasts_fails_the_sensor(scene, run_id, time, timeout, lasts):
    scene.workspace.faults.append(Fault("runs/get", status=401, times=None))
    began = time.now
    with pytest.raises(RunLost, match=r"Run \d+ could not be asked for .*Check the connection's token") as error:
        sensor(run_id=run_id, timeout=timeout).poke(scene.context)
    assert isinstance(error.value.__cause__, Unauthenticated)
    # Up to one wait of a backoff more.
    assert lasts <= time.now - began < lasts + 70


def test_the_tolerance_is_the_connections(scene, run_id, time, monkeypatch):
    workspace = scene.workspace
    connect(monkeypatch, workspace.base_url, workspace.token, extra={"denied_tolerance": 0})
    workspace.faults.append(Fault("runs/get", status=403, times=1))
    with pytest.raises(RunLost) as error:
        sensor(run_id=run_id, mode="reschedule").poke(scene.context)
    assert isinstance(error.value.__cause__, PermissionDenied)


@pytest.mark.parametrize("kind", [DatabricksRunSensor, DatabricksJobIdleSensor])
def test_an_outage_at_the_first_look_is_waited_out_in_the_triggerer(scene, client, time, kind):
    job_id = client.create_job({"tasks": [TASK]})
    # More than the ten minutes that one call is retried for.
    scene.workspace.faults.append(Fault("runs/list", status=503, times=25))
    waiting = kind(task_id="load", job_id=job_id, deferrable=True)
    with pytest.raises(TaskDeferred) as deferral:
        waiting.execute(scene.context)
    assert isinstance(deferral.value.trigger, DatabricksSensorTrigger)
    assert deferral.value.trigger.condition["job_id"] == job_id


def test_an_outage_at_the_first_look_for_a_run_is_left_to_the_poller(scene, run_id, time):
    scene.workspace.faults.append(Fault("runs/get", status=503, times=25))
    with pytest.raises(TaskDeferred) as deferral:
        sensor(run_id=run_id, deferrable=True).execute(scene.context)
    assert isinstance(deferral.value.trigger, DatabricksRunTrigger)
    scene.workspace.faults.clear()
    event = {"run_id": run_id, "run_page_url": "", "state": "TERMINATED/SUCCESS"}
    sensor(run_id=run_id).execute_complete(scene.context, event)
    assert scene.ti.link, "which nobody could set before"


def test_an_outage_after_the_trigger_has_fired_is_waited_out(scene, run_id, time):
    scene.workspace.faults.append(Fault("runs/get", status=503, times=50))
    event = {"run_id": run_id, "run_page_url": "", "state": "TERMINATED/SUCCESS"}
    assert sensor(run_id=run_id).execute_complete(scene.context, event) == "true"
    scene.workspace.faults.append(Fault("runs/get", status=503, times=None))
    with pytest.raises(RunLost) as error:
        sensor(run_id=run_id).execute_complete(scene.context, event)
    assert isinstance(error.value.__cause__, ServerError)


def test_do_xcom_push_false_keeps_the_link_only(scene, client):
    run_id = launch_endless(client)
    job_id = client.get_run(run_id).job_id
    assert sensor(job_id=job_id, do_xcom_push=False).poke(scene.context) is False
    assert scene.ti.link == client.get_run(run_id).page_url
    assert scene.ti.xcom == {}
