"""A token by which AWS's Security Token Service says who this is (``sts:GetWebIdentityToken``), with no AWS library.

The keys to ask with are those of a connection of Airflow's, or of the machine, looked for in the order of AWS's own
SDKs: the environment, a role of a Kubernetes service account (IRSA), those of a container (ECS, EKS Pod Identity), the
instance's. (A profile in ``~/.aws`` is not looked for.)

Source: AWS STS API reference; AWS SDKs and Tools reference, "Standardized credential providers".
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode, urlsplit

from airflow_dbjobs.client.auth.federation import read_text
from airflow_dbjobs.client.auth.http import unreadable
from airflow_dbjobs.client.auth.sigv4 import AwsKeys, signed_headers
from airflow_dbjobs.client.session import Network
from airflow_dbjobs.errors import CallError, SignInRefused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_dbjobs.client.auth.http import TokenRequests

AUDIENCE = "databricks"
SECONDS = 300

_API_VERSION = "2011-06-15"
_SESSION_NAME = "airflow-dbjobs"
_CONTAINER_HOST = "http://169.254.170.2"
# Where AWS's SDKs let plain HTTP carry keys: this machine, and the addresses of ECS and EKS.
_CONTAINER_HOSTS = frozenset({"localhost", "127.0.0.1", "::1", "169.254.170.2", "169.254.170.23", "fd00:ec2::23"})
_INSTANCE_URL = "http://169.254.169.254"
# It is there at once, or this is no instance.
_INSTANCE_SECONDS = 2.0
# What is on the machine is never behind a proxy.
_DIRECT = Network(direct=True)
_NO_KEYS = (
    "Check that this runs with an AWS role (of a service account, a task or an instance), that AWS_ACCESS_KEY_ID and"
    " AWS_SECRET_ACCESS_KEY are set, or that the connection `aws_conn_id` has a key"
)


@dataclass(frozen=True)
class WebIdentity:
    """Asks STS for a token of whoever has `keys`, or of the role that these may assume; None means the machine's."""

    network: Network
    audience: str = AUDIENCE
    seconds: int = SECONDS
    region: str = ""
    keys: AwsKeys | None = None
    role_arn: str = ""
    external_id: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"AWS STS for audience {self.audience}"

    def read(self, requests: TokenRequests) -> str:
        """Ask STS for a token."""
        sts = _Sts(requests, self.network, self._region(requests))
        keys = self.keys or _keys_of_this_machine(requests, sts)
        if self.role_arn:
            keys = sts.assumed("AssumeRole", _role(self.role_arn, ExternalId=self.external_id), keys)
        parameters = {
            "Audience.member.1": self.audience,
            "SigningAlgorithm": "RS256",
            "DurationSeconds": str(self.seconds),
        }
        return sts.ask("GetWebIdentityToken", parameters, keys, "WebIdentityToken")[0]

    def _region(self, requests: TokenRequests) -> str:
        region = self.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        if region:
            return region
        try:
            return _Instance(requests).get("meta-data/placement/region")
        except CallError as error:
            raise SignInRefused(
                "The AWS region is not known, and this token is not given by the global endpoint: set `aws_region` in"
                " the connection's extra, or AWS_REGION"
            ) from error


@dataclass(frozen=True)
class _Sts:
    """The Security Token Service of a region."""

    requests: TokenRequests
    network: Network
    region: str

    @property
    def url(self) -> str:
        own = os.environ.get("AWS_ENDPOINT_URL_STS") or os.environ.get("AWS_ENDPOINT_URL")
        domain = "amazonaws.com.cn" if self.region.startswith("cn-") else "amazonaws.com"
        return f"{own.rstrip('/')}/" if own else f"https://sts.{self.region}.{domain}/"

    def assumed(self, action: str, parameters: Mapping[str, str], keys: AwsKeys | None) -> AwsKeys:
        """Return the keys of a role."""
        return AwsKeys(*self.ask(action, parameters, keys, "AccessKeyId", "SecretAccessKey", "SessionToken"))

    def ask(self, action: str, parameters: Mapping[str, str], keys: AwsKeys | None, *wanted: str) -> list[str]:
        """Call an action, signed where there are keys, and return what is wanted of its reply."""
        body = urlencode({"Action": action, "Version": _API_VERSION, **parameters}).encode()
        headers = {"content-type": "application/x-www-form-urlencoded"}
        if keys:
            now = self.requests.wall()
            headers = signed_headers(self.url, body, keys, region=self.region, service="sts", now=now)
        text = self.requests.text(
            "POST",
            self.url,
            self.network,
            body=body,
            headers={**headers, "Accept": "text/xml"},
            secrets=[parameters.get("WebIdentityToken", ""), *([keys.secret_key, keys.session_token] if keys else [])],
            remedy=f"Check that these AWS credentials are valid and may call sts:{action}, and that the account has"
            " outbound web identity federation enabled",
            reach_remedy="Check `aws_region` in the connection's extra",
        )
        found = _elements(text)
        if not all(found.get(name) for name in wanted):
            raise unreadable(f"POST {self.url}", f"no {' and '.join(wanted)}")
        return [found[name] for name in wanted]


def _keys_of_this_machine(requests: TokenRequests, sts: _Sts) -> AwsKeys:
    environment = os.environ
    access, secret = environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")
    if access and secret:
        return AwsKeys(access, secret, environment.get("AWS_SESSION_TOKEN", ""))
    path, role = environment.get("AWS_WEB_IDENTITY_TOKEN_FILE"), environment.get("AWS_ROLE_ARN")
    if path and role:
        parameters = {**_role(role), "WebIdentityToken": read_text(path, "AWS_WEB_IDENTITY_TOKEN_FILE")}
        return sts.assumed("AssumeRoleWithWebIdentity", parameters, None)
    if url := _container_url(environment):
        return _keys(requests.text("GET", url, _DIRECT, headers=_container_headers(environment), remedy=_NO_KEYS), url)
    try:
        instance = _Instance(requests)
        path = "meta-data/iam/security-credentials/"
        name = instance.get(path).partition("\n")[0].strip()
        return _keys(instance.get(f"{path}{quote(name, safe='')}"), f"{instance.url}/{path}")
    except CallError as error:
        raise SignInRefused(f"There are no AWS credentials here: {error}") from error


def _container_url(environment: Mapping[str, str]) -> str:
    if relative := environment.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"):
        return f"{_CONTAINER_HOST}{relative}"
    full = environment.get("AWS_CONTAINER_CREDENTIALS_FULL_URI", "")
    parts = urlsplit(full)
    if full and parts.scheme != "https" and parts.hostname not in _CONTAINER_HOSTS:
        raise SignInRefused("AWS_CONTAINER_CREDENTIALS_FULL_URI must be https, or an address of this machine")
    return full


def _container_headers(environment: Mapping[str, str]) -> dict[str, str]:
    path = environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
    token = (
        read_text(path, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
        if path
        else environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN", "")
    )
    return {"Authorization": token} if token else {}


class _Instance:
    """The metadata service of an instance, in its second version."""

    def __init__(self, requests: TokenRequests) -> None:
        own = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT")
        self.url = f"{(own or _INSTANCE_URL).rstrip('/')}/latest"
        self._requests = requests
        seconds = {"X-aws-ec2-metadata-token-ttl-seconds": "300"}
        self._session = {"X-aws-ec2-metadata-token": self._ask("PUT", "api/token", seconds)}

    def get(self, path: str) -> str:
        """Return what is to be known there."""
        return self._ask("GET", path, self._session)

    def _ask(self, method: str, path: str, headers: dict[str, str]) -> str:
        return self._requests.text(
            method,
            f"{self.url}/{path}",
            _DIRECT,
            headers=headers,
            remedy=_NO_KEYS,
            reach_remedy="It answers on instances of EC2 only",
            connect_seconds=_INSTANCE_SECONDS,
        ).strip()


def _keys(text: str, url: str) -> AwsKeys:
    try:
        reply = json.loads(text)
        return AwsKeys(str(reply["AccessKeyId"]), str(reply["SecretAccessKey"]), str(reply.get("Token") or ""))
    except (ValueError, TypeError, KeyError, AttributeError):
        raise unreadable(f"GET {url}", "no AccessKeyId and SecretAccessKey") from None


def _role(arn: str, **parameters: str) -> dict[str, str]:
    given = {name: value for name, value in parameters.items() if value}
    return {"RoleArn": arn, "RoleSessionName": _SESSION_NAME, **given}


def _elements(text: str) -> dict[str, str]:
    """Return the texts of a reply's elements by name."""
    from xml.etree import ElementTree

    try:
        root = ElementTree.fromstring(text)  # noqa: S314 (a reply of AWS's; and expat looks no external entity up)
    except ElementTree.ParseError:
        return {}
    return {element.tag.rpartition("}")[2]: (element.text or "").strip() for element in root.iter()}
