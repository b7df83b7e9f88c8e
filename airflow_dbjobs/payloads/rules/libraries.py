"""Rules for libraries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_dbjobs.payloads.rules import Rule
from airflow_dbjobs.payloads.rules.checks import exactly_one, required, when_given

if TYPE_CHECKING:
    from airflow_dbjobs.payloads.paths import Node
    from airflow_dbjobs.payloads.rules import Faults

KINDS = ("jar", "egg", "whl", "pypi", "maven", "cran", "requirements")


@when_given("whl")
def _zip_of_wheels(node: Node) -> Faults:
    address = node.text("whl")
    if address and address.endswith(".zip") and not address.endswith(".wheelhouse.zip"):
        # A URL may contain credentials, so the message does not quote it.
        yield "whl", "ends in .zip"


RULES = {
    "Library": (
        Rule("LIB-ONE-KIND", exactly_one(*KINDS), remedy="Use a separate entry for each library."),
        Rule(
            "LIB-WHEELHOUSE",
            _zip_of_wheels,
            "the name of a ZIP file of wheels must end in .wheelhouse.zip",
            "Rename the file.",
            warning=True,
        ),
    ),
    "PythonPyPiLibrary": (Rule("LIB-PYPI", required("package"), remedy="Set the package, such as simplejson==3.8.0."),),
    "MavenLibrary": (
        Rule("LIB-MAVEN", required("coordinates"), remedy="Set group:artifact:version, such as org.jsoup:jsoup:1.7.2."),
    ),
    "RCranLibrary": (Rule("LIB-CRAN", required("package"), remedy="Set the package."),),
}
