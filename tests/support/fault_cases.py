"""What goes wrong with calls, as data: the failures that are waited out, those that are not, and what each asks for."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import TYPE_CHECKING, Any
from unittest import mock

import requests
from requests.adapters import HTTPAdapter

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
    Unreachable,
    UnreadableReply,
)
from airflow_dbjobs.local_workspace import Fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_dbjobs.local_workspace.messages import Reply, Request

# What the wall clock of workspace and worker says when the injected clock says 0.
EPOCH = 1_800_000_000.0
READ_TIMEOUT, CONNECT_TIMEOUT = 60.0, 10.0

# The least waits after the first three failures of one call.
BACKOFF = (1.0, 2.0, 4.0)
APART = (30.0, 30.0, 30.0)
READ_APART = (1.0, 30.0, 30.0)


@dataclass(frozen=True)
class Failure:
    """A failure that may pass, and what one call is to make of it.

    `fault` has the fields of a Fault; `exception`, what requests raises instead of an answer. `error` is raised in the
    end, `reason` is why it is tried again. `waits` are the least waits of a call, `read_waits` those of a GET where
    they differ; each may be a quarter longer. `attempts` are those of a call that never succeeds, in its 600 s. `asks`
    is the longest wait that the answer asks for. `takes` is how long an attempt takes. `sent` says that the request
    may have arrived, `arrives` that it did.
    """

    name: str
    fault: dict[str, Any] = field(default_factory=dict)
    error: type[CallError] = ServerError
    reason: str = ""
    waits: tuple[float, ...] = BACKOFF
    read_waits: tuple[float, ...] | None = None
    attempts: range = range(13, 16)
    asks: float | None = None
    takes: float = 0.0
    exception: Callable[[], Exception] | None = None
    sent: bool = True
    arrives: bool = False

    @property
    def unclear(self) -> bool:
        """Whether nobody knows what became of the request: it was neither answered nor refused."""
        return self.sent and (self.error is not TooManyRequests and self.error is not BadRequest)

    def __str__(self) -> str:
        return self.name


def server(name: str, reason: str, **fields: Any) -> Failure:
    """Return a 5xx: 30 s apart, but 1 s after a GET's first."""
    fault = {name: value for name, value in fields.items() if name != "arrives"}
    arrives = fields.get("handled", False)
    return Failure(name, fault, ServerError, reason, APART, READ_APART, attempts=range(16, 23), arrives=arrives)


def asking(status: int, header: str, wait: float, *waits: float, attempts: range = range(0)) -> Failure:
    """Return a 429 or 503 with Retry-After."""
    error = TooManyRequests if status == 429 else ServerError
    fault = {"status": status, "headers": {"Retry-After": header}, "body": {"message": "later"}}
    reason = f"answered {status}, Retry-After {wait:.0f} s"
    return Failure(f"{status} Retry-After {header}", fault, error, reason, (wait, *waits), asks=wait, attempts=attempts)


def silent(
    name: str, reason: str, *, arrives: bool = False, error: type[CallError] = Unreachable, **fields: Any
) -> Failure:
    """Return a failure after which nobody knows what became of the request."""
    return Failure(name, fields, error, reason, arrives=arrives)


def unsent(name: str, reason: str, exception: Callable[[], Exception], **more: Any) -> Failure:
    """Return a failure before the request was sent."""
    return Failure(name, {"cut": "before"}, Unreachable, reason, exception=exception, sent=False, **more)


def unresolved() -> Exception:
    """Return what requests raises where a name does not resolve."""
    failure = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    with mock.patch("socket.getaddrinfo", side_effect=failure):
        return _raised_by_requests()


def no_server() -> Exception:
    """Return what requests raises where nobody listens."""
    with mock.patch("socket.socket.connect", side_effect=ConnectionRefusedError(111, "Connection refused")):
        return _raised_by_requests()


def _raised_by_requests() -> Exception:
    request = requests.Request("GET", "http://127.0.0.1:9").prepare()
    try:
        HTTPAdapter().send(request)
    except requests.ConnectionError as error:
        return error
    raise AssertionError("the request was sent")


# A date 90 s after the clock's beginning: later attempts find it past.
IN_90_S = formatdate(EPOCH + 90, usegmt=True)
LIMITED = {"error_code": "REQUEST_LIMIT_EXCEEDED", "message": "slow down"}
MAINTENANCE = {"error_code": "TEMPORARILY_UNAVAILABLE", "message": "maintenance"}
LOCKED = {"error_code": "COULD_NOT_ACQUIRE_LOCK", "message": "busy"}
PAGE = "<html>Sign in</html>"

FAILURES = (
    server("503", "answered 503 TEMPORARILY_UNAVAILABLE", status=503, body=MAINTENANCE),
    server("500", "answered 500", status=500, body={"message": "oops"}),
    server("502 page", "answered 502", status=502, body="<html>Bad gateway</html>"),
    server("504 of a gateway", "answered 504", status=504, body="<html>", handled=True),
    asking(503, "7", 7, 7, 7, attempts=range(68, 88)),
    asking(503, IN_90_S, 90, 1, 1),
    asking(503, "86400", 300, attempts=range(2, 4)),
    Failure("429", {"status": 429, "body": LIMITED}, TooManyRequests, "answered 429 REQUEST_LIMIT_EXCEEDED"),
    Failure("429 of no sense", {"status": 429, "headers": {"Retry-After": "soon"}}, TooManyRequests, "answered 429"),
    asking(429, "7", 7, 7, 7, attempts=range(68, 88)),
    asking(429, IN_90_S, 90, 1, 1),
    asking(429, "86400", 300, attempts=range(2, 4)),
    Failure("400 lock", {"status": 400, "body": LOCKED}, BadRequest, "answered 400 COULD_NOT_ACQUIRE_LOCK"),
    silent("cut before", "the connection broke", cut="before"),
    silent("cut after", "the connection broke", cut="after", arrives=True),
    Failure(
        "hang", {"hang": 86400.0}, Unreachable, "did not answer within 60 s",
        attempts=range(7, 10), takes=READ_TIMEOUT, arrives=True,
    ),
    silent("200 page", "(text/html): <html>Sign in", error=UnreadableReply, status=200, body=PAGE),
    silent("200 cut JSON", 'without a JSON object (text/html): {"run_id": 12', error=UnreadableReply,
           status=200, body='{"run_id": 12', handled=True, arrives=True),
    silent("200 empty", "an empty body", error=UnreadableReply, status=200, body="", handled=True, arrives=True),
    silent("200 array", "without a JSON object", error=UnreadableReply, status=200, body=[1]),
    unsent("name does not resolve", "its name does not resolve", unresolved),
    unsent("connection refused", "Connection refused", no_server),
    unsent("no connection in time", "did not accept a connection in time", requests.ConnectTimeout,
           takes=CONNECT_TIMEOUT, attempts=range(11, 15)),
)  # fmt: skip
BY_NAME = {failure.name: failure for failure in FAILURES}


def named(*names: str) -> tuple[Failure, ...]:
    """Return the failures of these names."""
    return tuple(BY_NAME[name] for name in names)


# One of each kind, for what depends on the kind alone.
KINDS = named(
    "503", "504 of a gateway", "429", "400 lock", "cut before", "cut after", "hang", "200 page", "200 cut JSON",
    "200 empty", "name does not resolve",
)  # fmt: skip


@dataclass(frozen=True)
class Refusal:
    """An answer that no repetition changes."""

    status: int
    error_code: str
    error: type[ApiError]

    def __str__(self) -> str:
        return f"{self.status} {self.error_code}"

    @property
    def fault(self) -> dict[str, Any]:
        body = {"error_code": self.error_code, "message": "no such luck"}
        return {"status": self.status, "headers": {"X-Request-Id": "id-of-the-request"}, "body": body}


REFUSALS = (
    Refusal(400, "INVALID_PARAMETER_VALUE", BadRequest),
    Refusal(400, "MALFORMED_REQUEST", BadRequest),
    Refusal(401, "UNAUTHENTICATED", Unauthenticated),
    Refusal(403, "PERMISSION_DENIED", PermissionDenied),
    Refusal(404, "RESOURCE_DOES_NOT_EXIST", NotFound),
    Refusal(404, "ENDPOINT_NOT_FOUND", ApiError),
    Refusal(409, "INVALID_STATE", Conflict),
    Refusal(413, "REQUEST_TOO_LARGE", ApiError),
    Refusal(501, "NOT_IMPLEMENTED", ServerError),
)


@dataclass
class Outage(Fault):
    """A fault that lasts for so many seconds (by `clock`) from the first request that it hits; `hits` counts them.

    `exception`, if any, is raised as by requests instead of an answer.
    """

    times: int | None = None
    lasts: float = float("inf")
    clock: Callable[[], float] = lambda: 0.0
    exception: Callable[[], Exception] | None = None
    began: float | None = None
    hits: int = 0

    def takes(self, operation: str) -> bool:
        if self.began is not None and self.clock() >= self.began + self.lasts:
            return False
        if not super().takes(operation):
            return False
        self.began = self.clock() if self.began is None else self.began
        self.hits += 1
        return True

    def apply(self, request: Request, handle: Callable[[Request], Reply]) -> Reply:
        if self.exception is not None:
            raise self.exception()
        return super().apply(request, handle)
