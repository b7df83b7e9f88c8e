"""airflow_compat: how the launches of a try are counted, and what a try reports to the next one."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_dbjobs.airflow_compat import AIRFLOW_V_3_0_PLUS
from airflow_dbjobs.airflow_compat.launches import (
    next_launch_number,
    report_launch,
    reported_launches,
    set_launch_number,
)

if TYPE_CHECKING:
    from pytest_mock import MockerFixture

INSTANCE = {"dag_id": "nightly", "task_id": "load", "run_id": "manual__1", "map_index": 2}


def task_instance(try_number: int = 1) -> SimpleNamespace:
    return SimpleNamespace(**INSTANCE, try_number=try_number)


class TestLaunchNumber:
    def test_restarts_when_dag_test_repeats_a_task(self) -> None:
        first, again = task_instance(), task_instance()
        assert [next_launch_number(one, "a job") for one in (first, first, again)] == [1, 2, 1]

    def test_follows_that_of_a_resumed_launch(self) -> None:
        resumed = task_instance()
        set_launch_number(resumed, "a job", 2)
        assert [next_launch_number(resumed, job) for job in ("a job", "another")] == [3, 1]


@pytest.mark.skipif(not AIRFLOW_V_3_0_PLUS, reason="Airflow 2 has an audit log: tests/airflow/stack/test_airflow_2.py")
class TestReport:
    def test_is_an_xcom_of_the_task_instance(self, mocker: MockerFixture) -> None:
        store = mocker.patch("airflow.sdk.bases.xcom.BaseXCom.set")
        report_launch(task_instance(), "airflow-1", 7)
        store.assert_called_once_with(key="airflow-1", value=7, **INSTANCE)

    def test_that_cannot_be_stored_is_logged(self, mocker: MockerFixture, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.WARNING)
        mocker.patch("airflow.sdk.bases.xcom.BaseXCom.set", side_effect=OSError("no XComs"))
        report_launch(task_instance(), "airflow-1", 7)
        (record,) = caplog.records
        assert "did not store the report of the launch of run 7" in record.getMessage()
        assert "OSError('no XComs')" in record.getMessage()

    @pytest.mark.parametrize(
        ("start", "reports"),
        [
            ({"next_method": None, "xcom_keys_to_clear": ["airflow-1", "return_value"]}, ["airflow-1", "return_value"]),
            ({"next_method": None, "xcom_keys_to_clear": None}, []),
            # If the last try was deferred, Airflow 3.0 gives no keys although there may be some.
            ({"next_method": "execute_complete", "xcom_keys_to_clear": []}, None),
        ],
        ids=str,
    )
    def test_is_among_the_keys_of_the_last_try(self, start: dict[str, Any], reports: list[str] | None) -> None:
        assert reported_launches(SimpleNamespace(_ti_context_from_server=SimpleNamespace(**start))) == reports

    def test_is_unknown_without_the_start_from_airflow(self) -> None:
        assert reported_launches(SimpleNamespace()) is None
