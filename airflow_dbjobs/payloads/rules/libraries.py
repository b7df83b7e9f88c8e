"""Rules of libraries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_dbjobs.payloads.rules import Rule
from airflow_dbjobs.payloads.rules.forms import exactly_one, of, present

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_dbjobs.payloads.paths import Node
    from airflow_dbjobs.payloads.rules import Fault

KINDS = ("jar", "egg", "whl", "pypi", "maven", "cran", "requirements")


def _zip_of_wheels(node: Node) -> Iterator[Fault]:
    address = node.text("whl")
    if address and address.endswith(".zip") and not address.endswith(".wheelhouse.zip"):
        # An address may hold credentials: it is not quoted.
        yield "whl", "ends in .zip alone"


RULES = {
    "Library": (
        Rule(
            "LIB-ONE-KIND",
            exactly_one(*KINDS),
            f"a library must have exactly one of {', '.join(KINDS)}",
            "Give one, and each other library an entry of its own.",
        ),
        Rule(
            "LIB-WHEELHOUSE",
            of("whl", _zip_of_wheels),
            "the name of a zip of wheels must end in .wheelhouse.zip",
            "Rename the file.",
            warning=True,
        ),
    ),
    "PythonPyPiLibrary": (
        Rule("LIB-PYPI", present("package"), "it is required", "Name the package, as in simplejson==3.8.0."),
    ),
    "MavenLibrary": (
        Rule(
            "LIB-MAVEN",
            present("coordinates"),
            "they are required",
            "Give group:artifact:version, as in org.jsoup:jsoup:1.7.2.",
        ),
    ),
    "RCranLibrary": (Rule("LIB-CRAN", present("package"), "it is required", "Name the package."),),
}
