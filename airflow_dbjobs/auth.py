"""Signing in: one ``requests.auth.AuthBase`` per scheme, and the choice among them.

The schemes of this release are a personal access token and basic authentication.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from requests.auth import AuthBase, HTTPBasicAuth

from airflow_dbjobs.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from requests import PreparedRequest

# Extras by which a connection made for the official provider asks for another scheme. Reading its login and password as
# basic authentication instead would send a client secret where it does not belong.
_UNSUPPORTED_EXTRAS = (
    "auth_type",
    "azure_tenant_id",
    "azure_managed_identity_client_id",
    "use_azure_managed_identity",
    "use_default_azure_credential",
    "service_principal_oauth",
    "federated_aws",
    "federated_k8s",
    "federated_token_provider",
)


class BearerAuth(AuthBase):
    """A personal access token in the Authorization header."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Sign one request."""
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BearerAuth) and self._token == other._token

    def __hash__(self) -> int:
        return hash((BearerAuth, self._token))


class BasicAuth(HTTPBasicAuth):
    """A login and a password in the Authorization header; hashable, so that equal credentials share a poller."""

    def __hash__(self) -> int:
        return hash((BasicAuth, self.username, self.password))


def choose_auth(*, login: str | None, password: str | None, extra: Mapping[str, Any]) -> AuthBase:
    """Return the scheme that a connection's fields ask for, in the official provider's order.

    A `token` in `extra` wins, then a password without a login (a personal access token), then login and password
    (basic). Raises ConfigurationError where the fields ask for a scheme that is not supported, or for none.
    """
    if token := extra.get("token"):
        return BearerAuth(_clean(str(token), "`token` in the connection's extra"))
    if password and not login:
        return BearerAuth(_clean(password, "the connection's password"))
    if named := [name for name in _UNSUPPORTED_EXTRAS if extra.get(name)]:
        raise ConfigurationError(
            f"The connection's extra asks for a way to sign in that this release does not support: {', '.join(named)}."
            " Use a personal access token: leave the login empty and put the token into the password."
        )
    if login and password:
        return BasicAuth(_clean(login, "the connection's login"), _clean(password, "the connection's password"))
    raise ConfigurationError(
        "The connection has no credentials: leave its login empty and put a personal access token into its password"
        " (or into `token` in its extra)."
    )


def _clean(secret: str, where: str) -> str:
    """Return `secret` fit for a header; the error names the field, never the value."""
    stripped = secret.strip()
    if not stripped.isascii() or not stripped.isprintable():
        raise ConfigurationError(f"{where} has a line break, or other characters that cannot stand in a header.")
    return stripped
