"""launch: one run for each request, however often it is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_dbjobs.launch import LaunchRequest, launch

if TYPE_CHECKING:
    from airflow_dbjobs.client import JobsClient
    from airflow_dbjobs.launch import Endpoint

TASK = {"condition_task": {"op": "EQUAL_TO", "left": "1", "right": "1"}}


def test_every_request_gets_a_token_of_its_own() -> None:
    payload = {"job_id": 5}
    tokens = {LaunchRequest.new("run-now", payload).payload["idempotency_token"] for _ in range(3)}
    assert len(tokens) == 3
    assert all(token.startswith("airflow-") and len(token) <= 64 for token in tokens)
    assert payload == {"job_id": 5}, "the caller's payload stays as it is"
    assert LaunchRequest.new("run-now", {"idempotency_token": ""}).payload["idempotency_token"]


def test_a_token_that_was_given_is_sent_as_it_is() -> None:
    payload = {"job_id": 5, "idempotency_token": "mine"}
    assert LaunchRequest.new("run-now", payload) == LaunchRequest("run-now", payload)


@pytest.mark.parametrize("endpoint", ["run-now", "runs/submit"])
def test_a_request_launches_one_run_however_often_it_is_sent(client: JobsClient, endpoint: Endpoint) -> None:
    job_id = client.create_job({"name": "nightly", **TASK})
    payload = {"job_id": job_id} if endpoint == "run-now" else {"tasks": [{"task_key": "a", **TASK}]}
    request = LaunchRequest.new(endpoint, payload)
    run_id = launch(client, request)
    assert launch(client, request) == run_id
    assert [run.run_id for run in client.list_runs()] == [run_id]
    assert launch(client, LaunchRequest.new(endpoint, payload)) != run_id
