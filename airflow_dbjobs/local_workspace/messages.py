"""What crosses the wire: a request, a reply, and the error that becomes a reply."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

Json = dict[str, Any]

#: Of a request, in bytes; the Jobs API refuses more.
MAX_BODY_BYTES = 10 * 1024 * 1024


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
    """An HTTP reply, and what a fault does to it on the way.

    `delay` is in seconds. `cut` means that the connection is dropped instead of answered. Both are carried out by
    whoever owns the connection (`server`, `adapter`).
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut: bool = False


class ApiError(Exception):
    """A refusal, as the Jobs API words it: `{"error_code": code, "message": message}` with an HTTP status."""

    def __init__(self, message: str, *, code: str | int = "INVALID_PARAMETER_VALUE", status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.status = status

    def reply(self) -> Reply:
        """Return the error as it is sent."""
        return json_reply({"error_code": self.code, "message": self.message}, self.status)


def json_reply(payload: Json, status: int = 200) -> Reply:
    """Return `payload` as a JSON reply."""
    body = json.dumps(payload, separators=(",", ":")).encode()
    return Reply(status, body, {"Content-Type": "application/json; charset=utf-8"})


def in_words(value: object) -> str:
    """Return what a field holds, in the words of an error."""
    return "it is missing" if value is None else f"found {value!r}"
