"""Serve a local workspace: `python -m airflow_dbjobs.local_workspace --root DIR`."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sqlite3
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_dbjobs.local_workspace.state.folder import TOKEN, WorkspaceError, kept_secret, state_folder
from airflow_dbjobs.local_workspace.workspace import LocalWorkspace

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

#: Of the printed connection, in seconds.
_RETRY_BUDGET = 20
TOKEN_VARIABLE = "AIRFLOW_DBJOBS_LOCAL_TOKEN"  # noqa: S105 - the name of a variable


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    options = _parse(argv)
    for module in ("starlette", "uvicorn"):
        if importlib.util.find_spec(module) is None:
            return _fail(f"{module} is missing: pip install '.[local]' in a clone, or 'airflow-dbjobs[local]'")
    from airflow_dbjobs.local_workspace.http import server

    try:
        workspace, listener = _open(options)
    except WorkspaceError as error:
        return _fail(str(error))
    workspace.start()
    _announce(workspace, listener, options.simulate)
    server.serve(workspace, listener)
    try:
        workspace.close(leave_running=True)
    except sqlite3.Error as error:
        return _fail(f"The local workspace could not write its last changes down: {error}.")
    return 0


def _open(options: argparse.Namespace) -> tuple[LocalWorkspace, socket.socket]:
    from airflow_dbjobs.local_workspace.http import server

    token = options.token or os.environ.get(TOKEN_VARIABLE) or kept_secret(state_folder(options.root), TOKEN)
    listener = server.bind(options.host, options.port)
    try:
        workspace = LocalWorkspace(
            options.root,
            token=token,
            base_url=server.url(listener),
            max_parallel_tasks=options.max_parallel_tasks,
            simulate=options.simulate,
            max_page=options.max_page,
        )
    except WorkspaceError:
        listener.close()
        raise
    return workspace, listener


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_dbjobs.local_workspace",
        description="Serve a folder as a Databricks workspace: its Jobs API runs the notebooks and Python files in it.",
    )
    parser.add_argument("--root", type=Path, required=True, help="the folder that is the workspace")
    parser.add_argument("--host", default="127.0.0.1", help="127.0.0.1, localhost or ::1 (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8765, help="0 picks a free one (default: %(default)s)")
    parser.add_argument(
        "--token", help=f"what callers must present (default: ${TOKEN_VARIABLE}, or one made up and kept in the root)"
    )
    parser.add_argument(
        "--max-parallel-tasks", type=int, default=64, help="further tasks wait (default: %(default)s)", metavar="N"
    )
    parser.add_argument(
        "--simulate", type=float, help="run nothing: each task succeeds after SECONDS", metavar="SECONDS"
    )
    parser.add_argument(
        "--max-page",
        type=int,
        default=1000,
        help="the largest page of runs/list in API 2.0 (default: %(default)s)",
        metavar="N",
    )
    return parser.parse_args(argv)


def _announce(workspace: LocalWorkspace, listener: socket.socket, simulate: float | None) -> None:
    from airflow_dbjobs.local_workspace.http import server

    host, port = server.address(listener)
    connection = {
        "conn_type": "databricks_jobs",
        "host": host,
        "port": port,
        "schema": "http",
        "password": workspace.token,
        # A server that is not up is noticed within seconds: it is on this machine, so there is no outage to wait out.
        "extra": {"retry_budget": _RETRY_BUDGET},
    }
    simulated = "" if simulate is None else f"Nothing is run here: each task takes {simulate:g} s and succeeds.\n"
    sys.stdout.write(
        f"The local workspace is up. Tell Airflow:\n\n"
        f"export AIRFLOW_CONN_DATABRICKS_DEFAULT='{json.dumps(connection)}'\n\n"
        f"{simulated}Runs can be seen at {workspace.pages_url}\n"
    )
    sys.stdout.flush()


def _fail(message: str) -> int:
    sys.stderr.write(f"{message}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
