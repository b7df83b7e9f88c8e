"""A retry policy for tasks with Databricks runs. It needs Airflow 3.3, which introduced retry policies."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

try:
    from airflow.sdk import RetryDecision, RetryPolicy
except ImportError as error:
    raise ImportError(
        "DatabricksRetryPolicy needs Airflow 3.3 or newer, which introduced retry policies. With an older Airflow omit"
        " retry_policy: then the task's retries and retry_delay decide."
    ) from error

from airflow_dbjobs.errors import JobsError, LimitReached, TooManyRequests, UserCodeFailed

if TYPE_CHECKING:
    from airflow_dbjobs.airflow_compat import Context


class DatabricksRetryPolicy(RetryPolicy):
    """Decides whether Airflow retries a failed task, from the class of its error.

    The task fails at once if another try would fail too: after a wrong payload or connection, a missing permission, or
    a run that could not work. After a limit was reached, the next try waits longer. Everything else is retried as the
    task's ``retries`` and ``retry_delay`` say.

    :param retry_user_code: whether to retry a run whose own code failed.
    :param limit_delay: how long to wait before the next try after a quota or rate limit was reached.
    """

    def __init__(self, *, retry_user_code: bool = False, limit_delay: timedelta = timedelta(minutes=10)) -> None:
        self.retry_user_code = retry_user_code
        self.limit_delay = limit_delay

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,  # noqa: ARG002 (Airflow's signature)
        max_tries: int,  # noqa: ARG002 (likewise)
        context: Context | None = None,  # noqa: ARG002 (likewise)
    ) -> RetryDecision:
        """Return whether and when to retry the task."""
        name = type(exception).__name__
        if isinstance(exception, LimitReached | TooManyRequests):
            return RetryDecision.retry(self.limit_delay, f"{name}: a limit was reached")
        is_code = isinstance(exception, UserCodeFailed) and not self.retry_user_code
        if is_code or (isinstance(exception, JobsError) and not exception.worth_a_retry):
            return RetryDecision.fail(f"{name}: another try would fail too")
        return RetryDecision.default()
