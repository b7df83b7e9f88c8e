"""The "Test" button of a connection: who authenticates, how, whether they may list jobs, or what to fix."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
from airflow_context import FastTime, connect
from sign_in_scene import ALL, SignIn, SignInScene, needing, scene_of_sign_in, using  # noqa: F401 (one is a fixture)
from token_server import CLIENT_ID, TOKEN_PATH, Trouble

from airflow_dbjobs.client.auth.tokens import TokenCache
from airflow_dbjobs.client.session import HOST_REMEDY
from airflow_dbjobs.client.transport import Transport
from airflow_dbjobs.errors import UnreadableReply
from airflow_dbjobs.hooks import DatabricksJobsHook
from airflow_dbjobs.hooks import check as connection_check
from airflow_dbjobs.hooks.check import check
from airflow_dbjobs.hooks.extra import scheme_of
from airflow_dbjobs.hooks.fields import BY_NAME
from airflow_dbjobs.local_workspace import Fault
from airflow_dbjobs.local_workspace.messages import Request

if TYPE_CHECKING:
    from pytest_mock import MockerFixture

    from airflow_dbjobs.local_workspace import LocalWorkspace

SECRET = "dapi-a-very-secret-token"
ME = "/api/2.0/preview/scim/v2/Me"
JOB = {"name": "nightly", "tasks": [{"task_key": "main", "notebook_task": {"notebook_path": "/x"}}]}
BY_TOKEN = "by token (A personal access token)"


def press(monkeypatch: pytest.MonkeyPatch, host: str, password: str, **fields: Any) -> tuple[bool, str]:
    connect(monkeypatch, host, password, **fields)
    return DatabricksJobsHook().test_connection()


@pytest.fixture
def user(workspace: LocalWorkspace) -> str:
    """Return as whom the workspace knows its token."""
    reply = workspace.handle(Request("GET", ME, headers={"authorization": f"Bearer {workspace.token}"}))
    workspace.requests.clear()
    return str(json.loads(reply.body)["userName"])


def me_is(workspace: LocalWorkspace, **me: Any) -> None:
    workspace.faults.append(Fault(ME, status=200, body=me))


@pytest.fixture
def signing(scene_of_sign_in: SignInScene) -> SignInScene:  # noqa: F811 (the fixture)
    return scene_of_sign_in


def press_for(scene: SignInScene, sign_in: Any) -> tuple[bool, str]:
    scheme = scheme_of(sign_in.login, sign_in.password, sign_in.extra)
    return check(scene.client(sign_in), scheme)


class TestTestButton:
    def test_names_the_user_the_scheme_and_what_is_permitted(self, workspace, monkeypatch, user) -> None:
        works, said = press(monkeypatch, workspace.base_url, workspace.token, extra={"api_version": "2.1"})
        assert works
        assert said == (
            f"Authenticated as {user} at {workspace.base_url} {BY_TOKEN}. "
            "The Jobs API 2.1 answers, and jobs may be listed."
        )
        # It has only read.
        assert workspace.requests == {"list": 1, ME: 1}

    @pytest.mark.parametrize(
        "fault", [{"status": 404}, {"status": 403}, {"status": 200, "body": {}}, {"cut": "before"}]
    )
    def test_succeeds_if_the_workspace_does_not_name_the_user(self, workspace, monkeypatch, fault) -> None:
        workspace.faults.append(Fault(ME, **fault))
        works, said = press(monkeypatch, workspace.base_url, workspace.token)
        assert works
        assert f"{BY_TOKEN}; the name is not available. The Jobs API 2.2 answers" in said

    def test_names_a_service_principal_with_its_id(self, workspace, monkeypatch) -> None:
        me_is(workspace, userName="9f-2", displayName="etl\x1b[31m")
        assert (
            f"as etl / 9f-2 at {workspace.base_url} {BY_TOKEN}"
            in press(monkeypatch, workspace.base_url, workspace.token)[1]
        )

    def test_reports_unused_fields_in_either_case(self, workspace, monkeypatch) -> None:
        extra = {"client_id": "c", "retry_budgets": 5, "azure_tenant_id": ""}
        notes = (
            " Note: it authenticates by token, and client_id has no effect."
            " Note: extra retry_budgets is unknown and ignored. Is retry_budget meant?"
        )
        assert press(monkeypatch, workspace.base_url, workspace.token, extra=extra)[1].endswith(notes)
        assert press(monkeypatch, workspace.base_url, SECRET, extra=extra)[1].endswith(notes)

    def test_names_a_wrong_field_without_airflows_made_up_id(self, monkeypatch) -> None:
        said = press(monkeypatch, "", SECRET)
        assert said[0] is False
        assert said[1].startswith("host is empty. Set it to the workspace's URL")
        extra = {"auth_type": "oauth", "azure_tenant_id": "t"}
        said = press(monkeypatch, "adb-1.net", SECRET, login="me", extra=extra)
        text = "extra auth_type is 'oauth', which contradicts azure_tenant_id: remove one of them."
        assert said == (False, text)

    def test_says_what_to_check_for_a_wrong_token(self, workspace, monkeypatch) -> None:
        works, said = press(monkeypatch, workspace.base_url, SECRET)
        assert not works
        assert said.startswith(f"The connection authenticates {BY_TOKEN}. GET jobs/list answered 403: ")
        assert "Check that the connection's token belongs to this workspace" in said
        assert SECRET not in said

    def test_names_a_user_who_may_not_list_jobs(self, workspace, monkeypatch, user) -> None:
        refusal = {"error_code": "PERMISSION_DENIED", "message": "No access to jobs."}
        workspace.faults.append(Fault("list", status=403, body=refusal))
        works, said = press(monkeypatch, workspace.base_url, workspace.token)
        assert not works
        assert said.startswith(
            f"Authenticated as {user} at {workspace.base_url} {BY_TOKEN}, but jobs may not be listed: GET jobs/list"
            " answered 403 PERMISSION_DENIED: No access to jobs."
        )

    @pytest.mark.parametrize(
        ("fault", "remedy"),
        [
            ({"status": 404, "body": "<html>nobody</html>"}, f"{HOST_REMEDY}."),
            ({"status": 200, "body": "<html>welcome</html>"}, f"{UnreadableReply.remedy}."),
            ({"cut": "before"}, f"{HOST_REMEDY}."),
        ],
        ids=["404", "a page", "no answer"],
    )
    def test_says_what_to_check_if_the_host_is_no_workspace(self, workspace, monkeypatch, fault, remedy) -> None:
        workspace.faults.append(Fault("list", **fault))
        works, said = press(monkeypatch, workspace.base_url, workspace.token)
        assert not works
        assert said.endswith(remedy)
        assert said.count("Check") == 1

    @pytest.mark.parametrize("headers", [{}, {"Retry-After": "1"}], ids=["", "Retry-After"])
    @pytest.mark.parametrize("status", [429, 500, 503])
    def test_makes_one_attempt(self, workspace, monkeypatch, status, headers) -> None:
        workspace.faults.append(Fault("list", status=status, headers=headers, times=None))
        works, said = press(monkeypatch, workspace.base_url, workspace.token)
        assert not works
        assert f"GET jobs/list answered {status}" in said
        assert workspace.requests == {"list": 1}

    def test_does_not_blame_the_host_for_auth_or_tls_errors(self, monkeypatch, tmp_path) -> None:
        gone = str(tmp_path / "ca.pem")
        for extra in ({"verify": gone}, {"verify": gone, "auth_type": "oauth"}):
            works, said = press(
                monkeypatch, "https://127.0.0.1:1", SECRET, login="id", extra={"auth_type": "token", **extra}
            )
            assert not works
            assert f"The CA bundle {gone} cannot be used" in said
            assert HOST_REMEDY not in said

    @pytest.mark.parametrize("name", needing(*ALL))
    def test_names_the_authentication_scheme(self, signing: SignInScene, name: str) -> None:
        sign_in = using(name, signing)
        works, said = press_for(signing, sign_in)
        assert works, said
        scheme = scheme_of(sign_in.login, sign_in.password, sign_in.extra)
        assert f"by {scheme.name} ({scheme.help.rstrip('.')})" in said
        assert [secret for secret in (*sign_in.secrets, *signing.server.given) if secret in said] == []

    def test_tries_the_credentials_instead_of_a_cached_token(self, signing: SignInScene) -> None:
        sign_in = signing.oauth()
        assert list(signing.client(sign_in).list_jobs()) == []
        assert press_for(signing, sign_in)[0]
        signing.server.client_secret = "another"
        works, said = press_for(signing, sign_in)
        assert not works
        assert f"answered 401: invalid_client: Client authentication failed for {CLIENT_ID}:***. Check the" in said
        # Who works with the connection meanwhile has its token still.
        assert list(signing.client(sign_in).list_jobs()) == []
        assert len(signing.fetches(sign_in)) == 3

    def test_does_not_blame_the_host_for_another_token_server(self, signing: SignInScene) -> None:
        sign_in = signing.aws_environment()
        signing.use(AWS_ENDPOINT_URL_STS="http://127.0.0.1:1")
        works, said = press_for(signing, sign_in)
        assert not works
        assert "cannot reach http://127.0.0.1:1: " in said
        assert HOST_REMEDY not in said

    def test_calls_a_failing_token_server_once(self, signing: SignInScene) -> None:
        signing.server.troubles.append(Trouble(TOKEN_PATH, status=503, times=None))
        works, said = press_for(signing, signing.oauth())
        assert not works
        assert "oidc/v1/token answered 503" in said
        assert len(signing.server.asked(TOKEN_PATH)) == 1

    def test_closes_its_connections(self, client, mocker: MockerFixture) -> None:
        close = mocker.spy(Transport, "close")
        assert check(client, BY_NAME["token"])[0]
        (transport,) = (call.args[0] for call in close.call_args_list)
        assert transport is not client.transport
        assert transport._sessions == []

    @pytest.mark.parametrize(("seconds", "asked"), [(14, 1), (16, 0)])
    def test_takes_no_longer_than_a_user_waits(self, workspace, monkeypatch, seconds, asked) -> None:
        clock, handle = FastTime(monkeypatch), workspace.handle

        def slowly(request: Request) -> Any:
            clock.sleep(seconds)
            return handle(request)

        monkeypatch.setattr(workspace, "handle", slowly)
        assert press(monkeypatch, workspace.base_url, workspace.token)[0]
        assert workspace.requests[ME] == asked

    def test_names_a_token_function_that_hangs(self, signing: SignInScene, mocker: MockerFixture) -> None:
        mocker.patch.object(connection_check, "_TOKEN_SECONDS", 0.2)
        released = threading.Event()
        client = signing.client(signing.by_function(lambda: released.wait(60) and "a-token"))
        works, said = check(client, BY_NAME["federated_token_provider"])
        released.set()
        assert not works
        assert "Got no token within 0.2 s: " in said

    def test_leaves_a_slow_token_server_most_of_the_time(self, signing: SignInScene, mocker: MockerFixture) -> None:
        token = mocker.spy(TokenCache, "token")
        assert press_for(signing, signing.oauth())[0]
        assert token.call_args_list[0].args[2] == 10
