"""What goes over the wire: credentials, routes, and bodies as other clients send them."""

from __future__ import annotations

import base64
import json
import threading
from typing import TYPE_CHECKING

import pytest
import requests

from .conftest import Clock, mounted
from .support import TOKEN, Client

if TYPE_CHECKING:
    from airflow_dbjobs.local_workspace import LocalWorkspace

QUICK = {"spark_python_task": {"python_file": "/quick.py"}}


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    "header", [f"Bearer {TOKEN}", f"bearer {TOKEN}", basic("token", TOKEN), basic("me@x.org", TOKEN)]
)
def test_the_token_is_taken_as_a_bearer_and_as_a_password(client: Client, header: str) -> None:
    assert client.send("GET", "list", headers={"Authorization": header}).json() == {}


@pytest.mark.parametrize(
    "header", ["Bearer wrong", basic("token", "wrong"), basic(TOKEN, ""), "Basic %%", f"Other {TOKEN}"]
)
def test_a_wrong_token_is_forbidden_with_a_number_for_a_code(client: Client, header: str) -> None:
    response = client.send("GET", "list", headers={"Authorization": header})
    assert response.status_code == 403
    assert response.json()["error_code"] == 403


def test_no_credentials_are_unauthorized(client: Client) -> None:
    del client.session.headers["Authorization"]
    for path in ("list", "/api/local/requests", "/api/9/nothing", "/api/2.0/preview/scim/v2/Me"):
        response = client.send("GET", path)
        assert response.status_code == 401
        assert response.json()["error_code"] == "UNAUTHENTICATED"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/2.2/jobs/nothing"),
        ("GET", "/api/2.3/jobs/list"),
        ("GET", "/api/2.2/jobs/create"),
        ("POST", "/api/2.2/jobs/runs/get"),
        ("GET", "/api/2.2/jobs/runs/list/"),
        ("GET", "/nothing"),
        ("POST", "/"),
    ],
)
def test_what_does_not_exist_is_a_bad_target(client: Client, method: str, path: str) -> None:
    response = client.send(method, path)
    assert response.status_code == 404
    assert response.json() == {"error": f"Bad Target: {path}"}


def test_bodies_are_json_whatever_their_content_type(client: Client) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    response = client.send("POST", "runs/submit", data=json.dumps(QUICK), headers=headers)
    assert response.json()["run_id"]


def test_the_parameters_of_a_get_may_be_in_its_body(client: Client) -> None:
    run_id = client.submit(**QUICK)
    assert client.send("GET", "runs/get", json={"run_id": run_id}).json()["run_id"] == run_id


def test_numbers_may_come_as_strings(client: Client) -> None:
    job_id = client.post("create", timeout_seconds="3600", max_retries="1", **QUICK)["job_id"]
    settings = client.get("get", job_id=job_id, version="2.0")["settings"]
    assert (settings["timeout_seconds"], settings["max_retries"]) == (3600, 1)
    assert client.post("run-now", job_id=str(job_id))["run_id"]


@pytest.mark.parametrize("body", ["{", "[1]", "7", '"x"', "[" * 100_000])
def test_what_is_no_json_object_is_malformed(client: Client, body: str) -> None:
    response = client.send("POST", "runs/submit", data=body)
    assert response.status_code == 400
    assert response.json()["error_code"] == "MALFORMED_REQUEST"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("timeout_seconds", "soon"),
        ("timeout_seconds", True),
        ("tasks", {}),
        ("spark_python_task", "file.py"),
        ("run_name", 7),
        ("queue", True),
    ],
)
def test_a_field_of_another_type_is_malformed_and_named(client: Client, field: str, value: object) -> None:
    error = client.refused("POST", "runs/submit", {**QUICK, field: value})
    assert error["error_code"] == "MALFORMED_REQUEST"
    assert f"'{field}'" in error["message"]


def test_tasks_are_objects(client: Client) -> None:
    for tasks in (["a"], [{"task_key": "a", "depends_on": ["b"], **QUICK}]):
        assert client.refused("POST", "runs/submit", {"tasks": tasks})["error_code"] == "MALFORMED_REQUEST"


def test_nulls_and_unknown_fields_are_ignored(client: Client) -> None:
    client.submit(timeout_seconds=None, whatever={"a": 1}, **QUICK)


def test_a_body_beyond_10_mb_is_refused(client: Client) -> None:
    error = client.refused("POST", "runs/submit", {**QUICK, "run_name": "x" * 10 * 1024 * 1024})
    assert "10485760" in error["message"]


def test_replies_carry_the_servers_date(stepped: LocalWorkspace, clock: Clock) -> None:
    client = mounted(stepped)
    assert client.send("GET", "list").headers["Date"] == "Fri, 15 Jan 2027 08:00:00 GMT"
    clock.now += 61.9
    assert client.send("GET", "get").headers["date"] == "Fri, 15 Jan 2027 08:01:01 GMT"


def test_who_am_i(client: Client) -> None:
    assert client.send("GET", "/api/2.0/preview/scim/v2/Me").json()["userName"]
    assert client.send("GET", "/api/2.1/clusters/spark-versions").json() == {"versions": []}


def test_oauth_discovery_leads_to_a_token(client: Client) -> None:
    del client.session.headers["Authorization"]
    config = client.send("GET", "/.well-known/databricks-config").json()
    assert config["oidc_endpoint"] == f"{client.base_url}/oidc"
    endpoints = client.send("GET", "/oidc/.well-known/oauth-authorization-server").json()
    url = endpoints["token_endpoint"]
    form = {"grant_type": "client_credentials", "scope": "all-apis"}
    assert client.session.post(url, data=form, auth=("id", TOKEN)).json()["access_token"] == TOKEN
    in_form = {**form, "client_id": "id", "client_secret": TOKEN}
    assert client.session.post(url, data=in_form).json()["token_type"] == "Bearer"
    assert client.session.post(url, data=form, auth=("id", "wrong")).status_code == 401
    assert client.session.post(url, data={"grant_type": "password"}).status_code == 400


def test_a_bug_of_ours_is_an_internal_error(
    client: Client, workspace: LocalWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace._store, "commit", lambda: 1 / 0)
    response = client.send("GET", "list")
    assert response.status_code == 500
    assert response.json()["error_code"] == "INTERNAL_ERROR"
    monkeypatch.undo()


def test_the_same_token_sent_at_once_launches_one_run(workspace: LocalWorkspace) -> None:
    ids: list[int] = []

    def submit() -> None:
        ids.append(mounted(workspace).submit(idempotency_token="t", **QUICK))

    threads = [threading.Thread(target=submit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 8
    assert len(set(ids)) == 1


def test_raise_for_status_has_a_reason(client: Client) -> None:
    with pytest.raises(requests.HTTPError, match="404 Client Error: Not Found"):
        client.send("GET", "nothing").raise_for_status()
