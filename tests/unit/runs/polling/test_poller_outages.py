"""The poller during outages, rate limits and rejected credentials: cost and reports; in virtual time."""

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
# The pause between two requests while the API is down, with its jitter.
PAUSE = 1.1 * LONGEST_BACKOFF
FORBIDDEN_LIST = Failure(403, LIST, error_code="PERMISSION_DENIED")


def watch_all_until(at: float, period: float = PERIOD) -> Callable[[Scene], Coroutine[Any, Any, None]]:
    """Return a story in which one caller per run waits from the beginning."""

    async def story(scene: Scene) -> None:
        scene.watch_all(period=period)
        await scene.until(at)

    return story


REFUSALS = [Failure(401), Failure(403), Failure(302, headers={"Location": "/login"}), Failure(404, message="<html>")]


class TestOutage:
    @pytest.mark.parametrize(
        ("failure", "lists"),
        [(Failure(503), True), (Failure(0), True), (Failure(500, error_code="INTERNAL_ERROR"), False)],
    )
    def test_costs_few_requests_for_any_number_of_runs(self, failure: Failure, *, lists: bool) -> None:
        begin, end = 40.05, 1840.0
        failure = Failure(failure.status, begin=begin, end=end, error_code=failure.error_code)
        world = World.of(1000 if lists else 100, failures=[failure] if lists else [FORBIDDEN_LIST, failure])
        for run_id in (1, 50, 100):
            world.runs[run_id].ends = 900.0
        scene = play(world, watch_all_until(end + 120))
        # A few requests detect the outage; then one request follows each pause.
        assert world.count(begin=begin, end=begin + 60) <= 25
        assert world.count(begin=begin + 60, end=end) <= (end - begin) / 60 * 2
        assert all(end < caller.ended <= end + PAUSE + 5 for caller in scene.callers if caller.run)
        assert sum(caller.run is not None for caller in scene.callers) == 3
        for caller in scene.callers:
            cannot, can = (text for _, text in caller.warnings)
            assert " failed; will retry: " in cannot
            assert f"Polling run {caller.run_id} succeeded again after " in can
            assert begin <= caller.warnings[0][0] <= begin + PAUSE
            assert end <= caller.warnings[1][0] <= end + PAUSE + 2 * PERIOD
            assert caller.error is None

    def test_in_the_middle_of_a_list_is_waited_out(self) -> None:
        # The first pages are read; all later requests fail.
        world = World.of(500, largest_page=25, page_seconds=0.2, failures=[Failure(503, begin=16.0, end=316.0)])
        world.runs[7].ends = 100.0
        scene = play(world, watch_all_until(460))
        during = [seen for seen in world.log if seen.status == 503]
        assert any(seen.operation == LIST and "offset" in seen.query for seen in during)
        assert len(during) <= 40
        assert sum(caller.run is not None for caller in scene.callers) == 1
        assert not any(caller.error for caller in scene.callers)
        assert all(len(caller.warnings) in {0, 2} for caller in scene.callers)
        # Afterwards polling costs as little as before.
        assert world.count(GET, begin=420) <= 40 / (0.9 * PERIOD) + 2

    @pytest.mark.parametrize("hang", [20.0, 90.0])
    def test_hanging_api_gets_few_requests(self, hang: float) -> None:
        world = World.of(300, failures=[Failure(503, begin=35.0, end=935.0, hang=hang)])
        world.runs[7].ends = 100.0
        scene = play(world, watch_all_until(1100))
        assert world.count(begin=35.0, end=935.0) <= 60
        assert sum(caller.run is not None for caller in scene.callers) == 1
        assert not any(caller.error for caller in scene.callers)
        assert all(len(caller.warnings) == 2 for caller in scene.callers)

    def test_each_caller_times_out_by_its_own_tolerance(self) -> None:
        world = World.of(200, failures=[Failure(503, begin=30.0)])

        async def story(scene: Scene) -> None:
            scene.watch_all(range(1, 101), PERIOD, patience=Patience(outage_tolerance=600))
            scene.watch_all(range(1, 201), PERIOD)
            await scene.over(within=30 + 3600 + 2 * PAUSE)

        scene = play(world, story)
        assert all(isinstance(caller.error, RunLost) for caller in scene.callers)
        assert all(630 <= caller.ended <= 630 + 2 * PAUSE for caller in scene.callers[:100])
        assert all(3630 <= caller.ended <= 3630 + 2 * PAUSE for caller in scene.callers[100:])
        assert all(
            "The run was not cancelled and may still be running" in str(caller.error) for caller in scene.callers
        )
        assert world.count(begin=90.0) <= 3630 / 60 * 2

    def test_new_caller_is_warned(self) -> None:
        world = World.of(60, failures=[Failure(503, begin=30.0, end=630.0)])

        async def story(scene: Scene) -> None:
            scene.watch_all(range(1, 51), PERIOD)
            for at in range(60, 160, 10):
                await scene.until(at)
                scene.watch(51 + (at - 60) // 10, PERIOD)
            await scene.until(750)

        scene = play(world, story)
        for caller in scene.callers[50:]:
            assert len(caller.warnings) == 2
            assert caller.warnings[0][0] <= caller.joined + PAUSE
        assert world.count(begin=30.0, end=630.0) <= 40

    def test_waiting_for_the_rate_limit_is_no_outage(self) -> None:
        # A round takes five minutes, with a failure of some seconds in the middle.
        world = World.of(300, failures=[FORBIDDEN_LIST, Failure(503, GET, begin=200.0, end=206.0)])
        scene = play(world, watch_all_until(500), rate=1.0, patience=Patience(outage_tolerance=60))
        assert [str(caller.error) for caller in scene.callers if caller.error] == []


class TestFailingRun:
    @pytest.mark.parametrize("lists", [True, False], ids=["listed", "polled"])
    @pytest.mark.parametrize("runs", [2, 3, 40])
    def test_affects_no_other_run(self, runs: int, *, lists: bool) -> None:
        world = World.of(runs, failures=[Failure(500, GET, run_id=1), *([] if lists else [FORBIDDEN_LIST])])
        world.runs[2].ends = 205.0
        scene = play(world, watch_all_until(300))
        good = scene.callers[1:]
        assert [caller.warnings for caller in good] == [[]] * len(good)
        assert [0 < delay < 1.2 * PERIOD for delay in scene.delays()] == [True]
        # A listed run is polled in turn, and again until the next list.
        turns = 300 / PERIOD / runs + 1
        assert len(scene.callers[0].warnings) <= (2 * turns if lists else 1)
        assert world.gets_by_run()[1] <= (max(4 * turns, 12))

    def test_working_run_is_found_among_failing_ones(self) -> None:
        failures = [FORBIDDEN_LIST, *(Failure(500, GET, run_id=run_id) for run_id in range(1, 20))]
        world = World.of([*(ModelRun(run_id) for run_id in range(1, 20)), ModelRun(20, ends=300.0)], failures=failures)
        scene = play(world, watch_all_until(2000))
        assert len(scene.delays()) == 1
        assert max(scene.delays()) <= 20 * PAUSE
        assert not any(caller.error for caller in scene.callers)

    def test_forbidden_run_affects_no_other(self) -> None:
        denied = Failure(403, GET, run_id=1, error_code="PERMISSION_DENIED")
        world = World.of(40, failures=[denied])
        world.runs[1].hidden = True
        scene = play(world, watch_all_until(900))
        refused, *others = scene.callers
        assert isinstance(refused.error, RunLost)
        assert 600 <= refused.ended <= 600 + PAUSE
        assert len(refused.refusals) > 5
        assert not any(caller.warnings or caller.refusals or caller.error for caller in others)
        assert world.count() <= 2 * 900 / (0.85 * PERIOD) + 40

    @pytest.mark.parametrize("runs", [1, 2, 40])
    def test_deleted_run_is_lost_at_once(self, runs: int) -> None:
        world = World.of(runs)
        world.runs[1].deleted = 100.0
        scene = play(world, watch_all_until(200))
        lost, *others = scene.callers
        assert isinstance(lost.error, RunLost)
        assert "Run 1 no longer exists" in str(lost.error)
        assert 100 <= lost.ended <= 100 + 1.2 * PERIOD
        assert not any(caller.warnings or caller.error for caller in others)


class TestRefusedCredentials:
    @pytest.mark.parametrize("refusal", REFUSALS)
    def test_cost_few_requests_until_they_work_again(self, refusal: Failure) -> None:
        world = World.of(100, failures=[replace(refusal, begin=30.0, end=330.0)])
        world.runs[7].ends = 100.0
        scene = play(world, watch_all_until(420))
        assert world.count(begin=30.0, end=330.0) <= 40
        for caller in scene.callers:
            assert caller.error is None
            assert len(caller.warnings) == 2
            assert bool(caller.refusals) == (refusal.status in {401, 403})
        assert sum(caller.run is not None for caller in scene.callers) == 1

    @pytest.mark.parametrize("refusal", REFUSALS)
    def test_list_is_used_again_with_the_rest(self, refusal: Failure) -> None:
        world = World.of(100, failures=[replace(refusal, begin=30.0, end=130.0)])
        play(world, watch_all_until(300))
        assert world.count(begin=230) <= 2 * 70 / (0.85 * PERIOD) + 2

    def test_lose_every_run_after_ten_minutes(self) -> None:
        world = World.of(100, failures=[Failure(401, begin=30.0)])
        scene = play(world, watch_all_until(30 + 600 + 2 * PAUSE))
        assert all(isinstance(caller.error, RunLost) for caller in scene.callers)
        assert all(caller.ended >= 630 for caller in scene.callers)
        assert world.count(begin=90.0) <= 540 / 60 * 3


class TestRateLimit:
    @pytest.mark.parametrize(("rate", "runs"), [(100.0, 2000), (20.0, 300), (0.5, 20)])
    def test_simultaneous_ends_are_reported_at_the_rate(self, rate: float, runs: int) -> None:
        world = World.of([ModelRun(run_id, ends=60.3) for run_id in range(1, runs + 1)], get_seconds=0.02)

        async def story(scene: Scene) -> None:
            scene.watch_all(period=PERIOD)
            await scene.over(within=1000)

        scene = play(world, story, rate=rate)
        assert len(scene.delays()) == runs
        # The rate, and the jitter of the period.
        assert max(scene.delays()) <= 1.1 * PERIOD + runs / rate + 3
        # A burst of one second's requests is allowed, and those in flight when the second began add to it.
        assert world.most_within(1.0) <= 2 * max(rate, 1.0) + 1
        assert world.most_within(10.0) <= 11 * max(rate, 1.0) + 1

    def test_slow_requests_still_reach_the_rate(self) -> None:
        world = World.of([ModelRun(run_id, ends=60.3) for run_id in range(1, 501)], get_seconds=0.19)
        scene = play(world, watch_all_until(120))
        assert len(scene.delays()) == 500
        assert max(scene.delays()) <= 1.1 * PERIOD + 500 / 100 + 3

    def test_two_pollers_of_a_workspace_share_its_rate(self) -> None:
        world = World.of(240, failures=[FORBIDDEN_LIST])

        async def story(scene: Scene) -> None:
            other = scene.new_poller(token="another", rate=10.0)
            scene.watch_all(range(1, 121), PERIOD)
            scene.watch_all(range(121, 241), PERIOD, poller=other)
            await scene.until(24.0)
            # Neither poller starves.
            reported = [
                sum(bool(caller.states) for caller in half) for half in (scene.callers[:120], scene.callers[120:])
            ]
            assert all(count >= 100 for count in reported)
            await scene.until(60.0)

        world_rate = 10.0
        play(world, story, rate=100.0)
        assert world.most_within(1.0) <= 2 * world_rate + 1
        assert world.most_within(20.0) <= 21 * world_rate + 1

    def test_each_workspace_has_its_own_rate(self) -> None:
        one, other = World.of(50, failures=[FORBIDDEN_LIST]), World.of(50, failures=[FORBIDDEN_LIST])
        other.base_url = "http://other.example"

        async def story(scene: Scene) -> None:
            there = Scene(other, scene.loop, {"rate": 5.0})
            scene.watch_all(period=PERIOD)
            scene.callers += there.watch_all(period=PERIOD)
            await scene.until(20)

        play(one, story, rate=100.0)
        assert one.count(end=2.0) >= 50
        assert other.count(end=2.0) <= 15

    @pytest.mark.parametrize("retry_after", ["", "7"])
    @pytest.mark.parametrize("lists", [True, False], ids=["listed", "polled"])
    def test_429_slows_polling_and_loses_no_run(self, retry_after: str, *, lists: bool) -> None:
        world = World.of(60, most_per_second=5, retry_after=retry_after, failures=[] if lists else [FORBIDDEN_LIST])
        for run_id in range(1, 61, 6):
            world.runs[run_id].ends = 100.0
        scene = play(world, watch_all_until(300))
        assert len(scene.delays()) == 10
        assert not any(caller.error for caller in scene.callers)
        limited = [seen.at for seen in world.log if seen.status == 429]
        if retry_after:
            # Requests in flight at the first 429 add to it.
            pauses = [later - sooner for sooner, later in pairwise(limited) if later - sooner > 0.5]
            assert all(pause >= 6.9 for pause in pauses)
        assert len(limited) <= 0.5 * len(world.log)

    def test_retry_after_delays_all_requests(self) -> None:
        world = World.of(
            50, failures=[Failure(429, begin=32.0, end=33.0, headers={"Retry-After": "120"}), FORBIDDEN_LIST]
        )
        world.runs[7].ends = 60.0
        scene = play(world, watch_all_until(200))
        assert world.count(begin=33.1, end=150.0) == 0
        (delay,) = scene.delays()
        assert 32.0 + 120.0 <= 60.0 + delay <= 33.1 + 120.0 + 2 * PERIOD

    def test_retry_after_of_the_list_delays_all_requests(self) -> None:
        world = World.of(50, failures=[Failure(429, LIST, begin=32.0, end=43.0, headers={"Retry-After": "120"})])
        play(world, watch_all_until(200))
        (limited,) = (seen.at for seen in world.log if seen.status == 429)
        assert world.count(begin=limited + 0.1, end=limited + 119.0) == 0
