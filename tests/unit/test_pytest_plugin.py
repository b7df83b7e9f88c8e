"""What the pytest plugin costs those who do not use it, and what a test without a DAG has of it."""

from __future__ import annotations

import subprocess
import sys
import time
import tomllib
from pathlib import Path

from airflow_dbjobs.hooks import DatabricksJobsHook
from airflow_dbjobs.local_workspace.testing.in_airflow import connected
from airflow_dbjobs.local_workspace.testing.time_leap import TimeLeap
from airflow_dbjobs.local_workspace.testing.workspace import ScriptedWorkspace
from airflow_dbjobs.runs.polling.rate_limit import TokenBucket

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


def test_it_imports_nothing_until_a_fixture_is_requested() -> None:
    (module,) = PROJECT["entry-points"]["pytest11"].values()
    code = f"import pytest, sys; was = set(sys.modules); import {module}; print(*(set(sys.modules) - was))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    packages = {name for name in done.stdout.split() if name.partition(".")[0] != "airflow_dbjobs"}
    assert module in done.stdout.split()
    assert packages <= {"__future__"}


def test_a_hook_leads_to_the_workspace_whatever_its_connection(databricks_workspace: ScriptedWorkspace) -> None:
    databricks_workspace.job("nightly")
    databricks_workspace.connection_extra["api_version"] = "2.1"
    with DatabricksJobsHook("no such connection").get_conn() as client:
        assert client.api_version == "2.1"
        client.run_now({"job_id": client.find_job_id("nightly")})
    databricks_workspace.assert_launched("nightly", times=1)


def test_no_poller_waits_for_the_time_of_an_earlier_test(tmp_path: Path) -> None:
    # As the pollers of the earlier test may, until Python collects them.
    outlives_its_test = []
    for test in ("earlier", "later"):
        (root := tmp_path / test).mkdir()
        with TimeLeap(), ScriptedWorkspace(root) as workspace, connected(workspace):
            client = DatabricksJobsHook().get_conn()
            bucket = TokenBucket.for_client(client, client)
            assert bucket.take() == 0, test
            time.sleep(3600)
            bucket.take()
            outlives_its_test.append(bucket)
