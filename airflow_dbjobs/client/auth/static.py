"""Authentication without a token server: a personal access token, or login and password."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from requests.auth import AuthBase, HTTPBasicAuth

from airflow_dbjobs.errors import ConfigurationError

if TYPE_CHECKING:
    from requests import PreparedRequest


_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


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

    @property
    def remedy(self) -> str:
        """What to check if the API refuses them."""
        if not _UUID.fullmatch(str(self.username)):
            return ". Check the connection's login and password"
        return (
            ". The connection's login looks like the client id of a service principal, which authenticates with"
            " OAuth: set `auth_type` to `oauth` in the connection's extra, or set `azure_tenant_id` there"
        )

    def __hash__(self) -> int:
        return hash((BasicAuth, self.username, self.password))


def clean_token(token: str, where: str) -> str:
    """Return a token for a header, also if the user pasted the whole header. Errors never quote it."""
    scheme, _, rest = clean(token, where).rpartition(" ")
    if scheme.strip().removeprefix("Authorization:").strip().lower() not in {"", "bearer"}:
        raise ConfigurationError(f"{where} has a space in it, so it is not a token: it must be the token only.")
    return rest


def clean(secret: str, where: str) -> str:
    """Return `secret` without surrounding blanks. Raises ConfigurationError if a header cannot contain it."""
    stripped = secret.strip()
    if not stripped.isascii() or not stripped.isprintable():
        raise ConfigurationError(
            f"{where} has a line break or other characters that are not allowed in an HTTP header. Enter it again."
        )
    return stripped
