"""What a DAG file imports stays cheap, and what lies below the hook knows nothing of Airflow."""

from __future__ import annotations

import subprocess
import sys

from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

HEAVY = (
    "airflow.models", "airflow.providers_manager", "airflow.triggers.base", "airflow_dbjobs.auth",
    "airflow_dbjobs.client", "airflow_dbjobs.jobs", "airflow_dbjobs.launch", "airflow_dbjobs.looking",
    "airflow_dbjobs.exchange", "airflow_dbjobs.network", "airflow_dbjobs.payloads", "airflow_dbjobs.poller",
    "airflow_dbjobs.retries", "airflow_dbjobs.sensing", "airflow_dbjobs.sensor_trigger", "airflow_dbjobs.transport",
    "airflow_dbjobs.triggers", "airflow_dbjobs.waiting", "airflow_dbjobs.wire", "azure", "databricks", "pydantic",
    "requests", "starlette", "tenacity", "uvicorn",
)  # fmt: skip
# What every DAG file has imported before it imports a provider.
AIRFLOW = "import airflow.sdk" if AIRFLOW_V_3_0_PLUS else "import airflow, airflow.decorators, airflow.sensors.base"
# Which Airflow loads with its operators in any case.
OPERATOR_BASES = (
    "from airflow.providers.common.compat.sdk import BaseOperator, BaseOperatorLink, BaseSensorOperator, conf"
)


def added(before: str, then: str) -> set[str]:
    """Return the modules that `then` loads in a new process which has executed `before`."""
    code = f"{before}\nimport sys; was = set(sys.modules)\n{then}\nprint('\\n', *(set(sys.modules) - was))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True, text=True, timeout=60
    )
    return set(done.stdout.splitlines()[-1].split())


def test_operators_and_sensors_load_nothing_heavy():
    loaded = added(f"{AIRFLOW}\n{OPERATOR_BASES}", "import airflow_dbjobs.operators, airflow_dbjobs.sensors")
    assert {"airflow_dbjobs.operators", "airflow_dbjobs.sensors", "airflow_dbjobs.links"} <= loaded
    assert loaded & set(HEAVY) == set()


def test_operators_and_sensors_load_no_more_of_airflow_than_their_own_base_classes():
    loaded = added(f"{AIRFLOW}\n{OPERATOR_BASES}", "import airflow_dbjobs.operators, airflow_dbjobs.sensors")
    assert {name for name in loaded if name.partition(".")[0] != "airflow_dbjobs"} == set()


def test_the_hook_loads_nothing_heavy():
    # Airflow's UI imports it for the connection form, and a DAG file may import it.
    loaded = added(
        f"{AIRFLOW}\nfrom airflow.providers.common.compat.sdk import BaseHook", "import airflow_dbjobs.hooks"
    )
    assert "airflow_dbjobs.hooks" in loaded
    assert loaded & set(HEAVY) == set()


def test_the_client_loads_nothing_that_reads_a_connection():
    schemes = "aws, azure, databricks, headers, kubernetes, sdk"
    loaded = added("", f"import airflow_dbjobs.client\nfrom airflow_dbjobs.auth import {schemes}")
    hooks = {"auth.choice", "connection_check", "connection_form", "extras", "fields", "hooks"}
    assert loaded & {f"airflow_dbjobs.{room}" for room in hooks} == set()


def test_the_client_and_all_below_it_load_no_airflow():
    rooms = (
        "answer_fields", "asking", "auth", "causes", "client", "connection_check", "connection_form", "dag_params",
        "errors", "events", "exchange", "extras", "failures", "fields", "jobs", "launch", "listing",
        "looking", "network", "pace", "paging", "payloads", "poller", "previous_runs", "repairs", "replies", "results",
        "retries", "runs", "sensing", "settings_diff", "story", "texts", "threads", "transport", "waiting", "watched",
        "wire", "workspace",
    )  # fmt: skip
    loaded = added("", f"import {', '.join(f'airflow_dbjobs.{room}' for room in rooms)}")
    assert "airflow_dbjobs.client" in loaded
    # Nor a library that signs in: those are imported when a token is fetched.
    assert {
        name for name in loaded if name.partition(".")[0] in {"airflow", "azure", "botocore", "databricks"}
    } == set()
