"""What Airflow reads about this provider in every one of its processes: plain data, importing nothing heavy."""

from __future__ import annotations

from typing import Any

from airflow_dbjobs import __version__
from airflow_dbjobs.hooks.fields import CONNECTION_TYPE, HOOK_NAME, UI_FIELD_BEHAVIOUR


def get_provider_info() -> dict[str, Any]:
    """Return the provider's description, in the shape of Airflow's provider_info.schema.json."""
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
        "triggers": [
            {
                "integration-name": integration,
                "python-modules": ["airflow_dbjobs.triggers"],
            }
        ],
        "extra-links": ["airflow_dbjobs.links.DatabricksRunLink"],
        "config": {
            CONNECTION_TYPE: {
                "description": "Databricks jobs.",
                "options": {
                    "payload_mistakes": {
                        "description": (
                            "What becomes of mistakes in the payloads of operators.\n"
                            "off: payloads are not checked.\n"
                            "warn: a mistake is a warning when the DAG is parsed, and an error when the task runs.\n"
                            "error: a mistake is an import error of the DAG file; only a job_id that may be a"
                            " placeholder (0, negative, not a number) is as with warn.\n"
                            "strict: as error, for placeholders and for all that is a warning otherwise, such as"
                            " misspelt names."
                        ),
                        "version_added": __version__,
                        "type": "string",
                        "example": "strict",
                        "default": "error",
                    },
                    "deployment": {
                        "description": (
                            "A name that tells this deployment's runs from those of another one which uses the same"
                            " workspace.\nOnly deployments whose databases are copies of each other need one."
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
