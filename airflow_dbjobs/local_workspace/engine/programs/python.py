"""The program of a `spark_python_task`: a Python file."""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path
from typing import Any

from airflow_dbjobs.local_workspace.engine.runtime.modules import provide


def run(program: dict[str, Any], folder: Path) -> None:
    """Run a Python file as `python FILE ARGUMENTS` would."""
    provide(program, folder)
    file = program["file"]
    # The user's code must not inherit the __future__ imports of this module.
    code = compile(Path(file).read_bytes(), file, "exec", dont_inherit=True)
    exec(code, main_namespace(program))


def main_namespace(program: dict[str, Any]) -> dict[str, Any]:
    """Return the namespace of a new `__main__` for a file, with its folder as the working directory."""
    file = program["file"]
    os.chdir(Path(file).parent)
    sys.path.insert(0, str(Path(file).parent))
    sys.argv = [file, *program["arguments"]]
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    main.__file__ = file
    return main.__dict__
