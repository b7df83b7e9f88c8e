"""The link "Databricks run" of a task in the Airflow UI, which exists from the launch on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_dbjobs import airflow_compat
from airflow_dbjobs.airflow_compat import AIRFLOW_V_3_0_PLUS, BaseOperatorLink

if TYPE_CHECKING:
    from airflow_dbjobs.airflow_compat import BaseOperator, TaskInstanceKey

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
        return str(xcom.get_value(key=XCOM_KEY, ti_key=ti_key) or "")


def push_link(task_instance: Any, url: str) -> None:
    """Store the link now, because Airflow 3 itself only stores it at the end of the task."""
    if AIRFLOW_V_3_0_PLUS:
        airflow_compat.store_xcom(task_instance, XCOM_KEY, url)
    else:
        task_instance.xcom_push(key=XCOM_KEY, value=url)
