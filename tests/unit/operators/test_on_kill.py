"""The operators: what becomes of the run when a task is killed, runs out of time, or breaks."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow_context import (
    FAST,
    FastTime,
    Scene,
    TaskDeferred,
    connect,
    fire,
    kill_at_the_first_poll,
    launching,
    rebuilt,
    submit,
)
from injected_clock import rule_all

from airflow_dbjobs import airflow_compat
from airflow_dbjobs.airflow_compat import AirflowTaskTimeout
from airflow_dbjobs.client import JobsClient
from airflow_dbjobs.client.wait import wait_for_run
from airflow_dbjobs.errors import JobsError, RunCanceled, RunLost, Unreachable
from airflow_dbjobs.hooks import DatabricksJobsHook
from airflow_dbjobs.local_workspace import Fault
from airflow_dbjobs.operators import DatabricksRunNowOperator, DatabricksSubmitRunOperator
from airflow_dbjobs.operators import launch as launch_operator
from airflow_dbjobs.runs import cancel_on_kill

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_dbjobs.airflow_compat import BaseOperator


NOTEBOOK = {"notebook_path": "/x"}
MINUTE = timedelta(minutes=1)


class Killed(BaseException):
    """What ends a task after its signal handler has called on_kill."""


class TestOnKill:
    def test_right_after_the_launch_cancels_and_does_not_defer(self, scene, client, deferrable):
        operator = submit(notebook_task=scene.notebook(), deferrable=deferrable)
        scene.ti.at_link = operator.on_kill
        # Not AirflowFailException: the run was cancelled for us, and a retry may follow.
        with pytest.raises(JobsError, match="stopped the task"):
            operator.execute(scene.context)
        assert wait_for_run(client, scene.ti.xcom["run_id"], period=FAST).state.result_state == "CANCELED"

    def test_while_waiting_cancels_the_run(self, scene, client, monkeypatch):
        operator = submit(notebook_task=scene.notebook())
        kill_at_the_first_poll(operator, monkeypatch)
        with pytest.raises(RunCanceled) as caught:
            operator.execute(scene.context)
        # Not the subclass that is also an AirflowFailException: nobody cancelled the run, so a retry may follow.
        assert type(caught.value) is RunCanceled
        assert client.get_run(scene.ti.xcom["run_id"]).state.result_state == "CANCELED"

    def test_before_the_launch_sends_nothing(self, scene):
        submit(notebook_task=NOTEBOOK).on_kill()
        assert not scene.workspace.requests

    def test_before_the_reply_to_the_launch_cancels_the_run(self, scene, client):
        operator = submit(notebook_task=scene.notebook())

        def kill() -> None:
            scene.at_launch = lambda: None
            operator.on_kill()
            raise Killed

        scene.at_launch = kill
        with pytest.raises(Killed):
            operator.execute(scene.context)
        (run,) = client.list_runs()
        assert wait_for_run(client, run.run_id, period=FAST).state.result_state == "CANCELED"
        assert len(scene.sent) == 2

    def test_logs_a_cancellation_that_fails(self, scene, capfd):
        operator = submit(notebook_task=scene.notebook(), wait_for_termination=False)
        operator.execute(scene.context)
        scene.workspace.faults.append(Fault("runs/cancel", status=403, body={"message": "not yours"}))
        operator.on_kill()
        assert "may still be running: POST jobs/runs/cancel answered 403: not yours" in capfd.readouterr().out
        operator.on_kill()
        assert "The API accepted the cancellation of run" in capfd.readouterr().out

    def test_shares_its_time_between_finding_and_cancelling(self, scene, monkeypatch, mocker):
        operator = submit(notebook_task=scene.notebook())
        now = iter([100.0, 100.0, 103.0])
        with_policy = mocker.spy(JobsClient, "with_policy")

        def kill() -> None:
            scene.at_launch = lambda: None
            with monkeypatch.context() as during_the_kill:
                clock = SimpleNamespace(monotonic=lambda: next(now))
                during_the_kill.setattr(launch_operator, "time", clock)
                during_the_kill.setattr(cancel_on_kill, "time", clock)
                operator.on_kill()
            raise Killed

        scene.at_launch = kill
        with pytest.raises(Killed):
            operator.execute(scene.context)
        assert [call.args[1].retry_budget for call in with_policy.call_args_list] == [2.0, 1.0]

    def test_repeats_a_lost_cancellation_at_once(self, scene, client, monkeypatch):
        waits: list[float] = []
        operator = submit(notebook_task=scene.notebook(), wait_for_termination=False)
        operator.execute(scene.context)
        scene.workspace.faults += [Fault("runs/cancel", cut="before", times=2), Fault("runs/cancel", status=500)]
        with monkeypatch.context() as during_the_kill:
            rule_all(during_the_kill, sleep=waits.append)
            operator.on_kill()
        assert wait_for_run(client, scene.ti.xcom["run_id"], period=FAST).state.result_state == "CANCELED"
        for slept, least in zip(waits, [0.5, 1, 0.5], strict=True):
            assert least <= slept <= least * 1.25

    def test_before_execute_prevents_the_launch(self, scene, monkeypatch):
        operator = submit(notebook_task=scene.notebook())
        get_conn = DatabricksJobsHook.get_conn

        def killed_meanwhile(hook: DatabricksJobsHook) -> JobsClient:
            operator.on_kill()
            return get_conn(hook)

        monkeypatch.setattr(DatabricksJobsHook, "get_conn", killed_meanwhile)
        with pytest.raises(JobsError, match="killed before it launched"):
            operator.execute(scene.context)
        assert scene.launches() == 0


class TestUnclearLaunch:
    def test_without_any_answer_logs_that_a_run_may_be_left(self, scene, client, monkeypatch, capfd):
        FastTime(monkeypatch)
        scene.workspace.faults.append(Fault("runs/submit", cut="after", times=None))
        with pytest.raises(Unreachable, match="the connection broke"):
            submit(notebook_task=scene.notebook()).execute(scene.context)
        said = capfd.readouterr().out
        assert "may have launched a run: cancelling it" in said
        assert "could not be cancelled and may still be running" in said
        # However often it was sent.
        assert len(list(client.list_runs())) == 1

    def test_followed_by_an_outage_cancels_nothing(self, scene, monkeypatch):
        FastTime(monkeypatch)
        # More than the ten minutes that one call is retried for.
        scene.workspace.faults.append(Fault("runs/get", status=503, times=25))
        notebook = scene.notebook("dbutils.notebook.exit('x')", gated=False)
        assert submit(notebook_task=notebook).execute(scene.context) == "x"
        assert (scene.workspace.requests["runs/cancel"], scene.launches()) == (0, 1)

    def test_whose_run_may_not_be_read_is_not_cancelled(self, scene, client, monkeypatch):
        connect(monkeypatch, scene.workspace.base_url, scene.workspace.token, extra={"denied_tolerance": 0})
        scene.workspace.faults.append(Fault("runs/get", status=403))
        with pytest.raises(RunLost, match="was not cancelled"):
            submit(notebook_task=scene.notebook()).execute(scene.context)
        (run,) = client.list_runs()
        assert not run.is_terminal
        assert scene.workspace.requests["runs/cancel"] == 0

    @pytest.mark.parametrize("retries", [0, 1])
    def test_that_cannot_be_stored_is_handed_over_or_cancelled(self, scene, client, deferrable, retries):
        def broken() -> None:
            raise RuntimeError("XCom is down")

        scene.ti.at_link, scene.ti.max_tries = broken, retries
        with pytest.raises(RuntimeError, match="XCom is down"):
            scene.run_task(lambda: submit(notebook_task=scene.notebook(), deferrable=deferrable))
        run_id = scene.ti.xcom["run_id"]
        assert scene.workspace.requests["runs/cancel"] == (not retries)
        if retries:
            assert not client.get_run(run_id).is_terminal
        else:
            assert wait_for_run(client, run_id, period=FAST).state.result_state == "CANCELED"


@pytest.fixture(params=[DatabricksSubmitRunOperator, DatabricksRunNowOperator], ids=["submit", "run-now"])
def timed(request: pytest.FixtureRequest, scene: Scene, client: JobsClient) -> Callable[[], BaseOperator]:
    """Return what makes a deferrable task of either kind, whose run never ends and which has a minute."""
    tasks = [{"task_key": "main", "notebook_task": scene.notebook()}]
    return launching(request.param, client, tasks, deferrable=True, execution_timeout=MINUTE)


class TestResume:
    def test_waits_again_for_a_run_that_is_active_again(self, scene, client):
        operator = submit(notebook_task=scene.notebook(), wait_for_termination=False, deferrable=True)
        operator.execute(scene.context)
        with pytest.raises(TaskDeferred):
            operator.execute_complete(scene.context, {"run_id": operator.run_id})

    def test_of_a_retry_by_airflow_3_0_starts_again(self, scene, timed):
        scene.ti.start_date = datetime.now(UTC) - timedelta(hours=1)
        first = scene.defer_task(timed)
        resumed = {**first.kwargs, "event": fire(rebuilt(first.trigger))}
        with pytest.raises(AirflowTaskTimeout):
            timed().resume_execution(first.method_name, resumed, scene.context)
        start = scene.ti.start_date
        scene.next_try()
        # Airflow 3.0 keeps this, too.
        scene.ti.start_date = start
        with pytest.raises(TaskDeferred) as second:
            timed().resume_execution(first.method_name, resumed, scene.context)
        assert second.value.trigger.run_id != first.trigger.run_id
        assert 0 < second.value.trigger.deadline - time.time() <= 60
        assert second.value.kwargs["try_number"] == 2

    def test_accepts_a_deferral_of_another_release(self, scene, timed):
        scene.ti.at_link = scene.open_gate
        event = fire(rebuilt(scene.defer_task(timed).trigger))
        timed().resume_execution("execute_complete", {"event": event}, scene.context)
        assert scene.launches() == 1


class TestDeadline:
    @pytest.mark.parametrize("started", [True, False], ids=["", "no start_date"])
    def test_is_given_to_the_trigger(self, scene, timed, monkeypatch, started):
        now = datetime.now(UTC)
        scene.ti.start_date = now - MINUTE / 4 if started else None
        monkeypatch.setattr(airflow_compat, "time", SimpleNamespace(time=now.timestamp))
        deferral = scene.defer_task(timed)
        assert deferral.trigger.deadline == (now - MINUTE / 4 + MINUTE if started else now + MINUTE).timestamp()
        assert deferral.kwargs["deadline"] == deferral.trigger.deadline

    def test_is_none_without_execution_timeout(self, scene):
        scene.ti.start_date = datetime.now(UTC)
        deferral = scene.defer_task(lambda: submit(notebook_task=scene.notebook(), deferrable=True))
        assert (deferral.trigger.deadline, deferral.kwargs["deadline"]) == (None, None)

    @pytest.mark.parametrize(
        ("refusal", "became"),
        [
            (None, "the API accepted the run's cancellation"),
            ({"status": 403, "body": {"message": "not yours"}},
             "it could not be cancelled and may still be running: POST jobs/runs/cancel answered 403: not yours"),
        ],
        ids=["accepted", "refused"],
    )  # fmt: skip
    def test_of_a_deferred_task_cancels_its_run(self, scene, client, timed, refusal, became):
        # Over before the trigger starts: the triggerer was away, say.
        scene.ti.start_date = datetime.now(UTC) - 2 * MINUTE
        if refusal:
            scene.workspace.faults.append(Fault("runs/cancel", **refusal))
        made: list[Any] = []

        def make() -> BaseOperator:
            made.append(timed())
            return made[-1]

        with pytest.raises(AirflowTaskTimeout) as error:
            scene.run_task(make)
        run_id = scene.ti.xcom["run_id"]
        text = f"Run {run_id} did not end within the task's execution_timeout of 0:01:00: {became}"
        assert str(error.value).startswith(text)
        assert client.get_run(run_id).page_url in str(error.value)
        # As Airflow does next. What was refused may be accepted now.
        made[-1].on_kill()
        assert scene.workspace.requests["runs/cancel"] == 2
        assert wait_for_run(client, run_id, period=FAST).state.result_state == "CANCELED"
        assert scene.launches() == 1

    def test_survives_another_deferral(self, scene, client, timed):
        deadline = datetime.now(UTC).timestamp() + 1000
        first = scene.defer_task(timed)
        scene.next_try()
        event = {"run_id": first.trigger.run_id}
        # It is active again: somebody has repaired it.
        with pytest.raises(TaskDeferred) as second:
            timed().execute_complete(scene.context, event, joined=True, deadline=deadline)
        assert second.value.trigger.deadline == deadline
        kwargs = second.value.kwargs
        assert (kwargs["joined"], kwargs["deadline"], kwargs["try_number"]) == (True, deadline, 2)
        # It was cancelled for the try that had launched it.
        client.cancel_run(first.trigger.run_id)
        wait_for_run(client, first.trigger.run_id, period=FAST)
        scene.later(3)
        with pytest.raises(TaskDeferred) as third:
            timed().execute_complete(scene.context, event, **second.value.kwargs)
        assert third.value.trigger.run_id != first.trigger.run_id
        assert third.value.trigger.deadline == deadline
        kwargs = third.value.kwargs
        assert (kwargs["joined"], kwargs["deadline"], kwargs["try_number"]) == (False, deadline, 2)

    @pytest.mark.parametrize("joined", [False, True], ids=["launched", "joined"])
    def test_in_a_worker_ends_the_wait_and_cancels(self, scene, client, monkeypatch, joined):
        notebook = scene.notebook()
        make = partial(submit, notebook_task=notebook, execution_timeout=MINUTE, retries=1)
        if joined:
            scene.ti.max_tries = scene.ti.retries = 1
            scene.lose_worker(make)
            scene.next_try()

        def alarm(_: float) -> None:
            raise AirflowTaskTimeout("the alarm that Airflow has set")

        operator = make()
        with monkeypatch.context() as during_the_wait:
            rule_all(during_the_wait, sleep=alarm)
            with pytest.raises(AirflowTaskTimeout, match="the alarm"):
                operator.execute(scene.context)
        assert scene.workspace.requests["runs/cancel"] == 0
        operator.on_kill()
        run_id = scene.ti.xcom["run_id"]
        assert wait_for_run(client, run_id, period=FAST).state.result_state == "CANCELED"
        assert [run.run_id for run in client.list_runs()] == [run_id]
