"""The folder where a workspace keeps its own records: made, claimed by one server at a time, and the token in it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import tempfile
from typing import TYPE_CHECKING

from .notebooks import STATE_FOLDER

if TYPE_CHECKING:
    from pathlib import Path


class WorkspaceError(Exception):
    """The workspace cannot be opened; the message says what to do."""


def state_folder(root: Path) -> Path:
    """Return the folder of a workspace's state, made if need be.

    Raises:
        WorkspaceError: `root` is no folder, or cannot be written to.
    """
    if not root.is_dir():
        raise WorkspaceError(f"{root} is not a folder; give the folder that holds your notebooks and Python files.")
    folder = root.resolve() / STATE_FOLDER
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise WorkspaceError(f"The workspace keeps its state in {folder}, which cannot be made: {error}") from None
    return folder


def claim(folder: Path) -> int:
    """Claim a state folder for this process; the kernel gives it back, whatever ends us.

    Raises:
        WorkspaceError: another process has it.
    """
    lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        message = f"Another local workspace has {folder.parent} open; stop it, or use its address."
        raise WorkspaceError(message) from None
    return lock


def kept_secret(folder: Path, name: str) -> str:
    """Return the secret in a file of a state folder, made up the first time, readable by the user alone.

    Raises:
        WorkspaceError: the file is empty.
    """
    file = folder / name
    if not file.exists():
        # It gets its name when it is whole: a server that dies here must not leave half a secret for the next one.
        with tempfile.NamedTemporaryFile("w", dir=folder, prefix=f"{name}-") as whole:
            whole.write(secrets.token_urlsafe(24))
            whole.flush()
            # Another server may have been first; then its secret is the one.
            with contextlib.suppress(FileExistsError):
                file.hardlink_to(whole.name)
    secret = file.read_text().strip()
    if not secret:
        raise WorkspaceError(f"{file} is empty; remove it, and a new {name} is made up.")
    return secret
