"""The sensor that waits for the end of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_dbjobs.airflow_compat import redact_error
from airflow_dbjobs.sensors.base import DatabricksSensor, rendered_id, require_one_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.client.models import Run
    from airflow_dbjobs.errors import RunFailed
    from airflow_dbjobs.runs.conditions import CheckResult, RunCondition


class DatabricksRunSensor(DatabricksSensor):
    """Waits until a run that another task or system launched is over; returns the run's result.

    If the run ends without success, the task fails and is not retried, since the result cannot change; with
    ``soft_fail=True`` it is skipped instead. The sensor never changes or cancels a run, not even when it times out or
    is killed.

    Choose the run by exactly one of these parameters. Each may be a value, a template or an XComArg.

    :param run_id: the id of a run or of a task run.
    :param job_id: the id of a job, of which the sensor chooses one run: the latest, or the first since `since`. It
        waits while there is none. In mode "poke" and in the triggerer the first choice is kept; in mode "reschedule"
        each poke chooses again.
    :param job_name: the exact name of a job, instead of its id.

    Choose what to wait for:

    :param since: choose the job's first run that started at this time or later: a datetime, an ISO 8601 string (both in
        UTC if they have no time zone), epoch seconds, or a template such as ``"{{ data_interval_start }}"``. Only with
        `job_id` or `job_name`.
    :param task_key: wait for this task of the run, and return its result. The sensor ends as soon as the task succeeds.
        It fails when the task has used up its ``max_retries``; if the API names no limit, when the run is over, because
        serverless compute retries tasks by itself.
    :param states: the result or life cycle states to wait for, as the API spells them; ``SUCCESS`` and
        ``SUCCESS_WITH_FAILURES`` by default. Combine a transient state such as ``RUNNING`` with the result states you
        accept: a run that is over in none of the states fails the task.

    :param databricks_conn_id: the Airflow connection to the workspace.
    :param deferrable: whether to wait in the triggerer, which checks every ``poke_interval`` seconds.

    All parameters of Airflow's sensors apply: ``mode`` ("poke" or "reschedule"), ``poke_interval`` and ``timeout`` (in
    seconds), ``soft_fail``. With a job, the sensor pushes ``run_id``, ``job_id`` and ``run_page_url`` to XCom as soon
    as it has chosen a run. Raises ``errors.ConfigurationError`` if the parameters name no run, job or task,
    ``errors.NotFound`` if the workspace has no such run or job.
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
        require_one_of(self, "run_id", "job_id", "job_name")
        self._check_early()

    def _check_early(self) -> None:
        """Check parameters that are not templates, so that a mistake is a DAG import error."""
        from airflow_dbjobs.errors import ConfigurationError
        from airflow_dbjobs.payloads.templates import is_templated
        from airflow_dbjobs.runs.conditions import epoch_seconds, parse_states

        if self.since is not None and self.run_id is not None:
            raise ConfigurationError("since selects a run of a job: give job_id or job_name with it, not run_id.")
        if self.since is not None and not is_templated(self.since):
            epoch_seconds(self.since)
        names = [self.states] if isinstance(self.states, str) else self.states
        if not is_templated(names):
            names = list(names)
            parse_states([name for name in names if not is_templated(name)] or (["SUCCESS"] if names else []))

    def _rendered_condition(self) -> RunCondition:
        from airflow_dbjobs.runs.conditions import RunCondition, epoch_seconds, parse_states

        # Checked again, since an XComArg may have resolved to None.
        require_one_of(self, "run_id", "job_id", "job_name")
        return RunCondition(
            chosen=rendered_id(self, "run_id"),
            job_id=rendered_id(self, "job_id"),
            job_name=None if self.job_name is None else str(self.job_name),
            since=None if self.since is None else epoch_seconds(self.since),
            task_key=None if self.task_key is None else str(self.task_key),
            states=parse_states(self.states),
        )

    def _finish(self, client: JobsClient, result: CheckResult) -> Any:
        from airflow_dbjobs.airflow_compat import AirflowFailException, AirflowSkipException
        from airflow_dbjobs.client.models import Outcome
        from airflow_dbjobs.runs.failure import partial_success_warning
        from airflow_dbjobs.runs.result import run_result

        run = result.run
        if run is None or (result.verdict and not run.state.is_success):
            # The run is active or has failed, as `states` demands. (A decided result always has a run.)
            return None
        if result.verdict:
            if run.outcome is Outcome.PARTIAL_SUCCESS:
                self.log.warning("%s", partial_success_warning(run))
            return run_result(client, run) if self.do_xcom_push else None
        failure = redact_error(self._failure(client, run))
        if self.soft_fail or self.never_fail:
            # Airflow logs that it skips the task, but not why.
            self.log.warning("%s", failure)
            raise AirflowSkipException(str(failure)) from failure
        raise AirflowFailException(str(failure)) from failure

    def _failure(self, client: JobsClient, run: Run) -> RunFailed:
        """Return the error that explains why the run, or the task of it, can no longer meet the condition."""
        from airflow_dbjobs.runs.failure import explain_failure
        from airflow_dbjobs.runs.failure_cause import run_failed_error

        if run.state.is_success:
            return run_failed_error(
                run,
                f"Run {run.run_id} ended as {run.state}, which is none of the states that the sensor waits for:"
                f" {self.states}. See {run.page_url}",
            )
        if self.task_key is None:
            return explain_failure(client, run, if_skipped="It never started: its job was at max_concurrent_runs.")
        failure = explain_failure(client, run, if_skipped="It did not run.")
        failure.args = (f"Task {self.task_key}: {failure}",)
        return failure
