"""One workspace: where it is, who calls it, in which version, and how a call is made."""

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
    """Base of ``client.JobsClient``, which describes the parameters."""

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
                auth = _bearer_auth(token)
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
        """The id of the workspace, where its URL is one that several share; "" where it is not needed."""
        return self.transport.workspace_id

    @property
    def cloud(self) -> str:
        """Return "aws", "azure" or "gcp", as the host's name tells it; "" where it does not."""
        name = urlsplit(self.host).hostname or ""
        return next((cloud for suffix, cloud in _CLOUD_OF_DOMAIN.items() if name.endswith(suffix)), "")

    @property
    def clock(self) -> Callable[[], float]:
        """Reads monotonic seconds, of the transport's clock."""
        return self.transport.clock.monotonic

    @property
    def sleep(self) -> Callable[[float], None]:
        """What waits, for so many seconds."""
        return self.transport.pause

    def server_time(self, reading: float) -> float:
        """Return the time of the server, in epoch seconds, when `clock` read `reading`."""
        return self.transport.server_time(reading)

    def with_policy(self, retry: RetryPolicy) -> Self:
        """Return a client of the same workspace with another policy, and sessions of its own.

        It is made for a call or two: it does not read the credentials again.
        """
        return type(self)(
            api_version=self.api_version,
            transport=self.transport.with_policy(retry),
            patience=self.patience,
            max_requests_per_second=self.max_requests_per_second,
            connection=self.connection,
        )

    def renew_credentials(self) -> bool:
        """Read the credentials again, if the client knows how; return whether they were rotated meanwhile."""
        if self._reread is None:
            return False
        try:
            transport = self._reread()
        except Exception as error:  # noqa: BLE001 (a secrets backend that is down: the old ones are all there is)
            # The text of what is not ours may hold a secret.
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
        """Close all connections; ``with`` does so at its end."""
        self.transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- how a call is made ---

    def _path(self, endpoint: str) -> str:
        return f"{self.api_version}/jobs/{endpoint}"

    def _get(self, endpoint: str, query: Body | None = None) -> dict[str, Any]:
        return self.transport.call("GET", self._path(endpoint), query=query, repeatable=True)

    def _asks(self, endpoint: str, query: Body) -> Callable[[Body], dict[str, Any]]:
        """Return what asks for the pages of an answer."""
        return lambda page: self._get(endpoint, {**query, **page})

    def _elements(self, endpoint: str, name: str, query: Body) -> Iterator[dict[str, Any]]:
        return pagination.elements(self._asks(endpoint, query), name, by_offset=self.api_version != "2.2")

    def _post(self, endpoint: str, body: Body, *, repeatable: bool = True, void: bool = False) -> dict[str, Any]:
        sent = {name: value for name, value in body.items() if value is not None}
        return self.transport.call("POST", self._path(endpoint), body=sent, repeatable=repeatable, void=void)


def _bearer_auth(token: str | None) -> AuthBase:
    if not token:
        raise ConfigurationError("The client has no credentials: give it a `token` or an `auth`.")
    return BearerAuth(clean_token(token, "token"))


def workspace_url(host: str | None, *, schema: str = "", port: int | None = None) -> str:
    """Return a workspace's URL: scheme, host and port, and nothing else.

    `host` may be a name, or a URL as a browser shows it, of which name and port count; `port` wins over the latter. The
    scheme is `schema` (http or https), else https: no token is to go in clear for a slip in `host`, so that its http://
    counts for this machine only. Raises ConfigurationError.
    """
    given = (host or "").strip()
    if not given:
        raise ConfigurationError("host is empty. Put the workspace's URL there: https://adb-….azuredatabricks.net.")
    try:
        parts = urlsplit(given if "://" in given else f"//{given}")
        name, in_host = parts.hostname, parts.port
    except ValueError:
        # Python's message quotes the part that is wrong, which may be a password.
        raise ConfigurationError("host is not a URL: its name or its port cannot be read.") from None
    port = port or in_host
    if port is not None and port not in range(1, 65536):
        raise ConfigurationError(f"port is {port}; it must be from 1 to 65535, or empty: then the scheme says.")
    meant = parts.scheme if parts.scheme != "http" or is_loopback_host(name or "") else "https"
    scheme = (schema.strip() or meant or "https").lower()
    if scheme not in {"http", "https"}:
        raise ConfigurationError(f"schema is {scheme!r}; it must be https (or http, for a workspace on this machine).")
    # With a slash too few, the scheme is where the name belongs.
    if not name or name in {"http", "https"} or not host_is_unambiguous(given, name):
        raise ConfigurationError(
            "host names no host. Put the workspace's URL there: https://adb-….azuredatabricks.net."
        )
    return f"{scheme}://{f'[{name}]' if ':' in name else name}{f':{port}' if port else ''}"


def workspace_id_of(host: str | None, given: object = "") -> str:
    """Return the id of the workspace that is meant where several share a URL, as ``?o=`` in `host` or `given` has it.

    Raises ConfigurationError where it is none, or the two differ.
    """
    named = str(given or "").strip()
    if named and not (named.isascii() and named.isdecimal()):
        raise ConfigurationError(f"workspace_id is {named!r}; it must be the number after ?o= in the workspace's URL.")
    try:
        query = urlsplit((host or "").strip().replace("/#", "/")).query
    except ValueError:
        # Said by `workspace_url`.
        return named
    in_host = next((value for name, value in parse_qsl(query) if name == "o" and value.isdecimal()), "")
    if named and in_host and named != in_host:
        raise ConfigurationError(f"workspace_id is {named}, and ?o= in the host is {in_host}: remove the wrong one.")
    return named or in_host
