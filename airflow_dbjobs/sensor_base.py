"""What the sensors share: looking, deferring and going on, in every mode of Airflow's sensors."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseSensorOperator, conf
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_dbjobs.launch_operator import deadline_of
from airflow_dbjobs.links import DatabricksRunLink, push_link

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.providers.common.compat.sdk import BaseOperator, Context, PokeReturnValue

    from airflow_dbjobs.client import JobsClient
    from airflow_dbjobs.runs import Run
    from airflow_dbjobs.sensing import Condition, Look


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
        super().__init__(**kwargs)
        self.databricks_conn_id = databricks_conn_id
        self.deferrable = deferrable
        self.run_page_url: str | None = None
        # As the last look of this process has left it.
        self._condition: Condition | None = None

    def execute(self, context: Context) -> Any:
        """Wait, in the mode that was asked for. Returns what the run returned."""
        if not self.deferrable:
            return super().execute(context)
        with self._softly():
            return self._begin(context, deadline_of(self, context))

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after a deferral, as Airflow calls it."""
        with self._softly():
            return super().resume_execution(next_method, next_kwargs, context)

    def _begin(self, context: Context, deadline: float | None) -> Any:
        """Look, and defer where it is not decided yet."""
        from airflow_dbjobs.errors import CallError

        client, condition = self._connect(), self._wanted()
        try:
            look = self._look(client, condition, context)
        except CallError as error:
            if not error.transient:
                raise
            self.log.warning("%s", error)
            self._defer(condition, deadline)
        return self._end_or_defer(client, look, deadline)

    def execute_complete(
        self,
        context: Context,
        event: Any = None,
        *,
        deadline: float | None = None,
        until: float | None = None,
        **_: Any,
    ) -> Any:
        """Go on after the trigger has fired. `until` is when the sensor's timeout is over (epoch seconds).

        Arguments of another release, which has deferred the task, are ignored.
        """
        from airflow.providers.common.compat.sdk import AirflowTaskTimeout

        from airflow_dbjobs.events import read_sighting

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
        client = self._connect()
        look = self._look(client, condition, context, resumed=True)
        if seen.met and condition.may_pass:
            # It was so when the trigger saw it, which is some seconds ago.
            look = replace(look, verdict=True)
        return self._end_or_defer(client, look, deadline, until)

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """Look once."""
        with self._softly():
            return self._poke(context)

    def _poke(self, context: Context) -> bool | PokeReturnValue:
        from airflow.providers.common.compat.sdk import PokeReturnValue

        from airflow_dbjobs.errors import CallError

        client = self._connect()
        try:
            look = self._look(client, self._condition or self._wanted(), context)
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
        from airflow_dbjobs.hooks import DatabricksJobsHook

        return DatabricksJobsHook(self.databricks_conn_id, caller=self.task_type).get_conn()

    def _look(self, client: JobsClient, condition: Condition, context: Context, *, resumed: bool = False) -> Look:
        """Look, and say what was seen. Before the first deferral, and in a poke, an outage is left to the next look."""
        from airflow_dbjobs.sensing import look_patiently

        def is_first() -> bool:
            is_first_here = not resumed and self._condition is None
            return is_first_here and not (self.reschedule and _was_rescheduled(context))

        patience = client.patience
        if not resumed:
            if self._condition is None:
                self.log.info("Waiting for %s", condition.goal)
            # The sensor's timeout is looked at between pokes only.
            patience = replace(patience, denied_tolerance=min(patience.denied_tolerance, self.timeout))
        look = look_patiently(client, condition, patience, is_first=is_first, outages=resumed)
        self._condition = look.condition
        self.log.info("%s", look.says)
        if look.run and look.run.page_url != self.run_page_url:
            self._announce(look.condition, look.run, context)
        return look

    @contextmanager
    def _softly(self) -> Iterator[None]:
        """Skip the task where Airflow's own loop over the pokes would, which no deferrable sensor goes through.

        That is for any error with ``never_fail``, with ``soft_fail`` for a timeout, and for what fails for good.
        """
        from airflow.providers.common.compat.sdk import AirflowSensorTimeout, AirflowSkipException

        try:
            yield
        except AirflowSkipException:
            raise
        except Exception as error:
            is_soft = self.never_fail or (self.soft_fail and isinstance(error, AirflowSensorTimeout))
            # Then Airflow pokes again.
            goes_on = self.silent_fail and not self.deferrable
            if not is_soft or goes_on:
                raise
            # Airflow logs that it skips a task, not why.
            self.log.warning("%s", error)
            raise AirflowSkipException(str(error)) from error

    def _announce(self, condition: Condition, run: Run, context: Context) -> None:
        """Set the link, and say where the run can be seen; push which run of a job it is."""
        self.log.info("See %s", run.page_url)
        self.run_page_url = run.page_url
        ti = context["ti"]
        push_link(ti, run.page_url)
        if self.do_xcom_push and condition.is_of_a_job and condition.run_id is not None:
            named = {"run_id": condition.run_id, "job_id": run.job_id, "run_page_url": run.page_url}
            for key, value in named.items():
                ti.xcom_push(key=key, value=value)

    def _end_or_defer(self, client: JobsClient, look: Look, deadline: float | None, until: float | None = None) -> Any:
        if look.verdict is None:
            self._defer(look.condition, deadline, until)
        return self._finish(client, look)

    def _defer(self, condition: Condition, deadline: float | None, until: float | None = None) -> None:
        """Go on in the triggerer; the timeout counts from the first deferral."""
        from airflow.providers.common.compat.sdk import AirflowSensorTimeout

        now = time.time()
        left = self.timeout if until is None else until - now
        if left <= 0:
            raise AirflowSensorTimeout(f"Waiting for {condition.goal} took longer than the timeout, {self.timeout} s.")
        self.defer(
            trigger=self._trigger(condition, deadline),
            timeout=timedelta(seconds=left),
            method_name="execute_complete",
            kwargs={"deadline": deadline, "until": now + left},
        )

    def _trigger(self, condition: Condition, deadline: float | None) -> Any:
        if condition.is_end_of_a_run and condition.run_id is not None:
            from airflow_dbjobs.triggers import DatabricksRunTrigger

            return DatabricksRunTrigger(
                run_id=condition.run_id,
                databricks_conn_id=self.databricks_conn_id,
                polling_period_seconds=self.poke_interval,
                run_page_url=self.run_page_url or "",
                cancel_on_kill=False,
                deadline=deadline,
            )
        from airflow_dbjobs.sensor_trigger import DatabricksSensorTrigger

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
    from airflow_dbjobs.errors import ConfigurationError

    value = getattr(sensor, name)
    if value is None:
        return None
    if not str(value).strip().isdecimal():
        raise ConfigurationError(
            f"{name} is {value!r}; it must be the number of a {name.removesuffix('_id')}. Check what it renders to."
        )
    return int(value)
