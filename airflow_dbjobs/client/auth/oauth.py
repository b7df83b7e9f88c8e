"""Databricks OAuth client credentials: a service principal's id and secret, and the token that they are good for."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from requests.auth import HTTPBasicAuth

from airflow_dbjobs.client.auth.http import unreadable
from airflow_dbjobs.client.auth.tokens import Token

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_dbjobs.client.auth.http import TokenRequests
    from airflow_dbjobs.client.session import Network

# What a token is taken to be good for that does not say: those of the platform last an hour.
_UNSAID_LIFETIME = 300.0


@dataclass(frozen=True)
class ClientCredentials:
    """A service principal of Databricks: `workspace` is the URL that it signs in at."""

    workspace: str
    client_id: str
    client_secret: str = field(repr=False)
    network: Network

    def fetch(self, requests: TokenRequests) -> Token:
        """Ask the workspace for a token. Raises CallError."""
        reply = requests.json(
            "POST",
            token_url(self.workspace),
            self.network,
            form={"grant_type": "client_credentials", "scope": "all-apis"},
            auth=HTTPBasicAuth(self.client_id, self.client_secret),
            secrets=(self.client_secret,),
            remedy="Check the connection's login (the service principal's client id) and password (an OAuth secret of"
            " it that is not expired), and that its host is a workspace that the service principal is assigned to",
        )
        return bearer_token(reply, token_url(self.workspace))


def token_url(workspace: str) -> str:
    """Return the URL of a workspace's token server."""
    return f"{workspace.rstrip('/')}/oidc/v1/token"


def bearer_token(reply: Mapping[str, Any], url: str) -> Token:
    """Return the token of a token server's reply. Raises UnreadableReply."""
    token = reply.get("access_token")
    kind = str(reply.get("token_type") or "Bearer")
    is_sendable = isinstance(token, str) and token.isascii() and token.isprintable() and token
    if not is_sendable or kind.lower() != "bearer":
        raise unreadable(f"POST {url}", f"no bearer token: its fields are {', '.join(sorted(reply)) or 'none'}")
    return Token({"Authorization": f"Bearer {token}"}, _seconds(reply.get("expires_in")))


def _seconds(value: object) -> float:
    try:
        seconds = float(str(value))
    except ValueError:
        seconds = math.nan
    return seconds if math.isfinite(seconds) else _UNSAID_LIFETIME
