"""The modules of the Databricks Runtime that programs import, and what it adds to those of Spark."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.local_workspace.engine.spark_session import LazySession

from .dbutils import DBUtils
from .display import display
from .errors import Missing
from .names import provided_names
from .redirects import redirect_files

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import ModuleType

_NO_DELTA_TABLE = ": it needs Java; MERGE INTO, UPDATE and DELETE in SQL, and DataFrame.mergeInto, work on Delta tables"


def provide(program: dict[str, Any], folder: Path) -> DBUtils:
    """Let a program import the modules of the Databricks Runtime; return its `dbutils`.

    `databricks.sdk.runtime` and `pyspark.dbutils` are ours, also where the packages around them are installed: the
    SDK's own would sign in to a workspace in the cloud. The others are for machines without these packages.
    """
    dbutils = DBUtils(folder, program)
    root = Path(program["root"])
    redirect_files(root)

    def runtime() -> dict[str, Any]:
        return provided_names(dbutils)

    class TheDBUtils:
        """Stands for the class DBUtils, whose only object is that of the program."""

        def __new__(cls, *_: object) -> Any:
            return dbutils

    overrides = {"databricks.sdk.runtime": runtime, "pyspark.dbutils": lambda: {"DBUtils": TheDBUtils}}
    sys.meta_path[:0] = [_Modules(overrides), _Spark(root)]
    sys.meta_path.append(_Modules(_FALLBACKS))
    return dbutils


def _databricks_connect() -> dict[str, Any]:
    class Builder:
        """Takes any options, as there is one Spark only."""

        def getOrCreate(self) -> Any:
            return LazySession().session()

        def __getattr__(self, name: str) -> Callable[..., Builder]:
            return lambda *_, **__: self

    return {"DatabricksSession": SimpleNamespace(builder=Builder())}


#: What to import where the real packages are not installed.
_FALLBACKS: dict[str, Callable[[], dict[str, Any]]] = {
    "databricks": dict,
    "databricks.connect": _databricks_connect,
    "databricks.sdk": lambda: {"WorkspaceClient": Missing("WorkspaceClient", ": install databricks-sdk")},
    # Many programs import it that do not need it for what they do.
    "delta": lambda: {"DeltaTable": Missing("DeltaTable", _NO_DELTA_TABLE)},
    "delta.tables": lambda: {"DeltaTable": Missing("DeltaTable", _NO_DELTA_TABLE)},
}


class _Modules:
    """A finder and loader of modules whose content functions return."""

    def __init__(self, contents: Mapping[str, Callable[[], dict[str, Any]]]) -> None:
        self._contents = contents

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return ModuleSpec(name, self, is_package=True) if name in self._contents else None  # type: ignore[arg-type] # for the import system this suffices

    def create_module(self, spec: ModuleSpec) -> None:
        """Let Python create the module."""

    def exec_module(self, module: ModuleType) -> None:
        vars(module).update(self._contents[module.__name__]())


def _complete_dataframes(module: ModuleType) -> None:
    module.DataFrame.display = display


def _complete_plans(module: ModuleType, root: Path) -> None:
    # Imported here, as programs without Spark should start fast.
    from .spark_plans import complete_plans

    complete_plans(module, root)


def _complete_sessions(module: ModuleType) -> None:
    # `@udf("long")` needs a session, also if it is what a program does first.
    module.SparkSession.active = classmethod(lambda _: LazySession().session())


class _Spark:
    """A finder that changes modules of Spark when a program imports them, so that they are as on Databricks."""

    def __init__(self, root: Path) -> None:
        self._changes: dict[str, Callable[[ModuleType], None]] = {
            "pyspark.sql.connect.dataframe": _complete_dataframes,
            "pyspark.sql.connect.plan": lambda module: _complete_plans(module, root),
            "pyspark.sql.connect.session": _complete_sessions,
        }

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        change = self._changes.get(name)
        spec = PathFinder.find_spec(name, path) if change else None
        if change and spec and spec.loader:
            execute = spec.loader.exec_module

            def execute_and_change(module: ModuleType) -> None:
                execute(module)
                change(module)

            spec.loader.exec_module = execute_and_change  # type: ignore[method-assign] # of this loader only
        return spec
