"""Signing in that fails: at once where credentials are wrong, later where a server is down, and what is said then."""

from __future__ import annotations

import base64
import contextvars
import html
import json
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus

import pytest
import requests
from sign_in_scene import (
    EXCHANGING,
    IDENTITY_PATH,
    JWT,
    STS_PATH,
    SignIn,
    SignInScene,
    needing,
    scene_of_sign_in,  # noqa: F401 (a fixture)
    using,
)
from token_server import AWS_KEY, CLIENT_ID, CLIENT_SECRET, ROLE_KEY, TOKEN_PATH, Trouble

from airflow_dbjobs.client.auth.aws import _Sts
from airflow_dbjobs.client.auth.azure import EntraToken, _Traffic
from airflow_dbjobs.client.auth.token_requests import TokenRequests
from airflow_dbjobs.client.retry import Patience, RetryPolicy
from airflow_dbjobs.client.session import Network
from airflow_dbjobs.client.transport import Transport
from airflow_dbjobs.client.wait import wait_for_run
from airflow_dbjobs.errors import (
    CallError,
    PermissionDenied,
    RunLost,
    ServerError,
    SignInRefused,
    TooManyRequests,
    Unauthenticated,
    Unreachable,
    UnreadableReply,
)
from airflow_dbjobs.hooks.credentials import AwsConnection

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_dbjobs.client import JobsClient

WRONG = "not-the-clients-secret"


@pytest.fixture
def scene(scene_of_sign_in: SignInScene) -> SignInScene:  # noqa: F811 (the fixture)
    return scene_of_sign_in


def ask(client: JobsClient) -> None:
    assert list(client.list_jobs()) == []


def refused(scene: SignInScene, sign_in: SignIn) -> str:
    """Return what is said, at once, where credentials are refused."""
    with pytest.raises(SignInRefused) as caught:
        ask(scene.client(sign_in))
    assert scene.clock.waits == []
    assert not caught.value.sent
    assert not caught.value.unclear
    assert not caught.value.transient
    assert not scene.server.asked("/api/2.2/jobs/list")
    return str(caught.value)


class TestManagedIdentity:
    @pytest.mark.parametrize("name", needing("managed_identity"))
    @pytest.mark.parametrize("status", [404, 410, 429, 500])
    def test_being_updated_is_waited_for(self, scene: SignInScene, name: str, status: int) -> None:
        sign_in = using(name, scene)
        scene.server.troubles.append(Trouble(sign_in.path, status, {"error": "gone"}, times=2))
        # Not repeatable: nothing was sent.
        scene.client(sign_in).transport.call("POST", "2.2/jobs/create", body={}, repeatable=False)
        assert len(scene.clock.waits) == 2
        assert len(scene.server.asked("/api/2.2/jobs/create")) == 1

    @pytest.mark.parametrize("name", needing("managed_identity"))
    def test_off_azure_says_what_to_check(self, scene: SignInScene, name: str) -> None:
        sign_in = using(name, scene)
        scene.use(AZURE_POD_IDENTITY_AUTHORITY_HOST="http://127.0.0.1:1")
        with pytest.raises(
            Unreachable, match="Check that the worker or triggerer runs on Azure with a managed identity"
        ) as caught:
            ask(scene.client(sign_in, policy=RetryPolicy(retry_budget=5)))
        assert not caught.value.sent
        # The service may be away for a moment.
        assert len(scene.clock.waits) == 2

    @pytest.mark.parametrize("name", needing("entra_default"))
    @pytest.mark.parametrize(("status", "transient"), [(None, False), (404, False), (410, True)], ids=str)
    def test_missing_for_the_default_credential_is_refused(
        self, scene: SignInScene, name: str, status: int | None, transient: bool
    ) -> None:
        sign_in = using(name, scene)
        for variable in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"):
            scene.monkeypatch.delenv(variable)
        # Other clouds have something else at that address.
        scene.server.troubles.append(Trouble(IDENTITY_PATH, status or 0, {"error": "gone"}, times=None))
        scene.use(AZURE_POD_IDENTITY_AUTHORITY_HOST=scene.server.url if status else "http://127.0.0.1:1")
        scene.use(AZURE_TOKEN_CREDENTIALS="ManagedIdentityCredential" if transient else "prod")
        with pytest.raises(CallError) as caught:
            scene.auth(sign_in).token()
        assert isinstance(caught.value, ServerError if transient else SignInRefused)
        assert caught.value.transient is transient


class TestLibrary:
    @pytest.mark.parametrize(
        ("name", "library", "extra"),
        [("entra", "azure", "azure"), ("sdk", "databricks.sdk.core", "sdk"), ("aws_environment", "botocore", "aws")],
    )
    def test_that_is_not_installed_is_named_with_its_extra(
        self, scene: SignInScene, name: str, library: str, extra: str
    ) -> None:
        sign_in = using(name, scene)
        # What an import of a module finds that is not there.
        scene.monkeypatch.setitem(sys.modules, library, None)
        assert "is not installed; " in refused(scene, sign_in)
        assert f"pip install 'airflow-dbjobs[{extra}]'" in refused(scene, sign_in)


class TestKubernetes:
    def test_pod_without_permission_fails_at_once_with_a_remedy(self, scene: SignInScene) -> None:
        sign_in = scene.kubernetes()
        sign_in.extra["k8s_service_account"] = "jobs/of"
        said = refused(scene, sign_in)
        assert "/namespaces/airflow/serviceaccounts/jobs%2Fof/token answered 403: Forbidden: serviceaccounts" in said
        assert "Check that airflow has the service account jobs/of, and that the pod's own account may `create`" in said

    @pytest.mark.parametrize("path", ["k8s_token_path", "k8s_namespace_path"])
    def test_missing_pod_fails_at_once(self, scene: SignInScene, path: str) -> None:
        sign_in = scene.kubernetes()
        sign_in.extra[path] = str(scene.root / "nowhere")
        said = refused(scene, sign_in)
        assert said.startswith("This is not a pod with a service account token: ")
        assert said.endswith("nowhere: No such file or directory")

    def test_unreachable_cluster_is_waited_for(self, scene: SignInScene) -> None:
        sign_in = scene.kubernetes()
        sign_in.extra["k8s_api_url"] = "http://127.0.0.1:1"
        with pytest.raises(
            Unreachable, match=r"Check that the task runs in the cluster, or set `k8s_api_url`.*\(attempt "
        ):
            ask(scene.client(sign_in))
        assert 500 < scene.clock.now <= 600

    @pytest.mark.parametrize("body", [{}, {"status": {}}, {"status": "Failure"}, {"status": {"token": ""}}], ids=str)
    def test_reply_without_a_token_is_retried(self, scene: SignInScene, body: object) -> None:
        sign_in = scene.kubernetes()
        scene.server.troubles.append(Trouble("/api/v1/", 201, body))
        ask(scene.client(sign_in))
        assert len(scene.clock.waits) == 1

    def test_request_follows_the_extra(self, scene: SignInScene) -> None:
        sign_in = scene.kubernetes()
        sign_in.extra |= {"audience": "databricks", "expiration_seconds": "900"}
        ask(scene.client(sign_in))
        (seen,) = scene.server.asked("/api/v1/namespaces/airflow/serviceaccounts/default/token")
        assert json.loads(seen.body)["spec"] == {"audiences": ["databricks"], "expirationSeconds": 900}
        (exchange,) = scene.server.asked(TOKEN_PATH)
        assert exchange.form["client_id"] == CLIENT_ID


class TestFederation:
    @pytest.mark.parametrize("name", EXCHANGING)
    def test_sends_a_client_id_only_if_one_is_configured(self, scene: SignInScene, name: str) -> None:
        sign_in = using(name, scene)
        ask(scene.client(sign_in))
        (seen,) = scene.server.asked(TOKEN_PATH)
        assert seen.form.get("client_id") == sign_in.extra.get("client_id")
        assert "authorization" not in seen.headers

    @pytest.mark.parametrize(
        ("make", "words"),
        [
            (lambda scene: {"federated_token_file": str(scene.root / "none")}, "none: No such file or directory"),
            (lambda scene: {"federated_token_file": scene.file("empty", " ")}, "empty is empty"),
            (
                lambda _: {"federated_token_env": "NO_SUCH_VARIABLE"},
                "the environment variable NO_SUCH_VARIABLE is not set",
            ),
            (
                lambda _: {"federated_token_provider": "no_such_module.token"},
                "'no_such_module.token' cannot be imported",
            ),
            (lambda _: {"federated_token_provider": "json.no_such_token"}, "'json.no_such_token' cannot be imported"),
            (lambda _: {"federated_token_provider": "json"}, "'json' cannot be imported"),
            (
                lambda _: {"federated_token_provider": "sys:getrecursionlimit"},
                "getrecursionlimit() gave no token: it must",
            ),
            (lambda _: {"federated_token_provider": "os.getlogin.no"}, "cannot be imported"),
            (lambda _: {"federated_token_provider": "math.sqrt"}, "math.sqrt() gave no token: it raised TypeError"),
        ],
    )
    def test_names_a_missing_token_to_exchange(
        self, scene: SignInScene, make: Callable[[SignInScene], dict[str, Any]], words: str
    ) -> None:
        assert words in refused(scene, SignIn(extra=make(scene)))
        assert scene.server.seen == []


class TestWrongCredentials:
    def test_of_oauth_fail_at_once_with_a_remedy(self, scene: SignInScene) -> None:
        sign_in = scene.oauth()
        sign_in.password = WRONG
        said = refused(scene, sign_in)
        assert f"POST {scene.server.url}{TOKEN_PATH} answered 401: invalid_client: Client authentication failed" in said
        assert "Check the connection's login (the service principal's client id) and password" in said
        # The server repeated it.
        assert WRONG not in said
        assert len(scene.fetches(sign_in)) == 1

    @pytest.mark.parametrize("name", ["federated_file", "federated_env", "federated_callable", "kubernetes_projected"])
    def test_of_federation_fail_at_once_with_a_remedy(self, scene: SignInScene, name: str) -> None:
        sign_in = using(name, scene)
        scene.server.subjects.clear()
        said = refused(scene, sign_in)
        whose = "the service principal `client_id`" if "client_id" in sign_in.extra else "the account (there is no"
        assert "answered 400: invalid_grant: no federation policy matches ***. Check the federation policy of" in said
        assert whose in said
        where = {
            "federated_file": "the file",
            "federated_env": "variable MY_JWT",
            "federated_callable": "my_tokens.of_the",
        }
        assert where.get(name, "the file") in said
        assert JWT not in said

    @pytest.mark.parametrize("name", needing("entra"))
    def test_of_entra_fail_at_once_with_a_remedy(self, scene: SignInScene, name: str) -> None:
        sign_in = using(name, scene)
        sign_in.password = WRONG
        said = refused(scene, sign_in)
        assert "Entra (token for the service principal) refused: " in said
        assert "AADSTS7000215" in said
        assert "password (a client secret of it that has not expired) and `azure_tenant_id`" in said
        assert WRONG not in said

    @pytest.mark.parametrize("name", needing("entra"))
    def test_name_an_invalid_tenant(self, scene: SignInScene, name: str) -> None:
        sign_in = using(name, scene)
        sign_in.extra["azure_tenant_id"] = "my tenant"
        assert "Invalid tenant ID" in refused(scene, sign_in)

    @pytest.mark.parametrize("name", needing("managed_identity"))
    def test_name_an_identity_that_the_machine_does_not_have(self, scene: SignInScene, name: str) -> None:
        sign_in = using(name, scene)
        sign_in.extra["azure_managed_identity_client_id"] = "another"
        said = refused(scene, sign_in)
        # azure-identity quotes the description of the error or, before 1.25, its code alone.
        assert "Identity not found" in said or "invalid_request" in said
        assert "that `azure_managed_identity_client_id` in the connection's extra names" in said

    @pytest.mark.parametrize("name", needing("sdk"))
    def test_of_the_sdk_fail_at_once_with_a_remedy(self, scene: SignInScene, name: str) -> None:
        sign_in = using(name, scene)
        config = {**json.loads(sign_in.extra["sdk_config"]), "client_secret": WRONG}
        sign_in.extra["sdk_config"] = config
        said = refused(scene, sign_in)
        assert "databricks-sdk cannot authenticate: " in said
        assert "Check `auth_type` and `sdk_config` in the connection's extra" in said
        assert WRONG not in said

    def test_of_aws_fail_at_once_with_a_remedy(self, scene: SignInScene) -> None:
        sign_in = scene.aws_environment()
        scene.use(AWS_SECRET_ACCESS_KEY=WRONG)
        said = refused(scene, sign_in)
        assert (
            f"POST {scene.server.url}/ answered 403: SignatureDoesNotMatch: The key {AWS_KEY} does not match. Check"
            in said
        )
        assert (
            "may call sts:GetWebIdentityToken, and that the account has outbound web identity federation enabled"
            in said
        )


class TestAws:
    def test_reply_that_repeats_keys_is_masked(self, scene: SignInScene) -> None:
        sign_in = scene.aws_environment()
        secret, session = sign_in.secrets
        body = f"<Error><Code>AccessDenied</Code><Message>not {secret}, not {session}</Message></Error>"
        scene.server.troubles.append(Trouble(STS_PATH, 403, body, times=None))
        assert "AccessDenied: not ***, not ***." in refused(scene, sign_in)

    def test_machine_without_keys_fails_at_once_with_a_remedy(self, scene: SignInScene) -> None:
        scene.use_aws()
        said = refused(scene, SignIn(extra={"federated_aws": True, "aws_region": "eu-central-1"}))
        assert said.startswith(
            "There are no AWS credentials on this worker or triggerer. Check that the worker or triggerer has an AWS"
        )

    def test_profile_of_the_connection_is_used(self, scene: SignInScene) -> None:
        sign_in = scene.aws_profile()
        scene.monkeypatch.delenv("AWS_PROFILE")
        sign_in.aws = AwsConnection(extra={"profile_name": "jobs"})
        ask(scene.client(sign_in))
        assert [seen.form["Action"] for seen in scene.server.asked(STS_PATH)] == ["AssumeRole", "GetWebIdentityToken"]

    def test_missing_profile_is_named_at_once(self, scene: SignInScene) -> None:
        sign_in = scene.aws_environment()
        sign_in.aws = AwsConnection(extra={"profile_name": "jobs"})
        assert "The config profile (jobs) could not be found" in refused(scene, sign_in)

    @pytest.mark.parametrize(("status", "error"), [(400, SignInRefused), (503, Unreachable)])
    def test_role_refusal_is_final_and_an_outage_is_retried(
        self, scene: SignInScene, status: int, error: type[CallError]
    ) -> None:
        sign_in = scene.aws_service_account()
        body = f"<ErrorResponse><Error><Code>Denied</Code><Message>not {JWT}</Message></Error></ErrorResponse>"
        scene.server.troubles.append(Trouble(STS_PATH, status, body))
        with pytest.raises(error, match=r"Retrieving AWS credentials failed: .*AssumeRoleWithWebIdentity") as caught:
            scene.auth(sign_in).token()
        assert not caught.value.sent
        assert JWT not in str(caught.value)
        assert len(scene.server.asked(STS_PATH)) == 1

    def test_missing_region_fails_at_once_with_a_remedy(self, scene: SignInScene) -> None:
        scene.use_aws()
        sign_in = SignIn(extra={"federated_aws": True}, aws=AwsConnection(AWS_KEY, "a-secret"))
        assert "The AWS region is not known" in refused(scene, sign_in)
        assert "set `aws_region` in the connection's extra, or AWS_REGION" in refused(scene, sign_in)

    @pytest.mark.parametrize(
        ("region", "host"),
        [
            ("eu-central-1", "sts.eu-central-1.amazonaws.com"),
            ("us-gov-west-1", "sts.us-gov-west-1.amazonaws.com"),
            ("cn-north-1", "sts.cn-north-1.amazonaws.com.cn"),
        ],
    )
    def test_token_service_is_that_of_the_region(self, scene: SignInScene, region: str, host: str) -> None:
        assert _Sts(TokenRequests(0.0, scene.clock), Network(), region).url == f"https://{host}/"

    def test_container_token_goes_to_no_other_machine(self, scene: SignInScene) -> None:
        sign_in = scene.aws_container()
        scene.use(AWS_CONTAINER_CREDENTIALS_FULL_URI="http://elsewhere.example/keys")
        assert "Unsupported host 'elsewhere.example'" in refused(scene, sign_in)

    def test_container_without_keys_is_an_outage(self, scene: SignInScene) -> None:
        sign_in = scene.aws_container()
        scene.use(AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=scene.file("other", "no", end=""))
        scene.monkeypatch.setattr("botocore.utils.ContainerMetadataFetcher.RETRY_ATTEMPTS", 1)
        with pytest.raises(Unreachable, match=r"Retrieving AWS credentials failed: .*non 200 response 401") as caught:
            scene.auth(sign_in).token()
        assert not caught.value.sent

    def test_role_is_assumed_before_its_token_is_requested(self, scene: SignInScene) -> None:
        sign_in = scene.aws_connection()
        sign_in.aws.extra["assume_role_kwargs"] = {"ExternalId": "outside"}  # type: ignore[union-attr, index]
        sign_in.extra |= {"aws_jwt_audience": "us", "aws_web_identity_token_duration": 60}
        ask(scene.client(sign_in))
        assumed, asked = (seen.form for seen in scene.server.asked(STS_PATH))
        assert (assumed["Action"], assumed["ExternalId"]) == ("AssumeRole", "outside")
        assert (asked["Action"], asked["Audience.member.1"], asked["DurationSeconds"]) == (
            "GetWebIdentityToken",
            "us",
            "60",
        )
        assert f"Credential={ROLE_KEY}/" in scene.server.asked(STS_PATH)[1].headers["authorization"]

    @pytest.mark.parametrize("code", ["Throttling", "RequestLimitExceeded"])
    def test_rate_limit_is_waited_for(self, scene: SignInScene, code: str) -> None:
        body = f"<ErrorResponse><Error><Code>{code}</Code><Message>Rate &amp; limit</Message></Error></ErrorResponse>"
        sign_in = scene.aws_environment()
        scene.server.troubles.append(Trouble(STS_PATH, 400, body, times=2))
        ask(scene.client(sign_in))
        assert len(scene.clock.waits) == 2
        assert len(scene.server.asked(STS_PATH)) == 3

    def test_reply_without_a_token_is_not_quoted(self, scene: SignInScene) -> None:
        sign_in = scene.aws_environment()
        scene.server.troubles.append(Trouble(STS_PATH, 200, f"<Web><IdentityToken>{JWT}", times=None))
        with pytest.raises(UnreadableReply, match="answered with no WebIdentityToken") as caught:
            ask(scene.client(sign_in))
        assert JWT not in str(caught.value)


class TestTokenFunction:
    @pytest.mark.parametrize(
        "error", [TimeoutError("slow"), requests.ConnectionError("gone"), ServerError("POST /token", 503)], ids=repr
    )
    def test_that_cannot_reach_its_server_is_called_again(self, scene: SignInScene, error: Exception) -> None:
        scene.server.subjects.add(JWT)
        outcomes = [error, None]

        def token() -> str:
            if failure := outcomes.pop(0):
                raise failure
            return JWT

        scene.by_function(token)
        # Not repeatable: that nothing was sent is what lets it be called again.
        client = scene.client(SignIn(extra={"federated_token_provider": "my_tokens:of_the_day"}))
        assert client.transport.call("POST", "2.2/jobs/create", body={}, repeatable=False) == {"jobs": []}
        assert len(scene.clock.waits) == 1
        assert len(scene.server.asked("/api/2.2/jobs/create")) == 1

    def test_that_fails_is_not_quoted_in_a_cause(self, scene: SignInScene) -> None:
        def token() -> str:
            raise requests.ConnectionError(f"Max retries exceeded with url: /token?client_secret={JWT}")

        client = scene.client(scene.by_function(token))
        with pytest.raises(Unreachable, match=r"my_tokens.of_the_day\(\) gave no token: ConnectionError") as caught:
            client.transport.send("GET", "2.2/jobs/list")
        assert JWT not in "".join(traceback.format_exception(caught.value))

    def test_that_hangs_keeps_the_callers_time_limit(self, scene: SignInScene) -> None:
        go_on = threading.Event()
        auth = scene.auth(scene.by_function(lambda: go_on.wait(30) and JWT))
        with pytest.raises(Unreachable, match=r"Got no token within 0\.1 s: .*my_tokens.of_the_day") as caught:
            auth.token(0.1)
        assert not caught.value.sent
        # Its thread is abandoned, and the next one gets its token.
        scene.server.subjects.add(JWT)
        go_on.set()
        assert auth.token().lifetime == 3600

    def test_is_called_in_the_context_of_the_task(self, scene: SignInScene) -> None:
        whose: contextvars.ContextVar[str] = contextvars.ContextVar("whose", default=JWT[::-1])
        scene.server.subjects.add(JWT)
        token = whose.set(JWT)
        ask(scene.client(scene.by_function(whose.get)))
        whose.reset(token)

    @pytest.mark.parametrize(
        "code", ["def f(:", "import os; X = os.environ['a-secret']", "raise ValueError('a-secret')"]
    )
    def test_whose_module_fails_is_named_and_not_quoted(self, scene: SignInScene, code: str) -> None:
        scene.file("broken_tokens.py", code)
        scene.monkeypatch.syspath_prepend(str(scene.root))
        said = refused(scene, SignIn(extra={"federated_token_provider": "broken_tokens.f"}))
        assert "federated_token_provider 'broken_tokens.f' cannot be imported: " in said
        assert "Error. It must name a function" in said
        assert "a-secret" not in said


class TestTokenServer:
    @pytest.mark.parametrize(
        ("trouble", "kind", "words"),
        [
            (Trouble(TOKEN_PATH, 500, {}), ServerError, "answered 500: Internal Server Error"),
            (Trouble(TOKEN_PATH, 503, "<html>Be right back</html>"), ServerError, "Be right back"),
            (Trouble(TOKEN_PATH, 429, {"message": "slow down"}), TooManyRequests, "answered 429: slow down"),
            (Trouble(TOKEN_PATH, cut=True), Unreachable, "cannot reach"),
            (Trouble(TOKEN_PATH, 200, "<html>Log in</html>"), UnreadableReply, "with no JSON object: <html>Log in"),
            (Trouble(TOKEN_PATH, 200, f'{{"access_token": "{JWT}'), UnreadableReply, "with no JSON object"),
            (
                Trouble(TOKEN_PATH, 200, {"expires_in": 3600, "token": JWT}),
                UnreadableReply,
                "fields are expires_in, token",
            ),
            (Trouble(TOKEN_PATH, 200, {"access_token": f"{JWT}\r\nX: 1"}), UnreadableReply, "no bearer token"),
            (
                Trouble(TOKEN_PATH, 500, {"error_code": "RESOURCE_DOES_NOT_EXIST"}),
                ServerError,
                "RESOURCE_DOES_NOT_EXIST",
            ),
            (Trouble(TOKEN_PATH, 200, {"access_token": JWT, "token_type": "mac"}), UnreadableReply, "no bearer token"),
            (Trouble(TOKEN_PATH, 200, {}), UnreadableReply, "its fields are none"),
        ],
    )
    def test_that_fails_is_retried_and_named(
        self, scene: SignInScene, trouble: Trouble, kind: type[CallError], words: str
    ) -> None:
        sign_in = scene.oauth()
        trouble.times = 1
        scene.server.troubles = [trouble]
        client = scene.client(sign_in)
        # A launch with no idempotency token, even: it was not sent.
        assert client.transport.call("POST", "2.2/jobs/run-now", body={}, repeatable=False) == {"jobs": []}
        assert len(scene.clock.waits) == 1
        trouble.times = None
        scene.server.troubles = [trouble]
        scene.clock.now += 4000
        with pytest.raises(kind) as caught:
            ask(scene.client(sign_in, policy=RetryPolicy(retry_budget=0)))
        assert words in str(caught.value)
        assert TOKEN_PATH in str(caught.value)
        assert JWT not in str(caught.value)
        assert (caught.value.sent, caught.value.unclear) == (False, False)

    @pytest.mark.parametrize(("status", "error"), [(200, UnreadableReply), (503, ServerError)])
    def test_reply_nested_too_deeply_is_retried(self, scene: SignInScene, status: int, error: type[CallError]) -> None:
        scene.server.troubles.append(Trouble(TOKEN_PATH, status, "[" * 100_000))
        client = scene.client(scene.oauth())
        with pytest.raises(error, match=f"oidc/v1/token answered (with no JSON object|{status}: )") as caught:
            client.transport.send("GET", "2.2/jobs/list")
        assert caught.value.transient
        assert len(str(caught.value)) < 600
        ask(client)

    def test_rate_limit_is_waited_for_as_long_as_it_says(self, scene: SignInScene) -> None:
        sign_in = scene.oauth()
        scene.server.troubles.append(Trouble(TOKEN_PATH, 429, headers={"Retry-After": "20"}))
        ask(scene.client(sign_in))
        (wait,) = scene.clock.waits
        assert 20 <= wait <= 25

    def test_that_is_slow_keeps_the_callers_time_limit(self, scene: SignInScene) -> None:
        sign_in = scene.oauth()
        scene.server.troubles.append(Trouble(TOKEN_PATH, delay=20, times=None))
        client = scene.client(sign_in)
        started = time.monotonic()
        with pytest.raises(Unreachable, match=r"did not (answer|accept a connection)") as caught:
            client.transport.send("GET", "2.2/jobs/list", limit=1)
        assert time.monotonic() - started < 5
        assert not caught.value.sent

    def test_that_drips_keeps_the_callers_time_limit(self, scene: SignInScene) -> None:
        sign_in = scene.oauth()
        scene.server.troubles.append(Trouble(TOKEN_PATH, 200, {"access_token": "a"}, drip=0.05, times=None))
        started = time.monotonic()
        with pytest.raises(Unreachable, match=r"did not (answer|accept a connection)") as caught:
            scene.auth(sign_in).token(0.2)
        assert time.monotonic() - started < 2
        assert not caught.value.sent
        assert CLIENT_SECRET not in str(caught.value)

    @pytest.mark.parametrize("name", ["oauth", "entra"])
    def test_reply_that_repeats_a_long_secret_is_masked(self, scene: SignInScene, name: str) -> None:
        secret = 'a "long" <secret> \\ +' * 60
        scene.server.client_secret = ""
        texts = (secret, json.dumps(secret)[1:-1], quote_plus(secret), html.escape(secret))
        if name == "entra":
            error = ValueError("in front " + secret)
            said = [
                str(
                    EntraToken("service principal", Network(), client_secret=secret)._failure(
                        error, _Traffic(on_azure=False)
                    )
                )
            ]
        else:
            replies = [
                {"error": "x", "error_description": f"it was {secret}"},
                *(f"<p>it was {text}</p>" for text in texts),
            ]
            said = []
            for reply in replies:
                scene.server.troubles = [Trouble(TOKEN_PATH, 400, reply)]
                said.append(refused(scene, SignIn(CLIENT_ID, secret, {"service_principal_oauth": True})))
        for text in said:
            assert "***" in text
            assert "long" not in text


class TestSdk:
    @pytest.mark.parametrize("where", ["config", "environment", "profile"])
    @pytest.mark.parametrize("name", needing("sdk"))
    def test_reply_that_repeats_a_secret_is_masked(self, scene: SignInScene, name: str, where: str) -> None:
        sign_in = using(name, scene)
        secret = f'{WRONG}/"+'
        base = {"config_file": str(scene.root / "none")}
        if where == "config":
            config = {**base, "client_id": CLIENT_ID, "client_secret": secret, "token_audience": "refused"}
        elif where == "environment":
            config = base
            scene.use(DATABRICKS_CLIENT_ID=CLIENT_ID, DATABRICKS_CLIENT_SECRET=secret)
        else:
            lines = ["[prod]", f"host = {scene.server.url}", f"client_id = {CLIENT_ID}", f"client_secret = {secret}"]
            config = {"profile": "prod", "config_file": scene.file("databrickscfg", "\n".join(lines))}
        sign_in.extra["sdk_config"] = config
        pair = base64.b64encode(f"{CLIENT_ID}:{secret}".encode()).decode()
        spelled = [secret, pair, quote_plus(secret), json.dumps(secret)[1:-1]]
        body = {"error": "invalid_client", "error_description": f"refused: {' '.join(spelled)} {'x' * 1000}"}
        scene.server.troubles.append(Trouble(TOKEN_PATH, 401, body))
        said = refused(scene, sign_in)
        assert "databricks-sdk cannot authenticate: " in said
        assert "refused: *** *** *** ***" in said
        assert [text for text in (*spelled, WRONG) if text in said] == []
        assert len(said) < 700

    @pytest.mark.parametrize("name", needing("sdk"))
    def test_that_hangs_keeps_the_callers_time_limit(self, scene: SignInScene, name: str) -> None:
        sign_in = using(name, scene)
        scene.server.troubles.append(Trouble(TOKEN_PATH, delay=20))
        with pytest.raises(Unreachable, match=r"Got no token within 0\.5 s: SdkToken\(") as caught:
            scene.auth(sign_in).token(0.5)
        assert not caught.value.sent

    @pytest.mark.parametrize("name", needing("sdk"))
    def test_reads_its_profile_again(self, scene: SignInScene, name: str) -> None:
        profile = f"[prod]\nhost = {scene.server.url}\ntoken = {scene.server.give('pat')}\n"
        path = scene.file("databrickscfg", profile)
        sign_in = SignIn(extra={"auth_type": "sdk", "sdk_config": {"profile": "prod", "config_file": path}})
        client = scene.client(sign_in)
        ask(client)
        assert (
            scene.server.asked("/api/2.2/jobs/list")[-1].headers["authorization"] == f"Bearer {scene.server.given[-1]}"
        )
        scene.file("databrickscfg", profile.replace(scene.server.given[-1], scene.server.give("pat")))
        scene.clock.now += 300
        ask(client)
        assert (
            scene.server.asked("/api/2.2/jobs/list")[-1].headers["authorization"] == f"Bearer {scene.server.given[-1]}"
        )


class TestToken:
    @pytest.mark.parametrize("name", ["kubernetes", "aws_container"])
    def test_that_no_header_can_hold_is_not_quoted(self, scene: SignInScene, name: str) -> None:
        sign_in = using(name, scene)
        broken = f"{JWT}\n{JWT}"
        scene.file("token", broken)
        scene.file("eks", broken)
        with pytest.raises(SignInRefused) as caught:
            ask(scene.client(sign_in))
        assert JWT not in "".join(traceback.format_exception(caught.value))

    @pytest.mark.parametrize(
        ("reply", "seconds"),
        [
            ({"expires_in": 0}, 0),
            ({"expires_in": -5}, -5),
            ({"expires_in": "1200"}, 1200),
            ({}, 300),
            ({"expires_in": "soon"}, 300),
            ({"expires_in": None}, 300),
        ],
    )
    def test_lifetime_is_read_with_care(self, scene: SignInScene, reply: dict[str, Any], seconds: float) -> None:
        sign_in = scene.oauth()
        scene.server.troubles.append(Trouble(TOKEN_PATH, 200, {"access_token": "a", **reply}))
        assert scene.auth(sign_in).token().lifetime == seconds


class TestDuringAWait:
    def test_rotated_secret_is_read_again(self, scene: SignInScene) -> None:
        sign_in, later = scene.oauth(), scene.oauth()
        later.password = scene.server.client_secret = "the-secret-of-tomorrow"
        client = scene.client(sign_in)
        client._reread = lambda: Transport(scene.server.url, scene.auth(later), clock=scene.clock)
        assert wait_for_run(client, 7).state.result_state == "SUCCESS"
        assert len(scene.clock.waits) == 1

    def test_refused_credentials_are_tolerated_as_configured(self, scene: SignInScene) -> None:
        sign_in = scene.oauth()
        sign_in.password = WRONG
        client = scene.client(sign_in)
        client.patience = Patience(denied_tolerance=120)
        with pytest.raises(
            RunLost, match=r"was not cancelled and may still be running\. Last error: POST .*invalid_client"
        ):
            wait_for_run(client, 7)
        assert 120 <= scene.clock.now < 300

    def test_token_server_that_is_down_is_an_outage(self, scene: SignInScene) -> None:
        sign_in = scene.oauth()
        scene.server.troubles.append(Trouble(TOKEN_PATH, times=12))
        assert wait_for_run(scene.client(sign_in), 7).state.result_state == "SUCCESS"
        assert len(scene.clock.waits) == 12

    def test_refused_token_is_replaced_at_most_once_a_minute(self, scene: SignInScene) -> None:
        sign_in = scene.oauth()
        scene.server.troubles.append(
            Trouble("/api", 401, {"error_code": "UNAUTHENTICATED", "message": "no"}, times=None)
        )
        client = scene.client(sign_in)
        with pytest.raises(RunLost):
            wait_for_run(client, 7)
        polls = len(scene.server.asked("/api/2.2/jobs/runs/get"))
        assert 600 <= scene.clock.now < 700
        assert 5 <= len(scene.fetches(sign_in)) <= 12 < polls

    @pytest.mark.parametrize(
        ("status", "body", "kind", "fetches"),
        [
            (401, {"error_code": "UNAUTHENTICATED", "message": "no"}, Unauthenticated, 2),
            (403, {"error_code": 403, "message": "Invalid access token."}, PermissionDenied, 2),
            (403, {"error_code": "403", "message": "Invalid access token."}, PermissionDenied, 2),
            (403, "<html>Invalid access token.</html>", PermissionDenied, 2),
            (403, {"error_code": "PERMISSION_DENIED", "message": "you may not"}, PermissionDenied, 1),
        ],
    )  # fmt: skip
    def test_only_a_refusal_of_the_token_fetches_another(
        self, scene: SignInScene, status: int, body: dict[str, Any], kind: type[CallError], fetches: int
    ) -> None:
        sign_in = scene.oauth()
        client = scene.client(sign_in)
        ask(client)
        scene.clock.now += 100
        scene.server.troubles.append(Trouble("/api", status, body, times=None))
        with pytest.raises(kind):
            ask(client)
        assert len(scene.fetches(sign_in)) == fetches
        assert len(scene.server.asked("/api/2.2/jobs/list")) == 1 + fetches


class TestEntra:
    @pytest.mark.parametrize("name", needing("entra"))
    def test_rate_limit_is_waited_for(self, scene: SignInScene, name: str) -> None:
        sign_in = using(name, scene)
        assert sign_in.server is not None
        sign_in.server.troubles.append(Trouble(sign_in.path, 429, {"error": "temporarily_unavailable"}))
        ask(scene.client(sign_in))
        assert len(scene.clock.waits) == 1
        sign_in.server.troubles.append(Trouble(sign_in.path, cut=True, times=None))
        scene.clock.now += 4000
        with pytest.raises(Unreachable, match=r"Entra \(token for the service principal\): no response"):
            ask(scene.client(sign_in, policy=RetryPolicy(retry_budget=0)))

    @pytest.mark.parametrize("name", needing("entra", "managed_identity", "entra_default"))
    def test_authenticates_by_a_right_on_the_azure_resource(self, scene: SignInScene, name: str) -> None:
        sign_in = using(name, scene)
        resource = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Databricks/workspaces/w"
        sign_in.extra["azure_resource_id"] = resource
        ask(scene.client(sign_in))
        (seen,) = scene.server.asked("/api/2.2/jobs/list")
        entra, management = scene.server.given
        assert (entra.partition("-")[0], management.partition("-")[0]) == ("entra", "management")
        assert seen.headers["authorization"] == f"Bearer {entra}"
        assert seen.headers["x-databricks-azure-sp-management-token"] == management
        assert seen.headers["x-databricks-azure-workspace-resource-id"] == resource

    @pytest.mark.parametrize("name", needing("managed_identity"))
    @pytest.mark.parametrize(("entra", "management"), [(3600, 900), (900, 3600)])
    def test_tokens_are_renewed_when_the_first_expires(
        self, scene: SignInScene, name: str, entra: float, management: float
    ) -> None:
        sign_in = using(name, scene)
        sign_in.extra["azure_resource_id"] = "/subscriptions/s"
        scene.server.lifetime, scene.server.management_lifetime = entra, management
        assert 890 <= scene.auth(sign_in).token().lifetime <= 900

    @pytest.mark.parametrize(
        ("endpoint", "host"),
        [
            ("", "management.core.windows.net"),
            ("https://login.microsoftonline.us", "management.core.usgovcloudapi.net"),
            ("login.partner.microsoftonline.cn/", "management.core.chinacloudapi.cn"),
        ],
    )
    def test_management_api_is_that_of_the_cloud(self, scene: SignInScene, endpoint: str, host: str) -> None:
        extra = {"azure_tenant_id": "t", "azure_ad_endpoint": endpoint}
        source = scene.auth(SignIn(CLIENT_ID, CLIENT_SECRET, extra)).source
        assert source._management_scope == f"https://{host}//.default"
