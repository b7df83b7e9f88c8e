"""Microsoft Entra, by azure-identity: a service principal, a managed identity, or its default credential.

azure-identity is imported when a token is fetched (extra ``azure`` of this package).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from airflow_dbjobs.client.auth.tokens import Token
from airflow_dbjobs.client.sanitize import one_line, scrubbed
from airflow_dbjobs.client.session import host_is_unambiguous
from airflow_dbjobs.errors import (
    CallError,
    ConfigurationError,
    ServerError,
    SignInRefused,
    TooManyRequests,
    Unreachable,
    UntrustedCertificate,
)

if TYPE_CHECKING:
    from airflow_dbjobs.client.auth.token_requests import TokenRequests
    from airflow_dbjobs.client.session import Network

Who = Literal["service principal", "managed identity", "default credential"]

# The application id of Azure Databricks, the same in every cloud.
_DATABRICKS_SCOPE = "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d/.default"
# A scope is the resource, which ends with a slash, then a slash and ".default".
_MANAGEMENT_SCOPE = "https://{}//.default"
_MANAGEMENT_HOST = "management.core.windows.net"
_MANAGEMENT_HOSTS = {
    "login.microsoftonline.us": "management.core.usgovcloudapi.net",
    "login.chinacloudapi.cn": "management.core.chinacloudapi.cn",
    "login.partner.microsoftonline.cn": "management.core.chinacloudapi.cn",
}
_PUBLIC_AUTHORITY = "login.microsoftonline.com"

_CONNECT_SECONDS, _IDENTITY_SECONDS = 10.0, 2.0
# A path of the service for the machine's identities; during an update it answers 404 or 410 (Microsoft, "How to use
# managed identities on an Azure VM").
_IDENTITY_PATH = "/metadata/identity/"


@dataclass(frozen=True)
class EntraToken:
    """Authenticates as `who`; a service principal has a tenant, an id and a secret, a managed identity maybe an id.

    With `resource_id` (the workspace's id in Azure), an identity that is not a user of the workspace authenticates by
    its role in Azure. `authority` is the login URL of another cloud.
    """

    who: Who
    network: Network
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    tenant_id: str = ""
    authority: str = ""
    resource_id: str = ""

    def fetch(self, requests: TokenRequests) -> Token:
        """Request a token, and with `resource_id` another one for the management API."""
        traffic = _Traffic(on_azure=self.who == "managed identity")
        if self.who != "managed identity":
            self.network.check(self._authority_url or f"https://{_PUBLIC_AUTHORITY}")
        try:
            made = self._credential(requests.left, traffic)
        except ValueError as error:
            # Such as an invalid tenant id.
            raise self._failure(error, traffic) from None
        with made as credential:
            token = self._get_token(credential, _DATABRICKS_SCOPE, traffic)
            headers, expires_on = {"Authorization": f"Bearer {token.token}"}, float(token.expires_on)
            if self.resource_id:
                management = self._get_token(credential, self._management_scope, traffic)
                headers["X-Databricks-Azure-SP-Management-Token"] = management.token
                headers["X-Databricks-Azure-Workspace-Resource-Id"] = self.resource_id
                expires_on = min(expires_on, float(management.expires_on))
        return Token(headers, expires_on - requests.clock.time())

    @property
    def _management_scope(self) -> str:
        host = urlsplit(self._authority_url).hostname or ""
        return _MANAGEMENT_SCOPE.format(_MANAGEMENT_HOSTS.get(host, _MANAGEMENT_HOST))

    @property
    def _authority_url(self) -> str:
        return self.authority if "://" in self.authority or not self.authority else f"https://{self.authority}"

    def _credential(self, seconds: float, traffic: _Traffic) -> Any:
        try:
            from azure import identity
        except ImportError as error:
            raise SignInRefused(
                "azure-identity is not installed; Microsoft Entra needs it: pip install 'airflow-dbjobs[azure]'"
            ) from error
        # One attempt only: the API call that needs the token is retried.
        options: dict[str, Any] = {
            "retry_total": 0,
            "connection_timeout": min(_CONNECT_SECONDS, seconds),
            "read_timeout": seconds,
            "raw_request_hook": traffic.sent,
            "raw_response_hook": traffic.answered,
        }
        if self.who == "managed identity":
            # The service is on the machine: it responds at once if it exists, and needs no proxy.
            options |= {"connection_timeout": min(_IDENTITY_SECONDS, seconds), "use_env_settings": False}
            return identity.ManagedIdentityCredential(client_id=self.client_id or None, **options)
        options |= {"connection_verify": self.network.verify, "connection_cert": self.network.cert}
        if self.network.proxies:
            options["proxies"] = dict(self.network.proxies)
        if self.authority:
            options["authority"] = self._authority_url
            # azure-identity lets Microsoft confirm an authority, which fails for private clouds.
            known = urlsplit(self._authority_url).hostname in {_PUBLIC_AUTHORITY, *_MANAGEMENT_HOSTS}
            options["disable_instance_discovery"] = not known
        if self.who == "default credential":
            return identity.DefaultAzureCredential(**options)
        return identity.ClientSecretCredential(self.tenant_id, self.client_id, self.client_secret, **options)

    def _get_token(self, credential: Any, scope: str, traffic: _Traffic) -> Any:
        from azure.core.exceptions import AzureError

        try:
            return credential.get_token(scope)
        except (AzureError, ValueError) as error:
            # The error quotes the server, possibly with secrets.
            raise self._failure(error, traffic) from None

    @property
    def _call(self) -> str:
        return f"Entra (token for the {self.who})"

    def _failure(self, error: Exception, traffic: _Traffic) -> CallError:
        # The library's errors do not distinguish an outage from a refusal; the HTTP traffic does.
        message = scrubbed(one_line(str(error) or type(error).__name__), [self.client_secret])[:500].rstrip(".")
        # The machine may have no such service: name the remedy while the request is retried.
        hint = f". {self._remedy}" if self.who == "managed identity" else ""
        if traffic.was_limited:
            return TooManyRequests(self._call, traffic.status, "", message)
        if traffic.has_failed:
            return ServerError(self._call, traffic.status, "", message + hint)
        if "CERTIFICATE_VERIFY_FAILED" in message:
            return UntrustedCertificate(f"{self._call}: {message}. Check `verify` in the connection's extra")
        if traffic.is_unanswered:
            return Unreachable(f"{self._call}: no response: {message}{hint}")
        return SignInRefused(f"{self._call} refused: {message}. {self._remedy}", status=traffic.status or 401)

    @property
    def _remedy(self) -> str:
        if self.who == "service principal":
            return (
                "Check the connection's login (the application's client id), its password (a client secret of it that"
                " has not expired) and `azure_tenant_id` in its extra"
            )
        if self.who == "managed identity":
            return (
                "Check that the worker or triggerer runs on Azure with a managed identity, and, if it has several, that"
                " `azure_managed_identity_client_id` in the connection's extra names the right one"
            )
        return (
            "Check what azure-identity's DefaultAzureCredential finds on this worker or triggerer (AZURE_CLIENT_ID ...)"
        )


class _Traffic:
    """The result of the last request that azure-identity sent.

    `on_azure` says that the machine has the service that issues tokens to its identities: elsewhere its address is
    silent, or belongs to another service.
    """

    def __init__(self, *, on_azure: bool) -> None:
        self.status = 0
        self._url = ""
        self._on_azure = on_azure

    def sent(self, request: Any) -> None:
        """Note a request that is about to be sent."""
        self._url, self.status = str(request.http_request.url), 0

    def answered(self, response: Any) -> None:
        """Note its answer."""
        self.status = int(response.http_response.status_code)

    @property
    def was_limited(self) -> bool:
        """True if a rate limit refused it."""
        return self.status == HTTPStatus.TOO_MANY_REQUESTS

    @property
    def has_failed(self) -> bool:
        """True if the server failed, or is being updated."""
        updating = {HTTPStatus.GONE, HTTPStatus.NOT_FOUND} if self._on_azure else {HTTPStatus.GONE}
        return self.status >= HTTPStatus.INTERNAL_SERVER_ERROR or (self._is_of_the_machine and self.status in updating)

    @property
    def is_unanswered(self) -> bool:
        """True if a server that should exist did not respond."""
        return bool(self._url) and not self.status and (self._on_azure or not self._is_of_the_machine)

    @property
    def _is_of_the_machine(self) -> bool:
        return _IDENTITY_PATH in self._url


def check_authority(authority: str) -> str:
    """Return the URL or name of an authority. Raises ConfigurationError if it is not an https URL."""
    try:
        parts = urlsplit(authority if "://" in authority else f"https://{authority}")
        is_right = parts.scheme == "https" and host_is_unambiguous(authority, parts.hostname)
    except ValueError:
        is_right = False
    if authority and not is_right:
        raise ConfigurationError("extra azure_ad_endpoint must be an https URL.")
    return authority
