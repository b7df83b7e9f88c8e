"""The trigger of an asset watcher: its arguments, its events, what it survives, and what it leaves to the next one."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow_context import FAST, connect, launch_endless, rebuilt, until

from airflow_dbjobs.airflow_compat import AIRFLOW_V_3_0_PLUS
from airflow_dbjobs.client.transport import Transport
from airflow_dbjobs.client.wait import wait_for_run
from airflow_dbjobs.errors import ConfigurationError
from airflow_dbjobs.local_workspace import Fault
from airflow_dbjobs.triggers import DatabricksJobRunTrigger, job_run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

needs_airflow_3 = pytest.mark.skipif(not AIRFLOW_V_3_0_PLUS, reason="Airflow 3 introduced asset watchers")

TASK = {"task_key": "load", "condition_task": {"op": "EQUAL_TO", "left": "1", "right": "1"}}
PARAMETERS = [{"name": "day", "default": "today"}, {"name": "size", "default": "small"}]


@pytest.fixture(autouse=True)
def _fast(workspace, monkeypatch):
    connect(monkeypatch, workspace.base_url, workspace.token)
    monkeypatch.setattr(job_run, "_LEAST_POLL_INTERVAL", 0.0)
    monkeypatch.setattr(job_run, "PASSING_ON_SECONDS", 0.01)
    monkeypatch.setattr(job_run, "STORE_WAIT_SECONDS", 0.01)


@pytest.fixture
def job_id(client) -> int:
    return client.create_job({"name": "nightly", "tasks": [TASK], "parameters": PARAMETERS})


@pytest.fixture
def run(client, job_id) -> Callable[..., int]:
    """Return what runs the job until it is over, and returns the run."""

    def run_to_the_end(**fields: Any) -> int:
        run_id = client.run_now({"job_id": job_id, **fields})
        return wait_for_run(client, run_id, period=FAST).run_id

    return run_to_the_end


def watching(**arguments: Any) -> DatabricksJobRunTrigger:
    """Return a trigger as the triggerer gets it."""
    return rebuilt(DatabricksJobRunTrigger(**{"poll_interval": FAST, "job_name": "nightly", **arguments}))


class Watched:
    """Runs a trigger, and keeps the payloads of its events as they come out of the database."""

    def __init__(self, trigger: Any) -> None:
        self.trigger = trigger
        self.payloads: list[dict[str, Any]] = []
        self.at_event: Callable[[], object] = lambda: None

    async def __aenter__(self) -> Watched:
        self.task = asyncio.ensure_future(self._collect(self.trigger.run()))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert not self.task.done(), "a trigger that ends is begun again every second"
        self.task.cancel()
        await asyncio.wait([self.task])

    async def _collect(self, events: AsyncIterator[Any]) -> None:
        async for event in events:
            self.payloads.append(json.loads(json.dumps(event.payload)))
            self.at_event()

    @property
    def run_ids(self) -> list[int]:
        return [payload["run_id"] for payload in self.payloads]

    async def looked(self, times: int = 1) -> None:
        """Wait until it has looked so many times, the first time in any case."""
        marks: list[Any] = []

        def has_looked() -> bool:
            if (mark := self.trigger._mark) is not None and not any(mark is known for known in marks):
                marks.append(mark)
            return len(marks) > times

        await until(has_looked)

    async def reported(self, *run_ids: int) -> None:
        """Wait until these ends are reported, and see that no other is, nor one of them again."""
        await until(lambda: len(self.run_ids) >= len(run_ids))
        await self.looked(2)
        assert sorted(self.run_ids) == sorted(run_ids)


class Store:
    """The store of an asset in Airflow 3.3, in place of the API. `calls` are what was done with it."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.calls: list[str] = []
        self.is_down = False

    def of(self, trigger: Any) -> Any:
        """Give the store to a trigger, as Airflow does."""
        trigger.asset_state_store = SimpleNamespace(_by_name={"the asset": self}, _by_uri={})
        return trigger

    def get(self, key: str) -> Any:
        self._call("get")
        return json.loads(self.values[key]) if key in self.values else None

    def set(self, key: str, value: Any) -> None:
        self._call("set")
        self.values[key] = json.dumps(value)

    def _call(self, what: str) -> None:
        self.calls.append(what)
        if self.is_down:
            raise ConnectionError("the store is down")


def play(scene: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(60):
            await scene()

    asyncio.run(limited())


@needs_airflow_3
class TestArguments:
    def test_rebuild_the_trigger_without_secrets(self, workspace):
        trigger = DatabricksJobRunTrigger(
            job_name="nightly", task_key="load", results="success, timed_out", max_age=None
        )
        path, kwargs = trigger.serialize()
        assert path == "airflow_dbjobs.triggers.DatabricksJobRunTrigger"
        assert kwargs == {
            "databricks_conn_id": "databricks_default", "job_id": None, "job_name": "nightly", "task_key": "load",
            "results": ["SUCCESS", "TIMEDOUT"], "poll_interval": 30.0, "max_age": None,
        }  # fmt: skip
        assert rebuilt(trigger).serialize() == trigger.serialize()
        assert workspace.token not in json.dumps(kwargs)

    def test_of_equal_watchers_look_equal_to_airflow(self):
        from airflow.triggers.base import BaseEventTrigger

        watchers = [
            DatabricksJobRunTrigger(job_id=7, results=["FAILED", "SUCCESS"], poll_interval="60", max_age=3600),
            DatabricksJobRunTrigger(
                job_id="7", results=("SUCCESS", "FAILED", "SUCCESS"), poll_interval=60.0, max_age=timedelta(hours=1)
            ),
        ]
        assert all(isinstance(watcher, BaseEventTrigger) for watcher in watchers)
        first, second = (BaseEventTrigger.hash(*watcher.serialize()) for watcher in watchers)
        assert first == second

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({}, "either a job_id or a job_name"),
            ({"job_id": 1, "job_name": "nightly"}, "either a job_id or a job_name"),
            ({"job_id": "{{ var.value.job }}"}, "renders no templates"),
            ({"job_name": "{{ params.job }}"}, "renders no templates"),
            ({"job_name": ""}, "a text that is not empty"),
            ({"job_id": 1, "task_key": 5}, "task_key is 5"),
            ({"job_id": 1, "results": ["SUCESS"]}, r"results is \['SUCESS'\]; it must be None, or some of SUCCESS"),
            ({"job_id": 1, "results": []}, "results is"),
            ({"job_id": 1, "results": 5}, "results is 5; it must be None"),
            ({"job_id": 0}, "job_id is 0; it must be a number"),
            ({"job_id": "-5"}, "job_id is '-5'"),
            ({"job_id": 2**63}, "job_id is 9223372036854775808"),
            ({"job_id": 1, "poll_interval": -1}, "poll_interval is -1"),
            ({"job_id": 1, "max_age": "1 day"}, "max_age is '1 day'"),
        ],
    )
    def test_with_a_mistake_are_an_error_that_a_triggerer_survives(self, arguments, message):
        with pytest.raises(ConfigurationError, match=message) as raised:
            DatabricksJobRunTrigger(**arguments)
        assert isinstance(raised.value, TypeError)


@pytest.mark.skipif(AIRFLOW_V_3_0_PLUS, reason="Airflow 3 has asset watchers")
def test_airflow_2_has_no_watchers():
    with pytest.raises(ConfigurationError, match=r"needs Airflow 3, and this is 2\.11.*DatabricksRunSensor"):
        DatabricksJobRunTrigger(job_name="nightly")


@needs_airflow_3
class TestEvents:
    def test_tell_which_run_has_ended_how_and_with_which_parameters(self, job_id, run):
        async def scene() -> None:
            async with Watched(watching()) as watched:
                await watched.looked()
                run_id = await asyncio.to_thread(run, job_parameters={"day": "2026-01-01"})
                await watched.reported(run_id)
                (payload,) = watched.payloads
                assert payload["start_time"] <= payload["end_time"]
                assert f"/jobs/{job_id}/runs/{run_id}?" in payload["run_page_url"]
                assert payload | {"run_page_url": "", "start_time": "", "end_time": ""} == {
                    "run_id": run_id, "job_id": job_id, "run_name": "nightly", "task_key": None, "result": "SUCCESS",
                    "message": "", "run_page_url": "", "start_time": "", "end_time": "",
                    "job_parameters": {"day": "2026-01-01", "size": "small"}, "overriding_parameters": {},
                }  # fmt: skip

        play(scene)

    def test_are_of_the_results_that_count(self, client):
        run_id = launch_endless(client)
        job_id = client.get_run(run_id).job_id

        async def scene() -> None:
            async with (
                Watched(watching(job_name=None, job_id=job_id)) as successes,
                Watched(watching(job_name=None, job_id=job_id, results=["CANCELED"])) as cancelled,
                Watched(watching(job_name=None, job_id=job_id, results=None)) as all_ends,
            ):
                await asyncio.gather(*(watched.looked() for watched in (successes, cancelled, all_ends)))
                await asyncio.to_thread(client.cancel_run, run_id)
                await cancelled.reported(run_id)
                await all_ends.reported(run_id)
                await successes.reported()
                assert all_ends.payloads[0]["result"] == "CANCELED"

        play(scene)

    def test_are_of_one_task(self, job_id, run, capfd):
        async def scene() -> None:
            async with (
                Watched(watching(task_key="load")) as watched,
                Watched(watching(task_key="other")) as other,
            ):
                await asyncio.gather(watched.looked(), other.looked())
                run_id = await asyncio.to_thread(run)
                await watched.reported(run_id)
                await other.reported()
                assert watched.payloads[0]["task_key"] == "load"

        play(scene)
        out = capfd.readouterr().out
        assert out.count("has no task 'other' (keys are case-sensitive)") == 1

    def test_are_of_a_job_that_is_created_later(self, client, workspace, capfd):
        async def scene() -> None:
            async with Watched(watching()) as watched:
                await until(lambda: workspace.requests["list"] > 3)
                job_id = await asyncio.to_thread(client.create_job, {"name": "nightly", "tasks": [TASK]})
                run_id = await asyncio.to_thread(client.run_now, {"job_id": job_id})
                await watched.reported(run_id)

        play(scene)
        out = capfd.readouterr().out
        assert out.count("Cannot watch job 'nightly' yet; will retry: job_name='nightly'") == 1
        assert out.count("Watching job 'nightly' works again") == 1

    def test_of_many_watchers_take_the_requests_of_one(self, workspace, job_id, run):
        async def scene() -> None:
            watchers = [Watched(watching(results=None if number % 2 else ["SUCCESS"])) for number in range(40)]
            for watched in watchers:
                await watched.__aenter__()
            await asyncio.gather(*(watched.looked() for watched in watchers))
            run_id = await asyncio.to_thread(run)
            await asyncio.gather(*(watched.reported(run_id) for watched in watchers))
            # They begin together, as those of a triggerer do that has just started.
            before, mark = workspace.requests["runs/list"], watchers[0].trigger._mark
            await until(lambda: watchers[0].trigger._mark is not mark)
            assert workspace.requests["runs/list"] - before <= 4
            for watched in watchers:
                await watched.__aexit__()

        play(scene)


@needs_airflow_3
class TestTrouble:
    @pytest.mark.parametrize(
        "fault",
        [
            {"status": 503, "body": {"error_code": "TEMPORARILY_UNAVAILABLE", "message": "busy"}},
            {"status": 403, "body": {"error_code": "PERMISSION_DENIED", "message": "not yours"}},
            {"status": 200, "body": {"runs": "none"}},
            {"cut": "after"},
        ],
    )
    def test_of_the_api_is_waited_out_and_logged_once(self, workspace, run, capfd, fault):
        async def scene() -> None:
            async with Watched(watching()) as watched:
                await watched.looked()
                workspace.faults.append(Fault("runs/list", times=5, **fault))
                run_id = await asyncio.to_thread(run)
                await watched.reported(run_id)

        play(scene)
        out = capfd.readouterr().out
        assert out.count("Looking at job 'nightly' failed; will retry") == 1
        assert out.count("Watching job 'nightly' works again") == 1

    def test_of_the_credentials_ends_with_new_ones(self, workspace, run, monkeypatch):
        async def scene() -> None:
            async with Watched(watching()) as watched:
                await watched.looked()
                connect(monkeypatch, workspace.base_url, "rotated")
                old, workspace.token = workspace.token, "rotated"
                refused = workspace.requests["runs/list"]
                await until(lambda: workspace.requests["runs/list"] > refused + 2)
                workspace.token = old
                run_id = await asyncio.to_thread(run)
                workspace.token = "rotated"
                await watched.reported(run_id)

        play(scene)

    def test_of_the_connection_is_waited_out(self, workspace, job_id, monkeypatch, capfd):
        monkeypatch.delenv("AIRFLOW_CONN_DATABRICKS_DEFAULT")

        async def scene() -> None:
            async with Watched(watching()) as watched:
                await until(lambda: watched.trigger._problems.get("look"))
                connect(monkeypatch, workspace.base_url, workspace.token)
                await watched.looked()

        play(scene)
        assert "Looking at job 'nightly' failed; will retry" in capfd.readouterr().out

    def test_with_what_is_no_error_of_ours_does_not_end_it(self, run, monkeypatch):
        from airflow_dbjobs.runs import ended_runs

        look_at, failures = ended_runs.look_at, iter([MemoryError("no memory"), ZeroDivisionError()])

        async def failing(*arguments: Any) -> Any:
            for failure in failures:
                raise failure
            return await look_at(*arguments)

        async def scene() -> None:
            async with Watched(watching()) as watched:
                await watched.looked()
                monkeypatch.setattr(ended_runs, "look_at", failing)
                run_id = await asyncio.to_thread(run)
                await watched.reported(run_id)

        play(scene)


@needs_airflow_3
class TestStore:
    def test_lets_the_next_trigger_continue(self, run, monkeypatch):
        store = Store()
        server_time = Transport.server_time

        async def scene() -> None:
            async with Watched(store.of(watching())) as watched:
                await watched.looked()
                first = await asyncio.to_thread(run)
                await watched.reported(first)
                await until(lambda: watched.trigger._stored == watched.trigger._mark)
            meanwhile = [await asyncio.to_thread(run) for _ in range(3)]
            # So late that a trigger which begins now would report none of them.
            monkeypatch.setattr(Transport, "server_time", lambda transport, at: server_time(transport, at) + 3600)
            async with Watched(store.of(watching(poll_interval=2 * FAST))) as watched:
                await watched.reported(*meanwhile)
                assert watched.run_ids == meanwhile
            # Other results are another watcher, which begins now.
            async with Watched(store.of(watching(results=["FAILED"]))) as watched:
                await watched.looked()
            assert len(store.values) == 2

        play(scene)

    def test_is_written_only_when_airflow_has_the_events(self, run):
        store = Store()

        async def scene() -> None:
            async with Watched(store.of(watching())) as watched:
                await until(lambda: store.calls == ["get", "set"])
                watched.at_event = lambda: store.calls.append("event")
                run_id = await asyncio.to_thread(run)
                await watched.reported(run_id)
                await until(lambda: watched.trigger._stored == watched.trigger._mark)

        play(scene)
        after = store.calls[store.calls.index("event") :]
        assert after == ["event", "get", "get", "set"]

    def test_that_cannot_be_read_is_waited_for(self, job_id, run, workspace, capfd):
        store = Store()
        store.is_down = True

        async def scene() -> None:
            async with Watched(store.of(watching())) as watched:
                await until(lambda: len(store.calls) > 3)
                assert not workspace.requests["runs/list"], "what was seen is not known"
                store.is_down = False
                await watched.looked()

        play(scene)
        assert capfd.readouterr().out.count("Reading what was seen of job 'nightly' failed") == 1

    def test_that_cannot_be_written_is_written_later(self, run, capfd):
        store = Store()

        async def scene() -> None:
            async with Watched(store.of(watching())) as watched:
                await until(lambda: watched.trigger._stored)
                store.is_down = True
                run_id = await asyncio.to_thread(run)
                await watched.reported(run_id)
                await until(lambda: store.calls.count("set") > 1 or len(store.calls) > 6)
                store.is_down = False
                await until(lambda: watched.trigger._stored == watched.trigger._mark)

        play(scene)
        assert capfd.readouterr().out.count("Storing what was seen of job 'nightly' failed") == 1

    def test_of_each_asset_is_written_and_the_newest_is_read(self, run):
        old, new = Store(), Store()

        async def scene() -> None:
            trigger = watching()
            async with Watched(old.of(trigger)) as watched:
                await until(lambda: watched.trigger._stored)
            key, value = next(iter(old.values.items()))
            run()
            trigger = watching()
            trigger.asset_state_store = SimpleNamespace(_by_name={"old": old, "new": new}, _by_uri={})
            async with Watched(trigger) as watched:
                await until(lambda: key in new.values and watched.trigger._stored == watched.trigger._mark)
                assert len(watched.run_ids) == 1
            assert old.values == new.values
            # The server's time has whole seconds.
            plain = json.loads(value)
            old.values[key] = json.dumps({**plain, "as_of": plain["as_of"] - 1000})
            trigger = watching()
            trigger.asset_state_store = SimpleNamespace(_by_name={"old": old}, _by_uri={"new": new})
            async with Watched(trigger) as watched:
                await watched.looked(2)
                assert not watched.run_ids

        play(scene)
