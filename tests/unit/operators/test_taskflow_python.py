"""``@task.databricks_python``: a function of the DAG file runs on Databricks, with its arguments, result and errors."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
from airflow import DAG
from airflow_context import AIRFLOW_V_3_0_PLUS, FAST

from airflow_dbjobs.errors import ConfigurationError, PayloadError, UserCodeFailed
from airflow_dbjobs.local_workspace import Fault
from airflow_dbjobs.operators import DatabricksWorkflowTaskGroup
from airflow_dbjobs.operators.python_source import read_function
from airflow_dbjobs.operators.taskflow import databricks_python_task

if AIRFLOW_V_3_0_PLUS:
    from airflow.sdk import task
else:
    from airflow.decorators import task

HERE = Path(__file__)
IMPORT = "/api/2.0/workspace/import"
CLUSTER = {"spark_version": "15.4.x-scala2.12", "num_workers": 1, "node_type_id": "m5.large"}


def shipped(function: Any, *args: Any, op_kwargs: Any = None, **kwargs: Any) -> Any:
    """Return the operator of a call of the decorated function."""
    decorated = databricks_python_task(function, **{"polling_period_seconds": FAST, "timeout_seconds": 20, **kwargs})
    return decorated(*args, **(op_kwargs or {})).operator


def echo(value: Any) -> Any:
    return value


def multiply(rows: list[int], factor: int = 2) -> int:
    import math

    return math.prod(rows) * factor


def line_of(text: str) -> int:
    """Return the line of this file that has the text."""
    return next(number for number, line in enumerate(HERE.read_text().splitlines(), 1) if line.strip().startswith(text))


class TestTask:
    def test_is_what_airflow_finds_by_its_name(self):
        assert task.databricks_python is databricks_python_task

    def test_runs_the_function_and_returns_what_it_returns(self, scene, deferrable):
        assert scene.run_task(lambda: shipped(multiply, [2, 3], deferrable=deferrable)) == 12
        assert [deferral.method_name for deferral in scene.deferrals] == ["execute_complete"] * deferrable
        assert scene.sent[0]["run_name"] == "multiply"

    @pytest.mark.parametrize(
        "value",
        [None, 0, True, 1.10, "", "1.10", '{"a": 1}', "{{job.id}}", "naïve\n", [1, [None]], {"a": {"b": 2}}, {}],
        ids=repr,
    )
    def test_returns_every_json_value_as_it_is(self, scene, value):
        returned = shipped(echo, value).execute(scene.context)
        assert (returned, type(returned)) == (value, type(value))

    @pytest.mark.parametrize("name", ["len", "str", "type", "print"])
    def test_may_have_the_name_of_a_builtin(self, scene, tmp_path, name):
        file = tmp_path / "dag_file.py"
        file.write_text(f"def {name}(value):\n    return value\n")
        namespace = runpy.run_path(str(file))
        assert shipped(namespace[name], "x").execute(scene.context) == "x"

    def test_stores_the_function_once_in_the_home_folder_of_the_caller(self, scene):
        for day in ("monday", "tuesday"):
            shipped(echo, day).execute(scene.context)
        me = scene.workspace._user
        (file,) = (scene.root / "Users" / me / "airflow_dbjobs").iterdir()
        assert file.read_text() == read_function(echo).notebook
        paths = {body["notebook_task"]["notebook_path"] for body in scene.sent}
        assert paths == {f"/Users/{me}/airflow_dbjobs/{file.stem}"}

    def test_repairs_a_notebook_that_somebody_has_changed(self, scene):
        shipped(echo, "mine").execute(scene.context)
        (file,) = (scene.root / "Users").rglob("*.py")
        file.write_text("# Databricks notebook source\ndbutils.notebook.exit('theirs')")
        assert shipped(echo, "mine").execute(scene.context) == "mine"

    def test_stores_it_in_the_folder_that_is_given(self, scene):
        with DAG("nightly", schedule=None):
            operator = shipped(echo, "{{ ds }}", folder="/Shared/{{ ds }}/")
        operator.render_template_fields({**scene.context, "ds": "2026-01-01"})
        assert operator.execute(scene.context) == "2026-01-01"
        assert [file.stem for file in (scene.root / "Shared" / "2026-01-01").iterdir()] == [
            read_function(echo).notebook_name
        ]
        assert scene.workspace.requests["/api/2.0/preview/scim/v2/Me"] == 0

    def test_gives_the_function_values_of_the_context(self, scene):
        def day(prefix: str, ds: Any = None, params: Any = None) -> Any:
            return [prefix, ds, params]

        scene.context |= {"ds": "2026-01-01", "params": {"region": "eu"}}
        assert shipped(day, op_kwargs={"prefix": "on"}).execute(scene.context) == ["on", "2026-01-01", {"region": "eu"}]

    def test_stores_the_function_again_where_a_resumed_try_launches_again(self, scene):
        deferral = scene.defer_task(lambda: shipped(echo, "monday", deferrable=True))
        (file,) = (scene.root / "Users").rglob("*.py")
        file.unlink()
        scene.ti.max_tries = 1
        scene.next_try()
        scene.new_process()
        resumed = shipped(echo, "tuesday", durable=False)
        kwargs = {**deferral.kwargs, "event": None}
        assert resumed.resume_execution(deferral.method_name, kwargs, scene.context) == "tuesday"
        assert file.is_file()

    def test_infers_multiple_outputs_from_the_function(self, scene):
        def described() -> dict[str, int]:
            return {"rows": 1}

        assert shipped(described).multiple_outputs is True
        assert shipped(described, multiple_outputs=False).multiple_outputs is False
        assert shipped(multiply, [1]).multiple_outputs is False

    @pytest.mark.skipif(not AIRFLOW_V_3_0_PLUS, reason="a success ends in the triggerer on Airflow 3 only")
    def test_has_the_same_result_where_it_ends_in_the_triggerer(self, scene, client):
        from airflow_dbjobs.runs.result import read_success

        shipped(echo, [1], wait_for_termination=False).execute(scene.context)
        run_id = scene.ti.xcom["run_id"]
        client.wait_for_run(run_id, period=FAST)
        assert read_success(client, run_id=run_id, max_bytes=100)[1] == [1]


class TestPayload:
    def test_has_the_cluster(self, scene):
        shipped(echo, 1, new_cluster=CLUSTER, libraries=[{"pypi": {"package": "polars"}}]).execute(scene.context)
        assert scene.sent[0]["new_cluster"] == CLUSTER
        assert scene.sent[0]["libraries"] == [{"pypi": {"package": "polars"}}]

    def test_has_a_serverless_environment(self, scene):
        environment = {"environment_version": "4", "dependencies": ["polars"]}
        assert shipped(echo, 1, environment=environment).execute(scene.context) == 1
        (sent,) = scene.sent
        assert sent["environments"] == [{"environment_key": "default", "spec": environment}]
        assert [(task["task_key"], task["environment_key"]) for task in sent["tasks"]] == [("echo", "default")]

    def test_is_checked_when_the_dag_is_parsed(self):
        with pytest.raises(PayloadError, match="num_workers"):
            shipped(echo, 1, new_cluster={**CLUSTER, "num_workers": -1})
        with pytest.raises(PayloadError, match="dependencies"):
            shipped(echo, 1, environment={"environment_version": "4", "dependencies": {"polars": "1"}})
        with pytest.raises(ConfigurationError, match=r"^new_cluster and environment: an environment is for serverless"):
            shipped(echo, 1, environment={"environment_version": "4"}, default_args={"new_cluster": CLUSTER})

    @pytest.mark.parametrize("field", ["notebook_task", "tasks", "sql_task"])
    def test_has_no_other_task(self, field):
        with pytest.raises(ConfigurationError, match=f"^{field}: @task.databricks_python makes the task"):
            shipped(echo, 1, **{field: {"notebook_path": "/x"}})

    def test_is_not_part_of_a_workflow_group(self):
        with (
            DAG("nightly", schedule=None),
            DatabricksWorkflowTaskGroup(group_id="group"),
            pytest.raises(ConfigurationError, match=r"group.echo: a task of @task.databricks_python launches a run of"),
        ):
            shipped(echo, 1)

    def test_has_no_argument_that_is_no_json_when_the_dag_is_parsed(self):
        with pytest.raises(ConfigurationError, match=r"echo cannot get value as JSON: .* type object"):
            shipped(echo, object())

    def test_with_too_large_arguments_is_not_sent(self, scene):
        with pytest.raises(ConfigurationError, match=r"have 1,.* bytes as JSON"):
            shipped(echo, "x" * 2**20).execute(scene.context)
        assert scene.sent == []
        assert scene.workspace.requests[IMPORT] == 0

    def test_with_large_arguments_arrives(self, scene):
        assert shipped(echo, "x" * 500_000).execute(scene.context) == "x" * 500_000


def fails(rows: Any) -> Any:
    def check(value: Any) -> None:
        raise LookupError(f"no rows: {value}\nsecond line")

    return [check(row) for row in rows]


class TestFailure:
    def test_names_the_line_of_the_dag_file(self, scene, deferrable):
        with pytest.raises(UserCodeFailed) as error:
            scene.run_task(lambda: shipped(fails, ["monday"], deferrable=deferrable))
        line = line_of("raise LookupError")
        assert f"\n    LookupError: no rows: monday ({HERE}, line {line}, in check)\n" in str(error.value)
        assert "    second line" in str(error.value)

    def test_in_a_library_names_the_line_that_called_it(self, scene):
        def load(text: str) -> Any:
            import json

            return json.loads(text)

        with pytest.raises(
            UserCodeFailed, match=rf"JSONDecodeError: .* \(.*, line {line_of('return json.loads')}, in load"
        ):
            shipped(load, "{").execute(scene.context)

    @pytest.mark.parametrize("code", [0, 3, "stopped"])
    def test_is_a_function_that_exits(self, scene, code):
        def load(code: Any) -> None:
            import sys

            sys.exit(code)

        with pytest.raises(
            UserCodeFailed, match=rf"SystemExit: {code} \(.*, line {line_of('sys.exit(code)')}, in load"
        ):
            shipped(load, code).execute(scene.context)

    def test_whose_message_cannot_be_shown_is_named(self, scene):
        def load() -> None:
            class Broken(Exception):
                def __str__(self) -> str:
                    raise RuntimeError

            raise Broken

        with pytest.raises(UserCodeFailed, match=r"\n    Broken: its message cannot be shown \(.*, in load"):
            shipped(load).execute(scene.context)

    def test_of_a_call_names_the_function(self, scene):
        operator = shipped(multiply, [1])
        operator.op_kwargs = {"factor": None}
        line = line_of("def multiply")
        with pytest.raises(
            UserCodeFailed, match=rf"TypeError: .* \({re.escape(str(HERE))}, line {line + 3}, in multiply"
        ):
            operator.execute(scene.context)

    @pytest.mark.parametrize(
        ("code", "problem"),
        [
            ("object()", "TypeError: load returned what JSON cannot hold: Object of type object is not"),
            ("float('nan')", "TypeError: load returned what JSON cannot hold: Out of range float"),
            ("'x' * 5_000_000", r"ValueError: load returned 5000028 bytes, and a notebook can return 5000000"),
        ],
    )
    def test_has_a_reason_if_the_result_cannot_travel(self, scene, tmp_path, code, problem):
        import importlib.util

        file = tmp_path / "dag_file.py"
        file.write_text(f"def load():\n    return {code}\n")
        spec = importlib.util.spec_from_file_location("dag_file", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        with pytest.raises(UserCodeFailed, match=problem):
            shipped(module.load).execute(scene.context)

    def test_shows_no_argument_in_the_log(self, scene, capfd, caplog):
        assert shipped(length, "hunter2-secret").execute(scene.context) == 14
        assert "hunter2-secret" not in "".join([*capfd.readouterr(), caplog.text])


def length(password: str) -> int:
    return len(password)


class TestStorage:
    @pytest.mark.parametrize(
        ("status", "code", "message"),
        [
            (403, "PERMISSION_DENIED", "You may not edit /Shared."), (400, "DIRECTORY_PROTECTED", "It is read-only."),
            (404, "RESOURCE_DOES_NOT_EXIST", "There is no such folder."),
        ],
    )  # fmt: skip
    def test_that_is_refused_is_an_error_without_a_retry_that_says_what_to_do(self, scene, status, code, message):
        body = {"error_code": code, "message": message}
        scene.workspace.faults.append(Fault("/api/2.0/workspace/*", status=status, body=body, times=None))
        with pytest.raises(ConfigurationError) as error:
            shipped(echo, 1, folder="/Shared/code").execute(scene.context)
        assert str(error.value).startswith(
            "echo could not be stored in /Shared/code of the workspace, so nothing was launched: POST workspace/"
        )
        assert f"answered {status} {code}: {message} Check the token" in str(error.value)
        assert str(error.value).endswith("Set `folder` to use another one.")
        assert scene.sent == []

    def test_needs_a_folder_where_the_caller_has_no_name(self, scene):
        body = {"error_code": "PERMISSION_DENIED", "message": "No SCIM for you."}
        scene.workspace.faults.append(Fault("*/Me", status=403, body=body, times=None))
        with pytest.raises(ConfigurationError, match=r"stored in the home folder of the workspace.*Set `folder`"):
            shipped(echo, 1).execute(scene.context)
        assert shipped(echo, 1, folder="/Shared").execute(scene.context) == 1

    def test_whose_reply_is_lost_is_repeated_and_launches_once(self, scene):
        scene.workspace.faults.append(Fault(IMPORT, cut="after"))
        assert shipped(echo, 1, folder="/").execute(scene.context) == 1
        assert scene.workspace.requests[IMPORT] == 2
        assert scene.launches() == 1
