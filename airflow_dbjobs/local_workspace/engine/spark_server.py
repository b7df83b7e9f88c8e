"""Starts and stops the Spark Connect server of a workspace, whose sessions the programs of tasks use."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import re
import select
import socket
import subprocess
import sys
import threading
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
_SCRIPT = Path(__file__).with_name("spark_process.py")
_SAIL = ("pysail", "pyspark", "grpc")
_INSTALL = {
    "sail": "pip install 'airflow-dbjobs[spark]'",
    "pyspark": "pip install 'pyspark[connect]', and Java 17 or later",
}


class SparkServer:
    """A server process, started when a program first connects to its port, and again if it dies.

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
        self._closing = threading.Event()
        self._lock = threading.Lock()

    def environment(self) -> dict[str, str]:
        """Return the variables by which programs find the server, which starts when the first of them connects."""
        if self._engine == "none":
            return {}
        with self._lock:
            if self._keeper is None:
                self._folder.mkdir(exist_ok=True)
                keep = functools.partial(self._keep_running, self._listen())
                self._keeper = threading.Thread(target=keep, name="spark-server", daemon=True)
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
            self._closing.set()
            if self._process and self._process.stdin:
                self._process.stdin.close()
            keeper = self._keeper
        if keeper:
            # It may be waiting for a program.
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port)):
                pass
            keeper.join()

    def _keep_running(self, listener: socket.socket) -> None:
        """Start the server whenever a program connects to its port and finds none."""
        while True:
            with listener:
                select.select([listener], [], [])
                with self._lock:
                    if self._closing.is_set():
                        return
                    self._process = self._launch(listener)
            with self._process as process:
                process.wait()
            with self._lock:
                if self._closing.is_set():
                    return
                listener = self._listen()

    def _listen(self) -> socket.socket:
        """Return a socket that listens at the port of the last server, or at another one if that is not free.

        Programs that outlive a workspace find the server of the next one at the same port.
        """
        kept = self._folder / "port"
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", int(kept.read_text())))
        except (OSError, ValueError):
            # There is no such file, or another program has the port.
            listener.bind(("127.0.0.1", 0))
        listener.listen()
        self._port = listener.getsockname()[1]
        kept.write_text(str(self._port))
        return listener

    def _launch(self, listener: socket.socket) -> subprocess.Popen[bytes]:
        """Start the server, which takes the place of `listener` once it can answer."""
        command = [sys.executable, "-P", str(_SCRIPT), self._engine, str(self._folder), str(listener.fileno())]
        with (self._folder / "server.log").open("ab") as log:
            return subprocess.Popen(
                [*command, *self._catalogs],
                # Only this process holds the other end: the server ends with it.
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Functions in queries are users' code too.
                env=program_environment(),
                pass_fds=[listener.fileno()],
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
