"""The fixtures for users' tests of DAGs, as these use them: whole DAGs by `dag.test()` on a scripted workspace."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow_context import AIRFLOW_V_3_3_PLUS

from airflow_dbjobs.local_workspace.testing import plugin
from airflow_dbjobs.operators import DatabricksRunNowOperator, DatabricksSubmitRunOperator
from airflow_dbjobs.sensors import DatabricksRunSensor

try:
    from airflow.sdk import DAG
except ImportError:  # Airflow 2.11
    from airflow import DAG

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_dbjobs.local_workspace.testing.in_airflow import DagRunner
    from airflow_dbjobs.local_workspace.testing.workspace import ScriptedWorkspace

EXAMPLES = Path(__file__).parents[2] / "example_dags"

pytestmark = [pytest.mark.airflow, pytest.mark.every_airflow]
if not AIRFLOW_V_3_3_PLUS:
    # They use what their own libraries have deprecated.
    pytestmark.append(pytest.mark.filterwarnings("default::DeprecationWarning"))


def dag_of(operator: Any = DatabricksSubmitRunOperator, **fields: Any) -> Any:
    """Return a DAG with one task, "load", which by default submits a notebook."""
    notebook = {"notebook_path": "/load", "base_parameters": {"day": "{{ params.day }}"}}
    if operator is DatabricksSubmitRunOperator:
        fields = {"notebook_task": notebook, **fields}
    with DAG("nightly", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), params={"day": "?"}) as dag:
        operator(task_id="load", **fields)
    return dag


def _airflow_variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("AIRFLOW")}


class TestRunDag:
    def test_returns_what_a_script_returns(
        self, databricks_workspace: ScriptedWorkspace, run_dag: DagRunner, deferrable: bool
    ) -> None:
        databricks_workspace.task("load", returns={"rows": 3}, seconds=3600)
        databricks_workspace.fault("runs/submit", cut="after")
        run = run_dag(dag_of(deferrable=deferrable), conf={"day": "2026-01-01"})
        assert (run.state, run.states, run.result("load")) == ("success", {"load": "success"}, {"rows": 3})
        launched = databricks_workspace.assert_launched("load", times=1, parameters={"day": "2026-01-01"})
        assert 3600 <= launched.seconds < 3700

    def test_retries_a_lost_cluster_at_once(
        self, databricks_workspace: ScriptedWorkspace, run_dag: DagRunner, deferrable: bool
    ) -> None:
        databricks_workspace.task("load", error="Cluster lost", termination_code="CLUSTER_ERROR", times=1)
        assert run_dag(dag_of(deferrable=deferrable, retries=1)).state == "success"
        databricks_workspace.assert_launched("load", times=2)

    def test_does_not_launch_again_what_a_person_cancelled(
        self, databricks_workspace: ScriptedWorkspace, run_dag: DagRunner, deferrable: bool
    ) -> None:
        databricks_workspace.task("load", canceled=True, seconds=600)
        assert run_dag(dag_of(deferrable=deferrable, retries=1)).state == "failed"
        databricks_workspace.assert_launched("load", times=1)
        assert databricks_workspace.assert_canceled("load").seconds >= 600

    def test_cancels_at_the_execution_timeout(
        self, databricks_workspace: ScriptedWorkspace, run_dag: DagRunner, deferrable: bool
    ) -> None:
        databricks_workspace.task("load", seconds=3600)
        run = run_dag(dag_of(deferrable=deferrable, execution_timeout=timedelta(minutes=10)))
        assert run.state == "failed"
        assert 540 < databricks_workspace.assert_canceled("load").seconds < 660
        databricks_workspace.assert_nothing_active()

    def test_waits_out_an_outage(
        self, databricks_workspace: ScriptedWorkspace, run_dag: DagRunner, deferrable: bool
    ) -> None:
        databricks_workspace.task("load", seconds=60)
        databricks_workspace.outage(1200, "runs/*", after=30)
        assert run_dag(dag_of(deferrable=deferrable)).state == "success"
        databricks_workspace.assert_launched("load", times=1)

    def test_runs_a_job_that_nobody_created(self, databricks_workspace: ScriptedWorkspace, run_dag: DagRunner) -> None:
        dag = dag_of(DatabricksRunNowOperator, job_id=123, job_parameters={"n": 7}, databricks_conn_id="mine")
        assert run_dag(dag).state == "success"
        databricks_workspace.assert_launched(123, times=1, parameters={"n": 7})

    @pytest.mark.parametrize("mode", [{"deferrable": True}, {"mode": "poke"}, {"mode": "reschedule"}], ids=str)
    def test_runs_sensors(
        self, databricks_workspace: ScriptedWorkspace, run_dag: DagRunner, mode: dict[str, Any]
    ) -> None:
        databricks_workspace.job("upstream")
        databricks_workspace.task("upstream", seconds=3600)
        run_id = databricks_workspace.launch("upstream")
        began = time.monotonic()
        assert run_dag(dag_of(DatabricksRunSensor, run_id=run_id, **mode)).state == "success"
        assert 3600 <= time.monotonic() - began < 3800

    def test_ends_sensors_at_their_timeout(self, databricks_workspace: ScriptedWorkspace, run_dag: DagRunner) -> None:
        databricks_workspace.job("upstream")
        databricks_workspace.task("upstream", seconds=7200)
        run_id = databricks_workspace.launch("upstream")
        assert run_dag(dag_of(DatabricksRunSensor, run_id=run_id, timeout=600)).state == "failed"

    @pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="Airflow 3.3 introduced retry policies")
    def test_does_not_wait_for_a_retry_policy(
        self, databricks_workspace: ScriptedWorkspace, run_dag: DagRunner
    ) -> None:
        from airflow_dbjobs.retry_policy import DatabricksRetryPolicy

        databricks_workspace.task("load", termination_code="WORKSPACE_RUN_LIMIT_EXCEEDED", times=1)
        assert run_dag(dag_of(retries=1, retry_policy=DatabricksRetryPolicy())).state == "success"

    def test_names_the_dags_of_a_file(
        self, databricks_workspace: ScriptedWorkspace, run_dag: DagRunner, tmp_path: Path
    ) -> None:
        with pytest.raises(ValueError, match=r"has the DAGs \['keep_job'\]; name one of them as dag_id"):
            run_dag(EXAMPLES / "keep_job.py", dag_id="keep")
        (tmp_path / "dag.py").write_text("from airflow import DAG\nraise ValueError('not today')")
        with pytest.raises(ValueError, match=r"(?s)dag\.py cannot be imported:.*not today"):
            run_dag(str(tmp_path / "dag.py"))

    def test_leaves_the_dag_as_it_was(self, databricks_workspace: ScriptedWorkspace, run_dag: DagRunner) -> None:
        databricks_workspace.job("upstream")
        dag = dag_of(DatabricksRunSensor, run_id=databricks_workspace.launch("upstream"), mode="reschedule")
        run_dag(dag)
        assert dag.get_task("load").mode == "reschedule"


def test_the_only_test_of_a_session_shows_its_warnings(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile("""
        import warnings

        def test_misspelt(databricks_workspace, run_dag):
            databricks_workspace.task("laod", error="no rows")
            warnings.warn("a warning of the test itself")
    """)
    # In a process of its own, into which no test has imported Airflow.
    result = pytester.runpytest_subprocess("-p", plugin.__name__, "-p", "no:cacheprovider", timeout=120)
    result.assert_outcomes(passed=1, warnings=2)
    result.stdout.fnmatch_lines(
        ["*: a warning of the test itself", "*UnusedScriptWarning: No task followed the script of 'laod'.*"]
    )


class TestDatabase:
    """What the tests of a user find, who has configured a database for them."""

    @pytest.fixture
    def passes(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
        """Return what runs the tests that `pytester` made, with the plugin and no other."""
        monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        return lambda: pytester.inline_run("-p", plugin.__name__, "-p", "no:cacheprovider").assertoutcome(passed=1)

    def test_is_the_users_again_after_a_test(self, pytester: pytest.Pytester, passes: Callable[[], None]) -> None:
        settings: Any = import_module("airflow.settings")
        before = settings.engine, settings.Session, settings.DAGS_FOLDER, _airflow_variables()
        pytester.makepyfile("""
            from airflow import settings

            def test_its_url(run_dag):
                assert "/airflow0/airflow.db" in str(settings.engine.url)
        """)
        passes()
        assert (settings.engine, settings.Session, settings.DAGS_FOLDER, _airflow_variables()) == before

    def test_is_the_users_if_they_say_so(self, pytester: pytest.Pytester, passes: Callable[[], None]) -> None:
        pytester.makeconftest("""
            import pytest

            @pytest.fixture(scope="session")
            def airflow_test_home():
                return None
        """)
        pytester.makepyfile(f"""
            from airflow import settings

            def test_its_url(run_dag):
                assert str(settings.engine.url) == {str(import_module("airflow.settings").engine.url)!r}
        """)
        passes()


class TestExamples:
    def test_pass_their_params_to_the_run(self, databricks_workspace: ScriptedWorkspace, run_dag: DagRunner) -> None:
        databricks_workspace.task("count_words", returns={"words": 1, "most_common": "rose"})
        run = run_dag(EXAMPLES / "submit_notebook.py", conf={"text": "rose"})
        assert run.result("tell") == "1 words, most of them 'rose'"
        databricks_workspace.assert_launched("count_words", times=1, parameters={"text": "rose"})

    def test_launch_a_run_for_each_element(self, databricks_workspace: ScriptedWorkspace, run_dag: DagRunner) -> None:
        databricks_workspace.task("load", error="no such table", times=1)
        run = run_dag(EXAMPLES / "mapped_runs.py")
        # Airflow runs mapped tasks in any order.
        assert (run.state, sorted(map(str, run.states.values()))) == ("failed", ["failed", *["success"] * 3])
        for table in ("customers", "orders", "items"):
            databricks_workspace.assert_launched("load", times=1, parameters=["--table", table])

    def test_keep_one_job(self, databricks_workspace: ScriptedWorkspace, run_dag: DagRunner) -> None:
        for _ in range(2):
            assert run_dag(EXAMPLES / "keep_job.py", conf={"day": "2026-02-01"}).state == "success"
        assert databricks_workspace.requests["create"] == 1
        run = databricks_workspace.assert_launched("weekly-report", times=2, parameters={"day": "2026-02-01"})
        assert run.tasks == {"load": "SUCCESS", "report": "SUCCESS"}

    def test_wait_for_what_others_launch(self, databricks_workspace: ScriptedWorkspace, run_dag: DagRunner) -> None:
        databricks_workspace.job("nightly-load", tasks=["load", "report"])
        databricks_workspace.task("nightly-load", seconds=600)
        databricks_workspace.launch("nightly-load")
        assert run_dag(EXAMPLES / "wait_for_job.py").states == {"idle": "success", "loaded": "success"}
        databricks_workspace.assert_nothing_active()

    def test_repair_a_workflow_group(self, databricks_workspace: ScriptedWorkspace, run_dag: DagRunner) -> None:
        databricks_workspace.task("emea", error="not yet", times=1)
        databricks_workspace.task("emea", returns={"region": "emea", "day": "monday", "sales": 3}, seconds=600)
        run = run_dag(EXAMPLES / "workflow_group.py", conf={"day": "2026-05-01"})
        assert (run.state, run.result("tell")) == ("success", "sales of emea on monday: 3")
        job = databricks_workspace.assert_launched(
            "workflow_group.sales", times=1, parameters={"emea_day": "2026-05-01"}
        )
        assert job.tasks == dict.fromkeys(("extract", "emea", "apac", "load", "cleanup"), "SUCCESS")
        assert databricks_workspace.requests["runs/repair"] == 1

    def test_call_functions(self, databricks_workspace: ScriptedWorkspace, run_dag: DagRunner) -> None:
        databricks_workspace.task("count_words", returns=5)
        databricks_workspace.task("add", returns=2)
        run = run_dag(EXAMPLES / "taskflow.py")
        assert (run.state, run.result("add")) == ("success", 2)
        databricks_workspace.assert_launched("count_words", times=3)
        databricks_workspace.assert_launched("say 2 words", times=1, parameters={"text": "word word "})
