"""Faults as data: which requests fail, how, and how often."""

from __future__ import annotations

import fnmatch
import json
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from .messages import ApiError, Json, Reply, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass
class Fault:
    """One way in which requests fail.

    :param operation: Which requests: the part of the path after `/jobs/`, such as "runs/submit"; "permissions" (of any
        job, read or changed) or "permissions/permissionLevels"; for other paths the whole path. Shell-style patterns
        such as "runs/*" and "*" are supported.
    :param status: Reply with this status instead of handling the request.
    :param headers: The headers of that reply.
    :param body: The body of that reply; sent as JSON unless it is a string.
    :param handled: Handle the request before replying with `status`, as when a gateway times out on a working server.
    :param hang: Seconds by which the reply is late; the request is handled immediately.
    :param cut: Drop the connection "before" the request is handled, or "after" it, so that only the reply is lost.
    :param times: How many requests fail; None means all.
    :param skip: How many requests pass before that.
    """

    operation: str = "*"
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = ""
    handled: bool = False
    hang: float = 0.0
    cut: Literal["before", "after"] | None = None
    times: int | None = 1
    skip: int = 0

    def __post_init__(self) -> None:
        if self.cut not in (None, "before", "after"):
            raise ValueError(f"cut must be 'before' or 'after', not {self.cut!r}")
        if self.status is None and self.cut is None and not self.hang:
            raise ValueError("a fault needs a status, a cut or a hang")

    def takes(self, operation: str) -> bool:
        """Return whether this request fails, and count it."""
        if self.times == 0 or not fnmatch.fnmatchcase(operation, self.operation):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True

    def apply(self, request: Request, handle: Callable[[Request], Reply]) -> Reply:
        """Return the reply that the client gets."""
        if self.cut == "before":
            return Reply(cut=True, delay=self.hang)
        if self.status is not None and not self.handled and self.cut is None:
            return self._reply(request)
        reply = handle(request)
        if self.cut:
            return Reply(cut=True, delay=self.hang)
        if self.status is not None:
            return self._reply(request)
        return replace(reply, delay=self.hang)

    def _reply(self, request: Request) -> Reply:
        is_text = isinstance(self.body, str)
        run_id = request.query.get("run_id", "")
        if isinstance(self.body, dict) and isinstance(self.body.get("run_id"), int) and run_id.isdecimal():
            # Clients check that they got the run they requested.
            body = json.dumps({**self.body, "run_id": int(run_id)})
        else:
            body = self.body if is_text else json.dumps(self.body)
        headers = {"Content-Type": "text/html" if is_text else "application/json", **self.headers}
        return Reply(self.status or 0, body.encode(), headers, delay=self.hang)


#: The types of a fault's fields in a request.
_KINDS: Final[Mapping[str, type | tuple[type, ...]]] = {
    "operation": str,
    "status": int,
    "headers": dict,
    "hang": (int, float),
    "times": int,
    "skip": int,
}


def parse_faults(body: Json) -> list[Fault]:
    """Return the faults of a request body: one fault, or `{"faults": [...]}`.

    :raises ApiError: A field is unknown or invalid.
    """
    known = {item.name for item in fields(Fault)}
    faults = []
    for item in body.get("faults", [body]):
        if unknown := item.keys() - known:
            raise ApiError(f"Bad fault: there is no field {min(unknown)!r}.")
        for name, kind in _KINDS.items():
            if name in item and not isinstance(item[name], kind):
                raise ApiError(f"Bad fault: {name} cannot be {item[name]!r}.")
        try:
            faults.append(Fault(**item))
        except ValueError as error:
            raise ApiError(f"Bad fault: {error}.") from None
    return faults
