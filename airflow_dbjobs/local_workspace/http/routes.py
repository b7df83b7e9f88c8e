"""From an HTTP request to an operation and its arguments: routes and API versions."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final

from airflow_dbjobs.local_workspace.messages import MAX_BODY_BYTES, ApiError, Json, Reply, Request, json_reply
from airflow_dbjobs.local_workspace.operations import jobs, permissions, runs, workspace_files
from airflow_dbjobs.local_workspace.operations.context import RequestContext
from airflow_dbjobs.local_workspace.operations.fields import decode

Operation = Callable[[RequestContext], Json]

_ALL: Final = ("2.0", "2.1", "2.2")
#: The method, the function and the API versions of each operation, by name.
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
#: By method, and the part of the path after the job's id. The Permissions API has version 2.0 only.
PERMISSIONS: Final[dict[tuple[str, str | None], Operation]] = {
    ("GET", None): permissions.get,
    ("PUT", None): permissions.replace,
    ("PATCH", None): permissions.update,
    ("GET", "/permissionLevels"): permissions.levels,
}
#: The Workspace API has version 2.0 only.
WORKSPACE: Final[dict[tuple[str, str], Operation]] = {
    ("POST", "/api/2.0/workspace/import"): workspace_files.import_,
    ("POST", "/api/2.0/workspace/mkdirs"): workspace_files.mkdirs,
}
_JOBS_PATH: Final = re.compile(r"/api/(2\.[012])/jobs/([a-z/-]+)")
_PERMISSIONS_PATH: Final = re.compile(r"/api/2\.0/permissions/jobs/([^/]+)(/permissionLevels)?")


def operation_of(path: str) -> str:
    """Return the name of a request's operation, as faults and counters use it.

    In the Jobs API it is the part of the path after `/jobs/` ("runs/get"). In the Permissions API it is "permissions"
    or "permissions/permissionLevels", without the job. Otherwise it is the whole path.
    """
    if found := _JOBS_PATH.fullmatch(path):
        return found[2]
    found = _PERMISSIONS_PATH.fullmatch(path)
    return f"permissions{found[2] or ''}" if found else path


def find_operation(request: Request) -> tuple[str, Operation] | None:
    """Return the API version and the function of a request's operation; None if there is no such route."""
    if found := _PERMISSIONS_PATH.fullmatch(request.path):
        operation = PERMISSIONS.get((request.method, found[2]))
        return ("2.0", operation) if operation else None
    if operation := WORKSPACE.get((request.method, request.path)):
        return "2.0", operation
    found = _JOBS_PATH.fullmatch(request.path)
    if found is None or found[2] not in OPERATIONS:
        return None
    method, operation, versions = OPERATIONS[found[2]]
    return (found[1], operation) if method == request.method and found[1] in versions else None


def not_found(request: Request) -> Reply:
    """Return the reply to a path or method that does not exist."""
    return json_reply({"error": f"Bad Target: {request.path}"}, 404)


def arguments(request: Request) -> Json:
    """Return the query, the body and, if it is there, the job id in the path of a request as one object.

    The body is parsed as JSON whatever its content type (curl's default is a form), for GET as well (the official
    provider's asynchronous client puts the parameters there).

    :raises ApiError: MALFORMED_REQUEST.
    """
    if len(request.body) > MAX_BODY_BYTES:
        raise ApiError(f"The body is larger than {MAX_BODY_BYTES} bytes.", code="MALFORMED_REQUEST")
    body: Any = {}
    if request.body.strip():
        try:
            body = json.loads(request.body)
            # A lone surrogate ("\\ud800") is valid JSON, but no database, file or command line can hold it. So is
            # 1e400, but no reply could repeat it.
            json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
        except UnicodeEncodeError as error:
            message = f"The body contains text that is not Unicode: {error.reason}."
            raise ApiError(message, code="MALFORMED_REQUEST") from None
        except (ValueError, RecursionError) as error:
            raise ApiError(f"The body is not JSON: {error}.", code="MALFORMED_REQUEST") from None
        if not isinstance(body, dict):
            raise ApiError("The body must be a JSON object.", code="MALFORMED_REQUEST")
    # An empty query parameter counts as absent.
    given = {name: value for name, value in request.query.items() if value} | body
    if found := _PERMISSIONS_PATH.fullmatch(request.path):
        given["job_id"] = found[1]
    decoded: Json = decode(given)
    return decoded
