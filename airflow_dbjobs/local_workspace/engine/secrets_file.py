"""The file that stands for secret scopes, and how its values are kept out of logs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

#: The file in the workspace's root: a table for each scope, with strings by their keys.
SECRETS_FILE: Final = "secrets.toml"
_HIDDEN: Final = "[REDACTED]"


def read_secrets(root: Path) -> dict[str, dict[str, str]]:
    """Return the secrets of a workspace by scope and key; none if there is no file.

    :raises ValueError: The file is not TOML, or has something else than tables of strings.
    """
    try:
        text = (root / SECRETS_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError:
        raise ValueError(f"{SECRETS_FILE} is not text in UTF-8") from None
    # Imported here, as most workspaces have no secrets, and every task should start fast.
    import tomllib

    try:
        scopes = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{SECRETS_FILE} is not valid TOML: {error}") from None
    for scope, secrets in scopes.items():
        if not isinstance(secrets, dict) or not all(isinstance(value, str) for value in secrets.values()):
            raise ValueError(f"{SECRETS_FILE} must have a table of strings for each scope; {scope!r} is not one")
    return scopes


class Redactor:
    """Replaces secrets in a stream of output. A secret may come in several pieces."""

    def __init__(self, secrets: Iterable[str]) -> None:
        found = {secret.encode() for secret in secrets if secret}
        # Where one secret begins with another, the longer one is looked for first.
        self._secrets = sorted(found, key=len, reverse=True)
        self._pattern = re.compile(b"|".join(map(re.escape, self._secrets)))
        self._held = b""

    def add(self, output: bytes) -> bytes:
        """Return the next output that can be shown: what may be the beginning of a secret waits for the rest."""
        if not self._secrets:
            return output
        output = self._held + output
        end = len(output) - self._begun(output)
        for found in self._pattern.finditer(output):
            if found.start() < end < found.end():
                end = found.start()
        self._held = output[end:]
        return self._hide(output[:end])

    def close(self) -> bytes:
        """Return what still waited."""
        return self._hide(self._held)

    def text(self, text: str) -> str:
        """Return a complete text without secrets."""
        return self._hide(text.encode(errors="surrogatepass")).decode(errors="surrogatepass") if self._secrets else text

    def _hide(self, output: bytes) -> bytes:
        return self._pattern.sub(_HIDDEN.encode(), output) if self._secrets else output

    def _begun(self, output: bytes) -> int:
        """Return the length of the longest end of `output` with which a secret begins."""
        longest = max(map(len, self._secrets)) - 1
        return next(
            (
                size
                for size in range(min(longest, len(output)), 0, -1)
                if any(len(secret) > size and secret.startswith(output[-size:]) for secret in self._secrets)
            ),
            0,
        )


def redactor(root: Path) -> Redactor:
    """Return what hides the secrets of a workspace; a file that cannot be read has none that could be shown."""
    try:
        scopes = read_secrets(root)
    except (OSError, ValueError):
        scopes = {}
    return Redactor(secret for secrets in scopes.values() for secret in secrets.values())
