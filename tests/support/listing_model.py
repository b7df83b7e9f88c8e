"""A model of the Jobs API for a poller in virtual time: runs that end at given times, and quirks of a server.

It replaces HTTP only: client, transport and `requests` above it are real.
"""

from __future__ import annotations

import email.utils
import io
import json
import math
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import requests
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from virtual_time import VirtualLoop

GET, LIST, CANCEL = "runs/get", "runs/list", "runs/cancel"
# The page size of a list request without a limit.
DEFAULT_PAGE = 20
# The largest page of later API versions.
SHORT_PAGE = 25
FIRST_FOREIGN_ID = 10_000_000
# The time from the cancellation of a run to its end.
STOPPING = 3.0
# The server's clock, in epoch seconds, at virtual time 0.
EPOCH = 1_800_000_000

_SERVED: dict[str, tuple[World, VirtualLoop]] = {}


@dataclass
class ModelRun:
    """A run from `born` on that `ends` with `result`; until then it is RUNNING, unless `states` overrides that.

    `states` are pairs of a time and the life cycle state from then on. A `hidden` run is in no list, like the runs of
    tasks; a `zombie` is in every list, even after its end. `listed_as` is the life cycle state that lists show instead
    of the true one.
    """

    run_id: int
    ends: float = math.inf
    result: str = "SUCCESS"
    born: float = -math.inf
    states: tuple[tuple[float, str], ...] = ()
    deleted: float = math.inf
    hidden: bool = False
    zombie: bool = False
    listed_as: str = ""

    def life(self, at: float) -> str:
        """Return its life cycle state."""
        if at >= self.ends:
            return "TERMINATED"
        past = bisect_right(self.states, at, key=lambda state: state[0])
        return self.states[past - 1][1] if past else "RUNNING"

    def entry(self, at: float, life: str = "") -> str:
        """Return it as JSON, in the life cycle state `life` if given."""
        life = life or self.life(at)
        if life != "TERMINATED":
            return f'{{"run_id":{self.run_id},"state":{{"life_cycle_state":"{life}"}}}}'
        state = {"life_cycle_state": life, "result_state": self.result}
        return json.dumps({"run_id": self.run_id, "state": state, "end_time": int(1000 * (EPOCH + min(at, self.ends)))})


@dataclass
class Failure:
    """A failure from `begin` to `end`, of one operation or all, for one run or all. Status 0 is a cut connection.

    `hang` is how many seconds pass before the reply.
    """

    status: int = 503
    operation: str = ""
    begin: float = -math.inf
    end: float = math.inf
    run_id: int | None = None
    error_code: str = ""
    message: str = "the model says no"
    headers: dict[str, str] = field(default_factory=dict)
    hang: float = 0.0

    def strikes(self, at: float, operation: str, run_id: int | None) -> bool:
        """Return whether a request fails this way."""
        return (
            self.begin <= at < self.end
            and self.operation in {"", operation}
            and (self.run_id is None or self.run_id == run_id)
        )


class Request(NamedTuple):
    """A request as the server logged it, with the status of the reply."""

    at: float
    operation: str
    run_id: int | None
    status: int
    version: str
    query: dict[str, str]


class Reply(NamedTuple):
    """A reply of the server; status 0 is a broken connection."""

    status: int
    body: bytes
    headers: Mapping[str, str] = MappingProxyType({})


@dataclass
class World:
    """A workspace: its runs, the quirks of its lists, and its failures.

    `largest_page`: a larger `limit` is cut to it, or refused, as `over_limit` says; `zero`: the effect of ``limit=0``.
    API 2.0 pages by offset, and its pages shift; later versions page by token, and show the runs as of the first page.
    `lag`: lists show the runs as of that many seconds ago; `frozen_at`: they always show the runs as of that time.
    `same_page`: every reply is the first page. `empty_pages`: an empty page follows each page.
    `foreign`: that many active runs of others, listed before, after or among ours; `foreign_ended`: that many ended
    ones, listed before ours.
    `most_per_second`: the server replies 429 above that, with ``Retry-After`` if `retry_after` is set.
    """

    runs: dict[int, ModelRun] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    largest_page: int = 1000
    over_limit: Literal["cut", "refused"] = "cut"
    zero: Literal["largest", "refused", "default"] = "largest"
    serves_2_0: bool = True
    get_seconds: float = 0.05
    page_seconds: float = 0.1
    lag: float = 0.0
    frozen_at: float = math.inf
    same_page: bool = False
    empty_pages: bool = False
    shows_queued: bool = True
    foreign: int = 0
    foreign_place: Literal["before", "after", "among"] = "before"
    foreign_ended: int = 0
    most_per_second: float = math.inf
    retry_after: str = ""
    base_url: str = "http://model.example"

    def __post_init__(self) -> None:
        #: All requests, and when a reply first showed that a run is over.
        self.log: list[Request] = []
        self.shown_over: dict[int, float] = {}
        self._foreign = [
            f'{{"run_id":{run_id},"state":{{"life_cycle_state":"RUNNING"}}}}'
            for run_id in range(FIRST_FOREIGN_ID, FIRST_FOREIGN_ID + self.foreign)
        ]
        self._ended_before = [
            f'{{"run_id":{run_id},"state":{{"life_cycle_state":"TERMINATED","result_state":"FAILED"}}}}'
            for run_id in range(2 * FIRST_FOREIGN_ID, 2 * FIRST_FOREIGN_ID + self.foreign_ended)
        ]
        self._lists: list[list[str]] = []

    @classmethod
    def of(cls, runs: int | Iterable[ModelRun], **quirks: Any) -> World:
        """Return a world with these runs, or with that many runs (1, 2, 3, …) that never end."""
        made = (ModelRun(run_id) for run_id in range(1, runs + 1)) if isinstance(runs, int) else runs
        return cls({run.run_id: run for run in made}, **quirks)

    def count(self, operation: str = "", begin: float = -math.inf, end: float = math.inf) -> int:
        """Return the number of requests from `begin` to `end`."""
        return sum(seen.operation.startswith(operation) and begin <= seen.at < end for seen in self.log)

    def gets_by_run(self, begin: float = -math.inf, end: float = math.inf) -> Counter[int]:
        """Return how often each run was polled by ``runs/get`` or cancelled."""
        return Counter(seen.run_id for seen in self.log if seen.run_id is not None and begin <= seen.at < end)

    def most_within(self, seconds: float, begin: float = -math.inf) -> int:
        """Return the largest number of requests in any interval of that many seconds after `begin`."""
        times = [seen.at for seen in self.log if seen.at >= begin]
        return max((bisect_right(times, at + seconds) - index for index, at in enumerate(times)), default=0)

    def serve(self, loop: VirtualLoop) -> None:
        """Serve `base_url` from now on, in the time of `loop`."""
        _SERVED[self.base_url] = self, loop

    def answer(self, url: str, body: bytes, at: float) -> tuple[float, Reply]:
        """Return the reply to a request, and how many seconds it takes."""
        parts = urlsplit(url)
        version, _, operation = parts.path.removeprefix("/api/").partition("/jobs/")
        query = dict(parse_qsl(parts.query))
        given = json.loads(body) if body else query
        run_id = int(given["run_id"]) if "run_id" in given else None
        seconds, reply = self._answer(operation, version, query, run_id, at)
        self.log.append(Request(at, operation, run_id, reply.status, version, query))
        return seconds, reply

    def _answer(
        self, operation: str, version: str, query: dict[str, str], run_id: int | None, at: float
    ) -> tuple[float, Reply]:
        seconds = self.page_seconds if operation == LIST else self.get_seconds
        if sum(1 for seen in self._last_second(at) if seen.status != 429) >= self.most_per_second:
            return seconds, _error(429, "REQUEST_LIMIT_EXCEEDED", headers={"Retry-After": self.retry_after})
        for failure in self.failures:
            if failure.strikes(at, operation, run_id):
                reply = _error(failure.status, failure.error_code, failure.message, failure.headers)
                return failure.hang or seconds, reply
        if operation == LIST:
            return seconds, self._list(version, query, at)
        run = self.runs.get(run_id or 0)
        if run is None or not run.born <= at < run.deleted:
            return seconds, _error(400, "INVALID_PARAMETER_VALUE", f"Run {run_id} does not exist.")
        if operation == CANCEL:
            if at + STOPPING < run.ends:
                run.ends, run.result = at + STOPPING, "CANCELED"
            return seconds, Reply(200, b"{}")
        if at >= run.ends:
            self.shown_over.setdefault(run.run_id, at)
        return seconds, Reply(200, run.entry(at).encode())

    def _last_second(self, at: float) -> list[Request]:
        if self.most_per_second == math.inf:
            return []
        return self.log[bisect_right(self.log, at - 1.0, key=lambda seen: seen.at) :]

    # --- runs/list ---

    def _list(self, version: str, query: dict[str, str], at: float) -> Reply:
        if version == "2.0" and not self.serves_2_0:
            return _error(404, message="No API found for GET /jobs/runs/list")
        limit = self._limit(version, int(query.get("limit", DEFAULT_PAGE)))
        if limit is None:
            return _error(400, "INVALID_PARAMETER_VALUE", "Limit value is out of range")
        if version == "2.0":
            offset = 0 if self.same_page else int(query.get("offset", 0))
            entries = self._entries(at, query)
            page: dict[str, object] = {"has_more": offset + limit < len(entries)}
        else:
            token = "" if self.same_page else query.get("page_token", "")
            if not token:
                # A server that repeats its first page also repeats its token.
                self._lists[:] = [] if self.same_page else self._lists
                self._lists.append(self._entries(at, query))
            number, offset, was_empty = map(int, token.split(".")) if token else (len(self._lists) - 1, 0, 1)
            entries = self._lists[number]
            if self.empty_pages and not was_empty:
                page, limit = {"next_page_token": f"{number}.{offset}.1"}, 0
            elif offset + limit < len(entries):
                page = {"next_page_token": f"{number}.{offset + limit}.0", "has_more": True}
            else:
                page = {"next_page_token": ""}
        body = json.dumps(page)[:-1] + ',"runs":[' + ",".join(entries[offset : offset + limit]) + "]}"
        return Reply(200, body.encode())

    def _limit(self, version: str, requested: int) -> int | None:
        """Return the number of runs on a page, None if the server refuses the limit."""
        largest = self.largest_page if version == "2.0" else min(self.largest_page, SHORT_PAGE)
        if requested == 0:
            return {"largest": largest, "refused": None, "default": DEFAULT_PAGE}[self.zero]
        if requested > largest and self.over_limit == "refused":
            return None
        return min(requested, largest)

    def _entries(self, at: float, query: Mapping[str, str]) -> list[str]:
        """Return the active or the ended runs as the list shows them, latest first."""
        then = min(at - self.lag, self.frozen_at)
        if "completed_only" in query:
            return self._ended(at, then)
        shown = [run for run in reversed(self.runs.values()) if self._is_listed(run, then)]
        own = [run.entry(-math.inf if run.zombie else then, run.listed_as) for run in shown]
        if self.foreign_place == "among" and own:
            step = len(self._foreign) // max(1, len(own)) + 1
            return [
                entry
                for index, mine in enumerate(own)
                for entry in (mine, *self._foreign[index * step : (index + 1) * step])
            ]
        return self._foreign + own if self.foreign_place == "before" else own + self._foreign

    def _ended(self, at: float, then: float) -> list[str]:
        ended = [run for run in reversed(self.runs.values()) if run.ends <= then < run.deleted and not run.hidden]
        for run in ended:
            self.shown_over.setdefault(run.run_id, at)
        return self._ended_before + [run.entry(then) for run in ended]

    def _is_listed(self, run: ModelRun, then: float) -> bool:
        if run.hidden or not run.born <= then < min(run.deleted, math.inf if run.zombie else run.ends):
            return False
        return self.shows_queued or run.life(then) != "QUEUED"


def _error(
    status: int, error_code: str = "", message: str = "the model says no", headers: dict[str, str] | None = None
) -> Reply:
    body = {"message": message, **({"error_code": error_code} if error_code else {})}
    return Reply(status, json.dumps(body).encode(), {name: text for name, text in (headers or {}).items() if text})


class ModelAdapter(BaseAdapter):
    """Passes the requests of a session to the world that serves their URL."""

    def send(  # noqa: PLR0917 - the signature of the base class
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        """Return the world's reply, after the virtual time that it takes."""
        url, body = str(request.url), request.body or b""
        world, loop = _SERVED[url.partition("/api/")[0]]

        def decide() -> tuple[float, Reply | None]:
            seconds, reply = world.answer(url, body if isinstance(body, bytes) else body.encode(), loop.time())
            return (timeout[1], None) if seconds > timeout[1] else (seconds, reply)

        reply = loop.hold(f"{url} {request.body!r}", decide)
        date = email.utils.formatdate(EPOCH + loop.time(), usegmt=True)
        if reply is None:
            raise requests.exceptions.ReadTimeout("no reply in time", request=request)
        if not reply.status:
            raise requests.exceptions.ConnectionError("connection dropped", request=request)
        response = requests.Response()
        response.status_code, response.url, response.request = reply.status, url, request
        response.headers = CaseInsensitiveDict({"Content-Type": "application/json", "Date": date, **reply.headers})
        response.raw = io.BytesIO(reply.body)
        return response

    def close(self) -> None:
        """Do nothing: there is nothing to close."""
