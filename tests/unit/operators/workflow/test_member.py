"""Members of a workflow group: each is one task of the group's run, over all of its tries."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from airflow import DAG
from airflow_context import FAST, WorkerLost, fire, until
from group_scene import TOKEN, GroupScene, MemberInstance, running
from injected_clock import rule_all, shorten_waits

from airflow_dbjobs.airflow_compat import AIRFLOW_V_3_0_PLUS, AirflowSkipException, AirflowTaskTimeout
from airflow_dbjobs.client import JobsClient
from airflow_dbjobs.errors import (
    ApiError,
    BadRequest,
    ConfigurationError,
    JobsError,
    PermissionDenied,
    RunFailed,
    RunLost,
    RunSkipped,
)
from airflow_dbjobs.local_workspace import Fault
from airflow_dbjobs.operators import DatabricksNotebookOperator, DatabricksWorkflowTaskGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pytest_mock import MockerFixture


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mocker: MockerFixture) -> Iterator[GroupScene]:
    # What is waited for in vain takes a moment here, rather than seconds.
    shorten_waits(monkeypatch, FAST)
    monkeypatch.setattr("airflow_dbjobs.operators.workflow.member._SETTLING_SECONDS", 5 * FAST)
    yield from running(tmp_path / "scripted", monkeypatch, mocker)


@pytest.fixture
def api(group: GroupScene) -> JobsClient:
    return JobsClient(group.workspace.base_url, token=TOKEN)


@pytest.fixture
def flaky(group: GroupScene, deferrable: bool) -> GroupScene:
    """Return a group of extract >> flaky >> load, launched; the first attempt at `flaky` fails, and so does its try."""
    group.add("extract", deferrable=deferrable)
    group.add("flaky", after=("extract",), retries=2, deferrable=deferrable)
    group.add("load", after=("flaky",), deferrable=deferrable)
    group.executor.failures["flaky"] = 1
    group.launch()
    group.run("extract")
    with pytest.raises(RunFailed):
        group.run("flaky")
    return group


@pytest.fixture
def siblings(group: GroupScene, deferrable: bool) -> GroupScene:
    """Return a group of two members that fail once, and have failed; only the first has a retry."""
    group.add("one", retries=1, deferrable=deferrable)
    group.add("two", retries=1, deferrable=deferrable)
    group.executor.failures.update(one=1, two=1)
    group.launch()
    for name in ("one", "two"):
        with pytest.raises(RunFailed):
            group.run(name)
    return group


def lose_worker(group: GroupScene, name: str, monkeypatch: pytest.MonkeyPatch, at: str, *, after: bool = False) -> None:
    """Run a try of a task whose worker is lost at a call of the client, or after the API has handled it."""
    call: Callable[..., Any] = getattr(JobsClient, at)

    def lost(*args: Any, **kwargs: Any) -> None:
        if after:
            call(*args, **kwargs)
        raise WorkerLost

    with monkeypatch.context() as patch:
        patch.setattr(JobsClient, at, lost)
        with pytest.raises(WorkerLost):
            group.run(name)
    group.states[f"etl.{name}"] = "up_for_retry"


class TestFirstTry:
    def test_returns_the_result_of_its_task(self, group: GroupScene, api: JobsClient, deferrable: bool) -> None:
        group.add("extract", deferrable=deferrable)
        group.add("load", after=("extract",), deferrable=deferrable)
        run_id = group.launch()
        assert group.run("extract") == {"attempt": 0}
        assert group.run("load") == {"attempt": 0}
        task = group.task(api, "load")
        assert group.xcoms["etl.load", "run_id"] == task.run_id != run_id
        assert group.xcoms["etl.load", "run_page_url"] == group.xcoms["etl.load", "_link_DatabricksRunLink"]
        assert group.operators["load"].run_page_url == task.page_url

    def test_fails_as_its_task_does(self, group: GroupScene, api: JobsClient, deferrable: bool) -> None:
        group.add("extract", deferrable=deferrable)
        group.executor.failures["extract"] = 1
        group.launch()
        with pytest.raises(RunFailed) as failure:
            group.run("extract")
        assert failure.value.run_id == group.task(api, "extract").run_id
        assert group.repairs(api) == []

    def test_has_the_key_with_which_the_job_was_made(self, group: GroupScene) -> None:
        group.add("load")
        group.launch()
        operator = group.dag().get_task("etl.load").prepare_for_execution()
        # As a template in its settings may be rendered.
        operator._given_task_key = "rendered"
        assert operator.execute({"ti": MemberInstance(group, "etl.load", 0)}) == {"attempt": 0}

    def test_ends_before_its_siblings(self, group: GroupScene, api: JobsClient, deferrable: bool) -> None:
        group.add("fast", deferrable=deferrable)
        group.add("slow")
        group.executor.held.add("slow")
        group.launch()
        assert group.run("fast") == {"attempt": 0}
        assert not group.task(api, "slow").state.is_terminal

    def test_takes_the_last_of_databricks_own_retries(
        self, group: GroupScene, api: JobsClient, deferrable: bool
    ) -> None:
        group.add("flaky", max_retries=1, deferrable=deferrable)
        group.executor.failures["flaky"] = 1
        group.launch()
        assert group.run("flaky") == {"attempt": 1}
        assert group.xcoms["etl.flaky", "run_id"] == group.task(api, "flaky").run_id
        assert group.repairs(api) == []

    @pytest.mark.parametrize("state", ["skipped", "success"])
    def test_is_skipped_if_no_run_is_wanted(self, group: GroupScene, state: str) -> None:
        group.add("load")
        group.states["etl.launch"] = state
        with pytest.raises(AirflowSkipException, match=r"etl\.launch launched no run"):
            group.run("load")

    def test_fails_if_nothing_launches_the_group(self, group: GroupScene) -> None:
        with DAG("nightly", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
            etl = DatabricksWorkflowTaskGroup(group_id="etl")
            load = DatabricksNotebookOperator(task_id="load", notebook_path="/load", task_group=etl)
        with pytest.raises(ConfigurationError, match=r"no task etl\.launch: the DAG file never entered"):
            load.execute({"ti": MemberInstance(group, "etl.load", 0)})  # type: ignore[typeddict-item]

    @pytest.mark.parametrize("states", [{"etl.launch": "failed"}, {"etl.launch": "running"}, {}])
    def test_fails_if_no_run_was_launched(self, group: GroupScene, states: dict[str, str]) -> None:
        group.add("load", trigger_rule="all_done")
        group.states.update(states)
        state = states.get("etl.launch", "gone")
        with pytest.raises(JobsError, match=rf"etl\.launch launched no run.* is {state}\. Clear it"):
            group.run("load")

    @pytest.mark.parametrize("rendered", [None, "", "None"])
    def test_is_skipped_if_the_run_it_is_given_is_none(self, group: GroupScene, rendered: Any) -> None:
        run = group.outside("load", workflow_run_metadata="{{ ti.xcom_pull('launch') }}")
        run.keywords["rendered"] = rendered
        with pytest.raises(AirflowSkipException, match="no run"):
            run()
        assert not group.workspace.requests["runs/submit"]

    @pytest.mark.parametrize("metadata", [{"job_id": 5}, {"run_id": "five"}, "{'job_id': 5}"])
    def test_in_a_run_that_is_not_named_is_an_error(self, group: GroupScene, metadata: Any) -> None:
        with pytest.raises(ConfigurationError, match="must have a run_id"):
            group.outside("load", workflow_run_metadata=metadata)()

    def test_is_skipped_if_databricks_skips_the_task(
        self, group: GroupScene, api: JobsClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        group.add("load")
        group.launch()
        group.run("load")
        get_run = JobsClient.get_run

        def excluded(client: JobsClient, run_id: int, **kwargs: Any) -> Any:
            run = get_run(client, run_id, **kwargs)
            run.raw["tasks"][0]["state"] = {
                "life_cycle_state": "SKIPPED", "result_state": "EXCLUDED", "state_message": "branch not taken"
            }  # fmt: skip
            return type(run).from_json(run.raw)

        monkeypatch.setattr(JobsClient, "get_run", excluded)
        group.instances.clear()
        with pytest.raises(AirflowSkipException, match=r"skipped task load .*branch not taken"):
            group.run("load")

    def test_that_the_run_lacks_is_an_error(self, group: GroupScene, deferrable: bool) -> None:
        group.add("extract")
        group.launch()
        group.add("late", deferrable=deferrable)
        with pytest.raises(ConfigurationError, match=r"no task 'late'.*clear etl\.launch"):
            group.run("late")

    def test_of_a_deleted_run_is_an_error(self, group: GroupScene, api: JobsClient, deferrable: bool) -> None:
        group.add("load", deferrable=deferrable)
        group.launch()
        group.run("load")
        api.delete_run(group.run_id)
        with pytest.raises(RunLost, match=r"no longer exists.*clear etl\.launch"):
            group.run("load")

    def test_of_a_run_that_is_deleted_meanwhile_is_an_error(self, group: GroupScene, api: JobsClient) -> None:
        group.add("load", deferrable=True)
        group.executor.held.add("load")
        group.launch()
        group.begin("load")
        api.cancel_run(group.run_id)
        api.wait_for_run(group.run_id, timeout=20, period=FAST)
        api.delete_run(group.run_id)
        with pytest.raises(RunLost, match=r"no longer exists.*clear etl\.launch"):
            group.resume("load")

    @pytest.mark.parametrize("on_skipped", ["fail", "skip"])
    @pytest.mark.parametrize("shows_tasks", [True, False])
    def test_of_a_run_that_never_started_ends_as_on_skipped_says(
        self,
        group: GroupScene,
        monkeypatch: pytest.MonkeyPatch,
        deferrable: bool,
        on_skipped: str,
        shows_tasks: bool,
    ) -> None:
        group.group = {"extra_job_params": {"queue": {"enabled": False}}}
        group.add("load", deferrable=deferrable, on_skipped=on_skipped)
        group.executor.held.add("load")
        group.launch()
        # Of a second DAG run.
        group.instances.clear()
        group.launch()
        get_run = JobsClient.get_run
        tasks = [{"task_key": "load", "run_id": 5, "state": {"life_cycle_state": "SKIPPED"}}] if shows_tasks else []

        def shown(client: JobsClient, run_id: int, **kwargs: Any) -> Any:
            run = get_run(client, run_id, **kwargs)
            return type(run).from_json({**run.raw, "tasks": tasks})

        monkeypatch.setattr(JobsClient, "get_run", shown)
        with pytest.raises(RunSkipped if on_skipped == "fail" else AirflowSkipException, match="max_concurrent_runs"):
            group.run("load")

    def test_waits_in_the_queue_behind_the_run_of_another_dag_run(self, group: GroupScene, api: JobsClient) -> None:
        group.add("load", deferrable=True)
        group.executor.held.add("load")
        first = group.launch()
        group.instances.clear()
        assert group.launch() != first
        group.begin("load")
        assert str(api.get_run(group.run_id).state) == "QUEUED"
        group.executor.held.clear()
        assert group.run_on("load") == {"attempt": 0}
        assert group.xcoms["etl.load", "run_id"] == group.task(api, "load").run_id

    def test_does_not_wait_if_the_user_does_not_want_that(self, group: GroupScene, api: JobsClient) -> None:
        group.add("load", wait_for_termination=False)
        group.executor.held.add("load")
        group.launch()
        assert group.run("load") is None
        assert group.xcoms["etl.load", "run_id"] == group.task(api, "load").run_id


class TestRetry:
    def test_repairs_its_task_and_what_depends_on_it(self, flaky: GroupScene, api: JobsClient) -> None:
        assert flaky.run("flaky") == {"attempt": 1}
        assert flaky.run("load") == {"attempt": 1}
        assert flaky.repairs(api) == [["flaky", "load"]]

    def test_repairs_again_after_another_failure(self, flaky: GroupScene, api: JobsClient) -> None:
        flaky.executor.failures["flaky"] = 1
        with pytest.raises(RunFailed):
            flaky.run("flaky")
        assert flaky.run("flaky") == {"attempt": 2}
        assert flaky.repairs(api) == [["flaky", "load"]] * 2

    def test_waits_for_the_end_of_the_run(self, group: GroupScene, api: JobsClient) -> None:
        group.add("flaky", retries=1, deferrable=True, max_retries=0)
        group.add("slow", deferrable=True)
        group.executor.failures["flaky"] = 1
        group.executor.held.add("slow")
        group.launch()
        group.begin("slow")
        with pytest.raises(RunFailed):
            group.run("flaky")
        group.begin("flaky")
        assert group.note("flaky")["stage"] == "wants_repair"
        assert group.workspace.requests["runs/repair"] == 0
        group.executor.held.clear()
        assert group.resume("slow") == {"attempt": 0}
        assert group.run_on("flaky") == {"attempt": 1}
        assert group.repairs(api) == [["flaky"]]

    def test_sends_the_parameters_of_the_run_again(self, group: GroupScene, api: JobsClient) -> None:
        group.add("flaky", retries=1)
        group.group = {"extra_job_params": {"parameters": [{"name": "day", "default": "monday"}]}}
        group.executor.failures["flaky"] = 1
        group.launch()
        with pytest.raises(RunFailed):
            group.run("flaky")
        with mock.patch.object(JobsClient, "repair_run", autospec=True, side_effect=JobsClient.repair_run) as repair:
            group.run("flaky")
        assert repair.call_args.args[1]["job_parameters"] == {"day": "monday"}

    def test_does_not_repair_what_databricks_did_not_run(self, flaky: GroupScene, api: JobsClient) -> None:
        """A user has marked `flaky` as a success; its dependant did not run in Databricks."""
        flaky.states["etl.flaky"] = "success"
        for _ in range(2):
            with pytest.raises(RunFailed, match=r"UPSTREAM_FAILED.*because of etl\.flaky.*Clear etl\.flaky"):
                flaky.run("load")
        assert flaky.repairs(api) == []

    def test_outside_a_group_repairs_by_the_number_of_the_try(self, group: GroupScene, api: JobsClient) -> None:
        group.add("flaky")
        group.executor.failures["flaky"] = 1
        group.launch()
        metadata = group.xcoms["etl.launch", "return_value"]
        outside = group.outside("flaky", workflow_run_metadata=metadata, retries=1, databricks_task_key="flaky")
        with pytest.raises(RunFailed):
            outside()
        assert outside() == {"attempt": 1}
        assert group.repairs(api) == [["flaky"]]


class TestSiblings:
    @pytest.mark.parametrize("state", ["up_for_retry", "scheduled", "queued"])
    def test_that_start_again_share_a_repair(self, siblings: GroupScene, api: JobsClient, state: str) -> None:
        siblings.states["etl.two"] = state
        assert siblings.run("one") == {"attempt": 1}
        assert siblings.run("two") == {"attempt": 1}
        assert siblings.repairs(api) == [["one", "two"]]

    def test_without_a_retry_are_not_repaired(self, siblings: GroupScene, api: JobsClient) -> None:
        siblings.states["etl.two"] = "failed"
        assert siblings.run("one") == {"attempt": 1}
        assert siblings.repairs(api) == [["one"]]

    def test_that_have_just_started_are_waited_for(
        self, siblings: GroupScene, api: JobsClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        siblings.states["etl.two"] = "running"
        started: list[Any] = []

        def start_other(_: float) -> None:
            if not started:
                started.append(True)
                started.append(siblings.run("two"))

        rule_all(monkeypatch, sleep=start_other)
        assert siblings.run("one") == {"attempt": 1}
        assert started == [True, {"attempt": 1}]
        assert siblings.repairs(api) == [["one", "two"]]

    def test_that_stay_undecided_make_their_own_repair(self, siblings: GroupScene, api: JobsClient) -> None:
        siblings.states["etl.two"] = "running"
        assert siblings.run("one") == {"attempt": 1}
        assert siblings.run("two") == {"attempt": 1}
        assert siblings.repairs(api) == [["one"], ["two"]]

    def test_that_repair_at_the_same_moment_make_one_repair(
        self, siblings: GroupScene, api: JobsClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        repair_run, results = JobsClient.repair_run, []

        def others_first(client: JobsClient, payload: Any) -> int:
            monkeypatch.setattr(JobsClient, "repair_run", repair_run)
            results.append(siblings.run("two"))
            return repair_run(client, payload)

        monkeypatch.setattr(JobsClient, "repair_run", others_first)
        assert siblings.run("one") == {"attempt": 1}
        assert results == [{"attempt": 1}]
        assert siblings.repairs(api) == [["one", "two"]]

    def test_whose_states_airflow_does_not_return_are_left_out(
        self, siblings: GroupScene, api: JobsClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fails() -> dict[str, str]:
            raise ConnectionError

        monkeypatch.setattr(siblings, "states_in_airflow", fails)
        assert siblings.run("one") == {"attempt": 1}
        assert siblings.repairs(api) == [["one"]]


class TestClear:
    def test_of_a_failed_member_and_its_dependants(self, flaky: GroupScene, api: JobsClient) -> None:
        flaky.states["etl.flaky"] = "failed"
        flaky.clear("flaky", "load")
        assert flaky.run("flaky") == {"attempt": 1}
        assert flaky.run("load") == {"attempt": 1}
        assert flaky.repairs(api) == [["flaky", "load"]]

    def test_of_a_success_repairs_it(self, group: GroupScene, api: JobsClient, deferrable: bool) -> None:
        group.add("extract", deferrable=deferrable)
        group.add("load", after=("extract",), deferrable=deferrable)
        group.launch()
        assert [group.run(name) for name in ("extract", "load")] == [{"attempt": 0}] * 2
        group.clear("load")
        assert group.run("load") == {"attempt": 1}
        assert group.repairs(api) == [["load"]]

    def test_of_all_failed_makes_one_repair(self, siblings: GroupScene, api: JobsClient) -> None:
        siblings.states |= {"etl.one": "failed", "etl.two": "failed"}
        siblings.clear("one", "two")
        assert [siblings.run(name) for name in ("one", "two")] == [{"attempt": 1}] * 2
        assert siblings.repairs(api) == [["one", "two"]]

    def test_of_launch_begins_a_new_run(self, flaky: GroupScene, api: JobsClient) -> None:
        first = flaky.run_id
        flaky.clear("launch", "extract", "flaky", "load")
        assert flaky.launch() != first
        assert flaky.note("flaky") is None
        assert [flaky.run(name) for name in ("extract", "flaky", "load")] == [{"attempt": 0}] * 3
        assert flaky.repairs(api) == []

    def test_of_an_active_member_cancels_its_attempt_first(self, group: GroupScene, api: JobsClient) -> None:
        group.add("load", deferrable=True)
        group.executor.held.add("load")
        group.launch()
        group.begin("load")
        old = group.task(api, "load").run_id
        # Its trigger could not cancel it.
        group.clear("load")
        group.begin("load")
        asyncio.run(until(lambda: str(api.get_run(old).state) == "TERMINATED/CANCELED"))
        group.executor.held.clear()
        assert group.run_on("load") == {"attempt": 1}
        assert group.repairs(api) == [["load"]]


class TestLostWorker:
    def test_before_its_note_changes_nothing(
        self, flaky: GroupScene, api: JobsClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lose_worker(flaky, "flaky", monkeypatch, "get_run")
        assert flaky.run("flaky") == {"attempt": 1}
        assert flaky.repairs(api) == [["flaky", "load"]]

    def test_in_its_first_try_leaves_a_failure_to_the_next(
        self, group: GroupScene, api: JobsClient, monkeypatch: pytest.MonkeyPatch, deferrable: bool
    ) -> None:
        group.add("flaky", retries=2, deferrable=deferrable)
        group.executor.failures["flaky"] = 1
        group.launch()
        lose_worker(group, "flaky", monkeypatch, "get_run")
        with pytest.raises(RunFailed):
            group.run("flaky")
        assert group.run("flaky") == {"attempt": 1}
        assert group.repairs(api) == [["flaky"]]

    @pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
    def test_at_the_repair_repairs_once(
        self, flaky: GroupScene, api: JobsClient, monkeypatch: pytest.MonkeyPatch, after: bool
    ) -> None:
        lose_worker(flaky, "flaky", monkeypatch, "repair_run", after=after)
        assert flaky.run("flaky") == {"attempt": 1}
        assert flaky.repairs(api) == [["flaky", "load"]]

    def test_at_the_repair_after_a_clear_repairs_once(
        self, group: GroupScene, api: JobsClient, monkeypatch: pytest.MonkeyPatch, deferrable: bool
    ) -> None:
        group.add("load", retries=1, deferrable=deferrable)
        group.launch()
        group.run("load")
        group.clear("load")
        lose_worker(group, "load", monkeypatch, "repair_run")
        assert group.run("load") == {"attempt": 1}
        assert group.repairs(api) == [["load"]]

    def test_after_a_success_takes_it(self, flaky: GroupScene, api: JobsClient) -> None:
        assert flaky.run("flaky") == {"attempt": 1}
        flaky.states["etl.flaky"] = "up_for_retry"
        assert flaky.run("flaky") == {"attempt": 1}
        assert flaky.repairs(api) == [["flaky", "load"]]

    def test_that_waited_hands_over_its_attempt(
        self, group: GroupScene, api: JobsClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        group.add("load", retries=1)
        group.executor.held.add("load")
        group.launch()

        def lost(_: float) -> None:
            raise WorkerLost

        with monkeypatch.context() as patch:
            rule_all(patch, sleep=lost)
            with pytest.raises(WorkerLost):
                group.run("load")
        group.executor.held.clear()
        assert group.run("load") == {"attempt": 0}
        assert group.repairs(api) == []

    def test_whose_attempt_is_cancelled_after_all_is_repaired(self, group: GroupScene, api: JobsClient) -> None:
        """The cancellation of the earlier try was late: the next one had joined the attempt by then."""
        group.add("load", retries=1, deferrable=True)
        group.executor.held.add("load")
        group.launch()
        group.begin("load")
        group.states["etl.load"] = "restarting"
        group.begin("load")
        api.cancel_run(group.task(api, "load").run_id)
        asyncio.run(until(lambda: group.state(api, "load") == "TERMINATED/CANCELED"))
        group.executor.held.clear()
        assert group.run_on("load") == {"attempt": 1}
        assert group.repairs(api) == [["load"]]

    def test_resumes_as_a_retry_on_airflow_3_0(self, flaky: GroupScene, api: JobsClient) -> None:
        """Airflow 3.0 starts the retry of a task that was deferred by resuming it."""
        flaky.executor.held.add("flaky")
        operator = flaky.operators["flaky"]
        instance = flaky.instances["flaky"]
        instance.try_number += 1
        context = {"ti": instance, "dag_run": mock.Mock(start_date=None)}
        flaky.executor.held.clear()
        operator.deferrable = False
        assert operator.execute_complete(context, {}, try_number=instance.try_number - 1) == {"attempt": 1}
        assert flaky.repairs(api) == [["flaky", "load"]]


REFUSED = {"error_code": "INVALID_STATE", "message": "The run cannot be repaired."}
FAULTS = {
    "the reply is lost": Fault("runs/repair", cut="after"),
    "the request is lost": Fault("runs/repair", cut="before"),
    "a gateway times out, but the API answers": Fault("runs/repair", status=504, handled=True),
    "the API is overloaded": Fault("runs/repair", status=503, times=3),
    "a rate limit is reached": Fault("runs/repair", status=429, times=3),
    "the reply is unreadable": Fault("runs/repair", status=200, body="<html>", handled=True),
    "the run cannot be read after the repair": Fault("runs/get", status=503, skip=1, times=5),
}


class TestFaults:
    @pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
    def test_make_no_second_repair(self, flaky: GroupScene, api: JobsClient, fault: Fault) -> None:
        flaky.workspace.faults.append(Fault(**vars(fault)))
        assert flaky.run("flaky") == {"attempt": 1}
        assert flaky.repairs(api) == [["flaky", "load"]]

    @pytest.mark.parametrize(("status", "kind"), [(400, BadRequest), (403, PermissionDenied), (404, ApiError)], ids=str)
    def test_a_refused_repair_says_what_to_do(
        self, flaky: GroupScene, api: JobsClient, status: int, kind: type[ApiError]
    ) -> None:
        flaky.workspace.faults.append(Fault("runs/repair", status=status, body=REFUSED, times=None))
        with pytest.raises(kind) as failure:
            flaky.run("flaky")
        text = str(failure.value)
        assert re.search(r"could not be repaired: .*The run cannot be repaired.*Nothing was started", text)
        assert text.endswith("To launch a new run, clear etl.launch and what is downstream.")
        assert flaky.workspace.requests["runs/repair"] == 1
        assert flaky.repairs(api) == []
        # Later the reason is gone.
        flaky.workspace.faults.clear()
        assert flaky.run("flaky") == {"attempt": 1}

    def test_a_repair_that_never_shows_is_not_repeated(
        self, flaky: GroupScene, api: JobsClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(JobsClient, "repair_run", mock.Mock(return_value=5))
        with pytest.raises(JobsError, match="does not show another attempt"):
            flaky.run("flaky")
        assert JobsClient.repair_run.call_count == 1  # type: ignore[attr-defined]


class TestKill:
    @pytest.fixture
    def active(self, group: GroupScene) -> GroupScene:
        """Return a group with two active members, of which the first is deferred."""
        group.add("load", deferrable=True, retries=1)
        group.add("other")
        group.executor.held |= {"load", "other"}
        group.launch()
        group.begin("load")
        return group

    @staticmethod
    def kill_trigger(group: GroupScene, name: str) -> None:
        asyncio.run(group.trigger(name).on_kill())

    @staticmethod
    def ended(group: GroupScene, api: JobsClient) -> dict[str, str]:
        """Return the states of those tasks that have ended, once one has."""

        def states() -> dict[str, str]:
            tasks = api.get_run(group.run_id).tasks
            return {task.task_key: str(task.state) for task in tasks if task.state.is_terminal}

        asyncio.run(until(states))
        return states()

    def test_of_a_deferred_member_cancels_its_task_only(self, active: GroupScene, api: JobsClient) -> None:
        active.states["etl.load"] = "failed"
        self.kill_trigger(active, "load")
        assert self.ended(active, api) == {"load": "TERMINATED/CANCELED"}

    @pytest.mark.parametrize("killed", ["launch", "dag run"])
    def test_of_launch_or_the_dag_run_cancels_the_run(self, active: GroupScene, api: JobsClient, killed: str) -> None:
        active.states["etl.load"] = "failed"
        if killed == "launch":
            active.states["etl.launch"] = "cleared"
        else:
            active.dag_run_state = "failed"
        self.kill_trigger(active, "load")
        assert api.wait_for_run(active.run_id, timeout=20, period=FAST).state.result_state == "CANCELED"

    def test_of_a_triggerer_cancels_nothing(self, active: GroupScene, api: JobsClient) -> None:
        self.kill_trigger(active, "load")
        assert active.workspace.requests["runs/cancel"] == 0

    def test_of_a_member_that_waits_for_a_repair_cancels_nothing(self, group: GroupScene, api: JobsClient) -> None:
        group.add("flaky", retries=1, deferrable=True, max_retries=0)
        group.add("slow")
        group.executor.failures["flaky"] = 1
        group.executor.held.add("slow")
        group.launch()
        with pytest.raises(RunFailed):
            group.run("flaky")
        group.begin("flaky")
        group.states["etl.flaky"] = "failed"
        self.kill_trigger(group, "flaky")
        assert group.workspace.requests["runs/cancel"] == 0
        # The whole run is another matter.
        group.dag_run_state = "failed"
        self.kill_trigger(group, "flaky")
        assert group.workspace.requests["runs/cancel"] == 1

    def test_that_cannot_read_the_run_cancels_the_attempt_it_knows(self, active: GroupScene, api: JobsClient) -> None:
        active.states["etl.load"] = "failed"
        active.workspace.faults.append(Fault("runs/get", status=503, times=1))
        self.kill_trigger(active, "load")
        assert self.ended(active, api) == {"load": "TERMINATED/CANCELED"}

    @pytest.mark.parametrize(
        ("states", "canceled"),
        [
            ({"etl.load": "failed"}, {"load"}),
            ({"etl.load": "failed", "etl.launch": "cleared"}, {"load", "other"}),
            ({"etl.load": "running"}, set()),
        ],
        ids=["of the task", "of launch", "of the worker"],
    )
    def test_in_a_worker(
        self, group: GroupScene, api: JobsClient, monkeypatch: pytest.MonkeyPatch, states: Any, canceled: set[str]
    ) -> None:
        group.add("load", retries=1)
        group.add("other")
        group.executor.held |= {"load", "other"}
        group.launch()

        def kill(_: float) -> None:
            shorten_waits(monkeypatch, FAST)
            group.states |= states
            group.operators["load"].on_kill()

        rule_all(monkeypatch, sleep=kill)
        with pytest.raises(JobsError):
            group.run("load")
        if canceled:
            assert self.ended(group, api).keys() == canceled
        else:
            assert group.workspace.requests["runs/cancel"] == 0

    def test_during_a_repair_cancels_the_new_attempt(
        self, flaky: GroupScene, api: JobsClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        repair_run = JobsClient.repair_run

        def killed(client: JobsClient, payload: Any) -> int:
            flaky.states["etl.flaky"] = "failed"
            flaky.operators["flaky"].on_kill()
            return repair_run(client, payload)

        flaky.executor.held.add("flaky")
        monkeypatch.setattr(JobsClient, "repair_run", killed)
        with pytest.raises(JobsError):
            flaky.run("flaky")
        asyncio.run(until(lambda: flaky.state(api, "flaky") == "TERMINATED/CANCELED"))

    def test_by_execution_timeout_cancels_the_task_only(self, active: GroupScene, api: JobsClient) -> None:
        trigger = active.trigger("load")
        trigger.deadline = 0.0
        event = fire(trigger)
        assert "accepted" in event["timed_out"]
        active.deferrals["load"].trigger.deadline = 0.0
        with pytest.raises(AirflowTaskTimeout, match="Task load of run"):
            active.resume("load")
        assert self.ended(active, api) == {"load": "TERMINATED/CANCELED"}


class TestSuccessInTriggerer:
    pytestmark = pytest.mark.skipif(not AIRFLOW_V_3_0_PLUS, reason="Airflow 2 ends tasks on workers")

    def finish(self, group: GroupScene) -> Any:
        trigger = group.trigger("load")
        trigger.ends_task, trigger.max_result_bytes = True, 1000

        async def events() -> list[Any]:
            return [event async for event in trigger.run()]

        with (
            mock.patch("airflow_dbjobs.triggers.base.settling_seconds", return_value=0),
            mock.patch("airflow_dbjobs.triggers.base.store_result", side_effect=self.stored.append_result),
        ):
            (event,) = asyncio.run(events())
        return event

    @pytest.fixture(autouse=True)
    def _results(self) -> None:
        self.stored = mock.Mock()

    def test_stores_the_result_of_the_task(self, group: GroupScene) -> None:
        group.add("load", deferrable=True)
        group.executor.held.add("load")
        group.launch()
        group.begin("load")
        group.executor.held.clear()
        assert type(self.finish(group)).__name__ == "TaskSuccessEvent"
        assert self.stored.append_result.call_args.args[1] == {"attempt": 0}

    def test_is_left_to_a_worker_if_the_task_has_another_attempt(self, group: GroupScene) -> None:
        group.add("load", deferrable=True, max_retries=1)
        group.executor.held.add("load")
        group.executor.failures["load"] = 1
        group.launch()
        group.begin("load")
        group.executor.held.clear()
        assert type(self.finish(group)).__name__ == "TriggerEvent"
        assert group.resume("load") == {"attempt": 1}
