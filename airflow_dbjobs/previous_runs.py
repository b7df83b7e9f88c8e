"""Making way for a run: the end of the runs of its job that still go on."""

from __future__ import annotations

import logging
import time
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

from airflow_dbjobs.errors import CallError, NotFound, restored
from airflow_dbjobs.retries import RetryPolicy
from airflow_dbjobs.waiting import DEFAULT_PERIOD, patiently, unless_deleted, wait_for_run

if TYPE_CHECKING:
    from airflow_dbjobs.client import JobsClient

log = logging.getLogger(__name__)

# A run that started in so many seconds before the time is left alone: the server tells its own in whole seconds, and by
# a reply that took a while.
_CLOCKS_DIFFER = 10.0
# Each is asked for at once; what fails then, and may work later, is asked for again when all were.
_ONE_ATTEMPT = RetryPolicy(retry_budget=0.0)


def cancel_previous_runs(
    client: JobsClient, job_id: int, *, started_before: float | None = None, period: float = DEFAULT_PERIOD
) -> None:
    """Cancel the active runs of a job, or those that started before a time (epoch seconds), and wait for their end.

    A run that is being cancelled still takes the place of the only run that its job allows by default. One that cannot
    be cancelled does not keep the others from it. Raises ``errors.CallError`` and ``errors.RunLost``.
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
    _cancel(client, active)
    for run_id in active:
        if run := unless_deleted(partial(wait_for_run, client, run_id, period=period)):
            log.info("Run %d has ended %s.", run_id, run.state)


def _cancel(client: JobsClient, run_ids: list[int]) -> None:
    """Ask for the end of runs. Raises CallError for those for which that is refused, when all others were asked for."""
    refused: dict[int, CallError] = {}
    later: list[int] = []
    with closing(client.with_policy(_ONE_ATTEMPT)) as quick:
        for run_id in run_ids:
            try:
                quick.cancel_run(run_id)
            except NotFound:
                pass
            except CallError as error:
                if error.transient:
                    log.warning("Run %d could not be cancelled yet, which is tried again: %s", run_id, error)
                    later.append(run_id)
                else:
                    refused[run_id] = error
    for run_id in later:
        unless_deleted(partial(patiently, client, partial(client.cancel_run, run_id), run_id))
    for first in refused.values():
        told = f"Previous runs that cannot be cancelled: {', '.join(map(str, refused))}. {first}"
        raise restored(type(first), (told,), dict(vars(first)))
