"""The "Databricks run" link, where Airflow reads it."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from airflow import DAG
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.serialization.serialized_objects import SerializedDAG
from airflow_context import TaskInstance

from airflow_dbjobs.airflow_compat import AIRFLOW_V_3_0_PLUS, BaseOperator, XCom
from airflow_dbjobs.errors import ConfigurationError, RunLost
from airflow_dbjobs.links import XCOM_KEY, DatabricksRunLink, push_link
from airflow_dbjobs.operators import (
    XCOM_RUN_PAGE_URL_KEY,
    DatabricksJobRunLink,
    DatabricksRunNowOperator,
    DatabricksSubmitRunOperator,
)
from airflow_dbjobs.sensors import DatabricksJobIdleSensor, DatabricksRunSensor

KEY = TaskInstanceKey("nightly", "load", "manual__1", 1, -1)
PAGE = "https://adb-1.net/jobs/1/runs/2?o=0"


@pytest.fixture
def stored(mocker) -> dict[str, Any]:
    """Return the XComs of KEY's task, in the place of Airflow's database."""
    xcoms: dict[str, Any] = {}

    def get_value(*, key: str, ti_key: Any) -> Any:
        assert ti_key is KEY
        return xcoms.get(key)

    def set_value(*, key: str, value: Any, **where: Any) -> None:
        assert where == {"dag_id": "nightly", "task_id": "load", "run_id": "manual__1", "map_index": -1}
        xcoms[key] = json.loads(json.dumps(value))

    if AIRFLOW_V_3_0_PLUS:
        mocker.patch("airflow.sdk.bases.xcom.BaseXCom.get_value", side_effect=get_value)
        mocker.patch("airflow.sdk.bases.xcom.BaseXCom.set", side_effect=set_value)
    else:
        mocker.patch.object(XCom, "get_value", side_effect=get_value)
    return xcoms


NEEDED: dict[type, dict[str, Any]] = {
    DatabricksSubmitRunOperator: {"validate": False},
    DatabricksRunNowOperator: {"validate": False},
    DatabricksRunSensor: {"run_id": 1},
    DatabricksJobIdleSensor: {"job_id": 1},
}


def make(kind: type) -> Any:
    return kind(task_id="load", **NEEDED[kind])


class TestLink:
    @pytest.mark.parametrize("kind", NEEDED)
    def test_exists_for_each_task(self, kind):
        (link,) = make(kind).operator_extra_links
        assert isinstance(link, DatabricksRunLink)
        assert link.name == "Databricks run"

    def test_is_empty_without_a_run(self, stored):
        operator = make(DatabricksSubmitRunOperator)
        assert DatabricksRunLink().get_link(operator, ti_key=KEY) == ""
        stored[XCOM_KEY] = None
        assert DatabricksRunLink().get_link(operator, ti_key=KEY) == ""

    def test_is_read_as_it_was_stored(self, stored):
        ti = TaskInstance()
        ti.at_link = lambda: stored.update({XCOM_KEY: ti.link})
        push_link(ti, PAGE)
        # Airflow 3 reads the XCom of this name itself; Airflow 2 calls the link in a process that knows only the DAG.
        assert stored == {DatabricksRunLink().xcom_key: PAGE}
        assert DatabricksRunLink().get_link(make(DatabricksSubmitRunOperator), ti_key=KEY) == PAGE

    def test_is_the_page_that_another_operator_pushed(self, stored):
        # A DAG author's own operator has the link by its official name, and pushes what the official ones push.
        stored[XCOM_RUN_PAGE_URL_KEY] = PAGE
        assert DatabricksJobRunLink().get_link(BaseOperator(task_id="load"), ti_key=KEY) == PAGE

    def test_is_not_read_if_the_task_knows_the_page(self, stored):
        # Airflow 3 writes what this returns over the XCom when the task ends.
        operator = make(DatabricksSubmitRunOperator)
        operator.run_page_url = PAGE
        stored[XCOM_KEY] = "of an earlier try"
        assert DatabricksRunLink().get_link(operator, ti_key=KEY) == PAGE

    def test_is_empty_if_the_task_failed_before_its_launch(self, stored):
        stored[XCOM_KEY] = PAGE  # of an earlier try
        operator = DatabricksSubmitRunOperator(task_id="load", validate=False)
        with pytest.raises(ConfigurationError):
            operator.execute({})
        assert DatabricksRunLink().get_link(operator, ti_key=KEY) == ""

    @pytest.mark.parametrize("kind", [DatabricksSubmitRunOperator, DatabricksRunSensor])
    def test_remains_if_the_trigger_lost_the_run(self, stored, kind):
        stored[XCOM_KEY] = PAGE
        operator = make(kind)
        with pytest.raises(RunLost):
            operator.execute_complete({}, {"run_id": 2, "run_page_url": PAGE, "error": "The API is down."})
        # Airflow 3 stores what this returns.
        assert DatabricksRunLink().get_link(operator, ti_key=KEY) == PAGE

    @pytest.mark.skipif(not AIRFLOW_V_3_0_PLUS, reason="Airflow 2 reads links through the XCom backend")
    def test_does_not_use_a_custom_xcom_backend(self, stored, monkeypatch):
        # Airflow's UI reads the database itself: what a backend makes of a value would be no link.
        monkeypatch.setattr("airflow_dbjobs.airflow_compat.XCom", None)
        push_link(TaskInstance(), PAGE)
        assert DatabricksRunLink().get_link(make(DatabricksSubmitRunOperator), ti_key=KEY) == PAGE

    @pytest.mark.skipif(AIRFLOW_V_3_0_PLUS, reason="Airflow 3 reads the XCom itself: test_links_in_browser.py")
    @pytest.mark.parametrize("is_mapped", [False, True], ids=["alone", "mapped"])
    @pytest.mark.parametrize("kind", NEEDED)
    def test_is_read_by_airflow_2_without_the_dag_file(self, stored, kind, is_mapped):
        with DAG("nightly", schedule=None) as dag:
            if is_mapped:
                kind.partial(task_id="load", **NEEDED[kind]).expand(databricks_conn_id=["one", "two"])
            else:
                make(kind)
        task = SerializedDAG.from_dict(json.loads(json.dumps(SerializedDAG.to_dict(dag)))).get_task("load")
        assert task.extra_links == ["Databricks run"]
        instance = SimpleNamespace(key=KEY)
        assert task.get_extra_links(instance, "Databricks run") == ""
        stored[XCOM_KEY] = PAGE
        assert task.get_extra_links(instance, "Databricks run") == PAGE
