"""Make a client's auth object from the fields of a connection."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.client.auth.aws import AUDIENCE, SECONDS, AwsKeys, WebIdentity
from airflow_dbjobs.client.auth.azure import EntraToken, check_authority
from airflow_dbjobs.client.auth.databricks import (
    ClientCredentials,
    FederatedToken,
    Issuer,
    TokenCallable,
    TokenFile,
    TokenVariable,
)
from airflow_dbjobs.client.auth.kubernetes import API_URL, TokenRequest
from airflow_dbjobs.client.auth.sdk import SdkToken
from airflow_dbjobs.client.auth.static import BasicAuth, BearerAuth, clean, clean_token
from airflow_dbjobs.client.auth.tokens import TokenAuth
from airflow_dbjobs.client.session import Network, is_safe_for_secrets
from airflow_dbjobs.errors import ConfigurationError
from airflow_dbjobs.hooks.extra import number, scheme_of
from airflow_dbjobs.hooks.fields import SDK_AUTH_TYPES

if TYPE_CHECKING:
    from collections.abc import Callable

    from requests.auth import AuthBase

    from airflow_dbjobs.client.auth.azure import Who
    from airflow_dbjobs.client.auth.databricks import SubjectToken
    from airflow_dbjobs.client.auth.tokens import TokenSource


@dataclass(frozen=True)
class AwsConnection:
    """The fields of an Airflow connection of type ``aws``: a key, a profile or neither, and maybe a role to assume."""

    login: str = ""
    password: str = field(default="", repr=False)
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)


def choose_auth(
    *,
    login: str | None,
    password: str | None,
    extra: Mapping[str, Any],
    workspace: str = "",
    workspace_id: str = "",
    network: Network | None = None,
    aws: AwsConnection | None = None,
) -> AuthBase:
    """Return the auth object for a connection's fields, in the official provider's order (``hooks.extra.scheme_of``).

    `workspace` is the workspace's URL, `workspace_id` selects one if several share it, `network` is how to reach it,
    and `aws` is the connection that `aws_conn_id` names, if any. Raises ConfigurationError for a wrong field.
    """
    scheme = scheme_of(login, password, extra)
    if scheme.name == "token":
        if token := _text(extra, "token"):
            return BearerAuth(clean_token(token, "`token` in the connection's extra"))
        return BearerAuth(clean_token(password or "", "the connection's password"))
    fields = _Fields(
        workspace=workspace,
        workspace_id=workspace_id,
        network=network or Network(),
        login=clean(login or "", "the connection's login"),
        password=clean(password or "", "the connection's password"),
        extra=extra,
        aws_connection=aws or AwsConnection(),
    )
    if scheme.name == "basic":
        return BasicAuth(fields.login, fields.password)
    return TokenAuth(_SOURCES[scheme.name](fields))


@dataclass(frozen=True)
class _Fields:
    """Makes the sources of tokens from a connection's fields, which are as in `choose_auth`."""

    workspace: str
    workspace_id: str
    network: Network
    login: str
    password: str = field(repr=False)
    extra: Mapping[str, Any] = field(repr=False)
    aws_connection: AwsConnection

    def text(self, name: str, default: str = "") -> str:
        return _text(self.extra, name) or default

    def oauth(self) -> TokenSource:
        return ClientCredentials(self._issuer, self.login, self.password)

    @property
    def _issuer(self) -> Issuer:
        return Issuer(self.workspace, self.network, is_shared=bool(self.workspace_id))

    def entra_service_principal(self) -> TokenSource:
        return self._entra(
            "service principal",
            client_id=self.login,
            client_secret=self.password,
            tenant_id=self.text("azure_tenant_id"),
        )

    def entra_managed_identity(self) -> TokenSource:
        return self._entra("managed identity", client_id=self.text("azure_managed_identity_client_id"))

    def entra_default(self) -> TokenSource:
        return self._entra("default credential")

    def _entra(self, who: Who, **fields: str) -> TokenSource:
        return EntraToken(
            who,
            self.network,
            authority=check_authority(self.text("azure_ad_endpoint")),
            resource_id=clean(self.text("azure_resource_id"), "extra azure_resource_id"),
            **fields,
        )

    def function(self) -> TokenSource:
        return self._federated(TokenCallable(self.text("federated_token_provider")))

    def file(self) -> TokenSource:
        return self._federated(TokenFile(self.text("federated_token_file")))

    def variable(self) -> TokenSource:
        return self._federated(TokenVariable(self.text("federated_token_env")))

    def kubernetes(self) -> TokenSource:
        if path := self.text("k8s_projected_volume_token_path"):
            return self._federated(TokenFile(path, "k8s_projected_volume_token_path"))
        names = {
            "audience": "audience",
            "service_account": "k8s_service_account",
            "token_path": "k8s_token_path",
            "namespace_path": "k8s_namespace_path",
            "api_url": "k8s_api_url",
            "ca_path": "k8s_ca_path",
        }
        given = {field: value for field, name in names.items() if (value := self.text(name))}
        if not is_safe_for_secrets(given.get("api_url", API_URL)):
            raise ConfigurationError(
                "extra k8s_api_url must be an https URL (http for this machine only): the pod's token is sent there."
            )
        return self._federated(TokenRequest(seconds=_seconds(self.extra, "expiration_seconds", 3600), **given))

    def aws(self) -> TokenSource:
        aws_extra = self.aws_connection.extra
        login = self.aws_connection.login or _text(aws_extra, "aws_access_key_id")
        secret = self.aws_connection.password or _text(aws_extra, "aws_secret_access_key")
        keys = AwsKeys(login, secret, _text(aws_extra, "aws_session_token")) if login and secret else None
        return self._federated(
            WebIdentity(
                self.network,
                audience=self.text("aws_jwt_audience", AUDIENCE),
                seconds=_seconds(self.extra, "aws_web_identity_token_duration", SECONDS),
                region=self.text("aws_region") or _text(aws_extra, "region_name"),
                keys=keys,
                profile=_text(aws_extra, "profile_name"),
                role_arn=_text(aws_extra, "role_arn"),
                external_id=_external_id(aws_extra),
            )
        )

    def _federated(self, subject: SubjectToken) -> TokenSource:
        return FederatedToken(self._issuer, subject, self.text("client_id"))

    def sdk(self) -> TokenSource:
        auth_type = self.text("auth_type")
        config = self.extra.get("sdk_config") or {}
        try:
            config = json.loads(config) if isinstance(config, str) else config
        except ValueError:
            config = None
        if not isinstance(config, Mapping):
            raise ConfigurationError(
                "extra sdk_config must be a JSON object: the arguments of databricks-sdk's Config."
            )
        if self.workspace_id:
            # The SDK may need it, and with it two workspaces never share a token.
            config = {"workspace_id": self.workspace_id, **config}
        return SdkToken(
            self.workspace,
            auth_type if auth_type in SDK_AUTH_TYPES else "",
            json.dumps(config, sort_keys=True, default=str),
        )


_SOURCES: dict[str, Callable[[_Fields], TokenSource]] = {
    "azure_service_principal": _Fields.entra_service_principal,
    "azure_managed_identity": _Fields.entra_managed_identity,
    "azure_default": _Fields.entra_default,
    "oauth": _Fields.oauth,
    "federated_token_provider": _Fields.function,
    "federated_aws": _Fields.aws,
    "federated_k8s": _Fields.kubernetes,
    "federated_file": _Fields.file,
    "federated_env": _Fields.variable,
    "sdk": _Fields.sdk,
}


def _text(extra: Mapping[str, Any], name: str) -> str:
    value = extra.get(name)
    return "" if value is None else str(value).strip()


def _seconds(extra: Mapping[str, Any], name: str, default: int) -> int:
    """Read a number of seconds of the extra, rounded up. Raises ConfigurationError."""
    seconds = number(extra, name)
    return default if seconds is None else math.ceil(seconds)


def _external_id(aws_extra: Mapping[str, Any]) -> str:
    """Return the external id for assuming a role. Raises ConfigurationError for an unsupported `assume_role_method`."""
    if (method := _text(aws_extra, "assume_role_method")) not in {"", "assume_role"}:
        raise ConfigurationError(
            f"the AWS connection's assume_role_method is {method!r}, which is not supported here: set a key, a"
            " profile or a role there, or return the token from a function (`federated_token_provider`)."
        )
    arguments = aws_extra.get("assume_role_kwargs")
    return _text(aws_extra, "external_id") or (_text(arguments, "ExternalId") if isinstance(arguments, Mapping) else "")
