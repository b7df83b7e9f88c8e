"""Interpret a reply of the Jobs API: return its JSON object, or raise the error that it reports."""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_dbjobs.client.session import wrong_protocol
from airflow_dbjobs.errors import (
    ApiError,
    BadRequest,
    CallError,
    Conflict,
    NotFound,
    PermissionDenied,
    ServerError,
    TooManyRequests,
    Unauthenticated,
    UnreadableReply,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_dbjobs.client.exchange import Reply

# Replies of common servers to plain HTTP on an HTTPS port.
_WANTS_TLS = re.compile(r"plain HTTP request was sent to HTTPS port|HTTP request to an HTTPS server", re.IGNORECASE)
# Fields that must be equal in a request and its reply.
_IDS = ("run_id", "job_id")

_BY_STATUS: dict[int, type[ApiError]] = {
    400: BadRequest,
    401: Unauthenticated,
    403: PermissionDenied,
    404: NotFound,
    409: Conflict,
    429: TooManyRequests,
}

_MISSING = frozenset({"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"})

# An error_code that is more precise than the status.
_BY_ERROR_CODE: dict[str, type[ApiError]] = {
    "RESOURCE_DOES_NOT_EXIST": NotFound,
    "RESOURCE_ALREADY_EXISTS": Conflict,
    "REQUEST_LIMIT_EXCEEDED": TooManyRequests,
    "RESOURCE_EXHAUSTED": TooManyRequests,
    "TEMPORARILY_UNAVAILABLE": ServerError,
}

# The Jobs API answers 400 INVALID_PARAMETER_VALUE, not 404, if a run or job does not exist; only the message shows it.
_DOES_NOT_EXIST = re.compile(r"\s*(run|job):? (\d+)\b.*\b(does not|doesn't) exist", re.IGNORECASE | re.DOTALL)


def json_object(
    call: str,
    reply: Reply,
    asked: Mapping[str, Any],
    *,
    void: bool = False,
    parse: Callable[[bytes], Any] = json.loads,
) -> dict[str, Any]:
    """Return the JSON object of a successful reply. Raises ApiError or UnreadableReply.

    A reply about another run or job than `asked`, the query or the body, belongs to another request, and is refused.
    `void` and `parse` are as in ``Transport.send``.
    """
    if not reply.is_success:
        raise _refusal(call, reply, asked)
    if void and not reply.body.strip():
        return {}
    body = reply.json_object(parse)
    if body is None:
        kind = reply.header("Content-Type") or "no content type"
        raise UnreadableReply(f"{call} answered {reply.status} without a JSON object ({kind}): {reply.start}")
    for name in _IDS:
        if name in asked and name in body and str(body[name]) != str(asked[name]):
            received = reply.shown(str(body[name]))
            raise UnreadableReply(f"{call} returned {name} {received} instead of {asked[name]}")
    return body


def _refusal(call: str, reply: Reply, asked: Mapping[str, Any]) -> CallError:
    if reply.is_redirect:
        where = reply.header("Location") or ""
        if not _is_url(where):
            return UnreadableReply(f"{call} answered {reply.status} with a Location that is not a URL: {where}")
        message = f"a redirect to {where}. Is the connection's host the workspace's URL?"
        return ApiError(call, reply.status, message=message)
    if reply.status == HTTPStatus.BAD_REQUEST and _WANTS_TLS.search(reply.text):
        return wrong_protocol(call, "the server", "speaks HTTPS, not plain HTTP")
    if reply.status < HTTPStatus.OK:
        return UnreadableReply(f"{call} answered {reply.status} without a final status")
    body = reply.shown_json(reply.json_object())
    if body is None:
        body = {"message": f"{reply.reason} {reply.start}".strip()}
    headers = {name: value for name in ("X-Request-Id", "Retry-After") if (value := reply.header(name)) is not None}
    error = api_error(call, reply.status, body, headers)
    missing = _DOES_NOT_EXIST.match(error.message)
    name = f"{missing[1].lower()}_id" if missing else ""
    if missing and name in asked and missing[2] != str(asked[name]):
        return UnreadableReply(f"{call} answered about {name} {missing[2]} instead of {asked[name]}")
    return error


def _is_url(text: str) -> bool:
    try:
        urlsplit(text)
    except ValueError:
        return False
    return True


def api_error(call: str, status: int, body: Mapping[str, Any], headers: Mapping[str, str]) -> ApiError:
    """Return the error for an unsuccessful reply.

    `call` names the endpoint ("POST jobs/run-now"). `body` is the reply's JSON object ({} if it had none): the usual
    ``error_code``/``message``, or one of the rarer shapes ``{"error": ...}`` and ``{"detail": ...}``.
    """
    error_code = body.get("error_code")
    # Some gateways repeat the HTTP status here.
    code = error_code if isinstance(error_code, str) and not error_code.isdigit() else ""
    message = str(body.get("message") or body.get("error") or body.get("detail") or "").strip()
    kind = (
        _BY_ERROR_CODE.get(code)
        or _BY_STATUS.get(status)
        or (ServerError if status >= HTTPStatus.INTERNAL_SERVER_ERROR else ApiError)
    )
    if kind is BadRequest and _DOES_NOT_EXIST.match(message):
        kind = NotFound
    elif kind is NotFound and code not in _MISSING and not _DOES_NOT_EXIST.match(message):
        # A gateway's 404, or that of an API that is not available here, which says nothing about the run or job.
        kind = ApiError
    return kind(
        call,
        status,
        code,
        message,
        request_id=headers.get("X-Request-Id") or _request_id(body.get("details")),
        retry_after=headers.get("Retry-After"),
    )


def _request_id(details: object) -> str:
    """Return the request id in the `details` of an error body (a list of google.rpc messages), or ""."""
    for detail in details if isinstance(details, list) else []:
        if isinstance(detail, dict) and isinstance(detail.get("request_id"), str):
            return str(detail["request_id"])
    return ""
