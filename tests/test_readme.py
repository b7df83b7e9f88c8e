"""The README's Python is run, and what it says of the command line is so."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from airflow_dbjobs.client import jobs_client as client_module
from airflow_dbjobs.client.wait import wait_for_run
from airflow_dbjobs.errors import RunMisconfigured

if TYPE_CHECKING:
    from airflow_dbjobs.client import JobsClient
    from airflow_dbjobs.local_workspace import LocalWorkspace

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
TASK = {"task_key": "only", "condition_task": {"op": "EQUAL_TO", "left": "1", "right": "1"}}


def block_with(text: str) -> str:
    (block,) = [block for block in BLOCKS if text in block]
    return block


def test_every_example_is_tried_by_some_test() -> None:
    # The DAG is run on a real Airflow, by tests/integration.
    tried = ("count_words", "nightly-load", "SubmitTask(", "DatabricksRetryPolicy()", "client.list_jobs")
    assert [block_with(text) for text in tried] == BLOCKS


def test_the_typed_operator_passes_its_check() -> None:
    names: dict[str, Any] = {}
    exec(block_with("SubmitTask("), names)
    assert names["load"].tasks[0]["new_cluster"]["autoscale"] == {"min_workers": 1, "max_workers": 8}


def test_the_sensor_passes_its_check() -> None:
    names: dict[str, Any] = {}
    exec(block_with("nightly-load"), names)
    assert names["loaded"].task_key == "load"


@pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="Airflow 3.3 introduced retry policies")
def test_the_retry_policy_and_the_callback_know_why_a_run_failed(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    exec(block_with("DatabricksRetryPolicy()"), names)
    error = RunMisconfigured("x", run_id=7, page_url="http://x/7", termination_code="RESOURCE_NOT_FOUND")
    decided = names["nightly"].retry_policy.evaluate(error, 1, 3)
    names["tell"]({"exception": error})
    assert decided.action.value == "fail"
    assert capsys.readouterr().out == "RunMisconfigured RESOURCE_NOT_FOUND () http://x/7\n"


def test_the_client_tells_of_jobs_and_runs(
    client: JobsClient,
    workspace: LocalWorkspace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    job_id = client.create_job({"name": "nightly", "tasks": [TASK]})
    wait_for_run(client, client.run_now({"job_id": job_id}), period=0.01)
    monkeypatch.setattr(client_module, "JobsClient", lambda host, token: client)
    exec(block_with("client.list_jobs"), {})
    job, run = capsys.readouterr().out.splitlines()
    assert job.startswith(f"{job_id} ")
    assert job.endswith("['only']")
    assert run.startswith("TERMINATED/SUCCESS http")


def test_the_checker_says_what_the_readme_shows(tmp_path: Path) -> None:
    (shown,) = re.findall(r"^PayloadError: .*\n((?:- .*\n)+)", README, re.MULTILINE)
    tasks = [{"task_key": "a", "new_cluster": {"num_workers": -1}, "sql_task": {"query": {"query_id": "1"}}}]
    file = tmp_path / "submit.json"
    file.write_text(json.dumps({"run_name": "x", "tasks": tasks}))
    done = subprocess.run(
        [sys.executable, "-m", "airflow_dbjobs.payloads", str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    for line in shown.splitlines():
        assert line.removeprefix("- ") in done.stdout
