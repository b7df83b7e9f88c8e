"""Starts and stops the Spark Connect server of a workspace, whose sessions the programs of tasks use."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Literal, get_args

from airflow_dbjobs.local_workspace.state.folder import WorkspaceError

from .executor import program_environment

#: The values of --spark.
Engine = Literal["auto", "sail", "pyspark", "none"]
ENGINES: tuple[Engine, ...] = get_args(Engine)
_SCRIPT = Path(__file__).with_name("spark_process.py")
_SAIL = ("pysail", "pyspark", "grpc")
_INSTALL = {
    "sail": "pip install 'airflow-dbjobs[spark]'",
    "pyspark": "pip install 'pyspark[connect]', and Java 17 or later",
}


class SparkServer:
    """At most one server process. `folder` is for its log, its tables, and the port, which a restart keeps.

    Not thread-safe: the workspace holds its lock.

    :raises WorkspaceError: `engine` is not installed.
    """

    def __init__(self, folder: Path, engine: Engine) -> None:
        self._folder = folder
        self._engine = _chosen(engine)
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    def environment(self) -> dict[str, str]:
        """Return the variables by which programs find the server, which is started if it does not run.

        It may not answer yet: its clients wait for it.
        """
        if self._engine == "none":
            return {}
        if self._process is None or self._process.poll() is not None:
            self._start()
        # Sessions would stay in the server's memory when their programs have ended.
        return {"SPARK_REMOTE": f"sc://127.0.0.1:{self._port}", "SPARK_CONNECT_RELEASE_SESSION_ON_EXIT": "true"}

    def label(self) -> str:
        """Return what runs Spark code, for people; "" if nothing does."""
        match self._engine:
            case "sail":
                return f"Sail {version('pysail')}, not Apache Spark"
            case "pyspark":
                return f"Apache Spark {version('pyspark')}, on this machine"
        return ""

    def close(self) -> None:
        """Stop the server."""
        if self._process is not None and self._process.stdin:
            self._process.stdin.close()
            self._process.wait()
            self._process = None

    def _start(self) -> None:
        self._folder.mkdir(exist_ok=True)
        self._port = _free_port(self._folder / "port")
        with (self._folder / "server.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(_SCRIPT), self._engine, str(self._folder), str(self._port)],
                # Only this process holds the other end: the server ends with it.
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Functions in queries are users' code too.
                env=program_environment(),
                start_new_session=True,
            )


def _chosen(engine: Engine) -> Engine:
    if engine == "auto":
        return next((name for name in ("sail", "pyspark") if _is_installed(name)), "none")
    if engine != "none" and not _is_installed(engine):
        raise WorkspaceError(f"--spark {engine} needs what is not installed: {_INSTALL[engine]}.")
    return engine


def _is_installed(engine: str) -> bool:
    if engine == "sail":
        return all(map(importlib.util.find_spec, _SAIL))
    return spark_home() is not None and importlib.util.find_spec("grpc") is not None


def spark_home() -> Path | None:
    """Return the folder of an Apache Spark that can run: with its JARs, which pyspark-client lacks, and a Java."""
    found = importlib.util.find_spec("pyspark")
    home = Path(found.origin).parent if found and found.origin else None
    return home if home and (home / "jars").is_dir() and shutil.which("java") else None


def _free_port(kept: Path) -> int:
    """Return the port in a file if it is free, and otherwise one that is, and write it there.

    Programs that outlive a workspace find the server of the next one at the same port.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", int(kept.read_text())))
        except (OSError, ValueError):
            # There is no such file, or another program has the port.
            probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    kept.write_text(str(port))
    return port
