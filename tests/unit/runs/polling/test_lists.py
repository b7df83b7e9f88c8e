"""The list of active runs: its cost, how its pages are read, and when it is not used."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import pytest
from injected_clock import Clock

from airflow_dbjobs.client.responses import api_error
from airflow_dbjobs.client.runs_page import RunsPage
from airflow_dbjobs.errors import CallError, PermissionDenied, ServerError, TooManyRequests
from airflow_dbjobs.runs.polling.lists import ListedRuns, PageRequest, RunLists

if TYPE_CHECKING:
    from collections.abc import Iterable

CALL = "GET jobs/runs/list"
TOO_LARGE = api_error(CALL, 400, {"error_code": "INVALID_PARAMETER_VALUE", "message": "Limit is out of range"}, {})
FORBIDDEN = PermissionDenied(CALL, 403, "PERMISSION_DENIED")
DOWN = ServerError(CALL, 503)


def page(run_ids: Iterable[int], *, more: bool = False, token: str = "") -> RunsPage:
    running = {"life_cycle_state": "RUNNING"}
    runs = [{"run_id": run_id, "state": running} for run_id in run_ids]
    return RunsPage.from_json({"runs": runs, "has_more": more, "next_page_token": token})


class Server:
    """Returns the given answers one after the other."""

    def __init__(self, *answers: RunsPage | CallError) -> None:
        self.answers = list(answers)
        self.requests: list[PageRequest] = []
        self.clock = Clock()
        self.list = RunLists(self.fetch_page, clock=self.clock, sleep=self.clock.sleep_async)

    async def fetch_page(self, request: PageRequest) -> RunsPage:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, CallError):
            raise answer
        return answer

    def read(self, wanted: Iterable[int], *answers: RunsPage | CallError, timeout: float = 60.0) -> ListedRuns:
        self.answers += answers
        self.requests.clear()
        return asyncio.run(self.list.read_active(set(wanted), timeout, set(wanted)))


class TestPages:
    def test_reads_by_offset_to_the_end(self) -> None:
        server = Server(page(range(100), more=True), page(range(100, 200), more=True), page(range(200, 230)))
        found = server.read(range(1000))
        assert found.complete
        assert set(found.states) == set(range(230))
        assert server.requests == [PageRequest("2.0", 0), PageRequest("2.0", 0, 100), PageRequest("2.0", 0, 200)]

    def test_reads_by_token_past_empty_pages(self) -> None:
        # The server does not support API 2.0.
        server = Server(*[TOO_LARGE] * 2, page(range(25), token="a"), page([], token="b"), page(range(25, 50)))
        found = server.read(range(100))
        assert found.complete
        assert set(found.states) == set(range(50))
        assert server.requests[2:] == [PageRequest(None, 25, None, token) for token in (None, "a", "b")]

    def test_stops_after_the_last_wanted_run(self) -> None:
        server = Server(page(range(100), more=True), page(range(100, 200), more=True))
        assert server.read(range(50, 150)).complete
        assert len(server.requests) == 2

    def test_stops_when_polling_would_cost_less(self) -> None:
        server = Server(*(page(range(1000 * number, 1000 * (number + 1)), more=True) for number in range(5)))
        found = server.read(range(-50, 0))
        assert not found.complete
        assert len(server.requests) == 3
        # At least that many other runs are known for a while, which makes the list too expensive.
        assert server.list.cost(50) > 50
        server.clock.now += 301
        assert server.list.cost(50) < 50

    @pytest.mark.parametrize("error", [DOWN, TooManyRequests(CALL, 429)])
    def test_retries_a_page_after_transient_errors(self, error: CallError) -> None:
        server = Server(page(range(50), more=True), error, error, page(range(50, 70)))
        found = server.read(range(100))
        assert found.complete
        assert len(found.states) == 70
        # `fetch_page` itself waits out a rate limit.
        assert server.clock.waits == ([1, 2] if error is DOWN else [])

    def test_keeps_pages_read_before_a_failure(self) -> None:
        server = Server(page(range(50), more=True), FORBIDDEN)
        found = server.read(range(100))
        assert not found.complete
        assert set(found.states) == set(range(50))


class TestForms:
    @pytest.mark.parametrize("repeated", [page(range(50), more=True), page([], more=True), page(range(50), token="a")])
    def test_repeated_page_switches_to_the_next_form(self, repeated: RunsPage) -> None:
        server = Server(page(range(50), more=repeated.has_more, token=repeated.next_page_token))
        found = server.read(range(1000), repeated)
        assert not found.complete
        assert set(found.states) == set(range(50))
        server.read(range(10), page(range(10)))
        assert server.requests == [PageRequest("2.0", 999)]

    def test_first_supported_form_is_kept(self) -> None:
        server = Server(TOO_LARGE, page(range(100), more=True), page(range(100, 120)))
        assert server.read(range(500)).complete
        assert [request.limit for request in server.requests] == [0, 999, 999]
        server.read(range(500), page(range(90)))
        assert server.requests == [PageRequest("2.0", 999)]

    def test_best_form_is_retried_after_an_hour(self) -> None:
        server = Server(*[TOO_LARGE] * 2, page(range(25)))
        server.read(range(500))
        server.clock.now += 3601
        server.read(range(500), page(range(100)))
        assert server.requests == [PageRequest("2.0", 0)]

    def test_unused_for_ten_minutes_if_none_is_supported(self) -> None:
        server = Server(*[TOO_LARGE] * 4)
        found = server.read(range(500))
        assert (dict(found.states), found.complete) == ({}, False)
        assert [(request.api_version, request.limit) for request in server.requests] == [
            ("2.0", 0),
            ("2.0", 999),
            (None, 25),
            (None, 20),
        ]
        for seconds, cost in ((1, math.inf), (598, math.inf), (2, 500 / 50 + 2)):
            server.clock.now += seconds
            assert server.list.cost(500) == cost


class TestUnusableList:
    @pytest.mark.parametrize(
        "errors",
        [[FORBIDDEN], [DOWN] * 3, [api_error(CALL, 401, {}, {})], [TooManyRequests(CALL, 429)] * 3],
        ids=["forbidden", "down", "refused", "limited"],
    )
    def test_is_unused_for_twice_as_long_after_each_error(self, errors: list[CallError]) -> None:
        server = Server()
        for seconds in (60, 120, 240, 480, 600, 600):
            assert not server.read(range(500), *errors).complete
            assert len(server.requests) == len(errors)
            server.clock.now += seconds - 5
            assert server.list.cost(500) == math.inf
            server.clock.now += 6
            assert server.list.cost(500) < 500
        assert server.read(range(500), page(range(500))).complete
        server.read(range(500), *errors)
        server.clock.now += 61
        assert server.list.cost(500) < 500

    def test_is_unused_for_a_minute_if_too_slow(self) -> None:
        server = Server()

        async def hang(_: PageRequest) -> Any:
            server.requests.append(_)
            await asyncio.Event().wait()

        server.list._fetch_page = hang
        found = server.read(range(500), timeout=0.001)
        assert not found.complete
        for seconds, usable in ((59, False), (2, True)):
            server.clock.now += seconds
            assert (server.list.cost(500) < math.inf) == usable

    def test_is_used_again_after_an_outage_of_the_api(self) -> None:
        for error in (FORBIDDEN, TOO_LARGE):
            server = Server(*[error] * 4)
            server.read(range(500))
            assert server.list.cost(500) == math.inf
            server.list.forgive_failures()
            assert server.list.cost(500) < 500

    def test_is_unused_for_ten_minutes_if_stale(self) -> None:
        server = Server()
        server.list.mark_stale()
        server.list.forgive_failures()
        server.clock.now += 599
        assert server.list.cost(500) == math.inf
        server.clock.now += 2
        assert server.list.cost(500) < 500


class TestCost:
    @pytest.mark.parametrize(
        ("size", "runs", "cost"),
        [(1000, 1000, 1 + 20 + 1), (1000, 1001, 2 + 20.02 + 1), (25, 1000, 40 + 20 + 1), (25, 1, 2.02)],
    )
    def test_counts_pages_and_entries(self, size: int, runs: int, cost: float) -> None:
        server = Server(page(range(size), more=True), page(range(size, 5000)))
        server.read(range(10_000))
        assert server.list.cost(runs) == pytest.approx(cost)

    def test_counts_other_runs_for_five_minutes(self) -> None:
        server = Server(page(range(500)))
        server.read(range(100))
        assert server.list.cost(100) == pytest.approx(1 + 500 / 50 + 1)
        server.clock.now += 301
        assert server.list.cost(100) == pytest.approx(1 + 100 / 50 + 1)
