"""The fixtures, which pytest finds by an entry point. Nothing but pytest is imported before a test requests one."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType

    from .in_airflow import DagRunner
    from .workspace import ScriptedWorkspace


@pytest.fixture(scope="session")
def _in_airflow() -> ModuleType:
    """Return the module that imports Airflow.

    That replaces `warnings.showwarning`, so that Airflow would log the warnings of this test, and pytest show none.
    """
    with warnings.catch_warnings(action="ignore"):
        from . import in_airflow
    return in_airflow


@pytest.fixture
def databricks_workspace(
    tmp_path_factory: pytest.TempPathFactory, _in_airflow: ModuleType
) -> Iterator[ScriptedWorkspace]:
    """Return a Databricks workspace that every connection of this test leads to, and in which no time is waited for.

    Each task succeeds at once, unless the test says otherwise with ``databricks_workspace.task(...)``.
    """
    from .time_leap import TimeLeap
    from .workspace import ScriptedWorkspace

    with TimeLeap(), ScriptedWorkspace(tmp_path_factory.mktemp("databricks")) as workspace:
        with _in_airflow.connected(workspace):
            yield workspace
        workspace.warn_of_unused_scripts()


@pytest.fixture(scope="session")
def airflow_test_home(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """Return the folder of the database that `run_dag` uses, of this session and xdist worker.

    Override this fixture to return None, and `run_dag` uses the database that Airflow is configured for.
    """
    return tmp_path_factory.mktemp("airflow")


@pytest.fixture(scope="session")
def _airflow_test_settings(airflow_test_home: Path | None, _in_airflow: ModuleType) -> dict[str, str] | None:
    """Create the database of the session, and return the environment variables that lead Airflow to it."""
    with warnings.catch_warnings(action="ignore"):
        return _in_airflow.create_database(airflow_test_home) if airflow_test_home else None


@pytest.fixture
def run_dag(
    databricks_workspace: ScriptedWorkspace,  # noqa: ARG001 - where its tasks launch runs
    _airflow_test_settings: dict[str, str] | None,
    _in_airflow: ModuleType,
) -> Iterator[DagRunner]:
    """Return a function that runs a DAG, or the DAG of a file, in this process, and returns how it ended."""
    with _in_airflow.database(_airflow_test_settings):
        yield _in_airflow.DagRunner()
