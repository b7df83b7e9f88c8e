"""The sensors while the API fails or rejects credentials: what is retried, for how long, and where."""

from __future__ import annotations

import inspect
import json
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from airflow_context import FAST, FastTime, Scene, TaskDeferred, connect, fire, launch_endless, rebuilt
from injected_clock import rule_all

from airflow_dbjobs import errors
from airflow_dbjobs.airflow_compat import AIRFLOW_V_3_0_PLUS, AirflowSensorTimeout, AirflowSkipException
from airflow_dbjobs.client.wait import wait_for_run
from airflow_dbjobs.errors import (
    ApiError,
    ConfigurationError,
    JobsError,
    NotFound,
    PermissionDenied,
    RunError,
    RunLost,
    Unauthenticated,
)
from airflow_dbjobs.local_workspace import Fault
from airflow_dbjobs.runs.conditions import RunCondition
from airflow_dbjobs.sensors import DatabricksJobIdleSensor, DatabricksRunSensor
from airflow_dbjobs.triggers import DatabricksRunTrigger, DatabricksSensorTrigger, events

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TASK = {"task_key": "load", "condition_task": {"op": "EQUAL_TO", "left": "1", "right": "1"}}


@pytest.fixture
def run_id(client) -> int:
    return wait_for_run(client, client.submit_run({"tasks": [TASK]}), period=FAST).run_id


@pytest.fixture
def time(run_id, monkeypatch) -> FastTime:
    """Make all later waits instantaneous."""
    return FastTime(monkeypatch)


def sensor(**kwargs) -> DatabricksRunSensor:
    return DatabricksRunSensor(**{"task_id": "load", "poke_interval": FAST, "timeout": 5000, **kwargs})


@pytest.fixture(autouse=True)
def reschedule(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function that marks the sensor as rescheduled: in the context, in Airflow 2 in its database."""
    if AIRFLOW_V_3_0_PLUS:
        return lambda: scene.context.update(task_reschedule_count=1)
    import sqlalchemy
    from airflow.models.taskreschedule import TaskReschedule
    from sqlalchemy.orm import sessionmaker

    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/airflow.db")
    TaskReschedule.metadata.create_all(engine, tables=[TaskReschedule.__table__])
    sessions, now = sessionmaker(bind=engine), datetime.now(UTC)
    monkeypatch.setattr("airflow.settings.Session", sessions)

    def rescheduled() -> None:
        ti = scene.ti
        with sessions.begin() as session:
            session.add(TaskReschedule(ti.task_id, ti.dag_id, ti.run_id, ti.try_number, now, now, now))

    return rescheduled


@pytest.fixture(params=["poke", "reschedule"])
def after_a_poke(request: pytest.FixtureRequest, scene: Scene, reschedule: Callable[[], None]) -> Callable[..., Any]:
    """Return a function that makes a sensor which has poked before, in this process or in an earlier one."""

    def make(**kwargs: Any) -> DatabricksRunSensor:
        made = sensor(mode=request.param, **kwargs)
        if request.param == "reschedule":
            reschedule()
        else:
            running = {"run_id": kwargs["run_id"], "state": {"life_cycle_state": "RUNNING"}}
            scene.workspace.faults.insert(0, Fault("runs/get", status=200, body=running))
            assert made.poke(scene.context) is False
        return made

    return make


def error_of(waiting: DatabricksRunSensor, scene: Scene, event: dict[str, Any] | None = None) -> JobsError:
    """Return the error that fails a sensor, in a poke or after its trigger has fired."""
    resume = partial(waiting.poke, scene.context)
    if event is not None:
        resume = partial(waiting.resume_execution, "execute_complete", {"event": event, "until": 9e9}, scene.context)
    with pytest.raises(JobsError) as raised:
        resume()
    return raised.value


def fired(waiting: DatabricksRunSensor, condition: RunCondition) -> dict[str, Any]:
    trigger = waiting._trigger({}, condition, None)
    trigger.poke_interval = trigger.polling_period_seconds = FAST
    return fire(rebuilt(trigger))


KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, JobsError)]


def timed_out_while_deferred(waiting: DatabricksRunSensor, scene: Scene) -> Any:
    """End a deferral as the installed Airflow does after a timeout."""
    text = "Trigger timeout" if AIRFLOW_V_3_0_PLUS else "Trigger/execution timeout"
    return waiting.resume_execution("__fail__", {"error": text}, scene.context)


def resumed(waiting: DatabricksRunSensor, scene: Scene, event: dict[str, Any], *, left: float) -> Any:
    """Resume a sensor `left` seconds before its timeout ends."""
    kwargs = {"event": event, "until": datetime.now(UTC).timestamp() + left}
    return waiting.resume_execution("execute_complete", kwargs, scene.context)


class TestRejectedCredentials:
    @pytest.mark.parametrize("status", [401, 403])
    def test_are_retried_within_a_poke(self, scene, run_id, time, after_a_poke, status):
        waiting = after_a_poke(run_id=run_id)
        refusal = Fault("runs/get", status=status, times=6)
        scene.workspace.faults.append(refusal)
        assert waiting.poke(scene.context).is_done
        assert refusal.times == 0

    @pytest.mark.parametrize("how", [{"mode": "poke"}, {"mode": "reschedule"}, {"deferrable": True}], ids=str)
    @pytest.mark.parametrize("refused", [(401, Unauthenticated), (403, PermissionDenied)], ids=str)
    def test_fail_at_once_at_the_first_check(self, scene, run_id, time, how, refused):
        status, kind = refused
        scene.workspace.faults.append(Fault("runs/get", status=status, times=None))
        began, polls = time.now, scene.workspace.requests["runs/get"]
        waiting = sensor(run_id=run_id, soft_fail=True, **how)
        with pytest.raises(kind, match="Check "):
            waiting.execute(scene.context) if waiting.deferrable else waiting.poke(scene.context)
        assert (time.now, scene.workspace.requests["runs/get"]) == (began, polls + 1)

    def test_token_rotated_during_a_poke_is_used(self, scene, run_id, time, monkeypatch, after_a_poke):
        waiting = after_a_poke(run_id=run_id)
        scene.workspace.token = "local-token-of-tomorrow"

        def rotated(seconds: float) -> None:
            connect(monkeypatch, scene.workspace.base_url, scene.workspace.token)
            time.sleep(seconds)

        rule_all(monkeypatch, sleep=rotated)
        assert waiting.poke(scene.context).is_done

    @pytest.mark.parametrize("timeout", [5000, 60])
    def test_fail_the_task_if_they_last(self, scene, run_id, time, timeout, after_a_poke):
        lasts = min(timeout, 600)
        waiting = after_a_poke(run_id=run_id, timeout=timeout)
        scene.workspace.faults.append(Fault("runs/get", status=401, times=None))
        began = time.now
        with pytest.raises(RunLost, match=r"Polling run \d+ failed for .*Check the connection's token") as error:
            waiting.poke(scene.context)
        assert isinstance(error.value.__cause__, Unauthenticated)
        # Plus one wait of the backoff at most.
        assert lasts <= time.now - began < lasts + 70

    def test_tolerance_is_the_connections(self, scene, run_id, time, monkeypatch, after_a_poke):
        waiting = after_a_poke(run_id=run_id)
        workspace = scene.workspace
        connect(monkeypatch, workspace.base_url, workspace.token, extra={"denied_tolerance": 0})
        workspace.faults.append(Fault("runs/get", status=403, times=1))
        with pytest.raises(RunLost) as error:
            # The new client has the changed setting.
            waiting.poke(scene.context)
        assert isinstance(error.value.__cause__, PermissionDenied)

    def test_are_retried_until_the_timeout_after_the_trigger(self, scene, run_id, time):
        scene.workspace.faults.append(Fault("runs/get", status=401, times=None))
        began = time.now
        with pytest.raises(RunLost):
            resumed(sensor(run_id=run_id), scene, {"run_id": run_id}, left=40)
        # Plus one wait of the backoff at most.
        assert 30 < time.now - began < 40 + 70


class TestSameErrorInEveryMode:
    @pytest.mark.parametrize("task_key", [None, "load"], ids=["end of a run", "a task"])
    def test_deleted_run(self, scene, run_id, after_a_poke, task_key):
        waiting = after_a_poke(run_id=run_id, task_key=None)
        gone = Fault("runs/get", status=400, body={"error_code": "RESOURCE_DOES_NOT_EXIST"}, times=None)
        scene.workspace.faults.append(gone)
        here = error_of(waiting, scene)
        deferred = sensor(run_id=run_id, deferrable=True)
        there = error_of(deferred, scene, fired(deferred, RunCondition(chosen=run_id, task_key=task_key)))
        assert type(here) is type(there) is RunLost
        assert here.run_id == there.run_id == run_id
        assert str(here) == str(there)

    def test_missing_task(self, scene, run_id):
        here = error_of(sensor(run_id=run_id, task_key="other"), scene)
        deferred = sensor(run_id=run_id, task_key="other", deferrable=True)
        there = error_of(deferred, scene, fired(deferred, deferred._rendered_condition()))
        assert type(here) is type(there) is ConfigurationError
        assert str(here) == str(there)

    @pytest.mark.parametrize("which", [{"job_id": 7}, {"job_name": "other"}], ids=str)
    def test_missing_job(self, scene, which):
        here = error_of(sensor(**which), scene)
        deferred = sensor(**which, deferrable=True)
        there = error_of(deferred, scene, fired(deferred, deferred._rendered_condition()))
        assert type(here) is type(there) is (NotFound if "job_id" in which else ConfigurationError)
        assert str(here) == str(there)
        assert vars(here) == vars(there)

    def test_missing_connection(self, scene):
        here = error_of(sensor(job_id=5, databricks_conn_id="elsewhere"), scene)
        deferred = sensor(job_id=5, databricks_conn_id="elsewhere", deferrable=True)
        there = error_of(deferred, scene, fired(deferred, deferred._rendered_condition()))
        assert type(here) is type(there) is ConfigurationError


class TestErrorEvent:
    @pytest.mark.parametrize("kind", [RunLost, JobsError], ids=["about a run", "about none"])
    def test_unknown_error_class_keeps_its_message(self, scene, kind):
        run_id = 7 if kind is RunLost else None
        plain = {"run_id": run_id, "error": "of tomorrow"}
        named = {**plain, "error_class": "ErrorOfTomorrow", "error_fields": {}}
        for event in (plain, named, {**named, "error_class": "NotFound", "error_fields": 1}):
            error = error_of(sensor(run_id=7), scene, event)
            assert (type(error), str(error)) == (kind, "of tomorrow")

    def test_json_restores_the_error(self):
        refused = ApiError("GET jobs/get", 418, "TEAPOT", "no tea", request_id="r1", retry_after="5")
        event = json.loads(json.dumps({"run_id": None, **events.error_event(refused)}))
        with pytest.raises(ApiError) as raised:
            events.read_sensor_event(event)
        assert vars(raised.value) == vars(refused)
        assert str(raised.value) == str(refused)

    @pytest.mark.parametrize("kind", KINDS)
    def test_missing_fields_get_their_defaults(self, kind):
        event = {"run_id": 7, "run_page_url": "http://page", "error": "gone", "error_class": kind.__name__}
        with pytest.raises(kind, match="gone") as raised:
            events.read_sensor_event({**event, "error_fields": {}})
        error = raised.value
        fields = {*inspect.signature(kind.__init__).parameters, *dir(kind)} - {"self", "message", "args", "kwargs"}
        assert [name for name in fields if not hasattr(error, name)] == []
        if issubclass(kind, RunError):
            assert (error.run_id, error.page_url) == (7, "http://page")

    def test_sensor_deferred_by_another_release_resumes(self, scene, run_id):
        event = {"run_id": run_id, "key_of_tomorrow": 1}
        kwargs = {"event": event, "argument_of_tomorrow": 1}
        assert sensor(run_id=run_id).resume_execution("execute_complete", kwargs, scene.context) == "true"
        with pytest.raises(JobsError, match="an event that does not name a run: None"):
            sensor(run_id=run_id).resume_execution("execute_complete", {}, scene.context)


class TestSkipping:
    @pytest.mark.parametrize("how", ["poke", "deferrable", "resumed"])
    @pytest.mark.parametrize("soft", ["never_fail", "soft_fail"])
    def test_never_fail_skips_after_an_error_soft_fail_does_not(self, scene, run_id, how, soft, capfd):
        waiting = sensor(run_id=run_id, deferrable=how != "poke", **{soft: True})
        resume = {"poke": waiting.poke, "deferrable": waiting.execute}.get(how)
        kwargs = {"event": {"run_id": run_id, **events.error_event(RunLost("the run is gone", run_id=run_id))}}
        scene.workspace.faults.append(Fault("runs/get", status=403, body={"message": "the run is gone"}))
        resume = resume or partial(waiting.resume_execution, "execute_complete", kwargs)
        with pytest.raises(AirflowSkipException if soft == "never_fail" else JobsError, match="the run is gone"):
            resume(context=scene.context)
        assert ("the run is gone" in capfd.readouterr().out) is (soft == "never_fail")

    def test_silent_fail_pokes_again(self, scene, run_id):
        scene.workspace.faults.append(Fault("runs/get", status=403, times=1))
        assert sensor(run_id=run_id, silent_fail=True, never_fail=True).execute(scene.context) == "true"

    @pytest.mark.parametrize("how", ["poke", "deferrable"])
    @pytest.mark.parametrize("soft", ["never_fail", "soft_fail", None])
    @pytest.mark.parametrize("silent", [False, True], ids=["", "silent"])
    def test_timeout_is_final_or_skips_in_every_mode(self, scene, client, how, soft, silent):
        softly = {soft: True} if soft else {}
        waiting = sensor(
            run_id=launch_endless(client), timeout=0, deferrable=how == "deferrable", silent_fail=silent, **softly
        )
        with pytest.raises(AirflowSkipException if soft else AirflowSensorTimeout):
            waiting.execute(scene.context) if how == "poke" else timed_out_while_deferred(waiting, scene)

    def test_execution_timeout_during_a_deferral_is_retried(self, scene):
        if AIRFLOW_V_3_0_PLUS:
            pytest.skip("Airflow 3 does not watch it during a deferral")
        from airflow.exceptions import TaskDeferralError

        for limit, error in ((4999, TaskDeferralError), (5001, AirflowSensorTimeout)):
            with pytest.raises(error):
                timed_out_while_deferred(sensor(run_id=7, execution_timeout=timedelta(seconds=limit)), scene)
        with pytest.raises(TaskDeferralError, match="of another kind"):
            sensor(run_id=7).resume_execution("__fail__", {"error": "of another kind"}, scene.context)

    def test_no_time_left_skips_with_soft_fail(self, scene, client):
        run_id = launch_endless(client)
        for soft, error in ((True, AirflowSkipException), (False, AirflowSensorTimeout)):
            with pytest.raises(error, match="longer than its timeout of 0"):
                sensor(run_id=run_id, deferrable=True, timeout=0, soft_fail=soft).execute(scene.context)


class TestOutage:
    @pytest.mark.parametrize("kind", [DatabricksRunSensor, DatabricksJobIdleSensor])
    def test_at_the_first_check_is_waited_out_in_triggerer(self, scene, client, time, kind):
        job_id = client.create_job({"tasks": [TASK]})
        # Longer than the ten minutes for which one call is retried.
        scene.workspace.faults.append(Fault("runs/list", status=503, times=25))
        waiting = kind(task_id="load", job_id=job_id, deferrable=True)
        with pytest.raises(TaskDeferred) as deferral:
            waiting.execute(scene.context)
        assert isinstance(deferral.value.trigger, DatabricksSensorTrigger)
        assert deferral.value.trigger.condition["job_id"] == job_id

    def test_at_the_first_check_of_a_run_is_left_to_poller(self, scene, run_id, time):
        scene.workspace.faults.append(Fault("runs/get", status=503, times=25))
        with pytest.raises(TaskDeferred) as deferral:
            sensor(run_id=run_id, deferrable=True).execute(scene.context)
        assert isinstance(deferral.value.trigger, DatabricksRunTrigger)
        scene.workspace.faults.clear()
        event = {"run_id": run_id, "run_page_url": "", "state": "TERMINATED/SUCCESS"}
        sensor(run_id=run_id).execute_complete(scene.context, event)
        assert scene.ti.link, "which could not be set before"

    def test_after_the_trigger_is_waited_out_in_triggerer(self, scene, run_id, time):
        scene.workspace.faults.append(Fault("runs/get", status=503, times=None))
        event = {"run_id": run_id, "run_page_url": "http://page", "state": "TERMINATED/SUCCESS"}
        began = time.now
        with pytest.raises(TaskDeferred) as deferral:
            resumed(sensor(run_id=run_id), scene, event, left=40)
        # At most the time for which one call is retried.
        assert time.now - began < 700
        assert isinstance(deferral.value.trigger, DatabricksRunTrigger)
        assert 0 < deferral.value.timeout.total_seconds() <= 40
        for soft, error in ((True, AirflowSkipException), (False, AirflowSensorTimeout)):
            with pytest.raises(error):
                resumed(sensor(run_id=run_id, soft_fail=soft), scene, event, left=-1)

    @pytest.mark.parametrize("key", [None, "load"], ids=["a run", "a task"])
    def test_state_left_during_an_outage_still_counts(self, scene, run_id, time, key):
        make = partial(sensor, run_id=run_id, task_key=key, states=["RUNNING"])
        scene.workspace.faults.append(outage := Fault("runs/get", status=503, times=None))
        with pytest.raises(TaskDeferred) as deferral:
            resumed(make(), scene, {"run_id": run_id, "met": True}, left=40)
        scene.workspace.faults.remove(outage)
        event = fire(rebuilt(deferral.value.trigger))
        assert resumed(make(), scene, event, left=40) == "true", "the result of the run, which is over by now"


class TestLink:
    def test_do_xcom_push_false_keeps_the_link_only(self, scene, client):
        run_id = launch_endless(client)
        job_id = client.get_run(run_id).job_id
        assert sensor(job_id=job_id, do_xcom_push=False).poke(scene.context) is False
        assert scene.ti.link == client.get_run(run_id).page_url
        assert scene.ti.xcom == {}
