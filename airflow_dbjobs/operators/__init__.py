"""The operators of a DAG: launch a run or create a job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_dbjobs import lazy_names

if TYPE_CHECKING:
    from airflow_dbjobs.operators.create_jobs import DatabricksCreateJobsOperator
    from airflow_dbjobs.operators.run_now import DatabricksRunNowOperator
    from airflow_dbjobs.operators.submit_run import DatabricksSubmitRunOperator
else:
    __getattr__ = lazy_names(
        {
            "DatabricksSubmitRunOperator": "airflow_dbjobs.operators.submit_run",
            "DatabricksRunNowOperator": "airflow_dbjobs.operators.run_now",
            "DatabricksCreateJobsOperator": "airflow_dbjobs.operators.create_jobs",
        }
    )

__all__ = ["DatabricksCreateJobsOperator", "DatabricksRunNowOperator", "DatabricksSubmitRunOperator"]
