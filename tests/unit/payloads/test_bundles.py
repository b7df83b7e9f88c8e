"""Bundles: how their files become the jobs of a target, and what the payload checker says about them."""

from __future__ import annotations

import io
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from airflow_dbjobs.errors import ConfigurationError
from airflow_dbjobs.payloads.__main__ import main
from airflow_dbjobs.payloads.bundles import (
    default_target,
    jobs_of,
    map_paths,
    merge_elements,
    read_bundle,
    root_of,
    with_target,
)

ROOT = """\
bundle:
  name: sales
include:
  - resources/*.yml
targets:
  dev:
    default: true
  prod:
    resources:
      jobs:
        nightly:
          max_concurrent_runs: 2
          tags: {team: data}
          job_clusters:
            - job_cluster_key: main
              new_cluster: {num_workers: 8}
          tasks:
            - task_key: load
              timeout_seconds: -1
            - task_key: report
              notebook_task: {notebook_path: ./report.py}
variables: {retries: {description: without a value}}
"""
NIGHTLY = """\
# The nightly job.
resources:
  jobs:
    nightly:
      name: nightly
      tags: {cost: "1"}
      permissions: [{level: CAN_VIEW, group_name: users}]
      job_clusters:
        - job_cluster_key: main
          new_cluster: {num_workers: 1, spark_version: 15.4.x-scala2.12, node_type_id: m}
      tasks:
        - task_key: load
          job_cluster_key: main
          notebook_task:
            notebook_path: ../src/load.py
            base_parameters: {rows: 5, dry: false}
          max_retries: ${var.retries}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a bundle of two files, the working directory."""
    write(tmp_path, "databricks.yml", ROOT)
    write(tmp_path, "resources/nightly.job.yml", NIGHTLY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(textwrap.dedent(text))
    return file


def job_of(folder: Path, target: str) -> Any:
    bundle = with_target(read_bundle(folder / "databricks.yml"), target)
    return merge_elements(jobs_of(bundle)["nightly"]).plain()


def check(*arguments: str | Path) -> int:
    return main([*map(str, arguments)])


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


class TestTargets:
    def test_override_by_the_keys_of_tasks_and_clusters(self, folder: Path) -> None:
        job = job_of(folder, "prod")
        assert (job["name"], job["max_concurrent_runs"], job["tags"]) == ("nightly", 2, {"cost": "1", "team": "data"})
        assert job["job_clusters"][0]["new_cluster"]["num_workers"] == 8
        assert job["job_clusters"][0]["new_cluster"]["node_type_id"] == "m"
        assert [(task["task_key"], task.get("timeout_seconds")) for task in job["tasks"]] == [
            ("load", -1),
            ("report", None),
        ]

    def test_that_override_nothing_leave_a_job_as_it_is(self, folder: Path) -> None:
        job = job_of(folder, "dev")
        assert [task["task_key"] for task in job["tasks"]] == ["load"]
        assert "permissions" not in job

    def test_merge_no_list_whose_keys_are_not_known_yet(self, folder: Path) -> None:
        write(folder, "databricks.yml", ROOT.replace("job_cluster_key: main", "job_cluster_key: ${var.cluster}"))
        assert job_of(folder, "prod")["job_clusters"] == "{{ }}"

    @pytest.mark.parametrize(
        ("targets", "expected"),
        [
            ("{}", "default"),
            ("{only: }", "only"),
            ("{a: , b: {default: true}}", "b"),
        ],
    )
    def test_have_a_default(self, tmp_path: Path, targets: str, expected: str) -> None:
        bundle = read_bundle(write(tmp_path, "databricks.yml", f"bundle: {{name: x}}\ntargets: {targets}\n"))
        assert default_target(bundle) == expected
        assert with_target(bundle, expected).plain()["bundle"] == {"name": "x"}

    def test_must_be_named_if_none_is_the_default(self, tmp_path: Path) -> None:
        bundle = read_bundle(write(tmp_path, "databricks.yml", "bundle: {name: x}\ntargets: {a: , b: }\n"))
        with pytest.raises(ConfigurationError, match=r"no single default target. Name one of a, b\."):
            default_target(bundle)
        with pytest.raises(ConfigurationError, match=r"no target 'c'. Name one of a, b\."):
            with_target(bundle, "c")

    def test_that_are_not_there_cannot_be_named(self, tmp_path: Path) -> None:
        bundle = read_bundle(write(tmp_path, "databricks.yml", "bundle: {name: x}\n"))
        with pytest.raises(ConfigurationError, match=r"has no target 'c'. Name none, as it has no targets\."):
            with_target(bundle, "c")


class TestValues:
    def test_are_those_of_newer_yaml(self, tmp_path: Path) -> None:
        text = "resources: {jobs: {a: {day: 2026-01-01, at: 12:30, at_second: 1:12:30.5, rows: 1_000, share: 0.5}}}\n"
        job = jobs_of(read_bundle(write(tmp_path, "databricks.yml", text)))["a"].plain()
        assert job == {"day": "2026-01-01", "at": "12:30", "at_second": "1:12:30.5", "rows": 1000, "share": 0.5}


class TestIncludes:
    def test_a_part_leads_to_the_root(self, folder: Path) -> None:
        assert root_of(Path("resources/nightly.job.yml")) == Path("databricks.yml")
        other = write(folder, "other/weekly.yml", NIGHTLY)
        assert root_of(other) == other

    def test_a_file_of_comments_has_nothing(self, folder: Path) -> None:
        write(folder, "resources/unused.yml", "# resources:\n")
        assert job_of(folder, "dev")["name"] == "nightly"

    def test_two_stars_match_one_folder(self, folder: Path) -> None:
        write(folder, "databricks.yml", ROOT.replace("resources/*.yml", "./resources/**/*.yml"))
        write(folder, "resources/a/weekly.yml", NIGHTLY.replace("nightly", "weekly"))
        write(folder, "resources/a/b/monthly.yml", NIGHTLY.replace("nightly", "monthly"))
        assert [*jobs_of(read_bundle(folder / "databricks.yml"))] == ["weekly"]

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("twice.yml", NIGHTLY, r"twice.yml:4: .*nightly: is defined twice, also in resources/nightly"),
            ("list.yml", "- 1\n", "must be one YAML document, with a mapping"),
            ("jobs.yml", "resources:\n  jobs: [1]\n", r"jobs.yml:2: resources.jobs: must be a mapping, not list\."),
            ("job.yml", "resources: {jobs: {weekly: 1}}\n", r"weekly: must be a mapping, not int\."),
        ],
        ids=["twice", "no mapping", "no jobs", "no job"],
    )
    @pytest.mark.usefixtures("folder")
    def test_mistakes_name_file_and_place(self, name: str, text: str, message: str) -> None:
        write(Path(), f"resources/{name}", text)
        with pytest.raises(ConfigurationError, match=message):
            jobs_of(read_bundle(Path("databricks.yml")))

    @pytest.mark.usefixtures("folder")
    def test_a_file_that_is_missing_is_named(self) -> None:
        write(Path(), "databricks.yml", "include: [resources/missing.yml]\n")
        with pytest.raises(ConfigurationError, match=r"resources/missing.yml: cannot be read"):
            read_bundle(Path("databricks.yml"))

    @pytest.mark.usefixtures("folder")
    def test_must_be_a_list(self) -> None:
        write(Path(), "databricks.yml", "include: resources/nightly.job.yml\n")
        with pytest.raises(ConfigurationError, match=r"databricks.yml:1: include: must be a list of paths\."):
            read_bundle(Path("databricks.yml"))


class TestPaths:
    JOB = """\
    resources:
      jobs:
        nightly:
          environments:
            - spec: {dependencies: [./a.whl, "-r reqs.txt", pandas==2, --editable .]}
          tasks:
            - notebook_task: {notebook_path: x.py, base_parameters: {notebook_path: no}}
              libraries: [{whl: x.whl}, {pypi: {package: whl}}]
            - for_each_task: {inputs: "[1]", task: {sql_task: {file: {path: x.sql}, warehouse_id: no}}}
    """

    def found(self, folder: Path, text: str) -> list[str]:
        seen = []
        job = jobs_of(read_bundle(write(folder, "databricks.yml", text)))["nightly"]
        changed = map_paths(job, lambda node: seen.append(node.value) or replace(node, value="/new"))
        assert ("-r /new" in str(changed.plain())) == ("reqs.txt" in seen)
        return seen

    def test_are_those_of_files(self, tmp_path: Path) -> None:
        assert self.found(tmp_path, textwrap.dedent(self.JOB)) == [
            "./a.whl", "reqs.txt", "x.py", "x.whl", "x.sql",
        ]  # fmt: skip

    def test_of_a_git_repository_are_not_in_the_bundle(self, tmp_path: Path) -> None:
        text = textwrap.dedent(self.JOB).replace("      environments", "      git_source: {}\n      environments")
        assert self.found(tmp_path, text) == []


class TestChecker:
    def test_names_the_place_in_the_file_for_every_target(self, folder: Path, capsys) -> None:
        assert check("resources/nightly.job.yml", "databricks.yml") == 1
        assert [line.partition(";")[0] for line in lines(capsys)] == [
            "databricks.yml:19: targets.prod.resources.jobs.nightly.tasks[0].timeout_seconds [RANGE-TIMEOUT]: is -1"
        ]

    def test_finds_a_key_that_one_list_has_twice(self, folder: Path, capsys) -> None:
        write(
            folder,
            "resources/nightly.job.yml",
            f"{NIGHTLY}        - {{task_key: load, notebook_task: {{notebook_path: /a}}}}\n",
        )
        assert check("--no-warnings", "databricks.yml") == 1
        assert any(
            line.startswith("resources/nightly.job.yml:18: ") and "TASKKEY-UNIQUE" in line for line in lines(capsys)
        )

    def test_finds_a_variable_that_nothing_declares(self, folder: Path, capsys) -> None:
        write(folder, "resources/nightly.job.yml", NIGHTLY.replace("var.retries", "var.retry"))
        assert check("--no-warnings", "databricks.yml") == 1
        assert lines(capsys)[0] == (
            "resources/nightly.job.yml:17: resources.jobs.nightly.tasks[0].max_retries: there is no variable 'retry'."
            " Declare it in `variables`."
        )

    def test_takes_the_bundle_of_a_folder(self, folder: Path, capsys) -> None:
        assert check(".") == 1
        assert lines(capsys)[0].startswith("databricks.yml:19: targets.prod.")
        assert check("resources") == 1
        assert lines(capsys) == ["resources: has no databricks.yml. Name the files to check."]

    def test_says_how_many_jobs_have_no_mistake(self, folder: Path, capsys) -> None:
        write(folder, "databricks.yml", ROOT.replace("-1", "1"))
        job = write(folder, "a.json", '{"job_id": 1}')
        assert check(".", job) == 0
        assert lines(capsys) == ["No mistakes. Jobs and other payloads checked: 2."]

    def test_names_the_place_of_what_is_missing(self, folder: Path, capsys) -> None:
        write(folder, "resources/nightly.job.yml", NIGHTLY.replace("            notebook_path: ../src/load.py\n", ""))
        assert check("--no-warnings", "databricks.yml") == 1
        (first, *_) = lines(capsys)
        place = "resources.jobs.nightly.tasks[0].notebook_task.notebook_path"
        assert first.startswith(f"resources/nightly.job.yml:14: {place} [NB-")

    def test_can_ignore_what_is_no_part_of_a_bundle(self, folder: Path, capsys) -> None:
        other = write(folder, "other/template.yml", "Role: !Sub a\n")
        assert check(other) == 1
        capsys.readouterr()
        assert check("--bundles-only", other) == 0
        capsys.readouterr()
        assert check("--bundles-only", other, "resources/nightly.job.yml") == 1
        (line,) = lines(capsys)
        assert "timeout_seconds" in line

    def test_reads_a_bundle_once_for_all_its_files(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        read = []
        monkeypatch.setattr(
            "airflow_dbjobs.payloads.__main__.read_bundle", lambda *_: read.append(1) or read_bundle(*_)
        )
        assert check("databricks.yml", folder / "resources" / "nightly.job.yml", "resources/nightly.job.yml") == 1
        assert read == [1]

    def test_accepts_what_a_deployment_replaces(self, tmp_path: Path, capsys) -> None:
        assert check(write(tmp_path, "job.yml", NIGHTLY)) == 0
        assert lines(capsys) == ["No mistakes. Jobs and other payloads checked: 1."]

    def test_reads_a_bundle_from_standard_input(self, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
        text = NIGHTLY.replace("cost: ", "cost: [1], x: ")
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        assert check("-") == 1
        assert "-:6: resources.jobs.nightly.tags.cost [" in capsys.readouterr().out

    def test_reports_a_part_that_cannot_be_read(self, folder: Path, capsys) -> None:
        write(folder, "resources/broken.yml", "resources: {jobs: [}\n")
        assert check(folder / "databricks.yml") == 1
        (line,) = lines(capsys)
        assert "resources/broken.yml:1: not valid YAML" in line

    def test_checks_other_resources_not_at_all(self, tmp_path: Path, capsys) -> None:
        assert check(write(tmp_path, "a.yml", "resources: {pipelines: {a: {tasks: 5}}}\n")) == 0
        assert lines(capsys) == ["No mistakes. Jobs and other payloads checked: 0."]
