"""The folder where a workspace keeps its own records: made, claimed by one server at a time, and the token in it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import tempfile
from typing import TYPE_CHECKING

from airflow_dbjobs.local_workspace.engine.notebooks import STATE_FOLDER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: In a state folder: what callers of the API present, and what the addresses of pages carry.
SECRETS = TOKEN, PAGE_KEY = "token", "page-key"
#: Of a file's mode: whatever others than its owner may do.
_OTHERS = 0o077


class WorkspaceError(Exception):
    """The workspace cannot be opened; the message says what to do."""


def state_folder(root: Path) -> Path:
    """Return the folder of a workspace's state, made if need be, and closed to other users of the machine.

    Raises:
        WorkspaceError: `root` is no folder, or its state cannot be kept there, or is not ours.
    """
    with _one_message(root):
        if not root.is_dir():
            raise WorkspaceError(f"{root} is not a folder; give the folder that holds your notebooks and Python files.")
        folder = root.resolve() / STATE_FOLDER
    with _one_message(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
        _close_to_others(folder)
    return folder


def _close_to_others(folder: Path) -> None:
    """Let only ourselves into a state folder: others could read its token, or put in jobs that run code as us."""
    ours = os.geteuid()
    if not folder.stat().st_uid == folder.lstat().st_uid == ours:
        raise WorkspaceError(f"{folder} belongs to another user; remove it, or start the server as its owner.")
    if not folder.stat().st_mode & _OTHERS:
        return
    folder.chmod(0o700)
    if folder.stat().st_mode & _OTHERS:
        raise WorkspaceError(f"{folder} stays open to other users: its file system keeps no permissions. Use another.")
    for file in folder.iterdir():
        if file.lstat().st_uid != ours:
            raise WorkspaceError(f"{folder} was open to other users, and {file.name} in it is not yours; remove it.")
        if file.name in SECRETS and file.stat().st_mode & _OTHERS:
            # Others may know it, so another one is made up.
            file.unlink()


@contextlib.contextmanager
def _one_message(file: Path) -> Iterator[None]:
    """Turn what goes wrong with a file into a WorkspaceError."""
    try:
        yield
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WorkspaceError(f"The local workspace cannot use {file}: {reason}.") from None


def claim(folder: Path) -> int:
    """Claim a state folder for this process; the kernel gives it back, whatever ends us.

    Raises:
        WorkspaceError: another process has it, or it cannot be written to.
    """
    with _one_message(folder / "lock"):
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
        WorkspaceError: the file is empty, or cannot be read or made.
    """
    file = folder / name
    with _one_message(file):
        if not file.exists():
            _make_secret(file)
        secret = file.read_text().strip()
    if not secret:
        raise WorkspaceError(f"{file} is empty; remove it, and a new {name} is made up.")
    return secret


def _make_secret(file: Path) -> None:
    # It gets its name when it is whole: a server that dies here must not leave half a secret for the next one.
    with tempfile.NamedTemporaryFile("w", dir=file.parent, prefix=f"{file.name}-") as whole:
        whole.write(secrets.token_hex(24))
        whole.flush()
        # Another server may have been first; then its secret is the one.
        with contextlib.suppress(FileExistsError):
            file.hardlink_to(whole.name)
