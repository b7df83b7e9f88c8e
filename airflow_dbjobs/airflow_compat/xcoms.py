"""XComs that are stored at once, from a worker or a triggerer."""

from __future__ import annotations

from typing import Any


def store_xcom(task_instance: Any, key: str, value: Any) -> None:
    """Store an XCom of a task now, on Airflow 3: in Airflow's database, even if there is a custom XCom backend.

    A value that is stored already is replaced.
    """
    from airflow.sdk.bases.xcom import BaseXCom

    BaseXCom.set(
        key=key,
        value=value,
        dag_id=task_instance.dag_id,
        task_id=task_instance.task_id,
        run_id=task_instance.run_id,
        # Airflow knows no None here.
        map_index=-1 if task_instance.map_index is None else task_instance.map_index,
    )
