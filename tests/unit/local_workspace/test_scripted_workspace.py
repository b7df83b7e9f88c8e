"""The workspace of the pytest plugin: tasks that follow scripts, and assertions about what was launched."""

from __future__ import annotations

import re
import time
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from airflow_dbjobs.local_workspace.engine.scripts import FAILURE_CODES
from airflow_dbjobs.local_workspace.state.folder import WorkspaceError
from airflow_dbjobs.local_workspace.testing.time_leap import TimeLeap
from airflow_dbjobs.local_workspace.testing.workspace import ScriptedWorkspace, UnusedScriptWarning
from airflow_dbjobs.runs import failure_cause

from .conftest import mounted
from .support import Client, results, state

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def scripted(root: Path) -> Iterator[ScriptedWorkspace]:
    with TimeLeap(), ScriptedWorkspace(root) as workspace:
        yield workspace


@pytest.fixture
def client(scripted: ScriptedWorkspace) -> Client:
    client = mounted(scripted)
    client.session.headers["Authorization"] = f"Bearer {scripted.token}"
    return client


def notebook(key: str, *after: str, **parameters: str) -> dict[str, Any]:
    depends_on = [{"task_key": upstream} for upstream in after]
    payload = {"notebook_path": f"/{key}", "base_parameters": parameters}
    return {"task_key": key, "notebook_task": payload, "depends_on": depends_on}


def submit(client: Client, *tasks: dict[str, Any], name: str = "etl") -> dict[str, Any]:
    run: dict[str, Any] = client.get("runs/get", run_id=client.submit(run_name=name, tasks=list(tasks)))
    return run


class TestScripts:
    def test_tasks_without_one_succeed_at_once(self, client: Client) -> None:
        run = submit(client, notebook("a"), notebook("b", "a"), notebook("c", "b"))
        assert results(run) == {"a": "SUCCESS", "b": "SUCCESS", "c": "SUCCESS"}

    @pytest.mark.parametrize(("name", "times", "failed"), [("each", 1, 1), ("one", 2, 2), ("one", None, 3)])
    def test_of_a_loop_or_the_task_in_it_are_for_its_iterations(
        self, client: Client, scripted: ScriptedWorkspace, name: str, times: int | None, failed: int
    ) -> None:
        scripted.task(name, error="no rows", times=times, seconds=3600)
        each = {"inputs": "[1, 2, 3]", "task": notebook("one", day="{{input}}")}
        run_id = client.submit(run_name="etl", tasks=[{"task_key": "each", "for_each_task": each}])
        for _ in range(3):
            time.sleep(3600)
            (task,) = client.get("runs/get", run_id=run_id)["tasks"]
        stats = task["for_each_task"]["stats"]
        assert (stats["task_run_stats"]["failed_iterations"], stats["task_run_stats"]["total_iterations"]) == (
            failed,
            3,
        )
        assert stats["error_message_stats"][0]["error_message"] == "no rows"
        assert scripted.assert_launched("each").tasks == {"each": "FAILED"}

    @pytest.mark.parametrize(("value", "text"), [({"rows": 3}, '{"rows": 3}'), ("done", "done"), (0, "0")])
    def test_return_a_value(self, client: Client, scripted: ScriptedWorkspace, value: Any, text: str) -> None:
        scripted.task("a", returns=value)
        run = submit(client, notebook("a"), notebook("b"))
        assert client.output(run, "a")["notebook_output"]["result"] == text
        assert "result" not in client.output(run, "b")["notebook_output"]

    def test_print_what_a_python_file_prints(self, client: Client, scripted: ScriptedWorkspace) -> None:
        scripted.task("a", logs="3 rows")
        run = submit(client, {"task_key": "a", "spark_python_task": {"python_file": "/a.py"}})
        assert client.output(run)["logs"] == "3 rows"

    def test_say_when_the_task_is_no_notebook(self, client: Client, scripted: ScriptedWorkspace) -> None:
        scripted.task("a", returns=3)
        run = submit(client, {"task_key": "a", "spark_python_task": {"python_file": "/a.py"}})
        assert "'a' returns a value, which of all tasks only a notebook does" in client.output(run)["error"]

    def test_fail_with_their_error(self, client: Client, scripted: ScriptedWorkspace) -> None:
        scripted.task("a", error="ValueError: no rows")
        run = submit(client, notebook("a"), notebook("b", "a"))
        assert results(run) == {"a": "FAILED", "b": "UPSTREAM_FAILED"}
        assert client.output(run, "a")["error"] == "ValueError: no rows"
        assert run["tasks"][0]["status"]["termination_details"]["code"] == "RUN_EXECUTION_ERROR"

    def test_fail_with_a_termination_code(self, client: Client, scripted: ScriptedWorkspace) -> None:
        scripted.task("a", termination_code="CLUSTER_ERROR")
        task = submit(client, notebook("a"))["tasks"][0]
        assert task["status"]["termination_details"]["code"] == "CLUSTER_ERROR"
        assert task["state"]["life_cycle_state"] == "INTERNAL_ERROR"

    @pytest.mark.parametrize(
        ("how", "message"),
        [
            ({"termination_code": "CLUSTER_EROR"}, "code of the API; did you mean 'CLUSTER_ERROR'?"),
            ({"termination_code": "nonsense"}, "termination_code='nonsense' is no termination code of the API."),
            ({"termination_code": "USER_CANCELED"}, "'USER_CANCELED' is no failure: use canceled=True."),
            ({"termination_code": "CANCELED"}, "'CANCELED' is no failure: use canceled=True."),
            ({"termination_code": "SUCCESS"}, "'SUCCESS' is no failure: leave it out."),
            ({"canceled": True, "returns": 0}, "A cancelled task has no result and no error"),
            ({"canceled": True, "error": "no"}, "A cancelled task has no result and no error"),
            ({"canceled": True, "termination_code": "CLUSTER_ERROR"}, "A cancelled task has no result and no error"),
        ],
        ids=str,
    )
    def test_say_no_end_that_no_task_has(self, scripted: ScriptedWorkspace, how: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=re.escape(message)):
            scripted.task("a", **how)

    def test_take_the_termination_codes_that_the_provider_explains(self) -> None:
        # The two lists share no code; each comes from the API's reference.
        assert set(FAILURE_CODES) == set(failure_cause._BY_CODE)

    def test_cancel_the_run_as_a_person_does(self, client: Client, scripted: ScriptedWorkspace) -> None:
        scripted.task("a", canceled=True, seconds=60)
        scripted.task("b", seconds=3600)
        run_id = submit(client, notebook("a"), notebook("b"), notebook("c", "b"))["run_id"]
        time.sleep(59)
        assert state(client, run_id) == ("RUNNING", None)
        time.sleep(2)
        run = client.get("runs/get", run_id=run_id)
        assert results(run) == dict.fromkeys("abc", "CANCELED")
        assert state(client, run_id) == ("TERMINATED", "CANCELED")
        assert run["status"]["termination_details"]["code"] == "USER_CANCELED"
        scripted.assert_nothing_active()

    def test_cancel_as_many_runs_as_they_say(self, client: Client, scripted: ScriptedWorkspace) -> None:
        scripted.task("a", canceled=True, times=1)
        assert [results(submit(client, notebook("a")))["a"] for _ in range(2)] == ["CANCELED", "SUCCESS"]

    def test_take_their_time(self, client: Client, scripted: ScriptedWorkspace) -> None:
        scripted.task("a", seconds=3600)
        run_id = submit(client, notebook("a"))["run_id"]
        time.sleep(3590)
        assert state(client, run_id) == ("RUNNING", None)
        time.sleep(11)
        assert state(client, run_id) == ("TERMINATED", "SUCCESS")

    def test_are_followed_one_after_the_other(self, client: Client, scripted: ScriptedWorkspace) -> None:
        scripted.task("a", error="first", times=1)
        scripted.task("a", error="second", times=1)
        scripted.task("a", returns=1)
        scripted.task("a", returns=2)
        runs = [submit(client, notebook("a")) for _ in range(4)]
        assert [results(run)["a"] for run in runs] == ["FAILED", "FAILED", "SUCCESS", "SUCCESS"]
        assert client.output(runs[1])["error"] == "second"
        assert client.output(runs[3])["notebook_output"]["result"] == "2"

    def test_count_retries_and_repairs(self, client: Client, scripted: ScriptedWorkspace) -> None:
        scripted.task("a", error="no", times=2)
        run = submit(client, {**notebook("a"), "max_retries": 1})
        client.post("runs/repair", run_id=run["run_id"], rerun_tasks=["a"])
        assert results(client.get("runs/get", run_id=run["run_id"])) == {"a": "SUCCESS"}

    def test_are_found_by_task_before_run_and_job(self, client: Client, scripted: ScriptedWorkspace) -> None:
        job_id = scripted.job("nightly", tasks=["a", "b"])
        scripted.task(job_id, error="job")
        scripted.task("a", error="task")
        run = client.get("runs/get", run_id=client.post("run-now", job_id=job_id)["run_id"])
        assert {task["task_key"]: task["state"]["state_message"] for task in run["tasks"]} == {"a": "task", "b": "job"}

    def test_that_no_task_followed_are_warned_of(self, client: Client, scripted: ScriptedWorkspace) -> None:
        scripted.task("a")
        scripted.task("laod", error="no")
        submit(client, notebook("a"))
        with pytest.warns(UnusedScriptWarning, match=r"script of 'laod'\. Tasks and runs were: \['a', 'etl'\]"):
            scripted.warn_of_unused_scripts()

    def test_that_were_followed_are_not_warned_of(self, client: Client, scripted: ScriptedWorkspace) -> None:
        scripted.task("etl")
        submit(client, notebook("a"))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            scripted.warn_of_unused_scripts()


class TestJobs:
    def test_that_nobody_created_are_made_up(self, client: Client, scripted: ScriptedWorkspace) -> None:
        scripted.task(123, returns="yes")
        run_id = client.post("run-now", job_id=123, job_parameters={"day": "monday"})["run_id"]
        assert client.output(client.get("runs/get", run_id=run_id))["notebook_output"]["result"] == "yes"
        assert scripted.assert_launched(123, parameters={"day": "monday"}).job_id == 123

    def test_are_launched_as_by_somebody_else(self, client: Client, scripted: ScriptedWorkspace) -> None:
        scripted.job("nightly", tasks=["load", "report"], parameters=[{"name": "day", "default": ""}])
        run_id = scripted.launch("nightly", day="monday")
        run = client.get("runs/get", run_id=run_id)
        assert results(run) == {"load": "SUCCESS", "report": "SUCCESS"}
        assert scripted.assert_launched("nightly").parameters == {"day": "monday"}
        with pytest.raises(LookupError, match="There is no job 'nigthly'; create it"):
            scripted.launch("nigthly")


class TestFaults:
    def test_are_those_of_the_local_workspace(self, client: Client, scripted: ScriptedWorkspace) -> None:
        scripted.fault("runs/get", status=429, headers={"Retry-After": "2"}, times=2)
        assert [client.send("GET", "runs/get").status_code for _ in range(3)] == [429, 429, 400]

    def test_outages_last_their_time(self, client: Client, scripted: ScriptedWorkspace) -> None:
        def ask() -> int:
            return client.send("GET", "runs/list").status_code

        scripted.outage(600, after=60)
        seen = [ask()]
        for seconds in (61, 590, 15):
            time.sleep(seconds)
            seen.append(ask())
        assert seen == [200, 503, 503, 200]


class TestAssertions:
    @pytest.fixture(autouse=True)
    def _runs(self, client: Client, scripted: ScriptedWorkspace) -> None:
        scripted.task("load", error="no rows", times=1)
        for day in ("monday", "tuesday"):
            submit(client, notebook("load", day=day), name=f"of {day}")
        arguments = {"python_file": "/export.py", "parameters": ["--table", "orders"]}
        submit(client, {"task_key": "export", "spark_python_task": arguments}, name="export")

    def test_hold(self, scripted: ScriptedWorkspace) -> None:
        assert scripted.assert_launched("load").name == "of tuesday"
        assert scripted.assert_launched("load", times=2).state == "SUCCESS"
        assert scripted.assert_launched("load", times=1, parameters={"day": "monday"}).state == "FAILED"
        assert scripted.assert_launched("of monday", times=1).tasks == {"load": "FAILED"}
        assert scripted.assert_launched("export", parameters=["--table", "orders"])
        scripted.assert_launched("nothing", times=0)
        scripted.assert_nothing_active()
        assert [run.name for run in scripted.runs] == ["of monday", "of tuesday", "export"]

    def test_list_the_runs_when_they_fail(self, scripted: ScriptedWorkspace) -> None:
        with pytest.raises(AssertionError) as failure:
            scripted.assert_launched("load", times=1)
        message, monday, tuesday, others = str(failure.value).split("\n  ")
        assert message == "Expected 1 launch of 'load', found 2."
        assert "of 'of monday': FAILED (" in monday
        assert tuesday.endswith("of 'of tuesday': SUCCESS, parameters {'day': 'tuesday'}")
        assert others == "other runs were of 'export'"

    def test_say_which_parameters_were_expected(self, scripted: ScriptedWorkspace) -> None:
        with pytest.raises(AssertionError, match=r"launches of 'load' with parameters {'day': 'friday'}, found 0\."):
            scripted.assert_launched("load", parameters={"day": "friday"})
        with pytest.raises(AssertionError, match=r"\['--table'\], found 0.\n.*\['--table', 'orders'\]"):
            scripted.assert_launched("export", parameters=["--table"])

    def test_tell_cancelled_runs(self, client: Client, scripted: ScriptedWorkspace) -> None:
        scripted.task("slow", seconds=60)
        run_id = submit(client, notebook("slow"))["run_id"]
        with pytest.raises(AssertionError, match="1 of 4 runs are still active"):
            scripted.assert_nothing_active()
        client.post("runs/cancel", run_id=run_id)
        assert scripted.assert_canceled("slow").run_id == run_id
        with pytest.raises(AssertionError, match="'load' was not cancelled"):
            scripted.assert_canceled("load")


class TestLoadJobs:
    def test_creates_the_jobs_of_a_bundle(self, client: Client, scripted: ScriptedWorkspace, tmp_path: Path) -> None:
        (tmp_path / "load.py").write_text("# Databricks notebook source")
        (tmp_path / "databricks.yml").write_text(
            "bundle: {name: etl}\n"
            "targets: {dev: {}, prod: {variables: {day: friday}}}\n"
            "variables: {day: {default: monday}}\n"
            "resources: {jobs: {nightly: {name: nightly, tasks: [{task_key: load, notebook_task:\n"
            "  {notebook_path: ./load.py, base_parameters: {day: '${var.day}'}}}]}}}\n"
        )
        scripted.load_jobs(tmp_path, target="prod", ids={"nightly": 7})
        scripted.task("load", returns="done")
        client.post("run-now", job_id=7)
        assert scripted.assert_launched("nightly", times=1, parameters={"day": "friday"}).state == "SUCCESS"

    def test_says_which_file_is_wrong(self, scripted: ScriptedWorkspace, tmp_path: Path) -> None:
        with pytest.raises(WorkspaceError, match="missing"):
            scripted.load_jobs(tmp_path / "missing")
