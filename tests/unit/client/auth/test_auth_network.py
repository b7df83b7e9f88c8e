"""The way to the token servers: proxies, trust and client certificates hold for them as for the Jobs API."""

from __future__ import annotations

import base64
import logging
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from certificates import self_signed
from injected_clock import Clock
from sign_in_scene import SignIn, SignInScene, needing, scene_of_sign_in, using  # noqa: F401 (a fixture)
from token_server import STS_PATH, TOKEN_PATH, TokenServer, Trouble

from airflow_dbjobs.client import JobsClient
from airflow_dbjobs.client.auth import BearerAuth
from airflow_dbjobs.client.transport import Transport
from airflow_dbjobs.errors import CallError, SignInRefused, Unreachable, UntrustedCertificate
from airflow_dbjobs.hooks.credentials import choose_auth
from airflow_dbjobs.hooks.extra import network_from

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def scene(scene_of_sign_in: SignInScene) -> SignInScene:  # noqa: F811 (the fixture)
    return scene_of_sign_in


@pytest.fixture
def serve() -> Iterator[Callable[..., TokenServer]]:
    """Return what starts servers, and stop them all."""
    running: list[TokenServer] = []

    def start(**options: Path) -> TokenServer:
        running.append(TokenServer(Clock(), **options))
        return running[-1]

    yield start
    for server in running:
        server.stop()


def locked(key: str) -> str:
    """Return a private key that wants a password."""
    from cryptography.hazmat.primitives import serialization

    private = serialization.load_pem_private_key(key.encode(), None)
    password = serialization.BestAvailableEncryption(b"a password")
    return private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, password).decode()


def client_of(url: str, sign_in: SignIn) -> JobsClient:
    network = network_from(sign_in.extra)
    auth = choose_auth(
        login=sign_in.login, password=sign_in.password, extra=sign_in.extra, workspace=url, network=network
    )
    return JobsClient(transport=Transport(url, auth, network=network, clock=Clock()))


class TestCertificates:
    @pytest.mark.parametrize("name", ["oauth", "federated_env"])
    def test_of_a_token_server_are_verified(
        self, scene: SignInScene, serve: Callable[..., TokenServer], tmp_path: Path, name: str
    ) -> None:
        pem = self_signed(tmp_path / "workspace.pem")
        server = serve(tls=pem)
        server.subjects = scene.server.subjects
        sign_in = using(name, scene)
        with pytest.raises(UntrustedCertificate, match=rf"POST {server.url}/oidc/v1/token: .*is not trusted.*`verify`"):
            list(client_of(server.url, sign_in).list_jobs())
        assert server.seen == []
        sign_in.extra["verify"] = str(pem)
        assert list(client_of(server.url, sign_in).list_jobs()) == []
        sign_in.extra["verify"] = "false"
        with pytest.warns(Warning, match="Unverified HTTPS"):
            assert list(client_of(server.url, sign_in).list_jobs()) == []

    @pytest.mark.parametrize("apart", [False, True], ids=["one file", "a key of its own"])
    def test_of_the_client_are_shown_to_token_server_and_api(
        self, scene: SignInScene, serve: Callable[..., TokenServer], tmp_path: Path, apart: bool
    ) -> None:
        pem, mine = self_signed(tmp_path / "workspace.pem"), self_signed(tmp_path / "mine.pem")
        server = serve(tls=pem, ca=mine)
        sign_in = scene.oauth()
        sign_in.extra["verify"] = str(pem)
        with pytest.raises(Unreachable):
            client_of(server.url, sign_in).poll_run(7)
        assert server.seen == []
        if apart:
            key, cut, certificate = mine.read_text().partition("-----BEGIN CERTIFICATE-----")
            sign_in.extra["client_cert"] = scene.file("mine.crt", cut + certificate)
            sign_in.extra["client_key"] = scene.file("mine.key", key)
        else:
            sign_in.extra["client_cert"] = str(mine)
        assert list(client_of(server.url, sign_in).list_jobs()) == []
        assert len(server.seen) == 2

    @pytest.mark.parametrize("name", needing("oauth", "federated_env", "entra", "entra_default"))
    @pytest.mark.parametrize(
        ("extra", "words"),
        [
            (
                {"verify": "away.pem"},
                r"The CA bundle .*away\.pem cannot .*: No such file.*Check `verify`.*REQUESTS_CA_BUNDLE",
            ),
            ({"verify": "garbage"}, r"The CA bundle .*garbage cannot .*: NO_CERTIFICATE_OR_CRL_FOUND"),
            (
                {"client_cert": "away.pem"},
                "The client certificate cannot .*: No such file.*`client_cert` and `client_key`",
            ),
            ({"client_cert": "mine.crt"}, "The client certificate cannot be used"),
            ({"client_cert": "mine.crt", "client_key": "other.key"}, "The client certificate .*: KEY_VALUES_MISMATCH"),
            ({"client_cert": "mine.crt", "client_key": "locked.key"}, "The client certificate cannot be used"),
        ],
        ids=["no bundle", "no certificates", "no certificate", "no key", "another's key", "a password"],
    )
    def test_in_an_unusable_file_are_reported_at_once(
        self, scene: SignInScene, tmp_path: Path, name: str, extra: dict[str, str], words: str
    ) -> None:
        key, cut, certificate = self_signed(tmp_path / "mine.pem").read_text().partition("-----BEGIN CERTIFICATE-----")
        scene.file("mine.crt", cut + certificate)
        scene.file("other.key", self_signed(tmp_path / "other.pem").read_text().partition(cut)[0])
        scene.file("locked.key", locked(key))
        scene.file("garbage", "no certificate")
        sign_in = using(name, scene)
        sign_in.extra |= {field: str(tmp_path / path) for field, path in extra.items()}
        client = client_of("https://127.0.0.1:1", sign_in)
        with pytest.raises(UntrustedCertificate, match=words) as caught:
            list(client.list_jobs())
        assert (caught.value.sent, client.transport.clock.waits) == (False, [])

    @pytest.mark.parametrize("name", needing("oauth", "entra"))
    def test_are_verified_with_the_environments_ca_bundle(self, scene: SignInScene, name: str) -> None:
        sign_in = using(name, scene)
        sign_in.extra.pop("verify", None)
        scene.use(REQUESTS_CA_BUNDLE="/no/such/bundle.pem")
        with pytest.raises(
            UntrustedCertificate, match=r"bundle /no/such/bundle\.pem cannot be used.*REQUESTS_CA_BUNDLE"
        ):
            client_of("https://127.0.0.1:1", sign_in).poll_run(7)


class TestNetrc:
    def test_authenticates_no_request(self, scene: SignInScene) -> None:
        scene.file("netrc", "default login somebody password else")
        scene.use(NETRC=str(scene.root / "netrc"))
        sign_in = scene.federated_file()
        list(client_of(scene.server.url, sign_in).list_jobs())
        fetches = scene.fetches(sign_in)
        assert fetches
        assert all("authorization" not in seen.headers for seen in fetches)


class TestProxy:
    @pytest.mark.parametrize("proxies", ["{url}", {"http": "{url}"}], ids=["one", "by scheme"])
    def test_of_the_connection_carries_tokens_and_calls(self, scene: SignInScene, proxies: object) -> None:
        proxy = scene.server
        sign_in = scene.oauth()
        sign_in.extra["proxies"] = proxy.url if isinstance(proxies, str) else {"http": proxy.url}
        assert list(client_of("http://workspace.example", sign_in).list_jobs()) == []
        assert [seen.headers["host"] for seen in proxy.seen] == ["workspace.example"] * 2
        assert [seen.path.partition("?")[0] for seen in proxy.seen] == [TOKEN_PATH, "/api/2.2/jobs/list"]

    def test_of_the_environment_carries_tokens_too(self, scene: SignInScene) -> None:
        scene.use(http_proxy=scene.server.url)
        list(client_of("http://workspace.example", scene.oauth()).list_jobs())
        assert [seen.headers["host"] for seen in scene.server.seen] == ["workspace.example"] * 2

    def test_is_not_used_in_the_cluster_or_on_the_machine(
        self, scene: SignInScene, serve: Callable[..., TokenServer]
    ) -> None:
        proxy = serve()
        for name in ("kubernetes", "aws_container"):
            sign_in = using(name, scene)
            scene.use(http_proxy=proxy.url, no_proxy="nothing.example")
            # The proxy stands for the workspace and AWS, and knows no tokens of this cluster.
            with suppress(SignInRefused):
                list(client_of(scene.server.url, sign_in).list_jobs())
            assert {seen.path for seen in proxy.seen} <= {STS_PATH, TOKEN_PATH, "/api/2.2/jobs/list?limit=100"}, name
            assert proxy.seen, name
            scene.monkeypatch.delenv("http_proxy")
            proxy.seen.clear()
        local = [seen.path for seen in scene.server.seen]
        assert [path for path in local if path.startswith(("/api/v1/", "/container", "/latest/"))] == local

    @pytest.mark.parametrize("name", needing("oauth", "federated_env", "entra", "entra_default", "sdk"))
    @pytest.mark.parametrize(
        ("user", "words"),
        [
            ("me:sec/ret-of-the-proxy", "the proxy URL from the connection or the environment is not valid"),
            ("me:sec#ret-of-the-proxy", "the proxy URL from the connection or the environment is not valid"),
            ("me:sec%2Fret-of-the-proxy", "."),
        ],
    )
    def test_of_the_environment_never_shows_its_password(
        self, scene: SignInScene, name: str, user: str, words: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        sign_in = using(name, scene)
        proxy = scene.server.url.replace("//", f"//{user}@")
        scene.use(https_proxy=proxy, http_proxy=proxy)
        with pytest.raises(CallError, match=words) as caught:
            # databricks-sdk would go on trying for as long as it may.
            client_of("https://workspace.example", sign_in).transport.send("GET", "2.2/jobs/list", limit=2)
        said = "".join(traceback.format_exception(caught.value))
        said += "".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
        assert "ret-of-the-proxy" not in said
        assert base64.b64encode(b"me:sec/ret-of-the-proxy").decode() not in said

    @pytest.mark.parametrize("name", needing("oauth", "entra"))
    def test_of_the_connection_never_shows_its_password(
        self, scene: SignInScene, serve: Callable[..., TokenServer], name: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        proxy = serve()
        said = ""
        for url in (proxy.url, "http://127.0.0.1:1"):
            sign_in = using(name, scene)
            sign_in.extra["proxies"] = url.replace("//", "//me:sec%2Fret-of-the-proxy@")
            with pytest.raises(Unreachable) as caught:
                client_of("https://workspace.example", sign_in).poll_run(7)
            assert not caught.value.sent
            assert "roxy" in str(caught.value)
            said += "".join(traceback.format_exception(caught.value))
        said += "".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
        assert "ret-of-the-proxy" not in said

    def test_that_refuses_a_launch_has_not_sent_it(self, serve: Callable[..., TokenServer]) -> None:
        for url, words in ((serve().url, "the proxy: 501"), ("http://127.0.0.1:1", "the proxy: .*Connection refused")):
            transport = Transport("https://workspace.example", BearerAuth("t"), network=network_from({"proxies": url}))
            with pytest.raises(Unreachable, match=f"cannot reach https://workspace.example: {words}") as caught:
                transport.send("POST", "2.2/jobs/run-now", body={})
            assert (caught.value.sent, caught.value.unclear) == (False, False)

    def test_that_breaks_off_may_have_sent_the_launch(
        self,
        serve: Callable[..., TokenServer],
    ) -> None:
        proxy = serve()
        proxy.troubles.append(Trouble("", cut=True))
        transport = Transport("http://workspace.example", BearerAuth("t"), network=network_from({"proxies": proxy.url}))
        with pytest.raises(Unreachable, match="the connection broke") as caught:
            transport.send("POST", "2.2/jobs/run-now", body={})
        assert (caught.value.sent, len(proxy.seen)) == (True, 1)

    @pytest.mark.parametrize("name", needing("managed_identity"))
    def test_is_not_used_for_a_managed_identity(
        self, scene: SignInScene, serve: Callable[..., TokenServer], name: str
    ) -> None:
        proxy = serve()
        scene.use(http_proxy=proxy.url)
        scene.auth(using(name, scene)).token()
        assert proxy.seen == []


class TestTokenServer:
    def test_is_the_one_that_the_connection_names(self, scene: SignInScene) -> None:
        # Plain HTTP, and a port of its own: the official provider goes to https and 443, whatever the connection says.
        sign_in = scene.oauth()
        list(client_of(scene.server.url, sign_in).list_jobs())
        (seen,) = scene.fetches(sign_in)
        assert seen.headers["host"] == scene.server.url.removeprefix("http://")
        assert seen.headers["user-agent"].startswith("airflow-dbjobs/")
        assert seen.form == {"grant_type": "client_credentials", "scope": "all-apis"}

    @pytest.mark.parametrize("name", needing("entra"))
    def test_of_entra_is_reached_and_trusted_as_configured(self, scene: SignInScene, name: str) -> None:
        sign_in = using(name, scene)
        pem = sign_in.extra.pop("verify")
        with pytest.raises(UntrustedCertificate, match=r"CERTIFICATE_VERIFY_FAILED.*Check `verify`"):
            scene.auth(sign_in).token()
        assert sign_in.server is not None
        assert sign_in.server.seen == []
        sign_in.extra |= {"verify": pem, "proxies": "http://127.0.0.1:1"}
        with pytest.raises(Unreachable, match="Unable to connect to proxy"):
            scene.auth(sign_in).token()
        assert sign_in.server.seen == []

    @pytest.mark.parametrize(
        "url", ["workspace.example", "http://[", "http://x:99999", "https://a b.example", "https://a..b"]
    )
    def test_with_an_unusable_url_is_not_called_again(self, scene: SignInScene, url: str) -> None:
        with pytest.raises(CallError, match="is not a valid URL"):
            client_of(url, scene.oauth()).poll_run(7)
