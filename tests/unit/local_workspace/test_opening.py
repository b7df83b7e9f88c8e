"""Opening a workspace: each problem is one message, and secrets stay private."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from airflow_dbjobs.local_workspace import LocalWorkspace, __main__
from airflow_dbjobs.local_workspace.state.folder import WorkspaceError, kept_secret, state_folder

from .conftest import mounted
from .support import TOKEN


class TestRefusals:
    @pytest.fixture(autouse=True)
    def _serving_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("airflow_dbjobs.local_workspace.http.server.serve", lambda *_: pytest.fail("it serves"))

    def refusal(self, capsys: pytest.CaptureFixture[str], *options: str) -> str:
        assert __main__.main(options) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        return err

    def test_missing_root(self, capsys, tmp_path: Path) -> None:
        assert "is not a folder" in self.refusal(capsys, "--root", str(tmp_path / "missing"), "--port", "0")

    def test_host_that_others_can_reach(self, capsys, root: Path) -> None:
        for host in ("0.0.0.0", "192.168.0.1", "example.org"):
            assert "only this machine may connect" in self.refusal(capsys, "--root", str(root), "--host", host)

    def test_unknown_loopback_host(self, capsys, root: Path) -> None:
        for host in ("127.0.0.2", "[::1]", "0:0:0:0:0:0:0:1"):
            refusal = self.refusal(capsys, "--root", str(root), "--host", host)
            assert "not one of 127.0.0.1, localhost, ::1" in refusal

    def test_empty_token_file(self, capsys, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(__main__.TOKEN_VARIABLE, raising=False)
        (root / ".airflow_dbjobs").mkdir(0o700)
        (root / ".airflow_dbjobs" / "token").touch()
        assert "token is empty; remove it" in self.refusal(capsys, "--root", str(root), "--port", "0")

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            (["--target", "prod"], "--target prod is that of a bundle: name the bundle with --jobs"),
            (["--target", "prod", "--jobs", "JOB"], "--target prod is that of a bundle"),
            (["--job-id", "a=1"], "--job-id names a; the jobs of the files are: none; name them with --jobs"),
            (["--spark", "none", "--spark-catalogs", "dev,prod"], "--spark-catalogs dev, prod needs Spark"),
            (["--simulate", "1", "--spark-catalogs", "dev"], "--spark-catalogs dev needs Spark"),
            (["--simulate", "1", "--spark", "sail"], "leave out --simulate or --spark sail"),
        ],
    )
    def test_options_without_effect(self, capsys, root: Path, options: list[str], expected: str) -> None:
        (root / "job.json").write_text('{"name": "a"}')
        options = [str(root / "job.json") if option == "JOB" else option for option in options]
        assert expected in self.refusal(capsys, "--root", str(root), "--port", "0", *options)

    def test_two_ids_of_one_job(self, capsys, root: Path) -> None:
        with pytest.raises(SystemExit):
            __main__.main(["--root", str(root), "--job-id", "a=1", "--job-id", "a=2"])
        assert "argument --job-id: give each job one id" in capsys.readouterr().err

    def test_port_in_use(self, capsys, root: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            assert f"Port {port}" in self.refusal(capsys, "--root", str(root), "--port", str(port))

    @pytest.mark.parametrize("port", ["65536", "-1", str(10**30)])
    def test_invalid_port(self, capsys, root: Path, port: str) -> None:
        assert "between 0 and 65535" in self.refusal(capsys, "--root", str(root), f"--port={port}")

    def test_no_parallel_tasks(self, capsys, root: Path) -> None:
        refusal = self.refusal(capsys, "--root", str(root), "--port", "0", "--max-parallel-tasks", "0")
        assert "max_parallel_tasks must be at least 1" in refusal

    def test_token_that_no_header_can_hold(self, capsys, root: Path) -> None:
        for token in ("t\u00f6ken", "two\nlines"):
            refusal = self.refusal(capsys, "--root", str(root), "--port", "0", "--token", token)
            assert "HTTP header" in refusal
            assert token not in refusal

    def test_root_is_a_file(self, capsys, root: Path) -> None:
        (root / "file").touch()
        assert "is not a folder" in self.refusal(capsys, "--root", str(root / "file"), "--port", "0")

    @pytest.mark.parametrize("method", ["mkdir", "is_dir"])
    def test_root_without_permission(self, capsys, root: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
        # As root, under which tests may run, everything is writable.
        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, method, refuse)
        refusal = self.refusal(capsys, "--root", str(root), "--port", "0")
        assert str(root) in refusal
        assert "Permission denied" in refusal

    @pytest.mark.parametrize("name", ["", "lock", "token", "page-key", "workspace.sqlite3"])
    def test_folder_in_place_of_a_state_file(
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

    def test_state_file_is_not_a_database(self, capsys, root: Path) -> None:
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
    def test_state_file_has_invalid_records(self, capsys, root: Path, table: str, record: str) -> None:
        with LocalWorkspace(root, token=TOKEN) as workspace:
            workspace._store._db.execute(f"INSERT INTO {table} VALUES (1, ?)", (record,))
        refusal = self.refusal(capsys, "--root", str(root), "--port", "0", "--token", TOKEN)
        assert "workspace.sqlite3" in refusal

    def test_token_file_is_not_text(self, capsys, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(__main__.TOKEN_VARIABLE, raising=False)
        (root / ".airflow_dbjobs").mkdir(0o700)
        (root / ".airflow_dbjobs" / "token").write_bytes(b"\xff\xfe")
        assert "token" in self.refusal(capsys, "--root", str(root), "--port", "0")

    def test_root_is_open(self, capsys, root: Path) -> None:
        with LocalWorkspace(root, token=TOKEN):
            assert "Another local workspace" in self.refusal(capsys, "--root", str(root), "--port", "0")
            with pytest.raises(WorkspaceError):
                LocalWorkspace(root, token=TOKEN)

    def test_missing_extra(self, capsys, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
        assert "airflow-dbjobs[local]" in self.refusal(capsys, "--root", str(root))


class TestExistingStateFolder:
    @pytest.fixture
    def state(self, root: Path) -> Path:
        folder = root / ".airflow_dbjobs"
        folder.mkdir()
        return folder

    @pytest.mark.parametrize("mode", [0o777, 0o755, 0o710, 0o701])
    def test_is_closed_to_others(self, root: Path, state: Path, mode: int) -> None:
        state.chmod(mode)
        with LocalWorkspace(root, token=TOKEN):
            assert stat.S_IMODE(state.stat().st_mode) == 0o700

    @pytest.mark.parametrize("name", ["token", "page-key"])
    def test_readable_secret_is_replaced(self, root: Path, state: Path, name: str) -> None:
        (state / name).write_text("known to all")
        for folder_mode, file_mode, kept in ((0o777, 0o600, True), (0o700, 0o644, True), (0o755, 0o644, False)):
            (state / name).chmod(file_mode)
            state.chmod(folder_mode)
            assert (kept_secret(state_folder(root), name) == "known to all") is kept
        assert stat.S_IMODE((state / name).stat().st_mode) == 0o600

    def test_refused_if_it_belongs_to_somebody_else(
        self, root: Path, state: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: state.stat().st_uid + 1)
        with pytest.raises(WorkspaceError, match="belongs to another user"):
            LocalWorkspace(root, token=TOKEN)

    def test_refused_with_a_file_of_somebody_else(
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
        with pytest.raises(WorkspaceError, match=r"workspace\.sqlite3 in it belongs to one of them"):
            LocalWorkspace(root, token=TOKEN)

    def test_refused_if_it_cannot_be_closed(self, root: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        state.chmod(0o777)
        monkeypatch.setattr(Path, "chmod", lambda *_: None)
        with pytest.raises(WorkspaceError, match="keeps no permissions"):
            LocalWorkspace(root, token=TOKEN)


class TestToken:
    def test_is_private_and_survives_a_restart(self, root: Path) -> None:
        (root / ".airflow_dbjobs").mkdir()
        token = kept_secret(root / ".airflow_dbjobs", "token")
        assert len(token) >= 32
        assert kept_secret(root / ".airflow_dbjobs", "token") == token
        (file,) = (root / ".airflow_dbjobs").iterdir()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600

    def test_is_written_completely_or_not_at_all(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def die(_: int) -> str:
            raise KeyboardInterrupt

        monkeypatch.setattr("secrets.token_hex", die)
        with pytest.raises(KeyboardInterrupt):
            kept_secret(root, "token")
        assert not (root / "token").exists()

        def lose_the_race(_: int) -> str:
            (root / "token").write_text("of the other server")
            return "late"

        monkeypatch.setattr("secrets.token_hex", lose_the_race)
        assert kept_secret(root, "token") == "of the other server"

    @pytest.mark.parametrize("token", ["", " "])
    def test_must_not_be_empty(self, root: Path, token: str) -> None:
        with pytest.raises(WorkspaceError, match="token is empty"):
            LocalWorkspace(root, token=token)
