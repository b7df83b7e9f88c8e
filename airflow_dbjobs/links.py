"""The "Databricks run" link of a task in the Airflow UI, there from the launch on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_dbjobs.airflow_compat import AIRFLOW_V_3_0_PLUS, BaseOperatorLink

if TYPE_CHECKING:
    from airflow_dbjobs.airflow_compat import BaseOperator, TaskInstanceKey

# Airflow 3 reads a link from the XCom of this name; Airflow 2 asks `get_link`, which reads the same one.
XCOM_KEY = "_link_DatabricksRunLink"


class DatabricksRunLink(BaseOperatorLink):
    """Leads to the page of the run that a task launched or waits for."""

    name = "Databricks run"

    @property
    def xcom_key(self) -> str:
        """The XCom that holds the whole link."""
        return XCOM_KEY

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the run's page, or "" where the task has no run."""
        # When a task ends, Airflow 3 asks this in its own process, where the operator knows; nothing needs to be read.
        url = getattr(operator, "run_page_url", None)
        if url is not None:
            return str(url)
        return str(_xcom().get_value(key=XCOM_KEY, ti_key=ti_key) or "")


def push_link(task_instance: Any, url: str) -> None:
    """Store the link while the run is still going."""
    if not AIRFLOW_V_3_0_PLUS:
        task_instance.xcom_push(key=XCOM_KEY, value=url)
        return
    _xcom().set(
        key=XCOM_KEY,
        value=url,
        dag_id=task_instance.dag_id,
        task_id=task_instance.task_id,
        run_id=task_instance.run_id,
        map_index=task_instance.map_index,
    )


def _xcom() -> Any:
    """Return what keeps links: Airflow 3 reads them from its database itself, past a custom XCom backend."""
    if AIRFLOW_V_3_0_PLUS:
        from airflow.sdk.bases.xcom import BaseXCom

        return BaseXCom
    from airflow_dbjobs.airflow_compat import XCom

    return XCom
