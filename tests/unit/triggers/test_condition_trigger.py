"""The trigger that checks a condition: its arguments and event, its checks, and the failures that it tolerates."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from airflow_context import FAST, connect, fire, launch_endless, no_connection, rebuilt, until

from airflow_dbjobs.client import JobsClient, wait
from airflow_dbjobs.client.wait import wait_for_run
from airflow_dbjobs.errors import ConfigurationError, JobsError, RunLost, Unreachable
from airflow_dbjobs.hooks import DatabricksJobsHook
from airflow_dbjobs.local_workspace import Fault
from airflow_dbjobs.runs.conditions import IdleCondition, RunCondition
from airflow_dbjobs.runs.polling import poller as polling
from airflow_dbjobs.runs.polling import requests as poll_requests
from airflow_dbjobs.runs.polling.poller import RunPoller
from airflow_dbjobs.runs.polling.rate_limit import TokenBucket
from airflow_dbjobs.triggers import DatabricksRunTrigger, DatabricksSensorTrigger
from airflow_dbjobs.triggers import base as triggers
from airflow_dbjobs.triggers.events import read_sensor_event

if TYPE_CHECKING:
    from airflow_dbjobs.client.models import Run
    from airflow_dbjobs.runs.conditions import CheckResult, Condition

TASK = {"task_key": "load", "condition_task": {"op": "EQUAL_TO", "left": "1", "right": "1"}}


@pytest.fixture(autouse=True)
def _connection(workspace, monkeypatch):
    connect(monkeypatch, workspace.base_url, workspace.token)


@pytest.fixture
def hasty(monkeypatch) -> None:
    """Shorten the wait after a failure, which is a second at first."""
    monkeypatch.setattr(wait, "backoff", lambda _: FAST)


@pytest.fixture
def job_id(client) -> int:
    return client.create_job({"name": "nightly", "tasks": [TASK]})


@pytest.fixture
def run_id(client, job_id) -> int:
    """Return a run that is over."""
    return wait_for_run(client, client.run_now({"job_id": job_id}), period=FAST).run_id


def trigger_for(condition: Condition, **kwargs: Any) -> DatabricksSensorTrigger:
    return DatabricksSensorTrigger(
        condition.to_dict(), "databricks_default", **{"poke_interval": FAST, "run_page_url": "http://page", **kwargs}
    )


class TestSerialization:
    def test_arguments_rebuild_the_trigger_without_secrets(self, workspace):
        trigger = trigger_for(RunCondition(job_id=5, task_key="load"), deadline=1.5)
        path, kwargs = trigger.serialize()
        assert path == "airflow_dbjobs.triggers.DatabricksSensorTrigger"
        assert kwargs == {
            "condition": {
                "kind": "run", "job_id": 5, "job_name": None, "job_exists": False, "chosen": None, "since": None,
                "task_key": "load", "states": ["SUCCESS", "SUCCESS_WITH_FAILURES"],
            },
            "databricks_conn_id": "databricks_default",
            "poke_interval": FAST,
            "run_page_url": "http://page",
            "deadline": 1.5,
            "ends_task": False,
            "max_result_bytes": None,
        }  # fmt: skip
        assert rebuilt(trigger).serialize() == trigger.serialize()
        assert workspace.token not in json.dumps(kwargs)

    def test_trigger_of_another_release_works(self, run_id):
        trigger = trigger_for(RunCondition(chosen=run_id), argument_of_tomorrow=1)
        trigger.condition["field_of_tomorrow"] = 1
        assert fire(trigger)["met"] is True
        assert fire(DatabricksSensorTrigger({"kind": "run", "chosen": run_id}, "databricks_default"))["met"] is True
        with pytest.raises(JobsError, match="condition of kind 'tomorrow'"):
            read_sensor_event(fire(DatabricksSensorTrigger({"kind": "tomorrow"}, "databricks_default")))


class TestEvent:
    def test_fires_when_the_condition_is_met(self, run_id):
        event = fire(rebuilt(trigger_for(RunCondition(chosen=run_id, task_key="load"))))
        assert event == {
            "run_id": run_id,
            "run_page_url": "http://page",
            "met": True,
            "state": f"Task load of run {run_id} is TERMINATED/SUCCESS",
        }
        assert read_sensor_event(event) == (run_id, "http://page", "", True)

    def test_fires_when_the_condition_can_no_longer_be_met(self, run_id):
        event = fire(trigger_for(RunCondition(chosen=run_id, states=("RUNNING",))))
        assert read_sensor_event(event).met is False

    def test_fires_when_a_job_is_idle(self, client, job_id, run_id):
        page = client.get_run(run_id).page_url
        event = fire(trigger_for(IdleCondition(job_id=job_id)))
        assert event["run_id"] is None
        assert read_sensor_event(event) == (None, page, "", True), "the page of the job's latest run"

    def test_fires_when_a_run_of_the_job_is_chosen(self, client):
        run_id = launch_endless(client)
        event = fire(trigger_for(RunCondition(job_id=client.get_run(run_id).job_id)))
        assert read_sensor_event(event) == (run_id, "http://page", "", False)

    def test_is_delayed_until_airflow_3_knows_the_deferral(self, run_id):
        began = time.monotonic()
        assert fire(trigger_for(RunCondition(chosen=run_id)), settling_seconds=0.3)["met"] is True
        assert time.monotonic() - began >= 0.29

    @pytest.mark.parametrize(
        ("condition", "error"),
        [
            (RunCondition(chosen=7), "Run 7 does not exist"),
            (RunCondition(job_id=7), "Job 7 does not exist"),
            (RunCondition(job_name="other"), "no job of this name"),
            (IdleCondition(job_id=7), "Job 7 does not exist"),
        ],
    )
    def test_reports_a_missing_run_or_job(self, condition, error):
        with pytest.raises(JobsError, match=error) as raised:
            read_sensor_event(fire(trigger_for(condition)))
        assert isinstance(raised.value, RunLost) is (condition.run_id is not None)

    def test_reports_a_missing_connection(self):
        with pytest.raises(
            JobsError, match=r"Job 5 cannot be polled: .* could not read the connection.*is 'elsewhere'"
        ):
            read_sensor_event(fire(DatabricksSensorTrigger(RunCondition(job_id=5).to_dict(), "elsewhere")))

    @pytest.mark.parametrize("event", [None, "done", {}, {"run_id": "7"}, {"met": True}])
    def test_foreign_event_is_rejected(self, event):
        with pytest.raises(JobsError, match="an event that does not name a run"):
            read_sensor_event(event)


class TestChecks:
    def test_repeats_checks_and_logs_only_changes(self, client, workspace, capfd, run_id):
        running = {"run_id": run_id, "state": {"life_cycle_state": "RUNNING"}, "tasks": []}
        workspace.faults.append(Fault("runs/get", status=200, body=running, times=4))
        assert fire(trigger_for(RunCondition(chosen=run_id, task_key="load")))["met"] is True
        assert workspace.requests["runs/get"] >= 5
        assert capfd.readouterr().out.count("is RUNNING and has no tasks yet") == 1

    def test_waits_for_the_poke_interval(self, monkeypatch, workspace, run_id):
        waits: list[float] = []
        monkeypatch.setattr(polling, "jittered", lambda seconds: waits.append(seconds) or FAST)
        running = {"run_id": run_id, "state": {"life_cycle_state": "RUNNING"}, "tasks": []}
        workspace.faults.append(Fault("runs/get", status=200, body=running, times=3))
        fire(trigger_for(RunCondition(chosen=run_id, task_key="load"), poke_interval=45))
        assert waits[:3] == [45, 45, 45]

    def test_equal_conditions_share_one_check_and_one_lookup(self, client, workspace, job_id, monkeypatch):
        lookups, taken, threads = [], [], set()
        aget_conn, take, handle = DatabricksJobsHook.aget_conn, TokenBucket.take, workspace.handle

        async def lookup(hook: DatabricksJobsHook) -> JobsClient:
            lookups.append(hook)
            return await aget_conn(hook)

        def counted(bucket: TokenBucket, tokens: float) -> float:
            taken.append(tokens)
            return take(bucket, tokens)

        def seen(request: Any) -> Any:
            if "runs/list" in request.path:
                threads.add(threading.current_thread())
            return handle(request)

        monkeypatch.setattr(DatabricksJobsHook, "aget_conn", lookup)
        monkeypatch.setattr(TokenBucket, "take", counted)
        workspace.handle = seen

        async def scene() -> list[Any]:
            loop = asyncio.get_running_loop()
            with mock.patch.object(triggers, "settling_seconds", return_value=0):
                firing = asyncio.gather(*(anext(trigger_for(RunCondition(job_id=job_id)).run()) for _ in range(40)))
                await until(lambda: workspace.requests["runs/list"] > 3)
                (poller,) = RunPoller._shared[loop].values()
                assert len(poller._polled) == 1
                client.run_now({"job_id": job_id})
                async with asyncio.timeout(20):
                    events = await firing
            assert not RunPoller._shared[loop], "the last trigger closes threads and connections"
            return [event.payload["run_id"] for event in events]

        found = asyncio.run(scene())
        assert len(found) == 40
        assert len(set(found)) == 1
        assert len(lookups) == 1
        assert {thread.name for thread in threads} == {"airflow_dbjobs-poller"}
        # Each check takes one token of the workspace's rate limit.
        assert len(taken) >= workspace.requests["runs/list"]

    def test_tasks_of_a_run_share_one_request_with_the_run(self, workspace):
        keys = [f"task{number}" for number in range(30)]
        states = [{"life_cycle_state": "RUNNING"}, {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"}]
        for index in (0, 0, 0, 1):
            tasks = [{"run_id": 8, "task_key": key, "state": states[index]} for key in keys]
            body = {"run_id": 7, "state": states[index], "tasks": tasks}
            workspace.faults.append(Fault("runs/get", status=200, body=body))

        async def scene() -> list[Any]:
            waiting = [trigger_for(RunCondition(chosen=7, task_key=key), poke_interval=0.2) for key in keys]
            waiting.append(DatabricksRunTrigger(7, "databricks_default", polling_period_seconds=0.2))
            with mock.patch.object(triggers, "settling_seconds", return_value=0):
                async with asyncio.timeout(20):
                    events = await asyncio.gather(*(anext(trigger.run()) for trigger in waiting))
            return [event.payload["state"] for event in events]

        messages = [f"Task {key} of run 7 is TERMINATED/SUCCESS" for key in keys]
        assert asyncio.run(scene()) == [*messages, "TERMINATED/SUCCESS"]
        assert workspace.requests["runs/get"] == 4
        assert workspace.requests["runs/list"] == 0

    def test_missing_task_fails_its_trigger_only(self, run_id):
        async def scene() -> list[Any]:
            waiting = [trigger_for(RunCondition(chosen=run_id, task_key=key)) for key in ("load", "lod")]
            with mock.patch.object(triggers, "settling_seconds", return_value=0):
                async with asyncio.timeout(20):
                    return [event.payload for event in await asyncio.gather(*(anext(each.run()) for each in waiting))]

        right, wrong = asyncio.run(scene())
        assert read_sensor_event(right).met
        with pytest.raises(ConfigurationError, match="Use one of its tasks: load"):
            read_sensor_event(wrong)


class TestSharedPoller:
    def test_last_trigger_closes_connections_and_threads(self, client, run_id):
        def threads() -> list[str]:
            return [thread.name for thread in threading.enumerate() if thread.name == "airflow_dbjobs-poller"]

        async def scene() -> None:
            poller = RunPoller.shared(client)
            watch = wait.Watch(run_id, FAST, client.patience, client.clock)

            def judge(result: CheckResult) -> CheckResult:
                assert client.transport._sessions
                assert threads()
                return result

            result = await poller.check(RunCondition(chosen=run_id), watch, judge)
            assert result is not None
            assert result.verdict
            assert not client.transport._sessions
            await until(lambda: not threads())

        asyncio.run(scene())


class TestDeadlineAndKill:
    @pytest.mark.parametrize("seconds", [-1000, 0.2], ids=["passed before the trigger starts", "passes meanwhile"])
    def test_cancels_nothing_at_its_deadline(self, workspace, job_id, seconds):
        event = fire(trigger_for(RunCondition(job_id=job_id), deadline=time.time() + seconds))
        assert read_sensor_event(event) == (None, "http://page", "nothing was cancelled", False)
        assert workspace.requests["runs/cancel"] == 0

    def test_cancels_nothing_when_stopped(self, client, workspace):
        run_id = launch_endless(client)

        async def scene() -> None:
            trigger = trigger_for(RunCondition(chosen=run_id, task_key="main"))
            trigger.condition["task_key"] = client.get_run(run_id).tasks[0].task_key
            with mock.patch.object(triggers, "settling_seconds", return_value=0):
                waits = asyncio.create_task(anext(trigger.run()))
                await until(lambda: workspace.requests["runs/get"] > 2)
                waits.cancel()
                await trigger.on_kill()
                with pytest.raises(asyncio.CancelledError):
                    await waits
            assert not RunPoller._shared[asyncio.get_running_loop()]

        asyncio.run(scene())
        assert workspace.requests["runs/cancel"] == 0

    def test_names_the_chosen_run_at_its_deadline(self, client):
        run_id = launch_endless(client)
        event = fire(trigger_for(RunCondition(job_id=5, chosen=run_id, states=("RUNNING",)), deadline=time.time() - 1))
        assert read_sensor_event(event).run_id == run_id


class TestFailures:
    @pytest.mark.parametrize(
        "fault",
        [
            Fault("runs/get", status=503, body="<html>gateway</html>", times=3),
            Fault("runs/get", status=429, times=3),
            Fault("runs/get", cut="before", times=3),
            Fault("runs/get", status=200, body="<html>proxy</html>", times=3),
            Fault("runs/get", status=403, times=3),
        ],
        ids=["503", "429", "cut", "proxy", "403"],
    )
    @pytest.mark.usefixtures("hasty")
    def test_brief_failure_fires_no_event(self, workspace, run_id, fault, capfd, monkeypatch):
        monkeypatch.setattr("airflow_dbjobs.runs.polling.rate_limit.backoff", lambda _: FAST)
        workspace.faults.append(fault)
        assert fire(trigger_for(RunCondition(chosen=run_id)))["met"] is True
        logged = capfd.readouterr().out
        assert logged.count(f"Polling run {run_id} failed; will retry: GET jobs/runs/get") == 1
        assert logged.count(f"Polling run {run_id} succeeded again") == 1
        assert fault.times == 0

    def test_retry_after_is_obeyed(self, workspace, run_id):
        workspace.faults.append(Fault("runs/get", status=429, headers={"Retry-After": "1"}))
        began = time.monotonic()
        assert fire(trigger_for(RunCondition(chosen=run_id)))["met"] is True
        assert time.monotonic() - began >= 1

    @pytest.mark.usefixtures("hasty")
    def test_hanging_check_times_out_and_is_retried(self, run_id, monkeypatch, capfd):
        monkeypatch.setattr(poll_requests, "_TIMEOUT_MARGIN_SECONDS", -100.0)
        monkeypatch.setattr(poll_requests, "_PAGES_TIMEOUT_SECONDS", 0.1)
        over = threading.Event()
        get_run, stuck = JobsClient.get_run, iter([over])

        def hanging(client: JobsClient, run_id: int) -> Run:
            if (first := next(stuck, None)) is not None:
                first.wait(20)
                raise Unreachable("abandoned")
            return get_run(client, run_id)

        monkeypatch.setattr(JobsClient, "get_run", hanging)
        assert fire(trigger_for(RunCondition(chosen=run_id)))["met"] is True
        over.set()
        assert "did not answer in full within" in capfd.readouterr().out

    @pytest.mark.usefixtures("hasty")
    @pytest.mark.parametrize(("setting", "status"), [("outage_tolerance", 503), ("denied_tolerance", 401)])
    def test_tolerances_are_the_connections(self, workspace, monkeypatch, job_id, setting, status):
        connect(monkeypatch, workspace.base_url, workspace.token, extra={setting: 0.2})
        monkeypatch.setattr("airflow_dbjobs.runs.polling.rate_limit.backoff", lambda _: FAST)
        workspace.faults.append(Fault("runs/list", status=status, times=None))
        with pytest.raises(JobsError, match=rf"Polling job {job_id} failed for .*answered {status}"):
            read_sensor_event(fire(trigger_for(RunCondition(job_id=job_id))))


class TestCredentials:
    @pytest.mark.usefixtures("hasty")
    def test_rotated_token_is_used(self, workspace, client, monkeypatch, capfd):
        run_id = launch_endless(client)
        key = client.get_run(run_id).tasks[0].task_key

        async def scene() -> Any:
            with mock.patch.object(triggers, "settling_seconds", return_value=0):
                firing = asyncio.create_task(anext(trigger_for(RunCondition(chosen=run_id, task_key=key)).run()))
                await until(lambda: workspace.requests["runs/get"] > 2)
                client.cancel_run(run_id)
                workspace.token = "local-token-of-tomorrow"
                connect(monkeypatch, workspace.base_url, workspace.token)
                async with asyncio.timeout(10):
                    return (await firing).payload

        assert asyncio.run(scene())["met"] is False
        logged = capfd.readouterr().out
        assert logged.count("The connection 'databricks_default' has changed; using its new settings.") == 1
        assert workspace.token not in logged

    @pytest.mark.usefixtures("hasty")
    def test_rejection_is_retried_while_lookup_fails(self, workspace, run_id, monkeypatch):
        workspace.faults.append(Fault("runs/get", status=401, times=3))
        aget_conn, lookups = DatabricksJobsHook.aget_conn, []

        async def only_once(hook: DatabricksJobsHook) -> JobsClient:
            lookups.append(hook)
            return await (no_connection if len(lookups) > 1 else aget_conn)(hook)

        monkeypatch.setattr(DatabricksJobsHook, "aget_conn", only_once)
        assert fire(trigger_for(RunCondition(chosen=run_id)))["met"] is True
        assert len(lookups) == 4
