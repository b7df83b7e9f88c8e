"""From an HTTP request to an operation and its arguments: routes and API versions."""

from __future__ import annotations

import difflib
import json
import posixpath
import re
from collections.abc import Callable
from typing import Any, Final

from airflow_dbjobs.local_workspace.messages import (
    MAX_BODY_BYTES,
    MAX_FILE_BYTES,
    ApiError,
    Json,
    Reply,
    Request,
)
from airflow_dbjobs.local_workspace.operations import (
    clusters,
    dbfs,
    jobs,
    permissions,
    runs,
    volumes,
    workspace_files,
)
from airflow_dbjobs.local_workspace.operations.context import RequestContext
from airflow_dbjobs.local_workspace.operations.fields import decode, decode_flat

from .auth import me
from .forms import is_form, read_form

Operation = Callable[[RequestContext], Json | Reply]

_2_0: Final = ("2.0",)
_TO_2_1: Final = ("2.0", "2.1")
_ALL: Final = ("2.0", "2.1", "2.2")
#: The function and the API versions of each operation, by method and by the path after the version.
OPERATIONS: Final[dict[tuple[str, str], tuple[Operation, tuple[str, ...]]]] = {
    ("POST", "jobs/create"): (jobs.create, _ALL),
    ("GET", "jobs/list"): (jobs.list_, _ALL),
    ("GET", "jobs/get"): (jobs.get, _ALL),
    ("POST", "jobs/reset"): (jobs.reset, _ALL),
    ("POST", "jobs/update"): (jobs.update, _ALL),
    ("POST", "jobs/delete"): (jobs.delete, _ALL),
    ("POST", "jobs/run-now"): (runs.run_now, _ALL),
    ("POST", "jobs/runs/submit"): (runs.submit, _ALL),
    ("GET", "jobs/runs/list"): (runs.list_, _ALL),
    ("GET", "jobs/runs/get"): (runs.get, _ALL),
    ("GET", "jobs/runs/export"): (runs.export, _ALL),
    ("POST", "jobs/runs/cancel"): (runs.cancel, _ALL),
    ("POST", "jobs/runs/cancel-all"): (runs.cancel_all, _ALL),
    ("GET", "jobs/runs/get-output"): (runs.get_output, _ALL),
    ("POST", "jobs/runs/delete"): (runs.delete, _ALL),
    ("POST", "jobs/runs/repair"): (runs.repair, _ALL[1:]),
    ("GET", "permissions/jobs/{job_id}"): (permissions.get, _2_0),
    ("PUT", "permissions/jobs/{job_id}"): (permissions.replace, _2_0),
    ("PATCH", "permissions/jobs/{job_id}"): (permissions.update, _2_0),
    ("GET", "permissions/jobs/{job_id}/permissionLevels"): (permissions.levels, _2_0),
    ("POST", "workspace/import"): (workspace_files.import_, _2_0),
    ("GET", "workspace/export"): (workspace_files.export, _2_0),
    ("GET", "workspace/list"): (workspace_files.list_, _2_0),
    ("GET", "workspace/get-status"): (workspace_files.get_status, _2_0),
    ("POST", "workspace/mkdirs"): (workspace_files.mkdirs, _2_0),
    ("POST", "workspace/delete"): (workspace_files.delete, _2_0),
    ("POST", "dbfs/put"): (dbfs.put, _2_0),
    ("POST", "dbfs/create"): (dbfs.create, _2_0),
    ("POST", "dbfs/add-block"): (dbfs.add_block, _2_0),
    ("POST", "dbfs/close"): (dbfs.close, _2_0),
    ("GET", "dbfs/read"): (dbfs.read, _2_0),
    ("GET", "dbfs/list"): (dbfs.list_, _2_0),
    ("GET", "dbfs/get-status"): (dbfs.get_status, _2_0),
    ("POST", "dbfs/mkdirs"): (dbfs.mkdirs, _2_0),
    ("POST", "dbfs/delete"): (dbfs.delete, _2_0),
    ("POST", "dbfs/move"): (dbfs.move, _2_0),
    ("PUT", "fs/files/{path}"): (volumes.upload, _2_0),
    ("GET", "fs/files/{path}"): (volumes.download, _2_0),
    ("HEAD", "fs/files/{path}"): (volumes.describe, _2_0),
    ("DELETE", "fs/files/{path}"): (volumes.delete, _2_0),
    ("PUT", "fs/directories/{path}"): (volumes.create_folder, _2_0),
    ("GET", "fs/directories/{path}"): (volumes.list_folder, _2_0),
    ("HEAD", "fs/directories/{path}"): (volumes.find_folder, _2_0),
    ("DELETE", "fs/directories/{path}"): (volumes.delete_folder, _2_0),
    ("GET", "clusters/list"): (clusters.list_, _TO_2_1),
    ("GET", "clusters/get"): (clusters.get, _TO_2_1),
    ("POST", "clusters/create"): (clusters.create, _TO_2_1),
    ("POST", "clusters/start"): (clusters.start, _TO_2_1),
    ("POST", "clusters/restart"): (clusters.start, _TO_2_1),
    ("POST", "clusters/delete"): (clusters.terminate, _TO_2_1),
    ("POST", "clusters/permanent-delete"): (clusters.terminate, _TO_2_1),
    ("POST", "clusters/edit"): (clusters.accept, _TO_2_1),
    ("POST", "clusters/resize"): (clusters.accept, _TO_2_1),
    ("POST", "clusters/pin"): (clusters.accept, _TO_2_1),
    ("POST", "clusters/unpin"): (clusters.accept, _TO_2_1),
    ("POST", "clusters/events"): (clusters.events, _TO_2_1),
    ("GET", "clusters/spark-versions"): (clusters.spark_versions, _TO_2_1),
    ("GET", "clusters/list-node-types"): (clusters.node_types, _TO_2_1),
    ("GET", "clusters/list-zones"): (clusters.zones, _TO_2_1),
    ("POST", "libraries/install"): (clusters.accept, _2_0),
    ("POST", "libraries/uninstall"): (clusters.accept, _2_0),
    ("GET", "libraries/cluster-status"): (clusters.library_statuses, _2_0),
    ("GET", "libraries/all-cluster-statuses"): (clusters.all_library_statuses, _2_0),
    ("GET", "preview/scim/v2/Me"): (lambda context: me(context.user), _2_0),
}
_API: Final = re.compile(r"/api/(\d\.\d)/(.+)")
_OF_A_JOB: Final = re.compile(r"permissions/jobs/([^/]+)(/permissionLevels)?")
_OF_A_FILE: Final = re.compile(r"(fs/(?:files|directories))(/.+)")
#: Requests whose bodies are files, or forms with one.
_WITH_FILE: Final = re.compile(r"/api/2\.0/(fs/files/.+|dbfs/put|workspace/import)")


def operation_of(path: str) -> str:
    """Return the name of a request's operation, as faults and counters use it.

    In the Jobs API it is the part of the path after `/jobs/` ("runs/get"). In the Permissions API it is "permissions"
    or "permissions/permissionLevels", without the job. Otherwise it is the whole path, without that of a volume's file.
    """
    version, name, _ = _split(path)
    if version in _ALL and name.startswith("jobs/"):
        return name.removeprefix("jobs/")
    if version in _2_0 and name.startswith("permissions/jobs/{job_id}"):
        return name.replace("/jobs/{job_id}", "")
    return f"/api/{version}/{name.removesuffix('/{path}')}" if version else path


def find_operation(request: Request) -> tuple[str, Operation] | None:
    """Return the API version and the function of a request's operation; None if there is no such route."""
    version, name, _ = _split(request.path)
    found = OPERATIONS.get((request.method, name))
    return (version, found[0]) if found and version in found[1] else None


def not_found(request: Request) -> Reply:
    """Return the reply to a path or method that does not exist: what is similar, and what there is."""
    version, name, _ = _split(request.path)
    close = difflib.get_close_matches(name, {known for _, known in OPERATIONS}, n=1)
    similar = [
        f"{method} /api/{version if version in versions else versions[-1]}/{known}"
        for (method, known), (_, versions) in OPERATIONS.items()
        if known in close
    ]
    hint = f" Did you mean {' or '.join(similar)}?" if similar else ""
    message = f"The local workspace does not serve {request.method} {request.path}.{hint} It serves {_served()}."
    return ApiError(message, code="ENDPOINT_NOT_FOUND", status=404).reply()


def _served() -> str:
    """Return the APIs, each with its versions."""
    apis: dict[str, list[str]] = {}
    for _, name in OPERATIONS:
        apis.setdefault(name.partition("/")[0], []).append(name)
    versions = {name: versions for (_, name), (_, versions) in OPERATIONS.items()}
    prefixes = {posixpath.commonprefix(names): versions[names[0]] for names in apis.values()}
    return ", ".join(f"{name}{'*' * name.endswith('/')} ({', '.join(given)})" for name, given in prefixes.items())


def body_limit(path: str) -> int:
    """Return how many bytes the body of a request may have."""
    return MAX_FILE_BYTES if _WITH_FILE.fullmatch(path) else MAX_BODY_BYTES


def arguments(request: Request) -> Json:
    """Return the query, the body and the arguments in the path of a request as one object.

    :raises ApiError: MALFORMED_REQUEST.
    """
    _, name, in_path = _split(request.path)
    if len(request.body) > (limit := body_limit(request.path)):
        raise ApiError(f"The body is larger than {limit} bytes.", code="MALFORMED_REQUEST")
    api = name.partition("/")[0]
    # The body of a request of the Files API is a file.
    body = {} if api == "fs" else read_form(request) if is_form(request) else _read_json(request.body)
    # An empty query parameter counts as absent.
    given = {name: value for name, value in request.query.items() if value} | body | in_path
    decoded: Json = decode(given) if api in {"", "jobs", "permissions"} else decode_flat(given)
    return decoded


def _split(path: str) -> tuple[str, str, Json]:
    """Return the API version in a path, the name of the operation, and the arguments; without a version, the path."""
    found = _API.fullmatch(path)
    if found is None:
        return "", path, {}
    version, name = found.groups()
    if job := _OF_A_JOB.fullmatch(name):
        return version, f"permissions/jobs/{{job_id}}{job[2] or ''}", {"job_id": job[1]}
    if file := _OF_A_FILE.fullmatch(name):
        return version, f"{file[1]}/{{path}}", {"path": file[2]}
    return version, name, {}


def _read_json(content: bytes) -> Json:
    """Parse a body as JSON whatever its content type (curl's default is a form).

    For GET as well: the official provider's asynchronous client puts the parameters there.
    """
    if not content.strip():
        return {}
    try:
        body: Any = json.loads(content)
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
    return body
