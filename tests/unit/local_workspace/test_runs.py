"""Runs: launching them once, listing, cancelling, timing out, skipping, deleting."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .conftest import Clock, mounted
from .support import Client, eventually

if TYPE_CHECKING:
    from airflow_dbjobs.local_workspace import LocalWorkspace

SLEEP = {"spark_python_task": {"python_file": "/sleep.py"}}
QUICK = {"spark_python_task": {"python_file": "/quick.py"}}


@pytest.fixture(autouse=True)
def files(write) -> None:
    write("sleep.py", "import time; time.sleep(60)")
    write("quick.py", "import sys; print(sys.argv[1:])")
    write(
        "stubborn.py",
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready'); time.sleep(60)",
    )


class TestGet:
    def test_flat_run_in_each_version(self, client: Client) -> None:
        run_id = client.submit(run_name="Nightly load", existing_cluster_id="c-1", **QUICK)
        new = client.wait_for(run_id)
        old = client.get("runs/get", run_id=run_id, version="2.0")
        assert old["task"] == QUICK
        assert "tasks" not in old
        assert "status" not in old
        assert old["number_in_job"] == 1
        assert new["number_in_job"] == run_id
        assert old["cluster_spec"] == new["cluster_spec"] == {"existing_cluster_id": "c-1"}
        (task,) = new["tasks"]
        assert task["task_key"] == "Nightly_load"
        assert len({run_id, new["job_id"], task["run_id"]}) == 3
        assert new["status"]["termination_details"]["code"] == "SUCCESS"
        for shown in (old, new):
            assert shown["run_type"] == "SUBMIT_RUN"
            assert shown["trigger"] == "ONE_TIME"
            assert shown["original_attempt_run_id"] == run_id
            assert shown["start_time"] <= shown["end_time"]
            assert shown["execution_duration"] <= shown["end_time"] - shown["start_time"]
            assert shown["run_page_url"].startswith(
                f"http://127.0.0.1:8765/jobs/{new['job_id']}/runs/{run_id}?o=0&key="
            )

    def test_task_run_by_its_own_id(self, client: Client) -> None:
        run = client.finish(tasks=[{"task_key": "a", **QUICK}])
        task = client.get("runs/get", run_id=run["tasks"][0]["run_id"])
        assert task["state"]["result_state"] == "SUCCESS"
        assert task["job_run_id"] == run["run_id"]
        assert task["job_id"] == run["job_id"]
        assert task["task_key"] == "a"


class TestGetOutput:
    def test_needs_a_task_run_except_in_2_0(self, client: Client) -> None:
        run = client.finish(**QUICK)
        assert client.get("runs/get-output", run_id=run["run_id"], version="2.0")["logs"] == "[]\n"
        for version in ("2.1", "2.2"):
            error = client.refused("GET", "runs/get-output", {"run_id": run["run_id"]}, version=version)
            assert str(run["tasks"][0]["run_id"]) in error["message"]
        output = client.output(run)
        assert output["metadata"]["run_id"] == run["tasks"][0]["run_id"]
        two = client.finish(tasks=[{"task_key": key, **QUICK} for key in "ab"])
        client.refused("GET", "runs/get-output", {"run_id": two["run_id"]}, version="2.0")


class TestIdempotency:
    def test_same_token_returns_the_same_run(self, client: Client) -> None:
        run_id = client.submit(idempotency_token="x" * 64, **QUICK)
        assert client.submit(idempotency_token="x" * 64, **QUICK) == run_id
        client.wait_for(run_id)
        assert client.submit(idempotency_token="x" * 64, **SLEEP) == run_id

    def test_run_now_and_submit_share_tokens(self, client: Client) -> None:
        job_id = client.post("create", **QUICK)["job_id"]
        first = client.post("run-now", job_id=job_id, idempotency_token="t")
        assert client.post("run-now", job_id=job_id, idempotency_token="t") == first
        assert client.submit(idempotency_token="t", **QUICK) == first["run_id"]
        assert len(client.get("runs/list")["runs"]) == 1

    def test_token_of_a_deleted_run_is_refused(self, client: Client) -> None:
        run = client.finish(idempotency_token="t", **QUICK)
        assert client.post("runs/delete", run_id=run["run_id"]) == {}
        client.refused("GET", "runs/get", {"run_id": run["run_id"]})
        error = client.refused("POST", "runs/submit", {"idempotency_token": "t", **QUICK})
        assert error["error_code"] == "INVALID_PARAMETER_VALUE"
        assert "deleted" in error["message"]

    def test_long_token_is_refused(self, client: Client) -> None:
        assert "64" in client.refused("POST", "runs/submit", {"idempotency_token": "x" * 65, **QUICK})["message"]

    def test_no_token_starts_a_new_run(self, client: Client) -> None:
        assert client.submit(**QUICK) != client.submit(idempotency_token="", **QUICK)


class TestParameters:
    def test_run_now_replaces_python_parameters(self, client: Client) -> None:
        task = {"spark_python_task": {"python_file": "/quick.py", "parameters": ["own"]}}
        job_id = client.post("create", **task)["job_id"]
        run = client.wait_for(client.post("run-now", job_id=job_id)["run_id"])
        assert client.output(run)["logs"] == "['own']\n"
        run = client.wait_for(client.post("run-now", job_id=job_id, python_params=["a", "{{job.id}}"])["run_id"])
        assert client.output(run)["logs"] == "['a', '{{job.id}}']\n"
        assert run["overriding_parameters"] == {"python_params": ["a", "{{job.id}}"]}
        assert run["run_type"] == "JOB_RUN"

    def test_notebook_parameters_are_merged(self, client: Client, notebook) -> None:
        notebook("show", "import json; dbutils.notebook.exit(json.dumps(dbutils.widgets.getAll(), sort_keys=True))")
        task = {"notebook_task": {"notebook_path": "/show", "base_parameters": {"a": 1, "b": "base"}}}
        job_id = client.post("create", **task)["job_id"]
        run = client.wait_for(client.post("run-now", job_id=job_id, notebook_params={"b": "now"})["run_id"])
        assert client.output(run)["notebook_output"]["result"] == '{"a": "1", "b": "now"}'

    def test_job_parameters_reach_notebooks_and_references(self, client: Client, notebook) -> None:
        notebook("show", "import json; dbutils.notebook.exit(json.dumps(dbutils.widgets.getAll(), sort_keys=True))")
        references = "{{job.parameters.day}} {{job.run_id}} {{job.id}} {{task.name}} {{ unknown.thing }}"
        task = {"notebook_task": {"notebook_path": "/show", "base_parameters": {"r": references}}, "task_key": "t"}
        parameters = [{"name": "day", "default": "mon"}, {"name": "kept", "default": "k"}]
        job_id = client.post("create", tasks=[task], parameters=parameters)["job_id"]
        run = client.wait_for(client.post("run-now", job_id=job_id, job_parameters={"day": "sun"})["run_id"])
        r = f"sun {run['run_id']} {job_id} t {{{{ unknown.thing }}}}"
        expected = f'{{"day": "sun", "kept": "k", "r": "{r}"}}'
        assert client.output(run)["notebook_output"]["result"] == expected
        assert run["job_parameters"] == [
            {"name": "day", "default": "mon", "value": "sun"},
            {"name": "kept", "default": "k", "value": "k"},
        ]

    def test_references_count_attempts_and_repairs(self, client: Client, notebook) -> None:
        notebook("count", "dbutils.notebook.exit(dbutils.widgets.get('r'))")
        references = {"r": "{{task.execution_count}} {{job.repair_count}}"}
        task = {"notebook_task": {"notebook_path": "/count", "base_parameters": references}}
        run = client.finish(tasks=[{"task_key": "a", **task}, {"task_key": "b", **task}])
        client.post("runs/repair", run_id=run["run_id"], rerun_tasks=["a"])
        run = client.wait_for(run["run_id"])
        tasks = sorted(run["tasks"], key=lambda task: (task["task_key"], task["attempt_number"]))
        outputs = [client.get("runs/get-output", run_id=task["run_id"])["notebook_output"]["result"] for task in tasks]
        assert outputs == ["1 0", "2 1", "1 0"]

    @pytest.mark.parametrize(
        ("task", "parameters", "resolved"),
        [
            (
                {"notebook_task": {"notebook_path": "/x", "base_parameters": {"a": "{{task.name}}", "b": "own"}}},
                {"notebook_params": {"b": "now"}},
                {"base_parameters": {"a": "t", "b": "now"}},
            ),
            (
                {"notebook_task": {"notebook_path": "/x"}},
                {"job_parameters": {"c": "1"}},
                {"base_parameters": {"c": "1"}},
            ),
            (
                {"spark_python_task": {"python_file": "/x.py", "parameters": ["{{task.name}}", "b"]}},
                {},
                {"parameters": ["t", "b"]},
            ),
            (
                {"spark_jar_task": {"main_class_name": "M", "parameters": ["own"]}},
                {"jar_params": ["now"]},
                {"parameters": ["now"]},
            ),
            (
                {"python_wheel_task": {"package_name": "p", "entry_point": "e", "named_parameters": {"a": "own"}}},
                {"python_named_params": {"b": "now"}},
                {"named_parameters": {"a": "own", "b": "now"}},
            ),
            (
                {"python_wheel_task": {"package_name": "p", "entry_point": "e", "parameters": ["own"]}},
                {},
                {"parameters": ["own"]},
            ),
            (
                {"sql_task": {"file": {"path": "/x.sql"}, "warehouse_id": "w", "parameters": {"a": "own"}}},
                {"sql_params": {"b": "now"}},
                {"parameters": {"a": "own", "b": "now"}},
            ),
            (
                {"dbt_task": {"commands": ["dbt run"]}},
                {"dbt_commands": ["dbt run --vars {{task.name}}"]},
                {"commands": ["dbt run --vars {{task.name}}"]},
            ),
            (
                {"condition_task": {"op": "EQUAL_TO", "left": "{{task.name}}", "right": "t"}},
                {},
                {"left": "t", "right": "t"},
            ),
            (
                {"run_job_task": {"job_id": 1, "job_parameters": {"a": "{{task.name}}"}}},
                {},
                {"job_parameters": {"a": "t"}},
            ),
            ({"notebook_task": {"notebook_path": "/x"}}, {}, None),
        ],
    )
    def test_resolved_values_are_what_a_task_got(
        self, client: Client, task: dict, parameters: dict, resolved: dict | None
    ) -> None:
        job_id = client.post("create", tasks=[{"task_key": "t", **task}])["job_id"]
        run = client.wait_for(client.post("run-now", job_id=job_id, **parameters)["run_id"])
        (shown,) = client.get("runs/get", run_id=run["run_id"], include_resolved_values="true")["tasks"]
        assert shown.get("resolved_values") == (resolved and {next(iter(task)): resolved})
        assert "resolved_values" not in run["tasks"][0]
        alone = client.get("runs/get", run_id=shown["run_id"], include_resolved_values="true")
        assert alone.get("resolved_values") == shown.get("resolved_values")

    def test_resolved_values_stay_those_of_the_attempt(self, client: Client) -> None:
        task = {"spark_python_task": {"python_file": "/no.py", "parameters": ["{{job.parameters.day}}"]}}
        job_id = client.post(
            "create", tasks=[{"task_key": "t", **task}], parameters=[{"name": "day", "default": "mon"}]
        )
        run = client.wait_for(client.post("run-now", **job_id)["run_id"])
        client.post("runs/repair", run_id=run["run_id"], rerun_tasks=["t"], job_parameters={"day": "sun"})
        client.wait_for(run["run_id"])
        tasks = client.get("runs/get", run_id=run["run_id"], include_resolved_values="true")["tasks"]
        got = {task["attempt_number"]: task["resolved_values"]["spark_python_task"]["parameters"] for task in tasks}
        assert got == {0: ["mon"], 1: ["sun"]}

    @pytest.mark.parametrize(
        "parameters",
        [
            {"jar_params": [], "notebook_params": {"x": "1"}},
            {"job_parameters": {}, "notebook_params": {"x": "1"}},
            {"job_parameters": {"x": "1"}, "notebook_params": {}, "python_params": [], "sql_params": ""},
        ],
    )
    def test_empty_parameters_count_as_absent(self, client: Client, parameters: dict) -> None:
        given = {name: value for name, value in parameters.items() if value}
        job_id = client.post("create", max_concurrent_runs=2, **QUICK)["job_id"]
        run = client.wait_for(client.post("run-now", job_id=job_id, **parameters)["run_id"])
        assert run.get("overriding_parameters", {}) == {k: v for k, v in given.items() if k != "job_parameters"}
        assert [item["name"] for item in run.get("job_parameters", [])] == list(given.get("job_parameters", {}))
        (task,) = run["tasks"]
        client.post("runs/repair", run_id=run["run_id"], rerun_tasks=[task["task_key"]], **parameters)
        task = {"task_key": "child", "run_job_task": {"job_id": job_id, **parameters}}
        child = client.finish(tasks=[task])["tasks"][0]["run_job_task"]
        assert child == {"job_id": job_id, **given, "run_id": child["run_id"]}
        assert client.get("runs/get", run_id=child["run_id"])["state"]["result_state"] == "SUCCESS"

    @pytest.mark.parametrize(
        "parameters",
        [
            {"job_parameters": {"a": "b"}, "python_params": ["c"]},
            {"jar_params": ["a"], "notebook_params": {"b": "c"}},
            {"python_params": ["x" * 10_000]},
            {"job_parameters": {"a": "x" * 10_000}},
            {"only": ["a"]},
        ],
    )
    def test_invalid_parameters_are_refused(self, client: Client, parameters: dict) -> None:
        job_id = client.post("create", **QUICK)["job_id"]
        client.refused("POST", "run-now", {"job_id": job_id, **parameters})
        assert client.get("runs/list") == {}


class TestCancelRun:
    def test_ends_the_run_once(self, client: Client) -> None:
        run_id = client.submit(**SLEEP)
        client.wait_for(run_id, "RUNNING")
        assert client.post("runs/cancel", run_id=run_id) == {}
        assert client.life(run_id) in ("TERMINATING", "TERMINATED")
        run = client.wait_for(run_id)
        assert run["state"]["life_cycle_state"] == "TERMINATED"
        assert run["state"]["result_state"] == "CANCELED"
        assert run["state"]["user_cancelled_or_timedout"] is True
        assert run["status"]["termination_details"]["code"] == "USER_CANCELED"
        assert client.post("runs/cancel", run_id=run_id) == {}
        assert client.get("runs/get", run_id=run_id) == run

    def test_kills_a_program_that_ignores_sigterm(self, client: Client) -> None:
        run_id = client.submit(spark_python_task={"python_file": "/stubborn.py"})
        task = client.wait_for(run_id, "RUNNING")["tasks"][0]["run_id"]
        eventually(lambda: client.get("runs/get-output", run_id=task)["logs"] == "ready\n")
        client.post("runs/cancel", run_id=run_id)
        assert client.wait_for(run_id)["state"]["result_state"] == "CANCELED"

    def test_cancels_a_task_by_its_own_id(self, client: Client) -> None:
        tasks = [{"task_key": "a", **SLEEP}, {"task_key": "b", "depends_on": [{"task_key": "a"}], **QUICK}]
        run_id = client.submit(tasks=tasks)
        run = client.wait_for(run_id, "RUNNING")
        client.post("runs/cancel", run_id=run["tasks"][0]["run_id"])
        run = client.wait_for(run_id)
        assert [task["state"]["result_state"] for task in run["tasks"]] == ["CANCELED", "UPSTREAM_CANCELED"]
        assert run["state"]["result_state"] == "CANCELED"

    def test_cancels_all_runs_of_a_job(self, client: Client) -> None:
        job_id = client.post("create", max_concurrent_runs=2, queue={"enabled": True}, **SLEEP)["job_id"]
        ids = [client.post("run-now", job_id=job_id)["run_id"] for _ in range(3)]
        other = client.submit(**SLEEP)
        assert client.life(ids[2]) == "QUEUED"
        client.post("runs/cancel-all", job_id=job_id)
        assert {client.wait_for(run_id)["state"]["result_state"] for run_id in ids} == {"CANCELED"}
        client.wait_for(other, "RUNNING")

    def test_cancels_queued_runs_only(self, client: Client) -> None:
        job_id = client.post("create", queue={"enabled": True}, **SLEEP)["job_id"]
        first, second = (client.post("run-now", job_id=job_id)["run_id"] for _ in range(2))
        client.post("runs/cancel-all", all_queued_runs=True)
        assert client.wait_for(second)["state"]["result_state"] == "CANCELED"
        client.wait_for(first, "RUNNING")


class TestUnknownRun:
    @pytest.mark.parametrize("operation", ["cancel", "delete", "repair"])
    def test_cannot_be_changed(self, client: Client, operation: str) -> None:
        assert client.refused("POST", f"runs/{operation}", {"run_id": 7})["message"] == "Run 7 does not exist."

    @pytest.mark.parametrize("operation", ["get", "get-output", "export"])
    def test_cannot_be_read(self, client: Client, operation: str) -> None:
        error = client.refused("GET", f"runs/{operation}", {"run_id": 7})
        assert error == {"error_code": "INVALID_PARAMETER_VALUE", "message": "Run 7 does not exist."}


class TestDelete:
    def test_active_run_is_refused(self, client: Client) -> None:
        run_id = client.submit(**SLEEP)
        assert "still active" in client.refused("POST", "runs/delete", {"run_id": run_id})["message"]


class TestMaxConcurrentRuns:
    def test_further_run_is_skipped(self, client: Client) -> None:
        job_id = client.post("create", **SLEEP)["job_id"]
        client.post("run-now", job_id=job_id)
        skipped = client.post("run-now", job_id=job_id)["run_id"]
        new = client.get("runs/get", run_id=skipped)
        assert new["state"]["life_cycle_state"] == "SKIPPED"
        assert new["state"]["result_state"] == "MAXIMUM_CONCURRENT_RUNS_REACHED"
        assert new["status"]["state"] == "TERMINATED"
        assert new["status"]["termination_details"]["code"] == "MAX_CONCURRENT_RUNS_EXCEEDED"
        assert new["end_time"] > 0
        assert "result_state" not in client.get("runs/get", run_id=skipped, version="2.0")["state"]

    def test_further_run_is_queued_with_queueing(self, client: Client) -> None:
        job_id = client.post("create", **SLEEP)["job_id"]
        first = client.post("run-now", job_id=job_id)["run_id"]
        second = client.post("run-now", job_id=job_id, queue={"enabled": True})["run_id"]
        run = client.get("runs/get", run_id=second)
        assert run["state"]["life_cycle_state"] == run["status"]["state"] == "QUEUED"
        assert run["status"]["queue_details"]["code"] == "MAX_CONCURRENT_RUNS_REACHED"
        assert run["state"]["queue_reason"] == run["status"]["queue_details"]["message"]
        assert "queue_reason" not in client.get("runs/get", run_id=second, version="2.0")["state"]
        client.post("runs/cancel", run_id=first)
        client.wait_for(second, "RUNNING")

    def test_limit_of_0_skips_every_run(self, client: Client) -> None:
        job_id = client.post("create", version="2.0", max_concurrent_runs=0, **QUICK)["job_id"]
        assert client.life(client.post("run-now", job_id=job_id)["run_id"]) == "SKIPPED"

    def test_one_time_runs_have_no_limit(self, client: Client) -> None:
        for run_id in [client.submit(**SLEEP) for _ in range(2)]:
            client.wait_for(run_id, "RUNNING")


class TestTimeout:
    def test_of_a_run(self, stepped: LocalWorkspace, clock: Clock) -> None:
        client = mounted(stepped)
        run_id = client.submit(timeout_seconds="600", **SLEEP)
        stepped.tick()
        clock.now += 599
        stepped.tick()
        assert client.life(run_id) == "RUNNING"
        clock.now += 1
        stepped.tick()
        assert client.life(run_id) == "TERMINATING"
        eventually(lambda: stepped.tick() or client.life(run_id) == "TERMINATED")
        run = client.get("runs/get", run_id=run_id)
        assert run["state"]["result_state"] == "TIMEDOUT"
        assert run["end_time"] - run["start_time"] == 600_000

    def test_of_a_task_with_a_retry(self, stepped: LocalWorkspace, clock: Clock) -> None:
        client = mounted(stepped)
        limits = {"timeout_seconds": 10, "max_retries": 1, "retry_on_timeout": True}
        run_id = client.submit(tasks=[{"task_key": "a", **limits, **SLEEP}, {"task_key": "b", **SLEEP}])
        stepped.tick()
        clock.now += 10
        stepped.tick()
        eventually(lambda: stepped.tick() or len(client.get("runs/get", run_id=run_id)["tasks"]) == 3)
        first, other, second = client.get("runs/get", run_id=run_id)["tasks"]
        assert first["state"]["result_state"] == "TIMEDOUT"
        assert other["state"]["life_cycle_state"] == second["state"]["life_cycle_state"] == "RUNNING"
        assert second["attempt_number"] == 1

    def test_does_not_count_while_a_run_is_queued(self, stepped: LocalWorkspace, clock: Clock) -> None:
        client = mounted(stepped)
        job_id = client.post("create", queue={"enabled": True}, **SLEEP)["job_id"]
        first = client.post("run-now", job_id=job_id)["run_id"]
        second = client.post("run-now", job_id=job_id)["run_id"]
        client.post("update", job_id=job_id, new_settings={"timeout_seconds": 10})
        clock.now += 11
        eventually(lambda: stepped.tick() or client.life(second) == "RUNNING")
        assert client.get("runs/get", run_id=first)["state"]["result_state"] == "TIMEDOUT"


class TestList:
    @pytest.fixture
    def ids(self, client: Client) -> list[int]:
        ids = [client.submit(**QUICK) for _ in range(3)]
        for run_id in ids:
            client.wait_for(run_id)
        return [*ids, client.submit(**SLEEP)]

    def test_filters(self, client: Client, ids: list[int]) -> None:
        def listed(**query: object) -> list[int]:
            return [run["run_id"] for run in client.get("runs/list", **query).get("runs", [])]

        assert listed() == listed(page_token="") == ids[::-1]
        assert listed(active_only="True") == [ids[3]]
        assert listed(completed_only="true") == ids[2::-1]
        job_id = client.get("runs/get", run_id=ids[1])["job_id"]
        assert listed(job_id=job_id) == [ids[1]]
        assert listed(run_type="JOB_RUN") == []
        start = client.get("runs/get", run_id=ids[1])["start_time"]
        assert ids[1] in listed(start_time_from=start, start_time_to=start)
        assert listed(start_time_from=start + 3_600_000) == []
        assert (
            "exclude" in client.refused("GET", "runs/list", {"active_only": "true", "completed_only": True})["message"]
        )

    def test_2_0_ignores_tokens_and_times(self, client: Client, ids: list[int]) -> None:
        page = client.get("runs/list", version="2.0", page_token="nonsense", start_time_from=1 << 50, start_time_to=1)
        assert [run["run_id"] for run in page["runs"]] == ids[::-1]

    def test_pages_of_2_0(self, client: Client, ids: list[int]) -> None:
        page = client.get("runs/list", version="2.0", limit=3)
        assert [run["run_id"] for run in page["runs"]] == ids[:0:-1]
        assert page["has_more"] is True
        page = client.get("runs/list", version="2.0", limit=3, offset=3)
        assert [run["run_id"] for run in page["runs"]] == ids[:1]
        assert page["has_more"] is False
        assert len(client.get("runs/list", version="2.0", limit=0)["runs"]) == 4
        client.refused("GET", "runs/list", {"limit": 1001}, version="2.0")

    def test_pages_of_2_1_and_later(self, client: Client, ids: list[int]) -> None:
        first = client.get("runs/list", version="2.1", limit=3)
        assert first["has_more"] is True
        assert "prev_page_token" not in first
        client.submit(**QUICK)
        second = client.get("runs/list", version="2.1", limit=3, page_token=first["next_page_token"])
        assert [run["run_id"] for run in first["runs"] + second["runs"]] == ids[::-1]
        assert "next_page_token" not in second
        back = client.get("runs/list", limit=3, page_token=second["prev_page_token"])
        assert [run["run_id"] for run in back["runs"]] == [run["run_id"] for run in first["runs"]]
        client.refused("GET", "runs/list", {"limit": 26})
        for token in ("nonsense", "NQ", "eyJiZWZvcmUiOiAieCJ9"):
            client.refused("GET", "runs/list", {"page_token": token})

    def test_tasks_are_optional(self, client: Client, ids: list[int]) -> None:
        assert "tasks" not in client.get("runs/list")["runs"][0]
        assert len(client.get("runs/list", expand_tasks="True")["runs"][0]["tasks"]) == 1

    def test_2_2_pages_through_tasks(self, stepped: LocalWorkspace) -> None:
        client = mounted(stepped)
        run_id = client.submit(tasks=[{"task_key": f"t{i}", **QUICK} for i in range(101)])
        page = client.get("runs/get", run_id=run_id)
        assert len(page["tasks"]) == 100
        rest = client.get("runs/get", run_id=run_id, page_token=page["next_page_token"])
        assert [task["task_key"] for task in rest["tasks"]] == ["t100"]
        assert "next_page_token" not in rest
        assert "API 2.2" in client.refused("GET", "runs/get", {"run_id": run_id}, version="2.0")["message"]
        assert client.get("runs/list", expand_tasks="true")["runs"][0]["has_more"] is True
