"""Fixtures that every test may use: a local workspace in this process, and a client of it."""

from __future__ import annotations

import atexit
import os
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Before anything imports Airflow: its home is a folder of this run, not the developer's, and it logs no wall of text.
if "AIRFLOW_HOME" not in os.environ:
    # The workers of xdist inherit it from the process that removes it.
    _home = tempfile.TemporaryDirectory(prefix="airflow_dbjobs-tests-", ignore_cleanup_errors=True)
    os.environ["AIRFLOW_HOME"] = _home.name
    atexit.register(_home.cleanup)
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
# This process has it on its path by pytest's configuration; those that it starts inherit it.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(__file__).parent / "support" / "airflow_config"), *filter(None, [os.environ.get("PYTHONPATH")])]
)

import pytest
from in_process import connect_clients

from airflow_dbjobs.airflow_compat import AIRFLOW_V_3_0_PLUS
from airflow_dbjobs.client import JobsClient
from airflow_dbjobs.local_workspace import LocalWorkspace
from airflow_dbjobs.local_workspace.testing import plugin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_context import Scene
    from described_runs import Write
    from pytest_mock import MockerFixture

# What knows nothing of Airflow, and plays for long in virtual time, is tested on one Airflow only.
collect_ignore_glob = [] if AIRFLOW_V_3_0_PLUS else ["*/test_rate_limit.py", "*/test_poller_*.py"]

# The environments of `make test-lowest` have no hypothesis.
if find_spec("hypothesis"):
    from made_up import register_profiles

    register_profiles()

pytest_plugins = ["pytester"]

TOKEN = "local-token-of-the-tests"
WORKSPACE_URL = "http://127.0.0.1:8765"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let xdist hand out whole files (--dist loadgroup): its scheduler gets slow with thousands of single tests."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.relative_to(item.config.rootpath).as_posix()))


def pytest_configure(config: pytest.Config) -> None:
    """Have the plugin also where this package is on the path only, and so has no entry point."""
    if not config.pluginmanager.has_plugin("airflow_dbjobs"):
        config.pluginmanager.register(plugin, "airflow_dbjobs")


@pytest.fixture(autouse=True)
def _nothing_to_mask() -> None:
    """Let Airflow forget what other tests had it mask: where a secret has one letter, no later text can be read."""
    from airflow_dbjobs.airflow_compat import redact

    masker = sys.modules[redact.__module__]._secrets_masker()
    masker.patterns, masker.replacer = set(), None


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalWorkspace]:
    """Return a running workspace, to which every session of this process is connected without a socket."""
    root = tmp_path / "workspace"
    root.mkdir()
    with LocalWorkspace(root, token=TOKEN, base_url=WORKSPACE_URL) as running:
        connect_clients(monkeypatch, running.adapter)
        yield running


@pytest.fixture
def scene(workspace: LocalWorkspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mocker: MockerFixture) -> Scene:
    """Return what Airflow has around a task that runs on the workspace."""
    from airflow_context import Scene

    return Scene(workspace, tmp_path / "workspace", monkeypatch, mocker)


@pytest.fixture(params=[False, True], ids=["sync", "deferrable"])
def deferrable(request: pytest.FixtureRequest) -> bool:
    """Run a test in both modes."""
    return request.param


@pytest.fixture
def notebook(tmp_path: Path) -> Write:
    """Return what writes a notebook and returns its task."""

    def write(key: str, code: str, **fields: Any) -> dict[str, Any]:
        (tmp_path / "workspace" / f"{key}.py").write_text(f"# Databricks notebook source\n{code}\n")
        return {"task_key": key, "notebook_task": {"notebook_path": f"/{key}"}, **fields}

    return write


@pytest.fixture
def client(workspace: LocalWorkspace) -> JobsClient:
    """Return a client of the workspace."""
    return JobsClient(WORKSPACE_URL, token=TOKEN)
