"""poller: what holds whatever the runs, the server's quirks and those who wait do; made up by hypothesis.

(a) No end is told before ``runs/get`` said so, and none that is not the run's (`Scene.check_outcomes`).
(b) Whoever waits for a run that ends is told within a bound (`Story.bound`), and nobody waits for ever.
(c) Nobody is told an error but of a run that was deleted.
(d) Who is warned that a run cannot be asked for is told when it can be again.
(e) The rate is kept.
(f) Where nothing fails, all costs no more than a quarter on top of asking for each run by itself.
(g) No task and no thread is left behind (`play`).
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st
from listing_model import LIST, Failure, ModelRun, World
from made_up import REPEATABLE
from poller_scene import Scene, play

from airflow_dbjobs.client.retry import LONGEST_BACKOFF
from airflow_dbjobs.errors import RunLost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from poller_scene import Watching

PAUSE = 1.1 * LONGEST_BACKOFF
# What is sent without a token of its own moment: requests that had theirs while the gate was closed.
IN_FLIGHT = 21
# Requests for single runs at a time, and the ways to ask for a list.
CONCURRENCY = 5
MOST_FORMS = 8
# Who waits for a run that goes on does so until then, at least.
LAST = 160.0


@dataclass(frozen=True)
class Waiting:
    """Somebody who waits for the `index`-th run from `joins` on, and leaves after some seconds, or does not."""

    index: int
    joins: float
    period: float
    stays: float = math.inf


@dataclass
class Story:
    """Runs, a server, and those who wait."""

    runs: Sequence[ModelRun]
    waits: Sequence[Waiting]
    quirks: dict[str, Any] = field(default_factory=dict)
    failures: Sequence[Failure] = ()
    rate: float = 100.0

    def bound(self, waiting: Waiting) -> float:
        """Return the seconds within which an end is told, from the end or from the joining on.

        A period and its jitter; twice the time that a list is given; a turn in the queue. A list that goes on showing
        the run costs the lag, or as many periods as there are runs; a failure costs its time, the pauses that it
        brought about, and all of this again.
        """
        world = World(**self.quirks)
        count = len(self.runs)
        turn = (count + 2) / self.rate + (count / CONCURRENCY + 1) * world.get_seconds + 1.0
        pages = (count + world.foreign) / min(world.largest_page, 20) + MOST_FORMS
        walk = min(max(10.0, 2 * turn), 2 * pages * world.page_seconds)
        whole = 1.12 * waiting.period + 2 * walk + turn
        bound = whole + world.lag
        if world.frozen_at < math.inf or any(run.zombie for run in self.runs):
            bound += count * (whole + 1.12 * max(other.period for other in self.waits))
        if world.most_per_second < math.inf:
            bound += 5 * PAUSE
        for failure in self.failures:
            hangs = 3 * 60.0 if failure.hang else 0.0
            bound += failure.end - failure.begin + hangs + 2 * PAUSE + whole
        return bound

    async def tell(self, scene: Scene) -> list[tuple[Waiting, Watching]]:
        """Let everybody wait until they are told, or the time is past in which they had to be.

        Those whose run goes on wait for all others: a poller with few runs needs no list.
        """
        told: list[tuple[Waiting, Watching]] = []
        waiting_for_an_end = sum(self.is_to_end(waiting) for waiting in self.waits)
        all_ends_are_told = asyncio.Event()

        async def wait(waiting: Waiting) -> None:
            nonlocal waiting_for_an_end
            await scene.until(waiting.joins)
            run = self.runs[waiting.index]
            watching = scene.watch(run.run_id, waiting.period)
            told.append((waiting, watching))
            assert watching.task
            if self.is_to_end(waiting):
                latest = max(scene.now, run.ends) + self.bound(waiting)
                await asyncio.wait([watching.task], timeout=latest - scene.now)
                assert watching.task.done(), f"{run} is not known at {scene.now}"
                waiting_for_an_end -= 1
            elif waiting.stays < math.inf:
                await asyncio.wait([watching.task], timeout=waiting.stays)
            else:
                await asyncio.wait([watching.task], timeout=max(LAST - scene.now, self.bound(waiting)))
                await all_ends_are_told.wait()
                assert watching.states or watching.error, f"nothing is known of {run} at {scene.now}"
            if not waiting_for_an_end:
                all_ends_are_told.set()
            watching.leave()
            await asyncio.wait([watching.task])

        if not waiting_for_an_end:
            all_ends_are_told.set()
        async with asyncio.TaskGroup() as group:
            for waiting in self.waits:
                group.create_task(wait(waiting))
        return told

    def is_to_end(self, waiting: Waiting) -> bool:
        """Whether somebody waits until a run ends."""
        return waiting.stays == math.inf and self.runs[waiting.index].ends < math.inf


def judge(story: Story) -> None:
    world = World.of(story.runs, failures=list(story.failures), **story.quirks)
    told: list[tuple[Waiting, Watching]] = []

    async def tell(scene: Scene) -> None:
        told.extend(await story.tell(scene))

    play(world, tell, rate=story.rate)
    for waiting, watching in told:
        run = world.runs[watching.run_id]
        if watching.error:
            assert isinstance(watching.error, RunLost), repr(watching.error)
            assert run.deleted < watching.ended
        elif watching.run is not None:
            assert watching.ended - max(watching.joined, run.ends) <= story.bound(waiting)
        texts = ["cannot" in text for _, text in watching.warnings]
        assert texts == [index % 2 == 0 for index in range(len(texts))], watching.warnings
        if watching.run is not None:
            assert len(texts) % 2 == 0
        assert all(state.life_cycle_state in _lives(run) for _, state in watching.states)
        assert not any(state.is_terminal and at < run.ends for at, state in watching.states)
    if not story.failures and world.most_per_second == math.inf:
        singly = sum((seen.ended - seen.joined) / (0.9 * waiting.period) + 2 for waiting, seen in told)
        assert len(world.log) <= 1.25 * singly + 3 * MOST_FORMS
    burst = max(1.0, story.rate)
    assert world.most_within(1.0) <= story.rate + burst + IN_FLIGHT
    assert world.most_within(30.0) <= 30 * story.rate + burst + IN_FLIGHT


def _lives(run: ModelRun) -> set[str]:
    return {"RUNNING", "TERMINATED", run.listed_as, *(life for _, life in run.states)}


TIMES = st.sampled_from([0.0, 0.3, 5.0, 10.0, 19.9, 31.0, 47.0, 80.0, 120.0])


def crowd(size: int) -> list[ModelRun]:
    """Return runs of which every third ends, one after the other: enough of them for a list to be worth it."""
    return [
        ModelRun(run_id, ends=20.0 + 4.3 * (run_id % 20) if run_id % 3 == 0 else math.inf)
        for run_id in range(101, 101 + size)
    ]


@st.composite
def runs(draw: st.DrawFn) -> list[ModelRun]:
    made = []
    for run_id in range(1, draw(st.integers(1, 14)) + 1):
        ends = draw(st.sampled_from([math.inf, 0.0, 3.0, 12.0, 12.2, 33.3, 60.0, 61.0, 115.0]))
        states = draw(st.sampled_from([(), ((-1.0, "QUEUED"), (20.0, "RUNNING")), ((-1.0, "PENDING"), (5.0, "NEW"))]))
        kind = draw(st.sampled_from(["", "", "", "hidden", "zombie", "deleted", "listed as"]))
        made.append(
            ModelRun(
                run_id,
                ends=ends,
                states=states,
                result=draw(st.sampled_from(["SUCCESS", "FAILED", "CANCELED"])),
                hidden=kind == "hidden",
                zombie=kind == "zombie",
                listed_as=draw(st.sampled_from(["TERMINATED", "TERMINATED", "PENDING"])) if kind == "listed as" else "",
                deleted=draw(st.sampled_from([0.0, 45.0, 130.0])) if kind == "deleted" else math.inf,
            )
        )
    return made


WAITS = st.lists(
    st.builds(
        Waiting,
        index=st.integers(0, 13),
        joins=TIMES,
        period=st.sampled_from([5.0, 10.0, 10.0, 30.0, 60.0]),
        stays=st.sampled_from([math.inf, math.inf, math.inf, 0.0, 0.02, 7.0, 40.0]),
    ),
    min_size=1,
    max_size=24,
)
# A few of them at a time: all together leave no list that can be read.
QUIRKS = st.lists(
    st.sampled_from(
        [
            *(("largest_page", size) for size in (3, 5, 25)),
            ("over_limit", "refused"),
            *(("zero", zero) for zero in ("refused", "default")),
            ("serves_2_0", False),
            *(("page_seconds", seconds) for seconds in (0.5, 3.0, 15.0, 200.0)),
            *(("get_seconds", seconds) for seconds in (0.5, 2.0)),
            *(("lag", seconds) for seconds in (3.0, 30.0, 100.0)),
            *(("frozen_at", at) for at in (-1.0, 15.0, 50.0)),
            ("same_page", True),
            ("empty_pages", True),
            ("shows_queued", False),
            *(("foreign", count) for count in (4, 60)),
            *(("foreign_place", place) for place in ("after", "among")),
            *(("most_per_second", count) for count in (2, 5)),
            *(("retry_after", seconds) for seconds in ("3", "30")),
        ]
    ),
    max_size=3,
).map(dict)


@st.composite
def failures(draw: st.DrawFn) -> list[Failure]:
    made = []
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        begin = draw(TIMES)
        made.append(
            Failure(
                status=draw(st.sampled_from([503, 500, 0, 401, 403, 429, 302, 404])),
                operation=draw(st.sampled_from(["", LIST, "runs/get"])),
                begin=begin,
                end=begin + draw(st.sampled_from([0.2, 4.0, 25.0, 200.0])),
                run_id=draw(st.sampled_from([None, None, 1])),
                headers=draw(st.sampled_from([{}, {"Retry-After": "20", "Location": "/login"}])),
                hang=draw(st.sampled_from([0.0, 0.0, 20.0, 100.0])),
            )
        )
    return made


def with_crowd(size: int, period: float, runs: list[ModelRun], waits: list[Waiting], **options: Any) -> Story:
    """Return a story in which, where there is a crowd, somebody waits for each run from the beginning on."""
    # Who waits for the `index`-th of few waits for one of those.
    all_runs = [*runs, *crowd(size)]
    few = [replace(waiting, index=waiting.index % len(runs)) for waiting in waits]
    others = [Waiting(index, 0.0, period) for index in range(len(all_runs))] if size else []
    return Story(all_runs, [*others, *few], **options)


@settings(REPEATABLE, max_examples=60)
@given(
    story=st.builds(
        with_crowd,
        size=st.sampled_from([0, 20, 40]),
        period=st.sampled_from([10.0, 20.0]),
        runs=runs(),
        waits=WAITS,
        quirks=QUIRKS,
        failures=failures(),
        rate=st.sampled_from([100.0, 100.0, 5.0, 0.5]),
    )
)
def test_whatever_happens_each_end_is_told_in_time_and_none_that_is_not_there(story: Story) -> None:
    judge(story)
