"""How a task ends: when its time is over, and what its error may tell."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, Context

    from airflow_dbjobs.errors import RunFailed


def deadline_of(task: BaseOperator, context: Context) -> float | None:
    """Return when ``execution_timeout`` has passed (epoch seconds): Airflow 3 does not watch it during a deferral."""
    if task.execution_timeout is None:
        return None
    start = getattr(context["ti"], "start_date", None)
    return (start.timestamp() if start else time.time()) + task.execution_timeout.total_seconds()


def redacted(error: RunFailed) -> RunFailed:
    """Return an error without what Airflow knows to be secret: it masks logs, but callbacks and mails tell it too."""
    from airflow.providers.common.compat.sdk import redact

    error.args = (redact(str(error)),)
    return error
