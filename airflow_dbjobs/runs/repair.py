"""Repairs a failed run: its failed tasks, and those that depend on them, run again in the same run."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.client.models import Outcome, RunState, repairs_of
from airflow_dbjobs.client.wait import read_run, retry_through_outages
from airflow_dbjobs.errors import CallError
from airflow_dbjobs.runs.failure import explain_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.client.models import Run

log = logging.getLogger(__name__)

# A cancelled run was stopped on purpose, and a skipped run has no tasks to repair.
_REPAIRABLE = frozenset({Outcome.FAILED, Outcome.TIMED_OUT, Outcome.PARTIAL_SUCCESS})
# How often to poll a run that does not show yet that it was repaired.
_VISIBILITY_POLLS = 3
# A repair does not inherit these from the run, so they are sent again.
_PARAMETERS = (
    "job_parameters",
    "jar_params",
    "notebook_params",
    "python_params",
    "spark_submit_params",
    "python_named_params",
    "sql_params",
    "dbt_commands",
    "pipeline_params",
    "performance_target",
    "duration_target",
)


class RunRepairer:
    """Repairs the run of one task.

    `payload` returns the request body of the launch. A run is repaired at most `max_repairs` times, including repairs
    by earlier tries and by other people. `settings_by_reason` limits repairs to runs whose message, or that of a failed
    task, contains one of its keys; the settings under that key are written to the job before the repair. `is_killed`
    returns whether the task was killed. Repaired runs are polled every `period` seconds.
    """

    def __init__(
        self,
        client: JobsClient,
        payload: Callable[[], Mapping[str, Any]],
        *,
        max_repairs: int,
        settings_by_reason: Mapping[str, Mapping[str, Any]] | None,
        period: float,
        is_killed: Callable[[], bool],
    ) -> None:
        self._client = client
        self._payload = payload
        self._max_repairs = max_repairs
        self._settings_by_reason = settings_by_reason or {}
        self._period = period
        self._is_killed = is_killed

    def repair(self, run: Run) -> Run | None:
        """Repair a failed run; return it with its new state, or None if it is not repaired. Raises RunLost.

        Also returns the run if somebody else has repaired it.
        """
        if run.outcome not in _REPAIRABLE:
            return None
        reason = self._find_reason(run)
        if self._settings_by_reason and reason is None:
            log.info("Run %d is not repaired: its message contains none of the configured reasons.", run.run_id)
            return None
        current, repairs = self._read_history(run.run_id)
        if current.state != run.state:
            # Somebody else repaired it, so it is active again or has ended in another state.
            return current
        if repairs and _is_active(RunState.from_json(repairs[-1])):
            return self._wait_until_visible(run)
        if len(repairs) >= self._max_repairs:
            log.info(
                "Run %d is not repaired: it was repaired %d times, and %d are allowed.",
                run.run_id,
                len(repairs),
                self._max_repairs,
            )
            return None
        return self._repair(current, reason, len(repairs) + 1)

    def _find_reason(self, run: Run) -> str | None:
        messages = [run.state.message, *(task.state.message for task in run.failed_tasks)]
        return next((reason for reason in self._settings_by_reason if any(reason in text for text in messages)), None)

    def _read_history(self, run_id: int) -> tuple[Run, list[dict[str, Any]]]:
        """Return a run and its repairs, the latest last."""
        run = retry_through_outages(self._client, lambda: self._client.get_run(run_id, include_history=True), run_id)
        return run, repairs_of(run)

    def _wait_until_visible(self, run: Run) -> Run:
        """Return a run once its state shows that it was repaired, or unchanged after some polls."""
        for _ in range(_VISIBILITY_POLLS):
            self._client.sleep(self._period)
            current = read_run(self._client, run.run_id)
            if current.state != run.state:
                break
        return current

    def _repair(self, run: Run, reason: str | None, number: int) -> Run | None:
        log.warning("%s", explain_failure(self._client, run))
        tasks = ", ".join(task.task_key for task in run.failed_tasks) or "its failed tasks"
        launched = self._payload()
        body = {
            "run_id": run.run_id,
            "rerun_all_failed_tasks": True,
            "rerun_dependent_tasks": True,
            **{name: launched[name] for name in _PARAMETERS if name in launched},
        }
        try:
            settings = self._settings_by_reason[reason] if reason is not None else {}
            if settings and run.job_id:
                log.info("The message contains %r: writing %s to job %d.", reason, ", ".join(settings), run.job_id)
                self._client.update_job(run.job_id, settings)
            if self._is_killed():
                return None
            self._client.repair_run(body)
        except CallError as error:
            current, repairs = self._read_history(run.run_id)
            if current.state == run.state and (len(repairs) >= number or error.unclear):
                # The API may have started the repair, although the run does not show it yet.
                current = self._wait_until_visible(run)
            if current.state == run.state:
                log.warning("Run %d could not be repaired, so its task fails: %s", run.run_id, error)
                return None
            log.info("Run %d was repaired although the request failed; it is %s.", run.run_id, current.state)
            return current
        log.info("Repairing run %d (%d of at most %d): %s", run.run_id, number, self._max_repairs, tasks)
        return read_run(self._client, run.run_id)


def _is_active(state: RunState) -> bool:
    return state.is_known and not state.is_terminal
