"""From an HTTP request to the operation it names: routes, API versions, arguments, and who may call."""

from __future__ import annotations

import base64
import contextlib
import getpass
import hmac
import json
import re
import urllib.parse
from collections.abc import Callable
from typing import Any, Final

from airflow_dbjobs.local_workspace.messages import MAX_BODY_BYTES, ApiError, Json, Reply, Request, json_reply
from airflow_dbjobs.local_workspace.operations import jobs, permissions, runs
from airflow_dbjobs.local_workspace.operations.context import Call
from airflow_dbjobs.local_workspace.operations.fields import decode

Operation = Callable[[Call], Json]

#: By name: the method, the function, and the versions that have it.
_ALL: Final = ("2.0", "2.1", "2.2")
OPERATIONS: Final[dict[str, tuple[str, Operation, tuple[str, ...]]]] = {
    "create": ("POST", jobs.create, _ALL),
    "list": ("GET", jobs.list_, _ALL),
    "get": ("GET", jobs.get, _ALL),
    "reset": ("POST", jobs.reset, _ALL),
    "update": ("POST", jobs.update, _ALL),
    "delete": ("POST", jobs.delete, _ALL),
    "run-now": ("POST", runs.run_now, _ALL),
    "runs/submit": ("POST", runs.submit, _ALL),
    "runs/list": ("GET", runs.list_, _ALL),
    "runs/get": ("GET", runs.get, _ALL),
    "runs/export": ("GET", runs.export, _ALL),
    "runs/cancel": ("POST", runs.cancel, _ALL),
    "runs/cancel-all": ("POST", runs.cancel_all, _ALL),
    "runs/get-output": ("GET", runs.get_output, _ALL),
    "runs/delete": ("POST", runs.delete, _ALL),
    "runs/repair": ("POST", runs.repair, _ALL[1:]),
}
#: By method, and what follows the job's id in the path; whatever version the rest is, these are in 2.0.
PERMISSIONS: Final[dict[tuple[str, str | None], Operation]] = {
    ("GET", None): permissions.get,
    ("PUT", None): permissions.replace,
    ("PATCH", None): permissions.update,
    ("GET", "/permissionLevels"): permissions.levels,
}
_JOBS_PATH: Final = re.compile(r"/api/(2\.[012])/jobs/([a-z/-]+)")
_PERMISSIONS_PATH: Final = re.compile(r"/api/2\.0/permissions/jobs/([^/]+)(/permissionLevels)?")


def operation_of(path: str) -> str:
    """Return the name by which faults and counters know a request.

    It is what follows `/jobs/` in the Jobs API ("runs/get"); "permissions" or "permissions/permissionLevels", whatever
    the job; and otherwise the whole path.
    """
    if found := _JOBS_PATH.fullmatch(path):
        return found[2]
    found = _PERMISSIONS_PATH.fullmatch(path)
    return f"permissions{found[2] or ''}" if found else path


def find_operation(request: Request) -> tuple[str, Operation] | None:
    """Return the API version and the function that a request asks for; None if there is no such route."""
    if found := _PERMISSIONS_PATH.fullmatch(request.path):
        changed = PERMISSIONS.get((request.method, found[2]))
        return ("2.0", changed) if changed else None
    found = _JOBS_PATH.fullmatch(request.path)
    method, operation, versions = OPERATIONS.get(found[2], ("", None, ())) if found else ("", None, ())
    if found is None or operation is None or method != request.method or found[1] not in versions:
        return None
    return found[1], operation


def bad_target(request: Request) -> Reply:
    """Return the reply to a path or method that the API does not have."""
    return json_reply({"error": f"Bad Target: {request.path}"}, 404)


def arguments(request: Request) -> Json:
    """Return the query and the body of a request as one object, with the job that its path names, if it does.

    The body is read as JSON whatever its content type says (curl says it is a form), and with GET as well (Airflow's
    asynchronous client puts the parameters there).

    Raises:
        ApiError: MALFORMED_REQUEST.
    """
    if len(request.body) > MAX_BODY_BYTES:
        raise ApiError(f"The body is larger than {MAX_BODY_BYTES} bytes.", code="MALFORMED_REQUEST")
    body: Any = {}
    if request.body.strip():
        try:
            body = json.loads(request.body)
            # Half a character ("\\ud800") is JSON, but no database, file or command line can hold it; 1e400 is, too,
            # but no reply could show it again.
            json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
        except UnicodeEncodeError as error:
            message = f"The body has text that is not Unicode: {error.reason}."
            raise ApiError(message, code="MALFORMED_REQUEST") from None
        except (ValueError, RecursionError) as error:
            raise ApiError(f"The body is not JSON: {error}", code="MALFORMED_REQUEST") from None
        if not isinstance(body, dict):
            raise ApiError("The body must be a JSON object.", code="MALFORMED_REQUEST")
    # A parameter that is there but empty counts as absent.
    given = {name: value for name, value in request.query.items() if value} | body
    if found := _PERMISSIONS_PATH.fullmatch(request.path):
        given["job_id"] = found[1]
    decoded: Json = decode(given)
    return decoded


def check_credentials(request: Request, token: str) -> None:
    """Check that a request carries the token, as a bearer token or as the password of any user.

    Raises:
        ApiError: 401 without credentials, 403 with wrong ones.
    """
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if not value:
        raise ApiError("Credentials are needed to call this API.", code="UNAUTHENTICATED", status=401)
    password = value if scheme.lower() == "bearer" else ""
    if scheme.lower() == "basic":
        # It may be no base64, or no UTF-8.
        with contextlib.suppress(ValueError):
            password = base64.b64decode(value).decode().partition(":")[2]
    # An empty password is wrong even where the token has come to be empty.
    if not password or not hmac.compare_digest(password.encode(), token.encode()):
        # What the cloud does: here alone the code is a number.
        raise ApiError("The access token is not valid.", code=403, status=403)


def user_name() -> str:
    """Return the name under which jobs and runs are made: that of the user who runs the server."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "local"


def me(user: str) -> Json:
    """Return who calls, as the SCIM API says it."""
    return {"id": "1", "userName": user, "displayName": user, "active": True}


def discovery(request: Request, base_url: str) -> Reply | None:
    """Answer the documents that tell a client where it gets a token; they need no credentials. None: another path."""
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
