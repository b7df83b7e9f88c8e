"""The base of the sensors: checking, deferring and resuming, in every mode of Airflow's sensors."""

from __future__ import annotations

import inspect
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_dbjobs.airflow_compat import AIRFLOW_V_3_0_PLUS, BaseSensorOperator, conf
from airflow_dbjobs.airflow_compat.launches import is_resumed_retry, task_deadline
from airflow_dbjobs.airflow_compat.task_end import success_arguments
from airflow_dbjobs.airflow_compat.task_states import was_rescheduled
from airflow_dbjobs.links import DatabricksRunLink, push_link, push_run
from airflow_dbjobs.operators.parameters import parse_number, suggesting_parameters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_dbjobs.airflow_compat import BaseOperator, Context, PokeReturnValue
    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.client.models import Run
    from airflow_dbjobs.runs.conditions import CheckResult, Condition


class DatabricksSensor(BaseSensorOperator):
    """Base of the sensors, which differ in their condition and in how they end the task."""

    operator_extra_links = (DatabricksRunLink(),)
    ui_color = "#ff3621"
    ui_fgcolor = "#fff"

    def __init__(
        self,
        *,
        databricks_conn_id: str = "databricks_default",
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        end_in_triggerer: bool = True,
        **kwargs: Any,
    ) -> None:
        for name in ("poke_interval", "timeout", "max_wait"):
            if isinstance(kwargs.get(name), str):
                kwargs[name] = parse_number(name, kwargs[name], "a number of seconds, 0 or more", at_least=0)
        with suggesting_parameters(type(self), kwargs):
            super().__init__(**kwargs)
        self.databricks_conn_id = databricks_conn_id
        self.deferrable = deferrable
        self.end_in_triggerer = end_in_triggerer
        self.run_page_url: str | None = None
        # The condition that the latest check in this process returned.
        self._condition: Condition | None = None

    def execute(self, context: Context) -> Any:
        """Wait in the configured mode; return the result of the run."""
        from airflow_dbjobs.airflow_compat import AirflowSensorTimeout

        if self.deferrable:
            with self._skip_on_error():
                return self._finish_or_defer(context, self._rendered_condition(), task_deadline(self, context))
        try:
            # Airflow 2 would mistake `super().execute` for a call outside of a task.
            return inspect.unwrap(BaseSensorOperator.execute)(self, context)
        except AirflowSensorTimeout:
            # Airflow's loop does not apply ``never_fail`` to a timeout.
            with self._skip_on_error():
                raise

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after a deferral; Airflow calls this."""
        from airflow_dbjobs.airflow_compat import AirflowSensorTimeout

        with self._skip_on_error():
            if self._timed_out_in_airflow_2(next_method, next_kwargs or {}):
                raise AirflowSensorTimeout(self._timeout_text("The sensor waited"))
            return super().resume_execution(next_method, next_kwargs, context)

    def _timed_out_in_airflow_2(self, next_method: str, next_kwargs: dict[str, Any]) -> bool:
        """Return whether `timeout` ended a deferral: Airflow 3 raises AirflowSensorTimeout then, Airflow 2 retries.

        Airflow 2 reports ``execution_timeout``, after which every mode retries, in the same way.
        """
        if AIRFLOW_V_3_0_PLUS or next_method != "__fail__":
            return False
        limit = self.execution_timeout
        timeout_is_shorter = limit is None or limit.total_seconds() > self.timeout
        return timeout_is_shorter and next_kwargs.get("error") == "Trigger/execution timeout"

    def _timeout_text(self, waiting: str) -> str:
        return (
            f"{waiting} longer than its timeout of {self.timeout} s. Nothing was cancelled. Raise timeout if the wait"
            " may take longer."
        )

    def execute_complete(
        self,
        context: Context,
        event: Any = None,
        *,
        deadline: float | None = None,
        until: float | None = None,
        try_number: int | None = None,
        **_: Any,
    ) -> Any:
        """Resume after the trigger has fired. `until` is when the sensor's timeout ends, in epoch seconds.

        Unknown arguments, stored by another release, are ignored.
        """
        if is_resumed_retry(context, try_number):
            return self.execute(context)
        from airflow_dbjobs.airflow_compat import AirflowTaskTimeout
        from airflow_dbjobs.triggers.events import read_sensor_event

        condition = self._rendered_condition()
        fired = read_sensor_event(event)
        # The link already leads to this page, except for a job's idleness, which only the trigger has checked.
        self.run_page_url = fired.page_url or None
        if fired.run_id is not None:
            condition = condition.for_run(fired.run_id)
        elif self.run_page_url:
            push_link(context["ti"], self.run_page_url)
        if fired.timed_out:
            raise AirflowTaskTimeout(
                f"Waiting for {condition.goal} took longer than the task's execution_timeout of"
                f" {self.execution_timeout}: {fired.timed_out}. Raise execution_timeout if the wait may take longer."
            )
        if fired.met and fired.run_id is None:
            return None
        # Marks that the first check was made before the deferral.
        self._condition = condition
        # The trigger saw the condition met some seconds ago, which a later check must not contradict.
        was_met = fired.met and condition.is_transient
        return self._finish_or_defer(context, condition, deadline, until, was_met=was_met)

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """Check once."""
        from airflow_dbjobs.airflow_compat import PokeReturnValue
        from airflow_dbjobs.errors import CallError

        with self._skip_on_error(), self._connect() as client:
            try:
                result = self._check(client, self._condition or self._rendered_condition(), context, self.timeout)
            except CallError as error:
                if not error.transient:
                    raise
                # The next poke retries, until the sensor's timeout.
                self.log.warning("%s", error)
                return False
            if result.verdict is None:
                return False
            return PokeReturnValue(is_done=True, xcom_value=self._finish(client, result))

    def _rendered_condition(self) -> Condition:
        """Return the condition that the rendered parameters describe. Raises errors.ConfigurationError."""
        raise NotImplementedError

    def _finish(self, client: JobsClient, result: CheckResult) -> Any:
        """End the task when the condition is met or can no longer be met."""
        raise NotImplementedError

    def _connect(self) -> JobsClient:
        from airflow_dbjobs.hooks.jobs import DatabricksJobsHook

        return DatabricksJobsHook(self.databricks_conn_id, caller=self.task_type).get_conn()

    def _check(self, client: JobsClient, condition: Condition, context: Context, left: float) -> CheckResult:
        """Check once and log the result. Rejected credentials are retried for at most `left` seconds, outages not."""
        from airflow_dbjobs.runs.conditions import check_in_worker

        def is_first() -> bool:
            return is_first_here and not (self.reschedule and was_rescheduled(context))

        is_first_here = self._condition is None
        if is_first_here:
            self.log.info("Waiting for %s", condition.goal)
        # Airflow enforces the sensor's timeout between checks only.
        patience = replace(client.patience, denied_tolerance=min(client.patience.denied_tolerance, left))
        result = check_in_worker(client, condition, patience, is_first=is_first)
        self._condition = result.condition
        self.log.info("%s", result.message)
        if result.run and result.run.page_url != self.run_page_url:
            self._publish_run(result.condition, result.run, context)
        return result

    @contextmanager
    def _skip_on_error(self) -> Iterator[None]:
        """Skip the task instead of failing it, under the same conditions as Airflow's loop over the pokes.

        With ``never_fail`` after any error, with ``soft_fail`` after a timeout.
        """
        from airflow_dbjobs.airflow_compat import AirflowSensorTimeout, AirflowSkipException

        try:
            yield
        except AirflowSkipException:
            raise
        except Exception as error:
            is_timeout = isinstance(error, AirflowSensorTimeout)
            pokes_again = self.silent_fail and not self.deferrable and not is_timeout
            skips = (self.never_fail and not pokes_again) or (self.soft_fail and is_timeout)
            if not skips:
                raise
            # Airflow logs that it skips the task, but not why.
            self.log.warning("%s", error)
            raise AirflowSkipException(str(error)) from error

    def _publish_run(self, condition: Condition, run: Run, context: Context) -> None:
        """Set the link to the run's page; if the user named a job, push the run that was chosen to XCom."""
        self.run_page_url = run.page_url
        ti = context["ti"]
        if run.page_url:
            self.log.info("See %s", run.page_url)
            push_link(ti, run.page_url)
        else:
            self.log.info("The API returned no page URL for run %d.", run.run_id)
        if self.do_xcom_push and condition.names_job and condition.run_id is not None:
            push_run(ti, condition.run_id, run.job_id, run.page_url)

    def _finish_or_defer(
        self,
        context: Context,
        condition: Condition,
        deadline: float | None,
        until: float | None = None,
        *,
        was_met: bool = False,
    ) -> Any:
        """Check, and defer if the result is undecided. With `was_met` the condition counts as met in any state."""
        from airflow_dbjobs.errors import CallError

        with self._connect() as client:
            try:
                result = self._check(client, condition, context, self._seconds_left(until))
            except CallError as error:
                if not error.transient:
                    raise
                self.log.warning("%s", error)
                self._defer(context, condition.in_any_state() if was_met else condition, deadline, until)
            if result.verdict is None and not was_met:
                self._defer(context, result.condition, deadline, until)
            return self._finish(client, replace(result, verdict=True) if was_met else result)

    def _seconds_left(self, until: float | None) -> float:
        """Return the seconds left of the timeout, which begins with the first deferral."""
        return self.timeout if until is None else until - time.time()

    def _defer(self, context: Context, condition: Condition, deadline: float | None, until: float | None) -> NoReturn:
        """Continue in the triggerer. Raises AirflowSensorTimeout if the timeout is over."""
        from airflow_dbjobs.airflow_compat import AirflowSensorTimeout

        left = self._seconds_left(until)
        if left <= 0:
            raise AirflowSensorTimeout(self._timeout_text(f"The sensor waited for {condition.goal}"))
        self.defer(
            trigger=self._trigger(context, condition, deadline),
            timeout=timedelta(seconds=left),
            method_name="execute_complete",
            kwargs={"deadline": deadline, "until": time.time() + left, "try_number": context["ti"].try_number},
        )

    def _trigger(self, context: Context, condition: Condition, deadline: float | None) -> Any:
        from airflow_dbjobs.runs.result import MAX_RESULT_BYTES

        common = {
            "databricks_conn_id": self.databricks_conn_id,
            "run_page_url": self.run_page_url or "",
            "deadline": deadline,
            **success_arguments(self, context, max_result_bytes=MAX_RESULT_BYTES),
        }
        if condition.is_end_of_run and condition.run_id is not None:
            from airflow_dbjobs.triggers.run import DatabricksRunTrigger

            common["ends_task"] = common.get("ends_task", False) and condition.accepts_success
            period = self.poke_interval
            return DatabricksRunTrigger(condition.run_id, polling_period_seconds=period, cancel_on_kill=False, **common)
        from airflow_dbjobs.triggers.condition import DatabricksSensorTrigger

        return DatabricksSensorTrigger(condition.to_dict(), poke_interval=self.poke_interval, **common)


def require_one_of(sensor: BaseOperator, *names: str) -> None:
    """Check that exactly one of these parameters is given. Raises errors.ConfigurationError."""
    from airflow_dbjobs.errors import ConfigurationError

    given = [name for name in names if getattr(sensor, name) is not None]
    if len(given) != 1:
        raise ConfigurationError(f"Give exactly one of {', '.join(names)}; given: {', '.join(given) or 'none'}.")


def rendered_id(sensor: BaseOperator, name: str) -> int | None:
    """Return the id that a parameter rendered to, None if it is not given. Raises errors.ConfigurationError."""
    value = getattr(sensor, name)
    if value is None:
        return None
    kind = name.removesuffix("_id")
    expected = f"the number of a {kind}. Check what it renders to"
    parsed: int = parse_number(name, value, expected, at_least=1, whole=True)
    return parsed
