"""Rules for the parameters of jobs and runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_dbjobs.payloads.rules import FROM_2_1, ONLY_2_0, Rule
from airflow_dbjobs.payloads.rules.checks import (
    STRING_MAP,
    STRINGS,
    ascii_only,
    at_most_one,
    joined,
    json_size,
    matches,
    of_type,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_dbjobs.payloads.paths import Node
    from airflow_dbjobs.payloads.rules import Fault

OVERRIDES = ("run-now", "runs/repair")
MAX_BYTES = 10_000
LISTS = ("jar_params", "python_params", "spark_submit_params", "dbt_commands")
MAPS = ("notebook_params", "sql_params", "python_named_params")
SIZED = {
    "PARAM-SIZE-JAR-PARAMS": "jar_params",
    "PARAM-SIZE-NOTEBOOK-PARAMS": "notebook_params",
    "PARAM-SIZE-PYTHON-PARAMS": "python_params",
    "PARAM-SIZE-SPARK-SUBMIT-PARAMS": "spark_submit_params",
}
SET_BY_DATABRICKS = ("--master", "--deploy-mode", "--executor-cores")


def forbidden_arguments(field: str) -> Rule:
    """Return the rule against spark-submit arguments that Databricks sets."""

    def check(node: Node) -> Iterator[Fault]:
        for index, argument in enumerate(node.items(field)):
            if isinstance(argument, str) and argument.partition("=")[0] in SET_BY_DATABRICKS:
                yield f"{field}[{index}]", f"is {argument.partition('=')[0]}"

    return Rule(
        "SUBMIT-FORBIDDEN-ARGS",
        check,
        f"Databricks sets {joined(SET_BY_DATABRICKS)}",
        "Remove the argument.",
        warning=True,
    )


def string_parameters(
    *, maps: tuple[str, ...] = (), lists: tuple[str, ...] = (), endpoints: tuple[str, ...] = ()
) -> tuple[Rule, ...]:
    """Return the rules that require strings as parameters in these fields."""
    return tuple(
        Rule(
            rule,
            of_type(name, expected),
            f"parameters must be {expected.allowed}",
            f"Use {expected.allowed.partition(' of')[0]}, and write each value as a string.",
            endpoints=endpoints,
        )
        for rule, expected, names in (
            ("PARAM-MAP-VALUES", STRING_MAP, maps),
            ("PARAM-LIST-VALUES", STRINGS, lists),
        )
        for name in names
    )


def _job_or_task(node: Node) -> Iterator[Fault]:
    others = [name for name in (*LISTS, *MAPS, "pipeline_params") if node.filled(name)]
    if node.filled("job_parameters") and others:
        yield "", f"has job_parameters and {joined(others)}"


def _name_and_default(node: Node) -> Iterator[Fault]:
    if node.empty("name"):
        yield "", "name is missing"
    if node.lacks("default"):
        yield "", "default is missing"


JOB_PARAMETERS = (
    *string_parameters(maps=("job_parameters",), endpoints=OVERRIDES),
    Rule(
        "PARAM-JOB-XOR-TASK",
        _job_or_task,
        "a run accepts parameters of the job or of its tasks, not both",
        "Use job_parameters only.",
        versions=FROM_2_1,
        endpoints=OVERRIDES,
        # Source: error messages that other clients received; the reference does not mention it.
        warning=True,
    ),
)

RULES = {
    "RunParameters": (
        *(
            Rule(
                rule,
                json_size(field, MAX_BYTES, wrapped=True),
                f"at most {MAX_BYTES:,} bytes are allowed, including the name of the field",
                "Pass large data in a file.",
                endpoints=OVERRIDES,
            )
            for rule, field in SIZED.items()
        ),
        Rule(
            "PARAM-ASCII-PYTHON-PARAMS",
            ascii_only("python_params"),
            "parameters of Python tasks must be ASCII",
            "Encode the value, or pass it in a file.",
            endpoints=OVERRIDES,
        ),
        Rule(
            "PARAM-ASCII-SPARK-SUBMIT-PARAMS",
            ascii_only("spark_submit_params"),
            "parameters of spark-submit must be ASCII",
            "Encode the value, or pass it in a file.",
            endpoints=OVERRIDES,
        ),
        Rule(
            "PARAM-ASCII-NOTEBOOK-PARAMS",
            ascii_only("notebook_params"),
            "API 2.0 accepts only ASCII parameters for notebooks",
            "Encode the value, or use API 2.1 or later.",
            versions=ONLY_2_0,
            endpoints=OVERRIDES,
        ),
        Rule(
            "PARAM-JAR-XOR-NOTEBOOK",
            at_most_one("jar_params", "notebook_params"),
            "the two are mutually exclusive",
            "Remove one.",
            endpoints=OVERRIDES,
        ),
        Rule(
            "PARAM-ONE-KIND-2_0",
            at_most_one("jar_params", "notebook_params", "python_params", "spark_submit_params"),
            "a job of API 2.0 has a single task, which uses only one of them",
            "Remove the others.",
            versions=ONLY_2_0,
            endpoints=("run-now",),
            warning=True,
        ),
        *string_parameters(maps=MAPS, lists=LISTS, endpoints=OVERRIDES),
        forbidden_arguments("spark_submit_params"),
    ),
    "JobParameterDefinition": (
        Rule(
            "PARAM-NAME-CHARSET",
            matches("name", r"[A-Za-z0-9_.-]+"),
            "a name can only have letters, digits, dots, underscores and hyphens",
            "Use another name.",
            versions=FROM_2_1,
        ),
        Rule(
            "PARAM-NAME-DEFAULT",
            _name_and_default,
            "a parameter must have a name and a default",
            "Set both; the default may be empty.",
            versions=FROM_2_1,
        ),
    ),
}
