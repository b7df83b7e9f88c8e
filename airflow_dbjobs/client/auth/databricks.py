"""Tokens issued by Databricks: for a service principal's secret, or in exchange for another token (federation).

The other token comes from a file, an environment variable, a function, ``kubernetes`` or ``aws``.
Sources: Databricks, "Authorize service principal access with OAuth" and "OAuth token federation"; RFC 6749 and 8693.
"""

from __future__ import annotations

import importlib
import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from requests.auth import HTTPBasicAuth

from airflow_dbjobs.client.auth.token_requests import unreadable
from airflow_dbjobs.client.auth.tokens import Token
from airflow_dbjobs.client.sanitize import cleaned
from airflow_dbjobs.client.session import is_safe_for_secrets
from airflow_dbjobs.errors import CallError, SignInRefused, Unreachable, UnreadableReply

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_dbjobs.client.auth.token_requests import TokenRequests
    from airflow_dbjobs.client.session import Network


# The lifetime of a token if the reply has none; tokens of Databricks last an hour.
_DEFAULT_LIFETIME = 300.0
_LONGEST_PATH = 1000


@dataclass(frozen=True)
class Issuer:
    """Databricks as the issuer of tokens for `workspace`, a URL that several workspaces may share (`is_shared`)."""

    workspace: str
    network: Network
    is_shared: bool = False

    def token(self, requests: TokenRequests, grant: Mapping[str, str], **options: Any) -> Token:
        """Request a token for a grant of OAuth. Raises CallError."""
        url = self._token_url(requests)
        reply = requests.json("POST", url, self.network, form={**grant, "scope": "all-apis"}, **options)
        return _bearer_token(reply, url)

    def _token_url(self, requests: TokenRequests) -> str:
        """Return the token endpoint. A shared URL names its own in its metadata, as databricks-sdk reads it."""
        workspace = self.workspace.rstrip("/")
        own = f"{workspace}/oidc/v1/token"
        if not self.is_shared:
            return own
        try:
            config = requests.json("GET", f"{workspace}/.well-known/databricks-config", self.network, remedy="")
        except (SignInRefused, UnreadableReply):
            # The URL of a single workspace may have ?o= too, and may have no metadata.
            return own
        issuer = str(config.get("oidc_endpoint") or "").replace("{account_id}", str(config.get("account_id") or ""))
        return f"{issuer.rstrip('/')}/v1/token" if is_safe_for_secrets(issuer) else own


@dataclass(frozen=True)
class ClientCredentials:
    """The id and an OAuth secret of a Databricks service principal."""

    issuer: Issuer
    client_id: str
    client_secret: str = field(repr=False)

    def fetch(self, requests: TokenRequests) -> Token:
        """Request a token. Raises CallError."""
        return self.issuer.token(
            requests,
            {"grant_type": "client_credentials"},
            auth=HTTPBasicAuth(self.client_id, self.client_secret),
            secrets=(self.client_secret,),
            remedy="Check the connection's login (the service principal's client id) and password (an OAuth secret of"
            " it that is not expired), and that its host is a workspace that the service principal is assigned to",
        )


class SubjectToken(Protocol):
    """The source of the token to exchange. Equal ones share a token, so they are hashable."""

    def read(self, requests: TokenRequests) -> str:
        """Return its current value. Raises what ``TokenSource.fetch`` may raise."""

    def __hash__(self) -> int: ...


@dataclass(frozen=True)
class FederatedToken:
    """Exchanges the token of a `subject`, as the service principal `client_id` ("": the account's policy decides)."""

    issuer: Issuer
    subject: SubjectToken
    client_id: str

    def fetch(self, requests: TokenRequests) -> Token:
        """Exchange the subject's token. Raises CallError."""
        subject = self.subject.read(requests)
        grant = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": subject,
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        }
        if self.client_id:
            grant["client_id"] = self.client_id
        whose = "the service principal `client_id`" if self.client_id else "the account (there is no `client_id`)"
        return self.issuer.token(
            requests,
            grant,
            secrets=(subject,),
            remedy=f"Check the federation policy of {whose}: it must name the issuer, the audience and the subject of"
            f" the token from {self.subject}, and the token must not have expired",
        )


@dataclass(frozen=True, repr=False)
class TokenFile:
    """A file that holds a token, which another process rewrites before the token expires."""

    # Here and below, a user may have pasted the token itself: errors quote only what looks like a path or a name.
    path: str
    setting: str = "federated_token_file"

    def __repr__(self) -> str:
        return _shown_path(self.path, self.setting)

    def read(self, requests: TokenRequests) -> str:  # noqa: ARG002 (other subjects use it)
        """Return what the file holds."""
        return read_text(self.path, self.setting)


@dataclass(frozen=True, repr=False)
class TokenVariable:
    """An environment variable that holds a token."""

    name: str

    def __repr__(self) -> str:
        is_name = re.fullmatch(r"[A-Z_][A-Z0-9_]{0,99}", self.name)
        return f"the environment variable {self.name}" if is_name else "the variable that `federated_token_env` names"

    def read(self, requests: TokenRequests) -> str:  # noqa: ARG002 (other subjects use it)
        """Return the variable's value."""
        token = os.environ.get(self.name, "").strip()
        if not token:
            raise SignInRefused(f"No token to exchange: {self} is not set on this worker or triggerer")
        return token


@dataclass(frozen=True, repr=False)
class TokenCallable:
    """A callable with no arguments that returns a token, named as ``package.module.function``."""

    path: str

    def __repr__(self) -> str:
        return f"{self.path}()" if self._is_name else "the function that `federated_token_provider` names"

    @property
    def _is_name(self) -> bool:
        return bool(re.fullmatch(r"[A-Za-z_]\w*([.:][A-Za-z_]\w*)*", self.path)) and cleaned(self.path) == self.path

    def read(self, requests: TokenRequests) -> str:  # noqa: ARG002 (other subjects use it)
        """Return what the callable returns."""
        module, _, name = self.path.replace(":", ".").rpartition(".")
        try:
            function = getattr(importlib.import_module(module), name)
        except Exception as error:  # noqa: BLE001 (it is the user's module)
            # The text of any other error may hold a secret.
            is_shown = isinstance(error, ImportError | AttributeError) and self._is_name
            why = error if is_shown else type(error).__name__
            name = f" {self.path!r}" if self._is_name else ""
            failure = SignInRefused(
                f"federated_token_provider{name} cannot be imported: {why}. It must name a function that this worker or"
                " triggerer can import: package.module.function"
            )
        else:
            return self._called(function)
        raise failure

    def _called(self, function: Callable[[], object]) -> str:
        # The text of its error, and of the causes, may hold a secret: in a URL, say.
        try:
            token = function()
        except CallError:
            raise
        except OSError as error:
            # Network errors are OSErrors.
            raise Unreachable(f"{self} gave no token: {type(error).__name__}") from None
        except Exception as error:  # noqa: BLE001 (it is the user's function)
            raise SignInRefused(f"{self} gave no token: it raised {type(error).__name__}") from None
        if not isinstance(token, str) or not token.strip():
            raise SignInRefused(f"{self} gave no token: it must return a string that is not empty")
        return token.strip()


def read_text(path: str, setting: str, what: str = "No token to exchange") -> str:
    """Return what a file holds, stripped. Raises SignInRefused if it cannot be read, or is empty.

    `setting` names the file: a field of the connection's extra, or an environment variable.
    """
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        failure = SignInRefused(f"{what}: cannot read {_shown_path(path, setting)}: {why}")
    else:
        if text:
            return text
        failure = SignInRefused(f"{what}: {_shown_path(path, setting)} is empty")
    # Not in the except clause: the system's error quotes the path.
    raise failure


def _shown_path(path: str, setting: str) -> str:
    """Return a path; if it may be anything else, the name of the setting that holds it."""
    is_path = path.startswith("/") and len(path) < _LONGEST_PATH and cleaned(path) == path
    return f"the file {path}" if is_path else f"the file that `{setting}` names"


def _bearer_token(reply: Mapping[str, Any], url: str) -> Token:
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
    return seconds if math.isfinite(seconds) else _DEFAULT_LIFETIME
