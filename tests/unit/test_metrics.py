"""The poller's measurements, on their way into Airflow's metrics; the integration tests receive them."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_dbjobs import airflow_compat

if TYPE_CHECKING:
    from pytest_mock import MockerFixture


class TestEmitMetric:
    @pytest.mark.parametrize("has_class", [False, True])
    @pytest.mark.parametrize("has_functions", [False, True])
    def test_prefers_functions_to_the_deprecated_class(
        self, monkeypatch: pytest.MonkeyPatch, *, has_class: bool, has_functions: bool
    ) -> None:
        fields: dict[str, object] = {"Stats": "the class"} if has_class else {}
        module = SimpleNamespace(**fields, **({"incr": print} if has_functions else {}))
        monkeypatch.setattr(airflow_compat, "import_module", lambda _: module)
        if has_functions:
            assert airflow_compat.stats.__wrapped__() is module
        elif has_class:
            assert airflow_compat.stats.__wrapped__() == "the class"

    @pytest.mark.parametrize(
        ("kind", "method", "handed_on"),
        [("count", "incr", 2), ("gauge", "gauge", 2.0), ("timing", "timing", timedelta(seconds=2))],
    )
    def test_sends_to_the_triggerers_own_metrics(
        self, mocker: MockerFixture, kind: Any, method: str, handed_on: object
    ) -> None:
        from airflow.jobs import triggerer_job_runner

        ours = airflow_compat.stats()
        theirs = getattr(triggerer_job_runner, "Stats", None) or triggerer_job_runner.stats
        assert getattr(ours, method) == getattr(theirs, method)
        heard = mocker.patch.object(ours, method)
        airflow_compat.emit_metric(kind, "something", 2.0, "https://example.test:8443")
        heard.assert_called_once_with("dbjobs.poller.something", handed_on, tags={"workspace": "example.test"})
