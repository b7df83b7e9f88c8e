"""Forms with files (`multipart/form-data`), as databricks-sdk and curl upload them."""

from __future__ import annotations

import base64
from email.message import Message
from typing import TYPE_CHECKING

from airflow_dbjobs.local_workspace.messages import ApiError

if TYPE_CHECKING:
    from airflow_dbjobs.local_workspace.messages import Json, Request

#: The fields that hold bytes: they become base64, which is what JSON has for them.
_FILES = frozenset({"content", "contents"})


def is_form(request: Request) -> bool:
    """Return whether a request has a form with files."""
    return request.headers.get("content-type", "").startswith("multipart/form-data")


def read_form(request: Request) -> Json:
    """Return the fields of a form; files in base64.

    :raises ApiError: MALFORMED_REQUEST.
    """
    boundary = _parameter("content-type", request.headers["content-type"], "boundary")
    if not boundary:
        raise ApiError("The form has no boundary.", code="MALFORMED_REQUEST")
    parts = (b"\r\n" + request.body).split(b"\r\n--" + boundary.encode())
    if len(parts) == 1 or not parts[-1].startswith(b"--"):
        raise ApiError("The form is not complete.", code="MALFORMED_REQUEST")
    return dict(_field(part) for part in parts[1:-1])


def _field(part: bytes) -> tuple[str, str]:
    head, _, content = part.partition(b"\r\n\r\n")
    headers = dict(line.lower().split(":", 1) for line in head.decode(errors="replace").split("\r\n") if ":" in line)
    name = _parameter("content-disposition", headers.get("content-disposition", ""), "name")
    if name in _FILES:
        return name, base64.b64encode(content).decode()
    try:
        return name, content.decode()
    except UnicodeDecodeError:
        raise ApiError(f"Field {name!r} of the form is not text in UTF-8.", code="MALFORMED_REQUEST") from None


def _parameter(header: str, value: str, name: str) -> str:
    """Return a parameter of a header, or an empty text."""
    message = Message()
    message[header] = value
    return str(message.get_param(name, "", header))
