"""Rules for tasks that run code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_dbjobs.payloads.rules import FROM_2_1, ONLY_2_0, ONLY_2_2, Rule
from airflow_dbjobs.payloads.rules.checks import (
    absent,
    all_required,
    ascii_only,
    at_most_one,
    json_size,
    one_of,
    only_with,
    positive_id,
    present,
    quoted,
    reported_at,
    required,
    strings_in,
    when_given,
)
from airflow_dbjobs.payloads.rules.parameters import LISTS, MAPS, forbidden_arguments, string_parameters
from airflow_dbjobs.payloads.templates import is_templated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_dbjobs.payloads.paths import Node
    from airflow_dbjobs.payloads.rules import Fault

DBT_COMMANDS = (1, 10)
MAX_PIPELINE_PARAMETERS = 10_000


def _git_is_certain(node: Node) -> bool:
    """Return whether the payload shows if the job or run has a git_source."""
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
        yield "notebook_path", f"is {quoted(path)}, a relative path"
    elif not in_workspace and is_absolute:
        yield "notebook_path", f"is {quoted(path)}, an absolute path with source GIT"


def _absolute_in_git(node: Node) -> Iterator[Fault]:
    if node.given("source") or not node.body.settings.get("git_source"):
        return
    path = node.text("notebook_path")
    if path and path.startswith("/"):
        yield "notebook_path", f"is {quoted(path)}, an absolute path in a job or run with git_source"


def _source_has_git(node: Node) -> Iterator[Fault]:
    if node.known("source") == "GIT" and _git_is_certain(node) and not node.body.settings.get("git_source"):
        yield "source", "is GIT without a git_source"


SOURCE = (
    Rule(
        "SOURCE-ENUM",
        one_of("source", ("WORKSPACE", "GIT")),
        "it must be WORKSPACE or GIT",
        "Use one of these.",
        versions=FROM_2_1,
    ),
    Rule(
        "SOURCE-GIT-NEEDS-GIT",
        when_given("source", _source_has_git),
        "source GIT requires a git_source",
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
            # The command may contain secrets, so the message does not quote it.
            yield "commands", f"commands[{index}] does not start with dbt"


def _schema_without_warehouse(node: Node) -> Iterator[Fault]:
    if node.filled("schema") and node.lacks("warehouse_id"):
        yield "schema", "is given without warehouse_id"


def _pipeline_parameters(node: Node) -> Iterator[Fault]:
    length = sum(len(text) for _, text in strings_in(node.known("parameters")))
    if length > MAX_PIPELINE_PARAMETERS:
        yield "parameters", f"has {length:,} characters"


RULES = {
    "NotebookTask": (
        Rule("NB-PATH", required("notebook_path"), "it is required", "Set the path of the notebook."),
        Rule(
            "NB-PATH-ABSOLUTE",
            when_given("notebook_path", _notebook_path),
            "a path in the workspace must start with /, and a path in a Git repository must not",
            "Correct the path or source.",
        ),
        Rule(
            "NB-PATH-ABSOLUTE",
            when_given("notebook_path", _absolute_in_git),
            "without source, it must be relative to the root of the repository",
            "Set source to WORKSPACE, or use a relative path.",
            versions=FROM_2_1,
            warning=True,
        ),
        Rule(
            "PARAM-ASCII-BASE",
            ascii_only("base_parameters"),
            "API 2.0 accepts only ASCII parameters",
            "Encode the value, or use API 2.1 or later.",
            versions=ONLY_2_0,
        ),
        Rule(
            "PARAM-BASE-SIZE",
            json_size("base_parameters", 1024 * 1024),
            "at most 1,048,576 bytes are allowed",
            "Pass large data in a file.",
            versions=FROM_2_1,
        ),
        *string_parameters(maps=("base_parameters",)),
        *SOURCE,
    ),
    "SparkJarTask": (
        *string_parameters(lists=("parameters",)),
        Rule(
            "JAR-MAIN-CLASS",
            required("main_class_name"),
            "it is required",
            "Set the full name of the class.",
            warning=True,
        ),
        Rule(
            "JAR-URI-DEPRECATED",
            absent("jar_uri"),
            "the API deprecated it in April 2016",
            "Add the JAR to libraries.",
            warning=True,
        ),
    ),
    "SparkPythonTask": (
        *string_parameters(lists=("parameters",)),
        Rule("PY-FILE", required("python_file"), "it is required", "Set the path or URL of the file."),
        *SOURCE,
    ),
    "SparkSubmitTask": (forbidden_arguments("parameters"), *string_parameters(lists=("parameters",))),
    "PythonWheelTask": (
        *string_parameters(maps=("named_parameters",), lists=("parameters",)),
        Rule(
            "WHEEL-REQUIRED",
            all_required("package_name", "entry_point"),
            "both are required",
            "Set package_name and entry_point.",
            versions=FROM_2_1,
        ),
        Rule(
            "WHEEL-PARAM-XOR",
            at_most_one("parameters", "named_parameters"),
            "the two are mutually exclusive",
            "Remove one.",
            versions=FROM_2_1,
        ),
    ),
    "PipelineTask": (
        *string_parameters(maps=("parameters",)),
        Rule("PIPELINE-ID", required("pipeline_id"), "it is required", "Set the id of the pipeline."),
        Rule(
            "PIPELINE-PARAM-SIZE",
            when_given("parameters", _pipeline_parameters),
            f"at most {MAX_PIPELINE_PARAMETERS:,} characters are allowed, including the names",
            "Pass large data in a file.",
            versions=ONLY_2_2,
        ),
    ),
    "RunJobTask": (
        *string_parameters(maps=("job_parameters", *MAPS), lists=LISTS),
        Rule("RUNJOB-ID", present("job_id"), "it is required", "Set the id of the job to run."),
        Rule(
            "RUNJOB-ID",
            positive_id("job_id"),
            "it must be a positive integer",
            "Set the id of the job to run.",
            at_run=True,
        ),
    ),
    "CleanRoomsNotebookTask": string_parameters(maps=("notebook_base_parameters",)),
    "DbtTask": (
        *string_parameters(lists=("commands",)),
        Rule(
            "DBT-COMMANDS",
            _dbt_commands,
            "1 to 10 commands are required, and each must start with dbt",
            'Use commands such as "dbt run".',
            versions=FROM_2_1,
        ),
        Rule(
            "DBT-CATALOG-SCHEMA",
            reported_at("", only_with("catalog", "warehouse_id")),
            "catalog requires warehouse_id",
            "Also set warehouse_id.",
            versions=FROM_2_1,
        ),
        Rule(
            "DBT-CATALOG-SCHEMA",
            when_given("schema", _schema_without_warehouse),
            "it requires warehouse_id",
            "Also set warehouse_id.",
            versions=FROM_2_1,
            warning=True,
        ),
        Rule(
            "DBT-PROFILES",
            at_most_one("profiles_directory", "warehouse_id"),
            "the two are mutually exclusive",
            "Remove one.",
            versions=FROM_2_1,
        ),
        *SOURCE,
    ),
}
