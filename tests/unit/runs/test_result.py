"""results: what a run returned."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from described_runs import described, state
from injected_clock import Clock

from airflow_dbjobs.client import JobsClient
from airflow_dbjobs.client.models import Outcome, Run
from airflow_dbjobs.client.retry import RetryPolicy
from airflow_dbjobs.client.wait import wait_for_run
from airflow_dbjobs.local_workspace import Fault
from airflow_dbjobs.runs.result import run_result

if TYPE_CHECKING:
    from described_runs import Write

    from airflow_dbjobs.local_workspace import LocalWorkspace

    Log = pytest.LogCaptureFixture

CONDITION = {"condition_task": {"op": "EQUAL_TO", "left": "1", "right": "1"}}


def finished(client: JobsClient, *tasks: dict[str, Any]) -> Run:
    return wait_for_run(client, client.submit_run({"tasks": list(tasks)}), period=0.01)


NOTEBOOK_RUN = described("TERMINATED", "SUCCESS", task={"notebook_task": {}})


class TestNotebookResult:
    @pytest.mark.parametrize("flat", [False, True], ids=["tasks", "flat 2.0"])
    def test_is_the_exit_value(self, workspace: LocalWorkspace, notebook: Write, flat: bool) -> None:
        client = JobsClient(workspace.base_url, token=workspace.token, api_version="2.0" if flat else "2.2")
        task = notebook("nb", "dbutils.notebook.exit('{\"rows\": [1, 2.5, null]}')")
        payload = {"notebook_task": task["notebook_task"]} if flat else {"tasks": [task]}
        run = wait_for_run(client, client.submit_run(payload), period=0.01)
        assert run_result(client, run) == {"rows": [1, 2.5, None]}

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("plain words", "plain words"),
            *[
                (text, text)
                for text in ("12", "1.10", "1234567e12", "007", "true", "null", '"quoted"', "2026-01-01", "")
            ],
            (' {"rows": 1.5}\n', {"rows": 1.5}),
            ("[]", []),
            ("{'not': 'json'}", "{'not': 'json'}"),
            (None, None),
            # Python reads more than JSON, and thus XCom, can hold.
            *[(text, text) for text in ("NaN", "[-Infinity, 1]", '{"a": NaN}', "1e999", "[" * 100_000)],
            # JSON has more than XCom can hold.
            *[
                (text, text)
                for text in (
                    '{"id": 123456789012345678901234567890}',
                    "[9223372036854775808]",
                    "[-9223372036854775809]",
                    '["\\ud83d"]',
                    '{"\\u0000": 1}',
                    '{"__classname__": "x"}',
                    "[" * 300 + "]" * 300,
                )
            ],
            # Half a character, as of a text that was cut, and what no PostgreSQL holds.
            ("half \ud83d", "half ?"),
            ("nul \0", "nul ?"),
            ('{"a": [9223372036854775807, "\\u00e9"]}', {"a": [9223372036854775807, "é"]}),
            ("[-9223372036854775808]", [-9223372036854775808]),
            # What a function of a DAG file returned.
            *[
                (f'{{"airflow_return_value": {text}}}', value)
                for text, value in (
                    ("12", 12),
                    ("1.10", 1.1),
                    ("null", None),
                    ('"12"', "12"),
                    ('"nul \\u0000"', "nul ?"),
                    ("[1]", [1]),
                    ('{"airflow_return_value": 1}', {"airflow_return_value": 1}),
                    ('{"__type": 1}', '{"__type": 1}'),
                    ("9223372036854775808", "9223372036854775808"),
                )
            ],
            ('{"airflow_return_value": 1, "b": 2}', {"airflow_return_value": 1, "b": 2}),
        ],
        ids=lambda text: repr(text)[:30],
    )
    def test_is_parsed_only_if_it_is_a_json_object_or_list(
        self, client: JobsClient, workspace: LocalWorkspace, text: str | None, value: object
    ) -> None:
        workspace.faults.append(Fault("runs/get-output", status=200, body={"notebook_output": {"result": text}}))
        assert run_result(client, NOTEBOOK_RUN) == value


class TestSeveralTasks:
    def test_return_a_dict_by_task_key(self, client: JobsClient, notebook: Write) -> None:
        run = finished(
            client,
            notebook("b", "dbutils.notebook.exit('2')"),
            notebook("a", "dbutils.notebook.exit('x')"),
            notebook("silent", "pass"),
            {"task_key": "c", **CONDITION},
        )
        assert run_result(client, run) == {"b": "2", "a": "x", "c": "true"}

    def test_have_outputs_read_only_of_successful_tasks(
        self, client: JobsClient, workspace: LocalWorkspace, notebook: Write
    ) -> None:
        unequal = {"condition_task": {"op": "EQUAL_TO", "left": "1", "right": "2"}}
        assert run_result(client, finished(client, {"task_key": "c", **CONDITION})) == "true"
        both = finished(client, {"task_key": "c", **CONDITION}, {"task_key": "d", **unequal})
        assert run_result(client, both) == {"c": "true", "d": "false"}
        assert run_result(client, described("TERMINATED", "SUCCESS")) is None
        assert workspace.requests["runs/get-output"] == 0
        late = {"depends_on": [{"task_key": "bad"}], "run_if": "ALL_DONE"}
        run = finished(client, notebook("bad", "1 / 0"), notebook("good", "dbutils.notebook.exit('1')", **late))
        assert run.outcome is Outcome.PARTIAL_SUCCESS
        assert run_result(client, run) == {"good": "1"}
        assert workspace.requests["runs/get-output"] == 1


def task(kind: str, key: str = "only", run_id: int = 8, **payload: Any) -> dict[str, Any]:
    return {"task_key": key, "run_id": run_id, kind: payload, **state("TERMINATED", "SUCCESS")}


LINK = "https://x/sql/1"


class TestTaskTypes:
    @pytest.mark.parametrize(
        ("kind", "output", "value"),
        [
            (
                "sql_task",
                {"sql_output": {"query_output": {"output_link": LINK, "warehouse_id": "w", "query_text": "select 1"}}},
                {"output_link": LINK, "warehouse_id": "w"},
            ),
            (
                "sql_task",
                {"sql_output": {"dashboard_output": {"widgets": [{"widget_id": "1", "output_link": LINK}]}}},
                {"widgets": [{"widget_id": "1", "output_link": LINK}]},
            ),
            (
                "sql_task",
                {
                    "sql_output": {
                        "alert_output": {"alert_state": "TRIGGERED", "output_link": LINK, "sql_statements": []}
                    }
                },
                {"alert_state": "TRIGGERED", "output_link": LINK},
            ),
            ("sql_task", {"sql_output": {}}, None),
            ("sql_task", {}, None),
            ("alert_task", {"alert_output": {"alert_state": "OK"}}, {"alert_state": "OK"}),
            ("alert_task", {}, None),
            ("run_job_task", {}, None),
            ("spark_python_task", {"logs": "printed"}, None),
        ],
        ids=str,
    )
    def test_return_what_their_output_contains(
        self, client: JobsClient, workspace: LocalWorkspace, kind: str, output: dict[str, Any], value: object
    ) -> None:
        workspace.faults.append(Fault("runs/get-output", status=200, body=output))
        assert run_result(client, described("TERMINATED", "SUCCESS", tasks=[task(kind)])) == value

    def test_dbt_returns_no_link_to_its_artifacts(
        self, client: JobsClient, workspace: LocalWorkspace, caplog: Log
    ) -> None:
        assert run_result(client, described("TERMINATED", "SUCCESS", tasks=[task("dbt_task")])) == {"run_id": 8}
        assert workspace.requests["runs/get-output"] == 0
        assert caplog.records == []

    def test_for_each_returns_the_numbers_of_iterations(self, client: JobsClient, workspace: LocalWorkspace) -> None:
        counts = {"total_iterations": 3, "succeeded_iterations": 2, "failed_iterations": 1}
        loop = task("for_each_task", stats={"task_run_stats": counts, "error_message_stats": [{"error_message": "x"}]})
        assert run_result(client, described("TERMINATED", "SUCCESS", tasks=[loop])) == counts
        # API 2.1 returned no counts at first.
        assert run_result(client, described("TERMINATED", "SUCCESS", tasks=[task("for_each_task")])) is None
        assert workspace.requests["runs/get-output"] == 0

    @pytest.mark.parametrize("several", [False, True])
    def test_run_job_returns_the_run_id_and_its_result(
        self, client: JobsClient, notebook: Write, several: bool
    ) -> None:
        tasks = [notebook("a", "dbutils.notebook.exit('[1]')"), {"task_key": "c", **CONDITION}][: 1 + several]
        job_id = client.create_job({"name": "inner", "tasks": tasks})
        run = finished(client, {"task_key": "outer", "run_job_task": {"job_id": job_id}})
        (child,) = client.list_runs(job_id=job_id)
        inner = {"a": [1], "c": "true"} if several else [1]
        assert run_result(client, run) == {"run_id": child.run_id, "result": inner}

    def test_run_job_returns_the_id_of_an_unreadable_run(
        self, client: JobsClient, workspace: LocalWorkspace, caplog: Log
    ) -> None:
        workspace.faults += [
            Fault("runs/get-output", status=200, body={"run_job_output": {"run_id": 99}}),
            Fault("runs/get", status=403, body={"message": "not yours"}),
        ]
        run = described("TERMINATED", "SUCCESS", tasks=[task("run_job_task")])
        assert run_result(client, run) == {"run_id": 99, "result": None}
        assert "output of run 99 could not be read" in caplog.text


def answers(workspace: LocalWorkspace, *results: str) -> None:
    workspace.faults += [
        Fault("runs/get-output", status=200, body={"notebook_output": {"result": text}}) for text in results
    ]


class TestSize:
    @pytest.mark.parametrize(
        ("result", "size", "value"),
        [
            ("x" * 10, 10, "x" * 10),
            ("x" * 11, 11, "x" * 10),
            (json.dumps(["12345678"]), 12, '["12345678'),
            # Not in the middle of a character.
            ("xäöüäöü", 13, "xäöüä"),
        ],
    )
    def test_large_result_is_truncated_with_a_warning(
        self, client: JobsClient, workspace: LocalWorkspace, caplog: Log, *, result: str, size: int, value: object
    ) -> None:
        answers(workspace, result)
        assert run_result(client, NOTEBOOK_RUN, max_bytes=10) == value
        warned = f"The result of run 7 has {size} bytes, more than max_result_bytes (10), so it was truncated"
        assert [message.startswith(warned) for message in caplog.messages] == [True] * (size > 10)

    def test_several_large_results_are_truncated_alike(
        self, client: JobsClient, workspace: LocalWorkspace, caplog: Log
    ) -> None:
        # The first is as large as the part of each.
        answers(workspace, "1" * 20, "x" * 50, "y" * 90)
        tasks = [task("notebook_task", key, number) for number, key in enumerate(("small", "large", "huge"), 8)]
        value = run_result(client, described("TERMINATED", "SUCCESS", tasks=tasks), max_bytes=61)
        assert value == {"small": "1" * 20, "large": "x" * 20, "huge": "y" * 20}
        assert "the results of large, huge were truncated" in caplog.text


class TestUnreadableOutput:
    def test_that_is_forbidden_or_truncated_is_a_warning(
        self, client: JobsClient, workspace: LocalWorkspace, caplog: Log
    ) -> None:
        cut = {"notebook_output": {"result": "[1, 2", "truncated": True}}
        workspace.faults += [
            Fault("runs/get-output", status=403, body={"message": "not yours"}),
            Fault("runs/get-output", status=200, body=cut),
        ]
        assert [run_result(client, NOTEBOOK_RUN) for _ in range(2)] == [None, "[1, 2"]
        forbidden, shortened = (record.getMessage() for record in caplog.records)
        assert "output of run 7 could not be read" in forbidden
        assert "not yours" in forbidden
        assert "5 MB" in shortened

    @pytest.mark.parametrize("outage", [{"cut": "before"}, {"status": 503}, {"status": 429}, {"status": 200}], ids=str)
    def test_is_retried_through_an_outage(
        self, client: JobsClient, workspace: LocalWorkspace, outage: dict[str, Any]
    ) -> None:
        clock = Clock()
        clock.rule(client)
        answer = Fault("runs/get-output", status=200, body={"notebook_output": {"result": "x"}})
        workspace.faults += [Fault("runs/get-output", times=2, **outage), answer]
        assert run_result(client.with_policy(RetryPolicy(retry_budget=0)), NOTEBOOK_RUN) == "x"
        assert len(clock.waits) == 2
