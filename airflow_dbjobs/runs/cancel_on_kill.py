"""Cancels the run of a task that is being killed, within the few seconds that its process has left."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from airflow_dbjobs.client.retry import RetryPolicy
from airflow_dbjobs.errors import JobsError

if TYPE_CHECKING:
    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.client.wait import Logger

# Airflow kills a worker's process 5 s after it has sent SIGTERM.
KILL_BUDGET_SECONDS = 4.0
# If a repair request is in progress, the repair may begin after the first cancellation.
_REPEATED_CANCELLATIONS = 3
_PAUSE_SECONDS = 0.5


class RunFinder(Protocol):
    """Finds the run to cancel."""

    def find_in_flight(self, client: JobsClient) -> int | None:
        """Return the run, None if there is none. Raises JobsError."""


def cancel_now(
    client: JobsClient,
    run_id: int | None,
    finder: RunFinder | None,
    log: Logger,
    *,
    began: float,
    repairing: bool = False,
) -> None:
    """Cancel a run within 4 s of `began` (monotonic seconds), and log whether the API accepted that.

    If `run_id` is None, cancel the run that `finder` finds, if any: a launcher finds the run that it is launching.
    `repairing` says that a request to repair the run may be in progress.
    """

    def seconds_left() -> float:
        return began + KILL_BUDGET_SECONDS - time.monotonic()

    def new_client(share: float) -> JobsClient:
        # A separate client, because the interrupted call may hold any lock of the task's own.
        return client.with_policy(
            RetryPolicy(
                retry_budget=seconds_left() * share,
                server_error_wait=0.5,
                connect_timeout=1.5,
                read_timeout=2.0,
                first_wait=0.5,
                ends_with_budget=True,
            )
        )

    found = run_id

    def cancel() -> int | None:
        nonlocal found
        if run_id is None and finder:
            with new_client(share=0.5) as finding:
                found = finder.find_in_flight(finding)
        if found is not None:
            with new_client(share=1.0) as cancelling:
                cancelling.cancel_run(found)
        return found

    try:
        if cancel() is not None:
            log.info("The API accepted the cancellation of run %d.", found)
    except JobsError as error:
        name = f"Run {found}" if found else "The run that was being launched"
        log.warning("%s could not be cancelled and may still be running: %s", name, error)
        return
    for _ in range(_REPEATED_CANCELLATIONS if repairing else 0):
        if seconds_left() <= _PAUSE_SECONDS:
            return
        client.transport.clock.sleep(_PAUSE_SECONDS)
        # The API has accepted one cancellation; a failure of these does not matter.
        with suppress(JobsError):
            cancel()
