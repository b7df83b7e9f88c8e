"""A program that is a list of commands, such as those of a `dbt_task`."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.local_workspace.engine.task_files import fail

if TYPE_CHECKING:
    from pathlib import Path


def run(program: dict[str, Any], folder: Path) -> None:
    """Run commands in order, and stop at the first that fails."""
    for command in program["commands"]:
        if shutil.which(command[0]) is None:
            fail(folder, "INVALID_RUN_CONFIGURATION", program["if_missing"])
        print(f"$ {shlex.join(command)}", flush=True)
        environment = {**os.environ, **program["environment"]}
        code = subprocess.run(command, check=False, cwd=program["working_folder"], env=environment).returncode
        if code:
            sys.exit(f"`{shlex.join(command)}` ended with code {code}")
