"""The process in charge of one task run: `supervisor.py TASK_FOLDER LOCK`.

It forks the user's program, copies what the program prints to the log, and writes how the program ended to a file: so
the exit code is known even when the server was away. It stops the program itself, so that a cancelled one ends although
the server does not live to see it: SIGTERM asks the program to end and gives it a grace, SIGALRM ends it at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
from pathlib import Path

GRACE_SECONDS = 2
#: Of the log, in bytes, after which only the last of what a program prints is kept. The API returns the last 5 MB.
MAX_LOG_BYTES = 32 * 1024 * 1024
#: Of that last part, which is kept in memory until the program has ended.
_TAIL_BYTES = 256 * 1024
_CHUNK_BYTES = 64 * 1024


def main(folder: Path, lock: int) -> None:
    """Run the program described in `folder`. The descriptor `lock`, once closed, tells the server of our end."""
    write_json(folder / "pid", os.getpid())
    # A signal that comes before there is a program to pass it on to waits until there is.
    signals = {signal.SIGTERM, signal.SIGALRM, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    group, our_life = _fork_guard(lock)
    source, output = os.pipe()
    program = os.fork()
    if program == 0:
        os.setpgid(0, group)
        os.dup2(output, 1)
        os.dup2(output, 2)
        for descriptor in (lock, our_life, source, output):
            os.close(descriptor)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        run_program(folder)
    os.close(output)
    # Both sides do this, so that whoever is first finds it done; in vain if the program has ended already.
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.setpgid(program, group)
    status: int | None = None

    def terminate(*_: object) -> None:
        # The server repeats itself; only the first request starts the grace.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _signal_group(group, signal.SIGTERM)
        signal.alarm(GRACE_SECONDS)

    def notice_end(*_: object) -> None:
        nonlocal status
        ended, found = os.waitpid(program, os.WNOHANG) if status is None else (0, 0)
        if ended:
            status = found
            # What the program left running ends with it.
            _signal_group(group, signal.SIGKILL)

    signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGALRM, lambda *_: _signal_group(group, signal.SIGKILL))
    signal.signal(signal.SIGCHLD, notice_end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    log = Log(1)
    while status is None and _copy(source, log):
        pass
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    if status is None:
        # It has closed its output, and goes on.
        _, status = os.waitpid(program, 0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.alarm(0)
    _signal_group(group, signal.SIGKILL)
    os.waitpid(group, 0)
    # What was printed last is still in the pipe. Nobody who has left the group, and holds it open, is waited for.
    os.set_blocking(source, False)
    with contextlib.suppress(BlockingIOError):
        log.add(os.read(source, 2**20))
    log.close()
    _write_end(folder, os.waitstatus_to_exitcode(status))


def _write_end(folder: Path, code: int) -> None:
    try:
        write_json(folder / "exit.json", {"code": code})
    except OSError as error:
        sys.exit(f"The program ended with code {code}, but the local workspace could not write that down: {error}")


def _fork_guard(lock: int) -> tuple[int, int]:
    """Fork a process that kills the program's group when we are gone, even by SIGKILL.

    It is the first of the group, so that its pid is the group's id, which cannot pass to others while we have not
    waited for it. Return it, and the descriptor that nobody but us may hold: its end is how the guard learns of ours.
    """
    ours, our_life = os.pipe()
    guard = os.fork()
    if guard == 0:
        os.setpgid(0, 0)
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        os.close(our_life)
        os.close(lock)
        os.read(ours, 1)
        os.killpg(0, signal.SIGKILL)
        os._exit(0)
    os.close(ours)
    os.setpgid(guard, guard)
    return guard, our_life


class Log:
    """A log file of limited size: the beginning of what a program prints and, once it has ended, the end."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._room = MAX_LOG_BYTES - os.fstat(file).st_size
        self._rest = b""
        self._left_out = 0

    def add(self, text: bytes) -> None:
        """Write what there is room for; of the rest, remember the last."""
        if self._room > 0:
            self._write(text[: self._room])
            text, self._room = text[self._room :], self._room - len(text)
            if self._room <= 0:
                limit = f"the first {MAX_LOG_BYTES // 2**20} MB and, when the program has ended, the last lines"
                self._write(f"\n[The local workspace keeps {limit} of a log.]\n".encode())
        rest = self._rest + text
        self._rest = rest[-_TAIL_BYTES:]
        self._left_out += len(rest) - len(self._rest)

    def close(self) -> None:
        """Write the end."""
        if self._left_out:
            self._write(f"[{self._left_out} bytes were left out here.]\n".encode())
        self._write(self._rest)

    def _write(self, text: bytes) -> None:
        # On a disk that is full, the program matters more than its log.
        with contextlib.suppress(OSError):
            while text:
                text = text[os.write(self._file, text) :]


def _copy(source: int, log: Log) -> bool:
    """Copy what has been printed, after a wait if need be; tell whether there may be more."""
    # The wait has an end: a signal that comes right before it does not break it off.
    if not select.select([source], [], [], 1)[0]:
        return True
    text = os.read(source, _CHUNK_BYTES)
    log.add(text)
    return bool(text)


def run_program(folder: Path) -> None:
    """Become the user's program; does not return."""
    # The package need not be on the path of the user's program: it is there for this one import.
    package_home = str(Path(__file__).resolve().parents[3])
    sys.path.insert(0, package_home)
    from airflow_dbjobs.local_workspace.engine import bootstrap

    sys.path.remove(package_home)
    sys.exit(bootstrap.run(folder))


def write_json(file: Path, content: object) -> None:
    """Write a file that others see whole or not at all."""
    scratch = file.with_suffix(".tmp")
    scratch.write_text(json.dumps(content))
    scratch.replace(file)


def _signal_group(group: int, number: int) -> None:
    # Maybe nobody is left; macOS says EPERM when only zombies are.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


if __name__ == "__main__":
    if len(sys.argv) > 2:  # noqa: PLR2004 - a folder and a descriptor
        main(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        run_program(Path(sys.argv[1]))
