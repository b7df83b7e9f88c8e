"""Mistakes in a connection that would send a secret elsewhere, or that look like something else."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from certificates import self_signed
from injected_clock import Clock
from rude_server import reply, serving

from airflow_dbjobs.client import JobsClient, session
from airflow_dbjobs.client.auth import BasicAuth, BearerAuth
from airflow_dbjobs.client.retry import RetryPolicy
from airflow_dbjobs.client.session import Network
from airflow_dbjobs.client.transport import Transport
from airflow_dbjobs.client.workspace import workspace_url
from airflow_dbjobs.errors import CallError, ConfigurationError, RunStillActive, Unauthenticated, WrongProtocol
from airflow_dbjobs.hooks.credentials import choose_auth
from airflow_dbjobs.hooks.extra import network_from

if TYPE_CHECKING:
    from pathlib import Path


class TestHost:
    @pytest.mark.parametrize(
        "host",
        [
            r"https://good.net\.evil.net",
            r"good.net\@evil.net",
            "https://good.net%2eevil.net",
            "https://good.net;evil.net",
            "https://good.net<evil.net",
            "https://good.net\x00.evil.net",
        ],
    )
    def test_that_libraries_read_differently_is_refused(self, host: str) -> None:
        with pytest.raises(ConfigurationError, match="host"):
            workspace_url(host)

    @pytest.mark.parametrize(
        "host", ["adb-1.2.azuredatabricks.net", "under_score.example", "bücher.example", "[::1]", "10.0.0.1"]
    )
    def test_of_any_kind_is_accepted(self, host: str) -> None:
        assert workspace_url(host) == f"https://{host}"


class TestTokenEndpoint:
    @pytest.mark.parametrize("endpoint", [r"https://login.good.net\.evil.net", r"login.good.net\@evil.net"])
    def test_that_libraries_read_differently_is_refused(self, endpoint: str) -> None:
        extra = {"use_default_azure_credential": True, "azure_ad_endpoint": endpoint}
        with pytest.raises(ConfigurationError, match="azure_ad_endpoint must be an https URL"):
            choose_auth(login=None, password=None, extra=extra)

    @pytest.mark.parametrize(
        ("url", "is_taken"),
        [
            ("https://10.0.0.1:6443", True),
            ("http://127.0.0.1:8001", True),
            ("http://localhost:8001", True),
            ("http://10.0.0.1:8001", False),
            ("http://localhost.evil.net", False),
            (r"https://good.net\.evil.net", False),
            ("ftp://10.0.0.1", False),
            ("10.0.0.1", False),
            ("https://", False),
        ],
    )
    def test_of_a_pod_must_be_encrypted(self, url: str, is_taken: bool) -> None:
        def choose() -> object:
            extra = {"federated_k8s": True, "client_id": "c", "k8s_api_url": url}
            return choose_auth(login=None, password=None, extra=extra, workspace="https://x.example")

        if is_taken:
            choose()
            return
        with pytest.raises(ConfigurationError, match="k8s_api_url must be an https URL"):
            choose()


class TestProxy:
    def test_that_libraries_read_differently_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="extra proxies"):
            network_from({"proxies": r"http://good.net\.evil.net:80"})

    def test_of_type_socks_names_the_package_it_needs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(session, "find_spec", lambda _: None)
        transport = Transport(
            "https://x.example", BearerAuth("t"), network=Network(proxies=(("https", "socks5h://p:1"),))
        )
        with pytest.raises(
            ConfigurationError, match=r"GET jobs/list: a SOCKS proxy needs the package PySocks: pip install"
        ):
            transport.call("GET", "2.2/jobs/list", repeatable=True)


class TestPassword:
    @pytest.mark.parametrize(
        ("login", "words"),
        [
            ("11111111-2222-3333-4444-555555555555", "set `auth_type` to `oauth` in the connection's extra"),
            ("me@example.com", "Check the connection's login and password"),
        ],
    )
    def test_that_is_refused_names_what_to_check(self, login: str, words: str) -> None:
        with serving(reply({"message": "no"}, status="401 No")) as server:
            with pytest.raises(Unauthenticated) as caught:
                Transport(server.url, BasicAuth(login, "a-password")).send("GET", "2.2/jobs/list")
            assert words in str(caught.value)
            assert "token" not in str(caught.value)


SAYS_SO = [
    "<html>400 The plain HTTP request was sent to HTTPS port</html>",
    "Client sent an HTTP request to an HTTPS server.\n",
]


class TestPlainHttp:
    @pytest.mark.parametrize("page", SAYS_SO)
    def test_refused_by_a_page_about_https_is_not_retried(self, page: str) -> None:
        with serving(reply(raw=page.encode(), status="400 Bad Request")) as server:
            with pytest.raises(WrongProtocol, match=r"speaks HTTPS, not plain HTTP.*schema"):
                JobsClient(server.url, token="t").list_jobs().__next__()
            assert len(server.requests) == 1

    def test_answered_with_a_tls_alert_is_not_retried(self) -> None:
        with serving(b"\x15\x03\x01\x00\x02\x02\x16\r\n\r\n") as server:
            with pytest.raises(WrongProtocol, match="speaks HTTPS, not plain HTTP"):
                JobsClient(server.url, token="t").list_jobs().__next__()
            assert len(server.requests) == 1

    def test_to_a_silent_https_server_is_recognised(self, tmp_path: Path) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self_signed(tmp_path / "certificate.pem"))
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def serve() -> None:
                while True:
                    try:
                        connection, _ = listener.accept()
                    except OSError:
                        return
                    with suppress(OSError), connection, context.wrap_socket(connection, server_side=True) as secure:
                        secure.recv(1)

            threading.Thread(target=serve, daemon=True).start()
            client = JobsClient(f"http://127.0.0.1:{listener.getsockname()[1]}", token="t")
            with pytest.raises(WrongProtocol, match="speaks HTTPS, not plain HTTP") as caught:
                client.run_now({"job_id": 1, "idempotency_token": "one"})
            assert (caught.value.sent, caught.value.unclear) == (False, False)

    def test_server_that_breaks_off_is_retried(self) -> None:
        def answer(_: str) -> list[bytes]:
            if len(server.requests) < 3:
                raise ConnectionAbortedError
            return [reply({"jobs": []})]

        with serving(answer) as server:
            assert list(JobsClient(server.url, token="t", retry=RetryPolicy(first_wait=0.01)).list_jobs()) == []


class TestClient:
    @pytest.mark.parametrize("method", ["run_now", "submit_run", "create_job", "repair_run"])
    @pytest.mark.parametrize("body", [5, "5", None, [5]])
    def test_rejects_a_body_that_is_no_object(self, method: str, body: Any) -> None:
        with pytest.raises(TypeError, match=r"must be a mapping, as in run_now\({'job_id': 5}\), not "):
            getattr(JobsClient("https://x.example", token="t"), method)(body)

    def test_waits_for_a_run(self) -> None:
        states = iter(["PENDING", "RUNNING"])
        over = {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"}

        def answer(_: str) -> list[bytes]:
            state = next(states, None)
            return [reply({"run_id": 5, "state": {"life_cycle_state": state} if state else over})]

        with serving(answer) as server:
            client, clock = JobsClient(server.url, token="t"), Clock()
            clock.rule(client)
            assert client.wait_for_run(5, timeout=60).state.is_success
            assert len(clock.waits) == 2

    @pytest.mark.parametrize("status", ["200 OK", "503 Down"])
    def test_waits_no_longer_than_its_limit(self, status: str) -> None:
        with serving(reply({"run_id": 5, "state": {"life_cycle_state": "RUNNING"}}, status=status)) as server:
            client, clock = JobsClient(server.url, token="t"), Clock()
            clock.rule(client)
            with pytest.raises(RunStillActive, match=r"Run 5 is still active after 25 s\.") as caught:
                client.wait_for_run(5, timeout=25)
            assert not isinstance(caught.value, CallError)
            assert clock.now == 25
