from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import pytest

from airflow_dbjobs.local_workspace import LocalWorkspace

from .support import SIMULATED_SECONDS, TOKEN, Client, settle

if TYPE_CHECKING:
    from pathlib import Path

Write = Callable[[str, str], None]
Advance = Callable[[float], None]
Run = Callable[..., str]
Start = Callable[..., tuple["subprocess.Popen[str]", Client]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def write(root: Path) -> Write:
    """Return a function that puts a file into the workspace: `write("etl/load.py", "print(1)")`."""

    def put(path: str, text: str) -> None:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text).lstrip("\n"))

    return put


@pytest.fixture
def notebook(write: Write) -> Write:
    """Return a function that puts a notebook in Databricks source format into the workspace, given its code."""

    def put(path: str, code: str) -> None:
        write(f"{path}.py", "# Databricks notebook source\n" + textwrap.dedent(code).lstrip("\n"))

    return put


@pytest.fixture
def workspace(root: Path) -> Iterator[LocalWorkspace]:
    """Return a workspace whose thread advances the runs."""
    with LocalWorkspace(root, token=TOKEN) as ws:
        yield ws


@pytest.fixture
def client(workspace: LocalWorkspace) -> Client:
    return mounted(workspace)


@pytest.fixture
def spark_client(root: Path) -> Iterator[Client]:
    """Return a client of a workspace whose tasks have a Spark."""
    with LocalWorkspace(root, token=TOKEN, spark="sail") as workspace:
        yield mounted(workspace)


@pytest.fixture
def output_of(notebook: Write) -> Run:
    """Return a function that runs a notebook, and returns its exit value."""

    def run(client: Client, code: str) -> str:
        notebook("cell", textwrap.dedent(code))
        ended = client.finish(notebook_task={"notebook_path": "/cell"})
        output = client.output(ended)
        assert ended["state"]["result_state"] == "SUCCESS", output.get("error_trace", output)
        return str(output["notebook_output"].get("result", ""))

    return run


@pytest.fixture
def start(root: Path) -> Iterator[Start]:
    """Return a function that starts a server and returns its process and a client of it.

    The server must print each text in `announced`. With `--jobs` its root is that of the bundle.
    """
    servers = []

    def begin(*options: str, announced: Sequence[str] = ()) -> tuple[subprocess.Popen[str], Client]:
        folder = [] if "--jobs" in options else ["--root", str(root)]
        arguments = [*folder, "--port", "0", "--token", TOKEN, *options]
        module = [sys.executable, "-m", "airflow_dbjobs.local_workspace"]
        server = subprocess.Popen([*module, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        servers.append(server)
        assert server.stdout is not None
        text = ""
        while "Runs can be seen at" not in text:
            line = server.stdout.readline()
            assert line, server.communicate()
            text += line
        assert [part for part in announced if part not in text] == []
        connection = json.loads(re.search(r"AIRFLOW_CONN_DATABRICKS_DEFAULT='(.*)'", text)[1])
        assert connection["conn_type"] == "databricks_jobs"
        verify = connection["extra"].pop("verify", True)
        assert connection["extra"] == {"retry_budget": 20}
        url = f"{connection['schema']}://{connection['host']}:{connection['port']}"
        client = Client(url, token=connection["password"])
        client.session.verify = verify
        return server, client

    yield begin
    for server in servers:
        server.kill()
        server.communicate()
    # End the programs that the servers have left running.
    with LocalWorkspace(root, token=TOKEN):
        pass


class Clock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stepped(root: Path, clock: Clock) -> Iterator[LocalWorkspace]:
    """Return a workspace in which nothing happens until a test calls `tick`."""
    ws = LocalWorkspace(root, token=TOKEN, clock=clock)
    yield ws
    ws.close()


@pytest.fixture
def simulated(root: Path, clock: Clock) -> Iterator[LocalWorkspace]:
    """Return a simulating workspace in which nothing happens until a test calls `tick`."""
    ws = LocalWorkspace(root, token=TOKEN, clock=clock, simulate=SIMULATED_SECONDS)
    yield ws
    ws.close()


@pytest.fixture
def advance(simulated: LocalWorkspace, clock: Clock) -> Advance:
    """Return a function that advances the clock of `simulated`, and its runs."""

    def advance(seconds: float) -> None:
        clock.now += seconds
        settle(simulated)

    return advance


def mounted(ws: LocalWorkspace, version: str = "2.2") -> Client:
    client = Client(ws.base_url, version)
    client.session.mount(ws.base_url, ws.adapter())
    return client
