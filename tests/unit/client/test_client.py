"""client: every endpoint in every API version, against the local workspace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from injected_clock import CallingClock

from airflow_dbjobs.client import JobsClient
from airflow_dbjobs.client import jobs_client as client_module
from airflow_dbjobs.client.auth import BasicAuth
from airflow_dbjobs.client.models import Outcome
from airflow_dbjobs.client.retry import RetryPolicy
from airflow_dbjobs.client.transport import Transport
from airflow_dbjobs.client.wait import wait_for_run
from airflow_dbjobs.client.workspace import API_VERSIONS, workspace_url
from airflow_dbjobs.errors import (
    ConfigurationError,
    NoRunToWaitFor,
    NotFound,
    ServerError,
    Unreachable,
    UnreadableReply,
)
from airflow_dbjobs.local_workspace import Fault

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow_dbjobs.client.models import Run
    from airflow_dbjobs.local_workspace import LocalWorkspace

# A task that needs no program: it is over at once.
TASK = {"condition_task": {"op": "EQUAL_TO", "left": "1", "right": "1"}}
# A run of such a job is active until somebody cancels it.
STUCK = {"name": "stuck", "max_concurrent_runs": 0, "queue": {"enabled": True}, **TASK}


@pytest.fixture(params=API_VERSIONS)
def versioned(workspace: LocalWorkspace, request: pytest.FixtureRequest) -> JobsClient:
    return JobsClient(workspace.base_url, token=workspace.token, api_version=request.param)


def finished(client: JobsClient, run_id: int) -> Run:
    return wait_for_run(client, run_id, period=0.01)


def many(count: int) -> dict[str, Any]:
    return {"tasks": [{"task_key": f"t{number:03}", **TASK} for number in range(count)]}


class TestRuns:
    def test_can_be_launched_read_and_deleted(self, versioned: JobsClient) -> None:
        job_id = versioned.create_job({"name": "nightly", **TASK})
        run_id = versioned.run_now({"job_id": job_id, "idempotency_token": "t-1", "notebook_params": None})
        run = finished(versioned, run_id)
        assert (run.run_id, run.job_id, run.outcome, run.run_name) == (run_id, job_id, Outcome.SUCCESS, "nightly")
        assert [run.run_id for run in versioned.list_runs(job_id=job_id, completed_only=True)] == [run_id]
        assert list(versioned.list_runs(active_only=True)) == []
        versioned.delete_run(run_id)
        with pytest.raises(NotFound, match=f"Run {run_id} does not exist"):
            versioned.get_run(run_id)

    def test_are_cancelled_one_by_one_or_all_together(self, versioned: JobsClient) -> None:
        job_id = versioned.create_job(STUCK)
        first, second, third = (versioned.run_now({"job_id": job_id}) for _ in range(3))
        assert [run.run_id for run in versioned.list_runs(active_only=True)] == [third, second, first]
        versioned.cancel_run(first)
        assert finished(versioned, first).outcome is Outcome.CANCELED
        assert [run.run_id for run in versioned.list_runs(active_only=True)] == [third, second]
        versioned.cancel_all_runs(job_id)
        assert finished(versioned, second).outcome is finished(versioned, third).outcome is Outcome.CANCELED
        versioned.cancel_run(first)

    def test_output_and_page_of_a_notebook_are_read(self, versioned: JobsClient, tmp_path: Path) -> None:
        (tmp_path / "workspace" / "nb.py").write_text("# Databricks notebook source\ndbutils.notebook.exit('bye')\n")
        run = finished(versioned, versioned.submit_run({"run_name": "one", "notebook_task": {"notebook_path": "/nb"}}))
        assert run.outcome is Outcome.SUCCESS
        run_id = run.tasks[0].run_id if run.tasks else run.run_id
        assert versioned.get_run_output(run_id)["notebook_output"]["result"] == "bye"
        (view,) = versioned.export_run(run_id)
        assert (view["type"], "notebook.exit" in view["content"]) == ("NOTEBOOK", True)
        assert versioned.export_run(run_id, views="DASHBOARDS") == []

    def test_that_failed_are_repaired_since_api_2_1(self, versioned: JobsClient, tmp_path: Path) -> None:
        tasks = [{"task_key": "a", "notebook_task": {"notebook_path": "/not-yet"}}]
        run_id = versioned.submit_run({"tasks": tasks})
        failed = finished(versioned, run_id)
        assert failed.outcome is Outcome.FAILED
        if versioned.api_version == "2.0":
            with pytest.raises(ConfigurationError, match=r"2\.1 or 2\.2"):
                versioned.repair_run({"run_id": run_id})
            return
        (tmp_path / "workspace" / "not-yet.py").write_text("# Databricks notebook source\n")
        repair_id = versioned.repair_run({"run_id": run_id, "rerun_all_failed_tasks": True})
        repaired = finished(versioned, run_id)
        assert repaired.outcome is Outcome.SUCCESS
        assert [task.attempt_number for task in repaired.tasks] == [1]
        history = versioned.get_run(run_id, include_history=True).raw["repair_history"]
        assert [item.get("id") for item in history] == [None, repair_id]
        assert "repair_history" not in repaired.raw

    def test_are_listed_completely_page_by_page(
        self, versioned: JobsClient, workspace: LocalWorkspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(client_module._RUNS_PER_PAGE, "2.0", 24)
        job_id = versioned.create_job({"max_concurrent_runs": 0, **TASK})
        launched = [versioned.run_now({"job_id": job_id, "queue": {"enabled": True}}) for _ in range(50)]
        other = versioned.submit_run({"tasks": [{"task_key": "a", **TASK}]})
        assert [run.run_id for run in versioned.list_runs(job_id=job_id)] == launched[::-1]
        assert workspace.requests["runs/list"] == 3
        assert next(versioned.list_runs()).run_id == other
        assert workspace.requests["runs/list"] == 4, "a page that nobody reads is not asked for"
        assert [run.run_id for run in versioned.list_runs(run_type="SUBMIT_RUN")] == [other]

    @pytest.mark.parametrize("api_version", ["2.1", "2.2"])
    def test_are_filtered_by_time_and_listed_with_tasks(self, workspace: LocalWorkspace, api_version: str) -> None:
        client = JobsClient(workspace.base_url, token=workspace.token, api_version=api_version)
        run = finished(client, client.submit_run({"tasks": [{"task_key": "a", **TASK}]}))
        start = run.raw["start_time"]
        (found,) = client.list_runs(start_time_from=start, start_time_to=start, expand_tasks=True)
        assert [task.task_key for task in found.tasks] == ["a"]
        assert list(client.list_runs(start_time_from=start + 1)) == []


class TestJobs:
    def test_can_be_created_read_changed_and_deleted(self, versioned: JobsClient) -> None:
        job_id = versioned.create_job({"name": "nightly", "timeout_seconds": 60, "schedule": None, **TASK})
        assert versioned.get_job(job_id)["settings"]["timeout_seconds"] == 60
        versioned.update_job(job_id, {"name": "daily"}, ["timeout_seconds"])
        settings = versioned.get_job(job_id)["settings"]
        assert (settings["name"], settings["timeout_seconds"]) == ("daily", 0)
        versioned.update_job(job_id, fields_to_remove=["name"])
        assert versioned.get_job(job_id)["settings"]["name"] == "Untitled"
        versioned.reset_job(job_id, {"name": "weekly", **TASK})
        assert [job["settings"]["name"] for job in versioned.list_jobs()] == ["weekly"]
        versioned.delete_job(job_id)
        versioned.delete_job(job_id)
        assert list(versioned.list_jobs()) == []
        with pytest.raises(NotFound, match=str(job_id)):
            versioned.get_job(job_id)

    def test_are_listed_completely_and_filtered_by_name(self, versioned: JobsClient, workspace: LocalWorkspace) -> None:
        for number in range(101):
            versioned.create_job({"name": "A" if number % 50 == 0 else "b", "tasks": [{"task_key": "a", **TASK}]})
        assert len(list(versioned.list_jobs())) == 101
        assert workspace.requests["list"] == (1 if versioned.api_version == "2.0" else 2)
        assert [job["settings"]["name"] for job in versioned.list_jobs(name="a")] == ["A"] * 3
        (first, *_) = versioned.list_jobs(expand_tasks=True)
        assert [task["task_key"] for task in first["settings"]["tasks"]] == ["a"]

    def test_and_runs_with_many_tasks_are_read_completely(self, client: JobsClient, workspace: LocalWorkspace) -> None:
        keys = [f"t{number:03}" for number in range(230)]
        job_id = client.create_job({**many(230), "parameters": [{"name": "p", "default": "1"}]})
        settings = client.get_job(job_id)["settings"]
        assert [task["task_key"] for task in settings["tasks"]] == keys
        assert [parameter["name"] for parameter in settings["parameters"]] == ["p"]
        assert workspace.requests["get"] == 3
        run = finished(client, client.run_now({"job_id": job_id}))
        assert [task.task_key for task in run.tasks] == keys
        assert run.outcome is Outcome.SUCCESS
        assert len(client.poll_run(run.run_id).tasks) == 100, "a poll takes the first page only"

    def test_are_found_by_their_exact_name(self, versioned: JobsClient) -> None:
        job_id, *twins = (versioned.create_job({"name": name, **TASK}) for name in ("Nightly", "twin", "twin"))
        assert versioned.find_job_id("Nightly") == job_id
        with pytest.raises(ConfigurationError, match=r"job_name='nightly'.*no job of this name.*case matters"):
            versioned.find_job_id("nightly")
        with pytest.raises(ConfigurationError, match=rf"2 jobs have this name \({twins[0]}, {twins[1]}\)"):
            versioned.find_job_id("twin")

    def test_with_the_prefix_of_development_mode_are_named(self, versioned: JobsClient) -> None:
        job_id = versioned.create_job({"name": "[dev jo] nightly", **TASK})
        with pytest.raises(ConfigurationError, match=rf"There is '\[dev jo\] nightly' \(job_id {job_id}\): a bun"):
            versioned.find_job_id("nightly")
        with pytest.raises(ConfigurationError, match=r"may see\. Check the spelling"):
            versioned.find_job_id("night")

    def test_that_run_continuously_have_no_run_to_wait_for(self, client: JobsClient, workspace: LocalWorkspace) -> None:
        workspace.faults.append(Fault("run-now", status=200, body={}, times=None))
        with pytest.raises(NoRunToWaitFor, match=r"restarted it\. Such a job starts its runs itself") as caught:
            client.run_now({"job_id": 5, "idempotency_token": "one"})
        assert (caught.value.worth_a_retry, caught.value.unclear, workspace.requests["run-now"]) == (False, False, 1)


class TestReply:
    @pytest.mark.parametrize(
        "call", ["get_run", "poll_run", "export_run", "cancel_run", "get_run_output", "delete_run", "get_job"]
    )
    def test_that_nothing_exists_is_not_found(self, versioned: JobsClient, call: str) -> None:
        with pytest.raises(NotFound, match="5 does not exist"):
            getattr(versioned, call)(5)
        with pytest.raises(NotFound):
            versioned.run_now({"job_id": 5})

    @pytest.mark.parametrize(
        ("endpoint", "call", "name"),
        [
            ("runs/submit", JobsClient.submit_run, "run_id"),
            ("runs/repair", JobsClient.repair_run, "repair_id"),
            ("create", JobsClient.create_job, "job_id"),
        ],
    )
    def test_that_nothing_was_created_is_no_success(
        self, client: JobsClient, workspace: LocalWorkspace, endpoint: str, call: Callable[..., int], name: str
    ) -> None:
        workspace.faults.append(Fault(endpoint, status=200, body={}))
        with pytest.raises(UnreadableReply, match=f"POST jobs/{endpoint} returned no {name}: nothing was"):
            call(client, {"job_id": 5, "run_id": 6, "latest_repair_id": 7})
        assert workspace.requests[endpoint] == 1

    @pytest.mark.parametrize(
        "entry",
        [
            {},
            {"run_id": "x"},
            {"run_id": 1, "state": "?"},
            {"run_id": 1, "state": {"life_cycle_state": ["RUNNING"]}},
            {"run_id": 1, "status": {"state": "TERMINATED", "termination_details": "?"}},
        ],
        ids=str,
    )
    def test_with_a_list_of_non_runs_is_unreadable_to_a_poller(
        self, client: JobsClient, workspace: LocalWorkspace, entry: dict[str, object]
    ) -> None:
        good = {"run_id": 7, "state": {"life_cycle_state": "RUNNING"}}
        workspace.faults.append(Fault("runs/list", status=200, body={"runs": [good, entry]}))
        with pytest.raises(UnreadableReply):
            client.poll_runs(limit=0)
        assert client.poll_runs(limit=0).states == {}

    @pytest.mark.parametrize("body", [{}, {"run_id": 1, "state": "?"}], ids=str)
    def test_that_is_not_a_run_is_unreadable(
        self, client: JobsClient, workspace: LocalWorkspace, body: dict[str, object]
    ) -> None:
        workspace.faults += [
            Fault("runs/get", status=200, body=body),
            Fault("runs/list", status=200, body={"runs": [body]}),
        ]
        for call in (lambda: client.poll_run(1), lambda: list(client.list_runs())):
            with pytest.raises(UnreadableReply, match="not a Run"):
                call()


@pytest.fixture
def impatient(workspace: LocalWorkspace) -> JobsClient:
    """Return a client for which no time passes while it waits."""
    seed = JobsClient(workspace.base_url, token=workspace.token)
    return JobsClient(
        transport=Transport(seed.host, seed.transport.auth, clock=CallingClock(lambda: 0, lambda _: None))
    )


class TestRepetition:
    @pytest.mark.parametrize("lost", [{"cut": "after"}, {"status": 502, "handled": True}, {"hang": 3600}], ids=str)
    @pytest.mark.parametrize("endpoint", ["run-now", "runs/submit"])
    def test_of_an_unanswered_launch_needs_a_token(
        self, impatient: JobsClient, workspace: LocalWorkspace, endpoint: str, lost: dict[str, Any]
    ) -> None:
        job_id = impatient.create_job({"name": "a", **TASK})
        launch = impatient.run_now if endpoint == "run-now" else impatient.submit_run
        payload = {"job_id": job_id} if endpoint == "run-now" else {"tasks": [{"task_key": "a", **TASK}]}
        workspace.faults.append(Fault(endpoint, **lost))
        with pytest.raises((Unreachable, ServerError)):
            launch(payload)
        assert (workspace.requests[endpoint], len(list(impatient.list_runs()))) == (1, 1)
        workspace.faults.append(Fault(endpoint, **{**lost, "times": 2}))
        run_id = launch({**payload, "idempotency_token": "t-1"})
        runs = [run.run_id for run in impatient.list_runs()]
        assert (workspace.requests[endpoint], len(runs), runs[0]) == (4, 2, run_id)

    def test_is_not_made_for_calls_that_must_not_act_twice(
        self, impatient: JobsClient, workspace: LocalWorkspace
    ) -> None:
        workspace.faults += [Fault("create", cut="after"), Fault("runs/submit", cut="after")]
        with pytest.raises(Unreachable):
            impatient.create_job({"name": "a", **TASK})
        with pytest.raises(Unreachable):
            impatient.submit_run({"tasks": [{"task_key": "a", **TASK}]})
        assert (workspace.requests["create"], workspace.requests["runs/submit"]) == (1, 1)

    def test_is_made_for_calls_that_may_act_twice(self, impatient: JobsClient, workspace: LocalWorkspace) -> None:
        job_id = impatient.create_job(STUCK)
        run_id = impatient.run_now({"job_id": job_id})
        calls = {
            "get": lambda: impatient.get_job(job_id),
            "list": lambda: list(impatient.list_jobs()),
            "update": lambda: impatient.update_job(job_id, {"timeout_seconds": 9}),
            "reset": lambda: impatient.reset_job(job_id, STUCK),
            "runs/get": lambda: impatient.get_run(run_id),
            "runs/list": lambda: list(impatient.list_runs()),
            "runs/cancel": lambda: impatient.cancel_run(run_id),
            "runs/cancel-all": lambda: impatient.cancel_all_runs(job_id),
            "delete": lambda: impatient.delete_job(job_id),
        }
        for operation, call in calls.items():
            before = workspace.requests[operation]
            workspace.faults.append(Fault(operation, cut="after"))
            call()
            assert workspace.requests[operation] == before + 2, operation


class TestClient:
    def test_authenticates_with_a_token_or_an_auth_object(self, workspace: LocalWorkspace) -> None:
        basic = BasicAuth("token", workspace.token)
        assert list(JobsClient(workspace.base_url, auth=basic).list_jobs()) == []
        assert list(JobsClient(workspace.base_url, token=f" {workspace.token}\n").list_jobs()) == []

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (
                {"host": "https://x", "token": "t", "api_version": "2.3"},
                "api_version is '2.3'; it must be one of 2.0, 2.1",
            ),
            ({"host": " ", "token": "t"}, "host is empty"),
            ({"host": "https://", "token": "t"}, "host contains no valid host name"),
            ({"host": "my workspace", "token": "t"}, "host contains no valid host name"),
            ({"host": "x.example:port", "token": "t"}, "host is not a valid URL"),
            ({"host": "ftp://x.example", "token": "t"}, "schema is 'ftp'"),
            ({"host": "https://x"}, "no credentials"),
            ({"host": "https://x", "token": "very-secret\nmore"}, "token has a line break"),
        ],
    )
    def test_that_cannot_work_is_not_created(self, arguments: dict[str, str], words: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            JobsClient(**arguments)
        assert words in str(caught.value)
        assert "very-secret" not in str(caught.value)

    @pytest.mark.parametrize(
        ("host", "url"),
        [
            ("x.example", "https://x.example"),
            (" x.example/ ", "https://x.example"),
            ("http://localhost:80/", "http://localhost:80"),
            ("http://[::1]:80", "http://[::1]:80"),
            ("http://127.0.0.2", "http://127.0.0.2"),
            # A token does not go in clear for a slip.
            ("http://x.example", "https://x.example"),
            ("HTTP://x.example:8443/", "https://x.example:8443"),
            ("http://localhost.example", "https://localhost.example"),
            ("http://10.0.0.1", "https://10.0.0.1"),
            ("https://X.example/jobs/3?o=123#run/4", "https://x.example"),
            ("https://user:very-secret@x.example", "https://x.example"),
        ],
    )
    def test_uses_scheme_name_and_port_of_the_host(self, host: str, url: str) -> None:
        assert JobsClient(host, token="t").host == url

    def test_with_another_policy_has_the_same_workspace(self) -> None:
        client = JobsClient("x.example", token="t", api_version="2.1", retry=RetryPolicy(retry_budget=9))
        quick = client.with_policy(RetryPolicy(retry_budget=1))
        assert (quick.transport.identity, quick.api_version) == (client.transport.identity, "2.1")
        assert (quick.transport.policy.retry_budget, client.transport.policy.retry_budget) == (1, 9)

    def test_never_quotes_an_invalid_host(self) -> None:
        with pytest.raises(ConfigurationError, match="host is not a valid URL") as caught:
            workspace_url("https://user:pw-secret/x@adb-1.example")
        assert "pw-secret" not in str(caught.value)

    def test_with_other_limits_polls_as_often(self) -> None:
        client = JobsClient("https://workspace.example", token="a-token", max_requests_per_second=7)
        assert client.with_policy(RetryPolicy()).max_requests_per_second == 7

    @pytest.mark.parametrize(
        ("host", "cloud"),
        [
            ("https://adb-1.2.azuredatabricks.net", "azure"),
            ("dbc-1.cloud.databricks.com", "aws"),
            ("https://1.2.gcp.databricks.com:443", "gcp"),
            ("http://127.0.0.1:8765", ""),
            ("https://cloud.databricks.com.example.org", ""),
        ],
    )
    def test_derives_the_cloud_from_the_host(self, host: str, cloud: str) -> None:
        assert JobsClient(host, token="t").cloud == cloud
