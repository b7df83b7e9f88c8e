"""The types of bodies and answers: what they describe, that they are plain dicts, and what mypy makes of them."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module, util
from pathlib import Path
from typing import is_typeddict

import pytest

from airflow_dbjobs import payloads
from airflow_dbjobs.airflow_compat import AIRFLOW_V_3_0_PLUS
from airflow_dbjobs.payloads import field_types, schema
from airflow_dbjobs.payloads.field_types import STRUCTURE, STRUCTURES

ROOT = Path(__file__).parents[3]
# The list "Data structures" of the newest reference page.
OF_THE_REFERENCE = """
    ABFSSStorageInfo AutoScale AzureAttributes AzureAvailability ClusterInstance ClusterLogConf ClusterSpec ClusterTag
    CronSchedule DbfsStorageInfo FileStorageInfo InitScriptInfo Job JobEmailNotifications JobNotificationSettings
    JobSettings JobTask JobsHealthRule JobsHealthRules Library MavenLibrary NewCluster NotebookOutput NotebookTask
    ParamPair PipelineTask PythonPyPiLibrary RCranLibrary Run RunJobTask RunLifeCycleState RunParameters RunResultState
    RunState SparkConfPair SparkEnvPair SparkJarTask SparkPythonTask SparkSubmitTask TriggerType ViewItem ViewType
    ViewsToExport Webhook WebhookNotifications WorkspaceStorageInfo
"""
TYPES = {name: found for name in schema.MODULE_OF if is_typeddict(found := schema.find(name))}
ANSWERS = {name for name, module in schema.MODULE_OF.items() if module == "answers"}


def source_of(module: str) -> ast.Module:
    path = util.find_spec(f"airflow_dbjobs.payloads.types.{module}").origin
    return ast.parse(Path(path).read_text(encoding="utf-8"))


class TestBodies:
    def test_have_the_rules_of_those_they_extend(self):
        classes = {
            node.name: [base.id for base in node.bases if base.id != "TypedDict"]
            for module in set(schema.MODULE_OF.values()) - {"answers"}
            for node in source_of(module).body
            if isinstance(node, ast.ClassDef) and node.name in TYPES
        }
        with_rules = {name: base for name, (base,) in ((name, bases) for name, bases in classes.items() if bases)}
        del with_rules["ComputeAndTask"]  # JobTask has no rules of its own
        assert with_rules == schema.EXTENDS

    def test_are_plain_dicts(self):
        task = payloads.DbtTask(commands=["dbt run"], schema="s")
        assert type(task) is dict
        assert task == {"commands": ["dbt run"], "schema": "s"}
        assert payloads.Task(task_key="a", of_2031=1) == {"task_key": "a", "of_2031": 1}


class TestFields:
    @pytest.mark.parametrize("name", TYPES)
    def test_are_optional_and_have_a_meaning_and_a_source(self, name):
        assert TYPES[name].__doc__
        assert TYPES[name].__required_keys__ == frozenset()
        for field, hint in TYPES[name].__annotations__.items():
            source = hint.__metadata__[-1]
            assert isinstance(source, field_types.Source), field
            assert source.meaning.endswith("."), field
            assert source.document.startswith(("Jobs API", "Databricks SDK")), field

    @pytest.mark.parametrize("name", [name for name in TYPES if name not in ANSWERS])
    def test_have_a_type_to_check_and_the_structure_they_hold(self, name):
        for field, (kind, since, structure, many) in schema.fields_of(name).items():
            assert (structure in TYPES) == (kind in (STRUCTURE, STRUCTURES)), field
            assert many == (kind is STRUCTURES), field
            assert since in {None, "2.1", "2.2"}, field

    @pytest.mark.parametrize(
        ("value", "number"),
        [
            (5, 5),
            ("5", 5),
            (" -1 ", -1),
            (5.0, 5),
            (5.5, None),
            ("5.0", 5),
            ("-5.00", -5),
            ("5.5", None),
            ("5.", None),
            ("9" * 5000, None),
            ("", None),
            ("٣", None),
            (True, None),
        ],
    )
    def test_that_are_whole_numbers_may_be_digits(self, value, number):
        assert field_types.whole_number(value) == number


def loaded_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print('\\n', *sys.modules)"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return set(done.stdout.splitlines()[-1].split())


class TestNames:
    @pytest.mark.parametrize("name", OF_THE_REFERENCE.split())
    def test_of_each_documented_structure_can_be_imported(self, name):
        assert getattr(payloads, name) is not None
        assert name in payloads.__all__
        assert name in dir(payloads)

    def test_that_are_unknown_are_an_attribute_error(self):
        with pytest.raises(AttributeError, match="has no attribute 'NewClusters'"):
            _ = payloads.NewClusters

    def test_are_the_same_at_runtime_and_for_type_checkers(self):
        for module in set(schema.MODULE_OF.values()):
            loaded = import_module(f"airflow_dbjobs.payloads.types.{module}")
            own = {name for name, value in vars(loaded).items() if getattr(value, "__module__", "") == loaded.__name__}
            assert own - {name for name, home in schema.MODULE_OF.items() if home == module} <= {"RunTimes"}
        seen = {
            node.module.rpartition(".")[2]
            for node in ast.walk(ast.parse(Path(payloads.__file__).read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom) and node.module.startswith("airflow_dbjobs.payloads.types.")
        }
        assert seen == set(schema.MODULE_OF.values())

    def test_load_only_the_types_that_a_payload_uses(self):
        loaded = loaded_after(
            "from airflow_dbjobs.payloads import check\n"
            "check('run-now', {'job_id': 1, 'queue': {'enabled': True}}, '2.2')"
        )
        here = "airflow_dbjobs.payloads."
        assert {f"{here}types.runs", f"{here}types.access", f"{here}rules.access"} <= loaded
        unnamed = {"clusters", "libraries", "code_tasks", "sql_tasks", "notifications", "schedule", "answers", "jobs"}
        assert loaded & {f"{here}types.{name}" for name in unnamed} == set()
        assert not [name for name in loaded if name.partition(".")[0] in {"airflow", "pydantic", "requests", "yaml"}]


DAG_FILE = """\
from typing import Any

from airflow_dbjobs.operators import DatabricksCreateJobsOperator, DatabricksSubmitRunOperator
from airflow_dbjobs.payloads import AutoScale, Library, NewCluster, NotebookTask, RunIf, SubmitTask, Task

CLUSTER = NewCluster(spark_version="15.4.x-scala2.12", autoscale=AutoScale(min_workers=1, max_workers="{{ params.n }}"))
BIG: NewCluster = {**CLUSTER, "num_workers": 8, "spark_conf": {"spark.speculation": True}}


def cluster() -> dict[str, Any]:
    return {}


upstream = DatabricksSubmitRunOperator(
    task_id="a", notebook_task={"notebook_path": "/a", "base_parameters": {"n": 1}}, new_cluster=cluster()
)
path = upstream.output
task = SubmitTask(
    task_key="a", run_if=RunIf.ALL_DONE, timeout_seconds=path, notebook_task=NotebookTask(notebook_path=path)
)
DatabricksSubmitRunOperator(
    task_id="b",
    tasks=[task, {"task_key": "b", "libraries": [{"jar": "dbfs:/b.jar"}, Library(jar=path)], "new_cluster": BIG}],
    timeout_seconds="{{ params.seconds }}",
    git_source=path,
    new_cluster="{{ params.cluster }}",
)
DatabricksSubmitRunOperator(task_id="c", tasks=[{**task, "task_key": f"c{number}"} for number in range(3)])
DatabricksSubmitRunOperator.partial(task_id="d").expand(notebook_task=[NotebookTask(notebook_path="/a")])
DatabricksCreateJobsOperator(task_id="e", name="e", tasks=[Task(task_key="a", job_cluster_key="c")], tags=path)
"""
TASKFLOW = f"""\
from {"airflow.sdk" if AIRFLOW_V_3_0_PLUS else "airflow.decorators"} import task

from airflow_dbjobs.payloads import NotebookTask, SubmitRun


@task.databricks_submit
def clean(day: str) -> SubmitRun:
    return SubmitRun(notebook_task=NotebookTask(notebook_path="/a", base_parameters={{"day": day}}))


@task.databricks_submit(new_cluster={{"num_workers": 1}}, deferrable=True)
def load(day: str) -> SubmitRun:
    return {{"notebook_task": {{"notebook_path": "/a"}}}}


@task.databricks_python(environment={{"environment_version": "4"}}, deferrable=True)
def total(rows: list[int], factor: float = 1) -> float:
    return sum(rows) * factor


total([1, 2], factor=0.5)
total.partial(factor=2).expand(rows=[[1], [2]])
clean("2026-01-01") >> load.override(retries=2).expand(day=["2026-01-01"])
"""
MISTAKES = """\
from airflow_dbjobs.operators import DatabricksSubmitRunOperator
from airflow_dbjobs.payloads import NewCluster, NotebookTask

NotebookTask(notebok_path="/a")
DatabricksSubmitRunOperator(task_id="a", notebook_task={"notebok_path": "/a"})
DatabricksSubmitRunOperator(task_id="b", tasks=[{"task_key": "a", "libraries": [{"jra": "dbfs:/b.jar"}]}])
DatabricksSubmitRunOperator(task_id="c", new_cluster={"num_workers": []})
DatabricksSubmitRunOperator(task_id="d", new_cluster=NotebookTask(notebook_path="/a"))
"""


@pytest.fixture(scope="module")
def found_by_mypy(tmp_path_factory) -> list[str]:
    """What mypy finds in the DAG files, as `file:line`."""
    folder = tmp_path_factory.mktemp("dags")
    (folder / "good.py").write_text(DAG_FILE)
    (folder / "taskflow.py").write_text(TASKFLOW)
    (folder / "bad.py").write_text(MISTAKES)
    # With the settings, and so the cache, of `make check`: else mypy reads all of Airflow first, for half a minute.
    ours = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(ROOT / ".mypy_cache")]
    files = ["good.py", "taskflow.py", "bad.py"]
    command = [sys.executable, "-m", "mypy", "--strict", *ours, "--no-error-summary", *files]
    done = subprocess.run(command, check=False, cwd=folder, capture_output=True, text=True, timeout=400)
    assert not done.stderr, done.stderr
    return [":".join(line.split(":")[:2]) for line in done.stdout.splitlines() if " error: " in line]


class TestMypy:
    def test_accepts_types_dicts_templates_and_xcomargs(self, found_by_mypy):
        assert [place for place in found_by_mypy if not place.startswith("bad.py")] == []

    def test_finds_misspelt_fields_and_wrong_types(self, found_by_mypy):
        assert {place for place in found_by_mypy if place.startswith("bad.py")} == {f"bad.py:{n}" for n in range(4, 9)}
