"""The supervisor process of a task run: it starts the user's program, logs its output, and stops it.

It works without the server, which may be restarted meanwhile: it writes the program's exit code to a file, and it alone
stops the program. SIGTERM stops the program with a grace period, SIGALRM kills it immediately.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

from . import bootstrap
from .secrets_file import redactor
from .task_files import read_json, write_json

GRACE_SECONDS = 2
#: The size of a log after which only the end of the further output is kept. The API returns the last 5 MB.
MAX_LOG_BYTES = 32 * 1024 * 1024
#: The size of that end, which stays in memory until the program ends.
_TAIL_BYTES = 256 * 1024
_CHUNK_BYTES = 64 * 1024


def main(folder: Path, lock: int) -> None:
    """Run the program that `folder` describes. When this process ends, the server sees that `lock` is released."""
    write_json(folder / "pid", os.getpid())
    # Signals wait until there is a program to pass them on to.
    signals = {signal.SIGTERM, signal.SIGALRM, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    group, lifeline = _fork_guard(lock)
    description = read_json(folder / "program.json")
    secrets = redactor(Path(description["root"]))
    source, output = os.pipe()
    program = os.fork()
    if program == 0:
        os.setpgid(0, group)
        os.dup2(output, 1)
        os.dup2(output, 2)
        for descriptor in (lock, lifeline, source, output):
            os.close(descriptor)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        _run_program(folder, description)
    os.close(output)
    # Parent and child both do this, as either may be first; it fails if the program has already ended.
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.setpgid(program, group)
    status: int | None = None

    def terminate(*_: object) -> None:
        # The server repeats the signal; only the first one starts the grace period.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _signal_group(group, signal.SIGTERM)
        signal.alarm(GRACE_SECONDS)

    def notice_end(*_: object) -> None:
        nonlocal status
        ended, found = os.waitpid(program, os.WNOHANG) if status is None else (0, 0)
        if ended:
            status = found
            # End the processes that the program left running.
            _signal_group(group, signal.SIGKILL)

    signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGALRM, lambda *_: _signal_group(group, signal.SIGKILL))
    signal.signal(signal.SIGCHLD, notice_end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    log = Log(1)
    while status is None and (text := _read(source)) != b"":
        log.add(secrets.add(text or b""))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    if status is None:
        # The program has closed its output, but is still running.
        _, status = os.waitpid(program, 0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.alarm(0)
    _signal_group(group, signal.SIGKILL)
    os.waitpid(group, 0)
    # The last output may still be in the pipe. Processes that left the group and hold it open are not waited for.
    os.set_blocking(source, False)
    with contextlib.suppress(BlockingIOError):
        log.add(secrets.add(os.read(source, 2**20)))
    log.add(secrets.close())
    log.close()
    _write_end(folder, os.waitstatus_to_exitcode(status))


def _run_program(folder: Path, description: dict[str, Any]) -> NoReturn:
    """Run the program in this process, in the environment with its libraries if it has some."""
    if libraries := description.get("libraries"):
        # Imported here, as few tasks need it, and every task should start fast.
        from .environments import enter

        enter(folder, libraries)
    sys.exit(bootstrap.run(folder))


def _write_end(folder: Path, code: int) -> None:
    try:
        write_json(folder / "exit.json", {"code": code})
    except OSError as error:
        sys.exit(f"The program ended with code {code}, but the local workspace could not save that: {error}")


def _fork_guard(lock: int) -> tuple[int, int]:
    """Fork a guard: a process that kills the program's group when this process ends, even by SIGKILL.

    The guard leads the group, so its pid is the group's id, which cannot be reused before this process has waited for
    it. Return that id and the lifeline: a descriptor that only this process may hold open, as the guard waits for its
    closing.
    """
    closing, lifeline = os.pipe()
    guard = os.fork()
    if guard == 0:
        os.setpgid(0, 0)
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        os.close(lifeline)
        os.close(lock)
        os.read(closing, 1)
        os.killpg(0, signal.SIGKILL)
        os._exit(0)
    os.close(closing)
    os.setpgid(guard, guard)
    return guard, lifeline


class Log:
    """A log file of limited size: the beginning of a program's output and, after it has ended, the end."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._room = MAX_LOG_BYTES - os.fstat(file).st_size
        self._rest = b""
        self._left_out = 0

    def add(self, text: bytes) -> None:
        """Write as much as there is room for, and remember the end of the rest."""
        if self._room > 0:
            self._write(text[: self._room])
            text, self._room = text[self._room :], self._room - len(text)
            if self._room <= 0:
                parts = f"the first {MAX_LOG_BYTES // 2**20} MB and, when the program has ended, the last lines"
                self._write(f"\n[The local workspace keeps {parts} of a log.]\n".encode())
        rest = self._rest + text
        self._rest = rest[-_TAIL_BYTES:]
        self._left_out += len(rest) - len(self._rest)

    def close(self) -> None:
        """Write the end."""
        if self._left_out:
            self._write(f"[{self._left_out} bytes omitted]\n".encode())
        self._write(self._rest)

    def _write(self, text: bytes) -> None:
        # A full disk must not stop the program.
        with contextlib.suppress(OSError):
            while text:
                text = text[os.write(self._file, text) :]


def _read(source: int) -> bytes | None:
    """Wait for output; return it, nothing at its end, or None if there may be some later."""
    # With a timeout, because a signal that arrives just before the wait does not interrupt it.
    if not select.select([source], [], [], 1)[0]:
        return None
    return os.read(source, _CHUNK_BYTES)


def _signal_group(group: int, number: int) -> None:
    # There may be no process left; macOS answers EPERM when only zombies are left.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
