"""Rules for libraries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_dbjobs.payloads.rules import Rule
from airflow_dbjobs.payloads.rules.checks import exactly_one, required, when_given

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_dbjobs.payloads.paths import Node
    from airflow_dbjobs.payloads.rules import Fault

KINDS = ("jar", "egg", "whl", "pypi", "maven", "cran", "requirements")


def _zip_of_wheels(node: Node) -> Iterator[Fault]:
    address = node.text("whl")
    if address and address.endswith(".zip") and not address.endswith(".wheelhouse.zip"):
        # A URL may contain credentials, so the message does not quote it.
        yield "whl", "ends in .zip"


RULES = {
    "Library": (
        Rule(
            "LIB-ONE-KIND",
            exactly_one(*KINDS),
            f"a library must have exactly one of {', '.join(KINDS)}",
            "Use a separate entry for each library.",
        ),
        Rule(
            "LIB-WHEELHOUSE",
            when_given("whl", _zip_of_wheels),
            "the name of a ZIP file of wheels must end in .wheelhouse.zip",
            "Rename the file.",
            warning=True,
        ),
    ),
    "PythonPyPiLibrary": (
        Rule("LIB-PYPI", required("package"), "it is required", "Set the package, such as simplejson==3.8.0."),
    ),
    "MavenLibrary": (
        Rule(
            "LIB-MAVEN",
            required("coordinates"),
            "it is required",
            "Set group:artifact:version, such as org.jsoup:jsoup:1.7.2.",
        ),
    ),
    "RCranLibrary": (Rule("LIB-CRAN", required("package"), "it is required", "Set the package."),),
}
