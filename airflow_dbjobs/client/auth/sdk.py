"""Authentication by databricks-sdk: profiles, the login of the Databricks CLI, Google, CI systems.

databricks-sdk is imported when a token is fetched (extra ``sdk`` of this package).
"""

from __future__ import annotations

import base64
import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.client.auth.tokens import Token
from airflow_dbjobs.client.sanitize import one_line, scrubbed
from airflow_dbjobs.client.session import Network
from airflow_dbjobs.errors import CallError, SignInRefused, Unreachable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_dbjobs.client.auth.token_requests import TokenRequests

# The lifetime of credentials that have none (a token in a profile).
_DEFAULT_LIFETIME = 300.0
# Names of the SDK's arguments and of environment variables that are secret, and of user names that Basic authentication
# sends with a secret.
_SECRET = re.compile("(token|secret|password|credentials|metadata_service_url)$", re.IGNORECASE)
_NAME = re.compile("(client_id|username)$", re.IGNORECASE)
_VARIABLES = ("ACTIONS_", "ARM_", "AZURE_", "DATABRICKS_", "GOOGLE_", "SYSTEM_")


@dataclass(frozen=True)
class SdkToken:
    """Authenticates at `workspace` as databricks-sdk's ``Config`` does, with the arguments in `config` (JSON).

    `auth_type` is one of the SDK's, or "" for the first that it finds configured.
    """

    workspace: str
    auth_type: str = ""
    config: str = field(default="{}", repr=False)

    def fetch(self, requests: TokenRequests) -> Token:
        """Let the SDK authenticate. Raises CallError."""
        known: dict[str, Any] = {name: text for name, text in os.environ.items() if name.startswith(_VARIABLES)}
        try:
            # The SDK takes proxies and certificates only from the environment.
            Network().check(self.workspace)
            return self._token(requests.left, requests.clock.time(), known)
        except CallError:
            raise
        except Exception as error:  # noqa: BLE001 (of the SDK, or of what it calls)
            # The error may quote a server that echoed a secret.
            raise _failure(error, _secrets({**known, **json.loads(self.config)})) from None

    def _token(self, seconds: float, now: float, known: dict[str, Any]) -> Token:
        """Let the SDK authenticate, and add its configuration to `known`: a profile's fields, say."""
        try:
            from databricks.sdk.core import Config
        except ImportError as error:
            raise SignInRefused(
                "databricks-sdk is not installed; this `auth_type` needs it: pip install 'airflow-dbjobs[sdk]'"
            ) from error
        options: dict[str, Any] = {"http_timeout_seconds": seconds, "retry_timeout_seconds": seconds}
        given = {"host": self.workspace, "auth_type": self.auth_type or None, **json.loads(self.config)}
        config = Config(**options | given)
        known |= {f"sdk_{name}": value for name, value in config.as_dict().items()}
        headers = config.authenticate()
        lifetime = _DEFAULT_LIFETIME
        # Not every scheme has a token that expires.
        with suppress(ValueError):
            if expiry := config.oauth_token().expiry:
                # Local time if it has no zone.
                lifetime = expiry.timestamp() - now
        return Token(headers, lifetime)


def _secrets(known: Mapping[str, Any]) -> list[str]:
    """Return which of these values are secret, alone or with a name before them in base64."""
    texts = {name: value for name, value in known.items() if isinstance(value, str)}
    secrets = {value for name, value in texts.items() if _SECRET.search(name)}
    names = {value for name, value in texts.items() if _NAME.search(name)}
    pairs = {base64.b64encode(f"{name}:{secret}".encode()).decode() for name in names for secret in secrets}
    # The longest first, as one may be the beginning of another.
    return sorted(pairs | secrets, key=len, reverse=True)


def _failure(error: Exception, secrets: list[str]) -> CallError:
    message = scrubbed(one_line(str(error) or type(error).__name__), secrets)[:500].rstrip(".")
    # A network error is an OSError, after the SDK's own retries.
    if isinstance(error, OSError | TimeoutError):
        return Unreachable(f"databricks-sdk cannot authenticate: {message}")
    return SignInRefused(
        f"databricks-sdk cannot authenticate: {message}. Check `auth_type` and `sdk_config` in the connection's extra,"
        " and the DATABRICKS_ variables and the profile on this worker or triggerer"
    )
