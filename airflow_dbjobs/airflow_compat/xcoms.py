"""XComs that are stored or read at once, from a worker or a triggerer."""

from __future__ import annotations

from typing import Any

from airflow_dbjobs.airflow_compat import AIRFLOW_V_3_0_PLUS


def store_xcom(task_instance: Any, key: str, value: Any, *, task_id: str = "") -> None:
    """Store an XCom of a task now, on Airflow 3 in Airflow's database even if there is a custom XCom backend.

    A value that is stored already is replaced. `task_id` names another task of the same DAG run, which is not mapped.
    """
    _backend().set(key=key, value=value, **_where(task_instance, task_id))


def read_xcom(task_instance: Any, key: str, *, task_id: str) -> Any:
    """Return an XCom that `store_xcom` stored for another task of the same DAG run; None if there is none."""
    return _backend().get_one(key=key, **_where(task_instance, task_id))


def _backend() -> Any:
    if AIRFLOW_V_3_0_PLUS:
        from airflow.sdk.bases.xcom import BaseXCom

        return BaseXCom
    from airflow_dbjobs.airflow_compat import XCom

    return XCom


def _where(task_instance: Any, task_id: str) -> dict[str, Any]:
    return {
        "dag_id": task_instance.dag_id,
        "task_id": task_id or task_instance.task_id,
        "run_id": task_instance.run_id,
        # Airflow knows no None here.
        "map_index": -1 if task_id or task_instance.map_index is None else task_instance.map_index,
    }
