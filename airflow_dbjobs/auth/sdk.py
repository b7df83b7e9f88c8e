"""Whatever else Databricks' own SDK can sign in with: profiles, its command line's login, Google, CI systems.

databricks-sdk is imported when a token is fetched (extra ``sdk`` of this package).
"""

from __future__ import annotations

import json
import queue
import re
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.auth.tokens import Token
from airflow_dbjobs.errors import CallError, SignInRefused, Unreachable

if TYPE_CHECKING:
    from airflow_dbjobs.auth.requesting import TokenRequests

# What signs a request is asked for again after this time, where it does not say when it expires (a token in a profile).
_UNSAID_LIFETIME = 300.0
# Which of its arguments are nobody's business.
_SECRET = re.compile("token|secret|password|credentials")


@dataclass(frozen=True)
class SdkToken:
    """Signs in at `workspace` as databricks-sdk's ``Config`` does, whose arguments `config` has (as a JSON text).

    `auth_type` is one that the SDK knows, or "" for the first that it finds configured.
    """

    workspace: str
    auth_type: str = ""
    config: str = field(default="{}", repr=False)

    def fetch(self, requests: TokenRequests) -> Token:
        """Let the SDK sign in, in a thread: it asks some servers with no timeout, and holds locks meanwhile."""
        answers: queue.SimpleQueue[Token | Exception] = queue.SimpleQueue()

        def ask() -> None:
            try:
                answers.put(self._token(requests.left, requests.wall()))
            except Exception as error:  # noqa: BLE001 (it is raised below)
                answers.put(error)

        threading.Thread(target=ask, name="airflow_dbjobs-sdk", daemon=True).start()
        try:
            answer = answers.get(timeout=requests.left)
        except queue.Empty:
            raise Unreachable("databricks-sdk did not sign in in time", sent=False) from None
        if isinstance(answer, Token):
            return answer
        if isinstance(answer, CallError):
            raise answer
        # Its own text is not shown: a server may have repeated there what it was sent.
        raise self._failure(answer) from None

    def _token(self, seconds: float, now: float) -> Token:
        try:
            from databricks.sdk.core import Config
        except ImportError as error:
            raise SignInRefused(
                "databricks-sdk is not installed here, which this `auth_type` needs:"
                " pip install 'airflow-provider-dbjobs[sdk]'"
            ) from error
        options: dict[str, Any] = {"http_timeout_seconds": seconds, "retry_timeout_seconds": seconds}
        given = {"host": self.workspace, "auth_type": self.auth_type or None, **json.loads(self.config)}
        config = Config(**options | given)
        headers = config.authenticate()
        lifetime = _UNSAID_LIFETIME
        # Not every way to sign in has a token that expires.
        with suppress(ValueError):
            if expiry := config.oauth_token().expiry:
                lifetime = expiry.timestamp() - now
        return Token(headers, lifetime)

    def _failure(self, error: Exception) -> CallError:
        said = " ".join((str(error) or type(error).__name__).split())
        for name, value in json.loads(self.config).items():
            if isinstance(value, str) and _SECRET.search(name):
                said = said.replace(value or "\0", "***")
        # Its own retries are over, or there were none: what has to do with a network is an OSError, or says when.
        if isinstance(error, OSError | TimeoutError):
            return Unreachable(f"databricks-sdk cannot sign in: {said}", sent=False)
        return SignInRefused(
            f"databricks-sdk cannot sign in: {said.rstrip('.')}. Check `auth_type` and `sdk_config` in the connection's"
            " extra, and the DATABRICKS_ variables and the profile where this runs"
        )
