"""What leads from a task to its run: the link "Databricks run" in the Airflow UI, from the launch on, and XComs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_dbjobs import airflow_compat
from airflow_dbjobs.airflow_compat import AIRFLOW_V_3_0_PLUS, BaseOperatorLink

if TYPE_CHECKING:
    from airflow_dbjobs.airflow_compat import BaseOperator, TaskInstanceKey

# The keys of the XComs with which a task says what its run is. DAG files and subclasses import them.
XCOM_RUN_ID_KEY = "run_id"
XCOM_JOB_ID_KEY = "job_id"
XCOM_RUN_PAGE_URL_KEY = "run_page_url"

# Airflow 3 reads the link from the XCom of this name. Airflow 2 calls `get_link`, which reads the same XCom.
XCOM_KEY = "_link_DatabricksRunLink"


class DatabricksRunLink(BaseOperatorLink):
    """Opens the page of the run that a task launched or waits for."""

    name = "Databricks run"

    @property
    def xcom_key(self) -> str:
        """The key of the XCom that contains the URL."""
        return XCOM_KEY

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the URL of the run's page, "" if the task has no run."""
        # At the end of a task, Airflow 3 calls this in the task's process, where the operator has the URL.
        url = getattr(operator, "run_page_url", None)
        if url is not None:
            return str(url)
        xcom: Any = airflow_compat.BaseXCom if AIRFLOW_V_3_0_PLUS else airflow_compat.XCom
        # An operator that is not ours, but has this link, pushes only the page.
        keys = (XCOM_KEY, XCOM_RUN_PAGE_URL_KEY)
        return next((str(url) for key in keys if (url := xcom.get_value(key=key, ti_key=ti_key))), "")


# The name that the official provider's link has.
DatabricksJobRunLink = DatabricksRunLink


def push_run(task_instance: Any, run_id: int, job_id: int | None, page_url: str) -> None:
    """Push the XComs that say which run the task has."""
    values = {XCOM_RUN_ID_KEY: run_id, XCOM_JOB_ID_KEY: job_id, XCOM_RUN_PAGE_URL_KEY: page_url}
    for key, value in values.items():
        task_instance.xcom_push(key=key, value=value)


def push_link(task_instance: Any, url: str) -> None:
    """Store the link now, because Airflow 3 itself only stores it at the end of the task."""
    if AIRFLOW_V_3_0_PLUS:
        from airflow_dbjobs.airflow_compat.xcoms import store_xcom

        store_xcom(task_instance, XCOM_KEY, url)
    else:
        task_instance.xcom_push(key=XCOM_KEY, value=url)
