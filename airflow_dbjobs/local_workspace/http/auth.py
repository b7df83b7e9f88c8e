"""Who may call: the workspace's token, and how an OAuth client gets it."""

from __future__ import annotations

import base64
import contextlib
import getpass
import hmac
import urllib.parse
from typing import TYPE_CHECKING

from airflow_dbjobs.local_workspace.messages import ApiError, Reply, Request, json_reply

if TYPE_CHECKING:
    from airflow_dbjobs.local_workspace.messages import Json


def check_credentials(request: Request, token: str) -> None:
    """Check that a request carries the token, as a bearer token or as the password of any user.

    :raises ApiError: 401 without credentials, 403 with wrong ones.
    """
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if not value:
        raise ApiError("Credentials are needed to call this API.", code="UNAUTHENTICATED", status=401)
    password = value if scheme.lower() == "bearer" else ""
    if scheme.lower() == "basic":
        # The value may not be base64, or its content not UTF-8.
        with contextlib.suppress(ValueError):
            password = base64.b64decode(value).decode().partition(":")[2]
    # An empty password is wrong even if the token has become empty.
    if not password or not hmac.compare_digest(password.encode(), token.encode()):
        # As in the cloud, only this error has a number as its code.
        raise ApiError("The access token is not valid.", code=403, status=403)


def user_name() -> str:
    """Return the creator of jobs and runs: the user who runs the server."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "local"


def me(user: str) -> Json:
    """Return the caller, as the SCIM API shows it."""
    return {"id": "1", "userName": user, "displayName": user, "active": True}


def discovery(request: Request, base_url: str) -> Reply | None:
    """Answer OAuth discovery, which needs no credentials; return None for other requests."""
    if request.method != "GET":
        return None
    if request.path == "/.well-known/databricks-config":
        return json_reply({"oidc_endpoint": f"{base_url}/oidc", "workspace_id": "0"})
    if request.path == "/oidc/.well-known/oauth-authorization-server":
        endpoints = {"token_endpoint": f"{base_url}/oidc/v1/token", "issuer": f"{base_url}/oidc"}
        return json_reply({**endpoints, "authorization_endpoint": f"{base_url}/oidc/v1/authorize"})
    return None


def issue_token(request: Request, token: str) -> Reply:
    """Answer a client-credentials request: any client id, with the workspace's token as its secret."""
    form = dict(urllib.parse.parse_qsl(request.body.decode(errors="replace")))
    if form.get("grant_type") != "client_credentials":
        return json_reply({"error": "unsupported_grant_type", "error_description": "only client_credentials"}, 400)
    if "client_secret" in form:
        basic = base64.b64encode(f":{form['client_secret']}".encode()).decode()
        request = Request(request.method, request.path, headers={"authorization": f"Basic {basic}"})
    try:
        check_credentials(request, token)
    except ApiError as error:
        return json_reply({"error": "invalid_client", "error_description": error.message}, 401)
    return json_reply({"access_token": token, "token_type": "Bearer", "expires_in": 3600, "scope": "all-apis"})
