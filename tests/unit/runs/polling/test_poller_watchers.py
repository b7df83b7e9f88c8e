"""The callers of a poller, which join and leave, each with a period and tolerances of its own; in virtual time."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
import virtual_time
from in_process import connect_clients
from listing_model import CANCEL, GET, LIST, STOPPING, Failure, ModelAdapter, ModelRun, World
from poller_scene import Scene, play

from airflow_dbjobs.client.models import Outcome
from airflow_dbjobs.client.retry import Patience
from airflow_dbjobs.errors import RunLost
from airflow_dbjobs.runs.polling.metrics import Meter
from airflow_dbjobs.runs.polling.poller import RunPoller

if TYPE_CHECKING:
    from collections.abc import Callable

FORBIDDEN_LIST = Failure(403, LIST, error_code="PERMISSION_DENIED")


METHODS = ["_find_due", "_start_round", "_read_list", "on_answer", "on_failure", "_end_poll", "_record_answer"]


async def _watch_for(scene: Scene, seconds: float) -> None:
    scene.watch_all(period=10.0)
    await scene.until(seconds)


class TestPeriod:
    def test_each_run_is_polled_at_its_period(self) -> None:
        periods = {1: 5.0, 2: 30.0, 3: 60.0, 4: 600.0}
        world = World.of(4, failures=[FORBIDDEN_LIST])

        async def story(scene: Scene) -> None:
            for run_id, period in periods.items():
                scene.watch(run_id, period)
            await scene.until(3600)

        play(world, story)
        for run_id, gets in world.gets_by_run().items():
            assert 3600 / (1.1 * periods[run_id]) <= gets <= 3600 / (0.9 * periods[run_id]) + 1

    @pytest.mark.parametrize("short", [1, 50])
    def test_long_period_ignores_the_short_one_of_others(self, short: int) -> None:
        world = World.of(short + 20)
        for run_id in (short, short + 20):
            world.runs[run_id].ends = 1000.0

        async def story(scene: Scene) -> None:
            scene.watch_all(range(1, short + 1), 5.0)
            scene.watch_all(range(short + 1, short + 21), 600.0)
            await scene.until(1700)

        scene = play(world, story)
        gets = world.gets_by_run()
        # Lists that are read for the others contain it, and then it is polled in turn.
        most = 1700 / (0.9 * 5.0) / (short + 20) + 2 if short > 1 else 1700 / (0.9 * 600.0) + 1
        assert all(gets[run_id] <= most for run_id in range(short + 1, short + 21))
        brief, long = scene.delays()
        assert brief <= 1.1 * 5.0 + 0.5
        assert long <= (1.1 * 5.0 if short > 1 else 1.1 * 600.0) + 0.5

    def test_new_caller_learns_the_state_at_once(self) -> None:
        world = World.of(40)

        async def story(scene: Scene) -> None:
            for run_id in range(1, 41):
                scene.watch(run_id, 60.0)
                await scene.until(scene.now + 3.0)

        scene = play(world, story)
        # A round waits a fiftieth of the shortest period for other runs.
        assert all(caller.states[0][0] - caller.joined <= 60.0 / 50 + 0.5 for caller in scene.callers)


class TestSameRun:
    def test_two_callers_cost_one_poll_at_the_shorter_period(self) -> None:
        world = World.of([ModelRun(1, ends=333.0)])

        async def story(scene: Scene) -> None:
            scene.watch(1, 60.0)
            await scene.until(100)
            quick = scene.watch(1, 5.0)
            await scene.until(200)
            quick.leave()
            await scene.until(500)

        scene = play(world, story)
        slow, quick = scene.callers
        assert slow.run is not None
        assert quick.run is None
        assert quick.states
        assert world.count(GET, end=100) <= 3
        assert 100 / 5.5 <= world.count(GET, begin=100, end=200) <= 100 / 4.5 + 1
        # From 200 s on at most three before the end, and the one that reports it.
        assert world.count(GET, begin=206) <= 4

    def test_each_caller_has_its_own_tolerance(self) -> None:
        world = World.of([ModelRun(1, ends=500.0), ModelRun(2)], failures=[Failure(503, begin=50.0, end=1000.0)])

        async def story(scene: Scene) -> None:
            scene.watch(1, 5.0, patience=Patience(outage_tolerance=120))
            scene.watch(1, 30.0)
            scene.watch(2, 10.0)
            await scene.until(1100)

        scene = play(world, story)
        hasty, patient, _ = scene.callers
        assert isinstance(hasty.error, RunLost)
        assert 170 <= hasty.ended <= 170 + 66
        assert patient.run is not None
        assert 1000 <= patient.ended <= 1000 + 66 + 1

    def test_new_caller_learns_the_state_and_others_not_again(self) -> None:
        world = World.of(30)

        async def story(scene: Scene) -> None:
            scene.watch_all(range(1, 31), 10.0)
            await scene.until(35)
            scene.watch_all(range(1, 31), 10.0)
            await scene.until(60)

        scene = play(world, story)
        assert all(caller.life_cycle_states == ["RUNNING"] for caller in scene.callers)
        assert all(caller.states[0][0] < 36 for caller in scene.callers[30:])


class TestLeaving:
    @pytest.mark.parametrize("at", [0.5, 3.0, 9.5], ids=["in flight", "queued", "between"])
    @pytest.mark.parametrize("runs", [1, 9])
    def test_leaving_at_any_time_affects_no_other_caller(self, runs: int, at: float) -> None:
        # Each answer takes two seconds, five at a time.
        world = World.of([ModelRun(run_id, ends=20.0) for run_id in range(1, runs + 2)], get_seconds=2.0)
        world.failures = [FORBIDDEN_LIST]

        async def story(scene: Scene) -> None:
            scene.watch_all(period=10.0)
            twin = scene.watch(1, 10.0)
            await scene.until(at)
            for caller in (*scene.callers[1:-1], twin):
                caller.leave()
            await scene.until(60)

        scene = play(world, story)
        first, *others = scene.callers
        assert first.run is not None
        assert all(caller.run is None and caller.error is None for caller in others)
        polled = world.gets_by_run(begin=at + 0.01)
        assert set(polled) == {1}

    def test_all_leave_while_a_list_is_read(self) -> None:
        world = World.of(50, page_seconds=5.0)

        async def story(scene: Scene) -> None:
            leaving = scene.watch_all(range(1, 51), 10.0)
            await scene.until(2.0)
            for caller in leaving:
                caller.leave()
            await asyncio.sleep(0)
            assert not scene.poller._polled
            late = scene.watch_all(range(1, 51, 10), 10.0)
            world.runs[11].ends = 30.0
            await scene.until(60)
            assert all(caller.states for caller in late)

        assert len(play(world, story).delays()) == 1

    @pytest.mark.parametrize("pause", [0.0, 0.02, 1.0, 100.0])
    def test_poller_serves_new_callers_after_the_last_left(self, pause: float) -> None:
        world = World.of([ModelRun(run_id, ends=205.0) for run_id in range(1, 31)])

        async def story(scene: Scene) -> None:
            leaving = scene.watch_all(period=10.0)
            await scene.until(31.0)
            for caller in leaving:
                caller.leave()
            await asyncio.sleep(pause)
            coming = scene.watch_all(period=10.0)
            await scene.over(coming, within=220)

        scene = play(world, story)
        assert all(caller.run is None for caller in scene.callers[:30])
        assert max(scene.delays()) <= 12.0

    def test_callers_that_left_delay_no_other(self) -> None:
        world = World.of(2001, failures=[FORBIDDEN_LIST])

        async def story(scene: Scene) -> None:
            for caller in scene.watch_all(range(1, 2001), 10.0)[1:]:
                await scene.until(0.5) if caller.run_id == 2 else None
                caller.leave()
            await scene.until(1.0)
            late = scene.watch(2001, 10.0)
            await scene.until(3.0)
            assert late.states

        play(world, story)

    def test_joining_and_leaving_misses_no_end(self) -> None:
        world = World.of([ModelRun(run_id, ends=30.0 + run_id) for run_id in range(1, 201)])

        async def story(scene: Scene) -> None:
            for run_id in range(1, 201):
                scene.watch(run_id, 10.0)
                if run_id % 3 == 0:
                    scene.callers[-2].leave()
                await scene.until(scene.now + 0.7)
            await scene.until(260)

        scene = play(world, story)
        assert len(scene.delays()) == 200 - 66
        assert max(scene.delays()) <= 12.0


class TestCancelRun:
    def test_reaches_the_run_and_its_callers(self) -> None:
        world = World.of(40, failures=[Failure(503, CANCEL, end=51.0)])

        async def story(scene: Scene) -> None:
            callers = scene.watch_all(period=10.0)
            await scene.until(50)
            await scene.poller.cancel(7)
            assert scene.now <= 50 + 25
            await scene.over(callers[6:7], within=STOPPING + 12)
            assert callers[6].run
            assert callers[6].run.state.outcome is Outcome.CANCELED

        play(world, story)


class TestCallbacks:
    @pytest.mark.parametrize("listed", [True, False])
    def test_exception_in_on_change_fails_its_caller_only(self, *, listed: bool) -> None:
        world = World.of(
            [ModelRun(run_id, states=((30.0, "TERMINATING"),), ends=50.0) for run_id in range(1, 31)],
            failures=[] if listed else [FORBIDDEN_LIST],
        )

        def spoil(state: Any) -> None:
            if state.life_cycle_state == "TERMINATING":
                raise ValueError("no log")

        async def story(scene: Scene) -> None:
            scene.watch_all(period=10.0)
            spoilt = scene.watch(7, 10.0, on_change=spoil)
            await scene.until(80)
            assert isinstance(spoilt.error, ValueError)

        scene = play(world, story)
        assert len(scene.delays()) == 30

    @pytest.mark.parametrize("end", [60.0, 90.0], ids=["of a failure", "of recovery"])
    def test_exception_in_warn_fails_its_caller_only(self, end: float) -> None:
        world = World.of(10, failures=[Failure(503, begin=20.0, end=end)])

        def spoil(text: str) -> None:
            if "succeeded again" in text or end == 60.0:
                raise ValueError("no log")

        async def story(scene: Scene) -> None:
            spoilt = scene.watch(3, 10.0, on_warning=spoil)
            scene.watch_all(period=10.0)
            await scene.until(200)
            assert isinstance(spoilt.error, ValueError)

        _, *others = play(world, story).callers
        assert all(caller.error is None and len(caller.warnings) == 2 for caller in others)

    def test_run_in_the_context_of_their_caller(self) -> None:
        world = World.of(30, failures=[Failure(503, begin=20.0, end=50.0)])
        name: contextvars.ContextVar[int] = contextvars.ContextVar("name")
        heard: list[tuple[int, int]] = []

        async def story(scene: Scene) -> None:
            def listen(run_id: int) -> Callable[[object], None]:
                return lambda _: heard.append((run_id, name.get()))

            for run_id in range(1, 31):
                name.set(run_id)
                scene.watch(run_id, 10.0, on_change=listen(run_id), on_warning=listen(run_id))
            name.set(0)
            await scene.until(150)

        play(world, story)
        assert len(heard) == 30 * 3
        assert all(run_id == in_context for run_id, in_context in heard)


class TestBugInPoller:
    @pytest.mark.parametrize("in_use", [False, True])
    @pytest.mark.parametrize("name", METHODS)
    def test_fails_all_callers_but_no_later_ones(self, name: str, *, in_use: bool) -> None:
        # One of the runs is in no list, and polling it fails from 16 s on.
        world = World.of(30, failures=[Failure(503, GET, begin=16.0, run_id=30)], get_seconds=0.3)
        world.runs[30].hidden = True

        async def story(scene: Scene) -> None:
            def broken(*_: object, **__: object) -> None:
                raise ZeroDivisionError

            callers = scene.watch_all(period=10.0)
            await scene.until(15)
            if in_use:
                # As if another caller were cancelling a run.
                scene.poller._users += 1
            with mock.patch.object(scene.poller, name, broken):
                await scene.over(callers, within=60)
            assert all(isinstance(caller.error, ZeroDivisionError) for caller in callers)
            late = scene.watch_all(range(1, 30), 10.0)
            await scene.until(scene.now + 40)
            assert all(caller.states for caller in late)
            for caller in late:
                caller.leave()
            await asyncio.sleep(1)
            if in_use:
                with scene.poller._in_use():
                    scene.poller._users -= 1

        play(world, story)


class TestMetrics:
    def test_values_match_what_happened(self) -> None:
        world = World.of(100, failures=[Failure(503, begin=100.0, end=400.0)])
        world.runs[7].ends = 50.0
        scene = play(world, lambda scene: _watch_for(scene, 600))
        kinds = {(measured.name, measured.kind) for measured in scene.metrics}
        assert kinds == {
            ("watched_runs", "gauge"),
            ("tick_duration", "timing"),
            ("lag", "timing"),
            ("outage_seconds", "gauge"),
            ("foreign_share", "gauge"),
            ("requests", "count"),
        }
        assert {measured.workspace for measured in scene.metrics} == {world.base_url}
        assert {measured.value for measured in scene.metrics if measured.name == "watched_runs"} == {100, 99}
        counted = sum(measured.value for measured in scene.metrics if measured.name == "requests")
        # Requests of the last round may be in flight.
        assert 0 <= len(world.log) - counted <= 3
        outage = [(measured.at, measured.value) for measured in scene.metrics if measured.name == "outage_seconds"]
        assert all(value == 0 for at, value in outage if at < 100 or at > 480)
        assert max(value for _, value in outage) == pytest.approx(300, abs=70)
        # The run that is polled after each list was not due, and so does not count in these metrics.
        names = [measured.name for measured in scene.metrics]
        assert names.count("lag") == names.count("tick_duration") <= names.count("watched_runs")
        for measured in scene.metrics:
            if measured.name in {"tick_duration", "lag"}:
                # Runs that became due during the outage are late by a pause.
                assert 0 <= measured.value <= (70 if 100 <= measured.at <= 480 else 1)

    def test_failing_metrics_lose_no_run_and_warn_once(self, caplog: pytest.LogCaptureFixture) -> None:
        world = World.of([ModelRun(run_id, ends=30.0) for run_id in range(1, 21)])

        def broken(*_: object) -> None:
            raise OSError("no such server")

        async def story(scene: Scene) -> None:
            scene.poller._measure = Meter(broken, "")
            await _watch_for(scene, 60)

        assert len(play(world, story).delays()) == 20
        assert caplog.text.count("reports no further metrics: OSError('no such server')") == 1


class TestEventLoops:
    def test_several_loops_poll_at_the_same_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        connect_clients(monkeypatch, ModelAdapter)
        scenes: dict[int, Scene] = {}

        def triggerer(number: int) -> None:
            world = World.of([ModelRun(run_id, ends=50.0 + number) for run_id in range(1, 41)])
            world.base_url = f"http://loop-{number}.example"

            async def story(loop: virtual_time.VirtualLoop) -> None:
                scene = Scene(world, loop, {})
                scene.watch_all(period=10.0)
                await scene.over(within=100)
                await scene.leave_all()
                scenes[number] = scene

            virtual_time.run(story)

        threads = [threading.Thread(target=triggerer, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert sorted(scenes) == [0, 1, 2]
        for scene in scenes.values():
            scene.check_outcomes()
            assert len(scene.delays()) == 40

    def test_each_loop_shares_its_own_poller(self) -> None:
        world = World.of([ModelRun(1, ends=20.0)])

        async def story(scene: Scene) -> None:
            client = scene.poller.client
            shared = RunPoller.shared(client)
            scene.loop.attend(shared)
            assert RunPoller.shared(client) is shared
            for _ in range(2):
                caller = scene.watch(1, 10.0, poller=shared)
                await scene.over([caller], within=100)
                assert caller.run is not None
            assert RunPoller._shared[asyncio.get_running_loop()] == {}

        for _ in range(2):
            play(world, story)


class TestManyRuns:
    def test_joining_one_by_one_does_not_rescan_all_runs(self) -> None:
        world = World.of(300)
        scans: list[float] = []

        async def story(scene: Scene) -> None:
            def counted(now: float) -> Any:
                scans.append(now)
                return RunPoller._find_due(scene.poller, now)

            with mock.patch.object(scene.poller, "_find_due", counted):
                for run_id in range(1, 301):
                    # Each in iterations of the event loop of its own, as triggers start.
                    scene.watch(run_id, 10.0)
                    for _ in range(3):
                        await asyncio.sleep(0)
                await scene.until(5)

        assert all(caller.states for caller in play(world, story).callers)
        assert len(scans) <= 20

    def test_zero_period_does_not_rescan_all_runs(self) -> None:
        world = World.of(2000)
        scans: list[float] = []

        async def story(scene: Scene) -> None:
            def counted(now: float) -> Any:
                scans.append(now)
                return RunPoller._find_due(scene.poller, now)

            scene.watch_all(range(2, 2001), 10.0)
            scene.watch(1, 0.0)
            await scene.until(20)
            with mock.patch.object(scene.poller, "_find_due", counted):
                await scene.until(25)

        play(world, story)
        # Examining 2000 runs takes about a millisecond.
        assert len(scans) <= 2.5 * 5 / 0.04
