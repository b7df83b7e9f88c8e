"""Tasks that run something else than a notebook or a Python file, and values that tasks pass on."""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from .support import Client, condition, results
from .wheels import build_wheel

if TYPE_CHECKING:
    from pathlib import Path

ETL = """
import sys

def main():
    print(sys.argv)

def fail():
    raise ValueError("no rows")

def leave():
    sys.exit(3)

def count():
    from databricks.sdk.runtime import dbutils
    dbutils.jobs.taskValues.set("rows", 3)
"""


def wheel_task(entry_point: str = "main", **fields: object) -> dict[str, object]:
    return {"python_wheel_task": {"package_name": "etl", "entry_point": entry_point, **fields}}


@pytest.fixture
def etl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a package for the programs of tasks."""
    wheel = build_wheel(
        tmp_path,
        "etl",
        ETL,
        entry_points="[console_scripts]\nrun-etl = etl:main\n\n[databricks]\nnightly = etl:main\n",
    )
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "packages")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"), prepend=":")


@pytest.mark.usefixtures("etl")
class TestWheel:
    def logs(self, client: Client, task: dict[str, object], **launch: object) -> str:
        job_id = client.post("create", name="job", **task)["job_id"]
        run = client.wait_for(client.post("run-now", job_id=job_id, **launch)["run_id"])
        assert run["state"]["result_state"] == "SUCCESS", run["state"]
        logs: str = client.output(run)["logs"]
        return logs

    @pytest.mark.parametrize("entry_point", ["run-etl", "nightly", "main"])
    def test_runs_the_named_entry_point_or_else_the_function(self, client: Client, entry_point: str) -> None:
        assert self.logs(client, wheel_task(entry_point)) == "['etl']\n"

    def test_gets_its_parameters(self, client: Client) -> None:
        assert self.logs(client, wheel_task(parameters=["a", "b c"])) == "['etl', 'a', 'b c']\n"

    def test_parameters_of_run_now_replace_its_own(self, client: Client) -> None:
        assert self.logs(client, wheel_task(parameters=["a"]), python_params=["b"]) == "['etl', 'b']\n"

    def test_named_parameters_become_options(self, client: Client) -> None:
        task = wheel_task(named_parameters={"day": "monday", "rows": "1"})
        logs = self.logs(client, task, python_named_params={"rows": "2"})
        assert logs == "['etl', '--day=monday', '--rows=2']\n"

    def test_job_parameters_are_added_to_named_ones(self, client: Client) -> None:
        task = wheel_task(named_parameters={"day": "monday"})
        job = {"tasks": [{"task_key": "etl", **task}], "parameters": [{"name": "region", "default": "eu"}]}
        run = client.wait_for(client.post("run-now", job_id=client.post("create", **job)["job_id"])["run_id"])
        assert client.output(run)["logs"] == "['etl', '--day=monday', '--region=eu']\n"

    def test_error_has_the_users_frames_only(self, client: Client) -> None:
        run = client.finish(**wheel_task("fail"))
        assert run["state"]["result_state"] == "FAILED"
        output = client.output(run)
        assert output["error"] == "ValueError: no rows"
        assert "etl.py" in output["error_trace"]
        assert "package.py" not in output["error_trace"]

    def test_has_the_modules_of_the_runtime(self, client: Client) -> None:
        show = {"package_name": "etl", "entry_point": "main", "parameters": ["{{tasks.count.values.rows}}"]}
        tasks = [
            {"task_key": "count", **wheel_task("count")},
            {"task_key": "show", "python_wheel_task": show, "depends_on": [{"task_key": "count"}]},
        ]
        assert client.output(client.finish(tasks=tasks), "show")["logs"] == "['etl', '3']\n"

    def test_exit_code_is_its_result(self, client: Client) -> None:
        run = client.finish(**wheel_task("leave"))
        assert client.output(run)["error"] == "SystemExit: the program exited with code 3"

    def test_missing_package_is_named(self, client: Client) -> None:
        run = client.finish(python_wheel_task={"package_name": "my-etl", "entry_point": "main"})
        assert run["state"]["life_cycle_state"] == "TERMINATED"
        assert client.output(run)["error"] == (
            "ModuleNotFoundError: There is no package 'my-etl' here; name its wheel in the task's libraries."
        )

    def test_missing_entry_point_is_named(self, client: Client) -> None:
        output = client.output(client.finish(**wheel_task("absent")))
        assert output["error"] == "AttributeError: module 'etl' has no attribute 'absent'"

    def test_field_is_required(self, client: Client) -> None:
        error = client.refused("POST", "runs/submit", {"python_wheel_task": {"package_name": "etl"}})
        assert "'python_wheel_task.entry_point' is missing" in error["message"]


FAKE_DBT = """\
#!/bin/sh
place="$(basename "$PWD") with ${DBT_PROFILES_DIR:-no profiles}"
echo "dbt $* in $place ${DBT_CATALOG:-} ${DBT_SCHEMA:-}, colors: $DBT_USE_COLORS"
[ "$1" != test ]
"""


@pytest.fixture
def dbt(tmp_path: Path, write, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a program called dbt on the PATH, and a project into the workspace; return the root."""
    binaries = tmp_path / "bin"
    binaries.mkdir()
    (binaries / "dbt").write_text(FAKE_DBT)
    (binaries / "dbt").chmod(0o755)
    monkeypatch.setenv("PATH", str(binaries), prepend=":")
    write("shop/dbt_project.yml", "name: shop")
    write("shop/local/profiles.yml", "shop: {}")
    return tmp_path / "root"


def log_of(root: Path, run: dict[str, Any]) -> str:
    """Return the log of the only task of a run, which runs/get-output shows for some types only."""
    return (root / ".airflow_dbjobs" / "runs" / str(run["tasks"][0]["run_id"]) / "log.txt").read_text()


class TestDbt:
    def test_runs_the_commands_in_order_in_the_project(self, client: Client, dbt: Path) -> None:
        commands = ["dbt deps", "dbt run --select 'a b'"]
        task = {"commands": commands, "project_directory": "/shop", "schema": "sales", "catalog": "main"}
        run = client.finish(dbt_task={**task, "profiles_directory": "local"})
        assert run["state"]["result_state"] == "SUCCESS"
        seen = f"in shop with {dbt / 'shop' / 'local'} main sales, colors: false"
        assert log_of(dbt, run).splitlines() == [
            "$ dbt deps",
            f"dbt deps {seen}",
            "$ dbt run --select 'a b'",
            f"dbt run --select a b {seen}",
        ]

    def test_stops_at_the_first_command_that_fails(self, client: Client, dbt: Path) -> None:
        run = client.finish(dbt_task={"commands": ["dbt test", "dbt run"], "project_directory": "shop"})
        assert run["state"]["result_state"] == "FAILED"
        assert client.output(run)["error"] == "SystemExit: `dbt test` ended with code 1"
        assert "dbt run" not in log_of(dbt, run)

    def test_gets_its_variables_and_the_commands_of_run_now(
        self, client: Client, dbt: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DBT_PROFILES_DIR", "/theirs")
        job = {"name": "job", "dbt_task": {"commands": ["dbt run"], "project_directory": "shop"}}
        job_id = client.post("create", **job)["job_id"]
        run = client.wait_for(client.post("run-now", job_id=job_id, dbt_commands=["dbt seed"])["run_id"])
        assert log_of(dbt, run).startswith("$ dbt seed\ndbt seed in shop with /theirs")

    def test_without_dbt_is_an_internal_error(
        self, client: Client, write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        write("dbt_project.yml", "name: shop")
        run = client.finish(dbt_task={"commands": ["dbt run"]})
        assert run["state"]["life_cycle_state"] == "INTERNAL_ERROR"
        assert "There is no dbt" in run["state"]["state_message"]
        assert run["status"]["termination_details"]["code"] == "INVALID_RUN_CONFIGURATION"
        assert client.output(run)["error"] == run["state"]["state_message"]

    @pytest.mark.parametrize(
        ("task", "message"),
        [
            ({"commands": ["rm -r /"]}, "'rm -r /' does not start with 'dbt'"),
            ({"commands": ["dbt run 'x"]}, "No closing quotation"),
            ({"commands": ["dbt run"], "project_directory": "/absent"}, "'/absent/dbt_project.yml' was not found"),
        ],
    )
    def test_what_cannot_run_is_an_internal_error(self, client: Client, task: dict[str, object], message: str) -> None:
        run = client.finish(dbt_task=task)
        assert run["state"]["life_cycle_state"] == "INTERNAL_ERROR"
        assert message in run["state"]["state_message"]


class TestOtherType:
    @pytest.mark.parametrize("kind", ["pipeline_task", "dashboard_task"])
    def test_error_names_the_types_that_can_run(self, client: Client, kind: str) -> None:
        state = client.finish(**{kind: {}})["state"]
        assert state["life_cycle_state"] == "INTERNAL_ERROR"
        assert f"cannot run a {kind}" in state["state_message"]
        for runnable in ("notebook_task", "spark_python_task", "python_wheel_task", "dbt_task", "condition_task"):
            assert runnable in state["state_message"]


class TestTaskValues:
    SET = """
    from databricks.sdk.runtime import dbutils
    for name, value in {"rows": 3, "name": "a b", "rest": {"x": [True]}}.items():
        dbutils.jobs.taskValues.set(name, value)
    """

    def submit(self, client: Client, *references: str) -> dict[str, Any]:
        """Run `set`, then `get` with references to the values of `set` through a task between them."""
        print_arguments = {"python_file": "/show.py", "parameters": list(references)}
        after_set = {"depends_on": [{"task_key": "set"}]}
        tasks = [
            {"task_key": "set", "spark_python_task": {"python_file": "/set.py"}},
            {"task_key": "between", **after_set, **condition("1", "1")},
            {"task_key": "get", "depends_on": [{"task_key": "between"}], "spark_python_task": print_arguments},
            {"task_key": "check", **after_set, **condition("{{tasks.set.values.rows}}", "3")},
        ]
        return client.finish(tasks=tasks)

    @pytest.fixture(autouse=True)
    def files(self, write) -> None:
        write("set.py", self.SET)
        write("show.py", "import json, sys\nprint(json.dumps(sys.argv[1:]))")

    def test_are_what_references_to_them_become(self, client: Client) -> None:
        names = ("rows", "name", "rest")
        run = self.submit(client, *(f"<{{{{ tasks.set.values.{name} }}}}>" for name in names), "{{tasks.set.x}}")
        shown = json.loads(client.output(run, "get")["logs"])
        assert shown == ["<3>", "<a b>", '<{"x": [true]}>', "{{tasks.set.x}}"]
        check = next(task for task in run["tasks"] if task["task_key"] == "check")
        assert check["condition_task"]["outcome"] == "true"

    def test_that_was_not_set_is_an_internal_error(self, client: Client) -> None:
        run = self.submit(client, "{{tasks.set.values.absent}}")
        assert results(run)["get"] == "FAILED"
        message = next(task["state"]["state_message"] for task in run["tasks"] if task["task_key"] == "get")
        assert message == "Task 'set' has not set the value 'absent', which this task refers to."

    def test_folders_of_tasks_upstream_are_passed_to_the_program(self, client: Client, root: Path) -> None:
        run = self.submit(client)
        ids = {task["task_key"]: task["run_id"] for task in run["tasks"]}
        runs = root / ".airflow_dbjobs" / "runs"
        program = json.loads((runs / str(ids["get"]) / "program.json").read_text())
        assert program["task_folders"] == {key: str(runs / str(ids[key])) for key in ("between", "set")}
