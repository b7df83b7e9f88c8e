"""The way to the token servers: proxies, trust and client certificates hold for them as for the Jobs API."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from certificates import self_signed
from injected_clock import Clock
from sign_in_scene import SignIn, SignInScene, needing, scene_of_sign_in, using  # noqa: F401 (a fixture)
from token_server import STS_PATH, TOKEN_PATH, TokenServer

from airflow_dbjobs.auth import choose_auth
from airflow_dbjobs.client import JobsClient
from airflow_dbjobs.errors import CallError, SignInRefused, Unreachable, UntrustedCertificate
from airflow_dbjobs.network import network_from
from airflow_dbjobs.transport import Transport

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


def client_of(url: str, sign_in: SignIn) -> JobsClient:
    network = network_from(sign_in.extra)
    auth = choose_auth(
        login=sign_in.login, password=sign_in.password, extra=sign_in.extra, workspace=url, network=network
    )
    return JobsClient(transport=Transport(url, auth, network=network, clock=Clock(), sleep=lambda _: None))


def test_the_token_is_asked_for_where_the_connection_points(scene: SignInScene) -> None:
    # Plain HTTP, and a port of its own: the official provider goes to https and 443, whatever the connection says.
    sign_in = scene.oauth()
    list(client_of(scene.server.url, sign_in).list_jobs())
    (seen,) = scene.fetches(sign_in)
    assert seen.headers["host"] == scene.server.url.removeprefix("http://")
    assert seen.headers["user-agent"].startswith("airflow-provider-dbjobs/")
    assert seen.form == {"grant_type": "client_credentials", "scope": "all-apis"}


@pytest.mark.parametrize("proxies", ["{url}", {"http": "{url}"}], ids=["one", "by scheme"])
def test_the_connections_proxy_carries_tokens_and_calls(scene: SignInScene, proxies: object) -> None:
    proxy = scene.server
    sign_in = scene.oauth()
    sign_in.extra["proxies"] = proxy.url if isinstance(proxies, str) else {"http": proxy.url}
    assert list(client_of("http://workspace.example", sign_in).list_jobs()) == []
    assert [seen.headers["host"] for seen in proxy.seen] == ["workspace.example"] * 2
    assert [seen.path.partition("?")[0] for seen in proxy.seen] == [TOKEN_PATH, "/api/2.2/jobs/list"]


def test_the_environments_proxy_carries_tokens_too(scene: SignInScene) -> None:
    scene.use(http_proxy=scene.server.url)
    list(client_of("http://workspace.example", scene.oauth()).list_jobs())
    assert [seen.headers["host"] for seen in scene.server.seen] == ["workspace.example"] * 2


def test_what_is_in_the_cluster_or_on_the_machine_is_asked_through_no_proxy(
    scene: SignInScene, serve: Callable[..., TokenServer]
) -> None:
    proxy = serve()
    for name in ("kubernetes", "aws_container", "aws_instance"):
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


@pytest.mark.parametrize("name", ["oauth", "federated_env"])
def test_a_token_servers_certificate_is_checked(
    scene: SignInScene, serve: Callable[..., TokenServer], tmp_path: Path, name: str
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
def test_a_client_certificate_is_shown_to_the_token_server_and_the_api(
    scene: SignInScene, serve: Callable[..., TokenServer], tmp_path: Path, apart: bool
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


def test_a_client_certificate_that_is_away_is_named(scene: SignInScene, tmp_path: Path) -> None:
    sign_in = scene.oauth()
    sign_in.extra["client_cert"] = str(tmp_path / "away.pem")
    with pytest.raises(UntrustedCertificate, match=r"away\.pem.*`client_cert`") as caught:
        client_of("https://127.0.0.1:1", sign_in).poll_run(7)
    assert not caught.value.sent


@pytest.mark.parametrize("name", needing("entra"))
def test_entra_is_reached_and_trusted_as_the_connection_says(scene: SignInScene, name: str) -> None:
    sign_in = using(name, scene)
    pem = sign_in.extra.pop("verify")
    with pytest.raises(CallError, match="CERTIFICATE_VERIFY_FAILED"):
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
def test_a_token_servers_url_that_cannot_be_called_is_not_tried_again(scene: SignInScene, url: str) -> None:
    with pytest.raises(CallError, match="is not a URL that can be called"):
        client_of(url, scene.oauth()).poll_run(7)
