"""The example DAGs: parsed as Airflow parses them, with no connection defined, and run by `dag.test()`."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from airflow_context import parsed
from airflow_stack import WorkspaceServer
from dag_script import run_script
from demo import EVENTS, PREPARATIONS

from airflow_dbjobs.airflow_compat import AIRFLOW_V_3_0_PLUS

EXAMPLES = Path(__file__).parents[2] / "example_dags"
FILES = [
    # Airflow 3 introduced asset watchers.
    file
    for file in sorted(EXAMPLES.glob("*.py"))
    if AIRFLOW_V_3_0_PLUS or "AssetWatcher" not in file.read_text()
]


# Runs each DAG that it is told of by `dag.test()`, and says how it ended.
SCRIPT = """
import importlib, json, sys
from airflow.utils.db import initdb

initdb()
for name, conf in json.loads(sys.argv[1]).items():
    dag = getattr(importlib.import_module(name), name)()
    print("the end of", name, dag.test(run_conf=conf).state)
"""


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_example_is_parsed_to_the_dag_of_its_name(file, monkeypatch):
    monkeypatch.delenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", raising=False)
    bag = parsed(file)
    assert bag.import_errors == {}
    assert list(bag.dags) == [file.stem]


def test_the_examples_are_all_there():
    by_event = EVENTS if AIRFLOW_V_3_0_PLUS else ()
    assert [file.stem for file in FILES] == [
        "keep_job", "mapped_runs", "run_job_deferrable", *by_event, "submit_notebook", "taskflow", "wait_for_job",
        "wait_for_run",
        "workflow_group",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "field", "file"),
    [
        ("submit_notebook", "/notebooks/word_count", "notebooks/word_count.py"),
        ("taskflow", "/notebooks/word_count", "notebooks/word_count.py"),
        ("mapped_runs", "/jobs/load_table.py", "jobs/load_table.py"),
        ("workflow_group", "/notebooks/sales", "notebooks/sales.py"),
        ("workflow_group", "/notebooks/clean_up", "notebooks/clean_up.py"),
    ],
)
def test_what_an_example_runs_is_in_the_examples_workspace(name, field, file):
    assert f'"{field}"' in (EXAMPLES / f"{name}.py").read_text()
    assert (EXAMPLES / "workspace" / file).is_file()


@pytest.mark.airflow
def test_the_examples_succeed_by_dag_test(tmp_path):
    shutil.copytree(EXAMPLES / "workspace", tmp_path / "workspace")
    with WorkspaceServer(tmp_path / "workspace", tmp_path / "logs") as server:
        confs = {file.stem: PREPARATIONS.get(file.stem, lambda _: {})(server) for file in FILES}
        said = run_script(tmp_path, EXAMPLES, server.connection, "-c", SCRIPT, json.dumps(confs))
        runs = server.runs()
    ends = [line.removeprefix("the end of ") for line in said.splitlines() if line.startswith("the end of ")]
    assert ends == [f"{file.stem} success" for file in FILES], said
    # Beside what the operators have launched: the run of `nightly-load` and the one started elsewhere, for the sensors.
    assert Counter(run["run_name"] for run in runs) == {
        "add": 1, "count_words": 4, "daily-report": 1, "load": 3, "nightly-load": 1, "say 11 words": 1,
        "started elsewhere": 1, "weekly-report": 1, "workflow_group.sales": 1,
    }  # fmt: skip
    assert {run["state"]["result_state"] for run in runs} == {"SUCCESS"}
