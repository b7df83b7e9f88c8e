"""HTTP requests: credentials, routes, and the types of their fields."""

from __future__ import annotations

import base64
import json
import sqlite3
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


class TestAuthentication:
    @pytest.mark.parametrize(
        "header", [f"Bearer {TOKEN}", f"bearer {TOKEN}", basic("token", TOKEN), basic("me@x.org", TOKEN)]
    )
    def test_accepts_bearer_and_basic(self, client: Client, header: str) -> None:
        assert client.send("GET", "list", headers={"Authorization": header}).json() == {}

    @pytest.mark.parametrize(
        "header", ["Bearer wrong", basic("token", "wrong"), basic(TOKEN, ""), "Basic %%", f"Other {TOKEN}"]
    )
    def test_wrong_token_has_a_numeric_code(self, client: Client, header: str) -> None:
        response = client.send("GET", "list", headers={"Authorization": header})
        assert response.status_code == 403
        assert response.json()["error_code"] == 403

    @pytest.mark.parametrize("header", ["Bearer wrong", basic("token", ""), "Basic %%", "Basic \u00e9", "Foo bar"])
    def test_empty_token_never_matches(self, client: Client, workspace: LocalWorkspace, header: str) -> None:
        workspace.token = ""
        assert client.send("GET", "list", headers={"Authorization": header.encode("latin-1")}).status_code == 403

    def test_missing_credentials(self, client: Client) -> None:
        del client.session.headers["Authorization"]
        for path in ("list", "/api/local/requests", "/api/9/nothing", "/api/2.0/preview/scim/v2/Me"):
            response = client.send("GET", path)
            assert response.status_code == 401
            assert response.json()["error_code"] == "UNAUTHENTICATED"

    def test_shows_the_caller(self, client: Client) -> None:
        assert client.send("GET", "/api/2.0/preview/scim/v2/Me").json()["userName"]

    def test_oauth_discovery_leads_to_a_token(self, client: Client) -> None:
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


class TestRoutes:
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
    def test_unknown_route_does_not_exist(self, client: Client, method: str, path: str) -> None:
        response = client.send(method, path)
        assert response.status_code == 404
        assert response.json()["error_code"] == "ENDPOINT_NOT_FOUND"
        assert f"does not serve {method} {path}." in response.json()["message"]

    @pytest.mark.parametrize(
        ("method", "path", "meant"),
        [
            ("GET", "/api/2.1/jobs/runs/lst", "GET /api/2.1/jobs/runs/list"),
            ("GET", "/api/2.2/jobs/create", "POST /api/2.2/jobs/create"),
            ("POST", "/api/2.0/jobs/runs/repair", "POST /api/2.2/jobs/runs/repair"),
            ("GET", "/2.1/jobs/list", "GET /api/2.2/jobs/list"),
            ("GET", "/api/2.0/permission/jobs/7", "GET /api/2.0/permissions/jobs/{job_id}"),
        ],
    )
    def test_unknown_route_is_answered_with_what_was_meant(
        self, client: Client, method: str, path: str, meant: str
    ) -> None:
        assert f"Did you mean {meant}" in client.send(method, path).json()["message"]

    def test_unknown_route_is_answered_with_what_there_is(self, client: Client) -> None:
        message = client.send("GET", "/api/2.0/sql/warehouses").json()["message"]
        assert "Did you mean" not in message
        assert message.endswith(
            "It serves jobs/* (2.0, 2.1, 2.2), permissions/jobs/{job_id} (2.0), workspace/* (2.0), dbfs/* (2.0), "
            "fs/* (2.0), clusters/* (2.0, 2.1), libraries/* (2.0), preview/scim/v2/Me (2.0)."
        )

    def test_replies_have_a_date(self, stepped: LocalWorkspace, clock: Clock) -> None:
        client = mounted(stepped)
        assert client.send("GET", "list").headers["Date"] == "Fri, 15 Jan 2027 08:00:00 GMT"
        clock.now += 61.9
        assert client.send("GET", "get").headers["date"] == "Fri, 15 Jan 2027 08:01:01 GMT"

    def test_errors_have_a_reason_phrase(self, client: Client) -> None:
        with pytest.raises(requests.HTTPError, match="404 Client Error: Not Found"):
            client.send("GET", "nothing").raise_for_status()


class TestBody:
    def test_is_json_whatever_its_content_type(self, client: Client) -> None:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        response = client.send("POST", "runs/submit", data=json.dumps(QUICK), headers=headers)
        assert response.json()["run_id"]

    def test_may_hold_the_parameters_of_a_get(self, client: Client) -> None:
        run_id = client.submit(**QUICK)
        assert client.send("GET", "runs/get", json={"run_id": run_id}).json()["run_id"] == run_id

    @pytest.mark.parametrize("body", ["{", "[1]", "7", '"x"', "[" * 100_000])
    def test_other_than_a_json_object_is_malformed(self, client: Client, body: str) -> None:
        response = client.send("POST", "runs/submit", data=body)
        assert response.status_code == 400
        assert response.json()["error_code"] == "MALFORMED_REQUEST"

    def test_beyond_10_mb_is_refused(self, client: Client) -> None:
        error = client.refused("POST", "runs/submit", {**QUICK, "run_name": "x" * 10 * 1024 * 1024})
        assert "10485760" in error["message"]

    @pytest.mark.parametrize("text", [r"\ud800", "\ud800", r"a\udfffb"])
    @pytest.mark.parametrize("field", ["idempotency_token", "run_name", "whatever"])
    def test_lone_surrogate_is_malformed(self, client: Client, field: str, text: str) -> None:
        body = json.dumps(QUICK)[:-1] + f', "{field}": {{"a": ["{text}"]}}}}'
        response = client.send("POST", "runs/submit", data=body.encode("utf-8", "surrogatepass"))
        assert response.status_code == 400
        assert response.json()["error_code"] == "MALFORMED_REQUEST"
        assert "not Unicode" in response.json()["message"]
        assert client.get("runs/list") == {}
        assert client.submit(run_name="\U0001f600", **QUICK)


class TestFieldTypes:
    def test_numbers_may_be_strings(self, client: Client) -> None:
        job_id = client.post("create", timeout_seconds="3600", max_retries="1", **QUICK)["job_id"]
        settings = client.get("get", job_id=job_id, version="2.0")["settings"]
        assert (settings["timeout_seconds"], settings["max_retries"]) == (3600, 1)
        assert client.post("run-now", job_id=str(job_id))["run_id"]

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("timeout_seconds", "soon"),
            ("timeout_seconds", True),
            ("tasks", {}),
            ("spark_python_task", "file.py"),
            ("run_name", 7),
            ("queue", True),
            ("parameters", 5),
            ("parameters", {"a": "b"}),
            ("parameters", ["a"]),
            ("environments", 5),
            ("job_clusters", ["a"]),
        ],
    )
    def test_wrong_type_is_malformed(self, client: Client, field: str, value: object) -> None:
        error = client.refused("POST", "runs/submit", {**QUICK, field: value})
        assert error["error_code"] == "MALFORMED_REQUEST"
        assert f"'{field}'" in error["message"]

    @pytest.mark.parametrize(
        ("task", "named"),
        [
            ("a", "'tasks'"),
            (None, "'tasks'"),
            ({"depends_on": {}}, "'depends_on'"),
            ({"depends_on": ["b"]}, "'depends_on'"),
            ({"depends_on": [{"task_key": "b", "outcome": True}]}, "'outcome'"),
            ({"depends_on": [{"task_key": 5}]}, "'task_key'"),
            ({"spark_python_task": {"python_file": 5}}, "'python_file'"),
            ({"spark_python_task": {"python_file": "/a.py", "parameters": 5}}, "'spark_python_task.parameters'"),
            ({"spark_python_task": {"python_file": "/a.py", "parameters": "a"}}, "'spark_python_task.parameters'"),
            ({"spark_python_task": {"python_file": "/a.py", "parameters": [["a"]]}}, "'spark_python_task.parameters'"),
            ({"notebook_task": {"notebook_path": "/a", "base_parameters": 5}}, "'base_parameters'"),
            ({"notebook_task": {"notebook_path": "/a", "base_parameters": {"b": ["c"]}}}, "'base_parameters.b'"),
            ({"condition_task": {"op": "EQUAL_TO", "left": [], "right": "1"}}, "'left'"),
            ({"run_job_task": {"job_id": "seven"}}, "'job_id'"),
            ({"run_job_task": {"job_id": 7, "python_params": "a"}}, "'python_params'"),
        ],
    )
    def test_wrong_type_in_a_task_is_malformed(self, client: Client, task: object, named: str) -> None:
        tasks = [{"task_key": "a", **task} if isinstance(task, dict) else task]
        for operation in ("create", "runs/submit"):
            error = client.refused("POST", operation, {"tasks": tasks})
            assert error["error_code"] == "MALFORMED_REQUEST"
            assert named in error["message"]
        assert client.get("list") == client.get("runs/list") == {}

    @pytest.mark.parametrize(
        ("operation", "field", "value"),
        [
            ("run-now", "notebook_params", ["a"]),
            ("run-now", "notebook_params", {"a": {}}),
            ("run-now", "python_params", {"a": "b"}),
            ("run-now", "python_params", [{}]),
            ("run-now", "job_parameters", ["a"]),
            ("run-now", "pipeline_params", 5),
            ("runs/repair", "rerun_tasks", [[]]),
            ("update", "fields_to_remove", [5]),
            ("update", "new_settings", []),
        ],
    )
    def test_wrong_type_of_an_argument_is_malformed(
        self, client: Client, operation: str, field: str, value: object
    ) -> None:
        error = client.refused("POST", operation, {"job_id": 1, "run_id": 1, field: value})
        assert error["error_code"] == "MALFORMED_REQUEST"
        assert f"'{field}" in error["message"]

    def test_parameters_may_be_numbers_and_booleans(self, client: Client, write) -> None:
        write("quick.py", "import sys; print(sys.argv[1:])")
        run = client.finish(spark_python_task={"python_file": "/quick.py", "parameters": ["a", 1, 1.5, True]})
        assert client.output(run)["logs"] == "['a', '1', '1.5', 'true']\n"
        job_id = client.post("create", **QUICK, parameters=[{"name": "flag", "default": False}])["job_id"]
        run = client.wait_for(client.post("run-now", job_id=job_id, python_params=[2, False])["run_id"])
        assert client.output(run)["logs"] == "['2', 'false']\n"
        assert run["job_parameters"] == [{"name": "flag", "default": "false", "value": "false"}]

    def test_nulls_and_unknown_fields_are_ignored(self, client: Client) -> None:
        client.submit(timeout_seconds=None, whatever={"a": 1}, **QUICK)


class TestStore:
    def test_unsaved_change_is_rolled_back(self, stepped: LocalWorkspace) -> None:
        client = mounted(stepped)
        job_id = client.post("create", name="before", **QUICK)["job_id"]
        stepped._store._db.execute("PRAGMA query_only = ON")
        for operation, body in (
            ("runs/submit", {"idempotency_token": "t", **QUICK}),
            ("update", {"job_id": job_id, "new_settings": {"name": "after"}}),
            ("delete", {"job_id": job_id}),
        ):
            assert client.send("POST", operation, json=body).json()["error_code"] == "INTERNAL_ERROR"
            assert client.get("runs/list") == {}
            assert client.get("get", job_id=job_id)["settings"]["name"] == "before"
        stepped._store._db.execute("PRAGMA query_only = OFF")
        run_id = client.submit(idempotency_token="t", **QUICK)
        stepped._store._db.execute("PRAGMA query_only = ON")
        with pytest.raises(sqlite3.OperationalError):
            stepped.tick()
        assert client.life(run_id) == "PENDING"
        stepped._store._db.execute("PRAGMA query_only = OFF")
        stepped.tick()
        assert client.life(run_id) == "INTERNAL_ERROR"

    def test_bug_is_an_internal_error(
        self, client: Client, workspace: LocalWorkspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(workspace._store, "commit", lambda: 1 / 0)
        response = client.send("GET", "list")
        assert response.status_code == 500
        assert response.json()["error_code"] == "INTERNAL_ERROR"
        monkeypatch.undo()

    def test_concurrent_submits_launch_one_run(self, workspace: LocalWorkspace) -> None:
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


class TestInvalidNumbers:
    @pytest.mark.parametrize(
        "content",
        ['{"before": 1e400}', '{"offset": -5}', '{"before": "1"}', '{"before": true}', "[1]", "5", "[" * 20_000],
    )
    def test_in_a_page_token(self, client: Client, content: str) -> None:
        token = base64.urlsafe_b64encode(content.encode()).decode()
        job_id = client.post("create", tasks=[{"task_key": "a", **QUICK}])["job_id"]
        run_id = client.submit(tasks=[{"task_key": "a", **QUICK}])
        for operation, fields in (
            ("list", {}),
            ("runs/list", {}),
            ("get", {"job_id": job_id}),
            ("runs/get", {"run_id": run_id}),
        ):
            assert "page_token" in client.refused("GET", operation, {**fields, "page_token": token})["message"]

    @pytest.mark.parametrize("number", ["1e400", "-1e400", "NaN", "Infinity"])
    def test_in_a_body(self, client: Client, number: str) -> None:
        body = (
            f'{{"tasks": [{{"task_key": "a", "unknown": {number}, "spark_python_task": {{"python_file": "/a.py"}}}}]}}'
        )
        response = client.send("POST", "create", data=body)
        assert response.status_code == 400
        assert response.json()["error_code"] == "MALFORMED_REQUEST"

    @pytest.mark.parametrize("number", [2**63, -(2**63), 10**4000, "9" * 5000, "1e400"])
    def test_in_the_place_of_an_integer(self, client: Client, number: object) -> None:
        error = client.refused("POST", "create", {"timeout_seconds": number, **QUICK})
        assert "'timeout_seconds' must be an integer" in error["message"]

    def test_in_the_path_of_a_page(self, client: Client, workspace: LocalWorkspace) -> None:
        key = workspace.pages_url.partition("?")[2]
        assert client.send("GET", f"/jobs/1/runs/{'9' * 5000}?{key}").status_code == 404
