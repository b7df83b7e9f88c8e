"""Writes deferred tasks and their triggers into Airflow's database, for polling_triggerer.py.

A process of its own, since Airflow's settings are read when it is imported. The DAG, of one task, must be there.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.models.dagbag import DBDagBag
from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from airflow.providers.standard.triggers.temporal import DateTimeTrigger
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState, TaskInstanceState
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from polling_case import make_trigger
from sqlalchemy import delete, update

if TYPE_CHECKING:
    from airflow.triggers.base import BaseTrigger


def main() -> None:
    """Write what the file that is named on the command line says."""
    wanted = json.loads(Path(sys.argv[1]).read_text())
    now = datetime.now(UTC)
    with create_session() as session:
        # What the stage before has left.
        session.execute(update(TaskInstance).values(state=TaskInstanceState.SUCCESS, trigger_id=None))
        session.execute(delete(Trigger))
        dag: Any = DBDagBag().get_latest_version_of_dag(wanted["dag_id"], session=session)
        for run_id in wanted["run_ids"]:
            dag_run = dag.create_dagrun(
                run_id=f"{wanted['name']}_{run_id}",
                run_after=now,
                run_type=DagRunType.MANUAL,
                triggered_by=DagRunTriggeredByType.TEST,
                state=DagRunState.RUNNING,
                session=session,
            )
            trigger = Trigger.from_object(wanted_trigger(wanted, run_id))
            session.add(trigger)
            session.flush()
            (task,) = dag_run.get_task_instances(session=session)
            # As it is when a worker has deferred it.
            task.state, task.trigger_id, task.try_number = TaskInstanceState.DEFERRED, trigger.id, 1
            task.next_method, task.next_kwargs = "execute_complete", {}


def wanted_trigger(wanted: dict[str, Any], run_id: int) -> BaseTrigger:
    """Return a provider's trigger, or one that sleeps."""
    if wanted["name"] == "sleeping":
        return DateTimeTrigger(datetime.now(UTC) + timedelta(days=1))
    return make_trigger(wanted["name"], run_id, wanted["period"])


if __name__ == "__main__":
    main()
