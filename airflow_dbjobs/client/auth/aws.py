"""Request a token that identifies the caller from AWS's Security Token Service (``sts:GetWebIdentityToken``).

botocore (extra ``aws`` of this package, imported when a token is requested) finds the credentials as every AWS SDK
does, including profiles, and signs the request. It does not send it, as it supports this action only since 1.41, and
Airflow 3.0 pins an older version. Source: AWS STS API reference.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from airflow_dbjobs.client.auth.token_requests import LIMIT_CODES, unreadable
from airflow_dbjobs.client.sanitize import cleaned, one_line, scrubbed
from airflow_dbjobs.errors import CallError, SignInRefused, Unreachable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow_dbjobs.client.auth.token_requests import TokenRequests
    from airflow_dbjobs.client.session import Network

AUDIENCE = "databricks"
SECONDS = 300

_API_VERSION = "2011-06-15"
_SESSION_NAME = "airflow-dbjobs"
_CONNECT_SECONDS = 10.0
_NO_KEYS = (
    "Check that the worker or triggerer has an AWS role (of a service account, a task or an instance), that"
    " AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE are set, or that the connection `aws_conn_id`"
    " has a key or a profile"
)


@dataclass(frozen=True)
class AwsKeys:
    """An access key, with the attributes of botocore's credentials; `token` is "" unless it is a temporary one."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str = field(default="", repr=False)


@dataclass(frozen=True)
class WebIdentity:
    """Requests a token from STS with `keys`, else with a `profile`, else with the credentials that botocore finds.

    With `role_arn` the token is that of a role, which is assumed first.
    """

    network: Network
    audience: str = AUDIENCE
    seconds: int = SECONDS
    region: str = ""
    keys: AwsKeys | None = None
    profile: str = ""
    role_arn: str = ""
    external_id: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"AWS STS for audience {self.audience}"

    def read(self, requests: TokenRequests) -> str:
        """Request a token from STS."""
        keys, region = self._keys_and_region(requests)
        sts = _Sts(requests, self.network, region)
        if self.role_arn:
            role = {"RoleArn": self.role_arn, "RoleSessionName": _SESSION_NAME}
            role |= {"ExternalId": self.external_id} if self.external_id else {}
            keys = AwsKeys(*sts.call("AssumeRole", role, keys, "AccessKeyId", "SecretAccessKey", "SessionToken"))
        parameters = {
            "Audience.member.1": self.audience,
            "SigningAlgorithm": "RS256",
            "DurationSeconds": str(self.seconds),
        }
        return sts.call("GetWebIdentityToken", parameters, keys, "WebIdentityToken")[0]

    def _keys_and_region(self, requests: TokenRequests) -> tuple[AwsKeys, str]:
        try:
            import botocore  # noqa: F401 (is it installed?)
        except ImportError as error:
            raise SignInRefused(
                "botocore is not installed; `federated_aws` needs it: pip install 'airflow-dbjobs[aws]'"
            ) from error
        # At DEBUG it logs requests and replies, which contain keys.
        if (logger := logging.getLogger("botocore")).level == logging.NOTSET:
            logger.setLevel(logging.INFO)
        try:
            session = self._session(requests.left)
            region = self._region(session)
            # For botocore's own calls, if it assumes a role.
            session.set_config_variable("region", region)
            found = None if self.keys else session.get_credentials()
            keys = self.keys or (found and found.get_frozen_credentials())
        except SignInRefused:
            raise
        except Exception as error:  # noqa: BLE001 (of botocore, or of what it calls)
            # The error may quote a server that echoed a secret.
            raise _failure(error) from None
        if not keys:
            raise SignInRefused(f"There are no AWS credentials on this worker or triggerer. {_NO_KEYS}")
        return AwsKeys(keys.access_key, keys.secret_key, keys.token or ""), region

    def _region(self, session: Any) -> str:
        from botocore.utils import IMDSRegionProvider

        region = self.region or os.environ.get("AWS_REGION") or session.get_config_variable("region")
        if found := region or IMDSRegionProvider(session).provide():
            return str(found)
        raise SignInRefused(
            "The AWS region is not known, and the global endpoint does not issue this token: set `aws_region` in the"
            " connection's extra, or AWS_REGION"
        )

    def _session(self, seconds: float) -> Any:
        from botocore.config import Config
        from botocore.session import Session

        session = Session(profile=self.profile or None)
        session.set_default_client_config(
            Config(
                connect_timeout=min(_CONNECT_SECONDS, seconds),
                read_timeout=seconds,
                # The API call that needs the token is retried.
                retries={"total_max_attempts": 1},
                proxies=dict(self.network.proxies) or None,
                client_cert=self.network.cert,
            )
        )
        if self.network.verify is not True:
            session.set_config_variable("ca_bundle", self.network.verify)
        return session


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

    def call(self, action: str, parameters: Mapping[str, str], keys: AwsKeys, *wanted: str) -> list[str]:
        """Call an action, and return the elements of its reply that are wanted."""
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest

        body = urlencode({"Action": action, "Version": _API_VERSION, **parameters}).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "text/xml"}
        request = AWSRequest("POST", self.url, headers, body)
        SigV4Auth(keys, "sts", self.region).add_auth(request)
        text = self.requests.text(
            "POST",
            self.url,
            self.network,
            body=body,
            headers=dict(request.headers),
            secrets=[keys.secret_key],
            remedy=f"Check that these AWS credentials are valid and may call sts:{action}, and that the account has"
            " outbound web identity federation enabled",
            reach_remedy="Check `aws_region` in the connection's extra",
        )
        found = _elements(text)
        if not all(found.get(name) for name in wanted):
            raise unreadable(f"POST {self.url}", f"no {' and '.join(wanted)}")
        return [found[name] for name in wanted]


def _failure(error: Exception) -> CallError:
    """Convert an error of botocore's credential lookup; it is transient if a server may have failed."""
    from botocore import exceptions

    reply = error.response if isinstance(error, exceptions.ClientError) else {}
    status = reply.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    message = cleaned(scrubbed(one_line(str(error) or type(error).__name__), _secrets()))[:500].rstrip(".")
    text = f"Retrieving AWS credentials failed: {message}. {_NO_KEYS}"
    transient = (
        OSError,
        exceptions.ConnectionError,
        exceptions.HTTPClientError,
        exceptions.CredentialRetrievalError,
        exceptions.MetadataRetrievalError,
    )
    is_limit = status == HTTPStatus.TOO_MANY_REQUESTS or reply.get("Error", {}).get("Code") in LIMIT_CODES
    if isinstance(error, transient) or status >= HTTPStatus.INTERNAL_SERVER_ERROR or is_limit:
        return Unreachable(text)
    return SignInRefused(text)


def _secrets() -> Iterator[str]:
    """Yield the secrets that botocore may have sent."""
    for name, value in os.environ.items():
        if name.startswith("AWS_") and ("TOKEN" in name or "SECRET" in name):
            yield value
            if name.endswith("_FILE"):
                with suppress(OSError, ValueError):
                    yield Path(value).read_text(encoding="utf-8").strip()


def _elements(text: str) -> dict[str, str]:
    """Return the text of each element of a reply by its name."""
    from xml.etree import ElementTree

    try:
        root = ElementTree.fromstring(text)  # noqa: S314 (from AWS; and expat does not resolve external entities)
    except ElementTree.ParseError:
        return {}
    return {element.tag.rpartition("}")[2]: (element.text or "").strip() for element in root.iter()}
