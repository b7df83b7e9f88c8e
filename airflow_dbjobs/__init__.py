"""An Airflow provider for the Databricks Jobs API."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__version__ = "0.1.0"

# Airflow's database keeps triggers of deferred tasks by their class paths: modules that have moved are found here, too.
__path__.append(f"{__path__[0]}/triggers/moved")


def lazy_names(modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a package's ``__getattr__`` that imports a name from its module when it is first used.

    `modules` gives the module of each name: what a DAG file imports stays cheap.
    """

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"the package has no attribute {name!r}")
        return getattr(import_module(modules[name]), name)

    return get
