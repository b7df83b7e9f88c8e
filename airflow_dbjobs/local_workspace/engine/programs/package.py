"""The program of a `python_wheel_task`: an entry point of an installed package."""

from __future__ import annotations

import importlib
import sys
from importlib import metadata
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.local_workspace.engine.runtime.modules import provide

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def run(program: dict[str, Any], folder: Path) -> None:
    """Call the entry point with the arguments in `sys.argv`."""
    provide(program, folder)
    sys.argv = [program["package"], *program["arguments"]]
    _function(program["package"], program["entry_point"])()


def _function(package: str, name: str) -> Callable[[], object]:
    """Return what Databricks would call: the entry point in the package's metadata, else a function in the package."""
    try:
        named = metadata.distribution(package).entry_points.select(name=name)
    except metadata.PackageNotFoundError:
        named = metadata.EntryPoints()
    for entry_point in named:
        function: Callable[[], object] = entry_point.load()
        return function
    module_name = package.replace("-", "_")
    try:
        function = getattr(importlib.import_module(module_name), name)
    except ModuleNotFoundError as error:
        if error.name != module_name:
            raise
        message = f"There is no package {package!r} here; name its wheel in the task's libraries."
        raise ModuleNotFoundError(message, name=module_name) from None
    return function
