"""A job that is kept as it is described, against the local workspace in every API version."""

from __future__ import annotations

import json
import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest
from injected_clock import Clock
from job_cases import FLAT, OF_TASKS, JobCase

from airflow_dbjobs import payloads
from airflow_dbjobs.client import JobsClient
from airflow_dbjobs.client.ensure_job import ensure_job
from airflow_dbjobs.client.workspace import API_VERSIONS
from airflow_dbjobs.errors import BadRequest, ConfigurationError, PermissionDenied, Unreachable
from airflow_dbjobs.local_workspace import Fault
from airflow_dbjobs.local_workspace.http import routes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_dbjobs.local_workspace import LocalWorkspace
    from airflow_dbjobs.local_workspace.messages import Reply, Request

CONDITION = {"op": "EQUAL_TO", "left": "1", "right": "1"}
NIGHTLY = {"name": "nightly", "condition_task": CONDITION}
TEAM = {"group_name": "team", "permission_level": "CAN_MANAGE_RUN"}
NEWER = ("2.1", "2.2")
# What ensure_job asks where the job is as it should be.
UNTOUCHED = {"list": 1, "get": 1}


def client_of(workspace: LocalWorkspace, api_version: str) -> JobsClient:
    """Return a client whose waits take no time."""
    client = JobsClient(workspace.base_url, token=workspace.token, api_version=api_version)
    Clock().rule(client)
    return client


@pytest.fixture(params=API_VERSIONS)
def versioned(workspace: LocalWorkspace, request: pytest.FixtureRequest) -> JobsClient:
    return client_of(workspace, request.param)


@pytest.fixture(params=NEWER)
def newer(workspace: LocalWorkspace, request: pytest.FixtureRequest) -> JobsClient:
    return client_of(workspace, request.param)


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Return what tells what was logged since it was last asked."""
    caplog.set_level(logging.INFO, "airflow_dbjobs.client.ensure_job")

    def texts() -> list[str]:
        messages = [
            record.getMessage() for record in caplog.records if record.name == "airflow_dbjobs.client.ensure_job"
        ]
        caplog.clear()
        return messages

    return texts


@pytest.fixture
def asked(workspace: LocalWorkspace) -> Callable[[], dict[str, int]]:
    """Return what tells the requests since it was last asked."""

    def counts() -> dict[str, int]:
        seen = dict(workspace.requests)
        workspace.requests.clear()
        return seen

    return counts


def names(client: JobsClient) -> list[str]:
    return sorted(job["settings"]["name"] for job in client.list_jobs())


def cases() -> Iterator[Any]:
    for title, case in FLAT.items():
        for version in API_VERSIONS:
            yield pytest.param(case, version, id=f"{title}-{version}")
    for title, case in OF_TASKS.items():
        for version in NEWER:
            yield pytest.param(case, version, id=f"{title}-{version}")


class TestUnclearCreation:
    @pytest.mark.parametrize("lost", [{"cut": "after"}, {"status": 502, "handled": True}, {"hang": 3600}], ids=str)
    def test_with_a_lost_reply_makes_no_second_job(
        self,
        versioned: JobsClient,
        workspace: LocalWorkspace,
        asked: Callable[[], dict[str, int]],
        lost: dict[str, Any],
    ) -> None:
        workspace.faults.append(Fault("create", **lost))
        job_id = ensure_job(versioned, NIGHTLY)
        assert asked() == {"list": 2, "create": 1, "get": 1}
        assert [job["job_id"] for job in versioned.list_jobs()] == [job_id]

    def test_that_never_arrived_is_an_error_until_the_retry(
        self, versioned: JobsClient, workspace: LocalWorkspace
    ) -> None:
        workspace.faults.append(Fault("create", cut="before"))
        with pytest.raises(Unreachable):
            ensure_job(versioned, NIGHTLY)
        assert names(versioned) == []
        job_id = ensure_job(versioned, NIGHTLY)
        assert [job["job_id"] for job in versioned.list_jobs()] == [job_id]

    def test_that_was_refused_keeps_a_job_created_since(self, versioned: JobsClient, workspace: LocalWorkspace) -> None:
        job_id = versioned.create_job({**NIGHTLY, "timeout_seconds": 5})
        workspace.faults += [
            Fault("list", status=200, body={}),
            Fault("create", status=403, body={"error_code": "PERMISSION_DENIED"}),
        ]
        with pytest.raises(PermissionDenied):
            ensure_job(versioned, {**NIGHTLY, "timeout_seconds": 60})
        assert versioned.get_job(job_id)["settings"]["timeout_seconds"] == 5


class TestConcurrentCreation:
    def test_yields_to_a_job_created_since_the_lookup(
        self,
        versioned: JobsClient,
        workspace: LocalWorkspace,
        monkeypatch: pytest.MonkeyPatch,
        told: Callable[[], list[str]],
    ) -> None:
        others: list[int] = []
        handle = workspace.handle

        def between_list_and_create(request: Request) -> Reply:
            if routes.operation_of(request.path) == "create" and not others:
                others.append(0)  # the other one's request is let pass
                others[0] = ensure_job(client_of(workspace, "2.2"), {**NIGHTLY, "timeout_seconds": 5})
            return handle(request)

        monkeypatch.setattr(workspace, "handle", between_list_and_create)
        job_id = ensure_job(versioned, {**NIGHTLY, "timeout_seconds": 60})
        assert [job_id] == others == [job["job_id"] for job in versioned.list_jobs()]
        assert any("Another caller created job" in text for text in told())
        # The later one's settings hold, as if it had come later altogether.
        assert versioned.get_job(job_id)["settings"]["timeout_seconds"] == 60

    def test_keeps_the_job_created_first_whatever_its_id(
        self, workspace: LocalWorkspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        handle = workspace.handle

        def with_a_later_twin(request: Request) -> Reply:
            reply = handle(request)
            if routes.operation_of(request.path) == "create":
                ids = {1: json.loads(reply.body)["job_id"], 2: 7}
                twins = [{"job_id": ids[at], "created_time": at, "settings": {"name": "nightly"}} for at in ids]
                workspace.faults.append(Fault("list", status=200, body={"jobs": twins}))
            return reply

        monkeypatch.setattr(workspace, "handle", with_a_later_twin)
        assert ensure_job(client_of(workspace, "2.2"), NIGHTLY) != 7
        assert workspace.requests["delete"] == 0

    def test_leaves_one_job(
        self, versioned: JobsClient, workspace: LocalWorkspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        both_have_looked = threading.Barrier(2, timeout=30)
        seen = threading.local()
        handle = workspace.handle

        def together(request: Request) -> Reply:
            reply = handle(request)
            if not hasattr(seen, "first"):
                seen.first = routes.operation_of(request.path)
                both_have_looked.wait()
            return reply

        monkeypatch.setattr(workspace, "handle", together)
        kept: list[int] = []
        clients = [versioned, client_of(workspace, versioned.api_version)]
        threads = [threading.Thread(target=lambda it=it: kept.append(ensure_job(it, NIGHTLY))) for it in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        monkeypatch.setattr(workspace, "handle", handle)
        assert workspace.requests["create"] == 2
        assert kept == [job["job_id"] for job in versioned.list_jobs()] * 2


def grants(client: JobsClient, job_id: int) -> dict[str, list[str]]:
    """Return the direct grants by principal, without the owner's."""
    found = {}
    for entry in client.get_permissions(job_id)["access_control_list"]:
        levels = [item["permission_level"] for item in entry["all_permissions"] if not item["inherited"]]
        if levels and levels != ["IS_OWNER"]:
            found[entry.get("user_name") or entry.get("group_name") or entry.get("service_principal_name")] = levels
    return found


class TestPermissions:
    def test_are_set_when_the_job_is_created(self, versioned: JobsClient, asked: Callable[[], dict[str, int]]) -> None:
        robot = {"service_principal_name": "7-a", "permission_level": "CAN_VIEW"}
        job_id = ensure_job(versioned, {**NIGHTLY, "access_control_list": [TEAM, robot]})
        # In 2.0 they are added afterwards.
        asked_for_permissions = 2 if versioned.api_version == "2.0" else 1
        assert asked() == {"list": 2, "create": 1, "permissions": asked_for_permissions}
        assert grants(versioned, job_id) == {"team": ["CAN_MANAGE_RUN"], "7-a": ["CAN_VIEW"]}
        asked()
        assert ensure_job(versioned, {**NIGHTLY, "access_control_list": [TEAM, robot]}) == job_id
        assert asked() == {**UNTOUCHED, "permissions": 1}

    def test_that_are_missing_are_added_and_others_kept(
        self, versioned: JobsClient, asked: Callable[[], dict[str, int]], told: Callable[[], list[str]]
    ) -> None:
        job_id = ensure_job(versioned, NIGHTLY)
        versioned.update_permissions(job_id, [{"user_name": "ann@example.com", "permission_level": "CAN_VIEW"}, TEAM])
        asked()
        told()
        more = {"group_name": "all", "permission_level": "CAN_VIEW"}
        ensure_job(versioned, {**NIGHTLY, "access_control_list": [TEAM, more]})
        assert asked() == {**UNTOUCHED, "permissions": 2}
        assert told()[-1] == f"Granting on job {job_id} 'nightly': CAN_VIEW to group_name all."
        assert grants(versioned, job_id) == {
            "ann@example.com": ["CAN_VIEW"],
            "team": ["CAN_MANAGE_RUN"],
            "all": ["CAN_VIEW"],
        }

    def test_of_another_level_replace_those_of_a_principal(self, versioned: JobsClient) -> None:
        job_id = ensure_job(versioned, {**NIGHTLY, "access_control_list": [TEAM]})
        ensure_job(versioned, {**NIGHTLY, "access_control_list": [{**TEAM, "permission_level": "CAN_VIEW"}]})
        assert grants(versioned, job_id) == {"team": ["CAN_VIEW"]}

    def test_that_are_inherited_are_not_the_jobs_own(
        self, versioned: JobsClient, asked: Callable[[], dict[str, int]]
    ) -> None:
        job_id = ensure_job(versioned, NIGHTLY)
        admins = {"group_name": "admins", "permission_level": "CAN_MANAGE"}
        asked()
        ensure_job(versioned, {**NIGHTLY, "access_control_list": [admins]})
        assert asked()["permissions"] == 2
        assert grants(versioned, job_id) == {"admins": ["CAN_MANAGE"]}

    def test_are_not_requested_if_none_are_given(
        self, versioned: JobsClient, asked: Callable[[], dict[str, int]]
    ) -> None:
        ensure_job(versioned, {**NIGHTLY, "access_control_list": []})
        assert "permissions" not in asked()

    def test_that_are_refused_keep_the_job_and_are_retried(
        self, versioned: JobsClient, workspace: LocalWorkspace, asked: Callable[[], dict[str, int]]
    ) -> None:
        job_id = ensure_job(versioned, NIGHTLY)
        refusal = {"error_code": "PERMISSION_DENIED", "message": "needs Manage"}
        workspace.faults.append(Fault("permissions", status=403, body=refusal, skip=1))
        settings = {**NIGHTLY, "timeout_seconds": 60, "access_control_list": [TEAM]}
        with pytest.raises(PermissionDenied, match="needs Manage"):
            ensure_job(versioned, settings)
        assert versioned.get_job(job_id)["settings"]["timeout_seconds"] == 60
        assert grants(versioned, job_id) == {}
        asked()
        assert ensure_job(versioned, settings) == job_id
        assert asked() == {**UNTOUCHED, "permissions": 2}
        assert grants(versioned, job_id) == {"team": ["CAN_MANAGE_RUN"]}

    def test_refused_by_api_2_0_create_no_second_job(
        self, workspace: LocalWorkspace, asked: Callable[[], dict[str, int]]
    ) -> None:
        client = client_of(workspace, "2.0")
        workspace.faults.append(Fault("permissions", status=403, skip=1))
        settings = {**NIGHTLY, "access_control_list": [TEAM]}
        with pytest.raises(PermissionDenied):
            ensure_job(client, settings)
        asked()
        job_id = ensure_job(client, settings)
        assert asked() == {**UNTOUCHED, "permissions": 2}
        assert [job["job_id"] for job in client.list_jobs()] == [job_id]
        assert grants(client, job_id) == {"team": ["CAN_MANAGE_RUN"]}

    def test_keep_the_owner_and_the_last_level_of_a_principal(
        self, client: JobsClient, asked: Callable[[], dict[str, int]]
    ) -> None:
        job_id = ensure_job(client, NIGHTLY)
        owner = next(
            entry["user_name"]
            for entry in client.get_permissions(job_id)["access_control_list"]
            if any(item["permission_level"] == "IS_OWNER" for item in entry["all_permissions"])
        )
        grants = [
            {"user_name": owner, "permission_level": "CAN_MANAGE"},
            {**TEAM, "permission_level": "CAN_VIEW"},
            TEAM,
        ]
        asked()
        ensure_job(client, {**NIGHTLY, "access_control_list": grants})
        assert asked() == {**UNTOUCHED, "permissions": 2}
        ensure_job(client, {**NIGHTLY, "access_control_list": grants})
        assert asked() == {**UNTOUCHED, "permissions": 1}


class TestEnsureJob:
    @pytest.mark.parametrize(("case", "version"), list(cases()))
    def test_writes_a_job_only_if_it_is_new_or_changed(
        self,
        workspace: LocalWorkspace,
        asked: Callable[[], dict[str, int]],
        told: Callable[[], list[str]],
        case: JobCase,
        version: str,
    ) -> None:
        for settings in (case.settings, case.changed()):
            payloads.check("create", settings, version)
        client = client_of(workspace, version)
        job_id = ensure_job(client, case.settings)
        assert asked() == {"list": 2, "create": 1}
        assert ensure_job(client, case.settings) == job_id
        assert asked() == UNTOUCHED
        told()
        assert ensure_job(client, case.changed()) == job_id
        assert asked() == {**UNTOUCHED, "reset": 1}
        (text,) = told()
        assert text == f"Resetting job {job_id} {case.settings['name']!r}: it differs in {case.named}."
        assert ensure_job(client, case.changed()) == job_id
        assert asked() == UNTOUCHED
        assert ensure_job(client, case.settings) == job_id
        assert asked() == {**UNTOUCHED, "reset": 1}

    def test_is_tested_with_enough_cases(self) -> None:
        assert len({**FLAT, **OF_TASKS}) >= 25

    def test_creates_a_job_if_none_has_its_name(self, versioned: JobsClient, told: Callable[[], list[str]]) -> None:
        job_id = ensure_job(versioned, {**NIGHTLY, "max_concurrent_runs": 3})
        assert told() == [f"Created job {job_id} 'nightly'."]
        settings = versioned.get_job(job_id)["settings"]
        assert (settings["name"], settings["max_concurrent_runs"]) == ("nightly", 3)

    def test_finds_and_resets_the_job_of_somebody_else(
        self, versioned: JobsClient, asked: Callable[[], dict[str, int]], told: Callable[[], list[str]]
    ) -> None:
        job_id = versioned.create_job(
            {
                **NIGHTLY,
                "timeout_seconds": 5,
                "schedule": {"quartz_cron_expression": "0 0 1 * * ?", "timezone_id": "UTC"},
            }
        )
        asked()
        assert ensure_job(versioned, {**NIGHTLY, "timeout_seconds": 60}) == job_id
        assert asked() == {**UNTOUCHED, "reset": 1}
        assert told() == [f"Resetting job {job_id} 'nightly': it differs in schedule, timeout_seconds."]
        settings = versioned.get_job(job_id)["settings"]
        assert (settings["timeout_seconds"], "schedule" in settings) == (60, False)

    def test_finds_a_job_of_another_api_version_unchanged(
        self, workspace: LocalWorkspace, versioned: JobsClient, asked: Callable[[], dict[str, int]]
    ) -> None:
        settings = {**NIGHTLY, "max_retries": 2, "libraries": [{"whl": "a.whl"}]}
        job_id = ensure_job(client_of(workspace, "2.0"), settings)
        asked()
        assert ensure_job(versioned, settings) == job_id
        assert asked() == UNTOUCHED

    def test_reports_the_first_differences_only(self, versioned: JobsClient, told: Callable[[], list[str]]) -> None:
        parameters = {f"p{number:02}": "1" for number in range(15)}
        notebook = {"notebook_path": "/a"}
        ensure_job(versioned, {"name": "n", "notebook_task": {**notebook, "base_parameters": parameters}})
        told()
        ensure_job(
            versioned, {"name": "n", "notebook_task": {**notebook, "base_parameters": dict.fromkeys(parameters, "2")}}
        )
        (text,) = told()
        assert text.count("base_parameters.p") == 10
        assert text.endswith("tasks[0].notebook_task.base_parameters.p09 and 5 more.")

    def test_distinguishes_names_by_letter_case(self, versioned: JobsClient) -> None:
        shouted = versioned.create_job({**NIGHTLY, "name": "NIGHTLY", "timeout_seconds": 5})
        job_id = ensure_job(versioned, NIGHTLY)
        assert job_id != shouted
        assert names(versioned) == ["NIGHTLY", "nightly"]
        assert versioned.get_job(shouted)["settings"]["timeout_seconds"] == 5

    def test_refuses_an_ambiguous_name_and_writes_nothing(
        self, versioned: JobsClient, asked: Callable[[], dict[str, int]]
    ) -> None:
        ids = sorted(versioned.create_job(NIGHTLY) for _ in range(3))
        asked()
        with pytest.raises(ConfigurationError, match=f"name='nightly': 3 jobs .*{', '.join(map(str, ids))}.*Delete"):
            ensure_job(versioned, {**NIGHTLY, "timeout_seconds": 9})
        assert asked() == {"list": 1}

    @pytest.mark.parametrize("nameless", [{}, {"name": None}, {"name": ""}])
    def test_refuses_settings_without_a_name(
        self, versioned: JobsClient, asked: Callable[[], dict[str, int]], nameless: dict[str, Any]
    ) -> None:
        with pytest.raises(ConfigurationError, match="name is missing"):
            ensure_job(versioned, {**nameless, "condition_task": CONDITION})
        assert asked() == {}

    def test_accepts_a_name_that_a_template_made_a_number(
        self, versioned: JobsClient, asked: Callable[[], dict[str, int]]
    ) -> None:
        job_id = ensure_job(versioned, {**NIGHTLY, "name": 2024})
        asked()
        assert ensure_job(versioned, {**NIGHTLY, "name": "2024"}) == job_id
        assert asked() == UNTOUCHED

    def test_accepts_typed_settings(self, newer: JobsClient, asked: Callable[[], dict[str, int]]) -> None:
        def settings(retries: int) -> payloads.CreateJob:
            task = payloads.Task(
                task_key="a",
                max_retries=retries,
                condition_task=payloads.ConditionTask(op="EQUAL_TO", left="1", right="1"),
            )
            grant = payloads.JobAccessControlRequest(group_name="team", permission_level="CAN_VIEW")
            return payloads.CreateJob(name="typed", tasks=(task,), access_control_list=[grant])

        job_id = ensure_job(newer, settings(1))
        asked()
        assert ensure_job(newer, settings(1)) == job_id
        assert asked() == {**UNTOUCHED, "permissions": 1}
        assert ensure_job(newer, settings(2)) == job_id
        assert asked() == {**UNTOUCHED, "reset": 1, "permissions": 1}
        assert newer.get_job(job_id)["settings"]["tasks"][0]["max_retries"] == 2

    def test_compares_all_pages_of_a_large_job(
        self, workspace: LocalWorkspace, asked: Callable[[], dict[str, int]], told: Callable[[], list[str]]
    ) -> None:
        client = client_of(workspace, "2.2")
        tasks = [{"task_key": f"t{number:03}", "condition_task": CONDITION} for number in range(230)]
        job_id = ensure_job(client, {"name": "large", "tasks": tasks})
        asked()
        ensure_job(client, {"name": "large", "tasks": tasks})
        assert asked() == {"list": 1, "get": 3}
        told()
        tasks[215] = {**tasks[215], "max_retries": 1}
        ensure_job(client, {"name": "large", "tasks": tasks[:-1]})
        assert asked() == {"list": 1, "get": 3, "reset": 1}
        assert told() == [f"Resetting job {job_id} 'large': it differs in tasks[t215].max_retries, tasks[t229]."]

    def test_leaves_the_callers_settings_unchanged(self, newer: JobsClient) -> None:
        settings = {**NIGHTLY, "access_control_list": [TEAM], "schedule": None}
        ensure_job(newer, settings)
        assert settings == {**NIGHTLY, "access_control_list": [TEAM], "schedule": None}

    def test_raises_the_apis_error_for_refused_settings(self, versioned: JobsClient) -> None:
        with pytest.raises(BadRequest, match="max_concurrent_runs"):
            ensure_job(versioned, {**NIGHTLY, "max_concurrent_runs": 1001})
        assert names(versioned) == []

    def test_survives_a_failing_list_after_the_creation(self, client: JobsClient, workspace: LocalWorkspace) -> None:
        workspace.faults.append(Fault("list", status=403, body={"error_code": "PERMISSION_DENIED"}, skip=1))
        job_id = ensure_job(client, NIGHTLY)
        assert ensure_job(client, NIGHTLY) == job_id

    def test_creates_a_job_again_that_is_deleted_meanwhile(self, client: JobsClient, workspace: LocalWorkspace) -> None:
        old = ensure_job(client, NIGHTLY)
        gone = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": f"Job {old} does not exist."}
        workspace.faults.append(Fault("get", status=404, body=gone))
        client.delete_job(old)
        workspace.faults.append(
            Fault("list", status=200, body={"jobs": [{"job_id": old, "settings": {"name": "nightly"}}]})
        )
        new = ensure_job(client, NIGHTLY)
        assert new != old
        assert [job["job_id"] for job in client.list_jobs()] == [new]

    def test_keeps_additional_settings_until_something_differs(
        self, versioned: JobsClient, asked: Callable[[], dict[str, int]]
    ) -> None:
        job_id = ensure_job(versioned, {**NIGHTLY, "timeout_seconds": 60, "max_concurrent_runs": 5})
        asked()
        assert ensure_job(versioned, {**NIGHTLY, "timeout_seconds": 60}) == job_id
        assert asked() == UNTOUCHED
        ensure_job(versioned, {**NIGHTLY, "timeout_seconds": 90})
        assert versioned.get_job(job_id)["settings"].get("max_concurrent_runs", 1) == 1
