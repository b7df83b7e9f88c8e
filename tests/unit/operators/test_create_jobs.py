"""DatabricksCreateJobsOperator: a job that a DAG keeps."""

from __future__ import annotations

import inspect
import json
import sqlite3
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from airflow import DAG, XComArg
from airflow_context import connect, parsed
from airflow_stack import WorkspaceServer
from dag_script import run_script

from airflow_dbjobs.errors import ConfigurationError, PayloadError
from airflow_dbjobs.operators import DatabricksCreateJobsOperator, DatabricksRunNowOperator
from airflow_dbjobs.operators.base import PayloadOperator
from airflow_dbjobs.payloads import (
    CreateJob,
    CronSchedule,
    GitSource,
    JobAccessControlRequest,
    JobCluster,
    JobEmailNotifications,
    NewCluster,
    NotebookTask,
    Task,
)

if TYPE_CHECKING:
    from pathlib import Path

CONDITION = {"op": "EQUAL_TO", "left": "1", "right": "1"}
TASKS = [{"task_key": "a", "condition_task": CONDITION}]
CRON = {"quartz_cron_expression": "0 0 6 * * ?", "timezone_id": "UTC"}
# The parameters of the official operator, without those of every operator (release 7.23).
OFFICIAL = {
    "json": {"parameters": [{"name": "day", "default": "1"}]},
    "name": "nightly",
    "description": "text",
    "tags": {"team": "a"},
    "tasks": TASKS,
    "job_clusters": [{"job_cluster_key": "k", "new_cluster": {"spark_version": "x", "node_type_id": "m",
                      "num_workers": 1}}],
    "environments": [{"environment_key": "e", "spec": {"environment_version": "3"}}],
    "email_notifications": {"on_failure": ["ann@example.com"]},
    "webhook_notifications": {"on_failure": [{"id": "w"}]},
    "notification_settings": {"no_alert_for_skipped_runs": True},
    "timeout_seconds": 60,
    "schedule": CRON,
    "trigger": None,
    "max_concurrent_runs": 2,
    "git_source": {"git_url": "https://git.example.com/a.git", "git_provider": "gitHub", "git_branch": "main"},
    "access_control_list": [{"group_name": "team", "permission_level": "CAN_VIEW"}],
    "performance_target": "STANDARD",
    "databricks_conn_id": "databricks_default",
    "polling_period_seconds": 30,
    "databricks_retry_limit": 3,
    "databricks_retry_delay": 1,
    "databricks_retry_args": None,
}  # fmt: skip


def create(**kwargs: Any) -> DatabricksCreateJobsOperator:
    return DatabricksCreateJobsOperator(**{"task_id": "keep", **kwargs})


def kept(scene, client, operator) -> dict[str, Any]:
    """Return the settings of the job that the operator keeps."""
    return dict(client.get_job(operator.execute(scene.context))["settings"])


class TestParameters:
    @pytest.mark.parametrize("version", ["2.1", "2.2"])
    def test_of_the_official_operator_are_accepted_and_sent(self, scene, client, monkeypatch, version):
        connect(monkeypatch, scene.workspace.base_url, scene.workspace.token, extra={"api_version": version})
        operator = create(**OFFICIAL)
        settings = kept(scene, client, operator)
        sent = {
            name: OFFICIAL[name] for name in operator.payload_fields if name not in ("access_control_list", "trigger")
        }
        (task,) = settings["tasks"]
        assert {name: settings[name] for name in sent} == {**sent, "tasks": [task]}
        assert task.items() >= TASKS[0].items()
        assert settings["parameters"] == OFFICIAL["json"]["parameters"]
        job_id = operator.execute(scene.context)
        assert scene.workspace.requests["reset"] == 0
        granted = {entry.get("group_name") for entry in client.get_permissions(job_id)["access_control_list"]}
        assert "team" in granted

    def test_include_the_official_ones_and_all_payload_fields(self):
        ours = {
            *inspect.signature(DatabricksCreateJobsOperator).parameters,
            *inspect.signature(PayloadOperator).parameters,
        }
        assert OFFICIAL.keys() - ours == set()
        assert {*DatabricksCreateJobsOperator.payload_fields} < OFFICIAL.keys()
        official_templates = OFFICIAL.keys() - {"polling_period_seconds"}
        official_templates -= {name for name in OFFICIAL if name.startswith("databricks_retry_")}
        assert set(DatabricksCreateJobsOperator.template_fields) == official_templates

    @pytest.mark.parametrize("as_text", [dict, str, json.dumps], ids=["dict", "repr", "text"])
    def test_override_json(self, scene, client, as_text):
        body = {"name": "old", "tasks": TASKS, "timeout_seconds": 5, "queue": None, "max_concurrent_runs": 3}
        settings = kept(scene, client, create(json=as_text(body), name="nightly", timeout_seconds=60))
        assert (settings["name"], settings["timeout_seconds"], settings["max_concurrent_runs"]) == ("nightly", 60, 3)

    def test_for_retries_are_named_in_a_warning(self, capfd):
        create(name="nightly", tasks=TASKS, databricks_retry_limit=5, databricks_retry_args={})
        assert "keep: databricks_retry_limit, databricks_retry_args have no effect" in capfd.readouterr().out

    def test_are_set_by_default_args(self):
        fields = [*DatabricksCreateJobsOperator.payload_fields, "json", "databricks_conn_id"]
        defaults = {**{name: f"default of {name}" for name in fields}, "validate": False, "polling_period_seconds": 3}
        with DAG("nightly", schedule=None, default_args=defaults):
            operator = DatabricksCreateJobsOperator(task_id="keep")
        assert {name: getattr(operator, name) for name in fields} == {name: defaults[name] for name in fields}

    def test_may_be_typed_instead_of_dicts(self, scene, client):
        cluster = NewCluster(spark_version="x", node_type_id="m", num_workers=1)
        task = Task(task_key="a", job_cluster_key="k", notebook_task=NotebookTask(notebook_path="x"))
        parts = {
            "name": "typed",
            "tasks": [task],
            "job_clusters": [JobCluster(job_cluster_key="k", new_cluster=cluster)],
            "schedule": CronSchedule(**CRON),
            "git_source": GitSource(git_url="https://git.example.com/a.git", git_provider="gitHub", git_tag="v1"),
            "email_notifications": JobEmailNotifications(on_start=["ann@example.com"]),
            "access_control_list": [JobAccessControlRequest(group_name="team", permission_level="CAN_VIEW")],
        }
        named = create(**parts)
        settings = kept(scene, client, named)
        assert settings["job_clusters"][0]["new_cluster"] == {
            "spark_version": "x",
            "node_type_id": "m",
            "num_workers": 1,
        }
        # The same in `json` is the same job: nothing is written.
        assert kept(scene, client, create(json=CreateJob(**parts))) == settings
        assert (scene.workspace.requests["create"], scene.workspace.requests["reset"]) == (1, 0)


class TestTemplates:
    def test_and_xcomargs_are_rendered_at_any_depth(self, scene, client):
        with DAG("nightly", schedule=None):
            upstream = create(task_id="upstream", name="first", tasks=TASKS)
            operator = create(
                name="of {{ team }}",
                tasks=[
                    Task(task_key="a", run_job_task={"job_id": XComArg(upstream), "job_parameters": {"d": "{{ day }}"}})
                ],
                tags={"team": "{{ team }}"},
                json={"queue": {"enabled": XComArg(upstream, "queue")}},
            )
            chained = DatabricksRunNowOperator(task_id="run", job_id=operator.output)
        assert operator.upstream_task_ids == {"upstream"}
        assert chained.upstream_task_ids == {"keep"}
        operator.tasks[0]["run_job_task"]["job_id"] = 17
        operator.json = {"queue": {"enabled": "{{ queue }}"}}
        operator.render_template_fields({**scene.context, "team": "data", "day": "monday", "queue": False})
        settings = kept(scene, client, operator)
        assert (settings["name"], settings["tags"]) == ("of data", {"team": "data"})
        assert settings["tasks"][0]["run_job_task"] == {"job_id": 17, "job_parameters": {"d": "monday"}}
        assert settings["queue"] == {"enabled": False}

    @pytest.mark.parametrize("native", [False, True])
    def test_may_be_the_whole_body(self, scene, client, native):
        with DAG("nightly", schedule=None, render_template_as_native_obj=native):
            operator = create(json="{{ body }}", name="{{ year }}")
        operator.render_template_fields({**scene.context, "body": {"tasks": TASKS, "timeout_seconds": 9}, "year": 2026})
        settings = kept(scene, client, operator)
        assert (settings["name"], settings["timeout_seconds"]) == ("2026", 9)

    def test_may_be_files(self, scene, client, tmp_path):
        body = {"name": "{{ name }}", "tasks": TASKS}
        (tmp_path / "job.json-tpl").write_text(json.dumps(body))
        with DAG("nightly", schedule=None, template_searchpath=str(tmp_path)):
            operator = create(json="job.json-tpl")
        operator.resolve_template_files()
        operator.render_template_fields({**scene.context, "name": "nightly"})
        assert kept(scene, client, operator)["name"] == "nightly"


class LaterOperator(DatabricksCreateJobsOperator):
    """Sets its name when the constructor that checks it is done."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.name = "nightly"


class TestEarlyCheck:
    @pytest.mark.parametrize(
        ("fields", "expected_words"),
        [
            ({"tasks": [{**TASKS[0], "timeout_seconds": -1}]}, "tasks[0].timeout_seconds [RANGE-TIMEOUT]: is -1"),
            ({"tasks": [Task(task_key="a", notebook_task=NotebookTask())]},
             "tasks[0].notebook_task.notebook_path [NB-PATH]: is missing"),
            ({"tasks": [{"task_key": "a", "job_cluster_key": "k", "notebook_task": {"notebook_path": "/x"}}]},
             "tasks[0].job_cluster_key [JOBCLUSTER-REF]"),
            ({"tasks": TASKS, "max_concurrent_runs": 1001}, "max_concurrent_runs [RANGE-MAX-CONCURRENT]: is 1001"),
            ({"tasks": TASKS, "schedule": CRON, "trigger": {"periodic": {"interval": 1, "unit": "DAYS"}}},
             "[TRIGGER-EXCLUSIVE]"),
            ({"tasks": TASKS, "tags": {str(number): "x" for number in range(26)}}, "tags [TAGS-COUNT]"),
            ({"json": json.dumps({"tasks": TASKS, "timeout_seconds": -5})}, "timeout_seconds [RANGE-TIMEOUT]"),
        ],
    )  # fmt: skip
    def test_finds_a_mistake_when_the_operator_is_created(self, fields, expected_words):
        with pytest.raises(PayloadError, match="jobs/create") as caught:
            create(name="nightly", **fields)
        assert expected_words in str(caught.value)

    @pytest.mark.parametrize(
        "fields",
        [{}, {"name": None}, {"name": ""}, {"json": {}}, {"json": {"name": None}}, {"json": {"timeout_seconds": 1}}],
    )
    def test_finds_a_missing_name(self, fields):
        with pytest.raises(ConfigurationError, match="name is missing"):
            create(tasks=TASKS, **fields)

    def test_ignores_what_is_not_known_yet(self):
        create(name="{{ name }}", tasks="{{ tasks }}")
        create(json="{{ body }}")
        create(json="job.json-tpl")
        with DAG("nightly", schedule=None):
            unknown = XComArg(create(task_id="upstream", name="first", tasks=TASKS))
            create(name=unknown, tasks=unknown, schedule=unknown, tags={"a": unknown})
            create(task_id="other", json=unknown)

    def test_lets_a_subclass_set_the_name_later(self, scene, client):
        assert kept(scene, client, LaterOperator(task_id="keep", tasks=TASKS))["name"] == "nightly"

    def test_is_neither_made_nor_loaded_without_validation(self, monkeypatch):
        for name in [name for name in sys.modules if name.startswith("airflow_dbjobs.payloads")]:
            monkeypatch.delitem(sys.modules, name)
        assert create(json={"tasks": [], "timeout_seconds": -1}, validate=False).json["tasks"] == []
        assert [name for name in sys.modules if name.startswith("airflow_dbjobs.payloads")] == []

    def test_makes_a_mistake_an_import_error(self, tmp_path):
        file = tmp_path / "wrong.py"
        file.write_text(
            "from airflow import DAG\n"
            "from airflow_dbjobs.operators import DatabricksCreateJobsOperator\n"
            "with DAG('wrong', schedule=None):\n"
            "    DatabricksCreateJobsOperator(task_id='a', name='n', tasks=[{'task_key': 't', 'sql_task': {}}])\n"
        )
        (error,) = parsed(file).import_errors.values()
        assert "tasks[0].sql_task.warehouse_id [SQL-WAREHOUSE]: is missing" in error


class TestLateCheck:
    def test_depends_on_the_connections_api_version(self, scene, client, monkeypatch):
        operator = create(name="nightly", tasks=TASKS)
        connect(monkeypatch, scene.workspace.base_url, scene.workspace.token, extra={"api_version": "2.0"})
        with pytest.raises(PayloadError, match=r"tasks, which need API 2.1 or later"):
            operator.execute(scene.context)
        assert not scene.workspace.requests
        flat = {"json": {"condition_task": CONDITION}, "access_control_list": OFFICIAL["access_control_list"]}
        assert kept(scene, client, create(name="nightly", validate=False, **flat))["name"] == "nightly"

    @pytest.mark.parametrize(
        ("rendered", "expected_words"),
        [
            ({"name": "n", "tasks": [{"task_key": "a", "notebook_task": {}}]}, "notebook_task.notebook_path .NB-PATH"),
            ({"tasks": TASKS}, "name is missing"),
            ({"name": "", "tasks": TASKS}, "name is missing"),
        ],
    )
    def test_finds_mistakes_in_rendered_templates(self, scene, rendered, expected_words):
        with DAG("nightly", schedule=None):
            operator = create(json="{{ body }}")
        operator.render_template_fields({**scene.context, "body": rendered})
        with pytest.raises(ConfigurationError, match=expected_words):
            operator.execute(scene.context)
        assert not scene.workspace.requests

    def test_logs_warnings_and_sends_the_payload(self, scene, client, mocker):
        operator = create(name="nightly", tasks=[{**TASKS[0], "max_retrys": 1}])
        log = mocker.patch.object(type(operator), "log", new_callable=mocker.PropertyMock).return_value
        assert kept(scene, client, operator)["tasks"][0]["max_retrys"] == 1
        warnings = [call.args[0] % call.args[1:] for call in log.warning.call_args_list]
        assert any("jobs/create payload: tasks[0].max_retrys [FIELD-NAME]" in text for text in warnings)


DAG_FILE = """\
from datetime import datetime

from airflow import DAG

from airflow_dbjobs.operators import DatabricksCreateJobsOperator, DatabricksRunNowOperator
from airflow_dbjobs.payloads import ConditionTask, RunJobTask, Task

TASKS = [Task(task_key="a", condition_task=ConditionTask(op="EQUAL_TO", left="{{ dag.dag_id }}", right="keeping"))]

with DAG("keeping", schedule=None, start_date=datetime(2026, 1, 1)) as dag:
    inner = DatabricksCreateJobsOperator(task_id="inner", name="inner of {{ dag.dag_id }}", tasks=TASKS)
    outer = DatabricksCreateJobsOperator(
        task_id="outer", name="outer", tasks=[Task(task_key="b", run_job_task=RunJobTask(job_id=inner.output))]
    )
    DatabricksRunNowOperator(task_id="run", job_id=outer.output, polling_period_seconds=0.1)
    DatabricksCreateJobsOperator.partial(task_id="mapped", tasks=TASKS).expand(name=["x", "y"])
    DatabricksCreateJobsOperator(task_id="silent", name="silent", tasks=TASKS, do_xcom_push=False)

if __name__ == "__main__":
    from airflow.utils.db import initdb

    initdb()
    for _ in range(2):
        print("the run's state:", dag.test().state)
"""


class TestExecute:
    def test_returns_the_id_of_a_created_found_or_reset_job(self, scene, client):
        job_id = create(name="nightly", tasks=TASKS, schedule=CRON).execute(scene.context)
        assert type(job_id) is int
        assert client.get_job(job_id)["settings"]["schedule"]["timezone_id"] == "UTC"
        assert create(name="nightly", tasks=TASKS, schedule=CRON).execute(scene.context) == job_id
        assert (scene.workspace.requests["create"], scene.workspace.requests["reset"]) == (1, 0)
        assert create(name="nightly", tasks=TASKS).execute(scene.context) == job_id
        assert (scene.workspace.requests["create"], scene.workspace.requests["reset"]) == (1, 1)
        assert "schedule" not in client.get_job(job_id)["settings"]
        # The id is what execute returns: Airflow pushes it, where it is to be pushed.
        assert scene.ti.xcom == {}

    def test_several_jobs_of_the_name_are_an_error(self, scene, client):
        ids = sorted(client.create_job({"name": "nightly", "tasks": TASKS}) for _ in range(2))
        with pytest.raises(ConfigurationError, match=f"2 jobs have this name .{ids[0]}, {ids[1]}"):
            create(name="nightly", tasks=TASKS).execute(scene.context)
        assert scene.workspace.requests["reset"] == 0

    def test_mapped_operator_ensures_a_job_per_element(self, scene, client):
        with DAG("nightly", schedule=None):
            upstream = create(task_id="upstream", name="first", tasks=TASKS)
            task = Task(task_key="a", run_job_task={"job_id": XComArg(upstream)})
            mapped = DatabricksCreateJobsOperator.partial(task_id="keep", tasks=[task]).expand(name=["a", "b"])
        assert mapped.upstream_task_ids == {"upstream"}
        with DAG("nightly", schedule=None):
            mapped = DatabricksCreateJobsOperator.partial(task_id="keep", tasks=TASKS).expand(name=["a", "b"])
        ids = [mapped.unmap({"name": name}).execute(scene.context) for name in ("a", "b")]
        assert {job["job_id"]: job["settings"]["name"] for job in client.list_jobs()} == dict(
            zip(ids, ["a", "b"], strict=True)
        )
        with pytest.raises(ConfigurationError, match="name is missing"):
            mapped.unmap({"name": ""})

    @pytest.mark.airflow
    def test_dag_ensures_jobs_and_runs_them(self, tmp_path: Path):
        dags = tmp_path / "dags"
        dags.mkdir()
        file = dags / "keeping.py"
        file.write_text(DAG_FILE)
        (tmp_path / "workspace").mkdir()
        with WorkspaceServer(tmp_path / "workspace", tmp_path / "logs") as server:
            said = run_script(tmp_path, dags, server.connection, str(file))
            states = [line.split()[-1] for line in said.splitlines() if line.startswith("the run's state:")]
            assert states == ["success", "success"], said
            jobs = {job["settings"]["name"]: job["job_id"] for job in server.call("GET", "jobs/list")["jobs"]}
            runs = [(run["job_id"], run["state"]["result_state"]) for run in server.runs()]
            requests = server.requests()
        assert sorted(jobs) == ["inner of keeping", "outer", "silent", "x", "y"]
        assert sorted(runs) == sorted([(jobs["inner of keeping"], "SUCCESS"), (jobs["outer"], "SUCCESS")] * 2)
        # The second time everything is as it should be.
        assert (requests["create"], requests.get("reset", 0)) == (5, 0)
        with closing(sqlite3.connect(tmp_path / "airflow.db")) as connection:
            rows = connection.execute(
                "select task_id, map_index, value from xcom where key = 'return_value' and task_id <> 'run'"
            ).fetchall()
        assert {(task, index): int(value) for task, index, value in rows} == {
            ("inner", -1): jobs["inner of keeping"],
            ("outer", -1): jobs["outer"],
            ("mapped", 0): jobs["x"],
            ("mapped", 1): jobs["y"],
        }
