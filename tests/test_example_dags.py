"""The example DAGs are parsed as Airflow parses them, with no connection defined; elsewhere they are run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

EXAMPLES = Path(__file__).parent.parent / "example_dags"
FILES = sorted(EXAMPLES.glob("*.py"))


def dagbag(file: Path) -> Any:
    if AIRFLOW_V_3_0_PLUS:
        from airflow.dag_processing.dagbag import DagBag
    else:
        from airflow.models.dagbag import DagBag
    return DagBag(file)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_example_is_parsed_to_the_dag_of_its_name(file, monkeypatch):
    monkeypatch.delenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", raising=False)
    bag = dagbag(file)
    assert bag.import_errors == {}
    assert list(bag.dags) == [file.stem]


def test_the_examples_are_all_there():
    assert [file.stem for file in FILES] == [
        "keep_job", "mapped_runs", "run_job_deferrable", "submit_notebook", "wait_for_job",
        "wait_for_run",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "field", "file"),
    [
        ("submit_notebook", "/notebooks/word_count", "notebooks/word_count.py"),
        ("mapped_runs", "/jobs/load_table.py", "jobs/load_table.py"),
    ],
)
def test_what_an_example_runs_is_in_the_examples_workspace(name, field, file):
    assert f'"{field}"' in (EXAMPLES / f"{name}.py").read_text()
    assert (EXAMPLES / "workspace" / file).is_file()
