"""Rules of repositories, environments and environment variables."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from airflow_dbjobs.payloads.rules import FROM_2_1, ONLY_2_2, Rule
from airflow_dbjobs.payloads.rules.forms import any_of, at, at_most_one, longest, most, of, one_of, present, shown
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
            yield f"variables.{name}", f"is named {shown(name)}"


def _values(node: Node) -> Iterator[Fault]:
    for name, value in node.mapping("variables").items():
        # A value may be a secret: it is not quoted.
        if isinstance(value, str) and not is_templated(value) and len(value) > MAX_VARIABLE:
            yield f"variables.{name}", f"has {len(value)} characters"


def _files(node: Node) -> Iterator[Fault]:
    for index, path in enumerate(node.items("files")):
        if isinstance(path, str) and not is_templated(path) and not path.startswith(("/Workspace", "/Volumes")):
            yield f"files[{index}]", f"is {shown(path)}"


RULES = {
    "GitSource": (
        Rule(
            "GIT-URL",
            any_of(present("git_url"), longest("git_url", 300)),
            "it is required, and at most 300 characters are allowed",
            "Give the repository's address.",
            versions=FROM_2_1,
        ),
        Rule(
            "GIT-PROVIDER",
            any_of(present("git_provider"), one_of("git_provider", GitProvider, any_case=True)),
            f"it is required, and must be one of {', '.join(GitProvider)}",
            "Give one of these.",
            versions=FROM_2_1,
        ),
        Rule(
            "GIT-ONE-REF",
            at_most_one("git_branch", "git_tag", "git_commit"),
            "at most one of git_branch, git_tag and git_commit is allowed",
            "Leave all but one out.",
            versions=FROM_2_1,
        ),
        Rule(
            "GIT-BRANCH-LEN",
            longest("git_branch", 255),
            "at most 255 are allowed",
            "Check the branch.",
            versions=FROM_2_1,
            # Known, as the next two are, from clients that were generated from the 2.1 document.
            warning=True,
        ),
        Rule(
            "GIT-TAG-LEN",
            longest("git_tag", 255),
            "at most 255 are allowed",
            "Check the tag.",
            versions=FROM_2_1,
            warning=True,
        ),
        Rule(
            "GIT-COMMIT-LEN",
            longest("git_commit", 64),
            "at most 64 are allowed",
            "Check the commit.",
            versions=FROM_2_1,
            warning=True,
        ),
    ),
    "JobEnvironment": (
        Rule(
            "ENV-KEY-UNIQUE",
            present("environment_key"),
            "it is required",
            "Give the environment a name.",
            versions=FROM_2_1,
        ),
    ),
    "JobEnvironmentVariablesSpec": (
        Rule(
            "ENVVAR-COUNT",
            most("variables", 20),
            "at most 20 are allowed",
            "Use several entries, or a file.",
            versions=ONLY_2_2,
        ),
        Rule(
            "ENVVAR-KEY",
            of("variables", _names),
            "a name must have 1 to 256 letters, digits and _, and not start with a digit",
            "Choose another name.",
            versions=ONLY_2_2,
        ),
        Rule(
            "ENVVAR-VALUE",
            of("variables", _values),
            "at most 512 are allowed",
            "Use a file, or a secret.",
            versions=ONLY_2_2,
        ),
        Rule(
            "ENVVAR-FILES",
            at("files", any_of(most("files", 5), _files)),
            "at most 5 files under /Workspace or /Volumes are allowed",
            "Move or merge the files.",
            versions=ONLY_2_2,
        ),
    ),
}
