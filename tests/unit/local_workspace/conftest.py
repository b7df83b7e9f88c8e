from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from airflow_dbjobs.local_workspace import LocalWorkspace

from .support import SIMULATED_SECONDS, TOKEN, Client, settle

if TYPE_CHECKING:
    from pathlib import Path

Write = Callable[[str, str], None]
Advance = Callable[[float], None]


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
