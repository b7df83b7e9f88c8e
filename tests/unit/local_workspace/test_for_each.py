"""Tasks that run another task for each element of a list."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from .conftest import mounted
from .support import Client, condition, eventually, results, simulated_task

if TYPE_CHECKING:
    from airflow_dbjobs.local_workspace import LocalWorkspace

    from .conftest import Advance, Start, Write

#: Fails for the inputs that are named in a file.
PROGRAM = """
import sys
from pathlib import Path
print(sys.argv[1:])
if sys.argv[1] in Path("bad").read_text().split():
    raise ValueError(f"no country {sys.argv[1]}")
"""


def program(*parameters: str, **fields: Any) -> dict[str, Any]:
    return {"spark_python_task": {"python_file": "/one.py", "parameters": parameters or ["{{input}}"]}, **fields}


def loop(inputs: object, inner: dict[str, Any], *, concurrency: int = 1, **fields: Any) -> dict[str, Any]:
    """Return a task `each` with the task `one` in it; `inputs` that are no text become JSON."""
    text = inputs if isinstance(inputs, str) else json.dumps(inputs)
    each = {"inputs": text, "concurrency": concurrency, "task": {"task_key": "one", **inner}}
    return {"task_key": "each", "for_each_task": each, **fields}


def loop_of(client: Client, run: dict[str, Any] | int) -> dict[str, Any]:
    """Return the latest attempt at the task `each`, as the API shows it by its own id."""
    run = client.get("runs/get", run_id=run) if isinstance(run, int) else run
    (*_, task) = (task for task in run["tasks"] if task["task_key"] == "each")
    shown: dict[str, Any] = client.get("runs/get", run_id=task["run_id"])
    return shown


def lives(client: Client, run_id: int) -> list[str]:
    return [item["state"]["life_cycle_state"] for item in loop_of(client, run_id)["iterations"]]


def ends(client: Client, run: dict[str, Any] | int) -> list[str]:
    return [item["state"].get("result_state", "") for item in loop_of(client, run)["iterations"]]


def stats(client: Client, run: dict[str, Any] | int) -> dict[str, int]:
    found = loop_of(client, run)["for_each_task"]["stats"]["task_run_stats"]
    return {name.removesuffix("_iterations"): count for name, count in found.items()}


@pytest.fixture(autouse=True)
def files(write: Write) -> None:
    write("one.py", PROGRAM)
    write("bad", "")


class TestIterations:
    def test_get_the_elements_of_the_inputs(self, client: Client) -> None:
        elements = ["a b", 3, True, None, {"x": {"y": "z"}, "n": [1]}]
        run = client.finish(tasks=[loop(elements, program("{{input}}", "{{ task.name }}"), concurrency=5)])
        shown = [client.get("runs/get-output", run_id=item["run_id"]) for item in loop_of(client, run)["iterations"]]
        texts = ["a b", "3", "true", "null", '{"x": {"y": "z"}, "n": [1]}']
        assert [output["logs"] for output in shown] == [f"{[text, 'one']}\n" for text in texts]
        assert {output["metadata"]["job_run_id"] for output in shown} == {run["run_id"]}
        assert run["state"]["result_state"] == "SUCCESS"

    def test_refer_to_fields_and_values_of_tasks_upstream(self, client: Client, write: Write) -> None:
        write(
            "set.py",
            """
            from databricks.sdk.runtime import dbutils
            dbutils.jobs.taskValues.set("list", [{"id": 7, "in": {"deep": "x"}}])
            dbutils.jobs.taskValues.set("day", "monday")
            """,
        )
        write(
            "one.py",
            """
            import sys
            from databricks.sdk.runtime import dbutils
            print(*sys.argv[1:], dbutils.jobs.taskValues.get("set", "day"))
            """,
        )
        parameters = ("{{input.id}}", "{{input.in.deep}}", "{{tasks.set.values.day}}")
        after = {"depends_on": [{"task_key": "set"}]}
        first = {"task_key": "set", "spark_python_task": {"python_file": "/set.py"}}
        run = client.finish(tasks=[first, loop("{{tasks.set.values.list}}", program(*parameters), **after)])
        (iteration,) = loop_of(client, run)["iterations"]
        assert client.get("runs/get-output", run_id=iteration["run_id"])["logs"] == "7 x monday monday\n"

    def test_come_from_a_parameter_of_the_job(self, client: Client) -> None:
        parameters = [{"name": "countries", "default": "[]"}]
        job = {"tasks": [loop("{{job.parameters.countries}}", program())], "parameters": parameters}
        job_id = client.post("create", **job)["job_id"]
        given = {"countries": '["de", "fr"]'}
        run = client.wait_for(client.post("run-now", job_id=job_id, job_parameters=given)["run_id"])
        assert ends(client, run) == ["SUCCESS", "SUCCESS"]
        # Without elements there is nothing that could fail.
        run = client.wait_for(client.post("run-now", job_id=job_id)["run_id"])
        assert run["state"]["result_state"] == "SUCCESS"
        assert loop_of(client, run)["iterations"] == []

    def test_run_as_many_at_a_time_as_allowed(self, simulated: LocalWorkspace, advance: Advance) -> None:
        client = mounted(simulated)
        run_id = client.submit(tasks=[loop([1, 2, 3, 4, 5], simulated_task("{{input}}"), concurrency=2)])
        advance(0)
        assert lives(client, run_id) == ["RUNNING"] * 2 + ["BLOCKED"] * 3
        advance(1)
        assert lives(client, run_id) == ["TERMINATED", "RUNNING", "RUNNING", "BLOCKED", "BLOCKED"]
        counts = {"total": 5, "scheduled": 3, "active": 2, "completed": 1, "succeeded": 1, "failed": 0}
        assert stats(client, run_id) == counts
        for _ in range(5):
            advance(5)
        assert client.life(run_id) == "TERMINATED"
        assert stats(client, run_id) == {**counts, "scheduled": 5, "active": 0, "completed": 5, "succeeded": 5}

    def test_one_at_a_time_is_the_default(self, simulated: LocalWorkspace, advance: Advance) -> None:
        task = loop([1, 2], simulated_task(1))
        del task["for_each_task"]["concurrency"]
        run_id = mounted(simulated).submit(tasks=[task])
        advance(0)
        assert lives(mounted(simulated), run_id) == ["RUNNING", "BLOCKED"]

    def test_that_take_no_time_do_not_block_requests(self, simulated: LocalWorkspace) -> None:
        client = mounted(simulated)
        run_id = client.submit(tasks=[loop([1] * 50, condition("{{input}}", "1"))])
        simulated.tick()
        assert client.life(run_id) == "RUNNING"
        for _ in range(3):
            simulated.tick()
        assert client.life(run_id) == "TERMINATED"
        assert stats(client, run_id)["succeeded"] == 50

    def test_are_retried_one_by_one(self, client: Client, write: Write) -> None:
        write(
            "one.py",
            """
            import sys
            from pathlib import Path
            if sys.argv[1] == "2" and not Path("seen").exists():
                Path("seen").touch()
                raise ValueError
            """,
        )
        run = client.finish(tasks=[loop([1, 2], program(max_retries=1), concurrency=2)])
        attempts = [
            (item["attempt_number"], item["state"]["result_state"]) for item in loop_of(client, run)["iterations"]
        ]
        assert attempts == [(0, "SUCCESS"), (0, "FAILED"), (1, "SUCCESS")]
        assert (stats(client, run)["total"], stats(client, run)["failed"]) == (2, 0)
        assert run["state"]["result_state"] == "SUCCESS"

    def test_of_a_condition_have_outcomes(self, client: Client) -> None:
        run = client.finish(tasks=[loop(["1", "2"], condition("{{input}}", "1"))])
        outcomes = [item["condition_task"]["outcome"] for item in loop_of(client, run)["iterations"]]
        assert outcomes == ["true", "false"]

    def test_of_a_run_job_task_are_runs_of_that_job(self, client: Client, write: Write) -> None:
        write("bad", "b")
        job = {
            "parameters": [{"name": "x", "default": ""}],
            "tasks": [{"task_key": "t", **program("{{job.parameters.x}}")}],
        }
        job_id = client.post("create", **job)["job_id"]
        run_job = {"run_job_task": {"job_id": job_id, "job_parameters": {"x": "{{input}}"}}}
        run = client.finish(tasks=[loop(["a", "b"], run_job)])
        assert ends(client, run) == ["SUCCESS", "FAILED"]
        children = [item["run_job_task"]["run_id"] for item in loop_of(client, run)["iterations"]]
        assert [client.get("runs/get", run_id=child)["trigger"] for child in children] == ["RUN_JOB_TASK"] * 2
        assert f"Run {children[1]} of job {job_id} ended FAILED" in loop_of(client, run)["state"]["state_message"]

    @pytest.mark.parametrize(("version", "pages"), [("2.2", 2), ("2.1", 1)])
    def test_are_shown_in_pages(self, simulated: LocalWorkspace, version: str, pages: int) -> None:
        run_id = mounted(simulated).submit(tasks=[loop([1] * 101, condition("1", "1"), concurrency=100)])
        simulated.tick()
        client = mounted(simulated, version)
        task = loop_of(client, run_id)
        assert [item["task_key"] for item in task["tasks"]] == ["each"]
        assert len(task["iterations"]) == 100
        assert task["has_more"]
        assert ("next_page_token" in task) == (pages == 2)
        if pages == 2:
            rest = client.get("runs/get", run_id=task["run_id"], page_token=task["next_page_token"])
            assert len(rest["iterations"]) == 1

    def test_are_not_among_the_tasks_of_the_run(self, client: Client) -> None:
        run = client.finish(tasks=[loop([1, 2], condition("1", "1"))])
        assert [task["task_key"] for task in run["tasks"]] == ["each"]
        assert "iterations" not in run
        history = client.get("runs/get", run_id=run["run_id"], include_history="true")["repair_history"]
        assert history[0]["task_run_ids"] == [run["tasks"][0]["run_id"]]

    def test_their_files_are_deleted_with_the_run(self, client: Client, root: Any) -> None:
        run = client.finish(tasks=[loop([1, 2], program())])
        folders = root / ".airflow_dbjobs" / "runs"
        assert len([*folders.iterdir()]) == 2
        client.post("runs/delete", run_id=run["run_id"])
        assert [*folders.iterdir()] == []


class TestFailure:
    def test_of_an_iteration_fails_the_task_after_all(self, client: Client, write: Write) -> None:
        write("bad", "b d")
        after = {"task_key": "after", "depends_on": [{"task_key": "each"}], **condition("1", "1")}
        run = client.finish(tasks=[loop(["a", "b", "c", "d"], program()), after])
        assert ends(client, run) == ["SUCCESS", "FAILED", "SUCCESS", "FAILED"]
        assert results(run) == {"each": "FAILED", "after": "UPSTREAM_FAILED"}
        each = loop_of(client, run)
        failed = each["iterations"][1]
        expected = f'Iteration {failed["run_id"]}, with the input "b", failed: {failed["state"]["state_message"]}'
        assert each["state"]["state_message"] == expected
        assert client.output(run, "each")["error"] == expected
        assert client.get("runs/get-output", run_id=failed["run_id"])["error"] == "ValueError: no country b"
        message = {"error_message": failed["state"]["state_message"], "termination_category": "RUN_EXECUTION_ERROR"}
        assert each["for_each_task"]["stats"]["error_message_stats"] == [{"count": 2, **message}]

    def test_of_a_reference_to_a_field_names_the_input(self, client: Client) -> None:
        run = client.finish(tasks=[loop([{"a": 1}, {"b": 1}], program("{{input.a}}"))])
        assert ends(client, run) == ["SUCCESS", "FAILED"]
        state = loop_of(client, run)["iterations"][1]["state"]
        assert state["life_cycle_state"] == "INTERNAL_ERROR"
        assert state["state_message"] == """The input {"b": 1} has no 'a', which this task refers to."""

    @pytest.mark.parametrize(
        ("inputs", "message"),
        [
            ('{"a": 1}', 'must be a JSON array, not {"a": 1}.'),
            ("[1", "must be a JSON array, not [1: Expecting ',' delimiter"),
            ("{{job.parameters.absent}}", "not {{job.parameters.absent}}: "),
            ("[" * 9999, f"not {'[' * 100}…: "),
        ],
    )
    def test_inputs_that_are_no_array_are_an_internal_error(self, client: Client, inputs: str, message: str) -> None:
        run = client.finish(tasks=[loop(inputs, program(), max_retries=3)])
        (task,) = run["tasks"]
        assert task["state"]["life_cycle_state"] == "INTERNAL_ERROR"
        assert task["status"]["termination_details"]["code"] == "INVALID_RUN_CONFIGURATION"
        assert message in task["state"]["state_message"]

    def test_inputs_of_a_reference_have_a_limit_of_their_own(self, client: Client) -> None:
        parameters = [{"name": "list", "default": json.dumps(["x" * 20_000] * 2)}]
        job = {"tasks": [loop("{{job.parameters.list}}", condition("1", "1"))], "parameters": parameters}
        run = client.wait_for(client.post("run-now", job_id=client.post("create", **job)["job_id"])["run_id"])
        assert run["state"]["result_state"] == "SUCCESS"
        job["parameters"][0]["default"] = json.dumps(["x" * 20_000] * 3)
        run = client.wait_for(client.post("run-now", job_id=client.post("create", **job)["job_id"])["run_id"])
        assert "at most 49152 bytes; these have 60012" in run["tasks"][0]["state"]["state_message"]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"task": None}, "'for_each_task.task' is missing in task 'each'"),
            ({"inputs": ""}, "'for_each_task.inputs' is missing"),
            ({"inputs": [1]}, "'inputs' must be a string, not [1]"),
            ({"inputs": "1" * 10_001}, "must have at most 10000 characters"),
            ({"concurrency": 0}, "must be between 1 and 100"),
            ({"concurrency": 101}, "must be between 1 and 100"),
            ({"task": {"task_key": "one"}}, "Exactly one task field"),
            ({"task": {"task_key": "one", "notebook_task": {}}}, "'notebook_task.notebook_path' is missing"),
            ({"task": loop([1], condition("1", "1"))}, "must not be a for_each_task itself"),
            ({"task": {"task_key": "one", "job_cluster_key": "x", **program()}}, "which is not in 'job_clusters'"),
        ],
        ids=str,
    )
    def test_of_the_rules_is_refused(self, client: Client, change: dict[str, Any], message: str) -> None:
        task = loop([1], program())
        task["for_each_task"] |= change
        assert message in client.refused("POST", "create", {"tasks": [task]})["message"]


class TestStop:
    @pytest.mark.parametrize("of", ["run", "task"])
    def test_reaches_all_iterations(self, simulated: LocalWorkspace, advance: Advance, of: str) -> None:
        client = mounted(simulated)
        run_id = client.submit(tasks=[loop([1, 2, 3], simulated_task(9), concurrency=2)])
        advance(1)
        client.post("runs/cancel", run_id=run_id if of == "run" else loop_of(client, run_id)["run_id"])
        advance(1)
        run = client.get("runs/get", run_id=run_id)
        assert (run["state"]["result_state"], results(run)) == ("CANCELED", {"each": "CANCELED"})
        assert ends(client, run) == ["CANCELED"] * 3

    def test_of_one_iteration_leaves_the_others(self, simulated: LocalWorkspace, advance: Advance) -> None:
        client = mounted(simulated)
        run_id = client.submit(tasks=[loop([9, 5], simulated_task("{{input}}"), concurrency=2)])
        advance(1)
        client.post("runs/cancel", run_id=loop_of(client, run_id)["iterations"][0]["run_id"])
        advance(1)
        assert ends(client, run_id) == ["CANCELED", ""]
        advance(5)
        assert loop_of(client, run_id)["state"]["result_state"] == "CANCELED"
        assert loop_of(client, run_id)["state"]["state_message"] == "Cancelled iterations: 1 of 2."

    def test_stops_programs_and_child_runs(self, client: Client, write: Write) -> None:
        write("one.py", "import time\nprint('begun')\ntime.sleep(600)")
        job_id = client.post("create", tasks=[{"task_key": "t", **program()}], max_concurrent_runs=9)["job_id"]
        child = {"run_job_task": {"job_id": job_id}}
        for inner in (program(), child):
            run_id = client.submit(tasks=[loop([1, 2], inner, concurrency=2)])
            eventually(lambda run_id=run_id: loop_of(client, run_id)["iterations"])
            eventually(lambda run_id=run_id: lives(client, run_id) == ["RUNNING"] * 2)
            client.post("runs/cancel", run_id=run_id)
            run = client.wait_for(run_id)
            assert ends(client, run) == ["CANCELED"] * 2
        assert client.get("runs/list", active_only="true").get("runs", []) == []

    def test_timeouts_of_task_and_iterations(self, simulated: LocalWorkspace, advance: Advance) -> None:
        client = mounted(simulated)
        whole = client.submit(tasks=[loop([1, 2, 3], simulated_task(9), timeout_seconds=10)])
        each = client.submit(
            tasks=[loop([1, 20], {**simulated_task("{{input}}"), "timeout_seconds": 5}, concurrency=2)]
        )
        for _ in range(11):
            advance(1)
        assert ends(client, whole) == ["SUCCESS", "TIMEDOUT", "TIMEDOUT"]
        assert loop_of(client, whole)["state"]["result_state"] == "TIMEDOUT"
        assert ends(client, each) == ["SUCCESS", "TIMEDOUT"]
        assert loop_of(client, each)["state"]["result_state"] == "FAILED"


class TestRepair:
    def repair(self, client: Client, run: dict[str, Any], **choice: Any) -> dict[str, Any]:
        history = client.get("runs/get", run_id=run["run_id"], include_history="true")["repair_history"]
        latest = {"latest_repair_id": history[-1]["id"]} if "id" in history[-1] else {}
        client.post("runs/repair", run_id=run["run_id"], **(choice or {"rerun_all_failed_tasks": True}), **latest)
        return client.wait_for(run["run_id"])

    def test_runs_the_failed_iterations_only(self, client: Client, write: Write) -> None:
        write("bad", "2 4")
        run = client.finish(tasks=[loop([1, 2, 3, 4, 5], program(), concurrency=5)])
        first = loop_of(client, run)
        write("bad", "4")
        run = self.repair(client, run)
        second = loop_of(client, run)
        assert [item["attempt_number"] for item in second["iterations"]] == [0, 1, 0, 1, 0]
        originals = [
            client.get("runs/get", run_id=item["run_id"])["original_attempt_run_id"] for item in second["iterations"]
        ]
        assert originals == [item["run_id"] for item in first["iterations"]]
        assert ends(client, run) == ["SUCCESS"] * 3 + ["FAILED", "SUCCESS"]
        # The first attempt stays as it was.
        assert client.get("runs/get", run_id=first["run_id"]) == first
        write("bad", "")
        run = self.repair(client, run)
        assert run["state"]["result_state"] == "SUCCESS"
        assert [item["attempt_number"] for item in loop_of(client, run)["iterations"]] == [0, 1, 0, 2, 0]
        assert stats(client, run) == {
            "total": 5, "scheduled": 5, "active": 0, "completed": 5, "succeeded": 5, "failed": 0
        }  # fmt: skip

    def test_of_a_task_that_succeeded_runs_all_of_them(self, client: Client) -> None:
        run = client.finish(tasks=[loop([1, 2], program())])
        run = self.repair(client, run, rerun_tasks=["each"])
        assert [item["attempt_number"] for item in loop_of(client, run)["iterations"]] == [1, 1]

    def test_with_other_inputs_runs_those_that_differ(self, client: Client, write: Write) -> None:
        write("bad", "2")
        parameters = [{"name": "list", "default": "[1, 2, 3]"}]
        job = {"tasks": [loop("{{job.parameters.list}}", program(max_retries=1))], "parameters": parameters}
        run = client.wait_for(client.post("run-now", job_id=client.post("create", **job)["job_id"])["run_id"])
        choice = {"rerun_all_failed_tasks": True, "job_parameters": {"list": "[1, 9]"}}
        run = self.repair(client, run, **choice)
        assert run["state"]["result_state"] == "SUCCESS"
        iterations = loop_of(client, run)["iterations"]
        assert [client.get("runs/get-output", run_id=item["run_id"])["logs"] for item in iterations] == [
            "['1']\n",
            "['9']\n",
        ]
        assert [item["attempt_number"] for item in iterations] == [0, 0]

    def test_with_another_task_in_the_loop_runs_all_of_them(self, client: Client, write: Write) -> None:
        write("bad", "2")
        job_id = client.post("create", tasks=[loop([1, 2], program())])["job_id"]
        run = client.wait_for(client.post("run-now", job_id=job_id)["run_id"])
        task = loop([1, 2], {**program(), "task_key": "two"})
        write("bad", "")
        client.post("reset", job_id=job_id, new_settings={"tasks": [task]})
        run = self.repair(client, run)
        iterations = loop_of(client, run)["iterations"]
        assert [(item["task_key"], item["attempt_number"]) for item in iterations] == [("two", 0), ("two", 0)]
        assert ends(client, run) == ["SUCCESS", "SUCCESS"]


def test_survives_a_killed_server(start: Start, write: Write) -> None:
    write(
        "one.py",
        """
        import sys, time
        from pathlib import Path
        while not Path("go").exists():
            time.sleep(0.01)
        print(sys.argv[1])
        """,
    )
    server, client = start()
    run_id = client.submit(tasks=[loop(["a", "b", "c"], program(), concurrency=2)])
    eventually(lambda: client.life(run_id) == "RUNNING")
    eventually(lambda: lives(client, run_id) == ["RUNNING", "RUNNING", "BLOCKED"])
    server.kill()
    server.wait()
    write("go", "")
    _, client = start()
    run = client.wait_for(run_id)
    assert run["state"]["result_state"] == "SUCCESS"
    iterations = loop_of(client, run)["iterations"]
    logs = [client.get("runs/get-output", run_id=item["run_id"])["logs"] for item in iterations]
    assert logs == ["a\n", "b\n", "c\n"]
    assert [item["attempt_number"] for item in iterations] == [0, 0, 0]
