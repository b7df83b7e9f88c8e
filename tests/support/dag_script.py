"""DAGs by `dag.test()`, as their authors try them: a script with a database of its own, and no other process."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from typing import TYPE_CHECKING

from airflow_stack import clean_environment, variables_of

if TYPE_CHECKING:
    from pathlib import Path


def run_script(home: Path, dags_folder: Path, connection: str, *arguments: str) -> str:
    """Run Python with these arguments, which must end well, and Airflow in `home`; return all that it prints."""
    settings = {
        "core.dags_folder": str(dags_folder),
        "core.load_examples": "False",
        # Airflow 3.2 does without an API server, and yet not without its secret.
        "api_auth.jwt_secret": secrets.token_hex(32),
        "database.sql_alchemy_conn": f"sqlite:///{home}/airflow.db",
    }
    environment = {
        **clean_environment(),
        **variables_of(settings),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW_CONN_DATABRICKS_DEFAULT": connection,
        "PYTHONPATH": os.pathsep.join([str(dags_folder), *sys.path]),
    }
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert not done.returncode, done.stdout + done.stderr
    return done.stdout + done.stderr
