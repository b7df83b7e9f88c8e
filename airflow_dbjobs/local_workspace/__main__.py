"""Serve a local workspace: `python -m airflow_dbjobs.local_workspace --root DIR`."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import shlex
import sqlite3
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .engine.spark_server import ENGINES
from .jobs_files.loading import JobsFiles, chosen_id
from .state.certificate import kept_certificate
from .state.folder import TOKEN, WorkspaceError, kept_secret, state_folder
from .workspace import LocalWorkspace

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

#: The retry budget of the printed connection, in seconds. The server is on this machine, so there is no outage to wait
#: out: a task should fail fast if the server is down.
_RETRY_BUDGET = 20
TOKEN_VARIABLE = "AIRFLOW_DBJOBS_LOCAL_TOKEN"  # noqa: S105 - the name of a variable


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    options = _parse(argv)
    for module in ("starlette", "uvicorn", *(["cryptography"] if options.tls else [])):
        if importlib.util.find_spec(module) is None:
            return _fail(f"{module} is not installed: pip install '.[local]' in a clone, or 'airflow-dbjobs[local]'.")
    if options.root is None:
        return _fail(options.jobs.reason_for_no_root())
    from .http import server

    try:
        workspace, listener, certificate = _open(options)
    except WorkspaceError as error:
        return _fail(str(error))
    workspace.start()
    _announce(workspace, listener, options.simulate, certificate)
    server.serve(workspace, listener, certificate)
    try:
        workspace.close(leave_running=True)
    except sqlite3.Error as error:
        return _fail(f"The local workspace could not save its last changes: {error}.")
    return 0


def _open(options: argparse.Namespace) -> tuple[LocalWorkspace, socket.socket, tuple[Path, Path] | None]:
    from .http import server

    token = options.token or os.environ.get(TOKEN_VARIABLE) or kept_secret(state_folder(options.root), TOKEN)
    listener = server.bind(options.host, options.port)
    with contextlib.ExitStack() as on_failure:
        on_failure.callback(listener.close)
        workspace = LocalWorkspace(
            options.root,
            token=token,
            base_url=server.url(listener, tls=options.tls),
            max_parallel_tasks=options.max_parallel_tasks,
            simulate=options.simulate,
            max_page=options.max_page,
            spark=options.spark,
            spark_catalogs=options.spark_catalogs,
            jobs=options.jobs,
        )
        on_failure.callback(workspace.close, leave_running=True)
        certificate = kept_certificate(state_folder(options.root)) if options.tls else None
        on_failure.pop_all()
    return workspace, listener, certificate


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_dbjobs.local_workspace",
        description="Serve a folder as a Databricks workspace: its Jobs API runs the notebooks and Python files in it.",
    )
    add = parser.add_argument
    add("--root", type=Path, help="the folder to serve (default: the folder of the bundle in --jobs)")
    add(
        "--jobs", type=Path, action="append", default=[], help="a bundle, or a file or folder with the settings of jobs"
    )
    add("--target", default="", help="the target of the bundle (default: its default target)")
    add("--job-id", type=chosen_id, action="append", default=[], metavar="KEY=ID", help="the id of a job in --jobs")
    add("--host", default="127.0.0.1", help="127.0.0.1, localhost or ::1 (default: %(default)s)")
    add("--port", type=int, default=8765, help="0 picks a free port (default: %(default)s)")
    add("--token", help=f"the API token (default: ${TOKEN_VARIABLE}, or one that is generated and kept in the root)")
    add("--max-parallel-tasks", type=int, default=64, metavar="N", help="more tasks wait (default: %(default)s)")
    add("--simulate", type=float, metavar="SECONDS", help="run no code: each task succeeds after SECONDS")
    add(
        "--max-page",
        type=int,
        default=1000,
        metavar="N",
        help="the largest page of runs/list in API 2.0 (default: %(default)s)",
    )
    add("--spark", choices=ENGINES, default="auto", help="what runs Spark code (default: sail or pyspark if installed)")
    add(
        "--spark-catalogs",
        type=lambda names: names.split(","),
        default=[],
        metavar="NAME,...",
        help="catalogs that code names, in addition to main, workspace and hive_metastore",
    )
    add("--tls", action="store_true", help="serve HTTPS, with a certificate that is made and kept in the root")
    options = parser.parse_args(argv)
    if options.root is None and not options.jobs:
        parser.error("the following arguments are required: --root (or --jobs with a bundle)")
    ids = dict(options.job_id)
    if len(ids) < len(options.job_id):
        parser.error("argument --job-id: give each job one id")
    options.jobs = JobsFiles(options.jobs, options.target, ids)
    options.root = options.root or options.jobs.root
    return options


def _announce(
    workspace: LocalWorkspace, listener: socket.socket, simulate: float | None, certificate: tuple[Path, Path] | None
) -> None:
    from .http import server

    host, port = server.address(listener)
    connection = {
        "conn_type": "databricks_jobs",
        "host": host,
        "port": port,
        "schema": "https" if certificate else "http",
        "password": workspace.token,
        "extra": {"retry_budget": _RETRY_BUDGET, **({"verify": str(certificate[0])} if certificate else {})},
    }
    simulated = "" if simulate is None else f"Tasks are simulated: each takes {simulate:g} s and succeeds.\n"
    spark = f"Spark: {workspace.spark_label}.\n" if workspace.spark_label else ""
    file = shlex.quote(str(certificate[0])) if certificate else ""
    trust = f"Other clients trust it with REQUESTS_CA_BUNDLE={file} or curl --cacert {file}\n" if file else ""
    sys.stdout.write(
        f"The local workspace is running. To connect Airflow to it:\n\n"
        f"export AIRFLOW_CONN_DATABRICKS_DEFAULT={shlex.quote(json.dumps(connection))}\n\n"
        f"{trust}{_file_jobs(workspace)}{simulated}{spark}Runs can be seen at {workspace.pages_url}\n"
    )
    sys.stdout.flush()


def _file_jobs(workspace: LocalWorkspace) -> str:
    """Describe the jobs that were read from files."""
    jobs = [
        f"  job_id {job.job_id}, {job.settings.get('name', 'Untitled')!r}: {job.place}\n" for job in workspace.file_jobs
    ]
    notes = [f"  {note}\n" for note in workspace.file_notes]
    return "".join([*(["Jobs from files:\n", *jobs] if jobs else []), *(["Notes:\n", *notes] if notes else []), "\n"])


def _fail(message: str) -> int:
    sys.stderr.write(f"{message}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
