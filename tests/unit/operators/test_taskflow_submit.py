"""``@task.databricks_submit``: a function returns the payload of a run, or a part of it."""

from __future__ import annotations

from typing import Any

import pytest
from airflow import DAG
from airflow_context import AIRFLOW_V_3_0_PLUS, FAST

from airflow_dbjobs.errors import ConfigurationError, PayloadError
from airflow_dbjobs.operators.taskflow import databricks_submit_task
from airflow_dbjobs.payloads import NotebookTask, SubmitRun

if AIRFLOW_V_3_0_PLUS:
    from airflow.sdk import task
else:
    from airflow.decorators import task

CODE = "dbutils.notebook.exit(dbutils.widgets.get('day'))"


def submitting(function: Any, *args: Any, op_kwargs: Any = None, **kwargs: Any) -> Any:
    """Return the operator of a call of the decorated function."""
    decorated = databricks_submit_task(function, **{"polling_period_seconds": FAST, "timeout_seconds": 20, **kwargs})
    return decorated(*args, **(op_kwargs or {})).operator


@pytest.fixture
def load(scene):
    """Return a function that describes a run of a notebook, which returns the day."""
    notebook = scene.notebook(CODE, gated=False)

    def load(day: str) -> SubmitRun:
        return SubmitRun(
            notebook_task=NotebookTask(**notebook, base_parameters={"day": day}), run_name="of the function"
        )

    return load


class TestTask:
    def test_is_what_airflow_finds_by_its_name(self):
        assert task.databricks_submit is databricks_submit_task

    def test_runs_what_the_function_returns(self, scene, load, deferrable):
        assert scene.run_task(lambda: submitting(load, "monday", deferrable=deferrable)) == "monday"
        assert [deferral.method_name for deferral in scene.deferrals] == ["execute_complete"] * deferrable
        assert scene.sent[0]["run_name"] == "of the function"
        assert scene.sent[0]["timeout_seconds"] == 20

    def test_prefers_parameters_of_the_decorator_which_override_may_set(self, scene, load):
        decorated = databricks_submit_task(
            load, polling_period_seconds=FAST, json={"run_name": "of json", "queue": {"enabled": True}}
        )
        decorated.override(task_id="again", run_name="of override")("monday").operator.execute(scene.context)
        decorated("monday").operator.execute(scene.context)
        assert [(body["run_name"], body["queue"]["enabled"]) for body in scene.sent] == [
            ("of override", True), ("of the function", True),
        ]  # fmt: skip

    def test_gives_the_function_what_it_wants_of_the_context(self, scene, load):
        def load_day(prefix: str, ds: Any = None, **context: Any) -> SubmitRun:
            return load(f"{prefix} {ds} {context['ti'].task_id}")

        scene.context["ds"] = "2026-01-01"
        assert submitting(load_day, op_kwargs={"prefix": "on"}).execute(scene.context) == "on 2026-01-01 load"

    def test_renders_what_the_function_returns_and_keeps_references_of_databricks(self, scene, load):
        with DAG("nightly", schedule=None):
            operator = submitting(load, "{{ ds }}")
        operator.python_callable = lambda day: {**load(day), "run_name": "{{ ds }} {{job.run_id}}"}
        operator.render_template_fields({**scene.context, "ds": "2026-01-01"})
        assert operator.execute({**scene.context, "ds": "2026-01-01"}) == "2026-01-01"
        assert scene.sent[0]["run_name"] == "2026-01-01 {{job.run_id}}"

    def test_does_not_render_what_has_been_rendered(self, scene, load):
        """What a template renders to may be foreign text."""
        text = "{{ ds }}"
        operator = submitting(load, "monday", run_name=text)
        operator.execute({**scene.context, "ds": "2026-01-01"})
        assert scene.sent[0]["run_name"] == text

    def test_asks_the_function_again_where_a_resumed_try_launches_again(self, scene, load):
        days = iter(["monday", "tuesday"])
        deferral = scene.defer_task(lambda: submitting(lambda: load(next(days)), task_id="load", deferrable=True))
        scene.ti.max_tries = 1
        scene.next_try()
        scene.new_process()
        resumed = submitting(lambda: load(next(days)), task_id="load", durable=False)
        assert resumed.resume_execution(deferral.method_name, {**deferral.kwargs, "event": None}, scene.context) == (
            "tuesday"
        )
        assert [body["notebook_task"]["base_parameters"]["day"] for body in scene.sent] == ["monday", "tuesday"]

    def test_keeps_nothing_that_the_function_returned_before(self, scene, load):
        names = iter([{"run_name": "first"}, {}])
        operator = submitting(lambda: {**load("monday"), "run_name": None, **next(names)}, task_id="load")
        for _ in range(2):
            operator.execute(scene.context)
        assert [body["run_name"] for body in scene.sent] == ["first", "load"]

    @pytest.mark.parametrize("returned", [None, [], "/notebook"])
    def test_fails_without_a_retry_if_the_function_returns_no_mapping(self, scene, returned):
        def wrong() -> Any:
            return returned

        with pytest.raises(ConfigurationError, match=r"^wrong returned a value of type (NoneType|list|str)\. It must"):
            submitting(wrong).execute(scene.context)
        assert scene.sent == []

    def test_checks_what_the_function_returns(self, scene):
        with pytest.raises(PayloadError, match="NB-PATH-ABSOLUTE"):
            submitting(lambda: {"notebook_task": {"notebook_path": "relative"}}, task_id="load").execute(scene.context)

    def test_checks_parameters_when_the_dag_is_parsed_and_misses_none_that_the_function_may_return(self, load):
        submitting(load, "monday")
        with pytest.raises(PayloadError, match="new_cluster"):
            submitting(load, "monday", new_cluster={"num_workers": -1})

    def test_stores_no_output_for_each_field_of_the_payload(self, load):
        def annotated() -> dict[str, Any]:
            return load("monday")

        assert submitting(annotated).multiple_outputs is False
        assert submitting(annotated, multiple_outputs=True).multiple_outputs is True
