"""What the sensors share: looking, deferring and going on, in every mode of Airflow's sensors."""

from __future__ import annotations

import inspect
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import BaseSensorOperator, conf
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_dbjobs.airflow_compat import begins_anew, deadline_of
from airflow_dbjobs.links import DatabricksRunLink, push_link
from airflow_dbjobs.operators.parameters import explained, number

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.providers.common.compat.sdk import BaseOperator, Context, PokeReturnValue

    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.client.models import Run
    from airflow_dbjobs.runs.conditions import Condition, Look


class DatabricksSensor(BaseSensorOperator):
    """Base of the sensors, which differ in their condition, and in what becomes of the task when it is decided."""

    operator_extra_links = (DatabricksRunLink(),)
    ui_color = "#ff3621"
    ui_fgcolor = "#fff"

    def __init__(
        self,
        *,
        databricks_conn_id: str = "databricks_default",
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        for name in ("poke_interval", "timeout", "max_wait"):
            if isinstance(kwargs.get(name), str):
                kwargs[name] = number(name, kwargs[name], "a number of seconds, 0 or more", least=0)
        with explained(type(self), kwargs):
            super().__init__(**kwargs)
        self.databricks_conn_id = databricks_conn_id
        self.deferrable = deferrable
        self.run_page_url: str | None = None
        # As the last look of this process has left it.
        self._condition: Condition | None = None

    def execute(self, context: Context) -> Any:
        """Wait, in the mode that was asked for. Returns what the run returned."""
        from airflow.providers.common.compat.sdk import AirflowSensorTimeout

        if self.deferrable:
            with self._softly():
                return self._end_or_defer(context, self._wanted(), deadline_of(self, context))
        try:
            # Airflow 2 would take `super().execute` for a call outside of a task.
            return inspect.unwrap(BaseSensorOperator.execute)(self, context)
        except AirflowSensorTimeout:
            # Which ``never_fail`` does not cover there.
            with self._softly():
                raise

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after a deferral, as Airflow calls it."""
        from airflow.providers.common.compat.sdk import AirflowSensorTimeout

        with self._softly():
            if self._has_timed_out_in_airflow_2(next_method, next_kwargs or {}):
                raise AirflowSensorTimeout(f"The sensor has waited for longer than its timeout, {self.timeout} s.")
            return super().resume_execution(next_method, next_kwargs, context)

    def _has_timed_out_in_airflow_2(self, next_method: str, next_kwargs: dict[str, Any]) -> bool:
        """Whether `timeout` was over during a deferral: Airflow 3 makes an AirflowSensorTimeout of it, 2 a retry.

        It says the same of ``execution_timeout``, which a retry follows in every mode.
        """
        if AIRFLOW_V_3_0_PLUS or next_method != "__fail__":
            return False
        limit = self.execution_timeout
        is_the_sensors = limit is None or limit.total_seconds() > self.timeout
        return is_the_sensors and next_kwargs.get("error") == "Trigger/execution timeout"

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
        """Go on after the trigger has fired. `until` is when the sensor's timeout is over (epoch seconds).

        Arguments of another release, which has deferred the task, are ignored.
        """
        if begins_anew(context, try_number):
            return self.execute(context)
        from airflow.providers.common.compat.sdk import AirflowTaskTimeout

        from airflow_dbjobs.triggers.events import read_sighting

        condition = self._wanted()
        seen = read_sighting(event)
        # Where the link leads to already, but for a job that is idle: there the trigger has looked last.
        self.run_page_url = seen.page_url or None
        if seen.run_id is not None:
            condition = condition.of_run(seen.run_id)
        elif self.run_page_url:
            push_link(context["ti"], self.run_page_url)
        if seen.timed_out:
            raise AirflowTaskTimeout(
                f"Waiting for {condition.goal} took longer than the task's execution_timeout of"
                f" {self.execution_timeout}: {seen.timed_out}."
            )
        if seen.met and seen.run_id is None:
            return None
        # The first look was before the deferral.
        self._condition = condition
        # It was so when the trigger saw it, which is some seconds ago.
        has_passed = seen.met and condition.may_pass
        return self._end_or_defer(context, condition, deadline, until, has_passed=has_passed)

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """Look once."""
        from airflow.providers.common.compat.sdk import PokeReturnValue

        from airflow_dbjobs.errors import CallError

        with self._softly(), self._connect() as client:
            try:
                look = self._look(client, self._condition or self._wanted(), context, self.timeout)
            except CallError as error:
                if not error.transient:
                    raise
                # The next poke asks again; the sensor's timeout ends it.
                self.log.warning("%s", error)
                return False
            if look.verdict is None:
                return False
            return PokeReturnValue(is_done=True, xcom_value=self._finish(client, look))

    def _wanted(self) -> Condition:
        """Return what is waited for, by the parameters as they were rendered. Raises errors.ConfigurationError."""
        raise NotImplementedError

    def _finish(self, client: JobsClient, look: Look) -> Any:
        """End the task: the condition is met, or never will be."""
        raise NotImplementedError

    def _connect(self) -> JobsClient:
        from airflow_dbjobs.hooks.jobs import DatabricksJobsHook

        return DatabricksJobsHook(self.databricks_conn_id, caller=self.task_type).get_conn()

    def _look(self, client: JobsClient, condition: Condition, context: Context, left: float) -> Look:
        """Look, and say what was seen. An outage is left to the next look. `left` seconds are left for a refusal."""
        from airflow_dbjobs.runs.conditions import look_patiently

        def is_first() -> bool:
            return is_first_here and not (self.reschedule and _was_rescheduled(context))

        is_first_here = self._condition is None
        if is_first_here:
            self.log.info("Waiting for %s", condition.goal)
        # The sensor's timeout is looked at between looks only.
        patience = replace(client.patience, denied_tolerance=min(client.patience.denied_tolerance, left))
        look = look_patiently(client, condition, patience, is_first=is_first)
        self._condition = look.condition
        self.log.info("%s", look.says)
        if look.run and look.run.page_url != self.run_page_url:
            self._announce(look.condition, look.run, context)
        return look

    @contextmanager
    def _softly(self) -> Iterator[None]:
        """Skip the task where it shall not fail, as Airflow's own loop over the pokes does, and say why.

        That is for any error with ``never_fail``, and with ``soft_fail`` for a timeout.
        """
        from airflow.providers.common.compat.sdk import AirflowSensorTimeout, AirflowSkipException

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
            # Airflow logs that it skips a task, not why.
            self.log.warning("%s", error)
            raise AirflowSkipException(str(error)) from error

    def _announce(self, condition: Condition, run: Run, context: Context) -> None:
        """Set the link, and say where the run can be seen; push which run of a job it is."""
        self.run_page_url = run.page_url
        ti = context["ti"]
        if run.page_url:
            self.log.info("See %s", run.page_url)
            push_link(ti, run.page_url)
        else:
            self.log.info("The API gave no page for run %d.", run.run_id)
        if self.do_xcom_push and condition.is_of_a_job and condition.run_id is not None:
            named = {"run_id": condition.run_id, "job_id": run.job_id, "run_page_url": run.page_url}
            for key, value in named.items():
                ti.xcom_push(key=key, value=value)

    def _end_or_defer(
        self,
        context: Context,
        condition: Condition,
        deadline: float | None,
        until: float | None = None,
        *,
        has_passed: bool = False,
    ) -> Any:
        """Look, and defer where it is not decided yet. `has_passed` says that the condition was met, which counts."""
        from airflow_dbjobs.errors import CallError

        with self._connect() as client:
            try:
                look = self._look(client, condition, context, self._left(until))
            except CallError as error:
                if not error.transient:
                    raise
                self.log.warning("%s", error)
                self._defer(context, condition.in_any_state() if has_passed else condition, deadline, until)
            if look.verdict is None and not has_passed:
                self._defer(context, look.condition, deadline, until)
            return self._finish(client, replace(look, verdict=True) if has_passed else look)

    def _left(self, until: float | None) -> float:
        """Return the seconds until the timeout is over, which counts from the first deferral."""
        return self.timeout if until is None else until - time.time()

    def _defer(self, context: Context, condition: Condition, deadline: float | None, until: float | None) -> NoReturn:
        """Go on in the triggerer. Raises AirflowSensorTimeout where no time is left."""
        from airflow.providers.common.compat.sdk import AirflowSensorTimeout

        left = self._left(until)
        if left <= 0:
            raise AirflowSensorTimeout(f"Waiting for {condition.goal} took longer than the timeout, {self.timeout} s.")
        self.defer(
            trigger=self._trigger(condition, deadline),
            timeout=timedelta(seconds=left),
            method_name="execute_complete",
            kwargs={"deadline": deadline, "until": time.time() + left, "try_number": context["ti"].try_number},
        )

    def _trigger(self, condition: Condition, deadline: float | None) -> Any:
        if condition.is_end_of_a_run and condition.run_id is not None:
            from airflow_dbjobs.triggers.run import DatabricksRunTrigger

            return DatabricksRunTrigger(
                run_id=condition.run_id,
                databricks_conn_id=self.databricks_conn_id,
                polling_period_seconds=self.poke_interval,
                run_page_url=self.run_page_url or "",
                cancel_on_kill=False,
                deadline=deadline,
            )
        from airflow_dbjobs.triggers.condition import DatabricksSensorTrigger

        return DatabricksSensorTrigger(
            condition.to_plain(),
            self.databricks_conn_id,
            poke_interval=self.poke_interval,
            run_page_url=self.run_page_url or "",
            deadline=deadline,
        )


def _was_rescheduled(context: Context) -> bool:
    """Whether an earlier process of this try has poked, in mode "reschedule"."""
    if AIRFLOW_V_3_0_PLUS:
        return bool(context.get("task_reschedule_count"))
    # In Airflow 2 a worker works on the database itself.
    from airflow.models.taskreschedule import TaskReschedule
    from airflow.utils.session import create_session

    instance: Any = context["ti"]
    with create_session() as session:
        return session.scalar(TaskReschedule.stmt_for_task_instance(instance).limit(1)) is not None


def check_one_of(sensor: BaseOperator, *names: str) -> None:
    """Check that one of these parameters is given. Raises errors.ConfigurationError."""
    from airflow_dbjobs.errors import ConfigurationError

    given = [name for name in names if getattr(sensor, name) is not None]
    if len(given) != 1:
        raise ConfigurationError(f"Give exactly one of {', '.join(names)}; given: {', '.join(given) or 'none'}.")


def number_of(sensor: BaseOperator, name: str) -> int | None:
    """Return an id as it was rendered, None where it is not given. Raises errors.ConfigurationError."""
    value = getattr(sensor, name)
    if value is None:
        return None
    kind = name.removesuffix("_id")
    found: int = number(name, value, f"the number of a {kind}. Check what it renders to", least=1, whole=True)
    return found
