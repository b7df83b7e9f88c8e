"""The run sensor by job, task and state, and the sensor of an idle job, in their three modes."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from airflow import DAG, XComArg
from airflow_context import FAST, Scene, TaskDeferred

from airflow_dbjobs.airflow_compat import (
    AIRFLOW_V_3_0_PLUS,
    AirflowFailException,
    AirflowSkipException,
    AirflowTaskTimeout,
)
from airflow_dbjobs.client.wait import wait_for_run
from airflow_dbjobs.errors import ConfigurationError, JobsError, NotFound
from airflow_dbjobs.local_workspace import Fault
from airflow_dbjobs.operators import DatabricksSubmitRunOperator
from airflow_dbjobs.runs.conditions import RunCondition
from airflow_dbjobs.sensors import DatabricksJobIdleSensor, DatabricksRunSensor
from airflow_dbjobs.triggers import DatabricksRunTrigger, DatabricksSensorTrigger

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_dbjobs.airflow_compat import BaseSensorOperator
    from airflow_dbjobs.client import JobsClient

MODES = ["poke", "reschedule", "deferrable"]


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return request.param


def sensor(kind: type = DatabricksRunSensor, mode: str = "poke", **kwargs: Any) -> BaseSensorOperator:
    given = {"deferrable": True} if mode == "deferrable" else {"mode": mode}
    return kind(**{"task_id": "load", "poke_interval": FAST, "timeout": 30, **given, **kwargs})


def run_sensor(scene: Scene, make: Callable[[], Any], mode: str) -> Any:
    """Run a sensor as Airflow does in each mode; a rescheduled one makes each poke in a new process."""
    if mode != "reschedule":
        return scene.run_task(make)
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if poked := make().poke(scene.context):
            return getattr(poked, "xcom_value", None)
        time.sleep(FAST)
    raise AssertionError("the sensor did not finish")


def create(scene: Scene, client: JobsClient, code: str = "", *, gated: bool = True, **task: Any) -> int:
    """Create a job of two tasks: `load` runs code once the gate is open, `check` ends at once."""
    load = {"task_key": "load", "notebook_task": scene.notebook(code, gated=gated), "timeout_seconds": 20, **task}
    check = {"task_key": "check", "condition_task": {"op": "EQUAL_TO", "left": "1", "right": "1"}}
    return client.create_job({"name": "nightly", "tasks": [load, check], "max_concurrent_runs": 9})


def finished(client: JobsClient, job_id: int) -> int:
    return wait_for_run(client, client.run_now({"job_id": job_id}), period=FAST).run_id


class TestRunOfJob:
    @pytest.mark.parametrize("by", ["job_id", "job_name"])
    def test_waits_for_the_latest_run(self, scene, client, mode, by):
        job_id = create(scene, client, "dbutils.notebook.exit('rows')")
        run_id = client.run_now({"job_id": job_id})
        scene.ti.at_link = scene.open_gate
        named = {"job_id": job_id} if by == "job_id" else {"job_name": "nightly"}
        assert run_sensor(scene, lambda: sensor(mode=mode, **named), mode) == {"load": "rows", "check": "true"}
        page = client.get_run(run_id).page_url
        assert scene.ti.link == page
        assert scene.ti.xcom == {"run_id": run_id, "job_id": job_id, "run_page_url": page}

    def test_chosen_run_is_polled_by_the_shared_poller(self, scene, client):
        job_id = create(scene, client)
        run_id = client.run_now({"job_id": job_id})
        deferral = scene.defer_task(lambda: sensor(mode="deferrable", job_id=job_id, poke_interval=7, timeout=90))
        assert isinstance(deferral.trigger, DatabricksRunTrigger)
        assert (deferral.trigger.run_id, deferral.trigger.polling_period_seconds) == (run_id, 7)
        assert deferral.trigger.cancel_on_kill is False
        assert deferral.timeout == timedelta(seconds=90)

    @pytest.mark.parametrize("mode", ["poke", "deferrable"])
    def test_choice_is_kept_when_a_later_run_starts(self, scene, client, mode):
        job_id = create(scene, client, "dbutils.notebook.exit('rows')")
        run_id = client.run_now({"job_id": job_id})

        def another() -> None:
            client.run_now({"job_id": job_id})
            scene.open_gate()

        scene.ti.at_link = another
        run_sensor(scene, lambda: sensor(mode=mode, job_id=job_id), mode)
        assert scene.ti.xcom["run_id"] == run_id

    def test_waits_while_the_job_has_no_run(self, scene, client, mode):
        scene.open_gate()
        job_id = create(scene, client, "dbutils.notebook.exit('rows')")
        listings: list[int] = []
        handle = scene.workspace.handle

        def launched_meanwhile(request: Any) -> Any:
            reply = handle(request)
            if "runs/list" in request.path:
                listings.append(1)
                if len(listings) == 3:
                    client.run_now({"job_id": job_id})
            return reply

        scene.workspace.handle = launched_meanwhile
        assert run_sensor(scene, lambda: sensor(mode=mode, job_id=job_id), mode) == {"load": "rows", "check": "true"}
        kinds = [type(deferral.trigger) for deferral in scene.deferrals]
        # The task resumes once to set the link, and may find that the run is over.
        assert kinds[:1] == ([DatabricksSensorTrigger] if mode == "deferrable" else [])
        assert kinds[1:] in ([], [DatabricksRunTrigger])
        assert scene.ti.link == client.get_run(scene.ti.xcom["run_id"]).page_url

    def test_link_is_set_as_soon_as_the_run_is_chosen(self, scene, client):
        job_id = create(scene, client)
        make = partial(sensor, mode="deferrable", job_id=job_id)
        first = scene.defer_task(make)
        assert scene.ti.link is None
        run_id = client.run_now({"job_id": job_id})
        event = {"run_id": run_id, "run_page_url": "", "met": False, "state": "Run is PENDING"}
        with pytest.raises(TaskDeferred) as again:
            make().resume_execution(first.method_name, {**first.kwargs, "event": event}, scene.context)
        assert isinstance(again.value.trigger, DatabricksRunTrigger)
        assert again.value.kwargs["until"] == pytest.approx(first.kwargs["until"], abs=1)
        assert scene.ti.link == client.get_run(run_id).page_url

    def test_since_chooses_the_first_run_from_then_on(self, scene, client, mode):
        scene.open_gate()
        job_id = create(scene, client, "dbutils.notebook.exit('rows')")
        finished(client, job_id)
        scene.later(100)
        since = datetime.now(UTC) + timedelta(seconds=50)
        first = finished(client, job_id)
        finished(client, job_id)
        assert run_sensor(scene, lambda: sensor(mode=mode, job_id=job_id, since=since), mode) == {
            "load": "rows",
            "check": "true",
        }
        assert scene.ti.xcom["run_id"] == first

    def test_missing_job_fails_at_once(self, scene, mode):
        with pytest.raises(NotFound, match="Job 7 does not exist"):
            run_sensor(scene, lambda: sensor(mode=mode, job_id=7), mode)

    @pytest.mark.parametrize("soft_fail", [False, True])
    def test_execution_timeout_fails_the_task(self, scene, client, soft_fail):
        job_id = create(scene, client)
        scene.ti.start_date = datetime.now(UTC) - timedelta(hours=1)
        limit = timedelta(minutes=1)
        make = partial(sensor, mode="deferrable", job_id=job_id, execution_timeout=limit, soft_fail=soft_fail)
        with pytest.raises(
            AirflowTaskTimeout,
            match=f"Waiting for a run of job {job_id} took longer than .* of 0:01:00: nothing was cancelled",
        ):
            scene.run_task(make)


class TestParameters:
    @pytest.mark.parametrize("native", [False, True])
    def test_may_be_templates(self, scene, client, native):
        scene.open_gate()
        job_id = create(scene, client, "dbutils.notebook.exit('rows')")
        finished(client, job_id)
        with DAG("nightly", schedule=None, render_template_as_native_obj=native):
            waiting = sensor(job_id="{{ job }}", since="{{ start }}", task_key="{{ key }}", states="{{ states }}")
        rendered = {"job": job_id, "start": datetime(2020, 1, 1, tzinfo=UTC), "key": "load", "states": "SUCCESS,FAILED"}
        waiting.render_template_fields({**scene.context, **rendered})
        assert waiting.execute(scene.context) == "rows"

    def test_may_be_xcomargs(self):
        with DAG("nightly", schedule=None):
            launched = DatabricksSubmitRunOperator(task_id="launch", wait_for_termination=False, json="{{ body }}")
            waiting = sensor(job_id=XComArg(launched, key="job_id"), states=[XComArg(launched, key="wanted")])
        assert waiting.upstream_task_ids == {"launch"}

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({}, "exactly one of run_id, job_id, job_name; given: none"),
            ({"run_id": 1, "job_id": 2}, "exactly one of run_id, job_id, job_name; given: run_id, job_id"),
            ({"run_id": 1, "since": 5}, "since selects a run of a job"),
            ({"job_id": 1, "since": "yesterday"}, "since is 'yesterday'"),
            ({"job_id": 1, "states": ["SUCCES"]}, r"states is \['SUCCES'\]; it must be one or more of"),
            ({"job_id": 1, "states": ["{{ wanted }}", "SUCCES"]}, r"states is \['SUCCES'\]"),
            ({"job_id": 1, "states": []}, r"states is \[\]"),
        ],
    )
    def test_mistake_is_an_import_error(self, given, message):
        with pytest.raises(ConfigurationError, match=message):
            sensor(**given)

    def test_states_default_to_success(self):
        assert sensor(run_id=7)._rendered_condition() == RunCondition(chosen=7)

    @pytest.mark.parametrize("kind", [DatabricksRunSensor, DatabricksJobIdleSensor])
    def test_default_args_reach_every_parameter(self, kind):
        given = {
            "deferrable": True,
            "databricks_conn_id": "other",
            "job_id": 5,
            "since": "2026-01-01",
            "task_key": "load",
        }
        with DAG("nightly", schedule=None, default_args=given):
            waiting = kind(task_id="load")
        ours = given if kind is DatabricksRunSensor else {name: given[name] for name in list(given)[:3]}
        assert {name: getattr(waiting, name) for name in ours} == ours

    def test_may_be_mapped(self):
        with DAG("nightly", schedule=None):
            mapped = DatabricksRunSensor.partial(task_id="load", states=["RUNNING"]).expand(job_id=[1, 2])
        assert mapped.operator_class is DatabricksRunSensor

    @pytest.mark.parametrize("kind", [DatabricksRunSensor, DatabricksJobIdleSensor])
    def test_parameter_rendered_to_nothing_is_named(self, scene, kind, mode):
        waiting = sensor(kind, mode, job_id="{{ job }}")
        waiting.job_id = "None"
        with pytest.raises(ConfigurationError, match="job_id is 'None'; it must be the number of a job"):
            waiting.execute(scene.context) if mode == "deferrable" else waiting.poke(scene.context)
        waiting.job_id = None
        with pytest.raises(ConfigurationError, match=r"exactly one of .*given: none"):
            waiting.execute(scene.context) if mode == "deferrable" else waiting.poke(scene.context)
        assert not scene.workspace.requests


class TestTask:
    def test_success_ends_the_sensor_before_the_run_is_over(self, scene, client, mode):
        job_id = create(scene, client)
        run_id = client.run_now({"job_id": job_id})
        assert run_sensor(scene, lambda: sensor(mode=mode, run_id=run_id, task_key="check"), mode) == "true"
        run = client.get_run(run_id)
        assert not run.is_terminal
        assert scene.ti.link == next(task.page_url for task in run.tasks if task.task_key == "check")

    def test_result_is_the_tasks_own(self, scene, client, mode):
        job_id = create(scene, client, "dbutils.notebook.exit('rows')")
        client.run_now({"job_id": job_id})
        scene.ti.at_link = scene.open_gate
        assert run_sensor(scene, lambda: sensor(mode=mode, job_id=job_id, task_key="load"), mode) == "rows"

    @pytest.mark.parametrize("soft_fail", [False, True])
    def test_failure_has_the_tasks_trace(self, scene, client, mode, soft_fail):
        scene.open_gate()
        job_id = create(scene, client, "raise ValueError('no rows')")
        finished(client, job_id)
        with pytest.raises(AirflowSkipException if soft_fail else AirflowFailException) as error:
            run_sensor(scene, lambda: sensor(mode=mode, job_id=job_id, task_key="load", soft_fail=soft_fail), mode)
        assert "Task load: Run " in str(error.value)
        assert "ValueError: no rows" in str(error.value)

    def test_retry_is_waited_for(self, scene, client, mode):
        code = """
            import pathlib
            first = not pathlib.Path("tried").exists()
            pathlib.Path("tried").touch()
            dbutils.notebook.exit("rows") if not first else int("none")
        """
        job_id = create(scene, client, code, max_retries=1, min_retry_interval_millis=300)
        client.run_now({"job_id": job_id})
        scene.ti.at_link = scene.open_gate
        assert run_sensor(scene, lambda: sensor(mode=mode, job_id=job_id, task_key="load"), mode) == "rows"

    def test_unknown_key_is_named_with_the_known_ones(self, scene, client, mode):
        job_id = create(scene, client)
        client.run_now({"job_id": job_id})
        with pytest.raises(
            JobsError, match=r"task_key is 'lod', but run \d+ has no such task .*its tasks: check, load\."
        ):
            run_sensor(scene, lambda: sensor(mode=mode, job_id=job_id, task_key="lod"), mode)

    def test_skipped_task_is_explained(self, scene, client):
        tasks = [{"task_key": "load", "run_id": 8, "state": {"life_cycle_state": "SKIPPED"}}]
        running = {"run_id": 7, "state": {"life_cycle_state": "RUNNING"}, "tasks": tasks}
        scene.workspace.faults.append(Fault("runs/get", status=200, body=running))
        with pytest.raises(AirflowFailException, match=r"(?s)Task load: Run 8 was skipped .*It did not run"):
            sensor(run_id=7, task_key="load").execute(scene.context)

    def test_repaired_run_is_waited_for_again(self, scene, client):
        run_id = client.run_now({"job_id": create(scene, client)})
        waiting = sensor(mode="deferrable", run_id=run_id, task_key="load")
        event = {"run_id": run_id, "run_page_url": "", "met": True, "state": "Task load is TERMINATED/SUCCESS"}
        with pytest.raises(TaskDeferred):
            waiting.execute_complete(scene.context, event)


class TestStates:
    def test_transient_state_ends_the_sensor(self, scene, client, mode):
        job_id = create(scene, client)
        run_id = client.run_now({"job_id": job_id})
        make = partial(sensor, mode=mode, run_id=run_id, states=["RUNNING", "SUCCESS"])
        assert run_sensor(scene, make, mode) is None
        assert not client.get_run(run_id).is_terminal
        assert all(isinstance(deferral.trigger, DatabricksSensorTrigger) for deferral in scene.deferrals)

    def test_state_seen_by_the_trigger_counts_after_a_failure(self, scene, client):
        scene.open_gate()
        run_id = finished(client, create(scene, client, "raise ValueError"))
        waiting = sensor(mode="deferrable", run_id=run_id, states="RUNNING")
        event = {"run_id": run_id, "run_page_url": "", "met": True, "state": f"Run {run_id} is RUNNING"}
        assert waiting.execute_complete(scene.context, event) is None

    def test_failure_may_be_waited_for(self, scene, client, mode):
        job_id = create(scene, client, "raise ValueError")
        client.run_now({"job_id": job_id})
        scene.ti.at_link = scene.open_gate
        assert run_sensor(scene, lambda: sensor(mode=mode, job_id=job_id, states="FAILED"), mode) is None

    def test_success_not_in_states_fails_for_good(self, scene, client, mode):
        scene.open_gate()
        run_id = finished(client, create(scene, client))
        with pytest.raises(AirflowFailException, match=f"Run {run_id} ended as TERMINATED/SUCCESS, which is none of"):
            run_sensor(scene, lambda: sensor(mode=mode, run_id=run_id, states=["FAILED"]), mode)


class TestIdleJob:
    def test_waits_until_no_run_is_active(self, scene, client, mode):
        job_id = create(scene, client)
        run_ids = [client.run_now({"job_id": job_id}) for _ in range(2)]
        scene.ti.at_link = scene.open_gate
        assert run_sensor(scene, lambda: sensor(DatabricksJobIdleSensor, mode, job_name="nightly"), mode) is None
        runs = [client.get_run(run_id) for run_id in run_ids]
        assert all(run.is_terminal for run in runs)
        # The list begins with the latest run.
        assert scene.ti.link == runs[-1].page_url
        assert scene.workspace.requests["runs/cancel"] == scene.workspace.requests["runs/cancel-all"] == 0
        assert all(isinstance(deferral.trigger, DatabricksSensorTrigger) for deferral in scene.deferrals)

    def test_idle_job_is_not_deferred_for(self, scene, client):
        job_id = create(scene, client, gated=False)
        idle = sensor(DatabricksJobIdleSensor, "deferrable", job_id=job_id)
        assert idle.execute(scene.context) is None
        assert scene.ti.link is None, "the job has had no run yet"
        finished(client, job_id)
        latest = finished(client, job_id)
        assert idle.execute(scene.context) is None
        assert scene.ti.link == client.get_run(latest).page_url

    def test_link_leads_to_the_last_active_run(self, scene, client):
        job_id = create(scene, client)
        client.run_now({"job_id": job_id})

        def another() -> None:
            if scene.workspace.requests["run-now"] == 1:
                client.run_now({"job_id": job_id})
                scene.open_gate()

        scene.ti.at_link = another
        scene.run_task(lambda: sensor(DatabricksJobIdleSensor, "deferrable", job_id=job_id))
        latest = next(client.list_runs(job_id=job_id))
        assert latest.is_terminal
        assert scene.workspace.requests["run-now"] == 2
        assert scene.ti.link == latest.page_url


class TestReschedule:
    def test_frees_the_worker(self, scene, client):
        run_id = client.run_now({"job_id": create(scene, client)})
        waiting = sensor(mode="reschedule", run_id=run_id, task_key="load")
        if AIRFLOW_V_3_0_PLUS:
            from airflow.sdk.bases.sensor import AirflowRescheduleException

            with pytest.raises(AirflowRescheduleException):
                waiting.execute(scene.context)
        else:
            # `execute` reads the start of the wait from the database.
            assert waiting.poke(scene.context) is False
