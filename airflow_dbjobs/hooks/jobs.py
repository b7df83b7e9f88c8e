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
    from typing import Self

    from airflow_dbjobs.airflow_compat import Connection
    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.client.transport import Transport

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
        from airflow_dbjobs.hooks.extra import remarks, scheme_of

        try:
            connection, extra, aws, aws_extra = self._lookup()
            client = self._client(connection, extra, aws, aws_extra)
            scheme = scheme_of(connection.login, connection.password, extra)
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
        connection, extra, aws, aws_extra = self._lookup()
        client = self._client(connection, extra, aws, aws_extra, reread=reread)
        self._warn_of_ignored_fields(connection, extra)
        return client

    def _lookup(self) -> tuple[Connection, Mapping[str, Any], Connection | None, Mapping[str, Any]]:
        """Return the connection and its extra, and the AWS connection that it needs, if any, and its extra."""
        with _Lookup("databricks_conn_id", self.databricks_conn_id) as lookup:
            connection = self.get_connection(self.databricks_conn_id)
        lookup.check()
        extra, aws = self._without_foreign_auth_type(connection, connection.extra_dejson), None
        if aws_conn_id := _aws_conn_id(connection, extra):
            with _Lookup("aws_conn_id", aws_conn_id) as lookup:
                aws = self.get_connection(aws_conn_id)
            lookup.check()
        return connection, extra, aws, aws.extra_dejson if aws else {}

    def _client(
        self,
        connection: Connection,
        extra: Mapping[str, Any],
        aws: Connection | None = None,
        aws_extra: Mapping[str, Any] | None = None,
        *,
        reread: Callable[[], Transport] | None = None,
    ) -> JobsClient:
        from airflow_dbjobs.client.jobs_client import JobsClient
        from airflow_dbjobs.client.transport import Transport
        from airflow_dbjobs.client.workspace import DEFAULT_API_VERSION, workspace_id_of, workspace_url
        from airflow_dbjobs.errors import ConfigurationError
        from airflow_dbjobs.hooks.credentials import AwsConnection, choose_auth
        from airflow_dbjobs.hooks.extra import network_from, requests_per_second_from, settings_from

        if not isinstance(extra, Mapping) or (not extra and not _is_empty(connection.extra)):
            raise ConfigurationError(f"{self._prefix}extra must be a JSON object.")
        try:
            policy, patience = settings_from(extra)
            host = str(extra.get("host") or connection.host or "")
            url = workspace_url(host, schema=connection.schema or "", port=connection.port)
            workspace_id = workspace_id_of(host, extra.get("workspace_id"))
            network = network_from(extra)
            auth = choose_auth(
                login=connection.login,
                password=connection.password,
                extra=extra,
                workspace=url,
                workspace_id=workspace_id,
                network=network,
                aws=AwsConnection(aws.login or "", aws.password or "", aws_extra or {}) if aws else None,
            )
            return JobsClient(
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

    def _without_foreign_auth_type(self, connection: Connection, extra: Mapping[str, Any]) -> Mapping[str, Any]:
        """Remove an `auth_type` for the SQL connector from the extra of an official provider's connection."""
        from airflow_dbjobs.hooks.extra import is_auth_type

        if connection.conn_type != OFFICIAL_TYPE or not isinstance(extra, Mapping):
            return extra
        if is_auth_type(auth_type := extra.get("auth_type")):
            return extra
        self._warn_once(f"{self._prefix}extra auth_type is {auth_type!r}, which this provider ignores.")
        return {name: value for name, value in extra.items() if name != "auth_type"}

    def _warn_of_ignored_fields(self, connection: Connection, extra: Mapping[str, Any]) -> None:
        """Warn about fields that have no effect."""
        from airflow_dbjobs.hooks.extra import remarks, scheme_of

        for remark in remarks(scheme_of(connection.login, connection.password, extra), extra):
            self._warn_once(f"{self._prefix}{remark}")

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


def _aws_conn_id(connection: Connection, extra: Mapping[str, Any]) -> str:
    """Return the id of the AWS connection that a connection needs; "" if it needs none."""
    from airflow_dbjobs.errors import ConfigurationError
    from airflow_dbjobs.hooks.extra import scheme_of

    try:
        scheme = scheme_of(connection.login, connection.password, extra) if isinstance(extra, Mapping) else None
    except ConfigurationError:
        # `_client` raises it, with the id of the connection.
        return ""
    if scheme is None or scheme.name != "federated_aws":
        return ""
    # As with the official provider, null or an empty string means no connection: botocore finds the credentials.
    return str(extra.get("aws_conn_id", DEFAULT_AWS_CONN_ID) or "").strip()


class _Lookup:
    """A connection lookup; `check` raises the error if it failed. `field` is the parameter that names the connection.

    `check` is called outside of the ``with``, so that the error does not have the secrets backend's error as its
    context, which may contain a secret.
    """

    def __init__(self, field: str, conn_id: str) -> None:
        self._field = field
        self._conn_id = conn_id
        self._failure: Exception | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        from airflow_dbjobs.airflow_compat import AirflowNotFoundException

        if isinstance(error, AirflowNotFoundException):
            # The default AWS connection is optional.
            if self._field == "databricks_conn_id" or self._conn_id != DEFAULT_AWS_CONN_ID:
                self._failure = self._not_found()
        elif isinstance(error, Exception):
            from airflow_dbjobs.errors import JobsError

            self._failure = JobsError(
                f"{self._field} is {self._conn_id!r}, and looking it up failed with {type(error).__name__} in the"
                " secrets backend or in Airflow. The error's text is not shown, as it may contain secrets"
            )
        return isinstance(error, Exception)

    def check(self) -> None:
        """Raise ConfigurationError if there is no such connection, JobsError if the lookup failed otherwise."""
        if self._failure is not None:
            raise self._failure

    def _not_found(self) -> Exception:
        from airflow_dbjobs.errors import ConfigurationError

        named, variable = f"{self._field} is {self._conn_id!r}", f"AIRFLOW_CONN_{self._conn_id.upper()}"
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
