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
            raise _unknown(self.databricks_conn_id, error) from error
        return self._client(connection, connection.extra_dejson, reread=lambda: self.get_conn().transport)

    async def aget_conn(self) -> JobsClient:
        """Return a client for the connection, without blocking the event loop. Raises errors.ConfigurationError."""
        from airflow.providers.common.compat.connection import get_async_connection, get_async_extra_dejson

        try:
            connection = await get_async_connection(self.databricks_conn_id, hook=self)
        except Exception as error:
            raise _unknown(self.databricks_conn_id, error) from error
        return self._client(connection, await get_async_extra_dejson(connection))

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
        self, connection: Connection, extra: Mapping[str, Any], reread: Callable[[], Transport] | None = None
    ) -> JobsClient:
        from airflow_dbjobs.auth import choose_auth
        from airflow_dbjobs.client import JobsClient
        from airflow_dbjobs.errors import ConfigurationError
        from airflow_dbjobs.retries import requests_per_second_from, settings_from
        from airflow_dbjobs.transport import Transport
        from airflow_dbjobs.workspace import DEFAULT_API_VERSION, workspace_url

        if not isinstance(extra, Mapping) or (not extra and (connection.extra or "").strip() not in {"", "{}"}):
            raise ConfigurationError(f"Connection {self.databricks_conn_id!r}: extra must be a JSON object.")
        try:
            policy, patience = settings_from(extra)
            return JobsClient(
                transport=Transport(
                    workspace_url(
                        connection.host or extra.get("host"), schema=connection.schema or "", port=connection.port
                    ),
                    choose_auth(login=connection.login, password=connection.password, extra=extra),
                    policy=policy,
                    verify=_verify(extra.get("verify", True)),
                    product=self._product(),
                ),
                api_version=str(extra.get("api_version") or DEFAULT_API_VERSION),
                patience=patience,
                max_requests_per_second=requests_per_second_from(extra),
                reread=reread,
            )
        except ConfigurationError as error:
            raise ConfigurationError(f"Connection {self.databricks_conn_id!r}: {error}") from None

    def _product(self) -> str:
        from airflow import __version__

        return f"airflow/{__version__}" + (f" operator/{self.caller}" if self.caller else "")


def _verify(value: object) -> bool | str:
    """Read `verify` of the extra: a boolean (as a form may write one), or the path of a CA bundle."""
    if isinstance(value, str) and value.strip().lower() in {"true", "false"}:
        return value.strip().lower() == "true"
    return value if isinstance(value, bool | str) else bool(value)


def _unknown(conn_id: str, error: Exception) -> Exception:
    """Return our error for a connection that Airflow does not find, or `error` itself where it means something else."""
    from airflow.providers.common.compat.sdk import AirflowNotFoundException

    from airflow_dbjobs.errors import ConfigurationError

    if not isinstance(error, AirflowNotFoundException):
        return error
    return ConfigurationError(
        f"databricks_conn_id is {conn_id!r}, and no such connection is defined. Add it in the UI (Admin, Connections),"
        f" with `airflow connections add`, or as the environment variable AIRFLOW_CONN_{conn_id.upper()}."
    )
