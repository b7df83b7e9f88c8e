"""The script of a workspace's Spark Connect server: `spark_process.py ENGINE FOLDER SOCKET CATALOG...`.

It is run by path, so that users' functions, which run in it, do not have this package on their import path. It ends
with its standard input, which the workspace holds open: however a workspace ends, no server outlives it.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from pathlib import Path


def main(engine: str, folder: Path, listener: socket.socket, catalogs: list[str]) -> None:
    """Serve at the port of a listening socket until the standard input ends."""
    threading.Thread(target=_end_with_workspace, daemon=True).start()
    package_home = str(Path(__file__).resolve().parents[3])
    sys.path.insert(0, package_home)
    from airflow_dbjobs.local_workspace.engine import spark_connect

    sys.path.remove(package_home)
    spark_connect.serve(engine, folder, listener, catalogs)


def _end_with_workspace() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), socket.socket(fileno=int(sys.argv[3])), sys.argv[4:])
