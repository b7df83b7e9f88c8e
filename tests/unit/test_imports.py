"""What a DAG file imports stays cheap, and what lies below the hook knows nothing of Airflow."""

from __future__ import annotations

import subprocess
import sys
from functools import cache

from airflow_dbjobs.airflow_compat import AIRFLOW_V_3_0_PLUS

HEAVY = (
    "airflow.models", "airflow.providers_manager", "airflow.triggers.base", "airflow_dbjobs.client",
    "airflow_dbjobs.payloads", "airflow_dbjobs.runs", "airflow_dbjobs.triggers", "azure", "databricks", "pydantic",
    "requests", "starlette", "tenacity", "uvicorn",
)  # fmt: skip
# What a DAG file imports: all names of the two packages.
USED = "from airflow_dbjobs.operators import *; from airflow_dbjobs.sensors import *"
# What every DAG file has imported before it imports a provider.
AIRFLOW = "import airflow.sdk" if AIRFLOW_V_3_0_PLUS else "import airflow, airflow.decorators, airflow.sensors.base"
# What a provider cannot do without.
if AIRFLOW_V_3_0_PLUS:
    OPERATOR_BASES = "from airflow.sdk import BaseOperator, BaseOperatorLink, BaseSensorOperator"
else:
    OPERATOR_BASES = "import airflow.models.baseoperator, airflow.models.baseoperatorlink, airflow.sensors.base"


@cache
def added(before: str, then: str) -> set[str]:
    """Return the modules that `then` loads in a new process which has executed `before`."""
    code = f"{before}\nimport sys; was = set(sys.modules)\n{then}\nprint('\\n', *(set(sys.modules) - was))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True, text=True, timeout=60
    )
    return set(done.stdout.splitlines()[-1].split())


class TestImport:
    def test_of_operators_and_sensors_loads_nothing_heavy(self):
        loaded = added(f"{AIRFLOW}\n{OPERATOR_BASES}", USED)
        assert {"airflow_dbjobs.operators.run_now", "airflow_dbjobs.sensors.run", "airflow_dbjobs.links"} <= loaded
        assert loaded & set(HEAVY) == set()

    def test_of_operators_loads_only_their_airflow_base_classes(self):
        loaded = added(f"{AIRFLOW}\n{OPERATOR_BASES}", USED)
        assert {name for name in loaded if name.partition(".")[0] != "airflow_dbjobs"} == set()

    def test_of_the_hook_loads_nothing_heavy(self):
        # Airflow's UI imports it for the connection form, and a DAG file may import it.
        loaded = added(
            f"{AIRFLOW}\nfrom airflow_dbjobs.airflow_compat import BaseHook",
            "from airflow_dbjobs.hooks import DatabricksJobsHook",
        )
        assert "airflow_dbjobs.hooks.jobs" in loaded
        assert loaded & set(HEAVY) == set()

    def test_of_the_client_and_lower_rooms_loads_no_airflow(self):
        loaded = added("", "from airflow_dbjobs.client import JobsClient; JobsClient")
        assert "airflow_dbjobs.client.jobs_client" in loaded
        # Nor a library that authenticates: those are imported when a token is fetched.
        assert {
            name for name in loaded if name.partition(".")[0] in {"airflow", "azure", "botocore", "databricks"}
        } == set()
