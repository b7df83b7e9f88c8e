"""Cancel the run of a task that is being killed, in the few seconds that its process has."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from airflow_dbjobs.client.retry import RetryPolicy
from airflow_dbjobs.errors import JobsError

if TYPE_CHECKING:
    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.client.wait import Logger
    from airflow_dbjobs.runs.launch import Launcher

# A worker's process is killed 5 s after it was told to stop.
KILL_BUDGET_SECONDS = 4.0
# A repair that is on its way begins after the first one.
_CANCELS_OF_A_REPAIR = 3
_PAUSE_SECONDS = 0.5


def cancel_now(
    client: JobsClient,
    run_id: int | None,
    launcher: Launcher | None,
    log: Logger,
    *,
    began: float,
    repairing: bool = False,
) -> None:
    """Cancel a run within 4 s from `began` (monotonic seconds), and log whether the API accepted that.

    Where `run_id` is None, it is the run that `launcher` is launching, if any: its token tells which. `repairing` says
    that a repair of the run may be on its way.
    """

    def left() -> float:
        return began + KILL_BUDGET_SECONDS - time.monotonic()

    def quick(share: float) -> JobsClient:
        # A client of its own: the interrupted call may hold anything of the other one.
        return client.with_policy(
            RetryPolicy(
                retry_budget=left() * share,
                server_error_wait=0.5,
                connect_timeout=1.5,
                read_timeout=2.0,
                first_wait=0.5,
                ends_with_budget=True,
            )
        )

    try:
        if run_id is None and launcher:
            with quick(share=0.5) as finding:
                run_id = launcher.find_in_flight(finding)
        if run_id is None:
            return
        with quick(share=1.0) as cancelling:
            cancelling.cancel_run(run_id)
    except JobsError as error:
        name = f"Run {run_id}" if run_id else "The run"
        log.warning("%s could not be cancelled and may still be running: %s", name, error)
        return
    log.info("The API accepted to cancel run %d.", run_id)
    for _ in range(_CANCELS_OF_A_REPAIR if repairing else 0):
        if left() <= _PAUSE_SECONDS:
            return
        client.transport.clock.sleep(_PAUSE_SECONDS)
        # It was accepted once: this is for a repair that begins after that.
        with suppress(JobsError), quick(share=1.0) as cancelling:
            cancelling.cancel_run(run_id)
