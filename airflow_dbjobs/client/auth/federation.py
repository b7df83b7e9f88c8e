"""Token federation: somebody else's token, of whoever runs this, exchanged for one of Databricks (RFC 8693).

Where the other token comes from: here a file, an environment variable or a callable; ``kubernetes`` and ``aws`` have
their own.
"""

from __future__ import annotations

import importlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from airflow_dbjobs.client.auth.oauth import bearer_token, token_url
from airflow_dbjobs.client.sanitize import cleaned
from airflow_dbjobs.errors import CallError, SignInRefused, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_dbjobs.client.auth.http import TokenRequests
    from airflow_dbjobs.client.auth.tokens import Token
    from airflow_dbjobs.client.session import Network


_LONGEST_PATH = 1000


class SubjectToken(Protocol):
    """Where the token to exchange comes from. Equal ones are one key, so they are hashable."""

    def read(self, requests: TokenRequests) -> str:
        """Return it as it is now. Raises CallError with ``sent`` False."""

    def __hash__(self) -> int: ...


@dataclass(frozen=True)
class FederatedToken:
    """Signs in at `workspace` as `client_id`, a service principal; "" leaves it to the account's federation policy."""

    workspace: str
    subject: SubjectToken
    client_id: str
    network: Network

    def fetch(self, requests: TokenRequests) -> Token:
        """Exchange the subject's token. Raises CallError."""
        subject = self.subject.read(requests)
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": subject,
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "scope": "all-apis",
        }
        if self.client_id:
            form["client_id"] = self.client_id
        whose = "the service principal `client_id`" if self.client_id else "the account (there is no `client_id`)"
        reply = requests.json(
            "POST",
            token_url(self.workspace),
            self.network,
            form=form,
            secrets=(subject,),
            remedy=f"Check the federation policy of {whose}: it must name the issuer, the audience and the subject of"
            f" the token from {self.subject}, which must be valid still",
        )
        return bearer_token(reply, token_url(self.workspace))


@dataclass(frozen=True, repr=False)
class TokenFile:
    """A file that holds a token, written anew by somebody else before it expires."""

    # Somebody may have pasted the token itself, here and below: a field's value is shown where it is none.
    path: str
    setting: str = "federated_token_file"

    def __repr__(self) -> str:
        return f"TokenFile({self})"

    def __str__(self) -> str:
        return _shown_path(self.path, self.setting)

    def read(self, requests: TokenRequests) -> str:  # noqa: ARG002 (others ask for theirs)
        """Return what the file holds."""
        return read_text(self.path, self.setting)


@dataclass(frozen=True, repr=False)
class TokenVariable:
    """An environment variable that holds a token."""

    name: str

    def __repr__(self) -> str:
        return f"TokenVariable({self})"

    def __str__(self) -> str:
        is_name = re.fullmatch(r"[A-Z_][A-Z0-9_]{0,99}", self.name)
        return f"the environment variable {self.name}" if is_name else "the variable that `federated_token_env` names"

    def read(self, requests: TokenRequests) -> str:  # noqa: ARG002 (others ask for theirs)
        """Return the variable's value."""
        token = os.environ.get(self.name, "").strip()
        if not token:
            raise SignInRefused(f"No token to exchange: {self} is not set where this runs")
        return token


@dataclass(frozen=True, repr=False)
class TokenCallable:
    """A callable with no arguments that returns a token, named as ``package.module.function``."""

    path: str

    def __str__(self) -> str:
        return f"{self.path}()" if self._is_name else "the function that `federated_token_provider` names"

    def __repr__(self) -> str:
        return f"TokenCallable({self})"

    @property
    def _is_name(self) -> bool:
        return bool(re.fullmatch(r"[A-Za-z_]\w*([.:][A-Za-z_]\w*)*", self.path)) and cleaned(self.path) == self.path

    def read(self, requests: TokenRequests) -> str:  # noqa: ARG002 (others ask for theirs)
        """Return what the callable returns."""
        module, _, name = self.path.replace(":", ".").rpartition(".")
        try:
            function = getattr(importlib.import_module(module), name)
        except Exception as error:  # noqa: BLE001 (it is the user's module)
            # The text of others may hold what must not be shown.
            is_told = isinstance(error, ImportError | AttributeError) and self._is_name
            why = error if is_told else type(error).__name__
            shown = f" {self.path!r}" if self._is_name else ""
            failure = SignInRefused(
                f"federated_token_provider{shown} cannot be imported: {why}. It must name a function that Python finds"
                " where this runs: package.module.function"
            )
        else:
            return self._called(function)
        raise failure

    def _called(self, function: Callable[[], object]) -> str:
        # The text of what it raises, and of its causes, may hold what must not be shown: a URL with a secret, say.
        try:
            token = function()
        except CallError as error:
            error.sent = error.unclear = False
            raise
        except OSError as error:
            # All that has to do with a network is one of these.
            raise Unreachable(f"{self} gave no token: {type(error).__name__}", sent=False) from None
        except Exception as error:  # noqa: BLE001 (it is the user's function)
            raise SignInRefused(f"{self} gave no token: it raised {type(error).__name__}") from None
        if not isinstance(token, str) or not token.strip():
            raise SignInRefused(f"{self} gave no token: it must return a text, and one that is not empty")
        return token.strip()


def read_text(path: str, setting: str, what: str = "No token to exchange") -> str:
    """Return what a file holds, without space around it. Raises SignInRefused where it cannot be read, or is empty.

    `setting` is what names the file: a field of the connection's extra, or an environment variable.
    """
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        failure = SignInRefused(f"{what}: {_shown_path(path, setting)} cannot be read where this runs: {why}")
    else:
        if text:
            return text
        failure = SignInRefused(f"{what}: {_shown_path(path, setting)} is empty")
    # Not in the except clause: the error of the system quotes the path.
    raise failure


def _shown_path(path: str, setting: str) -> str:
    """Return a path, or the name of the setting that holds it where it may be anything else."""
    is_path = path.startswith("/") and len(path) < _LONGEST_PATH and cleaned(path) == path
    return f"the file {path}" if is_path else f"the file that `{setting}` names"
