"""The hook, which makes a JobsClient from an Airflow connection."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.airflow_compat import BaseHook
from airflow_dbjobs.hooks.fields import CONNECTION_TYPE, HOOK_NAME, UI_FIELD_BEHAVIOUR

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_dbjobs.airflow_compat import Connection
    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.client.transport import Transport
    from airflow_dbjobs.hooks.credentials import AwsConnection
    from airflow_dbjobs.hooks.fields import Scheme

DEFAULT_CONN_ID = "databricks_default"
DEFAULT_AWS_CONN_ID = "aws_default"
OFFICIAL_TYPE = "databricks"

# The warnings about connections that this process has logged.
_remarked: set[str] = set()


class DatabricksJobsHook(BaseHook):
    """Gives authenticated access to the Jobs API of the workspace that a connection names.

    :param databricks_conn_id: the id of a connection of type ``databricks_jobs``, or of the official provider's type
        ``databricks``. docs/connection.md describes its fields.
    :param caller: a name to add to the User-Agent of every request.
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
        """Return a client for the connection. Raises errors.ConfigurationError, which names the wrong field."""
        return self._connect(reread=lambda: self.get_conn().transport)

    async def aget_conn(self) -> JobsClient:
        """Return a client for the connection, without blocking the event loop. Raises errors.ConfigurationError."""
        from asgiref.sync import sync_to_async

        # In asgiref's thread, from which Airflow 3 sends its request through this event loop. Its own asynchronous
        # lookup masks the secrets without the loop, which fails before Airflow 3.3.2 during another call. The client is
        # made there, too, because its modules take 100 ms to import.
        return await sync_to_async(self._connect)()

    def test_connection(self) -> tuple[bool, str]:
        """Report who authenticates and whether they may list jobs, for the "Test" button. It launches nothing."""
        from airflow_dbjobs.errors import ConfigurationError
        from airflow_dbjobs.hooks.check import check
        from airflow_dbjobs.hooks.extra import remarks

        try:
            client, scheme, extra = self._client()
        except ConfigurationError as error:
            # Airflow tests the content of the form under a random connection id.
            return False, str(error).removeprefix(self._prefix)
        works, message = check(client, scheme)
        return works, " ".join([message, *(f"Note: {remark}" for remark in remarks(scheme, extra))])

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the fields of the connection form for Airflow before 3.2, which does not read provider.py for them."""
        from airflow_dbjobs.hooks.form import form_widgets

        return form_widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return how the form shows the fields that every connection has."""
        return {
            "hidden_fields": UI_FIELD_BEHAVIOUR["hidden-fields"],
            "relabeling": UI_FIELD_BEHAVIOUR["relabeling"],
            "placeholders": UI_FIELD_BEHAVIOUR["placeholders"],
        }

    def _connect(self, *, reread: Callable[[], Transport] | None = None) -> JobsClient:
        from airflow_dbjobs.hooks.extra import remarks

        client, scheme, extra = self._client(reread)
        for remark in remarks(scheme, extra):
            self._warn_once(f"{self._prefix}{remark}")
        return client

    def _client(self, reread: Callable[[], Transport] | None = None) -> tuple[JobsClient, Scheme, Mapping[str, Any]]:
        """Return a client for the connection, its authentication scheme, and the connection's extra."""
        from airflow_dbjobs.client.jobs_client import JobsClient
        from airflow_dbjobs.client.transport import Transport
        from airflow_dbjobs.client.workspace import DEFAULT_API_VERSION, workspace_id_of, workspace_url
        from airflow_dbjobs.errors import ConfigurationError
        from airflow_dbjobs.hooks.credentials import choose_auth
        from airflow_dbjobs.hooks.extra import network_from, requests_per_second_from, scheme_of, settings_from

        connection = self._look_up("databricks_conn_id", self.databricks_conn_id)
        try:
            extra = self._extra_of(connection)
            policy, patience = settings_from(extra)
            host = str(extra.get("host") or connection.host or "")
            url = workspace_url(host, schema=connection.schema or "", port=connection.port)
            workspace_id = workspace_id_of(host, extra.get("workspace_id"))
            network = network_from(extra)
            scheme = scheme_of(connection.login, connection.password, extra)
            auth = choose_auth(
                login=connection.login,
                password=connection.password,
                extra=extra,
                workspace=url,
                workspace_id=workspace_id,
                network=network,
                aws=self._aws_connection(extra) if scheme.name == "federated_aws" else None,
            )
            client = JobsClient(
                transport=Transport(
                    url, auth, workspace_id=workspace_id, policy=policy, network=network, product=self._product()
                ),
                api_version=str(extra.get("api_version") or "").strip() or DEFAULT_API_VERSION,
                patience=patience,
                max_requests_per_second=requests_per_second_from(extra),
                connection=self.databricks_conn_id,
                reread=reread,
            )
        except ConfigurationError as error:
            raise ConfigurationError(f"{self._prefix}{error}") from None
        return client, scheme, extra

    def _look_up(self, field: str, conn_id: str) -> Connection:
        """Return the connection that the parameter `field` names.

        Raises ConfigurationError if there is none, JobsError if the lookup failed otherwise.
        """
        from airflow_dbjobs.airflow_compat import AirflowNotFoundException
        from airflow_dbjobs.errors import JobsError

        try:
            return self.get_connection(conn_id)
        except AirflowNotFoundException:
            failure: Exception = _not_defined(field, conn_id)
        except Exception as error:  # noqa: BLE001 (of any secrets backend)
            failure = JobsError(
                f"{field} is {conn_id!r}, and looking it up failed with {type(error).__name__} in the secrets backend"
                " or in Airflow. The error's text is not shown, as it may contain secrets"
            )
        # Not in the except clause: the backend's error, as the context of this one, may contain a secret.
        raise failure

    def _aws_connection(self, extra: Mapping[str, Any]) -> AwsConnection | None:
        """Return the AWS connection to use, None if botocore is to find the credentials."""
        from airflow_dbjobs.errors import ConfigurationError
        from airflow_dbjobs.hooks.credentials import AwsConnection

        # As with the official provider, null or an empty string means no connection.
        conn_id = str(extra.get("aws_conn_id", DEFAULT_AWS_CONN_ID) or "").strip()
        if not conn_id:
            return None
        try:
            aws = self._look_up("aws_conn_id", conn_id)
        except ConfigurationError:
            # The default one is optional.
            if conn_id != DEFAULT_AWS_CONN_ID:
                raise
            return None
        return AwsConnection(aws.login or "", aws.password or "", aws.extra_dejson or {})

    def _extra_of(self, connection: Connection) -> Mapping[str, Any]:
        """Return a connection's extra, without an official connection's `auth_type` for the SQL connector."""
        from airflow_dbjobs.errors import ConfigurationError
        from airflow_dbjobs.hooks.extra import is_auth_type

        extra: Any = connection.extra_dejson
        if not isinstance(extra, Mapping) or (not extra and not _is_empty(connection.extra)):
            raise ConfigurationError("extra must be a JSON object.")
        if connection.conn_type != OFFICIAL_TYPE or is_auth_type(auth_type := extra.get("auth_type")):
            return extra
        self._warn_once(f"{self._prefix}extra auth_type is {auth_type!r}, which this provider ignores.")
        return {name: value for name, value in extra.items() if name != "auth_type"}

    def _warn_once(self, text: str) -> None:
        """Warn once per process: a triggerer looks up the connection of each of its triggers."""
        if text not in _remarked:
            _remarked.add(text)
            self.log.warning("%s", text)

    @property
    def _prefix(self) -> str:
        return f"Connection {self.databricks_conn_id!r}: "

    def _product(self) -> str:
        from airflow import __version__

        return f"airflow/{__version__}" + (f" operator/{self.caller}" if self.caller else "")


def _is_empty(text: str | None) -> bool:
    """Return True if an extra is empty; Airflow also returns an empty one if it cannot parse the text."""
    try:
        return bool(json.loads((text or "").strip() or "{}") == {})
    except ValueError:
        return False


def _not_defined(field: str, conn_id: str) -> Exception:
    from airflow_dbjobs.errors import ConfigurationError

    named, variable = f"{field} is {conn_id!r}", f"AIRFLOW_CONN_{conn_id.upper()}"
    if os.environ.get(variable):
        return ConfigurationError(
            f"{named}, but Airflow cannot parse the environment variable {variable} that defines it: it must be a"
            " URI, or a JSON object with conn_type, host, password and extra."
        )
    return ConfigurationError(
        f"{named}, but no such connection is defined, or the secrets backend failed or could not parse it (see the"
        " log above). Add it in the UI (Admin, Connections), with `airflow connections add`, or"
        f" as the environment variable {variable}."
    )
