"""Cancels the active runs of a job before a new one is launched."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING

from airflow_dbjobs.client.retry import RetryPolicy
from airflow_dbjobs.client.wait import DEFAULT_PERIOD, Watch, none_if_deleted, wait_for_run
from airflow_dbjobs.errors import CallError, NotFound, RunLost, restored

if TYPE_CHECKING:
    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.errors import JobsError

log = logging.getLogger(__name__)

# The server's clock is only known to the second, from a reply that took a while. Runs that started so shortly before
# the given time are kept.
_CLOCK_UNCERTAINTY_SECONDS = 10.0
# Each cancellation is tried once; those that may succeed later are repeated after all others were tried.
_ONE_ATTEMPT = RetryPolicy(retry_budget=0.0)


def cancel_previous_runs(
    client: JobsClient, job_id: int, *, started_before: float | None = None, period: float = DEFAULT_PERIOD
) -> None:
    """Cancel the active runs of a job, and wait for their end, because until then they count as concurrent runs.

    With `started_before` (epoch seconds), later runs are kept. All runs are cancelled even if some cannot be; then
    CallError or RunLost is raised, before waiting. Runs are polled every `period` seconds.
    """
    runs = list(client.list_runs(job_id=job_id, active_only=True))
    if started_before is not None:
        # The server's clock sets start times, so `started_before` is converted to it.
        latest = client.server_time(client.clock()) - (time.time() - started_before) - _CLOCK_UNCERTAINTY_SECONDS
        runs = [run for run in runs if run.start_time is not None and run.start_time < latest]
    active = [run.run_id for run in runs]
    if not active:
        return
    log.info("Cancelling %d active runs of job %d: %s", len(active), job_id, ", ".join(map(str, active)))
    _cancel_all(client, active)
    for run_id in active:
        if run := none_if_deleted(partial(wait_for_run, client, run_id, period=period)):
            log.info("Run %d ended as %s.", run_id, run.state)


def _cancel_all(client: JobsClient, run_ids: list[int]) -> None:
    """Cancel runs, retrying through outages.

    If a cancellation fails for good, raises CallError or RunLost once each of the others was tried, twice if necessary.
    """
    failed: dict[int, JobsError] = {}
    pending = {
        run_id: Watch(run_id, DEFAULT_PERIOD, client.patience, client.clock, action=f"Cancelling run {run_id}")
        for run_id in run_ids
    }
    with client.with_policy(_ONE_ATTEMPT) as quick:
        wait = _cancel_each(quick, pending, failed)
        while pending:
            client.sleep(wait)
            wait = _cancel_each(quick, pending, failed)
            if failed:
                break
    if failed:
        first = next(iter(failed.values()))
        text = f"Previous runs could not be cancelled: {', '.join(map(str, failed))}. No run was launched. {first}"
        raise restored(type(first), (text,), dict(vars(first))) from first


def _cancel_each(quick: JobsClient, pending: dict[int, Watch], failed: dict[int, JobsError]) -> float:
    """Try once to cancel each pending run; return how many seconds to wait before trying the remaining ones again."""
    wait = 0.0
    for run_id, watch in list(pending.items()):
        sent_at = quick.clock()
        try:
            quick.cancel_run(run_id)
        except NotFound:
            pass
        except CallError as error:
            try:
                if error.transient:
                    wait = max(wait, watch.record_failure(error, sent_at))
                    continue
                failed[run_id] = error
            except RunLost as lost:
                failed[run_id] = lost
        del pending[run_id]
    return wait
