"""What the launching operators share: a run's way from the payload to the task's result."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow.providers.common.compat.sdk import conf

from airflow_dbjobs.links import DatabricksRunLink, push_link
from airflow_dbjobs.payload_operator import PayloadOperator
from airflow_dbjobs.tries import begins_anew, deadline_of, redacted

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_dbjobs.client import JobsClient
    from airflow_dbjobs.launch import Endpoint, Launched, Launcher, TaskTry
    from airflow_dbjobs.runs import Outcome, Run

_USED_UP = (
    "The idempotency_token stands for this run, which was over before this try began: the try has launched nothing."
    " Let the token vary by try (with {{ ti.try_number }}), or leave it out: then a retry launches anew, never twice."
)

# A worker's process is killed 5 s after it was told to stop.
KILL_BUDGET_SECONDS = 4.0
_CANCELS_OF_A_REPAIR = 3


class LaunchOperator(PayloadOperator):
    """Base of the operators that launch a run; they differ in their payload and endpoint.

    The parameters of every payload are described at ``payload_operator.PayloadOperator``.

    :param idempotency_token: sent as it is (at most 64 characters). Where it is None, the operator makes tokens by
        which a try of the task finds the run of an earlier try (``launch``).
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
        self.polling_period_seconds = polling_period_seconds
        self.wait_for_termination = wait_for_termination
        self.deferrable = deferrable
        self.on_skipped = on_skipped
        self.fail_on_partial_success = fail_on_partial_success
        self.retry_on_cancel = retry_on_cancel
        self.max_result_bytes = max_result_bytes
        if on_skipped not in {"fail", "skip"}:
            raise ValueError(f"on_skipped is {on_skipped!r}; it must be 'fail' or 'skip'.")
        if not polling_period_seconds > 0:
            raise ValueError(f"polling_period_seconds is {polling_period_seconds!r}; it must be more than 0.")
        if not isinstance(max_result_bytes, int) or max_result_bytes < 1:
            raise ValueError(
                f"max_result_bytes is {max_result_bytes!r}; it must be a whole number, 1 or more. do_xcom_push=False"
                " returns nothing."
            )
        # What a kill must know: the run, or what may be launching one.
        self.run_id: int | None = None
        # None: not known in this process, but a link may be stored. "": there is no run.
        self.run_page_url: str | None = None
        self._launcher: Launcher | None = None
        self._is_repairing = False
        self._killed = False

    def execute(self, context: Context) -> Any:
        """Launch the run and, unless told otherwise, wait for its end. Returns what the run returned."""
        self.run_page_url = ""
        client = self._connect()
        payload = self._payload(context, client)
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
        **_: Any,
    ) -> Any:
        """Go on after the trigger has fired: read the run once more and end as `execute` would have.

        Arguments of another release, which has deferred the task, are ignored.
        """
        if begins_anew(context, try_number):
            return self.execute(context)
        from airflow.providers.common.compat.sdk import AirflowTaskTimeout

        from airflow_dbjobs.events import read_event
        from airflow_dbjobs.waiting import ask_for_run

        self.run_id, self.run_page_url, timed_out = read_event(event, run_id=run_id, page_url=run_page_url)
        if timed_out:
            # For `on_kill`, which Airflow calls now. The timeout is what must be told.
            with suppress(Exception):
                self._connect()
            raise AirflowTaskTimeout(
                f"Run {self.run_id} did not end within the task's execution_timeout of {self.execution_timeout}:"
                f" {timed_out}. {self.run_page_url}"
            )
        client = self._connect()
        run = ask_for_run(client, self.run_id)
        if not run.is_terminal:
            # Somebody has repaired it since.
            self._defer(context, run, joined=joined, deadline=deadline)
        return self._see_through(context, client, run, joined=joined, deadline=deadline)

    def on_kill(self) -> None:
        """Cancel the run, within the 4 s that a killed worker has. Runs in a signal handler: it shares no lock."""
        self._killed = True
        if self._launcher:
            self._launcher.stop()
        self._cancel()

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
        from airflow_dbjobs.errors import JobsError

        launched = self._launch(context, client, payload)
        run, joined = launched.run, launched.joined and not again
        self.run_id, self.run_page_url = run.run_id, run.page_url
        self._announce(context, run)
        if self._killed:
            # Airflow 3 lets a killed task go on for some seconds: it must not defer, nor end well.
            raise JobsError(f"The task was killed; run {run.run_id} is cancelled.")
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
        from airflow_dbjobs.story import TaskLog
        from airflow_dbjobs.waiting import StateLog, wait_for_run

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
        from airflow_dbjobs.final_errors import final
        from airflow_dbjobs.launch import Launcher

        self.run_id = None
        self._launcher = Launcher(
            client,
            self.endpoint,
            payload,
            self._task_try(context),
            durable=self.durable,
            cancels=self.wait_for_termination,
            successes=self._successes(),
        )
        if self._killed:
            # Airflow 3 lets a killed task go on for some seconds.
            self._launcher.stop()
        try:
            launched = self._launcher.launch()
        except CallError as error:
            if error.unclear:
                self._abandon(context, "The launch was not answered, and may have launched a run")
            raise final(error) from error.__cause__
        self.log.info("%s", launched.story)
        return launched

    def _task_try(self, context: Context) -> TaskTry:
        """Return which try of which task instance this is."""
        from airflow_dbjobs.launch import TaskTry

        ti, dag_run = context["ti"], context.get("dag_run")
        # `airflow tasks test` counts no tries and has no start dates.
        start = getattr(dag_run, "start_date", None)
        return TaskTry(
            dag_id=ti.dag_id,
            run_id=ti.run_id,
            task_id=ti.task_id,
            map_index=-1 if ti.map_index is None else ti.map_index,
            try_number=max(1, ti.try_number),
            # A clear adds the tries so far to `max_tries`.
            tries_before_clear=max(0, (ti.max_tries or 0) - (self.retries or 0)),
            dag_run_start=start.timestamp() if start else None,
        )

    def _successes(self) -> frozenset[Outcome]:
        from airflow_dbjobs.runs import Outcome

        partial = () if self.fail_on_partial_success else (Outcome.PARTIAL_SUCCESS,)
        return frozenset({Outcome.SUCCESS, *partial})

    def _was_canceled_for_another_try(self, run: Run, *, joined: bool) -> bool:
        """Whether this try joined a run that was then cancelled: that was meant for the try which launched it."""
        from airflow_dbjobs.runs import Outcome

        if not joined or self._killed or run.outcome is not Outcome.CANCELED:
            return False
        self.log.warning("Run %d, which this try had joined, was cancelled. Launching a run of its own.", run.run_id)
        return True

    def _abandon(self, context: Context, what: str) -> None:
        """Leave a run to the next try of the task, which will join it; where none will come, cancel it."""
        ti = context["ti"]
        if self.durable and max(1, ti.try_number) <= (ti.max_tries or 0):
            self.log.warning("%s: the next try of this task will find it.", what)
        else:
            self.log.warning("%s: cancelling it.", what)
            self._cancel()

    def _announce(self, context: Context, run: Run) -> None:
        """Push what is known of the run, while it is still going: to XCom, and its page to the link."""
        ti = context["ti"]
        try:
            if self.do_xcom_push:
                for key, value in {"run_id": run.run_id, "job_id": run.job_id, "run_page_url": run.page_url}.items():
                    ti.xcom_push(key=key, value=value)
            push_link(ti, run.page_url)
        except Exception:
            self._abandon(context, f"Airflow does not take note of run {run.run_id}")
            raise

    def _defer(self, context: Context, run: Run, *, joined: bool, deadline: float | None) -> None:
        from airflow_dbjobs.triggers import DatabricksRunTrigger

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
            },
        )

    def _finish(self, client: JobsClient, run: Run, *, token_is_used_up: bool = False) -> Any:
        """End the task as the run ended (README, "What becomes of the task")."""
        from airflow.providers.common.compat.sdk import AirflowSkipException

        from airflow_dbjobs.failures import failure_of, partial_success_of
        from airflow_dbjobs.results import result_of
        from airflow_dbjobs.runs import Outcome
        from airflow_dbjobs.story import ending_of

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
                from airflow_dbjobs.final_errors import RunCanceledByPerson

                raise restored(RunCanceledByPerson, failure.args, vars(failure))
            raise failure
        return result_of(client, run, max_bytes=self.max_result_bytes) if self.do_xcom_push else None

    def _cancel(self) -> None:
        """Cancel the run; where the reply to its launch is still on its way, ask again with its token which it is."""
        client = self._client
        if client is None:
            return
        from airflow_dbjobs.errors import JobsError
        from airflow_dbjobs.retries import RetryPolicy

        deadline = time.monotonic() + KILL_BUDGET_SECONDS

        def quick(share: float) -> JobsClient:
            # A client of its own: the interrupted call may hold anything of the other one.
            left = (deadline - time.monotonic()) * share
            return client.with_policy(
                RetryPolicy(
                    retry_budget=left,
                    server_error_wait=0.5,
                    connect_timeout=1.5,
                    read_timeout=2.0,
                    first_wait=0.5,
                    ends_with_budget=True,
                )
            )

        run_id = self.run_id
        try:
            if run_id is None and self._launcher:
                run_id = self._launcher.find_in_flight(quick(share=0.5))
            if run_id is None:
                return
            quick(share=1.0).cancel_run(run_id)
            for _ in range(_CANCELS_OF_A_REPAIR if self._is_repairing else 0):
                # A repair that is on its way begins after the first one.
                client.sleep(0.5)
                quick(share=1.0).cancel_run(run_id)
        except JobsError as error:
            name = f"Run {run_id}" if run_id else "The run"
            self.log.warning("%s could not be cancelled and may still be running: %s", name, error)
        else:
            self.log.info("The API accepted to cancel run %d.", run_id)
