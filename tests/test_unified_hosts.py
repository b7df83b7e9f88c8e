"""A URL that several workspaces share: which is meant goes with each request, and is part of what is shared by whom."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from airflow_context import connect
from rude_server import RudeServer, reply, serving

from airflow_dbjobs.client import JobsClient
from airflow_dbjobs.client.auth import BearerAuth
from airflow_dbjobs.client.retry import RetryPolicy
from airflow_dbjobs.client.transport import Transport
from airflow_dbjobs.errors import ConfigurationError
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
    "page": lambda client: client.poll_active_runs(limit=24),
    "jobs": lambda client: list(client.list_jobs()),
    "permissions": lambda client: client.get_permissions(5),
    "of a kill": lambda client: client.with_policy(RetryPolicy(ends_with_budget=True)).cancel_run(7),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("query", "options"), [("/?o=605", {}), ("", {"workspace_id": "605"}), ("/?o=605#job/1", {})])
def test_each_request_names_the_workspace(call: str, query: str, options: dict[str, str]) -> None:
    with serving(reply({"run_id": 7})) as server:
        client = JobsClient(server.url + query, token="t", **options)
        if call == "page":
            server.answer = lambda _: [reply({})]
        CALLS[call](client)
        assert named_in(server) == {"605"}
        assert (client.host, client.workspace_id) == (server.url, "605")


def test_where_the_url_is_one_workspaces_own_nothing_is_named() -> None:
    with serving(reply({"run_id": 7})) as server:
        client = JobsClient(server.url, token="t")
        client.poll_run(7)
        assert (named_in(server), client.workspace_id) == ({""}, "")


def test_two_workspaces_of_one_url_share_no_poller_and_no_rate() -> None:
    one, same, other = (Transport("https://acme.example", BearerAuth("t"), workspace_id=i) for i in ("1", "1", "2"))
    assert one.identity == same.identity
    assert one.identity != other.identity
    assert one.with_policy(RetryPolicy()).identity == one.identity


def test_databricks_sdk_is_told_which_workspace_is_meant() -> None:
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
def test_an_id_that_is_none_or_contradicts_is_refused(host: str, given: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=f"workspace_id is .*{words}"):
        JobsClient(host, token="t", workspace_id=given)


@pytest.mark.parametrize("fields", [{"query": "/?o=605"}, {"extra": {"workspace_id": 605}}])
def test_a_connection_may_name_it_and_test_says_which(monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]) -> None:
    with serving(reply({})) as server:
        extra = {"host": server.url + fields.get("query", ""), **fields.get("extra", {})}
        connect(monkeypatch, "", "dapi-a-token", extra=extra)
        works, said = DatabricksJobsHook().test_connection()
        assert named_in(server) == {"605"}
    assert works
    assert f"Signed in to {server.url}, workspace 605," in said
    assert "is not read" not in said
