"""The triggers that wait for runs in the triggerer, for deferred tasks and for asset watchers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_dbjobs import lazy_names

if TYPE_CHECKING:
    from airflow_dbjobs.triggers.condition import DatabricksSensorTrigger
    from airflow_dbjobs.triggers.job_run import DatabricksJobRunTrigger
    from airflow_dbjobs.triggers.run import DatabricksRunTrigger
else:
    __getattr__ = lazy_names(
        {
            "DatabricksJobRunTrigger": "airflow_dbjobs.triggers.job_run",
            "DatabricksRunTrigger": "airflow_dbjobs.triggers.run",
            "DatabricksSensorTrigger": "airflow_dbjobs.triggers.condition",
        }
    )

__all__ = ["DatabricksJobRunTrigger", "DatabricksRunTrigger", "DatabricksSensorTrigger"]
