"""From an Airflow connection to a client, and what the hook says where that does not work."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from dataclasses import asdict, fields
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow import __version__ as airflow_version
from airflow_context import FastTime, connect

from airflow_dbjobs.airflow_compat import AIRFLOW_V_3_0_PLUS, BaseHook
from airflow_dbjobs.client.retry import Patience, RetryPolicy
from airflow_dbjobs.errors import ConfigurationError, JobsError, PermissionDenied
from airflow_dbjobs.hooks import DatabricksJobsHook
from airflow_dbjobs.hooks import jobs as hooks
from airflow_dbjobs.hooks.extra import SETTINGS
from airflow_dbjobs.local_workspace import Fault
from airflow_dbjobs.local_workspace import __main__ as local_workspace
from airflow_dbjobs.runs.polling.poller import RunPoller

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_dbjobs.client import JobsClient

SECRET = "dapi-a-very-secret-token"  # long enough for Airflow to mask it


@pytest.fixture(params=["get_conn", "aget_conn"])
def conn_of(request: pytest.FixtureRequest) -> Any:
    """Return the worker's way to a client, and the triggerer's."""

    def get(hook: DatabricksJobsHook | None = None) -> JobsClient:
        hook = hook or DatabricksJobsHook()
        return hook.get_conn() if request.param == "get_conn" else asyncio.run(hook.aget_conn())

    return get


def authorization(client: JobsClient) -> str:
    import requests

    prepared = requests.Request("GET", client.host).prepare()
    return client.transport.auth(prepared).headers["Authorization"]


class TestHost:
    @pytest.mark.parametrize(
        ("fields", "url"),
        [
            ({"host": "adb-1.azuredatabricks.net"}, "https://adb-1.azuredatabricks.net"),
            ({"host": " https://adb-1.azuredatabricks.net/ "}, "https://adb-1.azuredatabricks.net"),
            ({"host": "https://ADB-1.net/?o=12#job/3/run/4"}, "https://adb-1.net"),
            ({"host": "adb-1.net/jobs/3?o=1"}, "https://adb-1.net"),
            ({"host": "http://localhost:8765"}, "http://localhost:8765"),
            ({"host": "localhost:8765", "schema": "http"}, "http://localhost:8765"),
            ({"host": "localhost", "schema": "HTTP", "port": 8765}, "http://localhost:8765"),
            ({"host": "https://localhost:1", "schema": "http", "port": 8765}, "http://localhost:8765"),
            ({"host": "[::1]:8765", "schema": "http"}, "http://[::1]:8765"),
            ({"host": "http://[::1]", "port": 8765}, "http://[::1]:8765"),
            ({"host": "http://adb-1.example"}, "https://adb-1.example"),
            ({"host": "http://adb-1.example", "schema": "http"}, "http://adb-1.example"),
            ({"host": None, "extra": {"host": "http://adb-1.example"}}, "https://adb-1.example"),
        ],
    )
    def test_is_read_from_host_schema_and_port(self, monkeypatch, conn_of, fields, url):
        connect(monkeypatch, password=SECRET, **fields)
        assert conn_of().host == url

    def test_may_be_in_the_extra(self, monkeypatch, conn_of):
        connect(monkeypatch, None, SECRET, extra={"host": "adb-1.net"})
        assert conn_of().host == "https://adb-1.net"

    def test_in_the_extra_wins_as_in_the_official_provider(self, monkeypatch, conn_of):
        connect(monkeypatch, "adb-1.net", SECRET, extra={"host": "adb-2.net"})
        assert conn_of().host == "https://adb-2.net"


class TestOfficialProvidersConnection:
    @pytest.mark.parametrize("fields", [{"password": "{token}"}, {"password": "", "extra": {"token": "{token}"}}])
    def test_works_unchanged(self, workspace, monkeypatch, conn_of, fields):
        fields = json.loads(json.dumps(fields).replace("{token}", workspace.token))
        connect(monkeypatch, **{"host": workspace.base_url, "conn_type": "databricks", **fields})
        assert list(conn_of().list_jobs()) == []

    def test_auth_type_for_sql_is_ignored_with_one_warning(self, workspace, monkeypatch, conn_of, caplog, capfd):
        monkeypatch.setattr(hooks, "_remarked", set())
        extra = {"auth_type": "databricks-oauth", "http_path": "/sql/1"}
        connect(monkeypatch, workspace.base_url, workspace.token, conn_type="databricks", extra=extra)
        for _ in range(2):
            assert list(conn_of().list_jobs()) == []
        # Airflow 3 writes the log to stdout, Airflow 2 there and elsewhere.
        said = capfd.readouterr().out if AIRFLOW_V_3_0_PLUS else caplog.text
        assert said.count("extra auth_type is 'databricks-oauth', which this provider ignores.") == 1

    def test_may_have_an_auth_type_of_this_provider(self, monkeypatch, conn_of):
        connect(
            monkeypatch, "localhost", SECRET, login="client-id", conn_type="databricks", extra={"auth_type": "oauth"}
        )
        assert "ClientCredentials" in repr(conn_of().transport.auth)


class TestTestButton:
    def test_says_what_is_missing(self):
        assert DatabricksJobsHook("elsewhere").test_connection()[0] is False

    @pytest.mark.parametrize("host", ["http://127.0.0.1:1", "https://127.0.0.1:1"])
    def test_gives_up_on_an_unreachable_host_at_once(self, monkeypatch, host):
        time = FastTime(monkeypatch)
        connect(monkeypatch, host, SECRET)
        ok, message = DatabricksJobsHook().test_connection()
        assert not ok
        assert f"cannot reach {host}" in message
        assert time.now == 1000


class TestUserAgent:
    @pytest.mark.parametrize("caller", ["", "MyOperator"])
    def test_names_airflow_and_the_caller(self, workspace, monkeypatch, conn_of, caller):
        connect(monkeypatch, workspace.base_url, workspace.token)
        agents, handle = [], workspace.handle
        monkeypatch.setattr(
            workspace, "handle", lambda request: agents.append(request.headers["user-agent"]) or handle(request)
        )
        list(conn_of(DatabricksJobsHook(caller=caller)).list_jobs())
        (agent,) = agents
        assert agent.endswith(f"airflow/{airflow_version}" + (f" operator/{caller}" if caller else ""))
        assert agent.startswith("airflow-dbjobs/")


class TestSetting:
    @pytest.mark.parametrize("name", SETTINGS)
    @pytest.mark.parametrize("value", [90, 7.5, "90", " 7.5 ", 86400], ids=repr)
    def test_reaches_what_it_configures(self, monkeypatch, conn_of, name, value):
        connect(monkeypatch, "localhost", SECRET, extra={name: value})
        client = conn_of()
        ruled = {**asdict(client.transport.policy), **asdict(client.patience)}
        assert ruled == {**asdict(RetryPolicy()), **asdict(Patience()), name: float(value)}

    @pytest.mark.parametrize("name", SETTINGS)
    @pytest.mark.parametrize("value", ["", None], ids=repr)
    def test_that_is_empty_is_the_default(self, monkeypatch, conn_of, name, value):
        connect(monkeypatch, "localhost", SECRET, extra={name: value})
        client = conn_of()
        assert (client.transport.policy, client.patience) == (RetryPolicy(), Patience())

    @pytest.mark.parametrize("name", SETTINGS)
    @pytest.mark.parametrize("value", [0, "0", "0.0"], ids=repr)
    def test_may_be_0_unless_it_is_a_timeout(self, monkeypatch, conn_of, name, value):
        connect(monkeypatch, "localhost", SECRET, extra={name: value})
        if name in {"connect_timeout", "read_timeout"}:
            with pytest.raises(ConfigurationError, match="must be a number of seconds, more than 0"):
                conn_of()
        else:
            client = conn_of()
            assert {**asdict(client.transport.policy), **asdict(client.patience)}[name] == 0

    @pytest.mark.parametrize("name", SETTINGS)
    @pytest.mark.parametrize("value", [-1, "-0.5", "ten minutes", "10m", True, False, "nan", "inf", "1e999"], ids=repr)
    def test_that_is_no_number_of_seconds_names_the_rule(self, monkeypatch, conn_of, name, value):
        connect(monkeypatch, "localhost", SECRET, extra={name: value})
        rule = "more than 0 and at most 86400" if name.endswith("_timeout") else "0 or more"
        with pytest.raises(ConfigurationError) as error:
            conn_of()
        text = f"extra {name} is {value!r}; it must be a number of seconds, {rule}."
        assert str(error.value) == f"Connection 'databricks_default': {text}"

    @pytest.mark.parametrize("name", SETTINGS)
    @pytest.mark.parametrize("value", [1e12, "86401"], ids=repr)
    def test_that_is_too_large_for_a_socket_names_the_rule(self, monkeypatch, conn_of, name, value):
        connect(monkeypatch, "localhost", SECRET, extra={name: value})
        if name.endswith("_timeout"):
            with pytest.raises(ConfigurationError, match=f"extra {name} is .*, more than 0 and at most 86400."):
                conn_of()
        else:
            client = conn_of()
            assert {**asdict(client.transport.policy), **asdict(client.patience)}[name] == float(value)

    @pytest.mark.parametrize("value", [[3], {"seconds": 3}], ids=repr)
    def test_of_another_type_names_the_rule(self, monkeypatch, conn_of, value):
        connect(monkeypatch, "localhost", SECRET, extra={"read_timeout": value})
        with pytest.raises(ConfigurationError, match=r"extra read_timeout is .*; it must be a number of seconds"):
            conn_of()


class TestRequestRate:
    @pytest.mark.parametrize(
        ("extra", "rate"),
        [
            ({}, 100.0),
            ({"max_requests_per_second": ""}, 100.0),
            ({"max_requests_per_second": None}, 100.0),
            ({"max_requests_per_second": 20}, 20.0),
            ({"max_requests_per_second": 0.5}, 0.5),
            ({"max_requests_per_second": " 7.5 "}, 7.5),
        ],
        ids=str,
    )
    def test_reaches_the_poller(self, monkeypatch, conn_of, extra, rate):
        # The lowest rate that anybody has set for a workspace holds.
        connect(monkeypatch, f"at-{rate}.example", SECRET, extra=extra)
        client = conn_of()
        assert client.max_requests_per_second == rate
        # And is none of the other settings.
        assert (client.transport.policy, client.patience) == (RetryPolicy(), Patience())

        async def seconds_per_request():
            return RunPoller(client)._gate.seconds_per_request

        assert asyncio.run(seconds_per_request()) == pytest.approx(1 / rate)

    @pytest.mark.parametrize(
        "value", [0, "0", -1, "many", "10/s", True, False, "nan", "inf", [3], {"rate": 3}], ids=repr
    )
    def test_that_is_no_positive_number_names_the_rule(self, monkeypatch, conn_of, value):
        connect(monkeypatch, "localhost", SECRET, extra={"max_requests_per_second": value})
        with pytest.raises(ConfigurationError) as error:
            conn_of()
        text = f"extra max_requests_per_second is {value!r}; it must be a number, more than 0."
        assert str(error.value) == f"Connection 'databricks_default': {text}"


class TestExtra:
    @pytest.mark.parametrize(
        ("extra", "version"),
        [
            ({}, "2.2"),
            *(({"api_version": given}, "2.1") for given in ("2.1", " 2.1 ", 2.1)),
            *(({"api_version": empty}, "2.2") for empty in (None, "", " ")),
        ],
    )
    def test_sets_the_api_version(self, monkeypatch, conn_of, extra, version):
        connect(monkeypatch, "localhost", SECRET, extra=extra)
        assert conn_of().api_version == version

    @pytest.mark.parametrize(
        ("given", "verify"),
        [
            *[
                (given, True)
                for given in ({}, *({"verify": on} for on in (True, None, "", " ", "true", "1", "Yes", "on")))
            ],
            *[({"verify": off}, False) for off in (False, 0, "False", " no ", "off", "0")],
            ({"verify": " /ca.pem "}, "/ca.pem"),
        ],
        ids=str,
    )
    def test_can_switch_off_the_verification_of_certificates(self, monkeypatch, conn_of, given, verify):
        connect(monkeypatch, "localhost", SECRET, extra=given)
        assert conn_of().transport.network.verify == verify

    @pytest.mark.parametrize(
        ("given", "proxies"),
        [
            (None, ()),
            ("", ()),
            (" ", ()),
            ({}, ()),
            ("{}", ()),
            (" http://p:1 ", (("http", "http://p:1"), ("https", "http://p:1"))),
            ('"http://p:1"', (("http", "http://p:1"), ("https", "http://p:1"))),
            ({"https": "http://p:1"}, (("https", "http://p:1"),)),
            ('{"https": "http://p:1"}', (("https", "http://p:1"),)),
        ],
        ids=str,
    )
    def test_takes_proxies_as_url_object_or_text(self, monkeypatch, conn_of, given, proxies):
        connect(monkeypatch, "localhost", SECRET, extra={"proxies": given})
        assert conn_of().transport.network.proxies == proxies

    @pytest.mark.parametrize(
        "given", ["[1]", "7", '{"ftp": "http://p"}', {"http": ""}, "{'http': 'http://user:word@p'}"]
    )
    def test_names_unreadable_proxies_without_quoting_them(self, monkeypatch, conn_of, given):
        connect(monkeypatch, "localhost", SECRET, extra={"proxies": given})
        with pytest.raises(ConfigurationError, match="'databricks_default': extra proxies ") as error:
            conn_of()
        assert "word" not in str(error.value)

    @pytest.mark.parametrize(
        ("text", "read"), [('["token"]', ["token"]), ('"token"', "token"), ("{token: x}", {})], ids=str
    )
    def test_that_is_no_json_object_is_reported(self, monkeypatch, conn_of, text: str, read: Any) -> None:
        # Airflow 3 reads what it cannot parse as nothing; Airflow 2 refuses to store it.
        connection = SimpleNamespace(extra=text, extra_dejson=read, host="adb-1.net", password=SECRET)
        monkeypatch.setattr(DatabricksJobsHook, "get_connection", lambda *_: connection)
        with pytest.raises(ConfigurationError, match="'databricks_default': extra must be a JSON object"):
            conn_of()

    @pytest.mark.parametrize("text", [None, "", "  ", "{}", "{ }", "{\n}\n"], ids=repr)
    def test_that_is_empty_is_ignored(self, monkeypatch, conn_of, text: str | None) -> None:
        fields = {"conn_type": "databricks", "host": "adb-1.net", "schema": "", "port": None, "login": None}
        connection = SimpleNamespace(**fields, password=SECRET, extra=text, extra_dejson={})
        monkeypatch.setattr(DatabricksJobsHook, "get_connection", lambda *_: connection)
        assert conn_of().host == "https://adb-1.net"

    def test_has_a_setting_for_every_policy_field(self):
        ruled = {field.name for kind in (RetryPolicy, Patience) for field in fields(kind)}
        assert ruled - SETTINGS.keys() == {"first_wait", "ends_with_budget"}
        assert SETTINGS.keys() <= ruled


def said_by_us(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("airflow_dbjobs")]


class TestCredentials:
    @pytest.mark.parametrize(
        ("fields", "header"),
        [
            ({"password": SECRET}, f"Bearer {SECRET}"),
            ({"password": f" {SECRET}\n"}, f"Bearer {SECRET}"),
            ({"password": "", "extra": {"token": SECRET}}, f"Bearer {SECRET}"),
            ({"login": "me", "password": "mine", "extra": {"token": SECRET}}, f"Bearer {SECRET}"),
            ({"login": "me", "password": "mine"}, "Basic bWU6bWluZQ=="),
        ],
        ids=["password", "spaces around", "extra", "extra wins", "basic"],
    )
    def test_are_read_in_the_official_providers_order(self, monkeypatch, conn_of, fields, header):
        connect(monkeypatch, "localhost", **fields)
        assert authorization(conn_of()) == header

    @pytest.mark.parametrize(
        ("extra", "words"),
        [
            (
                {"auth_type": "oauth", "azure_tenant_id": "t-1"},
                "auth_type is 'oauth', which contradicts azure_tenant_id",
            ),
            ({"federated_k8s": True}, "authenticates by federated_k8s, but it lacks extra client_id"),
            ({"auth_type": "kerberos"}, "auth_type is 'kerberos'; it must be one of token, "),
            ({"proxies": "ftp", "client_key": "/k"}, "client_key is set, but client_cert is not"),
        ],
    )
    def test_that_are_unusable_are_named_and_not_sent(self, workspace, monkeypatch, conn_of, extra, words):
        connect(monkeypatch, workspace.base_url, SECRET, login="client-id", extra=extra)
        with pytest.raises(ConfigurationError, match=f"^Connection 'databricks_default': .*{words}") as error:
            conn_of()
        assert SECRET not in str(error.value)
        assert not workspace.requests

    def test_that_changed_are_read_again_by_a_worker(self, workspace, monkeypatch, caplog):
        connect(monkeypatch, workspace.base_url, "of-yesterday")
        client = DatabricksJobsHook().get_conn()
        with pytest.raises(PermissionDenied):
            client.get_run(7)
        connect(monkeypatch, workspace.base_url, workspace.token)
        old = client.transport
        client.renew_credentials()
        assert client.transport is not old
        assert list(client.list_runs()) == []
        assert said_by_us(caplog) == ["The connection has changed; using its new settings."]
        # And once more.
        connect(monkeypatch, workspace.base_url, "of-tomorrow")
        client.renew_credentials()
        with pytest.raises(PermissionDenied):
            client.get_run(7)

    def test_that_are_unchanged_keep_their_connections(self, workspace, monkeypatch, caplog):
        connect(monkeypatch, workspace.base_url, workspace.token)
        client = DatabricksJobsHook().get_conn()
        transport = client.transport
        client.renew_credentials()
        assert client.transport is transport
        assert said_by_us(caplog) == []

    @pytest.mark.parametrize("broken", ["gone", "wrong"])
    def test_that_cannot_be_read_again_stay_unchanged(self, workspace, monkeypatch, caplog, broken):
        connect(monkeypatch, workspace.base_url, workspace.token)
        client = DatabricksJobsHook().get_conn()
        if broken == "gone":
            monkeypatch.delenv("AIRFLOW_CONN_DATABRICKS_DEFAULT")
        else:
            connect(monkeypatch, workspace.base_url, SECRET, extra={"retry_budget": "soon"})
        client.renew_credentials()
        assert list(client.list_runs()) == []
        (said,) = said_by_us(caplog)
        assert said.startswith("Reading the connection again failed; using the old credentials: ")
        assert SECRET not in said

    def test_are_kept_by_a_client_that_cannot_read_them_again(self, client):
        transport = client.transport
        client.renew_credentials()
        assert client.transport is transport


class TestConnection:
    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"host": ""}, "host is empty. Set it to the workspace's URL"),
            ({"host": None}, "host is empty"),
            ({"host": "https://"}, "no valid host name"),
            ({"host": "my workspace"}, "no valid host name"),
            ({"host": "localhost:port"}, "host is not a valid URL"),
            ({"host": "https://[::1"}, "host is not a valid URL"),
            *(
                ({"host": host}, "host contains no valid host name")
                for host in ("https:/adb-1.net", "http:/adb-1.net", "https//adb-1.net")
            ),
            *(({"host": "adb-1.net", "port": port}, f"port is {port}; it must be from 1") for port in (-1, 99999)),
            ({"host": "https://adb-1.net:0"}, "port is 0; it must be from 1 to 65535, or empty"),
            ({"host": "ftp://localhost"}, "schema is 'ftp'; it must be https"),
            ({"host": "localhost", "schema": "default"}, "schema is 'default'; it must be https"),
            (
                {"host": "localhost", "extra": {"api_version": "3.0"}},
                "api_version is '3.0'; it must be one of 2.0, 2.1, 2.2",
            ),
            ({"host": "localhost", "password": None}, "no credentials"),
            ({"host": "localhost", "login": "me", "password": None}, "no credentials"),
            (
                {"host": "localhost", "password": "dapi\u2026"},
                "the connection's password has a line break or other characters",
            ),
        ],
    )
    def test_errors_name_the_field_and_the_connection(self, monkeypatch, conn_of, fields, words):
        connect(monkeypatch, **{"password": SECRET, **fields})
        with pytest.raises(ConfigurationError) as error:
            conn_of()
        assert "Connection 'databricks_default': " in str(error.value)
        assert words in str(error.value)

    def test_that_is_unknown_is_reported_with_the_remedy(self, conn_of):
        with pytest.raises(ConfigurationError) as error:
            conn_of(DatabricksJobsHook("elsewhere"))
        for needed in ("databricks_conn_id is 'elsewhere'", "Admin, Connections", "AIRFLOW_CONN_ELSEWHERE"):
            assert needed in str(error.value)

    def test_lookup_failure_is_not_taken_for_an_unknown_one(self, mocker, conn_of):
        for name in ("get_connection", "aget_connection"):
            if hasattr(BaseHook, name):
                mocker.patch.object(BaseHook, name, side_effect=PermissionError("vault is down, token=s3cret"))
        with pytest.raises(
            JobsError, match="'databricks_default', and looking it up failed with PermissionError"
        ) as error:
            conn_of()
        assert not isinstance(error.value, ConfigurationError)
        assert (error.value.__cause__, error.value.__context__) == (None, None)

    @pytest.mark.parametrize("defined", ["{not json", "http://["])
    def test_that_cannot_be_parsed_is_not_taken_for_unknown(self, monkeypatch, conn_of, defined):
        monkeypatch.setenv("AIRFLOW_CONN_BROKEN", defined)
        with pytest.raises(JobsError, match=r"databricks_conn_id is 'broken'") as error:
            conn_of(DatabricksJobsHook("broken"))
        assert "no such connection" not in str(error.value)
        assert defined not in str(error.value)

    def test_lookup_error_of_a_secrets_backend_is_not_logged(self, monkeypatch, mocker, caplog):
        connect(monkeypatch, "https://x.example", SECRET)
        client = DatabricksJobsHook().get_conn()
        mocker.patch.object(BaseHook, "get_connection", side_effect=PermissionError("vault is down, token=s3cret"))
        client.renew_credentials()
        assert "Reading the connection again failed; using the old credentials: " in caplog.text
        assert "PermissionError" in caplog.text
        assert "s3cret" not in caplog.text

    @pytest.mark.parametrize(
        "fields", [{"password": SECRET}, {"login": "me", "password": SECRET}, {"extra": {"token": SECRET}}]
    )
    def test_shows_no_secret_anywhere(self, workspace, monkeypatch, conn_of, caplog, capfd, *, fields):
        caplog.set_level(logging.DEBUG)
        FastTime(monkeypatch)
        connect(monkeypatch, **{"host": workspace.base_url, "password": "", **fields})
        workspace.faults.append(Fault("list", status=503, headers={"Retry-After": "0"}))
        hook = DatabricksJobsHook()
        client = conn_of(hook)
        with pytest.raises(PermissionDenied) as error:
            list(client.list_jobs())
        shown = [*map(repr, (hook, client, client.transport, client.transport.auth, error.value)), str(error.value)]
        shown += [*capfd.readouterr(), *(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)]
        assert any("503" in text for text in shown)
        assert [text for text in shown if SECRET in text or "bWU6" in text] == []

    def test_of_the_local_workspace_gives_up_within_seconds(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, conn_of: Any
    ) -> None:
        monkeypatch.setattr("airflow_dbjobs.local_workspace.http.server.serve", lambda *args: args[1].close())
        assert local_workspace.main(["--root", str(tmp_path), "--port", "0"]) == 0
        variable, connection = re.search(r"^export (\w+)='(.*)'$", capsys.readouterr().out, re.MULTILINE).groups()
        monkeypatch.setenv(variable, connection)
        assert conn_of().transport.policy.retry_budget == 20
