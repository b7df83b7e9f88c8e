"""The server as a process: its command line, its socket, and that runs outlive it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from airflow_dbjobs.local_workspace import LocalWorkspace, __main__
from airflow_dbjobs.local_workspace.folder import WorkspaceError, kept_secret, state_folder
from airflow_dbjobs.local_workspace.trouble import Trouble

from .conftest import mounted
from .support import DEADLINE, TOKEN, Client, eventually

Start = Callable[..., tuple["subprocess.Popen[str]", Client]]


def command(root: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "airflow_dbjobs.local_workspace", "--root", str(root), *options]


@pytest.fixture
def start(root: Path) -> Iterator[Start]:
    """Return a function that starts a server and returns its process and a client of it."""
    servers = []

    def begin(*options: str, announced: str = "") -> tuple[subprocess.Popen[str], Client]:
        arguments = command(root, "--port", "0", "--token", TOKEN, *options)
        server = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        servers.append(server)
        assert server.stdout is not None
        text = ""
        while "Runs can be seen at" not in text:
            line = server.stdout.readline()
            assert line, server.communicate()
            text += line
        assert announced in text
        connection = json.loads(re.search(r"AIRFLOW_CONN_DATABRICKS_DEFAULT='(.*)'", text)[1])
        assert connection["conn_type"] == "databricks_jobs"
        assert connection["extra"] == {"retry_budget": 20}
        return server, Client(
            f"{connection['schema']}://{connection['host']}:{connection['port']}", token=connection["password"]
        )

    yield begin
    for server in servers:
        server.kill()
        server.communicate()
    # End what the servers have left running on purpose.
    with LocalWorkspace(root, token=TOKEN):
        pass


def test_a_run_over_a_real_socket(start: Start, write) -> None:
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


def test_a_simulating_server_says_so_and_runs_nothing(start: Start) -> None:
    server, client = start(
        "--simulate", "0.2", "--max-page", "3", announced="Nothing is run here: each task takes 0.2 s"
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


def test_runs_outlive_a_server_that_is_killed(start: Start, root: Path, write) -> None:
    write(
        "file.py",
        "import pathlib, time\nprint('begun')\nwhile not pathlib.Path('go').exists(): time.sleep(.01)\nprint('done')",
    )
    write("sleep.py", "import time; time.sleep(60)")
    server, client = start()
    here, away, lost, late, stopped = (client.submit(spark_python_task={"python_file": "/file.py"}) for _ in range(5))
    client.submit(idempotency_token="tok", spark_python_task={"python_file": "/missing.py"})
    tasks = {run: client.wait_for(run, "RUNNING")["tasks"][0]["run_id"] for run in (here, away, lost, late, stopped)}
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


def test_a_start_that_was_noted_but_not_made_is_made_once(root: Path, write, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_supervisor_that_cannot_start_ends_the_run(root: Path, write, monkeypatch: pytest.MonkeyPatch) -> None:
    write("file.py", "")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with LocalWorkspace(root, token=TOKEN) as workspace:
        run = mounted(workspace).finish(spark_python_task={"python_file": "/file.py"})
        assert run["state"]["life_cycle_state"] == "INTERNAL_ERROR"
        monkeypatch.setattr(sys, "executable", "/nowhere")
        run = mounted(workspace).finish(spark_python_task={"python_file": "/file.py"})
        assert "could not start" in run["state"]["state_message"]


def test_ids_are_not_used_again_after_a_restart(root: Path) -> None:
    with LocalWorkspace(root, token=TOKEN) as workspace:
        client = mounted(workspace)
        last = client.finish(spark_python_task={"python_file": "/missing.py"})["tasks"][0]["run_id"]
        client.post("runs/delete", run_id=client.get("runs/list")["runs"][0]["run_id"])
    with LocalWorkspace(root, token=TOKEN) as workspace:
        assert mounted(workspace).submit(spark_python_task={"python_file": "/missing.py"}) > last


@pytest.mark.parametrize("cut", ["before", "after"])
def test_a_cut_connection_is_really_cut(start: Start, cut: str) -> None:
    server, client = start()
    client.post("/api/local/faults", operation="runs/submit", cut=cut)
    with pytest.raises(requests.exceptions.ConnectionError):
        client.send("POST", "runs/submit", json={"spark_python_task": {"python_file": "/x.py"}})
    assert len(client.get("runs/list").get("runs", [])) == (cut == "after")
    server.terminate()
    assert server.communicate()[1] == ""


def test_a_late_reply_is_late(start: Start) -> None:
    _, client = start()
    client.post("/api/local/faults", operation="list", hang=5)
    with pytest.raises(requests.exceptions.ReadTimeout):
        client.send("GET", "list", timeout=0.2)
    assert client.send("GET", "list").status_code == 200


def test_requests_under_another_name_are_refused(start: Start) -> None:
    _, client = start()
    response = client.send("GET", "list", headers={"Host": "evil.example:80"})
    assert response.status_code == 403
    for name in ("localhost", "127.0.0.1:99", "[::1]:80"):
        assert client.send("GET", "list", headers={"Host": name}).status_code == 200


def test_a_body_beyond_10_mb_is_refused(start: Start) -> None:
    _, client = start()
    assert client.send("POST", "create", data=b" " * (10 * 1024 * 1024 + 1)).status_code == 400


class TestRefusals:
    @pytest.fixture(autouse=True)
    def _serving_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("airflow_dbjobs.local_workspace.server.serve", lambda *_: pytest.fail("it serves"))

    def refusal(self, capsys: pytest.CaptureFixture[str], *options: str) -> str:
        assert __main__.main(options) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        return err

    def test_no_root(self, capsys, tmp_path: Path) -> None:
        assert "is not a folder" in self.refusal(capsys, "--root", str(tmp_path / "missing"), "--port", "0")

    def test_a_host_that_others_can_reach(self, capsys, root: Path) -> None:
        for host in ("0.0.0.0", "192.168.0.1", "example.org"):
            assert "only this machine may call" in self.refusal(capsys, "--root", str(root), "--host", host)

    def test_a_host_by_which_no_request_may_call(self, capsys, root: Path) -> None:
        for host in ("127.0.0.2", "[::1]", "0:0:0:0:0:0:0:1"):
            refusal = self.refusal(capsys, "--root", str(root), "--host", host)
            assert "neither 127.0.0.1 nor localhost nor ::1" in refusal

    def test_an_empty_token_file(self, capsys, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(__main__.TOKEN_VARIABLE, raising=False)
        (root / ".airflow_dbjobs").mkdir(0o700)
        (root / ".airflow_dbjobs" / "token").touch()
        assert "token is empty; remove it" in self.refusal(capsys, "--root", str(root), "--port", "0")

    def test_a_port_in_use(self, capsys, root: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            assert f"Port {port}" in self.refusal(capsys, "--root", str(root), "--port", str(port))

    @pytest.mark.parametrize("port", ["65536", "-1", str(10**30)])
    def test_a_port_that_is_none(self, capsys, root: Path, port: str) -> None:
        assert "between 0 and 65535" in self.refusal(capsys, "--root", str(root), f"--port={port}")

    def test_no_room_for_tasks(self, capsys, root: Path) -> None:
        refusal = self.refusal(capsys, "--root", str(root), "--port", "0", "--max-parallel-tasks", "0")
        assert "At least 1 task" in refusal

    def test_a_token_that_no_header_can_hold(self, capsys, root: Path) -> None:
        for token in ("t\u00f6ken", "two\nlines"):
            refusal = self.refusal(capsys, "--root", str(root), "--port", "0", "--token", token)
            assert "HTTP header" in refusal
            assert token not in refusal

    def test_a_root_that_is_a_file(self, capsys, root: Path) -> None:
        (root / "file").touch()
        assert "is not a folder" in self.refusal(capsys, "--root", str(root / "file"), "--port", "0")

    @pytest.mark.parametrize("method", ["mkdir", "is_dir"])
    def test_a_root_that_is_not_ours_to_use(
        self, capsys, root: Path, monkeypatch: pytest.MonkeyPatch, method: str
    ) -> None:
        # As root, under which tests may run, everything is writable.
        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, method, refuse)
        refusal = self.refusal(capsys, "--root", str(root), "--port", "0")
        assert str(root) in refusal
        assert "Permission denied" in refusal

    @pytest.mark.parametrize("name", ["", "lock", "token", "page-key", "workspace.sqlite3"])
    def test_something_else_in_the_place_of_a_file_of_the_state(
        self, capsys, root: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.delenv(__main__.TOKEN_VARIABLE, raising=False)
        state = root / ".airflow_dbjobs"
        if name:
            state.mkdir(0o700)
            (state / name).mkdir()
        else:
            state.touch()
        assert str(state / name) in self.refusal(capsys, "--root", str(root), "--port", "0")

    def test_a_state_file_that_is_none(self, capsys, root: Path) -> None:
        with LocalWorkspace(root, token=TOKEN):
            pass
        state = root / ".airflow_dbjobs" / "workspace.sqlite3"
        state.write_bytes(b"this is no database, and has never been one" * 100)
        for _ in range(2):
            refusal = self.refusal(capsys, "--root", str(root), "--port", "0", "--token", TOKEN)
            assert f"{state} (file is not a database)" in refusal
            assert "move it away" in refusal
        state.unlink()
        with LocalWorkspace(root, token=TOKEN) as workspace:
            assert mounted(workspace).get("list") == {}

    @pytest.mark.parametrize("record", ["{", "[]", "{}", '{"from": "a later version"}', "null"])
    @pytest.mark.parametrize("table", ["jobs", "runs", "task_runs"])
    def test_a_state_file_with_records_that_are_none(self, capsys, root: Path, table: str, record: str) -> None:
        with LocalWorkspace(root, token=TOKEN) as workspace:
            workspace._store._db.execute(f"INSERT INTO {table} VALUES (1, ?)", (record,))
        refusal = self.refusal(capsys, "--root", str(root), "--port", "0", "--token", TOKEN)
        assert "workspace.sqlite3" in refusal

    def test_a_token_file_that_is_no_text(self, capsys, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(__main__.TOKEN_VARIABLE, raising=False)
        (root / ".airflow_dbjobs").mkdir(0o700)
        (root / ".airflow_dbjobs" / "token").write_bytes(b"\xff\xfe")
        assert "token" in self.refusal(capsys, "--root", str(root), "--port", "0")

    def test_a_root_that_is_open(self, capsys, root: Path) -> None:
        with LocalWorkspace(root, token=TOKEN):
            assert "Another local workspace" in self.refusal(capsys, "--root", str(root), "--port", "0")
            with pytest.raises(WorkspaceError):
                LocalWorkspace(root, token=TOKEN)

    def test_a_missing_extra(self, capsys, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
        assert "airflow-dbjobs[local]" in self.refusal(capsys, "--root", str(root))


class TestAStateFolderThatIsThereAlready:
    @pytest.fixture
    def state(self, root: Path) -> Path:
        folder = root / ".airflow_dbjobs"
        folder.mkdir()
        return folder

    @pytest.mark.parametrize("mode", [0o777, 0o755, 0o710, 0o701])
    def test_it_is_closed_to_others(self, root: Path, state: Path, mode: int) -> None:
        state.chmod(mode)
        with LocalWorkspace(root, token=TOKEN):
            assert stat.S_IMODE(state.stat().st_mode) == 0o700

    @pytest.mark.parametrize("name", ["token", "page-key"])
    def test_a_secret_that_others_could_read_in_it_is_made_anew(self, root: Path, state: Path, name: str) -> None:
        (state / name).write_text("known to all")
        for folder_mode, file_mode, kept in ((0o777, 0o600, True), (0o700, 0o644, True), (0o755, 0o644, False)):
            (state / name).chmod(file_mode)
            state.chmod(folder_mode)
            assert (kept_secret(state_folder(root), name) == "known to all") is kept
        assert stat.S_IMODE((state / name).stat().st_mode) == 0o600

    def test_it_is_refused_where_it_belongs_to_somebody_else(
        self, root: Path, state: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: state.stat().st_uid + 1)
        with pytest.raises(WorkspaceError, match="belongs to another user"):
            LocalWorkspace(root, token=TOKEN)

    def test_it_is_refused_where_somebody_else_has_put_something_in(
        self, root: Path, state: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (state / "workspace.sqlite3").touch()
        state.chmod(0o777)
        lstat = Path.lstat

        def of_another(file: Path) -> os.stat_result:
            found = list(lstat(file))
            found[stat.ST_UID] += file.name == "workspace.sqlite3"
            return os.stat_result(found)

        monkeypatch.setattr(Path, "lstat", of_another)
        with pytest.raises(WorkspaceError, match=r"workspace\.sqlite3 in it is not yours"):
            LocalWorkspace(root, token=TOKEN)

    def test_it_is_refused_where_it_cannot_be_closed(
        self, root: Path, state: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        state.chmod(0o777)
        monkeypatch.setattr(Path, "chmod", lambda *_: None)
        with pytest.raises(WorkspaceError, match="keeps no permissions"):
            LocalWorkspace(root, token=TOKEN)


def test_a_full_disk_is_one_message_until_there_is_room_again(
    root: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
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


def test_a_failure_is_told_again_after_a_minute_and_a_mistake_of_ours_with_its_place(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = [0.0]
    trouble = Trouble(lambda: now[0])
    for _ in range(3):
        assert "its log says why" in trouble.tell("A", ZeroDivisionError("by zero"))
        assert "no room" in trouble.tell("B", OSError("no room"))
    assert [(item.getMessage(), bool(item.exc_info)) for item in caplog.records] == [
        ("A: by zero", True),
        ("B: no room", False),
    ]
    now[0] += 61
    trouble.tell("A", ZeroDivisionError("by zero"))
    assert len(caplog.records) == 3


def test_a_run_whose_files_a_power_cut_has_spoilt_ends(client: Client, root: Path, write) -> None:
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


def test_a_task_that_finds_no_place_for_its_files_says_why(client: Client, root: Path, write) -> None:
    write("file.py", "")
    (root / ".airflow_dbjobs" / "runs").touch()
    run = client.finish(spark_python_task={"python_file": "/file.py"})
    assert "could not start the program" in run["state"]["state_message"]


def test_a_made_up_token_is_kept_to_oneself_and_across_restarts(root: Path) -> None:
    (root / ".airflow_dbjobs").mkdir()
    token = kept_secret(root / ".airflow_dbjobs", "token")
    assert len(token) >= 32
    assert kept_secret(root / ".airflow_dbjobs", "token") == token
    (file,) = (root / ".airflow_dbjobs").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_token_is_kept_whole_or_not_at_all(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(_: int) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("secrets.token_urlsafe", die)
    with pytest.raises(KeyboardInterrupt):
        kept_secret(root, "token")
    assert not (root / "token").exists()

    def lose_the_race(_: int) -> str:
        (root / "token").write_text("of the other server")
        return "late"

    monkeypatch.setattr("secrets.token_urlsafe", lose_the_race)
    assert kept_secret(root, "token") == "of the other server"


@pytest.mark.parametrize("token", ["", " "])
def test_a_workspace_does_not_open_without_a_token(root: Path, token: str) -> None:
    with pytest.raises(WorkspaceError, match="token is empty"):
        LocalWorkspace(root, token=token)


def test_closing_at_the_worst_moment_ends(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.parametrize(("host", "announced"), [("::1", "[::1]"), ("localhost", "127.0.0.1")])
def test_every_host_is_announced_as_urls_have_it(start: Start, host: str, announced: str) -> None:
    _, client = start("--host", host)
    assert client.base_url.startswith(f"http://{announced}:")
    run_id = client.submit(spark_python_task={"python_file": "/missing.py"})
    assert client.get("runs/get", run_id=run_id)["run_page_url"].startswith(f"{client.base_url}/jobs/")


def test_the_workspace_shares_no_code_with_the_client_it_stands_against() -> None:
    code = """
import sys, airflow_dbjobs.local_workspace as package
light = {"requests", "sqlite3", "starlette"} & sys.modules.keys()
package.LocalWorkspace, package.Fault
from airflow_dbjobs.local_workspace import adapter, server
ours = "airflow_dbjobs.local_workspace"
alien = [m for m in sys.modules if m.split(".")[0] in ("airflow", "airflow_dbjobs") and not m.startswith(ours)]
print(sorted(light), alien)
"""
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert shown == "[] ['airflow_dbjobs']\n"


def test_a_cut_after_the_client_has_left_harms_nobody(start: Start) -> None:
    server, client = start()
    client.post("/api/local/faults", operation="list", cut="after", hang=0.3)
    with pytest.raises(requests.exceptions.ReadTimeout):
        client.send("GET", "list", timeout=0.1)
    client.post("/api/local/faults", operation="list", cut="after", hang=0.4)
    with pytest.raises(requests.exceptions.ConnectionError):
        client.send("GET", "list")
    server.terminate()
    assert server.communicate()[1] == ""
