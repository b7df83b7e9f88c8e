"""The process in charge of one task run: `supervisor.py TASK_FOLDER`.

It forks the user's program, waits for it, and writes how it ended to a file: so the exit code is known even when the
server was away. It stops the program itself, so that a cancelled one ends although the server does not live to see
it: SIGTERM asks the program to end and gives it a grace, SIGALRM ends it at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from pathlib import Path

GRACE_SECONDS = 2


def main(folder: Path, lock: int) -> None:
    """Run the program described in `folder`. The descriptor `lock`, once closed, tells the server of our end."""
    (folder / "pid").write_text(str(os.getpid()))
    # A signal that comes before there is a program to pass it on to waits until there is.
    signals = {signal.SIGTERM, signal.SIGALRM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    program = os.fork()
    if program == 0:
        os.close(lock)
        os.setpgid(0, 0)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        run_program(folder)
    # Both sides do this, so that whoever is first finds it done; in vain if the program has ended already.
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.setpgid(program, program)

    def terminate(*_: object) -> None:
        # The server repeats itself; only the first request starts the grace.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _signal_group(program, signal.SIGTERM)
        signal.alarm(GRACE_SECONDS)

    signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGALRM, lambda *_: _signal_group(program, signal.SIGKILL))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    _, status = os.waitpid(program, 0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.alarm(0)
    # What the program left running ends with it.
    _signal_group(program, signal.SIGKILL)
    write_json(folder / "exit.json", {"code": os.waitstatus_to_exitcode(status)})


def run_program(folder: Path) -> None:
    """Become the user's program; does not return."""
    # The package need not be on the path of the user's program: it is there for this one import.
    package_home = str(Path(__file__).resolve().parents[2])
    sys.path.insert(0, package_home)
    from airflow_dbjobs.local_workspace import bootstrap

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
