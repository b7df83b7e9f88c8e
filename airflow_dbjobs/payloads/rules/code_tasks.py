"""Rules of tasks that run code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_dbjobs.payloads.rules import FROM_2_1, ONLY_2_0, ONLY_2_2, Rule
from airflow_dbjobs.payloads.rules.forms import (
    absent,
    all_present,
    ascii_only,
    at,
    at_most_one,
    json_size,
    of,
    one_of,
    only_with,
    positive_id,
    present,
    shown,
    some,
    strings_in,
)
from airflow_dbjobs.payloads.rules.parameters import LISTS, MAPS, forbidden_arguments, texts
from airflow_dbjobs.payloads.templates import is_templated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_dbjobs.payloads.paths import Node
    from airflow_dbjobs.payloads.rules import Fault

DBT_COMMANDS = (1, 10)
MAX_PIPELINE_PARAMETERS = 10_000


def _git_is_certain(node: Node) -> bool:
    """Whether it is known if the job or run has a git_source."""
    body = node.body
    return not (body.is_partial or body.open_root or is_templated(body.settings.get("git_source")))


def _notebook_path(node: Node) -> Iterator[Fault]:
    path, source = node.text("notebook_path"), node.known("source")
    if not path or is_templated(node.value.get("source")):
        return
    is_absolute = path.startswith("/")
    if node.body.version == "2.0" or source == "WORKSPACE":
        in_workspace = True
    elif source == "GIT":
        in_workspace = False
    elif source is None and _git_is_certain(node) and not node.body.settings.get("git_source"):
        in_workspace = True
    else:
        return
    if in_workspace and not is_absolute:
        yield "notebook_path", f"is {shown(path)}, relative"
    elif not in_workspace and is_absolute:
        yield "notebook_path", f"is {shown(path)}, absolute, with source GIT"


def _absolute_in_git(node: Node) -> Iterator[Fault]:
    path = node.text("notebook_path")
    if path and path.startswith("/") and not node.given("source") and node.body.settings.get("git_source"):
        yield "notebook_path", f"is {shown(path)}, absolute, beside a git_source"


def _source_has_git(node: Node) -> Iterator[Fault]:
    if node.known("source") == "GIT" and _git_is_certain(node) and not node.body.settings.get("git_source"):
        yield "source", "is GIT without a git_source"


SOURCE = (
    Rule(
        "SOURCE-ENUM",
        one_of("source", ("WORKSPACE", "GIT")),
        "it must be WORKSPACE or GIT",
        "Give one of these.",
        versions=FROM_2_1,
    ),
    Rule(
        "SOURCE-GIT-NEEDS-GIT",
        of("source", _source_has_git),
        "source GIT needs a git_source",
        "Add git_source to the job or run.",
        versions=FROM_2_1,
        unless=("update",),
    ),
)


def _dbt_commands(node: Node) -> Iterator[Fault]:
    low, high = DBT_COMMANDS
    commands = node.items("commands")
    if node.lacks("commands"):
        yield "commands", "is missing"
    elif node.known("commands") is not None and not low <= len(commands) <= high:
        yield "commands", f"has {len(commands)} entries"
    for index, command in enumerate(commands):
        if isinstance(command, str) and not is_templated(command) and not command.lstrip().startswith("dbt"):
            # The command itself may hold variables that are secrets.
            yield "commands", f"commands[{index}] starts otherwise"


def _schema_without_warehouse(node: Node) -> Iterator[Fault]:
    if node.filled("schema") and node.lacks("warehouse_id"):
        yield "schema", "is given without warehouse_id"


def _pipeline_parameters(node: Node) -> Iterator[Fault]:
    length = sum(len(text) for _, text in strings_in(node.known("parameters")))
    if length > MAX_PIPELINE_PARAMETERS:
        yield "parameters", f"has {length:,} characters"


RULES = {
    "NotebookTask": (
        Rule("NB-PATH", present("notebook_path"), "it is required", "Give the notebook's path."),
        Rule(
            "NB-PATH-ABSOLUTE",
            of("notebook_path", _notebook_path),
            "a path in the workspace must start with /, one in a git source must not",
            "Correct the path, or source.",
        ),
        Rule(
            "NB-PATH-ABSOLUTE",
            of("notebook_path", _absolute_in_git),
            "there, without a source, a path must be relative to the repository",
            "Give source WORKSPACE, or a relative path.",
            versions=FROM_2_1,
            warning=True,
        ),
        Rule(
            "PARAM-ASCII-BASE",
            ascii_only("base_parameters"),
            "API 2.0 takes parameters in ASCII only",
            "Encode the value, or use API 2.1 or later.",
            versions=ONLY_2_0,
        ),
        Rule(
            "PARAM-BASE-SIZE",
            json_size("base_parameters", 1024 * 1024),
            "at most 1,048,576 are allowed",
            "Pass large data by a file.",
            versions=FROM_2_1,
        ),
        *texts(maps=("base_parameters",)),
        *SOURCE,
    ),
    "SparkJarTask": (
        *texts(lists=("parameters",)),
        Rule(
            "JAR-MAIN-CLASS",
            present("main_class_name"),
            "it is required",
            "Give the class, in full.",
            warning=True,
        ),
        Rule(
            "JAR-URI-DEPRECATED",
            absent("jar_uri"),
            "it is deprecated since April 2016",
            "Give the JAR as one of libraries.",
            warning=True,
        ),
    ),
    "SparkPythonTask": (
        *texts(lists=("parameters",)),
        Rule("PY-FILE", present("python_file"), "it is required", "Give the file's address or path."),
        *SOURCE,
    ),
    "SparkSubmitTask": (forbidden_arguments("parameters"), *texts(lists=("parameters",))),
    "PythonWheelTask": (
        *texts(maps=("named_parameters",), lists=("parameters",)),
        Rule(
            "WHEEL-REQUIRED",
            all_present("package_name", "entry_point"),
            "both are required",
            "Give package_name and entry_point.",
            versions=FROM_2_1,
        ),
        Rule(
            "WHEEL-PARAM-XOR",
            at_most_one("parameters", "named_parameters"),
            "these two exclude each other",
            "Leave one out.",
            versions=FROM_2_1,
        ),
    ),
    "PipelineTask": (
        *texts(maps=("parameters",)),
        Rule("PIPELINE-ID", present("pipeline_id"), "it is required", "Give the pipeline's id."),
        Rule(
            "PIPELINE-PARAM-SIZE",
            of("parameters", _pipeline_parameters),
            f"at most {MAX_PIPELINE_PARAMETERS:,} are allowed, names included",
            "Pass large data by a file.",
            versions=ONLY_2_2,
        ),
    ),
    "RunJobTask": (
        *texts(maps=("job_parameters", *MAPS), lists=LISTS),
        Rule("RUNJOB-ID", some("job_id"), "it is required", "Give the other job's id."),
        Rule(
            "RUNJOB-ID",
            positive_id("job_id"),
            "it must be an integer above 0",
            "Give the other job's id.",
            at_run=True,
        ),
    ),
    "CleanRoomsNotebookTask": texts(maps=("notebook_base_parameters",)),
    "DbtTask": (
        *texts(lists=("commands",)),
        Rule(
            "DBT-COMMANDS",
            _dbt_commands,
            "1 to 10 commands are required, each of which must start with dbt",
            'Give commands such as "dbt run".',
            versions=FROM_2_1,
        ),
        Rule(
            "DBT-CATALOG-SCHEMA",
            at("", only_with("catalog", "warehouse_id")),
            "catalog needs warehouse_id",
            "Give warehouse_id too.",
            versions=FROM_2_1,
        ),
        Rule(
            "DBT-CATALOG-SCHEMA",
            of("schema", _schema_without_warehouse),
            "it can be used with warehouse_id only",
            "Give warehouse_id too.",
            versions=FROM_2_1,
            warning=True,
        ),
        Rule(
            "DBT-PROFILES",
            at_most_one("profiles_directory", "warehouse_id"),
            "these two exclude each other",
            "Leave one out.",
            versions=FROM_2_1,
        ),
        *SOURCE,
    ),
}
