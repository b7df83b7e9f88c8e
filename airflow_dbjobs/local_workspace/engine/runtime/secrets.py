"""`dbutils.secrets`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from airflow_dbjobs.local_workspace.engine.secrets_file import SECRETS_FILE, read_secrets

from .utility import Utility

if TYPE_CHECKING:
    from pathlib import Path


class SecretScope(NamedTuple):
    """An item of `dbutils.secrets.listScopes`."""

    name: str


class SecretMetadata(NamedTuple):
    """An item of `dbutils.secrets.list`."""

    key: str


class Secrets(Utility):
    """`dbutils.secrets`, from a file in the workspace's root."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def get(self, scope: str, key: str) -> str:
        """Return a secret; raise LookupError if there is none."""
        secrets = self._scope(scope)
        if key not in secrets:
            file = self._root / SECRETS_FILE
            raise LookupError(
                f"Secret does not exist with scope: {scope} and key: {key}; add it to [{scope}] in {file}"
            )
        return secrets[key]

    def getBytes(self, scope: str, key: str) -> bytes:
        """Return a secret in UTF-8."""
        return self.get(scope, key).encode()

    def listScopes(self) -> list[SecretScope]:
        """Return all scopes."""
        return [SecretScope(name) for name in read_secrets(self._root)]

    def list(self, scope: str) -> list[SecretMetadata]:
        """Return the keys of a scope."""
        return [SecretMetadata(key) for key in self._scope(scope)]

    def _scope(self, scope: str) -> dict[str, str]:
        scopes = read_secrets(self._root)
        if scope not in scopes:
            raise LookupError(f"Secret scope {scope!r} does not exist; add [{scope}] to {self._root / SECRETS_FILE}")
        return scopes[scope]
