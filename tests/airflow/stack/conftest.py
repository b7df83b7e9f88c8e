"""Airflow and a local workspace, started once for all tests of a group.

Tests that use `airflow` carry the mark `airflow` and that of a group, `xdist_group("airflow")` or "airflow-2": a group
stays in one worker of pytest-xdist, and so on one Airflow. With two of them no worker is the last for long.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import chaos
import psutil
import pytest
from airflow_stack import AirflowStack, WorkspaceServer, variables_of
from backing_services import missing_programs
from deployment_stack import DeploymentStack
from statsd_listener import StatsdListener

from airflow_dbjobs.airflow_compat import AIRFLOW_V_3_0_PLUS

if TYPE_CHECKING:
    from collections.abc import Iterator

# `AirflowStack` is of Airflow 3, and all but this file use it.
_OF_AIRFLOW_2 = "test_airflow_2.py"
collect_ignore = (
    [_OF_AIRFLOW_2]
    if AIRFLOW_V_3_0_PLUS
    else [path.name for path in Path(__file__).parent.glob("test_*.py") if path.name != _OF_AIRFLOW_2]
)

LISTENER = """
import pathlib, types
from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin

listener = types.ModuleType("listener")

@hookimpl
def on_task_instance_success(previous_state, task_instance):
    pathlib.Path("FOLDER", "heard of " + task_instance.task_id).touch()

listener.on_task_instance_success = on_task_instance_success

class Listening(AirflowPlugin):
    name = "listening"
    listeners = [listener]
"""


@pytest.fixture(scope="session")
def workspace_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkspaceServer]:
    """Return a workspace in a process of its own; what a test puts into its folder, `root`, it can run."""
    folder = tmp_path_factory.mktemp("workspace")
    root = folder / "root"
    root.mkdir()
    with WorkspaceServer(root, folder / "logs") as server:
        yield server


@pytest.fixture(scope="session")
def statsd() -> Iterator[StatsdListener]:
    """Return what receives Airflow's metrics."""
    with StatsdListener() as listener:
        yield listener


@pytest.fixture(scope="session")
def airflow(
    tmp_path_factory: pytest.TempPathFactory, workspace_server: WorkspaceServer, statsd: StatsdListener
) -> Iterator[AirflowStack]:
    """Return a running Airflow whose `databricks_default` is the workspace; `airflow.add_dag` gives it a DAG file."""
    folder = tmp_path_factory.mktemp("airflow")
    dags_folder = folder / "dags"
    dags_folder.mkdir()
    # Airflow imports modules from there, if it is there when it starts.
    (folder / "home" / "config").mkdir(parents=True)
    connections = {"databricks_default": workspace_server.connection}
    # Triggers move to another triggerer within seconds.
    settings = {"triggerer.triggerer_health_check_threshold": "8", **statsd.settings}
    environment = variables_of(settings)
    with AirflowStack(folder / "home", dags_folder, connections=connections, extra_env=environment) as stack:
        yield stack
    assert processes_of(stack.home) == [], "Airflow was stopped and left these behind"


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory, workspace_server: WorkspaceServer) -> Iterator[AirflowStack]:
    """Return a second Airflow, on which listeners follow tasks: a plugin's, and OpenLineage's.

    OpenLineage's events are in the file `events` next to its home.
    """
    folder = tmp_path_factory.mktemp("other")
    for name in ("dags", "home/plugins"):
        (folder / name).mkdir(parents=True)
    (folder / "home" / "plugins" / "listening.py").write_text(LISTENER.replace("FOLDER", str(folder)))
    connections = {"databricks_default": workspace_server.connection}
    transport = {"type": "file", "log_file_path": str(folder / "events"), "append": True}
    environment = {"DEPLOYMENT": "other ", **variables_of({"openlineage.transport": json.dumps(transport)})}
    with AirflowStack(folder / "home", folder / "dags", connections=connections, extra_env=environment) as stack:
        yield stack


@pytest.fixture(scope="session")
def deployment(tmp_path_factory: pytest.TempPathFactory, workspace_server: WorkspaceServer) -> Iterator[AirflowStack]:
    """Return an Airflow on PostgreSQL, Redis and Celery, with the same workspace as `airflow`."""
    if missing := missing_programs():
        pytest.exit(f"Install Debian's packages {' and '.join(missing)}: PostgreSQL or Redis is not there.", 1)
    folder = tmp_path_factory.mktemp("deployment")
    dags_folder = folder / "dags"
    dags_folder.mkdir()
    connections = {"databricks_default": workspace_server.connection}
    # Eight tasks that start at the same time on two cores must not seem to be lost, nor what watches hundreds of runs.
    patience = {
        "scheduler.task_instance_heartbeat_timeout": "30",
        "scheduler.scheduler_health_check_threshold": "30",
        "triggerer.triggerer_health_check_threshold": "15",
    }
    settings = variables_of(chaos.SETTINGS | patience)
    with DeploymentStack(folder / "home", dags_folder, connections=connections, extra_env=settings) as stack:
        yield stack
    assert processes_of(stack.home) == [], "The deployment was stopped and left these behind"


def processes_of(home: Path) -> list[str]:
    """Return the command lines of all processes that have this AIRFLOW_HOME, however they came to be."""
    return [
        " ".join(process.info["cmdline"])
        for process in psutil.process_iter(["cmdline", "environ"])
        if (process.info["environ"] or {}).get("AIRFLOW_HOME") == str(home)
    ]
