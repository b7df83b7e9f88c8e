"""Rules for Git repositories, environments and environment variables."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from airflow_dbjobs.payloads.rules import Rule
from airflow_dbjobs.payloads.rules.checks import (
    all_of,
    at_most_one,
    max_entries,
    max_length,
    one_of,
    quoted,
    reported_at,
    required,
    when_given,
)
from airflow_dbjobs.payloads.templates import is_templated
from airflow_dbjobs.payloads.types.enums import GitProvider

if TYPE_CHECKING:
    from airflow_dbjobs.payloads.paths import Node
    from airflow_dbjobs.payloads.rules import Faults

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")
MAX_VARIABLE = 512


@when_given("variables")
def _names(node: Node) -> Faults:
    for name in node.mapping("variables"):
        if not _VARIABLE.fullmatch(str(name)):
            yield f"variables.{name}", f"has the name {quoted(name)}"


@when_given("variables")
def _values(node: Node) -> Faults:
    for name, value in node.mapping("variables").items():
        # The value may be a secret, so the message does not quote it.
        if isinstance(value, str) and not is_templated(value) and len(value) > MAX_VARIABLE:
            yield f"variables.{name}", f"has {len(value)} characters"


@when_given("files")
def _files(node: Node) -> Faults:
    for index, path in enumerate(node.items("files")):
        if isinstance(path, str) and not is_templated(path) and not path.startswith(("/Workspace", "/Volumes")):
            yield f"files[{index}]", f"is {quoted(path)}"


RULES = {
    "GitSource": (
        Rule(
            "GIT-URL", all_of(required("git_url"), max_length("git_url", 300)), remedy="Set the URL of the repository."
        ),
        Rule("GIT-PROVIDER", all_of(required("git_provider"), one_of("git_provider", GitProvider, any_case=True))),
        Rule("GIT-ONE-REF", at_most_one("git_branch", "git_tag", "git_commit")),
    ),
    "JobEnvironment": (Rule("ENV-KEY-UNIQUE", required("environment_key"), remedy="Set a key for the environment."),),
    "JobEnvironmentVariablesSpec": (
        Rule("ENVVAR-COUNT", max_entries("variables", 20), remedy="Use several entries or a file."),
        Rule(
            "ENVVAR-KEY",
            _names,
            "a name must have 1 to 256 letters, digits and _, and must not start with a digit",
            "Use another name.",
        ),
        Rule("ENVVAR-VALUE", _values, f"at most {MAX_VARIABLE} characters are allowed", "Use a file or a secret."),
        Rule(
            "ENVVAR-FILES",
            reported_at("files", all_of(max_entries("files", 5), _files)),
            "at most 5 files under /Workspace or /Volumes are allowed",
            "Move or merge the files.",
        ),
    ),
}
