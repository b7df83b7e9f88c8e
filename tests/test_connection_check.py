"""The "Test" button of a connection: who signs in, how, what they may do, or what is to be fixed; in seconds."""

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
from airflow_dbjobs.hooks import DatabricksJobsHook
from airflow_dbjobs.hooks import check as connection_check
from airflow_dbjobs.hooks.check import check
from airflow_dbjobs.hooks.extra import scheme_of
from airflow_dbjobs.hooks.fields import BY_NAME
from airflow_dbjobs.local_workspace import Fault
from airflow_dbjobs.local_workspace.messages import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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


# --- what it says ---


def test_it_says_who_signs_in_how_and_what_the_api_lets_them_do(workspace, monkeypatch, client, user) -> None:
    client.create_job(JOB)
    workspace.requests.clear()
    works, said = press(monkeypatch, workspace.base_url, workspace.token, extra={"api_version": "2.1"})
    assert works
    assert said == (
        f"Signed in to {workspace.base_url} as {user} {BY_TOKEN}. The Jobs API 2.1 answers, and jobs may be listed."
        " Whether a run may be launched is decided for each job: as far as permissions tell, 1 of 1 looked at may be"
        " run."
    )
    # It has only read.
    assert workspace.requests == {"list": 1, ME: 1, "permissions": 1}


@pytest.mark.parametrize("version", ["2.0", "2.1", "2.2"])
def test_a_few_jobs_are_looked_at_of_many(workspace, monkeypatch, client, version) -> None:
    for _ in range(8):
        client.create_job(JOB)
    workspace.requests.clear()
    _, said = press(monkeypatch, workspace.base_url, workspace.token, extra={"api_version": version})
    assert "5 of 5 looked at may be run." in said
    assert workspace.requests == {"list": 1, ME: 1, "permissions": 5}


def test_where_no_job_is_shown_it_says_that_launching_is_decided_for_each(workspace, monkeypatch) -> None:
    works, said = press(monkeypatch, workspace.base_url, workspace.token)
    assert works
    assert said.endswith("is decided for each job, and none is shown to these credentials.")


def me_is(workspace: LocalWorkspace, **me: Any) -> None:
    workspace.faults.append(Fault(ME, status=200, body=me))


@pytest.mark.parametrize(
    ("me", "grant", "may"),
    [
        ({"userName": "ada"}, {"user_name": "ada", "permission_level": "CAN_MANAGE_RUN"}, True),
        ({"userName": "ada"}, {"user_name": "ada", "permission_level": "CAN_MANAGE"}, True),
        ({"userName": "ada"}, {"user_name": "ada", "permission_level": "CAN_VIEW"}, False),
        ({"userName": "ada"}, {"user_name": "eve", "permission_level": "CAN_MANAGE_RUN"}, False),
        ({"userName": "9f-2"}, {"service_principal_name": "9f-2", "permission_level": "CAN_MANAGE_RUN"}, True),
        ({"userName": "ada", "groups": [{"display": "etl"}]},
         {"group_name": "etl", "permission_level": "CAN_MANAGE_RUN"}, True),
        ({"userName": "ada", "groups": [{"display": "etl"}]},
         {"group_name": "others", "permission_level": "CAN_MANAGE_RUN"}, False),
        ({"userName": "Ada@x.example"}, {"user_name": "ada@X.example", "permission_level": "CAN_MANAGE_RUN"}, True),
        ({"userName": "ada", "groups": [{"display": "ETL"}]},
         {"group_name": "etl", "permission_level": "CAN_MANAGE_RUN"}, True),
        ({"userName": "ada", "groups": [{"value": "123", "type": "direct"}]},
         {"user_name": "eve", "permission_level": "CAN_MANAGE_RUN"}, False),
        # The workspace lets its admins manage all jobs.
        ({"userName": "ada", "groups": [{"display": "admins"}]},
         {"user_name": "eve", "permission_level": "CAN_VIEW"}, True),
    ],
)  # fmt: skip
def test_who_may_run_a_job_is_told_by_its_permissions(workspace, monkeypatch, client, *, me, grant, may) -> None:
    job_id = client.create_job(JOB)
    client.update_permissions(job_id, [grant])
    me_is(workspace, **me)
    works, said = press(monkeypatch, workspace.base_url, workspace.token)
    assert works
    end = "1 of 1 looked at may be run." if may else "0 of 1 looked at may be run. Can Manage Run on a job is what it"
    assert end in said


@pytest.mark.parametrize("status", [403, 404, 500])
def test_permissions_that_are_not_shown_are_no_failure(workspace, monkeypatch, client, status) -> None:
    client.create_job(JOB)
    workspace.faults.append(Fault("permissions", status=status, times=None))
    works, said = press(monkeypatch, workspace.base_url, workspace.token)
    assert works
    assert said.endswith("and the permissions of those looked at are not shown to these credentials.")


@pytest.mark.parametrize("fault", [{"status": 404}, {"status": 403}, {"status": 200, "body": {}}, {"cut": "before"}])
def test_a_workspace_that_does_not_tell_who_calls_is_no_failure(workspace, monkeypatch, client, fault) -> None:
    client.create_job(JOB)
    workspace.faults.append(Fault(ME, **fault))
    works, said = press(monkeypatch, workspace.base_url, workspace.token)
    assert works
    assert f"{BY_TOKEN}; the workspace does not tell who that is. The Jobs API 2.2 answers" in said
    assert said.endswith("Whether a run may be launched is decided for each job.")


def test_a_service_principal_is_named_with_its_id(workspace, monkeypatch) -> None:
    me_is(workspace, userName="9f-2", displayName="etl\x1b[31m")
    assert f"as etl / 9f-2 {BY_TOKEN}" in press(monkeypatch, workspace.base_url, workspace.token)[1]


def test_what_nobody_reads_is_said_whether_it_works_or_not(workspace, monkeypatch) -> None:
    extra = {"client_id": "c", "retry_budgets": 5, "azure_tenant_id": ""}
    notes = (
        " Note: it signs in by token, and client_id has no effect."
        " Note: extra retry_budgets is not read. Is retry_budget meant?"
    )
    assert press(monkeypatch, workspace.base_url, workspace.token, extra=extra)[1].endswith(notes)
    assert press(monkeypatch, workspace.base_url, SECRET, extra=extra)[1].endswith(notes)


# --- what is to be fixed ---


def test_a_field_that_is_wrong_is_named_without_the_id_that_airflow_makes_up(monkeypatch) -> None:
    said = press(monkeypatch, "", SECRET)
    assert said[0] is False
    assert said[1].startswith("host is empty. Put the workspace's URL there")
    extra = {"auth_type": "oauth", "azure_tenant_id": "t"}
    said = press(monkeypatch, "adb-1.net", SECRET, login="me", extra=extra)
    text = "extra auth_type is 'oauth', which contradicts azure_tenant_id: remove the one or the other."
    assert said == (False, text)


def test_a_token_that_is_wrong_is_named_with_what_to_check(workspace, monkeypatch) -> None:
    works, said = press(monkeypatch, workspace.base_url, SECRET)
    assert not works
    assert said.startswith(f"It signs in {BY_TOKEN}. GET jobs/list answered 403: ")
    assert "Check that the connection's token belongs to this workspace" in said
    assert SECRET not in said


def test_somebody_who_may_not_list_jobs_is_named(workspace, monkeypatch, user) -> None:
    refusal = {"error_code": "PERMISSION_DENIED", "message": "No access to jobs."}
    workspace.faults.append(Fault("list", status=403, body=refusal))
    works, said = press(monkeypatch, workspace.base_url, workspace.token)
    assert not works
    assert said.startswith(
        f"Signed in to {workspace.base_url} as {user} {BY_TOKEN}, but jobs may not be listed: GET jobs/list answered"
        " 403 PERMISSION_DENIED: No access to jobs."
    )


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 404, "body": "<html>nobody</html>"},
        {"status": 200, "body": "<html>welcome</html>"},
        {"cut": "before"},
    ],
    ids=["404", "a page", "no answer"],
)
def test_a_server_that_is_no_workspace_is_named_with_what_to_check(workspace, monkeypatch, fault) -> None:
    workspace.faults.append(Fault("list", **fault))
    works, said = press(monkeypatch, workspace.base_url, workspace.token)
    assert not works
    assert said.endswith("Check the connection's host and port.")
    assert said.count("Check") == 1


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "1"}], ids=["", "Retry-After"])
@pytest.mark.parametrize("status", [429, 500, 503])
def test_one_attempt_is_made(workspace, monkeypatch, status, headers) -> None:
    workspace.faults.append(Fault("list", status=status, headers=headers, times=None))
    works, said = press(monkeypatch, workspace.base_url, workspace.token)
    assert not works
    assert f"GET jobs/list answered {status}" in said
    assert workspace.requests == {"list": 1}


def test_the_host_is_not_blamed_for_what_signing_in_or_a_certificate_lacks(monkeypatch, tmp_path) -> None:
    gone = str(tmp_path / "ca.pem")
    for extra in ({"verify": gone}, {"verify": gone, "auth_type": "oauth"}):
        works, said = press(
            monkeypatch, "https://127.0.0.1:1", SECRET, login="id", extra={"auth_type": "token", **extra}
        )
        assert not works
        assert f"The CA bundle {gone} cannot be used" in said
        assert HOST_REMEDY not in said


# --- every way to sign in ---


@pytest.fixture
def signing(scene_of_sign_in: SignInScene) -> SignInScene:  # noqa: F811 (the fixture)
    return scene_of_sign_in


def press_for(scene: SignInScene, sign_in: Any) -> tuple[bool, str]:
    scheme = scheme_of(sign_in.login, sign_in.password, sign_in.extra)
    return check(scene.client(sign_in), scheme)


@pytest.mark.parametrize("name", needing(*ALL))
def test_the_way_in_which_it_signs_in_is_said(signing: SignInScene, name: str) -> None:
    sign_in = using(name, signing)
    works, said = press_for(signing, sign_in)
    assert works, said
    scheme = scheme_of(sign_in.login, sign_in.password, sign_in.extra)
    assert f"by {scheme.name} ({scheme.help.rstrip('.')})" in said
    assert [secret for secret in (*sign_in.secrets, *signing.server.given) if secret in said] == []


def test_the_credentials_are_tried_and_not_a_token_that_they_were_good_for(signing: SignInScene) -> None:
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


def test_the_workspaces_host_is_not_blamed_for_another_token_server(signing: SignInScene) -> None:
    sign_in = signing.aws_environment()
    signing.use(AWS_ENDPOINT_URL_STS="http://127.0.0.1:1")
    works, said = press_for(signing, sign_in)
    assert not works
    assert "cannot reach http://127.0.0.1:1: " in said
    assert HOST_REMEDY not in said


def test_a_token_server_that_fails_is_asked_once(signing: SignInScene) -> None:
    signing.server.troubles.append(Trouble(TOKEN_PATH, status=503, times=None))
    works, said = press_for(signing, signing.oauth())
    assert not works
    assert "oidc/v1/token answered 503" in said
    assert len(signing.server.asked(TOKEN_PATH)) == 1


# --- how long it takes ---


@pytest.fixture
def stalling(workspace: LocalWorkspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Return what makes requests hang until the test is over, whatever their timeout."""
    released, handle = threading.Event(), workspace.handle

    def stall(part_of_path: str) -> None:
        def stalled(request: Request) -> Any:
            if part_of_path in request.path:
                released.wait(60)
            return handle(request)

        monkeypatch.setattr(workspace, "handle", stalled)

    yield stall
    released.set()


def test_a_call_that_hangs_is_given_up_and_named(stalling, client) -> None:
    stalling("/jobs/list")
    works, said = check(client, BY_NAME["token"], seconds=0.2)
    assert not works
    remedy = "Check the connection's host and port."
    assert said == f"It signs in {BY_TOKEN}. GET jobs/list took longer than 0.2 s. {remedy}"


def test_signing_in_that_hangs_is_given_up_and_named(signing: SignInScene) -> None:
    released = threading.Event()
    client = signing.client(signing.by_function(lambda: released.wait(60) and "a-token"))
    works, said = check(client, BY_NAME["federated_token_provider"], seconds=0.2)
    released.set()
    assert not works
    assert said.endswith(". Signing in took longer than 0.2 s.")


def test_a_refusal_is_said_though_who_is_refused_hangs(stalling, workspace, client) -> None:
    refusal = {"error_code": "PERMISSION_DENIED", "message": "Source IP is blocked."}
    workspace.faults.append(Fault("list", status=403, body=refusal))
    stalling("/scim/")
    works, said = check(client, BY_NAME["token"], seconds=3)
    assert not works
    assert said.startswith(
        f"It signs in {BY_TOKEN}. GET jobs/list answered 403 PERMISSION_DENIED: Source IP is blocked."
    )


def test_no_connection_is_left_open(client, mocker: MockerFixture) -> None:
    close = mocker.spy(Transport, "close")
    assert check(client, BY_NAME["token"])[0]
    (transport,) = (call.args[0] for call in close.call_args_list)
    assert transport is not client.transport
    assert transport._sessions == []


@pytest.mark.parametrize(("hanging", "known"), [("/scim/", False), ("/permissions/", True)])
def test_what_is_found_before_something_hangs_is_said(stalling, client, user, hanging, known) -> None:
    client.create_job(JOB)
    stalling(hanging)
    works, said = check(client, BY_NAME["token"], seconds=3)
    assert works
    assert (f"as {user} {BY_TOKEN}" in said) == known
    assert said.endswith("and jobs may be listed. Whether a run may be launched is decided for each job.")


@pytest.mark.parametrize(("seconds", "asked"), [(2, 5), (5, 1), (8, 0)])
def test_what_there_is_no_time_for_is_not_asked(workspace, monkeypatch, client, seconds, asked) -> None:
    for _ in range(5):
        client.create_job(JOB)
    workspace.requests.clear()
    clock, handle = FastTime(monkeypatch), workspace.handle

    def slowly(request: Request) -> Any:
        clock.sleep(seconds)
        return handle(request)

    monkeypatch.setattr(workspace, "handle", slowly)
    works, said = press(monkeypatch, workspace.base_url, workspace.token)
    assert works
    assert workspace.requests["permissions"] == asked
    assert (f"{asked} of {asked} looked at" in said) == bool(asked)
    assert clock.now - 1000 <= connection_check.SECONDS + seconds


def test_a_slow_token_server_has_most_of_the_time(signing: SignInScene, mocker: MockerFixture) -> None:
    token = mocker.spy(TokenCache, "token")
    assert press_for(signing, signing.oauth())[0]
    assert token.call_args_list[0].args[2] == 10
