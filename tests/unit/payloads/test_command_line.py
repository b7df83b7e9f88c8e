"""``python -m airflow_dbjobs.payloads``: files in, lines with their numbers out."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from itertools import pairwise

import pytest

from airflow_dbjobs.payloads.__main__ import endpoint_of, main

YAML = """\
# A comment.
run_name: nightly
tasks:
  - task_key: load
    notebook_task:
      notebook_path: load
    new_cluster:
      spark_version: 15.4.x-scala2.12
      autoscale: {min_workers: 3, max_workers: 2}
      node_type_id: m
  - task_key: load
    sql_task: {warehouse_id: w, query: {query_id: 2026-01-01}}
"""
TOLD = [
    "6: tasks[0].notebook_task.notebook_path [NB-PATH-ABSOLUTE]: is 'load', a relative path;",
    "9: warning: tasks[0].new_cluster.autoscale [CLUSTER-AUTOSCALE]: min_workers is 3 and max_workers 2;",
    "11: tasks[1].task_key [TASKKEY-UNIQUE]: is 'load', as is tasks[0].task_key;",
]


def lines(capsys) -> list[str]:
    return capsys.readouterr().out.splitlines()


NESTED = "\n".join(f"{name}: &{name} [{', '.join([f'*{below}'] * 9)}]" for below, name in pairwise("abcdefghi"))
MERGED = "\n".join(f"{name}: &{name} {{<<: [{', '.join([f'*{below}'] * 9)}]}}" for below, name in pairwise("abcdefghi"))


class TestYaml:
    def test_fields_may_override_merged_ones(self, tmp_path, capsys):
        (tmp_path / "a.yaml").write_text("x: &x {job_id: 0, a: 1}\n<<: *x\njob_id: 2\n")
        assert main([str(tmp_path / "a.yaml")]) == 0
        assert [line.partition(":")[2].split()[2] for line in lines(capsys)] == ["a", "x"]

    @pytest.mark.parametrize("content", [f"a: &a [1]\n{NESTED}\n", f"a: &a {{k: 1}}\n{MERGED}\n"])
    def test_alias_bombs_are_refused_at_once(self, tmp_path, capsys, content):
        (tmp_path / "a.yaml").write_text(content)
        assert main([str(tmp_path / "a.yaml")]) == 1
        (line,) = lines(capsys)
        assert "the YAML aliases expand to more than 100,000 values" in line

    def test_aliases_of_an_ordinary_file_are_read(self, tmp_path, capsys):
        tasks = "\n".join(f"  - {{task_key: t{number}, new_cluster: *c, notebook_task: *n}}" for number in range(100))
        anchors = "c: &c {spark_version: x, num_workers: 1, node_type_id: m}\nn: &n {notebook_path: /a}"
        (tmp_path / "a.yaml").write_text(f"{anchors}\nname: nightly\ntasks:\n{tasks}\n")
        assert main(["--no-warnings", str(tmp_path / "a.yaml")]) == 0
        assert lines(capsys) == ["No mistakes. Jobs and other payloads checked: 1."]


class TestBundle:
    def test_values_that_it_fills_in_are_not_checked(self, tmp_path, capsys):
        (tmp_path / "a.yaml").write_text(
            "name: ${bundle.target}-nightly\nmax_concurrent_runs: ${var.runs}\ntags: ${var.tags}\n"
            "tasks:\n  - task_key: a\n    run_job_task: {job_id: '${resources.jobs.other.id}'}\n"
            "    run_if: ${var.run_if}\n"
            "    timeout_seconds: -1\n"
        )
        assert main([str(tmp_path / "a.yaml")]) == 1
        (line,) = lines(capsys)
        assert "tasks[0].timeout_seconds [RANGE-TIMEOUT]" in line


class TestRunParameters:
    @pytest.mark.parametrize(
        "body",
        [
            {"job_id": 1, "notebook_params": {"n": 5}},
            {"job_id": 1, "python_params": ["a", True]},
            {"run_name": "n", "notebook_task": {"notebook_path": "/a", "base_parameters": {"n": 5}}},
            {
                "run_name": "n",
                "tasks": [{"task_key": "a", "spark_jar_task": {"main_class_name": "a", "parameters": [5]}}],
            },
            {
                "run_name": "n",
                "tasks": [{"task_key": "a", "run_job_task": {"job_id": 1, "job_parameters": {"n": 5.5}}}],
            },
            {"run_name": "n", "sql_task": {"warehouse_id": "w", "file": {"path": "/a"}, "parameters": {"n": False}}},
        ],
    )
    def test_that_are_no_text_are_refused_anywhere(self, tmp_path, capsys, body):
        (tmp_path / "a.json").write_text(json.dumps(body))
        assert main(["--no-warnings", str(tmp_path / "a.json")]) == 1
        (line,) = lines(capsys)
        assert "-VALUES]: is of type " in line


class TestHelp:
    def test_lists_the_endpoints(self, capsys):
        with pytest.raises(SystemExit):
            main(["--help"])
        assert "runs/submit" in capsys.readouterr().out.partition("Check request bodies")[0]


class TestOutput:
    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("a.yaml", 'job_id: 1\n"\\e[31mred": 1\n"\\e[31mred": 2\n'),
            ("a.json", '{"job_id": 1, "\\u001b[31mred": 1, "\\u001b[31mred": 2}'),
            ("a.json", '{"job_id": 1, "\\u001b[31mred": 1}'),
            ("a.json", '{"job_id": 1, "notebook_params": {"\\u001b[31mred": 1}}'),
            ("a.json", '{"job_id": 1, "job_parameters": {"\\u001b[31mred": Infinity}}'),
        ],
    )
    def test_escapes_control_characters_in_names(self, tmp_path, capsys, name, content):
        (tmp_path / name).write_text(content)
        main([str(tmp_path / name)])
        printed = capsys.readouterr().out
        assert "\\x1b[31mred" in printed
        assert "\x1b" not in printed

    @pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
    def test_escapes_what_its_encoding_cannot_represent(self, tmp_path, encoding):
        (tmp_path / "a.json").write_text('{"job_id": 1, "notebook_params": {"\\ud800": 1, "é": 2}}')
        ended = subprocess.run(
            [sys.executable, "-m", "airflow_dbjobs.payloads", str(tmp_path / "a.json")],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            encoding=encoding,
            env={**os.environ, "PYTHONIOENCODING": encoding},
        )
        assert (ended.returncode, ended.stderr) == (1, "")
        assert "notebook_params.\\ud800 [PARAM-MAP-VALUES]" in ended.stdout
        assert f"notebook_params.{'é' if encoding == 'utf-8' else chr(92) + 'xe9'} [PARAM-MAP-VALUES]" in ended.stdout


class TestRules:
    def test_can_be_listed(self, capsys):
        assert main(["--rules"]) == 0
        listed = {tuple(line.split()[:4]) for line in lines(capsys)}
        assert {
            ("LIB-PYPI", "error", "2.0,2.1,2.2", "PythonPyPiLibrary:"),
            ("TASK-FLAT-XOR-LIST", "warning", "2.1,2.2", "JobSettings:"),
            ("ENVVAR-KEY", "error", "2.2", "JobEnvironmentVariablesSpec:"),
        } < listed

    def test_are_listed_in_a_stable_order(self):
        orders = {
            subprocess.run(
                [sys.executable, "-m", "airflow_dbjobs.payloads", "--rules"],
                capture_output=True,
                text=True,
                check=True,
                timeout=60,
                env={**os.environ, "PYTHONHASHSEED": seed},
            ).stdout
            for seed in ("1", "2")
        }
        assert len(orders) == 1


class TestFile:
    def test_of_yaml_has_errors_reported_with_their_line(self, tmp_path, capsys):
        file = tmp_path / "a.yaml"
        file.write_text(YAML)
        assert main([str(file)]) == 1
        told = lines(capsys)
        assert [line[: len(f"{file}:{start}")] for line, start in zip(told, TOLD, strict=True)] == [
            f"{file}:{start}" for start in TOLD
        ]
        assert main(["--no-warnings", str(file)]) == 1
        assert len(lines(capsys)) == 2

    def test_of_json_has_errors_reported_with_their_line(self, tmp_path, capsys):
        file = tmp_path / "a.json"
        file.write_text(json.dumps({"job_id": 0, "notebook_params": {"a": 1}}, indent="\t"))
        assert main([str(file)]) == 1
        (first, second) = lines(capsys)
        assert first.startswith(f"{file}:2: job_id [REQ-JOB-ID]: is 0;")
        assert second.startswith(f"{file}:4: notebook_params.a [PARAM-MAP-VALUES]: is of type int;")

    def test_is_checked_in_each_document_and_may_have_warnings(self, tmp_path, capsys):
        (tmp_path / "good.yaml").write_text("job_id: 1\n---\njob_id: 2\njob_parameters: {a: b}\n")
        (tmp_path / "warns.yaml").write_text("job_id: 1\nidempotency_token: ''\n")
        assert main([str(tmp_path / "good.yaml"), str(tmp_path / "warns.yaml")]) == 0
        assert [line.partition(": ")[0] for line in lines(capsys)] == [f"{tmp_path / 'warns.yaml'}:2"]
        (tmp_path / "bad.yaml").write_text("job_id: 1\n---\njob_id: -2\n")
        assert main([str(tmp_path / "bad.yaml"), str(tmp_path / "good.yaml")]) == 1
        assert [line.partition(": ")[0] for line in lines(capsys)] == [f"{tmp_path / 'bad.yaml'}:3"]

    @pytest.mark.parametrize(
        ("name", "content", "told"),
        [
            ("a.json", b'{"a": 1,}', ":1: not valid JSON: "),
            ("a.yaml", b"a: [1\nb: 2", "not valid YAML: "),
            ("a.yaml", b"\xff\xfe\xff", ": not UTF-8 text."),
            ("a.yaml", b"a: 1", ":1: the fields match no endpoint. Name it with --endpoint."),
            ("a.yaml", b"- 1", ":1: the payload [REQ-BODY-OBJECT]: is of type list;"),
            ("a.yaml", b"# nothing\n", ": contains no payload."),
            ("a.json", b"\n", ": contains no payload."),
            ("a.yaml", b"job_id: 1\nmore:\n  a: 1\n  b: 2\n  a: 3\n", ":5: a is given twice."),
            ("a.json", b'{\n"job_id": 1,\n"job_id": 2}', ":3: job_id is given twice."),
            (
                "a.json",
                b'{"job_id": 1, "\\ud83d": 1, "' + b"k" * 2000 + b'": 2, "job_id": 2}',
                ": job_id is given twice.",
            ),
            ("a.json", b"[" * 100_000 + b"]" * 100_000, ": the payload contains itself or is nested too deeply."),
            ("a.json", b'{"job_id": ' + b"1" * 5000 + b"}", ": contains a value that cannot be read: "),
            ("a.json", b'{"job_id": NaN}', ":1: job_id is nan, which JSON cannot hold."),
            ("a.yaml", b"job_id: " + b"1" * 5000, ": contains a value that cannot be read: "),
            ("a.yaml", b"job_id: 0x" + b"f" * 5000, ": job_id is a number of more than 100 digits"),
            ("a.yaml", b"job_id: .inf", ": job_id is inf, which JSON cannot hold."),
            ("a.yaml", b"name: !!int abc", ": contains a value that cannot be read: "),
            ("a.yaml", b"name: !!timestamp abc", ": contains a value that cannot be read: "),
            ("a.yaml", b"name: !!bool abc", ": contains a value that cannot be read: "),
            ("a.yaml", b"name: !!timestamp 2026-01-01", ": name is a date, which JSON cannot hold."),
            ("a.yaml", b"name: n\n? !!binary aGk=\n: x", ": the payload has a key that is of type bytes"),
            ("a.yaml", b"name: !!python/object:a.b {}", ":1: not valid YAML: "),
            ("a.yaml", b"name: n\ntags: &a\n  b: *a", ": the payload contains itself or is nested too deeply."),
            ("a.yaml", b"name: " + b"[" * 3000 + b"]" * 3000, ": the payload contains itself or is nested too deeply."),
            ("missing.yaml", None, ": cannot be read: No such file or directory."),
        ],
    )
    def test_that_cannot_be_read_is_reported_and_fails(self, tmp_path, capsys, name, content, told):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        assert main([str(tmp_path / name)]) == 1
        (line,) = lines(capsys)
        assert told in line
        assert line.startswith(str(tmp_path / name))

    @pytest.mark.parametrize(
        ("name", "mark"), [("a.json", b"\xef\xbb\xbf"), ("a.JSON", b""), ("a.yaml", b"\xef\xbb\xbf")]
    )
    def test_written_by_windows_is_read(self, tmp_path, capsys, name, mark):
        space = b" " if name.endswith("yaml") else b"\t"
        (tmp_path / name).write_bytes(mark + b"{\r\n" + space + b'"job_id": 0}')
        assert main([str(tmp_path / name)]) == 1
        assert lines(capsys)[0].startswith(f"{tmp_path / name}:2: job_id [REQ-JOB-ID]: is 0;")

    @pytest.mark.parametrize("text", ['{\n\t"job_id": 0}', "a: 1\njob_id: 0\n", "{a: 1,\njob_id: 0}"])
    def test_named_by_a_dash_is_standard_input(self, capsys, monkeypatch, text):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        assert main(["-"]) == 1
        assert any(line.startswith("-:2: job_id [REQ-JOB-ID]: is 0;") for line in lines(capsys))

    def test_of_unknown_fields_fails(self, tmp_path, capsys):
        (tmp_path / "a.yaml").write_text("name: n\nresources: {}\ntargets: {}\ntasks: []\n")
        assert main(["--endpoint", "create", str(tmp_path / "a.yaml")]) == 0
        told = [line.split(": ")[2] for line in lines(capsys)]
        assert told == ["resources [FIELD-UNKNOWN]", "targets [FIELD-UNKNOWN]", "tasks [TASK-PRESENT-2_1]"]
        (tmp_path / "a.yaml").write_text("bundle: {name: n}\nresources: {}\n")
        assert main(["--endpoint", "create", str(tmp_path / "a.yaml")]) == 1
        told = [line.partition(": ")[2] for line in lines(capsys)]
        assert {line.split("]")[0] for line in told if "FIELD" in line} == {
            "the payload [REQ-FIELDS", "warning: bundle [FIELD-UNKNOWN", "warning: resources [FIELD-UNKNOWN",
        }  # fmt: skip

    def test_is_required(self, capsys):
        with pytest.raises(SystemExit) as ended:
            main([])
        assert ended.value.code == 2
        assert "no files given" in capsys.readouterr().err


class TestEndpoint:
    def test_and_version_can_be_given(self, tmp_path, capsys):
        file = tmp_path / "a.yml"
        file.write_text("notebook_task: {notebook_path: /a}\nexisting_cluster_id: c\nhealth: {rules: []}\n")
        assert main(["--endpoint", "runs/submit", "--api-version", "2.0", str(file)]) == 0
        assert "health [FIELD-VERSION]: needs API version 2.1" in capsys.readouterr().out
        assert main(["--endpoint", "run-now", str(file)]) == 1
        assert "job_id [REQ-JOB-ID]: is missing" in capsys.readouterr().out

    def test_jobs_get_is_checked_as_the_settings_of_a_job(self, tmp_path, capsys):
        file = tmp_path / "a.yaml"
        file.write_text("job_id: 1\nsettings:\n  name: n\n  timeout_seconds: -1\n  tasks: []\n")
        assert main(["--no-warnings", str(file)]) == 1
        assert lines(capsys)[0].startswith(f"{file}:4: settings.timeout_seconds [RANGE-TIMEOUT]: is -1;")

    @pytest.mark.parametrize(
        ("fields", "endpoint"),
        [
            (["job_id", "new_settings"], "update"),
            (["run_id", "rerun_tasks"], "runs/repair"),
            (["job_name"], "run-now"),
            (["idempotency_token", "job_id"], "run-now"),
            (["run_name", "tasks"], "runs/submit"),
            (["name", "job_clusters", "tasks"], "create"),
            (["notebook_task"], "create"),
            (["resources"], None),
        ],
    )
    def test_is_derived_from_the_fields(self, fields, endpoint):
        assert endpoint_of(dict.fromkeys(fields)) == endpoint
