"""What becomes of mistakes in payloads, as Airflow's option ``payload_mistakes`` says."""

from __future__ import annotations

import re
from typing import Any

import pytest
from airflow_context import parsed, run_now, submit
from documentation import text_of

from airflow_dbjobs.errors import ConfigurationError, PayloadError
from airflow_dbjobs.operators import DatabricksCreateJobsOperator
from airflow_dbjobs.operators.base import MISTAKE_LEVELS
from airflow_dbjobs.provider import get_provider_info

PAGE = text_of("payloads")
TASK = {"task_key": "a", "condition_task": {"op": "EQUAL_TO", "left": "1", "right": "1"}}
MISSPELT = {"notebook_task": {"notebook_path": "/a", "base_paramters": {"day": "1"}}}
PLACEHOLDERS = [0, -1, "0", "not-configured", "", "None"]


@pytest.fixture
def level(monkeypatch):
    """Return what sets the option."""
    return lambda value: monkeypatch.setenv("AIRFLOW__DATABRICKS_JOBS__PAYLOAD_MISTAKES", value)


@pytest.fixture
def log_text(caplog, capfd):
    """Return what gives the log so far: Airflow 3 prints it."""
    return lambda: capfd.readouterr().out + caplog.text


def checked(operator: Any, scene: Any) -> Any:
    return operator._build_payload(operator._connect(), scene.context)


class TestPlaceholders:
    @pytest.mark.parametrize("placeholder", PLACEHOLDERS)
    def test_for_a_job_are_warnings_first_and_errors_later(self, scene, log_text, placeholder):
        operator = run_now(job_id=placeholder)
        assert "load: The task is going to fail: job_id [REQ-JOB-ID]: is " in log_text()
        with pytest.raises(PayloadError, match="REQ-JOB-ID"):
            checked(operator, scene)
        assert scene.sent == []

    def test_in_a_task_are_treated_likewise(self, scene, log_text):
        operator = submit(json={"run_job_task": {"job_id": 0}})
        assert "RUNJOB-ID" in log_text()
        with pytest.raises(PayloadError, match="RUNJOB-ID"):
            checked(operator, scene)

    @pytest.mark.parametrize("missing", [{}, {"job_id": None}])
    def test_do_not_include_a_missing_job(self, missing):
        with pytest.raises(PayloadError, match=r"job_id \[REQ-JOB-ID\]: is missing"):
            run_now(**missing)

    def test_do_not_break_other_dags_of_the_file(self, tmp_path):
        file = tmp_path / "dags.py"
        file.write_text(
            "from airflow import DAG\n"
            "from airflow_dbjobs.operators import DatabricksRunNowOperator\n"
            "for name, job_id in (('ready', 7), ('later', int('0')), ('other', 'not-configured')):\n"
            "    with DAG(name, schedule=None):\n"
            "        DatabricksRunNowOperator(task_id='a', job_id=job_id)\n"
        )
        bag = parsed(file)
        assert (bag.import_errors, sorted(bag.dags)) == ({}, ["later", "other", "ready"])


class TestLevels:
    def test_warn_fails_the_task_only_when_it_runs(self, scene, log_text, level):
        level("warn")
        operator = submit(json={"tasks": [{**TASK, "timeout_seconds": -1}]})
        assert "tasks[0].timeout_seconds [RANGE-TIMEOUT]: is -1" in log_text()
        with pytest.raises(PayloadError, match="RANGE-TIMEOUT"):
            checked(operator, scene)
        operator = submit(json={"tasks": {1, 2}})
        assert "tasks is a set, which JSON cannot hold" in log_text()
        with pytest.raises(ConfigurationError):
            checked(operator, scene)
        DatabricksCreateJobsOperator(task_id="job", tasks=[TASK])
        assert "name is missing" in log_text()

    def test_error_is_the_default_and_an_import_error(self, scene, log_text):
        with pytest.raises(PayloadError, match="RANGE-TIMEOUT"):
            submit(json={"tasks": [{**TASK, "timeout_seconds": -1}]})
        operator = submit(json=MISSPELT)
        assert "base_paramters" not in log_text()
        checked(operator, scene)
        assert "Did you mean base_parameters?" in log_text()

    @pytest.mark.parametrize(
        ("make", "words"),
        [
            (lambda: submit(json=MISSPELT), "FIELD-NAME.*Did you mean base_parameters"),
            (lambda: submit(json={"tasks": [TASK], "max_retries": 1}), "FIELD-PLACE"),
            (lambda: run_now(job_id=0), "REQ-JOB-ID"),
            (lambda: run_now(job_id=1, python_params=["{{run_id}}"]), "both Airflow and Databricks define"),
        ],
    )
    def test_strict_makes_warnings_import_errors(self, level, make, words):
        level("strict")
        with pytest.raises(PayloadError, match=words):
            make()

    def test_strict_makes_warnings_of_templates_task_errors(self, scene, level):
        level("Strict")
        operator = submit(json="{{ body }}")
        operator.json = MISSPELT
        with pytest.raises(PayloadError, match="FIELD-NAME"):
            checked(operator, scene)
        operator.json = {"tasks": [TASK]}
        assert checked(operator, scene)["tasks"] == [TASK]

    def test_off_checks_nothing(self, scene, log_text, level):
        level("off")
        operator = submit(json={"tasks": [{**TASK, "timeout_seconds": -1}]})
        assert checked(operator, scene)["tasks"][0]["timeout_seconds"] == -1
        assert "RANGE-TIMEOUT" not in log_text()

    def test_unknown_level_is_a_warning_and_the_default(self, log_text, level):
        level("wran")
        with pytest.raises(PayloadError):
            submit(json={"tasks": [{**TASK, "timeout_seconds": -1}]})
        assert "payload_mistakes is 'wran'; it must be one of off, warn, error, strict." in log_text()

    def test_validate_false_turns_any_level_off(self, level):
        level("strict")
        submit(json=MISSPELT, validate=False)

    def test_are_documented_in_airflow_and_docs(self):
        option = get_provider_info()["config"]["databricks_jobs"]["options"]["payload_mistakes"]
        in_provider = re.findall(r"^(\w+):", option["description"], re.MULTILINE)
        in_page = re.findall(r"^\| `(\w+)`", PAGE.partition("## How strict")[2], re.MULTILINE)
        assert option["default"] == "error"
        assert tuple(in_provider) == tuple(in_page) == MISTAKE_LEVELS
