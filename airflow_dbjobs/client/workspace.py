"""One workspace: its URL, the credentials and API version for it, and how to call it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from airflow_dbjobs.client import pagination
from airflow_dbjobs.client.auth.static import BearerAuth, clean_token
from airflow_dbjobs.client.retry import MAX_REQUESTS_PER_SECOND, Patience
from airflow_dbjobs.client.session import host_is_unambiguous, is_loopback_host
from airflow_dbjobs.client.transport import Transport
from airflow_dbjobs.errors import ConfigurationError, JobsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Self

    from requests.auth import AuthBase

    from airflow_dbjobs.client.retry import RetryPolicy

    Body = Mapping[str, Any]

log = logging.getLogger(__name__)

API_VERSIONS = ("2.0", "2.1", "2.2")
DEFAULT_API_VERSION = "2.2"

# Government and China regions have domains of their own.
_CLOUD_OF_DOMAIN = {
    ".cloud.databricks.com": "aws",
    ".cloud.databricks.us": "aws",
    ".cloud.databricks.mil": "aws",
    ".azuredatabricks.net": "azure",
    ".databricks.azure.us": "azure",
    ".databricks.azure.cn": "azure",
    ".gcp.databricks.com": "gcp",
}


class Workspace:
    """Base of ``client.JobsClient``, where the parameters are documented."""

    def __init__(
        self,
        host: str = "",
        *,
        workspace_id: str = "",
        token: str | None = None,
        auth: AuthBase | None = None,
        api_version: str = DEFAULT_API_VERSION,
        retry: RetryPolicy | None = None,
        patience: Patience | None = None,
        max_requests_per_second: float = MAX_REQUESTS_PER_SECOND,
        connection: str = "",
        transport: Transport | None = None,
        reread: Callable[[], Transport] | None = None,
    ) -> None:
        if api_version not in API_VERSIONS:
            raise ConfigurationError(f"api_version is {api_version!r}; it must be one of {', '.join(API_VERSIONS)}.")
        if transport is None:
            if auth is None:
                if not token:
                    raise ConfigurationError("The client has no credentials: pass `token` or `auth`.")
                auth = BearerAuth(clean_token(token, "token"))
            known = workspace_id_of(host, workspace_id)
            transport = Transport(workspace_url(host), auth, workspace_id=known, policy=retry)
        self.transport = transport
        self.api_version = api_version
        self.patience = patience or Patience()
        self.max_requests_per_second = max_requests_per_second
        self.connection = connection
        self._reread = reread

    @property
    def host(self) -> str:
        """The workspace's URL: scheme, host and port."""
        return self.transport.base_url

    @property
    def workspace_id(self) -> str:
        """The id of the workspace if several share its URL, else ""."""
        return self.transport.workspace_id

    @property
    def cloud(self) -> str:
        """The cloud according to the host's name: "aws", "azure" or "gcp"; "" if unknown."""
        name = urlsplit(self.host).hostname or ""
        return next((cloud for suffix, cloud in _CLOUD_OF_DOMAIN.items() if name.endswith(suffix)), "")

    @property
    def clock(self) -> Callable[[], float]:
        """The function that returns the monotonic seconds of the transport's clock."""
        return self.transport.clock.monotonic

    @property
    def sleep(self) -> Callable[[float], None]:
        """The function that sleeps for a number of seconds."""
        return self.transport.pause

    def server_time(self, reading: float) -> float:
        """Return the server's time, in epoch seconds, at the moment when `clock` returned `reading`."""
        return self.transport.server_time(reading)

    def with_policy(self, retry: RetryPolicy, patience: Patience | None = None) -> Self:
        """Return a client of the same workspace with another policy, possibly another patience, and its own sessions.

        It is meant for a few calls: it does not reload credentials.
        """
        return type(self)(
            api_version=self.api_version,
            transport=self.transport.with_policy(retry),
            patience=patience or self.patience,
            max_requests_per_second=self.max_requests_per_second,
            connection=self.connection,
        )

    def renew_credentials(self) -> bool:
        """Reload the credentials, if the client has a `reread`; return True if they changed."""
        if self._reread is None:
            return False
        try:
            transport = self._reread()
        except Exception as error:  # noqa: BLE001 (of any secrets backend; the old credentials stay in use)
            # The text of a foreign error may contain a secret.
            why = error if isinstance(error, JobsError) else type(error).__name__
            log.warning("Reading the connection again failed; using the old credentials: %s", why)
            return False
        if transport.identity == self.transport.identity:
            return False
        log.warning("The connection has changed; using its new settings.")
        transport.interrupt = self.transport.interrupt
        self.transport.close()
        self.transport = transport
        return True

    def close(self) -> None:
        """Close all HTTP connections; ``with`` does so at its end."""
        self.transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- calls ---

    def _path(self, endpoint: str) -> str:
        return f"{self.api_version}/jobs/{endpoint}"

    def _get(self, endpoint: str, query: Body | None = None) -> dict[str, Any]:
        return self.transport.call("GET", self._path(endpoint), query=query, repeatable=True)

    def _page_fetcher(self, endpoint: str, query: Body) -> Callable[[Body], dict[str, Any]]:
        """Return a function that fetches a page of a reply; its argument is added to the query."""
        return lambda page: self._get(endpoint, {**query, **page})

    def _elements(self, endpoint: str, name: str, query: Body) -> Iterator[dict[str, Any]]:
        return pagination.elements(self._page_fetcher(endpoint, query), name, by_offset=self.api_version != "2.2")

    def _post(self, endpoint: str, body: Body, *, repeatable: bool = True, void: bool = False) -> dict[str, Any]:
        sent = {name: value for name, value in body.items() if value is not None}
        return self.transport.call("POST", self._path(endpoint), body=sent, repeatable=repeatable, void=void)


def workspace_url(host: str | None, *, schema: str = "", port: int | None = None) -> str:
    """Return a workspace's URL: scheme, host and port, and nothing else.

    `host` may be a host name, or a URL copied from a browser, of which host name and port are used; `port` overrides
    the latter. The scheme is `schema` (http or https), by default https. An ``http://`` in `host` is respected only for
    this machine, so that a slip does not send a token unencrypted. Raises ConfigurationError.
    """
    given = (host or "").strip()
    if not given:
        raise ConfigurationError("host is empty. Set it to the workspace's URL: https://adb-….azuredatabricks.net.")
    try:
        parts = urlsplit(given if "://" in given else f"//{given}")
        name, in_host = parts.hostname, parts.port
    except ValueError:
        # Python's error quotes the invalid part, which may be a password.
        raise ConfigurationError(
            "host is not a valid URL: its host name or its port is invalid. Set it to the workspace's URL."
        ) from None
    port = port or in_host
    if port is not None and port not in range(1, 65536):
        raise ConfigurationError(f"port is {port}; it must be from 1 to 65535, or empty for the default port.")
    default = parts.scheme if parts.scheme != "http" or is_loopback_host(name or "") else "https"
    scheme = (schema.strip() or default or "https").lower()
    if scheme not in {"http", "https"}:
        raise ConfigurationError(f"schema is {scheme!r}; it must be https (or http, for a workspace on this machine).")
    # In "https:/name" the scheme is in the place of the name.
    if not name or name in {"http", "https"} or not host_is_unambiguous(given, name):
        raise ConfigurationError(
            "host contains no valid host name. Set it to the workspace's URL: https://adb-….azuredatabricks.net."
        )
    return f"{scheme}://{f'[{name}]' if ':' in name else name}{f':{port}' if port else ''}"


def workspace_id_of(host: str | None, given: object = "") -> str:
    """Return the id of a workspace that shares its URL with others: `given`, or the ``?o=`` in `host`; "" if neither.

    Raises ConfigurationError if it is not a number, or if the two differ.
    """
    named = str(given or "").strip()
    if named and not (named.isascii() and named.isdecimal()):
        raise ConfigurationError(f"workspace_id is {named!r}; it must be the number after ?o= in the workspace's URL.")
    try:
        query = urlsplit((host or "").strip().replace("/#", "/")).query
    except ValueError:
        # `workspace_url` raises the error.
        return named
    in_host = next((value for name, value in parse_qsl(query) if name == "o" and value.isdecimal()), "")
    if named and in_host and named != in_host:
        raise ConfigurationError(f"workspace_id is {named}, but ?o= in the host is {in_host}: remove the wrong one.")
    return named or in_host
