"""Rules for Git repositories, environments and environment variables."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from airflow_dbjobs.payloads.rules import FROM_2_1, ONLY_2_2, Rule
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
    from collections.abc import Iterator

    from airflow_dbjobs.payloads.paths import Node
    from airflow_dbjobs.payloads.rules import Fault

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")
MAX_VARIABLE = 512


def _names(node: Node) -> Iterator[Fault]:
    for name in node.mapping("variables"):
        if not _VARIABLE.fullmatch(str(name)):
            yield f"variables.{name}", f"has the name {quoted(name)}"


def _values(node: Node) -> Iterator[Fault]:
    for name, value in node.mapping("variables").items():
        # The value may be a secret, so the message does not quote it.
        if isinstance(value, str) and not is_templated(value) and len(value) > MAX_VARIABLE:
            yield f"variables.{name}", f"has {len(value)} characters"


def _files(node: Node) -> Iterator[Fault]:
    for index, path in enumerate(node.items("files")):
        if isinstance(path, str) and not is_templated(path) and not path.startswith(("/Workspace", "/Volumes")):
            yield f"files[{index}]", f"is {quoted(path)}"


RULES = {
    "GitSource": (
        Rule(
            "GIT-URL",
            all_of(required("git_url"), max_length("git_url", 300)),
            "it is required, and at most 300 characters are allowed",
            "Set the URL of the repository.",
            versions=FROM_2_1,
        ),
        Rule(
            "GIT-PROVIDER",
            all_of(required("git_provider"), one_of("git_provider", GitProvider, any_case=True)),
            f"it is required, and must be one of {', '.join(GitProvider)}",
            "Use one of these.",
            versions=FROM_2_1,
        ),
        Rule(
            "GIT-ONE-REF",
            at_most_one("git_branch", "git_tag", "git_commit"),
            "at most one of git_branch, git_tag and git_commit is allowed",
            "Keep only one.",
            versions=FROM_2_1,
        ),
        Rule(
            "GIT-BRANCH-LEN",
            max_length("git_branch", 255),
            "at most 255 characters are allowed",
            "Correct the branch.",
            versions=FROM_2_1,
            # Source, also of the next two: clients generated from the OpenAPI document of 2.1.
            warning=True,
        ),
        Rule(
            "GIT-TAG-LEN",
            max_length("git_tag", 255),
            "at most 255 characters are allowed",
            "Correct the tag.",
            versions=FROM_2_1,
            warning=True,
        ),
        Rule(
            "GIT-COMMIT-LEN",
            max_length("git_commit", 64),
            "at most 64 characters are allowed",
            "Correct the commit.",
            versions=FROM_2_1,
            warning=True,
        ),
    ),
    "JobEnvironment": (
        Rule(
            "ENV-KEY-UNIQUE",
            required("environment_key"),
            "it is required",
            "Set a key for the environment.",
            versions=FROM_2_1,
        ),
    ),
    "JobEnvironmentVariablesSpec": (
        Rule(
            "ENVVAR-COUNT",
            max_entries("variables", 20),
            "at most 20 entries are allowed",
            "Use several entries or a file.",
            versions=ONLY_2_2,
        ),
        Rule(
            "ENVVAR-KEY",
            when_given("variables", _names),
            "a name must have 1 to 256 letters, digits and _, and must not start with a digit",
            "Use another name.",
            versions=ONLY_2_2,
        ),
        Rule(
            "ENVVAR-VALUE",
            when_given("variables", _values),
            "at most 512 characters are allowed",
            "Use a file or a secret.",
            versions=ONLY_2_2,
        ),
        Rule(
            "ENVVAR-FILES",
            reported_at("files", all_of(max_entries("files", 5), _files)),
            "at most 5 files under /Workspace or /Volumes are allowed",
            "Move or merge the files.",
            versions=ONLY_2_2,
        ),
    ),
}
