"""retry_policy: which failures Airflow tries again, and when; and the error that ends a task for good."""

from __future__ import annotations

import importlib
import pickle
from datetime import timedelta
from typing import Any

import pytest
from airflow_context import AIRFLOW_V_3_3_PLUS, run_now

from airflow_dbjobs import errors
from airflow_dbjobs.airflow_compat import AirflowFailException
from airflow_dbjobs.operators.final_errors import RunCanceledByPerson

RUN = {"run_id": 7, "page_url": "https://x/7"}
needs_3_3 = pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="Airflow 3.3 introduced retry policies")


def decision(error: BaseException, **parameters: Any) -> tuple[str, timedelta | None]:
    from airflow_dbjobs.retry_policy import DatabricksRetryPolicy

    made = DatabricksRetryPolicy(**parameters).evaluate(error, 1, 3, None)
    return made.action.value, made.retry_delay


class TestDatabricksRetryPolicy:
    @needs_3_3
    @pytest.mark.parametrize(
        ("error", "action"),
        [
            (errors.UserCodeFailed("x", **RUN), "fail"),
            (errors.RunMisconfigured("x", **RUN), "fail"),
            (errors.RunNotPermitted("x", **RUN), "fail"),
            (errors.PayloadError("jobs/run-now", []), "fail"),
            (errors.BadRequest("x", 400), "fail"),
            (errors.Unauthenticated("x", 401), "fail"),
            (errors.PermissionDenied("x", 403), "fail"),
            (errors.NotFound("x", 404), "fail"),
            (errors.BadRequest("x", 400, "COULD_NOT_ACQUIRE_LOCK"), "default"),
            (errors.ServerError("x", 503), "default"),
            (errors.Conflict("x", 409), "default"),
            (errors.Unreachable("x"), "default"),
            (errors.ClusterFailed("x", **RUN), "default"),
            (errors.PlatformFailed("x", **RUN), "default"),
            (errors.RunTimedOut("x", **RUN), "default"),
            (errors.RunFailed("x", **RUN), "default"),
            (errors.RunLost("x", **RUN), "default"),
            (ValueError("not ours"), "default"),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_fails_what_another_try_cannot_fix(self, error: BaseException, action: str) -> None:
        assert decision(error) == (action, None)

    @needs_3_3
    @pytest.mark.parametrize("error", [errors.LimitReached("x", **RUN), errors.TooManyRequests("x", 429)])
    def test_waits_after_a_limit(self, error: BaseException) -> None:
        assert decision(error) == ("retry", timedelta(minutes=10))
        assert decision(error, limit_delay=timedelta(hours=1)) == ("retry", timedelta(hours=1))

    @needs_3_3
    def test_retries_user_code_on_request(self) -> None:
        assert decision(errors.UserCodeFailed("x", **RUN), retry_user_code=True) == ("default", None)

    @needs_3_3
    def test_is_accepted_by_airflow(self) -> None:
        from airflow_dbjobs.retry_policy import DatabricksRetryPolicy

        operator = run_now(job_id=1, retry_policy=DatabricksRetryPolicy())
        assert operator.has_retry_policy

    @pytest.mark.skipif(AIRFLOW_V_3_3_PLUS, reason="Airflow 3.3 introduced retry policies")
    def test_is_an_import_error_with_older_airflow(self) -> None:
        with pytest.raises(ImportError, match=r"needs Airflow 3\.3 or newer.*omit retry_policy"):
            importlib.import_module("airflow_dbjobs.retry_policy")


class TestRunCanceledByPerson:
    def test_survives_pickling(self) -> None:
        error = RunCanceledByPerson("why", **RUN, termination_code="USER_CANCELED")
        again = pickle.loads(pickle.dumps(error))
        assert isinstance(again, errors.RunCanceled)
        assert isinstance(again, AirflowFailException)
        assert (type(again), str(again), vars(again)) == (type(error), "why", vars(error))
        assert not again.worth_a_retry
