"""What the launching operators share: a run's way from the payload to the task's result."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow.providers.common.compat.sdk import conf

from airflow_dbjobs import airflow_compat
from airflow_dbjobs.airflow_compat import begins_anew, deadline_of, redacted
from airflow_dbjobs.links import DatabricksRunLink, push_link
from airflow_dbjobs.operators.base import PayloadOperator
from airflow_dbjobs.operators.parameters import number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.client.models import Outcome, Run
    from airflow_dbjobs.runs.launch import Endpoint, Launched, Launcher

_USED_UP = (
    "The idempotency_token stands for this run, which was over before this try began: the try has launched nothing."
    " Let the token vary by try (with {{ ti.try_number }}), or leave it out: then a retry launches anew, never twice."
)

# How long Airflow has to tell why a task is killed. Its process ends 5 s after it was told to stop.
_TASK_STATE_SECONDS = 1.5

_PERIOD = "a number of seconds, more than 0"
_SIZE = "a whole number, 1 or more. do_xcom_push=False returns nothing"


class LaunchOperator(PayloadOperator):
    """Base of the operators that launch a run; they differ in their payload and endpoint.

    The parameters of every payload are described at ``operators.base.PayloadOperator``.

    :param idempotency_token: sent as it is (at most 64 characters). Where it is None, the operator makes tokens by
        which a try of the task finds the run of an earlier try (``runs.launch``).
    :param durable: False lets each try launch a run of its own instead.
    :param polling_period_seconds: seconds between two questions for the run's state.
    :param wait_for_termination: False ends the task as soon as the run is launched.
    :param deferrable: wait in the triggerer, occupying no worker.
    :param on_skipped: "fail" or "skip" the task where the job was at ``max_concurrent_runs`` and the run never started.
    :param fail_on_partial_success: fail where the run ended SUCCESS_WITH_FAILURES; else a warning names the tasks.
    :param retry_on_cancel: let Airflow retry a task whose run a person cancelled on Databricks.
    :param max_result_bytes: what the run returned is cut where it is larger, with a warning.
    :param do_xcom_push: push run_id, job_id and run_page_url at launch, and return what the run returned.
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
        on_skipped: Literal["fail", "skip"] = "fail",
        fail_on_partial_success: bool = False,
        retry_on_cancel: bool = False,
        max_result_bytes: int = 1_000_000,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.idempotency_token = idempotency_token
        self.durable = durable
        self.polling_period_seconds = number("polling_period_seconds", polling_period_seconds, _PERIOD, above=0)
        self.wait_for_termination = wait_for_termination
        self.deferrable = deferrable
        self.on_skipped = on_skipped
        self.fail_on_partial_success = fail_on_partial_success
        self.retry_on_cancel = retry_on_cancel
        self.max_result_bytes = number("max_result_bytes", max_result_bytes, _SIZE, least=1, whole=True)
        if on_skipped not in {"fail", "skip"}:
            raise ValueError(f"on_skipped is {on_skipped!r}; it must be 'fail' or 'skip'.")
        # What a kill must know: the run, or what may be launching one.
        self.run_id: int | None = None
        # None: not known in this process, but a link may be stored. "": there is no run.
        self.run_page_url: str | None = None
        self._launcher: Launcher | None = None
        self._is_repairing = False
        self._killed = False
        self._is_being_killed = False
        self._is_left = False  # to the next try, when the task was told to stop
        self._context: Context | None = None
        self._has_own_token = False  # the user's, which may be another one in the next try
        # Which launch of the try this is: its job ("" for a one-time run), and its number among the launches of that.
        self._launch_of = ("", 1)

    def execute(self, context: Context) -> Any:
        """Launch the run and, unless told otherwise, wait for its end. Returns what the run returned."""
        self.run_page_url = ""
        self._context = context
        with self._connect() as client:
            payload = self._payload(context, client)
            job = str(payload.get("job_id") or "") if self.endpoint == "run-now" else ""
            launch_number = airflow_compat.next_launch_number(context["ti"], (self.task_id, self.endpoint, job))
            self._launch_of = job, launch_number
            self._make_way(context, client, payload)
            return self._run(context, client, payload, deadline=deadline_of(self, context))

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
        """Go on after the trigger has fired: read the run once more and end as `execute` would have.

        Arguments of another release, which has deferred the task, are ignored.
        """
        if begins_anew(context, try_number):
            return self.execute(context)
        from airflow.providers.common.compat.sdk import AirflowTaskTimeout

        from airflow_dbjobs.client.wait import ask_for_run
        from airflow_dbjobs.triggers.events import read_event

        self._context = context
        self.run_id, self.run_page_url, timed_out = read_event(event, run_id=run_id, page_url=run_page_url)
        if timed_out:
            # For `on_kill`, which Airflow calls now. The timeout is what must be told.
            with suppress(Exception):
                self._connect()
            raise AirflowTaskTimeout(
                f"Run {self.run_id} did not end within the task's execution_timeout of {self.execution_timeout}:"
                f" {timed_out}. {self.run_page_url}"
            )
        job, launches = self._launch_of = str(launch_of[0]), int(launch_of[1])
        airflow_compat.resume_launch(context["ti"], (self.task_id, self.endpoint, job), launches)
        with self._connect() as client:
            run = ask_for_run(client, self.run_id)
            if not run.is_terminal:
                # Somebody has repaired it since.
                self._defer(context, run, joined=joined, deadline=deadline)
            return self._see_through(context, client, run, joined=joined, deadline=deadline)

    def on_kill(self) -> None:
        """Cancel the run within the 4 s that a killed worker has, or leave it to the next try, where one will come.

        It runs in a signal handler, and shares no lock with the call that it interrupted.
        """
        if self._is_being_killed:  # Airflow 3.3 forwards a signal that the whole process group has received
            return
        self._is_being_killed = self._killed = True
        began = time.monotonic()
        if self._launcher:
            self._launcher.stop()
        self._is_left = self._next_try_takes_over()
        if self._is_left:
            run = f"Run {self.run_id}" if self.run_id else "A run that is being launched"
            self.log.warning("The worker is stopping. %s was not cancelled: the next try of this task joins it.", run)
        else:
            self._cancel(began)
        self._is_being_killed = False

    def _next_try_takes_over(self) -> bool:
        """Whether it is the worker that stops, not the task: Airflow then still has the task as running."""
        from airflow.providers.common.compat.sdk import AirflowTaskTimeout

        if self._context is None or self._has_own_token or isinstance(sys.exc_info()[1], AirflowTaskTimeout):
            return False
        ti = self._context["ti"]
        return self._next_try_joins(self._context) and airflow_compat.is_worker_stopping(ti, _TASK_STATE_SECONDS)

    def _next_try_joins(self, context: Context) -> bool:
        """Whether there will be another try of the task, which finds the run of this one."""
        ti = context["ti"]
        return max(1, ti.try_number) <= (ti.max_tries or 0) and self._is_durable(context)

    def _is_durable(self, context: Context) -> bool:
        """Whether tries find each other's runs. What a callback of a failed try launches is that try's alone."""
        return self.durable and context.get("exception") is None and context.get("reason") is None

    def _connect(self) -> JobsClient:
        client = super()._connect()
        client.transport.interrupt = self._interrupt
        return client

    def _interrupt(self) -> None:
        """End a wait of a task that was told to stop, unless it waits for the end of the run that was cancelled."""
        if self._is_left or self.run_id is None:
            self._raise_if_killed()

    def _raise_if_killed(self) -> None:
        if self._killed:
            from airflow_dbjobs.errors import JobsError

            raise JobsError("The task was told to stop.")

    def _named(self) -> dict[str, Any]:
        return {**super()._named(), "idempotency_token": self.idempotency_token}

    def _payload(self, context: Context, client: JobsClient) -> dict[str, Any]:
        return self._resolved(self._checked_payload(client, context), client)

    def _resolved(self, payload: dict[str, Any], client: JobsClient) -> dict[str, Any]:  # noqa: ARG002 (for overriding)
        """Return the payload with what only the workspace knows."""
        return payload

    def _make_way(self, context: Context, client: JobsClient, payload: dict[str, Any]) -> None:
        """Do what is to be done before the first launch of a try."""

    def _repaired(self, context: Context, client: JobsClient, run: Run) -> Run | None:  # noqa: ARG002 (for overriding)
        """Return a finished run as it is after its repair, None where it is not repaired."""
        return None

    def _run(
        self,
        context: Context,
        client: JobsClient,
        payload: dict[str, Any],
        *,
        deadline: float | None,
        again: bool = False,
    ) -> Any:
        """Launch the run, or join it, and see it through; `again` where a run that was joined has been cancelled."""
        launched = self._launch(context, client, payload)
        run, joined = launched.run, launched.joined and not again
        self.run_id, self.run_page_url = run.run_id, run.page_url
        self._announce(context, run, launched.report)
        self._raise_if_killed()  # rather than defer, or end well
        if not self.wait_for_termination:
            return None
        used_up = launched.token_is_used_up
        return self._see_through(context, client, run, joined=joined, deadline=deadline, token_is_used_up=used_up)

    def _see_through(
        self,
        context: Context,
        client: JobsClient,
        run: Run,
        *,
        joined: bool,
        deadline: float | None,
        token_is_used_up: bool = False,
    ) -> Any:
        """Wait for the run's end, repair it where that is asked for, and end the task as it ended."""
        from airflow_dbjobs.client.wait import StateLog, wait_for_run
        from airflow_dbjobs.runs.task_log import TaskLog

        tasks = TaskLog(self.log)
        while True:
            if not run.is_terminal:
                if self.deferrable:
                    self._defer(context, run, joined=joined, deadline=deadline)
                told = StateLog(self.log, run.run_id)
                period = self.polling_period_seconds
                run = wait_for_run(client, run.run_id, period=period, on_change=told, on_poll=tasks)
            if self._was_canceled_for_another_try(run, joined=joined):
                return self._run(context, client, self._payload(context, client), deadline=deadline, again=True)
            tasks(run)
            repaired = self._repaired(context, client, run)
            if repaired is None:
                return self._finish(client, run, token_is_used_up=token_is_used_up)
            # It goes on for this try now, whoever launched it.
            run, joined, token_is_used_up = repaired, False, False

    def _launch(self, context: Context, client: JobsClient, payload: dict[str, Any]) -> Launched:
        from airflow_dbjobs.errors import CallError
        from airflow_dbjobs.operators.final_errors import final
        from airflow_dbjobs.runs.launch import Launcher

        self.run_id = None
        self._has_own_token = bool(payload.get("idempotency_token"))
        self._launcher = Launcher(
            client,
            self.endpoint,
            payload,
            airflow_compat.task_try(
                context, operator=self.task_id, launch_number=self._launch_of[1], durable=self._is_durable(context)
            ),
            reports=airflow_compat.reported_launches(context["ti"]),
            cancels=self.wait_for_termination,
            successes=self._successes(),
        )
        if self._killed:
            self._launcher.stop()
        try:
            launched = self._launcher.launch()
        except CallError as error:
            if error.unclear:
                self._abandon(context, "The launch was not answered, and may have launched a run")
            raise final(error) from error.__cause__
        self.log.info("%s", launched.story)
        return launched

    def _successes(self) -> frozenset[Outcome]:
        from airflow_dbjobs.client.models import Outcome

        partial = () if self.fail_on_partial_success else (Outcome.PARTIAL_SUCCESS,)
        return frozenset({Outcome.SUCCESS, *partial})

    def _was_canceled_for_another_try(self, run: Run, *, joined: bool) -> bool:
        """Whether this try joined a run that was then cancelled: that was meant for the try which launched it."""
        from airflow_dbjobs.client.models import Outcome

        if not joined or self._killed or run.outcome is not Outcome.CANCELED:
            return False
        self.log.warning("Run %d, which this try had joined, was cancelled. Launching a run of its own.", run.run_id)
        return True

    def _abandon(self, context: Context, what: str) -> None:
        """Leave a run to the next try of the task, which will join it; where none will come, cancel it."""
        if self._next_try_joins(context):
            self.log.warning("%s: the next try of this task will find it.", what)
        else:
            self.log.warning("%s: cancelling it.", what)
            self._cancel()

    def _announce(self, context: Context, run: Run, report: str) -> None:
        """Push what is known of the run while it is still going: a report for the next try, XComs, the link."""
        ti = context["ti"]
        try:
            if report:
                airflow_compat.report_launch(ti, report, run.run_id)
            if self.do_xcom_push:
                for key, value in {"run_id": run.run_id, "job_id": run.job_id, "run_page_url": run.page_url}.items():
                    ti.xcom_push(key=key, value=value)
            push_link(ti, run.page_url)
        except Exception:
            self._abandon(context, f"Airflow does not take note of run {run.run_id}")
            raise

    def _defer(self, context: Context, run: Run, *, joined: bool, deadline: float | None) -> None:
        from airflow_dbjobs.triggers.run import DatabricksRunTrigger

        self.defer(
            trigger=DatabricksRunTrigger(
                run_id=run.run_id,
                databricks_conn_id=self.databricks_conn_id,
                polling_period_seconds=self.polling_period_seconds,
                run_page_url=run.page_url,
                deadline=deadline,
            ),
            method_name="execute_complete",
            kwargs={
                "joined": joined,
                "deadline": deadline,
                "run_id": run.run_id,
                "run_page_url": run.page_url,
                "try_number": context["ti"].try_number,
                "launch_of": list(self._launch_of),
            },
        )

    def _finish(self, client: JobsClient, run: Run, *, token_is_used_up: bool = False) -> Any:
        """End the task as the run ended (README, "What becomes of the task")."""
        from airflow.providers.common.compat.sdk import AirflowSkipException

        from airflow_dbjobs.client.models import Outcome
        from airflow_dbjobs.runs.failure import failure_of, partial_success_of
        from airflow_dbjobs.runs.result import result_of
        from airflow_dbjobs.runs.task_log import ending_of

        outcome = run.outcome
        self.log.info("%s", ending_of(run))
        if outcome is Outcome.PARTIAL_SUCCESS and not self.fail_on_partial_success:
            self.log.warning("%s", partial_success_of(run))
        elif outcome is not Outcome.SUCCESS:
            failure = redacted(failure_of(client, run))
            if token_is_used_up:
                failure.args = (f"{failure}\n{_USED_UP}",)
            if outcome is Outcome.SKIPPED and self.on_skipped == "skip":
                # Airflow logs that it skips a task, not why.
                self.log.warning("%s", failure)
                raise AirflowSkipException(str(failure)) from failure
            by_a_person = outcome is Outcome.CANCELED and not run.state.canceled_by_platform and not self._killed
            if by_a_person and not self.retry_on_cancel:
                from airflow_dbjobs.errors import restored
                from airflow_dbjobs.operators.final_errors import RunCanceledByPerson

                raise restored(RunCanceledByPerson, failure.args, vars(failure))
            raise failure
        return result_of(client, run, max_bytes=self.max_result_bytes) if self.do_xcom_push else None

    def _cancel(self, began: float | None = None) -> None:
        """Cancel the run within 4 s from `began` (monotonic seconds), or from now."""
        from airflow_dbjobs.runs.kill import cancel_now

        if self._client is not None:
            began = began or time.monotonic()
            cancel_now(self._client, self.run_id, self._launcher, self.log, began=began, repairing=self._is_repairing)
