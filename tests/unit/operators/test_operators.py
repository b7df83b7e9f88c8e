"""The operators, sync and deferrable, against a workspace that really runs things."""

from __future__ import annotations

import importlib.util
import inspect
import json
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from airflow import DAG, XComArg
from airflow_context import (
    FAST,
    FastTime,
    Scene,
    TaskDeferred,
    TaskInstance,
    called_by_airflow,
    connect,
    fire,
    launching,
    rebuilt,
    run_now,
    submit,
)

from airflow_dbjobs.airflow_compat import AirflowFailException, AirflowSkipException
from airflow_dbjobs.client.wait import wait_for_run
from airflow_dbjobs.errors import (
    BadRequest,
    ConfigurationError,
    PermissionDenied,
    RunCanceled,
    RunFailed,
    RunLost,
    RunSkipped,
    RunTimedOut,
    Unreachable,
    UserCodeFailed,
)
from airflow_dbjobs.local_workspace import Fault
from airflow_dbjobs.operators import (
    DatabricksNotebookOperator,
    DatabricksRunNowOperator,
    DatabricksSubmitRunOperator,
)
from airflow_dbjobs.operators import base as payload_operator
from airflow_dbjobs.operators import launch as launch_operator
from airflow_dbjobs.sensors import base as sensor_base

if TYPE_CHECKING:
    from airflow_dbjobs.airflow_compat import BaseOperator


TRUE = {"op": "EQUAL_TO", "left": "1", "right": "1"}
FAILING = {"op": "LESS_THAN", "left": "one", "right": "2"}
BOTH = (DatabricksSubmitRunOperator, DatabricksRunNowOperator)
NOTEBOOK = {"notebook_path": "/x"}


class TestXComs:
    def test_and_link_exist_while_the_run_is_active(self, scene, client, deferrable):
        seen = []

        def look() -> None:
            run = client.get_run(scene.ti.xcom["run_id"])
            seen.append(run.is_terminal)
            assert scene.ti.xcom == {"run_id": run.run_id, "job_id": run.job_id, "run_page_url": run.page_url}
            assert scene.ti.link == run.page_url != ""
            scene.open_gate()

        scene.ti.at_link = look
        scene.run_task(lambda: submit(notebook_task=scene.notebook(), deferrable=deferrable))
        assert seen == [False]

    def test_are_only_the_link_with_do_xcom_push_false(self, scene, deferrable):
        notebook = scene.notebook("dbutils.notebook.exit('x')")
        scene.ti.at_link = scene.open_gate
        result = scene.run_task(lambda: submit(notebook_task=notebook, deferrable=deferrable, do_xcom_push=False))
        assert (result, scene.ti.xcom) == (None, {})
        assert scene.ti.link


def body_of(scene: Scene, operator: BaseOperator) -> dict[str, Any]:
    """Return what the operator sends; the workspace refuses it."""
    scene.workspace.faults.append(Fault("*", status=400, body={"error_code": "X", "message": "seen enough"}))
    with pytest.raises(BadRequest, match="seen enough"):
        operator.execute(scene.context)
    body = scene.sent[-1]
    body.pop("idempotency_token")
    return body


class TestJobName:
    def test_finds_the_job_of_that_exact_name(self, scene, client):
        task = {"task_key": "a", "condition_task": TRUE}
        client.create_job({"name": "NIGHTLY", "tasks": [task]})
        job_id = client.create_job({"name": "nightly", "tasks": [task]})
        run_now(job_name="nightly").execute(scene.context)
        assert scene.ti.xcom["job_id"] == job_id
        assert "job_name" not in scene.sent[0]

    @pytest.mark.parametrize(("jobs", "words"), [(0, "no job of this name"), (2, "2 jobs have this name")])
    def test_of_no_job_or_several_launches_nothing(self, scene, client, jobs, words):
        for _ in range(jobs):
            client.create_job({"name": "nightly", "tasks": [{"task_key": "a", "condition_task": TRUE}]})
        with pytest.raises(ConfigurationError, match=f"job_name='nightly'.*{words}.*job_id"):
            run_now(job_name="nightly").execute(scene.context)
        assert scene.launches() == 0


def partly(**kwargs: Any) -> DatabricksSubmitRunOperator:
    return submit(
        tasks=[
            {"task_key": "optional", "condition_task": FAILING},
            {
                "task_key": "rest",
                "condition_task": TRUE,
                "depends_on": [{"task_key": "optional"}],
                "run_if": "ALL_DONE",
            },
        ],
        **kwargs,
    )


class TestFailure:
    def test_of_the_run_fails_the_task_and_says_why(self, scene, client, deferrable):
        tasks = [
            {
                "task_key": "ingest",
                "notebook_task": scene.notebook("def read():\n    raise ValueError('no rows')\nread()"),
            },
            {"task_key": "report", "notebook_task": scene.notebook(name="b"), "depends_on": [{"task_key": "ingest"}]},
        ]
        scene.ti.at_link = scene.open_gate
        with pytest.raises(RunFailed) as error:
            scene.run_task(lambda: submit(tasks=tasks, deferrable=deferrable))
        text = str(error.value)
        run = client.get_run(scene.ti.xcom["run_id"])
        for needed in ("Task ingest", "ValueError: no rows", "in read", run.page_url, run.tasks[0].page_url):
            assert needed in text
        assert "Task report" not in text
        assert (error.value.run_id, error.value.page_url) == (run.run_id, run.page_url)
        assert isinstance(error.value, UserCodeFailed)
        assert (error.value.termination_code, error.value.failed_tasks) == ("RUN_EXECUTION_ERROR", ("ingest",))

    def test_by_timeout_fails_the_task(self, scene, deferrable):
        with pytest.raises(RunTimedOut, match="reached its timeout"):
            scene.run_task(lambda: submit(notebook_task=scene.notebook(), timeout_seconds=1, deferrable=deferrable))

    @pytest.mark.parametrize("retry", [False, True])
    def test_by_a_persons_cancellation_is_retried_only_on_request(self, scene, client, deferrable, retry):
        scene.ti.at_link = lambda: client.cancel_run(scene.ti.xcom["run_id"])
        notebook = scene.notebook()
        with pytest.raises(RunCanceled, match="was cancelled") as error:
            scene.run_task(lambda: submit(notebook_task=notebook, deferrable=deferrable, retry_on_cancel=retry))
        assert scene.ti.deferred is deferrable
        assert isinstance(error.value, AirflowFailException) is not retry
        assert (error.value.run_id, error.value.termination_code) == (scene.ti.xcom["run_id"], "USER_CANCELED")

    @pytest.mark.parametrize(("on_skipped", "error"), [("fail", RunSkipped), ("skip", AirflowSkipException)])
    def test_by_max_concurrent_runs_fails_or_skips(self, scene, client, deferrable, on_skipped, error):
        task = {"task_key": "a", "notebook_task": scene.notebook()}
        job_id = client.create_job({"name": "one", "tasks": [task], "queue": {"enabled": False}, "timeout_seconds": 20})
        client.run_now({"job_id": job_id})
        with pytest.raises(error, match="max_concurrent_runs"):
            scene.run_task(lambda: run_now(job_id=job_id, deferrable=deferrable, on_skipped=on_skipped))

    def test_of_some_tasks_is_a_warning(self, scene, capfd):
        partly().execute(scene.context)
        assert "some of its tasks failed: optional." in capfd.readouterr().out

    def test_of_some_tasks_fails_the_task_on_request(self, scene):
        with pytest.raises(RunFailed, match="partially succeeded") as error:
            partly(fail_on_partial_success=True).execute(scene.context)
        assert "Task optional" in str(error.value)

    @pytest.mark.parametrize(
        ("reply", "error", "words"),
        [
            (
                {"state": {"life_cycle_state": "INTERNAL_ERROR", "state_message": "cluster lost"}},
                RunFailed,
                "cluster lost",
            ),
            (
                {"state": {"life_cycle_state": "TERMINATED", "result_state": "EXPLODED"}},
                RunFailed,
                "TERMINATED/EXPLODED",
            ),
            ({"state": {"life_cycle_state": "TERMINATED"}}, RunFailed, r"failed \(TERMINATED\)"),
            ({"state": {"life_cycle_state": "TERMINATED", "result_state": "TIMED_OUT"}}, RunTimedOut, "timeout"),
            ({"status": {"state": "TERMINATED", "termination_details": {"code": "USER_CANCELED"}}},
             AirflowFailException, "was cancelled"),
            ({"state": {"life_cycle_state": "TERMINATED", "result_state": "CANCELED"},
              "status": {"state": "TERMINATED", "termination_details": {"code": "CANCELED"}}},
             RunCanceled, "was cancelled"),
        ],
    )  # fmt: skip
    def test_in_rare_states(self, scene, reply, error, words):
        scene.workspace.faults.append(Fault("runs/get", status=200, body={"run_id": 7, **reply}, times=None))
        with pytest.raises(error, match=words):
            submit(tasks=[{"task_key": "a", "condition_task": TRUE}]).execute(scene.context)

    def test_of_a_continuous_job_is_not_retried(self, scene):
        scene.workspace.faults.append(Fault("run-now", status=200, body={}, times=None))
        with pytest.raises(AirflowFailException, match="there is no run to wait for"):
            run_now(job_id=5).execute(scene.context)
        assert scene.workspace.requests["run-now"] == 1


class TestMistakes:
    @pytest.mark.parametrize(
        ("make", "words"),
        [
            (submit, ["the payload", "notebook_task", "tasks"]),
            (lambda: submit(notebook_task=NOTEBOOK, dbt_task={}), ["dbt_task and notebook_task", "Keep only"]),
            (
                lambda: submit(notebook_task=NOTEBOOK, json={"dbt_task": {}}),
                ["dbt_task and notebook_task", "Keep only"],
            ),
            (lambda: submit(tasks=[]), ["tasks", "at least one task"]),
            (lambda: submit(tasks=[{"task_key": "a"}, {}]), ["tasks[0]", "tasks[1]"]),
            (lambda: submit(json=[1]), ["json is of type list", "must be a mapping"]),
            (lambda: submit(json="no } json"), ["json is a string", "9 characters", "template"]),
            (lambda: submit(notebook_task={"base_parameters": {"day": datetime(2026, 1, 1, tzinfo=UTC)}}),
             ["notebook_task.base_parameters.day is a datetime"]),
            (lambda: submit(notebook_task=NOTEBOOK, idempotency_token="t" * 65), ["idempotency_token", "65", "64"]),
            (run_now, ["job_id", "missing", "job_name"]),
            (lambda: run_now(job_id=1, job_name="a"), ["job_id", "together with job_name", "one of the two"]),
            (lambda: run_now(job_id="nightly"), ["job_id", "a positive integer", "nightly"]),
        ],
    )  # fmt: skip
    def test_name_field_and_remedy_and_send_nothing(self, scene, make, words):
        with pytest.raises(ConfigurationError) as error:
            make().execute(scene.context)
        assert [word for word in words if word not in str(error.value)] == []
        assert not scene.workspace.requests

    @pytest.mark.parametrize("max_repairs", [0, -1])
    def test_in_max_repairs_are_found_at_parse_time(self, max_repairs):
        with pytest.raises(ValueError, match=f"max_repairs is {max_repairs}; it must be"):
            run_now(job_id=1, max_repairs=max_repairs)

    @pytest.mark.parametrize("wrong", [{"on_skipped": "ignore"}, {"polling_period_seconds": 0}])
    def test_in_options_are_found_at_parse_time(self, wrong):
        ((name, value),) = wrong.items()
        with pytest.raises(ValueError, match=f"{name} is {value!r}; it must be"):
            submit(notebook_task=NOTEBOOK, **wrong)

    def test_name_an_unknown_connection(self, scene):
        with pytest.raises(ConfigurationError, match=r"databricks_conn_id is 'elsewhere'.*AIRFLOW_CONN_ELSEWHERE"):
            submit(notebook_task=NOTEBOOK, databricks_conn_id="elsewhere").execute(scene.context)
        assert not scene.workspace.requests

    def test_in_the_token_fail_at_once_with_a_remedy(self, scene, client, monkeypatch, deferrable):
        connect(monkeypatch, scene.workspace.base_url, "of-yesterday")
        with pytest.raises(PermissionDenied, match=r"runs/submit answered 403.*Check .* token") as error:
            submit(notebook_task=NOTEBOOK, deferrable=deferrable).execute(scene.context)
        assert "of-yesterday" not in str(error.value)
        assert (list(client.list_runs()), scene.ti.xcom, scene.workspace.requests["runs/submit"]) == ([], {}, 1)

    def test_in_the_host_are_named_after_the_retries(self, monkeypatch):
        time = FastTime(monkeypatch)
        connect(monkeypatch, "http://127.0.0.1:1", "x-token")
        with pytest.raises(Unreachable, match=r"cannot reach http://127.0.0.1:1: .*refused. Check .* host"):
            submit(notebook_task=NOTEBOOK).execute({"ti": TaskInstance()})
        assert 500 < time.now - 1000 < 600

    @pytest.mark.parametrize("kind", BOTH)
    def test_in_retry_settings_are_warnings(self, kind, capfd):
        kind(task_id="load", databricks_retry_limit=5, databricks_retry_args={}, validate=False)
        told = capfd.readouterr().out
        assert "load: databricks_retry_limit, databricks_retry_args have no effect" in told
        assert "databricks_retry_delay" not in told


class TestWaiting:
    def test_is_skipped_with_wait_for_termination_false(self, scene, client, deferrable):
        operator = submit(notebook_task=scene.notebook(), deferrable=deferrable, wait_for_termination=False)
        assert operator.execute(scene.context) is None
        assert not client.get_run(scene.ti.xcom["run_id"]).is_terminal
        assert scene.ti.link

    @pytest.mark.parametrize("kind", BOTH)
    def test_deferred_takes_two_requests_before_the_deferral(self, scene, client, kind):
        make = launching(kind, client, [{"task_key": "main", "notebook_task": scene.notebook()}], deferrable=True)
        scene.workspace.requests.clear()
        with pytest.raises(TaskDeferred) as deferral:
            make().execute(scene.context)
        endpoint = "runs/submit" if kind is DatabricksSubmitRunOperator else "run-now"
        assert scene.workspace.requests == {endpoint: 1, "runs/get": 1}
        assert deferral.value.method_name == "execute_complete"
        assert deferral.value.trigger.polling_period_seconds == FAST

    def test_is_not_deferred_for_a_run_that_is_over(self, scene, client):
        notebook = scene.notebook(gated=False)

        def over() -> None:
            wait_for_run(client, int(client.submit_run(scene.sent[0])), period=FAST)

        scene.at_launch = lambda: None if len(scene.sent) > 1 else over()
        scene.run_task(lambda: submit(notebook_task=notebook, deferrable=True))
        assert not scene.ti.deferred

    def test_treats_an_unknown_state_as_active(self, scene, capfd):
        strange = {"run_id": 7, "state": {"life_cycle_state": "HIBERNATING"}}
        ended = {"run_id": 7, "state": {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"}}
        scene.workspace.faults += [
            Fault("runs/get", status=200, body=strange, times=4),
            Fault("runs/get", status=200, body=ended, times=None),
        ]
        submit(tasks=[{"task_key": "a", "condition_task": TRUE}]).execute(scene.context)
        assert capfd.readouterr().out.count("This release does not know the state 'HIBERNATING'") == 1

    def test_reports_a_run_deleted_while_deferred(self, scene, client):
        make = partial(submit, notebook_task=scene.notebook(gated=False), deferrable=True)

        def delete() -> None:
            wait_for_run(client, scene.ti.xcom["run_id"], period=FAST)
            client.delete_run(scene.ti.xcom["run_id"])

        scene.ti.at_link = delete
        with pytest.raises(RunLost, match="no longer exists: it was deleted"):
            scene.run_task(make)
        with pytest.raises(RunLost, match="no longer exists"):
            make().execute_complete(scene.context, {"run_id": scene.ti.xcom["run_id"]})
        assert scene.launches() == 1

    def test_survives_an_outage_at_the_resume(self, scene):
        scene.ti.at_link = scene.open_gate
        notebook = scene.notebook("dbutils.notebook.exit('x')")
        with pytest.raises(TaskDeferred) as deferral:
            submit(notebook_task=notebook, deferrable=True).execute(scene.context)
        event = fire(rebuilt(deferral.value.trigger))
        scene.workspace.faults.append(Fault("runs/get", status=502, body="<html>gateway</html>"))
        assert (
            submit(notebook_task=notebook).resume_execution("execute_complete", {"event": event}, scene.context) == "x"
        )

    @pytest.mark.parametrize(
        ("module", "name"),
        [(launch_operator, "LaunchOperator"), (sensor_base, "DatabricksSensor")],
    )
    @pytest.mark.parametrize("configured", [True, False])
    def test_is_deferred_by_default_as_airflow_is_configured(self, monkeypatch, module, name, configured):
        monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", str(configured))
        # Imported again, as by a process that starts with this setting.
        spec = importlib.util.spec_from_file_location("read_anew", module.__file__)
        imported = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(imported)
        assert getattr(imported, name)(task_id="load").deferrable is configured


class TestPayload:
    @pytest.mark.parametrize("as_text", [dict, str, json.dumps], ids=["dict", "repr", "text"])
    def test_parameters_override_json(self, scene, as_text):
        body = {
            "notebook_task": {"notebook_path": "/old"},
            "run_name": "mine",
            "libraries": [{"whl": "a"}],
            "queue": None,
        }
        operator = submit(json=as_text(body), notebook_task={"notebook_path": "/new"}, timeout_seconds=5)
        assert body_of(scene, operator) == {
            "notebook_task": {"notebook_path": "/new"},
            "run_name": "mine",
            "libraries": [{"whl": "a"}],
            "timeout_seconds": 5,
        }

    @pytest.mark.parametrize("kind", BOTH)
    def test_default_args_set_every_parameter(self, kind):
        special = {
            "on_skipped": "skip",
            "polling_period_seconds": 3,
            "max_repairs": 2,
            "max_result_bytes": 500,
            "databricks_repair_reason_new_settings": {"no rows": {}},
            "task_id": "load",
            "validate": False,
        }
        bases = (kind, launch_operator.LaunchOperator, payload_operator.PayloadOperator)
        parameters = {name for base in bases for name in inspect.signature(base).parameters}
        ours = {name for name in parameters - {"kwargs", "args", "task_id"} if not name.startswith("databricks_retry_")}
        assert {"json", "deferrable", "retry_on_cancel", kind.payload_fields[0]} <= ours
        defaults = {name: special.get(name, f"default of {name}") for name in ours}
        with DAG("nightly", schedule=None, default_args=defaults):
            operator = kind(task_id="load")
        assert {name: getattr(operator, name) for name in ours} == defaults

    def test_run_is_named_after_the_task(self, scene):
        assert body_of(scene, submit(notebook_task=NOTEBOOK))["run_name"] == "load"

    @pytest.mark.parametrize(
        "field", [name for name in DatabricksSubmitRunOperator.payload_fields if name.endswith("_task")]
    )
    def test_each_type_of_task_is_sent(self, scene, field):
        assert body_of(scene, submit(**{field: {"some": "thing"}}, validate=False))[field] == {"some": "thing"}

    def test_each_other_field_of_submit_is_sent(self, scene):
        fields = {
            name: {"of": name}
            for name in DatabricksSubmitRunOperator.payload_fields
            if not name.endswith("_task") and name != "tasks"
        }
        operator = submit(notebook_task=NOTEBOOK, **fields, validate=False)
        assert body_of(scene, operator) == {"notebook_task": NOTEBOOK, **fields}

    def test_each_field_of_run_now_is_sent(self, scene):
        fields = {name: {"of": name} for name in DatabricksRunNowOperator.payload_fields if not name.startswith("job_")}
        fields |= {"job_parameters": {"day": "1"}, "job_id": 42}
        assert body_of(scene, run_now(**fields, validate=False)) == fields

    @pytest.mark.parametrize(
        "given", [{"idempotency_token": "of-the-user"}, {"json": {"idempotency_token": "of-the-user"}}]
    )
    def test_users_idempotency_token_is_sent_unchanged(self, scene, given):
        submit(tasks=[{"task_key": "a", "condition_task": TRUE}], **given).execute(scene.context)
        assert [body["idempotency_token"] for body in scene.sent] == ["of-the-user"]

    def test_mapped_operator_is_built_per_element(self, scene):
        with DAG("nightly", schedule=None):
            mapped = DatabricksSubmitRunOperator.partial(
                task_id="load", deferrable=True, polling_period_seconds=2, json={"timeout_seconds": 9}
            ).expand(notebook_task=[NOTEBOOK, {"notebook_path": "/y"}])
        operator = mapped.unmap({"notebook_task": {"notebook_path": "/y"}})
        assert (operator.deferrable, operator.polling_period_seconds) == (True, 2)
        sent = body_of(scene, operator)
        assert sent == {"run_name": "load", "notebook_task": {"notebook_path": "/y"}, "timeout_seconds": 9}

    @pytest.mark.parametrize("native", [False, True])
    def test_templates_are_rendered_at_any_depth(self, scene, native):
        with DAG("nightly", schedule=None, render_template_as_native_obj=native):
            operator = submit(
                json="{{ body }}",
                tasks=[
                    {"task_key": "a", "notebook_task": {"notebook_path": "/x", "base_parameters": {"d": "{{ day }}"}}}
                ],
                libraries="{{ libraries }}" if native else [{"whl": "{{ libraries[0].whl }}"}],
                idempotency_token="{{ token }}",
                databricks_conn_id="databricks_{{ 'default' }}",
            )
        rendered = {
            "body": {"queue": {"enabled": True}},
            "day": "monday",
            "libraries": [{"whl": "a.whl"}],
            "token": "t-1",
        }
        operator.render_template_fields({**scene.context, **rendered})
        body = body_of(scene, operator)
        assert body["tasks"][0]["notebook_task"]["base_parameters"] == {"d": "monday"}
        assert (body["queue"], body["libraries"]) == ({"enabled": True}, [{"whl": "a.whl"}])

    @pytest.mark.parametrize("native", [False, True])
    def test_job_id_may_be_a_template(self, scene, native):
        with DAG("nightly", schedule=None, render_template_as_native_obj=native):
            operator = run_now(job_id="{{ job }}", notebook_params={"day": "{{ day }}"})
        operator.render_template_fields({**scene.context, "job": 42, "day": "monday"})
        assert body_of(scene, operator) == {"job_id": 42 if native else "42", "notebook_params": {"day": "monday"}}

    @pytest.mark.parametrize("kind", [DatabricksSubmitRunOperator, DatabricksNotebookOperator])
    def test_runs_where_nesting_is_forbidden(self, scene, monkeypatch, kind):
        task = scene.notebook("dbutils.notebook.exit('x')", gated=False)
        path = {"notebook_path": task["notebook_path"], "source": "WORKSPACE"}
        settings = {"notebook_task": task} if kind is DatabricksSubmitRunOperator else path
        operator = kind(task_id="load", polling_period_seconds=FAST, allow_nested_operators=False, **settings)
        assert operator.execute(scene.context, **called_by_airflow(kind, monkeypatch)) == "x"

    def test_template_that_renders_to_none_is_logged(self, scene, caplog, capfd):
        caplog.set_level("INFO")
        with DAG("nightly", schedule=None, render_template_as_native_obj=True):
            operator = run_now(job_id="{{ job }}", notebook_params={"day": "{{ day }}", "hour": None})
        operator.render_template_fields({**scene.context, "job": None, "day": "monday"})
        logged = [line for line in (caplog.text or capfd.readouterr().out).splitlines() if "rendered to None" in line]
        assert len(logged) == 1
        assert "The template {{ job }} rendered to None, so the field counts as not given" in logged[0]
        with pytest.raises(ConfigurationError, match=r"job_id .* is missing"):
            operator.execute(scene.context)

    def test_template_file_as_json(self, scene, tmp_path):
        (tmp_path / "body.json-tpl").write_text('{"notebook_task": {"notebook_path": "/{{ path }}"}}')
        with DAG("nightly", schedule=None, template_searchpath=str(tmp_path)):
            operator = submit(json="body.json-tpl")
        operator.resolve_template_files()
        operator.render_template_fields({**scene.context, "path": "x"})
        assert body_of(scene, operator)["notebook_task"] == NOTEBOOK

    @pytest.mark.parametrize(
        "fields",
        [
            lambda arg: {"json": {"run_name": arg, "notebook_task": NOTEBOOK}},
            lambda arg: {"tasks": [{"task_key": "a", "notebook_task": {**NOTEBOOK, "base_parameters": {"rows": arg}}}]},
            lambda arg: {"notebook_task": arg},
        ],
    )
    def test_xcomarg_makes_its_task_upstream(self, fields):
        with DAG("nightly", schedule=None):
            upstream = submit(task_id="upstream", notebook_task=NOTEBOOK)
            operator = submit(task_id="downstream", **fields(XComArg(upstream)))
        assert operator.upstream_task_ids == {"upstream"}

    def test_requests_name_operator_and_airflow(self, scene):
        from airflow import __version__ as airflow_version

        submit(tasks=[{"task_key": "a", "condition_task": TRUE}]).execute(scene.context)
        (agent,) = scene.user_agents
        assert agent.endswith(f" airflow/{airflow_version} operator/DatabricksSubmitRunOperator")


class TestResult:
    @pytest.mark.parametrize("kind", BOTH)
    @pytest.mark.parametrize(
        ("code", "returned"),
        [
            ("""dbutils.notebook.exit('{"rows": 3}')""", {"rows": 3}),
            ("dbutils.notebook.exit('all well')", "all well"),
            ("pass", None),
        ],
        ids=["json", "text", "nothing"],
    )
    def test_is_that_of_the_notebook(self, scene, client, kind, deferrable, *, code, returned):
        task = {"task_key": "main", "notebook_task": scene.notebook(code)}
        scene.ti.at_link = scene.open_gate
        assert scene.run_task(launching(kind, client, [task], deferrable=deferrable)) == returned
        assert scene.ti.deferred is deferrable
        assert scene.launches() == 1

    @pytest.mark.parametrize("kind", BOTH)
    def test_of_several_tasks_is_a_dict(self, scene, client, kind, deferrable):
        tasks = [
            {"task_key": "rows", "notebook_task": scene.notebook("dbutils.notebook.exit(7)", "rows")},
            {"task_key": "silent", "notebook_task": scene.notebook(name="silent")},
            {"task_key": "name", "notebook_task": scene.notebook("dbutils.notebook.exit('x')", "name")},
        ]
        scene.ti.at_link = scene.open_gate
        assert scene.run_task(launching(kind, client, tasks, deferrable=deferrable)) == {"rows": "7", "name": "x"}

    def test_that_is_too_large_is_truncated(self, scene, deferrable):
        notebook = scene.notebook("dbutils.notebook.exit('x' * 20)", gated=False)
        assert (
            scene.run_task(lambda: submit(notebook_task=notebook, deferrable=deferrable, max_result_bytes=9)) == "x" * 9
        )

    @pytest.mark.parametrize("size", [0, -1, None, "1 MB", 1.5])
    def test_with_an_invalid_maximum_size_is_a_dag_error(self, size):
        with pytest.raises(ValueError, match=f"max_result_bytes is {size!r}; it must be a whole number, 1 or more"):
            run_now(job_id=1, max_result_bytes=size)
