"""Faults: how requests fail, and what the server has done nevertheless."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import requests

from airflow_dbjobs.local_workspace import Fault, LocalWorkspace

if TYPE_CHECKING:
    from .support import Client

QUICK = {"spark_python_task": {"python_file": "/quick.py"}}


def submit(client: Client) -> requests.Response:
    return client.send("POST", "runs/submit", json=QUICK, timeout=5)


def count_runs(client: Client) -> int:
    return len(client.get("runs/list").get("runs", []))


class TestFault:
    def test_status_replaces_the_reply(self, client: Client, workspace: LocalWorkspace) -> None:
        workspace.faults.append(
            Fault("runs/submit", status=429, headers={"Retry-After": "3"}, body={"error_code": "X"})
        )
        response = submit(client)
        assert response.status_code == 429
        assert response.headers["retry-after"] == "3"
        assert response.json() == {"error_code": "X"}
        assert count_runs(client) == 0
        assert submit(client).status_code == 200

    def test_handled_request_gets_an_error(self, client: Client, workspace: LocalWorkspace) -> None:
        workspace.faults.append(Fault("runs/submit", status=504, body="<html>", handled=True))
        response = submit(client)
        assert (response.status_code, response.text) == (504, "<html>")
        assert count_runs(client) == 1

    @pytest.mark.parametrize(("cut", "runs"), [("before", 0), ("after", 1)])
    def test_cut_drops_the_connection(self, client: Client, workspace: LocalWorkspace, cut, runs: int) -> None:
        workspace.faults.append(Fault("runs/submit", cut=cut))
        with pytest.raises(requests.exceptions.ConnectionError):
            submit(client)
        assert count_runs(client) == runs

    def test_hang_delays_the_reply(self, client: Client, workspace: LocalWorkspace) -> None:
        workspace.faults += [Fault("runs/submit", hang=6), Fault("runs/submit", hang=4)]
        with pytest.raises(requests.exceptions.ReadTimeout):
            submit(client)
        assert submit(client).status_code == 200
        assert count_runs(client) == 2

    def test_times_skip_and_patterns(self, client: Client, workspace: LocalWorkspace) -> None:
        workspace.faults.append(Fault("runs/*", status=503, times=2, skip=1))
        statuses = [
            client.send("GET", operation).status_code for operation in ["runs/list", "list", *["runs/list"] * 3]
        ]
        assert statuses == [200, 200, 503, 503, 200]
        workspace.faults.append(Fault(status=500, times=None))
        assert {client.send("GET", "list").status_code for _ in range(5)} == {500}


class TestFaultsOverHttp:
    def test_can_be_set_cleared_and_counted(self, client: Client, workspace: LocalWorkspace) -> None:
        client.post("/api/local/faults", operation="list", status=500, times=None)
        client.post("/api/local/faults", faults=[{"status": 503}, {"cut": "after", "operation": "get"}])
        assert client.send("GET", "list").status_code == 500
        assert client.send("GET", "runs/list").status_code == 503
        assert client.send("DELETE", "/api/local/faults").json() == {}
        assert client.send("GET", "list").status_code == 200
        assert client.get("/api/local/requests") == {"requests": {"list": 2, "runs/list": 1}}
        assert workspace.requests["list"] == 2

    @pytest.mark.parametrize(
        "fault",
        [
            {},
            {"statsu": 500},
            {"cut": "between"},
            {"status": "500"},
            {"hang": "long"},
            {"status": 500, "times": "twice"},
            {"faults": 5},
            {"faults": [5]},
        ],
    )
    def test_invalid_fault_is_refused(self, client: Client, fault: dict) -> None:
        client.refused("POST", "/api/local/faults", fault)
