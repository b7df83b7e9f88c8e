"""A DAG that starts when a job's run ends, on a real Airflow, and what its watcher survives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import requests
from airflow_context import AIRFLOW_V_3_3_PLUS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_stack import AirflowStack, WorkspaceServer

pytestmark = [pytest.mark.airflow, pytest.mark.xdist_group("airflow-2")]

WAITS = """# Databricks notebook source
import pathlib, time
while not pathlib.Path(dbutils.widgets.get("gate")).exists():
    time.sleep(0.1)
"""

DAGS = """
from airflow.sdk import Asset, AssetWatcher, dag, task
from airflow_dbjobs.operators import DatabricksRunNowOperator
from airflow_dbjobs.triggers import DatabricksJobRunTrigger

ended = Asset("watched-job", watchers=[
    AssetWatcher(name="ended", trigger=DatabricksJobRunTrigger(job_name="watched", poll_interval=2))
])

@dag(schedule=None)
def before_the_end():
    parameters = {"day": "{{ dag_run.conf.day }}", "gate": "{{ dag_run.conf.gate }}"}
    DatabricksRunNowOperator(
        task_id="run", job_name="watched", job_parameters=parameters, polling_period_seconds=0.5, deferrable=True
    )

@dag(schedule=[ended])
def after_the_end():
    @task
    def use(triggering_asset_events=None):
        return [event.extra["payload"] for event in triggering_asset_events[ended]]
    use()

before_the_end()
after_the_end()
"""


class Watching:
    """A DAG that is scheduled by the ends of the job "watched", whose runs last until their gate is opened."""

    def __init__(self, airflow: AirflowStack, workspace: WorkspaceServer, gates: Path) -> None:
        self.airflow, self.workspace, self._gates = airflow, workspace, gates
        self.job_id = 0

    def begin(self) -> None:
        self.workspace.root.joinpath("waits.py").write_text(WAITS)
        parameters = [{"name": name, "default": ""} for name in ("day", "gate")]
        notebook = {"notebook_path": "/waits", "base_parameters": {"gate": "{{job.parameters.gate}}"}}
        settings = {"name": "watched", "parameters": parameters, "max_concurrent_runs": 9}
        tasks = [{"task_key": "wait", "notebook_task": notebook}]
        self.job_id = self.workspace.call("POST", "jobs/create", {**settings, "tasks": tasks})["job_id"]
        self.airflow.add_dag("job_run_events.py", DAGS)
        self.airflow.watch("after_the_end", "Watching job 'watched', from now on")

    def gate(self, name: str) -> str:
        return str(self._gates / name)

    def open(self, *names: str) -> None:
        for name in names:
            (self._gates / name).touch()

    def run(self, name: str) -> int:
        """Begin a run of the job that lasts until its gate is opened."""
        body = {"job_id": self.job_id, "job_parameters": {"day": name, "gate": self.gate(name)}}
        return int(self.workspace.call("POST", "jobs/run-now", body)["run_id"])

    def payloads(self) -> list[dict[str, Any]]:
        """Return what the asset's events carry."""
        return self.airflow.wait_for("the list of events", self._payloads, 60)

    def _payloads(self) -> list[dict[str, Any]] | None:
        try:
            events = self.airflow.api.call("GET", "assets/events", params={"limit": 100})
        except requests.HTTPError as error:
            # Airflow cannot list an event whose DAG run has not started yet.
            if error.response.status_code == requests.codes.server_error:
                return None
            raise
        return [event["extra"]["payload"] for event in events["asset_events"] if event["name"] == "watched-job"]

    def wait_for_events(self, *run_ids: int) -> None:
        """Wait until the ends of these runs, and of no others, are events, each once."""

        def are_there() -> bool | None:
            found = [payload["run_id"] for payload in self.payloads()]
            assert len(set(found)) == len(found), "an end has two events"
            return set(run_ids) <= set(found) or None

        self.airflow.wait_for("the events", are_there, 90)
        assert sorted(payload["run_id"] for payload in self.payloads()) == sorted(run_ids)

    def is_over(self, run_id: int) -> bool | None:
        run = self.workspace.call("GET", f"jobs/runs/get?run_id={run_id}")
        return run["state"]["life_cycle_state"] == "TERMINATED" or None


@pytest.fixture(scope="module")
def watching(
    airflow: AirflowStack, workspace_server: WorkspaceServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watching]:
    watching = Watching(airflow, workspace_server, tmp_path_factory.mktemp("gates"))
    watching.begin()
    yield watching
    (airflow.dags_folder / "job_run_events.py").unlink()


@pytest.mark.every_airflow
def test_the_end_of_a_run_starts_a_dag_with_its_parameters(watching: Watching) -> None:
    airflow = watching.airflow
    watching.open("chain")
    before = airflow.run_dag("before_the_end", {"day": "2026-01-01", "gate": watching.gate("chain")})
    assert before.state == "success"

    def started() -> Any:
        return airflow.api.runs_of("after_the_end") or None

    (after,) = airflow.wait_for_runs(airflow.wait_for("the DAG to start", started, 60))
    assert after.state == "success"
    # It may have ended before it was seen for the first time.
    after = airflow.api.dag_run(after)
    (payload,) = airflow.api.xcom(after.task("use"))
    assert payload["run_id"] == airflow.api.xcom(before.task("run"), "run_id")
    assert (payload["job_id"], payload["result"]) == (watching.job_id, "SUCCESS")
    assert payload["job_parameters"] == {"day": "2026-01-01", "gate": watching.gate("chain")}


@pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="Airflow 3.3 introduced the store in which watchers remember")
def test_each_end_is_one_event_although_a_triggerer_is_killed(watching: Watching) -> None:
    """Another triggerer takes over, and then there are two again."""
    airflow = watching.airflow
    earlier = [payload["run_id"] for payload in watching.payloads()]
    seen, unseen = watching.run("seen"), watching.run("unseen")
    watching.open("seen")
    watching.wait_for_events(*earlier, seen)
    airflow.start("triggerer-2")
    try:
        # What the watcher has seen is stored a moment after the event.
        airflow.wait_for("the event to be remembered", lambda: str(seen) in stored(airflow) or None, 30)
        airflow.kill("triggerer")
        brief = watching.run("brief")
        watching.open("unseen", "brief")
        for run_id in (unseen, brief):
            airflow.wait_for("the runs to end", lambda run_id=run_id: watching.is_over(run_id), 60)
        watching.wait_for_events(*earlier, seen, unseen, brief)
        airflow.start("triggerer")
        last = watching.run("last")
        watching.open("last")
        watching.wait_for_events(*earlier, seen, unseen, brief, last)
    finally:
        # It comes back for the tests after this one.
        if "triggerer" not in airflow.processes.names:
            airflow.start("triggerer")
        airflow.stop("triggerer-2")


def stored(airflow: AirflowStack) -> str:
    """Return what is stored for the asset."""
    assets = airflow.api.call("GET", "assets", params={"limit": 100})["assets"]
    (asset_id,) = [asset["id"] for asset in assets if asset["name"] == "watched-job"]
    return str(airflow.api.call("GET", f"assets/{asset_id}/state-store"))
