"""job_parameters: which templates of a task travel as parameters of its job, and how."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from airflow_dbjobs.errors import ConfigurationError
from airflow_dbjobs.payloads.job_parameters import JobParameters, check_size, own_names, to_text

DAY = "at {{ ds }}"


class Output:
    """Recognized as an XComArg is."""

    def resolve(self, context: Any) -> str:
        return str(context)


def hoist(
    task: dict[str, Any], taken: tuple[str, ...] = (), key: str = "load"
) -> tuple[Any, dict[str, Any], list[str]]:
    """Return what Databricks gets of a task, the templates by the names of the parameters, and what stays in it."""
    parameters = JobParameters({*taken, *own_names(task)})
    hoisted = parameters.hoist(task, "load", "etl.load")
    return as_rendered(hoisted), parameters.templates, parameters.fixed


def as_rendered(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: as_rendered(item) for name, item in value.items()}
    if isinstance(value, list):
        return [as_rendered(item) for item in value]
    return re.sub(r"\{\{ '(.*?)' \}\}", r"\1", value) if isinstance(value, str) else value


class TestHoist:
    @pytest.mark.parametrize(
        ("kind", "settings", "name"),
        [
            ("notebook_task", {"base_parameters": {"day": DAY}}, "day"),
            ("spark_python_task", {"parameters": ["a", DAY]}, "parameters_1"),
            ("spark_jar_task", {"parameters": [DAY]}, "parameters_0"),
            ("spark_submit_task", {"parameters": [DAY]}, "parameters_0"),
            ("python_wheel_task", {"parameters": [DAY]}, "parameters_0"),
            ("python_wheel_task", {"named_parameters": {"x-y": DAY}}, "x_y"),
            ("sql_task", {"parameters": {"day": DAY}}, "day"),
            ("dbt_task", {"commands": [DAY]}, "commands_0"),
            ("run_job_task", {"job_parameters": {"day": DAY}}, "day"),
            ("condition_task", {"left": DAY, "right": "1"}, "left"),
            ("condition_task", {"left": "1", "right": DAY}, "right"),
            ("for_each_task", {"inputs": DAY}, "inputs"),
            ("for_each_task", {"task": {"notebook_task": {"base_parameters": {"day": DAY}}}}, "day"),
        ],
    )
    def test_replaces_a_template_by_a_reference(self, kind, settings, name):
        hoisted, templates, fixed = hoist({kind: settings})
        expected = json.dumps({kind: settings}).replace(DAY, f"{{{{job.parameters.load_{name}}}}}")
        assert hoisted == json.loads(expected)
        assert templates == {f"load_{name}": DAY}
        assert fixed == []

    def test_replaces_an_output(self):
        output = Output()
        hoisted, templates, _ = hoist({"notebook_task": {"base_parameters": {"n": output}}})
        assert hoisted["notebook_task"]["base_parameters"]["n"] == "{{job.parameters.load_n}}"
        assert templates == {"load_n": output}

    def test_keeps_what_does_not_change(self):
        task = {
            "notebook_task": {
                "notebook_path": "/a",
                "base_parameters": {
                    "text": "plain",
                    "run": "{{job.run_id}}",
                    "value": "{{tasks.extract.values.n}}",
                    "constant": "{{ '{{job.id}}' }}",
                    "number": 3,
                },
            }
        }
        hoisted, templates, fixed = hoist(task)
        assert hoisted == as_rendered(task)
        assert (templates, fixed) == ({}, [])

    def test_keeps_references_of_databricks_in_place(self):
        text = "{{ ds }}/{{job.run_id}}/{{ params.x }}"
        hoisted, templates, _ = hoist({"notebook_task": {"base_parameters": {"path": text}}})
        found = hoisted["notebook_task"]["base_parameters"]["path"]
        assert found == "{{job.parameters.load_path}}/{{job.run_id}}/{{job.parameters.load_path_2}}"
        assert templates == {"load_path": "{{ ds }}", "load_path_2": "{{ params.x }}"}

    def test_keeps_text_around_an_expression_in_its_parameter(self):
        _, templates, _ = hoist(
            {"notebook_task": {"base_parameters": {"path": "s3://{{ ds }}/{% if x %}y{% endif %}"}}}
        )
        assert templates == {"load_path": "s3://{{ ds }}/{% if x %}y{% endif %}"}

    def test_leaves_a_statement_around_a_reference_in_the_settings(self):
        text = "{% if x %}{{job.run_id}}{% endif %}"
        hoisted, templates, fixed = hoist({"notebook_task": {"base_parameters": {"path": text}}})
        assert hoisted["notebook_task"]["base_parameters"]["path"] == text
        assert templates == {}
        assert fixed == ["etl.load.notebook_task.base_parameters.path"]

    def test_hoists_the_run_id_of_airflow(self):
        _, templates, _ = hoist({"notebook_task": {"base_parameters": {"id": "{{run_id}}"}}})
        assert templates == {"load_id": "{{run_id}}"}

    @pytest.mark.parametrize(
        ("task", "fixed"),
        [
            ({"notebook_task": {"notebook_path": "/{{ ds }}"}}, ["notebook_task.notebook_path"]),
            ({"notebook_task": {"base_parameters": Output()}}, ["notebook_task.base_parameters"]),
            ({"new_cluster": {"custom_tags": {"day": "{{ ds }}"}}}, ["new_cluster.custom_tags.day"]),
            ({"libraries": [{"jar": "{{ ds }}"}]}, ["libraries[0].jar"]),
            ({"spark_python_task": {"parameters": "args.json-tpl"}}, ["spark_python_task.parameters"]),
            ({"for_each_task": {"inputs": ["{{ ds }}"]}}, ["for_each_task.inputs[0]"]),
            ({"timeout_seconds": "{{ params.t }}"}, ["timeout_seconds"]),
        ],
    )
    def test_names_the_templates_that_stay(self, task, fixed):
        hoisted, templates, found = hoist(task)
        assert hoisted == task
        assert templates == {}
        assert found == [f"etl.load.{path}" for path in fixed]

    def test_gives_each_parameter_its_own_name(self):
        task = {"notebook_task": {"base_parameters": {"a.b": "{{ ds }}", "a_b": "{{ ts }}", "load_a_b_2": "own"}}}
        _, templates, _ = hoist(task, taken=("load_a_b",))
        assert templates == {"load_a_b_3": "{{ ds }}", "load_a_b_4": "{{ ts }}"}

    def test_does_not_change_what_it_is_given(self):
        task = {"notebook_task": {"base_parameters": {"day": "{{ ds }}"}}}
        hoist(task)
        assert task == {"notebook_task": {"base_parameters": {"day": "{{ ds }}"}}}


class TestSize:
    def test_of_ten_thousand_bytes_is_accepted(self):
        check_size({"a": "x" * (10_000 - len('{"job_parameters":{"a":""}}'))})

    def test_of_more_is_refused_and_names_the_largest(self):
        with pytest.raises(
            ConfigurationError, match=r"have 10,0\d\d bytes.*The largest: b \(9,000 bytes\), c \(970 bytes\)"
        ):
            check_size({"a": "x", "b": "é" * 4500, "c": "x" * 970})


@pytest.mark.parametrize(
    ("value", "text"), [("a", "a"), (1, "1"), (True, "true"), (["a", 1], '["a", 1]'), (range(2), "[0, 1]"), ({}, "{}")]
)
def test_a_parameter_is_sent_as_text(value, text):
    assert to_text(value) == text
