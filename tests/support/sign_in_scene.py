"""Every way to sign in, each with all that it needs to succeed: a token server, files, an environment."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from certificates import self_signed
from injected_clock import Clock
from token_server import (
    AWS_KEY,
    AWS_SECRET,
    AWS_SESSION,
    CLIENT_ID,
    CLIENT_SECRET,
    POD_TOKEN,
    ROLE_ARN,
    ROLE_SECRET,
    STS_PATH,
    TENANT,
    TOKEN_PATH,
    Seen,
    TokenServer,
)

from airflow_dbjobs.client import JobsClient
from airflow_dbjobs.client.auth import tokens
from airflow_dbjobs.client.transport import Transport
from airflow_dbjobs.hooks.credentials import AwsConnection, choose_auth
from airflow_dbjobs.hooks.extra import network_from

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

JWT = "the-json-web-token-of-somebody-else"
ENTRA_PATH = f"/{TENANT}/oauth2/v2.0/token"
IDENTITY_PATH = "/metadata/identity/oauth2/token"
# What a developer, or a CI system, may have set.
_FOREIGN_VARIABLES = ("AWS_", "AZURE_", "DATABRICKS_", "ARM_", "MSI_", "IDENTITY_", "IMDS_", "GOOGLE_", "ACTIONS_")


# What botocore has read of itself, once instead of for each token: that takes half a second.
_botocore_files: dict[str, Any] = {}


@dataclass
class SignIn:
    """The fields of a connection, and where its tokens come from."""

    login: str | None = None
    password: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    aws: AwsConnection | None = None
    #: What must not be shown, in addition to the tokens that the server has given.
    secrets: tuple[str, ...] = ()
    #: Who gives the token that the workspace takes.
    server: TokenServer | None = None
    path: str = TOKEN_PATH


class SignInScene:
    """A workspace that wants tokens, a clock that all share, and a cache of tokens that is this scene's."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.monkeypatch = monkeypatch
        self.clock = Clock()
        self.server = TokenServer(self.clock)
        self._servers = [self.server]
        # Its time of day is the machine's: the libraries have no other.
        self.cache = tokens.TokenCache(self.clock)
        monkeypatch.setattr(tokens, "CACHE", self.cache)

    def stop(self) -> None:
        for server in self._servers:
            server.stop()

    def client(self, sign_in: SignIn, **options: Any) -> JobsClient:
        return JobsClient(
            transport=Transport(
                self.server.url,
                self.auth(sign_in),
                network=network_from(sign_in.extra),
                clock=self.clock,
                **options,
            )
        )

    def auth(self, sign_in: SignIn, workspace_id: str = "") -> Any:
        return choose_auth(
            login=sign_in.login,
            password=sign_in.password,
            extra=sign_in.extra,
            workspace=self.server.url,
            workspace_id=workspace_id,
            network=network_from(sign_in.extra),
            aws=sign_in.aws,
        )

    def fetches(self, sign_in: SignIn) -> list[Seen]:
        """Return the requests for the token that the workspace takes."""
        return (sign_in.server or self.server).asked(sign_in.path)

    def file(self, name: str, text: str, end: str = "\n") -> str:
        (self.root / name).write_text(text + end)
        return str(self.root / name)

    def entra_server(self) -> tuple[TokenServer, str]:
        """Return Entra, which is reached by https only, and the path of its certificate."""
        pem = self_signed(self.root / "entra.pem")
        entra = TokenServer(self.clock, tls=pem)
        entra.good, entra.given, entra.client_secret = self.server.good, self.server.given, self.server.client_secret
        self._servers.append(entra)
        return entra, str(pem)

    def use(self, **variables: str) -> None:
        for name, value in variables.items():
            self.monkeypatch.setenv(name, value)

    def use_aws(self, **variables: str) -> None:
        """Let the server be AWS, or skip the test where there is no botocore."""
        loader = pytest.importorskip("botocore.loaders").JSONFileLoader
        load_file = loader.load_file

        def load_once(self: object, path: str) -> Any:
            if path not in _botocore_files:
                _botocore_files[path] = load_file(self, path)
            return _botocore_files[path]

        self.monkeypatch.setattr(loader, "load_file", load_once)
        self.use(AWS_ENDPOINT_URL_STS=self.server.url, **variables)

    # --- the schemes ---

    def oauth(self) -> SignIn:
        return SignIn(CLIENT_ID, CLIENT_SECRET, {"service_principal_oauth": True}, secrets=(CLIENT_SECRET,))

    def federated_file(self) -> SignIn:
        self.server.subjects.add(JWT)
        path = self.file("jwt", JWT)
        return SignIn(extra={"federated_token_file": path, "client_id": CLIENT_ID}, secrets=(JWT,))

    def federated_env(self) -> SignIn:
        self.server.subjects.add(JWT)
        self.use(MY_JWT=f" {JWT}\n")
        return SignIn(extra={"federated_token_env": "MY_JWT"}, secrets=(JWT,))

    def federated_callable(self) -> SignIn:
        self.server.subjects.add(JWT)
        return self.by_function(lambda: f"{JWT}\n")

    def by_function(self, of_the_day: Callable[[], str]) -> SignIn:
        """Sign in with the token that a function returns."""
        module = ModuleType("my_tokens")
        vars(module)["of_the_day"] = of_the_day
        self.monkeypatch.setitem(sys.modules, "my_tokens", module)
        return SignIn(extra={"federated_token_provider": "my_tokens.of_the_day"}, secrets=(JWT,))

    def kubernetes_projected(self) -> SignIn:
        self.server.subjects.add(JWT)
        extra = {"client_id": CLIENT_ID, "k8s_projected_volume_token_path": self.file("projected", JWT)}
        return SignIn("federated_k8s", None, extra, secrets=(JWT,))

    def kubernetes(self) -> SignIn:
        extra = {
            "federated_k8s": True,
            "client_id": CLIENT_ID,
            "k8s_token_path": self.file("token", POD_TOKEN),
            "k8s_namespace_path": self.file("namespace", "airflow"),
            "k8s_api_url": self.server.url,
            "k8s_ca_path": str(self_signed(self.root / "cluster.pem")),
        }
        return SignIn(extra=extra, secrets=(POD_TOKEN,))

    def aws_environment(self) -> SignIn:
        self.use(AWS_ACCESS_KEY_ID=AWS_KEY, AWS_SECRET_ACCESS_KEY=AWS_SECRET, AWS_SESSION_TOKEN=AWS_SESSION)
        self.use_aws(AWS_REGION="eu-central-1")
        return SignIn(extra={"federated_aws": True}, secrets=(AWS_SECRET, AWS_SESSION))

    def aws_connection(self) -> SignIn:
        self.use_aws()
        aws = AwsConnection(AWS_KEY, AWS_SECRET, {"role_arn": ROLE_ARN, "region_name": "eu-central-1"})
        return SignIn("federated_aws", aws=aws, secrets=(AWS_SECRET, ROLE_SECRET, AWS_SESSION))

    def aws_service_account(self) -> SignIn:
        self.server.subjects.add(JWT)
        self.use(AWS_WEB_IDENTITY_TOKEN_FILE=self.file("irsa", JWT, end=""), AWS_ROLE_ARN=ROLE_ARN)
        self.use_aws()
        return SignIn(
            extra={"federated_aws": True, "aws_region": "eu-central-1"}, secrets=(JWT, ROLE_SECRET, AWS_SESSION)
        )

    def aws_container(self) -> SignIn:
        self.use(AWS_CONTAINER_CREDENTIALS_FULL_URI=f"{self.server.url}/container")
        self.use(AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=self.file("eks", POD_TOKEN, end=""))
        self.use_aws(AWS_DEFAULT_REGION="eu-central-1")
        return SignIn(extra={"auth_type": "federated_aws"}, secrets=(POD_TOKEN, ROLE_SECRET, AWS_SESSION))

    def aws_profile(self) -> SignIn:
        """Sign in with a profile, whose role is assumed with the key of another."""
        source = f"[base]\naws_access_key_id = {AWS_KEY}\naws_secret_access_key = {AWS_SECRET}\n"
        self.use(AWS_SHARED_CREDENTIALS_FILE=self.file("credentials", source))
        profile = f"[profile jobs]\nrole_arn = {ROLE_ARN}\nsource_profile = base\nregion = eu-central-1\n"
        self.use(AWS_CONFIG_FILE=self.file("config", profile), AWS_PROFILE="jobs")
        self.use_aws()
        return SignIn(extra={"federated_aws": True}, secrets=(AWS_SECRET, ROLE_SECRET, AWS_SESSION))

    def aws_instance(self) -> SignIn:
        self.use_aws(AWS_EC2_METADATA_SERVICE_ENDPOINT=f"{self.server.url}/")
        return SignIn(extra={"federated_aws": "true"}, secrets=(ROLE_SECRET, AWS_SESSION))

    def entra(self) -> SignIn:
        server, pem = self.entra_server()
        extra = {"azure_tenant_id": TENANT, "azure_ad_endpoint": server.url, "verify": pem}
        return SignIn(CLIENT_ID, CLIENT_SECRET, extra, secrets=(CLIENT_SECRET,), server=server, path=ENTRA_PATH)

    def entra_default(self) -> SignIn:
        server, pem = self.entra_server()
        self.use(AZURE_TENANT_ID=TENANT, AZURE_CLIENT_ID=CLIENT_ID, AZURE_CLIENT_SECRET=CLIENT_SECRET)
        extra = {"use_default_azure_credential": True, "azure_ad_endpoint": server.url, "verify": pem}
        return SignIn(extra=extra, secrets=(CLIENT_SECRET,), server=server, path=ENTRA_PATH)

    def managed_identity(self) -> SignIn:
        self.use(AZURE_POD_IDENTITY_AUTHORITY_HOST=self.server.url)
        extra = {"use_azure_managed_identity": True, "azure_managed_identity_client_id": CLIENT_ID}
        return SignIn(extra=extra, path=IDENTITY_PATH)

    def sdk(self) -> SignIn:
        # Its import takes seconds, which are not to be a token request's.
        importlib.import_module("databricks.sdk.core")
        config = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "config_file": str(self.root / "none")}
        return SignIn(extra={"auth_type": "sdk", "sdk_config": json.dumps(config)}, secrets=(CLIENT_SECRET,))


_NEEDS = {"entra": "azure.identity", "entra_default": "azure.identity", "managed_identity": "azure.identity"}
_NEEDS["sdk"] = "databricks.sdk"


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def needing(*names: str) -> list[Any]:
    """Return parameters for schemes by name; those whose library is not installed are skipped."""
    absent = {name for name in names if name in _NEEDS and not _is_there(_NEEDS[name])}
    return [
        pytest.param(name, marks=[pytest.mark.skip(f"{_NEEDS[name]} is not installed")] if name in absent else [])
        for name in names
    ]


EXCHANGING = (
    "federated_file", "federated_env", "federated_callable", "kubernetes_projected", "kubernetes", "aws_environment",
    "aws_connection", "aws_service_account", "aws_container", "aws_profile", "aws_instance",
)  # fmt: skip
ALL = ("oauth", *EXCHANGING, "entra", "entra_default", "managed_identity", "sdk")


@pytest.fixture
def scene_of_sign_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SignInScene]:
    import os

    for name in list(os.environ):
        if name.startswith(_FOREIGN_VARIABLES) or name.lower() in {
            "http_proxy",
            "https_proxy",
            "all_proxy",
            "no_proxy",
        }:
            monkeypatch.delenv(name)
    # No instance's own metadata service is ever asked by accident.
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("HOME", str(tmp_path))
    scene = SignInScene(tmp_path, monkeypatch)
    yield scene
    scene.stop()


def using(name: str, scene: SignInScene) -> SignIn:
    made: Callable[[], SignIn] = getattr(scene, name)
    return made()


__all__ = ["ALL", "ENTRA_PATH", "EXCHANGING", "IDENTITY_PATH", "JWT", "STS_PATH", "SignIn", "SignInScene", "needing",
           "scene_of_sign_in", "using"]  # fmt: skip
