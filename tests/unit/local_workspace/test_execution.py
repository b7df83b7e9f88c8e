"""Programs of tasks: where they run, what they get, and how their end is reported."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_dbjobs.local_workspace import LocalWorkspace
from airflow_dbjobs.local_workspace.engine import supervisor
from airflow_dbjobs.local_workspace.engine.executor import Executor
from airflow_dbjobs.local_workspace.state.records import TaskRun

from .conftest import mounted
from .support import TOKEN, Client, eventually

if TYPE_CHECKING:
    from airflow_dbjobs.local_workspace.state.records import State


def python(path: str, *parameters: str) -> dict[str, object]:
    return {"python_file": path, "parameters": list(parameters)}


class TestPythonFile:
    def test_runs_as_main_in_its_folder(self, client: Client, write) -> None:
        write("etl/helper.py", "VALUE = 'imported'")
        write(
            "etl/load.py",
            "import os, sys, helper\nprint(__name__, sys.argv[1:], os.path.basename(os.getcwd()), helper.VALUE)",
        )
        run = client.finish(spark_python_task=python("/etl/load.py", "a", "b c"))
        assert run["state"]["result_state"] == "SUCCESS"
        output = client.output(run)
        assert output["logs"] == "__main__ ['a', 'b c'] etl imported\n"
        assert output["logs_truncated"] is False
        assert "error" not in output

    def test_succeeds_on_sys_exit_0(self, client: Client, write) -> None:
        write("file.py", "import sys; sys.exit(0)")
        assert client.finish(spark_python_task=python("/file.py"))["state"]["result_state"] == "SUCCESS"

    def test_inherits_no_future_imports(self, client: Client, write) -> None:
        write("file.py", "def f(x: int): pass\nprint(f.__annotations__)")
        assert client.output(client.finish(spark_python_task=python("/file.py")))["logs"] == "{'x': <class 'int'>}\n"

    def test_import_path_has_no_folder_of_this_package(self, client: Client, write) -> None:
        write("file.py", "import sys; print(*sys.path, sep='\\n')")
        paths = client.output(client.finish(spark_python_task=python("/file.py")))["logs"].split("\n")
        # Else a program that imports `parameters`, say, would get ours.
        assert not [path for path in paths if path.startswith(str(Path(supervisor.__file__).parents[1]))]

    def test_does_not_get_the_servers_environment(self, client: Client, write, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", "secret")
        monkeypatch.setenv("AIRFLOW_DBJOBS_LOCAL_TOKEN", "secret")
        monkeypatch.setenv("LC_ALL", "C.UTF-8")
        write("file.py", "import json, os; print(json.dumps(dict(os.environ)))")
        seen = json.loads(client.output(client.finish(spark_python_task=python("/file.py")))["logs"])
        assert "secret" not in seen.values()
        assert seen["LC_ALL"] == "C.UTF-8"

    @pytest.mark.parametrize(
        "path", ["dbfs:/etl/a.py", "/Workspace/etl/a.py", "file:/etl/a.py", "file:///etl/a.py", "etl/a.py"]
    )
    def test_path_may_have_a_prefix_of_the_cloud(self, client: Client, write, path: str) -> None:
        write("etl/a.py", "print('ran')")
        assert client.finish(spark_python_task=python(path))["state"]["result_state"] == "SUCCESS"


class TestFailure:
    def test_traceback_has_the_users_frames_only(self, client: Client, write) -> None:
        write(
            "boom.py",
            "def f():\n    raise ValueError('no\\nway')\n\ntry:\n    1 / 0\nexcept ZeroDivisionError:\n    f()\n",
        )
        run = client.finish(spark_python_task=python("/boom.py"))
        assert run["state"] == {
            "life_cycle_state": "TERMINATED",
            "result_state": "FAILED",
            "state_message": run["state"]["state_message"],
            "user_cancelled_or_timedout": False,
        }
        output = client.output(run)
        assert output["error"] == "ValueError: no"
        assert "1 / 0" in output["error_trace"]
        assert "boom.py" in output["error_trace"]
        assert "bootstrap" not in output["error_trace"]
        assert output["error_trace"] in output["logs"]

    @pytest.mark.parametrize(
        ("code", "error"),
        [
            ("import sys; sys.exit(3)", "SystemExit: the program exited with code 3"),
            ("import sys; sys.exit('bad input')", "SystemExit: bad input"),
            ("import os; os._exit(4)", "The program exited with code 4"),
            ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "The program was killed by SIGSEGV"),
            ("def broken(:", "SyntaxError: invalid syntax (file.py, line 1)"),
        ],
    )
    def test_error_names_the_cause(self, client: Client, write, code: str, error: str) -> None:
        write("file.py", code)
        run = client.finish(spark_python_task=python("/file.py"))
        assert run["state"]["result_state"] == "FAILED"
        assert client.output(run)["error"] == error

    def test_task_type_that_needs_a_jvm(self, client: Client) -> None:
        run = client.finish(spark_jar_task={"main_class_name": "com.example.Main"})
        assert run["state"]["life_cycle_state"] == "INTERNAL_ERROR"
        assert "A spark_jar_task needs Apache Spark with its JARs and Java" in run["state"]["state_message"]

    def test_jar_without_a_class_is_refused(self, client: Client) -> None:
        error = client.refused("POST", "runs/submit", {"spark_jar_task": {"parameters": ["a"]}})
        assert "main_class_name" in error["message"]

    def test_huge_error_is_shortened(self, client: Client, write, root: Path) -> None:
        write("file.py", "raise ValueError('begin' + 'x' * 10_000_000 + 'end')")
        run = client.finish(spark_python_task=python("/file.py"))
        output = client.output(run)
        assert output["error"].startswith("ValueError: begin")
        assert "characters omitted]" in output["error"]
        assert output["error_trace"].rstrip().endswith("end")
        result = root / ".airflow_dbjobs" / "runs" / str(run["tasks"][0]["run_id"]) / "result.json"
        assert result.stat().st_size < 2_000_000


class TestPath:
    @pytest.mark.parametrize("path", ["/../outside.py", "../outside.py", "/link.py", "/.airflow_dbjobs/token.py"])
    def test_outside_the_root_is_refused(self, client: Client, root, write, path: str) -> None:
        for outside in (root.parent / "outside.py", root / ".airflow_dbjobs" / "token.py"):
            outside.write_text(f"open({str(root / 'proof')!r}, 'w')")
        (root / "link.py").symlink_to(root.parent / "outside.py")
        run = client.finish(spark_python_task=python(path))
        assert run["state"]["life_cycle_state"] == "INTERNAL_ERROR"
        assert run["state"]["result_state"] == "FAILED"
        assert "outside the root" in run["state"]["state_message"]
        assert run["status"]["termination_details"]["code"] == "RESOURCE_NOT_FOUND"
        assert not (root / "proof").exists()

    @pytest.mark.parametrize("path", ["/missing.py", "/", "/nul\0.py", "/circle.py", "/" + "x" * 254, "/" + "x" * 5000])
    @pytest.mark.parametrize("kind", ["python", "notebook"])
    def test_missing_file_is_an_internal_error(self, client: Client, root, kind: str, path: str) -> None:
        (root / "circle.py").symlink_to(root / "circle.py")
        payload = (
            {"spark_python_task": python(path)} if kind == "python" else {"notebook_task": {"notebook_path": path}}
        )
        run = client.finish(**payload)
        assert run["state"]["life_cycle_state"] == "INTERNAL_ERROR"
        assert run["state"]["result_state"] == "FAILED"
        assert run["state"]["state_message"] == f"{path!r} was not found under the root folder of the local workspace."
        assert run["status"]["termination_details"]["code"] == "RESOURCE_NOT_FOUND"
        task = run["tasks"][0]
        assert client.send("GET", task["run_page_url"].removeprefix(client.base_url)).status_code == 200


class TestLog:
    def test_is_readable_while_the_program_runs(self, client: Client, write) -> None:
        write("file.py", "import time; print('begun'); time.sleep(60)")
        run_id = client.submit(spark_python_task=python("/file.py"))
        task = client.wait_for(run_id, "RUNNING")["tasks"][0]["run_id"]
        eventually(lambda: client.get("runs/get-output", run_id=task)["logs"] == "begun\n")

    def test_end_of_a_long_log_is_returned(self, client: Client, write) -> None:
        write("file.py", "import sys; sys.stdout.write('x' * 6 * 1024 * 1024 + 'end')")
        output = client.output(client.finish(spark_python_task=python("/file.py")))
        assert len(output["logs"]) == 5 * 1024 * 1024
        assert output["logs"].endswith("end")
        assert output["logs_truncated"] is True


class TestChildProcesses:
    def test_end_with_the_program(self, client: Client, write, root) -> None:
        write(
            "file.py",
            """
            import subprocess, sys
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
            print(child.pid)
            """,
        )
        output = client.output(client.finish(spark_python_task=python("/file.py")))
        stat = f"/proc/{int(output['logs'])}/stat"

        def gone() -> bool:
            try:
                with open(stat) as file:  # noqa: PTH123 - a path of the system
                    return file.read().split()[2] == "Z"
            except FileNotFoundError:
                return True

        eventually(gone)

    def test_do_not_delay_the_end_of_the_run(self, client: Client, write) -> None:
        write("closed.py", "import os, time; os.close(1); os.close(2); time.sleep(.2); os._exit(5)")
        assert client.output(client.finish(spark_python_task=python("/closed.py")))["error"].endswith("code 5")
        write(
            "handed_on.py",
            """
            import subprocess, sys
            code = "import time; time.sleep(60)"
            print(subprocess.Popen([sys.executable, "-c", code], start_new_session=True).pid)
            """,
        )
        run = client.finish(spark_python_task=python("/handed_on.py"))
        assert run["state"]["result_state"] == "SUCCESS"
        os.kill(int(client.output(run)["logs"]), signal.SIGKILL)


class TestLogLimit:
    LIMIT = supervisor.MAX_LOG_BYTES

    def size(self, root: Path, task: dict[str, object]) -> int:
        return (root / ".airflow_dbjobs" / "runs" / str(task["run_id"]) / "log.txt").stat().st_size

    @pytest.mark.parametrize("stream", ["stdout", "stderr"])
    def test_keeps_the_beginning_and_the_end(self, client: Client, write, root: Path, stream: str) -> None:
        write(
            "file.py", f"import sys\nfor n in range(40_000): sys.{stream}.write(f'{{n}} '.ljust(1023) + '\\n')\n1 / 0"
        )
        run = client.finish(spark_python_task=python("/file.py"))
        output = client.output(run)
        assert "[The local workspace keeps the first 32 MB" in output["logs"]
        assert " bytes omitted]" in output["logs"]
        assert "\n39999 " in output["logs"]
        assert output["logs"].endswith("ZeroDivisionError: division by zero\n")
        assert self.LIMIT < self.size(root, run["tasks"][0]) < 1.1 * self.LIMIT

    def test_includes_what_a_notebook_starts(self, client: Client, notebook, root: Path) -> None:
        notebook("child", "print('x' * 30_000_000)")
        notebook("main", "import os\ndbutils.notebook.run('/child', 0)\nos.system('yes | head -c 30000000')")
        run = client.finish(notebook_task={"notebook_path": "/main"})
        assert run["state"]["result_state"] == "SUCCESS"
        assert self.LIMIT < self.size(root, run["tasks"][0]) < 1.1 * self.LIMIT

    def test_endless_output_can_be_cancelled(self, client: Client, write, root: Path) -> None:
        write("file.py", "while True: print('x' * 100_000)")
        run_id = client.submit(spark_python_task=python("/file.py"))
        task = client.wait_for(run_id, "RUNNING")["tasks"][0]
        eventually(lambda: self.size(root, task) > self.LIMIT)
        client.post("runs/cancel", run_id=run_id)
        assert client.wait_for(run_id)["state"]["result_state"] == "CANCELED"
        assert self.size(root, task) < 1.1 * self.LIMIT


class TestKilledSupervisor:
    @pytest.mark.parametrize("kind", ["python", "notebook"])
    def test_program_and_its_children_end(self, client: Client, root: Path, write, notebook, kind: str) -> None:
        sleep = "import os, time\nprint(os.getpid())\ntime.sleep(60)"
        write("child.py", sleep)
        start = "import os, subprocess, sys, time\nprint(os.getpid())\n"
        if kind == "notebook":
            notebook("child", sleep)
            notebook("main", f"{start}dbutils.notebook.run('/child', 0)")
            run_id = client.submit(notebook_task={"notebook_path": "/main"})
        else:
            # This program ignores SIGTERM.
            deaf = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
            write("main.py", f"{deaf}{start}subprocess.run([sys.executable, 'child.py'])")
            run_id = client.submit(spark_python_task=python("/main.py"))
        task = client.wait_for(run_id, "RUNNING")["tasks"][0]["run_id"]
        folder = root / ".airflow_dbjobs" / "runs" / str(task)
        pids = eventually(lambda: found if len(found := (folder / "log.txt").read_text().split()) == 2 else None)
        os.kill(int((folder / "pid").read_text()), signal.SIGKILL)
        assert "vanished" in client.wait_for(run_id)["state"]["state_message"]
        eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "the programs being gone")

    def test_pid_may_be_reused_and_is_not_signalled(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = tmp_path / "7"
        folder.mkdir()
        (folder / "lock").touch()
        (folder / "pid").write_text(str(os.getpid()))
        signalled: list[int] = []
        monkeypatch.setattr(os, "kill", lambda pid, _: signalled.append(pid))
        Executor(tmp_path, tmp_path).stop(TaskRun(7, 6, "a", {}, 0))
        assert signalled == []


class TestBugInAdvancingARun:
    def test_does_not_affect_other_runs(
        self, client: Client, workspace: LocalWorkspace, write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write("file.py", "")
        monkeypatch.setattr("airflow_dbjobs.local_workspace.engine.parameters.condition_outcome", lambda _: 1 / 0)
        bad = client.submit(tasks=[{"task_key": "a", "condition_task": {"op": "EQUAL_TO", "left": "1", "right": "1"}}])
        good = client.submit(spark_python_task=python("/file.py"))
        assert client.wait_for(good)["state"]["result_state"] == "SUCCESS"
        assert "see its log" in client.wait_for(bad)["state"]["state_message"]

    def test_stops_the_programs_of_the_run(self, root, write, monkeypatch: pytest.MonkeyPatch) -> None:
        write("sleep.py", "import os, time; print(os.getpid()); time.sleep(60)")
        with LocalWorkspace(root, token=TOKEN) as workspace:
            client = mounted(workspace)
            inner = client.post("create", spark_python_task=python("/sleep.py"))["job_id"]
            tasks = [
                {"task_key": "sleep", "spark_python_task": python("/sleep.py")},
                {"task_key": "job", "run_job_task": {"job_id": inner}},
                {"task_key": "later", "depends_on": [{"task_key": "sleep"}], "spark_python_task": python("/sleep.py")},
            ]
            bad = client.submit(tasks=tasks)
            task = client.wait_for(bad, "RUNNING")["tasks"][0]["run_id"]
            pid = int(eventually(lambda: client.get("runs/get-output", run_id=task)["logs"]))
            (child,) = (run["run_id"] for run in client.get("runs/list", job_id=inner)["runs"])
            poll = workspace._executor.poll

            def break_(item: TaskRun) -> State | None:
                return poll(item) if item.run_id != task else 1 / 0

            monkeypatch.setattr(workspace._executor, "poll", break_)
            run = client.wait_for(bad)
            assert run["state"]["life_cycle_state"] == "INTERNAL_ERROR"
            assert [item["state"]["life_cycle_state"] for item in run["tasks"]] == ["INTERNAL_ERROR"] * 3
            assert client.wait_for(child)["state"]["result_state"] == "CANCELED"
            eventually(lambda: not Path(f"/proc/{pid}").exists(), "the program being gone")


class TestParallelTasks:
    def test_many_tasks_run(self, client: Client, write) -> None:
        write("file.py", "")
        tasks = [{"task_key": f"t{i}", "spark_python_task": python("/file.py")} for i in range(20)]
        assert client.finish(tasks=tasks)["state"]["result_state"] == "SUCCESS"

    def test_tasks_beyond_the_limit_wait(self, root, write) -> None:
        write("file.py", "import pathlib, time\nwhile not pathlib.Path('go').exists(): time.sleep(.01)")
        with LocalWorkspace(root, token=TOKEN, max_parallel_tasks=1) as ws:
            client = mounted(ws)
            first, second = (client.submit(spark_python_task=python("/file.py")) for _ in range(2))
            client.wait_for(first, "RUNNING")
            assert client.life(second) == "PENDING"
            write("go", "")
            assert client.wait_for(second)["state"]["result_state"] == "SUCCESS"
