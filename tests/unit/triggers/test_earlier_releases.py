"""Tasks that an earlier release of this package has deferred resume with this one.

The literals are what that release wrote to Airflow's database: class paths and arguments of triggers, and how to
resume the task.
"""

from __future__ import annotations

import pkgutil
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from airflow.models.trigger import Trigger
from airflow_context import FAST, Scene, fire, submit

from airflow_dbjobs.sensors import DatabricksJobIdleSensor, DatabricksRunSensor

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_dbjobs.client import JobsClient
    from airflow_dbjobs.local_workspace import LocalWorkspace

PAGE = "https://example.com/run"
# Before the modules were sorted into folders.
RUN_TRIGGER = "airflow_dbjobs.triggers.DatabricksRunTrigger"
SENSOR_TRIGGER = "airflow_dbjobs.sensor_trigger.DatabricksSensorTrigger"
COMMON = {"databricks_conn_id": "databricks_default", "run_page_url": PAGE, "deadline": None}


def stored(classpath: str, **arguments: Any) -> Any:
    """Return a trigger as the triggerer makes it from its row in Airflow's database."""
    row = Trigger(classpath=classpath, kwargs={**COMMON, **arguments})
    return pkgutil.resolve_name(row.classpath)(**Trigger._decrypt_kwargs(row.encrypted_kwargs))


@pytest.fixture
def run_id(client: JobsClient) -> int:
    return client.submit_run({"condition_task": {"op": "EQUAL_TO", "left": "1", "right": "1"}})


def resumed(scene: Scene, make: Callable[[], Any], event: Any, **kwargs: Any) -> Any:
    """Resume a task as a worker does, with what the deferral has stored for it."""
    scene.ti.deferred = True
    scene.new_process()
    return partial(make().resume_execution, "execute_complete", {**kwargs, "try_number": 1, "event": event})(
        scene.context
    )


class TestRelease010:
    def test_operator_resumes(self, scene: Scene, workspace: LocalWorkspace, run_id: int) -> None:
        trigger = stored(RUN_TRIGGER, run_id=run_id, polling_period_seconds=FAST, cancel_on_kill=True)
        event = fire(trigger)
        launched = workspace.requests["runs/submit"]
        resumed(
            scene,
            lambda: submit(deferrable=True, notebook_task={"notebook_path": "/a"}),
            event,
            joined=False,
            deadline=None,
            run_id=run_id,
            run_page_url=PAGE,
            launch_of=["", 1],
        )
        assert workspace.requests["runs/submit"] == launched

    def test_sensor_of_a_run_resumes(self, scene: Scene, run_id: int) -> None:
        trigger = stored(RUN_TRIGGER, run_id=run_id, polling_period_seconds=FAST, cancel_on_kill=False)
        make = partial(DatabricksRunSensor, task_id="wait", run_id=run_id, deferrable=True)
        resumed(scene, make, fire(trigger), deadline=None, until=None)

    def test_sensor_of_a_task_resumes(self, scene: Scene, client: JobsClient, run_id: int) -> None:
        condition = {
            "kind": "run",
            "job_id": None,
            "job_name": None,
            "job_exists": False,
            "chosen": run_id,
            "since": None,
            "task_key": "Untitled",
            "states": ["SUCCESS"],
        }
        make = partial(
            DatabricksRunSensor, task_id="wait", run_id=run_id, task_key="Untitled", states=["SUCCESS"], deferrable=True
        )
        event = fire(stored(SENSOR_TRIGGER, condition=condition, poke_interval=FAST))
        assert event["met"] is True
        resumed(scene, make, event, deadline=None, until=None)

    def test_sensor_of_an_idle_job_resumes(self, scene: Scene, client: JobsClient) -> None:
        job_id = client.create_job({"name": "nightly"})
        condition = {"kind": "idle", "job_id": job_id, "job_name": None, "job_exists": True}
        event = fire(stored(SENSOR_TRIGGER, condition=condition, poke_interval=FAST))
        assert event["met"] is True
        make = partial(DatabricksJobIdleSensor, task_id="wait", job_id=job_id, deferrable=True)
        resumed(scene, make, event, deadline=None, until=None)
