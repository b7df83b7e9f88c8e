"""HTTP messages: a request, a reply, and the error that becomes a reply."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

Json = dict[str, Any]

#: The largest request body that is accepted, as in the cloud's Jobs API.
MAX_BODY_BYTES: Final = 10 * 1024 * 1024
#: The largest body that holds a file. databricks-sdk sends larger files in parts, to storage that is not here.
MAX_FILE_BYTES: Final = 50 * 1024 * 1024


@dataclass(frozen=True)
class Request:
    """An HTTP request; header names are lower case."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Reply:
    """An HTTP reply, and what a fault does to it on the way to the client.

    :param delay: Seconds by which the reply is late.
    :param cut: The connection is dropped instead of answered.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut: bool = False


class Handler(Protocol):
    """What the server and the in-process adapter pass requests to: the workspace."""

    def handle(self, request: Request) -> Reply:
        """Answer a request."""


class ApiError(Exception):
    """An error reply of the Jobs API: `{"error_code": code, "message": message}` with an HTTP status."""

    def __init__(self, message: str, *, code: str | int = "INVALID_PARAMETER_VALUE", status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.status = status

    def reply(self) -> Reply:
        """Return the error as an HTTP reply."""
        return json_reply({"error_code": self.code, "message": self.message}, self.status)


def json_reply(payload: Json, status: int = 200) -> Reply:
    """Return `payload` as a JSON reply."""
    body = json.dumps(payload, separators=(",", ":")).encode()
    return Reply(status, body, {"Content-Type": "application/json; charset=utf-8"})


def describe(value: object) -> str:
    """Return the value of a field in the words of an error message."""
    return "it is missing" if value is None else f"found {value!r}"
