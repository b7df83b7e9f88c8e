"""payloads: how a request body is put together, and what is refused before it is sent."""

from __future__ import annotations

import math
import traceback
from datetime import date
from enum import Enum
from pathlib import Path

import pytest

from airflow_dbjobs.errors import ConfigurationError, PayloadError
from airflow_dbjobs.payloads import PauseStatus, check, check_early, merge


class TestTemplate:
    def test_is_kept_until_it_is_rendered(self) -> None:
        class Argument:
            def resolve(self) -> None: ...

        argument = Argument()
        assert merge({"a": [argument]}, {}, keep_templates=True) == {"a": [argument]}
        with pytest.raises(ConfigurationError, match=r"a\[0\] is a Argument"):
            merge({"a": [argument]}, {})

    @pytest.mark.parametrize("text", ["{{ job }}", "{% if night %}7{% endif %}", "{# of the night #}7"])
    def test_is_not_checked_before_it_is_rendered(self, text: str) -> None:
        assert check_early("run-now", {"job_id": text}, {}) == []


class Setting(str, Enum):  # noqa: UP042 (the str() of a StrEnum is its value, so that it shows nothing here)
    """A key that is spelt in one place."""

    ADAPTIVE = "spark.sql.adaptive.enabled"


class TestRunParameters:
    @pytest.mark.parametrize("keep_templates", [True, False])
    def test_that_are_numbers_or_booleans_become_text(self, keep_templates: bool) -> None:
        body = {
            "notebook_params": {"day": 20260101, "share": 0.1, "full": True, "gone": None, "name": "x"},
            "python_params": [20260101, 1e22, False, "x"],
            "job_id": 7,
        }
        assert merge(body, {"sql_params": {"big": 2**70}}, keep_templates=keep_templates) == {
            "notebook_params": {"day": "20260101", "share": "0.1", "full": "true", "name": "x"},
            "python_params": ["20260101", "1e+22", "false", "x"],
            "job_id": 7,
            "sql_params": {"big": str(2**70)},
        }

    @pytest.mark.parametrize(
        "wrong",
        [{"python_params": [["a"]]}, {"jar_params": [None]}, {"notebook_params": {"a": {}}}, {"notebook_params": 1.5}],
    )
    def test_that_are_lists_mappings_or_null_are_errors(self, wrong: dict[str, object]) -> None:
        with pytest.raises(PayloadError, match=r"PARAM-(LIST|MAP)-VALUES"):
            check_early("run-now", {"job_id": 1, **wrong}, {})

    def test_that_are_numbers_become_text_wherever_they_are(self) -> None:
        task = {"notebook_path": "/a", "base_parameters": {"n": 5, "b": True, "t": "{{ ds }}", "none": None}}
        made = merge(
            {"tasks": [{"task_key": "a", "for_each_task": {"inputs": "[1]", "task": {"notebook_task": task}}}]},
            {"spark_jar_task": {"parameters": [1, "a", 2.5]}, "parameters": [{"name": "n", "default": 5}]},
        )
        inner = made["tasks"][0]["for_each_task"]["task"]["notebook_task"]
        assert inner["base_parameters"] == {"n": "5", "b": "true", "t": "{{ ds }}"}
        assert made["spark_jar_task"] == {"parameters": ["1", "a", "2.5"]}
        assert made["parameters"] == [{"name": "n", "default": 5}]
        assert task["base_parameters"]["n"] == 5

    def test_that_are_numbers_are_refused_by_the_check_alone(self) -> None:
        with pytest.raises(PayloadError, match=r"notebook_params.a \[PARAM-MAP-VALUES\]"):
            check("run-now", {"job_id": 1, "notebook_params": {"a": 1}}, "2.2")
        assert check("run-now", {"job_id": 1, "notebook_params": {"a": None}}, "2.2") == []


def holding_itself() -> dict[str, object]:
    body: dict[str, object] = {"job_id": 1}
    body["notebook_params"] = body
    return body


def nested(depth: int) -> dict[str, object]:
    body: dict[str, object] = {}
    for _ in range(depth):
        body = {"a": body}
    return body


class TestRenderedText:
    @pytest.mark.parametrize(
        "text", ["[{'task_key': 'a', 'run_if': None}]", '[{"task_key": "a"}]', "\n ({'task_key': 'a'},)"]
    )
    def test_of_a_list_is_read_as_json(self, text: str) -> None:
        made = {"tasks": [{"task_key": "a"}]}
        assert merge(None, {"tasks": text}) == merge({"tasks": text}, {}) == made
        assert merge(None, {"tasks": ""}) == merge(None, {"tasks": "None"}) == {}

    def test_may_contain_databricks_placeholders(self) -> None:
        made = merge(None, {"job_parameters": "{'run': '{{job.run_id}}', 'day': 20260101}"})
        assert made == {"job_parameters": {"run": "{{job.run_id}}", "day": "20260101"}}

    @pytest.mark.parametrize("text", ["hunter2 + x", "42", "{'a': open('hunter2')}"])
    def test_that_is_no_list_or_mapping_is_not_quoted(self, text: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            merge(None, {"new_cluster": text})
        assert f"new_cluster is a string of {len(text)} characters" in str(caught.value)
        assert "render_template_as_native_obj" in str(caught.value)
        assert "hunter2" not in str(caught.value)

    def test_stays_text_where_text_or_a_placeholder_is_valid(self) -> None:
        body = {"run_name": "[1]", "existing_cluster_id": "{'a': 1}", "job_parameters": "{{job.parameters}}"}
        assert merge(body, {}) == body

    def test_is_no_list_at_parse_time_without_a_template(self) -> None:
        with pytest.raises(PayloadError, match=r"tasks \[REQ-FIELD-TYPE\]"):
            check_early("runs/submit", None, {"tasks": "[]"})

    def test_with_too_many_digits_may_be_a_placeholder_at_parse(self) -> None:
        (told,) = check_early("run-now", {"job_id": "9" * 5000}, {})
        assert "REQ-JOB-ID" in told
        with pytest.raises(PayloadError, match="REQ-JOB-ID"):
            check("run-now", {"job_id": "9" * 5000}, "2.2")

    @pytest.mark.parametrize("text", ['{"a":' * 100_000 + "1" + "}" * 100_000, '{"job_id": ' + "1" * 5000 + "}"])
    def test_that_python_cannot_read_is_refused(self, text: str) -> None:
        with pytest.raises(ConfigurationError, match="json is a string of"):
            merge(text, {})

    def test_that_python_cannot_read_is_not_in_the_traceback(self) -> None:
        text = "{'password': s3cr3t"
        with pytest.raises(ConfigurationError) as caught:
            merge(text, {})
        assert "s3cr3t" not in "".join(traceback.format_exception(caught.value))


class TestBody:
    @pytest.mark.parametrize(
        "body",
        [
            {"run_name": "x", "n": 1},
            '{"run_name": "x", "n": 1}',
            "{'run_name': 'x', 'n': 1}",
            "\n  {'run_name': 'x', 'n': 1, 'gone': None}\n",
            '{"run_name": "x", "n": 1, "gone": null}',
        ],
    )
    def test_may_be_a_mapping_or_rendered_text(self, body: object) -> None:
        assert merge(body, {}) == {"run_name": "x", "n": 1}

    @pytest.mark.parametrize("body", [None, "", {}])
    def test_may_be_replaced_by_named_parameters(self, body: object) -> None:
        assert merge(body, {"job_id": 5, "run_name": None}) == {"job_id": 5}

    def test_is_overridden_by_named_parameters_except_none(self) -> None:
        given = {"run_name": "json", "timeout_seconds": 10, "queue": {"enabled": True}}
        named = {"run_name": "named", "timeout_seconds": None, "queue": {"enabled": False}}
        assert merge(given, named) == {"run_name": "named", "timeout_seconds": 10, "queue": {"enabled": False}}
        assert given["run_name"] == "json"

    def test_loses_none_at_any_depth_and_keeps_types(self) -> None:
        body = {"a": None, "b": {"c": None, "d": [{"e": None, "f": 0}]}, "t": (1, 2.5, True, "3", ""), 7: {7: False}}
        assert merge(body, {"g": {"h": None}}) == {
            "b": {"d": [{"f": 0}]},
            "t": [1, 2.5, True, "3", ""],
            "7": {"7": False},
            "g": {},
        }

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            ([1], "json is of type list; it must be a mapping, or a string that holds one"),
            ("[1, 2]", "it must be a mapping"),
            ("5", "json is of type int"),
            ("{{ json }}", "Check what its template renders to"),
            ("{'a': open('x')}", "neither JSON nor a Python literal"),
            ({"tasks": [{"when": date(2026, 1, 1)}]}, "tasks[0].when is a date, which JSON cannot hold"),
            ({"a": {"b": {1, 2}}}, "a.b is a set"),
            ({7: b"x"}, "7 is a bytes"),
            ("no json " * 500, "a string of 3999 characters that is neither JSON nor a Python literal. Check what its"),
        ],
    )
    def test_that_is_no_payload_is_refused_with_its_place(self, body: object, words: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            merge(body, {})
        assert words in str(caught.value)
        assert len(str(caught.value)) < 300, "a long text is not quoted whole"

    def test_has_enums_replaced_by_their_values(self) -> None:
        (status,) = merge({"pause_status": PauseStatus.PAUSED}, {}).values()
        assert (status, type(status)) == ("PAUSED", str)

    def test_has_the_keys_that_json_makes_of_them(self) -> None:
        keys = {Setting.ADAPTIVE: "a", True: "b", None: "c", 7: "d", 1.5: "e"}
        assert merge({"conf": keys}, {}) == {
            "conf": {"spark.sql.adaptive.enabled": "a", "true": "b", "null": "c", "7": "d", "1.5": "e"}
        }

    def test_may_contain_a_lone_surrogate(self) -> None:
        assert merge({"name": "\ud800"}, {}) == {"name": "\ud800"}
        with pytest.raises(PayloadError, match="has 6,000 bytes"):
            check(
                "runs/submit", {"run_name": "\ud800" * 6000, "tasks": [{"task_key": "a", "condition_task": {}}]}, "2.2"
            )


class TestCheck:
    @pytest.mark.parametrize(
        ("body", "words"),
        [
            (holding_itself(), "contains itself"),
            (nested(5000), "too deeply"),
            ({"job_id": 10**5000}, "job_id is a number of more than 100 digits"),
            ({"job_id": 1, ("a",): 2}, "the payload has a key that is of type tuple"),
            ({"job_id": 1, "notebook_params": {b"a": "b"}}, "notebook_params has a key that is of type bytes"),
            ({"job_id": 1, "more": {math.nan: 1}}, "more has a key that is of type float"),
            ({"job_id": 1, "more": [{"a": math.nan}]}, r"more\[0\].a is nan, which JSON cannot hold"),
            ({"job_id": 1, "notebook_params": {"a": -math.inf}}, "notebook_params.a is -inf, which JSON cannot hold"),
            ({"job_id": 1, "more": Path("/a")}, "more is a PosixPath"),
            ({"job_id": 1, "more": print}, "more is a builtin_function_or_method"),
        ],
    )  # fmt: skip
    def test_refuses_impossible_payloads_in_both_forms(self, body: dict[str, object], words: str) -> None:
        with pytest.raises(ConfigurationError, match=words):
            check_early("run-now", body, {})
        with pytest.raises(ConfigurationError, match=words):
            check("run-now", body, "2.2")

    @pytest.mark.parametrize(("endpoint", "version"), [("runs/start", "2.2"), ("run-now", "2.3")])
    def test_refuses_an_unknown_endpoint_or_version(self, endpoint: str, version: str) -> None:
        with pytest.raises(ConfigurationError, match=r"must be one of .*(run-now|2\.1)"):
            check(endpoint, {"job_id": 1}, version)

    def test_lists_all_violations_and_misspellings_in_one_error(self) -> None:
        task = {"task_key": "a", "new_cluster": {"spark_version": "x", "num_workers": -1, "node_type_id": "m"}}
        tasks = [{**task, "notebook_task": {"notebok_path": "/a"}}, {**task, "sql_task": 1}]
        with pytest.raises(PayloadError) as caught:
            check("runs/submit", {"tasks": tasks, "idempotency_token": "x" * 65}, "2.2")
        assert caught.value.endpoint == "jobs/runs/submit"
        assert [line.split("]:")[0] for line in caught.value.violations] == [
            "- tasks[1].task_key [TASKKEY-UNIQUE",
            "- idempotency_token [TOKEN-SUBMIT-LENGTH",
            "- tasks[0].new_cluster.num_workers [CLUSTER-NUM-WORKERS",
            "- tasks[0].notebook_task.notebook_path [NB-PATH",
            "- tasks[0].notebook_task.notebok_path [FIELD-NAME",
            "- tasks[1].new_cluster.num_workers [CLUSTER-NUM-WORKERS",
            "- tasks[1].sql_task [REQ-FIELD-TYPE",
        ]
        assert str(caught.value).splitlines()[1:] == caught.value.violations

    def test_returns_warnings(self) -> None:
        (warning,) = check("run-now", {"job_id": 1, "idempotency_token": ""}, "2.2")
        assert warning.startswith("idempotency_token [TOKEN-NONEMPTY]: is empty;")
