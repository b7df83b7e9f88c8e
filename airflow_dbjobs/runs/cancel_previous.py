"""Making way for a run: the end of the runs of its job that still go on."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING

from airflow_dbjobs.client.retry import RetryPolicy
from airflow_dbjobs.client.wait import DEFAULT_PERIOD, Watch, unless_deleted, wait_for_run
from airflow_dbjobs.errors import CallError, NotFound, RunLost, restored

if TYPE_CHECKING:
    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.errors import JobsError

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
    """Ask for the end of runs, again where the API does not answer.

    Raises CallError or RunLost where one cannot be cancelled, once all others were asked for, those without an answer
    twice.
    """
    failed: dict[int, JobsError] = {}
    waiting = {
        run_id: Watch(run_id, DEFAULT_PERIOD, client.patience, client.clock, what=f"The end of run {run_id}")
        for run_id in run_ids
    }
    with client.with_policy(_ONE_ATTEMPT) as quick:
        wait = _ask_for_each(quick, waiting, failed)
        while waiting:
            client.sleep(wait)
            wait = _ask_for_each(quick, waiting, failed)
            if failed:
                break
    if failed:
        first = next(iter(failed.values()))
        told = f"Previous runs that cannot be cancelled: {', '.join(map(str, failed))}. {first}"
        raise restored(type(first), (told,), dict(vars(first))) from first


def _ask_for_each(quick: JobsClient, waiting: dict[int, Watch], failed: dict[int, JobsError]) -> float:
    """Ask once for the end of each run that is waiting; return the seconds until those that stay may be asked for."""
    wait = 0.0
    for run_id, watch in list(waiting.items()):
        asked_at = quick.clock()
        try:
            quick.cancel_run(run_id)
        except NotFound:
            pass
        except CallError as error:
            try:
                if error.transient:
                    wait = max(wait, watch.failed(error, asked_at))
                    continue
                failed[run_id] = error
            except RunLost as lost:
                failed[run_id] = lost
        del waiting[run_id]
    return wait
