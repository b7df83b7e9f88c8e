"""The poller's guarantees for any runs, quirks of the server and callers; hypothesis generates them.

(a) No end is reported before the API returned it, and none that is not the run's (`Scene.check_outcomes`).
(b) Each caller learns the end of its run within a bound (`Story.bound`), and none waits forever.
(c) No caller gets an error, unless its run was deleted.
(d) A caller that was warned that polling fails is informed when it works again.
(e) The rate limit holds.
(f) Without failures, the cost is at most a quarter above that of polling each run by itself.
(g) No task and no thread is left behind (`play`).
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st
from listing_model import LIST, Failure, ModelRun, World
from made_up import examples
from poller_scene import Scene, play

from airflow_dbjobs.client.retry import LONGEST_BACKOFF
from airflow_dbjobs.errors import RunLost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from poller_scene import Caller

PAUSE = 1.1 * LONGEST_BACKOFF
# Requests that took their token earlier, while the gate was paused.
IN_FLIGHT = 21
# Simultaneous polls, and the forms of list requests.
CONCURRENCY = 5
MOST_FORMS = 4
# The least time for which callers wait for a run that does not end.
LAST = 160.0


@dataclass(frozen=True)
class Waiting:
    """A caller that waits for the `index`-th run from `joins` on, and leaves after `stays` seconds."""

    index: int
    joins: float
    period: float
    stays: float = math.inf


@dataclass
class Story:
    """Runs, a server, and callers that wait for the runs."""

    runs: Sequence[ModelRun]
    waits: Sequence[Waiting]
    quirks: dict[str, Any] = field(default_factory=dict)
    failures: Sequence[Failure] = ()
    rate: float = 100.0

    def bound(self, waiting: Waiting) -> float:
        """Return the seconds within which an end is reported, from the end or from the joining on.

        A period and its jitter, twice the time allowed for a list, and a turn in the queue. A list that keeps showing
        the run adds its lag, or as many periods as there are runs. A failure adds its duration, the pauses that it
        caused, and all of the above again.
        """
        world = World(**self.quirks)
        count = len(self.runs)
        turn = (count + 2) / self.rate + (count / CONCURRENCY + 1) * world.get_seconds + 1.0
        pages = (count + world.foreign) / min(world.largest_page, 20) + MOST_FORMS
        reading = min(max(10.0, 2 * turn), 2 * pages * world.page_seconds)
        whole = 1.12 * waiting.period + 2 * reading + turn
        bound = whole + world.lag
        if world.frozen_at < math.inf or any(run.zombie for run in self.runs):
            bound += count * (whole + 1.12 * max(other.period for other in self.waits))
        if world.most_per_second < math.inf:
            bound += 5 * PAUSE
        for failure in self.failures:
            hangs = 3 * 60.0 if failure.hang else 0.0
            bound += failure.end - failure.begin + hangs + 2 * PAUSE + whole
        return bound

    async def run(self, scene: Scene) -> list[tuple[Waiting, Caller]]:
        """Let all callers wait until they learn the end of their run, or its bound has passed.

        Callers of runs that do not end wait for all others, because a poller with few runs needs no list.
        """
        outcomes: list[tuple[Waiting, Caller]] = []
        waiting_for_an_end = sum(self.is_to_end(waiting) for waiting in self.waits)
        all_ends_are_known = asyncio.Event()

        async def wait(waiting: Waiting) -> None:
            nonlocal waiting_for_an_end
            await scene.until(waiting.joins)
            run = self.runs[waiting.index]
            caller = scene.watch(run.run_id, waiting.period)
            outcomes.append((waiting, caller))
            assert caller.task
            if self.is_to_end(waiting):
                latest = max(scene.now, run.ends) + self.bound(waiting)
                await asyncio.wait([caller.task], timeout=latest - scene.now)
                assert caller.task.done(), f"{run} is not known at {scene.now}"
                waiting_for_an_end -= 1
            elif waiting.stays < math.inf:
                await asyncio.wait([caller.task], timeout=waiting.stays)
            else:
                await asyncio.wait([caller.task], timeout=max(LAST - scene.now, self.bound(waiting)))
                await all_ends_are_known.wait()
                assert caller.states or caller.error, f"nothing is known of {run} at {scene.now}"
            if not waiting_for_an_end:
                all_ends_are_known.set()
            caller.leave()
            await asyncio.wait([caller.task])

        if not waiting_for_an_end:
            all_ends_are_known.set()
        async with asyncio.TaskGroup() as group:
            for waiting in self.waits:
                group.create_task(wait(waiting))
        return outcomes

    def is_to_end(self, waiting: Waiting) -> bool:
        """Return whether a caller stays until its run ends."""
        return waiting.stays == math.inf and self.runs[waiting.index].ends < math.inf


def judge(story: Story) -> None:
    world = World.of(story.runs, failures=list(story.failures), **story.quirks)
    outcomes: list[tuple[Waiting, Caller]] = []

    async def run(scene: Scene) -> None:
        outcomes.extend(await story.run(scene))

    play(world, run, rate=story.rate)
    for waiting, caller in outcomes:
        run = world.runs[caller.run_id]
        if caller.error:
            assert isinstance(caller.error, RunLost), repr(caller.error)
            assert run.deleted < caller.ended
        elif caller.run is not None:
            assert caller.ended - max(caller.joined, run.ends) <= story.bound(waiting)
        texts = ["will retry" in text for _, text in caller.warnings]
        assert texts == [index % 2 == 0 for index in range(len(texts))], caller.warnings
        if caller.run is not None:
            assert len(texts) % 2 == 0
        assert all(state.life_cycle_state in _lives(run) for _, state in caller.states)
        assert not any(state.is_terminal and at < run.ends for at, state in caller.states)
    if not story.failures and world.most_per_second == math.inf:
        singly = sum((seen.ended - seen.joined) / (0.9 * waiting.period) + 2 for waiting, seen in outcomes)
        assert len(world.log) <= 1.25 * singly + 3 * MOST_FORMS
    burst = max(1.0, story.rate)
    assert world.most_within(1.0) <= story.rate + burst + IN_FLIGHT
    assert world.most_within(30.0) <= 30 * story.rate + burst + IN_FLIGHT


def _lives(run: ModelRun) -> set[str]:
    return {"RUNNING", "TERMINATED", run.listed_as, *(life for _, life in run.states)}


TIMES = st.sampled_from([0.0, 0.3, 5.0, 10.0, 19.9, 31.0, 47.0, 80.0, 120.0])


def crowd(size: int) -> list[ModelRun]:
    """Return runs of which every third ends, one after the other: enough to make a list worth its cost."""
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
# At most three at a time, since all together leave no readable list.
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
    """Return a story in which, if there is a crowd, one caller waits for each run from the beginning."""
    # `index` of these callers refers to the few runs.
    all_runs = [*runs, *crowd(size)]
    few = [replace(waiting, index=waiting.index % len(runs)) for waiting in waits]
    others = [Waiting(index, 0.0, period) for index in range(len(all_runs))] if size else []
    return Story(all_runs, [*others, *few], **options)


class TestAnyWorkspace:
    @examples(60)
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
    def test_true_ends_are_reported_in_time(self, story: Story) -> None:
        judge(story)
