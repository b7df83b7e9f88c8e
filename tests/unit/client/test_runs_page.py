"""A page of ``runs/list``: what a poller reads of it, and what it refuses."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from rude_server import reply, serving

from airflow_dbjobs.client import JobsClient
from airflow_dbjobs.client.models import RunState
from airflow_dbjobs.client.retry import RetryPolicy
from airflow_dbjobs.errors import UnreadableReply

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_dbjobs.client.runs_page import RunsPage

DEEP = 100_000


def read(body: str | bytes) -> RunsPage:
    raw = body.encode() if isinstance(body, str) else body
    with serving(lambda _: [reply(raw=raw)]) as server:
        return JobsClient(server.url, token="t", retry=RetryPolicy(retry_budget=0.0)).poll_runs(limit=0)


class TestReadable:
    @pytest.mark.parametrize(
        ("body", "run_ids"),
        [
            ("{}", set()),
            ('{"runs": null, "next_page_token": null}', set()),
            ('\ufeff {"runs" :[ {"run_id": "7"}, {"tasks": [{"run_id": 9}], "run_id": 8}] }', {7, 8}),
            ('{"runs": [{"run_id": 7}, {"run_id": 7}]}', {7}),
        ],
    )
    def test_page_has_the_runs_of_its_list_only(self, body: str, run_ids: set[int]) -> None:
        page = read(body)
        assert page.states.keys() == run_ids
        assert not page.has_more

    @pytest.mark.parametrize("fields", [{"has_more": True}, {"next_page_token": "a"}])
    def test_page_may_have_more(self, fields: Mapping[str, object]) -> None:
        page = read(json.dumps({"runs": [], **fields}))
        assert page.has_more
        assert page.next_page_token == fields.get("next_page_token", "")

    def test_states_are_those_of_single_runs(self) -> None:
        details = {"code": "CLUSTER_ERROR", "type": "CLOUD_FAILURE", "message": "no spot capacity", "other": 1}
        runs = [
            {
                "run_id": 1,
                "state": {
                    "life_cycle_state": "TERMINATING",
                    "result_state": "CANCELED",
                    "state_message": "stopping",
                    "user_cancelled_or_timedout": True,
                },
            },
            {"run_id": 2, "status": {"state": "TERMINATED", "termination_details": details}},
            {"run_id": 3, "state": {"life_cycle_state": "QUEUED"}, "status": {"state": "QUEUED"}, "settings": {}},
        ]
        states = read(json.dumps({"runs": runs})).states
        assert [states[run_id] for run_id in (1, 2, 3)] == [RunState.from_json(run) for run in runs]


class TestUnreadable:
    @pytest.mark.parametrize(
        "body",
        [
            "",
            "[]",
            b'\xff{"runs": []}',
            '{"runs": []} {}',
            '{"runs": [{"run_id": 7},]}',
            '{"runs": [{"run_id": 7}',
            '{"runs": [{}]}',
            '{"runs": [{"run_id": 7.0}]}',
            '{"runs": [{"run_id": NaN}]}',
            '{"runs": [{"run_id": true}]}',
            '{"runs": [{"run_id": 9223372036854775808}]}',
            '{"runs": [{"run_id": 1%s}]}' % ("0" * 5000),
            '{"runs": [[]]}',
            '{"runs": {"run_id": 7}}',
            '{"runs": 7}',
            '{"runs": [], "next_page_token": ["a"]}',
            '{"run_id": 7, "state": {"life_cycle_state": "RUNNING"}}',
            '{"runs": [{"run_id": 7, "state": %s}]}' % ("[" * DEEP + "]" * DEEP),
        ],
        ids=lambda body: str(body[:40]),
    )
    def test_what_is_no_page_is_an_unreadable_reply(self, body: str | bytes) -> None:
        with pytest.raises(UnreadableReply):
            read(body)

    def test_so_is_a_state_nested_too_deep_to_compare(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # An error of another kind would end the poller.
        client, deep = JobsClient("https://one.example", token="t"), []
        for _ in range(DEEP):
            deep = [deep]
        monkeypatch.setattr(client.transport, "send", lambda *_, **__: {"runs": [{"run_id": 7, "state": deep}]})
        with pytest.raises(UnreadableReply):
            client.poll_runs(limit=0)
