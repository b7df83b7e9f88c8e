"""The poller reads the list of active runs instead of polling each of them, whatever the server does; virtual time.

The tests measure the requests, and how late an end is reported. After each story, `Scene.check_outcomes` verifies that
no end was reported before the API returned it, and none that is not the run's.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
from listing_model import DEFAULT_PAGE, GET, LIST, Failure, ModelRun, World
from poller_scene import Scene, play

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

PERIOD = 10.0


def latest(reading: float = 0.1) -> float:
    """Return how late an end may be reported if reading the list takes `reading` seconds.

    It may occur just after its page was read. A period begins when a reading ends, jitter makes it a tenth longer, and
    runs that are due within a fiftieth of it are polled together. A few gets take half a second.
    """
    return reading + (1.1 + 0.02) * PERIOD + reading + 0.5


LATEST = latest()


def watch_all_until(at: float, period: float = PERIOD) -> Callable[[Scene], Coroutine[Any, Any, None]]:
    """Return a story in which one caller per run waits from the beginning."""

    async def story(scene: Scene) -> None:
        scene.watch_all(period=period)
        await scene.until(at)

    return story


def ends_at(world: World, at: float, *run_ids: int) -> None:
    for run_id in run_ids:
        world.runs[run_id].ends = at


def limits(world: World) -> list[tuple[str, str]]:
    """Return the distinct API versions and limits with which lists were requested."""
    requested = [(seen.version, seen.query["limit"]) for seen in world.log if seen.operation == LIST]
    return list(dict.fromkeys(requested))


def lists(world: World, begin: float = 0.0) -> int:
    """Return how many readings of the list began."""
    return sum(
        seen.operation == LIST and seen.at >= begin and not {"offset", "page_token"} & seen.query.keys()
        for seen in world.log
    )


class TestBudget:
    def test_thousand_runs_cost_two_requests_per_period(self) -> None:
        world = World.of(1000)
        ends_at(world, 600.0, 17)
        scene = play(world, watch_all_until(900))
        assert world.count(LIST) <= 900 / (0.9 * PERIOD) + 1
        assert world.count(GET) <= world.count(LIST) + 1
        (delay,) = scene.delays()
        assert 0 < delay <= LATEST

    @pytest.mark.parametrize("serves_2_0", [True, False], ids=["by offset", "by token"])
    def test_pages_of_25_cost_42_requests_per_period(self, *, serves_2_0: bool) -> None:
        world = World.of(1000, largest_page=25, serves_2_0=serves_2_0)
        ends_at(world, 120.0, 17)
        scene = play(world, watch_all_until(160))
        readings = lists(world, 60)
        assert readings <= 100 / (0.9 * PERIOD) + 1
        assert world.count(begin=60) <= 42 * (readings + 1)
        assert max(scene.delays()) <= latest(40 * world.page_seconds)

    def test_few_runs_are_polled_one_by_one(self) -> None:
        world = World.of(2)
        play(world, watch_all_until(300))
        assert world.count(LIST) == 0
        assert all(270 / PERIOD <= gets <= 335 / PERIOD for gets in world.gets_by_run().values())

    def test_state_changes_are_reported_from_the_list(self) -> None:
        states = ((0.0, "PENDING"), (33.0, "RUNNING"), (71.0, "TERMINATING"))
        world = World.of([ModelRun(run_id, states=states, ends=90.0) for run_id in range(1, 51)])
        scene = play(world, watch_all_until(110))
        assert all(
            caller.life_cycle_states == ["PENDING", "RUNNING", "TERMINATING", "TERMINATED"] for caller in scene.callers
        )
        assert world.count(GET) <= 50 + 110 / PERIOD + 3


class TestPages:
    @pytest.mark.parametrize("over_limit", ["cut", "refused"])
    @pytest.mark.parametrize("zero", ["largest", "refused"])
    @pytest.mark.parametrize("largest_page", [1000, 150, 25])
    def test_finds_a_supported_page(self, largest_page: int, zero: Any, over_limit: Any) -> None:
        world = World.of(300, largest_page=largest_page, zero=zero, over_limit=over_limit)
        if zero == over_limit == "refused":
            # Pages between 25 and 999 are used only where the server cuts them to its largest.
            largest_page = min(largest_page, 25)
        ends_at(world, 45.0, *range(1, 301, 50))
        scene = play(world, watch_all_until(100))
        refused = sum(seen.status == 400 for seen in world.log)
        assert refused <= 2
        pages = -(-300 // largest_page)
        assert world.count(LIST) - refused <= pages * lists(world) - refused * (pages - 1)
        # Once found it is kept: no later request is rejected.
        assert all(seen.status == 200 for seen in world.log if seen.at > PERIOD)
        assert len(scene.delays()) == 6
        assert max(scene.delays()) <= latest(pages * world.page_seconds)

    def test_limit_0_read_as_default_is_replaced(self) -> None:
        world = World.of(300, zero="default")
        play(world, watch_all_until(100))
        assert world.count(LIST, begin=50) <= 2 * lists(world, 50)

    def test_reads_a_server_with_default_pages_only(self) -> None:
        world = World.of(300, largest_page=DEFAULT_PAGE, over_limit="refused", zero="default")
        ends_at(world, 55.0, 1, 100, 300)
        scene = play(world, watch_all_until(100))
        assert len(scene.delays()) == 3
        assert max(scene.delays()) <= latest(15 * world.page_seconds)
        assert world.count(GET, begin=20) < 30

    def test_falls_back_to_the_version_of_the_connection(self) -> None:
        world = World.of(200, serves_2_0=False)
        ends_at(world, 45.0, 1, 200)
        scene = play(world, watch_all_until(100), api_version="2.1")
        assert limits(world)[-1] == ("2.1", "25")
        assert sum(seen.status == 404 for seen in world.log) == 2
        assert len(scene.delays()) == 2
        # One get per list, and those of the first reading and of the ends.
        assert world.count(GET) <= lists(world) + 4

    def test_reads_past_empty_pages(self) -> None:
        world = World.of(100, serves_2_0=False, empty_pages=True)
        ends_at(world, 45.0, 1, 50, 100)
        scene = play(world, watch_all_until(100))
        assert len(scene.delays()) == 3
        assert max(scene.delays()) <= latest(8 * world.page_seconds)
        assert world.count(GET) <= lists(world) + 6

    @pytest.mark.parametrize("serves_2_0", [True, False], ids=["by offset", "by token"])
    def test_repeated_first_page_misses_no_end(self, *, serves_2_0: bool) -> None:
        world = World.of(40, largest_page=20, same_page=True, serves_2_0=serves_2_0)
        ends_at(world, 305.0, 1, 20, 40)
        scene = play(world, watch_all_until(330))
        assert len(scene.delays()) == 3
        assert max(scene.delays()) <= LATEST + 1
        # No variant works better, so the list is not used any more.
        assert world.count(LIST) <= 25
        assert world.count(LIST, begin=150) == 0

    def test_brief_404s_do_not_lose_large_pages_for_good(self) -> None:
        world = World.of(100)

        async def story(scene: Scene) -> None:
            scene.watch_all(period=PERIOD)
            for at in (30, 60, 90, 120):
                await scene.until(at)
                before = world.count(LIST)
                world.failures = [Failure(404, LIST, message="<html>")]
                while world.count(LIST) == before:
                    await scene.until(scene.now + 0.01)
                world.failures = []
            await scene.until(3750)

        play(world, story)
        assert world.count(LIST, begin=3680) <= 70 / (0.85 * PERIOD)

    def test_shifting_pages_miss_no_end(self) -> None:
        chance = random.Random(3)
        runs = [ModelRun(run_id, ends=chance.uniform(20, 300)) for run_id in range(1, 301)]
        world = World.of(runs, largest_page=25, page_seconds=0.5)
        scene = play(world, watch_all_until(330))
        assert len(scene.delays()) == 300
        assert max(scene.delays()) <= latest(12 * world.page_seconds)


class TestOtherRuns:
    @pytest.mark.parametrize("largest_page", [1000, 25])
    @pytest.mark.parametrize("place", ["before", "after", "among"])
    def test_few_runs_among_50000_are_polled_one_by_one(self, place: Any, largest_page: int) -> None:
        world = World.of(12, foreign=50_000, foreign_place=place, largest_page=largest_page)
        ends_at(world, 455.0, 3, 12)
        scene = play(world, watch_all_until(700))
        if place != "after":
            # Read once in five minutes, and only until it costs as much as the gets.
            assert lists(world) <= 3
            assert world.count(LIST) <= 12 * lists(world)
        else:
            # Ours come first: one page has them all.
            assert world.count(GET) < 12 * 700 / PERIOD / 2 or lists(world) <= 3
        assert max(scene.delays()) <= LATEST
        assert world.count(begin=350, end=450) <= 12 * 100 / (0.9 * PERIOD) + 12

    def test_many_runs_among_50000_are_found_in_the_list(self) -> None:
        world = World.of(2000, foreign=50_000, foreign_place="among", page_seconds=0.02, get_seconds=0.02)
        ends_at(world, 5.0, 1, 2000)
        scene = play(world, watch_all_until(52))
        assert len(scene.delays()) == 2
        # With so many runs of others the list is read in every fourth period only.
        assert lists(world) == 2
        assert world.count(GET) <= 10
        assert world.count(LIST) <= 54 * lists(world)

    def test_are_counted_again_after_a_while(self) -> None:
        world = World.of(30, foreign=20_000)

        async def story(scene: Scene) -> None:
            scene.watch_all(period=PERIOD)
            await scene.until(60)
            assert lists(world) == 1
            world._foreign.clear()
            await scene.until(700)

        play(world, story)
        assert world.count(GET, begin=400) <= 300 / (0.9 * PERIOD) + 5

    @pytest.mark.parametrize(("largest_page", "stretch", "most"), [(1000, 2, 1.5), (25, 4, 25)])
    def test_of_three_other_triggerers_share_the_requests(self, largest_page: int, stretch: int, most: float) -> None:
        # Four triggerers of a workspace wait for 500 runs each.
        world = World.of(500, foreign=1500, foreign_place="among", largest_page=largest_page)
        ends_at(world, 405.0, 3, 400)
        scene = play(world, watch_all_until(480))
        assert max(scene.delays()) <= stretch * (latest() - 0.7) + 80 * 2 * world.page_seconds
        assert world.count(begin=100, end=400) / (300 / PERIOD) <= most
        *_, share = (measured.value for measured in scene.metrics if measured.name == "foreign_share")
        assert share == pytest.approx(0.75, abs=0.01)

    def test_on_the_same_page_delay_no_end(self) -> None:
        world = World.of(50, foreign=900, foreign_place="before")
        ends_at(world, 205.0, 3, 40)
        scene = play(world, watch_all_until(230))
        assert max(scene.delays()) <= LATEST
        assert world.count(LIST, begin=100, end=200) >= 9

    def test_leave_their_part_of_the_rate_limit(self) -> None:
        runs = [ModelRun(run_id, ends=100.0 if run_id <= 60 else 1e9, hidden=run_id <= 60) for run_id in range(1, 201)]
        world = World.of(runs, foreign=600)
        play(world, watch_all_until(140), rate=8.0)
        # A quarter of the runs that the list shows are ours.
        assert world.most_within(10.0, begin=30.0) <= 2 * (10 + 1) + 2


class TestFailingList:
    def test_forbidden_list_is_tried_every_ten_minutes_in_the_end(self) -> None:
        world = World.of(12, failures=[Failure(403, LIST, error_code="PERMISSION_DENIED")])
        ends_at(world, 1825.0, 1, 12)
        scene = play(world, watch_all_until(2160))
        assert world.count(LIST, begin=1000) == 2
        assert max(scene.delays()) <= LATEST
        assert not any(caller.warnings for caller in scene.callers)

    @pytest.mark.parametrize("failure", [Failure(500, LIST), Failure(0, LIST), Failure(401, LIST), Failure(409, LIST)])
    def test_failing_list_is_tried_a_few_times_a_minute(self, failure: Failure) -> None:
        world = World.of(30, failures=[failure])
        ends_at(world, 245.0, 1, 30)
        scene = play(world, watch_all_until(300))
        assert world.count(LIST) <= 3 * 300 / 60
        assert max(scene.delays()) <= LATEST + 5
        assert not any(caller.warnings or caller.refusals for caller in scene.callers)

    def test_recovered_list_is_used_again(self) -> None:
        world = World.of(100, failures=[Failure(500, LIST, end=100)])
        play(world, watch_all_until(400))
        assert world.count(GET, begin=200) <= 200 / (0.9 * PERIOD) + 3

    @pytest.mark.parametrize("seconds", [4.0, 8.0, 3600.0])
    def test_slow_list_delays_ends_by_its_timeout_at_most(self, seconds: float) -> None:
        world = World.of(50, largest_page=25, page_seconds=seconds)
        ends_at(world, 130.0, 1, 50)
        ends_at(world, 310.0, 2, 49)
        scene = play(world, watch_all_until(350))
        assert len(scene.delays()) == 4
        # The least time that reading a list may take.
        assert max(scene.delays()) <= latest(10.0)
        if seconds > 4:
            # After a minute, after two more, and after four more.
            assert lists(world) <= 3

    def test_new_caller_waits_for_two_slow_lists_at_most(self) -> None:
        world = World.of(101, page_seconds=9.0)

        async def story(scene: Scene) -> None:
            scene.watch_all(range(1, 101), period=PERIOD)
            await scene.until(2.0)
            late = scene.watch(101)
            await scene.until(30)
            assert late.states[0][0] <= 2 * 9.0 + 1.0

        play(world, story)


class TestStaleList:
    def test_delays_ends_by_its_lag_and_a_period(self) -> None:
        world = World.of([ModelRun(run_id, ends=97.0 + 3 * run_id) for run_id in range(1, 51)], lag=30.0)
        scene = play(world, watch_all_until(400))
        delays = scene.delays()
        assert len(delays) == 50
        assert max(delays) <= 30.0 + LATEST
        assert world.count(GET) < 50 + 400 / PERIOD + 50

    @pytest.mark.parametrize("lag", [120.0, 1800.0])
    def test_is_not_used_if_stale_by_minutes(self, lag: float) -> None:
        world = World.of([ModelRun(run_id, ends=50.0 + 5 * run_id) for run_id in range(1, 101)], lag=lag)
        # All runs were active when the list was made.
        scene = play(world, watch_all_until(750))
        assert len(scene.delays()) == 100
        # Each period one listed run is polled in turn, until one of them turns out to have ended a minute ago.
        assert max(scene.delays()) <= min(lag, 200.0) + LATEST
        late = [scene.delay(caller) for caller in scene.callers if world.runs[caller.run_id].ends > 250]
        assert max(late) <= LATEST

    def test_frozen_list_misses_no_end(self) -> None:
        world = World.of([ModelRun(run_id, ends=50.0 + 4 * run_id) for run_id in range(1, 81)], frozen_at=20.0)
        scene = play(world, watch_all_until(900))
        assert len(scene.delays()) == 80
        assert max(scene.delays()) <= 160.0

    def test_frozen_list_delays_an_end_by_a_period_per_run(self) -> None:
        world = World.of([*(ModelRun(run_id) for run_id in range(1, 40)), ModelRun(40, ends=25.0)], frozen_at=20.0)
        scene = play(world, watch_all_until(40 * 1.1 * PERIOD + 30))
        assert len(scene.delays()) == 1

    def test_failing_run_hides_no_end_of_a_frozen_list(self) -> None:
        runs = [ModelRun(1), *(ModelRun(run_id, ends=50.0 + run_id) for run_id in range(2, 31))]
        world = World.of(runs, frozen_at=20.0, failures=[Failure(500, GET, run_id=1)])
        scene = play(world, watch_all_until(900))
        assert len(scene.delays()) == 29

    def test_end_of_a_zombie_is_found_while_others_join(self) -> None:
        old = [ModelRun(1, ends=100.0, zombie=True), *(ModelRun(run_id) for run_id in range(2, 13))]
        young = [ModelRun(100 + n, born=15.0 + 10 * (n // 4), ends=45.0 + 10 * (n // 4)) for n in range(160)]
        world = World.of(old + young)

        async def story(scene: Scene) -> None:
            (first, *_) = scene.watch_all(range(1, 13), period=PERIOD)
            for run in young:
                await scene.until(max(scene.now, run.born + 3))
                scene.watch(run.run_id, PERIOD)
            # It is polled in turn with the other listed runs.
            assert scene.delay(first) <= 24 * 1.12 * PERIOD

        play(world, story)

    @pytest.mark.parametrize("listed_as", ["TERMINATED", "INTERNAL_ERROR", "SKIPPED"])
    def test_an_end_in_the_list_is_not_trusted(self, listed_as: str) -> None:
        wrong = [ModelRun(run_id, ends=100.0, listed_as=listed_as) for run_id in range(1, 6)]
        world = World.of([*wrong, *(ModelRun(run_id) for run_id in range(6, 31))])
        scene = play(world, watch_all_until(130))
        assert len(scene.delays()) == 5
        assert all(caller.life_cycle_states == ["RUNNING", "TERMINATED"] for caller in scene.callers[:5])
        assert all(caller.states[1][0] >= 100 for caller in scene.callers[:5])
        assert max(scene.delays()) <= LATEST


class TestUnlistedRuns:
    def test_new_run_is_polled_until_it_is_listed(self) -> None:
        launched = [ModelRun(100 + n, born=30.0 + n, ends=90.0 + n, states=((30.0 + n, "PENDING"),)) for n in range(30)]
        world = World.of([*(ModelRun(run_id) for run_id in range(1, 31)), *launched], lag=5.0)

        async def story(scene: Scene) -> None:
            scene.watch_all(range(1, 31), period=PERIOD)
            for run in launched:
                await scene.until(run.born)
                caller = scene.watch(run.run_id, PERIOD)
            await scene.until(200)
            assert caller.life_cycle_states[0] == "PENDING"

        scene = play(world, story)
        assert len(scene.delays()) == 30
        assert max(scene.delays()) <= 5.0 + LATEST
        assert all(caller.states[0][0] - caller.joined < 1.0 for caller in scene.callers)

    def test_runs_listed_late_are_soon_served_by_the_list(self) -> None:
        world = World.of([ModelRun(run_id, born=-0.5) for run_id in range(1, 101)], lag=5.0)
        play(world, watch_all_until(200))
        assert world.count(GET) <= 5 * 100

    def test_repaired_runs_do_not_spoil_the_list(self) -> None:
        world = World.of(100)
        ends_at(world, 30.0, 1, 2)

        async def story(scene: Scene) -> None:
            scene.watch_all(period=PERIOD)
            await scene.until(60)
            assert len(scene.delays()) == 2
            # They are in the workspace's pages again, but no caller waits for them.
            ends_at(world, 1000.0, 1, 2)
            await scene.until(300)
            ends_at(world, 30.0, 1, 2)

        play(world, story)
        assert world.count(GET, begin=60) <= 3 * 240 / PERIOD

    @pytest.mark.parametrize("hidden", [1, 20, 60])
    def test_task_runs_are_polled_and_others_listed(self, hidden: int) -> None:
        runs = [
            ModelRun(run_id, hidden=run_id <= hidden, ends=170.0 if run_id in {1, 60} else 1e9)
            for run_id in range(1, 61)
        ]
        world = World.of(runs)
        scene = play(world, watch_all_until(250))
        assert len(scene.delays()) == 2
        assert max(scene.delays()) <= LATEST
        gets = world.gets_by_run(begin=50, end=150)
        assert all(gets[run_id] in {9, 10, 11, 12} for run_id in range(1, hidden + 1))
        assert sum(gets[run_id] for run_id in range(hidden + 1, 61)) <= 100 / (0.9 * PERIOD) + 1

    def test_list_without_our_runs_is_read_ever_more_rarely(self) -> None:
        world = World.of([ModelRun(run_id, hidden=True) for run_id in range(1, 21)])
        play(world, watch_all_until(700))
        assert lists(world, 300) <= 15

    def test_queued_run_is_listed_once_it_starts(self) -> None:
        runs = [ModelRun(run_id, states=((0.0, "QUEUED"), (60.0, "RUNNING"))) for run_id in range(1, 61)]
        world = World.of(runs, shows_queued=False)
        scene = play(world, watch_all_until(200))
        assert all(caller.life_cycle_states == ["QUEUED", "RUNNING"] for caller in scene.callers)
        assert all(60 <= caller.states[1][0] <= 60 + LATEST + 1 for caller in scene.callers)
        assert world.count(GET, begin=75) <= 125 / (0.9 * PERIOD) + 2

    @pytest.mark.parametrize("largest_page", [1000, 25])
    def test_new_run_is_polled_if_the_list_costs_more(self, largest_page: int) -> None:
        world = World.of(600, largest_page=largest_page)

        async def story(scene: Scene) -> None:
            scene.watch_all(range(1, 401), period=PERIOD)
            await scene.until(50)
            for run_id in range(401, 601):
                await scene.until(scene.now + 0.5)
                joined = scene.watch(run_id, PERIOD)
            await scene.until(scene.now + PERIOD)
            assert joined.states

        play(world, story)
        assert lists(world, 50) <= 110 / (0.85 * PERIOD) + 1


class TestManyEnds:
    @staticmethod
    def ending(number: int, **options: Any) -> World:
        """Return a world in which all of that many runs end within two seconds."""
        return World.of([ModelRun(run_id, ends=60.0 + run_id % 40 / 20) for run_id in range(1, number + 1)], **options)

    def test_are_read_from_the_list_of_ended_runs(self) -> None:
        world = self.ending(1000)
        scene = play(world, watch_all_until(75, period=2.0))
        assert len(scene.delays()) == 1000
        assert max(scene.delays()) <= 2.0 + 2.0
        assert world.count(begin=60.0) <= 20

    def test_are_read_from_short_pages(self) -> None:
        world = self.ending(1000, serves_2_0=False, page_seconds=0.05)
        scene = play(world, watch_all_until(90, period=2.0))
        assert len(scene.delays()) == 1000
        assert max(scene.delays()) <= 2.0 + 5.0
        assert world.count(GET, begin=60.0) <= 20

    @pytest.mark.parametrize("foreign_ended", [10, 5000])
    def test_of_others_cost_a_page_or_two(self, foreign_ended: int) -> None:
        world = self.ending(200, foreign_ended=foreign_ended)
        scene = play(world, watch_all_until(90))
        assert len(scene.delays()) == 200
        ended = [seen for seen in world.log if "completed_only" in seen.query]
        assert len(ended) <= (2 if foreign_ended == 10 else 1)
        assert world.count(GET, begin=60.0) <= (5 if foreign_ended == 10 else 202)

    def test_of_runs_that_were_never_seen_active_are_polled(self) -> None:
        # They may have been repaired since the list was made.
        world = World.of([ModelRun(run_id, ends=-5.0) for run_id in range(1, 201)])
        scene = play(world, watch_all_until(20))
        assert len(scene.delays()) == 200
        assert world.count(GET) == 200

    @pytest.mark.parametrize("failure", [Failure(500, LIST, begin=60.0), Failure(403, LIST, begin=60.0)])
    def test_are_polled_if_the_list_fails(self, failure: Failure) -> None:
        world = self.ending(200, failures=[failure])
        assert len(play(world, watch_all_until(90)).delays()) == 200

    def test_hidden_runs_are_polled(self) -> None:
        world = self.ending(200)
        for run in world.runs.values():
            run.hidden = run.run_id % 2 == 0
        scene = play(world, watch_all_until(90))
        assert len(scene.delays()) == 200
        assert max(scene.delays()) <= LATEST + 2.0

    def test_of_runs_that_moved_while_the_list_was_read_are_read_at_once(self) -> None:
        # Each end moves later runs to pages that were read already.
        ends = [1e9] * 500 + [60.0 + number / 100 for number in range(500)]
        random.Random(1).shuffle(ends)
        runs = [ModelRun(run_id, ends=ends[run_id - 1]) for run_id in range(1, 1001)]
        world = World.of(runs, largest_page=25, page_seconds=0.1)
        scene = play(world, watch_all_until(90))
        assert len(scene.delays()) == 500
        assert max(scene.delays()) <= latest(3 * 40 * world.page_seconds)
        assert world.count(GET, begin=60.0) <= 100
