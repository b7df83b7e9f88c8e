"""Starts and stops the Spark Connect server of a workspace, whose sessions the programs of tasks use."""

from __future__ import annotations

import importlib.util
import re
import socket
import subprocess
import sys
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from airflow_dbjobs.local_workspace.state.folder import WorkspaceError

from .executor import program_environment
from .spark_session import spark_home

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The values of --spark.
Engine = Literal["auto", "sail", "pyspark", "none"]
ENGINES: tuple[Engine, ...] = get_args(Engine)
#: The catalogs that every workspace has; the first is the default one.
_CATALOGS = ("spark_catalog", "hive_metastore", "main", "workspace")
#: A server that ends within this time, in seconds, cannot be started.
_SOON = 2.0
_SCRIPT = Path(__file__).with_name("spark_process.py")
_SAIL = ("pysail", "pyspark", "grpc")
_INSTALL = {
    "sail": "pip install 'airflow-dbjobs[spark]'",
    "pyspark": "pip install 'pyspark[connect]', and Java 17 or later",
}


class SparkServer:
    """A server process, started when it is first needed, and again if it dies.

    `folder` is for its log, its tables and its port; `catalogs` are names of catalogs in addition to the usual ones.

    :raises WorkspaceError: `engine` is not installed, or "none" although there are `catalogs`; or a name of a catalog
        is not one.
    """

    def __init__(self, folder: Path, engine: Engine, catalogs: Sequence[str] = ()) -> None:
        if catalogs and engine == "none":
            names = ", ".join(catalogs)
            raise WorkspaceError(f"--spark-catalogs {names} needs Spark, which --spark none and --simulate turn off.")
        if strange := [name for name in catalogs if not re.fullmatch(r"[a-z_][a-z0-9_]*", name)]:
            raise WorkspaceError(f"{strange[0]!r} cannot be the name of a catalog; use small letters, digits and _.")
        self._folder = folder
        self._catalogs = [*_CATALOGS, *(name for name in catalogs if name not in _CATALOGS)]
        self._engine = _chosen(engine)
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper: threading.Thread | None = None
        self._closing = False
        #: Whether a task needs the server that has been launched last, or the next one.
        self._wanted = False
        self._lock = threading.Lock()

    def environment(self) -> dict[str, str]:
        """Return the variables by which programs find the server, which is started if it does not run.

        It may not answer yet: its clients wait for it.
        """
        if self._engine == "none":
            return {}
        with self._lock:
            self._wanted = True
            if self._keeper is None:
                self._folder.mkdir(exist_ok=True)
                self._port = _free_port(self._folder / "port")
                self._keeper = threading.Thread(target=self._keep_running, name="spark-server", daemon=True)
                self._keeper.start()
        # Sessions would stay in the server's memory when their programs have ended.
        return {"SPARK_REMOTE": f"sc://127.0.0.1:{self._port}", "SPARK_CONNECT_RELEASE_SESSION_ON_EXIT": "true"}

    def label(self) -> str:
        """Return the name of what runs Spark code; "" if nothing does."""
        match self._engine:
            case "sail":
                return f"Sail {version('pysail')}, not Apache Spark"
            case "pyspark":
                return f"Apache Spark {version('pyspark')}, on this machine"
        return ""

    def close(self) -> None:
        """Stop the server."""
        with self._lock:
            self._closing = True
            if self._process and self._process.stdin:
                self._process.stdin.close()
            keeper = self._keeper
        if keeper:
            keeper.join()

    def _keep_running(self) -> None:
        """Start the server whenever it has died, but after an early death only if a task has needed it since."""
        while True:
            begun = time.monotonic()
            with self._lock:
                if self._closing:
                    return
                self._wanted = False
                self._process = self._launch()
            with self._process as process:
                process.wait()
            died_soon = time.monotonic() - begun < _SOON
            with self._lock:
                if died_soon and not self._wanted:
                    self._keeper = None
                    return

    def _launch(self) -> subprocess.Popen[bytes]:
        with (self._folder / "server.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-P", str(_SCRIPT), self._engine, str(self._folder), str(self._port), *self._catalogs],
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
