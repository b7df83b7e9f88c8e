"""Databricks' own references in payloads: they reach it as they are written, unless Airflow has a value of the name."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from airflow import DAG, XComArg
from airflow_context import run_now, submit
from documentation import text_of

from airflow_dbjobs.operators import DatabricksCreateJobsOperator, DatabricksRunNowOperator
from airflow_dbjobs.payloads import NotebookTask

PAGE = text_of("payloads")
CELL = re.compile(r"`` ?(.+?) ?``|`([^`]+)`")
ROWS = [
    tuple(next(filter(None, CELL.match(cell.strip()).groups())) for cell in line.split("|")[1:3])
    for line in PAGE.splitlines()
    if line.startswith(("| `{", "| ``{"))
]
CONTEXT = {"ds": "2026-01-01", "run_id": "manual__1", "params": {"region": "eu"}}
REFERENCES = [sent for written, sent in ROWS if written == sent]


@pytest.fixture
def log_text(caplog, capfd):
    """Return what gives, and forgets, the warnings so far: Airflow 3 prints them, Airflow 2 logs them."""

    def warnings() -> list[str]:
        logged, printed = caplog.messages.copy(), capfd.readouterr().out.splitlines()
        caplog.clear()
        lines = logged or printed
        return [line for line in lines if "both Airflow and Databricks define" in line]

    return warnings


def rendered(operator: Any, **context: Any) -> Any:
    operator.render_template_fields({**CONTEXT, "task": operator, **context})
    return operator


def with_parameter(text: Any, **kwargs: Any) -> Any:
    return submit(notebook_task={"notebook_path": "/x", "base_parameters": {"value": text}}, **kwargs)


class TestTable:
    @pytest.mark.parametrize("native", [False, True])
    @pytest.mark.parametrize(("written", "sent"), ROWS)
    def test_in_the_docs_is_right(self, written, sent, native):
        with DAG("nightly", schedule=None, render_template_as_native_obj=native):
            operator = rendered(with_parameter(written))
        assert operator.notebook_task["base_parameters"]["value"] == sent

    def test_in_the_docs_has_every_namespace(self):
        roots = {re.split(r"\W", reference.strip("{ "))[0] for reference in REFERENCES}
        assert roots == {"job", "tasks", "input", "workspace", "backfill", "job_id", "task"}


class TestAmbiguousReferences:
    def test_defined_by_the_dag_are_airflows_with_a_warning(self, log_text):
        with DAG("nightly", schedule=None, user_defined_macros={"job": {"run_id": 5}}):
            operator = with_parameter("{{job.run_id}} {{workspace.url}}")
        (message,) = log_text()
        assert "base_parameters.value: both Airflow and Databricks define {{job.run_id}}" in message
        assert rendered(operator).notebook_task["base_parameters"]["value"] == "5 {{workspace.url}}"

    @pytest.mark.parametrize(
        "reference",
        ["{{run_id}}", "{{task.run_id}}", "{{ task.name }}", "{{task.execution_count}}", "{{ task.notebook_path }}"],
    )
    def test_known_to_airflow_are_a_warning_with_remedies(self, reference, log_text):
        with_parameter(f"x {reference}")
        name = reference.strip("{ }")
        (message,) = log_text()
        assert "notebook_task.base_parameters.value" in message
        for remedy in (f"{{{{ '{reference}' }}}}", f"{{{{ ({name}) }}}}"):
            assert remedy in message
            operator = rendered(with_parameter(remedy), run_id="manual__1")
            assert log_text() == []
        assert operator.notebook_task["base_parameters"]["value"] != reference

    def test_in_a_template_file_are_reported_once(self, log_text, tmp_path):
        (tmp_path / "body.json-tpl").write_text('{"job_id": 7, "notebook_params": {"run": "{{run_id}}"}}')
        with DAG("nightly", schedule=None, template_searchpath=str(tmp_path)):
            operator = run_now(json="body.json-tpl")
        assert log_text() == []
        operator.resolve_template_files()
        operator.resolve_template_files()
        (message,) = log_text()
        assert "{{run_id}}" in message


class TestReferences:
    @pytest.mark.parametrize("native", [False, True])
    def test_pass_in_any_form_of_json(self, scene, native, tmp_path):
        body = {"job_id": 7, "job_parameters": {name: name for name in REFERENCES}}
        (tmp_path / "body.json-tpl").write_text(json.dumps(body))
        with DAG("nightly", schedule=None, template_searchpath=str(tmp_path), render_template_as_native_obj=native):
            operators = [run_now(task_id=f"t{n}", json=given) for n, given in enumerate((body, json.dumps(body)))]
            operators.append(run_now(task_id="file", json="body.json-tpl"))
        for operator in operators:
            operator.resolve_template_files()
            rendered(operator)
            assert (
                operator._build_payload(operator._connect(), scene.context)["job_parameters"] == body["job_parameters"]
            )

    def test_pass_next_to_xcomargs_and_in_types(self):
        with DAG("nightly", schedule=None):
            upstream = submit(task_id="upstream", notebook_task={"notebook_path": "/x"})
            parameters = {"run": "{{job.run_id}}", "id": XComArg(upstream), "day": "{{ ds }}"}
            operator = submit(notebook_task=NotebookTask(notebook_path="/x", base_parameters=parameters))
        operator.notebook_task["base_parameters"].pop("id")
        assert rendered(operator).notebook_task["base_parameters"] == {"run": "{{job.run_id}}", "day": "2026-01-01"}

    def test_pass_in_a_mapped_operator(self, scene):
        with DAG("nightly", schedule=None):
            mapped = DatabricksRunNowOperator.partial(task_id="load", job_id=7, python_params=["{{job.id}}"]).expand(
                job_parameters=[{"run": "{{job.run_id}}", "day": "{{ ds }}"}]
            )
        operator = mapped.unmap({"job_parameters": {"run": "{{job.run_id}}", "day": "{{ ds }}"}})
        # Airflow gives the environment of the mapped operator, which is not ours.
        operator._do_render_template_fields(
            operator, operator.template_fields, CONTEXT, mapped.get_template_env(), set()
        )
        assert operator.job_parameters == {"run": "{{job.run_id}}", "day": "2026-01-01"}
        assert operator.python_params == ["{{job.id}}"]

    def test_pass_in_job_settings(self):
        operator = DatabricksCreateJobsOperator(
            task_id="job",
            name="nightly",
            tasks=[
                {
                    "task_key": "each",
                    "for_each_task": {
                        "inputs": "{{tasks.list.values.tables}}",
                        "task": {
                            "task_key": "one",
                            "run_job_task": {"job_id": 1, "job_parameters": {"x": "{{input.x}}"}},
                        },
                    },
                }
            ],
        )
        (task,) = rendered(operator).tasks
        assert task["for_each_task"]["inputs"] == "{{tasks.list.values.tables}}"
        assert task["for_each_task"]["task"]["run_job_task"]["job_parameters"] == {"x": "{{input.x}}"}

    @pytest.mark.parametrize(
        ("template", "expected"),
        [
            ("{% for job in [{'id': 3}] %}{{ job.id }}{% endfor %}", "3"),
            ("{% set input = 4 %}{{ input }}", "4"),
            ("{{ '}}' }}{{job.id}}", "}}{{job.id}}"),
            ('{{ "{{job.id}}" }}', "{{job.id}}"),
            ("{# {{job.id}} #}", ""),
            ("{{ {'a': '{{job.id}}'}['a'] }}", "{{job.id}}"),
        ],
    )
    def test_do_not_change_other_jinja(self, template, expected):
        operator = rendered(with_parameter(template))
        assert operator.notebook_task["base_parameters"]["value"] == expected

    def test_are_not_looked_for_with_other_delimiters(self):
        with DAG("nightly", schedule=None, jinja_environment_kwargs={"variable_start_string": "[["}):
            operator = with_parameter("{{job.run_id}}")
        assert rendered(operator).notebook_task["base_parameters"]["value"] == "{{job.run_id}}"

    def test_pass_without_validation_and_without_warnings(self, log_text):
        operator = with_parameter("{{run_id}} {{job.id}}", validate=False)
        assert rendered(operator).notebook_task["base_parameters"]["value"] == "manual__1 {{job.id}}"
        assert log_text() == []

    def test_get_their_values_from_databricks(self, scene):
        task = scene.notebook("dbutils.notebook.exit(dbutils.widgets.get('run'))", gated=False)
        operator = submit(notebook_task={**task, "base_parameters": {"run": "{{ ds }}-{{job.run_id}}"}})
        rendered(operator)
        result = operator.execute(scene.context)
        assert result == f"2026-01-01-{scene.ti.xcom['run_id']}"
