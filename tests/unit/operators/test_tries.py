"""The operators over several tries of a task: which run each try waits for, and when it launches another."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from airflow import DAG
from airflow_context import FAST, FastTime, Scene, kill_at_the_first_poll, launching, submit
from injected_clock import shorten_waits

from airflow_dbjobs.airflow_compat import AirflowFailException
from airflow_dbjobs.client.wait import wait_for_run
from airflow_dbjobs.errors import RunCanceled, RunFailed, Unreachable
from airflow_dbjobs.local_workspace import Fault
from airflow_dbjobs.operators import DatabricksRunNowOperator, DatabricksSubmitRunOperator

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_dbjobs.client import JobsClient
    from airflow_dbjobs.local_workspace.messages import Reply, Request

    Make = Callable[..., Any]

RETRIES = 3
# Fails as long as a file says so.
CODE = """
import pathlib
if pathlib.Path("fails").exists():
    raise ValueError("no rows")
dbutils.notebook.exit('{"rows": 3}')
"""
ROWS = {"rows": 3}
PARTLY = [
    {"task_key": "optional", "condition_task": {"op": "LESS_THAN", "left": "one", "right": "2"}},
    {
        "task_key": "rest",
        "condition_task": {"op": "EQUAL_TO", "left": "1", "right": "1"},
        "depends_on": [{"task_key": "optional"}],
        "run_if": "ALL_DONE",
    },
]


@pytest.fixture
def scene(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Scene:
    # The launcher waits for the end of a run that is being cancelled; the programs here end at once.
    shorten_waits(monkeypatch, FAST)
    scene.ti.retries = scene.ti.max_tries = RETRIES
    return scene


@pytest.fixture(params=[DatabricksSubmitRunOperator, DatabricksRunNowOperator], ids=["submit", "run-now"])
def make(request: pytest.FixtureRequest, scene: Scene, client: JobsClient, deferrable: bool) -> Make:
    """Return what makes the task's operator, of either kind and in either mode, as each of its processes does."""
    build = launching(
        request.param, client, [{"task_key": "main", "notebook_task": scene.notebook(CODE)}], retries=RETRIES
    )

    def operator(**parameters: Any) -> Any:
        made = build()
        for name, value in {"deferrable": deferrable, **parameters}.items():
            assert hasattr(made, name)
            setattr(made, name, value)
        return made

    return operator


@pytest.fixture
def lost_result(scene: Scene, client: JobsClient, make: Make) -> int:
    """Return the run that an earlier try launched, and which succeeded after the worker was lost."""
    run_id = scene.lose_worker(make)
    scene.open_gate()
    assert wait_for_run(client, run_id, period=FAST).is_terminal
    return run_id


def runs_of(client: JobsClient) -> list[int]:
    """Return all runs, the oldest first."""
    return sorted(run.run_id for run in client.list_runs())


def told(capfd: pytest.CaptureFixture[str]) -> list[str]:
    """Return what was logged since of how the task came to its run."""
    story = re.compile(r"(?:Launched|Joined|Found|Took the result of) run \d+.*")
    return [found.group() for line in capfd.readouterr().out.splitlines() if (found := story.search(line))]


def log_of(capfd: pytest.CaptureFixture[str]) -> str:
    return " ".join(capfd.readouterr().out.split())


def canceller(scene: Scene, client: JobsClient) -> Callable[[], None]:
    """Return what cancels the run that is announced first, and lets the next one end."""

    def cancel() -> None:
        scene.ti.at_link = scene.open_gate
        client.cancel_run(scene.ti.xcom["run_id"])

    return cancel


def ended(scene: Scene, client: JobsClient, run_id: int, how: str) -> str:
    """Let a run end, and return how a try tells of it."""
    (scene.root / "fails").touch()
    if how == "failed":
        scene.open_gate()
    else:
        client.cancel_run(run_id)
    run = wait_for_run(client, run_id, period=FAST)
    (scene.root / "fails").unlink()
    scene.open_gate()
    if how == "deleted":
        client.delete_run(run_id)
        return "the run of an earlier try was deleted"
    return f"run {run_id} of an earlier try ended as {run.state}"


class TestClear:
    def test_launches_again_after_a_success(self, scene, client, make, capfd):
        scene.open_gate()
        assert scene.run_task(make) == ROWS
        before = scene.ti.xcom["run_id"]
        capfd.readouterr()
        scene.next_try(cleared=True)
        assert scene.run_task(make) == ROWS
        assert runs_of(client) == [before, scene.ti.xcom["run_id"]]
        assert "earlier try" not in told(capfd)[0]

    def test_lets_a_retry_take_a_later_success(self, scene, client, make):
        scene.open_gate()
        scene.run_task(make)
        before = scene.ti.xcom["run_id"]
        scene.next_try(cleared=True)
        lost = scene.lose_worker(make)
        wait_for_run(client, lost, period=FAST)
        scene.next_try()
        assert scene.run_task(make) == ROWS
        assert runs_of(client) == [before, lost] == [before, scene.ti.xcom["run_id"]]

    def test_cancels_an_earlier_active_run(self, scene, client, make):
        running = scene.lose_worker(make)
        scene.next_try(cleared=True)
        scene.ti.at_link = scene.open_gate
        assert scene.run_task(make) == ROWS
        assert runs_of(client) == [running, scene.ti.xcom["run_id"]]
        assert client.get_run(running).state.result_state == "CANCELED"

    def test_waits_for_a_run_that_is_being_cancelled(self, scene, client, make, capfd):
        running = scene.lose_worker(make)
        stopping = {"life_cycle_state": "TERMINATING", "user_cancelled_or_timedout": True}
        reply = {**client.get_run(running).raw, "state": stopping, "status": {"state": "TERMINATING"}}
        scene.workspace.faults.append(Fault("runs/get", status=200, body=reply))
        client.cancel_run(running)
        capfd.readouterr()
        scene.next_try(cleared=True)
        make(wait_for_termination=False).execute(scene.context)
        assert told(capfd)[0].startswith("Launched")
        assert client.get_run(running).is_terminal


class TestFirstTry:
    def test_logs_the_launch_once(self, scene, client, make, capfd):
        scene.ti.at_link = scene.open_gate
        assert scene.run_task(make) == ROWS
        run = client.get_run(scene.ti.xcom["run_id"])
        (line,) = told(capfd)
        assert line.startswith(f"Launched run {run.run_id} of job {run.job_id}: {run.page_url}")

    def test_returns_the_result_of_an_instantly_finished_run(self, scene, client, make):
        joined = scene.lose_worker(make)
        scene.next_try()
        scene.ti.at_link = canceller(scene, client)

        def over() -> None:
            if client.get_run(joined).is_terminal:
                scene.open_gate()
                wait_for_run(client, runs_of(client)[-1], period=FAST)

        scene.at_launch = over
        assert scene.run_task(make) == ROWS
        assert runs_of(client) == [joined, scene.ti.xcom["run_id"]]
        assert len(scene.deferrals) == scene.ti.deferred


class TestJoinedRun:
    def test_that_is_cancelled_is_replaced(self, scene, client, make, capfd):
        joined = scene.lose_worker(make)
        scene.next_try()
        scene.ti.at_link = canceller(scene, client)
        assert scene.run_task(make) == ROWS
        own = scene.ti.xcom["run_id"]
        assert runs_of(client) == [joined, own]
        assert scene.ti.link == client.get_run(own).page_url
        assert [deferral.kwargs["joined"] for deferral in scene.deferrals] == [True, False][: 2 * scene.ti.deferred]
        assert f"Run {joined}, which this try had joined, was cancelled. Launching a new run." in log_of(capfd)

    @pytest.mark.parametrize(("retry", "error"), [(False, AirflowFailException), (True, RunCanceled)])
    def test_that_is_cancelled_twice_is_not_replaced(self, scene, client, make, retry, error):
        joined = scene.lose_worker(make)
        scene.next_try()
        scene.ti.at_link = lambda: client.cancel_run(scene.ti.xcom["run_id"])
        with pytest.raises(error, match="was cancelled"):
            scene.run_task(lambda: make(retry_on_cancel=retry))
        assert runs_of(client) == [joined, scene.ti.xcom["run_id"]]
        assert joined != scene.ti.xcom["run_id"]

    def test_that_looks_old_is_cancelled_twice_likewise(self, scene, client, make, monkeypatch):
        handle = scene.workspace.handle

        def ahead(request: Request) -> Reply:
            reply = handle(request)
            return replace(reply, headers={**reply.headers, "Date": formatdate(time.time() + 60, usegmt=True)})

        joined = scene.lose_worker(make)
        scene.next_try()
        # A try that has launched nothing.
        scene.next_try()
        monkeypatch.setattr(scene.workspace, "handle", ahead)
        scene.ti.at_link = lambda: client.cancel_run(scene.ti.xcom["run_id"])
        with pytest.raises(RunCanceled):
            scene.run_task(make)
        assert runs_of(client) == [joined, scene.ti.xcom["run_id"]]

    def test_is_not_replaced_after_a_kill(self, scene, client, make, monkeypatch):
        joined = scene.lose_worker(make)
        scene.next_try()
        operator = make(deferrable=False)
        kill_at_the_first_poll(operator, monkeypatch)
        with pytest.raises(RunCanceled):
            operator.execute(scene.context)
        assert runs_of(client) == [joined]


class TestUsersToken:
    def test_is_sent_unchanged_and_joins_an_active_run(self, scene, client, make, capfd):
        run_id = scene.lose_worker(lambda: make(idempotency_token="mine"))
        capfd.readouterr()
        scene.next_try()
        scene.ti.at_link = scene.open_gate
        assert scene.run_task(lambda: make(idempotency_token="mine")) == ROWS
        assert runs_of(client) == [run_id]
        assert {body["idempotency_token"] for body in scene.sent} == {"mine"}
        (line,) = told(capfd)
        assert re.match(rf"Found run {run_id}, launched at \S+Z with the same idempotency_token: http", line)

    @pytest.mark.parametrize(("how", "error"), [("failed", RunFailed), ("cancelled", AirflowFailException)])
    def test_of_a_finished_run_is_named_with_a_remedy(self, scene, client, make, how, error):
        run_id = scene.lose_worker(lambda: make(idempotency_token="mine"))
        ended(scene, client, run_id, how)
        scene.next_try()
        with pytest.raises(
            error, match=rf"(?s)Run {run_id} .*The idempotency_token .*launched nothing.*ti\.try_number"
        ):
            scene.run_task(lambda: make(idempotency_token="mine"))
        assert runs_of(client) == [run_id]

    def test_of_a_new_run_gets_no_such_remedy(self, scene, make):
        (scene.root / "fails").touch()
        scene.ti.at_link = scene.open_gate
        with pytest.raises(RunFailed, match="no rows") as error:
            scene.run_task(lambda: make(idempotency_token="mine"))
        assert "idempotency_token" not in str(error.value)


class TestRetry:
    def test_joins_an_active_run(self, scene, client, make, capfd):
        run_id = scene.lose_worker(make)
        capfd.readouterr()
        scene.next_try()
        scene.ti.at_link = scene.open_gate
        assert scene.run_task(make) == ROWS
        assert runs_of(client) == [scene.ti.xcom["run_id"]] == [run_id]
        (line,) = told(capfd)
        assert line.startswith(f"Joined run {run_id} of job ")
        assert "which an earlier try launched at " in line

    @pytest.mark.parametrize("how", ["failed", "cancelled", "deleted"])
    def test_launches_after_an_unsuccessful_run_and_logs_why(self, scene, client, make, capfd, how):
        lost = scene.lose_worker(make)
        why = ended(scene, client, lost, how)
        capfd.readouterr()
        scene.next_try()
        assert scene.run_task(make) == ROWS
        anew = scene.ti.xcom["run_id"]
        assert runs_of(client) == ([anew] if how == "deleted" else [lost, anew])
        (line,) = told(capfd)
        assert line.startswith(f"Launched run {anew} of job ")
        assert f", because {why}: http" in line

    def test_launches_after_each_failure(self, scene, client, make):
        (scene.root / "fails").touch()
        scene.open_gate()
        for tries in (1, 2, 3):
            with pytest.raises(RunFailed, match="no rows"):
                scene.run_task(make)
            assert len(runs_of(client)) == tries
            scene.next_try()

    def test_takes_a_lost_success(self, scene, client, make, capfd, lost_result):
        capfd.readouterr()
        scene.next_try()
        assert scene.run_task(make) == ROWS
        assert runs_of(client) == [lost_result]
        assert scene.ti.xcom["run_id"] == lost_result
        assert scene.ti.link
        assert not scene.ti.deferred
        (line,) = told(capfd)
        assert line.startswith(f"Took the result of run {lost_result} of job ")

    @pytest.mark.parametrize("dag_run", [None, "no start", "a later start"])
    def test_ignores_a_success_of_an_earlier_dag_run(self, scene, client, make, lost_result, dag_run):
        if dag_run is None:
            del scene.context["dag_run"]
        else:
            scene.dag_run.start_date = None if dag_run == "no start" else datetime.now(UTC) + timedelta(minutes=1)
        scene.next_try()
        assert scene.run_task(make) == ROWS
        assert runs_of(client) == [lost_result, scene.ti.xcom["run_id"]]

    @pytest.mark.parametrize("strict", [False, True])
    def test_takes_a_lost_partial_success_if_accepted(self, scene, client, deferrable, strict):
        make = partial(submit, tasks=PARTLY, deferrable=deferrable, retries=RETRIES, fail_on_partial_success=strict)
        lost = scene.lose_worker(make)
        wait_for_run(client, lost, period=FAST)
        scene.next_try()
        if strict:
            with pytest.raises(RunFailed, match="partially succeeded"):
                scene.run_task(make)
        else:
            scene.run_task(make)
        assert runs_of(client) == [lost, scene.ti.xcom["run_id"]][: 1 + strict]

    def test_after_a_deferral_renders_templates_again(self, scene, client):
        notebook, days = scene.notebook(), iter(["of the lost worker", "joins", "resumes", "resumes again"])

        def make() -> Any:
            with DAG("nightly", schedule=None):
                operator = submit(notebook_task=notebook, run_name="{{ day }}", deferrable=True, retries=RETRIES)
            operator.render_template_fields({**scene.context, "day": next(days)})
            return operator

        joined = scene.lose_worker(make)
        scene.next_try()
        scene.ti.at_link = canceller(scene, client)
        scene.run_task(make)
        assert [client.get_run(run_id).run_name for run_id in runs_of(client)] == ["of the lost worker", "resumes"]
        assert runs_of(client)[0] == joined

    def test_launches_its_own_run_if_not_durable(self, scene, client, make, capfd):
        first = scene.lose_worker(lambda: make(durable=False))
        again = scene.lose_worker(lambda: make(durable=False))
        assert again == first, "it is the same try, whichever worker it is on"
        scene.next_try()
        capfd.readouterr()
        make(durable=False, wait_for_termination=False).execute(scene.context)
        second = scene.ti.xcom["run_id"]
        assert runs_of(client) == [first, second]
        assert "earlier try" not in told(capfd)[0]
        assert len({body["idempotency_token"] for body in scene.sent}) == 2

    def test_of_mapped_instances_find_their_own_runs(self, scene, client, deferrable):
        notebook = scene.notebook(CODE)
        make = partial(submit, notebook_task=notebook, deferrable=deferrable, retries=RETRIES)
        runs = {}
        for scene.ti.map_index in (-1, 0, 1):
            runs[scene.ti.map_index] = scene.lose_worker(make)
        assert len(set(runs.values())) == 3
        scene.next_try()
        for scene.ti.map_index, run_id in runs.items():
            scene.ti.at_link = scene.open_gate
            assert scene.run_task(make) == ROWS
            assert scene.ti.xcom["run_id"] == run_id
        assert runs_of(client) == sorted(runs.values())

    def test_without_waiting_launches_only_after_a_failure(self, scene, client, make):
        run_id = scene.lose_worker(lambda: make(wait_for_termination=False))
        for _ in ("active", "over"):
            scene.next_try()
            assert make(wait_for_termination=False).execute(scene.context) is None
            assert scene.ti.xcom["run_id"] == run_id
            scene.open_gate()
            wait_for_run(client, run_id, period=FAST)
        assert runs_of(client) == [run_id]

    def test_finds_the_run_of_an_unanswered_launch(self, scene, client, make, monkeypatch, capfd):
        with monkeypatch.context() as outage:
            FastTime(outage)
            scene.workspace.faults.append(Fault("run*", cut="after", times=None))
            with pytest.raises(Unreachable):
                make().execute(scene.context)
            scene.workspace.faults.clear()
        assert "may have launched a run: the next try of this task will find it." in log_of(capfd)
        scene.next_try()
        scene.ti.at_link = scene.open_gate
        assert scene.run_task(make) == ROWS
        assert runs_of(client) == [scene.ti.xcom["run_id"]]
        assert scene.workspace.requests["runs/cancel"] == 0
