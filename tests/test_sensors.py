"""The sensor in its three modes: it waits for a run that somebody else launched, and never touches it."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferred,
    XComArg,
)
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS
from airflow_context import FAST, FastTime, Scene

from airflow_dbjobs import airflow_compat
from airflow_dbjobs.client import JobsClient
from airflow_dbjobs.client.wait import wait_for_run
from airflow_dbjobs.errors import ConfigurationError, NotFound, RunFailed
from airflow_dbjobs.hooks import DatabricksJobsHook
from airflow_dbjobs.local_workspace import Fault
from airflow_dbjobs.operators import DatabricksSubmitRunOperator
from airflow_dbjobs.sensors import DatabricksRunSensor


@pytest.fixture(params=[False, True], ids=["poke", "deferrable"])
def deferrable(request: pytest.FixtureRequest) -> bool:
    return request.param


def sensor(run_id: Any, **kwargs: Any) -> DatabricksRunSensor:
    return DatabricksRunSensor(**{"task_id": "load", "run_id": run_id, "poke_interval": FAST, "timeout": 30, **kwargs})


def launch(scene: Scene, client: JobsClient, code: str = "") -> int:
    """Launch a run that waits for the gate, which the link of the sensor opens."""
    scene.ti.at_link = scene.open_gate
    return client.submit_run({"notebook_task": scene.notebook(code), "timeout_seconds": 20})


def finished(scene: Scene, client: JobsClient, code: str) -> int:
    scene.open_gate()
    run_id = launch(scene, client, code)
    wait_for_run(client, run_id, period=FAST)
    return run_id


def test_it_waits_for_the_run_and_returns_what_it_returned(scene, client, deferrable):
    run_id = launch(scene, client, """dbutils.notebook.exit('{"rows": 3}')""")
    assert scene.run_task(lambda: sensor(run_id, deferrable=deferrable)) == {"rows": 3}
    assert scene.ti.deferred is deferrable
    assert scene.ti.link == client.get_run(run_id).page_url


@pytest.mark.parametrize("ends", ["well", "failed", "outage"])
def test_each_look_closes_its_client(scene, client, mocker, deferrable, *, monkeypatch, ends):
    run_id = finished(scene, client, "" if ends == "well" else "raise ValueError('no')")
    if ends == "outage":
        FastTime(monkeypatch)
        scene.workspace.faults.append(Fault("runs/get", status=503, times=3))
    made = mocker.spy(DatabricksJobsHook, "get_conn")
    closed = mocker.spy(JobsClient, "close")
    with suppress(AirflowFailException, RunFailed):
        scene.run_task(lambda: sensor(run_id, deferrable=deferrable, retries=0))
    assert made.call_count >= 1
    clients = {id(of_poke) for of_poke in made.spy_return_list}
    assert clients <= {id(call.args[0]) for call in closed.call_args_list}


def test_do_xcom_push_false_returns_nothing(scene, client, deferrable):
    run_id = launch(scene, client, "dbutils.notebook.exit('x')")
    assert scene.run_task(lambda: sensor(run_id, deferrable=deferrable, do_xcom_push=False)) is None


def test_the_trigger_asks_at_the_poke_interval_and_gives_up_at_the_timeout(scene, client):
    run_id = launch(scene, client)
    with pytest.raises(TaskDeferred) as deferral:
        sensor(run_id, deferrable=True, poke_interval=7, timeout=90).execute(scene.context)
    assert deferral.value.trigger.polling_period_seconds == 7
    assert deferral.value.timeout.total_seconds() == 90
    assert scene.workspace.requests["runs/get"] == 1


def test_in_reschedule_mode_a_poke_asks_once_and_frees_the_worker(scene, client):
    run_id = launch(scene, client)
    waiting = sensor(run_id, mode="reschedule")
    if AIRFLOW_V_3_0_PLUS:
        from airflow.sdk.bases.sensor import AirflowRescheduleException

        with pytest.raises(AirflowRescheduleException):
            waiting.execute(scene.context)
    else:
        # Its execute asks the database since when it waits.
        assert waiting.poke(scene.context) is False
    assert scene.workspace.requests["runs/get"] == 1
    wait_for_run(client, run_id, period=FAST)
    assert sensor(run_id, mode="reschedule").poke(scene.context).is_done


def test_a_sensor_that_never_fails_is_rescheduled_too(scene, client):
    if not AIRFLOW_V_3_0_PLUS:
        pytest.skip("its execute asks the database since when it waits")
    from airflow.sdk.bases.sensor import AirflowRescheduleException

    with pytest.raises(AirflowRescheduleException):
        sensor(launch(scene, client), mode="reschedule", never_fail=True).execute(scene.context)


def test_a_poking_sensor_may_run_where_nested_operators_are_forbidden(scene, client, monkeypatch):
    done = finished(scene, client, "dbutils.notebook.exit('x')")
    if AIRFLOW_V_3_0_PLUS:
        from airflow.sdk.bases.operator import ExecutorSafeguard

        within_a_task = ExecutorSafeguard.sentinel_value
    else:
        from airflow.models.baseoperator import ExecutorSafeguard
        from airflow.models.baseoperator import _sentinel as within_a_task
    monkeypatch.setattr(ExecutorSafeguard, "test_mode", False)
    waiting = sensor(done, allow_nested_operators=False)
    assert waiting.execute(scene.context, DatabricksRunSensor__sentinel=within_a_task) == "x"


def test_a_failed_run_fails_the_sensor_for_good(scene, client, deferrable):
    run_id = launch(scene, client, "raise ValueError('no rows')")
    with pytest.raises(AirflowFailException, match=f"(?s)Run {run_id} .*ValueError: no rows"):
        scene.run_task(lambda: sensor(run_id, deferrable=deferrable))


def test_a_failed_run_skips_a_soft_sensor_with_the_runs_message(scene, client, deferrable):
    run_id = launch(scene, client, "raise ValueError('no rows')")
    with pytest.raises(AirflowSkipException) as skip:
        scene.run_task(lambda: sensor(run_id, deferrable=deferrable, soft_fail=True))
    # Airflow 3 wraps the exception of a resumed sensor in another.
    told = f"{skip.value}\n{skip.value.__cause__}"
    assert f"Run {run_id} " in told
    assert "ValueError: no rows" in told


def test_a_failed_run_skips_a_sensor_that_never_fails(scene, client, deferrable):
    failed = finished(scene, client, "raise ValueError('no rows')")
    with pytest.raises(AirflowSkipException):
        sensor(failed, deferrable=deferrable, never_fail=True).execute(scene.context)


def test_a_partial_success_is_a_success_with_a_warning(scene, client, capfd):
    never = {"op": "EQUAL_TO", "left": "a", "right": "b"}
    state = {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS_WITH_FAILURES"}
    failed = {
        "run_id": 8,
        "task_key": "optional",
        "state": {**state, "result_state": "FAILED"},
        "condition_task": never,
    }
    reply = {"run_id": 7, "state": state, "tasks": [failed]}
    scene.workspace.faults.append(Fault("runs/get", status=200, body=reply))
    assert sensor(7, deferrable=True).execute(scene.context) is None
    assert "some of its tasks failed: optional." in capfd.readouterr().out


@pytest.mark.parametrize("soft_fail", [False, True])
def test_a_run_that_is_over_is_not_deferred_for(scene, client, soft_fail):
    done = finished(scene, client, "dbutils.notebook.exit('x')")
    assert sensor(done, deferrable=True).execute(scene.context) == "x"
    assert scene.ti.link
    failed = finished(scene, client, "raise ValueError('no rows')")
    with pytest.raises(AirflowSkipException if soft_fail else AirflowFailException, match="no rows"):
        sensor(failed, deferrable=True, soft_fail=soft_fail).execute(scene.context)


@pytest.mark.parametrize("native", [False, True])
def test_the_run_id_may_be_a_template(scene, client, native):
    run_id = finished(scene, client, "dbutils.notebook.exit('x')")
    with DAG("nightly", schedule=None, render_template_as_native_obj=native):
        waiting = sensor("{{ which }}", databricks_conn_id="databricks_{{ 'default' }}")
    waiting.render_template_fields({**scene.context, "which": run_id})
    assert waiting.execute(scene.context) == "x"


def test_the_run_id_may_be_an_xcomarg():
    with DAG("nightly", schedule=None):
        launched = DatabricksSubmitRunOperator(task_id="launch", wait_for_termination=False, json="{{ body }}")
        waiting = sensor(XComArg(launched, key="run_id"))
    assert waiting.upstream_task_ids == {"launch"}


@pytest.mark.parametrize("run_id", ["", "None", "12.5", -1])
def test_a_run_id_that_is_none_is_named_and_nothing_is_asked(scene, run_id, deferrable):
    with pytest.raises(ConfigurationError, match=f"run_id is {run_id!r}; it must be the number of a run"):
        sensor(run_id, deferrable=deferrable).execute(scene.context)
    assert not scene.workspace.requests


def test_a_run_that_does_not_exist_fails_at_once(scene, deferrable):
    with pytest.raises(NotFound, match="Run 7 does not exist"):
        sensor(7, deferrable=deferrable).execute(scene.context)
    assert scene.workspace.requests == {"runs/get": 1}


def test_the_run_is_never_cancelled(scene, client):
    run_id = launch(scene, client)
    waiting = sensor(run_id, deferrable=True)
    with pytest.raises(TaskDeferred) as deferral:
        waiting.execute(scene.context)
    assert deferral.value.trigger.cancel_on_kill is False
    waiting.on_kill()
    assert scene.workspace.requests["runs/cancel"] == 0


@pytest.mark.parametrize("started", [True, False], ids=["", "no start_date"])
def test_the_trigger_knows_when_the_sensors_execution_timeout_is_over(scene, client, monkeypatch, started):
    now, minute = datetime.now(UTC), timedelta(minutes=1)
    scene.ti.start_date = now - minute / 4 if started else None
    monkeypatch.setattr(airflow_compat, "time", SimpleNamespace(time=now.timestamp))
    run_id = launch(scene, client)
    deferral = scene.defer_task(lambda: sensor(run_id, deferrable=True, execution_timeout=minute))
    assert deferral.trigger.deadline == (now - minute / 4 + minute if started else now + minute).timestamp()
    # Airflow does not wait for longer than the sensor's timeout, whatever the deadline.
    assert deferral.timeout == timedelta(seconds=30)


@pytest.mark.parametrize("soft_fail", [False, True])
def test_a_sensor_that_is_out_of_time_fails_and_leaves_the_run_alone(scene, client, soft_fail):
    run_id = launch(scene, client)
    scene.ti.at_link = lambda: None
    scene.ti.start_date = datetime.now(UTC) - timedelta(hours=1)
    make = partial(sensor, run_id, deferrable=True, execution_timeout=timedelta(minutes=1), soft_fail=soft_fail)
    with pytest.raises(AirflowTaskTimeout) as error:
        scene.run_task(make)
    assert str(error.value) == (
        f"Waiting for the end of run {run_id} took longer than the task's execution_timeout of 0:01:00:"
        " it is left alone."
    )
    assert scene.workspace.requests["runs/cancel"] == 0
    assert not client.get_run(run_id).is_terminal


def test_the_deadline_of_a_sensor_survives_another_deferral(scene, client):
    run_id = launch(scene, client)
    with pytest.raises(TaskDeferred) as deferral:
        # It is active again: somebody has repaired it.
        sensor(run_id).execute_complete(scene.context, {"run_id": run_id}, deadline=5e9)
    assert deferral.value.trigger.deadline == deferral.value.kwargs["deadline"] == 5e9


def test_a_retry_that_airflow_3_0_resumes_where_the_failed_try_ended_waits_anew(scene, client):
    run_id = launch(scene, client)
    scene.ti.at_link = lambda: None
    make = partial(sensor, run_id, deferrable=True, execution_timeout=timedelta(minutes=1))
    first = scene.defer_task(make)
    resumed = {**first.kwargs, "event": {"run_id": run_id, "run_page_url": "", "timed_out": "it is left alone"}}
    with pytest.raises(AirflowTaskTimeout):
        make().resume_execution(first.method_name, resumed, scene.context)
    scene.next_try()
    scene.ti.start_date = datetime.now(UTC) - timedelta(hours=1)
    with pytest.raises(TaskDeferred) as second:
        make().resume_execution(first.method_name, resumed, scene.context)
    assert 0 < second.value.trigger.deadline - time.time() <= 60
    assert second.value.kwargs["try_number"] == 2


def test_the_timeout_counts_from_the_first_deferral(scene, client):
    run_id = launch(scene, client)
    scene.ti.at_link = lambda: None
    first = scene.defer_task(lambda: sensor(run_id, deferrable=True, timeout=500))
    event, earlier = {"run_id": run_id}, first.kwargs["until"] - 100
    with pytest.raises(TaskDeferred) as again:
        sensor(run_id, timeout=500).execute_complete(scene.context, event, until=earlier)
    assert 390 < again.value.timeout.total_seconds() <= 400
    assert again.value.kwargs["until"] == pytest.approx(earlier, abs=0.1), "and so it does after another one"
    with pytest.raises(AirflowSensorTimeout, match=f"Waiting for the end of run {run_id} took longer than the timeout"):
        sensor(run_id, timeout=500).execute_complete(scene.context, event, until=first.kwargs["until"] - 501)


def test_an_outage_during_a_poke_is_left_to_the_next_poke(scene, client, monkeypatch):
    FastTime(monkeypatch)
    run_id = finished(scene, client, "dbutils.notebook.exit('x')")
    waiting = sensor(run_id)
    # More than the ten minutes that one call is retried for.
    scene.workspace.faults.append(Fault("runs/get", status=503, times=25))
    assert waiting.poke(scene.context) is False
    assert waiting.poke(scene.context).xcom_value == "x"


def test_a_run_without_a_page_is_told_of_without_a_link(scene, capfd):
    run = {"run_id": 7, "job_id": 5, "state": {"life_cycle_state": "RUNNING"}}
    scene.workspace.faults.append(Fault("runs/list", status=200, body={"runs": [run]}))
    scene.workspace.faults.append(Fault("runs/get", status=200, body=run))
    assert sensor(None, job_id=5).poke(scene.context) is False
    assert scene.ti.link is None
    assert scene.ti.xcom == {"run_id": 7, "job_id": 5, "run_page_url": ""}
    said = capfd.readouterr().out
    assert "The API gave no page for run 7." in said
    assert "See " not in said
