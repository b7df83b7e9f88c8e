"""Jobs from files: what a workspace makes of bundles and exported jobs, at each start."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from documentation import ROOT, text_of

from airflow_dbjobs.local_workspace import LocalWorkspace
from airflow_dbjobs.local_workspace.__main__ import main
from airflow_dbjobs.local_workspace.jobs_files.loading import JobsFiles
from airflow_dbjobs.local_workspace.state.folder import WorkspaceError

from .conftest import Start, Write, mounted
from .support import TOKEN

SETTINGS = {"name": "load", "tasks": [{"task_key": "a", "notebook_task": {"notebook_path": "/a"}}]}

BUNDLE = """\
bundle: {name: sales}
include: [resources/*.yml]
variables:
  day: {default: monday}
  greeting: {default: "on ${var.day}"}
  cluster:
    type: complex
    default: {num_workers: 1, spark_conf: {a.b: "${var.day}"}}
  key: {default: load}
  policy: {lookup: {cluster_policy: Personal}}
  unset: {description: without a value}
targets:
  dev:
    default: true
    mode: development
  prod:
    variables:
      day: friday
      cluster: {num_workers: 9}
    resources: {jobs: {nightly: {max_concurrent_runs: 2, tasks: [{task_key: "${var.key}", max_retries: 3}]}}}
"""
NIGHTLY = """\
resources:
  schemas: {raw: {name: raw}}
  jobs:
    nightly:
      name: nightly
      tasks:
        - task_key: load
          spark_python_task:
            python_file: ../src/load.py
            parameters: ["${var.greeting}", "${bundle.name}/${bundle.target}", "${workspace.file_path}", "${HOME}"]
    chained:
      name: chained after ${resources.jobs.nightly.name}
      schedule: {quartz_cron_expression: '0 0 0 * * ?', timezone_id: UTC}
      tasks:
        - task_key: nightly
          run_job_task: {job_id: "${resources.jobs.nightly.id}"}
"""


@pytest.fixture
def bundle(root: Path, write: Write) -> Path:
    """Return the folder of a bundle with two jobs, the root of the workspace."""
    write("databricks.yml", BUNDLE)
    write("resources/nightly.yml", NIGHTLY)
    write("src/load.py", "import sys; print(sys.argv[1:])")
    return root


def read(folder: Path, target: str = "prod", **options: Any) -> dict[str, Any]:
    """Return the settings of the jobs of a bundle, by key."""
    jobs, _ = JobsFiles([folder], target, **options).read(folder, user="jo.doe@x.org", host="http://here")
    return {job.key: job.settings for job in jobs}


def notes(folder: Path, target: str = "") -> list[str]:
    return JobsFiles([folder], target).read(folder, user="jo", host="")[1]


def message(folder: Path, *paths: Path, target: str = "prod", ids: dict[str, Any] | None = None) -> str:
    """Return the message with which the files are refused, without their folder."""
    with pytest.raises(WorkspaceError) as raised:
        JobsFiles(paths or [folder], target, ids or {}).read(folder, user="jo", host="")
    return str(raised.value).replace(f"{folder}/", "")


def opened(root: Path, *paths: Path, **options: Any) -> LocalWorkspace:
    return LocalWorkspace(root, token=TOKEN, jobs=JobsFiles(paths or [root], "" if paths else "prod", **options))


def ids_by_name(root: Path, *paths: Path, **options: Any) -> dict[str, int]:
    """Return the ids of all jobs of the workspace after a start."""
    ws = opened(root, *paths, **options)
    try:
        return {job["settings"]["name"]: job["job_id"] for job in mounted(ws).get("list").get("jobs", [])}
    finally:
        ws.close()


class TestBundle:
    def test_values_of_the_target_are_filled_in(self, bundle: Path) -> None:
        jobs = read(bundle)
        assert (jobs["nightly"]["max_concurrent_runs"], jobs["nightly"]["queue"]) == (2, {"enabled": True})
        (task,) = jobs["nightly"]["tasks"]
        assert task["max_retries"] == 3
        assert task["spark_python_task"] == {
            "python_file": "/src/load.py",
            "parameters": ["on friday", "sales/prod", str(bundle), "${HOME}"],
        }
        assert jobs["chained"]["name"] == "chained after nightly"

    def test_the_task_in_a_loop_is_filled_in(self, bundle: Path, write: Write) -> None:
        nested = (
            "        - task_key: each\n"
            "          for_each_task:\n"
            "            inputs: '[1, 2]'\n"
            "            task:\n"
            "              task_key: one\n"
            '              spark_python_task: {python_file: ../src/load.py, parameters: ["{{input}}", "${var.day}"]}\n'
        )
        write("resources/nightly.yml", NIGHTLY + nested)
        loop = read(bundle)["chained"]["tasks"][1]["for_each_task"]
        assert loop["task"]["spark_python_task"] == {
            "python_file": "/src/load.py",
            "parameters": ["{{input}}", "friday"],
        }
        with opened(bundle) as workspace:
            client = mounted(workspace)
            (job_id,) = (job["job_id"] for job in client.get("list")["jobs"] if "chained" in job["settings"]["name"])
            run = client.wait_for(client.post("run-now", job_id=job_id, only=["each"])["run_id"])
            iterations = client.get("runs/get", run_id=run["tasks"][0]["run_id"])["iterations"]
            logs = [client.get("runs/get-output", run_id=item["run_id"])["logs"] for item in iterations]
        assert logs == ["['1', 'friday']\n", "['2', 'friday']\n"]

    def test_a_reference_alone_keeps_its_type(self, bundle: Path, write: Write) -> None:
        write("resources/nightly.yml", NIGHTLY + "          new_cluster: ${var.cluster}\n")
        assert read(bundle)["chained"]["tasks"][0]["new_cluster"] == {"num_workers": 9}
        assert read(bundle, "dev")["chained"]["tasks"][0]["new_cluster"] == {
            "num_workers": 1,
            "spark_conf": {"a.b": "monday"},
        }
        write("resources/nightly.yml", NIGHTLY + "          timeout_seconds: ${var.cluster.num_workers}\n")
        assert read(bundle)["chained"]["tasks"][0]["timeout_seconds"] == 9

    def test_the_environment_sets_a_variable(self, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BUNDLE_VAR_day", "sunday")
        assert read(bundle)["nightly"]["tasks"][0]["spark_python_task"]["parameters"][0] == "on sunday"

    def test_development_mode_has_its_presets(self, bundle: Path) -> None:
        jobs = read(bundle, "dev")
        assert jobs["nightly"]["name"] == "[dev jo_doe] nightly"
        assert jobs["chained"]["name"] == "[dev jo_doe] chained after [dev jo_doe] nightly"
        assert (jobs["nightly"]["max_concurrent_runs"], jobs["nightly"]["tags"]) == (4, {"dev": "jo_doe"})
        assert jobs["chained"]["schedule"]["pause_status"] == "PAUSED"

    def test_presets_of_a_target_come_first(self, bundle: Path, write: Write) -> None:
        presets = "presets: {name_prefix: 'x_', tags: {team: a, dev: b}, trigger_pause_status: UNPAUSED}\n"
        write("databricks.yml", presets + BUNDLE)
        job = read(bundle, "dev")["chained"]
        assert (job["name"], job["tags"]) == ("x_chained after x_nightly", {"team": "a", "dev": "b"})
        assert (job["schedule"]["pause_status"], job["max_concurrent_runs"]) == ("UNPAUSED", 4)

    @pytest.mark.parametrize(
        ("path", "found"),
        [
            ("./load.py", "/resources/load.py"),
            ("${workspace.file_path}/src/load.py", "/src/load.py"),
            ("${workspace.root_path}/files/src/load.py", "/src/load.py"),
            ("/Shared/load.py", "/Shared/load.py"),
            ("dbfs:/load.py", "dbfs:/load.py"),
        ],
    )
    def test_paths_lead_to_the_files_of_the_bundle(self, bundle: Path, write: Write, path: str, found: str) -> None:
        write("resources/nightly.yml", NIGHTLY.replace("../src/load.py", path))
        assert read(bundle)["nightly"]["tasks"][0]["spark_python_task"]["python_file"] == found

    def test_a_path_in_a_variable_is_relative_to_the_file_that_uses_it(self, bundle: Path, write: Write) -> None:
        write("databricks.yml", BUNDLE.replace("variables:", "variables:\n  file: {default: ../src/load.py}", 1))
        write("resources/nightly.yml", NIGHTLY.replace("../src/load.py", "${var.file}"))
        assert read(bundle)["nightly"]["tasks"][0]["spark_python_task"]["python_file"] == "/src/load.py"

    def test_a_pattern_means_the_newest_file(self, bundle: Path, write: Write) -> None:
        write("resources/nightly.yml", NIGHTLY + "          libraries: [{whl: ../dist/*.whl}]\n")
        write("dist/a-1.whl", "")
        write("dist/a-2.whl", "")
        os.utime(bundle / "dist" / "a-2.whl", (0, 0))
        assert read(bundle)["chained"]["tasks"][0]["libraries"] == [{"whl": "/dist/a-1.whl"}]

    def test_a_pattern_without_a_file_needs_a_build_and_a_restart(self, bundle: Path, write: Write) -> None:
        write("resources/nightly.yml", NIGHTLY + "          libraries: [{whl: ../dist/*.whl}]\n")
        expected = f"there is no file {bundle}/dist/*.whl. Build it, and start the workspace again."
        assert any(note.endswith(expected) for note in notes(bundle))

    def test_only_a_target_in_development_mode_is_noted(self, bundle: Path) -> None:
        assert not any("development" in note for note in notes(bundle, "prod"))

    def test_notes_what_is_left_out(self, bundle: Path, write: Write) -> None:
        write("resources/nightly.yml", NIGHTLY + "          existing_cluster_id: ${var.policy}\n")
        (bundle / "src" / "load.py").unlink()
        mode, schema, missing, unknown = notes(bundle)
        assert mode.startswith("target 'dev' is in development mode: names of jobs begin with '[dev jo] '. DAGs that")
        assert schema == f"{bundle}/resources/nightly.yml:2: resources.schemas: is not loaded; only jobs are."
        assert missing.endswith(f"python_file: there is no file {bundle}/src/load.py.")
        assert "existing_cluster_id: ${var.policy} is known to a real workspace only" in unknown

    @pytest.mark.parametrize(
        ("changed", "by", "expected"),
        [
            ("${HOME}", "${var.unset}", "parameters[3]: the variable 'unset' has no value. Give it a default, or set"),
            (
                "${HOME}",
                "${var.no}",
                "resources.jobs.nightly.tasks[0].spark_python_task.parameters[3]: there is no var",
            ),
            ("${HOME}", "x ${var.cluster}", "parameters[3]: ${var.cluster} is not a text; it must be"),
            ("name: nightly", "name: '${resources.jobs.nightly.name}'", "${resources.jobs.nightly.name} leads to its"),
            (
                "../src",
                "../..",
                "resources/nightly.yml:9: resources.jobs.nightly.tasks[0].spark_python_task.python_file",
            ),
            ("../src/load.py", '"../\\0.py"', "python_file: '../\\x00.py' cannot be a path: embedded null byte."),
            ("../src/load.py", "../" + 300 * "n", "cannot be a path: File name too long."),
            ("../src/load.py", "../**[*", "python_file: '../**[*' cannot be a path: "),
            ("task_key: load", "task_key: a b", "resources/nightly.yml:4: resources.jobs.nightly: Field 'task_key' mu"),
        ],
    )
    def test_mistakes_name_file_and_place(
        self, bundle: Path, write: Write, changed: str, by: str, expected: str
    ) -> None:
        write("resources/nightly.yml", NIGHTLY.replace(changed, by))
        assert expected in message(bundle)
        assert message(bundle).startswith("resources/nightly.yml:")

    def test_a_file_outside_the_root_needs_another_root(self, bundle: Path, write: Write) -> None:
        write("resources/nightly.yml", NIGHTLY.replace("../src", "../.."))
        assert message(bundle).endswith(f"Start with a --root that holds both: --root {bundle.parent}")

    def test_the_default_root_holds_what_is_synchronized(self, bundle: Path, write: Write) -> None:
        assert JobsFiles([bundle]).root == bundle
        assert JobsFiles([bundle / "databricks.yml"]).root == bundle
        assert JobsFiles([bundle / "resources"]).root is None
        write("databricks.yml", f"sync: {{paths: [../shared]}}\n{BUNDLE}")
        assert JobsFiles([bundle]).root == bundle.parent

    def test_a_deployment_leaves_out_the_state(self, bundle: Path) -> None:
        opened(bundle).close()
        assert (bundle / ".airflow_dbjobs" / ".gitignore").read_text() == "*\n"

    def test_numbers_among_parameters_become_texts(self, bundle: Path, write: Write) -> None:
        write("resources/nightly.yml", NIGHTLY.replace('"${HOME}"', "5, true").replace("name: nightly", "name: 5"))
        job = read(bundle)["nightly"]
        assert job["tasks"][0]["spark_python_task"]["parameters"][3:] == ["5", "true"]
        assert job["name"] == "5"

    @pytest.mark.parametrize(
        ("more", "expected"),
        [
            ("presets: {tags: [x]}", "presets.tags: must be a mapping, not list."),
            (
                "presets: {name_prefix: x}\nresources: {jobs: {a: {name: [x]}}}",
                "Field 'name' must be a string, not [\"x\"]",
            ),
            (
                "variables:\n  v0: {default: ''}\n"
                + "".join(f"  v{n}: {{default: '{f'${{var.v{n - 1}}}' * 10}'}}\n" for n in range(1, 10))
                + "resources: {jobs: {a: {name: '${var.v9}'}}}",
                "the references expand to more than 100,000 values.",
            ),
        ],
    )
    def test_mistakes_in_a_root_file_name_their_place(self, root: Path, write: Write, more: str, expected: str) -> None:
        write("databricks.yml", f"bundle: {{name: b}}\n{more}")
        text = message(root, target="default")
        assert text.startswith("databricks.yml:")
        assert expected in text


class TestIds:
    def test_stay_the_same_and_jobs_are_not_duplicated(self, bundle: Path, write: Write) -> None:
        first = ids_by_name(bundle)
        assert len(first) == 2
        write("resources/nightly.yml", NIGHTLY.replace("name: nightly", "name: at night"))
        again = ids_by_name(bundle)
        assert [again["at night"], again["chained after at night"]] == [
            first["nightly"],
            first["chained after nightly"],
        ]
        assert len(again) == 2

    def test_do_not_depend_on_state_or_folder(self, bundle: Path) -> None:
        first = ids_by_name(bundle)
        moved = bundle.rename(bundle.with_name("moved"))
        (moved / ".airflow_dbjobs" / "workspace.sqlite3").unlink()
        assert ids_by_name(moved) == first

    def test_can_be_chosen(self, bundle: Path) -> None:
        first = ids_by_name(bundle)
        assert ids_by_name(bundle, ids={"nightly": 123}) == {**first, "nightly": 123}
        assert read(bundle, ids={"nightly": 123})["chained"]["tasks"][0]["run_job_task"] == {"job_id": 123}

    def test_of_new_jobs_avoid_chosen_ones(self, bundle: Path) -> None:
        with opened(bundle) as ws:
            after = mounted(ws).post("create", name="x")["job_id"]
        with opened(bundle, ids={"nightly": after + 1}) as ws:
            assert mounted(ws).post("create", name="y")["job_id"] > after + 1

    def test_jobs_of_the_api_stay_and_those_that_left_the_files_go(self, bundle: Path, write: Write) -> None:
        with opened(bundle) as ws:
            mounted(ws).post("create", name="by hand")
        write("resources/nightly.yml", NIGHTLY.partition("    chained")[0])
        assert set(ids_by_name(bundle)) == {"by hand", "nightly"}

    def test_the_last_job_that_left_its_file_goes_too(self, bundle: Path, write: Write) -> None:
        opened(bundle).close()
        write("databricks.yml", "bundle: {name: sales}\ntargets: {prod: }\n")
        assert ids_by_name(bundle) == {}

    def test_of_a_file_named_twice_are_refused(self, bundle: Path) -> None:
        expected = "--jobs names a bundle, file or folder twice: src/.., databricks.yml. Name it once."
        assert message(bundle, bundle / "src" / "..", bundle / "databricks.yml") == expected

    @pytest.mark.parametrize(
        ("ids", "expected"),
        [
            ({"nightly": 5, "chained": 5}, "both have the id 5. Give one another: --job-id chained=ID."),
            ({"nightly": "5"}, "The id of the job 'nightly' must be an integer from 1 to 2**63 - 1, not '5'."),
            ({"nightly": 0}, "not 0."),
            ({"nightly": True}, "not True."),
            ({"nihgtly": 5}, "--job-id names nihgtly; the jobs of the files are: chained, nightly."),
        ],
    )
    def test_that_are_wrong_are_refused(self, bundle: Path, ids: dict[str, Any], expected: str) -> None:
        assert expected in message(bundle, ids=ids)


class TestFiles:
    def test_an_exported_job_keeps_its_id(self, root: Path, write: Write) -> None:
        write("jobs/load.json", json.dumps({"job_id": 77, "created_time": 1, "settings": SETTINGS}))
        write("jobs/flat.yaml", "name: flat\nnotebook_task: {notebook_path: /a}\n")
        write("jobs/README.md", "no job")
        ids = ids_by_name(root, root / "jobs")
        assert set(ids) == {"load", "flat"}
        assert ids["load"] == 77
        assert ids_by_name(root, root / "jobs", ids={"load": 78}) == {**ids, "load": 78}

    def test_replace_the_settings_of_a_job_with_their_id(self, root: Path, write: Write) -> None:
        with LocalWorkspace(root, token=TOKEN) as ws:
            job_id = mounted(ws).post("create", **SETTINGS, timeout_seconds=9, tags={"a": "b"})["job_id"]
            exported = mounted(ws).get("get", job_id=job_id)
        del exported["settings"]["tags"]
        write("load.json", json.dumps(exported))
        with opened(root, root / "load.json") as ws:
            settings = mounted(ws).get("get", job_id=job_id)["settings"]
        assert settings == exported["settings"]

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("[]", "job.json: must hold one job: its settings, or the answer of jobs/get."),
            (
                '{"resources": {"jobs": {}}}',
                "job.json: is a part of a bundle. Name the folder of the bundle's databric",
            ),
            ('{"job_id": "x", "settings": {}}', "job.json:1: job_id: 'x' is no id of a job."),
            ('{"tasks": 5}', "job.json:1: Field 'tasks' must be an array, not 5."),
            ("{", "job.json:1: not valid JSON"),
        ],
    )
    def test_without_a_job_are_refused(self, root: Path, write: Write, text: str, expected: str) -> None:
        write("job.json", text)
        assert expected in message(root, root / "job.json", target="")

    def test_that_are_missing_are_named(self, root: Path) -> None:
        assert message(root, root / "no.json") == "no.json: cannot be read: No such file or directory."
        (root / "empty").mkdir()
        assert message(root, root / "empty").startswith("empty: has neither a databricks.yml nor jobs")


class TestDocumentedExample:
    def test_is_loaded_as_the_page_says(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(ROOT)
        files = JobsFiles([Path("example_dags/workspace")])
        assert files.root == ROOT / "example_dags" / "workspace"
        jobs, left_out = files.read(files.root, user="jo", host="")
        lines = [f"  job_id {job.job_id}, {job.settings['name']!r}: {job.place}" for job in jobs]
        assert "\n".join(["```text", "Jobs from files:", *lines, "```"]) in text_of("local-jobs")
        assert left_out == []


class TestServer:
    def test_runs_the_jobs_of_a_bundle_by_name_and_by_id(self, bundle: Path, write: Write, start: Start) -> None:
        options = ["--jobs", str(bundle / "databricks.yml"), "--target", "prod", "--job-id", "nightly=123"]
        announced = ("job_id 123, 'nightly'", "resources.schemas: is not loaded; only jobs are.")
        _, client = start(*options, announced=announced)
        # The file itself runs, not a copy of it.
        write("src/load.py", "import sys; print('changed', sys.argv[1])")
        run = client.wait_for(client.post("run-now", job_id=123)["run_id"])
        assert client.output(run)["logs"] == "changed on friday\n"
        (chained,) = client.get("list", name="chained after nightly")["jobs"]
        run = client.wait_for(client.post("run-now", job_id=chained["job_id"])["run_id"])
        assert run["state"]["result_state"] == "SUCCESS"

    def test_refuses_files_that_are_wrong(self, bundle: Path, write: Write) -> None:
        write("databricks.yml", "bundle: [")
        command = [sys.executable, "-m", "airflow_dbjobs.local_workspace", "--root", str(bundle), "--port", "0"]
        done = subprocess.run(
            [*command, "--jobs", str(bundle)], capture_output=True, text=True, check=False, timeout=20
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"{bundle}/databricks.yml:1: not valid YAML")

    @pytest.mark.parametrize(
        "expected",
        [
            "--jobs nowhere: no such file or folder.",
            "--jobs resources belongs to the bundle databricks.yml: name that, or its folder.",
            "--jobs resources/nightly.yml belongs to the bundle databricks.yml: name that, or its folder.",
            "--jobs jobs holds no bundle (databricks.yml): add --root, the folder that holds the notebooks.",
        ],
    )
    def test_says_why_files_have_no_root(
        self, bundle: Path, write: Write, monkeypatch: pytest.MonkeyPatch, capsys, expected: str
    ) -> None:
        write("jobs/load.json", json.dumps(SETTINGS))
        monkeypatch.chdir(bundle)
        assert main(["--jobs", re.split("[ :]", expected)[1]]) == 2
        assert capsys.readouterr().err == f"{expected}\n"

    @pytest.mark.parametrize("text", ["nightly", "nightly=x", "=5", "nightly=0"])
    def test_refuses_an_id_that_is_none(self, text: str) -> None:
        command = [sys.executable, "-m", "airflow_dbjobs.local_workspace", "--root", ".", "--job-id", text]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
        assert "is not KEY=ID, such as nightly=123" in done.stderr
