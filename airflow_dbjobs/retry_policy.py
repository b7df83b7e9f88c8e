"""A retry policy for tasks that run something on Databricks. It needs Airflow 3.3, which introduced retry policies."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

try:
    from airflow.sdk import RetryDecision, RetryPolicy
except ImportError as error:
    raise ImportError(
        "DatabricksRetryPolicy needs Airflow 3.3 or newer, which introduced retry policies. On an older one leave"
        " retry_policy out: the task's retries and retry_delay decide there."
    ) from error

from airflow_dbjobs.errors import JobsError, LimitReached, TooManyRequests, UserCodeFailed

if TYPE_CHECKING:
    from airflow_dbjobs.airflow_compat import Context


class DatabricksRetryPolicy(RetryPolicy):
    """Decides by what a task failed of whether Airflow tries it again.

    What another try cannot mend fails the task at once: a wrong payload or connection, a missing permission, a run
    that could never have worked. After a limit was reached the next try waits for longer. All else is retried as the
    task's own ``retries`` and ``retry_delay`` say.

    :param retry_user_code: whether a run whose own code failed is tried again.
    :param limit_delay: how long the next try waits after a quota or a rate limit was reached.
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
        """Decide whether and when the task is tried again."""
        what = type(exception).__name__
        if isinstance(exception, LimitReached | TooManyRequests):
            return RetryDecision.retry(self.limit_delay, f"{what}: a limit was reached")
        is_code = isinstance(exception, UserCodeFailed) and not self.retry_user_code
        if is_code or (isinstance(exception, JobsError) and not exception.worth_a_retry):
            return RetryDecision.fail(f"{what}: another try would end the same")
        return RetryDecision.default()
