"""The `spark` of a task's program: a session that is made when the program first uses it.

Imported by the subprocess of every task, so it imports the standard library only.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

#: What to do where there is no Spark.
MISSING = (
    "this local workspace has no Spark: install an engine for it (pip install 'airflow-dbjobs[spark]') and start the "
    "workspace with --spark auto"
)


def spark_home() -> Path | None:
    """Return the folder of an Apache Spark that can run: with its JARs, which pyspark-client lacks, and a Java."""
    # Imported here, as few programs need them, and every task should start fast.
    import importlib.util
    import shutil

    found = importlib.util.find_spec("pyspark")
    home = Path(found.origin).parent if found and found.origin else None
    return home if home and (home / "jars").is_dir() and shutil.which("java") else None


class NoSparkError(NotImplementedError):
    """A program used `spark` in a workspace without Spark."""

    # Tracebacks show the module of a class; users do not know this one.
    __module__ = "spark"


class LazySession:
    """Stands for the SparkSession, which its first use makes: programs without Spark do not wait for it."""

    def session(self) -> Any:
        """Return the session of this program.

        :raises NoSparkError: The workspace has no engine, or this Python has no pyspark.
        """
        if "SPARK_REMOTE" not in os.environ:
            raise NoSparkError(MISSING)
        try:
            from pyspark.sql import SparkSession
        except ImportError as error:
            raise NoSparkError(f"{MISSING}. Importing pyspark failed: {error}") from error
        return SparkSession.builder.getOrCreate()

    def __getattr__(self, name: str) -> Any:
        # What inspects objects by special names, as copy and doctest do, must start nothing.
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.session(), name)

    def __dir__(self) -> list[str]:
        return dir(self.session())
