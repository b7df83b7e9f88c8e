"""dag_params: the params of a DAG as parameters of a run, never such that the API refuses them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from airflow import DAG
from airflow_context import Param, Scene, connect, run_now, submit

from airflow_dbjobs.errors import BadRequest
from airflow_dbjobs.local_workspace import Fault
from airflow_dbjobs.operators import DatabricksCreateJobsOperator
from airflow_dbjobs.operators.dag_params import MAX_BYTES, with_job_parameters, with_parameters, with_task_parameters
from airflow_dbjobs.payloads import check

PARAMS = {"day": "monday", "limit": 5, "dry": True, "tables": ["a"], "none": None}
TEXTS = {"day": "monday", "limit": "5", "dry": "true", "tables": '["a"]'}
JOB = {"job_id": 1}


class TestJobParameters:
    @pytest.mark.parametrize("version", ["2.1", "2.2"])
    def test_are_params_as_strings(self, version: str) -> None:
        made = with_job_parameters(JOB, PARAMS, version)
        assert made == {**JOB, "job_parameters": TEXTS}
        assert check("run-now", made, version) == []

    @pytest.mark.parametrize(
        "given",
        [
            {"job_parameters": {"day": "friday"}},
            {"jar_params": ["x"]},
            {"notebook_params": {"day": "friday"}},
            {"python_params": []},
            {"spark_submit_params": ["x"]},
            {"python_named_params": {"day": "friday"}},
            {"sql_params": {"day": "friday"}},
            {"dbt_commands": ["dbt run"]},
            {"pipeline_params": {"full_refresh": True}},
        ],
        ids=lambda given: next(iter(given)),
    )
    def test_are_not_added_to_other_parameters(self, given: dict[str, Any]) -> None:
        assert with_job_parameters({**JOB, **given}, PARAMS, "2.2") == {**JOB, **given}

    def test_are_not_sent_to_api_2_0(self) -> None:
        assert with_job_parameters(JOB, PARAMS, "2.0") == JOB

    @pytest.mark.parametrize("params", [{}, {"none": None}])
    def test_are_not_sent_if_there_are_no_params(self, params: dict[str, Any]) -> None:
        assert with_job_parameters(JOB, params, "2.2") == JOB

    def test_omit_invalid_names_with_a_warning(self, caplog: pytest.LogCaptureFixture) -> None:
        made = with_job_parameters(JOB, {"the day": "monday", "day": "monday"}, "2.2")
        assert made["job_parameters"] == {"day": "monday"}
        assert "does not accept their names: 'the day'" in caplog.text

    def test_are_not_sent_if_they_are_too_large(self, caplog: pytest.LogCaptureFixture) -> None:
        assert with_job_parameters(JOB, {"text": "x" * MAX_BYTES}, "2.2") == JOB
        assert "not forwarded to a run: they have 10030 bytes, and the API accepts 10000" in caplog.text

    def test_are_sent_up_to_the_apis_limit(self, caplog: pytest.LogCaptureFixture) -> None:
        text = "ä" * ((MAX_BYTES - len('{"job_parameters":{"text":""}}')) // 2)
        made = with_job_parameters(JOB, {"text": text}, "2.2")
        assert made["job_parameters"] == {"text": text}
        assert check("run-now", made, "2.2") == []
        assert with_job_parameters(JOB, {"text": text + "x"}, "2.2") == JOB

    def test_are_logged_without_their_values(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("INFO")
        with_job_parameters(JOB, {"day": "secret-of-mine"}, "2.2")
        assert caplog.messages == ["Forwarding the DAG's params as job_parameters: day"]


class TestTaskParameters:
    def test_are_added_to_tasks_that_accept_names_and_have_none(self) -> None:
        tasks = [
            {"task_key": "a", "notebook_task": {"notebook_path": "/x"}},
            {"task_key": "b", "notebook_task": {"notebook_path": "/x", "base_parameters": {"own": "1"}}},
            {"task_key": "c", "spark_python_task": {"python_file": "/x.py"}},
            {"task_key": "d", "sql_task": {"alert": {"alert_id": "1"}, "warehouse_id": "w"}},
            {"task_key": "e", "run_job_task": {"job_id": 1}},
            {"task_key": "f", "python_wheel_task": {"package_name": "p"}},
            {"task_key": "g", "python_wheel_task": {"package_name": "p", "parameters": ["1"]}},
            {"task_key": "h", "run_job_task": {"job_id": 1, "notebook_params": {"own": "1"}}},
            {"task_key": "i", "notebook_task": {"notebook_path": "/x", "base_parameters": {}}},
            "{{ a template }}",
        ]
        made = with_task_parameters({"tasks": tasks}, {"day": 1})["tasks"]
        assert made[0]["notebook_task"] == {"notebook_path": "/x", "base_parameters": {"day": "1"}}
        assert made[1:4] == tasks[1:4]
        assert made[4]["run_job_task"]["job_parameters"] == {"day": "1"}
        assert made[5]["python_wheel_task"]["named_parameters"] == {"day": "1"}
        assert made[6:] == tasks[6:]
        assert "base_parameters" not in tasks[0]["notebook_task"], "the user's own payload is left as it is"

    def test_are_added_to_the_task_of_a_for_each(self) -> None:
        inner = {"task_key": "each", "notebook_task": {"notebook_path": "/x"}}
        loop = {"task_key": "loop", "for_each_task": {"inputs": "[1]", "task": inner}}
        (made,) = with_task_parameters({"tasks": [loop]}, {"day": 1})["tasks"]
        assert made["for_each_task"]["inputs"] == "[1]"
        assert made["for_each_task"]["task"]["notebook_task"]["base_parameters"] == {"day": "1"}
        assert "base_parameters" not in inner["notebook_task"], "the user's own payload is left as it is"
        for odd in ("{{ a template }}", {"inputs": "[1]"}, {"inputs": "[1]", "task": "{{ a template }}"}):
            tasks = [{"task_key": "loop", "for_each_task": odd}]
            assert with_task_parameters({"tasks": tasks}, {"day": 1})["tasks"] == tasks

    def test_of_a_run_job_task_respect_the_limit(self, caplog: pytest.LogCaptureFixture) -> None:
        job = {"task_key": "other", "run_job_task": {"job_id": 1}}
        notebook = {"task_key": "own", "notebook_task": {"notebook_path": "/x"}}
        made = with_task_parameters({"tasks": [job, notebook]}, {"text": "x" * MAX_BYTES})["tasks"]
        assert made[0] == job
        assert made[1]["notebook_task"]["base_parameters"] == {"text": "x" * MAX_BYTES}
        assert "not forwarded to the job of task other: they have 10030 bytes" in caplog.text

    def test_are_added_to_a_run_without_a_list_of_tasks(self) -> None:
        flat = {"notebook_task": {"notebook_path": "/x"}}
        filled = {"notebook_task": {"notebook_path": "/x", "base_parameters": {"day": "1"}}}
        assert with_task_parameters(flat, {"day": 1}) == filled
        assert with_task_parameters(flat, {}) == flat


class TestParametersOfJob:
    @pytest.mark.parametrize("version", ["2.1", "2.2"])
    def test_are_params_if_it_has_none(self, version: str) -> None:
        made = with_parameters({"name": "nightly"}, PARAMS, version)
        assert made["parameters"] == [{"name": name, "default": text} for name, text in TEXTS.items()]
        own = {"name": "nightly", "parameters": [{"name": "own", "default": "1"}]}
        assert with_parameters(own, PARAMS, version) == own
        assert with_parameters({"name": "nightly"}, {}, version) == {"name": "nightly"}

    def test_are_not_set_with_api_2_0(self) -> None:
        assert with_parameters({"name": "nightly"}, PARAMS, "2.0") == {"name": "nightly"}


def sent_by(scene: Scene, make: Any, params: dict[str, Any], given: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the body that an operator sends in a DAG with params; `given` are those of the DAG run."""
    with DAG("nightly", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), params=params):
        operator = make()
    if given is not None:
        scene.context["params"] = given
    scene.workspace.faults.append(Fault("run*", status=400, body={"error_code": "X", "message": "seen enough"}))
    with pytest.raises(BadRequest, match="seen enough"):
        operator.execute(scene.context)
    return scene.sent[-1]


class TestOperators:
    def test_run_now_forwards_by_default(self, scene):
        assert sent_by(scene, lambda: run_now(job_id=1), PARAMS)["job_parameters"] == TEXTS
        assert "job_parameters" not in sent_by(scene, lambda: run_now(job_id=1, forward_dag_params=False), PARAMS)
        assert "job_parameters" not in sent_by(scene, lambda: run_now(job_id=1), {})

    def test_values_of_the_dag_run_and_declared_names_only(self, scene):
        given = {"day": "friday", "of the conf": "x"}
        assert sent_by(scene, lambda: run_now(job_id=1), {"day": "monday", "n": 1}, given)["job_parameters"] == {
            "day": "friday",
            "n": "1",
        }

    def test_param_without_default_needs_a_value_in_the_dag_run(self, scene):
        params = {"day": Param(type="string"), "n": 1}
        assert sent_by(scene, lambda: run_now(job_id=1), params, {"day": "friday"})["job_parameters"] == {
            "day": "friday",
            "n": "1",
        }
        assert sent_by(scene, lambda: run_now(job_id=1), params, {})["job_parameters"] == {"n": "1"}

    @pytest.mark.parametrize("version", ["2.1", "2.2"])
    def test_create_jobs_forwards_defaults_and_so_writes_once(self, scene, client, monkeypatch, version):
        connect(monkeypatch, scene.workspace.base_url, scene.workspace.token, extra={"api_version": version})
        task = {"task_key": "a", "condition_task": {"op": "EQUAL_TO", "left": "1", "right": "1"}}

        def keep(name: str, **kwargs: Any) -> Any:
            with DAG("nightly", schedule=None, params={**PARAMS, "required": Param(type="string")}):
                operator = DatabricksCreateJobsOperator(task_id="keep", name=name, tasks=[task], **kwargs)
            job_id = operator.execute(scene.context)
            return client.get_job(job_id)["settings"].get("parameters")

        told = keep("forwarded", forward_dag_params=True)
        assert {entry["name"]: entry["default"] for entry in told} == TEXTS
        scene.context["params"] = {**PARAMS, "day": "friday", "required": "x"}
        assert keep("forwarded", forward_dag_params=True) == told
        assert scene.workspace.requests["reset"] == 0
        assert not keep("untold")

    def test_run_now_with_api_2_0_forwards_nothing(self, scene, monkeypatch):
        connect(monkeypatch, scene.workspace.base_url, scene.workspace.token, extra={"api_version": "2.0"})
        assert "job_parameters" not in sent_by(scene, lambda: run_now(job_id=1), PARAMS)

    def test_submit_forwards_on_request(self, scene):
        notebook = {"notebook_path": "/x"}
        assert sent_by(scene, lambda: submit(notebook_task=notebook), PARAMS)["notebook_task"] == notebook
        sent = sent_by(scene, lambda: submit(notebook_task=notebook, forward_dag_params=True), PARAMS)
        assert sent["notebook_task"] == {**notebook, "base_parameters": TEXTS}

    def test_forwarded_params_reach_the_notebook_and_its_repair(self, scene, client, deferrable):
        code = """
    import pathlib
    day = dbutils.widgets.get("day")
    first = not pathlib.Path("ran").exists()
    pathlib.Path("ran").touch()
    if first:
        raise ValueError(day)
    dbutils.notebook.exit(day)
    """
        task = {"task_key": "a", "notebook_task": scene.notebook(code, gated=False)}
        job_id = client.create_job({"name": "x", "tasks": [task], "parameters": [{"name": "day", "default": "none"}]})

        def make() -> Any:
            with DAG("nightly", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), params={"day": "monday"}):
                return run_now(job_id=job_id, repair_run=True, deferrable=deferrable)

        assert scene.run_task(make) == "monday"
        assert scene.workspace.requests["runs/repair"] == 1
