"""The run-now operator: a failed run is repaired, in both modes, and however often the worker is lost."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from airflow_context import FAST, FastTime, Scene, WorkerLost, connect, run_now
from injected_clock import shorten_waits

from airflow_dbjobs.client import JobsClient
from airflow_dbjobs.client.models import Run
from airflow_dbjobs.client.wait import wait_for_run
from airflow_dbjobs.errors import ConfigurationError, JobsError, RunCanceled, RunFailed, Unreachable, UserCodeFailed
from airflow_dbjobs.local_workspace import Fault
from airflow_dbjobs.runs.repair import RunRepairer

if TYPE_CHECKING:
    from collections.abc import Callable

    Make = Callable[..., Any]

# Each run of it leaves its parameter in a file; the first ones fail, as many as another file says, and from the second
# on they wait at the gate.
CODE = """
import pathlib, time
log = pathlib.Path("{key}.log")
with log.open("a") as file:
    file.write(dbutils.widgets.get("day") + "\\n")
runs = len(log.read_text().splitlines())
while runs > 1 and not pathlib.Path("gate").exists():
    time.sleep(0.01)
if runs <= int(pathlib.Path("failures").read_text()) and "{key}" == "load":
    raise ValueError("no rows")
dbutils.notebook.exit("of run " + str(runs))
"""
DAY = {"day": "monday"}


@pytest.fixture
def job(scene: Scene, client: JobsClient) -> int:
    """Return a job whose first task fails once; one depends on it, one stands alone."""
    tasks = [
        {"task_key": key, "notebook_task": scene.notebook(CODE.replace("{key}", key), key, gated=False)}
        for key in ("load", "report", "other")
    ]
    tasks[1]["depends_on"] = [{"task_key": "load"}]
    (scene.root / "failures").write_text("1")
    return client.create_job({"name": "nightly", "tasks": tasks, "timeout_seconds": 30})


@pytest.fixture
def make(scene: Scene, job: int, deferrable: bool) -> Make:
    """Return what makes the operator, as each of the task's processes does."""
    scene.ti.retries = scene.ti.max_tries = 2
    defaults = {"job_id": job, "job_parameters": DAY, "repair_run": True, "deferrable": deferrable, "retries": 2}
    return lambda **parameters: run_now(**{**defaults, **parameters})


def ran(scene: Scene, key: str) -> list[str]:
    """Return with which parameters a task ran, each time."""
    file = scene.root / f"{key}.log"
    return file.read_text().splitlines() if file.exists() else []


def repairs(scene: Scene, client: JobsClient) -> int:
    """Return how often the task's only run was repaired."""
    (run,) = client.list_runs()
    assert run.run_id == scene.ti.xcom["run_id"]
    history = client.get_run(run.run_id, include_history=True).raw["repair_history"]
    return sum(item["type"] == "REPAIR" for item in history)


def lose_worker_at_the_repair(scene: Scene, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    repair_run = JobsClient.repair_run

    def lost(client: JobsClient, payload: Any) -> int:
        repair_run(client, payload)
        raise WorkerLost

    with monkeypatch.context() as patch:
        patch.setattr(JobsClient, "repair_run", lost)
        with pytest.raises(WorkerLost):
            scene.run_task(make)


class TestLaterTry:
    def test_joins_the_repair_of_a_lost_worker(self, scene, client, make, monkeypatch):
        lose_worker_at_the_repair(scene, make, monkeypatch)
        scene.next_try()
        scene.ti.at_link = scene.open_gate
        assert scene.run_task(make)["load"] == "of run 2"
        assert repairs(scene, client) == 1

    def test_counts_repairs_of_earlier_tries(self, scene, client, make, monkeypatch):
        (scene.root / "failures").write_text("9")
        lose_worker_at_the_repair(scene, make, monkeypatch)
        scene.next_try()
        scene.ti.at_link = scene.open_gate
        with pytest.raises(UserCodeFailed):
            scene.run_task(make)
        assert (repairs(scene, client), len(ran(scene, "load"))) == (1, 2)

    def test_launches_after_all_repairs_were_made(self, scene, client, make):
        (scene.root / "failures").write_text("2")
        scene.open_gate()
        with pytest.raises(UserCodeFailed):
            scene.run_task(make)
        scene.next_try()
        assert scene.run_task(make)["load"] == "of run 3"
        assert len(list(client.list_runs())) == 2

    def test_after_a_clear_cancels_the_repair(self, scene, client, make, monkeypatch):
        shorten_waits(monkeypatch, FAST)
        lose_worker_at_the_repair(scene, make, monkeypatch)
        before = scene.ti.xcom["run_id"]
        scene.next_try(cleared=True)
        scene.ti.at_link = scene.open_gate
        scene.run_task(make)
        assert client.get_run(before).state.result_state == "CANCELED"
        assert scene.ti.xcom["run_id"] != before

    def test_launches_instead_of_repairing_an_earlier_failure(self, scene, client, make):
        failed = scene.lose_worker(make)
        wait_for_run(client, failed, period=FAST)
        scene.next_try()
        scene.open_gate()
        assert scene.run_task(make)["load"] == "of run 2"
        assert sorted(run.run_id for run in client.list_runs()) == [failed, scene.ti.xcom["run_id"]]
        assert scene.workspace.requests["runs/repair"] == 0


class TestKillDuringRepair:
    @pytest.mark.parametrize("moment", ["before", "after"])
    def test_leaves_nothing_running(self, scene, client, job, monkeypatch, moment):
        operator = run_now(job_id=job, job_parameters=DAY, repair_run=True)
        repair_run = JobsClient.repair_run
        monkeypatch.setattr("airflow_dbjobs.runs.cancel_on_kill._REPEATED_CANCELLATIONS", 1)

        def killed_meanwhile(client: JobsClient, payload: Any) -> int:
            if moment == "before":
                operator.on_kill()
            made = repair_run(client, payload)
            if moment == "after":
                operator.on_kill()
            return made

        monkeypatch.setattr(JobsClient, "repair_run", killed_meanwhile)
        with pytest.raises(JobsError, match="stopped the task"):
            operator.execute(scene.context)
        run = wait_for_run(client, scene.ti.xcom["run_id"], period=FAST)
        assert run.state.result_state == "CANCELED"

    def test_ignores_a_failed_repeated_cancellation(self, scene, client, job, monkeypatch, capfd):
        operator = run_now(job_id=job, job_parameters=DAY, repair_run=True)
        repair_run = JobsClient.repair_run

        def killed_meanwhile(client: JobsClient, payload: Any) -> int:
            made = repair_run(client, payload)
            scene.workspace.faults.append(Fault("runs/cancel", status=403, skip=1, times=None))
            operator.on_kill()
            scene.workspace.faults.clear()
            return made

        monkeypatch.setattr(JobsClient, "repair_run", killed_meanwhile)
        with pytest.raises(JobsError, match="stopped the task"):
            operator.execute(scene.context)
        said = capfd.readouterr().out
        assert "The API accepted the cancellation of run" in said
        assert "could not be cancelled" not in said

    def test_ends_with_a_failed_repair(self, scene, client, job, monkeypatch):
        operator = run_now(job_id=job, job_parameters=DAY, repair_run=True)
        monkeypatch.setattr("airflow_dbjobs.runs.repair.RunRepairer.repair", mock.Mock(side_effect=JobsError("no")))
        with pytest.raises(JobsError, match="no"):
            operator.execute(scene.context)
        before = scene.workspace.requests["runs/cancel"]
        operator.on_kill()
        assert scene.workspace.requests["runs/cancel"] == before + 1

    def test_prevents_a_repair_that_was_not_sent(self, scene, client, job, monkeypatch):
        operator = run_now(job_id=job, job_parameters=DAY, repair_run=True)
        get_run = JobsClient.get_run

        def killed_meanwhile(client: JobsClient, run_id: int, **options: Any) -> Run:
            if options:
                operator.on_kill()
            return get_run(client, run_id, **options)

        monkeypatch.setattr(JobsClient, "get_run", killed_meanwhile)
        with pytest.raises(JobsError, match="stopped the task"):
            operator.execute(scene.context)
        monkeypatch.undo()
        assert scene.workspace.requests["runs/repair"] == 0


def reply(life: str, result: str | None = None, *history: dict[str, Any]) -> Fault:
    tasks = [{"task_key": "a", "run_id": 8, "state": {"life_cycle_state": "TERMINATED", "result_state": "FAILED"}}]
    state = {"life_cycle_state": life, "result_state": result}
    body = {
        "run_id": 7,
        "job_id": 3,
        "state": state,
        "tasks": tasks,
        "repair_history": [{"type": "ORIGINAL"}, *history],
    }
    return Fault("runs/get", status=200, body=body)


def item(life: str, result: str | None = None) -> dict[str, Any]:
    return {"id": 77, "type": "REPAIR", "state": {"life_cycle_state": life, "result_state": result}}


FAILED = Run.from_json(reply("INTERNAL_ERROR", "FAILED").body)


@pytest.fixture
def repaired(client: JobsClient, scene: Scene) -> Callable[..., Run | None]:
    """Return what repairs run 7, which has failed, while the API answers so."""

    def repair(*answers: Fault, most: int = 5, run: Run = FAILED) -> Run | None:
        scene.workspace.faults += answers
        repairer = RunRepairer(
            client, dict, max_repairs=most, settings_by_reason=None, period=FAST, is_killed=lambda: False
        )
        return repairer.repair(run)

    return repair


class TestRepair:
    def test_reruns_failed_tasks_with_the_same_parameters(self, scene, client, make, caplog):
        caplog.set_level("INFO")
        scene.open_gate()
        value = scene.run_task(make)
        assert value == {"load": "of run 2", "report": "of run 1", "other": "of run 1"}
        assert {key: ran(scene, key) for key in ("load", "report", "other")} == {
            "load": ["monday", "monday"],
            "report": ["monday"],
            "other": ["monday"],
        }
        assert (repairs(scene, client), scene.launches()) == (1, 1)
        told = caplog.text
        assert "ValueError: no rows" in told
        assert f"Repairing run {scene.ti.xcom['run_id']} (1 of at most 1): load" in told
        assert [deferral.kwargs["joined"] for deferral in scene.deferrals] == [False, False][: 2 * scene.ti.deferred]

    @pytest.mark.parametrize("most", [1, 2])
    def test_is_made_at_most_max_repairs_times(self, scene, client, make, most):
        (scene.root / "failures").write_text("9")
        scene.open_gate()
        with pytest.raises(UserCodeFailed, match="no rows"):
            scene.run_task(lambda: make(max_repairs=most))
        assert (repairs(scene, client), scene.launches(), len(ran(scene, "load"))) == (most, 1, 1 + most)

    def test_is_not_made_by_default(self, scene, client, make):
        with pytest.raises(RunFailed, match="no rows"):
            scene.run_task(lambda: make(repair_run=False))
        assert repairs(scene, client) == 0

    def test_is_not_made_if_the_task_does_not_wait(self, scene, client, make):
        assert make(wait_for_termination=False).execute(scene.context) is None
        wait_for_run(client, scene.ti.xcom["run_id"], period=FAST)
        assert repairs(scene, client) == 0

    def test_respects_do_xcom_push_false(self, scene, make):
        scene.open_gate()
        assert scene.run_task(lambda: make(do_xcom_push=False)) is None
        assert scene.ti.xcom == {}
        assert len(ran(scene, "load")) == 2

    @pytest.mark.parametrize("given", [{}, {"databricks_repair_reason_new_settings": None}])
    def test_sends_the_other_launch_parameters_again(self, scene, make, given):
        scene.open_gate()
        scene.run_task(lambda: make(job_parameters=None, notebook_params={"day": "friday"}, **given))
        assert ran(scene, "load") == ["friday", "friday"]

    def test_is_not_made_for_a_cancelled_run(self, scene, client, make):
        (scene.root / "load.log").write_text("monday\n")  # it waits at the gate
        scene.ti.at_link = lambda: client.cancel_run(scene.ti.xcom["run_id"])
        with pytest.raises(RunCanceled):
            scene.run_task(make)
        assert repairs(scene, client) == 0

    def test_that_is_cancelled_is_not_followed_by_a_run(self, scene, client, make, monkeypatch):
        # Not even where the run itself was joined.
        run_id = scene.lose_worker(make)
        scene.next_try()
        repair_run = JobsClient.repair_run

        def cancelled_at_once(client: JobsClient, payload: Any) -> int:
            made = repair_run(client, payload)
            client.cancel_run(run_id)
            return made

        monkeypatch.setattr(JobsClient, "repair_run", cancelled_at_once)
        with pytest.raises(RunCanceled):
            scene.run_task(make)
        assert repairs(scene, client) == 1

    @pytest.mark.parametrize(
        "state",
        [("TERMINATED", "SUCCESS"), ("TERMINATED", "CANCELED"), ("SKIPPED", None)],
        ids=lambda state: str(state[1]),
    )
    def test_is_made_only_for_failures(self, scene, repaired, state):
        assert repaired(run=Run.from_json(reply(*state).body)) is None
        assert not scene.workspace.requests

    @pytest.mark.parametrize("state", [("TERMINATED", "TIMEDOUT"), ("TERMINATED", "SUCCESS_WITH_FAILURES")], ids=str)
    def test_is_made_for_timeouts_and_rejected_partial_success(self, scene, repaired, state):
        failed = [reply(*state) for _ in range(2)]
        made = Fault("runs/repair", status=200, body={"repair_id": 78})
        assert repaired(made, *failed, reply("RUNNING"), run=Run.from_json(failed[0].body))
        assert scene.workspace.requests["runs/repair"] == 1

    def test_is_not_made_for_an_accepted_partial_success(self, scene, client, deferrable):
        unequal = {"op": "LESS_THAN", "left": "one", "right": "2"}
        equal = {"op": "EQUAL_TO", "left": "1", "right": "1"}
        late = {"depends_on": [{"task_key": "a"}], "run_if": "ALL_DONE"}
        tasks = [{"task_key": "a", "condition_task": unequal}, {"task_key": "b", "condition_task": equal, **late}]
        job_id = client.create_job({"name": "partly", "tasks": tasks})
        make = partial(run_now, job_id=job_id, repair_run=True, deferrable=deferrable)
        assert scene.run_task(make) == {"b": "true"}
        assert repairs(scene, client) == 0

    def test_with_api_2_0_is_an_error_before_the_launch(self, scene, monkeypatch):
        connect(monkeypatch, scene.workspace.base_url, scene.workspace.token, extra={"api_version": "2.0"})
        with pytest.raises(ConfigurationError, match=r"repair_run needs api_version 2.1 or 2.2"):
            run_now(job_id=1, repair_run=True).execute(scene.context)
        assert not scene.workspace.requests

    def test_is_made_for_the_run_of_a_users_token(self, scene, client, make):
        run_id = scene.lose_worker(lambda: make(idempotency_token="mine"))
        wait_for_run(client, run_id, period=FAST)
        scene.next_try()
        scene.open_gate()
        assert scene.run_task(lambda: make(idempotency_token="mine"))["load"] == "of run 2"
        assert repairs(scene, client) == 1


class TestUnclearRepair:
    def test_with_a_lost_reply_is_made_once(self, scene, client, job, monkeypatch):
        FastTime(monkeypatch)
        scene.open_gate()
        scene.workspace.faults.append(Fault("runs/repair", cut="after"))
        scene.run_task(lambda: run_now(job_id=job, job_parameters=DAY, repair_run=True))
        assert (repairs(scene, client), ran(scene, "load")) == (1, ["monday", "monday"])

    def test_that_is_refused_leaves_the_runs_own_failure(self, scene, client, make, caplog):
        scene.workspace.faults.append(Fault("runs/repair", status=403, body={"message": "not yours"}))
        with pytest.raises(UserCodeFailed, match="no rows"):
            scene.run_task(make)
        assert repairs(scene, client) == 0
        assert "could not be repaired, so its task fails: POST jobs/runs/repair answered 403: not yours" in caplog.text

    def test_that_is_not_visible_yet_is_waited_for(self, scene, repaired):
        run = repaired(reply("INTERNAL_ERROR", "FAILED", item("RUNNING")), reply("RUNNING"))
        assert not run.is_terminal
        assert scene.workspace.requests["runs/repair"] == 0

    @pytest.mark.parametrize("answer", [("RUNNING",), ("TERMINATED", "SUCCESS"), ("TERMINATED", "CANCELED")], ids=str)
    def test_by_somebody_else_is_waited_for(self, scene, repaired, answer):
        run = repaired(reply(*answer))
        assert str(run.state) == "/".join(answer)
        assert scene.workspace.requests["runs/repair"] == 0

    def test_refused_because_of_another_one_joins_that(self, scene, repaired):
        refusal = Fault("runs/repair", status=400, body={"message": "The run is in progress."})
        failed = [reply("INTERNAL_ERROR", "FAILED") for _ in range(2)]
        run = repaired(refusal, *failed, reply("RUNNING"))
        assert not run.is_terminal

    def test_with_a_reply_lost_until_its_end_counts(
        self, scene: Scene, make: Make, job: int, client: JobsClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (scene.root / "gate").touch()
        repair_run = JobsClient.repair_run

        def lost(self: JobsClient, body: Any) -> int:
            repair_run(self, body)
            wait_for_run(self, body["run_id"], period=FAST)
            raise Unreachable("the outage outlasts the repair")

        monkeypatch.setattr(JobsClient, "repair_run", lost)
        assert scene.run_task(lambda: make(polling_period_seconds=FAST))["load"] == "of run 2"
        assert [str(run.state) for run in client.list_runs(job_id=job)] == ["TERMINATED/SUCCESS"]


class TestReasons:
    def test_have_their_settings_written_to_the_job(self, scene, client, make, job):
        scene.open_gate()
        settings = {"no such words": {"timeout_seconds": 21}, "task load": {"timeout_seconds": 22}}
        scene.run_task(lambda: make(databricks_repair_reason_new_settings=settings))
        assert client.get_job(job)["settings"]["timeout_seconds"] == 22
        assert client.get_job(job)["settings"]["name"] == "nightly"
        assert repairs(scene, client) == 1

    def test_limit_repairs_to_matching_runs(self, scene, client, make, job):
        settings = {"no such words": {"timeout_seconds": 21}}
        with pytest.raises(UserCodeFailed, match="no rows"):
            scene.run_task(lambda: make(databricks_repair_reason_new_settings=settings))
        assert (repairs(scene, client), client.get_job(job)["settings"]["timeout_seconds"]) == (0, 30)

    def test_without_repair_run_are_a_warning(self, capfd):
        reasons = {"no rows": {"timeout_seconds": 60}}
        run_now(job_id=1, databricks_repair_reason_new_settings=reasons, repair_run=True)
        assert "databricks_repair_reason_new_settings" not in capfd.readouterr().out
        run_now(job_id=1, databricks_repair_reason_new_settings=reasons)
        assert (
            "load: databricks_repair_reason_new_settings has no effect without repair_run=True."
            in capfd.readouterr().out
        )

    @pytest.mark.parametrize(
        "reasons", ["no rows", ["no rows"], {"no rows": "timeout_seconds"}, {"no rows": None}], ids=str
    )
    def test_of_the_wrong_type_are_a_dag_error(self, reasons):
        with pytest.raises(ValueError, match="databricks_repair_reason_new_settings must map each reason"):
            run_now(job_id=1, repair_run=True, databricks_repair_reason_new_settings=reasons)

    def test_without_settings_write_nothing(self, scene, client, make, job):
        (scene.root / "gate").touch()
        make_ = partial(make, databricks_repair_reason_new_settings={"": {}}, polling_period_seconds=FAST)
        assert scene.run_task(make_)["load"] == "of run 2"
        assert scene.workspace.requests["update"] == 0
