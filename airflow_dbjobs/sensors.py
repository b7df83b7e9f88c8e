"""The sensor of a DAG: wait for a run that somebody else launched."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseSensorOperator, conf

from airflow_dbjobs.launch_operator import deadline_of
from airflow_dbjobs.links import DatabricksRunLink, push_link

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context, PokeReturnValue

    from airflow_dbjobs.client import JobsClient
    from airflow_dbjobs.runs import Run


class DatabricksRunSensor(BaseSensorOperator):
    """Waits until a run is over; succeeds if the run did, and returns what it returned.

    A run that ended without success fails the sensor for good, since asking again would bring the same answer (with
    ``soft_fail=True`` the task is skipped instead). The run itself is never touched: not on a timeout, not on a kill.

    :param run_id: the run or task run: an id, or a template or XComArg of one.
    :param databricks_conn_id: the connection to the workspace.
    :param deferrable: wait in the triggerer, which asks every ``poke_interval`` seconds.

    All parameters of Airflow's sensors hold: ``mode`` ("poke" or "reschedule"), ``poke_interval`` and ``timeout``
    (seconds), ``soft_fail``. Raises ``errors.ConfigurationError`` for a run_id that is none, ``errors.NotFound`` for
    one that the workspace does not know.
    """

    template_fields: Sequence[str] = ("run_id", "databricks_conn_id")
    operator_extra_links = (DatabricksRunLink(),)
    ui_color = "#ff3621"
    ui_fgcolor = "#fff"

    def __init__(
        self,
        *,
        run_id: int | str,
        databricks_conn_id: str = "databricks_default",
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.run_id = run_id
        self.databricks_conn_id = databricks_conn_id
        self.deferrable = deferrable
        self.run_page_url: str | None = None

    def execute(self, context: Context) -> Any:
        """Wait for the run's end, in the mode that was asked for. Returns what the run returned."""
        if not self.deferrable:
            return super().execute(context)
        client = self._connect()
        run = self._look(client, context)
        if not run.is_terminal:
            self._defer(run, deadline_of(self, context))
        return self._finish(client, run)

    def execute_complete(
        self,
        context: Context,  # noqa: ARG002 (Airflow passes it)
        event: Any,
        *,
        deadline: float | None = None,
    ) -> Any:
        """Go on after the trigger has fired."""
        from airflow.providers.common.compat.sdk import AirflowTaskTimeout

        from airflow_dbjobs.triggers import read_event
        from airflow_dbjobs.waiting import ask_for_run

        run_id, self.run_page_url, timed_out = read_event(event)
        if timed_out:
            raise AirflowTaskTimeout(
                f"Run {run_id} did not end within the task's execution_timeout of {self.execution_timeout}: {timed_out}"
            )
        client = self._connect()
        run = ask_for_run(client, run_id)
        if not run.is_terminal:
            # Somebody has repaired it since.
            self._defer(run, deadline)
        return self._finish(client, run)

    def _defer(self, run: Run, deadline: float | None) -> None:
        from airflow_dbjobs.triggers import DatabricksRunTrigger

        self.defer(
            trigger=DatabricksRunTrigger(
                run_id=run.run_id,
                databricks_conn_id=self.databricks_conn_id,
                polling_period_seconds=self.poke_interval,
                run_page_url=run.page_url,
                cancel_on_kill=False,
                deadline=deadline,
            ),
            timeout=timedelta(seconds=self.timeout),
            method_name="execute_complete",
            kwargs={"deadline": deadline},
        )

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """Ask once whether the run is over."""
        from airflow.providers.common.compat.sdk import PokeReturnValue

        from airflow_dbjobs.errors import CallError

        client = self._connect()
        try:
            run = self._look(client, context)
        except CallError as error:
            if not error.transient:
                raise
            # The next poke asks again; the sensor's timeout ends it.
            self.log.warning("%s", error)
            return False
        if not run.is_terminal:
            return False
        return PokeReturnValue(is_done=True, xcom_value=self._finish(client, run))

    def _connect(self) -> JobsClient:
        from airflow_dbjobs.hooks import DatabricksJobsHook

        return DatabricksJobsHook(self.databricks_conn_id, caller=self.task_type).get_conn()

    def _look(self, client: JobsClient, context: Context) -> Run:
        """Return the run as it is now; the first look also sets the link and logs where the run can be seen."""
        from airflow_dbjobs.errors import ConfigurationError

        if not str(self.run_id).strip().isdecimal():
            raise ConfigurationError(
                f"run_id is {self.run_id!r}; it must be the number of a run. Check what it renders to."
            )
        run = client.get_run(int(self.run_id))
        if not self.run_page_url:
            self.run_page_url = run.page_url
            self.log.info("Waiting for run %d: %s", run.run_id, run.page_url)
            push_link(context["ti"], run.page_url)
        self.log.info("Run %d is %s", run.run_id, run.state)
        return run

    def _finish(self, client: JobsClient, run: Run) -> Any:
        from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

        from airflow_dbjobs.results import failure_of, partial_success_of, result_of
        from airflow_dbjobs.runs import Outcome

        if run.outcome is Outcome.PARTIAL_SUCCESS:
            self.log.warning("%s", partial_success_of(run))
        if run.outcome in {Outcome.SUCCESS, Outcome.PARTIAL_SUCCESS}:
            return result_of(client, run) if self.do_xcom_push else None
        failure = failure_of(client, run)
        if self.soft_fail or self.never_fail:
            # Airflow logs that it skips a task, not why.
            self.log.warning("%s", failure)
            raise AirflowSkipException(str(failure)) from failure
        raise AirflowFailException(str(failure)) from failure
