"""The hook, which makes a JobsClient from an Airflow connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_dbjobs import lazy_names

if TYPE_CHECKING:
    from airflow_dbjobs.hooks.jobs import DatabricksJobsHook
else:
    __getattr__ = lazy_names({"DatabricksJobsHook": "airflow_dbjobs.hooks.jobs"})

__all__ = ["DatabricksJobsHook"]
