"""Repairing a failed run: its failed tasks, and what depends on them, run again in the same run."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.client.models import Outcome, RunState, repairs_of
from airflow_dbjobs.client.wait import DEFAULT_PERIOD, ask_for_run, patiently
from airflow_dbjobs.errors import CallError
from airflow_dbjobs.runs.failure import failure_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.client.models import Run

log = logging.getLogger(__name__)

# A run that was cancelled was meant to end; one that was skipped has no tasks.
_REPAIRABLE = frozenset({Outcome.FAILED, Outcome.TIMED_OUT, Outcome.PARTIAL_SUCCESS})
# How many periods it may take until a run shows a repair that was made.
_LOOKS_FOR_A_REPAIR = 3
# What a repair does not take over from the run: it is given as the launch was.
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


class Repairs:
    """The repairs of the run of one task.

    `payload` returns the body of its launch. `most` repairs are made in all, those of earlier tries, and by anybody
    else, included. With `new_settings`, a run is repaired only where its message, or that of a failed task, contains
    one of the keys; the settings beside it are then written to the job first, for the repair to use them. `stopped`
    says that the task was killed.
    """

    def __init__(
        self,
        client: JobsClient,
        payload: Callable[[], Mapping[str, Any]],
        *,
        most: int,
        new_settings: Mapping[str, Mapping[str, Any]] | None = None,
        period: float = DEFAULT_PERIOD,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._client = client
        self._payload = payload
        self._most = most
        self._new_settings = new_settings or {}
        self._period = period
        self._stopped = stopped

    def repair(self, run: Run) -> Run | None:
        """Repair a run that failed; return it as it is then, or None where it stays as it is.

        It is also returned where somebody else has repaired it. Raises ``errors.RunLost``.
        """
        if run.outcome not in _REPAIRABLE:
            return None
        reason = self._reason(run)
        if self._new_settings and reason is None:
            log.info("Run %d is not repaired: its message contains none of the reasons to repair it.", run.run_id)
            return None
        told, made = self._with_history(run.run_id)
        if told.state != run.state:
            # Somebody else has repaired it: it goes on, or has ended otherwise.
            return told
        if made and _goes_on(RunState.from_json(made[-1])):
            return self._when_it_shows(run)
        if len(made) >= self._most:
            log.info("Run %d was repaired %d times already, of at most %d.", run.run_id, len(made), self._most)
            return None
        return self._repair(told, reason, len(made) + 1)

    def _with_history(self, run_id: int) -> tuple[Run, list[dict[str, Any]]]:
        """Return a run and its repairs, the latest last."""
        told = patiently(self._client, lambda: self._client.get_run(run_id, include_history=True), run_id)
        return told, repairs_of(told)

    def _when_it_shows(self, run: Run) -> Run:
        """Return a run when it shows a repair that was made, or after some time as it is."""
        for _ in range(_LOOKS_FOR_A_REPAIR):
            self._client.sleep(self._period)
            now = ask_for_run(self._client, run.run_id)
            if now.state != run.state:
                break
        return now

    def _reason(self, run: Run) -> str | None:
        messages = [run.state.message, *(task.state.message for task in run.failed_tasks)]
        return next((reason for reason in self._new_settings if any(reason in text for text in messages)), None)

    def _repair(self, run: Run, reason: str | None, number: int) -> Run | None:
        log.warning("%s", failure_of(self._client, run))
        tasks = ", ".join(task.task_key for task in run.failed_tasks) or "its failed tasks"
        launched = self._payload()
        body = {
            "run_id": run.run_id,
            "rerun_all_failed_tasks": True,
            "rerun_dependent_tasks": True,
            **{name: launched[name] for name in _PARAMETERS if name in launched},
        }
        try:
            fields = self._new_settings[reason] if reason is not None else {}
            if fields and run.job_id:
                log.info("%r: writing %s to job %d.", reason, ", ".join(fields), run.job_id)
                self._client.update_job(run.job_id, fields)
            if self._stopped():
                return None
            self._client.repair_run(body)
        except CallError as error:
            now, made = self._with_history(run.run_id)
            if now.state == run.state and (len(made) >= number or error.unclear):
                # The repair may have been made, and its run not show it yet.
                now = self._when_it_shows(run)
            if now.state == run.state:
                log.warning("Run %d could not be repaired: %s", run.run_id, error)
                return None
            log.info("Run %d was repaired all the same: it is %s.", run.run_id, now.state)
            return now
        log.info("Repairing run %d (%d of at most %d): %s", run.run_id, number, self._most, tasks)
        return ask_for_run(self._client, run.run_id)


def _goes_on(state: RunState) -> bool:
    return state.is_known and not state.is_terminal
