"""The folder that holds a workspace's state: created, locked by one server at a time, and home of its secrets."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import tempfile
from typing import TYPE_CHECKING, Final

from airflow_dbjobs.local_workspace.state.paths import STATE_FOLDER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Files in the state folder: the API token, the key in the URLs of pages, and the private key for TLS.
SECRETS = TOKEN, PAGE_KEY, TLS_KEY = "token", "page-key", "tls-key.pem"
#: The mode bits that give access to anyone but the owner.
_OTHERS: Final = 0o077


class WorkspaceError(Exception):
    """The workspace cannot be opened; the message says what to do."""


def state_folder(root: Path) -> Path:
    """Return the state folder of a workspace, created if needed, and closed to other users of the machine.

    :raises WorkspaceError: `root` is not a folder, or its state folder cannot be used or belongs to another user.
    """
    with _as_workspace_error(root):
        if not root.is_dir():
            raise WorkspaceError(f"{root} is not a folder; pass the folder that holds your notebooks and Python files.")
        folder = root.resolve() / STATE_FOLDER
    with _as_workspace_error(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
        _close_to_others(folder)
        # The root may be a bundle: its deployment leaves out what Git ignores, and so the token.
        if not (ignored := folder / ".gitignore").exists():
            ignored.write_text("*\n")
    return folder


def _close_to_others(folder: Path) -> None:
    """Make a state folder private: other users could read its token, or add jobs that run code as this user."""
    user_id = os.geteuid()
    if not folder.stat().st_uid == folder.lstat().st_uid == user_id:
        raise WorkspaceError(f"{folder} belongs to another user; remove it, or start the server as its owner.")
    if not folder.stat().st_mode & _OTHERS:
        return
    folder.chmod(0o700)
    if folder.stat().st_mode & _OTHERS:
        raise WorkspaceError(
            f"{folder} cannot be closed to other users: its file system keeps no permissions. Use another one."
        )
    for file in folder.iterdir():
        if file.lstat().st_uid != user_id:
            raise WorkspaceError(
                f"{folder} was open to other users, and {file.name} in it belongs to one of them; remove it."
            )
        if file.name in SECRETS and file.stat().st_mode & _OTHERS:
            # Other users may have read it, so a new one is generated.
            file.unlink()


@contextlib.contextmanager
def _as_workspace_error(file: Path) -> Iterator[None]:
    """Turn errors of the file system into a WorkspaceError."""
    try:
        yield
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WorkspaceError(f"The local workspace cannot use {file}: {reason}.") from None


def lock_folder(folder: Path) -> int:
    """Lock a state folder for this process, and return the lock's file descriptor.

    The kernel releases the lock when the process ends, however it ends.

    :raises WorkspaceError: Another process holds the lock, or the folder is not writable.
    """
    with _as_workspace_error(folder / "lock"):
        lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        message = f"Another local workspace has {folder.parent} open; stop it, or use its address."
        raise WorkspaceError(message) from None
    return lock


def kept_secret(folder: Path, name: str) -> str:
    """Return the secret in a file of a state folder, generated on first use and readable by its owner only.

    :raises WorkspaceError: The file is empty, or cannot be read or created.
    """
    file = folder / name
    with _as_workspace_error(file):
        if not file.exists():
            _generate_secret(file)
        secret = file.read_text().strip()
    if not secret:
        raise WorkspaceError(f"{file} is empty; remove it, and the next start generates a new {name}.")
    return secret


def _generate_secret(file: Path) -> None:
    # The file gets its name once it is complete: a server that dies here must not leave half a secret behind.
    with tempfile.NamedTemporaryFile("w", dir=file.parent, prefix=f"{file.name}-") as complete:
        complete.write(secrets.token_hex(24))
        complete.flush()
        # If another server was first, its secret counts.
        with contextlib.suppress(FileExistsError):
            file.hardlink_to(complete.name)
