"""Parts of a run, as members of a workflow group use them: clusters, cancelling one task, repairing some."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from .conftest import Advance, mounted
from .support import SIMULATED_SECONDS, Client, results, simulated_task, state

if TYPE_CHECKING:
    from airflow_dbjobs.local_workspace import LocalWorkspace

Json = dict[str, Any]


@pytest.fixture
def client(simulated: LocalWorkspace) -> Client:
    return mounted(simulated)


def member(key: str, *upstream: str, result: str = "SUCCESS", seconds: float = 1, **fields: Any) -> Json:
    depends_on = [{"task_key": name} for name in upstream]
    return {"task_key": key, "depends_on": depends_on, **simulated_task(seconds, result), **fields}


def latest(client: Client, run_id: int, key: str) -> Json:
    """Return the latest attempt at a task."""
    run = client.get("runs/get", run_id=run_id)
    found: Json = [task for task in run["tasks"] if task["task_key"] == key][-1]
    return found


def launched(client: Client, tasks: list[Json], **settings: Any) -> int:
    run_id: int = client.post("run-now", job_id=client.post("create", tasks=tasks, **settings)["job_id"])["run_id"]
    return run_id


def repair(client: Client, run_id: int, **fields: Any) -> int:
    repair_id: int = client.post("runs/repair", run_id=run_id, **fields)["repair_id"]
    return repair_id


class TestClusters:
    def test_run_shows_each_tasks_compute(self, client: Client) -> None:
        shared = {"job_cluster_key": "shared", "new_cluster": {"spark_version": "15.4.x-scala2.12", "num_workers": 1}}
        own = (
            {"job_cluster_key": "shared"},
            {"existing_cluster_id": "0123-abc"},
            {"new_cluster": {"num_workers": 2}},
            {},
        )
        tasks = [member(f"t{number}", **fields) for number, fields in enumerate(own)]
        run = client.get("runs/get", run_id=launched(client, tasks, job_clusters=[shared]))
        assert run["job_clusters"] == [shared]
        names = ("job_cluster_key", "existing_cluster_id", "new_cluster")
        assert [{name: task[name] for name in names if name in task} for task in run["tasks"]] == list(own)

    def test_one_time_run_cannot_share_clusters(self, client: Client) -> None:
        cluster = {"job_cluster_key": "shared", "new_cluster": {"num_workers": 1}}
        body = {"tasks": [member("a", job_cluster_key="shared")], "job_clusters": [cluster]}
        assert "job_cluster_key" in client.refused("POST", "runs/submit", body)["message"]
        run_id = client.submit(tasks=[member("a")], job_clusters=[cluster])
        assert "job_clusters" not in client.get("runs/get", run_id=run_id)


class TestCancelTask:
    """A run in which `a` runs for long, `b` is its sibling, and the others wait for `a`."""

    TASKS = (
        member("a", seconds=100, max_retries=2),
        member("b"),
        member("after_a", "a"),
        member("on_failure", "a", run_if="AT_LEAST_ONE_FAILED"),
        member("on_failure_only", "a", "b", run_if="ALL_FAILED"),
        member("cleanup", "after_a", "b", run_if="ALL_DONE"),
    )

    @pytest.fixture
    def run_id(self, client: Client, advance: Advance) -> int:
        run_id = launched(client, list(self.TASKS))
        advance(0)
        return run_id

    def test_stops_that_task_only(self, client: Client, advance: Advance, run_id: int) -> None:
        client.post("runs/cancel", run_id=latest(client, run_id, "a")["run_id"])
        advance(0)
        assert latest(client, run_id, "a")["state"]["result_state"] == "CANCELED"
        assert latest(client, run_id, "after_a")["state"]["result_state"] == "UPSTREAM_CANCELED"
        assert latest(client, run_id, "b")["state"]["life_cycle_state"] == "RUNNING"
        assert state(client, run_id) == ("RUNNING", None)
        advance(1)
        advance(1)
        run = client.get("runs/get", run_id=run_id)
        assert results(run) == {
            "a": "CANCELED",
            "b": "SUCCESS",
            "after_a": "UPSTREAM_CANCELED",
            "on_failure": "SUCCESS",
            "on_failure_only": "EXCLUDED",
            "cleanup": "SUCCESS",
        }
        assert len(run["tasks"]) == len(self.TASKS), "a cancelled task is not retried"
        assert state(client, run_id) == ("TERMINATED", "SUCCESS_WITH_FAILURES")

    def test_leaves_the_run_repairable(self, client: Client, advance: Advance, run_id: int) -> None:
        client.post("runs/cancel", run_id=latest(client, run_id, "a")["run_id"])
        advance(0)
        advance(1)
        advance(1)
        repair(client, run_id, rerun_all_failed_tasks=True)
        advance(0)
        advance(100)
        advance(1)
        run = client.get("runs/get", run_id=run_id)
        assert [task["task_key"] for task in run["tasks"][len(self.TASKS) :]] == ["a", "after_a"]
        assert results(run)["after_a"] == "SUCCESS"
        assert state(client, run_id) == ("TERMINATED", "SUCCESS")

    def test_that_waits(self, client: Client, advance: Advance, run_id: int) -> None:
        client.post("runs/cancel", run_id=latest(client, run_id, "after_a")["run_id"])
        advance(100)
        advance(1)
        assert results(client.get("runs/get", run_id=run_id)) == {
            "a": "SUCCESS",
            "b": "SUCCESS",
            "after_a": "CANCELED",
            "on_failure": "EXCLUDED",
            "on_failure_only": "EXCLUDED",
            "cleanup": "SUCCESS",
        }

    @pytest.mark.parametrize(
        ("other", "expected"),
        [("SUCCESS", ("TERMINATED", "CANCELED")), ("FAILED", ("INTERNAL_ERROR", "FAILED"))],
    )
    def test_that_is_a_leaf_decides_the_run_unless_another_failed(
        self, client: Client, advance: Advance, other: str, expected: tuple[str, str]
    ) -> None:
        run_id = launched(client, [member("a", seconds=100), member("b", result=other)])
        advance(0)
        client.post("runs/cancel", run_id=latest(client, run_id, "a")["run_id"])
        advance(1)
        assert state(client, run_id) == expected

    def test_of_an_earlier_attempt_does_nothing(self, client: Client, advance: Advance) -> None:
        run_id = launched(client, [member("a", result="FAILED", max_retries=1)])
        advance(0)
        first = latest(client, run_id, "a")["run_id"]
        advance(1)
        client.post("runs/cancel", run_id=first)
        advance(1)
        assert results(client.get("runs/get", run_id=run_id)) == {"a": "FAILED"}


class TestRepair:
    """A run in which `b` failed: `a` >> [`b`, `c`] >> `d`, and `cleanup` after all of them."""

    TASKS = (
        member("a"),
        member("b", "a", result="FAILED"),
        member("c", "a"),
        member("d", "b", "c"),
        member("cleanup", "d", run_if="ALL_DONE"),
    )

    @pytest.fixture
    def run_id(self, client: Client, advance: Advance) -> int:
        run_id = launched(client, list(self.TASKS), parameters=[{"name": "day", "default": "monday"}])
        self.finish(advance)
        assert state(client, run_id) == ("TERMINATED", "SUCCESS_WITH_FAILURES")
        return run_id

    def finish(self, advance: Advance) -> None:
        advance(0)
        for _ in self.TASKS:
            advance(1)

    def test_keeps_the_other_tasks(self, client: Client, advance: Advance, run_id: int) -> None:
        before = client.get("runs/get", run_id=run_id)
        repair(client, run_id, rerun_tasks=["b"])
        during = client.get("runs/get", run_id=run_id)
        assert during["tasks"][:-1] == before["tasks"]
        assert (during["state"]["life_cycle_state"], during["end_time"]) == ("PENDING", 0)
        self.finish(advance)
        after = client.get("runs/get", run_id=run_id)
        assert after["tasks"][:-1] == before["tasks"]
        attempt = after["tasks"][-1]
        assert (attempt["task_key"], attempt["attempt_number"]) == ("b", 1)
        assert attempt["run_id"] not in {task["run_id"] for task in before["tasks"]}
        assert "latest_repair_id" not in after

    @pytest.mark.parametrize(
        ("choice", "again"),
        [
            ({"rerun_tasks": ["b"]}, ["b"]),
            ({"rerun_tasks": ["b", "d"]}, ["b", "d"]),
            ({"rerun_tasks": ["b"], "rerun_dependent_tasks": True}, ["b", "d", "cleanup"]),
            ({"rerun_tasks": ["c"], "rerun_dependent_tasks": True}, ["c", "d", "cleanup"]),
            ({"rerun_tasks": [], "rerun_all_failed_tasks": True}, ["b", "d"]),
            ({"rerun_all_failed_tasks": True, "rerun_dependent_tasks": True}, ["b", "d", "cleanup"]),
        ],
    )
    def test_runs_again_what_is_chosen(
        self, client: Client, advance: Advance, run_id: int, choice: Json, again: list[str]
    ) -> None:
        repair(client, run_id, **choice)
        self.finish(advance)
        run = client.get("runs/get", run_id=run_id)
        assert [task["task_key"] for task in run["tasks"][len(self.TASKS) :]] == again
        assert {task["attempt_number"] for task in run["tasks"][len(self.TASKS) :]} == {1}

    def test_compares_the_latest_repair(self, client: Client, advance: Advance, run_id: int) -> None:
        chosen = {"run_id": run_id, "rerun_tasks": ["b"]}

        def refused(**fields: Any) -> None:
            error = client.refused("POST", "runs/repair", {**chosen, **fields})
            assert error["error_code"] == "INVALID_PARAMETER_VALUE"
            assert "latest_repair_id" in error["message"]

        refused(latest_repair_id=run_id)
        first = repair(client, **chosen)
        self.finish(advance)
        refused()
        refused(latest_repair_id=run_id)
        second = repair(client, **chosen, latest_repair_id=first)
        error = client.refused("POST", "runs/repair", {**chosen, "latest_repair_id": first})
        assert "in progress" in error["message"]
        self.finish(advance)
        refused(latest_repair_id=first)
        history = client.get("runs/get", run_id=run_id, include_history="true")["repair_history"]
        assert [item.get("id") for item in history] == [None, first, second]
        assert latest(client, run_id, "b")["attempt_number"] == 2

    def test_has_parameters_of_its_own(self, client: Client, advance: Advance, run_id: int) -> None:
        too_large = {"run_id": run_id, "rerun_tasks": ["b"], "job_parameters": {"day": "x" * 10_000}}
        assert "10000" in client.refused("POST", "runs/repair", too_large)["message"]
        assert state(client, run_id) == ("TERMINATED", "SUCCESS_WITH_FAILURES")
        given = {"day": "sunday", "simulated_result": "SUCCESS"}
        first = repair(client, run_id, rerun_tasks=["b"], job_parameters=given)
        self.finish(advance)
        run = client.get("runs/get", run_id=run_id)
        assert results(run)["b"] == "SUCCESS"
        assert {item["name"]: item["value"] for item in run["job_parameters"]} == given
        repair(client, run_id, rerun_tasks=["b"], latest_repair_id=first)
        self.finish(advance)
        run = client.get("runs/get", run_id=run_id)
        assert results(run)["b"] == "FAILED", "a repair does not inherit parameters"
        assert {item["name"]: item["value"] for item in run["job_parameters"]} == {"day": "monday"}

    def test_uses_the_jobs_current_settings(self, client: Client, advance: Advance, run_id: int) -> None:
        job_id = client.get("runs/get", run_id=run_id)["job_id"]
        client.post("update", job_id=job_id, new_settings={"tasks": [member("b", "a", description="mended")]})
        repair(client, run_id, rerun_all_failed_tasks=True)
        self.finish(advance)
        assert state(client, run_id) == ("TERMINATED", "SUCCESS")
        descriptions = [task.get("description") for task in client.get("runs/get", run_id=run_id)["tasks"]]
        assert descriptions == [None] * 5 + ["mended", None]

    def test_needs_the_job(self, client: Client, run_id: int) -> None:
        client.post("delete", job_id=client.get("runs/get", run_id=run_id)["job_id"])
        error = client.refused("POST", "runs/repair", {"run_id": run_id, "rerun_tasks": ["b"]})
        assert "does not exist" in error["message"]

    def test_of_a_task_run_is_refused(self, client: Client, run_id: int) -> None:
        task = latest(client, run_id, "b")
        error = client.refused("POST", "runs/repair", {"run_id": task["run_id"], "rerun_tasks": ["b"]})
        assert str(run_id) in error["message"]

    def test_of_a_cancelled_run_runs_the_rest(self, client: Client, advance: Advance) -> None:
        run_id = launched(client, [member("a"), member("b", seconds=SIMULATED_SECONDS), member("c", "b")])
        advance(0)
        advance(1)
        client.post("runs/cancel", run_id=run_id)
        advance(0)
        assert results(client.get("runs/get", run_id=run_id)) == {"a": "SUCCESS", "b": "CANCELED", "c": "CANCELED"}
        repair(client, run_id, rerun_all_failed_tasks=True)
        advance(0)
        advance(SIMULATED_SECONDS)
        advance(1)
        assert results(client.get("runs/get", run_id=run_id)) == dict.fromkeys("abc", "SUCCESS")
        assert state(client, run_id) == ("TERMINATED", "SUCCESS")
