"""Airflow as it is deployed, with PostgreSQL, Redis and Celery: `make test-deployment`.

It also runs the tests of `test_launches_in_airflow` there.
"""

from __future__ import annotations

import shutil
from collections import Counter
from typing import TYPE_CHECKING

import chaos
import deployment_scenarios
import pytest
from demo import EXAMPLES, Progress, run_examples

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_stack import WorkspaceServer
    from deployment_stack import DeploymentStack

pytestmark = [pytest.mark.airflow, pytest.mark.deployment]

# By name: what the example DAGs launch, and before them their preparations for the sensors.
EXAMPLE_RUNS = {
    "count_words": 1,
    "daily-report": 1,
    "load": 3,
    "weekly-report": 1,
    "nightly-load": 1,
    "started elsewhere": 1,
}


def test_example_dags(deployment: DeploymentStack, workspace_server: WorkspaceServer) -> None:
    shutil.copytree(EXAMPLES / "workspace", workspace_server.root, dirs_exist_ok=True)
    examples = deployment.dags_folder / "examples"
    shutil.copytree(EXAMPLES, examples, ignore=shutil.ignore_patterns("workspace"))
    before = {run["run_id"] for run in workspace_server.runs()}
    ended = run_examples(deployment, workspace_server, Progress(), examples)
    assert {run.dag_id: run.state for run in ended} == {file.stem: "success" for file in examples.glob("*.py")}
    runs = [run for run in workspace_server.runs() if run["run_id"] not in before]
    assert Counter(run["run_name"] for run in runs) == EXAMPLE_RUNS
    assert {run["state"]["result_state"] for run in runs} == {"SUCCESS"}


def test_whatever_is_killed_each_run_is_launched_once(deployment: DeploymentStack, tmp_path: Path) -> None:
    progress = Progress()
    name = deployment_scenarios.deployment_killed.__name__
    # Each look at hundreds of tasks and runs costs what starts a task.
    (result,) = chaos.play_waves(deployment, [[name]], tmp_path, progress, pause=2)
    chaos.print_table([result])
    progress.say(f"ended by itself and was started again: {deployment.processes.restarts or 'nothing'}")
    assert result.problems == []
    assert (result.tasks, result.launches) == (202, 202)
