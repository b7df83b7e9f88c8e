"""Callers that wait for a condition, next to others that wait for the same run or job; in virtual time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from listing_model import GET, ModelRun, World
from poller_scene import Scene, play

from airflow_dbjobs.client.models import RunState
from airflow_dbjobs.client.wait import Watch
from airflow_dbjobs.runs.conditions import RunCondition
from airflow_dbjobs.runs.polling.polled import PolledRun

if TYPE_CHECKING:
    from airflow_dbjobs.runs.conditions import CheckResult


async def check(scene: Scene, run_id: int, state: str, period: float = 10.0) -> CheckResult:
    """Wait until a run is in a state, or can no longer be."""
    watch = Watch(run_id, period, scene.poller.client.patience, scene.loop.time)
    condition = RunCondition(chosen=run_id, states=(state,))
    result = await scene.poller.check(condition, watch, lambda result: None if result.verdict is None else result)
    assert result is not None
    return result


class TestCheck:
    def test_begun_while_the_end_of_its_run_is_read_from_a_list_is_made(self) -> None:
        world = World.of([ModelRun(run_id, ends=60.0) for run_id in range(1, 201)], page_seconds=2.0)

        async def story(scene: Scene) -> None:
            scene.watch_all(period=10.0)
            while not any("completed_only" in request.query for request in world.log):
                await scene.until(scene.now + 0.1)
            async with asyncio.timeout(20):
                result = await check(scene, 7, "TERMINATED")
            assert result.verdict
            await scene.over(within=20)

        assert len(play(world, story).delays()) == 200

    def test_ignores_an_answer_to_an_earlier_request(self) -> None:
        # Each answer takes two seconds. The run is repaired while the first one is on its way.
        world = World.of([ModelRun(1, states=((0.0, "QUEUED"), (1.0, "RUNNING")))], get_seconds=2.0)

        async def story(scene: Scene) -> None:
            first = asyncio.ensure_future(check(scene, 1, "QUEUED"))
            await scene.until(1.5)
            second = asyncio.ensure_future(check(scene, 1, "QUEUED"))
            assert (await first).verdict
            await scene.until(6.0)
            assert not second.done()
            assert world.count(GET) == 2
            second.cancel()

        play(world, story)


class TestPolledRun:
    def test_found_by_a_later_list_is_expected_in_the_next(self) -> None:
        polled = PolledRun(1, 0.0)
        polled.is_missing = True
        polled.record_listed(1.0)
        polled.record_polled(RunState("RUNNING"), 2.0, 300.0)
        assert polled.is_listable(2.0)


class TestCall:
    def test_many_calls_delay_no_poll(self) -> None:
        world = World.of(1)

        async def story(scene: Scene) -> None:
            calls = [asyncio.ensure_future(scene.poller.call(lambda client: client.poll_run(1))) for _ in range(100)]
            await scene.until(1.0)
            caller = scene.watch(1)
            await scene.until(4.0)
            assert caller.states
            assert sum(call.done() for call in calls) >= 15
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)

        play(world, story, rate=5.0)


class TestForeignShare:
    def test_counts_runs_that_are_polled_one_by_one_as_its_own(self) -> None:
        world = World.of(60)

        async def story(scene: Scene) -> None:
            checks = [asyncio.ensure_future(check(scene, run_id, "QUEUED")) for run_id in range(1, 41)]
            scene.watch_all(range(41, 61))
            await scene.until(35.0)
            shares = [measured.value for measured in scene.metrics if measured.name == "foreign_share"]
            assert shares
            assert set(shares) == {0.0}
            assert scene.poller._gate.weight == 1.0
            for task in checks:
                task.cancel()
            await asyncio.wait(checks)

        play(world, story)
