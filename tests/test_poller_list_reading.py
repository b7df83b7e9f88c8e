"""listing: what a list costs, how its pages are turned, and when it is left alone."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import pytest
from injected_clock import Clock

from airflow_dbjobs.client.models import RunsPage
from airflow_dbjobs.client.responses import api_error
from airflow_dbjobs.errors import CallError, PermissionDenied, ServerError, TooManyRequests
from airflow_dbjobs.runs.polling.active_runs import Found, Listing, PageRequest

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
    """Answers with what it was given, one after the other."""

    def __init__(self, *answers: RunsPage | CallError) -> None:
        self.answers = list(answers)
        self.asked: list[PageRequest] = []
        self.clock = Clock()
        self.listing = Listing(self.answer, clock=self.clock, sleep=self.clock.sleep_async)

    async def answer(self, request: PageRequest) -> RunsPage:
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, CallError):
            raise answer
        return answer

    def walk(self, wanted: Iterable[int], *answers: RunsPage | CallError, patience: float = 60.0) -> Found:
        self.answers += answers
        self.asked.clear()
        return asyncio.run(self.listing.walk(set(wanted), patience))


def test_pages_are_turned_by_offset_to_the_end() -> None:
    server = Server(page(range(100), more=True), page(range(100, 200), more=True), page(range(200, 230)))
    found = server.walk(range(1000))
    assert found.complete
    assert set(found.states) == set(range(230))
    assert server.asked == [PageRequest("2.0", 0), PageRequest("2.0", 0, 100), PageRequest("2.0", 0, 200)]


def test_pages_are_turned_by_token_even_those_that_are_empty() -> None:
    # No 2.0.
    server = Server(*[TOO_LARGE] * 5, page(range(25), token="a"), page([], token="b"), page(range(25, 50)))
    found = server.walk(range(100))
    assert found.complete
    assert set(found.states) == set(range(50))
    assert server.asked[5:] == [PageRequest(None, 25, None, token) for token in (None, "a", "b")]


def test_reading_ends_with_the_last_run_that_is_looked_for() -> None:
    server = Server(page(range(100), more=True), page(range(100, 200), more=True))
    assert server.walk(range(50, 150)).complete
    assert len(server.asked) == 2


def test_reading_ends_when_it_has_cost_as_much_as_asking_singly() -> None:
    server = Server(*(page(range(1000 * number, 1000 * (number + 1)), more=True) for number in range(5)))
    found = server.walk(range(-50, 0))
    assert not found.complete
    assert len(server.asked) == 3
    # There are that many of others' runs at least, and for a while it is not worth while.
    assert server.listing.cost(50) > 50
    server.clock.now += 301
    assert server.listing.cost(50) < 50


@pytest.mark.parametrize("repeated", [page(range(50), more=True), page([], more=True), page(range(50), token="a")])
def test_a_page_that_comes_again_lets_it_be_asked_in_another_way(repeated: RunsPage) -> None:
    server = Server(page(range(50), more=repeated.has_more, token=repeated.next_page_token))
    found = server.walk(range(1000), repeated)
    assert not found.complete
    assert set(found.states) == set(range(50))
    server.walk(range(10), page(range(10)))
    assert server.asked == [PageRequest("2.0", 999)]


def test_the_ways_to_ask_are_tried_from_the_best_and_the_first_that_is_served_is_kept() -> None:
    server = Server(*[TOO_LARGE] * 3, page(range(100), more=True), page(range(100, 120)))
    assert server.walk(range(500)).complete
    assert [request.limit for request in server.asked] == [0, 999, 150, 100, 100]
    server.walk(range(500), page(range(90)))
    assert server.asked == [PageRequest("2.0", 100)]


def test_after_an_hour_the_best_way_is_tried_again() -> None:
    server = Server(*[TOO_LARGE] * 3, page(range(100)))
    server.walk(range(500))
    server.clock.now += 3601
    server.walk(range(500), page(range(100)))
    assert server.asked == [PageRequest("2.0", 0)]


def test_where_no_way_is_served_the_list_is_left_alone_for_ten_minutes() -> None:
    server = Server(*[TOO_LARGE] * 8)
    found = server.walk(range(500))
    assert (dict(found.states), found.complete) == ({}, False)
    assert [(request.api_version, request.limit) for request in server.asked[4:]] == [
        ("2.0", 25),
        (None, 25),
        (None, 24),
        (None, 20),
    ]
    for seconds, cost in ((1, math.inf), (598, math.inf), (2, 500 / 50 + 2)):
        server.clock.now += seconds
        assert server.listing.cost(500) == cost


@pytest.mark.parametrize(
    ("errors", "seconds"),
    [
        ([FORBIDDEN], 600),
        ([DOWN] * 3, 60),
        ([api_error(CALL, 401, {}, {})], 60),
        ([TooManyRequests(CALL, 429)] * 3, 60),
    ],
    ids=["forbidden", "down", "refused", "limited"],
)
def test_a_list_that_fails_is_left_alone_for_some_time(errors: list[CallError], seconds: float) -> None:
    server = Server(*errors)
    assert not server.walk(range(500)).complete
    assert len(server.asked) == len(errors)
    server.clock.now += seconds - 5
    assert server.listing.cost(500) == math.inf
    server.clock.now += 6
    assert server.listing.cost(500) < 500


@pytest.mark.parametrize("error", [DOWN, TooManyRequests(CALL, 429)])
def test_a_page_is_asked_for_again_where_that_may_help(error: CallError) -> None:
    server = Server(page(range(50), more=True), error, error, page(range(50, 70)))
    found = server.walk(range(100))
    assert found.complete
    assert len(found.states) == 70
    # A rate limit is waited out by who sends the requests.
    assert server.clock.waits == ([1, 2] if error is DOWN else [])


def test_what_was_read_before_a_failure_counts() -> None:
    server = Server(page(range(50), more=True), FORBIDDEN)
    found = server.walk(range(100))
    assert not found.complete
    assert set(found.states) == set(range(50))


def test_a_list_that_takes_too_long_is_left_alone_for_five_minutes() -> None:
    server = Server()

    async def hang(_: PageRequest) -> Any:
        server.asked.append(_)
        await asyncio.Event().wait()

    server.listing._ask = hang
    found = server.walk(range(500), patience=0.001)
    assert not found.complete
    for seconds, usable in ((299, False), (2, True)):
        server.clock.now += seconds
        assert (server.listing.cost(500) < math.inf) == usable


def test_a_list_is_blamed_for_no_outage_and_no_refusal_of_all() -> None:
    for error in (FORBIDDEN, *[TOO_LARGE] * 8):
        server = Server(error, *[error] * 7)
        server.walk(range(500))
        assert server.listing.cost(500) == math.inf
        server.listing.was_not_to_blame()
        assert server.listing.cost(500) < 500


def test_a_list_that_lags_is_left_alone_for_ten_minutes_whatever_else_fails() -> None:
    server = Server()
    server.listing.lags_behind()
    server.listing.was_not_to_blame()
    server.clock.now += 599
    assert server.listing.cost(500) == math.inf
    server.clock.now += 2
    assert server.listing.cost(500) < 500


@pytest.mark.parametrize(
    ("size", "runs", "cost"),
    [(1000, 1000, 1 + 20 + 1), (1000, 1001, 2 + 20.02 + 1), (25, 1000, 40 + 20 + 1), (25, 1, 2.02)],
)
def test_a_list_costs_its_pages_and_their_length(size: int, runs: int, cost: float) -> None:
    server = Server(page(range(size), more=True), page(range(size, 5000)))
    server.walk(range(10_000))
    assert server.listing.cost(runs) == pytest.approx(cost)


def test_the_runs_of_others_are_part_of_the_cost_while_they_are_known() -> None:
    server = Server(page(range(500)))
    server.walk(range(100))
    assert server.listing.cost(100) == pytest.approx(1 + 500 / 50 + 1)
    server.clock.now += 301
    assert server.listing.cost(100) == pytest.approx(1 + 100 / 50 + 1)
