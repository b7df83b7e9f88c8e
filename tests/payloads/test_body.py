"""payloads: how a request body is put together, and what is refused before it is sent."""

from __future__ import annotations

from datetime import date

import pytest

from airflow_dbjobs.errors import ConfigurationError, PayloadError
from airflow_dbjobs.payloads import PauseStatus, RunNow, check, merge


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
def test_a_body_may_be_a_mapping_or_the_text_that_jinja_makes_of_one(body: object) -> None:
    assert merge(body, {}) == {"run_name": "x", "n": 1}


@pytest.mark.parametrize("body", [None, "", {}])
def test_without_a_body_the_named_parameters_are_the_payload(body: object) -> None:
    assert merge(body, {"job_id": 5, "run_name": None}) == {"job_id": 5}


def test_a_named_parameter_wins_unless_it_is_none() -> None:
    given = {"run_name": "json", "timeout_seconds": 10, "queue": {"enabled": True}}
    named = {"run_name": "named", "timeout_seconds": None, "queue": {"enabled": False}}
    assert merge(given, named) == {"run_name": "named", "timeout_seconds": 10, "queue": {"enabled": False}}
    assert given["run_name"] == "json"


def test_none_is_dropped_at_any_depth_and_types_are_kept() -> None:
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
        ([1], "json must be a mapping, or the text of one, and is of type list"),
        ("[1, 2]", "json must be a mapping"),
        ("5", "and is of type int"),
        ("{{ json }}", "Check how its template renders"),
        ("{'a': open('x')}", "neither JSON nor a Python literal"),
        ({"tasks": [{"when": date(2026, 1, 1)}]}, "tasks[0].when is a date, which JSON cannot hold"),
        ({"a": {"b": {1, 2}}}, "a.b is a set"),
        ({7: b"x"}, "7 is a bytes"),
        ("no json " * 500, "a text of 3999 characters that is neither JSON nor a Python literal. Check how its"),
    ],
)
def test_what_is_no_payload_is_refused_with_its_place(body: object, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        merge(body, {})
    assert words in str(caught.value)
    assert len(str(caught.value)) < 300, "a long text is not quoted whole"


def test_a_template_stays_until_it_is_rendered() -> None:
    class Argument:
        def resolve(self) -> None: ...

    argument = Argument()
    assert merge({"a": [argument]}, {}, keep_templates=True) == {"a": [argument]}
    with pytest.raises(ConfigurationError, match=r"a\[0\] is a Argument"):
        merge({"a": [argument]}, {})


def test_an_enum_is_the_word_it_stands_for() -> None:
    (status,) = merge({"pause_status": PauseStatus.PAUSED}, {}).values()
    assert (status, type(status)) == ("PAUSED", str)


def test_one_error_lists_all_violations_and_what_was_misspelt() -> None:
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


def test_a_model_can_be_checked_too() -> None:
    assert check("run-now", RunNow(job_id=1), "2.2") == []
    with pytest.raises(PayloadError, match="REQ-JOB-ID"):
        check("run-now", RunNow(), "2.2")


def test_warnings_are_returned() -> None:
    (warning,) = check("run-now", {"job_id": 1, "idempotency_token": ""}, "2.2")
    assert warning.startswith("idempotency_token [TOKEN-NONEMPTY]: is empty;")
