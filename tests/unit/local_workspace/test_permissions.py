"""Permissions of jobs: how they are read, changed, replaced and validated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_dbjobs.local_workspace import Fault, LocalWorkspace

from .conftest import mounted
from .support import TOKEN, Client

if TYPE_CHECKING:
    from pathlib import Path

QUICK = {"spark_python_task": {"python_file": "/quick.py"}}
VIEW = {"group_name": "analysts", "permission_level": "CAN_VIEW"}
ADMINS = {"CAN_MANAGE": True}


def permissions(client: Client, job_id: int, method: str = "GET", *grants: dict, path: str = "") -> Any:
    kwargs = {} if method == "GET" else {"json": {"access_control_list": grants}}
    return client.send(method, f"/api/2.0/permissions/jobs/{job_id}{path}", **kwargs)


def held(response: Any) -> dict[str, dict[str, bool]]:
    """Return who has which levels: by name, {level: whether it is inherited}."""
    assert response.status_code == 200, response.text
    return {
        next(entry[kind] for kind in ("user_name", "group_name", "service_principal_name") if kind in entry): {
            item["permission_level"]: item["inherited"] for item in entry["all_permissions"]
        }
        for entry in response.json().get("access_control_list", [])
    }


@pytest.fixture
def me(client: Client) -> str:
    name: str = client.send("GET", "/api/2.0/preview/scim/v2/Me").json()["userName"]
    return name


@pytest.fixture
def job_id(client: Client) -> int:
    created: int = client.post("create", **QUICK)["job_id"]
    return created


class TestGet:
    def test_creator_is_the_owner(self, client: Client, me: str, job_id: int) -> None:
        assert permissions(client, job_id).json() == {
            "object_id": f"/jobs/{job_id}",
            "object_type": "job",
            "access_control_list": [
                {
                    "user_name": me,
                    "display_name": me,
                    "all_permissions": [{"permission_level": "IS_OWNER", "inherited": False}],
                },
                {
                    "group_name": "admins",
                    "all_permissions": [
                        {"permission_level": "CAN_MANAGE", "inherited": True, "inherited_from_object": ["/jobs/"]}
                    ],
                },
            ],
        }

    def test_levels_have_descriptions(self, client: Client, job_id: int) -> None:
        levels = permissions(client, job_id, path="/permissionLevels").json()["permission_levels"]
        assert [item["permission_level"] for item in levels] == ["CAN_VIEW", "CAN_MANAGE_RUN", "CAN_MANAGE", "IS_OWNER"]
        assert all(item["description"] for item in levels)


class TestPatch:
    def test_adds_and_changes_grants(self, client: Client, me: str, job_id: int) -> None:
        permissions(client, job_id, "PATCH", VIEW)
        robot = {"service_principal_name": "robot", "permission_level": "CAN_MANAGE_RUN"}
        answer = permissions(client, job_id, "PATCH", robot, {**VIEW, "permission_level": "CAN_MANAGE"})
        expected = {me: {"IS_OWNER": False}, "robot": {"CAN_MANAGE_RUN": False}, "analysts": {"CAN_MANAGE": False}}
        assert held(answer) == held(permissions(client, job_id)) == {**expected, "admins": ADMINS}
        assert held(permissions(client, job_id, "PATCH")) == {**expected, "admins": ADMINS}


class TestPut:
    def test_replaces_all_but_inherited_grants(self, client: Client, job_id: int) -> None:
        permissions(client, job_id, "PATCH", VIEW)
        owner = {"user_name": "new", "permission_level": "IS_OWNER"}
        admins = {"group_name": "admins", "permission_level": "CAN_VIEW"}
        both = {"new": {"IS_OWNER": False}, "admins": {"CAN_VIEW": False, **ADMINS}}
        assert held(permissions(client, job_id, "PUT", owner, admins)) == both
        assert held(permissions(client, job_id, "PUT")) == held(permissions(client, job_id)) == {"admins": ADMINS}


class TestOwner:
    def test_new_owner_replaces_the_old_one(self, client: Client, job_id: int) -> None:
        permissions(client, job_id, "PATCH", {"service_principal_name": "robot", "permission_level": "IS_OWNER"})
        assert held(permissions(client, job_id)) == {"robot": {"IS_OWNER": False}, "admins": ADMINS}
        assert client.get("get", job_id=job_id, version="2.0")["run_as"] == "robot"
        assert client.get("get", job_id=job_id)["run_as_user_name"] == "robot"
        client.post("update", job_id=job_id, new_settings={"run_as": {"user_name": "nightly"}})
        job = client.get("get", job_id=job_id)
        assert job["run_as_user_name"] == "nightly"
        assert "run_as" not in job["settings"]

    def test_job_needs_one(self, client: Client, me: str, job_id: int) -> None:
        for method, grant in (("PUT", VIEW), ("PATCH", {"user_name": me, "permission_level": "CAN_VIEW"})):
            reply = permissions(client, job_id, method, grant)
            assert reply.json() == {
                "error_code": "INVALID_PARAMETER_VALUE",
                "message": "The job must have exactly one owner.",
            }
        assert held(permissions(client, job_id)) == {me: {"IS_OWNER": False}, "admins": ADMINS}


class TestJobSettings:
    def test_create_takes_grants_from_2_1_on(self, client: Client, me: str) -> None:
        expected = {me: {"IS_OWNER": False}, "analysts": {"CAN_VIEW": False}, "admins": ADMINS}
        for version in ("2.1", "2.2"):
            job_id = client.post("create", access_control_list=[VIEW], version=version, **QUICK)["job_id"]
            assert held(permissions(client, job_id)) == expected
            assert "access_control_list" not in client.get("get", job_id=job_id)["settings"]
        job_id = client.post("create", access_control_list=[VIEW], version="2.0", **QUICK)["job_id"]
        assert "analysts" not in held(permissions(client, job_id))

    def test_reset_keeps_grants(self, client: Client, job_id: int) -> None:
        before = held(permissions(client, job_id, "PATCH", VIEW))
        other = {"group_name": "others", "permission_level": "CAN_VIEW"}
        client.post("reset", job_id=job_id, new_settings={**QUICK, "access_control_list": [other]})
        assert held(permissions(client, job_id)) == before


class TestInvalidGrants:
    @pytest.mark.parametrize(
        ("grants", "named"),
        [
            ([{**VIEW, "permission_level": "CAN_FLY"}], "CAN_FLY"),
            ([{"group_name": "analysts"}], "permission_level"),
            ([{"permission_level": "CAN_VIEW"}], "found none"),
            ([{"user_name": "a@example.com"}], "IS_OWNER; it is missing."),
            ([{**VIEW, "user_name": "x"}], "user_name and group_name"),
            ([{**VIEW, "permission_level": "IS_OWNER"}], "'analysts' cannot own"),
            ([{"user_name": name, "permission_level": "IS_OWNER"} for name in "ab"], "exactly one owner"),
        ],
    )
    def test_invalid_grant_is_refused(self, client: Client, job_id: int, grants: list[dict], named: str) -> None:
        before = held(permissions(client, job_id))
        replies = [permissions(client, job_id, method, *grants) for method in ("PUT", "PATCH")]
        replies += [
            client.send("POST", operation, json={"access_control_list": grants, **QUICK})
            for operation in ("create", "runs/submit")
        ]
        for reply in replies:
            assert (reply.status_code, reply.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
            assert named in reply.json()["message"]
        assert held(permissions(client, job_id)) == before
        assert [job["job_id"] for job in client.get("list")["jobs"]] == [job_id]
        assert client.get("runs/list") == {}

    @pytest.mark.parametrize(
        ("body", "named"),
        [
            ({"access_control_list": {}}, "'access_control_list'"),
            ({"access_control_list": ["a"]}, "'access_control_list'"),
            ({"access_control_list": [{"user_name": 7, "permission_level": "CAN_VIEW"}]}, "'user_name'"),
            ({"access_control_list": [{"user_name": "a", "permission_level": ["CAN_VIEW"]}]}, "'permission_level'"),
        ],
    )
    def test_wrong_type_is_malformed(self, client: Client, job_id: int, body: dict, named: str) -> None:
        reply = client.send("PATCH", f"/api/2.0/permissions/jobs/{job_id}", json=body)
        assert (reply.status_code, reply.json()["error_code"]) == (400, "MALFORMED_REQUEST")
        assert named in reply.json()["message"]


class TestRoutes:
    def test_unknown_job_is_not_found(self, client: Client, job_id: int) -> None:
        permissions(client, job_id, "PATCH", VIEW)
        client.post("delete", job_id=job_id)
        for method, path in (("GET", ""), ("PUT", ""), ("PATCH", ""), ("GET", "/permissionLevels")):
            reply = permissions(client, job_id, method, path=path)
            assert reply.status_code == 404
            assert reply.json() == {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": f"Job {job_id} does not exist."}
        assert client.send("GET", "/api/2.0/permissions/jobs/seven").json()["error_code"] == "MALFORMED_REQUEST"

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("POST", "/api/2.0/permissions/jobs/{}"),
            ("PUT", "/api/2.0/permissions/jobs/{}/permissionLevels"),
            ("GET", "/api/2.1/permissions/jobs/{}"),
            ("GET", "/api/2.0/permissions/clusters/{}"),
            ("GET", "/api/2.0/jobs/permissions"),
        ],
    )
    def test_there_are_no_others(self, client: Client, job_id: int, method: str, path: str) -> None:
        path = path.format(job_id)
        reply = client.send(method, path)
        assert (reply.status_code, reply.json()["error_code"]) == (404, "ENDPOINT_NOT_FOUND")

    def test_grants_survive_a_restart(self, root: Path) -> None:
        with LocalWorkspace(root, token=TOKEN) as ws:
            client = mounted(ws)
            job_id = client.post("create", access_control_list=[VIEW], **QUICK)["job_id"]
            bare_id = client.post("create", **QUICK)["job_id"]
            permissions(client, bare_id, "PUT")
            before = held(permissions(client, job_id))
        assert before["analysts"] == {"CAN_VIEW": False}
        with LocalWorkspace(root, token=TOKEN) as ws:
            assert held(permissions(mounted(ws), job_id)) == before
            assert held(permissions(mounted(ws), bare_id)) == {"admins": ADMINS}

    def test_faults_and_counters_ignore_the_job(self, client: Client, workspace: LocalWorkspace, job_id: int) -> None:
        workspace.faults.append(Fault("permissions*", status=503, times=2))
        assert permissions(client, job_id, "PATCH", VIEW).status_code == 503
        assert permissions(client, job_id, path="/permissionLevels").status_code == 503
        assert "analysts" not in held(permissions(client, job_id))
        assert workspace.requests["permissions"] == 2
        assert workspace.requests["permissions/permissionLevels"] == 1
