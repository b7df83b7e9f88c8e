"""How an operator defers its task: with a trigger that waits for the run, and what the resumed task has to know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_dbjobs.airflow_compat.task_end import success_arguments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_dbjobs.airflow_compat import Context
    from airflow_dbjobs.client.models import Run
    from airflow_dbjobs.operators.launch import LaunchOperator


def defer_until_end(
    operator: LaunchOperator,
    context: Context,
    run: Run,
    *,
    joined: bool,
    deadline: float | None,
    launch_of: Sequence[object],
) -> None:
    """Defer the task until the run is over. `launch_of` says which launch of the try it was."""
    from airflow_dbjobs.triggers.run import DatabricksRunTrigger

    operator.defer(
        trigger=DatabricksRunTrigger(
            run_id=run.run_id,
            databricks_conn_id=operator.databricks_conn_id,
            polling_period_seconds=operator.polling_period_seconds,
            run_page_url=run.page_url,
            deadline=deadline,
            **success_arguments(operator, context, max_result_bytes=operator.max_result_bytes),
        ),
        method_name="execute_complete",
        kwargs={
            "joined": joined,
            "deadline": deadline,
            "run_id": run.run_id,
            "run_page_url": run.page_url,
            "try_number": context["ti"].try_number,
            "launch_of": list(launch_of),
        },
    )
