"""poller: what an API that is down, limits or refuses costs, and who is told; in virtual time."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from listing_model import GET, LIST, Failure, ModelRun, World
from poller_scene import Scene, play

from airflow_dbjobs.client.retry import LONGEST_BACKOFF, Patience
from airflow_dbjobs.errors import RunLost

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

PERIOD = 10.0
# The pause between two looks at an API that is down, with its jitter.
PAUSE = 1.1 * LONGEST_BACKOFF
FORBIDDEN_LIST = Failure(403, LIST, error_code="PERMISSION_DENIED")


def watch_all_until(at: float, period: float = PERIOD) -> Callable[[Scene], Coroutine[Any, Any, None]]:
    """Return the story of those who wait for all runs from the beginning."""

    async def story(scene: Scene) -> None:
        scene.watch_all(period=period)
        await scene.until(at)

    return story


# --- outages ---


@pytest.mark.parametrize(
    ("failure", "lists"), [(Failure(503), True), (Failure(0), True), (Failure(500, error_code="INTERNAL_ERROR"), False)]
)
def test_an_outage_costs_a_few_requests_per_minute_however_many_runs_there_are(
    failure: Failure, *, lists: bool
) -> None:
    begin, end = 40.05, 1840.0
    failure = Failure(failure.status, begin=begin, end=end, error_code=failure.error_code)
    world = World.of(1000 if lists else 100, failures=[failure] if lists else [FORBIDDEN_LIST, failure])
    for run_id in (1, 50, 100):
        world.runs[run_id].ends = 900.0
    scene = play(world, watch_all_until(end + 120))
    # Few find out; then one request after each pause.
    assert world.count(begin=begin, end=begin + 60) <= 25
    assert world.count(begin=begin + 60, end=end) <= (end - begin) / 60 * 2
    assert all(end < watching.ended <= end + PAUSE + 5 for watching in scene.watchings if watching.run)
    assert sum(watching.run is not None for watching in scene.watchings) == 3
    for watching in scene.watchings:
        cannot, can = (text for _, text in watching.warnings)
        assert "cannot be asked for at the moment, which is tried again" in cannot
        assert f"Run {watching.run_id} can be asked for again, after " in can
        assert begin <= watching.warnings[0][0] <= begin + PAUSE
        assert end <= watching.warnings[1][0] <= end + PAUSE + 2 * PERIOD
        assert watching.error is None


def test_an_outage_in_the_middle_of_a_list_is_waited_out() -> None:
    # The first pages are read, and then nothing.
    world = World.of(500, largest_page=25, page_seconds=0.2, failures=[Failure(503, begin=16.0, end=316.0)])
    world.runs[7].ends = 100.0
    scene = play(world, watch_all_until(460))
    during = [seen for seen in world.log if seen.status == 503]
    assert any(seen.operation == LIST and "offset" in seen.query for seen in during)
    assert len(during) <= 40
    assert sum(watching.run is not None for watching in scene.watchings) == 1
    assert not any(watching.error for watching in scene.watchings)
    assert all(len(watching.warnings) in {0, 2} for watching in scene.watchings)
    # And all is as it was.
    assert world.count(GET, begin=420) <= 40 / (0.9 * PERIOD) + 2


@pytest.mark.parametrize("hang", [20.0, 90.0])
def test_an_api_that_hangs_is_not_asked_by_ever_more_requests(hang: float) -> None:
    world = World.of(300, failures=[Failure(503, begin=35.0, end=935.0, hang=hang)])
    world.runs[7].ends = 100.0
    scene = play(world, watch_all_until(1100))
    assert world.count(begin=35.0, end=935.0) <= 60
    assert sum(watching.run is not None for watching in scene.watchings) == 1
    assert not any(watching.error for watching in scene.watchings)
    assert all(len(watching.warnings) == 2 for watching in scene.watchings)


def test_past_their_tolerance_all_are_told_that_the_run_is_lost_each_by_their_own() -> None:
    world = World.of(200, failures=[Failure(503, begin=30.0)])

    async def story(scene: Scene) -> None:
        scene.watch_all(range(1, 101), PERIOD, patience=Patience(outage_tolerance=600))
        scene.watch_all(range(1, 201), PERIOD)
        await scene.over(within=30 + 3600 + 2 * PAUSE)

    scene = play(world, story)
    assert all(isinstance(watching.error, RunLost) for watching in scene.watchings)
    assert all(630 <= watching.ended <= 630 + 2 * PAUSE for watching in scene.watchings[:100])
    assert all(3630 <= watching.ended <= 3630 + 2 * PAUSE for watching in scene.watchings[100:])
    assert all("it is left alone and may still be running" in str(watching.error) for watching in scene.watchings)
    assert world.count(begin=90.0) <= 3630 / 60 * 2


def test_who_joins_during_an_outage_is_told_of_it() -> None:
    world = World.of(60, failures=[Failure(503, begin=30.0, end=630.0)])

    async def story(scene: Scene) -> None:
        scene.watch_all(range(1, 51), PERIOD)
        for at in range(60, 160, 10):
            await scene.until(at)
            scene.watch(51 + (at - 60) // 10, PERIOD)
        await scene.until(750)

    scene = play(world, story)
    for watching in scene.watchings[50:]:
        assert len(watching.warnings) == 2
        assert watching.warnings[0][0] <= watching.joined + PAUSE
    assert world.count(begin=30.0, end=630.0) <= 40


def test_waiting_for_ones_turn_is_no_outage() -> None:
    # Five minutes for a round; and a blip of some seconds in the middle of it.
    world = World.of(300, failures=[FORBIDDEN_LIST, Failure(503, GET, begin=200.0, end=206.0)])
    scene = play(world, watch_all_until(500), rate=1.0, patience=Patience(outage_tolerance=60))
    assert [str(watching.error) for watching in scene.watchings if watching.error] == []


# --- what is wrong with some runs only ---


@pytest.mark.parametrize("lists", [True, False], ids=["listed", "asked for singly"])
@pytest.mark.parametrize("runs", [2, 3, 40])
def test_a_run_that_cannot_be_asked_for_harms_no_other(runs: int, *, lists: bool) -> None:
    world = World.of(runs, failures=[Failure(500, GET, run_id=1), *([] if lists else [FORBIDDEN_LIST])])
    world.runs[2].ends = 205.0
    scene = play(world, watch_all_until(300))
    good = scene.watchings[1:]
    assert [watching.warnings for watching in good] == [[]] * len(good)
    assert [0 < delay < 1.2 * PERIOD for delay in scene.delays()] == [True]
    # Where the list has it, it is asked for in its turn, and again until the next list.
    turns = 300 / PERIOD / runs + 1
    assert len(scene.watchings[0].warnings) <= (2 * turns if lists else 1)
    assert world.gets_by_run()[1] <= (max(4 * turns, 12))


def test_a_run_that_can_be_asked_for_is_found_among_many_that_cannot() -> None:
    failures = [FORBIDDEN_LIST, *(Failure(500, GET, run_id=run_id) for run_id in range(1, 20))]
    world = World.of([*(ModelRun(run_id) for run_id in range(1, 20)), ModelRun(20, ends=300.0)], failures=failures)
    scene = play(world, watch_all_until(2000))
    assert len(scene.delays()) == 1
    assert max(scene.delays()) <= 20 * PAUSE
    assert not any(watching.error for watching in scene.watchings)


def test_a_run_that_these_credentials_may_not_see_is_nobody_elses_matter() -> None:
    denied = Failure(403, GET, run_id=1, error_code="PERMISSION_DENIED")
    world = World.of(40, failures=[denied])
    world.runs[1].hidden = True
    scene = play(world, watch_all_until(900))
    refused, *others = scene.watchings
    assert isinstance(refused.error, RunLost)
    assert 600 <= refused.ended <= 600 + PAUSE
    assert len(refused.refusals) > 5
    assert not any(watching.warnings or watching.refusals or watching.error for watching in others)
    assert world.count() <= 2 * 900 / (0.85 * PERIOD) + 40


@pytest.mark.parametrize("runs", [1, 2, 40])
def test_a_run_that_is_deleted_is_lost_at_once_and_no_other(runs: int) -> None:
    world = World.of(runs)
    world.runs[1].deleted = 100.0
    scene = play(world, watch_all_until(200))
    lost, *others = scene.watchings
    assert isinstance(lost.error, RunLost)
    assert "Run 1 does not exist any more" in str(lost.error)
    assert 100 <= lost.ended <= 100 + 1.2 * PERIOD
    assert not any(watching.warnings or watching.error for watching in others)


# --- credentials that are refused ---


REFUSALS = [Failure(401), Failure(403), Failure(302, headers={"Location": "/login"}), Failure(404, message="<html>")]


@pytest.mark.parametrize("refusal", REFUSALS)
def test_refused_credentials_cost_few_requests_and_everybody_comes_back(refusal: Failure) -> None:
    world = World.of(100, failures=[replace(refusal, begin=30.0, end=330.0)])
    world.runs[7].ends = 100.0
    scene = play(world, watch_all_until(420))
    assert world.count(begin=30.0, end=330.0) <= 40
    for watching in scene.watchings:
        assert watching.error is None
        assert len(watching.warnings) == 2
        assert bool(watching.refusals) == (refusal.status in {401, 403})
    assert sum(watching.run is not None for watching in scene.watchings) == 1


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_list_that_was_refused_with_all_else_is_used_again_with_all_else(refusal: Failure) -> None:
    world = World.of(100, failures=[replace(refusal, begin=30.0, end=130.0)])
    play(world, watch_all_until(300))
    assert world.count(begin=230) <= 2 * 70 / (0.85 * PERIOD) + 2


def test_credentials_refused_for_good_lose_every_run_after_ten_minutes() -> None:
    world = World.of(100, failures=[Failure(401, begin=30.0)])
    scene = play(world, watch_all_until(30 + 600 + 2 * PAUSE))
    assert all(isinstance(watching.error, RunLost) for watching in scene.watchings)
    assert all(watching.ended >= 630 for watching in scene.watchings)
    assert world.count(begin=90.0) <= 540 / 60 * 3


# --- rate ---


@pytest.mark.parametrize(("rate", "runs"), [(100.0, 2000), (20.0, 300), (0.5, 20)])
def test_runs_that_end_in_the_same_second_are_told_of_at_the_rate_of_the_workspace(rate: float, runs: int) -> None:
    world = World.of([ModelRun(run_id, ends=60.3) for run_id in range(1, runs + 1)], get_seconds=0.02)

    async def story(scene: Scene) -> None:
        scene.watch_all(period=PERIOD)
        await scene.over(within=1000)

    scene = play(world, story, rate=rate)
    assert len(scene.delays()) == runs
    # The budget, and the jitter of the period.
    assert max(scene.delays()) <= 1.1 * PERIOD + runs / rate + 3
    # What one second brings may come at once; those in flight when the second began come on top.
    assert world.most_within(1.0) <= 2 * max(rate, 1.0) + 1
    assert world.most_within(10.0) <= 11 * max(rate, 1.0) + 1


def test_runs_that_end_together_are_told_of_at_that_rate_where_requests_take_long_too() -> None:
    world = World.of([ModelRun(run_id, ends=60.3) for run_id in range(1, 501)], get_seconds=0.19)
    scene = play(world, watch_all_until(120))
    assert len(scene.delays()) == 500
    assert max(scene.delays()) <= 1.1 * PERIOD + 500 / 100 + 3


def test_two_pollers_of_a_workspace_share_its_rate() -> None:
    world = World.of(240, failures=[FORBIDDEN_LIST])

    async def story(scene: Scene) -> None:
        other = scene.new_poller(token="another", rate=10.0)
        scene.watch_all(range(1, 121), PERIOD)
        scene.watch_all(range(121, 241), PERIOD, poller=other)
        await scene.until(24.0)
        # Nobody waits while the other is served.
        told = [
            sum(bool(watching.states) for watching in half) for half in (scene.watchings[:120], scene.watchings[120:])
        ]
        assert all(count >= 100 for count in told)
        await scene.until(60.0)

    world_rate = 10.0
    play(world, story, rate=100.0)
    assert world.most_within(1.0) <= 2 * world_rate + 1
    assert world.most_within(20.0) <= 21 * world_rate + 1


def test_the_rate_of_another_workspace_is_its_own() -> None:
    one, other = World.of(50, failures=[FORBIDDEN_LIST]), World.of(50, failures=[FORBIDDEN_LIST])
    other.base_url = "http://other.example"

    async def story(scene: Scene) -> None:
        there = Scene(other, scene.loop, {"rate": 5.0})
        scene.watch_all(period=PERIOD)
        scene.watchings += there.watch_all(period=PERIOD)
        await scene.until(20)

    play(one, story, rate=100.0)
    assert one.count(end=2.0) >= 50
    assert other.count(end=2.0) <= 15


@pytest.mark.parametrize("retry_after", ["", "7"])
@pytest.mark.parametrize("lists", [True, False], ids=["listed", "asked for singly"])
def test_a_rate_limit_slows_all_down_and_no_run_is_lost(retry_after: str, *, lists: bool) -> None:
    world = World.of(60, most_per_second=5, retry_after=retry_after, failures=[] if lists else [FORBIDDEN_LIST])
    for run_id in range(1, 61, 6):
        world.runs[run_id].ends = 100.0
    scene = play(world, watch_all_until(300))
    assert len(scene.delays()) == 10
    assert not any(watching.error for watching in scene.watchings)
    limited = [seen.at for seen in world.log if seen.status == 429]
    if retry_after:
        # Those in flight at the first of them come on top.
        pauses = [later - sooner for sooner, later in pairwise(limited) if later - sooner > 0.5]
        assert all(pause >= 6.9 for pause in pauses)
    assert len(limited) <= 0.5 * len(world.log)


def test_a_long_retry_after_is_obeyed_by_all() -> None:
    world = World.of(50, failures=[Failure(429, begin=32.0, end=33.0, headers={"Retry-After": "120"}), FORBIDDEN_LIST])
    world.runs[7].ends = 60.0
    scene = play(world, watch_all_until(200))
    assert world.count(begin=33.1, end=150.0) == 0
    (delay,) = scene.delays()
    assert 32.0 + 120.0 <= 60.0 + delay <= 33.1 + 120.0 + 2 * PERIOD


def test_a_long_retry_after_of_the_list_is_obeyed_by_all() -> None:
    world = World.of(50, failures=[Failure(429, LIST, begin=32.0, end=43.0, headers={"Retry-After": "120"})])
    play(world, watch_all_until(200))
    (limited,) = (seen.at for seen in world.log if seen.status == 429)
    assert world.count(begin=limited + 0.1, end=limited + 119.0) == 0
