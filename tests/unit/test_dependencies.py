"""What the package imports is installed with it: pyproject.toml declares it, and none of it by way of others."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODULES = {
    "pyyaml": "yaml",
    "apache-airflow": "airflow",
    "azure-identity": "azure",
    "databricks-sdk": "databricks",
    "pyspark-client": "pyspark",
}
# The form of a connection, which only the webserver of Airflow 2 asks for: it is made of these.
OF_AIRFLOW_2 = {"flask_appbuilder", "wtforms"}
# It comes with the OpenLineage provider, which alone uses what is made of it.
OF_OPENLINEAGE = {"openlineage"}
# It comes with pyspark-client, which speaks to a server by it.
OF_SPARK = {"grpc"}
# The extra only says which one pyspark-client may install.
BOUNDED = {"pandas"}


def declared(requirements: list[str]) -> set[str]:
    names = [re.match(r"[\w-]+", requirement)[0] for requirement in requirements]
    return {MODULES.get(name, name.replace("-", "_")) for name in names}


def imported() -> set[str]:
    found: set[str] = set()
    for file in (ROOT / "airflow_dbjobs").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module or "")
    return {name.partition(".")[0] for name in found} - set(sys.stdlib_module_names) - {"airflow_dbjobs"}


class TestDependencies:
    def test_that_are_imported_are_declared(self):
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        extras = project["optional-dependencies"]
        always, by_extra = (
            declared(project["dependencies"]),
            declared(
                [
                    requirement
                    for extra in ("local", "spark", "testing", "aws", "azure", "sdk")
                    for requirement in extras[extra]
                ]
            ),
        )
        assert imported() == (always | by_extra) - BOUNDED | OF_AIRFLOW_2 | OF_OPENLINEAGE | OF_SPARK

    def test_of_the_tested_airflows_are_those_the_readme_names(self):
        files = sorted((ROOT / ".ci").glob("constraints-airflow-*.txt"))
        versions = [re.search(r"^apache-airflow==(.+)$", file.read_text(), re.MULTILINE)[1] for file in files]
        *others, last = versions
        assert f"It is tested on Airflow {', '.join(others)} and {last}," in (ROOT / "README.md").read_text()
        assert all(
            f"the constraints of Airflow {version} " in file.read_text()
            for file, version in zip(files, versions, strict=True)
        )

    def test_include_no_other_provider(self):
        # The constraints of the oldest Airflow 3 pin a common-compat that has little of what newer ones have.
        # OpenLineage's provider is used where it is installed.
        sources = {file: file.read_text() for file in (ROOT / "airflow_dbjobs").rglob("*.py")}
        assert [
            str(file.relative_to(ROOT / "airflow_dbjobs"))
            for file, source in sources.items()
            if re.search(r"import airflow\.providers\.|from airflow\.providers\.", source)
        ] == ["airflow_compat/lineage.py"]
