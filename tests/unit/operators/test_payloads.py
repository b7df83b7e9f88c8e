"""The operators' payloads: types and dicts, the check when the DAG is parsed, and the one before it is sent."""

from __future__ import annotations

import json
import sys
from datetime import date
from enum import Enum
from pathlib import PosixPath
from types import SimpleNamespace
from typing import Any

import pytest
from airflow import DAG, XComArg
from airflow_context import connect, parsed, run_now, submit

from airflow_dbjobs.errors import BadRequest, ConfigurationError, PayloadError
from airflow_dbjobs.local_workspace import Fault
from airflow_dbjobs.operators import DatabricksRunNowOperator, DatabricksSubmitRunOperator
from airflow_dbjobs.payloads import (
    AutoScale,
    Library,
    NewCluster,
    NotebookTask,
    PythonPyPiLibrary,
    RunNow,
    SubmitRun,
    SubmitTask,
)

NOTEBOOK = {"notebook_path": "/x"}
TIMEOUT = ("timeout_seconds", 20)
TRUE = {"op": "EQUAL_TO", "left": "1", "right": "1"}


def sent_by(scene, operator) -> dict[str, Any]:
    """Return what the operator sends; the workspace refuses it."""
    scene.workspace.faults.append(Fault("*", status=400, body={"error_code": "X", "message": "seen enough"}))
    with pytest.raises(BadRequest, match="seen enough"):
        operator.execute(scene.context)
    body = scene.sent[-1]
    # What every operator of these tests has.
    return {name: value for name, value in body.items() if name != "idempotency_token" and (name, value) != TIMEOUT}


def serialized(dag: DAG) -> dict[str, Any]:
    """Return what the scheduler gets of a DAG."""
    try:
        from airflow.serialization.serialized_objects import DagSerialization as Serialization
    except ImportError:  # before Airflow 3.2
        from airflow.serialization.serialized_objects import SerializedDAG as Serialization
    return json.loads(json.dumps(Serialization.to_dict(dag)))


class Name(str, Enum):  # noqa: UP042 (the str() of a StrEnum is its value, so that it shows nothing here)
    NODE = "m"


class Size(Enum):
    SMALL = 1


class TestTypes:
    def test_replace_dicts_anywhere(self, scene):
        cluster = NewCluster(spark_version="x", node_type_id="m", autoscale=AutoScale(min_workers=1, max_workers="3"))
        task = SubmitTask(task_key="a", notebook_task=NotebookTask(notebook_path="/x"), new_cluster=cluster)
        as_dict = {
            "task_key": "a",
            "notebook_task": NOTEBOOK,
            "new_cluster": {
                "spark_version": "x",
                "node_type_id": "m",
                "autoscale": {"min_workers": 1, "max_workers": "3"},
            },
        }
        library = Library(pypi=PythonPyPiLibrary(package="a"))
        for operator in (
            submit(tasks=[task]),
            submit(json=SubmitRun(tasks=[task])),
            submit(json={"tasks": [as_dict | {"new_cluster": cluster}]}),
        ):
            assert sent_by(scene, operator) == {"run_name": "load", "tasks": [as_dict]}
        flat = submit(notebook_task=NotebookTask(notebook_path="/x"), new_cluster=cluster, libraries=[library])
        assert sent_by(scene, flat)["libraries"] == [{"pypi": {"package": "a"}}]
        assert sent_by(scene, run_now(json=RunNow(job_id=7, job_parameters={"a": "b"}))) == {
            "job_id": 7,
            "job_parameters": {"a": "b"},
        }

    def test_may_contain_templates_and_xcomargs(self, scene):
        with DAG("nightly", schedule=None):
            upstream = submit(task_id="upstream", notebook_task=NOTEBOOK)
            path = XComArg(upstream)
            operator = submit(
                notebook_task=NotebookTask(notebook_path=path, base_parameters={"day": "{{ day }}"}),
                new_cluster=NewCluster(
                    spark_version="x", node_type_id="{{ node }}", num_workers=XComArg(upstream, "n")
                ),
            )
        assert operator.upstream_task_ids == {"upstream"}
        assert operator.notebook_task["notebook_path"] is path
        operator.new_cluster = {**operator.new_cluster, "num_workers": 1}
        operator.notebook_task = {**operator.notebook_task, "notebook_path": "/{{ day }}"}
        operator.render_template_fields({**scene.context, "day": "monday", "node": "m"})
        assert sent_by(scene, operator) == {
            "run_name": "load",
            "notebook_task": {"notebook_path": "/monday", "base_parameters": {"day": "monday"}},
            "new_cluster": {"spark_version": "x", "node_type_id": "m", "num_workers": 1},
        }

    def test_work_in_mapped_operators(self, scene):
        with DAG("nightly", schedule=None) as dag:
            path = XComArg(submit(task_id="upstream", notebook_task=NOTEBOOK))
            cluster = NewCluster(spark_version="x", node_type_id="{{ node }}", policy_id=path)
            mapped = DatabricksSubmitRunOperator.partial(task_id="load", new_cluster=cluster).expand(
                notebook_task=[NotebookTask(notebook_path="/{{ day }}"), NotebookTask(notebook_path=path)]
            )
        assert mapped.upstream_task_ids == {"upstream"}
        assert '"/{{ day }}"' in json.dumps(serialized(dag))
        operator = mapped.unmap({"notebook_task": NotebookTask(notebook_path="/{{ day }}")})
        operator.new_cluster.pop("policy_id")
        operator.render_template_fields({**scene.context, "day": "monday", "node": "m"})
        assert sent_by(scene, operator) == {
            "run_name": "load",
            "notebook_task": {"notebook_path": "/monday"},
            "new_cluster": {"spark_version": "x", "node_type_id": "m"},
        }

    def test_may_contain_enum_members(self, scene):
        with DAG("nightly", schedule=None) as dag:
            cluster = {"spark_version": "x", "node_type_id": Name.NODE, "num_workers": Size.SMALL}
            operator = submit(json={"budget_policy_id": Name.NODE}, notebook_task=NOTEBOOK, new_cluster=cluster)
        serialized(dag)
        operator.render_template_fields(scene.context)
        assert operator.json == {"budget_policy_id": "m"}
        assert operator.new_cluster == {"spark_version": "x", "node_type_id": "m", "num_workers": 1}
        assert type(operator.new_cluster["node_type_id"]) is str


class Argument:
    """As little of an XComArg as the check knows of."""

    def resolve(self, context: Any) -> None: ...


class LaterOperator(DatabricksSubmitRunOperator):
    """Sets its payload when the constructor that checks it is done."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.json = {"notebook_task": NOTEBOOK}


class FileOperator(DatabricksSubmitRunOperator):
    """Has template files of its own."""

    template_ext = (".json-tpl", ".json")


class TestLateCheck:
    def test_finds_mistakes_in_rendered_templates(self, scene):
        with DAG("nightly", schedule=None):
            operator = submit(notebook_task={"notebook_path": "{{ path }}"}, timeout_seconds="{{ seconds }}")
        operator.render_template_fields({**scene.context, "path": "", "seconds": "soon"})
        with pytest.raises(PayloadError) as caught:
            operator.execute(scene.context)
        assert [line.partition(":")[0] for line in caught.value.violations] == [
            "- notebook_task.notebook_path [NB-PATH]",
            "- timeout_seconds [REQ-FIELD-TYPE]",
        ]
        assert not scene.workspace.requests

    @pytest.mark.parametrize("native", [True, False])
    def test_accepts_a_list_rendered_natively_or_as_text(self, scene, native):
        tasks = [{"task_key": "a", "condition_task": TRUE}]
        with DAG("nightly", schedule=None, render_template_as_native_obj=native):
            operator = submit(tasks="{{ params.tasks }}", json="{{ params.more }}")
        operator.render_template_fields(
            {**scene.context, "params": {"tasks": tasks, "more": {"queue": {"enabled": True}}}}
        )
        assert sent_by(scene, operator) == {"run_name": "load", "tasks": tasks, "queue": {"enabled": True}}

    def test_sends_rendered_numbers_as_strings(self, scene):
        with DAG("nightly", schedule=None, render_template_as_native_obj=True):
            operator = run_now(
                job_id=1, notebook_params={"day": "{{ day }}", "n": 5}, python_params=["{{ day }}", True]
            )
        operator.render_template_fields({**scene.context, "day": "20260101"})
        assert operator.notebook_params["day"] == 20260101
        sent = sent_by(scene, operator)
        assert (sent["notebook_params"], sent["python_params"]) == ({"day": "20260101", "n": "5"}, ["20260101", "true"])

    def test_applies_the_rules_of_the_workspaces_cloud(self, scene, mocker):
        cluster = {"spark_version": "x", "node_type_id": "m", "num_workers": 1, "custom_tags": {"windows": "a"}}
        operator = submit(notebook_task=NOTEBOOK, new_cluster=cluster)
        mocker.patch("airflow_dbjobs.client.JobsClient.cloud", new_callable=mocker.PropertyMock, return_value="azure")
        with pytest.raises(PayloadError, match="TAG-KEY-AZURE"):
            operator.execute(scene.context)
        assert not scene.workspace.requests

    def test_depends_on_the_connections_api_version(self, scene, monkeypatch):
        operator = run_now(job_id=1, notebook_params={"a": "é"})
        assert sent_by(scene, operator)["notebook_params"] == {"a": "é"}
        connect(monkeypatch, scene.workspace.base_url, scene.workspace.token, extra={"api_version": "2.0"})
        with pytest.raises(PayloadError, match="PARAM-ASCII-NOTEBOOK-PARAMS"):
            operator.execute(scene.context)
        with pytest.raises(PayloadError, match=r"has tasks, which need API 2.1 or later"):
            submit(tasks=[{"task_key": "a", "condition_task": TRUE}]).execute(scene.context)

    def test_logs_warnings_and_sends_the_payload(self, scene, mocker):
        operator = submit(notebook_task={**NOTEBOOK, "sorce": "WORKSPACE"})
        log = mocker.patch.object(type(operator), "log", new_callable=mocker.PropertyMock).return_value
        assert sent_by(scene, operator)["notebook_task"] == {**NOTEBOOK, "sorce": "WORKSPACE"}
        warnings = [call.args[0] % call.args[1:] for call in log.warning.call_args_list]
        assert any("runs/submit payload: notebook_task.sorce [FIELD-NAME]" in text for text in warnings)
        assert any("Did you mean source?" in text for text in warnings)

    def test_is_not_made_without_validation(self, scene):
        body = {"tasks": [], "max_retries": "none"}
        assert sent_by(scene, submit(json=body, validate=False)) == {"run_name": "load", **body}


class TestEarlyCheck:
    @pytest.mark.parametrize(
        ("make", "expected_words"),
        [
            (lambda: submit(notebook_task={"notebook_path": "x"}), "notebook_task.notebook_path [NB-PATH-ABSOLUTE]"),
            (lambda: submit(tasks=[{"task_key": "a", "notebook_task": NOTEBOOK, "timeout_seconds": -1}]),
             "tasks[0].timeout_seconds [RANGE-TIMEOUT]: is -1"),
            (lambda: submit(tasks=[SubmitTask(task_key="a", notebook_task=NotebookTask())]),
             "tasks[0].notebook_task.notebook_path [NB-PATH]: is missing"),
            (lambda: submit(json='{"notebook_task": {}}'), "notebook_task.notebook_path [NB-PATH]"),
            (lambda: submit(json="{{ body }}", tasks=[{"task_key": "", "condition_task": TRUE}]),
             "tasks[0].task_key [TASKKEY-REQUIRED]"),
            (lambda: submit(notebook_task=NOTEBOOK, idempotency_token="t" * 65), "[TOKEN-SUBMIT-LENGTH]"),
            (run_now, "job_id [REQ-JOB-ID]: is missing"),
            (lambda: run_now(job_id=1, jar_params=["a", [2], "{{ c }}"]), "jar_params[1] [PARAM-LIST-VALUES]"),
            (lambda: submit(notebook_task=NOTEBOOK, existing_cluster_id="c", new_cluster={"spark_version": "x"}),
             "the payload [COMPUTE-ONE-2_1]: has existing_cluster_id and new_cluster"),
            (lambda: submit(tasks="[]"), "tasks [REQ-FIELD-TYPE]"),
        ],
    )  # fmt: skip
    def test_finds_a_mistake_when_the_operator_is_created(self, make, expected_words):
        with pytest.raises(PayloadError) as caught:
            make()
        assert expected_words in str(caught.value)

    def test_makes_a_mistake_an_import_error(self, tmp_path):
        file = tmp_path / "wrong.py"
        file.write_text(
            "from airflow import DAG\n"
            "from airflow_dbjobs.operators import DatabricksSubmitRunOperator\n"
            "from airflow_dbjobs.payloads import SubmitTask, NewCluster\n"
            "cluster = NewCluster(spark_version='x', node_type_id='m', num_workers=-1)\n"
            "with DAG('wrong', schedule=None):\n"
            "    tasks = [SubmitTask(task_key='t', sql_task={}, new_cluster=cluster)]\n"
            "    DatabricksSubmitRunOperator(task_id='a', tasks=tasks)\n"
        )
        (error,) = parsed(file).import_errors.values()
        assert "tasks[0].new_cluster.num_workers [CLUSTER-NUM-WORKERS]: is -1; 0 or more is allowed" in error
        assert "tasks[0].sql_task.warehouse_id [SQL-WAREHOUSE]: is missing" in error

    @pytest.mark.parametrize("unknown", ["{{ x }}", "{% if x %}a{% endif %}", "x.json-tpl", Argument()])
    @pytest.mark.parametrize(
        "fields",
        [
            lambda x: {"notebook_task": x},
            lambda x: {"notebook_task": {"notebook_path": x, "source": x, "base_parameters": x}},
            lambda x: {"tasks": x, "libraries": x, "git_source": x, "timeout_seconds": x, "run_name": x},
            lambda x: {"tasks": [x, {"task_key": x, "notebook_task": x, "new_cluster": x, "depends_on": [x]}]},
            lambda x: {"tasks": [{"task_key": "a", "sql_task": {"warehouse_id": x, "query": {"query_id": x}},
                                  "depends_on": [{"task_key": "c", "outcome": x}]}, x]},
            lambda x: {"notebook_task": NOTEBOOK, "new_cluster": {"spark_version": x, "num_workers": x, "autoscale": x,
                       "custom_tags": {"a": x}, "init_scripts": [x, {"workspace": x}], "azure_attributes":
                       {"first_on_demand": x, "availability": x}}},
            lambda x: {"notebook_task": {"notebook_path": "relative"}, "git_source": x},
            lambda x: {"json": x},
            lambda x: {"json": {"notebook_task": NOTEBOOK,
                                "health": {"rules": [{"metric": x, "op": x, "value": x}, x]}}},
            lambda x: {"json": {"notebook_task": NOTEBOOK, "email_notifications": {"on_start": [x], "on_failure": x}}},
            lambda x: {"tasks": [{"task_key": "a", "job_cluster_key": x, "environment_key": x, "run_if": x,
                       "max_retries": x, "dbt_task": {"commands": [x], "catalog": "c", "warehouse_id": x}}]},
        ],
    )  # fmt: skip
    def test_ignores_templates(self, fields, unknown):
        submit(**fields(unknown))

    @pytest.mark.parametrize(
        "fields", [{"job_id": Argument()}, {"job_name": "{{ x }}"}, {"job_id": 1, "job_parameters": {"a": Argument()}},
                   {"job_id": 1, "python_params": ["{{ x }}" * 9999, "é{{ x }}"]}],
    )  # fmt: skip
    def test_ignores_templates_of_run_now(self, fields):
        run_now(**fields)

    def test_checks_what_surrounds_a_template(self):
        with pytest.raises(PayloadError) as caught:
            submit(
                tasks=[{"task_key": "{{ a }}", "depends_on": [{"task_key": 5}], "max_retries": -5}, "{{ b }}"],
                libraries=["{{ c }}", {"jar": "a", "whl": "{{ d }}", "egg": "b"}],
            )
        assert [line.partition("]:")[0] for line in caught.value.violations] == [
            "- tasks[0] [TASK-ONE-2_1",
            "- tasks[0].max_retries [RANGE-MAX-RETRIES",
            "- libraries[1] [LIB-ONE-KIND",
        ]

    def test_lets_a_subclass_complete_the_payload_later(self):
        LaterOperator(task_id="load")
        LaterOperator(task_id="load", json="payload.sql")
        with pytest.raises(PayloadError, match="RANGE-TIMEOUT"):
            LaterOperator(task_id="load", timeout_seconds=-1)

    @pytest.mark.parametrize("kind", [DatabricksSubmitRunOperator, DatabricksRunNowOperator])
    def test_is_neither_made_nor_loaded_without_validation(self, kind, monkeypatch):
        for name in [name for name in sys.modules if name.startswith("airflow_dbjobs.payloads")]:
            monkeypatch.delitem(sys.modules, name)
        operator = kind(task_id="load", json={"tasks": [], "when": date(2026, 1, 1)}, validate=False)
        assert operator.json == {"tasks": [], "when": date(2026, 1, 1)}
        assert [name for name in sys.modules if name.startswith("airflow_dbjobs.payloads")] == []

    def test_of_a_mapped_operator_is_made_per_element(self):
        with DAG("nightly", schedule=None):
            mapped = DatabricksSubmitRunOperator.partial(task_id="load", timeout_seconds=-1).expand(
                notebook_task=[NOTEBOOK, {}]
            )
        with pytest.raises(PayloadError, match=r"RANGE-TIMEOUT[^$]*NB-PATH"):
            mapped.unmap({"notebook_task": {}})

    def test_ignores_template_files_of_a_subclass(self):
        FileOperator(task_id="load", tasks="tasks.json")
        FileOperator(
            task_id="load", tasks=[{"task_key": "a", "new_cluster": "cluster.json", "notebook_task": NOTEBOOK}]
        )
        with pytest.raises(PayloadError, match=r"tasks \[REQ-FIELD-TYPE\]"):
            FileOperator(task_id="load", tasks="tasks.yaml")

    def test_accepts_a_function_only_as_a_whole_field(self, scene):
        operator = submit(tasks=lambda context, jinja_env: [{"task_key": "a", "condition_task": TRUE}])
        operator.render_template_fields(scene.context)
        assert sent_by(scene, operator)["tasks"] == [{"task_key": "a", "condition_task": TRUE}]
        submit(json=lambda context, jinja_env: {})
        with pytest.raises(ConfigurationError, match=r"notebook_task.notebook_path is a function"):
            submit(notebook_task={"notebook_path": lambda context, jinja_env: "/x"})

    def test_does_not_take_a_path_for_a_template(self):
        with pytest.raises(ConfigurationError, match=r"notebook_task\.notebook_path is a PosixPath"):
            submit(notebook_task={"notebook_path": PosixPath("/x")})

    def test_rejects_a_payload_that_contains_itself(self):
        body: dict[str, Any] = {"job_id": 1}
        body["notebook_params"] = body
        with pytest.raises(ConfigurationError, match="contains itself"):
            run_now(json=body)

    def test_rejects_what_json_cannot_contain(self):
        with pytest.raises(ConfigurationError, match=r"notebook_task.base_parameters.day is a date"):
            submit(notebook_task={**NOTEBOOK, "base_parameters": {"day": date(2026, 1, 1)}})

    def test_needs_no_context(self):
        # Airflow makes operators in processes that have neither connections nor a database.
        assert SimpleNamespace(**vars(submit(notebook_task=NOTEBOOK))).notebook_task is NOTEBOOK
