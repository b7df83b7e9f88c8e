"""The server's certificate: made once, again before it expires, and its key is for its owner only."""

from __future__ import annotations

import socket
import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import requests
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from airflow_dbjobs.local_workspace import LocalWorkspace, __main__
from airflow_dbjobs.local_workspace.state.certificate import kept_certificate
from airflow_dbjobs.local_workspace.state.folder import WorkspaceError, state_folder

from .support import TOKEN, Client

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Start

NOW = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture
def folder(root: Path) -> Path:
    return state_folder(root)


def made(folder: Path, days: int = 0) -> bytes:
    certificate, key = kept_certificate(folder, NOW + timedelta(days=days))
    # They belong together.
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    assert key.stat().st_mode & 0o777 == 0o600
    return certificate.read_bytes()


def test_is_kept_until_it_is_about_to_expire(folder: Path) -> None:
    first = made(folder)
    assert made(folder, 360) == first
    assert made(folder, 370) != first


@pytest.mark.parametrize("damage", ["", "no certificate"])
@pytest.mark.parametrize("name", ["tls-certificate.pem", "tls-key.pem"])
def test_is_made_again_if_it_is_damaged(folder: Path, name: str, damage: str) -> None:
    first = made(folder)
    (folder / name).write_text(damage)
    assert made(folder) != first


def test_is_made_again_if_its_key_has_a_password(folder: Path) -> None:
    first = made(folder)
    key = load_pem_private_key((folder / "tls-key.pem").read_bytes(), None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    (folder / "tls-key.pem").write_bytes(locked)
    assert made(folder) != first


def test_is_made_again_if_its_key_belongs_to_another(folder: Path, tmp_path: Path) -> None:
    first = made(folder)
    made(tmp_path)
    (tmp_path / "tls-key.pem").rename(folder / "tls-key.pem")
    assert made(folder) != first


def test_is_made_again_if_others_could_read_its_key(root: Path, folder: Path) -> None:
    first = made(folder)
    folder.chmod(0o755)
    (folder / "tls-key.pem").chmod(0o644)
    state_folder(root)
    assert made(folder) != first


def test_that_cannot_be_written_is_one_message(
    root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "tls-certificate.pem").mkdir()
    with pytest.raises(WorkspaceError, match="cannot be kept in"):
        kept_certificate(folder)
    monkeypatch.setattr("airflow_dbjobs.local_workspace.http.server.serve", lambda *_: pytest.fail("it serves"))
    assert __main__.main(["--root", str(root), "--port", "0", "--tls"]) == 2
    assert "Is a directory" in capsys.readouterr().err
    # Nothing is left open.
    LocalWorkspace(root, token=TOKEN).close()


def test_the_server_speaks_tls_and_only_for_its_names(start: Start, root: Path) -> None:
    server, client = start("--tls")
    assert client.base_url.startswith("https://127.0.0.1:")
    assert client.get("list") == {}
    assert client.session.verify == str(root.resolve() / ".airflow_dbjobs" / "tls-certificate.pem")
    localhost = Client(client.base_url.replace("127.0.0.1", "localhost"))
    localhost.session.verify = client.session.verify
    assert localhost.get("list") == {}
    # Strict verification, as Python has it from 3.13 on.
    context = ssl.create_default_context(cafile=client.session.verify)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    host, port = client.base_url.removeprefix("https://").split(":")
    with (
        socket.create_connection((host, int(port))) as raw,
        context.wrap_socket(raw, server_hostname="::1") as secure,
    ):
        assert secure.version() == "TLSv1.3"
    client.post("/api/local/faults", operation="list", cut="after")
    with pytest.raises(requests.exceptions.ConnectionError):
        client.send("GET", "list")
    with pytest.raises(requests.exceptions.SSLError, match="self-signed"):
        requests.get(client.base_url, timeout=20, verify=True)
    with pytest.raises(requests.exceptions.ConnectionError):
        requests.get(client.base_url.replace("https", "http"), timeout=20)
    server.terminate()
    assert server.wait(10) == 0
    assert server.stderr.read() == ""
