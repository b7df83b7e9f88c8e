"""Ticks of the simulated mode check only the runs that are due."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from airflow_dbjobs.local_workspace import LocalWorkspace

from .conftest import Clock, mounted
from .support import TOKEN, Client, settle, simulated_task, state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def client(simulated: LocalWorkspace) -> Client:
    return mounted(simulated)


class TestTick:
    def test_does_not_check_idle_runs(
        self, simulated: LocalWorkspace, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        simulated.create_runs(50, seconds=100)
        (soon,) = simulated.create_runs(1, seconds=5)
        settle(simulated)
        checked: list[int] = []
        poll = simulated._executor.poll
        monkeypatch.setattr(simulated._executor, "poll", lambda task: (checked.append(task.parent_id), poll(task))[1])
        clock.now += 5
        settle(simulated)
        assert set(checked) == {soon}
        assert state(mounted(simulated), soon) == ("TERMINATED", "SUCCESS")

    def test_failed_tick_is_repeated(
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

    def test_checking_only_due_runs_misses_nothing(self, tmp_path: Path, clock: Clock) -> None:
        twins = []
        for name in ("due_only", "all_runs"):
            folder = tmp_path / name / ".airflow_dbjobs"
            folder.mkdir(0o700, parents=True)
            (folder / "page-key").write_text("same-in-both")
            twins.append(LocalWorkspace(tmp_path / name, token=TOKEN, clock=clock, simulate=3))
        due_only, all_runs = twins
        clients = [mounted(ws) for ws in twins]

        def both(operation: str, **fields: Any) -> dict[str, Any]:
            first, second = (client.post(operation, **fields) for client in clients)
            assert first == second
            return first

        requests = _requests(both)
        for step in range(60):
            next(requests, None)
            clock.now += 0.5
            for _ in range(3):
                due_only.tick()
                all_runs._store.mark_all_changed()
                all_runs.tick()
            first, second = (client.get("runs/list", expand_tasks=True, limit=25) for client in clients)
            assert first == second, f"after step {step}"
        assert {run["status"]["state"] for run in first["runs"]} == {"TERMINATED"}
        assert len(first["runs"]) >= 12
        for ws in twins:
            ws.close()


def _requests(post: Callable[..., dict[str, Any]]) -> Iterator[None]:
    """Send requests, some per step, that cover all reasons for which a run must be checked.

    Most runs also have a distant timeout: a time at which they are due that is not the next one.
    """
    job_id = post("create", queue={"enabled": True}, timeout_seconds=500, **simulated_task(2))["job_id"]
    queued = [post("run-now", job_id=job_id)["run_id"] for _ in range(3)]
    yield
    retried = {**simulated_task(1, "FAILED"), "max_retries": 2, "min_retry_interval_millis": 2500}
    tasks = [{"task_key": "a", **retried}, {"task_key": "b", **simulated_task(4), "timeout_seconds": 2}]
    post("runs/submit", tasks=tasks, timeout_seconds=500)
    yield
    tasks = [{"task_key": "job", "run_job_task": {"job_id": job_id}}, {"task_key": "other", **simulated_task(1)}]
    tasks.append({"task_key": "last", "depends_on": [{"task_key": "job"}, {"task_key": "other"}], **simulated_task(1)})
    parent = post("runs/submit", tasks=tasks, timeout_seconds=500)["run_id"]
    doomed = post("runs/submit", tasks=tasks, timeout_seconds=5)["run_id"]
    assert parent < doomed
    yield
    post("runs/cancel", run_id=queued[1])
    long = post("runs/submit", timeout_seconds=500, **simulated_task(1000))["run_id"]
    longer = post("runs/submit", timeout_seconds=6, **simulated_task(1000))["run_id"]
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
