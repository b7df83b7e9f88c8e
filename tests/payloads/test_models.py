"""The models: what they describe, what they hold, and the plain dict they become."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import OrderedDict, UserList, deque, namedtuple
from importlib import import_module
from pathlib import Path
from types import MappingProxyType

import pytest

from airflow_dbjobs import payloads
from airflow_dbjobs.errors import ConfigurationError
from airflow_dbjobs.payloads import catalog, kinds
from airflow_dbjobs.payloads.structure import Structure, facts_of, plain

# The list "Data structures" of the newest reference page.
OF_THE_REFERENCE = """
    ABFSSStorageInfo AutoScale AzureAttributes AzureAvailability ClusterInstance ClusterLogConf ClusterSpec ClusterTag
    CronSchedule DbfsStorageInfo FileStorageInfo InitScriptInfo Job JobEmailNotifications JobNotificationSettings
    JobSettings JobTask JobsHealthRule JobsHealthRules Library MavenLibrary NewCluster NotebookOutput NotebookTask
    ParamPair PipelineTask PythonPyPiLibrary RCranLibrary Run RunJobTask RunLifeCycleState RunParameters RunResultState
    RunState SparkConfPair SparkEnvPair SparkJarTask SparkPythonTask SparkSubmitTask TriggerType ViewItem ViewType
    ViewsToExport Webhook WebhookNotifications WorkspaceStorageInfo
"""
MODELS = [
    model for name in catalog.HOME if isinstance(model := catalog.find(name), type) and issubclass(model, Structure)
]


@pytest.mark.parametrize("name", OF_THE_REFERENCE.split())
def test_each_structure_of_the_reference_can_be_imported(name):
    assert getattr(payloads, name) is not None
    assert name in payloads.__all__
    assert name in dir(payloads)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'NewClusters'"):
        _ = payloads.NewClusters


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_each_field_tells_its_meaning_kind_and_source(model):
    assert model.__doc__
    assert facts_of(model)
    for name, field in model.model_fields.items():
        assert "[" in field.description, name
        assert field.json_schema_extra["source"] in field.description
        assert (field.default, field.annotation is not None) == (None, True)
        structure = facts_of(model)[name].kind.structure
        assert structure is None or structure in catalog.HOME, name


def test_the_catalog_names_what_the_modules_hold_and_type_checkers_see_the_same_modules():
    for module, names in catalog.MODULES.items():
        loaded = import_module(f"airflow_dbjobs.payloads.{module}")
        own = {name for name, value in vars(loaded).items() if getattr(value, "__module__", "") == loaded.__name__}
        assert own - set(names) <= {"RunTimes", "ComputeAndTask"}
    tree = ast.parse(Path(payloads.__file__).read_text(encoding="utf-8"))
    stars = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.names[0].name == "*"}
    assert stars == {f"airflow_dbjobs.payloads.{module}" for module in catalog.MODULES}


def test_a_model_becomes_a_plain_dict_at_any_depth_with_types_kept_and_none_dropped():
    cluster = payloads.NewCluster(
        num_workers=2,
        spark_conf={"a": True},
        custom_tags=None,
        azure_attributes=payloads.AzureAttributes(availability=payloads.AzureAvailability.SPOT_AZURE),
        init_scripts=[payloads.InitScriptInfo(workspace={"destination": "/a"})],
        of_2031={"b": payloads.AutoScale(min_workers=1)},
    )
    run = payloads.SubmitRun(tasks=({"task_key": "a", "new_cluster": cluster},), timeout_seconds="60")
    made = run.to_dict()
    assert made == {
        "tasks": (
            {
                "task_key": "a",
                "new_cluster": {
                    "num_workers": 2,
                    "spark_conf": {"a": True},
                    "azure_attributes": {"availability": "SPOT_AZURE"},
                    "init_scripts": [{"workspace": {"destination": "/a"}}],
                    "of_2031": {"b": {"min_workers": 1}},
                },
            },
        ),
        "timeout_seconds": "60",
    }
    assert type(made["tasks"][0]["new_cluster"]["azure_attributes"]["availability"]) is str
    assert type(made["tasks"][0]["new_cluster"]["num_workers"]) is int


def test_what_holds_no_model_stays_the_same_object():
    given = {"a": [1, {"b": ("c", object())}]}
    assert plain(given) is given


def test_a_model_can_be_read_compared_copied_and_drawn_as_a_schema():
    task = payloads.DbtTask(commands=["dbt run"], schema="s")
    assert (task.schema, task.commands, task.catalog) == ("s", ["dbt run"], None)
    assert task == payloads.DbtTask(commands=["dbt run"], schema="s")
    assert task.model_copy(update={"schema": "t"}).to_dict() == {"commands": ["dbt run"], "schema": "t"}
    properties = payloads.AutoScale.model_json_schema()["properties"]
    assert properties["min_workers"]["description"].startswith("Workers it starts with")
    assert payloads.SubmitRun.model_fields["timeout_seconds"].json_schema_extra == {
        "source": "Jobs API 2.0 reference",
        "since": None,
        "default": "0",
        "unit": "s",
    }


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
def test_a_whole_number_may_be_written_as_digits(value, number):
    assert kinds.whole_number(value) == number


def test_a_model_in_any_mapping_list_tuple_or_set_like_becomes_a_plain_dict():
    model = payloads.NotebookTask(notebook_path="/a")
    made = {"notebook_path": "/a"}
    assert plain(OrderedDict(a=model)) == plain(MappingProxyType({"a": model})) == {"a": made}
    assert plain(UserList([model])) == plain(deque([model])) == [made]
    assert plain(namedtuple("Pair", "a b")(model, 1)) == (made, 1)
    assert plain({payloads.PauseStatus.PAUSED}) == {"PAUSED"}
    (key,) = plain({payloads.PauseStatus.PAUSED: 1})
    assert type(key) is str


def test_a_model_that_holds_itself_is_refused_in_words():
    model = payloads.ForEachTask(inputs="[]")
    model.task = {"for_each_task": model}
    with pytest.raises(ConfigurationError, match="holds itself"):
        model.to_dict()


SECRET = "hunter2"


@pytest.mark.parametrize(
    "model",
    [
        payloads.DockerBasicAuth(username="u", password=SECRET),
        payloads.DockerImage(url="a", basic_auth={"password": SECRET}),
        payloads.LogAnalyticsInfo(log_analytics_primary_key=SECRET),
        payloads.DbtOutput(artifacts_link=f"https://a/?sig={SECRET}", artifacts_headers={"Authorization": SECRET}),
        payloads.NewCluster(spark_conf={"a": SECRET}, spark_env_vars={"A": SECRET}),
        payloads.JobEnvironmentVariablesSpec(variables={"A": SECRET}),
        payloads.Environment(dependencies=[f"--index-url https://u:{SECRET}@a"]),
        payloads.Library(
            whl=f"https://u:{SECRET}@a/b.whl", pypi=payloads.PythonPyPiLibrary(repo=f"https://{SECRET}@a")
        ),
        payloads.GitSource(git_url=f"https://u:{SECRET}@a/b"),
        payloads.RunNow(job_id=1, job_parameters={"a": SECRET}, python_params=[SECRET]),
        payloads.NotebookTask(notebook_path="/a", base_parameters={"a": SECRET}),
        payloads.DbtTask(commands=[f"dbt run --vars {SECRET}"]),
    ],
    ids=lambda model: type(model).__name__,
)
def test_what_may_be_a_secret_is_not_in_a_models_repr(model):
    assert SECRET not in repr(model) + str(model)
    assert SECRET in str(model.to_dict())


def loaded_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print('\\n', *sys.modules)"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return set(done.stdout.splitlines()[-1].split())


def test_only_the_models_that_a_payload_names_are_loaded():
    loaded = loaded_after(
        "from airflow_dbjobs.payloads import check\nassert 'pydantic' not in __import__('sys').modules\n"
        "check('run-now', {'job_id': 1, 'queue': {'enabled': True}}, '2.2')"
    )
    here = "airflow_dbjobs.payloads."
    assert {f"{here}runs", f"{here}access", f"{here}rules.access"} <= loaded
    unnamed = {"clusters", "libraries", "code_tasks", "sql_tasks", "notifications", "schedule", "answers", "jobs"}
    assert loaded & {f"{here}{name}" for name in unnamed} == set()
    assert not [name for name in loaded if name.partition(".")[0] in {"airflow", "requests", "yaml"}]
