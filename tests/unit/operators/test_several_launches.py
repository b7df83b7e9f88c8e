"""The operators where a task launches several runs, and where Airflow deployments share a workspace."""

from __future__ import annotations

import json
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow_context import (
    FAST,
    Scene,
    TaskDeferred,
    TaskInstance,
    fire,
    kill_at_the_first_poll,
    rebuilt,
    run_now,
    submit,
)
from injected_clock import rule_all

from airflow_dbjobs.airflow_compat import AirflowTaskTimeout, task_states
from airflow_dbjobs.client.wait import wait_for_run
from airflow_dbjobs.errors import JobsError, RunFailed
from airflow_dbjobs.local_workspace import Fault
from airflow_dbjobs.operators import DatabricksSubmitRunOperator

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_dbjobs.client import JobsClient

SUCCEEDS = {"op": "EQUAL_TO", "left": "1", "right": "1"}
FAILS = {"op": "LESS_THAN", "left": "one", "right": "2"}


def task_of(condition: dict[str, str]) -> list[dict[str, Any]]:
    return [{"task_key": "main", "condition_task": condition}]


def names_of(client: JobsClient) -> list[str]:
    """Return the names of all runs, the oldest first."""
    return [run.run_name for run in sorted(client.list_runs(), key=lambda run: run.run_id)]


@pytest.fixture
def scene(scene: Scene) -> Scene:
    scene.ti.retries = scene.ti.max_tries = 3
    return scene


class TestDeployments:
    """Two Airflows with the same DAG and one workspace: scheduled DAG runs have the same names."""

    @pytest.fixture
    def elsewhere(self, scene: Scene) -> dict[str, Any]:
        """Return the same try of the same task in another deployment, whose DAG run began a microsecond later."""
        start = scene.dag_run.start_date
        dag_run = SimpleNamespace(start_date=start.replace(microsecond=(start.microsecond + 1) % 1_000_000))
        ti = TaskInstance()
        ti.max_tries = scene.ti.max_tries
        return {"ti": ti, "dag_run": dag_run}

    def test_have_separate_runs(self, scene, client, elsewhere) -> None:
        notebook = scene.notebook()
        scene.lose_worker(lambda: submit(notebook_task=notebook))
        operator = submit(notebook_task=notebook, wait_for_termination=False)
        scene.ti = elsewhere["ti"]
        operator.execute(elsewhere)
        first, second = sorted(run.run_id for run in client.list_runs())
        operator.on_kill()
        assert wait_for_run(client, second, period=FAST).state.result_state == "CANCELED"
        assert not client.get_run(first).is_terminal
        client.cancel_run(first)

    def test_that_are_copies_are_distinguished_by_a_setting(self, scene, client, monkeypatch) -> None:
        for name in ("production", "development"):
            monkeypatch.setenv("AIRFLOW__DATABRICKS_JOBS__DEPLOYMENT", name)
            scene.new_process()
            submit(tasks=task_of(SUCCEEDS)).execute(scene.context)
        assert len(names_of(client)) == 2


class TestWorkerThatStops:
    """It is told to stop as a killed task is; Airflow still has the task as running."""

    @pytest.fixture
    def state(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
        def say(answer: Any) -> None:
            def task_state(_: Any, **__: Any) -> str:
                if isinstance(answer, Exception):
                    raise answer
                if isinstance(answer, threading.Event):
                    answer.wait(30)
                return str(answer)

            monkeypatch.setattr(task_states, "task_state", task_state)

        return say

    @pytest.fixture
    def notebook(self, scene: Scene) -> dict[str, Any]:
        return scene.notebook()

    @pytest.fixture
    def operator(self, scene: Scene, notebook: dict[str, Any]) -> DatabricksSubmitRunOperator:
        launched = submit(notebook_task=notebook, wait_for_termination=False)
        launched.execute(scene.context)
        return launched

    @pytest.mark.parametrize("answer", ["running", "up_for_retry", EOFError(), BrokenPipeError()], ids=repr)
    def test_leaves_the_run_to_the_next_try(self, scene, operator, notebook, state, *, capfd, answer) -> None:
        state(answer)
        operator.on_kill()
        assert scene.workspace.requests["runs/cancel"] == 0
        assert "was not cancelled: the next try of this task joins it" in capfd.readouterr().out
        first = scene.ti.xcom["run_id"]
        scene.next_try()
        scene.ti.at_link = scene.open_gate
        submit(notebook_task=notebook).execute(scene.context)
        assert scene.ti.xcom["run_id"] == first

    def test_ends_the_waiting_at_once(self, scene, notebook, state, monkeypatch) -> None:
        state("running")
        operator = submit(notebook_task=notebook)
        kill_at_the_first_poll(operator, monkeypatch)
        with pytest.raises(JobsError, match="stopped the task"):
            operator.execute(scene.context)
        assert scene.workspace.requests["runs/cancel"] == 0

    @pytest.mark.parametrize(
        "answer", ["failed", "success", "restarting", "gone", ConnectionError("no answer")], ids=repr
    )
    def test_is_not_assumed_if_airflow_ended_the_task(self, scene, operator, state, answer) -> None:
        state(answer)
        operator.on_kill()
        assert scene.workspace.requests["runs/cancel"] == 1

    def test_is_not_assumed_if_airflow_does_not_answer(self, scene, operator, state, monkeypatch) -> None:
        monkeypatch.setattr("airflow_dbjobs.operators.launch._TASK_STATE_TIMEOUT_SECONDS", 0.05)
        silent = threading.Event()
        state(silent)
        operator.on_kill()
        silent.set()
        assert scene.workspace.requests["runs/cancel"] == 1

    @pytest.mark.parametrize("change", [{"try_number": 4}, {"max_tries": 0}], ids=str)
    def test_cancels_the_run_of_the_last_try(self, scene, operator, state, change) -> None:
        state("running")
        for name, value in change.items():
            setattr(scene.ti, name, value)
        operator.on_kill()
        assert scene.workspace.requests["runs/cancel"] == 1

    @pytest.mark.parametrize(
        "own", [{"durable": False}, {"idempotency_token": "mine"}, {"json": {"idempotency_token": "mine"}}], ids=str
    )
    def test_cancels_a_run_that_the_next_try_would_not_find(self, scene, notebook, state, own) -> None:
        state("running")
        operator = submit(notebook_task=notebook, wait_for_termination=False, **own)
        operator.execute(scene.context)
        operator.on_kill()
        assert scene.workspace.requests["runs/cancel"] == 1

    def test_is_not_assumed_after_the_execution_timeout(self, scene, operator, state) -> None:
        state("running")

        def run_out_of_time() -> None:
            raise AirflowTaskTimeout

        try:
            run_out_of_time()
        except AirflowTaskTimeout:
            operator.on_kill()
        assert scene.workspace.requests["runs/cancel"] == 1


class TestSeveralLaunchesInOneTry:
    # Airflow gives `exception` to the callback of a task, and `reason` to that of a DAG run.
    @pytest.mark.parametrize("given", [{"exception": RunFailed("failed", run_id=1)}, {"reason": "task_failure"}])
    def test_callback_of_a_failed_try_has_its_own_run(self, scene, client, given) -> None:
        for tries in (1, 2):
            with pytest.raises(RunFailed):
                submit(tasks=task_of(FAILS)).execute(scene.context)
            # As Airflow does, in the same process: `on_retry_callback` uses an operator.
            clean_up = submit(task_id="clean_up", run_name="clean_up", tasks=task_of(SUCCEEDS))
            clean_up.execute({**scene.context, **given})
            assert names_of(client) == ["load", "clean_up"] * tries
            scene.next_try()

    @pytest.mark.parametrize("waits", [True, False])
    def test_loop_continues_where_it_failed(self, scene, client, waits) -> None:
        def loop(*conditions: dict[str, str]) -> None:
            for number, condition in enumerate(conditions):
                operator = submit(tasks=task_of(condition), run_name=f"part {number}", wait_for_termination=waits)
                operator.execute(scene.context)
            for run in client.list_runs(active_only=True):
                wait_for_run(client, run.run_id, period=FAST)

        if waits:
            with pytest.raises(RunFailed):
                loop(SUCCEEDS, FAILS, SUCCEEDS)
            assert names_of(client) == ["part 0", "part 1"]
        else:
            loop(SUCCEEDS, FAILS)
        scene.next_try()
        loop(SUCCEEDS, SUCCEEDS, SUCCEEDS)
        assert names_of(client) == ["part 0", "part 1", "part 1", "part 2"]

    def test_jobs_in_another_order_find_their_own_runs(self, scene, client) -> None:
        jobs = [client.create_job({"name": name, "tasks": task_of(SUCCEEDS)}) for name in "ab"]
        for job in jobs:
            run_now(job_id=job).execute(scene.context)
        scene.next_try()
        for job in reversed(jobs):
            run_now(job_id=job).execute(scene.context)
            assert client.get_run(scene.ti.xcom["run_id"]).job_id == job
        assert len(names_of(client)) == 2

    def test_subclass_may_execute_twice_even_after_a_deferral(self, scene, client) -> None:
        class Twice(DatabricksSubmitRunOperator):
            def execute(self, context: Any) -> Any:
                self.run_name = "first"
                return super().execute(context)

            def execute_complete(self, context: Any, event: Any = None, **kwargs: Any) -> Any:
                super().execute_complete(context, event, **kwargs)
                self.run_name, self.deferrable = "second", False
                return super().execute(context)

        def make() -> Twice:
            return Twice(task_id="load", tasks=tasks, deferrable=True, polling_period_seconds=FAST)

        # The task is not deferred for a run that is over at the first poll.
        tasks = [{"task_key": "main", "notebook_task": scene.notebook()}]
        scene.ti.at_link = scene.open_gate
        scene.run_task(make)
        assert names_of(client) == ["first", "second"]

    def test_each_has_its_own_run_if_not_durable(self, scene, client) -> None:
        for _ in "ab":
            submit(tasks=task_of(SUCCEEDS), durable=False).execute(scene.context)
        assert len(names_of(client)) == 2

    def test_deferral_stores_the_launch_number(self, scene, client) -> None:
        # The task would not be deferred for a run that has already ended.
        tasks = [{"task_key": "main", "notebook_task": scene.notebook()}]
        job = client.create_job({"name": "nightly", "max_concurrent_runs": 2, "tasks": tasks})
        run_now(job_id=job, wait_for_termination=False).execute(scene.context)
        with pytest.raises(TaskDeferred) as deferral:
            run_now(job_id=job, deferrable=True).execute(scene.context)
        assert json.loads(json.dumps(deferral.value.kwargs))["launch_of"] == [str(job), 2]
        scene.open_gate()
        assert fire(rebuilt(deferral.value.trigger))["run_id"] == deferral.value.kwargs["run_id"]


class TestKillDuringLaunch:
    def test_ends_its_retries(self, scene, monkeypatch) -> None:
        operator = submit(tasks=task_of(SUCCEEDS))
        waits: list[float] = []

        def sleep(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 3:
                operator.on_kill()

        rule_all(monkeypatch, sleep=sleep)
        scene.workspace.faults.append(Fault("runs/submit", cut="before", times=None))
        with pytest.raises(JobsError, match="stopped the task"):
            operator.execute(scene.context)
        assert len(waits) < 20
