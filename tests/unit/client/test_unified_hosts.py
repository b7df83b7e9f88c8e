"""A URL that several workspaces share: which is meant goes with each request, and is part of what is shared by whom."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from airflow_context import connect
from rude_server import RudeServer, reply, serving
from sign_in_scene import SignInScene, needing, scene_of_sign_in, using  # noqa: F401 (a fixture)
from token_server import TOKEN_PATH, Trouble

from airflow_dbjobs.client import JobsClient
from airflow_dbjobs.client.auth import BearerAuth
from airflow_dbjobs.client.retry import RetryPolicy
from airflow_dbjobs.client.transport import Transport
from airflow_dbjobs.errors import ConfigurationError, ServerError
from airflow_dbjobs.hooks import DatabricksJobsHook
from airflow_dbjobs.hooks.credentials import choose_auth

if TYPE_CHECKING:
    from collections.abc import Callable

HEADER = "X-Databricks-Workspace-Id"


def named_in(server: RudeServer) -> set[str]:
    """Return the workspaces that the requests name; "" for those that name none."""
    found = [re.search(rf"(?m)^{HEADER}: (\d+)\r$", request) for request in server.requests]
    return {match[1] if match else "" for match in found}


CALLS: dict[str, Callable[[JobsClient], object]] = {
    "launch": lambda client: client.run_now({"job_id": 1}),
    "poll": lambda client: client.poll_run(7),
    "cancel": lambda client: client.cancel_run(7),
    "page": lambda client: client.poll_runs(limit=24),
    "jobs": lambda client: list(client.list_jobs()),
    "permissions": lambda client: client.get_permissions(5),
    "of a kill": lambda client: client.with_policy(RetryPolicy(ends_with_budget=True)).cancel_run(7),
}


class TestRequests:
    @pytest.mark.parametrize("call", CALLS)
    @pytest.mark.parametrize(
        ("query", "options"), [("/?o=605", {}), ("", {"workspace_id": "605"}), ("/?o=605#job/1", {})]
    )
    def test_name_the_workspace(self, call: str, query: str, options: dict[str, str]) -> None:
        with serving(reply({"run_id": 7})) as server:
            client = JobsClient(server.url + query, token="t", **options)
            if call == "page":
                server.answer = lambda _: [reply({})]
            CALLS[call](client)
            assert named_in(server) == {"605"}
            assert (client.host, client.workspace_id) == (server.url, "605")

    @pytest.mark.parametrize("query", ["", "/?o=acme"])
    def test_name_no_workspace_on_its_own_url(self, query: str) -> None:
        with serving(reply({"run_id": 7})) as server:
            client = JobsClient(server.url + query, token="t")
            client.poll_run(7)
            assert (named_in(server), client.workspace_id) == ({""}, "")

    def test_of_two_workspaces_share_no_poller_and_no_rate(self) -> None:
        one, same, other = (Transport("https://acme.example", BearerAuth("t"), workspace_id=i) for i in ("1", "1", "2"))
        assert one.identity == same.identity
        assert one.identity != other.identity
        assert one.with_policy(RetryPolicy()).identity == one.identity


class TestTokensOfAUnifiedHost:
    METADATA = "/.well-known/databricks-config"
    ACCOUNT = "8f1a-the-account"

    @pytest.fixture
    def scene(self, scene_of_sign_in: SignInScene) -> SignInScene:  # noqa: F811 (the fixture)
        return scene_of_sign_in

    # The SDK is the reference.
    @pytest.mark.parametrize("name", needing("oauth", "federated_file", "federated_env", "sdk"))
    def test_come_from_the_account(self, scene: SignInScene, name: str) -> None:
        scene.server.account_id = self.ACCOUNT
        scene.auth(using(name, scene), workspace_id="605").token()
        assert len(scene.server.asked(f"/oidc/accounts/{self.ACCOUNT}/v1/token")) == 1
        assert scene.server.asked(TOKEN_PATH) == []

    def test_are_shared_by_the_workspaces_of_the_account(self, scene: SignInScene) -> None:
        scene.server.account_id = self.ACCOUNT
        one, other = (scene.auth(scene.oauth(), workspace_id=workspace_id) for workspace_id in ("605", "606"))
        assert one.token() is other.token()

    # Azure shows ?o= for a workspace's own URL, too; what is not a workspace's URL may answer anything.
    @pytest.mark.parametrize(
        "metadata", [None, (404, {}), (200, "<html>"), (200, {"oidc_endpoint": "http://elsewhere.example/oidc"})]
    )
    def test_come_from_the_workspace_if_it_has_its_own_url(self, scene: SignInScene, metadata: Any) -> None:
        if metadata:
            scene.server.troubles.append(Trouble(self.METADATA, *metadata))
        scene.auth(scene.oauth(), workspace_id="605").token()
        assert len(scene.server.asked(TOKEN_PATH)) == 1

    def test_are_not_requested_without_the_metadata(self, scene: SignInScene) -> None:
        scene.server.troubles.append(Trouble(self.METADATA, 503))
        with pytest.raises(ServerError, match="databricks-config answered 503") as caught:
            scene.auth(scene.oauth(), workspace_id="605").token()
        assert not caught.value.sent
        assert [seen.path for seen in scene.server.seen] == [self.METADATA]

    def test_need_no_metadata_without_a_workspace_id(self, scene: SignInScene) -> None:
        scene.auth(scene.oauth()).token()
        assert [seen.path for seen in scene.server.seen] == [TOKEN_PATH]


class TestWorkspaceId:
    def test_is_passed_to_databricks_sdk(self) -> None:
        def auth(workspace_id: str, config: dict[str, str] | None = None) -> Any:
            extra = {"auth_type": "databricks-cli", "sdk_config": config}
            return choose_auth(login=None, password=None, extra=extra, workspace="https://x", workspace_id=workspace_id)

        assert '"workspace_id": "605"' in auth("605").source.config
        assert auth("605") != auth("606")
        assert auth("") == auth("", {})
        assert '"workspace_id": "7"' in auth("605", {"workspace_id": "7"}).source.config

    @pytest.mark.parametrize(
        ("host", "given", "words"),
        [
            ("https://x.example/?o=1", "2", "remove the wrong one"),
            ("https://x.example", "acme", "the number after"),
            ("https://x.example", "1\r\nX: y", "the number after"),
        ],
    )
    def test_that_is_invalid_or_contradicts_is_refused(self, host: str, given: str, words: str) -> None:
        with pytest.raises(ConfigurationError, match=f"workspace_id is .*{words}"):
            JobsClient(host, token="t", workspace_id=given)

    @pytest.mark.parametrize("fields", [{"query": "/?o=605"}, {"extra": {"workspace_id": 605}}])
    def test_of_a_connection_is_shown_by_the_test_button(
        self, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]
    ) -> None:
        with serving(reply({})) as server:
            extra = {"host": server.url + fields.get("query", ""), **fields.get("extra", {})}
            connect(monkeypatch, "", "dapi-a-token", extra=extra)
            works, said = DatabricksJobsHook().test_connection()
            assert named_in(server) == {"605"}
        assert works
        assert f"Authenticated at {server.url}, workspace 605," in said
        assert "unknown and ignored" not in said
