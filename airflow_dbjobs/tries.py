"""A task's tries: where one begins anew, when its time is over, and what its error may tell."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_dbjobs.airflow_compat import BaseOperator, Context
    from airflow_dbjobs.errors import RunFailed


def deadline_of(task: BaseOperator, context: Context) -> float | None:
    """Return when ``execution_timeout`` has passed (epoch seconds): Airflow 3 does not watch it during a deferral."""
    if task.execution_timeout is None:
        return None
    start = getattr(context["ti"], "start_date", None)
    return (start.timestamp() if start else time.time()) + task.execution_timeout.total_seconds()


def begins_anew(context: Context, deferred_by: int | None) -> bool:
    """Return whether an earlier try has deferred: Airflow 3.0 lets a retry go on where the failed try ended.

    It leaves the task the start of the failed try, too. This one begins now, which `deadline_of` must know.
    """
    if deferred_by is None or deferred_by >= context["ti"].try_number:
        return False
    context["ti"].start_date = datetime.now(UTC)
    return True


def redacted(error: RunFailed) -> RunFailed:
    """Return an error without what Airflow knows to be secret: it masks logs, but callbacks and mails tell it too."""
    from airflow_dbjobs.airflow_compat import redact

    error.args = (redact(str(error)),)
    return error
