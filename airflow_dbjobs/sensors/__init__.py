"""The sensors of a DAG: wait for runs that others launched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_dbjobs import lazy_names

if TYPE_CHECKING:
    from airflow_dbjobs.sensors.job_idle import DatabricksJobIdleSensor
    from airflow_dbjobs.sensors.run import DatabricksRunSensor
else:
    __getattr__ = lazy_names(
        {
            "DatabricksRunSensor": "airflow_dbjobs.sensors.run",
            "DatabricksJobIdleSensor": "airflow_dbjobs.sensors.job_idle",
        }
    )

__all__ = ["DatabricksJobIdleSensor", "DatabricksRunSensor"]
