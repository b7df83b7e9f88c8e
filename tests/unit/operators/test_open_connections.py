"""Operators and sensors leave no connection open, however they end."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow_context import Scene, TaskDeferred
from injected_clock import rule_all
from rude_server import RudeServer, reply, serving

from airflow_dbjobs.airflow_compat import AirflowFailException
from airflow_dbjobs.errors import ApiError, RunCanceled, RunFailed
from airflow_dbjobs.operators import DatabricksCreateJobsOperator, DatabricksRunNowOperator, DatabricksSubmitRunOperator
from airflow_dbjobs.sensors import DatabricksJobIdleSensor, DatabricksRunSensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_mock import MockerFixture

RUNNING = {"life_cycle_state": "RUNNING"}
SUCCESS = {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"}
FAILED = {"life_cycle_state": "TERMINATED", "result_state": "FAILED"}
CANCELED = {"life_cycle_state": "TERMINATED", "result_state": "CANCELED"}
NOTEBOOK = {"notebook_path": "/x"}


class Api:
    """A workspace with one run, whose state is what a test says; `refuses` is the call that it refuses."""

    state = SUCCESS
    refuses = ""

    def __call__(self, request: str) -> list[bytes]:
        call = request.split()[1].partition("?")[0].removeprefix("/api/2.2/jobs/")
        if call == self.refuses:
            return [reply({"message": "no"}, status="403 Forbidden")]
        if call == "runs/cancel":
            self.state = CANCELED
        run = {"run_id": 7, "job_id": 5, "state": self.state, "tasks": []}
        answers = {
            "run-now": {"run_id": 7},
            "runs/submit": {"run_id": 7},
            "runs/get": run,
            "runs/list": {"runs": [run]},
            "get": {"job_id": 5, "settings": {"name": "nightly"}},
            "create": {"job_id": 5},
        }
        return [reply(answers.get(call, {}))]


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def server(api: Api) -> Iterator[RudeServer]:
    with serving(api) as running:
        yield running
        assert running.connections > 0


@pytest.fixture
def scene(server: RudeServer, monkeypatch: pytest.MonkeyPatch, mocker: MockerFixture) -> Scene:
    return Scene(
        SimpleNamespace(base_url=server.url, token="a-token", handle=None, requests={}), Path(), monkeypatch, mocker
    )


def submit(**kwargs: Any) -> DatabricksSubmitRunOperator:
    return DatabricksSubmitRunOperator(task_id="load", notebook_task=NOTEBOOK, **kwargs)


def run_now(**kwargs: Any) -> DatabricksRunNowOperator:
    return DatabricksRunNowOperator(task_id="load", job_id=5, **kwargs)


@pytest.fixture(params=[submit, run_now])
def launching(request: pytest.FixtureRequest) -> Callable[..., Any]:
    return request.param


def create() -> DatabricksCreateJobsOperator:
    tasks = [{"task_key": "a", "notebook_task": NOTEBOOK, "existing_cluster_id": "1"}]
    return DatabricksCreateJobsOperator(task_id="load", name="nightly", tasks=tasks)


class TestLaunchCloses:
    def test_after_success(self, scene, server, launching):
        operator = launching()
        operator.execute(scene.context)
        assert server.is_left()

    def test_after_a_failed_run(self, scene, server, api, launching):
        api.state = FAILED
        operator = launching()
        with pytest.raises(RunFailed):
            operator.execute(scene.context)
        assert server.is_left()

    def test_after_a_refusal(self, scene, server, api, launching):
        api.refuses = "run-now" if launching is run_now else "runs/submit"
        operator = launching()
        with pytest.raises(Exception, match="403"):
            operator.execute(scene.context)
        assert server.is_left()

    def test_after_deferral_and_resume(self, scene, server, api, launching):
        api.state = RUNNING
        operator, resumed, resumed_again = (launching(deferrable=True) for _ in range(3))
        with pytest.raises(TaskDeferred):
            operator.execute(scene.context)
        assert server.is_left()
        event = {"run_id": 7, "run_page_url": ""}
        with pytest.raises(TaskDeferred):
            resumed.execute_complete(scene.context, event)
        assert server.is_left()
        api.state = SUCCESS
        resumed_again.execute_complete(scene.context, event)
        assert server.is_left()


class TestKillCloses:
    def test_after_the_end_of_the_task(self, scene, server, api, launching):
        api.state = RUNNING
        operator = launching(wait_for_termination=False)
        operator.execute(scene.context)
        operator.on_kill()
        assert api.state == CANCELED
        assert server.is_left()

    def test_while_waiting(self, scene, server, api, launching, monkeypatch):
        api.state = RUNNING
        operator = launching()
        rule_all(monkeypatch, sleep=lambda _: operator.on_kill())
        with pytest.raises(RunCanceled):
            operator.execute(scene.context)
        assert server.is_left()


class TestOthersClose:
    @pytest.mark.parametrize("refuses", ["", "create"])
    def test_create_jobs(self, scene, server, api, refuses):
        api.refuses = refuses
        operator = create()
        with suppress(ApiError):
            operator.execute(scene.context)
        assert server.is_left()

    @pytest.mark.parametrize("state", [RUNNING, SUCCESS, FAILED], ids=["running", "success", "failed"])
    @pytest.mark.parametrize(
        ("kind", "what"), [(DatabricksRunSensor, {"run_id": 7}), (DatabricksJobIdleSensor, {"job_id": 5})]
    )
    def test_poke_of_a_sensor(self, scene, server, api, *, kind, what, state):
        api.state = state
        poking, deferring = (kind(task_id="wait", deferrable=deferrable, **what) for deferrable in (False, True))
        with suppress(AirflowFailException):
            poking.poke(scene.context)
        assert server.is_left()
        with suppress(AirflowFailException, TaskDeferred):
            deferring.execute(scene.context)
        assert server.is_left()
