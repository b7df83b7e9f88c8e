"""What the documentation promises beside its examples' running: their effects, and the tables that name things."""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow_context import AIRFLOW_V_3_3_PLUS, parsed
from airflow_stack import clean_environment
from documentation import ROOT, example, examples, table, text_of

from airflow_dbjobs import client as client_module
from airflow_dbjobs import errors
from airflow_dbjobs.airflow_compat import AirflowFailException
from airflow_dbjobs.client.wait import wait_for_run
from airflow_dbjobs.hooks.fields import FIELDS
from airflow_dbjobs.local_workspace.http.routes import OPERATIONS
from airflow_dbjobs.local_workspace.testing import plugin
from airflow_dbjobs.operators import DatabricksRunNowOperator
from airflow_dbjobs.operators.base import PayloadOperator
from airflow_dbjobs.operators.launch import LaunchOperator
from airflow_dbjobs.sensors import DatabricksRunSensor

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_context import Scene
    from described_runs import Write

    from airflow_dbjobs.client import JobsClient
    from airflow_dbjobs.local_workspace import LocalWorkspace

TASK = {"task_key": "only", "condition_task": {"op": "EQUAL_TO", "left": "1", "right": "1"}}
FAILED = {"message": "x", "run_id": 7, "page_url": "http://x/7"}

needs_retry_policies = pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="Airflow 3.3 introduced retry policies")


def run_example(text: str) -> dict[str, Any]:
    """Run the only Python example that contains the text; return its names."""
    names: dict[str, Any] = {"__name__": "example"}
    exec(example("python", text), names)
    return names


def dag_of(text: str, tmp_path: Path) -> Any:
    """Return the DAG of an example, as Airflow parses it."""
    file = tmp_path / "example.py"
    file.write_text(example("python", text))
    bag = parsed(file)
    assert bag.import_errors == {}
    (dag,) = bag.dags.values()
    return dag


def raised(name: str) -> errors.RunFailed:
    kind: type[errors.RunFailed] = getattr(errors, name)
    return kind(**FAILED)


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


class TestPayloads:
    def test_typed_payloads_are_plain_data_in_the_operator(self) -> None:
        load = run_example("SubmitTask(")["load"]
        assert load.tasks[0]["new_cluster"]["autoscale"] == {"min_workers": 1, "max_workers": 8}

    def test_the_checker_prints_the_mistakes_that_are_shown(self, tmp_path: Path) -> None:
        shown = example("text", "PayloadError").splitlines()[1:]
        tasks = [{"task_key": "a", "new_cluster": {"num_workers": -1}, "sql_task": {"query": {"query_id": "1"}}}]
        file = tmp_path / "submit.json"
        file.write_text(json.dumps({"run_name": "x", "tasks": tasks}))
        command = [sys.executable, "-m", "airflow_dbjobs.payloads", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1
        assert [line for line in shown if line.removeprefix("- ") not in done.stdout] == []


class TestOperators:
    @pytest.mark.parametrize("kind", [PayloadOperator, LaunchOperator])
    def test_the_tables_have_every_parameter_with_its_default(self, kind: type) -> None:
        rows = [line.split(" | ") for line in text_of("operators").splitlines() if re.match(r"\| `\w+`", line)]
        written = {name: row[1] for row in rows for name in quoted(row[0])}
        defaults = {name: p.default for name, p in inspect.signature(kind.__init__).parameters.items()}
        described = [name for name in defaults if name in written]
        # `json` has a paragraph of its own, and migrating.md has those without effect.
        undescribed = {name for name in defaults if not name.startswith("databricks_retry_")} - set(described)
        assert undescribed == {"self", "kwargs"} | ({"json"} if kind is PayloadOperator else set())
        # The defaults of these are described, not shown.
        elsewhere = {"databricks_conn_id", "deferrable", "idempotency_token", "openlineage_inject_parent_job_info"}
        for name in set(described) - elsewhere:
            assert ast.literal_eval(written[name].strip("`").replace(",", "")) == defaults[name], name

    def test_a_mapped_submit_launches_one_run_per_element(self, tmp_path: Path) -> None:
        task = dag_of("load_tables", tmp_path).get_task("load")
        assert (list(task.expand_input.value), task.max_active_tis_per_dag) == (["spark_python_task"], 8)

    def test_default_args_poll_faster(self, tmp_path: Path) -> None:
        task = dag_of("count_words_locally", tmp_path).get_task("count")
        assert (task.polling_period_seconds, task.deferrable) == (1, False)

    def test_the_sensors_table_has_every_parameter(self) -> None:
        told = {name for row in table("sensors", "Parameter of") for name in quoted(row[0])}
        assert told == inspect.signature(DatabricksRunSensor.__init__).parameters.keys() - {"self", "kwargs"}


class TestErrors:
    @needs_retry_policies
    @pytest.mark.parametrize("row", table("errors-and-retries", "Class | Cause"), ids=lambda row: row[0])
    def test_the_policy_does_what_the_table_of_causes_says(self, row: list[str]) -> None:
        policy = run_example("DatabricksRetryPolicy()")["nightly"].retry_policy
        for name in quoted(row[0]):
            decision = policy.evaluate(raised(name), 1, 3)
            assert (decision.action.value == "fail") == row[2].startswith("fails")

    def test_the_table_of_causes_has_every_class(self) -> None:
        told = {name for row in table("errors-and-retries", "Class | Cause") for name in quoted(row[0])}
        kinds = {kind.__name__ for kind in vars(errors).values() if inspect.isclass(kind)}
        assert told == {name for name in kinds if issubclass(getattr(errors, name), errors.RunFailed)}

    @needs_retry_policies
    @pytest.mark.parametrize(
        ("name", "action"), [("ClusterFailed", "retry"), ("UserCodeFailed", "fail"), ("PlatformFailed", "fail")]
    )
    def test_airflows_rules_retry_only_lost_clusters(self, name: str, action: str) -> None:
        policy = run_example("ExceptionRetryPolicy")["nightly"].retry_policy
        assert policy.evaluate(raised(name), 1, 3).action.value == action

    @pytest.mark.parametrize("name", ["ClusterFailed", "UserCodeFailed", "PlatformFailed"])
    @pytest.mark.parametrize("method", ["execute", "execute_complete"])
    def test_the_subclass_lets_airflow_retry_only_lost_clusters(
        self, name: str, method: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fails(*_: object, **__: object) -> None:
            raise raised(name)

        monkeypatch.setattr(DatabricksRunNowOperator, method, fails)
        task = run_example("class RetryOnlyLostClusters")["nightly"]
        with pytest.raises(errors.RunFailed if name == "ClusterFailed" else AirflowFailException):
            getattr(task, method)({})

    def test_the_subclass_runs_a_job(self, scene: Scene, client: JobsClient, deferrable: bool) -> None:
        client.create_job({"name": "nightly", "tasks": [TASK]})
        kind = run_example("class RetryOnlyLostClusters")["RetryOnlyLostClusters"]
        make: Callable[[], Any] = lambda: kind(  # noqa: E731
            task_id="load", job_name="nightly", polling_period_seconds=0.02, deferrable=deferrable
        )
        assert scene.run_task(make) == "true"

    def test_the_alert_names_the_failed_task(
        self, scene: Scene, client: JobsClient, notebook: Write, capsys: pytest.CaptureFixture[str]
    ) -> None:
        fails = notebook("transform", "raise ValueError('why')")
        client.create_job({"name": "nightly", "tasks": [TASK, fails]})
        names = run_example("def alert")
        names["nightly"].polling_period_seconds = 0.02
        with pytest.raises(errors.RunFailed) as failure:
            names["nightly"].execute(scene.context)
        capsys.readouterr()
        names["alert"]({"exception": failure.value})
        assert re.match(r"\w+ \(\w+\) in transform: http://", capsys.readouterr().out)


class TestClient:
    def test_the_example_lists_jobs_and_runs(
        self,
        client: JobsClient,
        workspace: LocalWorkspace,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        job_id = client.create_job({"name": "nightly", "tasks": [TASK]})
        wait_for_run(client, client.run_now({"job_id": job_id}), period=0.01)
        monkeypatch.setattr(client_module, "JobsClient", lambda host, token: client)
        run_example("client.list_jobs")
        job, run = capsys.readouterr().out.splitlines()
        assert job.startswith(f"{job_id} ")
        assert job.endswith("['only']")
        assert run.startswith("TERMINATED/SUCCESS http")

    def test_the_output_of_a_failed_task_can_be_printed(
        self, scene: Scene, client: JobsClient, notebook: Write, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run_id = client.submit_run({"tasks": [notebook("transform", "raise ValueError('why')")]})
        wait_for_run(client, run_id, period=0.01)
        run_example("def print_logs")["print_logs"](run_id)
        assert re.search("^transform .*ValueError: why", capsys.readouterr().out, re.DOTALL | re.MULTILINE)

    def test_the_runs_of_a_job_can_be_cancelled(self, scene: Scene, client: JobsClient, notebook: Write) -> None:
        job_id = client.create_job({"name": "endless", "tasks": [notebook("endless", "import time; time.sleep(60)")]})
        run_id = client.run_now({"job_id": job_id})
        run_example("def cancel_runs_of")["cancel_runs_of"]("endless")
        assert str(client.wait_for_run(run_id, timeout=20, period=0.01).state) == "TERMINATED/CANCELED"

    def test_an_endpoint_without_a_method_can_be_called(self, client: JobsClient) -> None:
        call = 'transport.call("GET", "2.0/clusters/list", repeatable=True)'
        assert call in text_of("client")
        assert call in text_of("migrating")
        assert "clusters" in eval(f"client.{call}", {"client": client})


def test_every_field_of_a_connection_is_described() -> None:
    pages = text_of("connection") + text_of("authentication")
    assert [field.name for field in FIELDS if f"`{field.name}`" not in pages] == []


@pytest.mark.parametrize("api", ["Workspace", "DBFS", "Clusters", "Libraries"])
def test_the_operations_of_the_local_workspace_are_described(api: str) -> None:
    (described,) = (row for row in table("local-apis", "API | Operations") if row[0].startswith(f"{api} "))
    prefix = f"{api.lower()}/"
    served = {name.removeprefix(prefix): versions for (_, name), (_, versions) in OPERATIONS.items() if prefix in name}
    assert served == dict.fromkeys(quoted(described[1]), tuple(re.findall(r"\d\.\d", described[0])))


def test_the_defaults_of_a_connection_are_those_in_use() -> None:
    rows = {name: row[1] for row in table("connection", "Field | Value") for name in quoted(row[0])}
    numbers = {field.name: field.default for field in FIELDS if field.kind == "number" and field.name in rows}
    assert len(numbers) == 7
    assert {name for name, default in numbers.items() if default not in re.findall(r"\d+", rows[name])} == set()


def test_task_limits_count_deferred_tasks_as_documented() -> None:
    from airflow import __version__
    from airflow.ti_deps import dependencies_states
    from packaging.version import Version

    (first,) = re.findall(r"from Airflow ([\d.]+) on;", text_of("scaling"))
    counted = "deferred" in getattr(dependencies_states, "ACTIVE_STATES", ())
    assert counted == (Version(__version__) >= Version(first))


@pytest.mark.airflow
def test_the_project_with_tests_passes_its_tests(tmp_path: Path) -> None:
    for block in examples():
        if name := re.match(r"# (\w+\.py)\n", block.code):
            (tmp_path / name[1]).write_text(block.code)
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "count_words.py").write_text(example("python", "def count_words():"))
    shutil.copytree(ROOT / "example_dags" / "workspace", tmp_path / "workspace")
    shutil.copytree(ROOT / "example_dags", tmp_path / "example_dags")
    environment = clean_environment()
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    environment["PYTHONPATH"] = str(ROOT)
    environment["AIRFLOW__API_AUTH__JWT_SECRET"] = secrets.token_hex(32)  # as the page says of Airflow 3.2
    if not entry_points(group="pytest11", name="airflow_dbjobs"):
        environment["PYTEST_PLUGINS"] = plugin.__name__
    script = example("sh", "$PWD/dags") + "python -m pytest -q -p no:cacheprovider\n"
    done = subprocess.run(
        ["bash", "-ec", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed" in done.stdout
