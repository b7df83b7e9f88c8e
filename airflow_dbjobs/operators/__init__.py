"""The operators of a DAG, which launch a run or create a job, and the task group that is one job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_dbjobs import lazy_names

if TYPE_CHECKING:
    from airflow_dbjobs.links import XCOM_JOB_ID_KEY, XCOM_RUN_ID_KEY, XCOM_RUN_PAGE_URL_KEY, DatabricksJobRunLink
    from airflow_dbjobs.operators.create_jobs import DatabricksCreateJobsOperator
    from airflow_dbjobs.operators.notebook import DatabricksNotebookOperator
    from airflow_dbjobs.operators.run_now import DatabricksRunNowOperator
    from airflow_dbjobs.operators.submit_run import DatabricksSubmitRunOperator
    from airflow_dbjobs.operators.task import DatabricksTaskOperator
    from airflow_dbjobs.operators.workflow.group import DatabricksWorkflowTaskGroup
else:
    # These are here because DAG files import them from the official provider's operators.
    _LINKS = ("XCOM_JOB_ID_KEY", "XCOM_RUN_ID_KEY", "XCOM_RUN_PAGE_URL_KEY", "DatabricksJobRunLink")
    __getattr__ = lazy_names(
        {
            "DatabricksSubmitRunOperator": "airflow_dbjobs.operators.submit_run",
            "DatabricksRunNowOperator": "airflow_dbjobs.operators.run_now",
            "DatabricksCreateJobsOperator": "airflow_dbjobs.operators.create_jobs",
            "DatabricksNotebookOperator": "airflow_dbjobs.operators.notebook",
            "DatabricksTaskOperator": "airflow_dbjobs.operators.task",
            "DatabricksWorkflowTaskGroup": "airflow_dbjobs.operators.workflow",
            **dict.fromkeys(_LINKS, "airflow_dbjobs.links"),
        }
    )

__all__ = [
    "XCOM_JOB_ID_KEY",
    "XCOM_RUN_ID_KEY",
    "XCOM_RUN_PAGE_URL_KEY",
    "DatabricksCreateJobsOperator",
    "DatabricksJobRunLink",
    "DatabricksNotebookOperator",
    "DatabricksRunNowOperator",
    "DatabricksSubmitRunOperator",
    "DatabricksTaskOperator",
    "DatabricksWorkflowTaskGroup",
]
