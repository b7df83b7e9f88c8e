"""What the launching operators share: a run's way from the payload to the task's result."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow.providers.common.compat.sdk import BaseOperator, conf

from airflow_dbjobs.links import DatabricksRunLink, push_link

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_dbjobs.client import JobsClient
    from airflow_dbjobs.launch import Endpoint, LaunchRequest
    from airflow_dbjobs.runs import Run

# A worker's process is killed 5 s after it was told to stop.
KILL_BUDGET_SECONDS = 4.0


class LaunchOperator(BaseOperator):
    """Base of the operators that launch a run; they differ in their payload and endpoint.

    :param json: the request body (a mapping, or a template that renders to one). Named parameters win over its fields.
    :param databricks_conn_id: the connection to the workspace.
    :param idempotency_token: sent as it is (at most 64 characters); where it is None, each launch has one of its own.
    :param polling_period_seconds: seconds between two questions for the run's state.
    :param wait_for_termination: False ends the task as soon as the run is launched.
    :param deferrable: wait in the triggerer, occupying no worker.
    :param on_skipped: "fail" or "skip" the task where the job was at ``max_concurrent_runs`` and the run never started.
    :param fail_on_partial_success: fail where the run ended SUCCESS_WITH_FAILURES; else a warning names the tasks.
    :param retry_on_cancel: let Airflow retry a task whose run a person cancelled on Databricks.
    :param do_xcom_push: push run_id, job_id and run_page_url at launch, and return what the run returned.
    :param databricks_retry_limit: of the official operators; it has no effect here, and a warning says so.
    :param databricks_retry_delay: likewise.
    :param databricks_retry_args: likewise.
    """

    # The payload's fields that are parameters of the operator.
    payload_fields: ClassVar[tuple[str, ...]] = ()
    endpoint: ClassVar[Endpoint]

    template_ext: Sequence[str] = (".json-tpl",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"json": "json"}
    operator_extra_links = (DatabricksRunLink(),)
    ui_color = "#ff3621"
    ui_fgcolor = "#fff"

    def __init__(
        self,
        *,
        json: Any = None,
        databricks_conn_id: str = "databricks_default",
        idempotency_token: str | None = None,
        polling_period_seconds: float = 10,
        wait_for_termination: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        on_skipped: Literal["fail", "skip"] = "fail",
        fail_on_partial_success: bool = False,
        retry_on_cancel: bool = False,
        databricks_retry_limit: int | None = None,
        databricks_retry_delay: float | None = None,
        databricks_retry_args: dict[Any, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.json = json
        self.databricks_conn_id = databricks_conn_id
        self.idempotency_token = idempotency_token
        self.polling_period_seconds = polling_period_seconds
        self.wait_for_termination = wait_for_termination
        self.deferrable = deferrable
        self.on_skipped = on_skipped
        self.fail_on_partial_success = fail_on_partial_success
        self.retry_on_cancel = retry_on_cancel
        if on_skipped not in {"fail", "skip"}:
            raise ValueError(f"on_skipped is {on_skipped!r}; it must be 'fail' or 'skip'.")
        if not polling_period_seconds > 0:
            raise ValueError(f"polling_period_seconds is {polling_period_seconds!r}; it must be more than 0.")
        self._warn_of_retry_settings(
            databricks_retry_limit=databricks_retry_limit,
            databricks_retry_delay=databricks_retry_delay,
            databricks_retry_args=databricks_retry_args,
        )
        # What a kill must know: the run, or the request that may have launched one.
        self.run_id: int | None = None
        # None: not known in this process, but a link may be stored. "": there is no run.
        self.run_page_url: str | None = None
        self._client: JobsClient | None = None
        self._request: LaunchRequest | None = None
        self._killed = False

    def execute(self, context: Context) -> Any:
        """Launch the run and, unless told otherwise, wait for its end. Returns what the run returned."""
        from airflow_dbjobs.errors import JobsError
        from airflow_dbjobs.hooks import DatabricksJobsHook
        from airflow_dbjobs.launch import LaunchRequest
        from airflow_dbjobs.poller import StateLog, wait_for_run

        self.run_page_url = ""
        payload = self._checked_payload()
        self._client = client = DatabricksJobsHook(self.databricks_conn_id, caller=self.task_type).get_conn()
        self._request = LaunchRequest.new(self.endpoint, self._resolved(payload, client))
        if self._killed:
            # Airflow 3 lets a killed task go on for some seconds.
            raise JobsError("The task was killed before it launched its run.")
        self.run_id = self._launch(client, self._request)
        self._announce(context, run_id=self.run_id)
        run = self._first_look(client, self.run_id)
        self.run_page_url = run.page_url
        self._announce(context, job_id=run.job_id, run_page_url=run.page_url)
        if not self.wait_for_termination:
            return None
        if self.deferrable and not run.is_terminal:
            self._defer(run)
        if not run.is_terminal:
            run = wait_for_run(client, run.run_id, period=self.polling_period_seconds, on_change=StateLog(self.log))
        return self._finish(client, run)

    def execute_complete(self, context: Context, event: Any) -> Any:  # noqa: ARG002 (Airflow passes it)
        """Go on after the trigger has fired: read the run once more and end as `execute` would have."""
        from airflow_dbjobs.hooks import DatabricksJobsHook
        from airflow_dbjobs.poller import ask_for_run
        from airflow_dbjobs.triggers import read_event

        self.run_id, self.run_page_url = read_event(event)
        client = DatabricksJobsHook(self.databricks_conn_id, caller=self.task_type).get_conn()
        run = ask_for_run(client, self.run_id)
        if not run.is_terminal:
            # Somebody has repaired it since.
            self._defer(run)
        return self._finish(client, run)

    def on_kill(self) -> None:
        """Cancel the run, within the 4 s that a killed worker has. Runs in a signal handler: it shares no lock."""
        self._killed = True
        self._cancel()

    def _payload(self) -> dict[str, Any]:
        """Return the request body as it stands, rendered and unchecked."""
        from airflow_dbjobs.payloads import merge

        return merge(self.json, {name: getattr(self, name) for name in (*self.payload_fields, "idempotency_token")})

    def _checked_payload(self) -> dict[str, Any]:
        """Return the request body. Raises errors.ConfigurationError, before anything is sent."""
        raise NotImplementedError

    def _resolved(self, payload: dict[str, Any], client: JobsClient) -> dict[str, Any]:  # noqa: ARG002 (for overriding)
        """Return the payload with what only the workspace knows."""
        return payload

    def _launch(self, client: JobsClient, request: LaunchRequest) -> int:
        """Launch the run; where the API goes silent for good, leave no run behind that may have been launched."""
        from airflow_dbjobs.errors import ServerError, Unreachable, UnreadableReply
        from airflow_dbjobs.launch import launch

        try:
            run_id = launch(client, request)
        except (Unreachable, UnreadableReply, ServerError) as error:
            if error.sent:
                self.log.warning("The launch was not answered, and may have launched a run: cancelling it.")
                self._cancel()
            raise
        self.log.info("Launched run %d.", run_id)
        return run_id

    def _first_look(self, client: JobsClient, run_id: int) -> Run:
        """Return the launched run as it is now; one that these credentials may not see is cancelled."""
        from airflow_dbjobs.errors import PermissionDenied, RunLost
        from airflow_dbjobs.poller import ask_for_run

        try:
            run = ask_for_run(client, run_id)
        except RunLost as error:
            if isinstance(error.__cause__, PermissionDenied):
                self.log.warning("Run %d was launched, but may not be watched: cancelling it.", run_id)
                self._cancel()
            raise
        job = f" of job {run.job_id}" if run.job_id else ""
        self.log.info("Run %d%s: %s", run.run_id, job, run.page_url or "the API gave no page for it")
        return run

    def _announce(self, context: Context, **facts: object) -> None:
        """Push what is known of the run, while it is still going: to XCom, and its page to the link.

        Where Airflow cannot store that, the task fails with nobody left to watch the run, so the run is cancelled.
        """
        try:
            if self.do_xcom_push:
                for key, value in facts.items():
                    context["ti"].xcom_push(key=key, value=value)
            if "run_page_url" in facts:
                push_link(context["ti"], self.run_page_url or "")
        except Exception:
            self.log.warning("Run %s was launched, but Airflow does not take note of it: cancelling it.", self.run_id)
            self._cancel()
            raise

    def _defer(self, run: Run) -> None:
        from airflow_dbjobs.triggers import DatabricksRunTrigger

        self.defer(
            trigger=DatabricksRunTrigger(
                run_id=run.run_id,
                databricks_conn_id=self.databricks_conn_id,
                polling_period_seconds=self.polling_period_seconds,
                run_page_url=run.page_url,
            ),
            method_name="execute_complete",
        )

    def _finish(self, client: JobsClient, run: Run) -> Any:
        """End the task as the run ended (README, "What becomes of the task")."""
        from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

        from airflow_dbjobs.results import failure_of, partial_success_of, result_of
        from airflow_dbjobs.runs import Outcome

        outcome = run.outcome
        if outcome is Outcome.PARTIAL_SUCCESS and not self.fail_on_partial_success:
            self.log.warning("%s", partial_success_of(run))
        elif outcome is not Outcome.SUCCESS:
            failure = failure_of(client, run)
            if outcome is Outcome.SKIPPED and self.on_skipped == "skip":
                # Airflow logs that it skips a task, not why.
                self.log.warning("%s", failure)
                raise AirflowSkipException(str(failure)) from failure
            by_a_person = outcome is Outcome.CANCELED and not run.state.canceled_by_platform and not self._killed
            if by_a_person and not self.retry_on_cancel:
                # Who cancelled the run does not want it started again by a retry.
                raise AirflowFailException(str(failure)) from failure
            raise failure
        self.log.info("Run %d: %s. %s", run.run_id, outcome.value, run.page_url)
        return result_of(client, run) if self.do_xcom_push else None

    def _cancel(self) -> None:
        """Cancel the run; where the reply to its launch is still on its way, ask again with its token which it is."""
        client, request = self._client, self._request
        if client is None or request is None:
            return
        from airflow_dbjobs.errors import CallError
        from airflow_dbjobs.launch import launch
        from airflow_dbjobs.transport import RetryPolicy

        deadline = time.monotonic() + KILL_BUDGET_SECONDS

        def quick(share: float) -> JobsClient:
            # A client of its own: the interrupted call may hold anything of the other one.
            left = (deadline - time.monotonic()) * share
            return client.with_policy(
                RetryPolicy(budget=left, server_error_wait=0.5, connect_timeout=1.5, read_timeout=2.0)
            )

        try:
            run_id = self.run_id or launch(quick(share=0.5), request)
            quick(share=1.0).cancel_run(run_id)
        except CallError as error:
            self.log.warning("Run %s could not be cancelled and may still be running: %s", self.run_id or "", error)
        else:
            self.log.info("The API accepted to cancel run %d.", run_id)

    def _warn_of_retry_settings(self, **settings: object) -> None:
        if named := [name for name, value in settings.items() if value is not None]:
            self.log.warning(
                "%s: %s have no effect here. A failing API call is retried for 10 minutes, a failing poll for an hour.",
                self.task_id,
                ", ".join(named),
            )
