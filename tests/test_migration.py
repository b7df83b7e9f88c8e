"""What the README promises to who comes from the official provider, against that provider's own names.

They are in `official_names.json`, which `make official-names` writes.
"""

from __future__ import annotations

import fnmatch
import inspect
import json
import re
from pathlib import Path

import pytest
from airflow_context import submit

from airflow_dbjobs import operators, sensors
from airflow_dbjobs.client import JobsClient
from airflow_dbjobs.client.wait import wait_for_run
from airflow_dbjobs.errors import RunFailed

HERE = Path(__file__).parent
OFFICIAL = json.loads((HERE / "official_names.json").read_text())
CHAPTER = (HERE.parent / "README.md").read_text().split("## Migrating from the official provider")[1].split("\n## ")[0]


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def rows(heading: str) -> list[tuple[str, str]]:
    """Return the two columns of the table that begins with this heading."""
    lines = CHAPTER.split(f"| {heading} |")[1].split("\n\n")[0].splitlines()[2:]
    return [(first.lstrip("| "), second.rstrip("| ")) for first, second in (line.split(" | ") for line in lines)]


def test_the_differences_are_those_from_the_release_that_was_compared():
    assert f"| official {OFFICIAL['version']} | here |" in CHAPTER


@pytest.mark.parametrize("operator", OFFICIAL["operators"])
def test_a_parameter_of_the_official_operator_is_accepted_or_named_as_not_offered(operator):
    bases = [base for base in getattr(operators, operator).__mro__ if "__init__" in vars(base)]
    accepted = {name for base in bases for name in inspect.signature(base.__init__).parameters}
    refused = set(OFFICIAL["operators"][operator]["parameters"]) - accepted
    assert refused <= {name for first, _ in rows("official | instead") for name in quoted(first)}


@pytest.mark.parametrize("operator", OFFICIAL["operators"])
def test_what_the_official_operator_templates_is_templated(operator):
    assert set(getattr(operators, operator).template_fields) >= set(OFFICIAL["operators"][operator]["templated"])


@pytest.mark.parametrize("name", OFFICIAL["other classes"])
def test_a_class_without_a_counterpart_is_named_as_not_offered(name):
    assert name in {name for first, _ in rows("official | instead") for name in quoted(first)}
    assert not hasattr(operators, name)
    assert not hasattr(sensors, name)


@pytest.mark.parametrize("method", OFFICIAL["hook methods"])
def test_it_is_said_what_stands_for_a_method_of_the_official_hook(method):
    (said,) = {
        second for first, second in rows("`DatabricksHook` | `JobsClient`")
        if any(fnmatch.fnmatch(method, name) for name in quoted(first)) and (first == "`a_*`" or method[:2] != "a_")
    }  # fmt: skip
    if said.startswith("the same names"):
        assert hasattr(JobsClient, method)


def test_what_is_to_stand_for_a_method_is_there():
    named = {name for _, second in rows("`DatabricksHook` | `JobsClient`") for name in quoted(second)}
    methods = {name for text in named for name in re.findall(r"(?:find|get|update|repair)_\w+", text)}
    assert methods >= {"find_job_id", "find_job_ids", "get_run", "repair_run", "update_permissions"}
    assert {name for name in methods if not hasattr(JobsClient, name)} == set()


@pytest.mark.parametrize(
    "code", ["dbutils.notebook.exit('done')", "raise ValueError('why')"], ids=["success", "failure"]
)
def test_a_task_that_the_official_operator_deferred_is_taken_up_where_it_was(scene, client, code):
    task = scene.notebook(code, gated=False)
    run_id = client.submit_run({"tasks": [{"task_key": "only", "notebook_task": task}]})
    run = wait_for_run(client, run_id, period=0.01)
    # What its trigger fires; of the state we ask ourselves.
    state = {"life_cycle_state": "TERMINATED", "result_state": str(run.state.result_state), "state_message": ""}
    event = {"run_id": run_id, "run_page_url": run.page_url, "run_state": json.dumps(state), "repair_run": False}
    operator = submit(tasks=[{"task_key": "only", "notebook_task": task}], deferrable=True)
    kwargs = {"event": {**event, "errors": []}}
    if "exit" in code:
        assert operator.resume_execution("execute_complete", kwargs, scene.context) == "done"
    else:
        with pytest.raises(RunFailed, match="ValueError: why"):
            operator.resume_execution("execute_complete", kwargs, scene.context)
    assert scene.launches() == 1
