"""Workflow groups on a workspace: the job that a launch makes of the members, and the run that it launches."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow import DAG
from airflow_context import AIRFLOW_V_3_0_PLUS, FAST, TaskInstance, connect

from airflow_dbjobs.airflow_compat import BaseOperator, TaskGroup
from airflow_dbjobs.client.wait import wait_for_run
from airflow_dbjobs.errors import ConfigurationError, PayloadError
from airflow_dbjobs.operators import (
    DatabricksNotebookOperator,
    DatabricksSubmitRunOperator,
    DatabricksTaskOperator,
    DatabricksWorkflowTaskGroup,
)
from airflow_dbjobs.runs.result import run_result

if AIRFLOW_V_3_0_PLUS:
    from airflow.sdk import Asset
else:
    from airflow.datasets import Dataset as Asset
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_context import Scene

    from airflow_dbjobs.client import JobsClient


@pytest.fixture
def log_text(caplog, capfd):
    """Return what was logged: Airflow 3 logs a task's lines to standard output."""
    return lambda: capfd.readouterr().out + caplog.text


WRITES = ("create", "reset", "update")


@pytest.fixture
def etl(scene: Scene, client: JobsClient) -> Etl:
    return Etl(scene, client)


class Etl:
    """A DAG with the workflow group etl, whose launches it executes."""

    def __init__(self, scene: Scene, client: JobsClient) -> None:
        self.scene, self.client = scene, client
        scene.context |= {"ds": "2026-01-01", "params": {}}

    def parse(self, members: Callable[[], Any], *, dag_args: Mapping[str, Any] | None = None, **kwargs: Any) -> Any:
        """Return the launch of a DAG that is parsed again."""
        dag = DAG("nightly", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), **(dag_args or {}))
        with dag, DatabricksWorkflowTaskGroup(**{"group_id": "etl", **kwargs}):
            members()
        return dag.get_task("etl.launch")

    def launch(self, members: Callable[[], Any], **kwargs: Any) -> dict[str, Any]:
        """Launch the job; return its settings."""
        self.result = self.parse(members, **kwargs).execute(self.scene.context)
        settings: Any = self.client.get_job(self.result["job_id"])["settings"]
        return dict(settings)

    def sent(self) -> dict[str, str]:
        """Return the parameters of the latest run."""
        return dict(self.scene.sent[-1].get("job_parameters", {}))

    def writes(self) -> int:
        return sum(self.scene.workspace.requests[operation] for operation in WRITES)

    def next_dag_run(self, **context: Any) -> None:
        self.scene.ti = TaskInstance()
        self.scene.ti.run_id = "manual__2"
        self.scene.dag_run = SimpleNamespace(start_date=datetime.now(UTC) + timedelta(seconds=5))
        self.scene.context |= {"ti": self.scene.ti, "dag_run": self.scene.dag_run, **context}
        self.scene.new_process()


def notebook(task_id: str = "load", **kwargs: Any) -> DatabricksNotebookOperator:
    return DatabricksNotebookOperator(task_id=task_id, **{"notebook_path": f"/{task_id}", **kwargs})


def task_of(settings: Mapping[str, Any], key: str) -> dict[str, Any]:
    return next(dict(task) for task in settings["tasks"] if task["task_key"] == key)


class TestJob:
    def test_has_the_members_as_its_tasks(self, etl):
        def members():
            extract, check = notebook("extract"), notebook("check", trigger_rule="one_success")
            sql = {"warehouse_id": "w", "query": {"query_id": "q"}}
            load = DatabricksTaskOperator(task_id="load", task_config={"sql_task": sql})
            with TaskGroup("part"):
                report = DatabricksSubmitRunOperator(
                    task_id="report", spark_python_task={"python_file": "/r.py"}, existing_cluster_id="1-2-3"
                )
            extract >> load >> report
            [extract, load] >> check
            check >> notebook("stop").as_teardown()

        settings = etl.launch(members)
        assert settings["name"] == "nightly.etl"
        assert settings["queue"] == {"enabled": True}
        assert settings["max_concurrent_runs"] == 1
        graph = {
            task["task_key"]: (sorted(above["task_key"] for above in task.get("depends_on", [])), task["run_if"])
            for task in settings["tasks"]
        }
        assert graph == {
            "extract": ([], "ALL_SUCCESS"),
            "check": (["extract", "load"], "AT_LEAST_ONE_SUCCESS"),
            "load": (["extract"], "ALL_SUCCESS"),
            "part__report": (["load"], "ALL_SUCCESS"),
            "stop": (["check"], "ALL_DONE"),
        }
        assert task_of(settings, "extract")["notebook_task"]["notebook_path"] == "/extract"
        assert task_of(settings, "load")["sql_task"]["warehouse_id"] == "w"
        assert task_of(settings, "part__report")["existing_cluster_id"] == "1-2-3"

    @pytest.mark.parametrize(
        ("rule", "run_if"),
        [
            ("all_done", "ALL_DONE"),
            ("all_failed", "ALL_FAILED"),
            ("one_failed", "AT_LEAST_ONE_FAILED"),
            ("none_failed", "NONE_FAILED"),
            ("none_failed_min_one_success", "NONE_FAILED"),
        ],
    )
    def test_has_the_counterpart_of_a_trigger_rule(self, etl, rule, run_if):
        settings = etl.launch(lambda: notebook("extract") >> notebook("load", trigger_rule=rule))
        assert task_of(settings, "load")["run_if"] == run_if

    def test_has_the_settings_of_a_notebook(self, etl):
        small = {"job_cluster_key": "small", "new_cluster": {"spark_version": "15.4.x-scala2.12", "num_workers": 1}}
        settings = etl.launch(
            lambda: notebook(
                source="WORKSPACE",
                notebook_params={"a": "1", "n": 2},
                notebook_packages=[{"pypi": {"package": "a"}}],
                job_cluster_key="small",
                existing_cluster_id="",
                new_cluster={},
                max_retries=0,
                min_retry_interval_millis=5,
                retry_on_timeout=False,
                execution_timeout=timedelta(seconds=90.5),
            ),
            job_clusters=[small],
        )
        task = task_of(settings, "load")
        assert task["notebook_task"] == {
            "notebook_path": "/load",
            "source": "WORKSPACE",
            "base_parameters": {"a": "1", "n": "2"},
        }
        assert task["libraries"] == [{"pypi": {"package": "a"}}]
        assert (task["job_cluster_key"], task["timeout_seconds"], task["max_retries"]) == ("small", 91, 0)
        assert (task["min_retry_interval_millis"], task["retry_on_timeout"]) == (5, False)
        assert "existing_cluster_id" not in task
        assert settings["job_clusters"][0]["job_cluster_key"] == "small"

    def test_gives_the_parameters_of_the_group_to_tasks_of_their_type(self, etl):
        def members():
            notebook("a", notebook_params={"own": "1", "both": "own"}, notebook_packages=[{"jar": "b.jar"}])
            for task_id, config in (
                ("b", {"spark_python_task": {"python_file": "/b.py"}}),
                ("c", {"spark_jar_task": {"main_class_name": "C"}}),
                ("d", {"spark_submit_task": {}}),
            ):
                DatabricksTaskOperator(task_id=task_id, task_config=config, new_cluster={"spark_version": "15"})
            own = {"spark_python_task": {"python_file": "/e.py", "parameters": ["own"]}, "existing_cluster_id": "1-2-3"}
            DatabricksTaskOperator(task_id="e", task_config=own)
            loop = {"inputs": "[1]", "task": {"task_key": "f_each", "notebook_task": {"notebook_path": "/f"}}}
            DatabricksTaskOperator(task_id="f", task_config={"for_each_task": loop})

        settings = etl.launch(
            members,
            notebook_params={"both": "group", "group": "{{ ds }}"},
            notebook_packages=[{"jar": "b.jar"}, {"jar": "c.jar"}],
            python_params=["p"],
            jar_params=["j", "{{ ds }}"],
            spark_submit_params=["s"],
        )
        a, f = task_of(settings, "a"), task_of(settings, "f")["for_each_task"]["task"]
        assert a["notebook_task"]["base_parameters"] == {
            "own": "1",
            "both": "own",
            "group": "{{job.parameters.group_group}}",
        }
        assert a["libraries"] == [{"jar": "b.jar"}, {"jar": "c.jar"}]
        assert task_of(settings, "b")["spark_python_task"]["parameters"] == ["p"]
        assert task_of(settings, "c")["spark_jar_task"]["parameters"] == ["j", "{{job.parameters.group_jar_params_1}}"]
        assert task_of(settings, "d")["spark_submit_task"]["parameters"] == ["s"]
        assert task_of(settings, "e")["spark_python_task"]["parameters"] == ["own"]
        assert f["notebook_task"]["base_parameters"] == {"both": "group", "group": "{{job.parameters.group_group}}"}
        assert etl.sent() == {"group_group": "2026-01-01", "group_jar_params_1": "2026-01-01"}
        assert "notebook_params" not in etl.scene.sent[-1]

    def test_has_more_settings_that_win(self, etl):
        extra = {"max_concurrent_runs": 3, "queue": {"enabled": False}, "tags": {"day": "{{ ds }}"}, "name": "mine"}
        settings = etl.launch(notebook, extra_job_params=extra, max_concurrent_runs=2)
        assert (settings["name"], settings["max_concurrent_runs"]) == ("mine", 3)
        assert settings["tags"] == {"day": "2026-01-01"}
        assert not settings["queue"]["enabled"]

    def test_has_the_settings_that_a_subclass_returns(self, etl):
        class Limited(DatabricksNotebookOperator):
            def databricks_task(self) -> dict[str, Any]:
                return {**super().databricks_task(), "timeout_seconds": 7}

        settings = etl.launch(lambda: Limited(task_id="load", notebook_path="/load"))
        assert task_of(settings, "load")["timeout_seconds"] == 7

    def test_gets_the_permissions(self, etl):
        etl.launch(notebook, access_control_list=[{"group_name": "ops", "permission_level": "CAN_MANAGE_RUN"}])
        granted = etl.client.get_permissions(etl.result["job_id"])["access_control_list"]
        assert any(entry.get("group_name") == "ops" for entry in granted)

    def test_has_the_outcome_that_a_dependency_requires(self, etl):
        def members():
            condition = {"condition_task": {"op": "EQUAL_TO", "left": "{{ ds }}", "right": "2026-01-01"}}
            check = DatabricksTaskOperator(task_id="check", task_config=condition)
            config = {
                "notebook_task": {"notebook_path": "/a"},
                "depends_on": [{"task_key": "check", "outcome": "true"}],
            }
            check >> DatabricksTaskOperator(task_id="load", task_config=config)

        settings = etl.launch(members)
        assert task_of(settings, "load")["depends_on"] == [{"task_key": "check", "outcome": "true"}]
        assert etl.sent() == {"check_left": "2026-01-01"}

    def test_knows_dependencies_from_after_the_group(self, etl):
        def parse() -> Any:
            tasks: list[Any] = []
            launch = etl.parse(lambda: tasks.extend([notebook("extract"), notebook("load")]))
            tasks[0] >> tasks[1]
            return launch

        result = parse().execute(etl.scene.context)
        settings = etl.client.get_job(result["job_id"])["settings"]
        assert task_of(settings, "load")["depends_on"] == [{"task_key": "extract"}]


class TestLaunch:
    def test_returns_the_run(self, etl):
        etl.launch(notebook)
        run_id = etl.scene.ti.xcom["run_id"]
        assert etl.result == {"conn_id": "databricks_default", "job_id": etl.scene.ti.xcom["job_id"], "run_id": run_id}
        assert etl.client.get_run(run_id).page_url == etl.scene.ti.xcom["run_page_url"] == etl.scene.ti.link

    def test_writes_the_job_once(self, etl):
        def members():
            notebook("extract", notebook_params={"day": "{{ ds }}"}) >> notebook("load", notebook_params={"a": "b"})

        etl.launch(members)
        first = etl.sent()
        assert etl.writes() == 1
        etl.next_dag_run(ds="2026-01-02")
        etl.launch(members)
        assert etl.writes() == 1
        assert (first, etl.sent()) == ({"extract_day": "2026-01-01"}, {"extract_day": "2026-01-02"})
        assert etl.scene.launches() == 2

    def test_gives_each_run_its_own_parameters(self, etl):
        def members():
            code = "dbutils.notebook.exit(dbutils.widgets.get('day'))"
            notebook(**etl.scene.notebook(code, gated=False), notebook_params={"day": "at-{{ ds }}"})

        for day in ("2026-01-01", "2026-01-02"):
            etl.next_dag_run(ds=day)
            etl.launch(members)
            run = wait_for_run(etl.client, etl.result["run_id"], period=FAST)
            assert run_result(etl.client, run, max_bytes=100) == f"at-{day}"

    def test_renders_with_the_member_and_its_params(self, etl):
        def members():
            text = "{{ task.task_id }} {{ params.x }} {{ params.y }} {{ params.z }}"
            notebook(notebook_params={"text": text}, params={"x": "own", "y": "own"})

        etl.scene.context["params"] = {"x": "dag", "y": "trigger", "z": "dag"}
        etl.scene.dag_run.conf = {"y": "trigger"}
        etl.launch(members, dag_args={"params": {"x": "dag", "y": "dag", "z": "dag"}})
        assert etl.sent() == {"load_text": "etl.load own trigger dag"}
        assert "task" not in etl.scene.context
        assert etl.scene.context["params"]["x"] == "dag"

    @pytest.mark.parametrize(
        ("output", "sent"),
        [("a", {"load_n": "a"}), (7, {"load_n": "7"}), ([1], {"load_n": "[1]"}), (None, {})],
    )
    def test_sends_the_output_of_a_task_outside(self, etl, monkeypatch, output, sent):
        start = datetime(2026, 1, 1, tzinfo=UTC)
        with DAG("nightly", schedule=None, start_date=start) as dag:
            value = BaseOperator(task_id="check").output
            monkeypatch.setattr(type(value), "resolve", lambda *_, **__: output)
            with DatabricksWorkflowTaskGroup(group_id="etl"):
                notebook(notebook_params={"n": value})
        dag.get_task("etl.launch").execute(etl.scene.context)
        assert etl.sent() == sent

    @pytest.mark.parametrize("native", [True, False])
    def test_renders_other_templates_as_the_dag_wants(self, etl, native):
        etl.scene.context["clusters"] = [{"job_cluster_key": "small", "new_cluster": {"spark_version": "15"}}]
        settings = etl.launch(
            lambda: notebook(job_cluster_key="small", notebook_params={"n": "{{ 1 + 1 }}", "id": "{{job.run_id}}"}),
            dag_args={"render_template_as_native_obj": native},
            job_clusters="{{ clusters }}",
        )
        assert settings["job_clusters"][0]["new_cluster"]["spark_version"] == "15"
        parameters = task_of(settings, "load")["notebook_task"]["base_parameters"]
        assert parameters == {"n": "{{job.parameters.load_n}}", "id": "{{job.run_id}}"}
        assert etl.sent() == {"load_n": "2"}

    def test_sends_the_defaults_of_the_jobs_own_parameters_that_are_templates(self, etl):
        own = [{"name": "day", "default": "{{ ds }}"}, {"name": "region", "default": "eu"}]
        settings = etl.launch(
            lambda: notebook(notebook_params={"day": "{{job.parameters.day}}", "at": "{{ ds }}"}),
            extra_job_params={"parameters": own},
        )
        assert settings["parameters"] == [
            {"name": "day", "default": ""},
            {"name": "region", "default": "eu"},
            {"name": "load_at", "default": ""},
        ]
        assert etl.sent() == {"day": "2026-01-01", "load_at": "2026-01-01"}

    def test_warns_of_templates_that_are_settings(self, etl, log_text):
        settings = etl.launch(
            lambda: notebook(notebook_path="/{{ ds }}", notebook_params={"x": "{{ ds }}", "y": "{{job.run_id}}"}),
            extra_job_params={"tags": {"day": "{{ ds }}"}},
        )
        assert task_of(settings, "load")["notebook_task"]["notebook_path"] == "/2026-01-01"
        warning = log_text()
        assert "the job: etl.load.notebook_task.notebook_path, etl.tags.day. The job is written whenever" in warning

    def test_does_not_override_a_parameter_of_another_task(self, etl):
        def members():
            notebook("extract", notebook_params={"day": "{{ ds }}"})
            notebook("load", notebook_params={"extract_day": "own"})

        etl.launch(members)
        assert etl.sent() == {"extract_day_2": "2026-01-01"}

    def test_does_not_send_the_params_of_the_dag(self, etl):
        etl.scene.context["params"] = {"x": "dag"}
        etl.launch(notebook, dag_args={"params": {"x": "dag"}})
        assert etl.sent() == {}

    def test_does_not_warn_of_parameters(self, etl, log_text):
        etl.launch(lambda: notebook(notebook_params={"x": "{{ ds }}", "y": "{{job.run_id}}"}))
        assert "become settings" not in log_text()

    def test_sends_a_parameter_of_the_group_once(self, etl):
        etl.launch(lambda: [notebook("a"), notebook("b")], notebook_params={"text": "{{ 'x' * 6000 }}"})
        assert etl.sent() == {"group_text": "x" * 6000}

    def test_renders_parameters_of_the_group_as_those_of_the_launch(self, etl):
        etl.launch(notebook, notebook_params={"by": "{{ task.task_id }}"})
        assert etl.sent() == {"group_by": "etl.launch"}

    def test_refuses_too_large_parameters_before_it_writes(self, etl):
        with pytest.raises(ConfigurationError, match=r"have 12,0\d\d bytes.*largest: load_x \(12,000 bytes\)"):
            etl.launch(lambda: notebook(notebook_params={"x": "{{ 'x' * 12000 if ds }}"}))
        assert etl.writes() == etl.scene.launches() == 0

    def test_refuses_a_rendered_mistake_before_it_writes(self, etl):
        with pytest.raises(PayloadError, match=r"tasks\[etl.load\].max_retries"):
            etl.launch(lambda: notebook(max_retries="{{ ds }}"))
        assert etl.writes() == etl.scene.launches() == 0

    def test_names_the_task_whose_template_fails(self, etl):
        with pytest.raises(ZeroDivisionError) as failed:
            etl.launch(lambda: notebook(notebook_params={"x": "{{ 1 / 0 }}"}))
        assert "etl.load" in "".join(failed.value.__notes__)

    def test_refuses_api_2_0(self, etl, monkeypatch):
        workspace = etl.scene.workspace
        connect(monkeypatch, workspace.base_url, workspace.token, extra={"api_version": "2.0"})
        with pytest.raises(ConfigurationError, match=r"workflow group needs api_version 2\.1 or 2\.2"):
            etl.launch(notebook)
        assert etl.writes() == 0

    def test_refuses_to_launch_before_what_a_member_waits_for(self, etl):
        tasks: list[Any] = []
        launch = etl.parse(lambda: tasks.append(notebook()))
        BaseOperator(task_id="check", dag=launch.dag) >> tasks[0]
        with pytest.raises(ConfigurationError, match=r"wait for check, but etl\.launch does not.*Nothing was launched"):
            launch.execute(etl.scene.context)
        assert etl.writes() == 0

    def test_updates_no_asset_of_its_members(self, etl):
        tasks: list[Any] = []
        defaults = {"outlets": [Asset("s3://shop/sales")]}
        launch = etl.parse(lambda: tasks.append(notebook()), dag_args={"default_args": defaults})
        assert (len(launch.outlets), len(tasks[0].outlets)) == (0, 1)

    def test_ignores_default_args_of_its_members(self, etl):
        defaults = {
            "notebook_params": {"day": "{{ ds }}"},
            "existing_cluster_id": "1-2-3",
            "job_id": 5,
            "do_xcom_push": False,
            "repair_run": True,
            "deferrable": True,
            "polling_period_seconds": 3,
        }
        settings = etl.launch(notebook, dag_args={"default_args": defaults})
        assert etl.result["run_id"] == etl.scene.ti.xcom["run_id"]
        assert etl.sent() == {"load_day": "2026-01-01"}
        assert task_of(settings, "load")["existing_cluster_id"] == "1-2-3"

    @pytest.mark.parametrize(
        ("given", "used"), [({}, "other"), ({"databricks_conn_id": "databricks_default"}, "databricks_default")]
    )
    def test_connects_by_the_default_args_unless_the_group_has_a_connection(self, etl, given, used):
        defaults = {"databricks_conn_id": "other"}
        assert etl.parse(notebook, dag_args={"default_args": defaults}, **given).databricks_conn_id == used
        assert etl.parse(notebook, default_args=defaults, **given).databricks_conn_id == used
        assert etl.parse(notebook).databricks_conn_id == "databricks_default"

    def test_joins_the_run_of_an_earlier_try(self, etl):
        task = etl.scene.notebook()

        def members():
            notebook(**task)

        etl.scene.ti.max_tries = 1
        run_id = etl.scene.lose_worker(lambda: etl.parse(members))
        etl.scene.next_try()
        etl.launch(members)
        assert etl.result["run_id"] == run_id
        assert etl.writes() == 1

    def test_of_a_cleared_task_cancels_the_run_before(self, etl):
        task = etl.scene.notebook()

        def members():
            notebook(**task)

        etl.launch(members)
        before = etl.result["run_id"]
        etl.scene.next_try(cleared=True)
        etl.launch(members)
        assert etl.result["run_id"] != before
        assert etl.client.get_run(before).state.is_terminal
        assert etl.writes() == 1


@pytest.mark.skipif(not AIRFLOW_V_3_0_PLUS, reason="Airflow 2 has no such copy")
def test_a_copied_group_can_be_launched(etl):
    launch = etl.parse(notebook)
    dag = launch.dag.partial_subset(["etl.load"], include_upstream=True, include_downstream=False)
    assert dag.get_task("etl.launch").execute(etl.scene.context)["job_id"]
