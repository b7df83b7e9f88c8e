"""The script that runs a task: `task_process.py TASK_FOLDER [LOCK]`, under a supervisor if it gets the lock.

It is run by path, so that the user's program does not have this package on its import path.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main(folder: Path, *lock: str) -> None:
    """Run the program that `folder` describes; does not return in the process of that program."""
    package_home = str(Path(__file__).resolve().parents[3])
    sys.path.insert(0, package_home)
    from airflow_dbjobs.local_workspace.engine import bootstrap, supervisor

    sys.path.remove(package_home)
    if lock:
        supervisor.main(folder, int(lock[0]))
    else:
        sys.exit(bootstrap.run(folder))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
