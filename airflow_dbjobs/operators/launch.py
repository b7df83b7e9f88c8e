"""The base of the operators that launch a run: launching, waiting, repairing, and ending the task."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow_dbjobs.airflow_compat import conf, launches
from airflow_dbjobs.links import DatabricksRunLink, push_link, push_run
from airflow_dbjobs.operators.base import PayloadOperator
from airflow_dbjobs.operators.deferral import defer_until_end
from airflow_dbjobs.operators.parameters import parse_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_dbjobs.airflow_compat import Context
    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.client.models import Outcome, Run
    from airflow_dbjobs.runs.launch import Endpoint, Launched, Launcher

# How long Airflow may take to return the task's state during a kill. The process is killed 5 s after SIGTERM.
_TASK_STATE_TIMEOUT_SECONDS = 1.5

_POLLING_PERIOD = "a number of seconds, more than 0"
_MAX_RESULT_BYTES = "a whole number, 1 or more. To return no result, set do_xcom_push=False"


class LaunchOperator(PayloadOperator):
    """Base of the operators that launch a run, which differ in their payload and endpoint.

    ``operators.base.PayloadOperator`` describes the parameters of all operators.

    :param idempotency_token: a token (at most 64 characters) that is sent unchanged. If None, the operator makes tokens
        with which a try of the task finds the run of an earlier try (``runs.launch``).
    :param durable: whether a try may find runs of earlier tries; if False, each try launches a run of its own.
    :param polling_period_seconds: the time between two polls, in seconds.
    :param wait_for_termination: whether to wait for the end of the run; if False, the task ends after the launch.
    :param deferrable: whether to wait in the triggerer, which needs no worker slot.
    :param end_in_triggerer: whether a success ends the deferred task in the triggerer, which saves a worker's start.
        Nothing changes where Airflow needs a worker for a success: for callbacks, outlets, listeners and the like.
    :param on_skipped: whether to "fail" or "skip" the task if the run never started because its job was at
        ``max_concurrent_runs``.
    :param fail_on_partial_success: whether the task fails if the run ends as SUCCESS_WITH_FAILURES. Otherwise a warning
        names the failed tasks.
    :param retry_on_cancel: whether Airflow retries the task after a person cancelled its run in Databricks.
    :param max_result_bytes: the maximum size of the result, in bytes. A larger one is truncated, with a warning.
    :param openlineage_inject_parent_job_info: whether to name this task as the parent of the run in OpenLineage; by
        default as Airflow's option ``[openlineage] spark_inject_parent_job_info``.
    :param do_xcom_push: whether to push ``run_id``, ``job_id`` and ``run_page_url`` to XCom at the launch, and to
        return the run's result.
    """

    endpoint: ClassVar[Endpoint]
    operator_extra_links = (DatabricksRunLink(),)

    def __init__(
        self,
        *,
        idempotency_token: str | None = None,
        durable: bool = True,
        polling_period_seconds: float = 10,
        wait_for_termination: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        end_in_triggerer: bool = True,
        on_skipped: Literal["fail", "skip"] = "fail",
        fail_on_partial_success: bool = False,
        retry_on_cancel: bool = False,
        max_result_bytes: int = 1_000_000,
        openlineage_inject_parent_job_info: bool = conf.getboolean(
            "openlineage", "spark_inject_parent_job_info", fallback=False
        ),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.idempotency_token = idempotency_token
        self.durable = durable
        self.polling_period_seconds = parse_number(
            "polling_period_seconds", polling_period_seconds, _POLLING_PERIOD, above=0
        )
        self.wait_for_termination = wait_for_termination
        self.deferrable = deferrable
        self.end_in_triggerer = end_in_triggerer
        self.on_skipped = on_skipped
        self.fail_on_partial_success = fail_on_partial_success
        self.retry_on_cancel = retry_on_cancel
        self.max_result_bytes = parse_number(
            "max_result_bytes", max_result_bytes, _MAX_RESULT_BYTES, at_least=1, whole=True
        )
        self.openlineage_inject_parent_job_info = openlineage_inject_parent_job_info
        if on_skipped not in {"fail", "skip"}:
            raise ValueError(f"on_skipped is {on_skipped!r}; it must be 'fail' or 'skip'.")
        # For `on_kill`: the run, or the launcher that may be launching one.
        self.run_id: int | None = None
        self._launcher: Launcher | None = None
        # For the link. None: unknown in this process, but Airflow may have stored it. "": there is no run.
        self.run_page_url: str | None = None
        self._is_repairing = False
        self._killed = False
        self._is_being_killed = False
        self._left_to_next_try = False
        self._context: Context | None = None
        # A user's own token may differ in the next try.
        self._has_users_token = False
        # Which launch of the try this is: the job ("" for a one-time run), and its number among the launches of that.
        self._job = ""
        self._launch_number = 1

    def execute(self, context: Context) -> Any:
        """Launch the run and return its result; with ``wait_for_termination=False`` return None after the launch."""
        self.run_page_url = ""
        self._context = context
        with self._connect() as client:
            payload = self._build_launch_payload(client, context)
            self._job = str(payload.get("job_id") or "") if self.endpoint == "run-now" else ""
            self._launch_number = launches.next_launch_number(context["ti"], self._launch_key())
            self._prepare_launch(context, client, payload)
            return self._run(context, client, payload, deadline=launches.task_deadline(self, context))

    def execute_complete(
        self,
        context: Context,
        event: Any = None,
        *,
        joined: bool = False,
        deadline: float | None = None,
        run_id: int | None = None,
        run_page_url: str = "",
        try_number: int | None = None,
        launch_of: Sequence[Any] = ("", 1),
        **_: Any,
    ) -> Any:
        """Continue after the trigger has fired: read the run again, and end the task as `execute` would have.

        Unknown arguments are ignored, because another release may have deferred the task.
        """
        if launches.is_resumed_retry(context, try_number):
            return self.execute(context)
        from airflow_dbjobs.airflow_compat import AirflowTaskTimeout
        from airflow_dbjobs.client.wait import read_run
        from airflow_dbjobs.triggers.events import read_event

        self._context = context
        self.run_id, self.run_page_url, timed_out = read_event(event, run_id=run_id, page_url=run_page_url)
        if timed_out:
            # Airflow calls `on_kill` next, which needs the client. An error here must not replace the timeout.
            with suppress(Exception):
                self._connect()
            raise AirflowTaskTimeout(
                f"Run {self.run_id} did not end within the task's execution_timeout of {self.execution_timeout}:"
                f" {timed_out}. {self.run_page_url}"
            )
        self._job, self._launch_number = str(launch_of[0]), int(launch_of[1])
        launches.set_launch_number(context["ti"], self._launch_key(), self._launch_number)
        with self._connect() as client:
            # It may have been repaired since the trigger fired.
            run = read_run(client, self.run_id)
            return self._wait_and_finish(context, client, run, joined=joined, deadline=deadline)

    def on_kill(self) -> None:
        """Cancel the run within the 4 s that a killed worker has; leave it to the next try if only the worker stops.

        Airflow calls this in a signal handler, so it uses no lock of the call that it interrupted.
        """
        # Airflow 3.3 forwards a signal that the process itself has received too, as part of its process group.
        if self._is_being_killed:
            return
        self._is_being_killed = self._killed = True
        began = time.monotonic()
        if self._launcher:
            self._launcher.stop()
        self._left_to_next_try = self._is_left_to_next_try()
        if self._left_to_next_try:
            run = f"Run {self.run_id}" if self.run_id else "A run that is being launched"
            self.log.warning("The worker is stopping. %s was not cancelled: the next try of this task joins it.", run)
        else:
            self._cancel(began)
        self._is_being_killed = False

    def _is_left_to_next_try(self) -> bool:
        """Return whether only the worker stops, so that the next try will join the run."""
        from airflow_dbjobs.airflow_compat import AirflowTaskTimeout, task_states

        if self._context is None or self._has_users_token or isinstance(sys.exc_info()[1], AirflowTaskTimeout):
            return False
        ti = self._context["ti"]
        return self._next_try_joins(self._context) and task_states.is_worker_stopping(ti, _TASK_STATE_TIMEOUT_SECONDS)

    def _next_try_joins(self, context: Context) -> bool:
        """Return whether the task has another try, which will find the run of this one."""
        ti = context["ti"]
        return max(1, ti.try_number) <= (ti.max_tries or 0) and self._is_durable(context)

    def _is_durable(self, context: Context) -> bool:
        """Return whether tries find each other's runs. The runs of a failed try's callback belong to that try alone."""
        return self.durable and context.get("exception") is None and context.get("reason") is None

    def _connect(self) -> JobsClient:
        client = super()._connect()
        client.transport.interrupt = self._interrupt
        return client

    def _interrupt(self) -> None:
        """End the waits of a killed task, except that for the end of a run that was cancelled."""
        if self._left_to_next_try or self.run_id is None:
            self._raise_if_killed()

    def _raise_if_killed(self) -> None:
        if self._killed:
            from airflow_dbjobs.errors import JobsError

            raise JobsError("Airflow stopped the task.")

    def _payload_parameters(self) -> dict[str, Any]:
        return {**super()._payload_parameters(), "idempotency_token": self.idempotency_token}

    def _build_launch_payload(self, client: JobsClient, context: Context) -> dict[str, Any]:
        """Return the request body of the launch."""
        return self._build_payload(client, context)

    def _launch_key(self) -> tuple[str, str, str]:
        """Return what distinguishes this launch from others in the same try, apart from its number."""
        return self.task_id, self.endpoint, self._job

    def _prepare_launch(self, context: Context, client: JobsClient, payload: dict[str, Any]) -> None:
        """Do what has to be done before the launch."""

    def _repair(self, context: Context, client: JobsClient, run: Run) -> Run | None:  # noqa: ARG002 (for overriding)
        """Repair a finished run; return it with its new state, or None if it is not repaired."""
        return None

    def _run(
        self,
        context: Context,
        client: JobsClient,
        payload: dict[str, Any],
        *,
        deadline: float | None,
        is_second: bool = False,
    ) -> Any:
        """Launch or join the run, and wait for it; `is_second`: in place of one that was joined, then cancelled."""
        launched = self._launch(context, client, payload)
        run, joined = launched.run, launched.joined and not is_second
        self.run_id, self.run_page_url = run.run_id, run.page_url
        self._publish_launch(context, run, launched.report)
        # A killed task must not be deferred, nor succeed.
        self._raise_if_killed()
        if not self.wait_for_termination:
            return None
        already_used = launched.token_already_used
        return self._wait_and_finish(
            context, client, run, joined=joined, deadline=deadline, token_already_used=already_used
        )

    def _wait_and_finish(
        self,
        context: Context,
        client: JobsClient,
        run: Run,
        *,
        joined: bool,
        deadline: float | None,
        token_already_used: bool = False,
    ) -> Any:
        """Wait for the end of the run, repair it if the user wants that, and end the task."""
        from airflow_dbjobs.client.wait import RunStateLogger, wait_for_run
        from airflow_dbjobs.runs.task_log import TaskStateLogger

        log_tasks = TaskStateLogger(self.log)
        while True:
            if not run.is_terminal:
                if self.deferrable:
                    launch_of = (self._job, self._launch_number)
                    defer_until_end(self, context, run, joined=joined, deadline=deadline, launch_of=launch_of)
                log_state = RunStateLogger(self.log, run.run_id)
                period = self.polling_period_seconds
                run = wait_for_run(client, run.run_id, period=period, on_change=log_state, on_poll=log_tasks)
            if self._was_canceled_for_earlier_try(run, joined=joined):
                payload = self._build_launch_payload(client, context)
                return self._run(context, client, payload, deadline=deadline, is_second=True)
            log_tasks(run)
            repaired = self._repair(context, client, run)
            if repaired is None:
                return self._finish(client, run, token_already_used=token_already_used)
            # From now on the run is active because of this try, whichever try launched it.
            run, joined, token_already_used = repaired, False, False

    def _launch(self, context: Context, client: JobsClient, payload: dict[str, Any]) -> Launched:
        from airflow_dbjobs.errors import CallError
        from airflow_dbjobs.operators.final_errors import without_harmful_retry
        from airflow_dbjobs.runs.launch import Launcher

        self.run_id = None
        self._has_users_token = bool(payload.get("idempotency_token"))
        identity = launches.launch_identity(
            context, operator=self.task_id, launch_number=self._launch_number, durable=self._is_durable(context)
        )
        self._launcher = Launcher(
            client,
            self.endpoint,
            payload,
            identity,
            reports=launches.reported_launches(context["ti"]),
            cancel_cleared=self.wait_for_termination,
            successes=self._successes(),
        )
        if self._killed:
            self._launcher.stop()
        try:
            launched = self._launcher.launch()
        except CallError as error:
            if error.unclear:
                self._hand_over_or_cancel(context, "The API did not answer the launch, and may have launched a run")
            raise without_harmful_retry(error) from error.__cause__
        self.log.info("%s", launched.message)
        if launched.joined and self.openlineage_inject_parent_job_info:
            from airflow_dbjobs.operators.lineage import log_parent

            log_parent(launched.run)
        return launched

    def _successes(self) -> frozenset[Outcome]:
        """Return the outcomes with which the task succeeds."""
        from airflow_dbjobs.client.models import Outcome

        partial = () if self.fail_on_partial_success else (Outcome.PARTIAL_SUCCESS,)
        return frozenset({Outcome.SUCCESS, *partial})

    def _was_canceled_for_earlier_try(self, run: Run, *, joined: bool) -> bool:
        """Return whether this try joined a run that was then cancelled, because the try that launched it was killed."""
        from airflow_dbjobs.client.models import Outcome

        if not joined or self._killed or run.outcome is not Outcome.CANCELED:
            return False
        self.log.warning("Run %d, which this try had joined, was cancelled. Launching a new run.", run.run_id)
        return True

    def _hand_over_or_cancel(self, context: Context, problem: str) -> None:
        """Leave the run to the task's next try, which will find it, or cancel it if there is no next try."""
        if self._next_try_joins(context):
            self.log.warning("%s: the next try of this task will find it.", problem)
        else:
            self.log.warning("%s: cancelling it, because the task has no next try.", problem)
            self._cancel()

    def _publish_launch(self, context: Context, run: Run, report: str) -> None:
        """Store the launch in Airflow while the run is active: the report for the next try, the XComs, and the link."""
        ti = context["ti"]
        try:
            if report:
                launches.report_launch(ti, report, run.run_id)
            if self.do_xcom_push:
                push_run(ti, run.run_id, run.job_id, run.page_url)
            push_link(ti, run.page_url)
        except Exception:
            self._hand_over_or_cancel(context, f"Airflow failed to store the launch of run {run.run_id}")
            raise

    def _finish(self, client: JobsClient, run: Run, *, token_already_used: bool = False) -> Any:
        """End the task as docs/errors-and-retries.md describes under "How the task ends"."""
        from airflow_dbjobs.airflow_compat import AirflowSkipException
        from airflow_dbjobs.client.models import Outcome
        from airflow_dbjobs.operators.final_errors import run_error
        from airflow_dbjobs.runs.failure import partial_success_warning
        from airflow_dbjobs.runs.result import run_result
        from airflow_dbjobs.runs.task_log import run_summary

        self.log.info("%s", run_summary(run))
        if run.outcome not in self._successes():
            retry_on_cancel = self.retry_on_cancel or self._killed
            failure = run_error(client, run, token_already_used=token_already_used, retry_on_cancel=retry_on_cancel)
            if run.outcome is Outcome.SKIPPED and self.on_skipped == "skip":
                # Airflow logs that it skips the task, but not why.
                self.log.warning("%s", failure)
                raise AirflowSkipException(str(failure)) from failure
            raise failure
        if run.outcome is Outcome.PARTIAL_SUCCESS:
            self.log.warning("%s", partial_success_warning(run))
        return run_result(client, run, max_bytes=self.max_result_bytes) if self.do_xcom_push else None

    def get_openlineage_facets_on_complete(self, _: Any) -> Any:
        """Return the run, for OpenLineage's extractor, which calls this at the end of the task however it ends."""
        from airflow_dbjobs.airflow_compat.lineage import run_lineage

        return run_lineage(self.run_id, self.run_page_url)

    def _cancel(self, began: float | None = None) -> None:
        """Cancel the run within 4 s of `began` (monotonic seconds), by default of now."""
        from airflow_dbjobs.runs.cancel_on_kill import cancel_now

        if self._client is not None:
            began = began or time.monotonic()
            cancel_now(self._client, self.run_id, self._launcher, self.log, began=began, repairing=self._is_repairing)
