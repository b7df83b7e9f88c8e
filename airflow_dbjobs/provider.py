"""The description of this provider, which each of Airflow's processes reads: plain data, cheap to import."""

from __future__ import annotations

from typing import Any

from airflow_dbjobs import __version__
from airflow_dbjobs.hooks.fields import CONNECTION_TYPE, HOOK_NAME, UI_FIELD_BEHAVIOUR


def get_provider_info() -> dict[str, Any]:
    """Return the provider's description, as Airflow's provider_info.schema.json defines it."""
    from airflow_dbjobs.hooks.form import conn_fields

    integration = "Databricks Jobs"
    return {
        "package-name": "airflow-dbjobs",
        "name": "Databricks Jobs",
        "description": "Launches, watches and explains runs of the Databricks Jobs API.",
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": integration,
                "external-doc-url": "https://docs.databricks.com/api/workspace/jobs",
                "tags": ["service"],
            }
        ],
        "hooks": [{"integration-name": integration, "python-modules": ["airflow_dbjobs.hooks"]}],
        "operators": [{"integration-name": integration, "python-modules": ["airflow_dbjobs.operators"]}],
        "sensors": [{"integration-name": integration, "python-modules": ["airflow_dbjobs.sensors"]}],
        "triggers": [{"integration-name": integration, "python-modules": ["airflow_dbjobs.triggers"]}],
        "task-decorators": [
            {"name": "databricks_submit", "class-name": "airflow_dbjobs.operators.taskflow.databricks_submit_task"},
            {"name": "databricks_python", "class-name": "airflow_dbjobs.operators.taskflow.databricks_python_task"},
        ],
        "extra-links": ["airflow_dbjobs.links.DatabricksRunLink"],
        "config": {
            CONNECTION_TYPE: {
                "description": "Databricks jobs.",
                "options": {
                    "payload_mistakes": {
                        "description": (
                            "How to treat mistakes in the payloads of operators.\n"
                            "off: do not check payloads.\n"
                            "warn: warn when the DAG is parsed, and fail the task when it runs.\n"
                            "error: a mistake is an import error of the DAG file, except that a job_id which may be a"
                            " placeholder (0, negative, not a number) is treated as with warn.\n"
                            "strict: like error, but also for placeholders and for everything that is otherwise a"
                            " warning, such as misspelt names."
                        ),
                        "version_added": __version__,
                        "type": "string",
                        "example": "strict",
                        "default": "error",
                    },
                    "deployment": {
                        "description": (
                            "A name that distinguishes the runs of this deployment from those of another deployment"
                            " that uses the same workspace.\nOnly deployments whose databases are copies of each other"
                            " need one."
                        ),
                        "version_added": __version__,
                        "type": "string",
                        "example": "staging",
                        "default": "",
                    },
                },
            }
        },
        "connection-types": [
            {
                "connection-type": CONNECTION_TYPE,
                "hook-class-name": "airflow_dbjobs.hooks.DatabricksJobsHook",
                "hook-name": HOOK_NAME,
                "ui-field-behaviour": UI_FIELD_BEHAVIOUR,
                "conn-fields": conn_fields(),
            }
        ],
    }
