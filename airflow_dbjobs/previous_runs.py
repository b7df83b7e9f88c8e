"""Making way for a run: the end of the runs of its job that still go on."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from airflow_dbjobs.errors import NotFound, RunLost
from airflow_dbjobs.waiting import DEFAULT_PERIOD, wait_for_run

if TYPE_CHECKING:
    from airflow_dbjobs.client import JobsClient

log = logging.getLogger(__name__)

# A run that started in so many seconds before the time is left alone: the server tells its own in whole seconds, and by
# a reply that took a while.
_CLOCKS_DIFFER = 10.0


def cancel_previous_runs(
    client: JobsClient, job_id: int, *, started_before: float | None = None, period: float = DEFAULT_PERIOD
) -> None:
    """Cancel the active runs of a job, or those that started before a time (epoch seconds), and wait for their end.

    A run that is being cancelled still takes the place of the only run that its job allows by default. Raises
    ``errors.CallError`` and ``errors.RunLost``.
    """
    runs = list(client.list_runs(job_id=job_id, active_only=True))
    if started_before is not None:
        # By the server's clock, as their starts are.
        bound = client.server_time(client.clock()) - (time.time() - started_before) - _CLOCKS_DIFFER
        runs = [run for run in runs if run.start_time is not None and run.start_time < bound]
    active = [run.run_id for run in runs]
    if not active:
        return
    log.info("Cancelling %d active runs of job %d: %s", len(active), job_id, ", ".join(map(str, active)))
    for run_id in active:
        with suppress(NotFound):
            client.cancel_run(run_id)
    for run_id in active:
        try:
            run = wait_for_run(client, run_id, period=period)
        except RunLost as error:
            if not isinstance(error.__cause__, NotFound):
                raise
        else:
            log.info("Run %d has ended %s.", run_id, run.state)
