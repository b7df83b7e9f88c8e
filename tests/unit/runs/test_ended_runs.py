"""Which ends a watcher reports, whatever happens between its looks: each end once, none before it, none missed."""

from __future__ import annotations

import asyncio
import itertools
import json
import weakref
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import examples

from airflow_dbjobs.client.models import Run
from airflow_dbjobs.errors import ConfigurationError, NotFound, Unreachable
from airflow_dbjobs.runs import ended_runs
from airflow_dbjobs.runs.ended_runs import PAGE, JobRun, Look, WatchedJob, Watermark, advance, job_run, look_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

JOB = WatchedJob(7, None, None)
BEGIN = 1_800_000_000_000


@dataclass
class World:
    """A job's runs, and a poller that reads them; time passes by `tick`."""

    now: int = BEGIN
    #: Start, and the end or None, of each run.
    runs: dict[int, tuple[int, int | None]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    #: Called before each request.
    before: Callable[[str], None] = lambda _: None

    def __post_init__(self) -> None:
        self.client: Any = SimpleNamespace(
            api_version="2.2", clock=lambda: 0.0, server_time=lambda _: self.now / 1000, list_runs=self.list_runs,
            get_run=self.get_run, get_job=self.get_job, find_job_id=self.find_job_id,
        )  # fmt: skip

    async def call(self, request: Callable[[Any], Any]) -> Any:
        await asyncio.sleep(0)
        return request(self.client)

    def start(self) -> int:
        run_id = next(self.ids)
        self.runs[run_id] = (self.now, None)
        return run_id

    def end(self, run_id: int) -> None:
        self.runs[run_id] = (self.runs[run_id][0], self.now)

    def repair(self, run_id: int) -> None:
        self.runs[run_id] = (self.runs[run_id][0], None)

    def _answer(self, operation: str) -> None:
        self.calls.append(operation)
        self.before(operation)

    def run(self, run_id: int) -> Run:
        start, end = self.runs[run_id]
        state = {"life_cycle_state": "RUNNING"} if end is None else {
            "life_cycle_state": "TERMINATED", "result_state": "SUCCESS",
        }  # fmt: skip
        return Run.from_json({"run_id": run_id, "job_id": 7, "start_time": start, "end_time": end, "state": state})

    def list_runs(self, *, job_id: int, active_only: bool | None, expand_tasks: bool | None, page_size: int) -> Any:
        assert (job_id, expand_tasks, page_size) == (7, None, ended_runs.PAGE)
        # Runs with the same start have no order.
        latest = sorted(self.runs, key=lambda run_id: (self.runs[run_id][0], -run_id), reverse=True)
        found = [run_id for run_id in latest if not active_only or self.runs[run_id][1] is None]
        self._answer("list")
        for number, run_id in enumerate(found):
            if number and not number % page_size:
                self._answer("list")
            if run_id in self.runs:
                yield self.run(run_id)

    def get_run(self, run_id: int) -> Run:
        self._answer("get")
        if run_id not in self.runs:
            raise NotFound("GET runs/get", 404, "RESOURCE_DOES_NOT_EXIST", f"Run {run_id} does not exist.")
        return self.run(run_id)

    def get_job(self, job_id: int) -> object:
        self._answer("job")
        return {"job_id": job_id}

    def find_job_id(self, name: str) -> int:
        self._answer("name")
        if name != "nightly":
            raise ConfigurationError(f"no job named {name}")
        return 7


class Watcher:
    """Looks at the world as the trigger does, and remembers what it has reported."""

    def __init__(self, world: World, *, max_age: float | None = None) -> None:
        self.world, self.max_age = world, max_age
        self.mark: Watermark | None = None
        self.reported: list[tuple[int, int | None]] = []

    def look(self) -> list[int]:
        """Look once; return the runs that are reported."""
        return asyncio.run(self.look_now())

    async def look_now(self) -> list[int]:
        look = await look_at(self.world, JOB, self.mark)  # type: ignore[arg-type] # all that it needs of a poller
        ends, self.mark = advance(self.mark or Watermark(look.now), look, self.max_age)
        self.reported += [(run.run_id, run.end) for run in ends]
        return [run.run_id for run in ends]

    def restart(self) -> None:
        """Continue from what is stored."""
        if self.mark is not None:
            self.mark = Watermark.from_dict(json.loads(json.dumps(self.mark.to_dict())))


@pytest.fixture(autouse=True)
def _readings(monkeypatch) -> None:
    # A dataclass with a comparison cannot be a key.
    World.__hash__ = object.__hash__  # type: ignore[method-assign]
    monkeypatch.setattr(ended_runs, "_readings", weakref.WeakKeyDictionary())


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def watcher(world) -> Watcher:
    return Watcher(world)


class TestEnds:
    def test_are_reported_once_in_their_order(self, world, watcher):
        first, second = world.start(), world.start()
        assert watcher.look() == []
        world.now += 1000
        world.end(second)
        world.now += 1000
        world.end(first)
        assert watcher.look() == [second, first]
        watcher.restart()
        assert watcher.look() == []

    def test_before_the_first_look_are_not_reported(self, world, watcher):
        world.end(world.start())
        world.now += 1
        assert watcher.look() == []
        world.now += 1
        run_id = world.start()
        world.end(run_id)
        assert watcher.look() == [run_id]

    def test_of_a_run_that_starts_and_ends_between_two_looks_and_a_restart_is_reported(self, world, watcher):
        watcher.look()
        world.now += 3_600_000
        run_id = world.start()
        world.now += 1
        world.end(run_id)
        watcher.restart()
        assert watcher.look() == [run_id]

    def test_of_a_run_older_than_all_that_a_look_lists_is_reported(self, world, watcher):
        long_run = world.start()
        world.now += 100_000
        for _ in range(3 * PAGE):
            world.now += 1000
            world.end(world.start())
        world.now += 1
        assert watcher.look() == []
        world.end(long_run)
        assert watcher.look() == [long_run]
        assert watcher.look() == []
        assert world.calls[-1] == "list", "it is not read any more"

    def test_of_a_repaired_run_is_another_end(self, world, watcher):
        watcher.look()
        run_id = world.start()
        world.end(run_id)
        assert watcher.look() == [run_id]
        world.repair(run_id)
        assert watcher.look() == []
        world.now += 1
        world.end(run_id)
        assert watcher.look() == [run_id]

    def test_of_a_repair_between_two_looks_is_reported(self, world, watcher):
        run_id = world.start()
        world.end(run_id)
        world.now += 1
        assert watcher.look() == []
        world.end(run_id)
        assert watcher.look() == [run_id]

    def test_of_a_run_that_an_older_list_shows_active_again_is_not_repeated(self, world, watcher):
        watcher.look()
        run_id = world.start()
        before = world.runs[run_id]
        world.end(run_id)
        after = world.runs[run_id]
        assert watcher.look() == [run_id]
        for stale in (before, after, None, after):
            if stale is None:
                del world.runs[run_id]
            else:
                world.runs[run_id] = stale
            assert watcher.look() == []

    def test_of_an_older_run_that_an_older_list_shows_active_again_is_not_repeated(self, world, watcher):
        for _ in range(2 * PAGE):
            world.start()
        watcher.look()
        world.end(PAGE + 1)
        over = world.runs[PAGE + 1]
        assert watcher.look() == [PAGE + 1]
        world.now += 1
        world.repair(PAGE + 1)
        assert watcher.look() == []
        world.runs[PAGE + 1] = over
        assert watcher.look() == []

    def test_that_are_older_than_max_age_are_left_out_for_good(self, world):
        watcher = Watcher(world, max_age=60)
        old, new = world.start(), world.start()
        watcher.look()
        world.end(old)
        world.now += 60_001
        world.end(new)
        assert watcher.look() == [new]
        watcher.max_age = None
        assert watcher.look() == []

    def test_of_a_thousand_runs_are_reported_once(self, world, watcher):
        watcher.look()
        for _ in range(1000):
            world.now += 10
            world.end(world.start())
        assert watcher.look() == list(range(1, 1001))
        world.now += 100_000
        world.end(world.start())
        assert watcher.look() == [1001]
        world.calls.clear()
        assert watcher.look() == []
        assert world.calls == ["list"]
        assert watcher.mark is not None
        assert len(watcher.mark.ended) < 2 * PAGE

    def test_of_a_deleted_run_is_not_waited_for(self, world, watcher):
        gone = world.start()
        world.now += 100_000
        for _ in range(2 * PAGE):
            world.now += 1000
            world.end(world.start())
        watcher.look()
        del world.runs[gone]
        assert watcher.look() == []
        assert watcher.mark is not None
        assert not watcher.mark.active

    def test_of_many_active_runs_are_found_in_the_list(self, world, watcher):
        for _ in range(5 * PAGE):
            world.now += 1000
            world.start()
        watcher.look()
        world.calls.clear()
        world.end(3)
        assert watcher.look() == [3]
        assert len(world.calls) == 7
        assert world.calls.count("get") == 1, "only of the run that is not in the list of active runs"

    def test_of_an_older_run_are_reported_although_the_job_was_not_found_for_a_while(self, world, watcher, monkeypatch):
        long_run = world.start()
        for _ in range(2 * PAGE):
            world.now += 100_000
            world.end(world.start())
        world.now += 1
        watcher.look()
        world.end(long_run)
        with monkeypatch.context() as renamed:
            renamed.setattr(f"{__name__}.JOB", WatchedJob(None, "another name", None))
            assert watcher.look() == []
        assert watcher.look() == [long_run]

    def test_with_no_time_are_reported_once(self, world, watcher):
        watcher.look()
        run_id = world.start()
        world.runs[run_id] = (world.now, 0)
        assert watcher.look() == [run_id]
        world.end(run_id)
        assert watcher.look() == []

    def test_need_no_job_to_begin_with(self, world, watcher, monkeypatch):
        monkeypatch.setattr(f"{__name__}.JOB", WatchedJob(None, "to be created", None))
        assert watcher.look() == []
        world.now += 1
        run_id = world.start()
        world.end(run_id)
        monkeypatch.setattr(f"{__name__}.JOB", WatchedJob(None, "nightly", None))
        assert watcher.look() == [run_id]


class TestLook:
    def test_is_shared_by_those_who_look_at_the_same_time(self, world):
        watchers = [Watcher(world) for _ in range(50)]
        run_id = world.start()

        async def look_together() -> list[list[int]]:
            return await asyncio.gather(*(watcher.look_now() for watcher in watchers))

        assert asyncio.run(look_together()) == [[]] * 50
        assert world.calls == ["list", "list"], "the latest runs, and the active ones"
        world.end(run_id)
        world.now += 1
        late = Watcher(world)
        watchers.append(late)
        assert asyncio.run(look_together()) == [[run_id]] * 50 + [[]]
        assert world.calls == ["list"] * 5, "the newcomer needs the list of active runs"

    def test_is_not_shared_with_one_that_needs_older_runs(self, world):
        behind, ahead = Watcher(world), Watcher(world)
        behind.look()
        for _ in range(3 * PAGE):
            world.now += 100_000
            world.end(world.start())
        ahead.look()

        async def look_together() -> list[list[int]]:
            return await asyncio.gather(ahead.look_now(), behind.look_now())

        assert asyncio.run(look_together()) == [[], list(range(1, 3 * PAGE + 1))]

    def test_is_not_shared_with_one_that_waits_for_another_run(self, world):
        waiting, other = Watcher(world), Watcher(world)
        run_id = world.start()
        for _ in range(PAGE):
            world.now += 1000
            world.end(world.start())
        world.end(run_id)
        other.mark = Watermark(world.now)
        waiting.mark = Watermark(world.now, frozenset({run_id}))

        async def look_together() -> list[list[int]]:
            return await asyncio.gather(other.look_now(), waiting.look_now())

        assert asyncio.run(look_together()) == [[PAGE + 1], [run_id, PAGE + 1]]

    def test_that_fails_changes_nothing(self, world, watcher):
        watcher.look()
        for _ in range(3 * PAGE):
            world.now += 100_000
            world.end(world.start())

        def fail_at_the_third(_: str) -> None:
            if len(world.calls) == 5:
                raise Unreachable("the second page is lost")

        world.before = fail_at_the_third
        with pytest.raises(Unreachable):
            watcher.look()
        assert watcher.look() == list(range(1, 3 * PAGE + 1))

    def test_says_that_there_is_no_such_job(self, world):
        def look(job: WatchedJob) -> Look:
            return asyncio.run(look_at(world, job, None))

        assert look(WatchedJob(None, "other", None)).problem == "no job named other"
        world.client.api_version = "2.0"
        assert "needs api_version 2.1" in look(WatchedJob(7, None, "load")).problem


class TestTask:
    @staticmethod
    def _seen(task: dict[str, Any] | None, **run: Any) -> JobRun:
        tasks = [] if task is None else [{"task_key": "load", "run_id": 2, **task}]
        active = {"run_id": 1, "job_id": 7, "start_time": 1000, "state": {"life_cycle_state": "RUNNING"}}
        return job_run(Run.from_json({**active, "tasks": tasks, **run}), WatchedJob(7, None, "load"))

    def test_ends_before_its_run(self):
        seen = self._seen(
            {
                "state": {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"},
                "start_time": 2000,
                "end_time": 3000,
            }
        )
        assert seen[:3] == (1, 1000, 3000)
        assert seen.event is not None
        assert (seen.event["run_id"], seen.event["task_key"], seen.event["result"]) == (1, "load", "SUCCESS")
        assert seen.event["end_time"] == "1970-01-01T00:00:03+00:00"

    def test_does_not_end_while_it_may_be_retried(self):
        failed = {"state": {"life_cycle_state": "TERMINATED", "result_state": "FAILED"}, "end_time": 3000}
        assert self._seen({**failed, "max_retries": 2}).end is None
        assert self._seen({**failed, "max_retries": 0}).end == 3000

    def test_that_a_run_lacks_is_no_event(self):
        over = {"state": {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"}, "end_time": 3000}
        seen = self._seen(None, **over)
        assert (seen.end, seen.event) == (3000, None)
        assert self._seen(None).end is None
        assert advance(Watermark(0), Look((seen,), (), 4000, 7), None) == (
            [],
            Watermark(0, frozenset(), {1: (1000, 3000)}),
        )


class TestEvent:
    def test_describes_the_run(self):
        run = Run.from_json(
            {
                "run_id": 5, "job_id": 7, "run_name": "nightly", "start_time": 1000, "end_time": 3500,
                "run_page_url": "https://host/?o=1#job/7/run/5",
                "state": {"life_cycle_state": "INTERNAL_ERROR", "result_state": "FAILED", "state_message": "m" * 5000},
                "job_parameters": [{"name": "day", "default": "d", "value": "1"}, {"name": "n", "default": "1"}],
                "overriding_parameters": {"notebook_params": {"a": "b"}},
            }
        )  # fmt: skip
        assert job_run(run, JOB).event == {
            "run_id": 5, "job_id": 7, "run_name": "nightly", "task_key": None, "result": "FAILED",
            "message": "m" * 1000, "run_page_url": "https://host/jobs/7/runs/5?o=1",
            "start_time": "1970-01-01T00:00:01+00:00",
            "end_time": "1970-01-01T00:00:03.500000+00:00", "job_parameters": {"day": "1", "n": "1"},
            "overriding_parameters": {"notebook_params": {"a": "b"}},
        }  # fmt: skip

    @pytest.mark.parametrize("value", ["x" * 20_000, "\0", "\ud800", float("nan")])
    def test_has_no_parameters_that_are_too_large_or_cannot_be_stored(self, value: object):
        parameters = [{"name": "large", "value": value}]
        state = {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"}
        run = Run.from_json({"run_id": 5, "end_time": 1e30, "state": state, "job_parameters": parameters})
        event = job_run(run, JOB).event
        assert event is not None
        assert (event["job_parameters"], event["overriding_parameters"], event["end_time"]) == (None, {}, None)

    def test_does_not_depend_on_the_form_of_the_parameters(self):
        state = {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"}
        event = job_run(Run.from_json({"run_id": 5, "state": state, "job_parameters": 5}), JOB).event
        assert event is not None
        assert event["job_parameters"] == {}

    @pytest.mark.parametrize(
        ("state", "result"),
        [
            ({"life_cycle_state": "SKIPPED"}, "SKIPPED"),
            ({"life_cycle_state": "INTERNAL_ERROR"}, "FAILED"),
            ({"life_cycle_state": "TERMINATED", "result_state": "TIMED_OUT"}, "TIMEDOUT"),
            ({"life_cycle_state": "TERMINATED", "result_state": "SUCCESS_WITH_FAILURES"}, "SUCCESS_WITH_FAILURES"),
            ({"life_cycle_state": "TERMINATED", "result_state": "MAXIMUM_CONCURRENT_RUNS_REACHED"}, "SKIPPED"),
            ({"life_cycle_state": "TERMINATED", "result_state": "OF_TOMORROW"}, "FAILED"),
        ],
    )
    def test_names_the_result(self, state, result):
        event = job_run(Run.from_json({"run_id": 5, "state": state}), JOB).event
        assert event is not None
        assert event["result"] == result


ACTIONS = ("start", "start", "end", "end", "repair", "quick", "stale", "delete", "look", "look", "restart")
STEPS = st.tuples(st.sampled_from(ACTIONS), st.integers(0, 30), st.sampled_from([0, 0, 1, 1000, 70_000]))


@pytest.mark.parametrize("page", [1, 2, PAGE])
@given(st.lists(STEPS, min_size=10, max_size=80))
@examples(200)
def test_each_end_is_reported_once_whatever_happens(page, story):
    """An end is owed if the run is new, or was active at a look. One of a short repair is owed within a page."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(ended_runs, "PAGE", page)
        monkeypatch.setattr(ended_runs, "_readings", weakref.WeakKeyDictionary())
        tale = Tale(page)
        for action, which, pause in story:
            tale.tell(action, which, pause)


class Tale:
    """What happens to a job, with a watcher that must report all `owed` ends at its next look, and no other twice."""

    def __init__(self, page: int) -> None:
        self.page = page
        self.world = World()
        self.watcher = Watcher(self.world)
        self.owed: set[int] = set()
        #: The ends of runs that the next look will find active, as if its answers were old.
        self.stale: dict[int, int | None] = {}

    def tell(self, action: str, which: int, pause: int) -> None:
        world = self.world
        # A second end of a run comes later than the first.
        world.now += pause or action in {"repair", "quick"}
        ids = sorted(world.runs.keys() - self.stale.keys())
        if action == "start":
            run_id = world.start()
            self.owed |= {run_id} if self.watcher.mark else set()
        elif action == "restart":
            self.watcher.restart()
        elif action == "look":
            self.look()
        elif ids:
            run_id = ids[which % len(ids)]
            (self.befall if world.runs[run_id][1] else self.end)(run_id, action)

    def end(self, run_id: int, action: str) -> None:
        if action == "end":
            self.world.end(run_id)

    def befall(self, run_id: int, action: str) -> None:
        """Let something happen to a run that has ended."""
        world = self.world
        if action == "repair":
            world.repair(run_id)
        elif action == "quick":
            world.end(run_id)
            self.owed |= {run_id} if self.watcher.mark and len(world.runs) < self.page else set()
        elif action == "stale" and (world.runs[run_id][1] or 0) >= world.now - 60_000:
            self.stale[run_id] = world.runs[run_id][1]
            world.repair(run_id)
        elif action == "delete":
            del world.runs[run_id]
            self.owed.discard(run_id)

    def look(self) -> None:
        world, watcher = self.world, self.watcher
        earlier = list(watcher.reported)
        reported = watcher.look()
        news = watcher.reported[len(earlier) :]
        assert not set(earlier) & set(news), "an end is reported twice"
        assert news == [(run_id, world.runs[run_id][1]) for run_id in reported], "an end that is none"
        assert news == sorted(set(news), key=lambda end: (end[1], end[0]))
        ended = {run_id for run_id, (_, end) in world.runs.items() if end is not None}
        assert self.owed & ended <= set(reported), "an end is missed"
        self.owed = self.owed - ended | (world.runs.keys() - ended - self.stale.keys())
        for run_id, end in self.stale.items():
            world.runs[run_id] = (world.runs[run_id][0], end)
        self.stale.clear()
