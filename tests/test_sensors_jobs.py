"""The sensors by job, by task and by state, in their three modes, and the sensor of an idle job."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowFailException,
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferred,
    XComArg,
)
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS
from airflow_context import FAST, Scene

from airflow_dbjobs.client.wait import wait_for_run
from airflow_dbjobs.errors import ConfigurationError, JobsError, NotFound
from airflow_dbjobs.local_workspace import Fault
from airflow_dbjobs.operators import DatabricksSubmitRunOperator
from airflow_dbjobs.runs.conditions import RunCondition
from airflow_dbjobs.sensors import DatabricksJobIdleSensor, DatabricksRunSensor
from airflow_dbjobs.triggers import DatabricksRunTrigger, DatabricksSensorTrigger

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.providers.common.compat.sdk import BaseSensorOperator

    from airflow_dbjobs.client import JobsClient

MODES = ["poke", "reschedule", "deferrable"]


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return request.param


def sensor(kind: type = DatabricksRunSensor, mode: str = "poke", **kwargs: Any) -> BaseSensorOperator:
    given = {"deferrable": True} if mode == "deferrable" else {"mode": mode}
    return kind(**{"task_id": "load", "poke_interval": FAST, "timeout": 30, **given, **kwargs})


def run_sensor(scene: Scene, make: Callable[[], Any], mode: str) -> Any:
    """Run a sensor as Airflow does in each mode; each poke of a rescheduled one is made by a new process."""
    if mode != "reschedule":
        return scene.run_task(make)
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if poked := make().poke(scene.context):
            return getattr(poked, "xcom_value", None)
        time.sleep(FAST)
    raise AssertionError("it is poked for too long")


def create(scene: Scene, client: JobsClient, code: str = "", *, gated: bool = True, **task: Any) -> int:
    """Create a job of two tasks: `load` runs code, when the gate is open, and `check` ends at once."""
    load = {"task_key": "load", "notebook_task": scene.notebook(code, gated=gated), "timeout_seconds": 20, **task}
    check = {"task_key": "check", "condition_task": {"op": "EQUAL_TO", "left": "1", "right": "1"}}
    return client.create_job({"name": "nightly", "tasks": [load, check], "max_concurrent_runs": 9})


def finished(client: JobsClient, job_id: int) -> int:
    return wait_for_run(client, client.run_now({"job_id": job_id}), period=FAST).run_id


# --- a run of a job ---


@pytest.mark.parametrize("by", ["job_id", "job_name"])
def test_it_waits_for_the_latest_run_of_a_job(scene, client, mode, by):
    job_id = create(scene, client, "dbutils.notebook.exit('rows')")
    run_id = client.run_now({"job_id": job_id})
    scene.ti.at_link = scene.open_gate
    named = {"job_id": job_id} if by == "job_id" else {"job_name": "nightly"}
    assert run_sensor(scene, lambda: sensor(mode=mode, **named), mode) == {"load": "rows", "check": "true"}
    page = client.get_run(run_id).page_url
    assert scene.ti.link == page
    assert scene.ti.xcom == {"run_id": run_id, "job_id": job_id, "run_page_url": page}


def test_a_run_that_is_chosen_is_waited_for_by_the_shared_poller(scene, client):
    job_id = create(scene, client)
    run_id = client.run_now({"job_id": job_id})
    deferral = scene.defer_task(lambda: sensor(mode="deferrable", job_id=job_id, poke_interval=7, timeout=90))
    assert isinstance(deferral.trigger, DatabricksRunTrigger)
    assert (deferral.trigger.run_id, deferral.trigger.polling_period_seconds) == (run_id, 7)
    assert deferral.trigger.cancel_on_kill is False
    assert deferral.timeout == timedelta(seconds=90)


@pytest.mark.parametrize("mode", ["poke", "deferrable"])
def test_a_run_that_was_chosen_is_kept_when_a_later_one_starts(scene, client, mode):
    job_id = create(scene, client, "dbutils.notebook.exit('rows')")
    run_id = client.run_now({"job_id": job_id})

    def another() -> None:
        client.run_now({"job_id": job_id})
        scene.open_gate()

    scene.ti.at_link = another
    run_sensor(scene, lambda: sensor(mode=mode, job_id=job_id), mode)
    assert scene.ti.xcom["run_id"] == run_id


def test_while_the_job_has_no_run_it_goes_on_waiting(scene, client, mode):
    scene.open_gate()
    job_id = create(scene, client, "dbutils.notebook.exit('rows')")
    asked: list[int] = []
    handle = scene.workspace.handle

    def launched_meanwhile(request: Any) -> Any:
        reply = handle(request)
        if "runs/list" in request.path:
            asked.append(1)
            if len(asked) == 3:
                client.run_now({"job_id": job_id})
        return reply

    scene.workspace.handle = launched_meanwhile
    assert run_sensor(scene, lambda: sensor(mode=mode, job_id=job_id), mode) == {"load": "rows", "check": "true"}
    kinds = [type(deferral.trigger) for deferral in scene.deferrals]
    # The worker is woken once for the link, and may find that the run is over.
    assert kinds[:1] == ([DatabricksSensorTrigger] if mode == "deferrable" else [])
    assert kinds[1:] in ([], [DatabricksRunTrigger])
    assert scene.ti.link == client.get_run(scene.ti.xcom["run_id"]).page_url


def test_the_link_is_there_as_soon_as_the_trigger_has_found_the_run(scene, client):
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


def test_since_takes_the_first_run_from_then_on(scene, client, mode):
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


@pytest.mark.parametrize("native", [False, True])
def test_its_parameters_may_be_templates(scene, client, native):
    scene.open_gate()
    job_id = create(scene, client, "dbutils.notebook.exit('rows')")
    finished(client, job_id)
    with DAG("nightly", schedule=None, render_template_as_native_obj=native):
        waiting = sensor(job_id="{{ job }}", since="{{ start }}", task_key="{{ key }}", states="{{ states }}")
    rendered = {"job": job_id, "start": datetime(2020, 1, 1, tzinfo=UTC), "key": "load", "states": "SUCCESS,FAILED"}
    waiting.render_template_fields({**scene.context, **rendered})
    assert waiting.execute(scene.context) == "rows"


def test_what_was_launched_upstream_may_be_an_xcomarg():
    with DAG("nightly", schedule=None):
        launched = DatabricksSubmitRunOperator(task_id="launch", wait_for_termination=False, json="{{ body }}")
        waiting = sensor(job_id=XComArg(launched, key="job_id"), states=[XComArg(launched, key="wanted")])
    assert waiting.upstream_task_ids == {"launch"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "exactly one of run_id, job_id, job_name; given: none"),
        ({"run_id": 1, "job_id": 2}, "exactly one of run_id, job_id, job_name; given: run_id, job_id"),
        ({"run_id": 1, "since": 5}, "since is for a job"),
        ({"job_id": 1, "since": "yesterday"}, "since is 'yesterday'"),
        ({"job_id": 1, "states": ["SUCCES"]}, r"states is \['SUCCES'\]; it must be one or more of"),
        ({"job_id": 1, "states": ["{{ wanted }}", "SUCCES"]}, r"states is \['SUCCES'\]"),
        ({"job_id": 1, "states": []}, r"states is \[\]"),
    ],
)
def test_a_mistake_shows_when_the_dag_is_parsed(given, said):
    with pytest.raises(ConfigurationError, match=said):
        sensor(**given)


def test_success_is_what_is_wanted_where_nothing_else_is_said():
    assert sensor(run_id=7)._wanted() == RunCondition(chosen=7)


def test_a_run_that_was_repaired_since_it_succeeded_is_waited_for_again(scene, client):
    run_id = client.run_now({"job_id": create(scene, client)})
    waiting = sensor(mode="deferrable", run_id=run_id, task_key="load")
    event = {"run_id": run_id, "run_page_url": "", "met": True, "state": "Task load is TERMINATED/SUCCESS"}
    with pytest.raises(TaskDeferred):
        waiting.execute_complete(scene.context, event)


@pytest.mark.parametrize("kind", [DatabricksRunSensor, DatabricksJobIdleSensor])
def test_default_args_reach_every_parameter(kind):
    given = {"deferrable": True, "databricks_conn_id": "other", "job_id": 5, "since": "2026-01-01", "task_key": "load"}
    with DAG("nightly", schedule=None, default_args=given):
        waiting = kind(task_id="load")
    ours = given if kind is DatabricksRunSensor else {name: given[name] for name in list(given)[:3]}
    assert {name: getattr(waiting, name) for name in ours} == ours


def test_it_may_be_mapped():
    with DAG("nightly", schedule=None):
        mapped = DatabricksRunSensor.partial(task_id="load", states=["RUNNING"]).expand(job_id=[1, 2])
    assert mapped.operator_class is DatabricksRunSensor


@pytest.mark.parametrize("kind", [DatabricksRunSensor, DatabricksJobIdleSensor])
def test_parameters_that_render_to_nothing_are_named(scene, kind, mode):
    waiting = sensor(kind, mode, job_id="{{ job }}")
    waiting.job_id = "None"
    with pytest.raises(ConfigurationError, match="job_id is 'None'; it must be the number of a job"):
        waiting.execute(scene.context) if mode == "deferrable" else waiting.poke(scene.context)
    waiting.job_id = None
    with pytest.raises(ConfigurationError, match=r"exactly one of .*given: none"):
        waiting.execute(scene.context) if mode == "deferrable" else waiting.poke(scene.context)
    assert not scene.workspace.requests


def test_a_job_that_does_not_exist_fails_at_once(scene, mode):
    with pytest.raises(NotFound, match="Job 7 does not exist"):
        run_sensor(scene, lambda: sensor(mode=mode, job_id=7), mode)


# --- one task ---


def test_the_success_of_a_task_ends_the_sensor_before_its_run_is_over(scene, client, mode):
    job_id = create(scene, client)
    run_id = client.run_now({"job_id": job_id})
    assert run_sensor(scene, lambda: sensor(mode=mode, run_id=run_id, task_key="check"), mode) == "true"
    run = client.get_run(run_id)
    assert not run.is_terminal
    assert scene.ti.link == next(task.page_url for task in run.tasks if task.task_key == "check")


def test_the_result_of_a_task_is_its_own(scene, client, mode):
    job_id = create(scene, client, "dbutils.notebook.exit('rows')")
    client.run_now({"job_id": job_id})
    scene.ti.at_link = scene.open_gate
    assert run_sensor(scene, lambda: sensor(mode=mode, job_id=job_id, task_key="load"), mode) == "rows"


@pytest.mark.parametrize("soft_fail", [False, True])
def test_a_task_that_failed_fails_the_sensor_with_its_own_trace(scene, client, mode, soft_fail):
    scene.open_gate()
    job_id = create(scene, client, "raise ValueError('no rows')")
    finished(client, job_id)
    with pytest.raises(AirflowSkipException if soft_fail else AirflowFailException) as error:
        run_sensor(scene, lambda: sensor(mode=mode, job_id=job_id, task_key="load", soft_fail=soft_fail), mode)
    assert "Task load: Run " in str(error.value)
    assert "ValueError: no rows" in str(error.value)


def test_a_retry_of_a_task_is_waited_for(scene, client, mode):
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


def test_a_task_that_the_run_does_not_have_is_named_with_those_it_has(scene, client, mode):
    job_id = create(scene, client)
    client.run_now({"job_id": job_id})
    with pytest.raises(JobsError, match=r"task_key='lod': run \d+ has no such task .*Its tasks: check, load\."):
        run_sensor(scene, lambda: sensor(mode=mode, job_id=job_id, task_key="lod"), mode)


def test_a_task_that_did_not_run_is_told_so(scene, client):
    tasks = [{"task_key": "load", "run_id": 8, "state": {"life_cycle_state": "SKIPPED"}}]
    running = {"run_id": 7, "state": {"life_cycle_state": "RUNNING"}, "tasks": tasks}
    scene.workspace.faults.append(Fault("runs/get", status=200, body=running))
    with pytest.raises(AirflowFailException, match=r"(?s)Task load: Run 8 was skipped .*It did not run"):
        sensor(run_id=7, task_key="load").execute(scene.context)


# --- wanted states ---


def test_a_state_that_passes_may_be_waited_for(scene, client, mode):
    job_id = create(scene, client)
    run_id = client.run_now({"job_id": job_id})
    make = partial(sensor, mode=mode, run_id=run_id, states=["RUNNING", "SUCCESS"])
    assert run_sensor(scene, make, mode) is None
    assert not client.get_run(run_id).is_terminal
    assert all(isinstance(deferral.trigger, DatabricksSensorTrigger) for deferral in scene.deferrals)


def test_what_the_trigger_saw_counts_when_the_run_has_failed_since(scene, client):
    scene.open_gate()
    run_id = finished(client, create(scene, client, "raise ValueError"))
    waiting = sensor(mode="deferrable", run_id=run_id, states="RUNNING")
    event = {"run_id": run_id, "run_page_url": "", "met": True, "state": f"Run {run_id} is RUNNING"}
    assert waiting.execute_complete(scene.context, event) is None


def test_a_failure_may_be_what_is_wanted(scene, client, mode):
    job_id = create(scene, client, "raise ValueError")
    client.run_now({"job_id": job_id})
    scene.ti.at_link = scene.open_gate
    assert run_sensor(scene, lambda: sensor(mode=mode, job_id=job_id, states="FAILED"), mode) is None


def test_a_success_that_is_not_wanted_fails_the_sensor_for_good(scene, client, mode):
    scene.open_gate()
    run_id = finished(client, create(scene, client))
    with pytest.raises(AirflowFailException, match=f"Run {run_id} is over, and TERMINATED/SUCCESS, which is none of"):
        run_sensor(scene, lambda: sensor(mode=mode, run_id=run_id, states=["FAILED"]), mode)


# --- a job that is idle ---


def test_it_waits_until_the_job_has_no_active_run(scene, client, mode):
    job_id = create(scene, client)
    run_ids = [client.run_now({"job_id": job_id}) for _ in range(2)]
    scene.ti.at_link = scene.open_gate
    assert run_sensor(scene, lambda: sensor(DatabricksJobIdleSensor, mode, job_name="nightly"), mode) is None
    runs = [client.get_run(run_id) for run_id in run_ids]
    assert all(run.is_terminal for run in runs)
    # The list has the latest run first.
    assert scene.ti.link == runs[-1].page_url
    assert scene.workspace.requests["runs/cancel"] == scene.workspace.requests["runs/cancel-all"] == 0
    assert all(isinstance(deferral.trigger, DatabricksSensorTrigger) for deferral in scene.deferrals)


def test_a_job_that_is_idle_is_not_deferred_for(scene, client):
    job_id = create(scene, client, gated=False)
    idle = sensor(DatabricksJobIdleSensor, "deferrable", job_id=job_id)
    assert idle.execute(scene.context) is None
    assert scene.ti.link is None, "it has had no run yet"
    finished(client, job_id)
    latest = finished(client, job_id)
    assert idle.execute(scene.context) is None
    assert scene.ti.link == client.get_run(latest).page_url


def test_a_deferred_sensor_s_link_leads_to_the_run_that_kept_the_job_busy_last(scene, client):
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


@pytest.mark.parametrize("soft_fail", [False, True])
def test_a_sensor_of_a_job_that_is_out_of_time_fails(scene, client, soft_fail):
    job_id = create(scene, client)
    scene.ti.start_date = datetime.now(UTC) - timedelta(hours=1)
    limit = timedelta(minutes=1)
    make = partial(sensor, mode="deferrable", job_id=job_id, execution_timeout=limit, soft_fail=soft_fail)
    with pytest.raises(
        AirflowTaskTimeout, match=f"Waiting for a run of job {job_id} took longer than .* of 0:01:00: it"
    ):
        scene.run_task(make)


def test_in_reschedule_mode_the_worker_is_freed(scene, client):
    run_id = client.run_now({"job_id": create(scene, client)})
    waiting = sensor(mode="reschedule", run_id=run_id, task_key="load")
    if AIRFLOW_V_3_0_PLUS:
        from airflow.sdk.bases.sensor import AirflowRescheduleException

        with pytest.raises(AirflowRescheduleException):
            waiting.execute(scene.context)
    else:
        # Its execute asks the database since when it waits.
        assert waiting.poke(scene.context) is False
