"""Every example of the documentation runs, every link leads somewhere, and no page grows too long to be read."""

from __future__ import annotations

import configparser
import json
import re
import runpy
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import yaml
from airflow_context import AIRFLOW_V_3_3_PLUS
from documentation import PAGES, ROOT, anchors, commands, examples, links, table, text_of

from airflow_dbjobs.airflow_compat import AIRFLOW_V_3_0_PLUS, conf
from airflow_dbjobs.hooks import DatabricksJobsHook
from airflow_dbjobs.hooks.extra import scheme_of
from airflow_dbjobs.local_workspace.__main__ import _parse
from airflow_dbjobs.provider import get_provider_info
from airflow_dbjobs.runs import failure_cause

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_dbjobs.local_workspace import LocalWorkspace

EXAMPLES = examples()
OPTIONS = get_provider_info()["config"]["databricks_jobs"]["options"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LONGEST = {"README.md": 8000}


def in_language(language: str) -> Any:
    found = [
        pytest.param(example.code, id=example.where)
        for example in EXAMPLES
        # What begins with a file's name is a file of the project that test_documented_answers.py makes.
        if example.language == language and not re.match(r"# \w+\.py\n", example.code)
    ]
    return pytest.mark.parametrize("code", found)


class TestExamples:
    def test_are_in_a_language_that_is_tested(self) -> None:
        known = {"python", "sh", "json", "ini", "yaml", "toml", "text"}
        assert [example.where for example in EXAMPLES if example.language not in known] == []

    @in_language("python")
    def test_in_python_run(
        self, code: str, workspace: LocalWorkspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        if re.search("retry_policy|RetryPolicy", code) and not AIRFLOW_V_3_3_PLUS:
            pytest.skip("Airflow 3.3 introduced retry policies")
        if "AssetWatcher" in code and not AIRFLOW_V_3_0_PLUS:
            pytest.skip("Airflow 3 introduced asset watchers")
        monkeypatch.setattr(workspace, "token", "dapi...")
        connection = {"conn_type": "databricks_jobs", "host": workspace.base_url, "password": workspace.token}
        monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", json.dumps(connection))
        file = tmp_path / "example.py"
        file.write_text(code, encoding="utf-8")
        runpy.run_path(str(file), run_name="example")

    @in_language("json")
    def test_in_json_are_connections_that_authenticate(self, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
        assert_connects(code, monkeypatch)

    @in_language("sh")
    def test_in_shell_name_existing_commands(self, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
        for words in commands(code):
            command, *arguments = words
            CHECKS[command](arguments, monkeypatch)

    @in_language("ini")
    def test_in_ini_set_an_option_of_the_provider(self, code: str) -> None:
        parser = configparser.ConfigParser()
        parser.read_string(code)
        assert set(parser["databricks_jobs"]) <= set(OPTIONS)

    @in_language("yaml")
    def test_in_yaml_are_a_pre_commit_hook(self, code: str) -> None:
        assert_hook(yaml.safe_load(code))


class TestPages:
    @pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
    def test_are_short_enough_to_read(self, page: Any) -> None:
        assert page.stat().st_size <= LONGEST.get(str(page.relative_to(ROOT)), 15_000)

    @pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
    def test_have_links_that_work(self, page: Any) -> None:
        broken = []
        for link in links(page):
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            is_web = urlsplit(link).scheme == "https"
            if not is_web and not (target.exists() and (not anchor or anchor in anchors(target))):
                broken.append(link)
        assert broken == []

    def test_are_all_in_the_indexes(self) -> None:
        names = {page.stem for page in PAGES if page.parent != ROOT} - {"README"}
        assert {link.partition(".md")[0].removeprefix("docs/") for link in links(ROOT / "README.md")} >= names
        assert {link.partition(".md")[0] for link in links(ROOT / "docs" / "README.md")} >= names

    def test_list_the_termination_codes(self) -> None:
        rows = table("errors-and-retries", "Class | Termination codes")
        listed = {code: kind.strip("`") for kind, codes in rows for code in re.findall(r"`(\w+)`", codes)}
        assert listed == {code: kind.__name__ for code, kind in failure_cause._BY_CODE.items()}


class TestRepository:
    def test_has_the_hook_that_contributing_names(self) -> None:
        config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
        assert assert_hook(config["repos"]) == "make check"
        assert "lets `make check` run before each commit" in text_of("CONTRIBUTING")

    def test_has_a_hook_that_needs_nothing_but_what_it_installs(self) -> None:
        (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
        flag, *packages = hook["additional_dependencies"]
        assert flag == "--no-deps"
        assert set(packages) < set(PROJECT["dependencies"])
        others = {
            re.split("[>=]", name)[0].removeprefix("apache-") for name in set(PROJECT["dependencies"]) - set(packages)
        }
        python, *arguments = [*hook["entry"].split(), *hook["args"]]
        assert (python, *arguments) == ("python", "-m", "airflow_dbjobs.payloads", "--bundles-only")
        code = (
            f"import runpy, sys; sys.modules |= dict.fromkeys({sorted(others)!r});"
            f" runpy.run_module({arguments[1]!r}, run_name='__main__')"
        )
        bundle = "example_dags/workspace/databricks.yml"
        assert re.search(hook["files"], bundle)
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments[2:], bundle],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == "No mistakes. Jobs and other payloads checked: 3.\n"

    @pytest.mark.parametrize(("page", "heading"), [("CONTRIBUTING", "You look for"), ("architecture", "Room | Job")])
    def test_has_the_package_contents_that_the_pages_name(self, page: str, heading: str) -> None:
        named = {name for row in table(page, heading) for name in re.findall(r"`([\w/.]+)`", " ".join(row[:2]))}
        paths = {name for name in named if name.endswith(("/", ".py")) and not name.startswith("tests/")}
        assert paths
        assert {path for path in paths if not (ROOT / "airflow_dbjobs" / path).exists()} == set()


def assert_connects(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check that Airflow and the hook read a connection, and that it has no field without effect."""
    monkeypatch.setenv("AIRFLOW_CONN_OF_AN_EXAMPLE", value)
    hook = DatabricksJobsHook("of_an_example")
    connection = hook.get_connection("of_an_example")
    assert connection.conn_type == "databricks_jobs"
    assert scheme_of(connection.login, connection.password, connection.extra_dejson)
    with pytest.MonkeyPatch.context() as patch:
        warnings: list[str] = []
        patch.setattr(DatabricksJobsHook, "_warn_once", lambda _, text: warnings.append(text))
        hook.get_conn().close()
    assert warnings == []


def assert_export(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (assignment,) = arguments
    name, _, value = assignment.partition("=")
    if name.startswith("AIRFLOW_CONN_"):
        assert_connects(value, monkeypatch)
    elif name != "AIRFLOW_HOME":
        _, section, option = name.lower().split("__")
        assert conf.has_option(section, option)


def assert_airflow(arguments: list[str], _: object) -> None:
    from airflow.cli.cli_parser import get_parser

    assert get_parser().parse_args(arguments).func


def assert_make(arguments: list[str], _: object) -> None:
    target, *_variables = arguments
    assert re.search(rf"^{re.escape(target)}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def assert_pip(arguments: list[str], _: object) -> None:
    if "--constraint" in arguments:
        where = arguments.index("--constraint")
        assert (ROOT / arguments[where + 1]).is_file()
        arguments = arguments[:where] + arguments[where + 2 :]
    packages = [word for word in arguments[1:] if not word.startswith("-")]
    if len(packages) > 1:
        # The tests without Airflow run with these alone.
        assert " ".join(packages) in (ROOT / "Makefile").read_text(encoding="utf-8")
        return
    (package,) = packages
    extras = set(package.removeprefix(".").strip("[]").split(",")) - {""}
    assert extras <= set(PROJECT["optional-dependencies"])


def assert_python_module(arguments: list[str], _: object) -> None:
    flag, module, *options = arguments
    assert flag == "-m"
    if module in ("venv", "pytest"):
        return
    if module == "airflow_dbjobs.local_workspace":
        assert _parse(options).root
    else:
        assert module == "airflow_dbjobs.payloads"
        help_text = text_of("payloads")
        assert all(option in help_text for option in options)


# Imports of the official provider, as DAG files have them, and what migrating.md makes of them.
OFFICIAL_IMPORTS = """
from airflow.providers.databricks.operators.databricks import DatabricksSubmitRunOperator, XCOM_RUN_ID_KEY
from airflow.providers.databricks.operators.databricks_workflow import (
    DatabricksWorkflowTaskGroup,
)
import airflow.providers.databricks.operators.databricks as official
from airflow.providers.databricks.operators.databricks_sql import DatabricksSqlOperator
from airflow.providers.databricks.hooks.databricks import DatabricksHook
"""
CHANGED_IMPORTS = """
from airflow_dbjobs.operators import DatabricksSubmitRunOperator, XCOM_RUN_ID_KEY
from airflow_dbjobs.operators import (
    DatabricksWorkflowTaskGroup,
)
import airflow_dbjobs.operators as official
from airflow.providers.databricks.operators.databricks_sql import DatabricksSqlOperator
from airflow.providers.databricks.hooks.databricks import DatabricksHook
"""


def assert_sed(arguments: list[str], _: object) -> None:
    *options, script, files = arguments
    assert (options, files) == (["-i", "-E"], "dags/*.py")
    done = subprocess.run(["sed", "-E", script], input=OFFICIAL_IMPORTS, capture_output=True, text=True, check=True)
    assert done.stdout == CHANGED_IMPORTS


def assert_grep(arguments: list[str], _: object) -> None:
    *options, pattern, files = arguments
    assert (options, files) == (["-n", "-E"], "dags/*.py")
    assert len(re.findall(pattern, CHANGED_IMPORTS)) == 2


def assert_hook(repositories: list[dict[str, Any]]) -> str:
    """Return what the only hook runs."""
    (repository,) = repositories
    (hook,) = repository["hooks"]
    if repository["repo"] != "local":
        assert repository["rev"]
        (published,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
        hook = {**published, **hook}
        assert (hook["id"], hook["language"]) == (published["id"], "python")
    else:
        assert hook["language"] == "system"
    command, *arguments = hook["entry"].split()
    CHECKS[command](arguments, None)
    return str(hook["entry"])


def assert_activation(arguments: list[str], _: object) -> None:
    (script,) = arguments
    assert re.fullmatch(r"\.venv[\w-]*/bin/activate", script)


def assert_file(arguments: list[str], _: object) -> None:
    assert arguments == []
    assert (ROOT / ".ci" / "run").is_file()


CHECKS = {
    "export": assert_export,
    "airflow": assert_airflow,
    "make": assert_make,
    "pip": assert_pip,
    "python": assert_python_module,
    "python3": assert_python_module,
    ".": assert_activation,
    ".ci/run": assert_file,
    "grep": assert_grep,
    "sed": assert_sed,
}
