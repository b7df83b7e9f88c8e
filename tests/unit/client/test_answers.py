"""client: what the API answers, typed and whole, in every API version, against the local workspace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from injected_clock import Clock

from airflow_dbjobs import payloads
from airflow_dbjobs.client import JobsClient
from airflow_dbjobs.client.models import Outcome
from airflow_dbjobs.client.wait import wait_for_run
from airflow_dbjobs.client.workspace import API_VERSIONS
from airflow_dbjobs.errors import ApiError, BadRequest, ConfigurationError, Unreachable, UnreadableReply
from airflow_dbjobs.local_workspace import Fault

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_dbjobs.client.models import Run
    from airflow_dbjobs.local_workspace import LocalWorkspace

TASK = {"condition_task": {"op": "EQUAL_TO", "left": "1", "right": "1"}}
BROKEN = {"notebook_task": {"notebook_path": "/not-there"}}
NEWER = ("2.1", "2.2")


def client_of(workspace: LocalWorkspace, api_version: str) -> JobsClient:
    return JobsClient(workspace.base_url, token=workspace.token, api_version=api_version)


@pytest.fixture(params=API_VERSIONS)
def versioned(workspace: LocalWorkspace, request: pytest.FixtureRequest) -> JobsClient:
    return client_of(workspace, request.param)


@pytest.fixture(params=NEWER)
def newer(workspace: LocalWorkspace, request: pytest.FixtureRequest) -> JobsClient:
    return client_of(workspace, request.param)


@pytest.fixture
def impatient(workspace: LocalWorkspace) -> JobsClient:
    """A client whose waits take no time."""
    client = client_of(workspace, "2.2")
    Clock().rule(client)
    return client


def finished(client: JobsClient, run_id: int) -> Run:
    return wait_for_run(client, run_id, period=0.01)


def failed_run(client: JobsClient) -> int:
    tasks = [{"task_key": "good", **TASK}, {"task_key": "bad", **BROKEN}]
    run_id = client.submit_run({"tasks": tasks})
    assert finished(client, run_id).outcome is Outcome.FAILED
    return run_id


class TestReply:
    @pytest.mark.parametrize(
        ("endpoint", "body", "call"),
        [
            ("list", {"jobs": ["x"]}, lambda client: list(client.list_jobs())),
            ("runs/list", {"runs": [7]}, lambda client: list(client.list_runs())),
            ("runs/list", {"runs": "all of them"}, lambda client: list(client.list_runs())),
            ("list", {"jobs": 5}, lambda client: list(client.list_jobs())),
            ("list", {"jobs": [{"settings": {"name": "a"}}]}, lambda client: client.find_job_id("a")),
            ("list", {"jobs": [{"has_more": True}]}, lambda client: list(client.list_jobs(expand_tasks=True))),
            ("runs/list", {"runs": [{"has_more": True}]}, lambda client: list(client.list_runs(expand_tasks=True))),
            ("runs/export", {"views": ["x"]}, lambda client: client.export_run(5)),
            ("runs/export", {"views": 5}, lambda client: client.export_run(5)),
            ("get", {"job_id": 5, "settings": [1], "next_page_token": "t"}, lambda client: client.get_job(5)),
            ("runs/get", {"run_id": 5, "tasks": 7, "next_page_token": "t"}, lambda client: client.get_run(5)),
            (
                "permissions/permissionLevels",
                {"permission_levels": ["x"]},
                lambda client: client.get_permission_levels(5),
            ),
        ],
    )
    def test_of_another_shape_is_unreadable(
        self, client: JobsClient, workspace: LocalWorkspace, endpoint: str, body: object, call: Any
    ) -> None:
        workspace.faults.append(Fault(endpoint, status=200, body=body, times=None))
        with pytest.raises(
            UnreadableReply,
            match=r"not a (list of )?JSON object|has no (valid|run_id)|not a Run",
        ):
            call(client)


class TestList:
    @pytest.mark.parametrize("version", ["2.0", "2.1"])
    def test_without_tokens_is_read_by_offset(self, workspace: LocalWorkspace, version: str) -> None:
        # 2.1 as it was before the middle of 2023.
        pages = [
            {"runs": [{"run_id": 3}, {"run_id": 2}], "has_more": True},
            {"runs": [{"run_id": 1}], "has_more": True},
            {"has_more": True},
        ]
        workspace.faults += [Fault("runs/list", status=200, body=page) for page in pages]
        assert [run.run_id for run in client_of(workspace, version).list_runs()] == [3, 2, 1]
        assert workspace.requests["runs/list"] == 3

    def test_with_api_2_2_ends_without_a_token(self, workspace: LocalWorkspace, client: JobsClient) -> None:
        workspace.faults.append(Fault("runs/list", status=200, body={"runs": [{"run_id": 3}], "has_more": True}))
        assert [run.run_id for run in client.list_runs()] == [3]
        assert workspace.requests["runs/list"] == 1

    @pytest.mark.parametrize(
        ("endpoint", "call"),
        [
            ("runs/list", lambda client: list(client.list_runs())),
            ("get", lambda client: client.get_job(5)),
            ("runs/get", lambda client: client.get_run(5)),
        ],
    )
    def test_ends_if_its_pages_form_a_circle(
        self, workspace: LocalWorkspace, client: JobsClient, endpoint: str, call: Any
    ) -> None:
        workspace.faults.append(Fault(endpoint, status=200, body={"run_id": 5, "next_page_token": "again"}, times=None))
        with pytest.raises(UnreadableReply, match="form a loop"):
            call(client)
        assert workspace.requests[endpoint] == 2

    def test_is_filtered_by_time_with_api_2_0_too(self, versioned: JobsClient) -> None:
        run = finished(versioned, versioned.submit_run({"run_name": "one", **TASK}))
        start = run.raw["start_time"]
        assert [found.run_id for found in versioned.list_runs(start_time_from=start, start_time_to=start)] == [
            run.run_id
        ]
        assert list(versioned.list_runs(start_time_from=start + 1)) == []
        assert list(versioned.list_runs(start_time_to=start - 1)) == []

    def test_is_completed_where_it_is_cut_short(self, workspace: LocalWorkspace, client: JobsClient) -> None:
        many = {"tasks": [{"task_key": f"t{number:03}", **TASK} for number in range(130)]}
        job_id = client.create_job({"name": "large", **many})
        client.create_job({"name": "small", "tasks": [{"task_key": "a", **TASK}]})
        counts = {job["settings"]["name"]: len(job["settings"]["tasks"]) for job in client.list_jobs(expand_tasks=True)}
        assert counts == {"large": 130, "small": 1}
        assert workspace.requests["get"] == 2
        whole = client.get_job(job_id)
        assert {"has_more", "next_page_token"}.isdisjoint(whole)
        finished(client, client.run_now({"job_id": job_id}))
        (run,) = client.list_runs(expand_tasks=True)
        assert len(run.tasks) == 130
        (run,) = client.list_runs()
        assert run.tasks == ()


class TestRepair:
    def test_finds_the_latest_one_itself(self, newer: JobsClient) -> None:
        run_id = failed_run(newer)
        repairs = []
        for _ in range(3):
            repairs.append(newer.repair_run({"run_id": run_id, "rerun_all_failed_tasks": True}))
            assert finished(newer, run_id).outcome is Outcome.FAILED
        history = newer.get_run(run_id, include_history=True).raw["repair_history"]
        assert [(item.get("id"), item["type"]) for item in history] == [
            (None, "ORIGINAL"),
            *((repair_id, "REPAIR") for repair_id in repairs),
        ]
        assert {item["state"]["result_state"] for item in history} == {"FAILED"}

    @pytest.mark.parametrize("earlier", [0, 1])
    @pytest.mark.parametrize("lost", [{"cut": "after"}, {"status": 502, "handled": True}, {"hang": 3600}], ids=str)
    def test_with_a_lost_reply_is_found_in_the_history(
        self, impatient: JobsClient, workspace: LocalWorkspace, lost: dict[str, Any], earlier: int
    ) -> None:
        run_id = failed_run(impatient)
        for _ in range(earlier):
            impatient.repair_run({"run_id": run_id, "rerun_all_failed_tasks": True})
            finished(impatient, run_id)
        workspace.faults.append(Fault("runs/repair", **lost))
        repair_id = impatient.repair_run({"run_id": run_id, "rerun_all_failed_tasks": True})
        finished(impatient, run_id)
        history = impatient.get_run(run_id, include_history=True).raw["repair_history"]
        assert len(history) == 2 + earlier
        assert history[-1]["id"] == repair_id

    def test_that_was_not_made_is_no_success(self, impatient: JobsClient, workspace: LocalWorkspace) -> None:
        run_id = failed_run(impatient)
        first = impatient.repair_run({"run_id": run_id, "rerun_all_failed_tasks": True})
        finished(impatient, run_id)
        with pytest.raises(BadRequest, match="latest repair"):
            impatient.repair_run({"run_id": run_id, "rerun_all_failed_tasks": True, "latest_repair_id": first + 1})
        workspace.faults.append(Fault("runs/repair", cut="before", times=None))
        with pytest.raises(Unreachable):
            impatient.repair_run({"run_id": run_id, "rerun_all_failed_tasks": True})
        workspace.faults[:] = [Fault("runs/repair", cut="after", times=None), Fault("runs/get", status=403, skip=1)]
        with pytest.raises(Unreachable):
            impatient.repair_run({"run_id": run_id, "rerun_all_failed_tasks": True})
        with pytest.raises(ConfigurationError, match="run_id is missing"):
            impatient.repair_run({"rerun_all_failed_tasks": True})


class TestRun:
    def test_has_all_fields_of_the_api(self, newer: JobsClient) -> None:
        run = finished(newer, newer.submit_run({"run_name": "one", "tasks": [{"task_key": "a", **TASK}]}))
        assert run.raw["state"]["life_cycle_state"] == "TERMINATED"
        assert run.raw["status"]["termination_details"]["code"] == "SUCCESS"
        assert (run.raw["run_type"], run.raw["start_time"]) == ("SUBMIT_RUN", run.start_time * 1000)
        (task,) = run.raw["tasks"]
        assert (task["task_key"], task["state"]["result_state"], task["attempt_number"]) == ("a", "SUCCESS", 0)
        assert run.tasks[0].raw is task

    def test_can_be_launched_with_typed_bodies(self, versioned: JobsClient) -> None:
        condition = payloads.ConditionTask(op="EQUAL_TO", left="1", right="1")
        settings = payloads.JobSettings(name="typed", condition_task=condition)
        job_id = versioned.create_job(settings)
        run_id = versioned.run_now(payloads.RunNow(job_id=job_id, idempotency_token="t-1"))
        assert finished(versioned, run_id).outcome is Outcome.SUCCESS
        submitted = versioned.submit_run(payloads.SubmitRun(run_name="typed", condition_task=condition))
        assert finished(versioned, submitted).outcome is Outcome.SUCCESS
        versioned.update_job(job_id, payloads.JobSettings(name="renamed"))
        settings = versioned.get_job(job_id)["settings"]
        assert settings["name"] == "renamed"
        # What was read may be sent back.
        versioned.reset_job(job_id, settings)
        assert versioned.get_job(job_id)["settings"] == settings

    def test_that_is_queued_is_cancelled_alone(self, newer: JobsClient) -> None:
        stuck = {"name": "stuck", "max_concurrent_runs": 0, "queue": {"enabled": True}, **TASK}
        runs = [newer.run_now({"job_id": newer.create_job(stuck)}) for _ in range(2)]
        newer.cancel_all_runs(all_queued_runs=True)
        assert {finished(newer, run_id).outcome for run_id in runs} == {Outcome.CANCELED}

    @pytest.mark.parametrize("array", ["tasks", "job_clusters", "job_parameters", "repair_history", "iterations"])
    def test_is_read_with_all_pages_of_its_arrays(
        self, workspace: LocalWorkspace, client: JobsClient, array: str
    ) -> None:
        pages = [
            {"run_id": 7, array: [{"run_id": 1}], "has_more": True, "next_page_token": "2"},
            {"run_id": 7, array: [{"run_id": 2}]},
        ]
        workspace.faults += [Fault("runs/get", status=200, body=page) for page in pages]
        assert client.get_run(7).raw == {"run_id": 7, array: [{"run_id": 1}, {"run_id": 2}]}

    def test_is_exported_as_views(self, versioned: JobsClient, tmp_path: Path) -> None:
        (tmp_path / "workspace" / "nb.py").write_text("# Databricks notebook source\nprint('käse')\n")
        run = finished(versioned, versioned.submit_run({"run_name": "one", "notebook_task": {"notebook_path": "/nb"}}))
        run_id = run.tasks[0].run_id if run.tasks else run.run_id
        (view,) = versioned.export_run(run_id, views="ALL")
        assert view["name"] == "nb"
        assert "käse" in view["content"]
        assert versioned.export_run(run_id, views="DASHBOARDS") == []


def grants(permissions: payloads.JobPermissions) -> dict[str, list[str]]:
    """Return the direct grants, by principal: the workspace's administrators have inherited ones."""
    levels = {
        entry.get("user_name") or entry["group_name"]: [
            item["permission_level"] for item in entry["all_permissions"] if not item["inherited"]
        ]
        for entry in permissions["access_control_list"]
    }
    return {principal: direct for principal, direct in levels.items() if direct}


class TestJob:
    def test_is_the_dict_of_the_api(self, versioned: JobsClient) -> None:
        job_id = versioned.create_job({"name": "nightly", "schedule": None, "max_concurrent_runs": 3, **TASK})
        job = versioned.get_job(job_id)
        assert (job["job_id"], job["settings"]["name"], job["settings"]["max_concurrent_runs"]) == (
            job_id,
            "nightly",
            3,
        )
        assert "schedule" not in job["settings"]
        assert [found["job_id"] for found in versioned.list_jobs()] == [job_id]

    def test_has_the_form_of_its_version(self, versioned: JobsClient) -> None:
        settings = versioned.get_job(versioned.create_job({"name": "one", **TASK}))["settings"]
        if versioned.api_version == "2.0":
            assert (settings["format"], settings.get("tasks")) == ("SINGLE_TASK", None)
            assert settings["condition_task"] == TASK["condition_task"]
        else:
            assert settings["format"] == "MULTI_TASK"
            (task,) = settings["tasks"]
            assert task["condition_task"]["op"] == "EQUAL_TO"

    def test_without_readable_settings_has_no_name(self, workspace: LocalWorkspace, client: JobsClient) -> None:
        workspace.faults.append(Fault("list", status=200, body={"jobs": [{"job_id": 5, "settings": "odd"}]}))
        assert client.find_job_ids("odd") == []

    def test_in_a_list_of_an_older_version_may_be_incomplete(self, workspace: LocalWorkspace) -> None:
        newest = client_of(workspace, "2.2")
        newest.create_job({"name": "large", "tasks": [{"task_key": f"t{number:03}", **TASK} for number in range(130)]})
        newest.create_job({"name": "small", "tasks": [{"task_key": "a", **TASK}]})
        for version in ("2.0", "2.1"):
            older = client_of(workspace, version)
            assert [job["settings"]["name"] for job in older.list_jobs(expand_tasks=True)] == ["small", "large"]
            assert [job["settings"]["name"] for job in older.list_jobs(name="small", expand_tasks=True)] == ["small"]
        assert workspace.requests["get"] == 0

    @pytest.mark.parametrize("array", ["tasks", "job_clusters", "environments", "parameters"])
    def test_is_read_with_all_pages_of_its_arrays(
        self, workspace: LocalWorkspace, client: JobsClient, array: str
    ) -> None:
        pages = [
            {"job_id": 7, "settings": {array: [{"a": 1}]}, "has_more": True, "next_page_token": "2"},
            {"job_id": 7, "settings": {array: [{"a": 2}]}},
        ]
        workspace.faults += [Fault("get", status=200, body=page) for page in pages]
        assert client.get_job(7) == {"job_id": 7, "settings": {array: [{"a": 1}, {"a": 2}]}}

    def test_permissions_are_read_replaced_and_extended(self, versioned: JobsClient) -> None:
        job_id = versioned.create_job({"name": "nightly", **TASK})
        mine = versioned.get_permissions(job_id)
        assert (mine["object_id"], mine["object_type"]) == (f"/jobs/{job_id}", "job")
        (owner,) = grants(mine)
        assert grants(mine) == {owner: ["IS_OWNER"]}
        own = {"user_name": owner, "permission_level": "IS_OWNER"}
        team = payloads.JobAccessControlRequest(group_name="team", permission_level="CAN_VIEW")
        assert grants(versioned.set_permissions(job_id, [own, team])) == {owner: ["IS_OWNER"], "team": ["CAN_VIEW"]}
        more = [{"group_name": "team", "permission_level": "CAN_MANAGE_RUN"}]
        assert grants(versioned.update_permissions(job_id, more))["team"] == ["CAN_MANAGE_RUN"]
        assert "team" not in grants(versioned.set_permissions(job_id, [own]))
        levels = {level["permission_level"] for level in versioned.get_permission_levels(job_id)}
        assert {"IS_OWNER", "CAN_MANAGE", "CAN_MANAGE_RUN", "CAN_VIEW"} <= levels
        with pytest.raises(ApiError):
            versioned.update_permissions(job_id, [{"group_name": "team", "permission_level": "CAN_FLY"}])
