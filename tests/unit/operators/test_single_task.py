"""DatabricksNotebookOperator and DatabricksTaskOperator outside a workflow group: a one-time run of one task."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from airflow_context import FAST

from airflow_dbjobs.errors import ConfigurationError, PayloadError
from airflow_dbjobs.operators import DatabricksNotebookOperator, DatabricksTaskOperator

NEW_CLUSTER = {"spark_version": "15.4.x-scala2.12", "num_workers": 1}


def notebook(**kwargs: Any) -> DatabricksNotebookOperator:
    return DatabricksNotebookOperator(
        **{"task_id": "load", "notebook_path": "/notebook", "polling_period_seconds": FAST, **kwargs}
    )


def task(**config: Any) -> DatabricksTaskOperator:
    return DatabricksTaskOperator(task_id="load", task_config=config, polling_period_seconds=FAST)


def task_of(operator: Any, scene: Any) -> dict[str, Any]:
    """Return the task that an operator submits."""
    operator.wait_for_termination = False
    operator.execute(scene.context)
    body = scene.sent[-1]
    assert body["run_name"] == "load"
    (submitted,) = body["tasks"]
    return dict(submitted)


class TestRun:
    @pytest.fixture(autouse=True)
    def program(self, scene):
        scene.notebook("dbutils.notebook.exit('at ' + dbutils.widgets.get('day'))", gated=False)

    def test_returns_the_result_of_the_notebook(self, scene, deferrable):
        make = lambda: notebook(notebook_params={"day": "monday"}, deferrable=deferrable)  # noqa: E731
        assert scene.run_task(make) == "at monday"

    def test_returns_the_result_of_a_task(self, scene, deferrable):
        config = {"notebook_path": "/notebook", "base_parameters": {"day": "sunday"}}
        make = lambda: DatabricksTaskOperator(  # noqa: E731
            task_id="load", task_config={"notebook_task": config}, polling_period_seconds=FAST, deferrable=deferrable
        )
        assert scene.run_task(make) == "at sunday"

    def test_renders_the_parameters(self, scene):
        operator = notebook(notebook_params={"day": "{{ ds }}", "id": "{{job.run_id}}"}, max_retries="{{ n }}")
        operator.render_template_fields({"ds": "2026-01-01", "n": 2, "ti": scene.ti})
        submitted = task_of(operator, scene)
        assert submitted["notebook_task"]["base_parameters"] == {"day": "2026-01-01", "id": "{{job.run_id}}"}
        assert submitted["max_retries"] == "2"


class TestTask:
    def test_has_what_is_given(self, scene):
        operator = notebook(
            source="WORKSPACE",
            notebook_params={"a": 1},
            notebook_packages=[{"pypi": {"package": "a"}}],
            libraries=[{"jar": "a.jar"}],
            new_cluster=NEW_CLUSTER,
            max_retries=3,
            min_retry_interval_millis=10,
            retry_on_timeout=True,
            databricks_task_key="mine",
            execution_timeout=timedelta(minutes=2),
        )
        assert task_of(operator, scene) == {
            "task_key": "mine",
            "notebook_task": {"notebook_path": "/notebook", "source": "WORKSPACE", "base_parameters": {"a": "1"}},
            "libraries": [{"jar": "a.jar"}, {"pypi": {"package": "a"}}],
            "new_cluster": NEW_CLUSTER,
            "max_retries": 3,
            "min_retry_interval_millis": 10,
            "retry_on_timeout": True,
            "timeout_seconds": 120,
        }

    def test_has_nothing_of_what_dags_of_the_official_operator_leave_empty(self, scene):
        operator = notebook(
            source="WORKSPACE",
            existing_cluster_id="1-2-3",
            job_cluster_key="",
            new_cluster={},
            notebook_packages=[],
            notebook_params={},
        )
        assert task_of(operator, scene) == {
            "task_key": "load",
            "notebook_task": {"notebook_path": "/notebook", "source": "WORKSPACE"},
            "existing_cluster_id": "1-2-3",
        }

    def test_needs_no_cluster(self, scene):
        assert task_of(notebook(), scene) == {"task_key": "load", "notebook_task": {"notebook_path": "/notebook"}}

    def test_has_the_fields_of_the_operator_before_those_of_its_config(self, scene):
        config = {"sql_task": {"warehouse_id": "w", "query": {"query_id": "q"}}, "max_retries": 1, "timeout_seconds": 5}
        operator = DatabricksTaskOperator(task_id="load", task_config=config, max_retries=0)
        assert task_of(operator, scene) == {"task_key": "load", **config, "max_retries": 0}
        assert config["max_retries"] == 1

    def test_has_the_key_in_its_config(self, scene):
        config = {"task_key": "mine", "notebook_task": {"notebook_path": "/notebook"}}
        assert task_of(DatabricksTaskOperator(task_id="load", task_config=config), scene) == config


class TestRefuses:
    def test_two_clusters(self):
        with pytest.raises(PayloadError, match=r"has existing_cluster_id and new_cluster.*Keep only one"):
            notebook(new_cluster=NEW_CLUSTER, existing_cluster_id="1-2-3")

    def test_a_shared_cluster(self):
        with pytest.raises(PayloadError, match=r"job_cluster_key.*cannot share a cluster.*Set new_cluster"):
            notebook(job_cluster_key="small")

    def test_a_config_that_is_no_dict(self):
        with pytest.raises(ConfigurationError, match="load: task_config must be a dict; its values may be templates"):
            DatabricksTaskOperator(task_id="load", task_config="{{ x }}")

    def test_a_config_without_a_task(self):
        with pytest.raises(PayloadError, match="has no task type"):
            task(max_retries=1)

    def test_a_task_next_to_the_notebook(self):
        with pytest.raises(PayloadError, match="has notebook_task and spark_python_task"):
            notebook(spark_python_task={"python_file": "/a.py"})


class TestOfAnotherRun:
    def test_is_not_checked_as_a_run_of_its_own(self):
        operator = notebook(job_cluster_key="small", workflow_run_metadata={"conn_id": "a", "job_id": 1, "run_id": 2})
        assert operator.databricks_task_key == "load"
        assert operator.databricks_task()["job_cluster_key"] == "small"
