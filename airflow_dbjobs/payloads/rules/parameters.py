"""Rules for the parameters of jobs and runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_dbjobs.payloads.rules import ONLY_2_0, Rule
from airflow_dbjobs.payloads.rules.checks import (
    STRING_MAP,
    STRINGS,
    all_required,
    ascii_only,
    at_most_one,
    joined,
    json_size,
    matches,
    of_type,
    when_given,
)

if TYPE_CHECKING:
    from airflow_dbjobs.payloads.paths import Node
    from airflow_dbjobs.payloads.rules import Faults

MAX_BYTES = 10_000
LISTS = ("jar_params", "python_params", "spark_submit_params", "dbt_commands")
MAPS = ("notebook_params", "sql_params", "python_named_params")
SIZED = ("jar_params", "notebook_params", "python_params", "spark_submit_params")
SET_BY_DATABRICKS = ("--master", "--deploy-mode", "--executor-cores")


def forbidden_arguments(field: str) -> Rule:
    """Return the rule against spark-submit arguments that Databricks sets."""

    @when_given(field, allowed=f"Databricks sets {joined(SET_BY_DATABRICKS)}", remedy="Remove the argument.")
    def check(node: Node) -> Faults:
        for index, argument in enumerate(node.items(field)):
            if isinstance(argument, str) and argument.partition("=")[0] in SET_BY_DATABRICKS:
                yield f"{field}[{index}]", f"is {argument.partition('=')[0]}"

    return Rule("SUBMIT-FORBIDDEN-ARGS", check, warning=True)


def string_parameters(*, maps: tuple[str, ...] = (), lists: tuple[str, ...] = ()) -> tuple[Rule, ...]:
    """Return the rules that require strings as parameters in these fields."""
    return tuple(
        Rule(
            rule,
            of_type(name, expected),
            f"parameters must be {expected.allowed}",
            f"Use {expected.allowed.partition(' of')[0]}, and write each value as a string.",
        )
        for rule, expected, names in (
            ("PARAM-MAP-VALUES", STRING_MAP, maps),
            ("PARAM-LIST-VALUES", STRINGS, lists),
        )
        for name in names
    )


@when_given("job_parameters")
def _job_or_task(node: Node) -> Faults:
    others = [name for name in (*LISTS, *MAPS, "pipeline_params") if node.filled(name)]
    if node.filled("job_parameters") and others:
        yield "", f"has job_parameters and {joined(others)}"


@when_given()
def _name_and_default(node: Node) -> Faults:
    yield from all_required("name")(node)
    yield from all_required("default", may_be_empty=True)(node)


JOB_PARAMETERS = (
    *string_parameters(maps=("job_parameters",)),
    # Source of the warning: error messages that other clients received; the reference does not mention it.
    Rule(
        "PARAM-JOB-XOR-TASK",
        _job_or_task,
        "a run accepts parameters of the job or of its tasks, not both",
        "Use job_parameters only.",
        warning=True,
    ),
)

RULES = {
    "RunParameters": (
        *(
            Rule(f"PARAM-SIZE-{field.upper().replace('_', '-')}", json_size(field, MAX_BYTES, wrapped=True))
            for field in SIZED
        ),
        Rule("PARAM-ASCII-PYTHON-PARAMS", ascii_only("python_params")),
        Rule("PARAM-ASCII-SPARK-SUBMIT-PARAMS", ascii_only("spark_submit_params")),
        Rule(
            "PARAM-ASCII-NOTEBOOK-PARAMS",
            ascii_only("notebook_params"),
            "API 2.0 accepts only ASCII parameters for notebooks",
            "Encode the value, or use API 2.1 or later.",
            versions=ONLY_2_0,
        ),
        Rule("PARAM-JAR-XOR-NOTEBOOK", at_most_one("jar_params", "notebook_params")),
        *string_parameters(maps=MAPS, lists=LISTS),
        forbidden_arguments("spark_submit_params"),
    ),
    "JobParameterDefinition": (
        Rule(
            "PARAM-NAME-CHARSET",
            matches("name", r"[A-Za-z0-9_.-]+"),
            "a name can only have letters, digits, dots, underscores and hyphens",
        ),
        Rule(
            "PARAM-NAME-DEFAULT",
            _name_and_default,
            "a parameter must have a name and a default",
            "Set both; the default may be empty.",
        ),
    ),
}
