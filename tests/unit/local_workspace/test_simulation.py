"""The simulated mode: tasks that only take time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from airflow_dbjobs.local_workspace import LocalWorkspace
from airflow_dbjobs.local_workspace.state.folder import WorkspaceError

from .conftest import Advance, Clock, mounted
from .support import NOTEBOOK, SIMULATED_SECONDS, TOKEN, Client, results, settle, simulated_task, state

if TYPE_CHECKING:
    from pathlib import Path

WHEEL = {"package_name": "p", "entry_point": "e"}


@pytest.fixture
def client(simulated: LocalWorkspace) -> Client:
    return mounted(simulated)


class TestTasks:
    @pytest.mark.parametrize(
        "task",
        [
            NOTEBOOK,
            {"spark_python_task": {"python_file": "/no/such/file.py", "parameters": ["a"]}},
            {"spark_jar_task": {"main_class_name": "com.example.Main", "parameters": ["a"]}},
            {"sql_task": {"warehouse_id": "w", "query": {"query_id": "q"}, "parameters": {"day": "mon"}}},
            {"python_wheel_task": WHEEL},
            {"some_future_task": {}},
        ],
    )
    def test_any_type_succeeds_after_its_time(self, client: Client, root: Path, advance: Advance, task: dict) -> None:
        run_id = client.submit(**task)
        advance(0)
        assert state(client, run_id) == ("RUNNING", None)
        advance(SIMULATED_SECONDS - 0.001)
        assert state(client, run_id) == ("RUNNING", None)
        advance(0.001)
        assert state(client, run_id) == ("TERMINATED", "SUCCESS")
        run = client.get("runs/get", run_id=run_id)
        assert run["execution_duration"] == SIMULATED_SECONDS * 1000
        assert "error" not in client.output(run)
        assert not (root / ".airflow_dbjobs" / "runs").exists()
        assert client.session.get(run["run_page_url"]).status_code == 200
        client.post("runs/delete", run_id=run_id)
        assert client.get("runs/list") == {}

    def test_all_run_at_once(self, client: Client, advance: Advance) -> None:
        ids = [client.submit(**NOTEBOOK) for _ in range(100)]
        advance(0)
        assert {state(client, run_id) for run_id in ids} == {("RUNNING", None)}
        advance(SIMULATED_SECONDS)
        assert {state(client, run_id) for run_id in ids} == {("TERMINATED", "SUCCESS")}

    def test_parameters_set_time_and_result(self, client: Client, advance: Advance) -> None:
        run_id = client.submit(**simulated_task(2.5, "FAILED"))
        advance(0)
        advance(2.499)
        assert state(client, run_id) == ("RUNNING", None)
        advance(0.001)
        assert state(client, run_id) == ("TERMINATED", "FAILED")
        output = client.output(client.get("runs/get", run_id=run_id))
        assert output["error"] == "This task was simulated, with the result FAILED."

    @pytest.mark.parametrize(
        ("task", "override", "seconds"),
        [
            (simulated_task(5), {}, 5),
            (simulated_task(5), {"notebook_params": {"simulated_seconds": "1"}}, 1),
            (simulated_task(5), {"job_parameters": {"simulated_seconds": "1"}}, 1),
            ({"sql_task": {"warehouse_id": "w", "parameters": {"simulated_seconds": 5}}}, {}, 5),
            ({"sql_task": {"warehouse_id": "w"}}, {"sql_params": {"simulated_seconds": "1"}}, 1),
            ({"python_wheel_task": {**WHEEL, "named_parameters": {"simulated_seconds": "5"}}}, {}, 5),
            ({"python_wheel_task": WHEEL}, {"python_named_params": {"simulated_seconds": "1"}}, 1),
            # Neither arguments in a list nor parameters of notebooks apply to a jar.
            (
                {"spark_jar_task": {"main_class_name": "M", "parameters": ["simulated_seconds=5"]}},
                {"notebook_params": {"simulated_seconds": "1"}},
                SIMULATED_SECONDS,
            ),
        ],
    )
    def test_run_parameters_override_task_parameters(
        self, client: Client, advance: Advance, task: dict, override: dict, seconds: float
    ) -> None:
        job_id = client.post("create", **task)["job_id"]
        run_id = client.post("run-now", job_id=job_id, **override)["run_id"]
        advance(0)
        advance(seconds - 0.001)
        assert state(client, run_id) == ("RUNNING", None)
        advance(0.001)
        assert state(client, run_id) == ("TERMINATED", "SUCCESS")

    @pytest.mark.parametrize("seconds", ["soon", "-1", "nan", "inf", "1e9"])
    def test_invalid_seconds_end_the_task(self, client: Client, advance: Advance, seconds: str) -> None:
        run_id = client.submit(notebook_task={"notebook_path": "/a", "base_parameters": {"simulated_seconds": seconds}})
        advance(0)
        shown = client.get("runs/get", run_id=run_id)
        assert shown["state"]["life_cycle_state"] == "INTERNAL_ERROR"
        assert (
            f"'simulated_seconds' must be a number from 0 to 31536000, not '{seconds}'"
            in (shown["state"]["state_message"])
        )
        assert shown["status"]["termination_details"]["code"] == "INVALID_RUN_CONFIGURATION"

    def test_invalid_result_ends_the_task(self, client: Client, advance: Advance) -> None:
        run_id = client.submit(**simulated_task(1, "MAYBE"))
        advance(0)
        message = client.get("runs/get", run_id=run_id)["state"]["state_message"]
        assert message == "Parameter 'simulated_result' must be SUCCESS or FAILED, not 'MAYBE'."


class TestSameAsNormalMode:
    def test_cancel(self, client: Client, simulated: LocalWorkspace, advance: Advance) -> None:
        run_id, other = client.submit(**NOTEBOOK), client.submit(**NOTEBOOK)
        tasks = [{"task_key": "a", **NOTEBOOK}, {"task_key": "b", **NOTEBOOK, "depends_on": [{"task_key": "a"}]}]
        graph = client.submit(tasks=tasks)
        advance(1)
        client.post("runs/cancel", run_id=run_id)
        client.post("runs/cancel", run_id=client.get("runs/get", run_id=graph)["tasks"][0]["run_id"])
        simulated.tick()
        assert state(client, run_id) == ("TERMINATING", None)
        advance(0)
        assert state(client, run_id) == ("TERMINATED", "CANCELED")
        assert results(client.get("runs/get", run_id=graph)) == {"a": "CANCELED", "b": "UPSTREAM_CANCELED"}
        assert state(client, other) == ("RUNNING", None)

    def test_timeouts(self, client: Client, advance: Advance) -> None:
        task = client.submit(tasks=[{"task_key": "a", "timeout_seconds": 3, **NOTEBOOK}])
        run = client.submit(timeout_seconds=4, **NOTEBOOK)
        advance(0)
        advance(2.9)
        assert state(client, task) == ("RUNNING", None)
        advance(0.1)
        assert results(client.get("runs/get", run_id=task)) == {"a": "TIMEDOUT"}
        assert state(client, run) == ("RUNNING", None)
        advance(1)
        assert state(client, run) == ("TERMINATED", "TIMEDOUT")

    def test_retries(self, client: Client, advance: Advance) -> None:
        retry = {"max_retries": 1, "min_retry_interval_millis": 5000}
        run_id = client.submit(tasks=[{"task_key": "a", **simulated_task(2, "FAILED"), **retry}])
        advance(0)
        advance(2)
        assert client.get("runs/get", run_id=run_id)["tasks"][1]["state"]["life_cycle_state"] == "WAITING_FOR_RETRY"
        advance(3)
        assert client.get("runs/get", run_id=run_id)["tasks"][1]["state"]["life_cycle_state"] == "RUNNING"
        advance(2)
        assert state(client, run_id) == ("INTERNAL_ERROR", "FAILED")

    def test_conditions_and_run_job_tasks(self, client: Client, advance: Advance) -> None:
        inner = client.post("create", **simulated_task(3, "FAILED"))["job_id"]
        condition = {"op": "EQUAL_TO", "left": "1", "right": "2"}
        yes, no = ({"task_key": "check", "outcome": outcome} for outcome in ("true", "false"))
        run_id = client.submit(
            tasks=[
                {"task_key": "check", "condition_task": condition},
                {"task_key": "yes", "depends_on": [yes], **NOTEBOOK},
                {"task_key": "job", "depends_on": [no], "run_job_task": {"job_id": inner}},
                {"task_key": "after", "depends_on": [{"task_key": "job"}], "run_if": "ALL_DONE", **simulated_task(1)},
            ]
        )
        advance(0)
        advance(2.9)
        assert results(client.get("runs/get", run_id=run_id)) == {
            "check": "SUCCESS",
            "yes": "EXCLUDED",
            "job": "",
            "after": "",
        }
        advance(0.1)
        advance(1)
        shown = client.get("runs/get", run_id=run_id)
        assert results(shown) == {"check": "SUCCESS", "yes": "EXCLUDED", "job": "FAILED", "after": "SUCCESS"}
        assert shown["state"]["result_state"] == "SUCCESS_WITH_FAILURES"

    def test_queue_is_first_in_first_out(self, client: Client, advance: Advance) -> None:
        job_id = client.post("create", queue={"enabled": True}, **NOTEBOOK)["job_id"]
        ids = [client.post("run-now", job_id=job_id)["run_id"] for _ in range(3)]
        advance(0)
        assert [client.life(run_id) for run_id in ids] == ["RUNNING", "QUEUED", "QUEUED"]
        advance(SIMULATED_SECONDS)
        assert [client.life(run_id) for run_id in ids] == ["TERMINATED", "RUNNING", "QUEUED"]

    def test_repair(self, client: Client, advance: Advance) -> None:
        job_id = client.post("create", tasks=[{"task_key": "a", **NOTEBOOK}])["job_id"]
        run_id = client.post("run-now", job_id=job_id, notebook_params={"simulated_result": "FAILED"})["run_id"]
        advance(0)
        advance(SIMULATED_SECONDS)
        assert state(client, run_id) == ("INTERNAL_ERROR", "FAILED")
        client.post("runs/repair", run_id=run_id, rerun_all_failed_tasks=True)
        advance(0)
        assert state(client, run_id) == ("RUNNING", None)
        advance(SIMULATED_SECONDS)
        assert state(client, run_id) == ("TERMINATED", "SUCCESS")


class TestRestart:
    def test_run_ends_at_its_planned_time(self, root: Path, clock: Clock) -> None:
        first = LocalWorkspace(root, token=TOKEN, clock=clock, simulate=SIMULATED_SECONDS)
        run_id = mounted(first).submit(**simulated_task(20, "FAILED"))
        settle(first)
        first.close()
        clock.now += 19.9
        # The new default duration does not apply to tasks that have already started.
        second = LocalWorkspace(root, token=TOKEN, clock=clock, simulate=1)
        settle(second)
        assert state(mounted(second), run_id) == ("RUNNING", None)
        clock.now += 0.1
        settle(second)
        assert state(mounted(second), run_id) == ("TERMINATED", "FAILED")
        second.close()

    def test_simulated_task_never_runs_its_code(self, root: Path, clock: Clock, write) -> None:
        write("file.py", "open('proof', 'w').close()")
        first = LocalWorkspace(root, token=TOKEN, clock=clock, simulate=SIMULATED_SECONDS)
        run_id = mounted(first).submit(spark_python_task={"python_file": "/file.py"})
        settle(first)
        first.close()
        second = LocalWorkspace(root, token=TOKEN, clock=clock)
        settle(second)
        assert state(mounted(second), run_id) == ("INTERNAL_ERROR", "FAILED")
        second.close()
        assert not (root / "proof").exists()

    def test_running_task_is_not_simulated(self, root: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        first = LocalWorkspace(root, token=TOKEN, clock=clock)
        monkeypatch.setattr(first._executor, "start", lambda *_: None)
        run_id = mounted(first).submit(**NOTEBOOK)
        first.tick()
        assert state(mounted(first), run_id) == ("RUNNING", None)
        first.close()
        second = LocalWorkspace(root, token=TOKEN, clock=clock, simulate=SIMULATED_SECONDS)
        settle(second)
        assert state(mounted(second), run_id) == ("INTERNAL_ERROR", "FAILED")
        second.close()


class TestOptions:
    @pytest.mark.parametrize("options", [{"simulate": -1}, {"simulate": math.nan}, {"simulate": 1e9}, {"max_page": 0}])
    def test_out_of_range_is_refused(self, root: Path, options: dict) -> None:
        with pytest.raises(WorkspaceError, match=r"simulate must be|max_page must be"):
            LocalWorkspace(root, token=TOKEN, **options)
        LocalWorkspace(root, token=TOKEN).close()
