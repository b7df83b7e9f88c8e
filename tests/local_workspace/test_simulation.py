"""The simulated mode: tasks that only take time, many of them at once, and ticks that look only at what is due."""

from __future__ import annotations

import itertools
import json
import math
import sqlite3
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from airflow_dbjobs.local_workspace import LocalWorkspace
from airflow_dbjobs.local_workspace.state.folder import WorkspaceError

from .conftest import Clock, mounted
from .support import TOKEN, Client, results

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = 10
NOTEBOOK = {"notebook_task": {"notebook_path": "/no/such/notebook"}}

Pass = Callable[[float], None]


def taking(seconds: float, result: str = "SUCCESS") -> dict[str, Any]:
    """Return the payload of a task that takes so long and ends so."""
    parameters = {"simulated_seconds": seconds, "simulated_result": result}
    return {"notebook_task": {"notebook_path": "/any", "base_parameters": parameters}}


@pytest.fixture
def simulated(root: Path, clock: Clock) -> Iterator[LocalWorkspace]:
    """Return a workspace that runs nothing, and in which nothing happens until a test calls `tick`."""
    ws = LocalWorkspace(root, token=TOKEN, clock=clock, simulate=SECONDS)
    yield ws
    ws.close()


@pytest.fixture
def client(simulated: LocalWorkspace) -> Client:
    return mounted(simulated)


@pytest.fixture
def pass_(simulated: LocalWorkspace, clock: Clock) -> Pass:
    """Return a function that lets seconds pass and everything happen that is due then."""

    def pass_(seconds: float) -> None:
        clock.now += seconds
        settle(simulated)

    return pass_


def settle(ws: LocalWorkspace) -> None:
    # What a tick stops has ended by the next one; a run_job task learns of it one later.
    for _ in range(3):
        ws.tick()


def state(client: Client, run_id: int) -> tuple[str, str | None]:
    shown = client.get("runs/get", run_id=run_id)["state"]
    return shown["life_cycle_state"], shown.get("result_state")


class TestTasks:
    @pytest.mark.parametrize(
        "task",
        [
            NOTEBOOK,
            {"spark_python_task": {"python_file": "/no/such/file.py", "parameters": ["a"]}},
            {"spark_jar_task": {"main_class_name": "com.example.Main", "parameters": ["a"]}},
            {"sql_task": {"warehouse_id": "w", "query": {"query_id": "q"}, "parameters": {"day": "mon"}}},
            {"python_wheel_task": {"package_name": "p", "entry_point": "e"}},
            {"some_future_task": {}},
        ],
    )
    def test_a_task_of_any_type_takes_its_time_and_succeeds(
        self, client: Client, root: Path, pass_: Pass, task: dict
    ) -> None:
        run_id = client.submit(**task)
        pass_(0)
        assert state(client, run_id) == ("RUNNING", None)
        pass_(SECONDS - 0.001)
        assert state(client, run_id) == ("RUNNING", None)
        pass_(0.001)
        assert state(client, run_id) == ("TERMINATED", "SUCCESS")
        run = client.get("runs/get", run_id=run_id)
        assert run["execution_duration"] == SECONDS * 1000
        assert "error" not in client.output(run)
        assert not (root / ".airflow_dbjobs" / "runs").exists()
        assert client.session.get(run["run_page_url"]).status_code == 200
        client.post("runs/delete", run_id=run_id)
        assert client.get("runs/list") == {}

    def test_as_many_as_there_are_go_on_at_once(self, client: Client, pass_: Pass) -> None:
        ids = [client.submit(**NOTEBOOK) for _ in range(100)]
        pass_(0)
        assert {state(client, run_id) for run_id in ids} == {("RUNNING", None)}
        pass_(SECONDS)
        assert {state(client, run_id) for run_id in ids} == {("TERMINATED", "SUCCESS")}

    def test_its_parameters_say_how_it_ends(self, client: Client, pass_: Pass) -> None:
        run_id = client.submit(**taking(2.5, "FAILED"))
        pass_(0)
        pass_(2.499)
        assert state(client, run_id) == ("RUNNING", None)
        pass_(0.001)
        assert state(client, run_id) == ("TERMINATED", "FAILED")
        output = client.output(client.get("runs/get", run_id=run_id))
        assert output["error"] == "This task was simulated, with the result FAILED."

    @pytest.mark.parametrize(
        ("task", "override", "seconds"),
        [
            (taking(5), {}, 5),
            (taking(5), {"notebook_params": {"simulated_seconds": "1"}}, 1),
            (taking(5), {"job_parameters": {"simulated_seconds": "1"}}, 1),
            ({"sql_task": {"warehouse_id": "w", "parameters": {"simulated_seconds": 5}}}, {}, 5),
            ({"sql_task": {"warehouse_id": "w"}}, {"sql_params": {"simulated_seconds": "1"}}, 1),
            ({"python_wheel_task": {"named_parameters": {"simulated_seconds": "5"}}}, {}, 5),
            ({"python_wheel_task": {}}, {"python_named_params": {"simulated_seconds": "1"}}, 1),
            # Neither a list of arguments nor what is meant for notebooks names parameters of a jar.
            (
                {"spark_jar_task": {"parameters": ["simulated_seconds=5"]}},
                {"notebook_params": {"simulated_seconds": "1"}},
                SECONDS,
            ),
        ],
    )
    def test_parameters_of_a_run_go_before_those_of_a_task(
        self, client: Client, pass_: Pass, task: dict, override: dict, seconds: float
    ) -> None:
        job_id = client.post("create", **task)["job_id"]
        run_id = client.post("run-now", job_id=job_id, **override)["run_id"]
        pass_(0)
        pass_(seconds - 0.001)
        assert state(client, run_id) == ("RUNNING", None)
        pass_(0.001)
        assert state(client, run_id) == ("TERMINATED", "SUCCESS")

    @pytest.mark.parametrize("seconds", ["soon", "-1", "nan", "inf", "1e9"])
    def test_seconds_that_make_no_sense_end_the_task(self, client: Client, pass_: Pass, seconds: str) -> None:
        run_id = client.submit(notebook_task={"notebook_path": "/a", "base_parameters": {"simulated_seconds": seconds}})
        pass_(0)
        shown = client.get("runs/get", run_id=run_id)
        assert shown["state"]["life_cycle_state"] == "INTERNAL_ERROR"
        assert (
            f"'simulated_seconds' must be a number from 0 to 31536000, not '{seconds}'"
            in (shown["state"]["state_message"])
        )
        assert shown["status"]["termination_details"]["code"] == "INVALID_RUN_CONFIGURATION"

    def test_a_result_that_makes_no_sense_ends_the_task(self, client: Client, pass_: Pass) -> None:
        run_id = client.submit(**taking(1, "MAYBE"))
        pass_(0)
        message = client.get("runs/get", run_id=run_id)["state"]["state_message"]
        assert message == "Parameter 'simulated_result' must be SUCCESS or FAILED, not 'MAYBE'."


class TestAsInTheNormalMode:
    def test_cancelling(self, client: Client, simulated: LocalWorkspace, pass_: Pass) -> None:
        run_id, other = client.submit(**NOTEBOOK), client.submit(**NOTEBOOK)
        tasks = [{"task_key": "a", **NOTEBOOK}, {"task_key": "b", **NOTEBOOK, "depends_on": [{"task_key": "a"}]}]
        graph = client.submit(tasks=tasks)
        pass_(1)
        client.post("runs/cancel", run_id=run_id)
        client.post("runs/cancel", run_id=client.get("runs/get", run_id=graph)["tasks"][0]["run_id"])
        simulated.tick()
        assert state(client, run_id) == ("TERMINATING", None)
        pass_(0)
        assert state(client, run_id) == ("TERMINATED", "CANCELED")
        assert results(client.get("runs/get", run_id=graph)) == {"a": "CANCELED", "b": "UPSTREAM_CANCELED"}
        assert state(client, other) == ("RUNNING", None)

    def test_timeouts_of_tasks_and_runs(self, client: Client, pass_: Pass) -> None:
        task = client.submit(tasks=[{"task_key": "a", "timeout_seconds": 3, **NOTEBOOK}])
        run = client.submit(timeout_seconds=4, **NOTEBOOK)
        pass_(0)
        pass_(2.9)
        assert state(client, task) == ("RUNNING", None)
        pass_(0.1)
        assert results(client.get("runs/get", run_id=task)) == {"a": "TIMEDOUT"}
        assert state(client, run) == ("RUNNING", None)
        pass_(1)
        assert state(client, run) == ("TERMINATED", "TIMEDOUT")

    def test_retries_wait_and_take_their_time_again(self, client: Client, pass_: Pass) -> None:
        retry = {"max_retries": 1, "min_retry_interval_millis": 5000}
        run_id = client.submit(tasks=[{"task_key": "a", **taking(2, "FAILED"), **retry}])
        pass_(0)
        pass_(2)
        assert client.get("runs/get", run_id=run_id)["tasks"][1]["state"]["life_cycle_state"] == "WAITING_FOR_RETRY"
        pass_(3)
        assert client.get("runs/get", run_id=run_id)["tasks"][1]["state"]["life_cycle_state"] == "RUNNING"
        pass_(2)
        assert state(client, run_id) == ("INTERNAL_ERROR", "FAILED")

    def test_conditions_and_run_job_tasks(self, client: Client, pass_: Pass) -> None:
        inner = client.post("create", **taking(3, "FAILED"))["job_id"]
        condition = {"op": "EQUAL_TO", "left": "1", "right": "2"}
        yes, no = ({"task_key": "check", "outcome": outcome} for outcome in ("true", "false"))
        run_id = client.submit(
            tasks=[
                {"task_key": "check", "condition_task": condition},
                {"task_key": "yes", "depends_on": [yes], **NOTEBOOK},
                {"task_key": "job", "depends_on": [no], "run_job_task": {"job_id": inner}},
                {"task_key": "after", "depends_on": [{"task_key": "job"}], "run_if": "ALL_DONE", **taking(1)},
            ]
        )
        pass_(0)
        pass_(2.9)
        assert results(client.get("runs/get", run_id=run_id)) == {
            "check": "SUCCESS",
            "yes": "EXCLUDED",
            "job": "",
            "after": "",
        }
        pass_(0.1)
        pass_(1)
        shown = client.get("runs/get", run_id=run_id)
        assert results(shown) == {"check": "SUCCESS", "yes": "EXCLUDED", "job": "FAILED", "after": "SUCCESS"}
        assert shown["state"]["result_state"] == "SUCCESS_WITH_FAILURES"

    def test_a_queue_is_left_in_the_order_of_arrival(self, client: Client, pass_: Pass) -> None:
        job_id = client.post("create", queue={"enabled": True}, **NOTEBOOK)["job_id"]
        ids = [client.post("run-now", job_id=job_id)["run_id"] for _ in range(3)]
        pass_(0)
        assert [client.life(run_id) for run_id in ids] == ["RUNNING", "QUEUED", "QUEUED"]
        pass_(SECONDS)
        assert [client.life(run_id) for run_id in ids] == ["TERMINATED", "RUNNING", "QUEUED"]

    def test_a_repair_takes_its_time_again(self, client: Client, pass_: Pass) -> None:
        job_id = client.post("create", tasks=[{"task_key": "a", **NOTEBOOK}])["job_id"]
        run_id = client.post("run-now", job_id=job_id, notebook_params={"simulated_result": "FAILED"})["run_id"]
        pass_(0)
        pass_(SECONDS)
        assert state(client, run_id) == ("INTERNAL_ERROR", "FAILED")
        client.post("runs/repair", run_id=run_id, rerun_all_failed_tasks=True)
        pass_(0)
        assert state(client, run_id) == ("RUNNING", None)
        pass_(SECONDS)
        assert state(client, run_id) == ("TERMINATED", "SUCCESS")


class TestRestarts:
    def test_a_run_ends_when_it_would_have_ended(self, root: Path, clock: Clock) -> None:
        first = LocalWorkspace(root, token=TOKEN, clock=clock, simulate=SECONDS)
        run_id = mounted(first).submit(**taking(20, "FAILED"))
        settle(first)
        first.close()
        clock.now += 19.9
        # How long tasks take from now on is no matter of those that have started.
        second = LocalWorkspace(root, token=TOKEN, clock=clock, simulate=1)
        settle(second)
        assert state(mounted(second), run_id) == ("RUNNING", None)
        clock.now += 0.1
        settle(second)
        assert state(mounted(second), run_id) == ("TERMINATED", "FAILED")
        second.close()

    def test_what_was_simulated_is_never_run(self, root: Path, clock: Clock, write) -> None:
        write("file.py", "open('proof', 'w').close()")
        first = LocalWorkspace(root, token=TOKEN, clock=clock, simulate=SECONDS)
        run_id = mounted(first).submit(spark_python_task={"python_file": "/file.py"})
        settle(first)
        first.close()
        second = LocalWorkspace(root, token=TOKEN, clock=clock)
        settle(second)
        assert state(mounted(second), run_id) == ("INTERNAL_ERROR", "FAILED")
        second.close()
        assert not (root / "proof").exists()

    def test_what_was_run_is_not_taken_for_simulated(
        self, root: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = LocalWorkspace(root, token=TOKEN, clock=clock)
        monkeypatch.setattr(first._executor, "start", lambda *_: None)
        run_id = mounted(first).submit(**NOTEBOOK)
        first.tick()
        assert state(mounted(first), run_id) == ("RUNNING", None)
        first.close()
        second = LocalWorkspace(root, token=TOKEN, clock=clock, simulate=SECONDS)
        settle(second)
        assert state(mounted(second), run_id) == ("INTERNAL_ERROR", "FAILED")
        second.close()


class TestManyAtOnce:
    def test_they_are_under_way_at_once_and_end_as_asked(self, client: Client, clock: Clock, pass_: Pass) -> None:
        ids = client.post("/api/local/runs", count=30, seconds=4, result="FAILED")["run_ids"]
        assert len(set(ids)) == 30
        assert {state(client, run_id) for run_id in ids} == {("RUNNING", None)}
        pass_(3.9)
        assert {state(client, run_id) for run_id in ids} == {("RUNNING", None)}
        pass_(0.1)
        assert {state(client, run_id) for run_id in ids} == {("TERMINATED", "FAILED")}
        assert client.get("runs/get", run_id=ids[0])["end_time"] == round(clock.now * 1000)

    def test_they_take_what_the_workspace_says_if_nothing_is_said(self, client: Client, pass_: Pass) -> None:
        (run_id,) = client.post("/api/local/runs", count=1)["run_ids"]
        pass_(SECONDS - 0.1)
        assert state(client, run_id) == ("RUNNING", None)
        pass_(0.1)
        assert state(client, run_id) == ("TERMINATED", "SUCCESS")

    def test_an_entry_of_a_list_is_as_large_as_a_real_one(self, client: Client) -> None:
        client.post("/api/local/runs", count=3, seconds=4)
        for entry in client.get("runs/list", version="2.0")["runs"]:
            assert entry["cluster_spec"]["new_cluster"]["spark_version"]
            assert 1200 < len(json.dumps(entry)) < 1800

    @pytest.mark.parametrize(
        ("body", "name"),
        [
            ({}, "count"),
            *[({"count": count}, "count") for count in (0, -1, 100_001, "3", 1.5, True, [1])],
            *[({"count": 1, "seconds": seconds}, "seconds") for seconds in (-1, "3", True, 1e9)],
            *[({"count": 1, "result": result}, "result") for result in ("CANCELED", 1)],
            ({"count": 1, "second": 1}, "second"),
        ],
    )
    def test_a_bad_field_is_named(self, client: Client, body: dict, name: str) -> None:
        response = client.send("POST", "/api/local/runs", data=json.dumps(body))
        assert response.status_code == 400
        assert f"'{name}'" in response.json()["message"]
        assert client.get("runs/list") == {}

    def test_they_end_in_one_instant(
        self, client: Client, simulated: LocalWorkspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ids = simulated.create_runs(20, seconds=100)
        # One that has not started yet ends as well.
        ids.append(client.submit(**NOTEBOOK))
        times = itertools.count(simulated._clock() + 1, 0.001)
        monkeypatch.setattr(simulated, "_clock", lambda: next(times))
        end_time = client.post("/api/local/end-runs", run_ids=ids[10:], result="FAILED")["end_time"]
        shown = [client.get("runs/get", run_id=run_id) for run_id in ids]
        assert {run["end_time"] for run in shown[10:]} == {end_time}
        assert {run["state"]["result_state"] for run in shown[10:]} == {"FAILED"}
        assert {run["state"]["life_cycle_state"] for run in shown[:10]} == {"RUNNING"}
        assert simulated.end_runs(ids[:10]) > end_time
        assert {state(client, run_id) for run_id in ids[:10]} == {("TERMINATED", "SUCCESS")}

    def test_an_end_that_is_refused_ends_nothing(self, client: Client, simulated: LocalWorkspace, pass_: Pass) -> None:
        ended, good = simulated.create_runs(2, seconds=50)
        simulated.end_runs([ended])
        tasks = [{"task_key": "a", **NOTEBOOK}, {"task_key": "b", **NOTEBOOK, "depends_on": [{"task_key": "a"}]}]
        graph = client.submit(tasks=tasks)
        pass_(0)
        for run_ids, result, message in (
            ([good, 7], "SUCCESS", "Run 7 does not exist."),
            ([good, ended], "SUCCESS", f"Run {ended} has already ended."),
            ([good, good], "SUCCESS", f"Run {good} has already ended."),
            ([good, graph], "SUCCESS", f"Run {graph} cannot end now"),
            ([good], "CANCELED", "'result'"),
            (good, "SUCCESS", "'run_ids'"),
            ([str(good)], "SUCCESS", "'run_ids'"),
        ):
            error = client.refused("POST", "/api/local/end-runs", {"run_ids": run_ids, "result": result})
            assert message in error["message"]
            assert state(client, good) == ("RUNNING", None)
        assert results(client.get("runs/get", run_id=graph)) == {"a": "", "b": ""}
        pass_(50)
        assert state(client, good) == ("TERMINATED", "SUCCESS")

    def test_a_workspace_that_runs_tasks_refuses(self, stepped: LocalWorkspace) -> None:
        for path, body in (("runs", {"count": 1}), ("runs", {}), ("end-runs", {"run_ids": []})):
            error = mounted(stepped).refused("POST", f"/api/local/{path}", body)
            assert "--simulate" in error["message"]

    def test_it_takes_the_token(self, simulated: LocalWorkspace) -> None:
        stranger = mounted(simulated)
        stranger.session.headers["Authorization"] = "Bearer guessed"
        assert stranger.send("POST", "/api/local/runs", json={"count": 1}).status_code == 403


class TestPages:
    @pytest.mark.parametrize(("max_page", "old", "new"), [(7, 7, 7), (30, 30, 25)])
    def test_none_is_larger_than_allowed(self, root: Path, clock: Clock, max_page: int, old: int, new: int) -> None:
        ws = LocalWorkspace(root, token=TOKEN, clock=clock, simulate=SECONDS, max_page=max_page)
        client = mounted(ws)
        ids = ws.create_runs(40)
        for version, largest in (("2.0", old), ("2.1", new), ("2.2", new)):
            for limit in (0, largest):
                shown = client.get("runs/list", limit=limit, version=version)["runs"]
                assert [run["run_id"] for run in shown] == ids[::-1][:largest]
            error = client.refused("GET", "runs/list", {"limit": largest + 1}, version=version)
            assert f"between 0 and {largest}" in error["message"]
            assert len(client.get("runs/list", version=version)["runs"]) == min(20, largest)
        ws.close()

    def test_all_runs_are_found_page_by_page_in_both_directions(
        self, client: Client, simulated: LocalWorkspace, pass_: Pass
    ) -> None:
        ids = simulated.create_runs(60, seconds=100)
        simulated.end_runs(ids[::2])
        pages = [client.get("runs/list", limit=7, active_only=True)]
        while token := pages[-1].get("next_page_token"):
            pages.append(client.get("runs/list", limit=7, active_only=True, page_token=token))
        assert [run["run_id"] for page in pages for run in page["runs"]] == ids[::-1][::2]
        back = client.get("runs/list", limit=7, active_only=True, page_token=pages[2]["prev_page_token"])
        assert back["runs"] == pages[1]["runs"]


@pytest.mark.parametrize("options", [{"simulate": -1}, {"simulate": math.nan}, {"simulate": 1e9}, {"max_page": 0}])
def test_options_out_of_range_are_refused(root: Path, options: dict) -> None:
    with pytest.raises(WorkspaceError, match=r"simulate must be|max_page must be"):
        LocalWorkspace(root, token=TOKEN, **options)
    LocalWorkspace(root, token=TOKEN).close()


class TestTicks:
    def test_a_run_to_which_nothing_happens_is_not_looked_at(
        self, simulated: LocalWorkspace, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        simulated.create_runs(50, seconds=100)
        (soon,) = simulated.create_runs(1, seconds=5)
        settle(simulated)
        looked_at: list[int] = []
        poll = simulated._executor.poll
        monkeypatch.setattr(simulated._executor, "poll", lambda task: (looked_at.append(task.parent_id), poll(task))[1])
        clock.now += 5
        settle(simulated)
        assert set(looked_at) == {soon}
        assert state(mounted(simulated), soon) == ("TERMINATED", "SUCCESS")

    def test_a_tick_that_fails_is_made_up_for(
        self, client: Client, simulated: LocalWorkspace, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ids = simulated.create_runs(3, seconds=5)
        settle(simulated)
        clock.now += 5

        def fail(*_: object) -> None:
            raise sqlite3.OperationalError

        for owner, name in ((simulated._runner, "_take_steps"), (simulated._store, "commit")):
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, fail)
                with pytest.raises(sqlite3.OperationalError):
                    simulated.tick()
        settle(simulated)
        assert {state(client, run_id) for run_id in ids} == {("TERMINATED", "SUCCESS")}

    def test_looking_only_at_what_is_due_misses_nothing(self, tmp_path: Path, clock: Clock) -> None:
        twins = []
        for name in ("thrifty", "thorough"):
            state = tmp_path / name / ".airflow_dbjobs"
            state.mkdir(0o700, parents=True)
            (state / "page-key").write_text("the same in both")
            twins.append(LocalWorkspace(tmp_path / name, token=TOKEN, clock=clock, simulate=3))
        thrifty, thorough = twins
        clients = [mounted(ws) for ws in twins]

        def both(operation: str, **fields: Any) -> dict[str, Any]:
            first, second = (client.post(operation, **fields) for client in clients)
            assert first == second
            return first

        play = _story(both)
        for step in range(60):
            next(play, None)
            clock.now += 0.5
            for _ in range(3):
                thrifty.tick()
                thorough._store.mark_all_changed()
                thorough.tick()
            first, second = (client.get("runs/list", expand_tasks=True, limit=25) for client in clients)
            assert first == second, f"after step {step}"
        assert {run["status"]["state"] for run in first["runs"]} == {"TERMINATED"}
        assert len(first["runs"]) >= 12
        for ws in twins:
            ws.close()


def _story(post: Callable[..., dict[str, Any]]) -> Iterator[None]:
    """Make requests, some at a time, that bring about all reasons for which a run has to be looked at.

    Most runs have a distant timeout too: a time at which to look at them, which is not the next one.
    """
    job_id = post("create", queue={"enabled": True}, timeout_seconds=500, **taking(2))["job_id"]
    queued = [post("run-now", job_id=job_id)["run_id"] for _ in range(3)]
    yield
    retried = {**taking(1, "FAILED"), "max_retries": 2, "min_retry_interval_millis": 2500}
    tasks = [{"task_key": "a", **retried}, {"task_key": "b", **taking(4), "timeout_seconds": 2}]
    post("runs/submit", tasks=tasks, timeout_seconds=500)
    yield
    tasks = [{"task_key": "job", "run_job_task": {"job_id": job_id}}, {"task_key": "other", **taking(1)}]
    tasks.append({"task_key": "last", "depends_on": [{"task_key": "job"}, {"task_key": "other"}], **taking(1)})
    parent = post("runs/submit", tasks=tasks, timeout_seconds=500)["run_id"]
    doomed = post("runs/submit", tasks=tasks, timeout_seconds=5)["run_id"]
    assert parent < doomed
    yield
    post("runs/cancel", run_id=queued[1])
    long = post("runs/submit", timeout_seconds=500, **taking(1000))["run_id"]
    longer = post("runs/submit", timeout_seconds=6, **taking(1000))["run_id"]
    assert long < longer
    yield
    post("/api/local/runs", count=2, seconds=7)
    failed = post("/api/local/runs", count=1, seconds=100)["run_ids"]
    yield
    post("/api/local/end-runs", run_ids=failed, result="FAILED")
    yield
    post("runs/repair", run_id=failed[0], rerun_all_failed_tasks=True)
    yield
    post("runs/cancel", run_id=failed[0])
    yield
    post("runs/cancel", run_id=long)
