"""The Jobs API over HTTP. It needs no Airflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_dbjobs import lazy_names

if TYPE_CHECKING:
    from airflow_dbjobs.client.jobs_client import JobsClient
else:
    __getattr__ = lazy_names({"JobsClient": "airflow_dbjobs.client.jobs_client"})

__all__ = ["JobsClient"]
