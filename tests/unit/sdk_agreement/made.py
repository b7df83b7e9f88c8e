"""What the two clients are asked to make."""

from __future__ import annotations

from typing import Any

CONDITION = {"op": "EQUAL_TO", "left": "1", "right": "1"}
# A task that needs no program: it is over at once.
TASK = {"condition_task": CONDITION}
SMALL = {"name": "small", "tasks": [{"task_key": "a", **TASK}]}
# A run of such a job is active until somebody cancels it.
STUCK = {**SMALL, "name": "stuck", "max_concurrent_runs": 0, "queue": {"enabled": True}}

CLUSTER = {"spark_version": "15.4.x-scala2.12", "node_type_id": "Standard_DS3_v2", "num_workers": 2}
FULL: dict[str, Any] = {
    "name": "full",
    "description": "all that a job may have",
    "tags": {"team": "a"},
    "timeout_seconds": 600,
    "max_concurrent_runs": 5,
    "queue": {"enabled": True},
    "parameters": [{"name": "day", "default": "monday"}],
    "schedule": {"quartz_cron_expression": "0 0 5 * * ?", "timezone_id": "UTC", "pause_status": "PAUSED"},
    "job_clusters": [{"job_cluster_key": "shared", "new_cluster": CLUSTER}],
    "environments": [{"environment_key": "default", "spec": {"client": "1", "dependencies": ["simplejson==3.19"]}}],
    "email_notifications": {"on_failure": ["a@b.example"]},
    "webhook_notifications": {"on_failure": [{"id": "hook"}]},
    "notification_settings": {"no_alert_for_skipped_runs": True},
    "tasks": [
        {"task_key": "check", **TASK},
        {
            "task_key": "load",
            "depends_on": [{"task_key": "check", "outcome": "true"}],
            "notebook_task": {"notebook_path": "/good", "base_parameters": {"x": "y"}},
            "job_cluster_key": "shared",
            "libraries": [{"pypi": {"package": "simplejson"}}],
        },
        {"task_key": "break", "notebook_task": {"notebook_path": "/bad"}, "max_retries": 0},
    ],
}
HEALTH = {"rules": [{"metric": "RUN_DURATION_SECONDS", "op": "GREATER_THAN", "value": 10}]}


def large(count: int) -> dict[str, Any]:
    """Return a job whose arrays come in several pages."""
    return {
        "name": "large",
        "tasks": [{"task_key": f"t{number:03}", **TASK} for number in range(count)],
        "parameters": [{"name": f"p{number:03}", "default": "1"} for number in range(120)],
        "job_clusters": [{"job_cluster_key": f"c{number}", "new_cluster": CLUSTER} for number in range(3)],
        "environments": [{"environment_key": f"e{number}", "spec": {"client": "1"}} for number in range(3)],
    }
