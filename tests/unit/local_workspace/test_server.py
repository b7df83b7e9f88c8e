"""The server process: its command line and socket, restarts, and failures of the system."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests

from airflow_dbjobs.local_workspace import LocalWorkspace
from airflow_dbjobs.local_workspace.failure_log import FailureLog

from .conftest import mounted
from .support import DEADLINE, TOKEN, Client, eventually

if TYPE_CHECKING:
    from .conftest import Start


class TestServer:
    def test_serves_a_run(self, start: Start, write) -> None:
        write("file.py", "print('ran')")
        server, client = start()
        run = client.finish(spark_python_task={"python_file": "/file.py"})
        assert client.output(run)["logs"] == "ran\n"
        assert run["run_page_url"].startswith(client.base_url + "/jobs/")
        with requests.Session() as browser:
            assert "ran" in browser.get(run["run_page_url"]).text
            assert browser.get(run["run_page_url"].partition("?")[0]).status_code == 403
        assert client.send("GET", "list").headers["Date"].endswith("GMT")
        server.terminate()
        assert server.wait(10) == 0
        assert server.stderr.read() == ""

    def test_simulates_and_announces_it(self, start: Start) -> None:
        server, client = start(
            "--simulate", "0.2", "--max-page", "3", announced=["Tasks are simulated: each takes 0.2 s"]
        )
        run = client.finish(spark_python_task={"python_file": "/missing.py"})
        assert run["state"]["result_state"] == "SUCCESS"
        assert run["execution_duration"] >= 200
        ids = client.post("/api/local/runs", count=4, seconds=600)["run_ids"]
        assert [run["run_id"] for run in client.get("runs/list", version="2.0", limit=0)["runs"]] == ids[:0:-1]
        client.post("/api/local/end-runs", run_ids=ids[:1])
        assert client.life(ids[0]) == "TERMINATED"
        server.terminate()
        assert server.wait(10) == 0
        assert server.stderr.read() == ""

    @pytest.mark.parametrize("cut", ["before", "after"])
    def test_cut_drops_the_connection(self, start: Start, cut: str) -> None:
        server, client = start()
        client.post("/api/local/faults", operation="runs/submit", cut=cut)
        with pytest.raises(requests.exceptions.ConnectionError):
            client.send("POST", "runs/submit", json={"spark_python_task": {"python_file": "/x.py"}})
        assert len(client.get("runs/list").get("runs", [])) == (cut == "after")
        server.terminate()
        assert server.communicate()[1] == ""

    def test_hang_delays_the_reply(self, start: Start) -> None:
        _, client = start()
        client.post("/api/local/faults", operation="list", hang=5)
        with pytest.raises(requests.exceptions.ReadTimeout):
            client.send("GET", "list", timeout=0.2)
        assert client.send("GET", "list").status_code == 200

    def test_other_host_names_are_refused(self, start: Start) -> None:
        _, client = start()
        response = client.send("GET", "list", headers={"Host": "evil.example:80"})
        assert response.status_code == 403
        for name in ("localhost", "127.0.0.1:99", "[::1]:80"):
            assert client.send("GET", "list", headers={"Host": name}).status_code == 200

    def test_body_beyond_10_mb_is_refused(self, start: Start) -> None:
        _, client = start()
        assert client.send("POST", "create", data=b" " * (10 * 1024 * 1024 + 1)).status_code == 400

    @pytest.mark.parametrize(("host", "announced"), [("::1", "[::1]"), ("localhost", "127.0.0.1")])
    def test_announces_a_valid_url(self, start: Start, host: str, announced: str) -> None:
        _, client = start("--host", host)
        assert client.base_url.startswith(f"http://{announced}:")
        run_id = client.submit(spark_python_task={"python_file": "/missing.py"})
        assert client.get("runs/get", run_id=run_id)["run_page_url"].startswith(f"{client.base_url}/jobs/")

    def test_cut_after_the_client_has_left(self, start: Start) -> None:
        server, client = start()
        client.post("/api/local/faults", operation="list", cut="after", hang=0.3)
        with pytest.raises(requests.exceptions.ReadTimeout):
            client.send("GET", "list", timeout=0.1)
        client.post("/api/local/faults", operation="list", cut="after", hang=0.4)
        with pytest.raises(requests.exceptions.ConnectionError):
            client.send("GET", "list")
        server.terminate()
        assert server.communicate()[1] == ""


class TestRestart:
    def test_runs_survive_a_killed_server(self, start: Start, root: Path, write) -> None:
        write(
            "file.py",
            """
            import pathlib, time
            print('begun')
            while not pathlib.Path('go').exists(): time.sleep(.01)
            print('done')
            """,
        )
        write("sleep.py", "import time; time.sleep(60)")
        server, client = start()
        here, away, lost, late, stopped = (
            client.submit(spark_python_task={"python_file": "/file.py"}) for _ in range(5)
        )
        client.submit(idempotency_token="tok", spark_python_task={"python_file": "/missing.py"})
        tasks = {
            run: client.wait_for(run, "RUNNING")["tasks"][0]["run_id"] for run in (here, away, lost, late, stopped)
        }
        pids = {}
        for run, task in tasks.items():
            eventually(lambda task=task: client.get("runs/get-output", run_id=task)["logs"] == "begun\n")
            pids[run] = int((root / ".airflow_dbjobs" / "runs" / str(task) / "pid").read_text())
        client.post("runs/cancel", run_id=stopped)
        server.kill()
        server.wait()
        os.kill(pids[lost], 9)

        server, client = start()
        assert client.wait_for(lost)["state"]["life_cycle_state"] == "INTERNAL_ERROR"
        assert "vanished" in client.wait_for(lost)["state"]["state_message"]
        assert client.wait_for(stopped)["state"]["result_state"] == "CANCELED"
        assert client.life(here) == "RUNNING"
        client.post("runs/cancel", run_id=late)
        assert client.wait_for(late)["state"]["result_state"] == "CANCELED"
        server.terminate()
        assert server.wait(10) == 0

        write("go", "")
        eventually(lambda: not Path(f"/proc/{pids[away]}").exists())
        _, client = start()
        for run in (here, away):
            ended = client.wait_for(run)
            assert ended["state"]["result_state"] == "SUCCESS"
            assert client.output(ended)["logs"] == "begun\ndone\n"
            assert ended["tasks"][0]["attempt_number"] == 0
        repeated = client.submit(idempotency_token="tok", spark_python_task={"python_file": "/file.py"})
        assert repeated < client.submit(spark_python_task={"python_file": "/file.py"})
        assert client.wait_for(repeated)["state"]["life_cycle_state"] == "INTERNAL_ERROR"

    def test_lost_start_is_repeated_once(self, root: Path, write, monkeypatch: pytest.MonkeyPatch) -> None:
        write("file.py", "open('proof', 'a').write('x')")
        first = LocalWorkspace(root, token=TOKEN)
        run_id = mounted(first).submit(spark_python_task={"python_file": "/file.py"})
        monkeypatch.setattr(first._executor, "start", lambda *_: None)
        first.tick()
        assert mounted(first).life(run_id) == "RUNNING"
        first.close()
        with LocalWorkspace(root, token=TOKEN) as second:
            assert mounted(second).wait_for(run_id)["state"]["result_state"] == "SUCCESS"
        assert (root / "proof").read_text() == "x"

    def test_ids_are_not_reused(self, root: Path) -> None:
        with LocalWorkspace(root, token=TOKEN) as workspace:
            client = mounted(workspace)
            last = client.finish(spark_python_task={"python_file": "/missing.py"})["tasks"][0]["run_id"]
            client.post("runs/delete", run_id=client.get("runs/list")["runs"][0]["run_id"])
        with LocalWorkspace(root, token=TOKEN) as workspace:
            assert mounted(workspace).submit(spark_python_task={"python_file": "/missing.py"}) > last


class TestSystemFailure:
    def test_supervisor_cannot_start(self, root: Path, write, monkeypatch: pytest.MonkeyPatch) -> None:
        write("file.py", "")
        monkeypatch.setattr(sys, "executable", "/bin/false")
        with LocalWorkspace(root, token=TOKEN) as workspace:
            run = mounted(workspace).finish(spark_python_task={"python_file": "/file.py"})
            assert run["state"]["life_cycle_state"] == "INTERNAL_ERROR"
            monkeypatch.setattr(sys, "executable", "/nowhere")
            run = mounted(workspace).finish(spark_python_task={"python_file": "/file.py"})
            assert "could not start" in run["state"]["state_message"]

    def test_full_disk_is_logged_once_and_recovers(
        self, root: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("airflow_dbjobs.local_workspace.workspace._RETRY_SECONDS", 0.01)
        with LocalWorkspace(root, token=TOKEN) as workspace:
            client = mounted(workspace)
            with workspace._lock:
                run_id = client.submit(spark_python_task={"python_file": "/missing.py"})
                commit = workspace._store.commit
                failed = []

                def fail() -> None:
                    failed.append(1)
                    raise sqlite3.OperationalError("database or disk is full")

                monkeypatch.setattr(workspace._store, "commit", fail)
            eventually(lambda: len(failed) > 20)
            reply = client.send("POST", "create", json={"name": "x"})
            assert reply.status_code == 500
            assert "database or disk is full" in reply.json()["message"]
            (record,) = [item for item in caplog.records if item.name.startswith("airflow_dbjobs.local_workspace")]
            assert "will retry: database or disk is full" in record.getMessage()
            assert record.exc_info is None
            monkeypatch.setattr(workspace._store, "commit", commit)
            assert client.wait_for(run_id)["state"]["life_cycle_state"] == "INTERNAL_ERROR"

    def test_run_with_damaged_files_ends(self, client: Client, root: Path, write) -> None:
        write("sleep.py", "import time; print('begun'); time.sleep(60)")
        run_id = client.submit(spark_python_task={"python_file": "/sleep.py"})
        task = client.wait_for(run_id, "RUNNING")["tasks"][0]["run_id"]
        folder = root / ".airflow_dbjobs" / "runs" / str(task)
        eventually(lambda: client.get("runs/get-output", run_id=task)["logs"] == "begun\n")
        for name in ("exit.json", "result.json"):
            (folder / name).write_text("")
        assert client.life(run_id) == "RUNNING"
        os.kill(int((folder / "pid").read_text()), signal.SIGKILL)
        assert "vanished" in client.wait_for(run_id)["state"]["state_message"]
        assert client.get("runs/get-output", run_id=task)["logs"] == "begun\n"

    def test_task_folder_cannot_be_created(self, client: Client, root: Path, write) -> None:
        write("file.py", "")
        (root / ".airflow_dbjobs" / "runs").touch()
        run = client.finish(spark_python_task={"python_file": "/file.py"})
        assert "could not start the program" in run["state"]["state_message"]


class TestFailureLog:
    def test_repeats_after_a_minute_with_traceback_for_bugs(
        self,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        now = [0.0]
        failures = FailureLog(lambda: now[0])
        for _ in range(3):
            assert "see its log" in failures.report("A", ZeroDivisionError("by zero"))
            assert "no room" in failures.report("B", OSError("no room"))
        assert [(item.getMessage(), bool(item.exc_info)) for item in caplog.records] == [
            ("A: by zero", True),
            ("B: no room", False),
        ]
        now[0] += 61
        failures.report("A", ZeroDivisionError("by zero"))
        assert len(caplog.records) == 3


class TestClose:
    def test_ends_whenever_it_is_called(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        workspace = LocalWorkspace(root, token=TOKEN)
        clear = workspace._wake.clear

        def clear_what_close_has_set() -> None:
            workspace._closing = True
            workspace._wake.set()
            clear()

        monkeypatch.setattr(workspace._wake, "clear", clear_what_close_has_set)
        workspace.start()
        thread = workspace._thread
        workspace._wake.set()
        thread.join(DEADLINE)
        assert not thread.is_alive()
        workspace.close()


class TestImports:
    def test_shares_no_code_with_the_client(self) -> None:
        code = """
import sys, airflow_dbjobs.local_workspace as package
light = {"requests", "sqlite3", "starlette"} & sys.modules.keys()
package.LocalWorkspace, package.Fault
from airflow_dbjobs.local_workspace.http import adapter, server
ours = "airflow_dbjobs.local_workspace"
alien = [m for m in sys.modules if m.split(".")[0] in ("airflow", "airflow_dbjobs") and not m.startswith(ours)]
print(sorted(light), alien)
"""
        shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
        assert shown == "[] ['airflow_dbjobs']\n"

    def test_a_task_imports_little_of_the_package(self) -> None:
        code = """
import sys, airflow_dbjobs.local_workspace.engine.supervisor
ours = "airflow_dbjobs.local_workspace."
print({"requests", "sqlite3"} & sys.modules.keys(), sorted(m.removeprefix(ours) for m in sys.modules if ours in m))
"""
        shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
        modules = ["bootstrap", "runtime", "runtime.errors", "secrets_file", "supervisor", "task_files"]
        expected = ["engine", *(f"engine.{module}" for module in modules)]
        assert shown == f"set() {expected}\n"
