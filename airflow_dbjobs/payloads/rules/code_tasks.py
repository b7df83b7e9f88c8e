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
    from airflow_dbjobs.payloads.paths import Node
    from airflow_dbjobs.payloads.rules import Faults

MAX_COMMANDS = 10
MAX_PIPELINE_PARAMETERS = 10_000


def _lacks_git(node: Node) -> bool:
    """Return whether the payload shows that the job or run has no git_source."""
    body = node.body
    return not (body.settings.get("git_source") or body.is_partial or body.open_root)


@when_given("notebook_path")
def _notebook_path(node: Node) -> Faults:
    path, source = node.text("notebook_path"), node.known("source")
    if not path or is_templated(node.value.get("source")):
        return
    if node.body.version == "2.0" or source == "WORKSPACE" or (source is None and _lacks_git(node)):
        if not path.startswith("/"):
            yield "notebook_path", f"is {quoted(path)}, a relative path"
    elif source == "GIT" and path.startswith("/"):
        yield "notebook_path", f"is {quoted(path)}, an absolute path with source GIT"


@when_given("notebook_path")
def _absolute_in_git(node: Node) -> Faults:
    path = node.text("notebook_path")
    if path and path.startswith("/") and node.body.settings.get("git_source") and not node.given("source"):
        yield "notebook_path", f"is {quoted(path)}, an absolute path in a job or run with git_source"


@when_given("source")
def _source_has_git(node: Node) -> Faults:
    if node.known("source") == "GIT" and _lacks_git(node):
        yield "source", "is GIT without a git_source"


SOURCE = (
    Rule("SOURCE-ENUM", one_of("source", ("WORKSPACE", "GIT"))),
    Rule(
        "SOURCE-GIT-NEEDS-GIT",
        _source_has_git,
        "source GIT requires a git_source",
        "Add git_source to the job or run.",
    ),
)


@when_given()
def _dbt_commands(node: Node) -> Faults:
    commands = node.items("commands")
    if node.lacks("commands"):
        yield "commands", "is missing"
    elif node.known("commands") is not None and not 1 <= len(commands) <= MAX_COMMANDS:
        yield "commands", f"has {len(commands)} entries"
    for index, command in enumerate(commands):
        if isinstance(command, str) and not is_templated(command) and not command.lstrip().startswith("dbt"):
            # The command may contain secrets, so the message does not quote it.
            yield "commands", f"commands[{index}] does not start with dbt"


@when_given("parameters")
def _pipeline_parameters(node: Node) -> Faults:
    length = sum(len(text) for _, text in strings_in(node.known("parameters")))
    if length > MAX_PIPELINE_PARAMETERS:
        yield "parameters", f"has {length:,} characters"


RULES = {
    "NotebookTask": (
        Rule("NB-PATH", required("notebook_path"), remedy="Set the path of the notebook."),
        Rule(
            "NB-PATH-ABSOLUTE",
            _notebook_path,
            "a path in the workspace must start with /, and a path in a Git repository must not",
            "Correct the path or source.",
        ),
        Rule(
            "NB-PATH-ABSOLUTE",
            _absolute_in_git,
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
        Rule("PARAM-BASE-SIZE", json_size("base_parameters", 1024 * 1024), versions=FROM_2_1),
        *string_parameters(maps=("base_parameters",)),
        *SOURCE,
    ),
    "SparkJarTask": (
        *string_parameters(lists=("parameters",)),
        Rule("JAR-MAIN-CLASS", required("main_class_name"), remedy="Set the full name of the class.", warning=True),
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
        Rule("PY-FILE", required("python_file"), remedy="Set the path or URL of the file."),
        *SOURCE,
    ),
    "SparkSubmitTask": (forbidden_arguments("parameters"), *string_parameters(lists=("parameters",))),
    "PythonWheelTask": (
        *string_parameters(maps=("named_parameters",), lists=("parameters",)),
        Rule("WHEEL-REQUIRED", all_required("package_name", "entry_point"), remedy="Set package_name and entry_point."),
        Rule("WHEEL-PARAM-XOR", at_most_one("parameters", "named_parameters")),
    ),
    "PipelineTask": (
        *string_parameters(maps=("parameters",)),
        Rule("PIPELINE-ID", required("pipeline_id"), remedy="Set the id of the pipeline."),
        Rule(
            "PIPELINE-PARAM-SIZE",
            _pipeline_parameters,
            f"at most {MAX_PIPELINE_PARAMETERS:,} characters are allowed, including the names",
            "Pass large data in a file.",
            versions=ONLY_2_2,
        ),
    ),
    "RunJobTask": (
        *string_parameters(maps=("job_parameters", *MAPS), lists=LISTS),
        Rule("RUNJOB-ID", present("job_id"), remedy="Set the id of the job to run."),
        Rule("RUNJOB-ID", positive_id("job_id"), remedy="Set the id of the job to run.", at_run=True),
    ),
    "CleanRoomsNotebookTask": string_parameters(maps=("notebook_base_parameters",)),
    "DbtTask": (
        *string_parameters(lists=("commands",)),
        Rule(
            "DBT-COMMANDS",
            _dbt_commands,
            f"1 to {MAX_COMMANDS} commands are required, and each must start with dbt",
            'Use commands such as "dbt run".',
        ),
        Rule("DBT-CATALOG-SCHEMA", reported_at("", only_with("catalog", "warehouse_id"))),
        Rule("DBT-CATALOG-SCHEMA", only_with("schema", "warehouse_id"), warning=True),
        Rule("DBT-PROFILES", at_most_one("profiles_directory", "warehouse_id")),
        *SOURCE,
    ),
}
