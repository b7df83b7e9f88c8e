"""Runs of several tasks: order, run_if, retries, conditions, run_job tasks, repairs, and the result of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_dbjobs.local_workspace.engine.scheduler import result_if_unmet

from .conftest import Clock, mounted
from .support import TERMINAL, Client, eventually, results

if TYPE_CHECKING:
    from airflow_dbjobs.local_workspace import LocalWorkspace


@pytest.fixture(autouse=True)
def files(write) -> None:
    write("good.py", "")
    write("bad.py", "1 / 0")
    write("once.py", "import os, sys\nif not os.path.exists('mark'): open('mark', 'w'); sys.exit(1)")
    write("sleep.py", "import time; time.sleep(60)")


def task(key: str, file: str, *upstream: str, **fields: object) -> dict:
    depends_on = [{"task_key": name} for name in upstream]
    return {"task_key": key, "spark_python_task": {"python_file": f"/{file}.py"}, "depends_on": depends_on, **fields}


class TestRunIf:
    @pytest.mark.parametrize(
        ("rule", "upstream", "expected"),
        [
            ("ALL_SUCCESS", "SUCCESS SUCCESS", None),
            ("ALL_SUCCESS", "SUCCESS EXCLUDED", None),
            ("ALL_SUCCESS", "SUCCESS FAILED", "UPSTREAM_FAILED"),
            ("ALL_SUCCESS", "SUCCESS CANCELED", "UPSTREAM_CANCELED"),
            ("ALL_SUCCESS", "FAILED CANCELED", "UPSTREAM_FAILED"),
            ("ALL_SUCCESS", "UPSTREAM_FAILED", "UPSTREAM_FAILED"),
            ("AT_LEAST_ONE_SUCCESS", "SUCCESS FAILED", None),
            ("AT_LEAST_ONE_SUCCESS", "FAILED TIMEDOUT", "UPSTREAM_FAILED"),
            ("NONE_FAILED", "SUCCESS EXCLUDED", None),
            ("NONE_FAILED", "SUCCESS TIMEDOUT", "UPSTREAM_FAILED"),
            ("ALL_DONE", "FAILED CANCELED", None),
            ("AT_LEAST_ONE_FAILED", "SUCCESS FAILED", None),
            ("AT_LEAST_ONE_FAILED", "SUCCESS SUCCESS", "EXCLUDED"),
            ("ALL_FAILED", "FAILED TIMEDOUT", None),
            ("ALL_FAILED", "FAILED EXCLUDED", None),
            ("ALL_FAILED", "FAILED SUCCESS", "EXCLUDED"),
            ("ALL_FAILED", "CANCELED UPSTREAM_CANCELED", None),
            ("AT_LEAST_ONE_FAILED", "SUCCESS CANCELED", None),
            ("AT_LEAST_ONE_FAILED", "UPSTREAM_FAILED EXCLUDED", None),
            ("AT_LEAST_ONE_SUCCESS", "CANCELED UPSTREAM_CANCELED", "UPSTREAM_CANCELED"),
            ("AT_LEAST_ONE_SUCCESS", "SUCCESS CANCELED", None),
            ("NONE_FAILED", "SUCCESS UPSTREAM_CANCELED", "UPSTREAM_CANCELED"),
            ("NONE_FAILED", "EXCLUDED DISABLED", "EXCLUDED"),
            ("ALL_DONE", "EXCLUDED EXCLUDED", "EXCLUDED"),
            ("ALL_SUCCESS", "EXCLUDED DISABLED", "EXCLUDED"),
            ("ALL_FAILED", "", None),
        ],
    )
    def test_rule(self, rule: str, upstream: str, expected: str | None) -> None:
        assert result_if_unmet(rule, upstream.split()) == expected


class TestGraph:
    def test_tasks_run_after_their_dependencies(self, client: Client, write) -> None:
        write("append.py", "import sys; open('order', 'a').write(sys.argv[1])")

        def append(key: str, *upstream: str) -> dict:
            return {
                **task(key, "append", *upstream),
                "spark_python_task": {"python_file": "/append.py", "parameters": [key]},
            }

        run = client.finish(tasks=[append("c", "b"), append("a"), append("b", "a")])
        assert run["state"]["result_state"] == "SUCCESS"
        assert run["run_duration"] > 0
        assert run["execution_duration"] == 0
        write("show.py", "print(open('order').read())")
        assert client.output(client.finish(spark_python_task={"python_file": "/show.py"}))["logs"] == "abc\n"

    def test_failed_leaf_fails_the_run(self, client: Client) -> None:
        run = client.finish(tasks=[task("a", "bad"), task("b", "good", "a"), task("c", "good")])
        assert results(run) == {"a": "FAILED", "b": "UPSTREAM_FAILED", "c": "SUCCESS"}
        assert run["tasks"][0]["state"]["life_cycle_state"] == "TERMINATED"
        assert run["state"]["life_cycle_state"] == "INTERNAL_ERROR"
        assert run["state"]["result_state"] == "FAILED"
        assert "task a" in run["state"]["state_message"]
        details = run["status"]["termination_details"]
        assert (details["code"], details["type"]) == ("RUN_EXECUTION_ERROR", "CLIENT_ERROR")
        assert client.output(run, "a")["error"] == "ZeroDivisionError: division by zero"
        assert client.output(run, "b").keys() == {"metadata", "logs", "logs_truncated"}

    def test_succeeds_with_failures_if_leaves_succeed(self, client: Client) -> None:
        run = client.finish(tasks=[task("a", "bad"), task("b", "good", "a", run_if="ALL_DONE")])
        assert run["state"]["life_cycle_state"] == "TERMINATED"
        assert run["state"]["result_state"] == "SUCCESS_WITH_FAILURES"
        assert run["status"]["termination_details"]["type"] == "SUCCESS"

    def test_disabled_task_is_skipped(self, client: Client) -> None:
        run = client.finish(tasks=[task("a", "bad", disabled=True), task("b", "good"), task("c", "good", "a", "b")])
        assert results(run) == {"a": "DISABLED", "b": "SUCCESS", "c": "SUCCESS"}
        assert run["state"]["result_state"] == "SUCCESS"


class TestRetry:
    def test_is_an_entry_of_its_own(self, client: Client) -> None:
        run = client.finish(tasks=[task("a", "once", max_retries="2"), task("b", "good", "a")])
        assert [(t["task_key"], t["attempt_number"]) for t in run["tasks"]] == [("a", 0), ("b", 0), ("a", 1)]
        assert results(run) == {"a": "SUCCESS", "b": "SUCCESS"}
        assert run["state"]["result_state"] == "SUCCESS"
        retry = client.get("runs/get", run_id=run["tasks"][2]["run_id"])
        assert retry["original_attempt_run_id"] == run["tasks"][0]["run_id"]
        assert retry["trigger"] == "RETRY"

    def test_failing_flat_run_is_terminated(self, client: Client) -> None:
        run = client.finish(spark_python_task={"python_file": "/bad.py"}, max_retries=1)
        assert run["state"]["life_cycle_state"] == "TERMINATED"
        assert run["state"]["result_state"] == "FAILED"
        assert run["attempt_number"] == 1
        assert len(run["tasks"]) == 2

    def test_interval_counts_from_the_failed_start(self, stepped: LocalWorkspace, clock: Clock) -> None:
        client = mounted(stepped)
        run_id = client.submit(tasks=[task("a", "once", max_retries=1, min_retry_interval_millis=60_000)])

        def lives() -> list[str]:
            stepped.tick()
            return [t["state"]["life_cycle_state"] for t in client.get("runs/get", run_id=run_id)["tasks"]]

        eventually(lambda: lives() == ["TERMINATED", "WAITING_FOR_RETRY"])
        assert client.get("runs/get", run_id=run_id)["tasks"][1]["status"]["state"] == "WAITING"
        clock.now += 59
        assert lives()[1] == "WAITING_FOR_RETRY"
        clock.now += 1
        assert lives()[1] == "RUNNING"


def condition(op: str, left: str, right: str) -> dict:
    return {"task_key": "check", "condition_task": {"op": op, "left": left, "right": right}}


class TestCondition:
    def test_chooses_a_branch(self, client: Client) -> None:
        yes = task("yes", "good", depends_on=[{"task_key": "check", "outcome": "true"}])
        no = task("no", "good", depends_on=[{"task_key": "check", "outcome": "false"}])
        run = client.finish(tasks=[condition("GREATER_THAN", "10", "9"), yes, no, task("after_no", "good", "no")])
        assert results(run) == {"check": "SUCCESS", "yes": "SUCCESS", "no": "EXCLUDED", "after_no": "EXCLUDED"}
        assert run["tasks"][0]["condition_task"]["outcome"] == "true"
        assert run["state"]["result_state"] == "SUCCESS"

    @pytest.mark.parametrize(
        ("op", "left", "right", "outcome"),
        [
            ("EQUAL_TO", "1", "1.0", "false"),
            ("NOT_EQUAL", "a", "b", "true"),
            ("GREATER_THAN_OR_EQUAL", "1", "1.0", "true"),
            ("LESS_THAN", "2", "10", "true"),
            ("LESS_THAN_OR_EQUAL", "3", "2", "false"),
        ],
    )
    def test_operators(self, client: Client, op: str, left: str, right: str, outcome: str) -> None:
        run = client.finish(tasks=[condition(op, left, right)])
        assert run["tasks"][0]["condition_task"]["outcome"] == outcome

    @pytest.mark.parametrize(("op", "left"), [("LESS_THAN", "many"), ("LIKE", "1")])
    def test_invalid_condition_fails(self, client: Client, op: str, left: str) -> None:
        branch = task("yes", "good", depends_on=[{"task_key": "check", "outcome": "true"}])
        run = client.finish(tasks=[condition(op, left, "1"), branch])
        assert results(run) == {"check": "FAILED", "yes": "UPSTREAM_FAILED"}


class TestRunJob:
    def run_job(self, client: Client, file: str, **fields: object) -> dict:
        job_id = client.post("create", tasks=[task("inner", file)])["job_id"]
        return {"task_key": "outer", "run_job_task": {"job_id": job_id, **fields}}

    def test_waits_for_the_other_job(self, client: Client) -> None:
        run = client.finish(tasks=[self.run_job(client, "good")])
        assert results(run) == {"outer": "SUCCESS"}
        child_id = client.output(run)["run_job_output"]["run_id"]
        child = client.get("runs/get", run_id=child_id)
        assert child["state"]["result_state"] == "SUCCESS"
        assert child["trigger"] == "RUN_JOB_TASK"
        assert child["trigger_info"] == {"run_id": run["run_id"]}

    def test_fails_with_the_other_job(self, client: Client) -> None:
        run = client.finish(tasks=[self.run_job(client, "bad")])
        assert results(run) == {"outer": "FAILED"}
        assert "ended FAILED" in client.output(run)["error"]

    def test_cancels_the_other_job(self, client: Client) -> None:
        run_id = client.submit(tasks=[self.run_job(client, "sleep")])
        child = eventually(lambda: client.get("runs/get", run_id=run_id)["tasks"][0]["run_job_task"].get("run_id"))
        client.wait_for(child, "RUNNING")
        client.post("runs/cancel", run_id=run_id)
        assert client.wait_for(run_id)["state"]["result_state"] == "CANCELED"
        assert client.wait_for(child)["state"]["result_state"] == "CANCELED"

    def test_fails_without_the_other_job(self, client: Client) -> None:
        run = client.finish(tasks=[{"task_key": "outer", "run_job_task": {"job_id": 7}}])
        assert run["tasks"][0]["state"]["state_message"] == "Job 7 does not exist."


class TestRepair:
    def failed(self, client: Client) -> dict:
        tasks = [task("a", "good"), task("b", "once", "a"), task("c", "good", "b")]
        job_id = client.post("create", tasks=tasks)["job_id"]
        return client.wait_for(client.post("run-now", job_id=job_id)["run_id"])

    def test_runs_failed_tasks_again(self, client: Client) -> None:
        run = self.failed(client)
        repair_id = client.post("runs/repair", run_id=run["run_id"], rerun_all_failed_tasks=True)["repair_id"]
        repaired = client.wait_for(run["run_id"])
        assert repaired["state"]["result_state"] == "SUCCESS"
        assert [(t["task_key"], t["attempt_number"]) for t in repaired["tasks"][3:]] == [("b", 1), ("c", 1)]
        assert "repair_history" not in repaired
        original, repair = client.get("runs/get", run_id=run["run_id"], include_history="true")["repair_history"]
        assert original["type"] == "ORIGINAL"
        assert "id" not in original
        assert original["state"]["result_state"] == "FAILED"
        assert original["task_run_ids"] == [t["run_id"] for t in run["tasks"]]
        assert (repair["type"], repair["id"]) == ("REPAIR", repair_id)
        assert repair["state"]["result_state"] == "SUCCESS"
        assert repair["task_run_ids"] == [t["run_id"] for t in repaired["tasks"][3:]]

    def test_runs_named_tasks_and_their_dependents(self, client: Client) -> None:
        run = self.failed(client)
        client.post("runs/repair", run_id=run["run_id"], rerun_tasks=["a"], rerun_dependent_tasks=True)
        repaired = client.wait_for(run["run_id"])
        assert [t["task_key"] for t in repaired["tasks"][3:]] == ["a", "b", "c"]
        assert repaired["state"]["result_state"] == "SUCCESS"

    def test_must_name_the_previous_repair(self, client: Client) -> None:
        run_id = self.failed(client)["run_id"]
        repair_id = client.post("runs/repair", run_id=run_id, rerun_tasks=["b"])["repair_id"]
        client.wait_for(run_id)
        error = client.refused("POST", "runs/repair", {"run_id": run_id, "rerun_tasks": ["a"]})
        assert "latest_repair_id" in error["message"]
        client.post("runs/repair", run_id=run_id, rerun_tasks=["a"], latest_repair_id=str(repair_id))
        client.wait_for(run_id)

    @pytest.mark.parametrize(
        "choice",
        [
            {},
            {"rerun_tasks": ["b", "b"]},
            {"rerun_tasks": ["zz"]},
            {"rerun_tasks": ["b"], "rerun_all_failed_tasks": True},
        ],
    )
    def test_invalid_choice_is_refused(self, client: Client, choice: dict) -> None:
        client.refused("POST", "runs/repair", {"run_id": self.failed(client)["run_id"], **choice})

    def test_refused_if_nothing_failed(self, client: Client) -> None:
        run = client.finish(tasks=[task("a", "good")])
        client.refused("POST", "runs/repair", {"run_id": run["run_id"], "rerun_all_failed_tasks": True})

    def test_refused_for_an_active_run(self, client: Client) -> None:
        run_id = client.submit(tasks=[task("a", "sleep")])
        error = client.refused("POST", "runs/repair", {"run_id": run_id, "rerun_tasks": ["a"]})
        assert "in progress" in error["message"]

    def test_history_has_the_state_of_each_repair(self, stepped: LocalWorkspace, clock: Clock, write) -> None:
        client = mounted(stepped)
        job_id = client.post("create", tasks=[task("a", "bad"), task("b", "good", "a")])["job_id"]
        run_id = client.post("run-now", job_id=job_id)["run_id"]

        def history() -> list[dict]:
            return client.get("runs/get", run_id=run_id, include_history="true", version="2.1")["repair_history"]

        def finish() -> None:
            clock.now += 1
            eventually(lambda: stepped.tick() or client.life(run_id) in TERMINAL)

        def repair(**fields: object) -> int:
            repair_id: int = client.post("runs/repair", run_id=run_id, rerun_all_failed_tasks=True, **fields)[
                "repair_id"
            ]
            return repair_id

        stepped.tick()
        (original,) = history()
        assert (original["type"], original["state"]["life_cycle_state"]) == ("ORIGINAL", "RUNNING")
        assert original["end_time"] == 0
        finish()
        first = repair()
        finish()
        write("bad.py", "")
        second = repair(latest_repair_id=first)
        stepped.tick()
        assert [item["status"]["state"] for item in history()] == ["TERMINATED", "TERMINATED", "RUNNING"]
        finish()
        assert [item.get("id") for item in history()] == [None, first, second]
        assert [item["state"]["result_state"] for item in history()] == ["FAILED", "FAILED", "SUCCESS"]
        assert [len(item["task_run_ids"]) for item in history()] == [2, 2, 2]
        assert all(item["start_time"] < item["end_time"] for item in history())

    def test_does_not_exist_in_2_0(self, client: Client) -> None:
        assert client.send("POST", "runs/repair", version="2.0", json={}).status_code == 404


class TestOnly:
    """run-now's `only`; the job is a chain a, b, c, d, and an independent task e."""

    @pytest.fixture
    def job_id(self, client: Client) -> int:
        chain = [task("a", "good"), task("b", "good", "a"), task("c", "good", "b"), task("d", "good", "c")]
        job_id: int = client.post("create", tasks=[*chain, task("e", "good")], max_concurrent_runs=9)["job_id"]
        return job_id

    @pytest.mark.parametrize(
        ("only", "expected"),
        [
            (["b"], "b"),
            (["+c"], "abc"),
            (["c+"], "cd"),
            (["+b+"], "abcd"),
            (["d", "a"], "ad"),
            (["e", "+b", "b"], "abe"),
            ([], "abcde"),
        ],
    )
    def test_selects_the_tasks_of_the_run(self, client: Client, job_id: int, only: list[str], expected: str) -> None:
        run = client.wait_for(client.post("run-now", job_id=job_id, only=only)["run_id"])
        assert results(run) == dict.fromkeys(expected, "SUCCESS")
        assert run["state"]["result_state"] == "SUCCESS"

    @pytest.mark.parametrize("only", [["zz"], ["a", ""], ["+"], ["++a"], ["a++"]])
    def test_unknown_key_is_refused(self, client: Client, job_id: int, only: list[str]) -> None:
        assert "'only'" in client.refused("POST", "run-now", {"job_id": job_id, "only": only})["message"]
        assert client.get("runs/list") == {}
        run_id = client.post("run-now", job_id=job_id)["run_id"]
        assert client.get("runs/get", run_id=run_id, version="2.0")["number_in_job"] == 1

    def test_older_versions_ignore_it(self, client: Client, job_id: int) -> None:
        for version in ("2.0", "2.1"):
            run_id = client.post("run-now", job_id=job_id, only=["a"], version=version)["run_id"]
            assert results(client.wait_for(run_id)).keys() == set("abcde")

    def test_selected_dependents_still_wait(self, client: Client) -> None:
        tasks = [task("a", "good"), task("b", "bad", "a"), task("c", "good", "b"), task("d", "good", "b", "a")]
        job_id = client.post("create", tasks=tasks)["job_id"]
        run = client.wait_for(client.post("run-now", job_id=job_id, only=["b+"])["run_id"])
        assert results(run) == {"b": "FAILED", "c": "UPSTREAM_FAILED", "d": "UPSTREAM_FAILED"}

    def test_repair_stays_within_the_selection(self, client: Client) -> None:
        job_id = client.post("create", tasks=[task("a", "good"), task("b", "once", "a"), task("c", "good", "b")])[
            "job_id"
        ]
        run_id = client.post("run-now", job_id=job_id, only=["b"])["run_id"]
        assert results(client.wait_for(run_id)) == {"b": "FAILED"}
        client.refused("POST", "runs/repair", {"run_id": run_id, "rerun_tasks": ["a"]})
        client.post("runs/repair", run_id=run_id, rerun_tasks=["b"], rerun_dependent_tasks=True)
        assert results(client.wait_for(run_id)) == {"b": "SUCCESS"}
