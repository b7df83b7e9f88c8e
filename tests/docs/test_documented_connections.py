"""docs/connection.md: Airflow's own parsers read each form of a connection, and treat its type as the page says."""

from __future__ import annotations

import inspect
import json
import re
import warnings
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest
from airflow.cli import cli_parser
from airflow.cli.commands import connection_command
from airflow.models.connection import Connection
from airflow_context import connect
from documentation import commands, example, examples, text_of

from airflow_dbjobs.airflow_compat import AIRFLOW_V_3_0_PLUS
from airflow_dbjobs.errors import ConfigurationError
from airflow_dbjobs.hooks import DatabricksJobsHook
from airflow_dbjobs.hooks.fields import BY_NAME

if TYPE_CHECKING:
    from pytest_mock import MockerFixture

    from airflow_dbjobs.client import JobsClient
    from airflow_dbjobs.local_workspace import LocalWorkspace

ON_PAGE = [
    words
    for example in examples()
    if example.where.startswith("docs/connection.md") and example.language == "sh"
    for words in commands(example.code)
]
VALUES = [words[1].partition("=")[2] for words in ON_PAGE if words[0] == "export"]
CALLS = [words[1:] for words in ON_PAGE if words[0] == "airflow"]
TOKEN = {"host": "adb-1234567890123456.7.azuredatabricks.net", "login": "", "extra": {}}
PRINCIPAL = {
    "host": "dbc-1234.cloud.databricks.com",
    "login": "6d2c0e4a-1111-2222-3333-444455556666",
    "extra": {"auth_type": "oauth"},
}


def read_by(connection: Any) -> dict[str, Any]:
    assert connection.conn_type == "databricks_jobs"
    assert connection.password
    host = connection.host.removeprefix("https://")
    return {"host": host, "login": connection.login or "", "extra": connection.extra_dejson}


def added(arguments: list[str], mocker: MockerFixture) -> Any:
    """Return the connection that `airflow connections add` adds, with a session that only takes it."""
    session = mocker.Mock(**{"scalar.return_value": None})
    mocker.patch.object(connection_command, "create_session", return_value=nullcontext(session))
    mocker.patch.object(connection_command, "AirflowConsole")
    call = inspect.unwrap(connection_command.connections_add)
    with warnings.catch_warnings():
        # The command asks for connection types in a way that Airflow itself has deprecated, and warns of other types.
        warnings.simplefilter("ignore")
        call(cli_parser.get_parser().parse_args(arguments))
    (connection,) = session.add.call_args.args
    return connection


class TestType:
    """The chapter "The connection type"."""

    @pytest.mark.parametrize(
        "made",
        [
            lambda: Connection(uri="databricks-jobs://:dapi-1@a.databricks.com"),
            lambda: Connection.from_json('{"conn_type": "databricks-jobs", "host": "a.databricks.com"}'),
            lambda: Connection.from_json('{"conn_type": "databricks_jobs", "host": "a.databricks.com"}'),
        ],
        ids=["URI", "JSON with a hyphen", "JSON"],
    )
    def test_airflow_makes_an_underscore_of_a_hyphen(self, made: Any) -> None:
        connection = made()
        assert (connection.conn_type, connection.host) == ("databricks_jobs", "a.databricks.com")

    def test_a_uri_with_an_underscore_has_no_host(self, monkeypatch: pytest.MonkeyPatch) -> None:
        uri = "databricks_jobs://:dapi-1@a.databricks.com"
        connection = Connection(uri=uri)
        assert (connection.conn_type, connection.host, connection.password) == ("", "", None)
        monkeypatch.setenv("AIRFLOW_CONN_OF_AN_EXAMPLE", uri)
        with pytest.raises(ConfigurationError, match="host is empty") as error:
            DatabricksJobsHook("of_an_example").get_conn()
        assert "dapi-1" not in str(error.value)

    @pytest.mark.skipif(not AIRFLOW_V_3_0_PLUS, reason="Airflow 2 has no words for it")
    def test_the_command_line_refuses_such_a_uri(self, mocker: MockerFixture) -> None:
        arguments = ["connections", "add", "x", "--conn-uri", "databricks_jobs://:dapi-1@a.databricks.com"]
        with pytest.raises(SystemExit, match="is invalid"):
            added(arguments, mocker)

    def test_with_a_hyphen_is_generic_to_the_command_line(self, mocker: MockerFixture) -> None:
        arguments = ["connections", "add", "x", "--conn-type", "databricks-jobs", "--conn-host", "a.databricks.com"]
        assert added(arguments, mocker).conn_type == "generic"

    @pytest.mark.parametrize(
        "extra", [{}, {"auth_type": "oauth", "retry_budget": 20, "proxies": {"https": "http://p"}}]
    )
    def test_airflow_reads_back_what_it_writes_as_a_uri(self, extra: dict[str, Any]) -> None:
        fields = {"host": "https://a.databricks.com", "login": "id", "password": "p/w d", "extra": json.dumps(extra)}
        connection = Connection(conn_id="x", conn_type="databricks_jobs", **fields)
        uri = connection.get_uri()
        assert uri.startswith("databricks-jobs://")
        assert read_by(Connection(conn_id="x", uri=uri)) == read_by(connection)

    @pytest.mark.parametrize("conn_type", ["generic", "databricks-jobs", "databricks", "databricks_jobs"])
    def test_a_task_reads_a_connection_of_any_type(self, conn_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
        fields = {"conn_type": conn_type, "host": "a.databricks.com", "password": "dapi-1"}
        monkeypatch.setenv("AIRFLOW_CONN_OF_AN_EXAMPLE", json.dumps(fields))
        with DatabricksJobsHook("of_an_example").get_conn() as client:
            assert client.host == "https://a.databricks.com"


class TestConnection:
    @pytest.mark.parametrize(("value", "meant"), [*zip(VALUES, [TOKEN, TOKEN, PRINCIPAL, PRINCIPAL], strict=True)])
    def test_is_the_same_as_json_and_as_uri(
        self, value: str, meant: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_OF_AN_EXAMPLE", value)
        assert read_by(DatabricksJobsHook.get_connection("of_an_example")) == meant

    @pytest.mark.parametrize(("arguments", "meant"), [*zip(CALLS, [TOKEN, PRINCIPAL], strict=True)])
    def test_is_the_same_when_the_command_line_adds_it(
        self, arguments: list[str], meant: dict[str, Any], mocker: MockerFixture
    ) -> None:
        assert read_by(added(arguments, mocker)) == meant

    def test_reads_port_and_schema_of_a_uri(self) -> None:
        uri = re.search(r"`(databricks-jobs://\S+/http)`", text_of("connection"))
        assert uri
        connection = Connection(uri=uri[1])
        assert (connection.host, connection.port, connection.schema) == ("127.0.0.1", 8765, "http")

    def test_test_button_answers_in_the_documented_words(
        self, workspace: LocalWorkspace, client: JobsClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client.create_job({"name": "nightly"})
        connect(monkeypatch, workspace.base_url, workspace.token, extra={"retry_budgets": 1})
        works, message = DatabricksJobsHook().test_connection()
        assert works

        def comparable(text: str) -> str:
            return re.sub(r"as .+? at http.+? by \w+ \(.+?\)", "as WHO at HOST by HOW", " ".join(text.split()))

        shown = example("text", "Authenticated as")
        assert comparable(message) == comparable(shown)
        assert f"by oauth ({BY_NAME['oauth'].help.rstrip('.')})" in " ".join(shown.split())
