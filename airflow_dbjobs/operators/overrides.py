"""Refuses a user's subclass that overrides what only the official operators call: it would have no effect."""

from __future__ import annotations

# Methods of the official operators that have no counterpart, and what to do. docs/migrating.md says the same.
_CONNECTING = ("_get_hook", "_hook")
_BUILDING = (
    "_get_named_json_parameters", "_get_merged_json", "_validate_merged_json", "_prepare_submit_json",
    "_build_run_now_payload", "_prepare_run_now_json", "_inject_run_now_job_parameters",
    "_inject_openlineage_properties_into_databricks_job",
)  # fmt: skip
_TASKS = (
    "_get_task_base_json", "_get_run_json", "_convert_to_databricks_workflow_task", "_get_task_timeout_seconds",
    "_extend_workflow_notebook_packages", "_has_retry_settings", "_resolved_max_retries", "_retry_settings",
)  # fmt: skip
_KEYS = ("_generate_databricks_task_key", "_get_databricks_task_id")
_WAITING = (
    "_launch_job", "monitor_databricks_job", "_monitor_single_attempt", "_monitor_submit_run",
    "_monitor_workflow_task", "_workflow_task_is_conclusive", "_get_current_databricks_task", "_defer_on_run",
    "_log_task_state", "_handle_terminal_run_state", "submit_job", "get_job_status", "is_job_active",
    "is_job_succeeded", "poll_until_complete", "get_job_result", "execute_resumable",
)  # fmt: skip
REFUSED = {
    **dict.fromkeys(
        _CONNECTING, "Set time limits and retries in the connection, and the connection by databricks_conn_id"
    ),
    **dict.fromkeys(
        _BUILDING, "Set self.json or a parameter's attribute in __init__, or in execute before super().execute(context)"
    ),
    **dict.fromkeys(
        _TASKS,
        "Set the parameters in __init__, or override databricks_task, which returns the settings of the task in a"
        " workflow group",
    ),
    **dict.fromkeys(_KEYS, "Pass databricks_task_key to the constructor"),
    **dict.fromkeys(
        _WAITING, "Override execute: super().execute(context) returns the result, or raises errors.RunFailed"
    ),
    "_databricks_workflow_task_group": "Use workflow_group",
}


def refuse_overrides(operator: type) -> None:
    """Raise ConfigurationError if a user's class, or one that it inherits from, has an official method."""
    for name, instead in REFUSED.items():
        if hasattr(operator, name):
            from airflow_dbjobs.errors import ConfigurationError

            raise ConfigurationError(
                f"{operator.__qualname__} overrides {name} of the official provider's operators, which nothing here"
                f" calls. {instead}. If {name} is a method of your own, rename it."
            )
