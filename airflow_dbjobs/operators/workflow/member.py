"""A task in a workflow group: it waits for its task in the group's run, ends by it, and has it repaired."""

# ruff: noqa: SLF001 (a part of its operator; a module of its own, because only tasks that run need to import it)

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from airflow_dbjobs import airflow_compat
from airflow_dbjobs.airflow_compat import (
    AirflowSkipException,
    AirflowTaskTimeout,
    is_resumed_retry,
    success_arguments,
    task_deadline,
)
from airflow_dbjobs.client.models import Outcome
from airflow_dbjobs.client.wait import NO_LONGER_EXISTS, retry_through_outages, wait_for_run
from airflow_dbjobs.errors import CallError, ConfigurationError, JobsError, RunFailed, RunLost
from airflow_dbjobs.links import push_link
from airflow_dbjobs.runs.workflow_repair import dependents, read_with_repairs, repair_tasks
from airflow_dbjobs.runs.workflow_task import (
    UPSTREAM_RESULTS,
    Note,
    Stage,
    Step,
    TaskEndCondition,
    failed_upstream,
    find_active_attempt,
    find_task,
    has_run,
    is_due,
    next_step,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_dbjobs.airflow_compat import Context
    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.client.models import Run, TaskRun
    from airflow_dbjobs.operators.submit_run import DatabricksSubmitRunOperator

# How long to wait for siblings that may need the same repair, in addition to their polling period; how often to look.
_SETTLING_SECONDS = 10.0
_SETTLING_PERIOD = 1.0
# How long Airflow may take during a kill, in addition to the time for the task's own state.
_RUN_WANTED_TIMEOUT_SECONDS = 1.0


class Member:
    """One try of a task in a workflow group, or of one that has `workflow_run_metadata`."""

    def __init__(self, operator: DatabricksSubmitRunOperator, context: Context) -> None:
        self._operator = operator
        self._context = context
        self._ti: Any = context["ti"]
        self._log = operator.log
        self._group: Any = operator.workflow_group
        self._launch_task_id: str = self._group.launch_task_id if self._group else ""
        # The operator that runs has been rendered: its key may not be that with which the job was made.
        self._key = self._members().get(operator.task_id) or operator.databricks_task_key
        self._epoch = self._ti.max_tries or 0
        self._deadline: float | None = None
        # The group's run, and the attempt at the task that this try has seen.
        self._run_id = 0
        self._attempt: int | None = None
        self._is_repairing = False

    # --- start and end ---

    def execute(self) -> Any:
        """Find the task in the run that the group launched, and wait for its end."""
        metadata = self._metadata()
        if not metadata:
            raise self._lack_of_run()
        try:
            self._run_id = int(metadata["run_id"])
        except (KeyError, TypeError, ValueError):
            raise ConfigurationError(f"workflow_run_metadata is {metadata!r}; it must have a run_id.") from None
        self._operator.databricks_conn_id = metadata.get("conn_id") or self._operator.databricks_conn_id
        self._operator.run_page_url = ""
        self._deadline = task_deadline(self._operator, self._context)
        return self._advance()

    def resume(
        self,
        event: Any,
        *,
        try_number: int | None = None,
        run_id: int | None = None,
        conn_id: str | None = None,
        run_page_url: str = "",
        attempt: int | None = None,
        deadline: float | None = None,
        **_: Any,
    ) -> Any:
        """Continue after the trigger has fired. Unknown arguments are ignored: another release may have deferred."""
        if is_resumed_retry(self._context, try_number):
            return self.execute()
        from airflow_dbjobs.triggers.events import read_event

        operator = self._operator
        operator.databricks_conn_id = conn_id or operator.databricks_conn_id
        operator.run_id, operator.run_page_url = attempt, run_page_url
        self._attempt, self._deadline = attempt, deadline
        with self._with_remedy():
            read = read_event(event, run_id=run_id, page_url=run_page_url)
        self._run_id, timed_out = read.run_id, read.timed_out
        if timed_out:
            # Airflow calls `on_kill` next, which needs the client. An error here must not replace the timeout.
            with suppress(Exception):
                operator._connect()
            raise AirflowTaskTimeout(
                f"Task {self._key} of run {self._run_id} did not end within the task's execution_timeout of"
                f" {operator.execution_timeout}: {timed_out}. {run_page_url}"
            )
        return self._advance()

    def _lack_of_run(self) -> Exception:
        """Return how to end without a run: skipped if that is intended, else failed."""
        if self._group:
            self._group.check_launch()
        launch = self._launch_task_id
        problem = f"{launch} launched no run" if launch else "There is no run"
        problem += f", so there is no task {self._key} to wait for."
        state = airflow_compat.states_of_tasks(self._ti, [launch]).get(launch, "gone") if launch else "skipped"
        # A user may have marked it as a success. A task with all_done begins after a failure, too, which must show.
        if state in {"skipped", "success"}:
            return AirflowSkipException(problem)
        return JobsError(f"{problem} The state of {launch} is {state}. Clear it and what is downstream.")

    def _metadata(self) -> dict[str, Any]:
        """Return ``run_id`` and ``conn_id`` of the group's run; {} if there is none."""
        from airflow_dbjobs.payloads import merge

        found: Any = self._operator.workflow_run_metadata
        if found is None and self._launch_task_id:
            found = self._ti.xcom_pull(task_ids=self._launch_task_id)
        return {} if found in (None, "", "None") else merge(found, {})

    def _advance(self) -> Any:
        """Do what is next until the task ends, and return its result."""
        with self._operator._connect() as client:
            while True:
                run = self._read(client)
                with self._with_remedy():
                    task = find_task(run, self._key)
                self._operator._raise_if_killed()
                if run.is_terminal and (task is None or run.outcome is Outcome.SKIPPED):
                    # The run never started.
                    return self._operator._finish(client, run)
                if task is None:
                    self._wait(client, run, None, Step.WAIT_FOR_TASK)
                    continue
                step, note = next_step(
                    run,
                    task,
                    self._read_note(task),
                    epoch=self._epoch,
                    try_number=self._ti.try_number,
                    successes=self._operator._successes(),
                )
                if note:
                    self._write_note(note)
                self._publish(run, task)
                if step is Step.END:
                    return self._end(client, run, task)
                if step is Step.REPAIR:
                    self._repair(client, run, task)
                    continue
                if step is Step.CANCEL:
                    self._cancel_cleared(client, task)
                elif step is Step.WAIT_FOR_TASK and not self._operator.wait_for_termination:
                    return None
                self._wait(client, run, task, step)

    def _end(self, client: JobsClient, run: Run, task: TaskRun) -> Any:
        """End the Airflow task as the task ended."""
        if task.state.result_state in UPSTREAM_RESULTS:
            raise self._upstream_failure(run, task)
        if not has_run(task.state):
            reason = task.state.message or "the API gave no reason"
            raise AirflowSkipException(
                f"Databricks skipped task {self._key} of run {run.run_id} ({task.state}): {reason}. {task.page_url}"
            )
        return self._operator._finish(client, run.only(task))

    def _upstream_failure(self, run: Run, task: TaskRun) -> RunFailed:
        task_ids = {key: task_id for task_id, key in self._members().items()}
        names = ", ".join(task_ids.get(key, key) for key in failed_upstream(run, task)) or "tasks before it"
        return RunFailed(
            f"Databricks did not run task {self._key} of run {run.run_id} ({task.state}), because of {names}. That does"
            f" not change in Databricks if a task is marked as a success in Airflow. Clear {names}, which repairs the"
            f" run, or mark this task as well. {task.page_url}".rstrip(),
            run_id=task.run_id,
            page_url=task.page_url,
            life_cycle_state=task.state.life_cycle_state,
            result_state=task.state.result_state,
            failed_tasks=failed_upstream(run, task),
        )

    def _read(self, client: JobsClient) -> Run:
        with self._with_remedy():
            return read_with_repairs(client, self._run_id, period=self._operator.polling_period_seconds)

    @contextmanager
    def _with_remedy(self) -> Iterator[None]:
        """Add to errors that only a new run helps against how to launch one."""
        try:
            yield
        except (CallError, ConfigurationError, RunLost) as error:
            if self._launch_task_id and (not isinstance(error, RunLost) or NO_LONGER_EXISTS in str(error)):
                error.args = (f"{error} To launch a new run, clear {self._launch_task_id} and what is downstream.",)
            raise

    # --- what tries leave to each other ---

    def _note_name(self, key: str) -> str:
        return f"member.{key}"

    def _read_note(self, task: TaskRun) -> Note | None:
        if self._launch_task_id:
            return self._note_of(self._key)
        # There is nowhere to keep a note, so the task's earlier try counts as ended by what was final before this one.
        if self._ti.try_number <= 1 or not task.state.is_terminal or task.run_id == self._attempt:
            return None
        return Note(task.run_id, self._epoch, self._ti.try_number - 1, Stage.ENDED)

    def _note_of(self, key: str) -> Note | None:
        return Note.from_json(airflow_compat.read_xcom(self._ti, self._note_name(key), task_id=self._launch_task_id))

    def _write_note(self, note: Note) -> None:
        if self._launch_task_id:
            airflow_compat.store_xcom(
                self._ti, self._note_name(self._key), note.to_json(), task_id=self._launch_task_id
            )

    def _publish(self, run: Run, task: TaskRun) -> None:
        """Store XComs and link of an attempt that this try has not seen before."""
        operator = self._operator
        operator.run_id, operator.run_page_url = task.run_id, task.page_url or run.page_url
        if self._attempt == task.run_id:
            return
        self._attempt = task.run_id
        if operator.do_xcom_push:
            for key, value in {
                "run_id": task.run_id, "job_id": run.job_id, "run_page_url": operator.run_page_url
            }.items():  # fmt: skip
                self._ti.xcom_push(key=key, value=value)
        push_link(self._ti, operator.run_page_url)

    # --- waiting ---

    def _wait(self, client: JobsClient, run: Run, task: TaskRun | None, step: Step) -> None:
        """Wait for the end of the task or, to repair it, of the run; in the triggerer if the task is deferrable."""
        wants_repair = step is Step.WAIT_FOR_RUN
        if self._operator.deferrable:
            self._defer(run, wants_repair=wants_repair)
        known = task.run_id if wants_repair and task else None
        condition = TaskEndCondition(chosen=run.run_id, task_key=self._key, attempt=known)
        logged = [""]

        def is_met(run: Run) -> bool:
            result = condition.check_run(run)
            if result.message != logged[0]:
                logged[0] = result.message
                self._log.info("%s", result.message)
            return bool(result.verdict) or self._operator._killed

        wait_for_run(client, run.run_id, period=self._operator.polling_period_seconds, until=is_met)

    def _defer(self, run: Run, *, wants_repair: bool) -> None:
        from airflow_dbjobs.triggers.run import DatabricksRunTrigger

        operator = self._operator
        page = operator.run_page_url or run.page_url
        # A success that was there before is no end for a try that wants another.
        ends = (
            {}
            if wants_repair
            else success_arguments(operator, self._context, max_result_bytes=operator.max_result_bytes)
        )
        operator.defer(
            trigger=DatabricksRunTrigger(
                run_id=run.run_id,
                databricks_conn_id=operator.databricks_conn_id,
                polling_period_seconds=operator.polling_period_seconds,
                run_page_url=page,
                deadline=self._deadline,
                task_key=self._key,
                attempt=self._attempt,
                wants_repair=wants_repair,
                launch_task_id=self._launch_task_id,
                **ends,
            ),
            method_name="execute_complete",
            kwargs={
                "run_id": run.run_id,
                "conn_id": operator.databricks_conn_id,
                "run_page_url": page,
                "attempt": self._attempt,
                "deadline": self._deadline,
                "try_number": self._ti.try_number,
            },
        )

    # --- repairing ---

    def _cancel_cleared(self, client: JobsClient, task: TaskRun) -> None:
        self._log.info("Cancelling run %d of the task, which began before the task was cleared.", task.run_id)
        action = f"Cancelling run {task.run_id}"
        retry_through_outages(client, lambda: client.cancel_run(task.run_id), task.run_id, action)

    def _repair(self, client: JobsClient, run: Run, task: TaskRun) -> None:
        """Have the task repaired, together with the siblings that need it, and return once the run shows it."""
        operator = self._operator
        keys = self._keys_to_repair(client, run)
        operator._raise_if_killed()
        self._is_repairing = True
        try:
            with self._with_remedy():
                repair_tasks(client, run, task, keys, period=operator.polling_period_seconds)
        finally:
            self._is_repairing = False
            if operator._killed and not operator._left_to_next_try:
                operator._cancel()

    def _keys_to_repair(self, client: JobsClient, run: Run) -> set[str]:
        """Return the keys of this task and of the siblings that need a repair as well, so that one suffices.

        Siblings that fail, start again or were cleared at the same time may not have left their note yet.
        """
        keys, waited_for = {self._key}, set[str]()
        deadline = client.clock() + self._operator.polling_period_seconds + _SETTLING_SECONDS
        while True:
            undecided: set[str] = set()
            for key, due in self._siblings_due(run).items():
                (keys if due else undecided).add(key)
            undecided -= dependents(run, keys)
            if not undecided or client.clock() >= deadline:
                return keys
            if undecided != waited_for:
                waited_for = undecided
                self._log.info("Waiting for %s, which may need the same repair.", ", ".join(sorted(undecided)))
            client.sleep(_SETTLING_PERIOD)

    def _siblings_due(self, run: Run) -> dict[str, bool | None]:
        """Return which siblings need a repair, or may (None)."""
        try:
            states = airflow_compat.states_of_tasks(self._ti)
        except Exception as error:  # noqa: BLE001 (Airflow may raise anything; each sibling can have its own repair)
            self._log.warning("Reading the states of other tasks from Airflow failed: %r", error)
            return {}
        found: dict[str, bool | None] = {}
        successes = self._operator._successes()
        attempts = {task.task_key: task for task in run.tasks}
        for task_id, key in self._members().items():
            attempt, state = attempts.get(key), states.get(task_id, "gone")
            if attempt is None or key == self._key:
                continue
            # Of those that have succeeded, only a running one can want a repair.
            needs_note = attempt.state.outcome not in successes or state in {"running", "deferred"}
            due = is_due(attempt, self._note_of(key) if needs_note else None, state, successes)
            if due is not False:
                found[key] = due
        return found

    def _members(self) -> dict[str, str]:
        """Return the keys of all members of the group by task id."""
        tasks = self._group.iter_tasks() if self._group else ()
        return {task.task_id: task.databricks_task_key for task in tasks if hasattr(task, "databricks_task_key")}

    # --- being killed ---

    def cancel(self, began: float) -> None:
        """Cancel the task's run within 4 s of `began`, or the whole run if nothing wants that any more."""
        from airflow_dbjobs.runs.cancel_on_kill import cancel_now

        operator = self._operator
        if operator._client is None or not self._run_id:
            return
        is_wanted = not self._launch_task_id or airflow_compat.is_run_wanted_within(
            _RUN_WANTED_TIMEOUT_SECONDS, self._ti, self._launch_task_id
        )
        run_id = None if is_wanted else self._run_id
        cancel_now(operator._client, run_id, self, self._log, began=began, repairing=self._is_repairing)

    def find_in_flight(self, client: JobsClient) -> int | None:
        """Return the active attempt at the task, None if there is none."""
        return find_active_attempt(client, self._run_id, self._key, known=self._attempt)
