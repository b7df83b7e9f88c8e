"""The sensor that waits for the end of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_dbjobs.airflow_compat import redacted
from airflow_dbjobs.sensors.base import DatabricksSensor, check_one_of, number_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.client.models import Run
    from airflow_dbjobs.errors import RunFailed
    from airflow_dbjobs.runs.conditions import Look, RunCondition


class DatabricksRunSensor(DatabricksSensor):
    """Waits until a run is over; succeeds if the run did, and returns what it returned.

    A run that ended without success fails the sensor for good, since asking again would bring the same answer (with
    ``soft_fail=True`` the task is skipped instead). The run itself is never touched: not on a timeout, not on a kill.

    Which run it is, exactly one of these says; each may be a template or an XComArg:

    :param run_id: the id of a run or a task run.
    :param job_id: a job: the run of it that was the latest when the sensor first looked, or the first since `since`.
        While there is none, the sensor goes on waiting. In mode "poke", or deferrable, the run that was chosen is kept;
        in mode "reschedule" each poke looks anew, so that "the latest" is then the latest of that moment.
    :param job_name: the exact name of a job instead.

    What of it is waited for:

    :param since: with a job: its first run that started then or later. A datetime, an ISO text (UTC where there is no
        zone), epoch seconds, or a template such as ``"{{ data_interval_start }}"``.
    :param task_key: only this task of the run, and its result. Its success ends the sensor at once; a failed attempt
        does when the run is over or the task's ``max_retries`` are used up (where the API names none, when the run is
        over: serverless compute retries by itself).
    :param states: the result or life cycle states, in the API's words, in which the run (or task) is as it should be;
        by default ``SUCCESS`` and ``SUCCESS_WITH_FAILURES``. With a state that passes, such as ``RUNNING``, name the
        results too: a run that is over in none of them fails the sensor.

    :param databricks_conn_id: the connection to the workspace.
    :param deferrable: wait in the triggerer, which asks every ``poke_interval`` seconds.

    All parameters of Airflow's sensors hold: ``mode`` ("poke" or "reschedule"), ``poke_interval`` and ``timeout``
    (seconds), ``soft_fail``. With a job, ``run_id``, ``job_id`` and ``run_page_url`` are pushed to XCom when the run is
    known. Raises ``errors.ConfigurationError`` for parameters that name no run, job or task, ``errors.NotFound`` for a
    run or job that the workspace does not know.
    """

    template_fields: Sequence[str] = (
        "run_id", "job_id", "job_name", "since", "task_key", "states", "databricks_conn_id",
    )  # fmt: skip

    def __init__(
        self,
        *,
        run_id: int | str | None = None,
        job_id: int | str | None = None,
        job_name: str | None = None,
        since: datetime | str | float | None = None,
        task_key: str | None = None,
        states: str | Sequence[str] = ("SUCCESS", "SUCCESS_WITH_FAILURES"),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.run_id = run_id
        self.job_id = job_id
        self.job_name = job_name
        self.since = since
        self.task_key = task_key
        self.states = states
        check_one_of(self, "run_id", "job_id", "job_name")
        self._check_early()

    def _check_early(self) -> None:
        """Check what is not templated, so that the DAG's import error names it."""
        from airflow_dbjobs.errors import ConfigurationError
        from airflow_dbjobs.payloads.templates import is_templated
        from airflow_dbjobs.runs.conditions import epoch_seconds, wanted_states

        if self.since is not None and self.run_id is not None:
            raise ConfigurationError("since is for a job: give job_id or job_name with it, not run_id.")
        if self.since is not None and not is_templated(self.since):
            epoch_seconds(self.since)
        names = [self.states] if isinstance(self.states, str) else self.states
        if not is_templated(names):
            names = list(names)
            wanted_states([name for name in names if not is_templated(name)] or (["SUCCESS"] if names else []))

    def _wanted(self) -> RunCondition:
        from airflow_dbjobs.runs.conditions import RunCondition, epoch_seconds, wanted_states

        # An XComArg may have become None.
        check_one_of(self, "run_id", "job_id", "job_name")
        return RunCondition(
            chosen=number_of(self, "run_id"),
            job_id=number_of(self, "job_id"),
            job_name=None if self.job_name is None else str(self.job_name),
            since=None if self.since is None else epoch_seconds(self.since),
            task_key=None if self.task_key is None else str(self.task_key),
            states=wanted_states(self.states),
        )

    def _finish(self, client: JobsClient, look: Look) -> Any:
        from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

        from airflow_dbjobs.client.models import Outcome
        from airflow_dbjobs.runs.failure import partial_success_of
        from airflow_dbjobs.runs.result import result_of

        run = look.run
        if run is None or (look.verdict and not run.state.is_success):
            # It goes on, or has failed as was wanted. (Nothing is decided without a run.)
            return None
        if look.verdict:
            if run.outcome is Outcome.PARTIAL_SUCCESS:
                self.log.warning("%s", partial_success_of(run))
            return result_of(client, run) if self.do_xcom_push else None
        failure = redacted(self._failure(client, run))
        if self.soft_fail or self.never_fail:
            # Airflow logs that it skips a task, not why.
            self.log.warning("%s", failure)
            raise AirflowSkipException(str(failure)) from failure
        raise AirflowFailException(str(failure)) from failure

    def _failure(self, client: JobsClient, run: Run) -> RunFailed:
        """Return why the run, or the task of it, is over and not as it should be."""
        from airflow_dbjobs.runs.failure import failure_of
        from airflow_dbjobs.runs.failure_cause import error_of

        if run.state.is_success:
            return error_of(
                run,
                f"Run {run.run_id} is over, and {run.state}, which is none of the states that are waited for:"
                f" {self.states}. See {run.page_url}",
            )
        if self.task_key is None:
            return failure_of(client, run, if_skipped="It never started: its job was at max_concurrent_runs.")
        failure = failure_of(client, run, if_skipped="It did not run.")
        failure.args = (f"Task {self.task_key}: {failure}",)
        return failure
