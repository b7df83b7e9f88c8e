"""What docs/migrating.md says about the official provider, against that provider's own names.

They are in `official_names.json`, which `make official-names` writes.
"""

from __future__ import annotations

import fnmatch
import inspect
import json
import re
import subprocess

import pytest
from airflow_context import parsed, submit
from documentation import ROOT, example, table, text_of

from airflow_dbjobs import NOT_OFFERED, hooks, operators, sensors, triggers
from airflow_dbjobs.client import JobsClient
from airflow_dbjobs.client.models import Run
from airflow_dbjobs.client.wait import wait_for_run
from airflow_dbjobs.errors import PayloadError, RunFailed
from airflow_dbjobs.operators.overrides import REFUSED
from airflow_dbjobs.payloads import check

OFFICIAL = json.loads((ROOT / "tests" / "support" / "official_names.json").read_text())


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def rows(heading: str) -> list[tuple[str, str]]:
    """Return the two columns of the table that begins with this heading."""
    return [(first, second) for first, second in table("migrating", heading)]


def documented(heading: str) -> dict[str, str]:
    """Return the official names in the table that begins with this heading, and what is said of each, as plain text."""
    said = {name: second for first, second in rows(heading) for name in quoted(first)}
    return {name: re.sub(r"\[([^]]+)]\([^)]+\)", r"\1", text).replace("`", "") for name, text in said.items()}


class TestOfficialNames:
    @pytest.mark.parametrize("name", [*OFFICIAL["operators"], "DatabricksJobRunLink"])
    def test_of_what_is_offered_are_importable(self, name):
        assert inspect.isclass(getattr(operators, name))
        assert name in operators.__all__

    def test_of_xcoms_are_importable(self):
        keys = (operators.XCOM_RUN_ID_KEY, operators.XCOM_JOB_ID_KEY, operators.XCOM_RUN_PAGE_URL_KEY)
        assert keys == ("run_id", "job_id", "run_page_url")
        assert {"XCOM_RUN_ID_KEY", "XCOM_JOB_ID_KEY", "XCOM_RUN_PAGE_URL_KEY"} <= set(operators.__all__)

    def test_without_a_counterpart_are_documented_as_missing(self):
        said = documented("official | instead")
        assert {name: said[name] for name in said if name != "caller"} == NOT_OFFERED
        assert set(OFFICIAL["other classes"]) <= set(NOT_OFFERED)

    @pytest.mark.parametrize("package", [operators, sensors, hooks, triggers], ids=lambda package: package.__name__)
    @pytest.mark.parametrize("name", NOT_OFFERED)
    def test_without_a_counterpart_are_import_errors_that_say_what_to_use(self, name, package):
        with pytest.raises(ImportError) as caught:
            exec(f"from {package.__name__} import {name}")
        assert f"airflow_dbjobs does not offer {name}. Use {NOT_OFFERED[name]}; or import it" in str(caught.value)

    def test_that_are_misspelt_are_the_usual_errors(self):
        assert not hasattr(operators, "DatabricksSubmitOperator")
        with pytest.raises(ImportError, match="cannot import name 'DatabricksSubmitOperator'"):
            exec("from airflow_dbjobs.operators import DatabricksSubmitOperator")


# With what DAG files use most of the official provider.
OFFICIAL_DAG = """
from datetime import datetime, timedelta, timezone
from airflow import DAG
try:
    from airflow.sdk import task_group
except ImportError:
    from airflow.decorators import task_group
from airflow.providers.databricks.operators.databricks import (
    XCOM_RUN_PAGE_URL_KEY,
    DatabricksNotebookOperator,
    DatabricksRunNowOperator,
    DatabricksSubmitRunOperator,
    DatabricksTaskOperator,
)
from airflow.providers.databricks.operators.databricks_workflow import DatabricksWorkflowTaskGroup

CLUSTER = {
    "cluster_name": "", "spark_version": "15.4.x-scala2.12", "node_type_id": "Standard_D3_v2", "num_workers": "2",
    "azure_attributes": {"availability": "ON_DEMAND_AZURE", "spot_bid_max_price": -1}, "spark_conf": {},
    "ssh_public_keys": [], "custom_tags": {}, "spark_env_vars": {"PYSPARK_PYTHON": "/databricks/python3/bin/python3"},
    "cluster_source": "JOB", "init_scripts": [], "runtime_engine": "STANDARD", "enable_elastic_disk": False,
}

class NightlyOperator(DatabricksRunNowOperator):
    template_fields = (*DatabricksRunNowOperator.template_fields, "table")

    def __init__(self, *, table, **kwargs):
        super().__init__(**kwargs)
        self.table = table

    def execute(self, context):
        self.job_parameters = {"table": self.table}
        super().execute(context)
        return context["ti"].xcom_pull(task_ids=self.task_id, key=XCOM_RUN_PAGE_URL_KEY)

with DAG("nightly", schedule=None, start_date=datetime(2024, 1, 1, tzinfo=timezone.utc)):
    check = DatabricksSubmitRunOperator(
        task_id="check", databricks_conn_id="databricks_default", existing_cluster_id="0923-164208-meows279",
        spark_python_task={"python_file": "dbfs:/check.py", "parameters": ["{{ ds }}"]},
        databricks_retry_limit=5, polling_period_seconds=30,
    )
    workflow = DatabricksWorkflowTaskGroup(
        group_id="workflow", databricks_conn_id="databricks_default",
        job_clusters=[{"job_cluster_key": "shared", "new_cluster": CLUSTER}],
        notebook_packages=[{"pypi": {"package": "simplejson"}}], notebook_params={"start": "{{ ds }}"},
        extra_job_params={"timeout_seconds": 3600, "email_notifications": {"on_failure": ["data@example.com"]}},
    )
    with workflow:
        bronze = DatabricksNotebookOperator(
            task_id="bronze", databricks_conn_id="databricks_default", notebook_path="/Shared/bronze",
            notebook_packages=[{"pypi": {"package": "Faker"}}], source="WORKSPACE", job_cluster_key="shared",
            execution_timeout=timedelta(hours=1),
        )
        gold = DatabricksTaskOperator(
            task_id="gold", databricks_conn_id="databricks_default", job_cluster_key="shared",
            task_config={"notebook_task": {"notebook_path": "/Shared/gold", "source": "WORKSPACE"}},
        )

        @task_group
        def marts():
            return DatabricksTaskOperator(
                task_id="sales", databricks_conn_id="databricks_default", trigger_rule="all_done",
                task_config={"sql_task": {"query": {"query_id": "d3773b5a"}, "warehouse_id": "368fe30b92228713"}},
            )

        bronze >> gold >> marts()
    check >> workflow >> NightlyOperator(task_id="nightly", job_id=42, table="gold")
"""


class TestDagFile:
    def test_of_the_official_provider_needs_only_other_imports(self, tmp_path):
        (tmp_path / "dags").mkdir()
        file = tmp_path / "dags" / "nightly.py"
        file.write_text(OFFICIAL_DAG)
        subprocess.run(example("sh", "sed -i -E"), shell=True, cwd=tmp_path, check=False)
        bag = parsed(file)
        assert bag.import_errors == {}
        dag = bag.dags["nightly"]
        modules = {type(task).__module__.partition(".")[0] for task in dag.tasks if task.task_id != "nightly"}
        assert modules == {"airflow_dbjobs"}
        assert dag.get_task("workflow.launch").upstream_task_ids == {"check"}
        assert dag.get_task("workflow.bronze").upstream_task_ids == {"workflow.launch"}
        assert dag.get_task("nightly").upstream_task_ids == {"workflow.marts.sales"}

    @pytest.mark.parametrize(
        ("module", "remains"),
        [
            ("airflow.contrib.operators.databricks_operator", ""),
            ("airflow.providers.databricks.operators.databricks_sql", "1:from airflow.providers"),
            ("airflow.providers.databricks.hooks.databricks", "1:from airflow.providers"),
            ("airflow.contrib.hooks.databricks_hook", "1:from airflow.contrib"),
        ],
    )
    def test_imports_what_remains_of_the_official_provider(self, tmp_path, module, remains):
        (tmp_path / "dags").mkdir()
        file = tmp_path / "dags" / "old.py"
        file.write_text(f"from {module} import DatabricksRunNowOperator")
        listed = subprocess.run(
            example("sh", "sed -i -E"), shell=True, cwd=tmp_path, check=False, capture_output=True, text=True
        ).stdout
        assert listed.startswith(remains)
        assert file.read_text().startswith("from airflow_dbjobs.operators import ") == (not remains)
        assert bool(listed) == bool(remains)


class TestOfficialMethods:
    def test_without_a_counterpart_are_refused_in_subclasses(self):
        assert documented("official method | instead") == REFUSED
        official = {
            (operator, method) for operator, known in OFFICIAL["operators"].items() for method in known["methods"]
        }
        assert {
            (operator, method)
            for operator, method in official
            if method not in REFUSED and not hasattr(getattr(operators, operator), method)
        } == set()


class TestOfficialHookMethods:
    @pytest.mark.parametrize("method", OFFICIAL["hook methods"])
    def test_have_a_documented_replacement(self, method):
        (said,) = {
            second for first, second in rows("`DatabricksHook` | `JobsClient`")
            if any(fnmatch.fnmatch(method, name) for name in quoted(first)) and (first == "`a_*`" or method[:2] != "a_")
        }  # fmt: skip
        if said.startswith("the same names"):
            assert hasattr(JobsClient, method)

    def test_have_replacements_that_exist(self):
        named = {name for _, second in rows("`DatabricksHook` | `JobsClient`") for name in quoted(second)}
        methods = {name for text in named for name in re.findall(r"(?:find|get|update|repair)_\w+", text)}
        assert methods >= {"find_job_id", "find_job_ids", "get_run", "repair_run", "update_permissions"}
        assert {name for name in methods if not hasattr(JobsClient, name)} == {"get_conn"}  # of the hook


def difference(name: str) -> tuple[str, str]:
    """Return what the official provider does, and what happens here, in the row of this name."""
    ((_, official, here),) = [row for row in table("migrating", "| official") if row[0] == name]
    return official, here


class TestOfficialOperators:
    @pytest.mark.parametrize("operator", OFFICIAL["operators"])
    def test_parameters_are_accepted_or_documented_as_missing(self, operator):
        bases = [base for base in getattr(operators, operator).__mro__ if "__init__" in vars(base)]
        accepted = {name for base in bases for name in inspect.signature(base.__init__).parameters}
        refused = set(OFFICIAL["operators"][operator]["parameters"]) - accepted
        assert refused <= {name for first, _ in rows("official | instead") for name in quoted(first)}

    @pytest.mark.parametrize("operator", OFFICIAL["operators"])
    def test_template_fields_are_templated(self, operator):
        templated = getattr(getattr(operators, operator), "template_fields", ())
        assert set(templated) >= set(OFFICIAL["operators"][operator]["templated"])

    @pytest.mark.parametrize(
        "code", ["dbutils.notebook.exit('done')", "raise ValueError('why')"], ids=["success", "failure"]
    )
    def test_deferred_tasks_are_resumed(self, scene, client, code):
        task = scene.notebook(code, gated=False)
        run_id = client.submit_run({"tasks": [{"task_key": "only", "notebook_task": task}]})
        run = wait_for_run(client, run_id, period=0.01)
        # What its trigger fires; of the state we ask ourselves.
        state = {"life_cycle_state": "TERMINATED", "result_state": str(run.state.result_state), "state_message": ""}
        event = {"run_id": run_id, "run_page_url": run.page_url, "run_state": json.dumps(state), "repair_run": False}
        operator = submit(tasks=[{"task_key": "only", "notebook_task": task}], deferrable=True)
        kwargs = {"event": {**event, "errors": []}}
        if "exit" in code:
            assert operator.resume_execution("execute_complete", kwargs, scene.context) == "done"
        else:
            with pytest.raises(RunFailed, match="ValueError: why"):
                operator.resume_execution("execute_complete", kwargs, scene.context)
        assert scene.launches() == 1

    @pytest.mark.parametrize(
        ("row", "payload", "rule"),
        [
            (
                "`dbt_task` as a parameter, without `git_source`",
                {"dbt_task": {"commands": ["dbt run"]}},
                "DBT-FLAT-GIT",
            ),
            (
                "`pipeline_task` with `pipeline_name` and `pipeline_id`",
                {"pipeline_task": {"pipeline_id": "1", "pipeline_name": "a"}},
                "FIELD-UNKNOWN",
            ),
        ],
    )
    def test_refused_payloads_are_launched_with_a_warning(self, row, payload, rule):
        official, here = difference(row)
        assert (official, here.partition(";")[0]) == ("an error at run time", "a warning")
        warnings = check("runs/submit", {"run_name": "x", **payload}, "2.2")
        assert any(f"[{rule}]" in warning for warning in warnings)


class TestDocumentedDifferences:
    def test_are_those_from_the_compared_release(self):
        assert f"| official {OFFICIAL['version']} | here |" in text_of("migrating")

    def test_include_that_a_pipeline_needs_its_id(self):
        assert difference("`pipeline_task` with a `pipeline_name`")[1] == "an import error: give the `pipeline_id`"
        with pytest.raises(PayloadError, match="PIPELINE-ID"):
            submit(pipeline_task={"pipeline_name": "a"})

    def test_name_the_run_page_url_that_is_shown(self):
        official, here = difference("value of the XCom `run_page_url`")
        (api,), (ours, *_) = quoted(official), quoted(here)
        run = Run.from_json(
            {"run_id": 3, "job_id": 2, "state": {}, "run_page_url": api.replace("HOST", "a.databricks.com")}
        )
        assert run.page_url == ours.replace("HOST", "a.databricks.com")
