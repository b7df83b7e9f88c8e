"""What a run of the tests leaves on the machine: nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent
#: One that needs Airflow's home, and one that has a folder and starts a program.
SAMPLE = ("test_provider.py", "local_workspace/test_execution.py::TestPythonFile::test_succeeds_on_sys_exit_0")


def test_no_folder_is_left_in_the_temporary_directory(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTEST_"))} | {
        "TMPDIR": str(tmp_path)
    }
    command = [sys.executable, "-m", "pytest", "-q", "-n", "1", *(str(TESTS / name) for name in SAMPLE)]
    done = subprocess.run(command, env=environment, cwd=TESTS.parents[1], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    # pytest keeps the place of its own folders, which is empty.
    assert [path.name for path in tmp_path.rglob("*") if not path.name.startswith("pytest-of-")] == []
