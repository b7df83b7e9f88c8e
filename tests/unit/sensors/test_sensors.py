"""The run sensor in its three modes: it waits for a run that was launched elsewhere, and never changes it."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from airflow import DAG, XComArg
from airflow_context import FAST, FastTime, Scene, TaskDeferred, called_by_airflow

from airflow_dbjobs.airflow_compat import (
    AIRFLOW_V_3_0_PLUS,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    launches,
)
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
    """Launch a run that waits for the gate; setting the sensor's link opens the gate."""
    scene.ti.at_link = scene.open_gate
    return client.submit_run({"notebook_task": scene.notebook(code), "timeout_seconds": 20})


def finished(scene: Scene, client: JobsClient, code: str) -> int:
    scene.open_gate()
    run_id = launch(scene, client, code)
    wait_for_run(client, run_id, period=FAST)
    return run_id


class TestWaiting:
    def test_returns_the_result_of_the_run(self, scene, client, deferrable):
        run_id = launch(scene, client, """dbutils.notebook.exit('{"rows": 3}')""")
        assert scene.run_task(lambda: sensor(run_id, deferrable=deferrable)) == {"rows": 3}
        assert scene.ti.deferred is deferrable
        assert scene.ti.link == client.get_run(run_id).page_url

    @pytest.mark.parametrize("ends", ["well", "failed", "outage"])
    def test_each_check_closes_its_client(self, scene, client, mocker, deferrable, *, monkeypatch, ends):
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

    def test_do_xcom_push_false_returns_nothing(self, scene, client, deferrable):
        run_id = launch(scene, client, "dbutils.notebook.exit('x')")
        assert scene.run_task(lambda: sensor(run_id, deferrable=deferrable, do_xcom_push=False)) is None

    @pytest.mark.parametrize("soft_fail", [False, True])
    def test_finished_run_is_not_deferred_for(self, scene, client, soft_fail):
        done = finished(scene, client, "dbutils.notebook.exit('x')")
        assert sensor(done, deferrable=True).execute(scene.context) == "x"
        assert scene.ti.link
        failed = finished(scene, client, "raise ValueError('no rows')")
        with pytest.raises(AirflowSkipException if soft_fail else AirflowFailException, match="no rows"):
            sensor(failed, deferrable=True, soft_fail=soft_fail).execute(scene.context)

    def test_run_is_never_cancelled(self, scene, client):
        run_id = launch(scene, client)
        waiting = sensor(run_id, deferrable=True)
        with pytest.raises(TaskDeferred) as deferral:
            waiting.execute(scene.context)
        assert deferral.value.trigger.cancel_on_kill is False
        waiting.on_kill()
        assert scene.workspace.requests["runs/cancel"] == 0

    def test_outage_during_a_poke_is_left_to_the_next(self, scene, client, monkeypatch):
        FastTime(monkeypatch)
        run_id = finished(scene, client, "dbutils.notebook.exit('x')")
        waiting = sensor(run_id)
        # Longer than the ten minutes for which one call is retried.
        scene.workspace.faults.append(Fault("runs/get", status=503, times=25))
        assert waiting.poke(scene.context) is False
        assert waiting.poke(scene.context).xcom_value == "x"

    def test_run_without_a_page_gets_no_link(self, scene, capfd):
        run = {"run_id": 7, "job_id": 5, "state": {"life_cycle_state": "RUNNING"}}
        scene.workspace.faults.append(Fault("runs/list", status=200, body={"runs": [run]}))
        scene.workspace.faults.append(Fault("runs/get", status=200, body=run))
        assert sensor(None, job_id=5).poke(scene.context) is False
        assert scene.ti.link is None
        assert scene.ti.xcom == {"run_id": 7, "job_id": 5, "run_page_url": ""}
        logged = capfd.readouterr().out
        assert "The API returned no page URL for run 7." in logged
        assert "See " not in logged


class TestModes:
    def test_reschedule_checks_once_and_frees_the_worker(self, scene, client):
        run_id = launch(scene, client)
        waiting = sensor(run_id, mode="reschedule")
        if AIRFLOW_V_3_0_PLUS:
            from airflow.sdk.bases.sensor import AirflowRescheduleException

            with pytest.raises(AirflowRescheduleException):
                waiting.execute(scene.context)
        else:
            # `execute` reads the start of the wait from the database.
            assert waiting.poke(scene.context) is False
        assert scene.workspace.requests["runs/get"] == 1
        wait_for_run(client, run_id, period=FAST)
        assert sensor(run_id, mode="reschedule").poke(scene.context).is_done

    def test_never_fail_is_rescheduled_too(self, scene, client):
        if not AIRFLOW_V_3_0_PLUS:
            pytest.skip("`execute` reads the start of the wait from the database")
        from airflow.sdk.bases.sensor import AirflowRescheduleException

        with pytest.raises(AirflowRescheduleException):
            sensor(launch(scene, client), mode="reschedule", never_fail=True).execute(scene.context)

    def test_poking_works_where_nesting_is_forbidden(self, scene, client, monkeypatch):
        done = finished(scene, client, "dbutils.notebook.exit('x')")
        waiting = sensor(done, allow_nested_operators=False)
        assert waiting.execute(scene.context, **called_by_airflow(DatabricksRunSensor, monkeypatch)) == "x"


class TestRunResult:
    def test_failed_run_fails_the_task_for_good(self, scene, client, deferrable):
        run_id = launch(scene, client, "raise ValueError('no rows')")
        with pytest.raises(AirflowFailException, match=f"(?s)Run {run_id} .*ValueError: no rows"):
            scene.run_task(lambda: sensor(run_id, deferrable=deferrable))

    def test_failed_run_skips_with_soft_fail(self, scene, client, deferrable):
        run_id = launch(scene, client, "raise ValueError('no rows')")
        with pytest.raises(AirflowSkipException) as skip:
            scene.run_task(lambda: sensor(run_id, deferrable=deferrable, soft_fail=True))
        # Airflow 3 wraps the exception of a resumed sensor in another.
        message = f"{skip.value}\n{skip.value.__cause__}"
        assert f"Run {run_id} " in message
        assert "ValueError: no rows" in message

    def test_failed_run_skips_with_never_fail(self, scene, client, deferrable):
        failed = finished(scene, client, "raise ValueError('no rows')")
        with pytest.raises(AirflowSkipException):
            sensor(failed, deferrable=deferrable, never_fail=True).execute(scene.context)

    def test_partial_success_succeeds_with_a_warning(self, scene, client, capfd):
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

    def test_missing_run_fails_at_once(self, scene, deferrable):
        with pytest.raises(NotFound, match="Run 7 does not exist"):
            sensor(7, deferrable=deferrable).execute(scene.context)
        assert scene.workspace.requests == {"runs/get": 1}


class TestRunId:
    @pytest.mark.parametrize("native", [False, True])
    def test_may_be_a_template(self, scene, client, native):
        run_id = finished(scene, client, "dbutils.notebook.exit('x')")
        with DAG("nightly", schedule=None, render_template_as_native_obj=native):
            waiting = sensor("{{ which }}", databricks_conn_id="databricks_{{ 'default' }}")
        waiting.render_template_fields({**scene.context, "which": run_id})
        assert waiting.execute(scene.context) == "x"

    def test_may_be_an_xcomarg(self):
        with DAG("nightly", schedule=None):
            launched = DatabricksSubmitRunOperator(task_id="launch", wait_for_termination=False, json="{{ body }}")
            waiting = sensor(XComArg(launched, key="run_id"))
        assert waiting.upstream_task_ids == {"launch"}

    @pytest.mark.parametrize("run_id", ["", "None", "12.5", -1])
    def test_invalid_value_is_named_before_any_request(self, scene, run_id, deferrable):
        with pytest.raises(ConfigurationError, match=f"run_id is {run_id!r}; it must be the number of a run"):
            sensor(run_id, deferrable=deferrable).execute(scene.context)
        assert not scene.workspace.requests


class TestTimeouts:
    def test_trigger_gets_poke_interval_and_timeout(self, scene, client):
        run_id = launch(scene, client)
        with pytest.raises(TaskDeferred) as deferral:
            sensor(run_id, deferrable=True, poke_interval=7, timeout=90).execute(scene.context)
        assert deferral.value.trigger.polling_period_seconds == 7
        assert deferral.value.timeout.total_seconds() == 90
        assert scene.workspace.requests["runs/get"] == 1

    @pytest.mark.parametrize("started", [True, False], ids=["", "no start_date"])
    def test_trigger_gets_the_deadline(self, scene, client, monkeypatch, started):
        now, minute = datetime.now(UTC), timedelta(minutes=1)
        scene.ti.start_date = now - minute / 4 if started else None
        monkeypatch.setattr(launches, "time", SimpleNamespace(time=now.timestamp))
        run_id = launch(scene, client)
        deferral = scene.defer_task(lambda: sensor(run_id, deferrable=True, execution_timeout=minute))
        assert deferral.trigger.deadline == (now - minute / 4 + minute if started else now + minute).timestamp()
        # Airflow does not wait for longer than the sensor's timeout, whatever the deadline.
        assert deferral.timeout == timedelta(seconds=30)

    @pytest.mark.parametrize("soft_fail", [False, True])
    def test_execution_timeout_fails_and_cancels_nothing(self, scene, client, soft_fail):
        run_id = launch(scene, client)
        scene.ti.at_link = lambda: None
        scene.ti.start_date = datetime.now(UTC) - timedelta(hours=1)
        make = partial(sensor, run_id, deferrable=True, execution_timeout=timedelta(minutes=1), soft_fail=soft_fail)
        with pytest.raises(AirflowTaskTimeout) as error:
            scene.run_task(make)
        assert str(error.value) == (
            f"Waiting for the end of run {run_id} took longer than the task's execution_timeout of 0:01:00:"
            " the run was not cancelled. Raise execution_timeout if the wait may take longer."
        )
        assert scene.workspace.requests["runs/cancel"] == 0
        assert not client.get_run(run_id).is_terminal

    def test_deadline_survives_another_deferral(self, scene, client):
        run_id = launch(scene, client)
        with pytest.raises(TaskDeferred) as deferral:
            # The run is active again, as after a repair.
            sensor(run_id).execute_complete(scene.context, {"run_id": run_id}, deadline=5e9)
        assert deferral.value.trigger.deadline == deferral.value.kwargs["deadline"] == 5e9

    def test_resumed_retry_of_airflow_3_0_waits_again(self, scene, client):
        run_id = launch(scene, client)
        scene.ti.at_link = lambda: None
        make = partial(sensor, run_id, deferrable=True, execution_timeout=timedelta(minutes=1))
        first = scene.defer_task(make)
        resumed = {
            **first.kwargs,
            "event": {"run_id": run_id, "run_page_url": "", "timed_out": "the run was not cancelled"},
        }
        with pytest.raises(AirflowTaskTimeout):
            make().resume_execution(first.method_name, resumed, scene.context)
        scene.next_try()
        scene.ti.start_date = datetime.now(UTC) - timedelta(hours=1)
        with pytest.raises(TaskDeferred) as second:
            make().resume_execution(first.method_name, resumed, scene.context)
        assert 0 < second.value.trigger.deadline - time.time() <= 60
        assert second.value.kwargs["try_number"] == 2

    def test_timeout_begins_with_the_first_deferral(self, scene, client):
        run_id = launch(scene, client)
        scene.ti.at_link = lambda: None
        first = scene.defer_task(lambda: sensor(run_id, deferrable=True, timeout=500))
        event, earlier = {"run_id": run_id}, first.kwargs["until"] - 100
        with pytest.raises(TaskDeferred) as again:
            sensor(run_id, timeout=500).execute_complete(scene.context, event, until=earlier)
        assert 390 < again.value.timeout.total_seconds() <= 400
        assert again.value.kwargs["until"] == pytest.approx(earlier, abs=0.1), "and not from the second one"
        with pytest.raises(
            AirflowSensorTimeout, match=f"The sensor waited for the end of run {run_id} longer than its timeout of 500"
        ):
            sensor(run_id, timeout=500).execute_complete(scene.context, event, until=first.kwargs["until"] - 501)
