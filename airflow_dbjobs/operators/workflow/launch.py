"""The operator that launches the job of a workflow group."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_dbjobs.errors import ConfigurationError, PayloadError
from airflow_dbjobs.operators.run_now import DatabricksRunNowOperator
from airflow_dbjobs.operators.workflow.job import build_job
from airflow_dbjobs.operators.workflow.structure import (
    check_failure_rules,
    check_members,
    members_of,
    order,
    upstreams_outside,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_dbjobs.airflow_compat import Context
    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.client.models import Run
    from airflow_dbjobs.operators.base import PayloadOperator
    from airflow_dbjobs.operators.workflow.job import WorkflowJob


class WorkflowLaunchOperator(DatabricksRunNowOperator):
    """Launches the job of a workflow group: ensures its settings, and runs it once. The group creates it.

    Returns ``conn_id``, ``job_id`` and ``run_id``.

    :param parameters: the parameters of the group.
    """

    template_fields: Sequence[str] = ("parameters", "databricks_conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"parameters": "json"}

    def __init__(self, *, parameters: dict[str, Any], **kwargs: Any) -> None:
        self.parameters = parameters
        # Airflow renders the other one.
        self._templates = parameters
        # The default_args are for the members, too: what would change the launch is given.
        own = {"json": None, "idempotency_token": None, "do_xcom_push": True, "wait_for_termination": True}
        own |= {"forward_dag_params": False, "repair_run": False, "cancel_previous_runs": False}
        # An asset of the members has not been updated when the run is only launched.
        own |= {"outlets": None}
        fields = dict.fromkeys(DatabricksRunNowOperator.payload_fields)
        super().__init__(**{**kwargs, **fields, **own, "databricks_repair_reason_new_settings": None})

    def _find_early_mistakes(self, *, strict: bool) -> list[str]:
        from airflow_dbjobs.payloads import check_early

        job = build_job(self, self._templates)
        with _naming(job.task_ids):
            return check_early("create", None, job.settings, template_ext=self.template_ext, strict=strict)

    def prepare_template(self) -> None:
        """Order the tasks again: the DAG is complete now, and may have tasks and dependencies from after the group."""
        super().prepare_template()
        group: Any = self.task_group
        check_members(group, members_of(group))
        order(self)
        check_failure_rules(members_of(group))

    def _build_launch_payload(self, client: JobsClient, context: Context) -> dict[str, Any]:
        from airflow_dbjobs.client.ensure_job import ensure_job
        from airflow_dbjobs.payloads.job_parameters import check_size

        if client.api_version == "2.0":
            raise ConfigurationError("A workflow group needs api_version 2.1 or 2.2 in the connection's extra.")
        self._check_order()
        job = self._render_job(context)
        check_size(job.job_parameters)
        with _naming(job.task_ids):
            self._check_payload("create", job.settings, client)
        self._warn_about_fixed(job.fixed)
        self.job_id = ensure_job(client, job.settings)
        self.job_parameters = job.job_parameters or None
        return super()._build_launch_payload(client, context)

    def _check_order(self) -> None:
        """Raise ConfigurationError if a member waits for a task that the launch does not wait for.

        That is so if Airflow did not prepare the templates of the complete DAG.
        """
        group: Any = self.task_group
        missing = sorted(upstreams_outside(self) - self.upstream_task_ids)
        if missing:
            raise ConfigurationError(
                f"Tasks of workflow group {group.group_id} wait for {', '.join(missing)}, but {self.task_id} does not,"
                " and would launch them before. Nothing was launched. Let the group itself wait, with >> before it."
            )

    def _render_job(self, context: Context) -> WorkflowJob:
        def render(operator: PayloadOperator, value: Any) -> Any:
            try:
                with _as_task(context, operator):
                    return operator.render_template(value, context)
            except Exception as error:
                error.add_note(f"It was raised by a template of {operator.task_id}.")
                raise

        return build_job(self, self._templates, render)

    def _warn_about_fixed(self, paths: Sequence[str]) -> None:
        if paths:
            self.log.warning(
                "These templates become settings of the job, because only parameters of tasks can become parameters of"
                " the job: %s. The job is written whenever a value changes, and a repair of an older DAG run then uses"
                " the latest settings.",
                ", ".join(paths),
            )

    def _wait_and_finish(self, context: Context, client: JobsClient, run: Run, **_: Any) -> dict[str, Any]:  # noqa: ARG002
        # The members wait for the run. The launcher waits for one that is ending, and replaces it.
        return {"conn_id": self.databricks_conn_id, "job_id": int(self._job), "run_id": run.run_id}


@contextmanager
def _naming(task_ids: Sequence[str]) -> Iterator[None]:
    """Name the tasks of a job by their ids in Airflow, in the errors about them."""
    try:
        yield
    except PayloadError as error:
        texts = [
            re.sub(r"(?<![\w.])tasks\[(\d+)\]", lambda at: f"tasks[{task_ids[int(at[1])]}]", text)
            for text in error.violations
        ]
        raise PayloadError(error.endpoint, texts) from None


@contextmanager
def _as_task(context: Context, operator: PayloadOperator) -> Iterator[None]:
    """Let templates see an operator and its params in the context of another task."""
    values: Any = context
    conf = getattr(values.get("dag_run"), "conf", None) or {}
    kept = {name: values[name] for name in ("task", "params") if name in values}
    own = {name: value for name, value in operator.declared_params().items() if name not in conf and value is not None}
    values.update(task=operator, params={**(kept.get("params") or {}), **own})
    try:
        yield
    finally:
        for name in ("task", "params"):
            del values[name]
        values.update(kept)
