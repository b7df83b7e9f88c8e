"""Parameters of operators and sensors: numbers in texts, names that nobody knows, all types of tasks."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from airflow import DAG
from airflow_context import run_now, submit

from airflow_dbjobs.airflow_compat import AirflowException
from airflow_dbjobs.errors import ConfigurationError
from airflow_dbjobs.operators import DatabricksCreateJobsOperator, DatabricksRunNowOperator, DatabricksSubmitRunOperator
from airflow_dbjobs.operators.parameters import parse_number
from airflow_dbjobs.payloads import QueueSettings
from airflow_dbjobs.payloads.schema import fields_of
from airflow_dbjobs.sensors import DatabricksJobIdleSensor, DatabricksRunSensor

NOTEBOOK = {"notebook_path": "/a"}


def sensor(**kwargs: Any) -> DatabricksRunSensor:
    return DatabricksRunSensor(**{"task_id": "load", "run_id": 7, **kwargs})


def create(**kwargs: Any) -> DatabricksCreateJobsOperator:
    return DatabricksCreateJobsOperator(task_id="job", name="nightly", **kwargs)


class TestNumbers:
    @pytest.mark.parametrize(
        ("make", "name", "text", "value"),
        [
            (submit, "polling_period_seconds", "10", 10),
            (run_now, "polling_period_seconds", " 0.5 ", 0.5),
            (run_now, "max_result_bytes", "1000", 1000),
            (run_now, "max_repairs", "2", 2),
            (sensor, "poke_interval", "7.5", 7.5),
            (sensor, "timeout", "60", 60),
        ],
    )
    def test_may_be_strings(self, make, name, text, value):
        given = {"job_id": 1} if make is run_now else {"notebook_task": NOTEBOOK} if make is submit else {}
        assert getattr(make(**given, **{name: text}), name) == value

    @pytest.mark.parametrize(
        ("make", "name", "value", "words"),
        [
            (submit, "polling_period_seconds", "soon",
             "polling_period_seconds is 'soon'; it must be a number of seconds"),
            (submit, "polling_period_seconds", "0", "polling_period_seconds is '0'"),
            (submit, "polling_period_seconds", None, "polling_period_seconds is None"),
            (submit, "polling_period_seconds", "nan", "polling_period_seconds is 'nan'"),
            (submit, "polling_period_seconds", "inf", "polling_period_seconds is 'inf'"),
            (submit, "max_result_bytes", "1.5", "max_result_bytes is '1.5'; it must be a whole number, 1 or more"),
            (run_now, "max_repairs", "often", "max_repairs is 'often'; it must be a whole number, 1 or more"),
            (run_now, "max_repairs", True, "max_repairs is True"),
            (sensor, "poke_interval", "ten", "poke_interval is 'ten'; it must be a number of seconds, 0 or more"),
            (sensor, "timeout", "-1", "timeout is '-1'"),
        ],
    )  # fmt: skip
    def test_that_are_invalid_are_an_error_with_the_name(self, make, name, value, words):
        with pytest.raises(ConfigurationError, match=words):
            make(notebook_task=NOTEBOOK, **{name: value}) if make is submit else make(**{name: value})


class TestIds:
    @pytest.mark.parametrize("value", ["12", 12, 12.0, "12.0", " 12 "])
    def test_are_whole_numbers_however_they_are_rendered(self, value):
        assert repr(parse_number("run_id", value, "an id", at_least=1, whole=True)) == "12"

    @pytest.mark.parametrize(
        "value", ["", "None", "1e3x", "12.5", 0, "0", -1, [], {}, "9" * 5000, float("inf"), float("nan")]
    )
    def test_that_are_invalid_are_an_error(self, value):
        with pytest.raises(ConfigurationError, match=r"run_id is .*; it must be an id"):
            parse_number("run_id", value, "an id", at_least=1, whole=True)

    def test_keep_all_their_digits(self):
        assert parse_number("run_id", str(2**63 - 1), "an id", whole=True) == 2**63 - 1


class TestUnknownParameters:
    @pytest.mark.parametrize(
        ("make", "given", "advice"),
        [
            (submit, {"notebook_tsk": NOTEBOOK}, "notebook_tsk: did you mean notebook_task?"),
            (run_now, {"notebook_parms": {}}, "notebook_parms: did you mean notebook_params?"),
            (create, {"schedul": {}}, "schedul: did you mean schedule?"),
            (submit, {"retrie": 3}, "retrie: did you mean retries?"),
            (sensor, {"poke_intervall": 3}, "poke_intervall: did you mean poke_interval?"),
            (DatabricksJobIdleSensor, {"task_id": "a", "job_nam": "n"}, "job_nam: did you mean job_name?"),
            (submit, {"queue": {"enabled": True}}, "queue is a parameter of Airflow: give the payload's"),
            (run_now, {"queue": QueueSettings(enabled=True)}, "queue is a parameter of Airflow: give"),
            (submit, {"run_as": {"user_name": "a"}}, "run_as is a field of the payload but no parameter: give it in"),
            (create, {"health": {}}, "health is a field of the payload"),
        ],
    )  # fmt: skip
    def test_get_suggestions(self, make, given, advice):
        with pytest.raises((TypeError, AirflowException)) as caught:
            make(**given)
        assert advice in str(caught.value)

    def test_get_suggestions_in_partial(self):
        with DAG("nightly", schedule=None), pytest.raises(TypeError, match="notebook_tsk: did you mean notebook_task"):
            DatabricksSubmitRunOperator.partial(task_id="load", notebook_tsk=NOTEBOOK)

    def test_without_a_similar_name_get_airflows_error(self):
        with pytest.raises((TypeError, AirflowException)) as caught:
            run_now(job_id=1, zzz=1)
        assert str(caught.value).endswith("'zzz': 1}")

    def test_do_not_include_airflows_queue(self):
        assert submit(notebook_task=NOTEBOOK, queue="high").queue == "high"


TASK_TYPES = list(fields_of("JobTask"))


class TestPayloadParameters:
    @pytest.mark.parametrize("name", TASK_TYPES)
    def test_include_every_type_of_task(self, name):
        assert name in inspect.signature(DatabricksSubmitRunOperator.__init__).parameters
        operator = submit(validate=False, **{name: {"x": "{{ ds }}", "y": "{{job.run_id}}"}})
        operator.render_template_fields({"ds": "2026-01-01"})
        assert getattr(operator, name) == {"x": "2026-01-01", "y": "{{job.run_id}}"}

    def test_of_tasks_are_sent(self, scene):
        condition = {"op": "EQUAL_TO", "left": "1", "right": "1"}
        assert submit(condition_task=condition).execute(scene.context) == "true"
        assert scene.sent[-1]["condition_task"] == condition

    def test_are_stored_for_every_field(self):
        for kind, given in (
            (DatabricksSubmitRunOperator, {"notebook_task": NOTEBOOK}),
            (DatabricksRunNowOperator, {"job_id": 1}),
            (DatabricksCreateJobsOperator, {"name": "n"}),
        ):
            operator = kind(task_id="load", **given)
            assert operator._payload_parameters() | given == operator._payload_parameters()


class TestRetrySettings:
    @pytest.mark.parametrize(
        ("given", "words"),
        [
            ({"databricks_retry_limit": 3}, "load: databricks_retry_limit has no effect."),
            ({"databricks_retry_limit": 3, "databricks_retry_delay": 1}, "databricks_retry_delay have no effect."),
        ],
    )
    def test_have_no_effect(self, given, words, capfd):
        run_now(job_id=1, **given)
        assert words in capfd.readouterr().out
