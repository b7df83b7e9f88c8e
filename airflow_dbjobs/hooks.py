"""From an Airflow connection to a JobsClient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseHook

from airflow_dbjobs.provider import CONNECTION_TYPE, HOOK_NAME, UI_FIELD_BEHAVIOUR

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.providers.common.compat.sdk import Connection

    from airflow_dbjobs.client import JobsClient
    from airflow_dbjobs.transport import Transport

DEFAULT_CONN_ID = "databricks_default"
DEFAULT_AWS_CONN_ID = "aws_default"

# What was said of connections in this process.
_remarked: set[str] = set()


class DatabricksJobsHook(BaseHook):
    """Owns authenticated access to the Jobs API of the workspace that a connection names.

    `databricks_conn_id` is the id of a connection of type ``databricks_jobs``, or of one made for the official
    provider. `caller` is named in the User-Agent of every request. Source of the fields: README, "The connection".
    """

    conn_name_attr = "databricks_conn_id"
    default_conn_name = DEFAULT_CONN_ID
    conn_type = CONNECTION_TYPE
    hook_name = HOOK_NAME

    def __init__(self, databricks_conn_id: str = DEFAULT_CONN_ID, *, caller: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.databricks_conn_id = databricks_conn_id
        self.caller = caller

    def get_conn(self) -> JobsClient:
        """Return a client for the connection. Raises errors.ConfigurationError, naming the field that is wrong."""
        try:
            connection = self.get_connection(self.databricks_conn_id)
        except Exception as error:
            raise _unknown("databricks_conn_id", self.databricks_conn_id, error) from error
        extra, aws = connection.extra_dejson, None
        if aws_conn_id := _aws_conn_id(connection, extra):
            try:
                aws = self.get_connection(aws_conn_id)
            except Exception as error:  # noqa: BLE001 (it is raised again, unless it says that there is none)
                _none_defined(aws_conn_id, error)
        aws_extra = aws.extra_dejson if aws else {}
        return self._client(connection, extra, aws, aws_extra, reread=lambda: self.get_conn().transport)

    async def aget_conn(self) -> JobsClient:
        """Return a client for the connection, without blocking the event loop. Raises errors.ConfigurationError."""
        from airflow.providers.common.compat.connection import get_async_connection, get_async_extra_dejson

        try:
            connection = await get_async_connection(self.databricks_conn_id, hook=self)
        except Exception as error:
            raise _unknown("databricks_conn_id", self.databricks_conn_id, error) from error
        extra, aws = await get_async_extra_dejson(connection), None
        if aws_conn_id := _aws_conn_id(connection, extra):
            try:
                aws = await get_async_connection(aws_conn_id, hook=self)
            except Exception as error:  # noqa: BLE001 (it is raised again, unless it says that there is none)
                _none_defined(aws_conn_id, error)
        return self._client(connection, extra, aws, await get_async_extra_dejson(aws) if aws else {})

    def test_connection(self) -> tuple[bool, str]:
        """Ask the Jobs API for its jobs: the "Test" button of the connection form."""
        from airflow_dbjobs.errors import JobsError
        from airflow_dbjobs.retries import RetryPolicy

        try:
            # Somebody is waiting in front of the form: no ten minutes of retries.
            client = self.get_conn().with_policy(RetryPolicy(retry_budget=5, server_error_wait=1, read_timeout=15))
            next(client.list_jobs(), None)
        except JobsError as error:
            return False, str(error)
        return True, f"The Jobs API {client.api_version} of {client.host} answers, and these credentials may list jobs."

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return what the connection form shows on Airflow before 3.2, which asks the hook and not provider.py."""
        return {
            "hidden_fields": UI_FIELD_BEHAVIOUR["hidden-fields"],
            "relabeling": UI_FIELD_BEHAVIOUR["relabeling"],
            "placeholders": UI_FIELD_BEHAVIOUR["placeholders"],
        }

    def _client(
        self,
        connection: Connection,
        extra: Mapping[str, Any],
        aws: Connection | None = None,
        aws_extra: Mapping[str, Any] | None = None,
        *,
        reread: Callable[[], Transport] | None = None,
    ) -> JobsClient:
        from airflow_dbjobs.auth.choice import AwsConnection, choose_auth
        from airflow_dbjobs.client import JobsClient
        from airflow_dbjobs.errors import ConfigurationError
        from airflow_dbjobs.fields import remarks, scheme_of
        from airflow_dbjobs.network import network_from
        from airflow_dbjobs.retries import requests_per_second_from, settings_from
        from airflow_dbjobs.transport import Transport
        from airflow_dbjobs.workspace import DEFAULT_API_VERSION, workspace_url

        if not isinstance(extra, Mapping) or (not extra and (connection.extra or "").strip() not in {"", "{}"}):
            raise ConfigurationError(f"Connection {self.databricks_conn_id!r}: extra must be a JSON object.")
        try:
            policy, patience = settings_from(extra)
            host = str(extra.get("host") or connection.host or "")
            url = workspace_url(host, schema=connection.schema or "", port=connection.port)
            network = network_from(extra)
            auth = choose_auth(
                login=connection.login,
                password=connection.password,
                extra=extra,
                workspace=url,
                network=network,
                aws=AwsConnection(aws.login or "", aws.password or "", aws_extra or {}) if aws else None,
            )
            client = JobsClient(
                transport=Transport(url, auth, policy=policy, network=network, product=self._product()),
                api_version=str(extra.get("api_version") or DEFAULT_API_VERSION),
                patience=patience,
                max_requests_per_second=requests_per_second_from(extra),
                reread=reread,
            )
        except ConfigurationError as error:
            raise ConfigurationError(f"Connection {self.databricks_conn_id!r}: {error}") from None
        for remark in remarks(scheme_of(connection.login, connection.password, extra), extra):
            self._remark(f"Connection {self.databricks_conn_id!r}: {remark}")
        return client

    def _remark(self, text: str) -> None:
        """Warn of something once in a process: a triggerer looks a connection up for each of its triggers."""
        if text not in _remarked:
            _remarked.add(text)
            self.log.warning("%s", text)

    def _product(self) -> str:
        from airflow import __version__

        return f"airflow/{__version__}" + (f" operator/{self.caller}" if self.caller else "")


def _aws_conn_id(connection: Connection, extra: Mapping[str, Any]) -> str:
    """Return the id of the AWS connection that has to do with it, or "" where none has."""
    from airflow_dbjobs.errors import ConfigurationError
    from airflow_dbjobs.fields import scheme_of

    try:
        scheme = scheme_of(connection.login, connection.password, extra) if isinstance(extra, Mapping) else None
    except ConfigurationError:
        # Said later, with the name of the connection.
        return ""
    return str(extra.get("aws_conn_id") or DEFAULT_AWS_CONN_ID) if scheme and scheme.name == "federated_aws" else ""


def _none_defined(aws_conn_id: str, error: Exception) -> None:
    """Raise what there is to raise, unless it is that the default connection of AWS is not defined."""
    unknown = _unknown("aws_conn_id", aws_conn_id, error)
    if unknown is error or aws_conn_id != DEFAULT_AWS_CONN_ID:
        raise unknown from error


def _unknown(field: str, conn_id: str, error: Exception) -> Exception:
    """Return our error for a connection that Airflow does not find, or `error` itself where it means something else."""
    from airflow.providers.common.compat.sdk import AirflowNotFoundException

    from airflow_dbjobs.errors import ConfigurationError

    if not isinstance(error, AirflowNotFoundException):
        return error
    return ConfigurationError(
        f"{field} is {conn_id!r}, and no such connection is defined. Add it in the UI (Admin, Connections),"
        f" with `airflow connections add`, or as the environment variable AIRFLOW_CONN_{conn_id.upper()}."
    )
