"""The run-now operator: previous runs of the job are cancelled, and never one that the task could join."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow_context import FAST, FastTime, Scene, run_now

from airflow_dbjobs.client import JobsClient
from airflow_dbjobs.client.wait import wait_for_run
from airflow_dbjobs.errors import ConfigurationError, PermissionDenied, RunLost, ServerError
from airflow_dbjobs.hooks import DatabricksJobsHook
from airflow_dbjobs.local_workspace import Fault
from airflow_dbjobs.runs.cancel_previous import cancel_previous_runs

if TYPE_CHECKING:
    from collections.abc import Callable

    Make = Callable[..., Any]


@pytest.fixture
def make_job(scene: Scene, client) -> Callable[..., int]:
    """Return what makes a job whose runs wait at the gate."""

    def make(**settings: Any) -> int:
        task = {"task_key": "main", "notebook_task": scene.notebook("dbutils.notebook.exit('done')")}
        return client.create_job({"name": "nightly", "tasks": [task], "timeout_seconds": 20, **settings})

    return make


@pytest.fixture
def job(make_job: Callable[..., int]) -> int:
    return make_job(max_concurrent_runs=2, queue={"enabled": False})


@pytest.fixture
def make(scene: Scene, job: int, deferrable: bool) -> Make:
    scene.ti.retries = scene.ti.max_tries = 2
    defaults = {"job_id": job, "cancel_previous_runs": True, "deferrable": deferrable, "retries": 2}
    return lambda **parameters: run_now(**{**defaults, **parameters})


def result(client: Any, run_id: int) -> str | None:
    return wait_for_run(client, run_id, period=FAST).state.result_state


class TestFirstTry:
    @pytest.mark.parametrize("by_name", [False, True])
    def test_cancels_active_runs_and_waits_for_their_end(self, scene, client, make_job, deferrable, by_name):
        # One run at a time: while another one is still ending, the new one would be skipped.
        jobs = make_job(max_concurrent_runs=1, queue={"enabled": False}), make_job(name="another")
        before, elsewhere = (client.run_now({"job_id": job_id}) for job_id in jobs)
        scene.ti.at_link = scene.open_gate
        which = {"job_name": "nightly"} if by_name else {"job_id": jobs[0]}
        assert scene.run_task(lambda: run_now(**which, cancel_previous_runs=True, deferrable=deferrable)) == "done"
        assert (result(client, before), result(client, elsewhere)) == ("CANCELED", "SUCCESS")

    def test_cancels_nothing_by_default(self, scene, client, make, job):
        before = client.run_now({"job_id": job})
        scene.ti.at_link = scene.open_gate
        assert scene.run_task(lambda: make(cancel_previous_runs=False)) == "done"
        assert result(client, before) == "SUCCESS"

    def test_cancels_even_if_the_task_does_not_wait(self, scene, client, make, job):
        before = client.run_now({"job_id": job})
        make(wait_for_termination=False).execute(scene.context)
        assert result(client, before) == "CANCELED"
        assert not client.get_run(scene.ti.xcom["run_id"]).is_terminal

    def test_needs_a_job(self, scene, make):
        with pytest.raises(ConfigurationError, match="cancel_previous_runs needs the job"):
            make(job_id=None, validate=False).execute(scene.context)


class TestCancelPreviousRuns:
    def test_refused_cancellation_fails_the_task_at_once(self, scene, client, make, job):
        client.run_now({"job_id": job})
        launches = scene.launches()
        scene.workspace.faults.append(Fault("runs/cancel", status=403, body={"message": "not yours"}))
        with pytest.raises(PermissionDenied, match="not yours"):
            make().execute(scene.context)
        assert scene.launches() == launches

    def test_continues_when_one_cancellation_is_refused(self, scene, client, make_job):
        job_id = make_job(max_concurrent_runs=3)
        runs = sorted(client.run_now({"job_id": job_id}) for _ in range(3))
        scene.workspace.faults.append(Fault("runs/cancel", status=403, body={"message": "not yours"}))
        with pytest.raises(
            PermissionDenied, match=r"Previous runs could not be cancelled: (\d+)\. .*not yours"
        ) as error:
            cancel_previous_runs(client, job_id, period=FAST)
        (left,) = (run_id for run_id in runs if f" {run_id}." in str(error.value))
        assert [result(client, run_id) for run_id in runs if run_id != left] == ["CANCELED"] * 2
        assert error.value.status == 403
        assert not client.get_run(left).is_terminal
        client.cancel_run(left)

    def test_retries_a_failed_cancellation_after_the_others(self, scene, client, make_job, monkeypatch):
        job_id = make_job(max_concurrent_runs=3)
        runs = [client.run_now({"job_id": job_id}) for _ in range(3)]
        blip = Fault("runs/cancel", status=503, times=2)
        scene.workspace.faults.append(blip)
        asked: list[int] = []
        cancel_run = JobsClient.cancel_run

        def watched(self: JobsClient, run_id: int) -> None:
            asked.append(run_id)
            cancel_run(self, run_id)

        monkeypatch.setattr(JobsClient, "cancel_run", watched)
        cancel_previous_runs(client, job_id, period=FAST)
        assert asked[:3] == sorted(runs, reverse=True)
        assert asked[3:] == asked[:2], "those that failed, after all others were tried"
        assert blip.times == 0
        assert [result(client, run_id) for run_id in runs] == ["CANCELED"] * 3

    def test_continues_when_one_cancellation_times_out(self, scene, make_job, monkeypatch):
        clock = FastTime(monkeypatch)
        client = DatabricksJobsHook().get_conn()
        job_id = make_job(max_concurrent_runs=3)
        silent, late, refused = runs = sorted((client.run_now({"job_id": job_id}) for _ in range(3)), reverse=True)
        asked: list[int] = []

        def cancel_run(_: JobsClient, run_id: int) -> None:
            asked.append(run_id)
            if run_id == refused:
                raise PermissionDenied("POST jobs/runs/cancel", 403, "PERMISSION_DENIED", "not yours")
            if run_id == silent or asked.count(run_id) == 1:
                raise ServerError("POST jobs/runs/cancel", 500, "INTERNAL_ERROR", "no")

        with monkeypatch.context() as without_answers:
            without_answers.setattr(JobsClient, "cancel_run", cancel_run)
            began = clock.now
            with pytest.raises(PermissionDenied, match=rf"could not be cancelled: {refused}\. .*not yours") as error:
                cancel_previous_runs(client, job_id)
            assert isinstance(error.value.__cause__, PermissionDenied)
            assert asked == [*runs, silent, late]
            assert clock.now - began < 60
            asked.clear()
            refused = 0
            # The last one is answered by now, and the first never is.
            with pytest.raises(
                RunLost, match=rf"could not be cancelled: {silent}\. .* Cancelling run {silent} failed for"
            ):
                cancel_previous_runs(client, job_id)
            assert [asked.count(run_id) for run_id in runs[1:]] == [2, 2]
            assert 3600 <= clock.now - began < 3600 + 200
        scene.open_gate()

    def test_costs_one_request_if_there_is_no_active_run(self, scene, client, job):
        scene.workspace.requests.clear()
        cancel_previous_runs(client, job)
        assert scene.workspace.requests == {"runs/list": 1}

    @pytest.mark.parametrize("deleted", [True, False])
    def test_ignores_a_run_deleted_while_it_is_waited_for(self, scene, client, job, deleted):
        client.run_now({"job_id": job})
        gone = {"error_code": "RESOURCE_DOES_NOT_EXIST"} if deleted else {"error_code": "A_CODE_OF_2031"}
        scene.workspace.faults.append(Fault("runs/get", status=400, body=gone))
        if deleted:
            cancel_previous_runs(client, job, period=FAST)
        else:
            with pytest.raises(RunLost):
                cancel_previous_runs(client, job, period=FAST)

    def test_ignores_a_run_deleted_before_it_is_cancelled(self, scene, client, job):
        client.run_now({"job_id": job})
        gone = {"error_code": "RESOURCE_DOES_NOT_EXIST"}
        scene.workspace.faults += [Fault(call, status=400, body=gone) for call in ("runs/cancel", "runs/get")]
        cancel_previous_runs(client, job, period=FAST)
        assert scene.workspace.requests["runs/cancel"] == scene.workspace.requests["runs/get"] == 1
        scene.open_gate()


class TestLaterTry:
    def test_cancels_older_runs_and_joins_its_own(self, scene, client, make, job):
        older = client.run_now({"job_id": job})
        scene.later(10)
        scene.dag_run.start_date = datetime.now(UTC) + timedelta(seconds=5)
        own = scene.lose_worker(lambda: make(cancel_previous_runs=False))
        scene.next_try()
        scene.ti.at_link = scene.open_gate
        assert scene.run_task(make) == "done"
        assert scene.ti.xcom["run_id"] == own
        assert (result(client, older), result(client, own)) == ("CANCELED", "SUCCESS")

    def test_cancels_nothing_without_a_dag_run_start(self, scene, client, make, job):
        older = client.run_now({"job_id": job})
        scene.later(10)
        scene.dag_run.start_date = None
        own = scene.lose_worker(lambda: make(cancel_previous_runs=False))
        scene.next_try()
        scene.ti.at_link = scene.open_gate
        assert scene.run_task(make) == "done"
        assert [result(client, run_id) for run_id in (older, own)] == ["SUCCESS", "SUCCESS"]

    def test_keeps_other_runs_when_the_joined_one_is_cancelled(self, scene, client, make, job):
        joined = scene.lose_worker(make)
        scene.next_try()
        other = client.run_now({"job_id": job})

        def cancel() -> None:
            scene.ti.at_link = scene.open_gate
            client.cancel_run(joined)

        scene.ti.at_link = cancel
        assert scene.run_task(make) == "done"
        assert result(client, other) == "SUCCESS"

    def test_keeps_a_run_it_can_join_if_clocks_differ(
        self, scene: Scene, client: JobsClient, make: Make, job: int
    ) -> None:
        scene.later(-30)
        scene.dag_run.start_date = datetime.now(UTC) - timedelta(seconds=5)
        own = scene.lose_worker(make)
        scene.next_try()
        scene.ti.at_link = scene.open_gate
        scene.run_task(lambda: make(polling_period_seconds=FAST))
        assert [run.run_id for run in client.list_runs(job_id=job)] == [own]
