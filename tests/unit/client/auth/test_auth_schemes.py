"""Every way to sign in, over HTTP: what holds for all of them."""

from __future__ import annotations

import base64
import logging
import threading
from typing import TYPE_CHECKING

import pytest
from sign_in_scene import ALL, SignInScene, needing, scene_of_sign_in, using  # noqa: F401 (a fixture)
from token_server import CLIENT_ID, CLIENT_SECRET, Trouble

from airflow_dbjobs.client.retry import RetryPolicy
from airflow_dbjobs.client.wait import wait_for_run
from airflow_dbjobs.errors import CallError, ServerError, SignInRefused

if TYPE_CHECKING:
    from airflow_dbjobs.client import JobsClient

# Which have a library between us and the token server.
LIBRARIES = {"entra", "entra_default", "managed_identity", "sdk"}
EVERY_SCHEME = pytest.mark.parametrize("name", needing(*ALL))


@pytest.fixture
def scene(scene_of_sign_in: SignInScene) -> SignInScene:  # noqa: F811 (the fixture)
    return scene_of_sign_in


def ask(client: JobsClient) -> None:
    assert list(client.list_jobs()) == []


class TestEveryScheme:
    @EVERY_SCHEME
    def test_fetches_one_token_for_all_calls(self, scene: SignInScene, name: str) -> None:
        sign_in = using(name, scene)
        client = scene.client(sign_in)
        for _ in range(3):
            ask(client)
        assert len(scene.fetches(sign_in)) == 1

    @EVERY_SCHEME
    def test_shares_a_token_between_equal_credentials(self, scene: SignInScene, name: str) -> None:
        sign_in = using(name, scene)
        one, same = scene.client(sign_in), scene.client(sign_in)
        assert one.transport.identity == same.transport.identity
        assert len({one.transport.identity, same.transport.identity}) == 1
        ask(one)
        ask(same)
        assert len(scene.fetches(sign_in)) == 1
        other = using(name, scene)
        other.extra["verify"] = False
        assert scene.client(other).transport.identity != one.transport.identity

    @EVERY_SCHEME
    def test_renews_a_token_before_it_expires(self, scene: SignInScene, name: str) -> None:
        sign_in = using(name, scene)
        client = scene.client(sign_in)
        for _ in range(8):
            ask(client)
            scene.clock.now += 500
        # The workspace would have refused one that has 30 s left; and with 10 min left it is time.
        assert len(scene.fetches(sign_in)) == 2
        assert client.transport.auth._cache.forget(client.transport.auth.source, object()) is True

    @EVERY_SCHEME
    def test_replaces_a_token_that_is_refused_during_a_wait(self, scene: SignInScene, name: str) -> None:
        sign_in = using(name, scene)
        client = scene.client(sign_in)
        ask(client)
        scene.clock.now += 100
        scene.server.good.clear()
        assert wait_for_run(client, 7).state.result_state == "SUCCESS"
        assert len(scene.fetches(sign_in)) == 2
        # At once: nobody has waited.
        assert scene.clock.waits == []

    @EVERY_SCHEME
    def test_retries_a_token_server_within_the_calls_budget(self, scene: SignInScene, name: str) -> None:
        sign_in = using(name, scene)
        (sign_in.server or scene.server).troubles.append(Trouble(sign_in.path, times=2))
        client = scene.client(sign_in)
        if name == "sdk":
            # It does not tell a server that is down from one that refuses.
            with pytest.raises(SignInRefused, match="databricks-sdk cannot authenticate"):
                ask(client)
            return
        ask(client)
        assert len(scene.fetches(sign_in)) == 3
        assert [30 <= wait <= 37.5 for wait in scene.clock.waits] == [True, True]

    @EVERY_SCHEME
    def test_names_a_token_server_that_stays_down(self, scene: SignInScene, name: str) -> None:
        sign_in = using(name, scene)
        (sign_in.server or scene.server).troubles.append(Trouble(sign_in.path, times=None))
        with pytest.raises(CallError) as caught:
            ask(scene.client(sign_in))
        assert not caught.value.sent
        assert not caught.value.unclear
        if name != "sdk":
            assert isinstance(caught.value, ServerError)
            assert 500 < scene.clock.now <= 600
        named = (
            "databricks-sdk" if name == "sdk" else "Entra" if "entra" in name or "identity" in name else sign_in.path
        )
        assert named in str(caught.value)

    @EVERY_SCHEME
    def test_fetches_one_token_for_many_threads(self, scene: SignInScene, name: str) -> None:
        sign_in = using(name, scene)
        (sign_in.server or scene.server).troubles.append(Trouble(sign_in.path, delay=0.2, goes_on=True))
        client = scene.client(sign_in)
        failures: list[BaseException] = []

        def work() -> None:
            try:
                ask(client)
            except BaseException as error:  # noqa: BLE001 (it is told below)
                failures.append(error)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert failures == []
        assert len(scene.fetches(sign_in)) == 1

    @EVERY_SCHEME
    def test_shows_no_secret(
        self, scene: SignInScene, name: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        caplog.set_level(logging.DEBUG)
        sign_in = using(name, scene)
        server = sign_in.server or scene.server
        shown = []
        troubles = [
            [],
            [Trouble(sign_in.path, times=None)],
            [Trouble(sign_in.path, cut=True, times=None)],
            [Trouble(sign_in.path, 429, headers={"Retry-After": "1"}, times=None)],
            [Trouble(sign_in.path, 200, "<html>Sign in</html>", times=None)],
            [Trouble(sign_in.path, 200, {"access_token": "", "and": "no token"}, times=None)],
            [Trouble(sign_in.path, 302, "", {"Location": f"{server.url}/elsewhere"}, times=None)],
            # A library says itself what it was told.
            [Trouble(sign_in.path, 400, echo=name not in LIBRARIES, times=None)],
            [Trouble(sign_in.path, 200, echo=name not in LIBRARIES, times=None)],
            [Trouble("/api", 401, {"error_code": "UNAUTHENTICATED", "message": "no"}, times=None)],
            [Trouble("/api", 400, echo=True, times=None)],
            [Trouble("/api", 200, echo=True, times=None)],
        ]
        for trouble in troubles:
            server.troubles, scene.server.troubles = trouble, trouble
            scene.clock.now += 4000
            client = scene.client(sign_in, policy=RetryPolicy(retry_budget=3, server_error_wait=1))
            try:
                ask(client)
            except CallError as error:
                shown += [str(error), repr(error), repr(error.__cause__), str(error.__cause__)]
            else:
                assert trouble == []
            shown += [repr(client), repr(client.transport), repr(client.transport.auth), repr(client.transport.network)]
            shown += [str(client.transport.identity)]
        shown += [*capfd.readouterr(), *(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)]
        assert caplog.records
        assert scene.server.given
        basic = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        secrets = [*sign_in.secrets, *scene.server.given, basic]
        assert [(secret, text) for secret in secrets for text in shown if secret in text] == []
        # (databricks-sdk follows redirects, and nothing can be done about it.)
        assert server.asked("/elsewhere") == [] or name == "sdk"

    @pytest.mark.parametrize("name", [name for name in ALL if name not in LIBRARIES])
    def test_follows_no_redirect(self, scene: SignInScene, name: str) -> None:
        sign_in = using(name, scene)
        server = sign_in.server or scene.server
        server.troubles.append(Trouble(sign_in.path, 307, "", {"Location": f"{server.url}/elsewhere"}, times=None))
        with pytest.raises(SignInRefused, match="a redirect, which is not followed"):
            ask(scene.client(sign_in))
        assert server.asked("/elsewhere") == []
        assert scene.clock.waits == []
