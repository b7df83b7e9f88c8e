"""Many simulated runs at once: starting and ending them, and the pages of their list."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING

import pytest

from airflow_dbjobs.local_workspace import LocalWorkspace

from .conftest import Advance, Clock, mounted
from .support import NOTEBOOK, SIMULATED_SECONDS, TOKEN, Client, results, state

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def client(simulated: LocalWorkspace) -> Client:
    return mounted(simulated)


class TestBulk:
    def test_runs_start_at_once_and_end_as_requested(self, client: Client, clock: Clock, advance: Advance) -> None:
        ids = client.post("/api/local/runs", count=30, seconds=4, result="FAILED")["run_ids"]
        assert len(set(ids)) == 30
        assert {state(client, run_id) for run_id in ids} == {("RUNNING", None)}
        advance(3.9)
        assert {state(client, run_id) for run_id in ids} == {("RUNNING", None)}
        advance(0.1)
        assert {state(client, run_id) for run_id in ids} == {("TERMINATED", "FAILED")}
        assert client.get("runs/get", run_id=ids[0])["end_time"] == round(clock.now * 1000)

    def test_default_is_the_workspaces_time(self, client: Client, advance: Advance) -> None:
        (run_id,) = client.post("/api/local/runs", count=1)["run_ids"]
        advance(SIMULATED_SECONDS - 0.1)
        assert state(client, run_id) == ("RUNNING", None)
        advance(0.1)
        assert state(client, run_id) == ("TERMINATED", "SUCCESS")

    def test_list_entries_have_a_realistic_size(self, client: Client) -> None:
        client.post("/api/local/runs", count=3, seconds=4)
        for entry in client.get("runs/list", version="2.0")["runs"]:
            assert entry["cluster_spec"]["new_cluster"]["spark_version"]
            assert 1200 < len(json.dumps(entry)) < 1800

    @pytest.mark.parametrize(
        ("body", "name"),
        [
            ({}, "count"),
            *[({"count": count}, "count") for count in (0, -1, 100_001, "3", 1.5, True, [1])],
            *[({"count": 1, "seconds": seconds}, "seconds") for seconds in (-1, "3", True, 1e9)],
            *[({"count": 1, "result": result}, "result") for result in ("CANCELED", 1)],
            ({"count": 1, "second": 1}, "second"),
        ],
    )
    def test_invalid_field_is_named(self, client: Client, body: dict, name: str) -> None:
        response = client.send("POST", "/api/local/runs", data=json.dumps(body))
        assert response.status_code == 400
        assert f"'{name}'" in response.json()["message"]
        assert client.get("runs/list") == {}

    def test_runs_end_at_the_same_time(
        self, client: Client, simulated: LocalWorkspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ids = simulated.create_runs(20, seconds=100)
        # A run that has not started yet ends as well.
        ids.append(client.submit(**NOTEBOOK))
        times = itertools.count(simulated._clock() + 1, 0.001)
        monkeypatch.setattr(simulated, "_clock", lambda: next(times))
        end_time = client.post("/api/local/end-runs", run_ids=ids[10:], result="FAILED")["end_time"]
        shown = [client.get("runs/get", run_id=run_id) for run_id in ids]
        assert {run["end_time"] for run in shown[10:]} == {end_time}
        assert {run["state"]["result_state"] for run in shown[10:]} == {"FAILED"}
        assert {run["state"]["life_cycle_state"] for run in shown[:10]} == {"RUNNING"}
        assert simulated.end_runs(ids[:10]) > end_time
        assert {state(client, run_id) for run_id in ids[:10]} == {("TERMINATED", "SUCCESS")}

    def test_refused_request_ends_nothing(self, client: Client, simulated: LocalWorkspace, advance: Advance) -> None:
        ended, good = simulated.create_runs(2, seconds=50)
        simulated.end_runs([ended])
        tasks = [{"task_key": "a", **NOTEBOOK}, {"task_key": "b", **NOTEBOOK, "depends_on": [{"task_key": "a"}]}]
        graph = client.submit(tasks=tasks)
        advance(0)
        for run_ids, result, message in (
            ([good, 7], "SUCCESS", "Run 7 does not exist."),
            ([good, ended], "SUCCESS", f"Run {ended} has already ended."),
            ([good, good], "SUCCESS", f"Run {good} has already ended."),
            ([good, graph], "SUCCESS", f"Run {graph} cannot end now"),
            ([good], "CANCELED", "'result'"),
            (good, "SUCCESS", "'run_ids'"),
            ([str(good)], "SUCCESS", "'run_ids'"),
        ):
            error = client.refused("POST", "/api/local/end-runs", {"run_ids": run_ids, "result": result})
            assert message in error["message"]
            assert state(client, good) == ("RUNNING", None)
        assert results(client.get("runs/get", run_id=graph)) == {"a": "", "b": ""}
        advance(50)
        assert state(client, good) == ("TERMINATED", "SUCCESS")

    def test_needs_a_simulating_workspace(self, stepped: LocalWorkspace) -> None:
        for path, body in (("runs", {"count": 1}), ("runs", {}), ("end-runs", {"run_ids": []})):
            error = mounted(stepped).refused("POST", f"/api/local/{path}", body)
            assert "--simulate" in error["message"]

    def test_needs_the_token(self, simulated: LocalWorkspace) -> None:
        client = mounted(simulated)
        client.session.headers["Authorization"] = "Bearer guessed"
        assert client.send("POST", "/api/local/runs", json={"count": 1}).status_code == 403


class TestPages:
    @pytest.mark.parametrize(("max_page", "old", "new"), [(7, 7, 7), (30, 30, 25)])
    def test_max_page_limits_their_size(self, root: Path, clock: Clock, max_page: int, old: int, new: int) -> None:
        ws = LocalWorkspace(root, token=TOKEN, clock=clock, simulate=SIMULATED_SECONDS, max_page=max_page)
        client = mounted(ws)
        ids = ws.create_runs(40)
        for version, largest in (("2.0", old), ("2.1", new), ("2.2", new)):
            for limit in (0, largest):
                shown = client.get("runs/list", limit=limit, version=version)["runs"]
                assert [run["run_id"] for run in shown] == ids[::-1][:largest]
            error = client.refused("GET", "runs/list", {"limit": largest + 1}, version=version)
            assert f"between 0 and {largest}" in error["message"]
            assert len(client.get("runs/list", version=version)["runs"]) == min(20, largest)
        ws.close()

    def test_cover_all_runs_both_ways(self, client: Client, simulated: LocalWorkspace, advance: Advance) -> None:
        ids = simulated.create_runs(60, seconds=100)
        simulated.end_runs(ids[::2])
        pages = [client.get("runs/list", limit=7, active_only=True)]
        while token := pages[-1].get("next_page_token"):
            pages.append(client.get("runs/list", limit=7, active_only=True, page_token=token))
        assert [run["run_id"] for page in pages for run in page["runs"]] == ids[::-1][::2]
        back = client.get("runs/list", limit=7, active_only=True, page_token=pages[2]["prev_page_token"])
        assert back["runs"] == pages[1]["runs"]
