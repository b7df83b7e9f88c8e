"""payloads: how a request body is put together, and what is refused before it is sent."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from airflow_dbjobs.errors import ConfigurationError, PayloadError
from airflow_dbjobs.payloads import check_run_now, check_submit, merge

NOTEBOOK = {"notebook_path": "/a"}


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


def violations(check: Any, payload: dict[str, Any]) -> list[str]:
    try:
        check(payload)
    except PayloadError as error:
        return str(error).splitlines()[1:]
    return []


@pytest.mark.parametrize(
    "payload",
    [
        {"notebook_task": NOTEBOOK, "existing_cluster_id": "x"},
        {"tasks": [{"task_key": "a", "notebook_task": NOTEBOOK}, {"task_key": "b", "sql_task": {}}]},
        {"tasks": ({"task_key": "a", "run_job_task": {"job_id": "{{ x }}"}},), "name": "not a field of submit"},
        {"tasks": [{"task_key": "a", "a_task_of_2031_task": {}}]},
        {"some_new_task": {}, "idempotency_token": "x" * 64},
    ],
)
def test_a_submit_that_says_what_to_run_passes(payload: dict[str, Any]) -> None:
    assert violations(check_submit, payload) == []


@pytest.mark.parametrize(
    ("payload", "place", "rule", "remedy"),
    [
        ({}, "- the payload ", "TASK-ONE", "Give one of notebook_task"),
        *[({"tasks": tasks}, "- tasks ", "TASK-ONE", "a list of at least one task") for tasks in ([], {"a": 1}, "a")],
        ({"tasks": ["a"]}, "- tasks[0] ", "TASK-ONE", "must be a mapping"),
        ({"tasks": [{"task_key": "a"}]}, "- tasks[0] ", "TASK-ONE", "Give one of"),
        ({"notebook_task": "/a"}, "- notebook_task ", "REQ-FIELD-TYPE", "must be a mapping"),
        ({"tasks": [{"b_task": {}, "a_task": {}}]}, "- tasks[0].a_task, tasks[0].b_task ", "TASK-ONE", "leave one of"),
        ({"tasks": [{"sql_task": {}}], "a_task": {}}, "- tasks, a_task ", "TASK-FLAT-XOR-LIST", "not both"),
        ({"a_task": {}, "idempotency_token": "x" * 65}, "- idempotency_token ", "TOKEN-LENGTH", "Leave it out"),
    ],
)
def test_a_submit_is_refused_with_place_rule_and_remedy(
    payload: dict[str, Any], place: str, rule: str, remedy: str
) -> None:
    (violation,) = violations(check_submit, payload)
    assert violation.startswith(place)
    assert f"[{rule}]" in violation
    assert remedy in violation


def test_one_message_lists_all_violations() -> None:
    tasks = [{"task_key": "a"}, {"task_key": "b", "sql_task": {}}, {"task_key": "c", "sql_task": 1}, 5]
    token = {"idempotency_token": "x" * 65}
    found = [*violations(check_submit, {"tasks": tasks, **token}), *violations(check_run_now, token)]
    places = ["idempotency_token", "tasks[0]", "tasks[2].sql_task", "tasks[3]", "idempotency_token", "job_id"]
    assert [text.removeprefix("- ").split(" [")[0] for text in found] == places


@pytest.mark.parametrize("payload", [{"job_id": 5}, {"job_id": "5"}, {"job_name": "nightly"}, {"job_id": 2**60}])
def test_a_run_now_that_names_its_job_passes(payload: dict[str, Any]) -> None:
    assert violations(check_run_now, {**payload, "notebook_params": {}, "idempotency_token": "x" * 64}) == []


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ({}, "- job_id [REQ-JOB-ID]: missing. Give the job's id, or its job_name."),
        ({"job_name": ""}, "- job_id [REQ-JOB-ID]: missing."),
        ({"job_id": 5, "job_name": "x"}, "- job_id=5, job_name='x' [REQ-JOB-ID]: both name the job to run; leave one"),
        ({"job_id": 0}, "positive integer, and is 0"),
        ({"job_id": "0"}, "positive integer"),
        ({"job_id": -3}, "positive integer"),
        ({"job_id": True}, "positive integer, and is True"),
        ({"job_id": 5.0}, "positive integer"),
        ({"job_id": "nightly"}, "positive integer, and is 'nightly'"),
    ],
)
def test_a_run_now_that_names_no_job_or_two_is_refused(payload: dict[str, Any], words: str) -> None:
    (violation,) = violations(check_run_now, payload)
    assert words in violation
