"""The shape of job and run settings: flat (API 2.0, one task spread over the top level) or with an array of tasks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from airflow_dbjobs.local_workspace.messages import Json

#: Task parameters that run-now may override.
OVERRIDES: Final = frozenset(
    {
        "jar_params", "notebook_params", "python_params", "spark_submit_params", "python_named_params",
        "pipeline_params", "sql_params", "dbt_commands",
    }
)  # fmt: skip
#: Parameters of a run. The cloud treats empty ones as absent.
RUN_PARAMETERS: Final = OVERRIDES | {"job_parameters"}
#: The fields of a task that flat settings have at the top level, next to the task's payload.
_FLAT_TASK_FIELDS: Final = frozenset(
    {
        "existing_cluster_id", "new_cluster", "libraries", "max_retries", "min_retry_interval_millis",
        "retry_on_timeout", "environment_key",
    }
)  # fmt: skip


def payload_fields(task: Json) -> list[str]:
    """Return the names of the payloads (`notebook_task`, ...) in a task or in flat settings."""
    return [name for name in task if name.endswith("_task")]


def is_flat(settings: Json) -> bool:
    """Return whether settings have the 2.0 shape: one task, spread over the top level."""
    return not settings.get("tasks")


def tasks_of(settings: Json) -> list[Json]:
    """Return the tasks of valid settings. Flat ones have at most one, whose key is derived from the job's name."""
    if not is_flat(settings):
        return list(settings["tasks"])
    if not payload_fields(settings):
        return []
    name = settings.get("run_name") or settings.get("name") or "Untitled"
    fields = {key: value for key, value in settings.items() if key in _FLAT_TASK_FIELDS or key.endswith("_task")}
    return [{"task_key": re.sub(r"[^A-Za-z0-9_-]", "_", name)[:100], **fields}]


def without_tasks(settings: Json) -> Json:
    """Return the settings that concern the whole job or run."""
    flat = is_flat(settings)
    return {
        name: value
        for name, value in settings.items()
        if name != "tasks" and not (flat and (name in _FLAT_TASK_FIELDS or name.endswith("_task")))
    }


def upstream_keys(task: Json) -> list[str]:
    """Return the keys of the tasks that a task depends on."""
    return [item["task_key"] for item in task.get("depends_on", [])]
