"""Making way for a run: the end of the runs of its job that still go on."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_dbjobs.errors import NotFound, RunLost
from airflow_dbjobs.waiting import DEFAULT_PERIOD, wait_for_run

if TYPE_CHECKING:
    from airflow_dbjobs.client import JobsClient

log = logging.getLogger(__name__)


def cancel_previous_runs(
    client: JobsClient, job_id: int, *, started_before: float | None = None, period: float = DEFAULT_PERIOD
) -> None:
    """Cancel the active runs of a job, or those that started before a time (epoch seconds), and wait for their end.

    A run that is being cancelled still takes the place of the only run that its job allows by default. Raises
    ``errors.CallError`` and ``errors.RunLost``.
    """
    active = [
        run.run_id
        for run in client.list_runs(job_id=job_id, active_only=True)
        if started_before is None or (run.start_time is not None and run.start_time < started_before)
    ]
    if not active:
        return
    log.info("Cancelling %d active runs of job %d: %s", len(active), job_id, ", ".join(map(str, active)))
    for run_id in active:
        client.cancel_run(run_id)
    for run_id in active:
        try:
            run = wait_for_run(client, run_id, period=period)
        except RunLost as error:
            if not isinstance(error.__cause__, NotFound):
                raise
        else:
            log.info("Run %d has ended %s.", run_id, run.state)
